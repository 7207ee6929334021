//! How the worker is: what probes, `/metrics` and the status page read. Written by the thread that knows, read by anyone.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Serialize;

use crate::receipt::Partition;

/// Dead letters that are remembered for the status page.
const REMEMBERED: usize = 20;
/// The loop goes round every 20 ms, but for what it waits for on purpose; so long beyond that it hangs.
const POLL_HANGS: Duration = Duration::from_secs(60);

/// How the worker is.
#[derive(Debug)]
pub struct Vitals {
    since: Instant,
    /// Milliseconds after `since`.
    polled: AtomicU64,
    polling: AtomicBool,
    /// Milliseconds that the polling loop may wait for something on purpose.
    waits: AtomicU64,
    warm: AtomicBool,
    joined: AtomicBool,
    stopping: AtomicBool,
    brokers_up: AtomicUsize,
    in_flight: AtomicUsize,
    paused: AtomicUsize,
    behind: Mutex<BTreeMap<Partition, Behind>>,
    dead_letters: Mutex<VecDeque<DeadLetter>>,
}

/// How far a partition is behind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Behind {
    /// Records between the next offset and the end, if both are known.
    pub records: Option<u64>,
    /// Timestamp of the oldest record that is not finished, milliseconds since the Unix epoch.
    pub oldest_ms: Option<i64>,
}

/// One dead letter, without the post.
#[derive(Debug, Clone, Serialize)]
pub struct DeadLetter {
    /// When, RFC 3339.
    pub at: String,
    /// The reason's code.
    pub reason: &'static str,
    /// Where the post stands.
    pub topic: String,
    /// Where the post stands.
    pub partition: Partition,
    /// Where the post stands.
    pub offset: i64,
}

/// Why a worker is not ready, or not alive.
pub type Reasons = Vec<&'static str>;

impl Default for Vitals {
    fn default() -> Self {
        Self {
            since: Instant::now(),
            polled: AtomicU64::default(),
            polling: AtomicBool::default(),
            waits: AtomicU64::default(),
            warm: AtomicBool::default(),
            joined: AtomicBool::default(),
            stopping: AtomicBool::default(),
            brokers_up: AtomicUsize::default(),
            in_flight: AtomicUsize::default(),
            paused: AtomicUsize::default(),
            behind: Mutex::default(),
            dead_letters: Mutex::default(),
        }
    }
}

impl Vitals {
    /// How long the polling loop may wait on purpose: for a drain, a commit, a transaction.
    pub fn may_wait(&self, longest: Duration) {
        self.waits.store(u64::try_from(longest.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Model and policy are loaded and warm.
    pub fn is_warm(&self) {
        self.warm.store(true, Ordering::Release);
    }

    /// The polling loop went round.
    pub fn polled(&self, in_flight: usize, paused: usize) {
        let now = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.polled.store(now, Ordering::Relaxed);
        self.polling.store(true, Ordering::Relaxed);
        self.in_flight.store(in_flight, Ordering::Relaxed);
        self.paused.store(paused, Ordering::Relaxed);
    }

    /// The group has given this worker its share, which may be nothing.
    pub fn joined(&self) {
        self.joined.store(true, Ordering::Relaxed);
    }

    /// The polling loop has ended: on purpose.
    pub fn stops(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Open connections to brokers.
    pub fn connected(&self, brokers: usize) {
        self.brokers_up.store(brokers, Ordering::Relaxed);
    }

    /// How far each assigned partition is behind.
    pub fn set_behind(&self, behind: BTreeMap<Partition, Behind>) {
        *lock(&self.behind) = behind;
    }

    /// A post became a dead letter.
    pub fn dead_letter(&self, reason: &'static str, topic: &str, partition: Partition, offset: i64) {
        let mut all = lock(&self.dead_letters);
        all.truncate(REMEMBERED - 1);
        let at = Timestamp::now().to_string();
        all.push_front(DeadLetter { at, reason, topic: topic.to_owned(), partition, offset });
    }

    /// Whether the polling loop moved lately. A worker that still loads, or stops, lives; so does one whose broker is away.
    pub fn alive(&self) -> Result<(), Reasons> {
        let hangs = self.polling.load(Ordering::Relaxed) && !self.stopping.load(Ordering::Relaxed);
        let patience = POLL_HANGS + Duration::from_millis(self.waits.load(Ordering::Relaxed));
        if hangs && self.poll_age() > patience { Err(vec!["the polling loop hangs"]) } else { Ok(()) }
    }

    /// Whether the model is warm.
    pub fn started(&self) -> Result<(), Reasons> {
        if self.warm.load(Ordering::Acquire) { Ok(()) } else { Err(vec!["the model is loading"]) }
    }

    /// Whether posts can be judged now.
    pub fn ready(&self) -> Result<(), Reasons> {
        let checks = [
            (self.warm.load(Ordering::Acquire), "the model is loading"),
            (self.joined.load(Ordering::Relaxed), "the group has assigned nothing yet"),
            (self.brokers_up.load(Ordering::Relaxed) > 0, "no broker is connected"),
            (!self.stopping.load(Ordering::Relaxed), "stopping"),
        ];
        let reasons: Reasons = checks.iter().filter(|(holds, _)| !holds).map(|(_, reason)| *reason).collect();
        if reasons.is_empty() { Ok(()) } else { Err(reasons) }
    }

    /// Since the polling loop last moved.
    pub fn poll_age(&self) -> Duration {
        if !self.polling.load(Ordering::Relaxed) {
            return Duration::ZERO;
        }
        self.since.elapsed().saturating_sub(Duration::from_millis(self.polled.load(Ordering::Relaxed)))
    }

    /// Open connections to brokers.
    pub fn brokers(&self) -> usize {
        self.brokers_up.load(Ordering::Relaxed)
    }

    /// Posts polled and not yet settled.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Paused partitions.
    pub fn paused(&self) -> usize {
        self.paused.load(Ordering::Relaxed)
    }

    /// How far each assigned partition is behind.
    pub fn behind(&self) -> BTreeMap<Partition, Behind> {
        lock(&self.behind).clone()
    }

    /// The last dead letters, newest first.
    pub fn dead_letters(&self) -> Vec<DeadLetter> {
        lock(&self.dead_letters).iter().cloned().collect()
    }

    /// Since the process started.
    pub fn uptime(&self) -> Duration {
        self.since.elapsed()
    }
}

impl Behind {
    /// Age of the oldest unfinished record at `now_ms`; none where nothing is behind.
    pub fn seconds(&self, now_ms: i64) -> f64 {
        match (self.records, self.oldest_ms) {
            (Some(0), _) | (_, None) => 0.0,
            (_, Some(oldest)) => now_ms.saturating_sub(oldest).max(0) as f64 / 1e3,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_ready_when_its_model_is_warm_its_share_is_known_and_a_broker_is_connected() {
        let vitals = Vitals::default();
        assert_eq!(vitals.ready().unwrap_err().len(), 3);
        assert!(vitals.started().is_err());
        vitals.is_warm();
        vitals.joined();
        vitals.connected(1);
        assert!(vitals.started().is_ok() && vitals.ready().is_ok());
        vitals.connected(0);
        assert_eq!(vitals.ready().unwrap_err(), ["no broker is connected"]);
        assert!(vitals.alive().is_ok(), "a broker that is away is no reason to end the pod");
        vitals.connected(1);
        vitals.stops();
        assert_eq!(vitals.ready().unwrap_err(), ["stopping"]);
    }

    #[test]
    fn a_worker_whose_polling_loop_hangs_is_not_alive() {
        let mut vitals = Vitals::default();
        assert!(vitals.alive().is_ok(), "it has not begun to poll");
        vitals.polled(0, 0);
        assert!(vitals.alive().is_ok());
        let Some(long_ago) = Instant::now().checked_sub(POLL_HANGS * 2) else { return };
        vitals.since = long_ago;
        assert!(vitals.alive().is_err());
        vitals.stops();
        assert!(vitals.alive().is_ok(), "it stops on purpose");
    }

    #[test]
    fn the_last_dead_letters_are_remembered_newest_first_and_no_more_than_a_page() {
        let vitals = Vitals::default();
        for offset in 0..50 {
            vitals.dead_letter("not_json", "posts", 0, offset);
        }
        let offsets: Vec<_> = vitals.dead_letters().iter().map(|letter| letter.offset).collect();
        assert_eq!(offsets, (30..50).rev().collect::<Vec<_>>());
    }

    #[test]
    fn nothing_behind_has_no_age() {
        let behind = |records, oldest_ms| Behind { records, oldest_ms }.seconds(10_000);
        assert_eq!((behind(Some(0), Some(1)), behind(None, None), behind(Some(3), Some(4_000))), (0.0, 0.0, 6.0));
        assert_eq!(behind(None, Some(11_000)), 0.0, "clocks differ");
    }
}
