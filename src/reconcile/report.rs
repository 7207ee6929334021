//! What `moderato reconcile --json` prints: counts of everything, and the first coordinates of each fault.

use schemars::JsonSchema;
use serde::Serialize;

use crate::receipt::Partition;

/// `reconcile.v1`: whether every record of a range has exactly one verdict, dead letter or passed tombstone.
#[derive(Debug, Default, Serialize, JsonSchema)]
#[schemars(title = "reconcile.v1")]
pub struct ReconcileV1 {
    /// Nothing missing, no duplicates (but those that were allowed), no strangers, and nothing that retention took before
    /// the group had finished it.
    pub whole: bool,
    /// The worker pool's consumer group.
    pub group: String,
    /// The input topic.
    pub topic: String,
    /// Whether the input topic is compacted.
    pub compacted: bool,
    /// The range, partition by partition.
    pub partitions: Vec<RangeReport>,
    /// Records of the range: committed posts and tombstones that are still there.
    pub expected: u64,
    /// Of these, tombstones.
    pub expected_tombstones: u64,
    /// Records that became a verdict.
    pub verdicts: u64,
    /// Tombstones that were passed on.
    pub tombstones: u64,
    /// Records that became a dead letter.
    pub dead_letters: u64,
    /// Posts that were passed on as flagged, beside their verdict.
    pub flagged: u64,
    /// Records that nothing became of.
    pub missing: Findings<Missing>,
    /// What came beside the first outcome of a record.
    pub duplicates: Findings<Duplicate>,
    /// Of the duplicates, those that differ from the first outcome: another verdict id, another reason, a verdict beside a
    /// dead letter. The others were published twice, as at least once allows after a crash.
    pub duplicates_that_differ: u64,
    /// Records of an output topic that belong to no record of the input.
    pub strangers: Findings<Stranger>,
    /// Outcomes of records that lie outside of the range or have been deleted by retention.
    pub outside: u64,
    /// Outcomes of records that are no longer there because the input topic is compacted.
    pub compacted_away: u64,
    /// Outcomes of records of other input topics.
    pub other_topics: u64,
    /// Markers of dead letters whose post was put back on the input topic.
    pub redriven: u64,
    /// Offsets that were asked for, or not yet finished by the group, and that retention has deleted.
    pub retention_gaps: Vec<RetentionGap>,
    /// The topics that were looked through.
    pub outputs: Vec<OutputReport>,
    /// Bytes of memory that the account took.
    pub account_bytes: usize,
}

/// How many, and the first of them.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(inline)]
pub struct Findings<T> {
    /// How many there are.
    pub count: u64,
    /// The first, as many as `--list` says.
    pub first: Vec<T>,
}

/// The range of one partition.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct RangeReport {
    /// The partition.
    pub partition: Partition,
    /// The first offset.
    pub from: i64,
    /// One past the last offset.
    pub to: i64,
    /// What the group has committed, if it has.
    pub committed: Option<i64>,
    /// Records in between.
    pub records: u64,
}

/// A record that nothing became of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Missing {
    /// Partition of the input topic.
    pub partition: Partition,
    /// Offset in it.
    pub offset: i64,
}

/// A record of an output topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct At {
    /// The output topic.
    pub topic: String,
    /// Partition of it.
    pub partition: Partition,
    /// Offset in that.
    pub offset: i64,
}

/// A second outcome of a record.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Duplicate {
    /// Partition of the input topic.
    pub partition: Partition,
    /// Offset in it.
    pub offset: i64,
    /// Where the second outcome stands.
    pub at: At,
    /// Whether it is the same as the first.
    pub same: bool,
}

/// An outcome of no record.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Stranger {
    /// Where it stands.
    pub at: At,
    /// `no_coordinates`, `no_partition`, `beyond_the_end`, `no_record`, `tombstone_for_post`, `outcome_for_tombstone`.
    pub why: &'static str,
    /// Partition of the input topic that it says it comes from, if it does.
    pub partition: Option<Partition>,
    /// Offset that it says it comes from, if it does.
    pub offset: Option<i64>,
}

/// Offsets that retention has deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct RetentionGap {
    /// Partition of the input topic.
    pub partition: Partition,
    /// The first offset that is gone.
    pub from: i64,
    /// One past the last.
    pub to: i64,
    /// Whether the group had committed them: if not, posts may have been deleted before they were judged.
    pub finished: bool,
}

/// An output topic.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct OutputReport {
    /// The key that names it.
    pub key: &'static str,
    /// Its name.
    pub topic: String,
    /// Records that were read.
    pub records: u64,
    /// Partitions whose first records have been deleted, by retention for one: what is missing may have stood there.
    pub cut_partitions: Vec<Partition>,
}

impl<T> Default for Findings<T> {
    fn default() -> Self {
        Self { count: 0, first: Vec::new() }
    }
}

impl<T> Findings<T> {
    /// Counts one more, and keeps it if there is room.
    pub fn add(&mut self, one: T, room: usize) {
        self.count += 1;
        if self.first.len() < room {
            self.first.push(one);
        }
    }
}
