//! A post as its producer sends it (`schemas/post.v1.json`), decoded and checked from bytes.
//!
//! Everything here treats the bytes as hostile: the size is bounded before they are parsed, the parser's recursion
//! limit stays on, and no error repeats any of the text.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
}

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
    let post: PostV1 = match serde_json::from_str(text) {
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
    Ok(Post { id: PostId(post.id.into()), text: post.text, lang: post.lang, version: post.version })
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
