//! What `moderato audit verify --json` prints.

use schemars::JsonSchema;
use serde::Serialize;

use crate::receipt::Partition;

/// `audit.v1`: whether a topic of verdicts or notes is as it was written.
#[derive(Debug, Default, Serialize, JsonSchema)]
#[schemars(title = "audit.v1")]
pub struct AuditV1 {
    /// Nothing was altered, removed, inserted or put in another order, no checkpoint is forged, and there is a chain.
    pub whole: bool,
    /// The topic that was read.
    pub topic: String,
    /// Whether it is compacted: what is gone may then have been replaced by a later record of its key.
    pub compacted: bool,
    /// Records read.
    pub records: u64,
    /// Of these, with a link.
    pub linked: u64,
    /// Without a link, before the first record of their partition that has one: from before `evidence.chain`.
    pub before_chain: u64,
    /// Every chain that was found.
    pub chains: Vec<ChainReport>,
    /// How many faults there are.
    pub faults: u64,
    /// The first fault of each chain, then others, as many as `--list` says.
    pub first: Vec<Fault>,
    /// Checkpoints whose signature holds; none are read without a public key.
    pub checkpoints: u64,
    /// Whether anything was signed by a key that was given. If not, whoever can write to the topic could have made it all.
    pub signed: bool,
}

/// One chain: of one partition of the input topic, from one beginning.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub struct ChainReport {
    /// The input topic.
    pub topic: String,
    /// Its partition.
    pub partition: Partition,
    /// Which chain: 16 hex digits, drawn where it began.
    pub instance: String,
    /// The number of the first link that is there.
    pub first_seq: u64,
    /// The number of the last.
    pub last_seq: u64,
    /// Where the first link stands.
    pub begins: Place,
    /// It begins although the partition had a chain before: the group's offsets were lost or set anew.
    pub anew: bool,
    /// Links of the chain that are there and follow on each other.
    pub links: u64,
    /// Published again after a crash, as at least once allows: the same posts once more.
    pub repeats: u64,
    /// Of these, with another label or action, or another note, than the record that counts: by another policy, model or state of
    /// the quotas.
    pub repeats_that_differ: u64,
    /// Gone from the beginning: deleted by retention, or before `--from`.
    pub cut: u64,
    /// Gone from a compacted topic, with a later record of the same key in the chain.
    pub erased: u64,
    /// Gone from a compacted topic, and nothing in it says whether by compaction.
    pub unproved: u64,
    /// Not there yet while the topic is being written.
    pub unsettled: u64,
    /// Up to this link the chain is signed.
    pub signed_to: Option<u64>,
    /// Its first fault.
    pub fault: Option<Fault>,
}

/// What is wrong with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// It is not what was written.
    Altered,
    /// It is gone; the place is that of the record that now follows, or of the last one.
    Removed,
    /// It was not written by the chain's workers.
    Inserted,
    /// It stands at another place than it was written to.
    Reordered,
    /// A checkpoint that no given key has signed; the place is in the topic of checkpoints.
    ForgedCheckpoint,
}

/// A record of the topic that was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
pub struct Place {
    /// The partition.
    pub partition: Partition,
    /// The offset.
    pub offset: i64,
}

/// Offsets of the input topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct SourceRange {
    /// The first offset that the record may have come from.
    pub from: i64,
    /// The last.
    pub to: i64,
}

/// One place at which a chain does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Fault {
    /// What is wrong.
    pub kind: Kind,
    /// Where.
    pub at: Place,
    /// The chain, if it is known.
    pub instance: Option<String>,
    /// The link's number, if it is known.
    pub seq: Option<u64>,
    /// The post that it is about, in the chain's input partition.
    pub source: Option<SourceRange>,
    /// How many records it is about.
    pub records: u64,
    /// In words.
    pub what: String,
}

impl Kind {
    /// As it is said.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Altered => "altered",
            Kind::Removed => "removed",
            Kind::Inserted => "inserted",
            Kind::Reordered => "reordered",
            Kind::ForgedCheckpoint => "forged checkpoint",
        }
    }
}

impl SourceRange {
    pub(super) fn one(offset: i64) -> Self {
        Self { from: offset, to: offset }
    }
}
