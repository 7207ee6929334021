//! The model's threads, one an instance, and the task behind them that remembers answers and shares them with twins.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use crate::cache::Cache;
use crate::error::Fatal;
use crate::model::{Instance, ModelError, RowScores};
use crate::pipeline::batcher::{Batch, Idle, Waiting};
use crate::pipeline::tally::Tally;
use crate::pipeline::twins::Twins;
use crate::pipeline::{Finished, TokenizedPost, prepare};
use crate::receipt::Envelope;
use crate::rejection::{Reason, Rejected, Stage};
use crate::verdict::{Answer, Execution, Source};

/// Answers being written to the cache at once.
const WRITES_AT_ONCE: usize = 64;

/// A post and what the model said about it.
pub type Answered = (Envelope<TokenizedPost>, Result<Arc<Answer>, Rejected>);

/// What a model thread is built from.
pub struct Parts {
    /// This thread is its only owner.
    pub instance: Instance,
    /// What goes into each answer.
    pub execution: Arc<Execution>,
    /// Tokens of the shared prompt, for the tally.
    pub prompt_tokens: usize,
    /// Counters.
    pub tally: Arc<Tally>,
}

/// Starts the thread; it asks for a run whenever it idles, and ends when nobody answers.
pub fn spawn(
    mut parts: Parts,
    idle: mpsc::Sender<Idle>,
    answers: mpsc::Sender<Answered>,
) -> Result<JoinHandle<Result<(), Fatal>>, Fatal> {
    let work = move || {
        loop {
            let (ask, batch) = oneshot::channel();
            let Ok(Ok(batch)) = idle.blocking_send(ask).map(|()| batch.blocking_recv()) else { return Ok(()) };
            for answered in parts.run(batch)? {
                if answers.blocking_send(answered).is_err() {
                    return Ok(());
                }
            }
        }
    };
    let spawned = thread::Builder::new().name("model".to_owned()).spawn(work);
    spawned.map_err(|error| Fatal::Internal { part: "model", cause: error.to_string() })
}

impl Parts {
    fn run(&mut self, batch: Batch) -> Result<Vec<Answered>, Fatal> {
        let started = Instant::now();
        let results = self.classify(&batch)?;
        let took = started.elapsed();
        let lengths: Vec<usize> = batch.iter().map(|row| row.post.body.tokens.ids.len()).collect();
        self.tally.run(&lengths, self.prompt_tokens, took);
        let now = Timestamp::now().to_string();
        let answered = batch.into_iter().zip(results).map(|(Waiting { mut post, since }, result)| {
            post.body.queue = Some(started.saturating_duration_since(since));
            post.body.classify = Some(took);
            (post, result.map(|scores| self.answer(&scores, &now)))
        });
        Ok(answered.collect())
    }

    /// A run that fails is tried again row by row: one bad row is rejected, a model that fails on all is lost.
    fn classify(&mut self, batch: &Batch) -> Result<Vec<Result<RowScores, Rejected>>, Fatal> {
        let rows: Vec<&[u32]> = batch.iter().map(|row| row.post.body.tokens.ids.as_slice()).collect();
        let first = match self.instance.classify(&rows) {
            Ok(scores) => return Ok(scores.into_iter().map(Ok).collect()),
            Err(error) => error,
        };
        if first.device_lost() {
            return Err(Fatal::ModelLost { rows: rows.len(), cause: first.to_string() });
        }
        warn!(error = %first, rows = rows.len(), "a run failed; trying row by row");
        let results: Vec<_> =
            rows.iter().map(|row| self.instance.classify(&[row]).map_err(|error| refused(&error))).collect();
        if rows.len() > 1 && results.iter().all(Result::is_err) {
            return Err(Fatal::ModelLost { rows: rows.len(), cause: first.to_string() });
        }
        Ok(results.into_iter().map(|result| result.and_then(only_row)).collect())
    }

    fn answer(&self, scores: &RowScores, computed_at: &str) -> Arc<Answer> {
        Arc::new(Answer {
            scores: scores.scores(),
            outside_labels: scores.outside_mass(),
            execution: self.execution.clone(),
            computed_at: computed_at.to_owned(),
        })
    }
}

fn only_row(mut scores: Vec<RowScores>) -> Result<RowScores, Rejected> {
    scores.pop().ok_or_else(|| Rejected::new(Reason::ModelRefused, Stage::Infer, "no row came back".to_owned()))
}

fn refused(error: &ModelError) -> Rejected {
    Rejected::new(Reason::ModelRefused, Stage::Infer, error.to_string())
}

/// Writes each answer to the cache, then shares it; runs until `answers` closes. Written before shared, so that a twin
/// that arrives later either still finds the question open or finds the answer.
pub async fn remember(
    cache: Arc<Cache>,
    twins: Arc<Twins>,
    mut answers: mpsc::Receiver<Answered>,
    finished: mpsc::Sender<Finished>,
) -> Result<(), Fatal> {
    let mut writes = FuturesUnordered::new();
    let mut open = true;
    while open || !writes.is_empty() {
        tokio::select! {
            Some(outcome) = writes.next(), if !writes.is_empty() => outcome?,
            answered = answers.recv(), if open && writes.len() < WRITES_AT_ONCE => match answered {
                None => open = false,
                Some((post, answer)) => writes.push(async {
                    if let Ok(answer) = &answer {
                        cache.put(post.body.key, answer).await;
                    }
                    prepare::share(&twins, post, answer, Source::Model, &finished).await
                }),
            },
        }
    }
    Ok(())
}

/// A duration in milliseconds, for a verdict's timings.
pub fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
