//! Records in files: JSON Lines, and Parquet. A folder is read in the order of its names.
//!
//! A line of JSON Lines is a record's value and nothing more. Parquet keeps of a record what [`Row`] says, and columns
//! that were drawn out of the value, for queries; of somebody else's Parquet, a row is a value in the column `value`, or
//! a post in columns that are named as the fields of `post.v1` are.

mod columns;
mod posts;
mod read;
mod write;

use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::receipt::Partition;

pub use self::write::{Sheet, Writer, replace};

/// A record as a file keeps it. JSON Lines know the value alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Row {
    /// The record's key.
    pub key: Option<Vec<u8>>,
    /// Topic that it stood on.
    pub topic: Option<String>,
    /// Partition that it stood in.
    pub partition: Option<Partition>,
    /// Its offset.
    pub offset: Option<i64>,
    /// Its timestamp, milliseconds since the Unix epoch.
    pub timestamp_ms: Option<i64>,
    /// Its headers that are text, as one JSON object.
    pub headers: Option<String>,
    /// The value, byte for byte; in an archive a verdict's whole event, however it was published. `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// In an archive: what makes the row's digest tell nothing once the row is gone.
    pub salt: Option<Vec<u8>>,
}

/// Where in which file: the first line, and the first row, is 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct At {
    file: PathBuf,
    what: &'static str,
    number: u64,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, what, number } = self;
        write!(f, "{}, {what} {number}", file.display())
    }
}

/// Why files could not be read or written.
#[derive(Debug, Error)]
pub enum FileError {
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
    /// Neither a known ending nor a folder.
    #[error("{}: is neither .jsonl nor .parquet, nor a folder with such files, nor - for standard input", .0.display())]
    Unknown(PathBuf),
    /// A folder without anything to read.
    #[error("{}: has no .jsonl or .parquet file", .0.display())]
    Empty(PathBuf),
    /// No Parquet, or one that is damaged.
    #[error("{}{}: {cause}", .path.display(), .row.map(|row| format!(", row {row}")).unwrap_or_default())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// The row, where it is known.
        row: Option<u64>,
        /// What is wrong.
        cause: String,
    },
}

impl FileError {
    fn system(path: &Path, what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |cause| Self::System { path: path.to_owned(), what, cause }
    }
}

#[derive(Clone, Copy)]
enum Form {
    Lines,
    Parquet,
}

impl Form {
    fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "jsonl" => Some(Self::Lines),
            "parquet" => Some(Self::Parquet),
            _ => None,
        }
    }
}

/// Hands over every record of a file or a folder; `-` is standard input, JSON Lines.
pub fn records<E: From<FileError>>(path: &Path, mut each: impl FnMut(&At, Row) -> Result<(), E>) -> Result<(), E> {
    if path == Path::new("-") {
        return lines(path, &mut io::stdin().lock(), &mut each);
    }
    for file in listed(path)? {
        match Form::of(&file) {
            Some(Form::Parquet) => read::rows(&file, &mut each)?,
            _ => {
                let opened = File::open(&file).map_err(FileError::system(&file, "read"))?;
                lines(&file, &mut BufReader::new(opened), &mut each)?;
            }
        }
    }
    Ok(())
}

/// The files that a path stands for, in the order of their names.
pub fn listed(path: &Path) -> Result<Vec<PathBuf>, FileError> {
    let about = fs::metadata(path).map_err(FileError::system(path, "read"))?;
    if !about.is_dir() {
        return Form::of(path).map(|_| vec![path.to_owned()]).ok_or_else(|| FileError::Unknown(path.to_owned()));
    }
    let mut found = Vec::new();
    walk(path, &mut found)?;
    if found.is_empty() { Err(FileError::Empty(path.to_owned())) } else { Ok(found) }
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) -> Result<(), FileError> {
    let unread = |cause| FileError::System { path: folder.to_owned(), what: "read", cause };
    let entries = fs::read_dir(folder).map_err(unread)?.collect::<Result<Vec<_>, _>>().map_err(unread)?;
    let mut paths: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
    paths.sort_unstable();
    for path in paths {
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if path.is_dir() && !hidden {
            walk(&path, found)?;
        } else if Form::of(&path).is_some() && !hidden {
            found.push(path);
        }
    }
    Ok(())
}

fn lines<E: From<FileError>>(
    path: &Path,
    input: &mut dyn BufRead,
    each: &mut impl FnMut(&At, Row) -> Result<(), E>,
) -> Result<(), E> {
    let mut at = At { file: path.to_owned(), what: "line", number: 0 };
    loop {
        let mut line = Vec::new();
        if input.read_until(b'\n', &mut line).map_err(FileError::system(path, "read"))? == 0 {
            return Ok(());
        }
        at.number += 1;
        let value = line.trim_ascii();
        if !value.is_empty() {
            each(&at, Row { value: Some(value.to_vec()), ..Row::default() })?;
        }
    }
}

#[cfg(test)]
mod tests;
