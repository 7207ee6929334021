//! A verdict: what is published for one post, and the digests that let it be recognised and repeated.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::hygiene::TextNormalised;
use crate::policy::Action;
use crate::post::EvidenceSeen;
use crate::receipt::Original;

/// Digest of exactly the token ids that the model saw and of every revision that shaped its answer: model, tokenizer,
/// prompt, policy. Equal keys mean equal questions to the same judge; anything else never shares a cached answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct VerdictKey([u8; 32]);

impl fmt::Display for VerdictKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl VerdictKey {
    /// The key that is written so; `None` for anything else.
    pub fn from_hex(text: &[u8]) -> Option<Self> {
        let mut digest = [0; 32];
        hex::decode_to_slice(text, &mut digest).ok()?;
        Some(Self(digest))
    }
}

/// Makes keys for one judge: the revisions are hashed once.
#[derive(Clone)]
pub struct Keyring(Sha256);

impl Keyring {
    /// `revisions` in a fixed order; each is length-prefixed, so that no two lists read alike.
    pub fn new(revisions: &[&str]) -> Self {
        let mut hasher = Sha256::new_with_prefix(b"moderato/verdict-key/1");
        for revision in revisions {
            hasher.update((revision.len() as u64).to_le_bytes());
            hasher.update(revision.as_bytes());
        }
        Self(hasher)
    }

    /// The key of one row of token ids.
    pub fn key(&self, ids: &[u32]) -> VerdictKey {
        let mut hasher = self.0.clone();
        for id in ids {
            hasher.update(id.to_le_bytes());
        }
        VerdictKey(hasher.finalize().into())
    }

    /// The key of a row whose answer hangs on more than its ids: on what has this digest.
    pub fn key_beside(&self, ids: &[u32], digest: &[u8; 32]) -> VerdictKey {
        let mut hasher = Sha256::new_with_prefix(b"moderato/verdict-key/beside/1");
        hasher.update(self.key(ids).0);
        hasher.update(digest);
        VerdictKey(hasher.finalize().into())
    }
}

/// What the model said about one row of token ids, before any policy; this is what is cached.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// Softmax over the label tokens' logits, in the policy's label order.
    pub scores: Vec<f64>,
    /// Probability that the model gave to tokens that are no label.
    pub outside_labels: f64,
    /// What computed it.
    pub execution: Arc<Execution>,
    /// When, RFC 3339.
    pub computed_at: String,
}

/// What computed an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Execution {
    /// Execution provider that was asked for: `cpu`, `openvino`, `cuda`, `tensorrt` or `tensorrt_rtx`.
    pub provider: String,
    /// How many nodes of the model's graph each provider really got; empty in answers cached by older workers.
    #[serde(default)]
    pub nodes: BTreeMap<String, usize>,
    /// Precision of the weights: `fp32`, `fp16`, `int8`, ...; and what they are computed in, where that is another.
    pub precision: String,
    /// ONNX Runtime's version.
    pub onnxruntime: String,
}

/// Where a verdict's answer came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The model ran for this post.
    Model,
    /// The cache had the answer.
    Cache,
    /// An identical post was in flight; it ran once for both.
    Twin,
}

/// `verdict.v1`: the value of a record on the verdict topic; a CloudEvents 1.0 event in structured mode. What is the same
/// for many verdicts is borrowed while one is written.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "verdict.v1")]
pub struct VerdictV1<'a> {
    /// CloudEvents version, `1.0`.
    pub specversion: Cow<'a, str>,
    /// The verdict's id: a digest of the source coordinates and the verdict key, so that a verdict that is published
    /// twice after a crash can be recognised.
    pub id: Cow<'a, str>,
    /// The worker pool: `urn:moderato:` and the consumer group.
    pub source: Cow<'a, str>,
    /// `dev.moderato.verdict.v1`.
    #[serde(rename = "type")]
    pub kind: Cow<'a, str>,
    /// The post's id.
    pub subject: Cow<'a, str>,
    /// When the verdict was given, RFC 3339, UTC.
    pub time: Cow<'a, str>,
    /// `application/json`.
    pub datacontenttype: Cow<'a, str>,
    /// `urn:moderato:schema:verdict.v1`.
    pub dataschema: Cow<'a, str>,
    /// The verdict.
    pub data: VerdictData<'a>,
}

/// The verdict and all that made it.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct VerdictData<'a> {
    /// The judgement.
    pub verdict: Judgement<'a>,
    /// The policy it was judged by.
    pub policy: Cow<'a, PolicyRef>,
    /// The model that judged.
    pub model: ModelRef<'a>,
    /// What was judged.
    pub input: InputRef<'a>,
    /// What was done to the text before the model read it; left out where nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security: Option<Security>,
    /// Where the answer came from.
    pub answered_by: Source,
    /// Milliseconds spent on this post.
    pub timing_ms: Timing,
    /// The verdict key, hex: equal for posts that put the same question to the same judge.
    pub idempotency_key: Cow<'a, str>,
    /// Version of the worker.
    pub worker_version: Cow<'a, str>,
}

/// Label, scores and the action that the policy proposes.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Judgement<'a> {
    /// The label with the highest score.
    pub label: Cow<'a, str>,
    /// Its score, 0 to 1. Not calibrated: no calibration is part of this version.
    pub score: f64,
    /// Every label's score; they sum to 1.
    pub scores: BTreeMap<Cow<'a, str>, f64>,
    /// Probability that the model gave to tokens that are no label, 0 to 1: high means that it was confused.
    pub outside_labels: f64,
    /// What is proposed: the strictest that any label's thresholds call for; but a post that the model did not see
    /// whole is never allowed, it is for a person.
    pub action: Action,
    /// What decided the action.
    pub action_reason: ActionReason,
    /// The label whose score called for the action; the first of the scores where none did.
    pub action_label: Cow<'a, str>,
    /// The thresholds of that label, if the policy gives it any.
    pub thresholds: Option<crate::policy::Thresholds>,
}

/// What decided an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ActionReason {
    /// The scores, by the policy's thresholds.
    Thresholds,
    /// The scores alone would have allowed the post, but the model saw only part of it.
    NotWhollySeen,
}

/// Defences that a post set off.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
pub struct Security {
    /// What text hygiene changed, in characters: the model read the text without it.
    pub text_normalised: TextNormalised,
}

/// Which policy.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct PolicyRef {
    /// The policy's id.
    pub id: String,
    /// Its author's name for the revision.
    pub revision: String,
    /// Digest of its content.
    pub digest: String,
    /// The label set.
    pub taxonomy: String,
}

/// Which model, and how it ran.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ModelRef<'a> {
    /// The model's name.
    pub name: Cow<'a, str>,
    /// Digest over every file of the model folder.
    pub digest: Cow<'a, str>,
    /// Digest of the tokenizer and chat template.
    pub tokenizer_digest: Cow<'a, str>,
    /// Digest of the token ids of the shared prompt.
    pub prompt_digest: Cow<'a, str>,
    /// How the label was read.
    pub decoding: Cow<'a, str>,
    /// What computed the answer.
    pub execution: Cow<'a, Execution>,
    /// When the answer was computed, RFC 3339; earlier than `time` when it came from the cache.
    pub computed_at: Cow<'a, str>,
}

/// Which post, and how much of it was seen.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct InputRef<'a> {
    /// The post's id.
    pub post_id: Cow<'a, str>,
    /// The post's version, if it has one.
    pub version: Option<u64>,
    /// The post's language, as its producer gave it.
    pub lang: Option<Cow<'a, str>>,
    /// SHA-256 of the post's text as it came.
    pub text_sha256: Cow<'a, str>,
    /// Whether the model saw only part of the post.
    pub truncated: bool,
    /// Post tokens that the model saw, of the text after hygiene.
    pub tokens_seen: usize,
    /// Post tokens in all; a lower bound when the post was cut before tokenising.
    pub tokens_total: usize,
    /// Tokens of the prompt, computed once and shared.
    pub tokens_prompt: usize,
    /// Prompt tags such as `[INST]` found in the text and made harmless.
    pub tags_neutralised: usize,
    /// How much of the post's evidence the model saw; left out where the post brought none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<EvidenceSeen>,
    /// Where the post stood.
    pub kafka: SourceRef<'a>,
}

/// Source coordinates of a post.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct SourceRef<'a> {
    /// Topic.
    pub topic: Cow<'a, str>,
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// The record's timestamp, milliseconds since the Unix epoch.
    pub timestamp_ms: Option<i64>,
}

/// Milliseconds by stage. A cached or twin verdict has no `classify` of its own.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Timing {
    /// Decoding and tokenising.
    pub tokenise: f64,
    /// Waiting for a batch.
    pub queue: f64,
    /// The model's run, shared by the batch's rows.
    pub classify: f64,
    /// From polling to publishing.
    pub total: f64,
}

/// The deterministic id of the verdict for one record.
pub fn verdict_id(original: &Original, key: &VerdictKey) -> String {
    let mut hasher = Sha256::new_with_prefix(b"moderato/verdict-id/1");
    hasher.update((original.topic.len() as u64).to_le_bytes());
    hasher.update(original.topic.as_bytes());
    hasher.update(original.partition.to_le_bytes());
    hasher.update(original.offset.0.to_le_bytes());
    hasher.update(key.0);
    hex(&hasher.finalize()[..16])
}

/// SHA-256 of a text, hex.
pub fn text_sha256(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes()))
}

fn hex(digest: &[u8]) -> String {
    let mut text = vec![0; 2 * digest.len()];
    // The room is exactly right, and hex is ASCII: neither can fail.
    let _ = hex::encode_to_slice(digest, &mut text);
    String::from_utf8(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receipt::{Headers, Offset};

    #[test]
    fn every_revision_and_every_token_id_is_part_of_the_key() {
        let key = |revisions: &[&str], ids: &[u32]| Keyring::new(revisions).key(ids);
        let base = key(&["m", "t", "p", "q"], &[1, 2]);
        assert_eq!(base, key(&["m", "t", "p", "q"], &[1, 2]));
        for revisions in [["M", "t", "p", "q"], ["m", "T", "p", "q"], ["m", "t", "P", "q"], ["m", "t", "p", "Q"]] {
            assert_ne!(base, key(&revisions, &[1, 2]));
        }
        assert_ne!(base, key(&["m", "t", "p", "q"], &[1, 3]));
        assert_ne!(base, key(&["m", "t", "p", "q"], &[2, 1]));
        assert_ne!(key(&["ab", "c"], &[]), key(&["a", "bc"], &[]));
        assert_eq!(VerdictKey::from_hex(base.to_string().as_bytes()), Some(base));
        assert_eq!(VerdictKey::from_hex(&base.to_string().as_bytes()[2..]), None);
    }

    #[test]
    fn a_verdict_id_changes_with_each_coordinate_and_with_the_key() {
        let original = |topic: &str, partition, offset| Original {
            topic: topic.into(),
            partition,
            offset: Offset(offset),
            timestamp_ms: None,
            key: None,
            value: None,
            headers: Headers::default(),
        };
        let key = Keyring::new(&[]).key(&[1]);
        let base = verdict_id(&original("t", 0, 5), &key);
        assert_eq!(base, verdict_id(&original("t", 0, 5), &key));
        assert_ne!(base, verdict_id(&original("u", 0, 5), &key));
        assert_ne!(base, verdict_id(&original("t", 1, 5), &key));
        assert_ne!(base, verdict_id(&original("t", 0, 6), &key));
        assert_ne!(base, verdict_id(&original("t", 0, 5), &Keyring::new(&[]).key(&[2])));
    }
}
