//! A finished text to the note that is published: what it goes with, and the provenance that explains it.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::error::Fatal;
use crate::model::ModelInfo;
use crate::note::v1::{Note, NoteData, NoteInput, NotePolicyRef, NoteSource, NoteStatus, NoteTiming};
use crate::note::{Draft, NoteV1};
use crate::pipeline::Judged;
use crate::pipeline::ask::Rules;
use crate::pipeline::infer::millis;
use crate::pipeline::judge::source_ref;
use crate::receipt::Envelope;
use crate::verdict::{Keyring, ModelRef, Source, text_sha256, verdict_id};

/// The rules in force and what is known about the model.
pub struct Notes {
    policy: NotePolicyRef,
    info: Arc<ModelInfo>,
    keyring: Keyring,
    source: String,
}

impl Notes {
    /// `pool` names who drafts: the consumer group.
    pub fn new(rules: &Rules, info: Arc<ModelInfo>, pool: &str) -> Self {
        let policy = rules.policy.reference();
        // The folder's digest covers all its graphs; the precision tells which of them writes.
        let model = [&*info.model_digest, &*info.precision, &*info.tokenizer_digest, &*info.prompt_digest];
        let revisions = [&model[..], &["note", &*policy.digest, &*policy.checks]].concat();
        let keyring = Keyring::new(&revisions);
        Self { policy, info, keyring, source: format!("urn:moderato:{pool}") }
    }

    /// Makes keys for this model, policy and these checks.
    pub fn keyring(&self) -> Keyring {
        self.keyring.clone()
    }

    /// The note on one post.
    pub fn note<'a>(&'a self, judged: &'a Envelope<Judged>, draft: &'a Draft) -> Result<NoteV1<'a>, Fatal> {
        let (original, post) = (&*judged.original, &judged.body.row.post);
        Ok(NoteV1 {
            specversion: "1.0".into(),
            id: verdict_id(original, &judged.body.row.key).into(),
            source: self.source.as_str().into(),
            kind: "dev.moderato.note.v1".into(),
            subject: (&*post.id.0).into(),
            time: Timestamp::now().to_string().into(),
            datacontenttype: "application/json".into(),
            dataschema: "urn:moderato:schema:note.v1".into(),
            data: self.data(judged, draft)?,
        })
    }

    fn data<'a>(&'a self, judged: &'a Envelope<Judged>, draft: &'a Draft) -> Result<NoteData<'a>, Fatal> {
        let Judged { row, source, .. } = &judged.body;
        let asked = row.note.as_ref().ok_or_else(|| Fatal::Internal {
            part: "conclude",
            cause: "a note without the verdict that it goes with".to_owned(),
        })?;
        Ok(NoteData {
            note: body(draft),
            verdict: asked.verdict.clone(),
            policy: Cow::Borrowed(&self.policy),
            model: self.model(draft),
            input: self.input(judged, draft),
            answered_by: match source {
                _ if draft.written.is_none() => NoteSource::Rules,
                Source::Model => NoteSource::Model,
                Source::Cache => NoteSource::Cache,
                Source::Twin => NoteSource::Twin,
            },
            timing_ms: NoteTiming {
                tokenise: millis(row.tokenise),
                queue: millis(row.queue.unwrap_or(Duration::ZERO)),
                draft: millis(row.classify.unwrap_or(Duration::ZERO)),
                total: millis(judged.received.elapsed()),
            },
            idempotency_key: row.key.to_string().into(),
            worker_version: env!("CARGO_PKG_VERSION").into(),
        })
    }

    fn model<'a>(&'a self, draft: &'a Draft) -> Option<ModelRef<'a>> {
        let written = draft.written.as_ref()?;
        Some(ModelRef {
            name: self.info.name.as_str().into(),
            digest: self.info.model_digest.as_str().into(),
            tokenizer_digest: self.info.tokenizer_digest.as_str().into(),
            prompt_digest: self.info.prompt_digest.as_str().into(),
            decoding: "greedy: the likeliest token each time, until the model ends or max_new_tokens".into(),
            execution: Cow::Borrowed(&*written.execution),
            computed_at: written.computed_at.as_str().into(),
        })
    }

    fn input<'a>(&self, judged: &'a Envelope<Judged>, draft: &Draft) -> NoteInput<'a> {
        let row = &judged.body.row;
        NoteInput {
            post_id: (&*row.post.id.0).into(),
            version: row.post.version,
            lang: row.post.lang.as_deref().map(Cow::Borrowed),
            text_sha256: text_sha256(&row.post.text).into(),
            evidence: row.post.evidence.iter().map(|piece| Cow::Borrowed(&*piece.id)).collect(),
            truncated: row.tokens.truncated,
            tokens_seen: row.tokens.tokens_seen,
            tokens_prompt: self.info.prompt_tokens,
            tokens_written: draft.written.as_ref().map_or(0, |written| written.tokens),
            tags_neutralised: row.tokens.neutralised as usize,
            kafka: source_ref(&judged.original),
        }
    }
}

fn body(draft: &Draft) -> Note<'_> {
    Note {
        status: NoteStatus::Draft,
        lang: draft.lang.as_deref().unwrap_or("und").into(),
        summary: draft.summary.as_str().into(),
        citations: draft.citations.as_slice().into(),
        fixed_form: draft.fixed_form,
        attempts: draft.attempts,
        checks: Cow::Borrowed(&draft.checks),
        refused: draft.refused.as_slice().into(),
        unasked: draft.unasked,
        reviewer: None,
    }
}
