//! What the configuration file may say: names, types and defaults, nothing checked yet. `schemas/config.v1.json` is
//! generated from here. Durations are text such as `500ms`, `20s`, `7d`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

use super::cache::RawCache;
use super::count::Count;
use super::determinism::Determinism;
use super::devices::{RawCuda, RawDevice, RawOpenvino, RawTensorrt, RawTensorrtRtx, Strict};
use super::evidence::RawEvidence;
use super::kafka::RawKafka;

/// moderato's configuration: a YAML file, then environment variables `MODERATO__SECTION__KEY`, then flags.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "moderato configuration v1")]
pub struct RawConfig {
    /// What the worker does: one thing.
    pub task: Task,
    /// Kafka: where posts come from and verdicts go.
    pub kafka: RawKafka,
    /// The model that judges.
    pub model: RawModel,
    /// Whether the same post must have the same scores to the last bit, whatever else is judged at the time.
    pub determinism: Determinism,
    /// Policy file: YAML, or Markdown with front matter; for `draft_note`, a note policy. Required.
    pub policy: String,
    /// How often a running worker looks whether the policy file, or the calibration that it names, has changed; `0s`: only on
    /// SIGHUP. Thresholds, quotas, calibration and languages come into force at once; another prompt wants a restart.
    pub policy_reload: String,
    /// Another policy or model that judges a share of the posts beside, to see what it would change.
    pub shadow: RawShadow,
    /// Bounds on posts and on what is in flight.
    pub limits: RawLimits,
    /// Where answers are kept, so that nothing is computed twice.
    pub cache: RawCache,
    /// How verdicts can be proved later.
    pub evidence: RawEvidence,
    /// How the worker stops, and when it gives up.
    pub shutdown: RawShutdown,
    /// Folder where the worker notes which posts it runs, as digests, so that one which ends the process is known to the
    /// next; otherwise `moderato` in the system's temporary folder. It has to outlive the process, not the machine.
    pub state_dir: Option<String>,
    /// What is logged, and how.
    pub log: RawLog,
    /// Probes, metrics and the status page.
    pub admin: RawAdmin,
}

/// What a worker does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Posts to verdicts.
    #[default]
    Classify,
    /// Flagged posts, with their verdict in a header, to drafted notes.
    DraftNote,
}

/// The model that judges.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawModel {
    /// Model folder. Required.
    pub path: String,
    /// ONNX Runtime's shared library, `libonnxruntime.so.1.31.1`; otherwise `ORT_DYLIB_PATH` is asked.
    pub onnxruntime: Option<String>,
    /// Execution provider. One that was asked for and is not there ends the start; it is never replaced by the CPU.
    pub device: RawDevice,
    /// Which GPU, for `cuda`, `tensorrt` and `tensorrt_rtx`; the first is 0.
    pub device_id: i32,
    /// Which of the folder's precisions: `exported` is the folder's own. `auto` judges the sample posts with each at
    /// start and takes the fastest that gives fp32's label to at least 99 % of them.
    pub precision: RawPrecision,
    /// With int8 on the CPU, a post whose two best scores lie closer than this is run again in fp32, where the folder has
    /// it: integer products move scores, and only where they are close does a label depend on it. 0: never; spares the
    /// memory for the second set of weights.
    pub recheck_margin: f64,
    /// Runs of the model at the same time, over one copy of the weights: `auto` takes one for each core on a CPU, and one
    /// on a GPU or for a graph in Hugging Face's convention.
    pub instances: Count,
    /// Threads of one run: `auto` shares the cores among the instances.
    pub threads: Count,
    /// What happens when ONNX Runtime leaves work of the model (products of matrices, attention, normalisation) to the
    /// CPU although another device was asked for.
    pub strict: Strict,
    /// Options of `openvino`.
    pub openvino: RawOpenvino,
    /// Options of `cuda`, and of the CUDA below `tensorrt`.
    pub cuda: RawCuda,
    /// Options of `tensorrt`.
    pub tensorrt: RawTensorrt,
    /// Options of `tensorrt_rtx`.
    pub tensorrt_rtx: RawTensorrtRtx,
    /// That the conditions of the weights' licence are accepted. Where the manifest names a licence with conditions, such as
    /// Llama 2's community licence and acceptable-use policy, the model is not loaded without.
    pub license_accepted: bool,
    /// Whether a folder without `manifest.json` is refused. Digests are part of every verdict either way.
    pub require_manifest: bool,
}

/// A shadow: its verdicts go to `kafka.topics.shadow`, at most once each, and decide nothing. It loads a model of its own,
/// with one instance of one thread, which shares the machine; posts that come while it is busy, and those above 64 KiB, are
/// skipped. Its policy is the one at the start, without quotas.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawShadow {
    /// Share of the posts, 0 to 1, picked by a hash of the post's id: the same posts every time. 0: no shadow.
    pub share: f64,
    /// Its policy file; `policy` if it is not set.
    pub policy: Option<String>,
    /// Its model folder; `model.path` if it is not set.
    pub model: Option<String>,
}

/// Precisions of a model folder.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawPrecision {
    /// The folder's own.
    #[default]
    Exported,
    /// The fastest that agrees with fp32.
    Auto,
    /// Single precision.
    Fp32,
    /// Half precision, for GPUs.
    Fp16,
    /// Integer products, one scale per output channel and one per token.
    Int8,
}

impl RawPrecision {
    /// As the configuration spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Exported => "exported",
            Self::Auto => "auto",
            Self::Fp32 => "fp32",
            Self::Fp16 => "fp16",
            Self::Int8 => "int8",
        }
    }
}

/// Bounds on posts and on what is in flight.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawLimits {
    /// Posts in flight at once; beyond it, partitions pause.
    pub max_in_flight: usize,
    /// Largest record value, in bytes; a larger one is dead-lettered unread.
    pub max_post_bytes: usize,
    /// Most tokens of a post that the model sees.
    pub max_input_tokens: usize,
    /// What happens to a longer post; the verdict says so.
    pub on_overlong: OnOverlong,
    /// Largest run of the model: longest row times rows, in tokens. At least `max_input_tokens`, with room for the
    /// prompt's end. `auto` takes 512 on a CPU and 2048 on a GPU.
    pub max_batch_tokens: Count,
    /// Most rows in one run.
    pub max_batch_posts: usize,
    /// Most notes that are written side by side, for `draft_note`: memory for them is taken at start.
    pub max_draft_rows: usize,
    /// Rejections in a row, of one partition, that stop the worker: most likely somebody broke a schema.
    pub max_consecutive_rejections: u64,
    /// Share of a partition's last 200 posts that may be rejections, 0 to 1, before the worker stops; 1 allows them all.
    pub max_rejection_ratio: f64,
    /// How often the process may end while it runs a post before that post is dead-lettered as `poison`.
    pub max_attempts: u32,
}

/// What happens to a post longer than `max_input_tokens`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnOverlong {
    /// Keep the first three quarters and the last quarter of what fits.
    #[default]
    TruncateMiddle,
    /// Keep the beginning.
    TruncateTail,
    /// Dead-letter the post.
    Reject,
}

/// How the worker stops, and when it gives up.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawShutdown {
    /// How long posts in flight may take to finish after SIGTERM; at least `kafka.drain_timeout`.
    pub grace: String,
    /// How long a partition may stand still with posts in flight before the worker stops.
    pub stall_timeout: String,
}

/// What is logged, and how.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawLog {
    /// `auto` writes text to a terminal and JSON otherwise. Logs go to standard error.
    pub format: LogFormat,
    /// Which, in the syntax of tracing's `EnvFilter`, such as `info,ort=warn`.
    pub filter: String,
}

/// Probes, metrics and the status page.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawAdmin {
    /// Where `run` serves `/livez`, `/readyz`, `/startupz`, `/metrics`, `/info` and a status page: `HOST:PORT`; port 0 takes
    /// a free one, which the log names. `off`: nowhere. Nobody is asked who they are: keep it within the cluster.
    pub listen: String,
}

/// Shapes of a log line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Text to a terminal, JSON otherwise.
    #[default]
    Auto,
    /// Text.
    Text,
    /// One JSON object a line.
    Json,
}

/// A secret as read; printing shows only that there is one.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("[redacted]")
    }
}

impl Default for RawConfig {
    fn default() -> Self {
        Self {
            task: Task::default(),
            kafka: RawKafka::default(),
            model: RawModel::default(),
            determinism: Determinism::default(),
            policy: String::new(),
            policy_reload: "10s".to_owned(),
            shadow: RawShadow::default(),
            limits: RawLimits::default(),
            cache: RawCache::default(),
            evidence: RawEvidence::default(),
            shutdown: RawShutdown::default(),
            state_dir: None,
            log: RawLog::default(),
            admin: RawAdmin::default(),
        }
    }
}

impl Default for RawModel {
    fn default() -> Self {
        Self {
            path: String::new(),
            onnxruntime: None,
            device: RawDevice::default(),
            device_id: 0,
            precision: RawPrecision::default(),
            recheck_margin: 0.05,
            instances: Count::AUTO,
            threads: Count::AUTO,
            strict: Strict::default(),
            openvino: RawOpenvino::default(),
            cuda: RawCuda::default(),
            tensorrt: RawTensorrt::default(),
            tensorrt_rtx: RawTensorrtRtx::default(),
            license_accepted: false,
            require_manifest: true,
        }
    }
}

impl Default for RawLimits {
    fn default() -> Self {
        Self {
            max_in_flight: 1024,
            max_post_bytes: 1 << 20,
            max_input_tokens: 448,
            on_overlong: OnOverlong::default(),
            max_batch_tokens: Count::AUTO,
            max_batch_posts: 64,
            max_draft_rows: 8,
            max_consecutive_rejections: 1000,
            max_rejection_ratio: 0.5,
            max_attempts: 3,
        }
    }
}

impl Default for RawShutdown {
    fn default() -> Self {
        Self { grace: "30s".to_owned(), stall_timeout: "5m".to_owned() }
    }
}

impl Default for RawAdmin {
    fn default() -> Self {
        Self { listen: "127.0.0.1:9464".to_owned() }
    }
}

impl Default for RawLog {
    fn default() -> Self {
        Self { format: LogFormat::default(), filter: "info,ort=warn".to_owned() }
    }
}
