//! Two configurations judge the same records side by side, each on a road of its own: with its own policy, prompt and
//! prompt's cache, over one copy of the weights where the model is the same. Every record is read once. Nothing is
//! published, kept or used up.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded};
use schemars::JsonSchema;
use serde::Serialize;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::feed::Feed;
use super::{AppError, CLOSING, Judges, judges, load, road, supervise};
use crate::config::Config;
use crate::error::Fatal;
use crate::model;
use crate::pipeline::Road;
use crate::pipeline::outlet::{Lines, Outlet};
use crate::pipeline::tally::{Tally, read};
use crate::policy::Policy;
use crate::receipt::Original;

/// Records that one side may be ahead of the other, besides those on its road.
const AHEAD: usize = 64;

/// Posts, in their order.
pub type Records = Box<dyn Iterator<Item = Result<Original, Fatal>> + Send>;

/// What a side's verdicts cost.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Spent {
    /// Rows that the model ran: posts, but for those that an identical one in flight answered for.
    pub rows: u64,
    /// Those answered so.
    pub twins: u64,
    /// Tokens of the rows: each post's and the prompt's end after it, without padding.
    pub row_tokens: u64,
    /// The same with padding.
    pub padded_tokens: u64,
    /// How long the shared prompt is, in tokens.
    pub prompt_tokens: u64,
    /// Tokens of it that were run, every time counted: once for its cache, or once for each instance where a graph of others
    /// has a session for each.
    pub prompt_tokens_run: u64,
    /// Tokens of it that rows took from the cache and that were not run again.
    pub prompt_tokens_shared: u64,
    /// Milliseconds inside the model, all instances together.
    pub model_ms: u64,
}

/// Loads both: one model under two policies where nothing but the policy differs. Blocks.
pub fn load_both([one, other]: [&Config; 2]) -> Result<[Judges; 2], AppError> {
    if one.model != other.model {
        return Ok([load(one)?, load(other)?]);
    }
    let started = Instant::now();
    let policies = [Policy::load(&one.policy)?, Policy::load(&other.policy)?];
    let [first, second] = model::load_both(&one.model, [&policies[0], &policies[1]])?;
    let [policy, candidate] = policies;
    Ok([judges(one, policy, first, started)?, judges(other, candidate, second, started)?])
}

/// Judges all records on both roads; each writes a line for every record, in their order.
pub async fn both(
    configs: [&Config; 2],
    [one, other]: [Judges; 2],
    records: Records,
    [to_one, to_other]: [Lines; 2],
) -> Result<[Spent; 2], AppError> {
    let stop = CancellationToken::new();
    let ((first, from_first), (second, from_second)) = (bounded(AHEAD), bounded(AHEAD));
    let one = Side::start(configs[0], one, from_first, to_one, &stop)?;
    let other = Side::start(configs[1], other, from_second, to_other, &stop)?;
    let spawned = thread::Builder::new().name("records".to_owned()).spawn(move || deal(records, &first, &second));
    spawned.map_err(|error| Fatal::Internal { part: "records", cause: error.to_string() })?;
    let (one, other) = tokio::join!(one.end(configs[0], &stop), other.end(configs[1], &stop));
    Ok([one?, other?])
}

/// Until there are no more, or a side wants no more; a fault ends the first side, and that the other one.
fn deal(records: Records, first: &Sender<Result<Original, Fatal>>, second: &Sender<Result<Original, Fatal>>) {
    for record in records {
        let copy = record.as_ref().ok().cloned();
        let taken = copy.is_none_or(|copy| second.send(Ok(copy)).is_ok());
        if first.send(record).is_err() || !taken {
            return;
        }
    }
}

struct Side {
    source: JoinHandle<Result<(), Fatal>>,
    stages: JoinSet<Result<(), Fatal>>,
    tally: Arc<Tally>,
    prompt_tokens: usize,
    prompt_tokens_run: usize,
}

impl Side {
    fn start(
        config: &Config,
        mut judges: Judges,
        records: Receiver<Result<Original, Fatal>>,
        lines: Lines,
        stop: &CancellationToken,
    ) -> Result<Self, AppError> {
        // By the clock of this run they would tell nothing: whoever compares counts by the posts' own times.
        judges.policy.labels.iter_mut().for_each(|label| label.act_quota = None);
        let (prompt_tokens, prompt_tokens_run) = (judges.model.info.prompt_tokens, judges.model.prompt_tokens_run);
        let tally = Arc::new(Tally::silent());
        let Road { intake, settled, stages, .. } = road(config, judges, Outlet::Lines(lines), tally.clone())?;
        let (permits, stop) = (config.limits.max_in_flight, stop.clone());
        let source = Feed { records: records.into_iter(), permits, pace: None, intake, settled, stop }.spawn()?;
        Ok(Self { source, stages, tally, prompt_tokens, prompt_tokens_run })
    }

    async fn end(self, config: &Config, stop: &CancellationToken) -> Result<Spent, AppError> {
        supervise(self.source, self.stages, stop, config.grace + CLOSING).await?;
        let (tally, rows) = (&self.tally, read(&self.tally.rows));
        let [prompt_tokens, prompt_tokens_run] =
            [self.prompt_tokens, self.prompt_tokens_run].map(|tokens| tokens as u64);
        Ok(Spent {
            rows,
            twins: read(&tally.twins),
            row_tokens: read(&tally.row_tokens),
            padded_tokens: read(&tally.padded_tokens),
            prompt_tokens,
            prompt_tokens_run,
            prompt_tokens_shared: read(&tally.shared_tokens),
            model_ms: read(&tally.model_nanos) / 1_000_000,
        })
    }
}
