//! Why a post could not be judged, with the stable codes that dead letters, logs and the README use.

use std::fmt;

use schemars::JsonSchema;
use serde::Serialize;

use crate::receipt::Original;

/// Why a post is dead-lettered. `code()` is stable: it is the dead letter's `moderato.error.reason` header and
/// OpenTelemetry's `error.type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The value is larger than `limits.max_post_bytes`.
    PostTooLarge,
    /// The schema whose id stands before the value is not in the registry, or not one of JSON.
    UnknownSchema,
    /// The value is not UTF-8.
    NotUtf8,
    /// The value is not JSON (lone surrogates and too deep nesting included).
    NotJson,
    /// JSON of another shape than `post.v1`.
    WrongShape,
    /// The text is empty or blank.
    EmptyText,
    /// A post to draft a note about came without a readable verdict.
    NoVerdict,
    /// Longer than `limits.max_input_tokens` under `on_overlong: reject`.
    TooManyTokens,
    /// The text would have put a control token before the model.
    ControlToken,
    /// The model failed on this post twice, the second time alone.
    ModelRefused,
    /// The process ended while it ran this post, `limits.max_attempts` times.
    Poison,
}

impl Reason {
    /// All reasons, for the README's table and its test.
    pub const ALL: [Reason; 11] = [
        Reason::PostTooLarge,
        Reason::UnknownSchema,
        Reason::NotUtf8,
        Reason::NotJson,
        Reason::WrongShape,
        Reason::EmptyText,
        Reason::NoVerdict,
        Reason::TooManyTokens,
        Reason::ControlToken,
        Reason::ModelRefused,
        Reason::Poison,
    ];

    /// The stable code.
    pub fn code(self) -> &'static str {
        match self {
            Reason::PostTooLarge => "post_too_large",
            Reason::UnknownSchema => "unknown_schema",
            Reason::NotUtf8 => "not_utf8",
            Reason::NotJson => "not_json",
            Reason::WrongShape => "wrong_shape",
            Reason::EmptyText => "empty_text",
            Reason::NoVerdict => "no_verdict",
            Reason::TooManyTokens => "too_many_tokens",
            Reason::ControlToken => "control_token",
            Reason::ModelRefused => "model_refused",
            Reason::Poison => "poison",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// Where on the road a post was rejected: the dead letter's `moderato.error.stage` header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Bytes to post.
    Decode,
    /// Post to token ids.
    Tokenise,
    /// Token ids to scores.
    Infer,
}

impl Stage {
    /// The stable code.
    pub fn code(self) -> &'static str {
        match self {
            Stage::Decode => "decode",
            Stage::Tokenise => "tokenise",
            Stage::Infer => "infer",
        }
    }
}

/// A post that cannot be judged. The message never holds post text: it goes into a header and a log.
#[derive(Debug, Clone)]
pub struct Rejected {
    /// Stable reason.
    pub reason: Reason,
    /// Where it happened.
    pub stage: Stage,
    /// What exactly, for a person.
    pub message: String,
}

impl Rejected {
    /// A rejection; callers vouch that `message` holds no post text.
    pub fn new(reason: Reason, stage: Stage, message: String) -> Self {
        Self { reason, stage, message }
    }
}

/// `dead_letter.v1`: the headers that a dead letter carries beside the post's own. Key, value and the post's headers
/// are exactly as they came, but for headers beyond 256 or 64 KiB, which are dropped; every value here is UTF-8 text.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(title = "dead_letter.v1")]
pub struct DeadLetterHeaders {
    /// Why, as a stable code.
    #[serde(rename = "moderato.error.reason")]
    pub reason: &'static str,
    /// Where on the road: `decode`, `tokenise` or `infer`.
    #[serde(rename = "moderato.error.stage")]
    pub stage: &'static str,
    /// What exactly, for a person; never holds post text.
    #[serde(rename = "moderato.error.message")]
    pub message: String,
    /// Topic that the post was read from.
    #[serde(rename = "moderato.error.topic")]
    pub topic: String,
    /// Partition, decimal.
    #[serde(rename = "moderato.error.partition")]
    pub partition: String,
    /// Offset, decimal.
    #[serde(rename = "moderato.error.offset")]
    pub offset: String,
    /// The record's timestamp, milliseconds since the Unix epoch, decimal; empty if it had none.
    #[serde(rename = "moderato.error.timestamp_ms")]
    pub timestamp_ms: String,
    /// The worker pool's consumer group.
    #[serde(rename = "moderato.error.group")]
    pub group: String,
    /// Version of the worker.
    #[serde(rename = "moderato.error.worker_version")]
    pub worker_version: &'static str,
    /// How many of the post's headers were dropped, decimal; left out where none was.
    #[serde(rename = "moderato.error.headers_dropped", skip_serializing_if = "Option::is_none")]
    pub headers_dropped: Option<String>,
}

/// Longest message in a header, in bytes.
const MAX_MESSAGE_BYTES: usize = 1024;

impl DeadLetterHeaders {
    /// The headers for one rejected record.
    pub fn new(original: &Original, rejected: &Rejected, group: &str) -> Self {
        let mut end = rejected.message.len().min(MAX_MESSAGE_BYTES);
        while !rejected.message.is_char_boundary(end) {
            end -= 1;
        }
        Self {
            reason: rejected.reason.code(),
            stage: rejected.stage.code(),
            message: rejected.message[..end].to_owned(),
            topic: original.topic.to_string(),
            partition: original.partition.to_string(),
            offset: original.offset.0.to_string(),
            timestamp_ms: original.timestamp_ms.map(|ms| ms.to_string()).unwrap_or_default(),
            group: group.to_owned(),
            worker_version: env!("CARGO_PKG_VERSION"),
            headers_dropped: None,
        }
    }

    /// Says that so many of the post's headers are not on the dead letter.
    #[must_use]
    pub fn without(self, dropped: usize) -> Self {
        Self { headers_dropped: (dropped > 0).then(|| dropped.to_string()), ..self }
    }

    /// Names and values, in order: the names exist once, in the schema.
    pub fn fields(&self) -> Vec<(String, String)> {
        match serde_json::to_value(self) {
            Ok(serde_json::Value::Object(map)) => {
                map.into_iter().map(|(name, value)| (name, value.as_str().unwrap_or_default().to_owned())).collect()
            }
            _ => Vec::new(),
        }
    }
}
