//! Judging a range again: what is fixed before it begins, and who watches that it comes to its end.
//!
//! A replay has a consumer group of its own, `GROUP.replay.ID`. The first process fixes the range by committing the
//! beginning of each partition, with its end and the range as it was asked for, for a group that has no members yet; every later commit says the end on. So the
//! group alone tells what is left: after a crash, and to every process that shares the replay.

pub mod claim;
mod request;
pub mod sample;
pub mod verify;
mod watch;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use tracing::{info, warn};

use crate::config::KafkaSettings;
use crate::kafka::bounds::Gap;
use crate::kafka::dead_letter::{Coordinates, SOURCE};
use crate::kafka::mark::Mark;
use crate::kafka::place::{Place, Range};
use crate::kafka::range::{Extent, ReadError, Reader, Record, Span, Topic};
use crate::pipeline::replayed::Live;
use crate::receipt::{Offset, Original, Partition};

pub use self::request::{Request, Said};
pub use self::watch::{Seen, Watcher};

/// Where the input topic is named.
const POSTS: &str = "kafka.topics.posts";
/// How many offsets at the end of a partition are looked at for records that no replay wrote: transactions leave some of
/// them without a record.
const TAIL: i64 = 20;

/// A range whose ends are fixed.
pub struct Plan {
    /// What is left of each partition.
    pub left: Vec<Span>,
    /// Whether another process had fixed it before.
    pub resumed: bool,
    /// What retention had deleted of the range before it was fixed.
    pub gaps: Vec<Gap>,
}

impl Plan {
    /// How many offsets are left.
    pub fn offsets(&self) -> u64 {
        self.left.iter().map(|span| u64::try_from(span.end - span.start).unwrap_or_default()).sum()
    }
}

/// The name of a replay's consumer group.
pub fn group(live: &str, id: &str) -> String {
    format!("{live}.replay.{id}")
}

/// Fixes the range, or finds it fixed.
pub fn fix(live: &KafkaSettings, replay: &KafkaSettings, request: &Request) -> Result<Plan, ReadError> {
    let reader = Reader::connect(live)?;
    let posts = Topic { key: POSTS, name: &live.posts };
    let extents = reader.extents(posts)?;
    let own = Reader::connect(replay)?;
    let partitions = || extents.iter().map(|extent| extent.partition);
    let mut marks = own.marks(posts.name, partitions())?;
    let resumed = !marks.is_empty();
    let mut gaps = Vec::new();
    if !resumed {
        let spans = spans(&reader, posts.name, &extents, request, &live.group)?;
        gaps = deleted(&request.from(), &extents);
        own.begin(posts.name, &spans, &request.kept());
        // Whoever came first has fixed it: what the group says counts, here and for every member.
        marks = own.marks(posts.name, partitions())?;
    }
    request.is_of(&marks, &replay.group)?;
    let left = left(&marks, &replay.group)?;
    info!(
        group = replay.group,
        resumed,
        offsets = left.iter().map(|span| span.end - span.start).sum::<i64>(),
        "the range is fixed"
    );
    Ok(Plan { left, resumed, gaps })
}

fn spans(
    reader: &Reader,
    topic: &str,
    extents: &[Extent],
    request: &Request,
    group: &str,
) -> Result<Vec<Span>, ReadError> {
    let committed = reader.committed(topic, extents)?;
    let range = Range { reader, topic, extents, group, committed: &committed };
    let (from, to) = (request.from(), request.to());
    let usual = |extent: &Extent| match to {
        Place::Committed => committed.get(&extent.partition).copied().unwrap_or(0),
        _ => extent.stable,
    };
    range.spans(&from, &to, usual)
}

/// What was asked for by number and is no longer there.
fn deleted(from: &Place, extents: &[Extent]) -> Vec<Gap> {
    let Place::Offsets(from) = from else { return Vec::new() };
    let gap = |extent: &Extent| {
        let Extent { partition, low, .. } = *extent;
        let from = *from.get(&partition)?;
        (from < low).then_some(Gap { partition, from, to: low })
    };
    extents.iter().filter_map(gap).collect()
}

fn left(marks: &BTreeMap<Partition, Mark>, group: &str) -> Result<Vec<Span>, ReadError> {
    let span = |(partition, mark): (&Partition, &Mark)| {
        let end = mark.end?;
        Some(Span { partition: *partition, start: mark.next.min(end), end })
    };
    let left: Option<Vec<Span>> = marks.iter().map(span).collect();
    match left {
        None => Err(ReadError::Asked(format!(
            "the consumer group `{group}` has commits that are no replay's: take another name with --id"
        ))),
        Some(left) if left.is_empty() => Err(ReadError::Asked(format!(
            "the range could not be fixed: the consumer group `{group}` takes no commits; grant Read on it"
        ))),
        Some(left) => Ok(left),
    }
}

/// The audit topic must be there, and nothing but replays may have written to it of late: whoever reads a live topic would
/// act on what is judged again.
pub fn is_an_audit_topic(settings: &KafkaSettings, topic: &str) -> Result<(), ReadError> {
    let reader = Reader::connect(settings)?;
    let extents = reader.extents(Topic { key: "kafka.topics.audit", name: topic })?;
    let tail = |extent: &Extent| {
        let Extent { partition, low, stable, .. } = *extent;
        Span { partition, start: low.max(stable - TAIL), end: stable }
    };
    let spans: Vec<Span> = extents.iter().map(tail).collect();
    reader.read(topic, &spans, |record| match record.header(c"moderato.replay_id") {
        Some(_) => Ok(()),
        None => Err(ReadError::Asked(format!(
            "`{topic}` holds records that no replay wrote (partition {}, offset {}), so it may be live: name a topic that only replays write to, in kafka.topics.audit or with --to-topic",
            record.partition(),
            record.offset()
        ))),
    })
}

/// The live verdicts on what is left of the range.
pub fn live(live: &KafkaSettings, plan: &Plan, mut progress: impl FnMut(&str)) -> Result<Live, ReadError> {
    let reader = Reader::connect(live)?;
    let verdicts = Topic { key: live.output_key(), name: &live.output };
    let spans: Vec<Span> = reader.extents(verdicts)?.iter().map(Extent::whole).collect();
    let mut found = Live::default();
    let mut strange = 0_u64;
    reader.read(verdicts.name, &spans, |record| {
        progress(verdicts.name);
        if let Some((partition, offset)) = wanted(record, &live.posts, plan)
            && let Some(event) = record.event()
            && !event.is_ok_and(|json| found.enter(partition, offset, &json))
        {
            strange += 1;
        }
        Ok::<(), ReadError>(())
    })?;
    if strange > 0 {
        warn!(topic = verdicts.name, records = strange, "records that are no verdicts are not compared with");
    }
    Ok(found)
}

/// The post that a verdict is about, if it is one of the range's.
fn wanted(record: &Record<'_>, posts: &str, plan: &Plan) -> Option<(Partition, Offset)> {
    let Coordinates { topic, partition, offset } = Coordinates::told(record, SOURCE)?;
    let within = |span: &Span| span.partition == partition && (span.start..span.end).contains(&offset);
    (topic == posts && plan.left.iter().any(within)).then_some((partition, Offset(offset)))
}

/// What the broker keeps of the posts now.
pub fn posts_kept(settings: &KafkaSettings) -> Result<Vec<Extent>, ReadError> {
    Reader::connect(settings)?.extents(Topic { key: POSTS, name: &settings.posts })
}

/// Hands over the posts that stand at these places and are still there.
pub fn at<E: From<ReadError>>(
    settings: &KafkaSettings,
    places: &HashSet<verify::Place>,
    mut each: impl FnMut(Original) -> Result<(), E>,
) -> Result<(), E> {
    let mut wanted: BTreeMap<Partition, HashSet<i64>> = BTreeMap::new();
    for (_, partition, offset) in places.iter().filter(|(topic, ..)| *topic == settings.posts) {
        wanted.entry(*partition).or_default().insert(*offset);
    }
    let reader = Reader::connect(settings)?;
    let span = |extent: &Extent| {
        let Extent { partition, low, stable, .. } = *extent;
        let offsets = wanted.get(&partition)?;
        let kept = || offsets.iter().copied().filter(|offset| (low..stable).contains(offset));
        Some(Span { partition, start: kept().min()?, end: kept().max()? + 1 })
    };
    let extents = reader.extents(Topic { key: POSTS, name: &settings.posts })?;
    let spans: Vec<Span> = extents.iter().filter_map(span).collect();
    let topic: Arc<str> = settings.posts.as_str().into();
    reader.read(&settings.posts, &spans, |record| {
        let is_wanted = wanted.get(&record.partition()).is_some_and(|offsets| offsets.contains(&record.offset()));
        if is_wanted { each(record.original(&topic)) } else { Ok(()) }
    })
}

/// Of these gaps, what lies before the first offset that the broker keeps now: retention took it.
pub fn taken_by_retention(settings: &KafkaSettings, gaps: &[Gap]) -> Result<Vec<Gap>, ReadError> {
    if gaps.is_empty() {
        return Ok(Vec::new());
    }
    let extents = posts_kept(settings)?;
    let low = |partition| extents.iter().find(|extent| extent.partition == partition).map_or(0, |extent| extent.low);
    let before = gaps.iter().map(|gap| Gap { to: gap.to.min(low(gap.partition)), ..*gap });
    Ok(before.filter(|gap| gap.from < gap.to).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_what_the_group_says_and_a_group_of_something_else_is_not_taken() {
        let mark = |next, end| Mark { next, end, range: None };
        let marks = [(0, mark(3, Some(9))), (1, mark(4, Some(4)))].into();
        let spans = [Span { partition: 0, start: 3, end: 9 }, Span { partition: 1, start: 4, end: 4 }];
        assert_eq!(left(&marks, "g").unwrap(), spans);
        let foreign = [(0, mark(3, Some(9))), (1, mark(4, None))].into();
        assert!(left(&foreign, "g").unwrap_err().to_string().contains("take another name with --id"));
        assert!(left(&BTreeMap::new(), "g").unwrap_err().to_string().contains("grant Read"));
    }

    #[test]
    fn what_was_asked_for_by_number_and_is_gone_is_a_gap() {
        let extents = [Extent { partition: 0, low: 10, stable: 20, high: 20 }];
        let from = |offset| Place::Offsets([(0, offset)].into());
        assert_eq!(deleted(&from(4), &extents), [Gap { partition: 0, from: 4, to: 10 }]);
        assert_eq!(deleted(&from(10), &extents), []);
        assert_eq!(deleted(&Place::Beginning, &extents), []);
    }
}
