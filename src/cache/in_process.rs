//! Answers kept in this process: the demo's cache, and the one for a single worker without Redis.

use std::time::Duration;

use moka::future::Cache;

use crate::verdict::{Answer, VerdictKey};

/// A bounded map whose entries expire.
pub struct InProcess(Cache<VerdictKey, Answer>);

impl InProcess {
    /// Keeps at most `max_entries` answers, each for at most `ttl`.
    pub fn new(max_entries: u64, ttl: Duration) -> Self {
        Self(Cache::builder().max_capacity(max_entries).time_to_live(ttl).build())
    }

    pub(super) async fn get_many(&self, keys: &[VerdictKey]) -> Vec<Option<Answer>> {
        let mut answers = Vec::with_capacity(keys.len());
        for key in keys {
            answers.push(self.0.get(key).await);
        }
        answers
    }

    pub(super) async fn put(&self, key: VerdictKey, answer: Answer) {
        self.0.insert(key, answer).await;
    }
}
