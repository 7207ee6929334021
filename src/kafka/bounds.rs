//! A reading that ends: where each partition begins and ends, how fast it may go, and what it found no record for.
//!
//! The ends stand in the group's commits (see `mark`), so every member reads what is left as soon as it is given a
//! partition, and nobody can be told anything else once the group has members. A partition is read to its end when a
//! record at or beyond it has come, or when the broker says that nothing follows: ends lie at or before what was stable
//! when they were fixed, and the reading begins after that.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::mark::Mark;
use crate::receipt::Partition;

/// Posts that were not taken in time are made up for, so far.
const ARREARS: Duration = Duration::from_millis(100);
/// Most gaps that are kept.
const GAPS: usize = 1000;

/// What bounds a consumer.
pub struct Bounds {
    /// Offsets that are finished although the group does not say so: a partition is read from there at the earliest.
    pub floors: BTreeMap<Partition, i64>,
    /// Most posts in a second.
    pub rate: Option<f64>,
    /// What others tell it, and what it tells them.
    pub watch: Arc<Watch>,
}

/// Between a bounded consumer and whoever watches it.
#[derive(Debug, Default)]
pub struct Watch {
    held: AtomicBool,
    over: AtomicBool,
    gaps: Mutex<Gaps>,
}

/// Offsets of the range that have no record.
#[derive(Debug, Clone, Default)]
pub struct Gaps {
    /// How many offsets.
    pub offsets: u64,
    /// The first of them.
    pub first: Vec<Gap>,
}

/// Offsets one after the other without a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The partition.
    pub partition: Partition,
    /// The first offset.
    pub from: i64,
    /// One past the last.
    pub to: i64,
}

impl Watch {
    /// Whether posts wait for something more urgent.
    pub fn hold(&self, held: bool) {
        self.held.store(held, Ordering::Relaxed);
    }

    /// Everything is judged, by whomever: the consumer leaves.
    pub fn is_over(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// What had no record so far.
    pub fn gaps(&self) -> Gaps {
        self.gaps.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Enters offsets without a record.
    pub fn gap(&self, gap: Gap) {
        let mut gaps = self.gaps.lock().unwrap_or_else(PoisonError::into_inner);
        gaps.offsets += u64::try_from(gap.to - gap.from).unwrap_or_default();
        if gaps.first.len() < GAPS {
            gaps.first.push(gap);
        }
    }
}

/// The consumer thread's side.
pub(super) struct Bounded {
    floors: BTreeMap<Partition, i64>,
    pace: Option<Pace>,
    watch: Arc<Watch>,
    parts: BTreeMap<Partition, Part>,
}

/// A partition that this member owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    next: i64,
    end: i64,
    read: bool,
}

impl Bounded {
    pub(super) fn new(Bounds { floors, rate, watch }: Bounds) -> Self {
        let pace = rate.map(Pace::new);
        Self { floors, pace, watch, parts: BTreeMap::new() }
    }

    /// Where a partition begins that was given to this member; `None` where nothing of it belongs to the range.
    pub(super) fn assign(&mut self, partition: Partition, mark: Option<&Mark>) -> Option<i64> {
        let &Mark { next, end: Some(end), .. } = mark? else { return None };
        let next = self.floors.get(&partition).map_or(next, |floor| next.max(*floor));
        self.parts.insert(partition, Part { next, end, read: false });
        Some(next)
    }

    pub(super) fn forget(&mut self, partitions: &[Partition]) {
        self.parts.retain(|partition, _| !partitions.contains(partition));
    }

    /// Whether a record belongs to the range and is not finished.
    pub(super) fn takes(&mut self, partition: Partition, offset: i64) -> bool {
        let Some(part) = self.parts.get_mut(&partition).filter(|part| !part.read && offset < part.end) else {
            return false;
        };
        if part.next < offset {
            self.watch.gap(Gap { partition, from: part.next, to: offset });
        }
        part.next = offset + 1;
        true
    }

    /// Nothing of the range is to come from this partition: its end, if that is news.
    pub(super) fn ends(&mut self, partition: Partition) -> Option<i64> {
        let part = self.parts.get_mut(&partition).filter(|part| !part.read)?;
        part.read = true;
        if part.next < part.end {
            self.watch.gap(Gap { partition, from: part.next, to: part.end });
        }
        Some(part.end)
    }

    /// Partitions that are read to their end before a record came.
    pub(super) fn empty(&self) -> Vec<Partition> {
        let at_end = |part: &Part| !part.read && part.next >= part.end;
        self.parts.iter().filter(|(_, part)| at_end(part)).map(|(partition, _)| *partition).collect()
    }

    /// Whether records of this partition are still to come.
    pub(super) fn is_open(&self, partition: Partition) -> bool {
        self.parts.get(&partition).is_some_and(|part| !part.read)
    }

    /// Whether all of this partition is read and this is its end.
    pub(super) fn is_end(&self, partition: Partition, next: i64) -> bool {
        self.parts.get(&partition).is_some_and(|part| part.read && part.end == next)
    }

    /// How many records may be taken now.
    pub(super) fn room(&mut self, now: Instant) -> usize {
        self.pace.as_mut().map_or(usize::MAX, |pace| pace.room(now))
    }

    pub(super) fn took(&mut self, records: usize) {
        if let Some(pace) = &mut self.pace {
            pace.took(records);
        }
    }

    pub(super) fn is_held(&self) -> bool {
        self.watch.held.load(Ordering::Relaxed)
    }

    pub(super) fn is_over(&self) -> bool {
        self.watch.over.load(Ordering::Relaxed)
    }
}

/// So many posts a second and no more.
pub struct Pace {
    rate: f64,
    /// When the next one may be taken.
    due: Instant,
}

impl Pace {
    /// From now on.
    pub fn new(rate: f64) -> Self {
        Self { rate, due: Instant::now() }
    }

    /// How many may be taken now.
    pub fn room(&mut self, now: Instant) -> usize {
        let Some(late) = now.checked_duration_since(self.due) else { return 0 };
        if late > ARREARS {
            self.due = now.checked_sub(ARREARS).unwrap_or(now);
        }
        1 + (late.min(ARREARS).as_secs_f64() * self.rate) as usize
    }

    /// So many were taken.
    pub fn took(&mut self, posts: usize) {
        self.due += Duration::from_secs_f64(posts as f64 / self.rate);
    }

    /// When the next one may be taken.
    pub fn due(&self) -> Instant {
        self.due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounded(floors: &[(Partition, i64)]) -> (Bounded, Arc<Watch>) {
        let watch = Arc::new(Watch::default());
        let bounds = Bounds { floors: floors.iter().copied().collect(), rate: None, watch: watch.clone() };
        (Bounded::new(bounds), watch)
    }

    fn mark(next: i64, end: Option<i64>) -> Mark {
        Mark { next, end, range: None }
    }

    fn gaps(watch: &Watch) -> Vec<(i64, i64)> {
        watch.gaps().first.iter().map(|gap| (gap.from, gap.to)).collect()
    }

    #[test]
    fn exactly_the_range_is_taken_and_what_has_no_record_is_told() {
        let (mut bounded, watch) = bounded(&[]);
        assert_eq!(bounded.assign(0, Some(&mark(10, Some(20)))), Some(10));
        let taken: Vec<i64> = [10, 11, 14, 20, 21].into_iter().filter(|offset| bounded.takes(0, *offset)).collect();
        assert_eq!(taken, [10, 11, 14]);
        assert_eq!((bounded.ends(0), bounded.ends(0)), (Some(20), None));
        assert_eq!((gaps(&watch), watch.gaps().offsets), (vec![(12, 14), (15, 20)], 7));
        assert!(bounded.is_end(0, 20) && !bounded.is_open(0) && !bounded.takes(0, 15));
    }

    #[test]
    fn what_is_finished_elsewhere_is_not_read_again_and_a_partition_without_an_end_not_at_all() {
        let (mut bounded, watch) = bounded(&[(0, 15), (1, 3), (2, 8)]);
        assert_eq!(bounded.assign(0, Some(&mark(10, Some(20)))), Some(15));
        assert_eq!(bounded.assign(1, Some(&mark(5, Some(6)))), Some(5));
        assert_eq!(bounded.assign(2, Some(&mark(5, Some(8)))), Some(8));
        assert_eq!(bounded.assign(3, Some(&mark(5, None))), None);
        assert_eq!(bounded.assign(4, None), None);
        assert_eq!((bounded.empty(), gaps(&watch)), (vec![2], vec![]));
        assert!(!bounded.takes(3, 5) && !bounded.takes(4, 0) && bounded.takes(1, 5));
    }

    #[test]
    fn a_rate_is_kept_and_what_was_missed_is_not_made_up_for_in_a_burst() {
        let start = Instant::now();
        let mut pace = Pace { rate: 100.0, due: start };
        assert_eq!(pace.room(start), 1);
        pace.took(1);
        assert_eq!(pace.room(start + Duration::from_millis(9)), 0);
        assert_eq!(pace.room(start + Duration::from_millis(10)), 1);
        assert_eq!(pace.room(start + Duration::from_secs(60)), 11);
    }
}
