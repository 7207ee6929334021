//! Answers kept in this process: the demo's cache, the one for a single worker without Redis, and what a worker with
//! Redis keeps at hand.

use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;

use crate::verdict::{Answer, VerdictKey};

/// A bounded map whose entries expire.
pub struct InProcess(Cache<VerdictKey, Arc<Answer>>);

impl InProcess {
    /// Keeps at most `max_entries` answers, each for at most `ttl`.
    pub fn new(max_entries: u64, ttl: Duration) -> Self {
        Self(Cache::builder().max_capacity(max_entries).time_to_live(ttl).build())
    }

    pub(super) fn get(&self, key: &VerdictKey) -> Option<Arc<Answer>> {
        self.0.get(key)
    }

    pub(super) fn put(&self, key: VerdictKey, answer: Arc<Answer>) {
        self.0.insert(key, answer);
    }
}
