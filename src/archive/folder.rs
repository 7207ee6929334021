//! The folder of an archive, held by one process at a time.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::ArchiveError;
use super::manifest::{ManifestV1, SCHEMA};
use crate::evidence::key::SigningKey;
use crate::evidence::link::Hex;
use crate::{fault, files};

const MANIFEST: &str = "manifest.json";
const LOCK: &str = ".lock";

/// An archive that this process may write to.
pub(super) struct Folder {
    pub path: PathBuf,
    /// `None` until something was archived.
    pub manifest: Option<ManifestV1>,
    /// Held as long as this is.
    _lock: File,
}

impl Folder {
    /// Takes the folder, which is made if it is not there, and removes what a process that was killed left in it.
    pub fn hold(path: &Path) -> Result<Self, ArchiveError> {
        fs::create_dir_all(path).map_err(|cause| ArchiveError::unwritten(path, cause))?;
        let at = path.join(LOCK);
        let lock = File::create(&at).map_err(|cause| ArchiveError::unwritten(&at, cause))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let what = "another process writes to this archive; try again when it has ended".to_owned();
                return Err(ArchiveError::Damaged { path: path.to_owned(), what });
            }
            Err(TryLockError::Error(cause)) => return Err(ArchiveError::unwritten(&at, cause)),
        }
        let folder = Self { path: path.to_owned(), manifest: load(path)?, _lock: lock };
        for stray in folder.strays()? {
            fs::remove_file(&stray).map_err(|cause| ArchiveError::unwritten(&stray, cause))?;
        }
        Ok(folder)
    }

    fn strays(&self) -> Result<Vec<PathBuf>, ArchiveError> {
        match &self.manifest {
            Some(manifest) => strays(&self.path, manifest),
            None => strays(&self.path, &ManifestV1::begin("", Hex([0; 16]))),
        }
    }

    /// Puts the manifest in place: from now on what it says is so.
    pub fn save(&self, manifest: &ManifestV1) -> Result<(), ArchiveError> {
        let text = serde_json::to_string_pretty(manifest).map_err(|error| ArchiveError::Internal(error.to_string()))?;
        fault::reach(fault::Point::InsideArchive);
        Ok(files::replace(&self.path.join(MANIFEST), text.as_bytes())?)
    }
}

/// The manifest of a folder, if it has one.
pub(super) fn load(folder: &Path) -> Result<Option<ManifestV1>, ArchiveError> {
    let path = folder.join(MANIFEST);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(ArchiveError::unread(&path, cause)),
    };
    let damaged = |what: String| ArchiveError::Damaged { path: path.clone(), what };
    let manifest: ManifestV1 =
        serde_json::from_slice(&text).map_err(|error| damaged(format!("is no archive_manifest.v1: {error}")))?;
    if manifest.schema != SCHEMA {
        return Err(damaged(format!("`schema` is `{}`, not `{SCHEMA}`", manifest.schema)));
    }
    let standing = manifest.standing();
    let names = standing.iter().flat_map(|(digests, one)| [Some(digests), one.data.as_ref().map(|(data, _)| data)]);
    match names.flatten().find(|name| !is_inside(name)) {
        None => Ok(Some(manifest)),
        Some(name) => Err(damaged(format!("names `{name}`, which no archive writes"))),
    }
}

/// Nothing outside the folder is read or removed, whatever a manifest names.
fn is_inside(name: &str) -> bool {
    let Some((day, file)) = name.split_once('/') else { return false };
    day.starts_with("date=") && file.starts_with("verdicts-") && !file.contains(['/', '\\'])
}

/// Files below `date=...` that look like an archive's and are none of this one's.
pub(super) fn strays(folder: &Path, manifest: &ManifestV1) -> Result<Vec<PathBuf>, ArchiveError> {
    let mut known = BTreeSet::new();
    for (digests, standing) in manifest.standing() {
        known.insert(folder.join(digests));
        known.extend(standing.data.map(|(data, _)| folder.join(data)));
    }
    let list = |path: &Path| -> Result<Vec<PathBuf>, ArchiveError> {
        let entries = fs::read_dir(path).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
        entries.map_err(|cause| ArchiveError::unread(path, cause))
    };
    let named = |path: &Path, start: &str| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(start))
    };
    let mut strays = Vec::new();
    for day in list(folder)?.into_iter().filter(|path| path.is_dir() && named(path, "date=")) {
        strays.extend(list(&day)?.into_iter().filter(|path| named(path, "verdicts-") && !known.contains(path)));
    }
    strays.sort_unstable();
    Ok(strays)
}

/// An archive that was signed once is signed on.
pub(super) fn signed_on(manifest: &ManifestV1, key: Option<&SigningKey>) -> Result<(), ArchiveError> {
    if manifest.is_signed() && key.is_none() {
        return Err(ArchiveError::Asked(
            "this archive is signed: give the key, by --signing-key FILE; `archive` takes that of evidence.signing_key_file too".to_owned(),
        ));
    }
    Ok(())
}
