//! The road on one page.
//!
//! ```text
//! source ─intake─> prepare ─misses─> batcher <─idle── model threads ─answers─> remember ─┐
//!    ^                └────────────── hit, twin, rejection, tombstone ──────── finished ──┴─> conclude ─> outlet
//!    └──────────────────────────────────── settled receipts ────────────────────────────────────┘
//! ```
//!
//! A pool that drafts notes has the desk in the batcher's place, and threads that write in that of those that score.
//!
//! Each stage reads one channel, writes to the next and ends because its input closed. Every channel has room for all
//! permits, so nothing between source and outlet ever waits for room; an idle model thread asks the batcher for a run.

pub mod ask;
pub mod batcher;
pub mod circuit;
pub mod conclude;
pub mod desk;
pub mod draft;
pub mod drift;
pub mod elsewhere;
pub mod filed;
pub mod infer;
pub mod judge;
pub mod judgement;
pub mod notes;
pub mod outlet;
mod packed;
pub mod prepare;
pub mod quotas;
pub mod replayed;
pub mod sequencer;
pub mod shadow;
pub mod tally;
pub mod twins;
pub mod waitlist;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, unbounded};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::cache::Cache;
use crate::config::Limits;
use crate::error::Fatal;
use crate::event::Format;
use crate::language::Detected;
use crate::model::{Instance, Loaded, LoadedDraft, ModelInfo, Prompt, Tokenized};
use crate::note::NotePolicy;
use crate::pipeline::ask::Rules;
use crate::pipeline::circuit::Tolerance;
use crate::pipeline::conclude::Maker;
use crate::pipeline::judge::Judge;
use crate::pipeline::notes::Notes;
use crate::pipeline::outlet::Outlet;
use crate::pipeline::quotas::Quotas;
use crate::pipeline::replayed::Replayed;
use crate::pipeline::shadow::Tap;
use crate::pipeline::tally::Tally;
use crate::pipeline::twins::Twins;
use crate::policy::Policy;
use crate::post::Post;
use crate::receipt::{Envelope, RawMessage, Receipt};
use crate::registry::Registry;
use crate::rejection::Rejected;
use crate::reply::{Kind, Reply};
use crate::suspects::{Journal, Suspects};
use crate::verdict::{Execution, Keyring, Source, VerdictKey};

/// A post with exactly the token ids that the model will see.
#[derive(Debug)]
pub struct TokenizedPost {
    /// The post.
    pub post: Post,
    /// Its ids, and how much of it they cover.
    pub tokens: Tokenized,
    /// What identifies the question.
    pub key: VerdictKey,
    /// What a note may draw on, and the verdict that it goes with, where a note is asked for.
    pub note: Option<Box<ask::NoteRow>>,
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
    pub answer: Arc<Reply>,
    /// Whose answer it is.
    pub source: Source,
}

/// A record for which nothing is left to compute.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly every record is judged: a box would cost each of them")]
pub enum Finished {
    /// The model, the cache or a twin answered.
    Judged(Envelope<Judged>),
    /// It cannot be judged.
    Rejected(Envelope<Rejected>),
    /// A deletion: nothing to judge.
    Tombstone(Envelope<()>),
    /// A replay is not for it.
    PassedOver(Envelope<()>),
}

impl Finished {
    /// The duty that rides with it.
    pub fn receipt(&self) -> &Receipt {
        match self {
            Finished::Judged(envelope) => &envelope.receipt,
            Finished::Rejected(envelope) => &envelope.receipt,
            Finished::Tombstone(envelope) | Finished::PassedOver(envelope) => &envelope.receipt,
        }
    }
}

/// A model and what it is told: one task for all posts.
pub enum Work {
    /// Posts are judged.
    Judge {
        /// The model, its prompt and what is known about them.
        model: Loaded,
        /// The policy in force.
        policy: Policy,
    },
    /// Notes are drafted about flagged posts.
    Draft {
        /// The model, its prompt and what is known about them.
        model: LoadedDraft,
        /// The note policy in force.
        policy: NotePolicy,
    },
}

impl Work {
    /// What is known about the model.
    pub fn info(&self) -> &Arc<ModelInfo> {
        match self {
            Work::Judge { model, .. } => &model.info,
            Work::Draft { model, .. } => &model.info,
        }
    }
}

/// What a road is built from.
pub struct Parts {
    /// The model and the policy in force.
    pub work: Work,
    /// Where answers are kept.
    pub cache: Cache,
    /// Where verdicts go.
    pub outlet: Outlet,
    /// How they stand there.
    pub format: Format,
    /// Who knows the schemas of posts, if anyone does.
    pub registry: Option<Arc<Registry>>,
    /// Who judges: the consumer group, for the verdict's `source`.
    pub pool: String,
    /// Bounds.
    pub limits: Limits,
    /// Posts that may have ended a process.
    pub suspects: Arc<Suspects>,
    /// Counters.
    pub tally: Arc<Tally>,
    /// Policies that come into force while it runs.
    pub policies: mpsc::Receiver<Policy>,
    /// Where a shadow has its share.
    pub tap: Option<Tap>,
    /// The replay that this road is of, if it is.
    pub replayed: Option<Arc<Replayed>>,
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

/// What tells one task's road from another's: what is asked, how it is answered, and what is made of the answer.
struct Task {
    prompt: Arc<Prompt>,
    keyring: Keyring,
    kind: Kind,
    rules: Option<Arc<Rules>>,
    detect_language: bool,
    maker: Maker,
    engine: Engine,
}

/// The threads that own the model, still to be started.
enum Engine {
    Judge { model: Loaded },
    Draft { model: LoadedDraft, rules: Arc<Rules> },
}

/// Builds the road and starts its stages on the current runtime.
pub fn build(parts: Parts) -> Result<Road, Fatal> {
    let Parts { work, cache, outlet, format, registry, pool, limits, suspects, tally, policies, tap, replayed } = parts;
    let quotas = match &work {
        Work::Judge { policy, .. } => {
            tally.drift.begin(policy.calibration.as_deref());
            Quotas::default().renewed(policy, Instant::now())
        }
        Work::Draft { .. } => Quotas::default(),
    };
    let Task { prompt, keyring, kind, rules, detect_language, maker, engine } =
        Task::of(work, pool, replayed.as_deref());
    let room = limits.max_in_flight;
    // Beyond the permits, in case a record that was fetched before a pause is handed out after it.
    let (intake, intake_rx) = mpsc::channel(room + 64);
    let (misses, misses_rx) = mpsc::channel(room);
    let (answers, answers_rx) = mpsc::channel(room);
    let (finished, finished_rx) = mpsc::channel(room);
    let (settled_tx, settled) = unbounded();
    let (cache, twins) = (Arc::new(cache), Arc::new(Twins::default()));
    let prepare = prepare::Parts {
        prompt,
        limit: limits.input,
        max_post_bytes: limits.max_post_bytes,
        registry,
        keyring,
        cache: cache.clone(),
        twins: twins.clone(),
        suspects: suspects.clone(),
        kind,
        rules,
        detect_language,
        replayed: replayed.clone(),
    };
    let conclude = conclude::Parts {
        maker,
        format,
        outlet,
        cache: cache.clone(),
        settled: settled_tx,
        tolerance: Tolerance { in_a_row: limits.max_consecutive_rejections, ratio: limits.max_rejection_ratio },
        tally: tally.clone(),
        policies,
        quotas,
        tap,
        replayed,
    };

    let mut stages = JoinSet::new();
    stages.spawn(prepare::run(prepare, intake_rx, prepare::Onward { misses, finished: finished.clone() }));
    let threads = Threads { limits, suspects: suspects.clone(), tally, answers };
    match engine {
        Engine::Judge { model } => threads.judge(model, misses_rx, &mut stages)?,
        Engine::Draft { model, rules } => threads.draft(model, &rules, misses_rx, &mut stages)?,
    }
    stages.spawn(infer::remember(cache, twins, answers_rx, finished));
    stages.spawn(conclude::run(conclude, finished_rx));
    Ok(Road { intake, settled, suspects, stages })
}

impl Task {
    fn of(work: Work, pool: String, replayed: Option<&Replayed>) -> Self {
        match work {
            Work::Judge { model, policy } => {
                let detect_language = !policy.languages.is_empty();
                let judge =
                    Judge::new(policy, &model.info, pool).of_replay(replayed.map(|replayed| replayed.id().clone()));
                Self {
                    prompt: model.prompt.clone(),
                    keyring: judge.keyring(),
                    kind: Kind::Scores { labels: model.info.labels.len() },
                    rules: None,
                    detect_language,
                    maker: Maker::Judge(Box::new(judge)),
                    engine: Engine::Judge { model },
                }
            }
            Work::Draft { model, policy } => {
                let rules = Arc::new(Rules::new(policy));
                let notes = Notes::new(&rules, model.info.clone(), &pool);
                Self {
                    prompt: model.prompt.clone(),
                    keyring: notes.keyring(),
                    kind: Kind::Note,
                    rules: Some(rules.clone()),
                    detect_language: false,
                    maker: Maker::Notes(Box::new(notes)),
                    engine: Engine::Draft { model, rules },
                }
            }
        }
    }
}

/// What the model's threads are started with.
struct Threads {
    limits: Limits,
    suspects: Arc<Suspects>,
    tally: Arc<Tally>,
    answers: mpsc::Sender<infer::Answered>,
}

type Misses = mpsc::Receiver<Envelope<TokenizedPost>>;
type Stages = JoinSet<Result<(), Fatal>>;

impl Threads {
    fn judge(self, model: Loaded, misses: Misses, stages: &mut Stages) -> Result<(), Fatal> {
        let Loaded { instances, info, .. } = model;
        let (idle, idle_rx) = mpsc::channel(instances.len().max(1));
        let (limits, suspects) = (self.limits.batch, self.suspects.clone());
        let buckets = instances.first().and_then(Instance::buckets);
        let batcher = batcher::Parts { limits, buckets, instances: instances.len(), suspects, idle: idle_rx };
        stages.spawn(async move {
            batcher.run(misses).await;
            Ok(())
        });
        let (execution, conditions) = (execution(&info), Arc::new(info.conditions.clone()));
        for instance in instances {
            let parts = infer::Parts {
                instance,
                model: info.name.clone(),
                execution: execution.clone(),
                conditions: conditions.clone(),
                prompt_tokens: info.prompt_tokens,
                journal: self.journal()?,
                suspects: self.suspects.clone(),
                tally: self.tally.clone(),
            };
            join(infer::spawn(parts, idle.clone(), self.answers.clone())?, stages);
        }
        Ok(())
    }

    fn draft(self, model: LoadedDraft, rules: &Arc<Rules>, misses: Misses, stages: &mut Stages) -> Result<(), Fatal> {
        let LoadedDraft { drafters, prompt, info } = model;
        let (asks, asks_rx) = mpsc::channel(drafters.len().max(1));
        let desk = desk::Parts { writers: drafters.len(), suspects: self.suspects.clone(), asks: asks_rx };
        stages.spawn(async move {
            desk.run(misses).await;
            Ok(())
        });
        let execution = execution(&info);
        for drafter in drafters {
            let parts = draft::Parts {
                drafter,
                model: info.name.clone(),
                rules: rules.clone(),
                prompt: prompt.clone(),
                limit: self.limits.input,
                execution: execution.clone(),
                journal: self.journal()?,
                suspects: self.suspects.clone(),
                tally: self.tally.clone(),
            };
            join(draft::spawn(parts, asks.clone(), self.answers.clone())?, stages);
        }
        Ok(())
    }

    fn journal(&self) -> Result<Option<Journal>, Fatal> {
        self.suspects.journal().map_err(|error| Fatal::Internal { part: "model", cause: error.to_string() })
    }
}

fn execution(info: &ModelInfo) -> Arc<Execution> {
    Arc::new(Execution {
        provider: info.provider.to_string(),
        nodes: info.nodes.clone(),
        precision: info.precision.to_string(),
        onnxruntime: info.onnxruntime_version.to_string(),
    })
}

/// A thread becomes a stage: it ends when the thread does.
fn join(thread: JoinHandle<Result<(), Fatal>>, stages: &mut Stages) {
    stages.spawn_blocking(move || {
        let panicked = || Fatal::Internal { part: "model", cause: "its thread panicked".to_owned() };
        thread.join().unwrap_or_else(|_| Err(panicked()))
    });
}
