//! Posts that were in a run of the model when the process ended: suspected of having ended it.
//!
//! Each model thread notes in a journal what it runs; the next process that starts over the same folder finds the
//! journals that nobody holds any more and counts one attempt for each post in them. A suspect runs alone, with no other
//! run beside it, so that the guilty one is told from those who were only there. One that is answered is acquitted; one
//! that was there `limits.max_attempts` times is dead-lettered as `poison` without being run.
//!
//! Nothing is synced to the disk: what was written survives the process, which is all that is asked. The files hold
//! digests, never text.

mod attempts;
mod journal;

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use tracing::{info, warn};

pub use self::journal::Journal;
use crate::suspects::attempts::Attempts;
use crate::verdict::VerdictKey;

/// What is known of a post before it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Nothing.
    Clear,
    /// A process ended while it ran: it is to run alone.
    Suspect,
    /// That happened as often as is allowed: it is not to run again.
    Poison {
        /// How often.
        attempts: u32,
    },
}

/// The suspects of one worker pool on this machine.
pub struct Suspects {
    /// `None` where nothing is kept, as in `moderato classify`.
    folder: Option<PathBuf>,
    max_attempts: u32,
    known: Mutex<HashMap<VerdictKey, u32>>,
    journals: Mutex<Vec<PathBuf>>,
}

impl Suspects {
    /// Nobody is ever suspected.
    pub fn none() -> Self {
        Self { folder: None, max_attempts: u32::MAX, known: Mutex::default(), journals: Mutex::default() }
    }

    /// Opens the pool's folder below `state_dir`, counts what ended processes left there, and knows the suspects.
    pub fn open(state_dir: &Path, group: &str, max_attempts: u32) -> io::Result<Self> {
        let folder = state_dir.join(file_name(group));
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        // Whoever writes here can have posts given up: in a temporary folder that all share, nobody else may.
        if fs::metadata(&folder)?.uid() != rustix::process::geteuid().as_raw() {
            return Err(io::Error::other(format!("{} belongs to another user", folder.display())));
        }
        let _lock = lock(&folder)?;
        let now = SystemTime::now();
        let mut attempts = Attempts::read(&folder, now);
        let orphans = journal::orphans(&folder)?;
        for orphan in &orphans {
            if !orphan.keys.is_empty() {
                warn!(posts = orphan.keys.len(), "a worker ended in the middle of a run; its posts will run alone");
            }
            orphan.keys.iter().for_each(|key| attempts.count(key, now));
        }
        attempts.write(&folder)?;
        orphans.iter().try_for_each(|orphan| fs::remove_file(&orphan.path))?;
        let known = Mutex::new(attempts.known());
        Ok(Self { folder: Some(folder), max_attempts, known, journals: Mutex::default() })
    }

    /// A journal for one model thread.
    pub fn journal(&self) -> io::Result<Option<Journal>> {
        let Some(folder) = &self.folder else { return Ok(None) };
        // Under the lock: nobody takes it for an orphan before it is held.
        let _lock = lock(folder)?;
        let journal = Journal::create(folder)?;
        self.journals.lock().unwrap_or_else(PoisonError::into_inner).push(journal.path().to_owned());
        Ok(Some(journal))
    }

    /// What is known of a post.
    pub fn standing(&self, key: &VerdictKey) -> Standing {
        match self.known.lock().unwrap_or_else(PoisonError::into_inner).get(key) {
            None => Standing::Clear,
            Some(attempts) if *attempts >= self.max_attempts => Standing::Poison { attempts: *attempts },
            Some(_) => Standing::Suspect,
        }
    }

    /// These posts have been run, and the process lives.
    pub fn acquit<'a>(&self, keys: impl Iterator<Item = &'a VerdictKey>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_empty() {
            return;
        }
        let acquitted: Vec<&VerdictKey> = keys.filter(|key| known.remove(*key).is_some()).collect();
        if let (false, Some(folder)) = (acquitted.is_empty(), &self.folder)
            && let Err(error) = forget(folder, &acquitted)
        {
            warn!(%error, folder = %folder.display(), "cannot note that suspected posts were answered");
        }
    }

    /// The process is about to end. What still runs is suspected only where a run is what ends it.
    pub fn close(&self, a_run_ends_it: bool) {
        let journals = std::mem::take(&mut *self.journals.lock().unwrap_or_else(PoisonError::into_inner));
        if a_run_ends_it {
            info!("the posts in the model's last run are suspected of having ended it");
            return;
        }
        for journal in journals {
            if let Err(error) = fs::remove_file(&journal) {
                warn!(%error, journal = %journal.display(), "cannot be removed; posts of its last run will be suspected");
            }
        }
    }
}

fn forget(folder: &Path, keys: &[&VerdictKey]) -> io::Result<()> {
    let _lock = lock(folder)?;
    let mut attempts = Attempts::read(folder, SystemTime::now());
    keys.iter().for_each(|key| attempts.forget(key));
    attempts.write(folder)
}

/// Held for moments, by whoever reads or changes the folder.
fn lock(folder: &Path) -> io::Result<File> {
    let file = File::options().create(true).truncate(false).write(true).open(folder.join("lock"))?;
    file.lock()?;
    Ok(file)
}

/// A group's name may hold anything. Two groups that share a folder only share their suspects.
fn file_name(group: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '_' };
    group.chars().map(plain).take(200).collect()
}

#[cfg(test)]
mod tests;
