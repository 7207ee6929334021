//! What `moderato dead-letters list --json` prints. Post text is in none of it.

use schemars::JsonSchema;
use serde::Serialize;

use crate::kafka::dead_letter::Letter;
use crate::receipt::Partition;

/// `dead_letters.v1`: the dead letters that a filter lets through.
#[derive(Debug, Default, Serialize, JsonSchema)]
#[schemars(title = "dead_letters.v1")]
pub struct DeadLettersV1 {
    /// The dead-letter topic.
    pub topic: String,
    /// By reason and stage, the most frequent first.
    pub counts: Vec<Count>,
    /// Dead letters whose post was not put back, oldest first in each partition; as many as `--list` says.
    pub letters: Vec<Entry>,
    /// Records of the topic that are neither dead letters nor markers.
    pub foreign: u64,
}

/// How many have a reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Count {
    /// The stable code.
    pub reason: String,
    /// Where on the road.
    pub stage: String,
    /// Dead letters.
    pub letters: u64,
    /// Of these, those whose post was put back on the input topic.
    pub redriven: u64,
}

/// One dead letter.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Entry {
    /// Partition of the dead-letter topic.
    pub partition: Partition,
    /// Offset in it.
    pub offset: i64,
    /// When it was written, milliseconds since the Unix epoch.
    pub timestamp_ms: Option<i64>,
    /// Topic that the post was read from.
    pub post_topic: String,
    /// Partition that the post was read from.
    pub post_partition: Partition,
    /// Offset that the post was read from.
    pub post_offset: i64,
    /// The stable code.
    pub reason: String,
    /// Where on the road.
    pub stage: String,
    /// What exactly, for a person.
    pub message: String,
}

impl From<Letter> for Entry {
    fn from(letter: Letter) -> Self {
        let Letter { partition, offset, timestamp_ms, post, reason, stage, message } = letter;
        Self {
            partition,
            offset,
            timestamp_ms,
            post_topic: post.at.topic,
            post_partition: post.at.partition,
            post_offset: post.at.offset,
            reason,
            stage,
            message,
        }
    }
}
