//! A circuit breaker: after a few failures in a row the helper is left alone for a while, then one call probes it.
//! Pure: time is passed in.

use std::time::{Duration, Instant};

/// Failures in a row that open the breaker.
const FAILURES: u32 = 3;
/// How long an open breaker stays open before one call may probe.
const PAUSE: Duration = Duration::from_secs(1);

/// Whether calls may go through, and what their outcomes say.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    failures: u32,
    open_until: Option<Instant>,
}

/// What an outcome changed, for the log.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    Opened,
    Closed,
}

impl Breaker {
    /// Whether to call at all. While open, one caller a pause is let through to probe.
    pub(super) fn allows(&mut self, now: Instant) -> bool {
        match self.open_until {
            None => true,
            Some(until) if now < until => false,
            Some(_) => {
                self.open_until = Some(now + PAUSE);
                true
            }
        }
    }

    /// Whether it is open, or half open: the last calls failed.
    pub(super) fn is_open(&self) -> bool {
        self.open_until.is_some()
    }

    pub(super) fn succeeded(&mut self) -> Option<Change> {
        self.failures = 0;
        self.open_until.take().map(|_| Change::Closed)
    }

    pub(super) fn failed(&mut self, now: Instant) -> Option<Change> {
        self.failures = self.failures.saturating_add(1);
        if self.failures < FAILURES {
            return None;
        }
        let was_open = self.open_until.replace(now + PAUSE).is_some();
        (!was_open).then_some(Change::Opened)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_after_three_failures_in_a_row_and_one_probe_closes_it() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        assert_eq!((breaker.failed(now), breaker.failed(now)), (None, None));
        assert!(breaker.allows(now));
        assert_eq!(breaker.failed(now), Some(Change::Opened));
        assert!(!breaker.allows(now));
        assert!(breaker.is_open());
        let later = now + PAUSE;
        assert!(breaker.allows(later), "one probe");
        assert!(!breaker.allows(later), "and only one");
        assert_eq!(breaker.succeeded(), Some(Change::Closed));
        assert!(breaker.allows(later));
        assert!(!breaker.is_open());
    }

    #[test]
    fn a_success_in_between_starts_the_count_anew() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        let _ = (breaker.failed(now), breaker.failed(now), breaker.succeeded());
        assert_eq!((breaker.failed(now), breaker.failed(now)), (None, None));
        assert!(breaker.allows(now));
    }
}
