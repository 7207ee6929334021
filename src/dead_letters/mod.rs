//! Dead letters: shows what stands on their topic, and puts posts back on the input topic, each once.

mod report;

use std::collections::{BTreeMap, HashSet};
use std::mem;
use std::sync::Arc;

use crate::config::KafkaSettings;
use crate::kafka::dead_letter::{Kind, Letter, Post, redriven};
use crate::kafka::range::{Extent, ReadError, Reader, Span, Topic};
use crate::kafka::redrive::{Parcel, RedriveError, Redriver};
use crate::receipt::Partition;
use crate::rejection::Reason;

pub use self::report::{Count, DeadLettersV1, Entry};

/// Most dead letters in one transaction.
const PARCELS: usize = 500;
/// Most bytes of posts in one transaction; a single post may exceed it.
const BYTES: usize = 8 << 20;

/// Which dead letters; what is not said lets all through.
#[derive(Debug, Default)]
pub struct Filter {
    /// Of these reasons.
    pub reasons: Vec<Reason>,
    /// Of posts from this partition of the input topic.
    pub partition: Option<Partition>,
    /// Written at that time or later, milliseconds since the Unix epoch.
    pub since_ms: Option<i64>,
}

impl Filter {
    fn lets_through(&self, letter: &Letter) -> bool {
        let reason = self.reasons.is_empty() || self.reasons.iter().any(|reason| reason.code() == letter.reason);
        let partition = self.partition.is_none_or(|partition| partition == letter.post.at.partition);
        let since = self.since_ms.is_none_or(|since| letter.timestamp_ms.is_some_and(|ms| ms >= since));
        reason && partition && since
    }
}

/// The dead-letter topic as it stands now: everything that it holds, and what was put back already.
struct Survey {
    reader: Reader,
    topic: Arc<str>,
    spans: Vec<Span>,
    redriven: HashSet<Post>,
}

impl Survey {
    fn make(settings: &KafkaSettings) -> Result<Self, ReadError> {
        let reader = Reader::connect(settings)?;
        let topic = Topic { key: "kafka.topics.dead_letters", name: &settings.dead_letters };
        let spans: Vec<Span> = reader.extents(topic)?.iter().map(Extent::whole).collect();
        let redriven = redriven(&reader, topic.name, &spans)?;
        Ok(Self { reader, topic: topic.name.into(), spans, redriven })
    }
}

/// Counts what the filter lets through, and lists the first of what was not put back.
pub fn list(settings: &KafkaSettings, filter: &Filter, most: usize) -> Result<DeadLettersV1, ReadError> {
    let Survey { reader, topic, spans, redriven } = Survey::make(settings)?;
    let mut report = DeadLettersV1 { topic: topic.to_string(), ..DeadLettersV1::default() };
    let mut counts: BTreeMap<(String, String), (u64, u64)> = BTreeMap::new();
    reader.read(&topic, &spans, |record| {
        match Kind::of(record) {
            Kind::Letter(letter) if filter.lets_through(&letter) => {
                let count = counts.entry((letter.reason.clone(), letter.stage.clone())).or_default();
                let again = redriven.contains(&letter.post);
                *count = (count.0 + 1, count.1 + u64::from(again));
                if !again && report.letters.len() < most {
                    report.letters.push(letter.into());
                }
            }
            Kind::Letter(_) | Kind::Marker(_) => {}
            Kind::Foreign => report.foreign += 1,
        }
        Ok::<(), ReadError>(())
    })?;
    let count = |((reason, stage), (letters, redriven))| Count { reason, stage, letters, redriven };
    report.counts = counts.into_iter().map(count).collect();
    report.counts.sort_by_key(|count| std::cmp::Reverse(count.letters));
    Ok(report)
}

/// What putting back came to.
#[derive(Debug, Default)]
pub struct Redriven {
    /// Posts that were put back, or would be in a dry run, by reason.
    pub posts: BTreeMap<String, u64>,
    /// Dead letters whose post had been put back before, or with another dead letter of the same post.
    pub before: u64,
    /// Dead letters of posts from another topic than the input topic.
    pub elsewhere: u64,
}

impl Redriven {
    /// How many posts.
    pub fn total(&self) -> u64 {
        self.posts.values().sum()
    }
}

/// Puts back what the filter lets through and was not put back yet; a dry run only counts. `progress` hears of every
/// transaction, with how many posts have been put back by then.
pub fn redrive(
    settings: &KafkaSettings,
    filter: &Filter,
    dry_run: bool,
    mut progress: impl FnMut(u64),
) -> Result<Redriven, RedriveError> {
    // Before the survey: from now on nobody else puts anything back, so every marker that matters is there.
    let redriver = if dry_run { None } else { Some(Redriver::connect(settings)?) };
    let Survey { reader, topic, spans, redriven: mut known } = Survey::make(settings)?;
    let mut done = Redriven::default();
    let mut batch = Batch::default();
    reader.read(&topic, &spans, |record| {
        let letter = match Kind::of(record) {
            Kind::Letter(letter) if filter.lets_through(&letter) => letter,
            _ => return Ok(()),
        };
        if letter.post.at.topic != settings.posts {
            done.elsewhere += 1;
            return Ok(());
        }
        if !known.insert(letter.post.clone()) {
            done.before += 1;
            return Ok(());
        }
        *done.posts.entry(letter.reason.clone()).or_default() += 1;
        if let Some(redriver) = &redriver {
            batch.add(Parcel { letter, original: record.original(&topic) });
            if batch.is_full() {
                redriver.put_back(&batch.take())?;
                progress(done.total());
            }
        }
        Ok::<(), RedriveError>(())
    })?;
    if let (Some(redriver), false) = (redriver, batch.parcels.is_empty()) {
        redriver.put_back(&batch.take())?;
        progress(done.total());
    }
    Ok(done)
}

/// Dead letters for one transaction.
#[derive(Default)]
struct Batch {
    parcels: Vec<Parcel>,
    bytes: usize,
}

impl Batch {
    fn add(&mut self, parcel: Parcel) {
        self.bytes += parcel.original.value.as_ref().map_or(0, Vec::len);
        self.parcels.push(parcel);
    }

    fn is_full(&self) -> bool {
        self.parcels.len() >= PARCELS || self.bytes >= BYTES
    }

    fn take(&mut self) -> Vec<Parcel> {
        self.bytes = 0;
        mem::take(&mut self.parcels)
    }
}
