//! The model: a verified folder becomes an instance that scores posts, the prompt that stands around them, and
//! the facts that every verdict carries.
//!
//! `ort::` appears only here. Loading promises: files verified before they are parsed, the device that was asked
//! for or an error, the prompt run once, and one warm run at the largest size before the first post.

mod cascade;
mod contract;
mod error;
mod full;
mod instance;
mod manifest;
mod neutralise;
mod operators;
mod prefix;
mod prompt;
mod scan;
mod scores;
mod session;
mod shared;
mod template;
mod tokenizer;
mod wire;

use std::{path::Path, sync::Arc};

use serde::{Deserialize, Serialize};

use self::{
    cascade::CascadeEngine,
    contract::{Contract, Fallback},
    full::{FullEngine, FullInputs},
    manifest::{Folder, Graph},
    prefix::PrefixCache,
    session::Runtime,
    shared::SharedSession,
};
pub use self::{
    error::{ModelError, TokenizeError},
    instance::Instance,
    prompt::{Prompt, Tokenized},
    scores::RowScores,
};
pub use crate::config::{Device, GraphChoice, InputLimit, ModelSettings, OnOverlong};
use crate::policy::Policy;

/// A model that is ready.
#[derive(Debug)]
pub struct Loaded {
    /// One for each thread that runs the model.
    pub instances: Vec<Instance>,
    /// For those that prepare posts.
    pub prompt: Arc<Prompt>,
    /// For verdicts and for people.
    pub info: Arc<ModelInfo>,
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
    /// `fp32`, `fp16`, `int8`, or what the exporter called it.
    pub precision: String,
    /// `cpu`, `cuda` or `tensorrt`.
    pub provider: &'static str,
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
    /// Layers.
    pub layers: usize,
    /// Runs at the same time.
    pub instances: usize,
    /// Key-value heads.
    pub kv_heads: usize,
    /// Size of a head.
    pub head_dim: usize,
    /// The weights' licence, if the manifest says.
    pub license: Option<String>,
}

/// Verifies, loads, runs the prompt once and warms up.
pub fn load(settings: &ModelSettings, policy: &Policy) -> Result<Loaded, ModelError> {
    let folder = Folder::verify(&settings.path, settings.require_manifest)?;
    let config = ModelConfig::read(&folder)?;
    let prompt = Prompt::build(&folder, policy)?;
    config.check_vocabulary(prompt.vocabulary())?;
    let (choice, graph) = choose(settings.graph, &folder, config.fallback())?;
    let around = prompt.prefix_ids().len() + prompt.tail_ids().len();
    if config.max_positions.is_some_and(|most| around >= most) {
        return Err(ModelError::Prompt(format!(
            "the policy's prompt takes {around} tokens and the model knows {} positions: shorten the prompt",
            config.max_positions.unwrap_or_default()
        )));
    }
    let runtime = Runtime::load(settings.onnxruntime.as_deref())?;
    let builder = Builder { runtime: &runtime, settings, prompt: &prompt };
    let mut instances = match choice {
        GraphChoice::Classify | GraphChoice::Auto => builder.cascade(&graph, &folder, config.fallback())?,
        GraphChoice::FullSharedPrompt => builder.full(&graph, true)?,
        GraphChoice::FullWholePrompt => builder.full(&graph, false)?,
    };
    let longest_row = config.max_positions.map_or(usize::MAX, |most| most - prompt.prefix_ids().len());
    for instance in &mut instances {
        instance.warm_up(prompt.tail_ids()[0], settings.max_batch_tokens, longest_row)?;
    }
    let cache = graph.contract.cache();
    let info = ModelInfo {
        name: folder.name(),
        model_digest: folder.model_digest(),
        tokenizer_digest: prompt.tokenizer_digest().to_owned(),
        prompt_digest: prompt.digest().to_owned(),
        policy_digest: policy.digest().to_owned(),
        precision: folder.precision().unwrap_or_else(|| graph.precision().to_owned()),
        provider: settings.device.name(),
        contract: graph.contract.describe(),
        onnxruntime_version: runtime.version.clone(),
        prompt_tokens: prompt.prefix_ids().len(),
        tail_tokens: prompt.tail_ids().len(),
        max_positions: config.max_positions,
        labels: policy.labels.iter().map(|label| label.id.clone()).collect(),
        layers: cache.layers,
        instances: instances.len(),
        kv_heads: cache.kv_heads,
        head_dim: cache.head_dim,
        license: folder.license(),
    };
    Ok(Loaded { instances, prompt: Arc::new(prompt), info: Arc::new(info) })
}

/// The prompt alone, without verifying weights or loading ONNX Runtime: for tools that only count tokens.
pub fn load_tokenizer_only(path: &Path, policy: &Policy) -> Result<Prompt, ModelError> {
    Prompt::build(&Folder::tokenizer_of(path)?, policy)
}

fn choose(asked: GraphChoice, folder: &Folder, fallback: Fallback) -> Result<(GraphChoice, Graph), ModelError> {
    if matches!(asked, GraphChoice::Auto | GraphChoice::Classify) {
        if let Some(graph) = folder.graph("classify", fallback)? {
            return Ok((GraphChoice::Classify, graph));
        }
        if asked == GraphChoice::Classify {
            return Err(
                folder.fault("there is no classify graph: make the folder with moderato's model/ package".to_owned())
            );
        }
    }
    let graph = folder.graph("full", fallback)?.ok_or_else(|| {
        folder.fault("there is no ONNX graph: expected classify.onnx and full.onnx, or model.onnx".to_owned())
    })?;
    Ok((if asked == GraphChoice::Auto { GraphChoice::FullSharedPrompt } else { asked }, graph))
}

/// Builds an instance around one prompt.
struct Builder<'a> {
    runtime: &'a Runtime,
    settings: &'a ModelSettings,
    prompt: &'a Prompt,
}

impl Builder<'_> {
    /// The classify graph; the full one computes the prompt's cache and is closed again, weights and all.
    fn cascade(&self, graph: &Graph, folder: &Folder, fallback: Fallback) -> Result<Vec<Instance>, ModelError> {
        let full = folder.graph("full", fallback)?.ok_or_else(|| {
            folder.fault("there is no full graph, which computes the prompt's cache: make the folder again".to_owned())
        })?;
        let cache = graph.contract.cache();
        let of_full = full.contract.cache();
        if (cache.layers, cache.kv_heads, cache.head_dim) != (of_full.layers, of_full.kv_heads, of_full.head_dim) {
            return Err(
                folder.fault("the classify and full graphs are of different models: make the folder again".to_owned())
            );
        }
        let inputs = full_inputs(&full)?;
        let (instances, threads) = self.share_of_cores();
        let mut session = self.open(&full, instances * threads)?;
        let prefix = inputs.prompt_cache(&mut session, cache, self.prompt.prefix_ids())?.into_tensors()?;
        drop(session);
        let session = SharedSession::new(self.open(graph, threads)?);
        let engine = |_| CascadeEngine::new(session.clone(), &prefix, self.prompt.label_ids());
        (0..instances).map(|index| engine(index).map(Instance::cascade)).collect()
    }

    /// A run of this convention lends its inputs, so each instance needs a session of its own: one unless told otherwise.
    fn full(&self, graph: &Graph, shared: bool) -> Result<Vec<Instance>, ModelError> {
        let instances = self.settings.instances.unwrap_or(1);
        let threads = self.settings.threads.unwrap_or_else(|| cores().div_ceil(instances));
        (0..instances).map(|_| self.full_instance(graph, shared, threads)).collect()
    }

    fn full_instance(&self, graph: &Graph, shared: bool, threads: usize) -> Result<Instance, ModelError> {
        let inputs = full_inputs(graph)?;
        let cache = inputs.cache;
        let mut session = self.open(graph, threads)?;
        let (prefix, before) = if shared {
            (inputs.prompt_cache(&mut session, cache, self.prompt.prefix_ids())?, Vec::new())
        } else {
            (PrefixCache::empty(cache), self.prompt.prefix_ids().to_vec())
        };
        let one_row = matches!(graph.contract, Contract::Full { one_row_on_a_past: true, .. });
        let labels = self.prompt.label_ids().to_vec();
        Ok(Instance::full(FullEngine { session, inputs, prefix, before, labels, one_row }))
    }

    /// Instances, and threads for each: one instance a core on a CPU, since runs side by side waste less than threads
    /// that wait for each other; one on a GPU, which runs one thing at a time.
    fn share_of_cores(&self) -> (usize, usize) {
        match (self.settings.device, self.settings.instances, self.settings.threads) {
            (_, Some(instances), threads) => (instances, threads.unwrap_or_else(|| (cores() / instances).max(1))),
            (Device::Cpu, None, threads) => ((cores() / threads.unwrap_or(1)).max(1), threads.unwrap_or(1)),
            (_, None, threads) => (1, threads.unwrap_or(1)),
        }
    }

    fn open(&self, graph: &Graph, threads: usize) -> Result<ort::session::Session, ModelError> {
        if graph.needs_our_operators() && self.settings.device != Device::Cpu {
            return Err(ModelError::Device(format!(
                "{} is made for a CPU and device {} was asked for: export with --precision fp16 or int8-plain, or set \
                 model.device: cpu",
                graph.path.display(),
                self.settings.device.name()
            )));
        }
        self.runtime.open(&graph.path, self.settings.device, threads)
    }
}

/// Cores that this process may use, as far as the operating system tells; a control group's quota included.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn full_inputs(graph: &Graph) -> Result<FullInputs, ModelError> {
    FullInputs::of_contract(&graph.contract).ok_or_else(|| {
        ModelError::Contract(format!("{} is a classify graph where a full one belongs", graph.path.display()))
    })
}

/// The few facts of `config.json` that the graph may leave open.
#[derive(Debug, Default, Deserialize)]
struct ModelConfig {
    hidden_size: Option<usize>,
    num_attention_heads: Option<usize>,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
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

    fn fallback(&self) -> Fallback {
        let head_dim = || Some(self.hidden_size? / self.num_attention_heads.filter(|heads| *heads > 0)?);
        Fallback {
            kv_heads: self.num_key_value_heads.or(self.num_attention_heads),
            head_dim: self.head_dim.or_else(head_dim),
        }
    }
}
