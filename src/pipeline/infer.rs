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
use crate::fault::{self, Point};
use crate::language::Detected;
use crate::model::{Instance, ModelError, RowScores};
use crate::pipeline::batcher::{Batch, Idle, Waiting};
use crate::pipeline::tally::Tally;
use crate::pipeline::twins::Twins;
use crate::pipeline::{Finished, TokenizedPost, prepare};
use crate::receipt::Envelope;
use crate::rejection::{Reason, Rejected, Stage};
use crate::reply::Reply;
use crate::suspects::{Journal, Suspects};
use crate::telemetry::trace::OpenSpan;
use crate::verdict::{Answer, Conditions, Execution, Source};

/// Answers being written to the cache at once.
const WRITES_AT_ONCE: usize = 64;

/// A post and what the model said about it.
pub type Answered = (Envelope<TokenizedPost>, Result<Arc<Reply>, Rejected>);

/// What a model thread is built from.
pub struct Parts {
    /// This thread is its only owner.
    pub instance: Instance,
    /// The model's name, for spans.
    pub model: String,
    /// What goes into each answer.
    pub execution: Arc<Execution>,
    /// And what it was computed under, but for the shape of its run.
    pub conditions: Arc<Conditions>,
    /// Tokens of the shared prompt, for the tally.
    pub prompt_tokens: usize,
    /// Where it is noted what runs.
    pub journal: Option<Journal>,
    /// Posts that may have ended a process.
    pub suspects: Arc<Suspects>,
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
        let lengths: Vec<usize> = batch.iter().map(|row| row.post.body.tokens.ids.len()).collect();
        let spans = batch.iter().map(|row| &row.post.original.span);
        let span = OpenSpan::run(&self.model, spans, lengths.iter().sum());
        let results = self.classify(&batch)?;
        let took = started.elapsed();
        drop(span);
        self.tally.run(&lengths, self.instance.run_tokens(&lengths), self.prompt_tokens, took);
        self.suspects.acquit(batch.iter().map(|row| &row.post.body.key));
        let now = Timestamp::now().to_string();
        let answered = batch.into_iter().zip(results).map(|(Waiting { mut post, since }, result)| {
            let queue = started.saturating_duration_since(since);
            self.tally.metrics.stage("queue", queue);
            post.body.queue = Some(queue);
            post.body.classify = Some(took);
            let language = post.body.language.take();
            let conditions = self.conditions(post.body.tokens.ids.len());
            (post, result.map(|scores| self.answer(&scores, &now, language, conditions)))
        });
        Ok(answered.collect())
    }

    /// One bad row is rejected; a model that fails on all of several is lost, and so is a lost device.
    fn classify(&mut self, batch: &Batch) -> Result<Vec<Result<RowScores, Rejected>>, Fatal> {
        let rows: Vec<&TokenizedPost> = batch.iter().map(|row| &row.post.body).collect();
        let lost = |error: &ModelError| Fatal::ModelLost { rows: rows.len(), cause: error.to_string() };
        let results = halving(&rows, &mut |rows| self.run_once(rows)).map_err(|error| lost(&error))?;
        match results.first() {
            Some(Err(error)) if rows.len() > 1 && results.iter().all(Result::is_err) => Err(lost(error)),
            _ => Ok(results.into_iter().map(|result| result.map_err(|error| refused(&error))).collect()),
        }
    }

    /// One run, noted while it lasts. The note of a run that lost the device stays: it may have been a row's doing.
    fn run_once(&mut self, rows: &[&TokenizedPost]) -> Result<Vec<RowScores>, ModelError> {
        if let Some(journal) = &mut self.journal {
            journal.enter(rows.iter().map(|row| &row.key));
        }
        let ids: Vec<&[u32]> = rows.iter().map(|row| row.tokens.ids.as_slice()).collect();
        let result = match fault::run(rows.iter().map(|row| &*row.post.text)) {
            Ok(()) => self.instance.classify(&ids),
            Err(placed) => Err(ModelError::run(placed)),
        };
        if let (Some(journal), false) = (&mut self.journal, result.as_ref().is_err_and(ModelError::device_lost)) {
            journal.leave();
        }
        result
    }

    /// What a row of so many tokens was computed under.
    fn conditions(&self, tokens: usize) -> Arc<Conditions> {
        match self.instance.buckets() {
            None => self.conditions.clone(),
            Some(buckets) => {
                let bucket = Some(buckets.of(tokens).to_string());
                Arc::new(Conditions { bucket, ..Conditions::clone(&self.conditions) })
            }
        }
    }

    fn answer(
        &self,
        scores: &RowScores,
        computed_at: &str,
        language: Option<Detected>,
        conditions: Arc<Conditions>,
    ) -> Arc<Reply> {
        Arc::new(Reply::Scores(Answer {
            scores: scores.scores(),
            outside_labels: scores.outside_mass(),
            execution: self.execution.clone(),
            computed_at: computed_at.to_owned(),
            language,
            conditions: Some(conditions),
        }))
    }
}

/// Runs the rows together; where that fails, each half of them, down to single rows. So a run that was too large for the
/// device's memory is done in parts that fit, and a row that is at fault is found beside rows that are answered. A row
/// that fails alone is tried twice. The error is that of a lost device, where nothing more can be run.
fn halving<R, T>(
    rows: &[R],
    run: &mut impl FnMut(&[R]) -> Result<Vec<T>, ModelError>,
) -> Result<Vec<Result<T, ModelError>>, ModelError> {
    let tried = match run(rows) {
        Err(error) if rows.len() == 1 && !error.device_lost() => run(rows),
        tried => tried,
    };
    match tried {
        Ok(answers) => Ok(answers.into_iter().map(Ok).collect()),
        Err(error) if error.device_lost() => Err(error),
        Err(error) if rows.len() < 2 => Ok(vec![Err(error)]),
        Err(error) => {
            warn!(%error, rows = rows.len(), "a run failed; trying its halves");
            let (left, right) = rows.split_at(rows.len() / 2);
            let mut results = halving(left, run)?;
            results.extend(halving(right, run)?);
            Ok(results)
        }
    }
}

/// A post that the model failed on.
pub(super) fn refused(error: &ModelError) -> Rejected {
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
                    match &answer {
                        Ok(answer) => {
                            cache.put(post.body.key, answer, &post.original).await;
                            fault::reach(Point::AfterCacheWrite);
                        }
                        Err(_) => cache.give_up(&post.body.key).await,
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A row's answer is its first id. Runs of more than `room` rows fail, and so does every run with a row of `bad`.
    fn model(room: usize, bad: &[u32]) -> impl FnMut(&[&[u32]]) -> Result<Vec<u32>, ModelError> {
        move |rows| match rows.iter().find(|row| bad.contains(&row[0])) {
            Some(row) => Err(ModelError::run(format!("row {}", row[0]))),
            None if rows.len() > room => Err(ModelError::run("out of memory")),
            None => Ok(rows.iter().map(|row| row[0]).collect()),
        }
    }

    fn halved(rows: u32, room: usize, bad: &[u32]) -> Vec<Result<u32, String>> {
        let ids: Vec<[u32; 1]> = (0..rows).map(|id| [id]).collect();
        let rows: Vec<&[u32]> = ids.iter().map(<[u32; 1]>::as_slice).collect();
        let results = halving(&rows, &mut model(room, bad)).unwrap();
        results.into_iter().map(|result| result.map_err(|error| error.to_string())).collect()
    }

    proptest! {
        #[test]
        fn every_row_is_answered_in_its_place_but_those_at_fault(
            rows in 1u32..70, room in 1usize..70, bad in proptest::collection::vec(0u32..70, 0..4)
        ) {
            let expected: Vec<_> =
                (0..rows).map(|id| if bad.contains(&id) { Err(format!("row {id}")) } else { Ok(id) }).collect();
            prop_assert_eq!(halved(rows, room, &bad), expected);
        }
    }

    #[test]
    fn a_run_too_large_for_the_memory_costs_halves_and_not_single_rows() {
        let ids: Vec<[u32; 1]> = (0..64).map(|id| [id]).collect();
        let rows: Vec<&[u32]> = ids.iter().map(<[u32; 1]>::as_slice).collect();
        let (mut runs, mut model) = (Vec::new(), model(32, &[]));
        let results = halving(&rows, &mut |rows| {
            runs.push(rows.len());
            model(rows)
        });
        assert!(results.unwrap().iter().all(Result::is_ok));
        assert_eq!(runs, [64, 32, 32]);
    }

    #[test]
    fn a_row_that_fails_alone_is_tried_twice() {
        let mut runs = 0;
        let results = halving(&[&[7]], &mut |_| {
            runs += 1;
            if runs == 1 { Err(ModelError::run("a hiccup")) } else { Ok(vec![()]) }
        });
        assert!(results.unwrap()[0].is_ok());
    }

    #[test]
    fn a_lost_device_ends_the_halving_at_once() {
        let mut runs = 0;
        let lost = || ModelError::Run { message: "lost".to_owned(), device_lost: true };
        let results: Result<Vec<Result<(), _>>, _> = halving(&[&[1], &[2]], &mut |_| {
            runs += 1;
            Err(lost())
        });
        assert!(results.unwrap_err().device_lost());
        assert_eq!(runs, 1);
    }
}
