//! What one thread runs a model by: rows of token ids in, scores out. Several may share one session.

use super::{
    assignment::Assignment,
    buckets::{Bucket, Buckets},
    cascade::CascadeEngine,
    error::{ModelError, run_failed},
    full::FullEngine,
    recheck::Recheck,
    scores::RowScores,
};
use crate::config::BatchLimits;

/// One thread's way to run a loaded model. `&mut` throughout: it does one run at a time.
pub struct Instance {
    engine: Engine,
    recheck: Option<Recheck>,
    buckets: Option<Buckets>,
}

enum Engine {
    Cascade(Box<CascadeEngine>),
    Full(Box<FullEngine>),
}

impl std::fmt::Debug for Instance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let engine = match self.engine {
            Engine::Cascade(_) => "cascade",
            Engine::Full(_) => "full",
        };
        f.debug_struct("Instance").field("engine", &engine).finish_non_exhaustive()
    }
}

impl Instance {
    pub(super) fn cascade(engine: CascadeEngine, recheck: Option<Recheck>, buckets: Option<Buckets>) -> Self {
        Self { engine: Engine::Cascade(Box::new(engine)), recheck, buckets }
    }

    pub(super) fn full(engine: FullEngine, strict: bool) -> Self {
        Self { engine: Engine::Full(Box::new(engine)), recheck: None, buckets: strict.then_some(Buckets::Alone) }
    }

    /// The shapes that rows run in, where these are fixed.
    pub fn buckets(&self) -> Option<Buckets> {
        self.buckets
    }

    pub(super) fn shares_weights_with(&self, other: &Self) -> bool {
        match (&self.engine, &other.engine) {
            (Engine::Cascade(one), Engine::Cascade(other)) => one.shared().is(other.shared()),
            _ => false,
        }
    }

    /// What the model is given for rows of these lengths, in tokens, padding included.
    pub fn run_tokens(&self, lengths: &[usize]) -> usize {
        match self.buckets {
            None => lengths.len() * lengths.iter().max().unwrap_or(&0),
            Some(buckets) => buckets.runs(lengths).iter().map(|(bucket, _)| bucket.tokens()).sum(),
        }
    }

    /// Scores rows of post and tail ids, in their order. Rows may differ in length and do not affect each other.
    pub fn classify(&mut self, rows: &[&[u32]]) -> Result<Vec<RowScores>, ModelError> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        if rows.iter().any(|row| row.is_empty()) {
            return Err(ModelError::run("a row has no token: every row ends with the prompt's tail"));
        }
        let scores = match self.buckets {
            None => self.run(rows, None)?,
            Some(buckets) => self.by_bucket(rows, buckets)?,
        };
        if scores.iter().all(RowScores::is_finite) {
            return Ok(scores);
        }
        Err(ModelError::run("the model gave a score that is no number: the weights or their precision are broken"))
    }

    /// Each row in a run of its own shape.
    fn by_bucket(&mut self, rows: &[&[u32]], buckets: Buckets) -> Result<Vec<RowScores>, ModelError> {
        let lengths: Vec<usize> = rows.iter().map(|row| row.len()).collect();
        let mut scored = Vec::with_capacity(rows.len());
        for (bucket, run) in buckets.runs(&lengths) {
            let rows: Vec<&[u32]> = run.iter().map(|row| rows[*row]).collect();
            scored.extend(run.into_iter().zip(self.run(&rows, Some(bucket))?));
        }
        scored.sort_by_key(|(row, _)| *row);
        Ok(scored.into_iter().map(|(_, scores)| scores).collect())
    }

    fn run(&mut self, rows: &[&[u32]], shape: Option<Bucket>) -> Result<Vec<RowScores>, ModelError> {
        let scores = match &mut self.engine {
            Engine::Cascade(engine) => engine.classify(rows, shape)?,
            Engine::Full(engine) => engine.classify(rows)?,
        };
        match &mut self.recheck {
            Some(recheck) => recheck.settle(rows, scores, shape),
            None => Ok(scores),
        }
    }

    /// Which provider got which nodes of the graph that answers.
    pub(super) fn assignment(&self) -> Result<Assignment, ModelError> {
        let session = match &self.engine {
            Engine::Cascade(engine) => engine.session(),
            Engine::Full(engine) => &engine.session,
        };
        Assignment::of(session).map_err(run_failed)
    }

    /// Runs the shapes that cost the most, so that a device without the memory fails before the first post: the
    /// longest row, and as many short rows as a run may have.
    pub(super) fn warm_up(&mut self, id: u32, limits: BatchLimits, longest_row: usize) -> Result<(), ModelError> {
        const SHORT: usize = 32;
        let tokens = limits.max_tokens.max(1);
        let long = vec![id; tokens.min(longest_row.max(1))];
        let short = vec![id; SHORT.min(long.len())];
        for run in
            [vec![long.as_slice()], vec![short.as_slice(); (tokens / short.len()).clamp(1, limits.max_posts.max(1))]]
        {
            self.classify(&run)?;
            self.recheck.as_mut().map(|recheck| recheck.all(&run)).transpose()?;
        }
        Ok(())
    }
}
