//! One chain while it is read: records come from several partitions of the output topic and so out of order; a window of
//! them is held back until what belongs before has come.

use std::collections::{BTreeMap, HashMap};

use super::Rules;
use super::level::{Node, Reach, is_later, main_of};
use super::report::{Fault, Kind, Place, SourceRange};
use crate::evidence::link::{Hash, Head, Instance, KeyDigest};
use crate::receipt::Partition;

/// A chain.
pub(super) struct Line {
    pub(super) instance: Instance,
    /// The input partition, by the first record whose link holds.
    pub(super) about: Option<(String, Partition)>,
    /// Links that have come and are not settled yet, by number and place.
    held: BTreeMap<(u64, Place), Node>,
    /// The last settled link.
    trunk: Option<Trunk>,
    /// Signed, and not yet met.
    pub(super) signed: BTreeMap<u64, Hash>,
    pub(super) gaps: BTreeMap<u64, Gap>,
    /// Keys of records that are gone from a compacted topic, and the gap that ends with each.
    missed_keys: HashMap<KeyDigest, u64>,
    /// Altered, and not where the chain has room for them.
    pub(super) misplaced: Vec<(Place, i64)>,
    /// The last place in each partition of the output topic.
    last: BTreeMap<Partition, i64>,
    /// The first number and place in each.
    pub(super) first: BTreeMap<Partition, (u64, i64)>,
    /// The first place that is out of order, its link and post.
    pub(super) reordered: Option<(Place, u64, i64)>,
    pub(super) faults: Vec<Fault>,
    pub(super) counts: Counts,
}

#[derive(Default)]
pub(super) struct Counts {
    pub faults: u64,
    pub first_seq: Option<u64>,
    pub links: u64,
    pub repeats: u64,
    pub differ: u64,
    pub erased: u64,
    pub out_of_order: u64,
    pub signed_to: Option<u64>,
}

/// The link that the next one has to follow on.
struct Trunk {
    seq: u64,
    hash: Hash,
    /// The record; none where it is gone, or before the first.
    record: Option<(Place, i64, bool)>,
}

/// Links that are not there.
#[derive(Clone, Copy)]
pub(super) struct Gap {
    pub from: u64,
    pub to: u64,
    /// Posts of the records around it.
    pub after: Option<i64>,
    pub before: i64,
    /// The record behind it, and when that was written.
    pub at: Place,
    pub timestamp_ms: i64,
}

impl Gap {
    pub(super) fn links(&self) -> u64 {
        self.to - self.from + 1
    }

    pub(super) fn holds(&self, source: i64) -> bool {
        self.after.is_none_or(|after| after < source) && source < self.before
    }

    pub(super) fn source(&self) -> SourceRange {
        SourceRange { from: self.after.map_or(0, |after| after + 1), to: self.before - 1 }
    }
}

impl Line {
    pub(super) fn new(instance: Instance, signed: BTreeMap<u64, Hash>) -> Self {
        Self {
            instance,
            about: None,
            held: BTreeMap::new(),
            trunk: None,
            signed,
            gaps: BTreeMap::new(),
            missed_keys: HashMap::new(),
            misplaced: Vec::new(),
            last: BTreeMap::new(),
            first: BTreeMap::new(),
            reordered: None,
            faults: Vec::new(),
            counts: Counts::default(),
        }
    }

    pub(super) fn enter(&mut self, seq: u64, node: Node, rules: &Rules) {
        self.held.insert((seq, node.at), node);
        while self.held.len() > rules.window {
            self.settle(rules);
        }
    }

    pub(super) fn settle_all(&mut self, rules: &Rules) {
        while !self.held.is_empty() {
            self.settle(rules);
        }
    }

    /// The number of the last link that is settled.
    pub(super) fn last_seq(&self) -> Option<u64> {
        self.trunk.as_ref().map(|trunk| trunk.seq)
    }

    pub(super) fn last_place(&self) -> Place {
        let at = self.last.iter().next_back();
        at.map(|(partition, offset)| Place { partition: *partition, offset: *offset }).unwrap_or_default()
    }

    pub(super) fn last_offset(&self, partition: Partition) -> Option<i64> {
        self.last.get(&partition).copied()
    }

    pub(super) fn fault(
        &mut self,
        kind: Kind,
        at: Place,
        seq: impl Into<Option<u64>>,
        source: impl Into<Option<SourceRange>>,
        records: u64,
        what: String,
    ) {
        self.counts.faults += 1;
        let instance = Some(self.instance.to_string());
        let fault = Fault { kind, at, instance, seq: seq.into(), source: source.into(), records, what };
        if self.faults.len() < super::KEPT {
            self.faults.push(fault);
        }
    }

    /// Settles the lowest number that is held.
    fn settle(&mut self, rules: &Rules) {
        let Some((&(seq, _), _)) = self.held.first_key_value() else { return };
        let mut level = Vec::with_capacity(1);
        while let Some(entry) = self.held.first_entry().filter(|entry| entry.key().0 == seq) {
            level.push(entry.remove());
        }
        let expected = self.trunk.as_ref().map_or(0, |trunk| trunk.seq + 1);
        if seq < expected {
            level.iter().for_each(|node| self.inserted(seq, node, "its link is far behind those around it"));
            return;
        }
        if seq > expected && level.iter().all(|node| !node.sound) {
            self.misplaced.extend(level.iter().map(|node| (node.at, node.source)));
            return;
        }
        let (main, others) = self.divide(seq, expected, level);
        self.beside(seq, &main, &others, rules);
        self.follow(seq, main, rules);
    }

    /// The record that counts, and the others; tells where it does not follow on what came before.
    fn divide(&mut self, seq: u64, expected: u64, mut level: Vec<Node>) -> (Node, Vec<Node>) {
        let wanted = match &self.trunk {
            Some(trunk) if seq == expected => Some(trunk.hash),
            None if seq == 0 => self.about.as_ref().map(|(topic, own)| Head::begin(self.instance, topic, *own).hash),
            _ => None,
        };
        let follows = |node: &Node| wanted.is_none_or(|hash| node.prev == hash);
        let mut others = Vec::new();
        if level.iter().any(follows) {
            others = level.extract_if(.., |node| !follows(node)).collect();
        } else {
            self.broken(seq, level.iter().any(|node| node.sound));
        }
        let main = level.swap_remove(main_of(&level, |node| self.reach(seq, node)));
        others.extend(level);
        if seq > expected {
            self.gap(expected, seq - 1, &main);
        }
        (main, others)
    }

    /// Nothing follows on the last link: its record was written over together with its link, unless it is known to be
    /// altered or what follows is itself.
    fn broken(&mut self, seq: u64, next_is_sound: bool) {
        if let (true, Some(Trunk { record: Some((at, source, true)), .. })) = (next_is_sound, &self.trunk) {
            let (at, source) = (*at, SourceRange::one(*source));
            let what = "the next link remembers another record here: it was written over, link and all".to_owned();
            self.fault(Kind::Altered, at, seq - 1, source, 1, what);
        }
    }

    fn reach(&self, seq: u64, node: &Node) -> Reach {
        let mut reach = Reach { signed: false, depth: 0, tip_ms: node.timestamp_ms };
        let (mut seq, mut hash) = (seq, node.hash);
        loop {
            reach.signed |= self.signed.get(&seq) == Some(&hash);
            let level = self.held.range((seq + 1, Place::MIN)..(seq + 2, Place::MIN));
            let Some(next) = level.map(|(_, node)| node).find(|next| next.prev == hash) else { return reach };
            (seq, hash) = (seq + 1, next.hash);
            reach.depth += 1;
            reach.tip_ms = next.timestamp_ms;
        }
    }

    fn gap(&mut self, from: u64, to: u64, next: &Node) {
        let after = self.trunk.as_ref().and_then(|trunk| trunk.record).map(|(_, source, _)| source);
        let (at, timestamp_ms, before) = (next.at, next.timestamp_ms, next.source);
        self.gaps.insert(from, Gap { from, to, after, before, at, timestamp_ms });
        self.missed_keys.insert(next.before, from);
    }

    /// Records that claim the number of the one that counts.
    fn beside(&mut self, seq: u64, main: &Node, others: &[Node], rules: &Rules) {
        for other in others {
            let copy = other.hash == main.hash && !other.tombstone;
            if !other.sound {
                self.inserted(seq, other, "it carries another record's link");
            } else if copy {
                self.inserted(seq, other, "a copy of a record that is there already");
            } else if other.source != main.source {
                self.inserted(seq, other, "its link has the number of another post's");
            } else if !rules.repeats_allowed {
                self.inserted(seq, other, "its post has a record already, and this pool delivers exactly once");
            } else if other.judged != main.judged && is_later(other, main) {
                self.inserted(seq, other, "another judgement for a post, written after the one that counts");
            } else {
                self.counts.repeats += 1;
                self.counts.differ += u64::from(other.judged != main.judged);
            }
        }
    }

    fn inserted(&mut self, seq: u64, node: &Node, what: &str) {
        self.fault(Kind::Inserted, node.at, seq, SourceRange::one(node.source), 1, what.to_owned());
    }

    /// Makes it the last settled link.
    fn follow(&mut self, seq: u64, main: Node, rules: &Rules) {
        if !main.sound {
            let (source, what) = (SourceRange::one(main.source), "it is not the record that its link was made for");
            self.fault(Kind::Altered, main.at, seq, source, 1, what.to_owned());
        }
        let Place { partition, offset } = main.at;
        let last = self.last.entry(partition).or_insert(offset);
        if offset < *last {
            self.counts.out_of_order += 1;
            let found = (main.at, seq, main.source);
            let first = self.reordered.unwrap_or(found);
            self.reordered = Some(if first.0.partition == partition { first.min(found) } else { first });
        }
        *last = offset.max(*last);
        self.first.entry(partition).or_insert((seq, offset));
        if rules.compacted {
            self.erased(main.key);
        }
        if let Some(signed) = self.signed.remove(&seq) {
            if signed == main.hash {
                self.counts.signed_to = Some(seq);
            } else {
                let what = "a signed checkpoint says that another record stood here".to_owned();
                self.fault(Kind::Altered, main.at, seq, SourceRange::one(main.source), 1, what);
            }
        }
        self.counts.links += 1;
        self.counts.first_seq.get_or_insert(seq);
        self.trunk = Some(Trunk { seq, hash: main.hash, record: Some((main.at, main.source, main.sound)) });
    }

    /// A later record of the key accounts for the one before it that is gone.
    fn erased(&mut self, key: KeyDigest) {
        let Some(from) = self.missed_keys.remove(&key) else { return };
        let Some(gap) = self.gaps.remove(&from) else { return };
        self.counts.erased += 1;
        if gap.to > gap.from {
            self.gaps.insert(from, Gap { to: gap.to - 1, ..gap });
        }
    }
}

impl Place {
    const MIN: Self = Self { partition: Partition::MIN, offset: i64::MIN };
}
