//! `moderato eval`: a labelled set through the worker's own road, and what its verdicts are worth.

mod calibrate;
mod judge;
mod table;

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Args;

use super::{Common, VerbSettings, problems, report as tell};
use crate::config::{Config, Needs};
use crate::error::Exit;
use crate::eval::adversarial::canaries;
use crate::eval::assemble::{Answers, Inputs};
use crate::eval::bootstrap::Resampling;
use crate::eval::bounds::{Bound, Limit, alike, named_value};
use crate::eval::dataset::{Dataset, Wanted};
use crate::eval::html;
use crate::eval::report::{CanaryReport, EvalV1};
use crate::eval::sample::Frame;
use crate::policy::Policy;

/// Judges the posts of a labelled file as `moderato run` would, and tells what the verdicts are worth.
///
/// The file has a JSON object a line: `text` and `label`, and if there is more, `id`, `lang`, `evidence` (as in `post.v1`)
/// and fields to slice by.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 done, and every bound met; 1 a bound was not met, or the model failed; 2 mend the command line, the file or the configuration."
)]
pub(super) struct EvalArguments {
    #[command(flatten)]
    common: Common,
    /// The labelled file; `-` for standard input.
    #[arg(value_name = "FILE")]
    data: PathBuf,
    /// Also tell every figure for each value of this field; may be repeated. `source` and `lang` unless told.
    #[arg(long, value_name = "FIELD")]
    slice: Vec<String>,
    /// Judge among these labels of the policy only, for a file that has no others: scores are renormalised over them.
    #[arg(long, value_delimiter = ',', value_name = "LABEL,...")]
    labels: Vec<String>,
    /// Judge again with other settings below `model.` and compare: `precision=int8`, `path=FOLDER`, or several at once
    /// with commas between them; may be repeated.
    #[arg(long, value_name = "KEY=VALUE,...")]
    compare: Vec<String>,
    /// Rows are attacked posts with their clean twins (`clean_text`, `attack`, and perhaps `attacker_target` and
    /// `canary`): tell how often an attack changes the verdict.
    #[arg(long)]
    adversarial: bool,
    /// Notes that were drafted for the attacked posts, `note.v1` lines with the rows' ids: count the canaries in them.
    #[arg(long, value_name = "FILE", requires = "adversarial")]
    notes: Option<PathBuf>,
    /// How often the rows are drawn again for the 95 % intervals; 0 for none.
    #[arg(long, default_value_t = 1000, value_name = "N")]
    resamples: usize,
    /// Where the random numbers for that begin.
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// End with exit code 1 if this figure is less, such as `macro_f1=0.75`; may be repeated. The names: `moderato schema
    /// eval`.
    #[arg(long, value_name = "METRIC=VALUE", value_parser = named_value)]
    min: Vec<(String, f64)>,
    /// End with exit code 1 if this figure is more, such as `ece=0.02`; may be repeated.
    #[arg(long, value_name = "METRIC=VALUE", value_parser = named_value)]
    max: Vec<(String, f64)>,
    /// Write the figures as one JSON object (`moderato schema eval`); `-` for standard output, in place of the tables.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a page with charts, complete in itself.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    #[command(flatten)]
    fit: calibrate::FitArguments,
}

/// What makes the road fit for measuring: answers of this run alone, and no end because many rows are rejected.
const FIXED: [(&str, &str); 3] = [
    ("cache.kind", "in_process"),
    ("limits.max_rejection_ratio", "1"),
    ("limits.max_consecutive_rejections", "1000000000"),
];

pub(super) fn run(arguments: &EvalArguments) -> Result<Exit, Exit> {
    let quiet = [("log.filter", "warn,ort=error")];
    let config = arguments.common.start(&VerbSettings { defaults: &quiet, fixed: &FIXED }, Needs::ModelOnly)?;
    arguments.check_outputs()?;
    let others = arguments.compare.iter().map(|setting| arguments.compared(setting)).collect::<Result<Vec<_>, _>>()?;
    let policy = Policy::load(&config.policy).map_err(|error| tell(&error.into()))?;
    let policy_labels: Vec<String> = policy.labels.iter().map(|label| label.id.to_string()).collect();
    let frame = arguments.frame(&policy, &policy_labels)?;
    let dataset = arguments.dataset(&frame)?;
    let inputs = Inputs {
        frame: &frame,
        policy_labels: &policy_labels,
        dataset: &dataset,
        resampling: Resampling { resamples: arguments.resamples, seed: arguments.seed },
        notes: arguments.canaries(&dataset)?,
    };
    let bounds = arguments.bounds(&inputs)?;
    let answers = arguments.answers(&inputs, &config, &others)?;
    let mut report = inputs.report(&answers);
    report.bound(&bounds);
    arguments.write(&report)?;
    if let Some(file) = &arguments.fit.fit_calibration {
        arguments.fit.run(file, &inputs, &answers.posts)?;
    }
    for bound in report.bounds.iter().filter(|bound| !bound.met) {
        eprintln!("{}", bound.told());
    }
    Ok(if report.passed { Exit::Ok } else { Exit::Failed })
}

/// Says what must be mended.
fn mend(message: &str) -> Exit {
    eprintln!("{message}");
    Exit::Config
}

fn unreadable(path: &Path, error: &std::io::Error) -> Exit {
    mend(&format!("{}: {error}", path.display()))
}

/// All faults of a file, the first of them in full.
pub(super) fn faulty(name: &str, faults: &[String]) -> Exit {
    const SHOWN: usize = 20;
    for fault in faults.iter().take(SHOWN) {
        eprintln!("{name}: {fault}");
    }
    if faults.len() > SHOWN {
        eprintln!("{name}: and {} more", faults.len() - SHOWN);
    }
    Exit::Config
}

impl EvalArguments {
    /// A model runs for long: a file that cannot be written is told before.
    fn check_outputs(&self) -> Result<(), Exit> {
        let files = [&self.json, &self.html, &self.fit.fit_calibration];
        for path in files.into_iter().flatten().filter(|path| **path != Path::new("-")) {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            if !folder.is_dir() || path.is_dir() {
                return Err(mend(&format!("{}: name a file in a folder that is there", path.display())));
            }
        }
        Ok(())
    }

    /// The configuration with these settings below `model.`.
    fn compared(&self, setting: &str) -> Result<Config, Exit> {
        let mut fixed: Vec<(String, &str)> = FIXED.iter().map(|(key, value)| ((*key).to_owned(), *value)).collect();
        for pair in setting.split(',') {
            let Some((key, value)) = pair.split_once('=') else {
                let message = format!("--compare {setting}: KEY=VALUE is expected, such as precision=int8");
                return Err(mend(&message));
            };
            fixed.push((format!("model.{}", key.trim()), value));
        }
        let fixed: Vec<(&str, &str)> = fixed.iter().map(|(key, value)| (key.as_str(), *value)).collect();
        let loaded = self.common.load(&VerbSettings { defaults: &[], fixed: &fixed }, Needs::ModelOnly);
        loaded.and_then(|loaded| loaded.checked).map_err(|error| problems(&error))
    }

    fn frame(&self, policy: &Policy, known: &[String]) -> Result<Frame, Exit> {
        if let Some(unknown) = self.labels.iter().find(|label| !known.contains(label)) {
            let known = known.join(", ");
            return Err(mend(&format!("--labels: {unknown:?} is no label of the policy; its labels are {known}")));
        }
        let asked = |label: &str| self.labels.is_empty() || self.labels.iter().any(|asked| asked == label);
        let labels: Vec<_> = policy.labels.iter().filter(|label| asked(&label.id)).collect();
        if labels.len() < 2 {
            return Err(mend("--labels: name at least two labels"));
        }
        // Among some of the labels the scores are others than those that the thresholds were set for.
        let whole = labels.len() == policy.labels.len();
        Ok(Frame {
            labels: labels.iter().map(|label| label.id.to_string()).collect(),
            thresholds: labels.iter().map(|label| label.thresholds.filter(|_| whole)).collect(),
            calibrated: policy.calibration.is_some(),
        })
    }

    fn dataset(&self, frame: &Frame) -> Result<Dataset, Exit> {
        let (name, bytes) = if self.data == Path::new("-") {
            let mut bytes = Vec::new();
            let read = std::io::stdin().lock().read_to_end(&mut bytes);
            ("standard input".to_owned(), read.map(|_| bytes))
        } else {
            (self.data.display().to_string(), fs::read(&self.data))
        };
        let bytes = bytes.map_err(|error| unreadable(&self.data, &error))?;
        let (slices, adversarial) = (self.slice.clone(), self.adversarial);
        let wanted = Wanted { labels: frame.labels.clone(), slices, adversarial };
        Dataset::parse(&name, &bytes, &wanted).map_err(|error| faulty(&name, &error.0))
    }

    fn canaries(&self, dataset: &Dataset) -> Result<Option<CanaryReport>, Exit> {
        let Some(path) = &self.notes else { return Ok(None) };
        let text = fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
        let report = canaries(&dataset.rows, &text);
        report.map(Some).map_err(|faults| faulty(&path.display().to_string(), &faults))
    }

    /// The bounds, their names known before the model runs.
    fn bounds(&self, inputs: &Inputs<'_>) -> Result<Vec<Bound>, Exit> {
        let bound = |(metric, value): &(String, f64), limit: fn(f64) -> Limit| Bound {
            metric: metric.clone(),
            limit: limit(*value),
        };
        let bounds: Vec<Bound> = (self.min.iter().map(|one| bound(one, Limit::Min)))
            .chain(self.max.iter().map(|one| bound(one, Limit::Max)))
            .collect();
        if bounds.is_empty() {
            return Ok(bounds);
        }
        let unmeasured =
            Inputs { resampling: Resampling { resamples: 0, seed: 0 }, notes: inputs.notes.clone(), ..*inputs };
        let known = unmeasured.report(&unmeasured.perfect(&self.compare)).metrics;
        match bounds.iter().find(|bound| !known.contains_key(&bound.metric)) {
            None => Ok(bounds),
            Some(Bound { metric, .. }) => {
                let alike = alike(metric, known.keys()).into_iter().cloned().collect::<Vec<_>>().join(", ");
                Err(mend(&format!(
                    "{metric:?} is no figure of these rows; there are {alike}, ... (`moderato schema eval`)"
                )))
            }
        }
    }

    /// Judges the rows, and what is asked besides.
    fn answers(&self, inputs: &Inputs<'_>, config: &Config, others: &[Config]) -> Result<Answers, Exit> {
        let (rows, labels) = (&inputs.dataset.rows, inputs.policy_labels);
        let posts = || rows.iter().map(|row| row.post(&row.text));
        // Each clean text once for all its attacks: the cache of the run sees to that.
        let clean = rows.iter().filter_map(|row| Some(row.post(&row.attack.as_ref()?.clean_text)));
        let mut verdicts = judge::all(config, posts().chain(clean), labels)?;
        let clean = verdicts.outcomes.split_off(rows.len());
        if verdicts.judge.is_none() {
            eprintln!(
                "not one row was judged: {:?}",
                inputs.report(&Answers { posts: verdicts, ..Answers::default() }).data.unjudged
            );
            return Err(Exit::Failed);
        }
        let clean = (!clean.is_empty()).then_some(crate::eval::verdicts::Verdicts { outcomes: clean, judge: None });
        let mut compared = Vec::new();
        for (setting, config) in self.compare.iter().zip(others) {
            eprintln!("once more with {setting}");
            compared.push((setting.clone(), judge::all(config, posts(), labels)?));
        }
        Ok(Answers { posts: verdicts, clean, compared })
    }

    fn write(&self, report: &EvalV1) -> Result<(), Exit> {
        let save = |path: &Path, text: &str| {
            fs::write(path, text).map_err(|error| {
                eprintln!("{}: {error}", path.display());
                Exit::Failed
            })
        };
        if let Some(path) = &self.html {
            save(path, &html::page(report))?;
        }
        let json = serde_json::to_string(report).map_err(|_| Exit::Failed)?;
        match &self.json {
            Some(path) if path == Path::new("-") => say!("{json}"),
            Some(path) => {
                save(path, &format!("{json}\n"))?;
                say!("{}", table::text(report));
            }
            None => say!("{}", table::text(report)),
        }
        Ok(())
    }
}
