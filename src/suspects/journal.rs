//! What one model thread runs right now, in a file that outlives the process.

use std::fmt::Write as _;
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use tracing::warn;

use crate::verdict::VerdictKey;

const EXTENSION: &str = "journal";

/// The keys of the rows that are being run, one a line. Its lock is held for the life of the process that writes it: a
/// journal whose lock can be had belongs to a process that has ended.
pub struct Journal {
    file: File,
    path: PathBuf,
    lines: String,
    /// A write failed and was told of: once is enough.
    told: bool,
}

impl Journal {
    pub(super) fn create(folder: &Path) -> io::Result<Self> {
        for n in 0.. {
            let path = folder.join(format!("{n}.{EXTENSION}"));
            match File::options().write(true).create_new(true).open(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                created => {
                    let file = created?;
                    file.try_lock()?;
                    return Ok(Self { file, path, lines: String::new(), told: false });
                }
            }
        }
        Err(io::Error::other("no name is left for a journal"))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Rows are about to be run.
    pub fn enter<'a>(&mut self, keys: impl Iterator<Item = &'a VerdictKey>) {
        self.lines.clear();
        for key in keys {
            // Writing to a string cannot fail.
            let _ = writeln!(self.lines, "{key}");
        }
        let written = self.file.write_all_at(self.lines.as_bytes(), 0);
        self.tell(written);
    }

    /// The run is over, and the process lives.
    pub fn leave(&mut self) {
        let emptied = self.file.set_len(0);
        self.tell(emptied);
    }

    /// A full disk must not stop the judging; a post that ends the process now is not known to the next one.
    fn tell(&mut self, outcome: io::Result<()>) {
        if let (Err(error), false) = (outcome, self.told) {
            self.told = true;
            warn!(%error, journal = %self.path.display(), "cannot note what runs; a post that ends the worker will not be found");
        }
    }
}

/// A journal that no living process holds.
pub(super) struct Orphan {
    pub path: PathBuf,
    /// What was running when its process ended.
    pub keys: Vec<VerdictKey>,
}

pub(super) fn orphans(folder: &Path) -> io::Result<Vec<Orphan>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == EXTENSION) {
            match File::open(&path)?.try_lock() {
                // A process that was ended while it wrote may have left half a line.
                Ok(()) => {
                    let keys = fs::read(&path)?.split(|byte| *byte == b'\n').filter_map(VerdictKey::from_hex).collect();
                    found.push(Orphan { path, keys });
                }
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    }
    Ok(found)
}
