//! A verdict: what is published for one post, and the digests that let it be recognised and repeated.

mod fingerprint;
mod key;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[cfg(test)]
pub(crate) use self::fingerprint::tests;
pub use self::fingerprint::{Conditions, Digests, Fingerprint, Revisions};
pub use self::key::{Keyring, VerdictKey, text_sha256, verdict_id};
use crate::calibration::Method;
use crate::hygiene::TextNormalised;
use crate::language::Detected;
use crate::policy::Action;
use crate::post::EvidenceSeen;

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
    /// The language that the text tells, if anybody had it looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<Detected>,
    /// What it was computed under; older workers did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conditions: Option<Arc<Conditions>>,
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

impl Source {
    /// As verdicts spell it.
    pub fn name(self) -> &'static str {
        match self {
            Source::Model => "model",
            Source::Cache => "cache",
            Source::Twin => "twin",
        }
    }
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
    /// What the raw scores hang on, to the last bit; left out where an older worker had put the answer into the cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<Fingerprint<'a>>,
    /// What was done to the text before the model read it; left out where nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security: Option<Security>,
    /// The replay that this verdict is of; left out of live verdicts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay: Option<Replay<'a>>,
    /// Where the answer came from.
    pub answered_by: Source,
    /// Milliseconds spent on this post.
    pub timing_ms: Timing,
    /// The verdict key, hex: equal for posts that put the same question to the same model under the same policy.
    pub idempotency_key: Cow<'a, str>,
    /// Version of the worker.
    pub worker_version: Cow<'a, str>,
}

/// Label, scores and the action that the policy proposes.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Judgement<'a> {
    /// The label with the highest score.
    pub label: Cow<'a, str>,
    /// Its score, 0 to 1: calibrated where `calibration` is not null.
    pub score: f64,
    /// Every label's score, calibrated where `calibration` is not null; they sum to 1.
    pub scores: BTreeMap<Cow<'a, str>, f64>,
    /// Every label's score as the model gave it; they sum to 1. Verdicts of older workers have none.
    #[serde(default)]
    pub raw_scores: BTreeMap<Cow<'a, str>, f64>,
    /// What made `scores` of `raw_scores`; null where the policy names no calibration.
    #[serde(default)]
    pub calibration: Option<CalibrationRef<'a>>,
    /// Probability that the model gave to tokens that are no label, 0 to 1: high means that it was confused.
    pub outside_labels: f64,
    /// Whether the highest score is below the policy's `abstain_below`: the label is then no more than the best guess,
    /// and a person should look.
    #[serde(default)]
    pub abstained: bool,
    /// The band that each label's own thresholds put its score in.
    #[serde(default)]
    pub bands: BTreeMap<Cow<'a, str>, Action>,
    /// What is proposed: the strictest of the bands; but a post that the verdict abstains on or that the model did not
    /// see whole is never allowed, and one in a language that the model cannot judge is for a person in any case.
    pub action: Action,
    /// What decided the action.
    pub action_reason: ActionReason,
    /// The label whose score called for the action; the first of the scores where none did.
    pub action_label: Cow<'a, str>,
    /// The thresholds of that label, if the policy gives it any.
    pub thresholds: Option<crate::policy::Thresholds>,
}

/// Which calibration, and whether it was made for this model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CalibrationRef<'a> {
    /// Its name.
    pub id: Cow<'a, str>,
    /// Digest of its content.
    pub revision: Cow<'a, str>,
    /// What was fitted.
    pub method: Method,
    /// The language whose own scaling was used; null where it was the one for all.
    #[serde(default)]
    pub language: Option<Cow<'a, str>>,
    /// Whether it was fitted for this model under this prompt. False only where the policy allows it.
    pub matches_model: bool,
}

/// What decided an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ActionReason {
    /// The scores, by the policy's thresholds.
    Thresholds,
    /// The scores alone would have allowed the post, but the model saw only part of it.
    NotWhollySeen,
    /// The thresholds alone would have allowed the post, but no score is high enough to go by.
    Abstained,
    /// The post is in a language that the policy does not name, so the scores mean nothing.
    UnsupportedLanguage,
    /// The scores call for `act`, and the label has used up the policy's quota for acting by itself.
    Quota,
}

impl ActionReason {
    /// As verdicts spell it.
    pub fn name(self) -> &'static str {
        match self {
            ActionReason::Thresholds => "thresholds",
            ActionReason::NotWhollySeen => "not_wholly_seen",
            ActionReason::Abstained => "abstained",
            ActionReason::UnsupportedLanguage => "unsupported_language",
            ActionReason::Quota => "quota",
        }
    }
}

/// A post was judged again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Replay<'a> {
    /// Which replay.
    pub id: Cow<'a, str>,
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
    /// The language that the text tells, as a primary tag; looked at only where the policy names languages, and null where
    /// the text is too short to tell.
    #[serde(default)]
    pub lang_detected: Option<Cow<'a, str>>,
    /// How sure that is, 0 to 1.
    #[serde(default)]
    pub lang_confidence: Option<f64>,
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
