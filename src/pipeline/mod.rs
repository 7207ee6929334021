//! The road on one page.
//!
//! ```text
//! source ─intake─> prepare ─misses─> batcher <─idle── model threads ─answers─> remember ─┐
//!    ^                └────────────── hit, twin, rejection, tombstone ──────── finished ──┴─> conclude ─> outlet
//!    └──────────────────────────────────── settled receipts ────────────────────────────────────┘
//! ```
//!
//! Each stage reads one channel, writes to the next and ends because its input closed. Every channel has room for all
//! permits, so nothing between source and outlet ever waits for room; an idle model thread asks the batcher for a run.

pub mod batcher;
pub mod circuit;
pub mod conclude;
pub mod elsewhere;
pub mod infer;
pub mod judge;
pub mod judgement;
pub mod outlet;
pub mod prepare;
pub mod sequencer;
pub mod tally;
pub mod twins;
pub mod waitlist;

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, unbounded};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::cache::Cache;
use crate::config::Limits;
use crate::error::Fatal;
use crate::language::Detected;
use crate::model::{Loaded, Tokenized};
use crate::pipeline::circuit::Tolerance;
use crate::pipeline::judge::Judge;
use crate::pipeline::outlet::Outlet;
use crate::pipeline::tally::Tally;
use crate::pipeline::twins::Twins;
use crate::policy::Policy;
use crate::post::Post;
use crate::receipt::{Envelope, RawMessage, Receipt};
use crate::rejection::Rejected;
use crate::suspects::Suspects;
use crate::verdict::{Answer, Execution, Source, VerdictKey};

/// A post with exactly the token ids that the model will see.
#[derive(Debug)]
pub struct TokenizedPost {
    /// The post.
    pub post: Post,
    /// Its ids, and how much of it they cover.
    pub tokens: Tokenized,
    /// What identifies the question.
    pub key: VerdictKey,
    /// What the text tells of its language, if the policy asks for that and the model has to run.
    pub language: Option<Detected>,
    /// Decoding and tokenising took this long.
    pub tokenise: Duration,
    /// It waited this long for its run, if it had one of its own.
    pub queue: Option<Duration>,
    /// Its run took this long, if it had one of its own.
    pub classify: Option<Duration>,
}

/// A post and what the model said about it; no policy applied yet.
#[derive(Debug)]
pub struct Judged {
    /// The post.
    pub row: TokenizedPost,
    /// The answer.
    pub answer: Arc<Answer>,
    /// Whose answer it is.
    pub source: Source,
}

/// A record for which nothing is left to compute.
#[derive(Debug)]
pub enum Finished {
    /// The model, the cache or a twin answered.
    Judged(Envelope<Judged>),
    /// It cannot be judged.
    Rejected(Envelope<Rejected>),
    /// A deletion: nothing to judge.
    Tombstone(Envelope<()>),
}

impl Finished {
    /// The duty that rides with it.
    pub fn receipt(&self) -> &Receipt {
        match self {
            Finished::Judged(envelope) => &envelope.receipt,
            Finished::Rejected(envelope) => &envelope.receipt,
            Finished::Tombstone(envelope) => &envelope.receipt,
        }
    }
}

/// What a road is built from.
pub struct Parts {
    /// The model, its prompt and what is known about them.
    pub model: Loaded,
    /// The policy in force.
    pub policy: Policy,
    /// Where answers are kept.
    pub cache: Cache,
    /// Where verdicts go.
    pub outlet: Outlet,
    /// Who judges: the consumer group, for the verdict's `source`.
    pub pool: String,
    /// Bounds.
    pub limits: Limits,
    /// Posts that may have ended a process.
    pub suspects: Arc<Suspects>,
    /// Counters.
    pub tally: Arc<Tally>,
}

/// A running road: a source feeds `intake` and takes receipts back from `settled`.
pub struct Road {
    /// Records in; dropping it closes the road stage by stage.
    pub intake: mpsc::Sender<Envelope<RawMessage>>,
    /// Finished receipts out.
    pub settled: Receiver<Receipt>,
    /// Posts that may have ended a process: closed last.
    pub suspects: Arc<Suspects>,
    /// The stages. Each ends with `Ok` when its input has closed and all of it has gone on.
    pub stages: JoinSet<Result<(), Fatal>>,
}

/// Builds the road and starts its stages on the current runtime.
pub fn build(parts: Parts) -> Result<Road, Fatal> {
    let Parts { model: Loaded { instances, prompt, info }, policy, cache, outlet, pool, limits, suspects, tally } =
        parts;
    let room = limits.max_in_flight;
    // Beyond the permits, in case a record that was fetched before a pause is handed out after it.
    let (intake, intake_rx) = mpsc::channel(room + 64);
    let (misses, misses_rx) = mpsc::channel(room);
    let (idle, idle_rx) = mpsc::channel(instances.len().max(1));
    let (answers, answers_rx) = mpsc::channel(room);
    let (finished, finished_rx) = mpsc::channel(room);
    let (settled_tx, settled) = unbounded();
    let (cache, twins) = (Arc::new(cache), Arc::new(Twins::default()));
    let execution = Arc::new(Execution {
        provider: info.provider.to_string(),
        nodes: info.nodes.clone(),
        precision: info.precision.to_string(),
        onnxruntime: info.onnxruntime_version.to_string(),
    });
    let detect_language = !policy.languages.is_empty();
    let judge = Judge::new(policy, &info, pool);
    let prepare = prepare::Parts {
        prompt,
        limit: limits.input,
        max_post_bytes: limits.max_post_bytes,
        keyring: judge.keyring(),
        cache: cache.clone(),
        twins: twins.clone(),
        suspects: suspects.clone(),
        labels: info.labels.len(),
        detect_language,
    };
    let conclude = conclude::Parts {
        judge,
        outlet,
        cache: cache.clone(),
        settled: settled_tx,
        tolerance: Tolerance { in_a_row: limits.max_consecutive_rejections, ratio: limits.max_rejection_ratio },
        tally: tally.clone(),
    };

    let mut stages = JoinSet::new();
    stages.spawn(prepare::run(prepare, intake_rx, prepare::Onward { misses, finished: finished.clone() }));
    let batcher =
        batcher::Parts { limits: limits.batch, instances: instances.len(), suspects: suspects.clone(), idle: idle_rx };
    stages.spawn(async move {
        batcher.run(misses_rx).await;
        Ok(())
    });
    for instance in instances {
        let parts = infer::Parts {
            instance,
            execution: execution.clone(),
            prompt_tokens: info.prompt_tokens,
            journal: suspects.journal().map_err(|error| Fatal::Internal { part: "model", cause: error.to_string() })?,
            suspects: suspects.clone(),
            tally: tally.clone(),
        };
        let model = infer::spawn(parts, idle.clone(), answers.clone())?;
        stages.spawn_blocking(move || {
            let panicked = || Fatal::Internal { part: "model", cause: "its thread panicked".to_owned() };
            model.join().unwrap_or_else(|_| Err(panicked()))
        });
    }
    drop((idle, answers));
    stages.spawn(infer::remember(cache, twins, answers_rx, finished));
    stages.spawn(conclude::run(conclude, finished_rx));
    Ok(Road { intake, settled, suspects, stages })
}
