//! Answer to verdict: what the policy makes of it, and the provenance that explains that.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::calibration::CalibrationV1;
use crate::config::Determinism;
use crate::language::{self, Detected};
use crate::model::ModelInfo;
use crate::pipeline::infer::millis;
use crate::pipeline::judgement::{Circumstances, judgement};
use crate::pipeline::{Judged, TokenizedPost};
use crate::policy::Policy;
use crate::receipt::{Envelope, Original};
use crate::verdict::{
    Answer, Conditions, Digests, Fingerprint, InputRef, Keyring, ModelRef, PolicyRef, Replay, Revisions, Security,
    SourceRef, Timing, VerdictData, VerdictV1, text_sha256, verdict_id,
};

/// The policy in force and what is known about the model.
pub struct Judge {
    policy: Policy,
    policy_ref: PolicyRef,
    /// All but execution and time, which are the answer's.
    model: ModelTemplate,
    keyring: Keyring,
    /// Under the policy in force.
    digests: Digests,
    /// The policy's calibration, if it has one, was fitted for this model and prompt.
    matches_model: bool,
    prompt_tokens: usize,
    source: String,
    replay: Option<Arc<str>>,
}

struct ModelTemplate {
    name: String,
    digest: String,
    tokenizer_digest: String,
    prompt_digest: String,
}

impl ModelTemplate {
    /// Whether the policy's calibration, if it has one, was fitted for this model and prompt.
    fn matches(&self, policy: &Policy) -> bool {
        let mismatch = |fit: &Arc<CalibrationV1>| fit.mismatch(&self.digest, &self.prompt_digest);
        policy.calibration.as_ref().and_then(mismatch).is_none()
    }
}

/// How verdicts name a policy.
pub fn reference(policy: &Policy) -> PolicyRef {
    PolicyRef {
        id: policy.id.clone(),
        revision: policy.revision.clone(),
        digest: policy.digest().to_owned(),
        taxonomy: policy.taxonomy.clone(),
    }
}

impl Judge {
    /// `pool` names who judges: the consumer group.
    pub fn new(policy: Policy, info: &ModelInfo, pool: String) -> Self {
        let model = ModelTemplate {
            name: info.name.to_string(),
            digest: info.model_digest.to_string(),
            tokenizer_digest: info.tokenizer_digest.to_string(),
            prompt_digest: info.prompt_digest.to_string(),
        };
        // The folder's digest covers all its graphs; the precision tells which of them answers. Of the policy only what
        // the model reads and answers with, which is the prompt's digest: see `VerdictKey::under`.
        let revisions = [&model.digest, &info.precision, &model.tokenizer_digest, &model.prompt_digest];
        let mut revisions = revisions.map(String::as_str).to_vec();
        // Whoever judges strictly takes no answer that was computed in another way.
        let conditions = info.conditions.revision();
        if info.conditions.determinism == Determinism::Strict {
            revisions.push(&conditions);
        }
        let keyring = Keyring::new(&revisions);
        let matches_model = model.matches(&policy);
        let policy_ref = reference(&policy);
        let source = format!("urn:moderato:{pool}");
        Self {
            policy,
            policy_ref,
            model,
            keyring,
            digests: Digests::default(),
            matches_model,
            prompt_tokens: info.prompt_tokens,
            source,
            replay: None,
        }
    }

    /// Every verdict says which replay it is of, if it is of one.
    #[must_use]
    pub fn of_replay(self, replay: Option<Arc<str>>) -> Self {
        Self { replay, ..self }
    }

    /// Another policy with the same prompt and labels comes into force.
    pub fn renew(&mut self, policy: Policy) {
        self.matches_model = self.model.matches(&policy);
        self.policy_ref = reference(&policy);
        self.digests = Digests::default();
        self.policy = policy;
    }

    /// Makes the keys of questions to this model under this prompt.
    pub fn keyring(&self) -> Keyring {
        self.keyring.clone()
    }

    /// The verdict on one post.
    pub fn verdict<'a>(&'a mut self, judged: &'a Envelope<Judged>, answer: &'a Answer) -> VerdictV1<'a> {
        let fingerprint = answer.conditions.as_deref().map(|conditions| self.fingerprint(conditions));
        let Judged { row, source, .. } = &judged.body;
        let original = &*judged.original;
        let key = row.key.under(self.policy.digest());
        let detected = self.detected(row, answer);
        let language = language::of_post(row.post.lang.as_deref(), detected.as_deref());
        let seen = Circumstances {
            truncated: row.tokens.truncated,
            language: language.as_deref(),
            matches_model: self.matches_model,
        };
        VerdictV1 {
            specversion: "1.0".into(),
            id: verdict_id(original, &key).into(),
            source: self.source.as_str().into(),
            kind: "dev.moderato.verdict.v1".into(),
            subject: (&*row.post.id.0).into(),
            time: Timestamp::now().to_string().into(),
            datacontenttype: "application/json".into(),
            dataschema: "urn:moderato:schema:verdict.v1".into(),
            data: VerdictData {
                verdict: judgement(&self.policy, answer, seen),
                policy: Cow::Borrowed(&self.policy_ref),
                model: ModelRef {
                    name: self.model.name.as_str().into(),
                    digest: self.model.digest.as_str().into(),
                    tokenizer_digest: self.model.tokenizer_digest.as_str().into(),
                    prompt_digest: self.model.prompt_digest.as_str().into(),
                    decoding: "softmax over the logits of the label tokens at the last position".into(),
                    execution: Cow::Borrowed(&*answer.execution),
                    computed_at: answer.computed_at.as_str().into(),
                },
                input: self.input(judged, detected.as_deref()),
                fingerprint,
                security: row.tokens.normalised.as_deref().map(|changed| Security { text_normalised: *changed }),
                replay: self.replay.as_deref().map(|id| Replay { id: id.into() }),
                answered_by: *source,
                timing_ms: Timing {
                    tokenise: millis(row.tokenise),
                    queue: millis(row.queue.unwrap_or(Duration::ZERO)),
                    classify: millis(row.classify.unwrap_or(Duration::ZERO)),
                    total: millis(judged.received.elapsed()),
                },
                idempotency_key: key.to_string().into(),
                worker_version: env!("CARGO_PKG_VERSION").into(),
            },
        }
    }

    fn fingerprint<'a>(&mut self, conditions: &'a Conditions) -> Fingerprint<'a> {
        let calibration = self.policy.calibration.is_some().then(|| self.policy.calibration_revision());
        let revisions = Revisions {
            model: &self.model.digest,
            tokenizer: &self.model.tokenizer_digest,
            prompt: &self.model.prompt_digest,
            policy: self.policy.digest(),
            calibration,
        };
        self.digests.fingerprint(revisions, conditions)
    }

    /// What the text tells of its language, where the policy asks for that: the answer has it, unless it was kept by a
    /// worker that was not asked, or by another one just now.
    fn detected<'a>(&self, row: &TokenizedPost, answer: &'a Answer) -> Option<Cow<'a, Detected>> {
        if self.policy.languages.is_empty() {
            return None;
        }
        let kept = answer.language.as_ref().map(Cow::Borrowed);
        Some(kept.unwrap_or_else(|| Cow::Owned(language::detect(&row.post.text))))
    }

    fn input<'a>(&self, judged: &'a Envelope<Judged>, detected: Option<&Detected>) -> InputRef<'a> {
        let row = &judged.body.row;
        let (lang_detected, lang_confidence) = detected.and_then(Detected::sure).unzip();
        InputRef {
            post_id: (&*row.post.id.0).into(),
            version: row.post.version,
            lang: row.post.lang.as_deref().map(Cow::Borrowed),
            lang_detected: lang_detected.map(|lang| lang.to_owned().into()),
            lang_confidence,
            text_sha256: text_sha256(&row.post.text).into(),
            truncated: row.tokens.truncated,
            tokens_seen: row.tokens.tokens_seen,
            tokens_total: row.tokens.tokens_total,
            tokens_prompt: self.prompt_tokens,
            tags_neutralised: row.tokens.neutralised as usize,
            evidence: row.tokens.evidence,
            kafka: source_ref(&judged.original),
        }
    }
}

/// Where a record stood.
pub fn source_ref(original: &Original) -> SourceRef<'_> {
    SourceRef {
        topic: (&*original.topic).into(),
        partition: original.partition,
        offset: original.offset.0,
        timestamp_ms: original.timestamp_ms,
    }
}
