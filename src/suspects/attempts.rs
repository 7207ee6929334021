//! How often each post was in a run that a process did not survive.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::verdict::VerdictKey;

/// An attempt that is older says little about the model of today.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);
const FILE: &str = "attempts.json";

/// The counts, by key in hex; a file of a few lines, mostly none.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Attempts(BTreeMap<String, Entry>);

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    attempts: u32,
    /// When the last one was counted, seconds since the Unix epoch.
    last: u64,
}

impl Attempts {
    /// The counts that are still of use. A file that cannot be read is as good as none: all begins anew.
    pub(super) fn read(folder: &Path, now: SystemTime) -> Self {
        let path = folder.join(FILE);
        let mut attempts = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                warn!(%error, file = %path.display(), "the counts of suspected posts cannot be read; they begin anew");
                Self::default()
            }),
            Err(_) => Self::default(),
        };
        let oldest = seconds(now).saturating_sub(KEPT.as_secs());
        attempts.0.retain(|_, entry| entry.last >= oldest);
        attempts
    }

    /// Written beside its place and moved there whole.
    pub(super) fn write(&self, folder: &Path) -> io::Result<()> {
        let (path, part) = (folder.join(FILE), folder.join("attempts.part"));
        fs::write(&part, serde_json::to_vec_pretty(self)?)?;
        fs::rename(part, path)
    }

    /// One more process did not survive a run with it.
    pub(super) fn count(&mut self, key: &VerdictKey, now: SystemTime) {
        let entry = self.0.entry(key.to_string()).or_insert(Entry { attempts: 0, last: 0 });
        entry.attempts += 1;
        entry.last = seconds(now);
    }

    pub(super) fn forget(&mut self, key: &VerdictKey) {
        self.0.remove(&key.to_string());
    }

    pub(super) fn known(&self) -> HashMap<VerdictKey, u32> {
        let known = |(key, entry): (&String, &Entry)| Some((VerdictKey::from_hex(key.as_bytes())?, entry.attempts));
        self.0.iter().filter_map(known).collect()
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::Keyring;

    #[test]
    fn a_count_is_kept_for_a_day_and_no_longer() {
        let (folder, key) = (tempfile::tempdir().unwrap(), Keyring::new(&[]).key(&[1]));
        let now = SystemTime::now();
        let mut attempts = Attempts::default();
        attempts.count(&key, now);
        attempts.count(&key, now);
        attempts.write(folder.path()).unwrap();
        assert_eq!(Attempts::read(folder.path(), now + KEPT).known(), HashMap::from([(key, 2)]));
        assert_eq!(Attempts::read(folder.path(), now + 2 * KEPT).known(), HashMap::new());
    }

    #[test]
    fn a_damaged_file_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE), "{\"cut").unwrap();
        assert_eq!(Attempts::read(folder.path(), SystemTime::now()).known(), HashMap::new());
    }
}
