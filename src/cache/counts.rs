//! What the cache counts, and how often it speaks of what it counts.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Counters of the cache; each is only ever added to.
#[derive(Debug, Default)]
pub struct Counts {
    /// Questions that were answered when they were first asked.
    pub hits: AtomicU64,
    /// Questions that were not.
    pub misses: AtomicU64,
    /// Of those, questions that another worker was answering.
    pub waited: AtomicU64,
    /// Values that were no whole answer, or under a wrong seal: misses.
    pub damaged: AtomicU64,
    /// Calls that Redis did not answer in time, and calls that were not made because it had not answered others.
    pub unreachable: AtomicU64,
    /// Commands that Redis answered with an error: no rights, no memory, another type under the key.
    pub refused: AtomicU64,
    /// Whether Redis is left alone just now.
    pub breaker_open: AtomicBool,
}

/// Adds to a counter.
pub(super) fn add(counter: &AtomicU64, n: usize) {
    counter.fetch_add(n as u64, Ordering::Relaxed);
}

/// Lets a thing be told once a minute: the first time at once, a thousand times a second never.
#[derive(Debug, Default)]
pub(super) struct Sparingly(Mutex<Option<Instant>>);

const A_WHILE: Duration = Duration::from_secs(60);

impl Sparingly {
    pub(super) fn due(&self, now: Instant) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.is_none_or(|last| now.saturating_duration_since(last) >= A_WHILE);
        if due {
            *last = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thing_is_told_at_once_and_then_once_a_minute() {
        let (start, sparingly) = (Instant::now(), Sparingly::default());
        let told = [0, 1, 59, 60, 61, 119, 120].map(|seconds| sparingly.due(start + Duration::from_secs(seconds)));
        assert_eq!(told, [true, false, false, true, false, false, true]);
    }
}
