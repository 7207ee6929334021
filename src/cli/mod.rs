//! The command line: one file a verb.

/// Writes a line to standard output. A reader that has seen enough and closed it (`| head`) is no fault.
macro_rules! say {
    ($($arguments:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($arguments)*);
    }};
}

mod archive;
mod audit;
mod bench;
mod check;
mod classify;
mod dead_letters;
mod demo;
mod demo_notes;
mod demo_table;
mod diff;
mod draft;
mod eval;
mod explain;
mod export;
mod lines;
mod places;
mod reconcile;
mod replay;
mod run;
mod schema;
mod tokens;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand};

use crate::config::{self, Config, Loaded, Needs, Setting};
use crate::error::Exit;
use crate::kafka::range::ReadError;
use crate::telemetry;

pub use schema::{SchemaName, render as render_schema};

/// Judges posts from Kafka with a Llama-architecture model in ONNX Runtime, and publishes verdicts.
#[derive(Debug, Parser)]
#[command(
    version,
    about,
    after_help = "Exit codes: 0 done; 1 a promise could not be kept (the log names its code); 2 mend the configuration, policy or model; 3 what was compared differs."
)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Consume posts, publish a verdict for each, commit.
    Run {
        #[command(flatten)]
        common: Common,
    },
    /// Judge the sample posts in this process, against an embedded Kafka protocol server.
    Demo(demo::DemoArguments),
    /// Judge one text and say why; or lines on standard input, verdicts as JSON lines on standard output.
    Classify(classify::ClassifyArguments),
    /// Judge a labelled set and tell what the verdicts are worth: figures, charts, calibration, attacks.
    Eval(Box<eval::EvalArguments>),
    /// Print the token ids that the model would see of each post on standard input, without running it.
    Tokens(tokens::TokensArguments),
    /// Draft notes about the posts on standard input, one JSON line each, on standard output.
    Draft(draft::DraftArguments),
    /// Check the configuration, then broker, topics, Redis, model and provider, within 10 seconds or what `--wait` says.
    Check(check::CheckArguments),
    /// Was every post judged? Compare the input topic with the topics of verdicts and dead letters.
    Reconcile(reconcile::ReconcileArguments),
    /// Everything that the topics know of a post: versions, verdicts, notes, dead letters, replays.
    Explain(explain::ExplainArguments),
    /// Keep verdicts for good: Parquet by day, with digests, a signed manifest, and erasure by key.
    Archive(Box<archive::ArchiveArguments>),
    /// Is the log of verdicts as it was written? Follows its chains and proves what was signed.
    Audit(audit::AuditArguments),
    /// What would change: two sets of verdicts on the same posts, or one and a candidate policy.
    Diff(Box<diff::DiffArguments>),
    /// Judge a range again, to an audit topic or a file: what would be said now, and does what was said hold?
    Replay(Box<replay::ReplayArguments>),
    /// Show dead letters, or put their posts back on the input topic.
    DeadLetters(dead_letters::DeadLettersArguments),
    /// Drafts for Community Notes, AT Protocol, ActivityStreams and the EU DSA out of verdicts and notes; nothing is submitted.
    Export(export::ExportArguments),
    /// Measure the model on this machine, without Kafka: posts/s, share of the machine's peak, waiting.
    Bench(Box<bench::BenchArguments>),
    /// Print a schema: post, verdict, note, dead_letter, config, calibration, eval, reconcile, diff, checkpoint, audit, explain, archive_manifest, dead_letters, export-... or asyncapi.
    Schema {
        /// Which.
        name: SchemaName,
    },
}

/// Where the configuration comes from: file, then environment, then flags.
#[derive(Debug, Args)]
pub struct Common {
    /// YAML configuration file.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set one key, such as `--set limits.max_in_flight=256`; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting)]
    set: Vec<Setting>,
    /// Model folder (`model.path`).
    #[arg(long, value_name = "FOLDER")]
    model: Option<String>,
    /// Policy file (`policy`).
    #[arg(long, value_name = "FILE")]
    policy: Option<String>,
}

fn setting(text: &str) -> Result<Setting, String> {
    let (key, value) = text.split_once('=').ok_or("KEY=VALUE is expected, such as limits.max_in_flight=256")?;
    Ok((key.trim().to_owned(), value.to_owned()))
}

fn duration(text: &str) -> Result<Duration, String> {
    config::duration(text).ok_or_else(|| format!("`{text}` is not a duration, such as 500ms, 20s, 5m or 7d"))
}

/// Settings of a verb's own.
#[derive(Default)]
struct VerbSettings<'a> {
    /// Above the file, below environment and flags.
    defaults: &'a [(&'a str, &'a str)],
    /// Above everything.
    fixed: &'a [(&'a str, &'a str)],
}

fn own(pairs: &[(&str, &str)]) -> Vec<Setting> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

impl Common {
    /// Merges the layers: file, the verb's own defaults, environment, flags, and what the verb cannot do without.
    fn load(&self, verb: &VerbSettings<'_>, needs: Needs) -> Result<Loaded, config::ConfigError> {
        let mut settings = own(verb.defaults);
        settings.extend(config::from_environment(std::env::vars()));
        let flags = [("model.path", &self.model), ("policy", &self.policy)];
        settings.extend(flags.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value.clone()?))));
        settings.extend(self.set.iter().cloned());
        settings.extend(own(verb.fixed));
        config::load(self.config.as_deref(), &settings, needs)
    }

    /// The checked configuration with logging started, or the problems printed.
    fn start(&self, verb: &VerbSettings<'_>, needs: Needs) -> Result<Config, Exit> {
        match self.load(verb, needs).and_then(|loaded| loaded.checked) {
            Ok(config) => {
                telemetry::start(config.log_format, &config.log_filter);
                Ok(config)
            }
            Err(error) => Err(problems(&error)),
        }
    }
}

fn problems(error: &config::ConfigError) -> Exit {
    eprintln!("the configuration has {} problem(s):", error.0.len());
    for problem in &error.0 {
        eprintln!("  {problem}");
    }
    Exit::Config
}

/// Runs the verb.
pub fn run(arguments: Arguments) -> Exit {
    let outcome = match arguments.verb {
        Verb::Run { common } => run::run(&common),
        Verb::Demo(arguments) => demo::run(&arguments),
        Verb::Classify(arguments) => classify::run(&arguments),
        Verb::Tokens(arguments) => tokens::run(&arguments),
        Verb::Draft(arguments) => draft::run(&arguments),
        Verb::Bench(arguments) => bench::run(&arguments),
        Verb::Eval(arguments) => eval::run(&arguments),
        Verb::Check(arguments) => check::run(&arguments),
        Verb::Reconcile(arguments) => reconcile::run(&arguments),
        Verb::Explain(arguments) => explain::run(&arguments),
        Verb::Archive(arguments) => archive::run(&arguments),
        Verb::Audit(arguments) => audit::run(&arguments),
        Verb::Diff(arguments) => diff::run(&arguments),
        Verb::Replay(arguments) => replay::run(&arguments),
        Verb::Export(arguments) => export::run(&arguments),
        Verb::DeadLetters(arguments) => dead_letters::run(&arguments),
        Verb::Schema { name } => {
            say!("{}", render_schema(name));
            Ok(Exit::Ok)
        }
    };
    outcome.unwrap_or_else(|exit| exit)
}

/// The runtime of every verb that has a road: the model, the consumer and tokenising have threads of their own.
fn runtime() -> Result<tokio::runtime::Runtime, Exit> {
    let built = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    built.map_err(|error| {
        eprintln!("cannot start the runtime: {error}");
        Exit::Failed
    })
}

/// Tells why the worker ended, and the exit code that goes with it.
fn report(error: &crate::app::AppError) -> Exit {
    tracing::error!(error.type = error.code(), error = %error, "ended");
    error.exit()
}

/// What a verb without a road reads, and how it fails: said on standard error, with its exit code.
fn told(error: &ReadError) -> Exit {
    eprintln!("{error}");
    if matches!(error, ReadError::Asked(_)) { Exit::Config } else { Exit::Failed }
}

/// How far a long reading has come, on standard error, every few seconds.
struct Progress {
    what: &'static str,
    count: u64,
    next: Instant,
}

impl Progress {
    const EVERY: Duration = Duration::from_secs(5);

    fn new(what: &'static str) -> Self {
        Self { what, count: 0, next: Instant::now() + Self::EVERY }
    }

    /// One more; the clock is asked seldom.
    fn tick(&mut self, of: &str) {
        self.count += 1;
        if self.count.is_multiple_of(1024) && Instant::now() >= self.next {
            eprintln!("{} {}, now in {of}", self.count, self.what);
            self.next = Instant::now() + Self::EVERY;
        }
    }
}
