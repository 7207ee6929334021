//! What `moderato explain --json` prints. Post text is in none of it unless it was asked for.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::receipt::Partition;

/// `explain.v1`: everything that the topics know of a post.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(title = "explain.v1")]
pub struct ExplainV1 {
    /// The post's id.
    pub post_id: String,
    /// Where was looked.
    pub looked: Vec<Looked>,
    /// What was found, the earliest first.
    pub events: Vec<Event>,
}

/// A topic that was looked through.
#[derive(Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Looked {
    /// The configuration's key.
    pub key: &'static str,
    /// The topic.
    pub topic: String,
    /// False: there is no such topic, or it may not be described.
    pub exists: bool,
    /// Records that were looked at.
    pub records: u64,
    /// Partitions whose first records have been deleted: what is not found may have stood there.
    pub cut_partitions: Vec<Partition>,
}

/// One record about the post.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Event {
    /// Its timestamp, RFC 3339 to the millisecond; null if it has none.
    pub time: Option<String>,
    /// Its topic.
    pub topic: String,
    /// Its partition.
    pub partition: Partition,
    /// Its offset.
    pub offset: i64,
    /// The replay that wrote it; null where none did.
    pub replay_id: Option<String>,
    /// What it is.
    #[serde(flatten)]
    pub what: What,
}

/// What a record about the post is.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum What {
    /// The post, or a version of it.
    Post(Text),
    /// The post once more, for the pool that drafts notes, because the policy flagged it.
    Flagged {
        /// The post.
        post: Text,
        /// The verdict that it carries.
        verdict_id: Option<String>,
    },
    /// The post was deleted by its producer, or the deletion passed on.
    Tombstone,
    /// A live verdict.
    Verdict {
        /// `verdict.v1`.
        verdict: Value,
    },
    /// What the shadow judged.
    Shadow {
        /// `verdict.v1`.
        verdict: Value,
    },
    /// What a replay judged.
    Replay {
        /// `verdict.v1`.
        verdict: Value,
    },
    /// A drafted note; its text is left out unless text was asked for.
    Note {
        /// `note.v1`.
        note: Value,
    },
    /// The post could not be judged.
    DeadLetter {
        /// The stable code.
        reason: String,
        /// Where on the road.
        stage: String,
        /// What exactly.
        message: String,
        /// Where the post stood, `TOPIC/PARTITION/OFFSET`.
        of: String,
        /// Whether it was a replay that could not judge it.
        replay: bool,
    },
    /// A dead letter's post was put back on the input topic.
    PutBack {
        /// Where the post stood, `TOPIC/PARTITION/OFFSET`.
        of: String,
    },
}

/// A post as it stands on a topic.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub struct Text {
    /// False: it is no `post.v1`, and all below but its size is null.
    pub readable: bool,
    /// Bytes of the record's value.
    pub bytes: usize,
    /// Its version, if it has one.
    pub version: Option<u64>,
    /// Its language, as its producer gave it.
    pub lang: Option<String>,
    /// Pieces of evidence that it brings.
    pub evidence: usize,
    /// SHA-256 of its text, as verdicts give it.
    pub text_sha256: Option<String>,
    /// The text, if it was asked for.
    pub text: Option<String>,
}
