//! A post as its producer sends it (`schemas/post.v1.json`), decoded and checked from bytes.
//!
//! Everything here treats the bytes as hostile: the size is bounded before they are parsed, the parser's recursion
//! limit stays on, and no error repeats any of the text.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::unframed;
use crate::rejection::{Reason, Rejected, Stage};

/// The producer's own identity of a post.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct PostId(pub Arc<str>);

/// Longest post id that is accepted, in bytes.
pub const MAX_POST_ID_BYTES: usize = 512;

/// One post, as published on the input topic. Unknown fields are ignored.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(title = "post.v1", rename = "post.v1")]
pub struct PostV1 {
    /// The producer's identity of the post, unique per post; 1 to 512 bytes of UTF-8.
    #[schemars(length(min = 1, max = 512))]
    pub id: String,
    /// The text to judge; not blank.
    #[schemars(length(min = 1))]
    pub text: String,
    /// BCP 47 language tag of the text, if the producer knows it. Carried into the verdict.
    #[serde(default)]
    pub lang: Option<String>,
    /// Version of the post, when it can be edited. Carried into the verdict, so that it says which version was judged.
    #[serde(default)]
    pub version: Option<u64>,
    /// What is known about the post's claims, from sources that the producer trusts: at most 16 pieces. The model reads it
    /// beside the post, and a note says nothing that is not in it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub evidence: Vec<Evidence>,
}

/// One piece of evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Evidence {
    /// How notes cite it, such as `e1`; unique in the post; letters, digits, `-` and `_`.
    #[schemars(length(min = 1, max = 32), regex(pattern = "^[A-Za-z0-9_-]+$"))]
    pub id: String,
    /// Where it stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Who says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publisher: Option<String>,
    /// What it says, word for word; not blank.
    #[schemars(length(min = 1))]
    pub quote: String,
    /// When it was read, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retrieved_at: Option<String>,
}

/// How much of a post's evidence the model sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EvidenceSeen {
    /// Pieces that the post brought.
    pub pieces: usize,
    /// Tokens of them that the model saw.
    pub tokens_seen: usize,
    /// Whether their end was cut.
    pub truncated: bool,
}

/// Most pieces of evidence that a post may bring.
pub const MAX_EVIDENCE: usize = 16;
/// Longest id of a piece of evidence, in bytes.
const MAX_EVIDENCE_ID_BYTES: usize = 32;

/// A post that is within limits and has an id and text.
#[derive(Clone)]
pub struct Post {
    /// The producer's identity.
    pub id: PostId,
    /// The text to judge.
    pub text: String,
    /// Language tag as given.
    pub lang: Option<String>,
    /// Version as given.
    pub version: Option<u64>,
    /// Evidence as given, within limits.
    pub evidence: Vec<Evidence>,
}

impl std::fmt::Debug for Post {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Post").field("id", &self.id.0).field("text_bytes", &self.text.len()).finish_non_exhaustive()
    }
}

/// Decodes and checks one record's value.
pub fn decode(bytes: &[u8], max_bytes: usize) -> Result<Post, Rejected> {
    let reject = |reason, message: String| Err(Rejected::new(reason, Stage::Decode, message));
    if bytes.len() > max_bytes {
        return reject(
            Reason::PostTooLarge,
            format!("the value has {} bytes; limits.max_post_bytes is {max_bytes}", bytes.len()),
        );
    }
    let (_, bytes) = unframed(bytes);
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            return reject(Reason::NotUtf8, format!("invalid UTF-8 after {} bytes", error.valid_up_to()));
        }
    };
    // serde would read a list as the fields in order.
    if !text.trim_start().starts_with('{') {
        let reason = if serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok() {
            Reason::WrongShape
        } else {
            Reason::NotJson
        };
        return reject(reason, "the value is not a JSON object; see schemas/post.v1.json".to_owned());
    }
    let post = match parse(text) {
        Ok(post) => post,
        Err(error) => return reject(json_reason(&error), describe(&error)),
    };
    if post.id.is_empty() || post.id.len() > MAX_POST_ID_BYTES {
        let message = format!("`id` has {} bytes; 1 to {MAX_POST_ID_BYTES} are allowed", post.id.len());
        return reject(Reason::WrongShape, message);
    }
    if post.text.trim().is_empty() {
        return reject(Reason::EmptyText, "`text` is empty or blank".to_owned());
    }
    if let Some(fault) = evidence_fault(&post.evidence) {
        return reject(Reason::WrongShape, fault);
    }
    let PostV1 { id, text, lang, version, evidence } = post;
    Ok(Post { id: PostId(id.into()), text, lang, version, evidence })
}

/// A post, or one that is the `data` of a CloudEvents 1.0 event in structured mode, whose own `id` is the event's.
fn parse(text: &str) -> Result<PostV1, serde_json::Error> {
    #[derive(Deserialize)]
    struct Event {
        #[serde(rename = "specversion")]
        _specversion: String,
        data: PostV1,
    }
    serde_json::from_str::<PostV1>(text).or_else(|error| match serde_json::from_str::<Event>(text) {
        Ok(event) => Ok(event.data),
        Err(_) => Err(error),
    })
}

/// What is wrong with the evidence, in words that repeat none of it.
fn evidence_fault(evidence: &[Evidence]) -> Option<String> {
    if evidence.len() > MAX_EVIDENCE {
        return Some(format!("`evidence` has {} pieces; at most {MAX_EVIDENCE} are allowed", evidence.len()));
    }
    for (index, piece) in evidence.iter().enumerate() {
        let plain = piece.id.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_'));
        if !plain || !(1..=MAX_EVIDENCE_ID_BYTES).contains(&piece.id.len()) {
            return Some(format!(
                "`evidence[{index}].id` must be 1 to {MAX_EVIDENCE_ID_BYTES} of A-Z, a-z, 0-9, - and _"
            ));
        }
        if evidence[..index].iter().any(|other| other.id == piece.id) {
            return Some(format!("`evidence[{index}].id` is used twice; ids must differ"));
        }
        if piece.quote.trim().is_empty() {
            return Some(format!("`evidence[{index}].quote` is blank; leave the piece out"));
        }
    }
    None
}

fn json_reason(error: &serde_json::Error) -> Reason {
    match error.classify() {
        serde_json::error::Category::Data => Reason::WrongShape,
        _ => Reason::NotJson,
    }
}

/// Position and kind of a JSON fault. serde's own message can quote the value, which is post text, so only messages
/// that name a field of the schema are passed on.
fn describe(error: &serde_json::Error) -> String {
    let (line, column) = (error.line(), error.column());
    let message = error.to_string();
    let known = ["missing field `id`", "missing field `text`", "duplicate field `id`", "duplicate field `text`"];
    let kind = known.iter().copied().find(|known| message.starts_with(known)).unwrap_or(match error.classify() {
        serde_json::error::Category::Data => "a value of the wrong type",
        serde_json::error::Category::Eof => "the JSON ends too early",
        _ => "not JSON",
    });
    format!("{kind}, at line {line} column {column}; see schemas/post.v1.json")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reason(bytes: &[u8]) -> &'static str {
        decode(bytes, 1000).unwrap_err().reason.code()
    }

    #[test]
    fn a_minimal_post_is_decoded_and_unknown_fields_are_ignored() {
        let post = decode(br#"{"id":"p1","text":"hello","likes":[1,{"a":null}],"version":3}"#, 1000).unwrap();
        assert_eq!((&*post.id.0, post.text.as_str(), post.version), ("p1", "hello", Some(3)));
    }

    #[test]
    fn a_post_in_a_cloud_event_and_one_behind_a_schema_id_are_the_same_post() {
        let event =
            br#"{"specversion":"1.0","id":"event-7","source":"s","type":"t","data":{"id":"p1","text":"hello"}}"#;
        let framed = [&[0, 0, 0, 0, 42], br#"{"id":"p1","text":"hello"}"#.as_slice()].concat();
        let both = [&[0, 0, 0, 1, 0], event.as_slice()].concat();
        for value in [event.as_slice(), &framed, &both] {
            let post = decode(value, 1000).unwrap();
            assert_eq!((&*post.id.0, post.text.as_str()), ("p1", "hello"));
        }
        let own =
            decode(br#"{"specversion":"1.0","id":"p1","text":"own","data":{"id":"d","text":"data"}}"#, 1000).unwrap();
        assert_eq!(own.text, "own", "a post is a post, whatever else it carries");
        assert_eq!(reason(br#"{"specversion":"1.0","id":"e","data":{"id":"p1"}}"#), "wrong_shape");
        assert_eq!(reason(&[0, 0, 0, 0, 42]), "not_json");
        assert_eq!(reason(&[0, 0]), "not_json");
    }

    #[test]
    fn each_fault_has_its_own_reason() {
        assert_eq!(reason(b"\xff\xfe"), "not_utf8");
        assert_eq!(reason(b"hello"), "not_json");
        assert_eq!(reason(br#"{"id":"p1"}"#), "wrong_shape");
        assert_eq!(reason(br#"{"id":"p1","text":7}"#), "wrong_shape");
        assert_eq!(reason(br#"{"id":"","text":"x"}"#), "wrong_shape");
        assert_eq!(reason(br#"["id","text"]"#), "wrong_shape");
        assert_eq!(reason(br#"{"id":"p1","text":"\ud800"}"#), "not_json");
        assert_eq!(reason(br#"{"id":"p1","id":"p2","text":"x"}"#), "wrong_shape");
        assert_eq!(reason(br#"{"id":"p1","text":" \n "}"#), "empty_text");
        assert_eq!(reason(&[b'['; 999]), "not_json");
        assert_eq!(reason(&[b' '; 1001]), "post_too_large");
    }

    #[test]
    fn evidence_is_kept_as_given_and_each_fault_in_it_is_told_with_its_place() {
        let with =
            |evidence: &str| decode(format!(r#"{{"id":"p","text":"x","evidence":{evidence}}}"#).as_bytes(), 9999);
        let post = with(r#"[{"id":"e1","quote":"q","publisher":"WHO","more":1},{"id":"e2","quote":"r"}]"#).unwrap();
        assert_eq!((post.evidence.len(), post.evidence[0].publisher.as_deref()), (2, Some("WHO")));
        for (evidence, words) in [
            (r#"[{"id":"e 1","quote":"secret"}]"#, "`evidence[0].id` must be"),
            (r#"[{"id":"","quote":"secret"}]"#, "`evidence[0].id` must be"),
            (r#"[{"id":"a","quote":"secret"},{"id":"a","quote":"secret"}]"#, "`evidence[1].id` is used twice"),
            (r#"[{"id":"a","quote":" "}]"#, "`evidence[0].quote` is blank"),
            (&format!("[{}]", vec![r#"{"id":"a","quote":"b"}"#; 17].join(",")), "has 17 pieces"),
            (r#"{"id":"secret"}"#, "wrong type"),
        ] {
            let rejected = with(evidence).unwrap_err();
            assert_eq!(rejected.reason, Reason::WrongShape);
            assert!(rejected.message.contains(words) && !rejected.message.contains("secret"), "{}", rejected.message);
        }
    }

    #[test]
    fn no_message_repeats_the_text() {
        let bytes = br#"{"id":"p1","text":["sec","ret"],"secret":1}"#;
        assert!(!decode(bytes, 1000).unwrap_err().message.contains("sec"));
        let bytes = br#"{"id":{"secret":1},"text":"x"}"#;
        assert!(!decode(bytes, 1000).unwrap_err().message.contains("secret"));
    }

    proptest! {
        #[test]
        fn whatever_a_record_holds_is_a_sound_post_or_a_rejection_in_few_words(
            value in r#"(\{"id":"?|"text":|"version":|"lang":|[",:{}\[\]]|\\u[dD][89a-f]00|[ -~]|\PC|-?[0-9]{1,30}|null|\[{1,200}){0,30}"#,
            at in any::<prop::sample::Index>(), byte in any::<u8>(),
        ) {
            let mut bytes = value.into_bytes();
            bytes.push(b'}');
            let at = at.index(bytes.len());
            bytes[at] = byte;
            match decode(&bytes, 1000) {
                Ok(post) => prop_assert!(!post.id.0.is_empty() && !post.text.trim().is_empty()),
                Err(rejected) => prop_assert!(rejected.message.len() < 120, "{}", rejected.message),
            }
        }
    }
}
