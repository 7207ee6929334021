//! Was every post judged? Reads a range of the input topic, then the output topics, and accounts for every record.
//!
//! What has to come first comes first: the group's committed offsets before the ends of the output topics, so that what
//! the pool says it finished must be there; and the input's end once more after those, so that a verdict that came
//! meanwhile is known to belong to a post that came meanwhile.

mod account;
mod pages;
mod report;

use crate::config::KafkaSettings;
use crate::kafka::cleanup::is_compacted;
use crate::kafka::dead_letter::{Coordinates, Kind, SOURCE};
use crate::kafka::place::{Offsets, Range};
use crate::kafka::range::{Extent, ReadError, Reader, Record, Span, Topic};

use self::account::{Account, Entry, Outcome, Why};
pub use self::report::{
    At, Duplicate, Findings, Missing, OutputReport, RangeReport, ReconcileV1, RetentionGap, Stranger,
};
pub use crate::kafka::place::{Place, time};

/// What is asked for.
pub struct Request {
    /// Where the range begins.
    pub from: Place,
    /// Where it ends.
    pub to: Place,
    /// How many of each kind of fault are listed.
    pub list: usize,
    /// Whether a verdict that was published twice with the same id leaves the range whole.
    pub allow_repeats: bool,
}

/// Reads everything and accounts for it. `progress` hears of every record, with the topic it stands in.
pub fn reconcile(
    settings: &KafkaSettings,
    request: &Request,
    mut progress: impl FnMut(&str),
) -> Result<ReconcileV1, ReadError> {
    let reader = Reader::connect(settings)?;
    let posts = Topic { key: "kafka.topics.posts", name: &settings.posts };
    let outputs = outputs(settings);
    for (topic, _) in &outputs {
        reader.extents(*topic)?; // One that is not there is told before anything long begins.
    }
    let extents = reader.extents(posts)?;
    let committed = reader.committed(posts.name, &extents)?;
    let (topic, group) = (posts.name, settings.group.as_str());
    let range = Range { reader: &reader, topic, extents: &extents, group, committed: &committed };
    // What a partition ends at that `--to` says nothing of: what the group has committed, nothing if it has not.
    let unsaid = matches!(request.to, Place::Committed | Place::Offsets(_));
    let usual = |extent: &Extent| match unsaid {
        true => committed.get(&extent.partition).copied().unwrap_or(0),
        false => extent.stable,
    };
    let spans = range.spans(&request.from, &request.to, usual)?;

    let mut clerk = Clerk::new(settings, request, is_compacted(settings, posts.name));
    clerk.open(&spans, &committed);
    clerk.report.retention_gaps = gaps(request, &extents, &committed);
    reader.read(posts.name, &spans, |record| {
        progress(posts.name);
        clerk.expect(record);
        Ok::<(), ReadError>(())
    })?;
    let ends = outputs.iter().map(|(topic, _)| reader.extents(*topic)).collect::<Result<Vec<_>, _>>()?;
    for Extent { partition, low, high, .. } in reader.extents(posts)? {
        clerk.account.kept(partition, low, high);
    }
    for ((topic, role), extents) in outputs.iter().zip(ends) {
        let spans: Vec<Span> = extents.iter().map(Extent::whole).collect();
        let mut records = 0;
        reader.read(topic.name, &spans, |record| {
            progress(topic.name);
            records += 1;
            clerk.enter(topic.name, *role, record);
            Ok::<(), ReadError>(())
        })?;
        let cut_partitions = extents.iter().filter(|extent| extent.low > 0).map(|extent| extent.partition).collect();
        clerk.report.outputs.push(OutputReport {
            key: topic.key,
            topic: topic.name.to_owned(),
            records,
            cut_partitions,
        });
    }
    Ok(clerk.close())
}

/// What the records of an output topic are.
#[derive(Clone, Copy)]
enum Role {
    /// Verdicts, or the notes of a drafting pool.
    Verdicts,
    DeadLetters,
    Flagged,
}

fn outputs(settings: &KafkaSettings) -> Vec<(Topic<'_>, Role)> {
    let mut outputs = vec![
        (Topic { key: settings.output_key(), name: &settings.output }, Role::Verdicts),
        (Topic { key: "kafka.topics.dead_letters", name: &settings.dead_letters }, Role::DeadLetters),
    ];
    let flagged = settings.flagged.iter();
    outputs.extend(flagged.map(|name| (Topic { key: "kafka.topics.flagged", name }, Role::Flagged)));
    outputs
}

/// What retention took: of offsets that were asked for by number, and of those that the group had not finished.
fn gaps(request: &Request, extents: &[Extent], committed: &Offsets) -> Vec<RetentionGap> {
    let mut gaps = Vec::new();
    for Extent { partition, low, .. } in extents {
        let asked = match &request.from {
            Place::Beginning => None,
            Place::Offsets(offsets) => offsets.get(partition).copied(),
            Place::End | Place::Committed | Place::Time(_) => continue,
        };
        let committed = committed.get(partition).copied();
        let unfinished = committed.map(|committed| committed.max(asked.unwrap_or(0)));
        let parts = [
            (asked, committed.map_or(*low, |committed| committed.min(*low)), committed.is_some()),
            (unfinished, *low, false),
        ];
        for (from, to, finished) in parts {
            if let Some(from) = from.filter(|from| *from < to) {
                gaps.push(RetentionGap { partition: *partition, from, to, finished });
            }
        }
    }
    gaps
}

/// Keeps the account and writes the report.
struct Clerk<'a> {
    account: Account,
    report: ReconcileV1,
    request: &'a Request,
}

impl<'a> Clerk<'a> {
    fn new(settings: &KafkaSettings, request: &'a Request, compacted: bool) -> Self {
        let (group, topic) = (settings.group.clone(), settings.posts.clone());
        let report = ReconcileV1 { group, topic, compacted, ..ReconcileV1::default() };
        Self { account: Account::new(compacted), report, request }
    }

    fn open(&mut self, spans: &[Span], committed: &Offsets) {
        for Span { partition, start, end } in spans {
            self.account.open(*partition, *start, *end);
            let committed = committed.get(partition).copied();
            let (partition, from, to) = (*partition, *start, *end);
            self.report.partitions.push(RangeReport { partition, from, to, committed, records: 0 });
        }
    }

    fn expect(&mut self, record: &Record<'_>) {
        self.account.expect(record.partition(), record.offset(), record.is_tombstone());
        self.report.expected += 1;
        self.report.expected_tombstones += u64::from(record.is_tombstone());
        let range = self.report.partitions.iter_mut().find(|range| range.partition == record.partition());
        if let Some(range) = range {
            range.records += 1;
        }
    }

    fn enter(&mut self, topic: &str, role: Role, record: &Record<'_>) {
        let letter = match role {
            Role::DeadLetters => match Kind::of(record) {
                Kind::Letter(letter) => Some(letter),
                Kind::Marker(_) => {
                    self.report.redriven += 1;
                    return;
                }
                Kind::Foreign => None,
            },
            Role::Verdicts | Role::Flagged => None,
        };
        let (source, outcome) = match (role, &letter) {
            (Role::DeadLetters, Some(letter)) => (Some(letter.post.at.clone()), Outcome::DeadLetter(&letter.reason)),
            (Role::DeadLetters, None) => (None, Outcome::DeadLetter("")),
            (Role::Flagged, _) => (Coordinates::told(record, SOURCE), Outcome::Flagged),
            (Role::Verdicts, _) if record.is_tombstone() => (Coordinates::told(record, SOURCE), Outcome::Tombstone),
            (Role::Verdicts, _) => {
                let id = record.header(c"moderato.verdict_id").or_else(|| record.header(c"moderato.note_id"));
                let id = id.unwrap_or_default();
                (Coordinates::told(record, SOURCE), Outcome::Verdict(id))
            }
        };
        let at = At { topic: topic.to_owned(), partition: record.partition(), offset: record.offset() };
        self.file(at, source, outcome);
    }

    fn file(&mut self, at: At, source: Option<Coordinates>, outcome: Outcome<'_>) {
        let (report, room) = (&mut self.report, self.request.list);
        let Some(source) = source else {
            let why = Why::NoCoordinates.code();
            return report.strangers.add(Stranger { at, why, partition: None, offset: None }, room);
        };
        if source.topic != report.topic {
            report.other_topics += 1;
            return;
        }
        let Coordinates { partition, offset, .. } = source;
        match self.account.enter(partition, offset, outcome) {
            Entry::First => match outcome {
                Outcome::Verdict(_) => report.verdicts += 1,
                Outcome::Tombstone => report.tombstones += 1,
                Outcome::DeadLetter(_) => report.dead_letters += 1,
                Outcome::Flagged => report.flagged += 1,
            },
            Entry::Duplicate { same } => {
                report.duplicates.add(Duplicate { partition, offset, at, same }, room);
                report.duplicates_that_differ += u64::from(!same);
            }
            Entry::Stranger(why) => {
                let (why, partition, offset) = (why.code(), Some(partition), Some(offset));
                report.strangers.add(Stranger { at, why, partition, offset }, room);
            }
            Entry::Outside => report.outside += 1,
            Entry::CompactedAway => report.compacted_away += 1,
        }
    }

    fn close(mut self) -> ReconcileV1 {
        for (partition, offset) in self.account.missing() {
            self.report.missing.add(Missing { partition, offset }, self.request.list);
        }
        let report = &mut self.report;
        report.account_bytes = self.account.bytes();
        let duplicates =
            if self.request.allow_repeats { report.duplicates_that_differ } else { report.duplicates.count };
        let faults = report.missing.count + report.strangers.count + duplicates;
        report.whole = faults == 0 && report.retention_gaps.iter().all(|gap| gap.finished);
        self.report
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(from: Place, low: i64, committed: Option<i64>) -> Vec<(i64, i64, bool)> {
        let request = Request { from, to: Place::Committed, list: 1, allow_repeats: false };
        let extents = [Extent { partition: 0, low, stable: 1000, high: 1000 }];
        let committed = committed.map(|committed| (0, committed)).into_iter().collect();
        gaps(&request, &extents, &committed).iter().map(|gap| (gap.from, gap.to, gap.finished)).collect()
    }

    #[test]
    fn what_retention_took_is_told_with_whether_the_group_had_finished_it() {
        let from = |offset| Place::Offsets([(0, offset)].into());
        assert_eq!(told(Place::Beginning, 100, Some(100)), []);
        assert_eq!(told(Place::Beginning, 100, Some(40)), [(40, 100, false)]);
        assert_eq!(told(Place::Beginning, 100, None), []);
        assert_eq!(told(from(10), 100, Some(500)), [(10, 100, true)]);
        assert_eq!(told(from(10), 100, Some(40)), [(10, 40, true), (40, 100, false)]);
        assert_eq!(told(from(60), 100, Some(40)), [(60, 100, false)]);
        assert_eq!(told(from(10), 100, None), [(10, 100, false)]);
        assert_eq!(told(from(200), 100, Some(40)), []);
        assert_eq!(told(Place::Time(7), 100, Some(40)), []);
    }
}
