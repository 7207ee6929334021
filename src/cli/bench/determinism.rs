//! What `determinism: strict` costs: the same posts judged with it and without, in turns, so that what else the machine
//! does meets both alike.

use serde_json::{Value, json};

use super::measure::{Figures, Load, measure};
use super::report::{Subject, table};
use super::{Bench, Fault, Mix};
use crate::config::{Determinism, ModelSettings};
use crate::model::{self, Instance, Loaded, ModelError};

/// Turns of each; the middle one counts.
const TURNS: usize = 5;

/// All measurements.
pub(super) struct CostReport(Vec<Row>);

/// One precision and mix, turn by turn.
struct Row {
    subject: Subject,
    off: Vec<Figures>,
    strict: Vec<Figures>,
}

impl Bench<'_> {
    pub(super) fn run_determinism(&self) -> Result<CostReport, Fault> {
        let mut rows = Vec::new();
        for precision in self.precisions()? {
            let load = |determinism| {
                // One thread a run for both: a larger run of several would be another comparison.
                let threads = Some(1);
                let settings = self.settings(precision, self.config.model.instances);
                model::load(&ModelSettings { determinism, threads, ..settings }, &self.policy)
            };
            let (mut off, mut strict) = (load(Determinism::Off)?, load(Determinism::Strict)?);
            for mix in self.mixes(&off.prompt)? {
                rows.push(self.in_turns(&mut off, &mut strict, &mix)?);
            }
        }
        Ok(CostReport(rows))
    }

    fn in_turns(&self, off: &mut Loaded, strict: &mut Loaded, mix: &Mix) -> Result<Row, ModelError> {
        let mut row = Row { subject: Subject::new(&strict.info, mix), off: Vec::new(), strict: Vec::new() };
        for _ in 0..TURNS {
            row.off.push(self.turn(off, mix)?);
            row.strict.push(self.turn(strict, mix)?);
        }
        Ok(row)
    }

    fn turn(&self, loaded: &mut Loaded, mix: &Mix) -> Result<Figures, ModelError> {
        let load = Load {
            limits: self.config.limits.batch,
            buckets: loaded.instances.first().and_then(Instance::buckets),
            window: self.config.limits.max_in_flight,
            rate: None,
            arrival_order: None,
            seconds: self.arguments.seconds / TURNS as f64,
        };
        measure(&mut loaded.instances, &mix.rows, load)
    }
}

fn rate(figures: &Figures) -> f64 {
    figures.rows as f64 / figures.cpu
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

impl Row {
    /// Strict to off, turn by turn, in posts per CPU-second.
    fn ratios(&self) -> Vec<f64> {
        self.strict.iter().zip(&self.off).map(|(strict, off)| rate(strict) / rate(off)).collect()
    }

    fn json(&self) -> Value {
        let of = |turns: &[Figures]| {
            json!({
                "posts_per_cpu_second": middle(turns.iter().map(rate).collect()),
                "padding_waste": middle(turns.iter().map(Figures::waste).collect()),
            })
        };
        self.subject.with(json!({
            "hardware": self.subject.info.conditions.hardware,
            "off": of(&self.off),
            "strict": of(&self.strict),
            "strict_to_off": middle(self.ratios()),
            "turns": self.ratios(),
        }))
    }

    fn cells(&self) -> Vec<String> {
        let posts = |turns: &[Figures]| format!("{:.1}", middle(turns.iter().map(rate).collect()));
        let padding =
            |turns: &[Figures]| format!("{:.1} %", 100.0 * middle(turns.iter().map(Figures::waste).collect()));
        let ratios = self.ratios();
        let (least, most) =
            ratios.iter().fold((f64::INFINITY, 0.0_f64), |(least, most), one| (one.min(least), one.max(most)));
        let measured = [
            posts(&self.off),
            posts(&self.strict),
            format!("{:.2} ({least:.2} to {most:.2})", middle(ratios)),
            padding(&self.off),
            padding(&self.strict),
        ];
        self.subject.cells().chain(measured).collect()
    }
}

impl CostReport {
    pub(super) fn json(&self) -> Value {
        json!({ "turns": TURNS, "measurements": self.0.iter().map(Row::json).collect::<Vec<_>>() })
    }

    pub(super) fn table(&self) -> String {
        let header = [
            "precision",
            "instances",
            "posts",
            "off, posts per CPU-s",
            "strict",
            "strict to off",
            "padding, off",
            "strict",
        ];
        let table = table(&header, self.0.iter().map(Row::cells));
        format!(
            "{table}\nThe middle of {TURNS} turns each, off and strict by turns, and the least and the most; CPU-s are of the process."
        )
    }
}
