//! Verdicts to a folder of Parquet: a file can be read only once it is finished, so lines are kept in a journal beside the
//! files, durable one by one, and so many of them become the next file.
//!
//! ```text
//! FOLDER/verdicts-000000.parquet   finished: on disk before it has its name
//! FOLDER/.unfinished.jsonl         what is not in a file yet
//! ```

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use super::filed::{Of, Written, place};
use crate::fault::{self, Point};
use crate::files::{FileError, Row, Sheet, Writer, records};

/// The lines that are in no file yet. Its name hides it from whoever reads the folder.
const JOURNAL: &str = ".unfinished.jsonl";

/// A folder of Parquet files.
pub(super) struct Packed {
    folder: PathBuf,
    /// Most lines of a file.
    most: u64,
    /// The next file's number.
    next: usize,
}

/// Whether a path means Parquet: a folder, or a name that is to be one.
pub(super) fn is_meant(path: &Path) -> bool {
    path.is_dir() || path.extension().is_some_and(|extension| extension == "parquet")
}

/// Where the folder keeps what is in no file yet; makes the folder.
pub(super) fn journal(folder: &Path) -> Result<PathBuf, String> {
    if folder.is_file() {
        return Err(format!("{}: is a file; name a folder, for it takes several files", folder.display()));
    }
    fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    Ok(folder.join(JOURNAL))
}

/// Why a folder cannot be gone on with.
struct Refused(String);

impl From<FileError> for Refused {
    fn from(error: FileError) -> Self {
        Self(error.to_string())
    }
}

impl Packed {
    /// Enters what the finished files hold, and removes what a crash left of one that is not. The journal is locked by now.
    pub(super) fn open(folder: &Path, most: u64, of: Of<'_>, written: &mut Written) -> Result<Self, String> {
        let told = |error: std::io::Error| format!("{}: {error}", folder.display());
        let (mut next, mut finished) = (0, false);
        for entry in fs::read_dir(folder).map_err(told)? {
            let path = entry.map_err(told)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.ends_with(".parquet.part") {
                fs::remove_file(&path).map_err(told)?;
            }
            let number = name.strip_prefix("verdicts-").and_then(|name| name.strip_suffix(".parquet"));
            if let Some(number) = number.and_then(|number| number.parse::<usize>().ok()) {
                next = next.max(number + 1);
            }
            finished |= name != JOURNAL && !name.ends_with(".part");
        }
        if finished {
            let entered = records(folder, |at, row| {
                let value = row.value.unwrap_or_default();
                place(&value, of).map(|place| written.enter(&place)).map_err(|why| Refused(format!("{at}: {why}")))
            });
            entered.map_err(|Refused(why)| why)?;
        }
        Ok(Self { folder: folder.to_owned(), most, next })
    }

    /// Whether so many lines are enough for a file.
    pub(super) fn is_due(&self, lines: u64) -> bool {
        lines >= self.most
    }

    /// Makes the next file of all lines of the journal, which may be emptied then.
    pub(super) fn pack(&mut self, journal: &Path) -> Result<(), String> {
        let told = |error: std::io::Error| format!("{}: {error}", journal.display());
        let path = self.folder.join(format!("verdicts-{:06}.parquet", self.next));
        let mut writer = Writer::create(&path, Sheet::Verdicts).map_err(|error| error.to_string())?;
        let mut lines = BufReader::new(File::open(journal).map_err(told)?);
        loop {
            let mut line = Vec::new();
            if lines.read_until(b'\n', &mut line).map_err(told)? == 0 {
                break;
            }
            line.pop();
            writer.add(&Row { value: Some(line), ..Row::default() }).map_err(|error| error.to_string())?;
        }
        fault::reach(Point::BeforePart);
        writer.close().map_err(|error| error.to_string())?;
        fault::reach(Point::AfterPart);
        self.next += 1;
        Ok(())
    }
}
