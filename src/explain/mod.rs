//! Everything known of one post, from the topics and without a database: each topic is read once, and what speaks of the
//! post is kept.
//!
//! All partitions are read: which one a key falls into is the producer's choice, and changes with their number.

mod report;

use std::collections::HashSet;

use serde::Deserialize;
use serde_json::Value;

use crate::config::{KafkaSettings, RawTopics};
use crate::kafka::dead_letter::{Coordinates, Kind, Letter};
use crate::kafka::place::between;
use crate::kafka::range::{ReadError, Reader, Record, Topic};
use crate::post::{self, Post};
use crate::verdict::text_sha256;

pub use self::report::{Event, ExplainV1, Looked, Text, What};

/// What is asked.
pub struct Request {
    /// Whose story.
    pub post_id: String,
    /// Only records of that time or later, milliseconds since the Unix epoch.
    pub from_ms: Option<i64>,
    /// Only records before the first of that time or later.
    pub to_ms: Option<i64>,
    /// Whether the post's text, and a note's, is told.
    pub show_text: bool,
}

/// What a topic holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Posts,
    Verdicts,
    Notes,
    DeadLetters,
    Flagged,
    Shadow,
    Audit,
}

/// The topics that are named, those that speak of others last: a dead letter is known by its post.
fn named(topics: &RawTopics) -> Vec<(Topic<'_>, Role)> {
    let RawTopics { posts, verdicts, notes, dead_letters, flagged, shadow, audit, .. } = topics;
    let all = [
        ("kafka.topics.posts", Some(posts), Role::Posts),
        ("kafka.topics.verdicts", Some(verdicts), Role::Verdicts),
        ("kafka.topics.flagged", flagged.as_ref(), Role::Flagged),
        ("kafka.topics.notes", Some(notes), Role::Notes),
        ("kafka.topics.shadow", shadow.as_ref(), Role::Shadow),
        ("kafka.topics.audit", audit.as_ref(), Role::Audit),
        ("kafka.topics.dead_letters", Some(dead_letters), Role::DeadLetters),
    ];
    all.into_iter().filter_map(|(key, name, role)| Some((Topic { key, name: name?.as_str() }, role))).collect()
}

/// Reads everything. `progress` hears of every record, with its topic.
pub fn explain(
    settings: &KafkaSettings,
    topics: &RawTopics,
    request: &Request,
    mut progress: impl FnMut(&str),
) -> Result<ExplainV1, ReadError> {
    let reader = Reader::connect(settings)?;
    let mut clerk = Clerk { request, posts: HashSet::new(), events: Vec::new() };
    let mut looked = Vec::new();
    for (topic, role) in named(topics) {
        let mut look = Looked {
            key: topic.key,
            topic: topic.name.to_owned(),
            exists: true,
            records: 0,
            cut_partitions: Vec::new(),
        };
        match reader.extents(topic) {
            Ok(extents) => {
                let spans = between(&reader, topic.name, &extents, request.from_ms, request.to_ms)?;
                look.cut_partitions =
                    extents.iter().filter(|extent| extent.low > 0).map(|extent| extent.partition).collect();
                reader.read(topic.name, &spans, |record| {
                    progress(topic.name);
                    look.records += 1;
                    clerk.look(topic.name, role, record);
                    Ok::<(), ReadError>(())
                })?;
            }
            Err(ReadError::UnknownTopic { .. }) => look.exists = false,
            Err(error) => return Err(error),
        }
        looked.push(look);
    }
    let mut events = clerk.events;
    // Stable: what happened in the same millisecond stays in the order of the road.
    events.sort_by_key(|(ms, _)| *ms);
    let events = events.into_iter().map(|(_, event)| event).collect();
    Ok(ExplainV1 { post_id: request.post_id.clone(), looked, events })
}

/// Keeps what speaks of the post.
struct Clerk<'a> {
    request: &'a Request,
    /// Where the post was seen to stand.
    posts: HashSet<Coordinates>,
    events: Vec<(Option<i64>, Event)>,
}

impl Clerk<'_> {
    fn look(&mut self, topic: &str, role: Role, record: &Record<'_>) {
        let Some(what) = self.told(topic, role, record) else { return };
        let ms = record.timestamp_ms();
        let time = ms.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok()).map(|time| format!("{time:.3}"));
        let (partition, offset) = (record.partition(), record.offset());
        // Elsewhere such a header may be the post's producer's.
        let replay_id = if role == Role::Audit { record.header(c"moderato.replay_id") } else { None };
        let replay_id = replay_id.map(str::to_owned);
        self.events.push((ms, Event { time, topic: topic.to_owned(), partition, offset, replay_id, what }));
    }

    fn told(&mut self, topic: &str, role: Role, record: &Record<'_>) -> Option<What> {
        let keyed = record.key() == Some(self.request.post_id.as_bytes());
        if matches!(role, Role::DeadLetters | Role::Audit) {
            match Kind::of(record) {
                Kind::Foreign if role == Role::Audit => {}
                kind => return self.dead_letter(role, keyed, kind, record),
            }
        }
        let Some(value) = record.value() else {
            return keyed.then_some(What::Tombstone);
        };
        if !keyed && !self.may_name(value) {
            return None;
        }
        match role {
            Role::Posts => {
                let post = self.post(keyed, value)?;
                let (topic, partition, offset) = (topic.to_owned(), record.partition(), record.offset());
                self.posts.insert(Coordinates { topic, partition, offset });
                Some(What::Post(post))
            }
            Role::Flagged => {
                let post = self.post(keyed, value)?;
                let verdict = record.header(c"moderato.verdict").and_then(|text| serde_json::from_str(text).ok());
                let verdict_id = verdict.and_then(|verdict: Value| Some(verdict.get("id")?.as_str()?.to_owned()));
                Some(What::Flagged { post, verdict_id })
            }
            _ => self.event(role, &record.event()?.ok()?),
        }
    }

    /// Cheap, and never wrong about a value that does: only text that was written with escapes hides a name.
    fn may_name(&self, value: &[u8]) -> bool {
        let id = self.request.post_id.as_bytes();
        value.contains(&b'\\') || value.windows(id.len()).any(|part| part == id)
    }

    /// The post, if it is this one; one that cannot be read is known by its key.
    fn post(&self, keyed: bool, value: &[u8]) -> Option<Text> {
        match post::decode(value, usize::MAX) {
            Ok(post) if *post.id.0 != self.request.post_id => None,
            Ok(post) => Some(self.text(&post, value.len())),
            Err(_) => keyed.then(|| Text { bytes: value.len(), ..Text::default() }),
        }
    }

    fn text(&self, post: &Post, bytes: usize) -> Text {
        Text {
            readable: true,
            bytes,
            version: post.version,
            lang: post.lang.clone(),
            evidence: post.evidence.len(),
            text_sha256: Some(text_sha256(&post.text)),
            text: self.request.show_text.then(|| post.text.clone()),
        }
    }

    /// A verdict or a note on this post.
    fn event(&self, role: Role, value: &[u8]) -> Option<What> {
        #[derive(Deserialize)]
        struct Subject {
            subject: String,
        }
        let subject: Subject = serde_json::from_slice(value).ok()?;
        let mut value: Value =
            serde_json::from_slice(value).ok().filter(|_| subject.subject == self.request.post_id)?;
        Some(match role {
            Role::Notes => {
                if let (false, Some(text)) = (self.request.show_text, value.pointer_mut("/data/note/summary")) {
                    *text = Value::Null;
                }
                What::Note { note: value }
            }
            Role::Shadow => What::Shadow { verdict: value },
            Role::Audit => What::Replay { verdict: value },
            _ if value.pointer("/data/replay").is_some() => What::Replay { verdict: value },
            _ => What::Verdict { verdict: value },
        })
    }

    fn dead_letter(&self, role: Role, keyed: bool, kind: Kind, record: &Record<'_>) -> Option<What> {
        let ours = |at: &Coordinates| keyed || self.posts.contains(at);
        let place = |at: Coordinates| format!("{}/{}/{}", at.topic, at.partition, at.offset);
        match kind {
            Kind::Letter(Letter { post, reason, stage, message, .. }) => {
                let named = || record.value().is_some_and(|value| self.post(false, value).is_some());
                let ours = ours(&post.at) || named();
                let replay = role == Role::Audit;
                ours.then(|| What::DeadLetter { reason, stage, message, of: place(post.at), replay })
            }
            Kind::Marker(post) => ours(&post.at).then(|| What::PutBack { of: place(post.at) }),
            Kind::Foreign => None,
        }
    }
}
