//! Drafting on this machine: tokens for each CPU-second, one row at a time and several together.
//!
//! Every instance writes for as many rows, all at the same time; what rows begin with and what is written for them are
//! measured apart. Rows end by their length alone.

use std::sync::Arc;
use std::thread;
use std::time::Instant;

use serde_json::{Value, json};

use super::measure::{cpu_seconds, peak_memory, steal_seconds};
use super::report::table;
use super::{Bench, Fault, Mix, Named};
use crate::config::Precision;
use crate::model::{self, DraftLimits, Drafter, LoadedDraft, ModelError, ModelInfo};

/// All measurements.
pub(super) struct DraftReport {
    rows: Vec<Row>,
    prompt_tokens: usize,
    peak_memory: Option<u64>,
}

/// One measurement.
struct Row {
    info: Arc<ModelInfo>,
    rows: usize,
    joining: Phase,
    writing: Phase,
}

/// Runs of one kind: what they came to, and what they took.
#[derive(Default)]
struct Phase {
    tokens: usize,
    wall: f64,
    /// Of the process, all threads.
    cpu: f64,
    /// Taken by the hypervisor, all cores together.
    steal: f64,
}

impl Phase {
    /// All drafters at the same time; each says how many tokens it has run.
    fn add(
        &mut self,
        drafters: &mut [Drafter],
        work: impl Fn(&mut Drafter) -> Result<usize, ModelError> + Sync,
    ) -> Result<(), ModelError> {
        let (started, cpu, steal) = (Instant::now(), cpu_seconds(), steal_seconds());
        let work = &work;
        let tokens: Result<usize, ModelError> = thread::scope(|scope| {
            let all: Vec<_> = drafters.iter_mut().map(|drafter| scope.spawn(move || work(drafter))).collect();
            let panicked = |_| Err(ModelError::run("a measuring thread panicked"));
            all.into_iter().map(|one| one.join().unwrap_or_else(panicked)).sum()
        });
        self.tokens += tokens?;
        self.wall += started.elapsed().as_secs_f64();
        self.cpu += cpu_seconds() - cpu;
        self.steal += steal_seconds() - steal;
        Ok(())
    }

    fn tokens_per_cpu_second(&self) -> f64 {
        self.tokens as f64 / self.cpu
    }
}

impl Bench<'_> {
    /// Each precision with each number of rows.
    pub(super) fn run_draft(&self) -> Result<DraftReport, Fault> {
        let mut rows = Vec::new();
        let mut prompt_tokens = 0;
        let most = self.arguments.rows.iter().copied().max().unwrap_or(1);
        for precision in self.draft_precisions()? {
            for instances in self.instances() {
                let mut loaded = self.load_draft(precision, instances, most)?;
                prompt_tokens = loaded.info.prompt_tokens;
                loaded.drafters.iter_mut().for_each(Drafter::ignore_ends);
                let mix = Mix::fixed(&loaded.prompt, &self.config.limits.input, self.arguments.post_tokens);
                let mix = mix.map_err(|error| Fault::File(format!("the sample posts cannot be tokenised: {error}")))?;
                for count in &self.arguments.rows {
                    rows.push(self.measure_drafts(&mut loaded, &mix.rows, *count)?);
                }
            }
        }
        Ok(DraftReport { rows, prompt_tokens, peak_memory: peak_memory() })
    }

    fn draft_precisions(&self) -> Result<Vec<Precision>, Fault> {
        let asked = &self.arguments.precisions;
        Ok(if asked.is_empty() {
            Self::known(&model::draft_precisions(&self.config.model)?)
        } else {
            Named::all(asked)
        })
    }

    fn load_draft(
        &self,
        precision: Precision,
        instances: Option<usize>,
        max_rows: usize,
    ) -> Result<LoadedDraft, ModelError> {
        let settings = self.settings(precision, instances);
        let limits = DraftLimits {
            max_rows,
            max_input_tokens: self.arguments.post_tokens,
            max_new_tokens: self.arguments.new_tokens,
        };
        model::load_draft(&settings, &self.policy.prompt, &limits)
    }

    /// Round after round, other rows in each, until the time is up.
    fn measure_drafts(&self, loaded: &mut LoadedDraft, rows: &[Vec<u32>], count: usize) -> Result<Row, ModelError> {
        let (mut joining, mut writing) = (Phase::default(), Phase::default());
        let started = Instant::now();
        for round in 0.. {
            let some: Vec<&Vec<u32>> = rows.iter().cycle().skip(round * count).take(count).collect();
            joining.add(&mut loaded.drafters, |drafter| {
                for (tag, row) in some.iter().enumerate() {
                    drafter.join(tag as u64, row, self.arguments.new_tokens)?;
                }
                Ok(some.iter().map(|row| row.len()).sum())
            })?;
            writing.add(&mut loaded.drafters, |drafter| {
                let mut tokens = 0;
                while drafter.rows() > 0 {
                    drafter.step()?;
                    // The step that a row leaves with runs nothing for it.
                    tokens += drafter.rows();
                }
                Ok(tokens)
            })?;
            if started.elapsed().as_secs_f64() > self.arguments.seconds {
                break;
            }
        }
        Ok(Row { info: loaded.info.clone(), rows: count, joining, writing })
    }
}

impl Row {
    fn json(&self) -> Value {
        json!({
            "precision": self.info.precision,
            "instances": self.info.instances,
            "contract": self.info.contract,
            "rows": self.rows,
            "tokens": self.writing.tokens,
            "tokens_per_cpu_second": self.writing.tokens_per_cpu_second(),
            "tokens_per_second": self.writing.tokens as f64 / self.writing.wall,
            "joining_tokens_per_cpu_second": self.joining.tokens_per_cpu_second(),
            "cpu_seconds": self.writing.cpu,
            "steal_seconds": self.writing.steal,
        })
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.info.precision.clone(),
            self.info.instances.to_string(),
            self.rows.to_string(),
            self.writing.tokens.to_string(),
            format!("{:.1}", self.writing.tokens_per_cpu_second()),
            format!("{:.1}", self.writing.tokens as f64 / self.writing.wall),
            format!("{:.0}", self.joining.tokens_per_cpu_second()),
            format!("{:.1}", self.writing.steal),
        ]
    }
}

impl DraftReport {
    pub(super) fn json(&self) -> Value {
        json!({
            "prompt_tokens": self.prompt_tokens,
            "peak_memory_bytes": self.peak_memory,
            "measurements": self.rows.iter().map(Row::json).collect::<Vec<_>>(),
        })
    }

    pub(super) fn table(&self) -> String {
        let header = [
            "precision",
            "instances",
            "rows each",
            "tokens",
            "tokens per CPU-s",
            "tokens/s",
            "joining, tokens per CPU-s",
            "steal, s",
        ];
        let table = table(&header, self.rows.iter().map(Row::cells));
        let memory = self.peak_memory.map_or_else(String::new, |bytes| format!(", peak memory {} MB", bytes >> 20));
        format!(
            "{} prompt tokens shared{memory}\n{table}\nTokens are those written after each row's first; joining is what \
             rows begin with.\nCPU-s are of the process, all threads; steal is what the hypervisor gave to others.",
            self.prompt_tokens
        )
    }
}
