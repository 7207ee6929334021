//! Is the archive what was archived? Every row that is there has its digest in the list, every digest without a row has
//! an erasure in the log, and the log is whole.

use std::path::Path;

use super::digest::{self, Listed};
use super::folder::{load, strays};
use super::manifest::Standing;
use super::{ArchiveError, ManifestV1};
use crate::evidence::key::PublicKey;
use crate::files;

/// What was looked at, and what is wrong with it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Entries of the log.
    pub entries: usize,
    /// Of these, signed ones.
    pub signed: usize,
    /// Rows that are there.
    pub rows: u64,
    /// Rows that were erased.
    pub erased: u64,
    /// Partition, first and one past the last offset that retention deleted before they could be archived.
    pub lost: Vec<(i32, i64, i64)>,
    /// Everything that is wrong, each with its file and row.
    pub faults: Vec<String>,
    /// What the next entry of the manifest follows on.
    pub head: String,
}

/// Looks at all of it. With a key, every entry must bear its signature. `progress` hears of every row.
pub fn verify(path: &Path, key: Option<&PublicKey>, mut progress: impl FnMut()) -> Result<Findings, ArchiveError> {
    let Some(manifest) = load(path)? else {
        return Err(ArchiveError::Asked(format!("{} is no archive: it has no manifest.json", path.display())));
    };
    let mut findings = Findings {
        entries: manifest.log.len(),
        signed: manifest.log.iter().filter(|entry| entry.signature.is_some()).count(),
        lost: lost(&manifest),
        faults: manifest.faults(key),
        head: manifest.head(),
        ..Findings::default()
    };
    for (digests, standing) in manifest.standing() {
        findings.erased += standing.erased.len() as u64;
        let file = File { path, digests: &digests, standing: &standing };
        if let Err(error) = file.look(&mut findings, &mut progress) {
            findings.faults.push(error.to_string());
        }
    }
    for stray in strays(path, &manifest)? {
        let left = stray.extension().is_some_and(|ending| ending == "part");
        let why = if left { "was left by a process that ended early" } else { "is not in the manifest" };
        findings.faults.push(format!("{}: {why}; the next archive or erase removes it", stray.display()));
    }
    Ok(findings)
}

fn lost(manifest: &ManifestV1) -> Vec<(i32, i64, i64)> {
    let archived = manifest.log.iter().filter_map(|entry| match &entry.statement.what {
        super::manifest::What::Archived(archived) => Some(&archived.partitions),
        super::manifest::What::Erased(_) => None,
    });
    archived.flatten().filter_map(|one| Some((one.partition, one.lost_from?, one.from))).collect()
}

struct File<'a> {
    path: &'a Path,
    digests: &'a str,
    standing: &'a Standing,
}

impl File<'_> {
    fn look(&self, findings: &mut Findings, progress: &mut impl FnMut()) -> Result<(), ArchiveError> {
        let list = self.path.join(self.digests);
        if digest::of_file(&list)?.to_string() != self.standing.digests_sha256 {
            findings.faults.push(format!("{}: was altered; what its rows were cannot be told", list.display()));
            return Ok(());
        }
        let listed = Listed::load(&list)?;
        let before = findings.faults.len();
        let present = self.rows(&listed, findings, progress)?;
        for (row, there) in present.iter().enumerate() {
            let erased = self.standing.erased.get(&(row as u64));
            let fault = match (there, erased) {
                (false, None) => "is missing: it was removed or altered, and no erasure says so",
                (true, Some(_)) => "is there although the log says that it was erased",
                (false, Some(digest)) if *digest != listed.rows[row].to_string() => {
                    "was erased under another digest than its own"
                }
                _ => continue,
            };
            findings.faults.push(format!("{}, row {}: {fault}", list.display(), row + 1));
        }
        if findings.faults.len() == before {
            self.bytes(findings)?;
        }
        Ok(())
    }

    /// Which of the listed rows are there.
    fn rows(
        &self,
        listed: &Listed,
        findings: &mut Findings,
        progress: &mut impl FnMut(),
    ) -> Result<Vec<bool>, ArchiveError> {
        let mut present = vec![false; listed.rows.len()];
        let Some((data, _)) = &self.standing.data else { return Ok(present) };
        let mut last = None;
        files::records(&self.path.join(data), |at, row| {
            progress();
            findings.rows += 1;
            let fault = match listed.place(&digest::of_row(&row)) {
                None => Some("was altered or inserted: its digest is not in the list"),
                Some(place) if present[place] => Some("is there twice"),
                Some(place) => {
                    present[place] = true;
                    let moved = last.is_some_and(|last| place < last);
                    last = Some(place);
                    moved.then_some("stands in another order than it was archived in")
                }
            };
            findings.faults.extend(fault.map(|fault| format!("{at}: {fault}")));
            Ok::<(), ArchiveError>(())
        })?;
        Ok(present)
    }

    /// The rows are the right ones: then what was drawn out of them is right if no byte of the file was changed.
    fn bytes(&self, findings: &mut Findings) -> Result<(), ArchiveError> {
        let Some((data, sum)) = &self.standing.data else { return Ok(()) };
        let path = self.path.join(data);
        if digest::of_file(&path)?.to_string() != *sum {
            let path = path.display();
            findings.faults.push(format!(
                "{path}: every record in it is whole, but the file is another: a column beside them was altered, or it was written anew"
            ));
        }
        Ok(())
    }
}
