//! Scores to verdict: label and action by the policy, and the provenance that explains them.

use std::borrow::Cow;
use std::time::Duration;

use jiff::Timestamp;

use crate::model::ModelInfo;
use crate::pipeline::Judged;
use crate::pipeline::infer::millis;
use crate::policy::{Action, Policy};
use crate::receipt::{Envelope, Original};
use crate::verdict::{
    ActionReason, Answer, InputRef, Judgement, Keyring, ModelRef, PolicyRef, Security, SourceRef, Timing, VerdictData,
    VerdictV1, text_sha256, verdict_id,
};

/// The policy in force and what is known about the model.
pub struct Judge {
    policy: Policy,
    policy_ref: PolicyRef,
    /// All but execution and time, which are the answer's.
    model: ModelTemplate,
    keyring: Keyring,
    prompt_tokens: usize,
    source: String,
}

struct ModelTemplate {
    name: String,
    digest: String,
    tokenizer_digest: String,
    prompt_digest: String,
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
        // The folder's digest covers all its graphs; the precision tells which of them answers.
        let revisions =
            [&model.digest, &info.precision, &model.tokenizer_digest, &model.prompt_digest, policy.digest()];
        let keyring = Keyring::new(&revisions);
        let policy_ref = PolicyRef {
            id: policy.id.clone(),
            revision: policy.revision.clone(),
            digest: policy.digest().to_owned(),
            taxonomy: policy.taxonomy.clone(),
        };
        let source = format!("urn:moderato:{pool}");
        Self { policy, policy_ref, model, keyring, prompt_tokens: info.prompt_tokens, source }
    }

    /// Makes verdict keys for this model and policy.
    pub fn keyring(&self) -> Keyring {
        self.keyring.clone()
    }

    /// The verdict on one post. The answer has a score for each of the policy's labels: the model and the cache see to
    /// that.
    pub fn verdict<'a>(&'a self, judged: &'a Envelope<Judged>, answer: &'a Answer) -> VerdictV1<'a> {
        let Judged { row, source, .. } = &judged.body;
        let original = &*judged.original;
        VerdictV1 {
            specversion: "1.0".into(),
            id: verdict_id(original, &row.key).into(),
            source: self.source.as_str().into(),
            kind: "dev.moderato.verdict.v1".into(),
            subject: (&*row.post.id.0).into(),
            time: Timestamp::now().to_string().into(),
            datacontenttype: "application/json".into(),
            dataschema: "urn:moderato:schema:verdict.v1".into(),
            data: VerdictData {
                verdict: self.judgement(answer, row.tokens.truncated),
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
                input: self.input(judged),
                security: row.tokens.normalised.as_deref().map(|changed| Security { text_normalised: *changed }),
                answered_by: *source,
                timing_ms: Timing {
                    tokenise: millis(row.tokenise),
                    queue: millis(row.queue.unwrap_or(Duration::ZERO)),
                    classify: millis(row.classify.unwrap_or(Duration::ZERO)),
                    total: millis(judged.received.elapsed()),
                },
                idempotency_key: row.key.to_string().into(),
                worker_version: env!("CARGO_PKG_VERSION").into(),
            },
        }
    }

    /// The label is the highest score; the action is the strictest that any label's own thresholds call for, so that
    /// a post that is 45 % misinformation is looked at even where another label leads.
    fn judgement(&self, answer: &Answer, truncated: bool) -> Judgement<'_> {
        let (labels, scores) = (&self.policy.labels, &answer.scores);
        let best = (0..scores.len()).fold(0, |best, i| if scores[i] > scores[best] { i } else { best });
        let decider = (0..scores.len()).max_by_key(|&i| (self.policy.action(i, scores[i]), i == best));
        let action = decider.map_or(Action::Allow, |i| self.policy.action(i, scores[i]));
        let decider = decider.filter(|_| action != Action::Allow).unwrap_or(best);
        // Nobody has looked at what was cut out, so nobody can say that it is harmless.
        let (action, action_reason) = match action {
            Action::Allow if truncated => (Action::Review, ActionReason::NotWhollySeen),
            action => (action, ActionReason::Thresholds),
        };
        Judgement {
            label: (&*labels[best].id).into(),
            score: scores[best],
            scores: labels.iter().map(|label| Cow::Borrowed(&*label.id)).zip(scores.iter().copied()).collect(),
            outside_labels: answer.outside_labels,
            action,
            action_reason,
            action_label: (&*labels[decider].id).into(),
            thresholds: labels[decider].thresholds,
        }
    }

    fn input<'a>(&self, judged: &'a Envelope<Judged>) -> InputRef<'a> {
        let row = &judged.body.row;
        InputRef {
            post_id: (&*row.post.id.0).into(),
            version: row.post.version,
            lang: row.post.lang.as_deref().map(Cow::Borrowed),
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
pub(super) fn source_ref(original: &Original) -> SourceRef<'_> {
    SourceRef {
        topic: (&*original.topic).into(),
        partition: original.partition,
        offset: original.offset.0,
        timestamp_ms: original.timestamp_ms,
    }
}
