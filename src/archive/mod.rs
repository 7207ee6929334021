//! Verdicts kept for good: Parquet files by day, and a manifest that shows whether they are what was archived.
//!
//! ```text
//! FOLDER/manifest.json                        a log, each entry bound to the one before and signed
//! FOLDER/date=2026-11-22/verdicts-000000.parquet   rows, each with a salt
//! FOLDER/date=2026-11-22/verdicts-000000.digests   the digest of each row: signed by way of the manifest, never rewritten
//! ```
//!
//! A row is erased by writing its data file anew, under another name, without it: its digest stays in the list, and an
//! entry in the log says that it was erased. The manifest is replaced in one step, and a file that it does not name is
//! not part of the archive: whatever a process that was killed left behind is removed by the next that writes.

mod digest;
mod erase;
mod folder;
mod manifest;
mod take;
mod verify;

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::files::FileError;
use crate::kafka::range::ReadError;

pub use self::erase::{ErasedRows, Whose, erase};
pub use self::manifest::ManifestV1;
pub use self::take::{Request, Taken, take};
pub use self::verify::{Findings, verify};

/// Why an archive could not be written or read.
#[derive(Debug, Error)]
pub enum ArchiveError {
    /// The topic.
    #[error(transparent)]
    Topic(#[from] ReadError),
    /// A data file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The system refused.
    #[error("{}: cannot be {what}: {cause}", .path.display())]
    System {
        /// File or folder.
        path: PathBuf,
        /// `read`, `written`, ...
        what: &'static str,
        /// The system's word.
        cause: io::Error,
    },
    /// A file is not what it should be.
    #[error("{}: {what}", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// In which way.
        what: String,
    },
    /// What was asked for makes no sense here: the command line must be mended.
    #[error("{0}")]
    Asked(String),
    /// A defect.
    #[error("{0}")]
    Internal(String),
}

impl ArchiveError {
    fn unread(path: &Path, cause: io::Error) -> Self {
        Self::System { path: path.to_owned(), what: "read", cause }
    }

    fn unwritten(path: &Path, cause: io::Error) -> Self {
        Self::System { path: path.to_owned(), what: "written", cause }
    }
}

fn now() -> String {
    jiff::Timestamp::now().to_string()
}

#[cfg(test)]
mod tests;
