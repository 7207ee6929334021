//! What became of every post, told by the source coordinates that each record out of the worker carries.

use std::collections::{BTreeMap, BTreeSet};

use super::pool::Pool;
use super::records::Record;
use super::{PATIENCE, eventually};

/// Partition and offset of a post.
pub type Source = (i32, i64);

/// The account of one pool, once all its offsets are committed.
pub struct Account {
    exactly_once: bool,
    posts: BTreeSet<Source>,
    /// In the order of the topic: by the partition they lie in, then by offset.
    verdicts: Vec<(Source, Record)>,
    dead_letters: Vec<(Source, Record)>,
}

impl Account {
    /// Reads the three topics, once every offset is committed.
    pub fn of(pool: &Pool<'_>) -> Self {
        pool.wait_until_all_is_committed();
        if pool.delivery == "exactly_once" {
            // What a dead worker left open hides what comes after it, until the broker gives it up.
            let missing = || Self::now(pool).missing().len();
            eventually("nothing is hidden", PATIENCE, missing, |missing| *missing == 0);
        }
        Self::now(pool)
    }

    /// Reads the three topics as they stand.
    pub fn now(pool: &Pool<'_>) -> Self {
        let posts = pool.kafka.read_all(&pool.posts).iter().map(|post| (post.partition, post.offset)).collect();
        let read = |topic: &str, headers: &str| {
            let mut records = pool.kafka.read_all(topic);
            records.sort_by_key(|record| (record.partition, record.offset));
            records.into_iter().map(|record| (source(&record, headers), record)).collect()
        };
        Self {
            exactly_once: pool.delivery == "exactly_once",
            posts,
            verdicts: read(&pool.verdicts, "moderato.source"),
            dead_letters: read(&pool.dead_letters, "moderato.error"),
        }
    }

    fn accounted(&self) -> BTreeSet<Source> {
        sources(&self.verdicts).union(&sources(&self.dead_letters)).copied().collect()
    }

    fn missing(&self) -> Vec<Source> {
        self.posts.difference(&self.accounted()).copied().collect()
    }

    /// It is complete, and the posts of a partition came in their order: those with keys, for a record without one may
    /// lie in another partition each time. Hands back how many records came again.
    pub fn is_whole(&self) -> usize {
        order_is_kept(&self.verdicts);
        order_is_kept(&self.dead_letters);
        self.is_complete()
    }

    /// Every post has a verdict or a dead letter and not both; what came twice differs in nothing but timing, and where
    /// it was promised nothing did. Hands back how many records came again.
    pub fn is_complete(&self) -> usize {
        let (judged, rejected, accounted) = (sources(&self.verdicts), sources(&self.dead_letters), self.accounted());
        let missing = self.missing();
        assert!(missing.is_empty(), "{} of {} posts are missing: {missing:?}", missing.len(), self.posts.len());
        let strangers: Vec<_> = accounted.difference(&self.posts).collect();
        assert!(strangers.is_empty(), "these were never posted: {strangers:?}");
        let both: Vec<_> = judged.intersection(&rejected).collect();
        assert!(both.is_empty(), "judged and rejected at once: {both:?}");
        twins_are_identical(&self.verdicts);
        twins_are_identical(&self.dead_letters);
        let again = self.verdicts.len() + self.dead_letters.len() - self.posts.len();
        assert!(
            again == 0 || !self.exactly_once,
            "{again} came twice, exactly once was asked for: {}",
            twins_are_told(&self.verdicts)
        );
        again
    }

    /// Posts that have a verdict.
    pub fn judged(&self) -> usize {
        sources(&self.verdicts).len()
    }

    /// The dead letters, each with the post it is about.
    pub fn dead_letters(&self) -> &[(Source, Record)] {
        &self.dead_letters
    }

    /// Reason and stage of every dead letter.
    pub fn reasons(&self) -> Vec<(String, String)> {
        let text = |record: &Record, name| record.header(name).unwrap_or_default().to_owned();
        let reason = |(_, letter): &(Source, Record)| {
            (text(letter, "moderato.error.reason"), text(letter, "moderato.error.stage"))
        };
        self.dead_letters.iter().map(reason).collect()
    }
}

fn source(record: &Record, headers: &str) -> Source {
    let number = |name: &str| record.header(&format!("{headers}.{name}")).and_then(|text| text.parse::<i64>().ok());
    let (Some(partition), Some(offset)) = (number("partition"), number("offset")) else {
        panic!("a record that does not say where it came from: {record:?}");
    };
    (i32::try_from(partition).expect("a partition"), offset)
}

fn sources(records: &[(Source, Record)]) -> BTreeSet<Source> {
    records.iter().map(|(source, _)| *source).collect()
}

/// Where each came, and when: for whoever is to find out why it came twice.
fn twins_are_told(records: &[(Source, Record)]) -> String {
    let mut by_source: BTreeMap<Source, Vec<String>> = BTreeMap::new();
    for (source, record) in records {
        let Record { partition, offset, timestamp, .. } = record;
        by_source.entry(*source).or_default().push(format!("{partition}@{offset} at {timestamp:?}"));
    }
    let twins = by_source.into_iter().filter(|(_, places)| places.len() > 1);
    twins.map(|(source, places)| format!("\n{source:?}: {}", places.join(", "))).collect()
}

/// The same verdict id and the same judgement: label, action and scores, to the sixth place.
fn twins_are_identical(records: &[(Source, Record)]) {
    let mut first: BTreeMap<Source, &Record> = BTreeMap::new();
    for (source, record) in records {
        let earlier = *first.entry(*source).or_insert(record);
        let id = |record: &Record| record.header("moderato.verdict_id").map(str::to_owned);
        assert_eq!(id(earlier), id(record), "{source:?} has two ids");
        assert_eq!(earlier.key, record.key, "{source:?} has two keys");
        if id(record).is_some() {
            let said = |record: &Record| record.json()["data"]["verdict"].clone();
            alike(&said(earlier), &said(record), *source);
        } else {
            assert_eq!(earlier.value, record.value, "{source:?} has two values");
        }
    }
}

fn alike(one: &serde_json::Value, other: &serde_json::Value, source: Source) {
    use serde_json::Value;
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            assert!(one.keys().eq(other.keys()), "{source:?}: {one:?} and {other:?}");
            one.iter().zip(other).for_each(|((_, one), (_, other))| alike(one, other, source));
        }
        (Value::Number(one), Value::Number(other)) => {
            let apart = one.as_f64().zip(other.as_f64()).map(|(one, other)| (one - other).abs());
            assert!(apart.is_some_and(|apart| apart < 1e-6), "{source:?}: {one} and {other}");
        }
        _ => assert_eq!(one, other, "{source:?}"),
    }
}

/// Of each input partition, in each partition of the topic, a post comes for the first time after those before it.
fn order_is_kept(records: &[(Source, Record)]) {
    let mut furthest: BTreeMap<(i32, i32), i64> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for ((partition, offset), record) in records.iter().filter(|(_, record)| record.key.is_some()) {
        let furthest = furthest.entry((*partition, record.partition)).or_insert(-1);
        assert!(!seen.insert((*partition, *offset)) || offset > furthest, "{partition}/{offset} came after {furthest}");
        *furthest = (*furthest).max(*offset);
    }
}
