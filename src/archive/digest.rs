//! What a row's digest covers, and the file that lists the digests of a data file's rows.
//!
//! Each row has a salt that stands nowhere but in the row: once the row is erased, nobody can find out by trying what its
//! digest was made of.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::ArchiveError;
use crate::evidence::link::Hex;
use crate::files::Row;

/// SHA-256, hex.
pub type Sum = Hex<32>;

const ROW: &[u8] = b"moderato.archive.v1\0row\0";

/// The digest of a row: salt, then the record's parts in the order of their columns, each behind a 1 and its length in
/// eight bytes, or a 0 where it is null.
pub fn of_row(row: &Row) -> Sum {
    let Row { key, topic, partition, offset, timestamp_ms, headers, value, salt } = row;
    let partition = partition.map(|partition| i64::from(partition).to_be_bytes());
    let (offset, timestamp) = (offset.map(i64::to_be_bytes), timestamp_ms.map(i64::to_be_bytes));
    let parts: [Option<&[u8]>; 8] = [
        salt.as_deref(),
        key.as_deref(),
        topic.as_deref().map(str::as_bytes),
        partition.as_ref().map(|bytes| bytes.as_slice()),
        offset.as_ref().map(|bytes| bytes.as_slice()),
        timestamp.as_ref().map(|bytes| bytes.as_slice()),
        headers.as_deref().map(str::as_bytes),
        value.as_deref(),
    ];
    let mut hasher = Sha256::new().chain_update(ROW);
    for part in parts {
        match part {
            None => hasher.update([0]),
            Some(bytes) => {
                hasher.update([1]);
                hasher.update((bytes.len() as u64).to_be_bytes());
                hasher.update(bytes);
            }
        }
    }
    Hex(hasher.finalize().into())
}

/// The digest of a file's bytes.
pub fn of_file(path: &Path) -> Result<Sum, ArchiveError> {
    let unread = |cause| ArchiveError::unread(path, cause);
    let mut file = fs::File::open(path).map_err(unread)?;
    let mut hasher = Sha256::new();
    std::io::copy(&mut file, &mut hasher).map_err(unread)?;
    Ok(Hex(hasher.finalize().into()))
}

/// The rows of a data file as they were archived: row 0 is the first, whatever was erased since.
pub struct Listed {
    /// In the order of the rows.
    pub rows: Vec<Sum>,
    at: HashMap<Sum, usize>,
}

impl Listed {
    /// One digest a line.
    pub fn load(path: &Path) -> Result<Self, ArchiveError> {
        let text = fs::read_to_string(path).map_err(|cause| ArchiveError::unread(path, cause))?;
        let rows: Result<Vec<Sum>, ()> = text.lines().map(str::parse).collect();
        let rows = rows.map_err(|()| ArchiveError::Damaged {
            path: path.to_owned(),
            what: "is no list of digests, 64 hex digits a line".to_owned(),
        })?;
        let at = rows.iter().enumerate().map(|(index, sum)| (*sum, index)).collect();
        Ok(Self { rows, at })
    }

    /// Which row has this digest.
    pub fn place(&self, sum: &Sum) -> Option<usize> {
        self.at.get(sum).copied()
    }
}
