//! The account of a range: which records it has, and what became of each. It knows nothing of Kafka.
//!
//! Each offset has one number: whether a record stands there, and then a fingerprint of what it became, so that whatever
//! comes a second time is known to be the same or not. That is 4 bytes an offset, however many verdicts come.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use crate::receipt::Partition;
use crate::reconcile::pages::Pages;

/// No record.
const NOTHING: u32 = 0;
/// A post, and nothing became of it yet.
const POST: u32 = 1;
/// A tombstone, and it was not passed on yet.
const TOMBSTONE: u32 = 2;
/// Fingerprints begin here.
const FIRST_FINGERPRINT: u32 = 3;

/// What became of a record, as an output topic tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// A verdict of this id.
    Verdict(&'a str),
    /// A tombstone, passed on.
    Tombstone,
    /// A dead letter, with its reason.
    DeadLetter(&'a str),
    /// A flagged post, passed on beside its verdict: it settles nothing.
    Flagged,
}

/// What an outcome means for the account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// The first of its record.
    First,
    /// The record had one before: the same, or another.
    Duplicate {
        /// Same verdict id, or same reason.
        same: bool,
    },
    /// It belongs to no record that it could belong to.
    Stranger(Why),
    /// It belongs to a record outside of the range, or to one that retention took meanwhile.
    Outside,
    /// Its record was compacted away, as far as can be told.
    CompactedAway,
}

/// Why an outcome is a stranger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It does not say where it comes from.
    NoCoordinates,
    /// The input topic has no such partition.
    NoPartition,
    /// The partition ends before that offset.
    BeyondTheEnd,
    /// No committed record stands there: nothing, a transaction marker, or a record of an aborted transaction.
    NoRecord,
    /// A tombstone for a post: it was not judged.
    TombstoneForPost,
    /// A verdict or dead letter for a tombstone.
    OutcomeForTombstone,
}

impl Why {
    /// The stable code.
    pub fn code(self) -> &'static str {
        match self {
            Why::NoCoordinates => "no_coordinates",
            Why::NoPartition => "no_partition",
            Why::BeyondTheEnd => "beyond_the_end",
            Why::NoRecord => "no_record",
            Why::TombstoneForPost => "tombstone_for_post",
            Why::OutcomeForTombstone => "outcome_for_tombstone",
        }
    }
}

/// The account of one partition.
struct PartitionAccount {
    start: i64,
    end: i64,
    /// What the broker still keeps, as of after the reading of the input.
    kept: (i64, i64),
    records: Pages,
    flagged: Pages,
}

/// The account of all partitions.
pub struct Account {
    partitions: BTreeMap<Partition, PartitionAccount>,
    /// Whether an offset without a record may be that of a record that was judged and then compacted away.
    compacted: bool,
}

impl Account {
    /// Of a topic that is compacted, or not.
    pub fn new(compacted: bool) -> Self {
        Self { partitions: BTreeMap::new(), compacted }
    }

    /// Adds a partition with its range: from `start` up to, and without, `end`.
    pub fn open(&mut self, partition: Partition, start: i64, end: i64) {
        let (records, flagged) = (Pages::from(start), Pages::from(start));
        self.partitions.insert(partition, PartitionAccount { start, end, kept: (start, end), records, flagged });
    }

    /// A committed record of the range.
    pub fn expect(&mut self, partition: Partition, offset: i64, tombstone: bool) {
        if let Some(part) = self.partitions.get_mut(&partition)
            && (part.start..part.end).contains(&offset)
        {
            *part.records.at(offset) = if tombstone { TOMBSTONE } else { POST };
        }
    }

    /// What the broker keeps once the range has been read: what lies before has gone, what lies behind may have come.
    pub fn kept(&mut self, partition: Partition, low: i64, high: i64) {
        if let Some(part) = self.partitions.get_mut(&partition) {
            part.kept = (low, high);
        }
    }

    /// Enters an outcome for the record of these coordinates.
    pub fn enter(&mut self, partition: Partition, offset: i64, outcome: Outcome<'_>) -> Entry {
        let Some(part) = self.partitions.get_mut(&partition) else {
            return Entry::Stranger(Why::NoPartition);
        };
        if !(part.start..part.end).contains(&offset) {
            let known = offset < part.end.max(part.kept.1);
            return if known { Entry::Outside } else { Entry::Stranger(Why::BeyondTheEnd) };
        }
        let now = part.records.get(offset);
        match (now, outcome) {
            (NOTHING, _) if offset < part.kept.0 => Entry::Outside,
            (NOTHING, _) if self.compacted => Entry::CompactedAway,
            (NOTHING, _) => Entry::Stranger(Why::NoRecord),
            (_, Outcome::Flagged) => enter(part.flagged.at(offset), NOTHING, outcome),
            (POST, Outcome::Tombstone) => Entry::Stranger(Why::TombstoneForPost),
            (TOMBSTONE, Outcome::Verdict(_) | Outcome::DeadLetter(_)) => Entry::Stranger(Why::OutcomeForTombstone),
            _ => enter(part.records.at(offset), TOMBSTONE, outcome),
        }
    }

    /// Records that nothing became of, in order.
    pub fn missing(&self) -> impl Iterator<Item = (Partition, i64)> + '_ {
        self.partitions
            .iter()
            .flat_map(|(partition, part)| part.records.holding(&[POST, TOMBSTONE]).map(|offset| (*partition, offset)))
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        self.partitions.values().map(|part| part.records.bytes() + part.flagged.bytes()).sum()
    }
}

/// Numbers up to `open` say that nothing came yet.
fn enter(place: &mut u32, open: u32, outcome: Outcome<'_>) -> Entry {
    let fingerprint = fingerprint(outcome);
    if *place <= open {
        *place = fingerprint;
        return Entry::First;
    }
    Entry::Duplicate { same: *place == fingerprint }
}

/// 32 bits: two different outcomes of one record are taken for the same once in four thousand million times.
fn fingerprint(outcome: Outcome<'_>) -> u32 {
    let (kind, text) = match outcome {
        Outcome::Verdict(id) => (0, id),
        Outcome::Tombstone => (1, ""),
        Outcome::DeadLetter(reason) => (2, reason),
        Outcome::Flagged => (3, ""),
    };
    let mut hasher = DefaultHasher::new();
    (kind, text).hash(&mut hasher);
    let hash = hasher.finish();
    // The two halves folded; what would read as a state of its own is moved.
    let folded = u32::try_from((hash ^ (hash >> 32)) & u64::from(u32::MAX)).unwrap_or_default();
    folded.max(FIRST_FINGERPRINT)
}

#[cfg(test)]
#[path = "account_tests.rs"]
mod tests;
