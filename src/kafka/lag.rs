//! How far the assigned partitions are behind. Pure: ends come from the client's statistics, offsets from the ledger.

use std::collections::{BTreeMap, VecDeque};

use crate::receipt::{Offset, Partition};
use crate::telemetry::vitals::Behind;

/// Timestamps closer than this are one: what is told is told in seconds.
const APART_MS: i64 = 1000;

/// What is known of each partition.
#[derive(Debug, Default)]
pub(super) struct Lag(BTreeMap<Partition, Known>);

/// What the client's statistics tell of a partition.
#[derive(Debug, Clone, Copy)]
pub(super) struct End {
    pub partition: Partition,
    /// One past the last record that readers of committed records see.
    pub end: i64,
    /// What the group has committed, or where it will begin.
    pub committed: Option<i64>,
}

#[derive(Debug, Default)]
struct Known {
    /// One past the last record that readers of committed records see.
    end: Option<i64>,
    /// The lowest offset that is not finished.
    next: Option<i64>,
    /// The last record that was delivered.
    last: Option<i64>,
    /// Offsets and timestamps of delivered records, about one a second, from the oldest unfinished on.
    marks: VecDeque<(i64, i64)>,
}

impl Lag {
    pub(super) fn assign(&mut self, partitions: &[Partition]) {
        self.0.extend(partitions.iter().map(|partition| (*partition, Known::default())));
    }

    pub(super) fn forget(&mut self, partitions: &[Partition]) {
        self.0.retain(|partition, _| !partitions.contains(partition));
    }

    pub(super) fn delivered(&mut self, partition: Partition, offset: Offset, timestamp_ms: Option<i64>) {
        let Some(known) = self.0.get_mut(&partition) else { return };
        if known.last.is_none() {
            known.next = Some(offset.0);
        }
        known.last = Some(offset.0);
        if let Some(at) = timestamp_ms
            && known.marks.back().is_none_or(|(_, last)| at.saturating_sub(*last).saturating_abs() >= APART_MS)
        {
            known.marks.push_back((offset.0, at));
        }
    }

    /// Everything before this offset is finished.
    pub(super) fn finished(&mut self, partition: Partition, next: i64) {
        let Some(known) = self.0.get_mut(&partition) else { return };
        known.next = Some(next);
        // A mark stands for the records up to the next one.
        while known.marks.get(1).is_some_and(|(offset, _)| *offset <= next) {
            known.marks.pop_front();
        }
        // What is left may be the end of a transaction, which nobody is given.
        if known.last.is_some_and(|last| last < next) {
            known.marks.clear();
        }
    }

    /// From the client's statistics; the committed offset counts until records come.
    pub(super) fn ends(&mut self, ends: impl IntoIterator<Item = End>) {
        for End { partition, end, committed } in ends {
            if let Some(known) = self.0.get_mut(&partition) {
                known.end = Some(end);
                if known.last.is_none() {
                    known.next = committed.or(known.next);
                }
            }
        }
    }

    pub(super) fn behind(&self) -> BTreeMap<Partition, Behind> {
        let behind = |known: &Known| Behind {
            records: known.end.zip(known.next).map(|(end, next)| u64::try_from(end - next).unwrap_or_default()),
            oldest_ms: known.marks.front().map(|(_, at)| *at),
        };
        self.0.iter().map(|(partition, known)| (*partition, behind(known))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_unfinished_record_gives_the_age_and_the_ends_give_the_number() {
        let mut lag = Lag::default();
        lag.assign(&[3]);
        for (offset, at) in [(10, 0), (11, 400), (12, 1500), (13, 9000)] {
            lag.delivered(3, Offset(offset), Some(at));
        }
        lag.ends([end(3, 20, None), end(4, 99, None)]);
        assert_eq!(lag.behind()[&3], Behind { records: Some(10), oldest_ms: Some(0) });
        lag.finished(3, 13);
        assert_eq!(lag.behind()[&3], Behind { records: Some(7), oldest_ms: Some(9000) });
        lag.finished(3, 20);
        assert_eq!(lag.behind()[&3].records, Some(0));
        lag.forget(&[3]);
        assert!(lag.behind().is_empty(), "and partition 4 was never assigned");
    }

    fn end(partition: Partition, end: i64, committed: Option<i64>) -> End {
        End { partition, end, committed }
    }

    #[test]
    fn a_partition_that_ends_in_the_mark_of_a_transaction_does_not_age() {
        let mut lag = Lag::default();
        lag.assign(&[0]);
        lag.delivered(0, Offset(10), Some(0));
        lag.finished(0, 11);
        lag.ends([end(0, 12, Some(11))]);
        assert_eq!(lag.behind()[&0].oldest_ms, None);
    }

    #[test]
    fn an_idle_partition_is_as_far_behind_as_its_committed_offset() {
        let mut lag = Lag::default();
        lag.assign(&[0]);
        lag.ends([end(0, 12, Some(4))]);
        lag.ends([end(0, 12, Some(10))]);
        assert_eq!(lag.behind()[&0].records, Some(2), "what another worker had committed before is not the last word");
        lag.delivered(0, Offset(10), None);
        lag.finished(0, 12);
        lag.ends([end(0, 12, Some(10))]);
        assert_eq!(lag.behind()[&0].records, Some(0), "what is finished here counts before what was committed");
    }

    #[test]
    fn a_partition_without_records_or_statistics_says_that_it_does_not_know() {
        let mut lag = Lag::default();
        lag.assign(&[0]);
        assert_eq!(lag.behind()[&0], Behind::default());
        lag.delivered(0, Offset(5), None);
        lag.ends([end(0, 4, None)]);
        assert_eq!(
            lag.behind()[&0],
            Behind { records: Some(0), oldest_ms: None },
            "statistics are older than the record"
        );
    }
}
