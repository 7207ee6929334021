//! The configuration: file, environment and flags, read in layers, checked all at once, and turned into values that
//! need no further checking. Nothing below `app` reads the environment.

mod cache;
mod check;
mod count;
mod determinism;
mod devices;
mod evidence;
mod kafka;
mod layers;
mod raw;
mod registry;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;

pub use self::cache::{CacheSettings, RedisSettings};
pub use self::check::duration;
pub use self::determinism::Determinism;
pub use self::devices::{
    Cuda, Device, Openvino, OpenvinoDevice, OpenvinoPrecision, Strict, Tensorrt, TensorrtPrecision, TensorrtRtx,
};
pub(crate) use self::devices::{OPENVINO_PLUGIN, RTX_PLUGIN};
pub use self::evidence::{EvidenceSettings, Signing};
pub use self::kafka::{Delivery, EventMode, RawTopics};
pub use self::raw::{LogFormat, OnOverlong, RawConfig, RawPrecision as Precision, Task};
pub use self::registry::RegistrySettings;

/// One thing wrong with the configuration: which key, what, and what would work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key, dotted, such as `kafka.drain_timeout`; or the file.
    pub key: String,
    /// What is wrong and what would work.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.message)
    }
}

/// All that is wrong with the configuration, so that one start shows every mistake.
#[derive(Debug)]
pub struct ConfigError(pub Vec<Problem>);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let problems: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&problems.join("\n"))
    }
}

impl std::error::Error for ConfigError {}

/// The checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// What the worker does.
    pub task: Task,
    /// How to reach Kafka.
    pub kafka: KafkaSettings,
    /// Which model, on what.
    pub model: ModelSettings,
    /// The policy file, or the note policy.
    pub policy: PathBuf,
    /// How often the policy file is looked at; only on SIGHUP where there is none.
    pub policy_reload: Option<Duration>,
    /// What judges beside, if anything does.
    pub shadow: Option<Shadow>,
    /// Bounds.
    pub limits: Limits,
    /// Which cache.
    pub cache: CacheSettings,
    /// How long posts in flight may take to finish after SIGTERM.
    pub grace: Duration,
    /// How long a partition may stand still.
    pub stall_timeout: Duration,
    /// Where the worker notes which posts it runs.
    pub state_dir: PathBuf,
    /// Shape of log lines.
    pub log_format: LogFormat,
    /// Which log lines.
    pub log_filter: String,
    /// Where probes, metrics and the status page are served, if anywhere.
    pub admin: Option<SocketAddr>,
}

/// Another policy or model that judges a share of the posts beside.
#[derive(Debug, Clone)]
pub struct Shadow {
    /// Share of the posts, above 0 and up to 1.
    pub share: f64,
    /// Its policy file.
    pub policy: PathBuf,
    /// Its model, with one instance.
    pub model: ModelSettings,
    /// Where its verdicts go.
    pub topic: String,
}

/// How the worker reaches Kafka and what it reads and writes there.
#[derive(Debug, Clone)]
pub struct KafkaSettings {
    /// Bootstrap servers.
    pub brokers: String,
    /// Consumer group.
    pub group: String,
    /// Input topic of `post.v1` records.
    pub posts: String,
    /// Output topic: of `verdict.v1` records, or of `note.v1` records.
    pub output: String,
    /// Which of them.
    pub task: Task,
    /// Topic for posts that cannot be judged.
    pub dead_letters: String,
    /// Topic for posts that the policy flags, if they are passed on.
    pub flagged: Option<String>,
    /// Topic for the shadow's verdicts, if there is a shadow.
    pub shadow: Option<String>,
    /// How what goes to the output topic can be proved later.
    pub evidence: EvidenceSettings,
    /// Topic of checkpoints, if it is named.
    pub checkpoints: Option<String>,
    /// Topic for what a replay judges, if one is named.
    pub audit: Option<String>,
    /// The replay that this is, if it is one: every record says so.
    pub replay: Option<Arc<str>>,
    /// What is promised when something breaks.
    pub delivery: Delivery,
    /// Tells this worker from the others of its group.
    pub worker_id: String,
    /// How verdicts and notes are events.
    pub cloudevents: EventMode,
    /// Where schemas are registered, if anywhere.
    pub schema_registry: Option<RegistrySettings>,
    /// How long a revoked partition's posts may take to finish.
    pub drain_timeout: Duration,
    /// How long the group waits for a silent member.
    pub session_timeout: Duration,
    /// How often finished offsets are committed.
    pub commit_interval: Duration,
    /// How long a verdict or dead letter may take to be acknowledged.
    pub delivery_timeout: Duration,
    /// SASL password.
    pub password: Option<SecretString>,
    /// Password of the TLS client key.
    pub tls_key_password: Option<SecretString>,
    /// Further librdkafka options, passed through.
    pub options: BTreeMap<String, String>,
}

impl KafkaSettings {
    /// The configuration's key of the output topic.
    pub fn output_key(&self) -> &'static str {
        match self.task {
            Task::Classify => "kafka.topics.verdicts",
            Task::DraftNote => "kafka.topics.notes",
        }
    }
}

/// Which model, on what.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelSettings {
    /// The model folder.
    pub path: PathBuf,
    /// ONNX Runtime's shared library; `ORT_DYLIB_PATH` otherwise.
    pub onnxruntime: Option<PathBuf>,
    /// Execution provider.
    pub device: Device,
    /// What happens when work is left to the CPU although another device was asked for.
    pub strict: Strict,
    /// Which of the folder's precisions.
    pub precision: Precision,
    /// Rows of int8 whose two best scores lie closer are run again in fp32; 0: none.
    pub recheck_margin: f64,
    /// Runs at the same time, if the configuration says.
    pub instances: Option<usize>,
    /// Whether the same post must have the same scores to the last bit.
    pub determinism: Determinism,
    /// Threads of one run, if the configuration says.
    pub threads: Option<usize>,
    /// Whether the conditions of the weights' licence are accepted.
    pub license_accepted: bool,
    /// Whether a folder without manifest is refused.
    pub require_manifest: bool,
    /// The largest run, for warming up and for providers that compile for shapes.
    pub batch: BatchLimits,
    /// Most tokens of a post, for the same.
    pub max_input_tokens: usize,
    /// The prompt is lengthened or cut to so many tokens, for measuring.
    pub prompt_tokens: Option<usize>,
    /// Which graph; anything but `Auto` is for comparing them.
    pub graph: GraphChoice,
}

/// Which of a folder's graphs answers, and how it gets the prompt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum GraphChoice {
    /// `classify` where there is one, else `full` with the shared prompt.
    #[default]
    Auto,
    /// `classify`.
    Classify,
    /// `full`, the prompt's cache shared.
    FullSharedPrompt,
    /// `full`, the prompt run again for every row.
    FullWholePrompt,
}

/// How much of a post the model sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InputLimit {
    /// Most tokens of a post, without the prompt.
    pub max_input_tokens: usize,
    /// What happens to a longer one.
    pub on_overlong: OnOverlong,
}

/// The largest run of the model that is legal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    /// Longest row times rows.
    pub max_tokens: usize,
    /// Rows.
    pub max_posts: usize,
}

/// Bounds on what travels.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Permits: posts in flight.
    pub max_in_flight: usize,
    /// Largest value that is decoded, in bytes.
    pub max_post_bytes: usize,
    /// How much of a post the model sees.
    pub input: InputLimit,
    /// The largest run of the model.
    pub batch: BatchLimits,
    /// Notes that are written side by side.
    pub max_draft_rows: usize,
    /// Rejections in a row, of one partition, that end the worker.
    pub max_consecutive_rejections: u64,
    /// Share of rejections, of one partition, that ends the worker when it is exceeded.
    pub max_rejection_ratio: f64,
    /// Runs of a post that the process may not survive before it is given up.
    pub max_attempts: u32,
}

/// A layer above the file: dotted key and value, from the environment or a flag.
pub type Setting = (String, String);

/// What was read, before and after checking.
pub struct Loaded {
    /// The merged file, environment and flags; printing it shows no secret.
    pub raw: RawConfig,
    /// The checked values, or everything that is wrong.
    pub checked: Result<Config, ConfigError>,
}

/// What the verb at hand works with: only that must be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Brokers, topics and group.
    Kafka,
    /// Only model, policy and limits.
    ModelOnly,
    /// Only brokers, topics and group: the model and the policy may be elsewhere.
    KafkaOnly,
}

/// Reads the file (if any), lays the settings over it in order, and checks the whole.
pub fn load(file: Option<&Path>, settings: &[Setting], needs: Needs) -> Result<Loaded, ConfigError> {
    let (raw, mut problems) = layers::merge(file, settings)?;
    let checked = check::check(&raw, needs);
    if problems.is_empty() {
        return Ok(Loaded { raw, checked });
    }
    // A key that was refused already is at its default by now: nothing more is to be said about it.
    let more = checked.map_or_else(|error| error.0, |_| Vec::new());
    problems
        .extend(more.into_iter().filter(|one| !problems.iter().any(|other| other.key == one.key)).collect::<Vec<_>>());
    Ok(Loaded { raw, checked: Err(ConfigError(problems)) })
}

/// The settings that environment variables `MODERATO__SECTION__KEY` make.
pub fn from_environment(variables: impl Iterator<Item = (String, String)>) -> Vec<Setting> {
    let mut settings: Vec<Setting> = variables
        .filter_map(|(name, value)| {
            let key = name.strip_prefix("MODERATO__")?.to_ascii_lowercase().replace("__", ".");
            Some((key, value))
        })
        .collect();
    settings.sort();
    settings
}

/// The JSON Schema of the configuration.
pub fn schema() -> serde_json::Value {
    layers::schema()
}
