//! What stands on the dead-letter topic: dead letters, and the markers of those whose post was put back.
//!
//! A marker names a dead letter and the post behind it. It has no `moderato.error.*` header, and every dead letter has:
//! so no post can pass for a marker, whatever headers it came with.

use std::collections::HashSet;
use std::ffi::CStr;

use crate::kafka::range::{ReadError, Reader, Record, Span};
use crate::receipt::Partition;

/// The headers that name a record's coordinates.
#[derive(Debug, Clone, Copy)]
pub struct Names {
    topic: &'static CStr,
    partition: &'static CStr,
    offset: &'static CStr,
}

/// Of the post that a verdict, a passed tombstone or a flagged post belongs to.
pub const SOURCE: Names = Names {
    topic: c"moderato.source.topic",
    partition: c"moderato.source.partition",
    offset: c"moderato.source.offset",
};
/// Of the post that a dead letter holds.
pub const ERROR: Names =
    Names { topic: c"moderato.error.topic", partition: c"moderato.error.partition", offset: c"moderato.error.offset" };
/// Of the post that was put back, on a marker.
const REDRIVEN_POST: Names = Names {
    topic: c"moderato.redriven.post.topic",
    partition: c"moderato.redriven.post.partition",
    offset: c"moderato.redriven.post.offset",
};
/// When the post that was put back had been produced, on a marker.
const REDRIVEN_TIMESTAMP: &CStr = c"moderato.redriven.post.timestamp_ms";

/// Where a record stands, or stood.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Coordinates {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: Partition,
    /// The offset.
    pub offset: i64,
}

impl Coordinates {
    /// As the headers of that name say, if they say it.
    pub fn told(record: &Record<'_>, names: Names) -> Option<Self> {
        let topic = record.header(names.topic)?.to_owned();
        let partition = record.number(names.partition).filter(|partition| *partition >= 0)?;
        let offset = record.number(names.offset).filter(|offset| *offset >= 0)?;
        Some(Self { topic, partition, offset })
    }
}

/// The post behind a dead letter. With its timestamp, so that a topic made anew is not taken for the old one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Post {
    /// Where it came from.
    pub at: Coordinates,
    /// Its timestamp, milliseconds since the Unix epoch.
    pub timestamp_ms: Option<i64>,
}

/// A dead letter, without the post's text.
#[derive(Debug, Clone)]
pub struct Letter {
    /// Partition of the dead-letter topic.
    pub partition: Partition,
    /// Offset in it.
    pub offset: i64,
    /// When it was written, milliseconds since the Unix epoch.
    pub timestamp_ms: Option<i64>,
    /// The post.
    pub post: Post,
    /// The stable code.
    pub reason: String,
    /// Where on the road.
    pub stage: String,
    /// For a person.
    pub message: String,
}

/// What a record of the dead-letter topic is.
#[derive(Debug)]
pub enum Kind {
    /// A post that could not be judged.
    Letter(Letter),
    /// The word that a post was put back.
    Marker(Post),
    /// Neither: somebody else wrote it.
    Foreign,
}

impl Kind {
    /// Reads the headers.
    pub fn of(record: &Record<'_>) -> Self {
        let text = |name| record.header(name).unwrap_or_default().to_owned();
        if let Some(at) = Coordinates::told(record, ERROR) {
            return Self::Letter(Letter {
                partition: record.partition(),
                offset: record.offset(),
                timestamp_ms: record.timestamp_ms(),
                post: Post { at, timestamp_ms: record.number(c"moderato.error.timestamp_ms") },
                reason: text(c"moderato.error.reason"),
                stage: text(c"moderato.error.stage"),
                message: text(c"moderato.error.message"),
            });
        }
        match Coordinates::told(record, REDRIVEN_POST) {
            Some(at) => Self::Marker(Post { at, timestamp_ms: record.number(REDRIVEN_TIMESTAMP) }),
            None => Self::Foreign,
        }
    }
}

/// The headers of the marker for a dead letter of `topic`.
pub(super) fn marker(topic: &str, letter: &Letter) -> Vec<(&'static str, String)> {
    let Letter { partition, offset, post: Post { at, timestamp_ms }, .. } = letter;
    vec![
        ("moderato.redriven.topic", topic.to_owned()),
        ("moderato.redriven.partition", partition.to_string()),
        ("moderato.redriven.offset", offset.to_string()),
        ("moderato.redriven.post.topic", at.topic.clone()),
        ("moderato.redriven.post.partition", at.partition.to_string()),
        ("moderato.redriven.post.offset", at.offset.to_string()),
        ("moderato.redriven.post.timestamp_ms", timestamp_ms.map(|ms| ms.to_string()).unwrap_or_default()),
    ]
}

/// The posts that were put back already. A marker stands behind its dead letter, so all of the topic is looked at.
pub fn redriven(reader: &Reader, topic: &str, spans: &[Span]) -> Result<HashSet<Post>, ReadError> {
    let mut posts = HashSet::new();
    reader.read(topic, spans, |record| {
        if let Kind::Marker(post) = Kind::of(record) {
            posts.insert(post);
        }
        Ok::<(), ReadError>(())
    })?;
    Ok(posts)
}
