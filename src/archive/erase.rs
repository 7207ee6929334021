//! Erases the rows of a post: the data files that held them are written anew without them. Nothing that was signed is
//! rewritten; that rows were erased is appended.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;

use super::digest::{self, Listed};
use super::folder::{Folder, signed_on};
use super::manifest::{Erased, ErasedFile, ErasedRow, Standing, What};
use super::{ArchiveError, now};
use crate::evidence::key::SigningKey;
use crate::files::{self, Row, Sheet, Writer};

/// Whose rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whose {
    /// Of records with this key.
    Key(Vec<u8>),
    /// Of verdicts on this post, whatever their key is, and of tombstones with that key.
    Post(String),
}

impl Whose {
    fn are(&self, row: &Row) -> bool {
        #[derive(Deserialize)]
        struct Subject {
            subject: String,
        }
        let key = row.key.as_deref();
        match self {
            Whose::Key(wanted) => key == Some(wanted),
            Whose::Post(id) => match &row.value {
                None => key == Some(id.as_bytes()),
                Some(value) => serde_json::from_slice::<Subject>(value).is_ok_and(|value| value.subject == *id),
            },
        }
    }
}

/// What was erased.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ErasedRows {
    /// Rows.
    pub rows: usize,
    /// Data files that were written anew, or removed because nothing was left of them.
    pub files: usize,
    /// What the next entry of the manifest follows on.
    pub head: String,
}

/// Erases the rows. `progress` hears of every row that is looked at.
pub fn erase(
    path: &Path,
    whose: &Whose,
    reason: &str,
    key: Option<&SigningKey>,
    mut progress: impl FnMut(),
) -> Result<ErasedRows, ArchiveError> {
    if !path.is_dir() {
        return Err(ArchiveError::Asked(format!("{} is no folder", path.display())));
    }
    let mut folder = Folder::hold(path)?;
    let Some(mut manifest) = folder.manifest.take() else {
        return Err(ArchiveError::Asked(format!("{} is no archive: it has no manifest.json", path.display())));
    };
    signed_on(&manifest, key)?;
    let mut files = Vec::new();
    let mut old = Vec::new();
    for (digests, standing) in manifest.standing() {
        let rows = found(path, &digests, &standing, whose, &mut progress)?;
        let Some((data, _)) = standing.data.as_ref().filter(|_| !rows.is_empty()) else { continue };
        old.push(path.join(data));
        files.push(without(path, &digests, &standing, rows, manifest.log.len())?);
    }
    let rows = files.iter().map(|file| file.rows.len()).sum();
    let count = files.len();
    if count > 0 {
        let erased = Erased { reason: reason.to_owned(), files };
        manifest.append(What::Erased(erased), now(), key)?;
        folder.save(&manifest)?;
    }
    for data in old {
        fs::remove_file(&data).map_err(|cause| ArchiveError::unwritten(&data, cause))?;
    }
    Ok(ErasedRows { rows, files: count, head: manifest.head() })
}

/// The rows that are to go, by their digests' places.
fn found(
    path: &Path,
    digests: &str,
    standing: &Standing,
    whose: &Whose,
    progress: &mut impl FnMut(),
) -> Result<BTreeMap<u64, String>, ArchiveError> {
    let (mut wanted, Some((data, _))) = (Vec::new(), &standing.data) else { return Ok(BTreeMap::new()) };
    files::records(&path.join(data), |at, row| {
        progress();
        if whose.are(&row) {
            wanted.push((at.to_string(), digest::of_row(&row)));
        }
        Ok::<(), ArchiveError>(())
    })?;
    if wanted.is_empty() {
        return Ok(BTreeMap::new());
    }
    let listed = Listed::load(&path.join(digests))?;
    let place = |(at, sum): (String, digest::Sum)| {
        let place = listed.place(&sum).ok_or_else(|| {
            ArchiveError::Asked(format!("{at}: is not the row that was archived; `moderato archive verify` first"))
        })?;
        Ok((place as u64, sum.to_string()))
    };
    wanted.into_iter().map(place).collect()
}

/// The data file without these rows.
fn without(
    path: &Path,
    digests: &str,
    standing: &Standing,
    rows: BTreeMap<u64, String>,
    seq: usize,
) -> Result<ErasedFile, ArchiveError> {
    let left = standing.rows > (standing.erased.len() + rows.len()) as u64;
    let name = format!("{}-{seq:06}.parquet", digests.trim_end_matches(".digests"));
    let mut data = None;
    if let (true, Some((before, _))) = (left, &standing.data) {
        let gone: std::collections::BTreeSet<&String> = rows.values().collect();
        let mut writer = Writer::create(&path.join(&name), Sheet::Archive)?;
        files::records(&path.join(before), |_, row| {
            if !gone.contains(&digest::of_row(&row).to_string()) {
                writer.add(&row)?;
            }
            Ok::<(), ArchiveError>(())
        })?;
        writer.close()?;
        data = Some(name);
    }
    let sum = data.as_ref().map(|name| digest::of_file(&path.join(name))).transpose()?;
    let rows = rows.into_iter().map(|(row, digest)| ErasedRow { row, digest }).collect();
    Ok(ErasedFile { digests: digests.to_owned(), rows, data, data_sha256: sum.map(|sum| sum.to_string()) })
}
