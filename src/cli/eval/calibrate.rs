//! `--fit-calibration`: a calibration file from the raw scores of a labelled set.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use jiff::Timestamp;

use crate::calibration::{CalibrationV1, FittedOn, Method, SCHEMA, Scaling};
use crate::error::Exit;
use crate::eval::assemble::Inputs;
use crate::eval::evaluate::histogram;
use crate::eval::fit::{Fitted, LEAST_FOR_A_BIAS, RawRow};
use crate::eval::report::JudgeRef;
use crate::eval::sample::{Frame, Judged, Sample};
use crate::eval::verdicts::Verdicts;
use crate::language;

/// Rows of a language that are enough for a scaling of its own.
const LEAST_FOR_A_LANGUAGE: usize = 200;

#[derive(Debug, Args)]
pub(super) struct FitArguments {
    /// Fit a temperature to the raw scores and write a calibration file (`moderato schema calibration`), for the policy to
    /// name.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["labels", "adversarial"])]
    pub(super) fit_calibration: Option<PathBuf>,
    /// Fit a bias for each label besides.
    #[arg(long, requires = "fit_calibration")]
    per_label: bool,
    /// Fit each language by itself that has 200 rows or more.
    #[arg(long, requires = "fit_calibration")]
    per_language: bool,
}

impl FitArguments {
    /// Fits, writes and tells. Always the raw scores: a calibration is never fitted on top of another.
    pub(super) fn run(&self, file: &Path, inputs: &Inputs<'_>, verdicts: &Verdicts) -> Result<Exit, Exit> {
        let judged = inputs.judged(verdicts);
        let rows: Vec<&Judged> = judged.iter().flatten().collect();
        let labels = &inputs.frame.labels;
        let (overall, per_language) = self.scalings(&rows, labels);
        let judge = verdicts.judge.clone().unwrap_or_default();
        let sha256 = inputs.dataset.sha256.clone();
        let fitted = Draft { labels, overall, per_language, judge, sha256, per_label: self.per_label };
        let calibration = fitted.calibration(&rows, inputs.frame);
        let text = serde_json::to_string_pretty(&calibration).map_err(|_| Exit::Failed)?;
        fs::write(file, format!("{text}\n")).map_err(|error| {
            eprintln!("{}: {error}", file.display());
            Exit::Failed
        })?;
        self.tell(file, &calibration, &rows);
        Ok(Exit::Ok)
    }

    fn scalings(&self, rows: &[&Judged], labels: &[String]) -> (Scaling, BTreeMap<String, Scaling>) {
        let fit = |rows: &[&Judged]| {
            let raw: Vec<RawRow> = rows.iter().map(|row| RawRow::from(*row)).collect();
            scaling(&Fitted::to(&raw, labels.len(), self.per_label), labels)
        };
        let languages = if self.per_language { by_language(rows) } else { BTreeMap::new() };
        let enough = languages.into_iter().filter(|(_, rows)| rows.len() >= LEAST_FOR_A_LANGUAGE);
        (fit(rows), enough.map(|(language, rows)| (language, fit(&rows))).collect())
    }

    fn tell(&self, file: &Path, calibration: &CalibrationV1, rows: &[&Judged]) {
        let on = &calibration.fitted_on;
        eprintln!(
            "{}: temperature {:.3}; on the rows that it was fitted on, nll {:.4} became {:.4} and ece {:.4} became {:.4}",
            file.display(),
            calibration.overall.temperature,
            on.nll_before,
            on.nll_after,
            on.ece_before,
            on.ece_after
        );
        if self.per_label {
            let count = |label: usize| rows.iter().filter(|row| row.truth == label).count();
            let few = calibration.labels.iter().enumerate().filter(|(label, _)| count(*label) < LEAST_FOR_A_BIAS);
            for (_, label) in few {
                eprintln!("{label}: fewer than {LEAST_FOR_A_BIAS} rows; no bias was fitted for it");
            }
        }
        if self.per_language {
            for (language, rows) in by_language(rows) {
                let count = rows.len();
                match calibration.per_language.get(&language) {
                    Some(scaling) => eprintln!("{language}: {count} rows, temperature {:.3}", scaling.temperature),
                    None => eprintln!(
                        "{language}: {count} rows, fewer than {LEAST_FOR_A_LANGUAGE}; the overall scaling is used"
                    ),
                }
            }
            if calibration.per_language.is_empty() {
                eprintln!("no language has {LEAST_FOR_A_LANGUAGE} rows: the overall scaling is used for all");
            }
        }
    }
}

fn by_language<'a>(rows: &[&'a Judged]) -> BTreeMap<String, Vec<&'a Judged>> {
    let mut languages = BTreeMap::<String, Vec<_>>::new();
    for row in rows {
        if let Some(lang) = row.lang.as_deref().and_then(language::primary) {
            languages.entry(lang).or_default().push(*row);
        }
    }
    languages
}

fn scaling(fitted: &Fitted, labels: &[String]) -> Scaling {
    let bias = labels.iter().cloned().zip(fitted.bias.iter().copied()).filter(|(_, bias)| *bias != 0.0);
    Scaling { rows: fitted.rows, temperature: fitted.temperature, bias: bias.collect() }
}

struct Draft<'a> {
    labels: &'a [String],
    overall: Scaling,
    per_language: BTreeMap<String, Scaling>,
    judge: JudgeRef,
    sha256: String,
    per_label: bool,
}

impl Draft<'_> {
    /// The file, and what it makes better on its own rows, by the worker's own way to apply it.
    fn calibration(self, rows: &[&Judged], frame: &Frame) -> CalibrationV1 {
        let now = Timestamp::now();
        let JudgeRef { policy, taxonomy, model, model_digest, prompt_digest, .. } = self.judge;
        let mut calibration = CalibrationV1 {
            schema: SCHEMA.to_owned(),
            id: format!("{policy}-{}", now.strftime("%Y-%m-%d")),
            policy,
            taxonomy,
            model,
            model_digest,
            prompt_digest,
            labels: self.labels.to_vec(),
            method: if self.per_label { Method::TemperatureAndBias } else { Method::Temperature },
            overall: self.overall,
            per_language: self.per_language,
            fitted_on: FittedOn {
                rows: rows.len(),
                sha256: self.sha256,
                nll_before: 0.0,
                nll_after: 0.0,
                ece_before: 0.0,
                ece_after: 0.0,
                fitted_at: now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            },
            baseline: BTreeMap::new(),
        };
        let calibrated: Vec<Judged> = rows
            .iter()
            .map(|row| Judged { scores: calibration.apply(&row.raw, row.lang.as_deref()), ..(*row).clone() })
            .collect();
        let frame = Frame { calibrated: true, ..frame.clone() };
        let sample = Sample::new(&frame, calibrated.iter().collect());
        let figures = sample.figures(&vec![1; calibrated.len()]);
        let figure = |name: &str| {
            figures.iter().find(|(key, _)| key.dotted(&frame) == name).map(|(_, value)| *value).unwrap_or_default()
        };
        let on = &mut calibration.fitted_on;
        (on.nll_before, on.nll_after) = (figure("raw.nll"), figure("nll"));
        (on.ece_before, on.ece_after) = (figure("raw.ece"), figure("ece"));
        let baseline = self.labels.iter().enumerate().map(|(at, label)| {
            let bins = histogram(calibrated.iter().map(|row| row.scores[at]));
            (label.clone(), bins.into_iter().map(|count| count as u64).collect())
        });
        calibration.baseline = baseline.collect();
        calibration
    }
}
