//! Puts the worker together: configuration to parts, start order, stop order. The only place that knows every part.

mod beside;
mod both;
pub mod feed;
mod replay;
pub mod schemas;
mod stopping;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::beside::Beside;
pub use self::beside::{facts, is_warm};
pub use self::both::{Records, Spent, both, load_both};
pub use self::replay::{Input, Replay, replay};
use self::schemas::Schemas;
pub use self::stopping::{stop_on_signals, supervise};
use crate::admin::Facts;
use crate::cache::Cache;
use crate::config::{Config, Limits, Task};
use crate::error::{Exit, Fatal};
use crate::kafka::bounds::Bounds;
use crate::kafka::consumer::{self, Consumer};
use crate::kafka::publisher::Publisher;
use crate::model::{self, DraftLimits, Loaded, LoadedDraft, ModelError, ModelInfo};
use crate::note::NotePolicy;
use crate::pipeline::outlet::Outlet;
use crate::pipeline::tally::{Tally, read};
use crate::pipeline::{self, Road, Work};
use crate::policy::{Policy, PolicyError};
use crate::registry;
use crate::suspects::Suspects;

/// Beyond the grace, how long leaving the group and closing the stages may take before the process ends anyway.
const CLOSING: Duration = Duration::from_secs(10);

/// Why the worker did not start or did not go on.
#[derive(Debug, Error)]
pub enum AppError {
    /// The policy must be mended.
    #[error("{0}")]
    Policy(#[from] PolicyError),
    /// The policy's calibration belongs to another model or prompt.
    #[error("calibration: {0}")]
    Calibration(String),
    /// The model folder, the library or the device must be mended.
    #[error("{0}")]
    Model(#[from] ModelError),
    /// What judges beside must be mended, or left out.
    #[error("shadow: {0}")]
    Shadow(Box<AppError>),
    /// The limits do not fit the model.
    #[error("limits.max_input_tokens: {0}")]
    Limits(String),
    /// The cache's address must be mended.
    #[error("cache.redis.url: {0}")]
    Cache(String),
    /// The schema registry does not do what it has to at the start.
    #[error("kafka.schema_registry: {fault}; {mend}")]
    Registry {
        /// What it did.
        fault: registry::Fault,
        /// What to do.
        mend: String,
    },
    /// What runs cannot be noted.
    #[error("state_dir: {} cannot be used: {error}; name a folder that this user may write", folder.display())]
    State {
        /// The folder.
        folder: PathBuf,
        /// What the operating system said.
        error: std::io::Error,
    },
    /// The worker could not keep its promise.
    #[error("{0}")]
    Fatal(#[from] Fatal),
}

impl AppError {
    /// The exit code it leads to.
    pub fn exit(&self) -> Exit {
        match self {
            AppError::Fatal(_) | AppError::Registry { fault: registry::Fault::Unreachable { .. }, .. } => Exit::Failed,
            _ => Exit::Config,
        }
    }

    /// The stable code, for the log.
    pub fn code(&self) -> &'static str {
        match self {
            AppError::Policy(_) | AppError::Calibration(_) => "policy",
            AppError::Model(_) => "model",
            AppError::Shadow(fault) => fault.code(),
            AppError::Registry { fault: registry::Fault::Unreachable { .. }, .. } => "schema_registry",
            AppError::Limits(_) | AppError::Cache(_) | AppError::Registry { .. } | AppError::State { .. } => "config",
            AppError::Fatal(fatal) => fatal.code(),
        }
    }
}

/// Policy and model, loaded, verified and warm; nothing is connected yet.
pub struct Judges {
    /// The policy in force.
    pub policy: Policy,
    /// The model under that policy's prompt.
    pub model: Loaded,
}

/// Loads policy and model. Takes seconds; blocks.
pub fn load(config: &Config) -> Result<Judges, AppError> {
    let policy = Policy::load(&config.policy)?;
    let started = Instant::now();
    let model = model::load(&config.model, &policy)?;
    judges(config, policy, model, started)
}

/// Held to what limits and calibration ask for.
fn judges(config: &Config, policy: Policy, model: Loaded, started: Instant) -> Result<Judges, AppError> {
    let info = &model.info;
    fits(&config.limits, info)?;
    calibrated(&policy, info)?;
    info!(
        model = %info.name, precision = %info.precision, provider = %info.provider, nodes = ?info.nodes, contract = %info.contract,
        onnxruntime = %info.onnxruntime_version, prompt_tokens = info.prompt_tokens, policy = %policy.id,
        policy_digest = policy.digest(), model_digest = %info.model_digest, took_ms = started.elapsed().as_millis() as u64,
        "model loaded and warm"
    );
    Ok(Judges { policy, model })
}

impl From<Judges> for Work {
    fn from(Judges { policy, model }: Judges) -> Self {
        Work::Judge { model, policy }
    }
}

/// Loads what the task needs, and what judges beside, if anything does. Takes seconds; blocks.
pub fn load_all(config: &Config) -> Result<(Work, Option<Judges>), AppError> {
    Ok((load_work(config)?, beside::load_shadow(config)?))
}

/// Loads what the task needs. Takes seconds; blocks.
pub fn load_work(config: &Config) -> Result<Work, AppError> {
    match config.task {
        Task::Classify => load(config).map(Work::from),
        Task::DraftNote => {
            let policy = NotePolicy::load(&config.policy)?;
            let model = load_drafters(config, &policy)?;
            Ok(Work::Draft { model, policy })
        }
    }
}

fn load_drafters(config: &Config, policy: &NotePolicy) -> Result<LoadedDraft, AppError> {
    let started = Instant::now();
    let limits = DraftLimits {
        max_rows: config.limits.max_draft_rows,
        max_input_tokens: config.limits.input.max_input_tokens,
        max_new_tokens: policy.max_new_tokens,
    };
    let model = model::load_draft(&config.model, &policy.prompt, &limits)?;
    let info = &model.info;
    info!(
        model = %info.name, precision = %info.precision, provider = %info.provider, nodes = ?info.nodes, contract = %info.contract,
        onnxruntime = %info.onnxruntime_version, prompt_tokens = info.prompt_tokens, policy = %policy.id,
        policy_digest = policy.digest(), model_digest = %info.model_digest, took_ms = started.elapsed().as_millis() as u64,
        "model loaded and warm"
    );
    Ok(model)
}

/// Scores that were calibrated for another model, or under another prompt, mean something else.
fn calibrated(policy: &Policy, info: &ModelInfo) -> Result<(), AppError> {
    let Some(calibration) = &policy.calibration else { return Ok(()) };
    let Some(mismatch) = calibration.mismatch(&info.model_digest, &info.prompt_digest) else { return Ok(()) };
    let id = &calibration.id;
    if policy.calibration_for_other_model {
        warn!(calibration = %id, %mismatch, "scores are calibrated for something else; every verdict says so");
        return Ok(());
    }
    Err(AppError::Calibration(format!(
        "{id}: {mismatch}; fit one for it with `moderato eval --fit-calibration`, or take `calibration` out of the policy, \
         or set calibration_for_other_model: allow there"
    )))
}

/// The longest legal row must be legal for the model too: found here, and not when the first long post comes.
fn fits(limits: &Limits, info: &ModelInfo) -> Result<(), AppError> {
    let row = limits.input.max_input_tokens + info.tail_tokens;
    if row > limits.batch.max_tokens {
        let (tail, budget) = (info.tail_tokens, limits.batch.max_tokens);
        let message =
            format!("with {tail} tokens of the prompt's end a post takes {row}; limits.max_batch_tokens is {budget}");
        return Err(AppError::Limits(message));
    }
    match info.max_positions {
        Some(most) if info.prompt_tokens + row > most => Err(AppError::Limits(format!(
            "the prompt's {} tokens and a post's {row} are more than the {most} positions of the model; at most {} fit",
            info.prompt_tokens,
            most.saturating_sub(info.prompt_tokens + info.tail_tokens)
        ))),
        _ => Ok(()),
    }
}

/// Builds the road to the given outlet. Must be called on the runtime.
pub fn road(config: &Config, work: impl Into<Work>, outlet: Outlet, tally: Arc<Tally>) -> Result<Road, AppError> {
    operated(config, work.into(), outlet, tally, Beside::none(config))
}

fn operated(
    config: &Config,
    work: Work,
    outlet: Outlet,
    tally: Arc<Tally>,
    Beside { policies, tap, schemas, replayed }: Beside,
) -> Result<Road, AppError> {
    let cache = Cache::open(&config.cache, tally.cache.clone()).map_err(AppError::Cache)?;
    let suspects = match &outlet {
        Outlet::Kafka(_) | Outlet::File(_) => suspects(config)?,
        // A person who judges lines sees what ends the process.
        Outlet::Lines(_) | Outlet::Shadow(_) | Outlet::Look(_) => Suspects::none(),
    };
    Ok(pipeline::build(pipeline::Parts {
        work,
        cache,
        outlet,
        format: schemas.output,
        registry: schemas.registry,
        pool: config.kafka.group.clone(),
        limits: config.limits.clone(),
        suspects: Arc::new(suspects),
        tally,
        policies,
        tap,
        replayed,
    })?)
}

/// The pool's suspected posts, kept in `state_dir`.
pub fn suspects(config: &Config) -> Result<Suspects, AppError> {
    suspects_of(config, &config.kafka.group)
}

fn suspects_of(config: &Config, pool: &str) -> Result<Suspects, AppError> {
    Suspects::open(&config.state_dir, pool, config.limits.max_attempts)
        .map_err(|error| AppError::State { folder: config.state_dir.clone(), error })
}

/// What is not read from Kafka without end, or not published there.
#[derive(Default)]
struct Reading {
    bounds: Option<Bounds>,
    outlet: Option<Outlet>,
}

/// Runs the worker from Kafka to Kafka until `stop` is cancelled and everything in flight is finished.
pub async fn run(
    config: &Config,
    work: impl Into<Work>,
    shadow: Option<Judges>,
    tally: Arc<Tally>,
    facts: Facts,
    stop: CancellationToken,
) -> Result<(), AppError> {
    let work = work.into();
    let schemas = tokio::task::block_in_place(|| Schemas::open(config, &tally.metrics))?;
    let beside = Beside::start(config, &work, shadow, facts, &tally.metrics, schemas)?;
    consume(config, work, beside, Reading::default(), tally, stop).await
}

/// Runs the road from Kafka, to Kafka or a file, until its source ends.
async fn consume(
    config: &Config,
    work: Work,
    beside: Beside,
    Reading { bounds, outlet }: Reading,
    tally: Arc<Tally>,
    stop: CancellationToken,
) -> Result<(), AppError> {
    let kafka = &config.kafka;
    tally.vitals.may_wait(kafka.drain_timeout + kafka.session_timeout + kafka.delivery_timeout);
    let consumer = Consumer::connect(&config.kafka)?;
    // Blocks for as long as the broker takes to fence an older worker, if transactions were asked for.
    let publisher = || Publisher::connect(kafka, config.limits.max_in_flight / 2, &consumer, &tally.metrics);
    let outlet = match outlet {
        Some(outlet) => outlet,
        None => Outlet::Kafka(tokio::task::block_in_place(publisher)?),
    };
    let Road { intake, settled, stages, suspects } = operated(config, work, outlet, tally.clone(), beside)?;
    let source = consumer.spawn(consumer::Parts {
        max_in_flight: config.limits.max_in_flight,
        stall_timeout: config.stall_timeout,
        grace: config.grace,
        intake,
        settled,
        stop: stop.clone(),
        bounds,
        vitals: tally.vitals.clone(),
        metrics: tally.metrics.clone(),
    })?;
    info!(brokers = %config.kafka.brokers, group = %config.kafka.group, topic = %config.kafka.posts, "consuming");
    let outcome = supervise(source, stages, &stop, config.grace + CLOSING).await;
    suspects.close(outcome.as_ref().is_err_and(Fatal::is_of_a_run));
    tell(&tally);
    Ok(outcome?)
}

/// The last line of the log: what was done.
fn tell(tally: &Tally) {
    info!(
        verdicts = read(&tally.verdicts),
        notes = read(&tally.notes),
        fixed_forms = read(&tally.fixed_forms),
        drafts = read(&tally.drafts),
        drafts_refused = read(&tally.refused),
        cached = read(&tally.cached),
        twins = read(&tally.twins),
        dead_letters = read(&tally.dead_letters),
        tombstones = read(&tally.tombstones),
        runs = read(&tally.runs),
        cache_hits = read(&tally.cache.hits),
        cache_misses = read(&tally.cache.misses),
        cache_waited = read(&tally.cache.waited),
        cache_damaged = read(&tally.cache.damaged),
        cache_unreachable = read(&tally.cache.unreachable),
        cache_refused = read(&tally.cache.refused),
        "stopped"
    );
}
