//! The records that claim one number of a chain: usually one, more where a crash made the chain fork or somebody added
//! a record.

use super::report::Place;
use crate::evidence::link::{Hash, KeyDigest};

/// A record with a link.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub at: Place,
    pub timestamp_ms: i64,
    /// Offset of the post in the input partition, as the record says.
    pub source: i64,
    pub prev: Hash,
    pub hash: Hash,
    pub before: KeyDigest,
    pub key: KeyDigest,
    pub tombstone: bool,
    /// Digest of what was judged: label and action, or the note.
    pub judged: u64,
    /// Whether the link was made for this record.
    pub sound: bool,
}

/// How far the links behind a record go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reach {
    /// Some link of them is signed.
    pub signed: bool,
    pub depth: usize,
    /// When the last of them was written.
    pub tip_ms: i64,
}

/// The record that counts among those that follow on the same link. What is signed counts; what a crash left behind was
/// written before that which was begun again; records of different posts cannot both be the worker's, and the chain
/// goes on from the one that is.
pub(super) fn main_of(level: &[Node], reach: impl Fn(&Node) -> Reach) -> usize {
    if level.len() < 2 {
        return 0;
    }
    let same_post = level.iter().all(|node| node.source == level[0].source);
    let rank = |node: &Node| {
        let Reach { signed, depth, tip_ms } = reach(node);
        let depth_ms = i64::try_from(depth).unwrap_or(i64::MAX);
        let (first, second) = if same_post { (tip_ms, depth_ms) } else { (depth_ms, tip_ms) };
        // Of two copies, the one that stands first.
        (node.sound, signed, first, second, std::cmp::Reverse(node.at))
    };
    (0..level.len()).max_by_key(|index| rank(&level[*index])).unwrap_or_default()
}

/// Whether a record that repeats another was written after it: in one partition offsets tell, otherwise times.
pub(super) fn is_later(node: &Node, than: &Node) -> bool {
    if node.at.partition == than.at.partition {
        return node.at.offset > than.at.offset;
    }
    node.timestamp_ms > than.timestamp_ms
}
