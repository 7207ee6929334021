//! What the road counts as it runs, for the demo's totals and the line logged at the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::cache::Counts;
use crate::pipeline::drift::Drift;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::vitals::Vitals;

/// Counters; each is only ever added to.
#[derive(Debug, Default)]
pub struct Tally {
    /// Runs of the model.
    pub runs: AtomicU64,
    /// Rows in those runs.
    pub rows: AtomicU64,
    /// Tokens of those rows, without padding.
    pub row_tokens: AtomicU64,
    /// Tokens the model was given, padding included.
    pub padded_tokens: AtomicU64,
    /// Prompt tokens that were not run again because they are shared.
    pub shared_tokens: AtomicU64,
    /// Nanoseconds inside the model.
    pub model_nanos: AtomicU64,
    /// Texts that the model wrote.
    pub drafts: AtomicU64,
    /// Tokens of them.
    pub draft_tokens: AtomicU64,
    /// Of those texts, refused by a check.
    pub refused: AtomicU64,
    /// Verdicts published.
    pub verdicts: AtomicU64,
    /// Notes published.
    pub notes: AtomicU64,
    /// Of those, the fixed form.
    pub fixed_forms: AtomicU64,
    /// Verdicts and notes answered by the cache.
    pub cached: AtomicU64,
    /// Verdicts and notes answered by a twin in flight.
    pub twins: AtomicU64,
    /// Dead letters published.
    pub dead_letters: AtomicU64,
    /// Tombstones passed on.
    pub tombstones: AtomicU64,
    /// What the cache counts.
    pub cache: Arc<Counts>,
    /// How the worker is.
    pub vitals: Arc<Vitals>,
    /// How far scores have moved from the calibration's baseline.
    pub drift: Drift,
    /// Instruments of what has attributes or is a distribution.
    pub metrics: Metrics,
}

impl Tally {
    /// Counts that reach no metric.
    pub fn silent() -> Self {
        Self { metrics: Metrics::silent(), ..Self::default() }
    }

    /// Enters one run of the model: the rows' lengths, its tokens with padding, the shared prompt's, and how long it took.
    pub fn run(&self, lengths: &[usize], padded: usize, prompt: usize, took: Duration) {
        let rows = lengths.len();
        add(&self.runs, 1);
        add(&self.rows, rows);
        add(&self.row_tokens, lengths.iter().sum());
        add(&self.padded_tokens, padded);
        add(&self.shared_tokens, prompt * rows);
        self.metrics.batch(rows, padded);
        lengths.iter().for_each(|_| self.metrics.stage("model", took));
        self.model_nanos.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Posts that became something.
    pub fn finished(&self) -> u64 {
        [&self.verdicts, &self.notes, &self.dead_letters, &self.tombstones].into_iter().map(read).sum()
    }

    /// Enters one step of writing: how many texts grew by a token, and how long it took.
    pub fn step(&self, rows: usize, took: Duration) {
        add(&self.runs, 1);
        add(&self.rows, rows);
        self.model_nanos.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Share of the tokens given to the model that were padding, 0 to 1.
    pub fn padding_waste(&self) -> f64 {
        let padded = read(&self.padded_tokens) as f64;
        if padded == 0.0 { 0.0 } else { 1.0 - read(&self.row_tokens) as f64 / padded }
    }
}

/// Adds to a counter.
pub fn add(counter: &AtomicU64, n: usize) {
    counter.fetch_add(n as u64, Ordering::Relaxed);
}

/// Reads a counter.
pub fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
