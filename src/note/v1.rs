//! `note.v1`: what is published for one flagged post.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::draft::Unasked;
use super::results::{Check, NoteChecks};
use crate::policy::Action;
use crate::verdict::{ModelRef, SourceRef};

/// `note.v1`: the value of a record on the notes topic; a CloudEvents 1.0 event in structured mode.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "note.v1")]
pub struct NoteV1<'a> {
    /// CloudEvents version, `1.0`.
    pub specversion: Cow<'a, str>,
    /// The note's id: a digest of the source coordinates and of all that shaped the note, so that one which is published
    /// twice after a crash can be recognised.
    pub id: Cow<'a, str>,
    /// The worker pool: `urn:moderato:` and the consumer group.
    pub source: Cow<'a, str>,
    /// `dev.moderato.note.v1`.
    #[serde(rename = "type")]
    pub kind: Cow<'a, str>,
    /// The post's id.
    pub subject: Cow<'a, str>,
    /// When the note was given, RFC 3339, UTC.
    pub time: Cow<'a, str>,
    /// `application/json`.
    pub datacontenttype: Cow<'a, str>,
    /// `urn:moderato:schema:note.v1`.
    pub dataschema: Cow<'a, str>,
    /// The note.
    pub data: NoteData<'a>,
}

/// The note and all that made it.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct NoteData<'a> {
    /// The note itself.
    pub note: Note<'a>,
    /// The verdict that it goes with.
    pub verdict: VerdictRef,
    /// The note policy it was drafted by.
    pub policy: Cow<'a, NotePolicyRef>,
    /// The model that drafted; null where none was asked.
    pub model: Option<ModelRef<'a>>,
    /// What was read.
    pub input: NoteInput<'a>,
    /// Where the text came from.
    pub answered_by: NoteSource,
    /// Milliseconds spent on this post.
    pub timing_ms: NoteTiming,
    /// Digest of the token ids, the post, its evidence and every revision, hex: equal for posts that put the same question.
    pub idempotency_key: Cow<'a, str>,
    /// Version of the worker.
    pub worker_version: Cow<'a, str>,
}

/// A draft for a moderator. Nothing is posted anywhere: a person approves it, or does not.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Note<'a> {
    /// `draft`, always.
    pub status: NoteStatus,
    /// Language of the post, a BCP 47 tag; `und` where it is not known. The fixed form's own words are English.
    pub lang: Cow<'a, str>,
    /// The text.
    pub summary: Cow<'a, str>,
    /// Ids of the evidence that the text cites.
    pub citations: Cow<'a, [String]>,
    /// Whether the text is the fixed form, which says what to check and not what is true.
    pub fixed_form: bool,
    /// Texts that a model wrote for it, refused ones too; 0 where none was asked.
    pub attempts: usize,
    /// What the checks found in the text.
    pub checks: Cow<'a, NoteChecks>,
    /// The checks that failed on refused drafts, a list for each draft.
    pub refused: Cow<'a, [Vec<Check>]>,
    /// Why no model was asked although there is evidence, if that is so.
    pub unasked: Option<Unasked>,
    /// Who approved or rejected it: null, for a draft has had nobody yet.
    pub reviewer: Option<Cow<'a, str>>,
}

/// What a note is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NoteStatus {
    /// For a person to approve.
    Draft,
}

/// The verdict that a flagged post came with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VerdictRef {
    /// Its id, if it has one.
    pub verdict_id: Option<String>,
    /// Its label.
    pub label: String,
    /// The score of that label, if it says.
    pub score: Option<f64>,
    /// What it proposes, if it says.
    pub action: Option<Action>,
    /// Whether it abstained, if it says.
    pub abstained: Option<bool>,
}

/// Why a header is no verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VerdictFault {
    /// It is no `verdict.v1`.
    Unreadable,
    /// Its label is no label's name.
    Label,
}

impl VerdictFault {
    /// In words, for a dead letter; nothing of the header is repeated.
    pub fn words(self) -> &'static str {
        match self {
            Self::Unreadable => "the header moderato.verdict is no verdict.v1",
            Self::Label => "the label in the header moderato.verdict is not 1 to 64 of a-z, 0-9, _ and -",
        }
    }
}

/// The part of a `verdict.v1` that a note needs.
#[derive(Deserialize)]
struct ReadVerdict {
    id: Option<String>,
    subject: Option<String>,
    data: ReadData,
}

#[derive(Deserialize)]
struct ReadData {
    verdict: ReadJudgement,
}

#[derive(Deserialize)]
struct ReadJudgement {
    label: String,
    score: Option<f64>,
    action: Option<Action>,
    abstained: Option<bool>,
}

impl VerdictRef {
    /// Reads a `verdict.v1`: the verdict, and the post that it is about if it says.
    pub fn read(bytes: &[u8]) -> Result<(Self, Option<String>), VerdictFault> {
        let read: ReadVerdict = serde_json::from_slice(bytes).map_err(|_| VerdictFault::Unreadable)?;
        let ReadJudgement { label, score, action, abstained } = read.data.verdict;
        let plain = label.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'_' | b'-'));
        if !plain || !(1..=64).contains(&label.len()) {
            return Err(VerdictFault::Label);
        }
        Ok((Self { verdict_id: read.id, label, score, action, abstained }, read.subject))
    }
}

/// Which note policy.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct NotePolicyRef {
    /// The policy's id.
    pub id: String,
    /// Its author's name for the revision.
    pub revision: String,
    /// Digest of its content.
    pub digest: String,
    /// Version of the checks and of the fixed form.
    pub checks: String,
}

/// Which post, and how much of it the model read.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct NoteInput<'a> {
    /// The post's id.
    pub post_id: Cow<'a, str>,
    /// The post's version, if it has one.
    pub version: Option<u64>,
    /// The post's language, as its producer gave it.
    pub lang: Option<Cow<'a, str>>,
    /// SHA-256 of the post's text as it came.
    pub text_sha256: Cow<'a, str>,
    /// Ids of the evidence that came with the post.
    pub evidence: Vec<Cow<'a, str>>,
    /// Whether the model read only part of post and evidence.
    pub truncated: bool,
    /// Tokens of post, verdict and evidence that the model read; 0 where none was asked.
    pub tokens_seen: usize,
    /// Tokens of the prompt, computed once and shared.
    pub tokens_prompt: usize,
    /// Tokens that the model wrote, for refused drafts too.
    pub tokens_written: usize,
    /// Prompt tags such as `[INST]` found in the text and made harmless.
    pub tags_neutralised: usize,
    /// Where the post stood.
    pub kafka: SourceRef<'a>,
}

/// Where a note's text came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NoteSource {
    /// The model ran for this post; what it wrote may have been refused.
    Model,
    /// The cache had it.
    Cache,
    /// An identical post was in flight; one text serves both.
    Twin,
    /// No model was asked.
    Rules,
}

/// Milliseconds by stage. A note from the cache or a twin has no `draft` of its own.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct NoteTiming {
    /// Decoding, cleaning and tokenising.
    pub tokenise: f64,
    /// Waiting for a place beside the texts being written.
    pub queue: f64,
    /// From joining them to the last check.
    pub draft: f64,
    /// From polling to publishing.
    pub total: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_verdict_a_note_needs_little() {
        let text = r#"{"id":"v1","subject":"p1","more":1,"data":{"verdict":{"label":"misinformation","score":0.9,"action":"review"}}}"#;
        let (verdict, subject) = VerdictRef::read(text.as_bytes()).unwrap();
        assert_eq!(
            (verdict.label.as_str(), verdict.score, verdict.action),
            ("misinformation", Some(0.9), Some(Action::Review))
        );
        assert_eq!((verdict.verdict_id.as_deref(), subject.as_deref()), (Some("v1"), Some("p1")));
        let least = VerdictRef::read(br#"{"data":{"verdict":{"label":"a"}}}"#).unwrap();
        assert_eq!(
            least,
            (VerdictRef { verdict_id: None, label: "a".to_owned(), score: None, action: None, abstained: None }, None)
        );
    }

    #[test]
    fn what_is_no_verdict_is_told_apart_from_a_label_that_is_none() {
        for text in ["", "{}", "[]", r#"{"data":{"verdict":{}}}"#, r#"{"data":{"verdict":{"label":1}}}"#] {
            assert_eq!(VerdictRef::read(text.as_bytes()), Err(VerdictFault::Unreadable), "{text}");
        }
        for label in ["", "A label", "a\\nEvidence:", &"a".repeat(65)] {
            let text = format!(r#"{{"data":{{"verdict":{{"label":"{label}"}}}}}}"#);
            assert_eq!(VerdictRef::read(text.as_bytes()), Err(VerdictFault::Label), "{text}");
        }
    }
}
