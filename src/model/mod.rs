//! The model: a verified folder becomes an instance that scores posts, the prompt that stands around them, and
//! the facts that every verdict carries.
//!
//! `ort::` appears only here. Loading promises: files verified before they are parsed, the device that was asked
//! for or an error, the prompt run once, and one warm run at the largest size before the first post.

mod assignment;
mod buckets;
mod builder;
mod cascade;
mod contract;
mod draft;
mod error;
mod full;
mod hardware;
mod instance;
mod license;
mod manifest;
mod neutralise;
mod operators;
mod peak;
mod plugin;
mod precision;
mod prefix;
mod prompt;
mod provider;
mod recheck;
mod scan;
mod scores;
mod session;
mod shapes;
mod shared;
mod template;
mod tokenizer;
mod wire;
mod words;

use std::{cell::Cell, collections::BTreeMap, path::Path, sync::Arc};

use serde::{Deserialize, Serialize};

pub use self::{
    buckets::{Bucket, Buckets},
    draft::{DraftLimits, Drafted, Drafter, Ended, LoadedDraft, draft_precisions, load_draft},
    error::{ModelError, TokenizeError},
    instance::Instance,
    peak::gemm_peak,
    prompt::{Prompt, Tokenized},
    scores::RowScores,
};
use self::{
    builder::{Builder, Ready},
    contract::{CacheShape, Fallback},
    manifest::Folder,
    session::Runtime,
    shared::Sessions,
};
pub use crate::config::{Determinism, Device, GraphChoice, InputLimit, ModelSettings, OnOverlong, Precision};
use crate::{policy::Policy, verdict::Conditions};

/// A model that is ready.
#[derive(Debug)]
pub struct Loaded {
    /// One for each thread that runs the model.
    pub instances: Vec<Instance>,
    /// For those that prepare posts.
    pub prompt: Arc<Prompt>,
    /// For verdicts and for people.
    pub info: Arc<ModelInfo>,
    /// Tokens of the prompt that were run while it was loaded, every time counted.
    pub prompt_tokens_run: usize,
}

impl Loaded {
    /// Whether one copy of the weights answers for both.
    pub fn shares_weights_with(&self, other: &Self) -> bool {
        let pair = self.instances.first().zip(other.instances.first());
        pair.is_some_and(|(one, other)| one.shares_weights_with(other))
    }
}

/// What identifies and describes a loaded model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModelInfo {
    /// The model's name, from its manifest or its folder.
    pub name: String,
    /// Identifies every file of the folder.
    pub model_digest: String,
    /// Identifies `tokenizer.json` and the chat template.
    pub tokenizer_digest: String,
    /// Identifies the ids of prompt, tail and labels.
    pub prompt_digest: String,
    /// Identifies the policy's content.
    pub policy_digest: String,
    /// `fp32`, `fp16`, `int8`, or what the exporter called it; and what it is computed in, where that is another.
    pub precision: String,
    /// What `model.device` asked for: `cpu`, `openvino`, `cuda`, `tensorrt` or `tensorrt_rtx`.
    pub provider: &'static str,
    /// How many nodes of the graph each provider got, as ONNX Runtime recorded it.
    pub nodes: BTreeMap<String, usize>,
    /// Of the CPU's, those that do the model's work although another device was asked for.
    pub fallback_nodes: usize,
    /// The convention that was detected, for a person.
    pub contract: String,
    /// The library's version.
    pub onnxruntime_version: String,
    /// Tokens of the shared prompt.
    pub prompt_tokens: usize,
    /// Tokens after each post.
    pub tail_tokens: usize,
    /// Positions that the model knows, prompt, post and tail together, if `config.json` says.
    pub max_positions: Option<usize>,
    /// Label ids in the order of the scores.
    pub labels: Vec<Arc<str>>,
    /// Runs at the same time.
    pub instances: usize,
    /// What the bits of every score hang on beside the digests.
    pub conditions: Conditions,
    /// Sizes, for what a post costs.
    pub shape: ModelShape,
    /// The weights' licence, if the manifest says.
    pub license: Option<String>,
}

/// The sizes of a Llama-architecture model; what `config.json` leaves out is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ModelShape {
    /// Layers.
    pub layers: usize,
    /// Key-value heads.
    pub kv_heads: usize,
    /// Size of a head.
    pub head_dim: usize,
    /// Query heads.
    pub heads: Option<usize>,
    /// Width of a token's state.
    pub hidden: Option<usize>,
    /// Width of the feed-forward part.
    pub ffn: Option<usize>,
    /// Tokens it knows.
    pub vocabulary: Option<usize>,
}

/// Verifies, loads, runs the prompt once and warms up.
pub fn load(settings: &ModelSettings, policy: &Policy) -> Result<Loaded, ModelError> {
    Ok(Verified::of(settings)?.under(policy, None)?.0)
}

/// The same model under two policies: each has instances and a prompt's cache of its own, over one copy of the weights
/// where the graph allows it. Both answer in the precision that was taken for the first.
pub fn load_both(settings: &ModelSettings, [one, other]: [&Policy; 2]) -> Result<[Loaded; 2], ModelError> {
    let verified = Verified::of(settings)?;
    let (first, precision) = verified.under(one, None)?;
    let (second, _) = verified.under(other, Some(&precision))?;
    Ok([first, second])
}

/// A folder that may be loaded, and what is open of it.
struct Verified<'a> {
    settings: &'a ModelSettings,
    folder: Folder,
    config: ModelConfig,
    model_digest: String,
    sessions: Sessions,
}

impl<'a> Verified<'a> {
    fn of(settings: &'a ModelSettings) -> Result<Self, ModelError> {
        let folder = Folder::verify(&settings.path, settings.require_manifest)?;
        license::check(folder.license().as_deref(), settings.license_accepted)?;
        let config = ModelConfig::read(&folder)?;
        let model_digest = folder.model_digest();
        Ok(Self { settings, folder, config, model_digest, sessions: Sessions::default() })
    }

    /// Loaded around a policy's prompt, in the precision that was taken before, if one was; and the graph's precision.
    fn under(&self, policy: &Policy, taken: Option<&str>) -> Result<(Loaded, String), ModelError> {
        let Self { settings, folder, config, model_digest, sessions } = self;
        let prompt = Prompt::build(folder, policy)?.resized(settings.prompt_tokens);
        config.check_vocabulary(prompt.vocabulary())?;
        config.check_positions(&prompt)?;
        let runtime = Runtime::load(settings.onnxruntime.as_deref())?;
        let prompt_tokens_run = Cell::new(0);
        let builder = Builder {
            runtime: &runtime,
            settings,
            prompt: &prompt,
            folder,
            config,
            model_digest,
            sessions,
            prompt_tokens_run: &prompt_tokens_run,
        };
        let Ready { graph, precision: computed, instances, nodes, fallback_nodes, threads } =
            match (taken, settings.precision) {
                (Some(taken), _) => builder.ready(Some(taken))?,
                (None, Precision::Auto) => precision::fastest_that_agrees(&builder)?,
                (None, Precision::Exported) => builder.ready(None)?,
                (None, asked) => builder.ready(Some(asked.name()))?,
            };
        let cache = graph.contract.cache();
        let info = ModelInfo {
            name: folder.name(),
            model_digest: model_digest.clone(),
            tokenizer_digest: prompt.tokenizer_digest().to_owned(),
            prompt_digest: prompt.digest().to_owned(),
            policy_digest: policy.digest().to_owned(),
            nodes,
            fallback_nodes,
            contract: graph.contract.describe(),
            provider: settings.device.name(),
            onnxruntime_version: runtime.version.clone(),
            prompt_tokens: prompt.prefix_ids().len(),
            tail_tokens: prompt.tail_ids().len(),
            conditions: hardware::conditions(settings, &runtime.version, &computed, threads),
            precision: computed,
            max_positions: config.max_positions,
            labels: policy.labels.iter().map(|label| label.id.clone()).collect(),
            shape: config.shape(cache),
            instances: instances.len(),
            license: folder.license(),
        };
        let prompt_tokens_run = prompt_tokens_run.get();
        Ok((Loaded { instances, prompt: Arc::new(prompt), info: Arc::new(info), prompt_tokens_run }, graph.precision))
    }
}

/// The precisions that a folder's `classify` graphs have, its own first; the folder is verified for it.
pub fn precisions(settings: &ModelSettings) -> Result<Vec<String>, ModelError> {
    let folder = Folder::verify(&settings.path, settings.require_manifest)?;
    let fallback = ModelConfig::read(&folder)?.fallback();
    let (_, graph) = builder::choose(GraphChoice::Auto, &folder, fallback)?;
    Ok(std::iter::once(graph.precision).chain(folder.further_precisions("classify")).collect())
}

/// The prompt alone, without verifying weights or loading ONNX Runtime: for tools that only count tokens.
pub fn load_tokenizer_only(path: &Path, policy: &Policy) -> Result<Prompt, ModelError> {
    Prompt::build(&Folder::tokenizer_of(path)?, policy)
}

/// The prompt for notes alone, likewise.
pub fn load_notes_tokenizer_only(path: &Path, prompt_text: &str) -> Result<Prompt, ModelError> {
    Prompt::for_drafting(&Folder::tokenizer_of(path)?, prompt_text)
}

/// The few facts of `config.json` that the graph may leave open.
#[derive(Debug, Default, Deserialize)]
struct ModelConfig {
    hidden_size: Option<usize>,
    num_attention_heads: Option<usize>,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    intermediate_size: Option<usize>,
    vocab_size: Option<usize>,
    #[serde(rename = "max_position_embeddings")]
    max_positions: Option<usize>,
}

impl ModelConfig {
    fn read(folder: &Folder) -> Result<Self, ModelError> {
        let Some(text) = folder.read("config.json")? else { return Ok(Self::default()) };
        serde_json::from_str(&text).map_err(|error| folder.fault(format!("config.json cannot be read: {error}")))
    }

    /// A tokenizer of another model would fail at the first post with an unusual word, or worse, not fail.
    fn check_vocabulary(&self, tokens: usize) -> Result<(), ModelError> {
        match self.vocab_size {
            Some(rows) if rows < tokens => Err(ModelError::Tokenizer(format!(
                "tokenizer.json has {tokens} tokens and the model knows {rows}: take the file that belongs to the model"
            ))),
            _ => Ok(()),
        }
    }

    /// The prompt must leave room for a post.
    fn check_positions(&self, prompt: &Prompt) -> Result<(), ModelError> {
        let around = prompt.prefix_ids().len() + prompt.tail_ids().len();
        match self.max_positions {
            Some(most) if around >= most => Err(ModelError::Prompt(format!(
                "the policy's prompt takes {around} tokens and the model knows {most} positions: shorten the prompt"
            ))),
            _ => Ok(()),
        }
    }

    fn shape(&self, cache: CacheShape) -> ModelShape {
        ModelShape {
            layers: cache.layers,
            kv_heads: cache.kv_heads,
            head_dim: cache.head_dim,
            heads: self.num_attention_heads,
            hidden: self.hidden_size,
            ffn: self.intermediate_size,
            vocabulary: self.vocab_size,
        }
    }

    fn fallback(&self) -> Fallback {
        let head_dim = || Some(self.hidden_size? / self.num_attention_heads.filter(|heads| *heads > 0)?);
        Fallback {
            kv_heads: self.num_key_value_heads.or(self.num_attention_heads),
            head_dim: self.head_dim.or_else(head_dim),
        }
    }
}
