//! `moderato bench`: the model on this machine, without Kafka: how many posts a second, at what share of the machine's
//! peak, with how long a wait.

mod determinism;
mod draft;
mod measure;
mod mix;
mod report;

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::json;

use self::measure::{Figures, Load, measure};
use self::mix::Mix;
use self::report::{Report, Row, Subject};
use super::{Common, VerbSettings, report as tell};
use crate::app::AppError;
use crate::config::{BatchLimits, Config, ModelSettings, Needs, Precision};
use crate::error::Exit;
use crate::model::{self, Instance, Loaded, ModelError, Prompt};
use crate::policy::Policy;

#[derive(Debug, Args)]
pub(super) struct BenchArguments {
    #[command(flatten)]
    common: Common,
    /// What is measured.
    #[arg(long, value_enum, default_value_t = Task::Classify)]
    task: Task,
    /// For `draft`: rows that are written at the same time by each instance.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8], value_name = "N,...")]
    rows: Vec<usize>,
    /// For `draft`: tokens written for each row.
    #[arg(long, default_value_t = 64, value_name = "TOKENS")]
    new_tokens: usize,
    /// Precisions to measure, of those in the model folder; all of them unless told.
    #[arg(long, value_delimiter = ',', value_name = "NAME,...")]
    precisions: Vec<Named>,
    /// Budgets of padded tokens a run; `limits.max_batch_tokens` unless told.
    #[arg(long, value_delimiter = ',', value_name = "TOKENS,...")]
    budgets: Vec<usize>,
    /// Instances at once; `model.instances` unless told.
    #[arg(long, value_delimiter = ',', value_name = "N,...")]
    instances: Vec<usize>,
    /// Lengthen or cut the policy's prompt to so many tokens; as the policy has it unless told.
    #[arg(long, value_name = "TOKENS")]
    prompt_tokens: Option<usize>,
    /// Length of each post in the first mix, the prompt's end included.
    #[arg(long, default_value_t = 60, value_name = "TOKENS")]
    post_tokens: usize,
    /// Judge the posts of a file of `post.v1` lines instead of the two mixes.
    #[arg(long, value_name = "FILE")]
    posts: Option<PathBuf>,
    /// Seconds for each measurement.
    #[arg(long, default_value_t = 8.0)]
    seconds: f64,
    /// Posts a second at which waiting is measured; half of what was reached unless told.
    #[arg(long, value_name = "POSTS")]
    rate: Option<f64>,
    /// Also measure padded batches of so many posts in arrival order, as a naive worker makes them.
    #[arg(long, value_name = "POSTS")]
    arrival_order: Option<usize>,
    /// End with exit code 1 if the first measurement reaches fewer posts a second.
    #[arg(long, value_name = "POSTS")]
    min_posts_per_second: Option<f64>,
    /// Write the token ids of prompt, labels and the first mix's rows as JSON, for other programs.
    #[arg(long, value_name = "FILE")]
    dump_rows: Option<PathBuf>,
    /// Write the label logits of each row of the first mix, a JSON object a line.
    #[arg(long, value_name = "FILE")]
    scores: Option<PathBuf>,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

/// What a model does here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Task {
    /// Judging posts.
    Classify,
    /// Writing text, under the policy's prompt.
    Draft,
    /// Judging posts with `determinism: strict` and without, in turns: what it costs.
    Determinism,
}

/// Precisions by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Named {
    Fp32,
    Fp16,
    Int8,
}

impl Named {
    fn all(names: &[Self]) -> Vec<Precision> {
        let named = |name: &Self| match name {
            Self::Fp32 => Precision::Fp32,
            Self::Fp16 => Precision::Fp16,
            Self::Int8 => Precision::Int8,
        };
        names.iter().map(named).collect()
    }
}

pub(super) fn run(arguments: &BenchArguments) -> Result<Exit, Exit> {
    let quiet = [("log.filter", "warn,ort=error")];
    let config = arguments.common.start(&VerbSettings { defaults: &quiet, fixed: &[] }, Needs::ModelOnly)?;
    if !(arguments.seconds > 0.0 && arguments.rate.is_none_or(|rate| rate > 0.0) && arguments.post_tokens > 0) {
        eprintln!("--seconds, --rate and --post-tokens must be greater than 0");
        return Err(Exit::Config);
    }
    if arguments.rows.contains(&0) || arguments.rows.is_empty() || arguments.new_tokens < 2 {
        eprintln!("--rows must be greater than 0 and --new-tokens greater than 1");
        return Err(Exit::Config);
    }
    let policy = Policy::load(&config.policy).map_err(|error| tell(&error.into()))?;
    let bench = Bench { arguments, config, policy };
    let faulty = |fault| match fault {
        Fault::App(error) => tell(&error),
        Fault::File(message) => {
            eprintln!("{message}");
            Exit::Config
        }
    };
    if arguments.task == Task::Draft {
        let report = bench.run_draft().map_err(faulty)?;
        say!("{}", if arguments.json { report.json().to_string() } else { report.table() });
        return Ok(Exit::Ok);
    }
    if arguments.task == Task::Determinism {
        let report = bench.run_determinism().map_err(faulty)?;
        say!("{}", if arguments.json { report.json().to_string() } else { report.table() });
        return Ok(Exit::Ok);
    }
    let report = bench.run().map_err(faulty)?;
    if arguments.json {
        say!("{}", report.json());
    } else {
        say!("{}", report.table());
    }
    let reached = report.rows.first().map_or(0.0, Row::posts_per_second);
    match arguments.min_posts_per_second {
        Some(least) if reached < least => {
            eprintln!("{reached:.1} posts/s were reached; --min-posts-per-second asks for {least}");
            Ok(Exit::Failed)
        }
        _ => Ok(Exit::Ok),
    }
}

enum Fault {
    App(AppError),
    File(String),
}

impl From<ModelError> for Fault {
    fn from(error: ModelError) -> Self {
        Self::App(error.into())
    }
}

struct Bench<'a> {
    arguments: &'a BenchArguments,
    config: Config,
    policy: Policy,
}

impl Bench<'_> {
    fn run(&self) -> Result<Report, Fault> {
        let mut rows = Vec::new();
        let mut about = None;
        for precision in self.precisions()? {
            for instances in self.instances() {
                let mut loaded = self.load(precision, instances)?;
                let peak = model::gemm_peak(&self.config.model, &loaded.info.precision, loaded.instances.len())?;
                let mixes = self.mixes(&loaded.prompt)?;
                if about.is_none() {
                    self.write_files(&mut loaded, &mixes[0])?;
                }
                for mix in &mixes {
                    self.measure_mix(&mut loaded, mix, peak, &mut rows)?;
                }
                about = Some(loaded.info);
            }
        }
        let info = about.ok_or_else(|| Fault::File("nothing to measure".to_owned()))?;
        Ok(Report { info, rows, peak_memory: measure::peak_memory() })
    }

    fn precisions(&self) -> Result<Vec<Precision>, Fault> {
        let asked = &self.arguments.precisions;
        Ok(if asked.is_empty() { Self::known(&model::precisions(&self.config.model)?) } else { Named::all(asked) })
    }

    /// Those of the folder's precisions that can be asked for; its own if there is none.
    fn known(has: &[String]) -> Vec<Precision> {
        let known = [Precision::Fp32, Precision::Fp16, Precision::Int8];
        let found: Vec<_> =
            has.iter().filter_map(|name| known.into_iter().find(|known| known.name() == name)).collect();
        if found.is_empty() { vec![Precision::Exported] } else { found }
    }

    fn instances(&self) -> Vec<Option<usize>> {
        let asked: Vec<_> = self.arguments.instances.iter().copied().map(Some).collect();
        if asked.is_empty() { vec![self.config.model.instances] } else { asked }
    }

    fn budgets(&self) -> Vec<usize> {
        let asked = self.arguments.budgets.clone();
        if asked.is_empty() { vec![self.config.limits.batch.max_tokens] } else { asked }
    }

    fn load(&self, precision: Precision, instances: Option<usize>) -> Result<Loaded, ModelError> {
        model::load(&self.settings(precision, instances), &self.policy)
    }

    fn settings(&self, precision: Precision, instances: Option<usize>) -> ModelSettings {
        ModelSettings { precision, instances, prompt_tokens: self.arguments.prompt_tokens, ..self.config.model.clone() }
    }

    fn mixes(&self, prompt: &Prompt) -> Result<Vec<Mix>, Fault> {
        let limit = &self.config.limits.input;
        let mixes = match &self.arguments.posts {
            Some(path) => {
                let lines = read(path)?;
                let mix = Mix::posts(prompt, limit, &lines);
                vec![mix.map_err(|error| Fault::File(format!("{}: {error}", path.display())))?]
            }
            None => {
                let faulty = |error| Fault::File(format!("the sample posts cannot be tokenised: {error}"));
                vec![
                    Mix::fixed(prompt, limit, self.arguments.post_tokens).map_err(faulty)?,
                    Mix::lognormal(prompt, limit).map_err(faulty)?,
                ]
            }
        };
        Ok(mixes)
    }

    fn measure_mix(&self, loaded: &mut Loaded, mix: &Mix, peak: f64, rows: &mut Vec<Row>) -> Result<(), ModelError> {
        for budget in self.budgets() {
            let limits = BatchLimits { max_tokens: budget, ..self.config.limits.batch };
            let window = self.config.limits.max_in_flight;
            let buckets = loaded.instances.first().and_then(Instance::buckets);
            let load =
                Load { limits, buckets, window, rate: None, arrival_order: None, seconds: self.arguments.seconds };
            let figures = measure(&mut loaded.instances, &mix.rows, load)?;
            let reached = figures.rows as f64 / figures.wall;
            let rate = self.arguments.rate.unwrap_or(reached / 2.0);
            let paced = measure(&mut loaded.instances, &mix.rows, Load { rate: Some(rate), ..load })?;
            let row = |figures: Figures, batching: String, paced: Option<Figures>| Row {
                subject: Subject::new(&loaded.info, mix),
                batching,
                figures,
                peak,
                paced: paced.map(|paced| (rate, paced)),
            };
            rows.push(row(figures, format!("like lengths, {budget} tokens"), Some(paced)));
            if let Some(count) = self.arguments.arrival_order {
                let figures = measure(&mut loaded.instances, &mix.rows, Load { arrival_order: Some(count), ..load })?;
                rows.push(row(figures, format!("arrival order, {count} posts"), None));
            }
        }
        Ok(())
    }

    fn write_files(&self, loaded: &mut Loaded, mix: &Mix) -> Result<(), Fault> {
        let prompt = &loaded.prompt;
        if let Some(path) = &self.arguments.dump_rows {
            let labels = self.policy.labels.iter().zip(prompt.label_ids());
            let labels: Vec<_> = labels.map(|(label, token)| json!({"id": label.id, "token": token})).collect();
            let dump = json!({"prompt": prompt.prefix_ids(), "labels": labels, "rows": mix.rows});
            write(path, &dump.to_string())?;
        }
        if let Some(path) = &self.arguments.scores {
            let mut lines = String::new();
            for row in &mix.rows {
                let scores = loaded.instances[0].classify(&[row])?;
                lines += &format!("{}\n", json!({"logits": scores[0].logits}));
            }
            write(path, &lines)?;
        }
        Ok(())
    }
}

fn read(path: &Path) -> Result<String, Fault> {
    fs::read_to_string(path).map_err(|error| Fault::File(format!("{}: {error}", path.display())))
}

fn write(path: &Path, text: &str) -> Result<(), Fault> {
    fs::write(path, text).map_err(|error| Fault::File(format!("{}: {error}", path.display())))
}
