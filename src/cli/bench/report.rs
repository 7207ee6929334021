//! The figures as a table for people or an object for programs, and what a post costs in operations.

use std::sync::Arc;

use comfy_table::{Table, presets};
use serde_json::{Value, json};

use super::Mix;
use super::measure::Figures;
use crate::model::{ModelInfo, ModelShape};

/// A table under its header.
pub(super) fn table(header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED).set_header(header).add_rows(rows);
    table
}

/// What was measured: which model, on how many posts of which kind.
pub(super) struct Subject {
    pub info: Arc<ModelInfo>,
    /// Name and mean length in tokens.
    pub mix: (String, f64),
}

impl Subject {
    pub(super) fn new(info: &Arc<ModelInfo>, mix: &Mix) -> Self {
        Self { info: info.clone(), mix: (mix.name.clone(), mix.mean_tokens()) }
    }

    /// These figures, and what they are of.
    pub(super) fn with(&self, mut figures: Value) -> Value {
        let Self { info, mix: (name, mean) } = self;
        figures["precision"] = json!(info.precision);
        figures["provider"] = json!(info.provider);
        figures["instances"] = json!(info.instances);
        figures["mix"] = json!(name);
        figures["mean_tokens"] = json!(mean);
        figures
    }

    pub(super) fn cells(&self) -> impl Iterator<Item = String> + use<> {
        let Self { info, mix: (name, mean) } = self;
        [info.precision.clone(), info.instances.to_string(), format!("{name}, mean {mean:.0}")].into_iter()
    }
}

/// One measurement.
pub(super) struct Row {
    pub subject: Subject,
    pub batching: String,
    pub figures: Figures,
    /// Operations a second of one thread on one large matrix product.
    pub peak: f64,
    /// Arrivals a second, and what was seen at that rate.
    pub paced: Option<(f64, Figures)>,
}

/// All measurements.
pub(super) struct Report {
    pub info: Arc<ModelInfo>,
    pub rows: Vec<Row>,
    /// Bytes.
    pub peak_memory: Option<u64>,
}

impl Row {
    pub(super) fn posts_per_second(&self) -> f64 {
        self.figures.rows as f64 / self.figures.wall
    }

    fn posts_per_cpu_second(&self) -> f64 {
        self.figures.rows as f64 / self.figures.cpu
    }

    /// Operations a second of one core, and their share of the peak; posts counted at their mean length, padding not
    /// at all.
    fn operations(&self) -> Option<(f64, f64)> {
        let tokens = self.figures.tokens as f64 / self.figures.rows.max(1) as f64;
        let info = &self.subject.info;
        let rate = operations(&info.shape, info.prompt_tokens, tokens)? * self.posts_per_cpu_second();
        Some((rate, rate / self.peak))
    }

    fn json(&self) -> Value {
        let figures = &self.figures;
        let operations = self.operations();
        let figures = json!({
            "batching": self.batching,
            "posts": figures.rows,
            "posts_per_second": self.posts_per_second(),
            "posts_per_cpu_second": self.posts_per_cpu_second(),
            "tokens_per_cpu_second": figures.tokens as f64 / figures.cpu,
            "padding_waste": figures.waste(),
            "wall_seconds": figures.wall,
            "cpu_seconds": figures.cpu,
            "steal_seconds": figures.steal,
            "operations_per_cpu_second": operations.map(|rate| rate.0),
            "peak_operations_per_second": self.peak,
            "share_of_peak": operations.map(|rate| rate.1),
            "latency_ms": self.paced.as_ref().map(|(rate, paced)| json!({
                "posts_per_second": rate,
                "p50": paced.percentile(0.5), "p95": paced.percentile(0.95), "p99": paced.percentile(0.99),
            })),
        });
        self.subject.with(figures)
    }

    fn cells(&self) -> Vec<String> {
        let figures = &self.figures;
        let waits = self.paced.as_ref().map_or_else(String::new, |(rate, paced)| {
            let [p50, p95, p99] = [0.5, 0.95, 0.99].map(|share| paced.percentile(share));
            format!("{p50:.0} / {p95:.0} / {p99:.0} at {rate:.0}/s")
        });
        let measured = [
            self.batching.clone(),
            format!("{:.1}", self.posts_per_second()),
            format!("{:.1}", self.posts_per_cpu_second()),
            format!("{:.0}", figures.tokens as f64 / figures.cpu),
            format!("{:.1} %", 100.0 * figures.waste()),
            self.operations().map_or_else(String::new, |(rate, share)| {
                format!("{:.0} of {:.0}, {:.0} %", rate / 1e9, self.peak / 1e9, 100.0 * share)
            }),
            waits,
            format!("{:.1} of {:.0}", figures.steal, figures.wall),
        ];
        self.subject.cells().chain(measured).collect()
    }
}

impl Report {
    /// For programs: the first measurement's figures at the top, all of them in `measurements`.
    pub(super) fn json(&self) -> Value {
        let mut first = self.rows.first().map_or_else(|| json!({}), Row::json);
        first["model"] = json!(&*self.info);
        first["peak_memory_bytes"] = json!(self.peak_memory);
        first["measurements"] = self.rows.iter().map(Row::json).collect();
        first
    }

    pub(super) fn table(&self) -> String {
        let header = [
            "precision",
            "instances",
            "posts",
            "runs",
            "posts/s",
            "posts per CPU-s",
            "tokens per CPU-s",
            "padding",
            "GFLOP/s of peak",
            "p50/p95/p99 ms",
            "steal, s",
        ];
        let table = table(&header, self.rows.iter().map(Row::cells));
        let memory = self.peak_memory.map_or_else(String::new, |bytes| format!(", peak memory {} MB", bytes >> 20));
        format!(
            "{} on {} (ONNX Runtime {}), {} prompt tokens shared{memory}\n{table}\n\
             CPU-s are of the process, all threads; GFLOP/s per CPU-s, unique tokens only, beside what one thread reaches\n\
             on one large matrix product in the same precision; steal is what the hypervisor gave to others.",
            self.info.name, self.info.provider, self.info.onnxruntime_version, self.info.prompt_tokens
        )
    }
}

/// Additions and multiplications for one post after a shared prompt, none counted for the prompt or for padding: each
/// layer's matrices for every token (in the last layer, those behind the attention for one), attention of each token to
/// the prompt and to half of its own post on average, and the head once.
fn operations(shape: &ModelShape, prompt: usize, tokens: f64) -> Option<f64> {
    let [heads, kv_heads, head_dim, layers] =
        [shape.heads?, shape.kv_heads, shape.head_dim, shape.layers].map(|size| size as f64);
    let [hidden, ffn, vocabulary] = [shape.hidden?, shape.ffn?, shape.vocabulary?].map(|size| size as f64);
    let before = hidden * head_dim * (heads + 2.0 * kv_heads);
    let behind = heads * head_dim * hidden + 3.0 * hidden * ffn;
    let matrices = tokens * (layers * before + (layers - 1.0) * behind) + behind + hidden * vocabulary;
    let attention = layers * tokens * 2.0 * heads * head_dim * (prompt as f64 + (tokens + 1.0) / 2.0);
    Some(2.0 * (matrices + attention))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_post_of_60_tokens_after_400_costs_what_the_sizes_say() {
        let shape = ModelShape {
            layers: 30,
            kv_heads: 3,
            head_dim: 64,
            heads: Some(9),
            hidden: Some(576),
            ffn: Some(1536),
            vocabulary: Some(49152),
        };
        // 106.2 million weights in 30 layers, twice each for 60 tokens, less most of the last layer's; and attention.
        let cost = operations(&shape, 400, 60.0).unwrap();
        assert!((cost / 1e9 - 14.3).abs() < 0.4, "{cost}");
        assert_eq!(operations(&ModelShape { ffn: None, ..shape }, 400, 60.0), None);
    }
}
