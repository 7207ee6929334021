//! Finds where a chain does not hold. Records may come in any order of their partitions; each partition in its own.
//!
//! Memory is bounded: a window of links for each chain, what is signed and not yet met, and the gaps.

mod level;
mod line;
mod report;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use self::level::Node;
use self::line::{Gap, Line};
pub use self::report::{AuditV1, ChainReport, Fault, Kind, Place, SourceRange};
use super::checkpoint::Proven;
use super::link::{Content, Hash, Hex, Instance, Link};
use crate::receipt::Partition;

/// Faults kept of each chain.
const KEPT: usize = 1000;
/// Records without a link that are kept, to see whether one of them stands in a gap.
const UNLINKED: usize = 100_000;
/// Links of a chain that are held back: further than this no partition may run ahead of another, and no crash set the chain
/// back.
pub const WINDOW: usize = 1 << 16;

/// How it is read.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Links of a chain that are held back.
    pub window: usize,
    /// Whether the topic is compacted.
    pub compacted: bool,
    /// Whether a post may have several records: at least once.
    pub repeats_allowed: bool,
    /// Partitions whose first records are not read.
    pub cut: BTreeSet<Partition>,
    /// While the topic is being written: what was written since then may still miss what belongs before it.
    pub settled_ms: Option<i64>,
    /// How many faults are listed.
    pub list: usize,
}

/// A record of the output topic.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// Where it stands.
    pub at: Place,
    /// Its timestamp.
    pub timestamp_ms: i64,
    /// Its header `moderato.chain`.
    pub link: Option<&'a str>,
    /// Input topic, partition and offset that it says it came from.
    pub source: Option<(&'a str, Partition, i64)>,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value.
    pub value: Option<&'a [u8]>,
}

/// A record without a link that can be read.
struct Unlinked {
    at: Place,
    source: Option<(String, Partition, i64)>,
}

/// Takes records, and tells in the end what is wrong with them.
pub struct Verifier {
    rules: Rules,
    lines: BTreeMap<Instance, Line>,
    signed: BTreeMap<Instance, BTreeMap<u64, Hash>>,
    unlinked: Vec<Unlinked>,
    /// How many more there were.
    more_unlinked: u64,
    /// Partitions of the output topic that have a record with a link.
    begun: BTreeSet<Partition>,
    report: AuditV1,
}

impl Verifier {
    /// `checkpoints`: those whose signature holds.
    pub fn new(topic: &str, rules: Rules, checkpoints: impl IntoIterator<Item = Proven>) -> Self {
        let mut signed = BTreeMap::<_, BTreeMap<_, _>>::new();
        let mut report = AuditV1 { topic: topic.to_owned(), compacted: rules.compacted, ..AuditV1::default() };
        for Proven { instance, seq, hash } in checkpoints {
            signed.entry(instance).or_default().insert(seq, hash);
            report.checkpoints += 1;
        }
        let (lines, unlinked, begun) = (BTreeMap::new(), Vec::new(), BTreeSet::new());
        Self { rules, lines, signed, unlinked, more_unlinked: 0, begun, report }
    }

    /// One more record.
    pub fn enter(&mut self, seen: &Seen<'_>) {
        self.report.records += 1;
        let Some(link) = seen.link.and_then(|text| text.parse::<Link>().ok()) else {
            return self.without_link(seen);
        };
        self.report.linked += 1;
        self.begun.insert(seen.at.partition);
        let (topic, partition, offset) = seen.source.unwrap_or(("", -1, -1));
        let content = Content { topic, partition, offset, key: seen.key, value: seen.value };
        let node = Node {
            at: seen.at,
            timestamp_ms: seen.timestamp_ms,
            source: offset,
            prev: link.prev,
            hash: link.hash,
            before: link.before,
            key: content.key_digest().into(),
            tombstone: seen.value.is_none(),
            judged: judged(seen.value),
            sound: link.holds(&content),
        };
        let signed = &mut self.signed;
        let new = || Line::new(link.instance, signed.remove(&link.instance).unwrap_or_default());
        let line = self.lines.entry(link.instance).or_insert_with(new);
        if node.sound && line.about.is_none() {
            line.about = Some((topic.to_owned(), partition));
        }
        line.enter(link.seq, node, &self.rules);
    }

    fn without_link(&mut self, seen: &Seen<'_>) {
        if seen.link.is_none() && !self.begun.contains(&seen.at.partition) {
            self.report.before_chain += 1;
        } else if self.unlinked.len() == UNLINKED {
            self.more_unlinked += 1;
        } else {
            let source = seen.source.map(|(topic, partition, offset)| (topic.to_owned(), partition, offset));
            self.unlinked.push(Unlinked { at: seen.at, source });
        }
    }

    /// While the topic was being written: see [`Rules::settled_ms`].
    pub fn settled_before(&mut self, ms: i64) {
        self.rules.settled_ms = Some(ms);
    }

    /// What was found; `more` are faults of other topics.
    pub fn finish(mut self, more: Vec<Fault>) -> AuditV1 {
        let mut report = self.report;
        let mut lines: Vec<Line> = self.lines.into_values().collect();
        for line in &mut lines {
            line.settle_all(&self.rules);
            account_for_gaps(line, &mut self.unlinked);
        }
        let mut faults = more;
        let chains = lines.iter_mut().map(|line| close(line, &self.rules)).collect();
        report.chains = nested(&mut lines, chains);
        for line in &mut lines {
            line.faults.sort_by_key(|fault| (fault.seq.unwrap_or(u64::MAX), fault.at));
        }
        for (chain, line) in report.chains.iter_mut().zip(&lines) {
            chain.fault = line.faults.first().cloned();
        }
        let of_chains: u64 = lines.iter().map(|line| line.counts.faults).sum();
        faults.extend(self.unlinked.iter().map(|record| Fault {
            kind: Kind::Inserted,
            at: record.at,
            instance: None,
            seq: None,
            source: record.source.as_ref().map(|(_, _, offset)| SourceRange::one(*offset)),
            records: 1,
            what: "it has no link, and those around it have".to_owned(),
        }));
        faults.extend(self.signed.iter().filter(|_| self.rules.cut.is_empty()).map(|(instance, seqs)| Fault {
            kind: Kind::Removed,
            at: Place::default(),
            instance: Some(instance.to_string()),
            seq: seqs.keys().next_back().copied(),
            source: None,
            records: seqs.keys().next_back().map_or(0, |seq| seq + 1),
            what: "a signed chain of which no record is there".to_owned(),
        }));
        report.faults = of_chains + self.more_unlinked + u64::try_from(faults.len()).unwrap_or(u64::MAX);
        report.signed = report.chains.iter().any(|chain| chain.signed_to.is_some());
        let firsts = report.chains.iter().filter_map(|chain| chain.fault.clone());
        let others = lines.iter().flat_map(|line| line.faults.iter().skip(1).cloned());
        report.first = firsts.chain(faults).chain(others).take(self.rules.list).collect();
        report.whole = report.faults == 0 && (report.linked > 0 || report.records == 0);
        report
    }
}

/// A record that was altered in its link stands where a gap is, if it is about a post of that gap.
fn account_for_gaps(line: &mut Line, unlinked: &mut Vec<Unlinked>) {
    let about = line.about.clone();
    let of_line = |record: &Unlinked| {
        let (topic, partition, offset) = record.source.as_ref()?;
        let own = about.as_ref().is_some_and(|(own, number)| own == topic && number == partition);
        own.then_some(*offset)
    };
    let mut gaps = std::mem::take(&mut line.gaps);
    for (at, source) in std::mem::take(&mut line.misplaced) {
        match fill(&mut gaps, source) {
            Some(seq) => altered(line, at, seq, source, "its link was altered"),
            None => {
                let what = "its link was altered, and no record is missing".to_owned();
                line.fault(Kind::Inserted, at, None, SourceRange::one(source), 1, what);
            }
        }
    }
    unlinked.retain(|record| match of_line(record).and_then(|source| Some((fill(&mut gaps, source)?, source))) {
        Some((seq, source)) => {
            altered(line, record.at, seq, source, "its link is gone");
            false
        }
        None => true,
    });
    line.gaps = gaps;
}

fn altered(line: &mut Line, at: Place, seq: u64, source: i64, what: &str) {
    line.fault(Kind::Altered, at, seq, SourceRange::one(source), 1, what.to_owned());
}

/// Takes one link out of the gap that has room for the post.
fn fill(gaps: &mut BTreeMap<u64, Gap>, source: i64) -> Option<u64> {
    let from = gaps.values().find(|gap| gap.holds(source)).map(|gap| gap.from)?;
    let gap = gaps.remove(&from)?;
    if gap.to > gap.from {
        gaps.insert(from, Gap { to: gap.to - 1, ..gap });
    }
    Some(gap.from)
}

/// What is said of a chain, its gaps told apart.
fn close(line: &mut Line, rules: &Rules) -> ChainReport {
    let (topic, partition) = line.about.clone().unwrap_or_default();
    let mut report = ChainReport { topic, partition, instance: line.instance.to_string(), ..ChainReport::default() };
    for gap in std::mem::take(&mut line.gaps).into_values() {
        let first_in = |partition| line.first.get(partition).map_or(u64::MAX, |(seq, _)| *seq);
        if rules.cut.iter().any(|partition| first_in(partition) > gap.to) {
            report.cut += gap.links();
        } else if rules.settled_ms.is_some_and(|settled| gap.timestamp_ms >= settled) {
            report.unsettled += gap.links();
        } else if rules.compacted {
            report.unproved += gap.links();
        } else {
            let what = match gap.links() {
                1 => "the record before this one is gone".to_owned(),
                links => format!("{links} records before this one are gone"),
            };
            line.fault(Kind::Removed, gap.at, gap.from, gap.source(), gap.links(), what);
        }
    }
    if let Some((at, seq, source)) = line.reordered {
        let what = format!("{} records stand before ones that were written earlier", line.counts.out_of_order);
        line.fault(Kind::Reordered, at, seq, SourceRange::one(source), line.counts.out_of_order, what);
    }
    let last = line.last_seq();
    if let Some((&seq, _)) = line.signed.last_key_value().filter(|(seq, _)| last.is_none_or(|last| **seq > last)) {
        let from = last.map_or(0, |last| last + 1);
        let what = format!("links {from} to {seq} are signed, and none of them is there: the end was cut off");
        line.fault(Kind::Removed, line.last_place(), from, None, seq - from + 1, what);
    }
    let counts = &line.counts;
    ChainReport {
        first_seq: counts.first_seq.unwrap_or_default(),
        last_seq: last.unwrap_or_default(),
        begins: begins(line),
        links: counts.links,
        repeats: counts.repeats,
        repeats_that_differ: counts.differ,
        erased: counts.erased,
        signed_to: counts.signed_to,
        ..report
    }
}

fn begins(line: &Line) -> Place {
    let first = line.first.iter().min_by_key(|(_, (seq, _))| *seq);
    first.map(|(&partition, &(_, offset))| Place { partition, offset }).unwrap_or_default()
}

/// A partition that has several chains began anew; one that lies inside another was put there.
fn nested(lines: &mut [Line], mut chains: Vec<ChainReport>) -> Vec<ChainReport> {
    for inner in 0..lines.len() {
        for outer in (0..lines.len()).filter(|outer| *outer != inner) {
            if lines[inner].about.is_none() || lines[inner].about != lines[outer].about {
                continue;
            }
            let (one, other) = (&lines[inner], &lines[outer]);
            let shared = one.first.iter().filter_map(|(partition, (_, first))| {
                let (_, before) = other.first.get(partition)?;
                let (last, after) = (one.last_offset(*partition)?, other.last_offset(*partition)?);
                Some((before < first, last < after))
            });
            let shared: Vec<(bool, bool)> = shared.collect();
            chains[inner].anew |= shared.iter().any(|(begins_later, _)| *begins_later);
            if !shared.is_empty() && shared.iter().all(|sides| *sides == (true, true)) {
                let (at, links) = (chains[inner].begins, chains[inner].links);
                let what = format!("a chain of {links} links in the middle of another of the same input partition");
                lines[inner].fault(Kind::Inserted, at, 0, None, links, what);
            }
        }
    }
    chains
}

/// A verdict or note as far as a second judgement of the same post has to agree with it.
#[derive(Deserialize)]
struct Judged<'a> {
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    verdict: Option<Called>,
    #[serde(borrow)]
    note: Option<&'a RawValue>,
}

/// Scores differ in their last digits with the company in which a post was run.
#[derive(Deserialize)]
struct Called {
    label: String,
    action: Option<String>,
}

fn judged(value: Option<&[u8]>) -> u64 {
    let Some(value) = value else { return 0 };
    let parse = |bytes| serde_json::from_slice::<Judged<'_>>(bytes).ok();
    // The value is the event, or its `data` alone.
    let event = parse(value);
    let data = event.as_ref().and_then(|event| event.data).and_then(|data| parse(data.get().as_bytes()));
    let said = data.or(event).and_then(|said| match (said.note, said.verdict) {
        (Some(note), _) => Some(note.get().as_bytes().to_vec()),
        (None, Some(Called { label, action })) => Some([label, action.unwrap_or_default()].join("\0").into_bytes()),
        (None, None) => None,
    });
    let digest = Sha256::digest(said.as_deref().unwrap_or(value));
    let Hex(half) = Hex::<16>::from(<[u8; 32]>::from(digest));
    half.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}
