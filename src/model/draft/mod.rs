//! Drafting: a model writes text, a token at a time, greedily, for several rows at once.
//!
//! Rows join and leave between steps, so that nobody waits for the longest of a batch. What is written for a row does
//! not depend on the rows beside it. The prompt is run once and shared by all rows.

mod drafter;
mod growing;

use std::{collections::BTreeMap, sync::Arc};

use sha2::{Digest, Sha256};

pub use self::drafter::{Drafted, Drafter, Ended};
use self::growing::GrowingEngine;
use super::{
    ModelConfig, ModelError, ModelInfo, ModelSettings, Prompt,
    assignment::Assignment,
    builder::{cores, full_inputs},
    error::run_failed,
    manifest::{Folder, Graph},
    provider,
    session::{Opening, Runtime},
    shapes::{Bounds, Shapes},
};

/// What bounds drafting: memory for this much is taken at start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DraftLimits {
    /// Rows of one drafter at the same time.
    pub max_rows: usize,
    /// Tokens of a row, without the prompt and its tail.
    pub max_input_tokens: usize,
    /// Tokens that are written for a row.
    pub max_new_tokens: usize,
}

/// A model that is ready to write.
#[derive(Debug)]
pub struct LoadedDraft {
    /// One for each thread that runs the model.
    pub drafters: Vec<Drafter>,
    /// For those that prepare rows.
    pub prompt: Arc<Prompt>,
    /// For notes and for people. There are no labels; the policy's digest is that of the prompt's text.
    pub info: Arc<ModelInfo>,
}

/// Verifies the folder, loads the graph that drafts, and runs the prompt once.
pub fn load_draft(
    settings: &ModelSettings,
    prompt_text: &str,
    limits: &DraftLimits,
) -> Result<LoadedDraft, ModelError> {
    let folder = Folder::verify(&settings.path, settings.require_manifest)?;
    let config = ModelConfig::read(&folder)?;
    let prompt = Prompt::for_drafting(&folder, prompt_text)?.resized(settings.prompt_tokens);
    config.check_vocabulary(prompt.vocabulary())?;
    check_limits(&config, &prompt, limits)?;
    let runtime = Runtime::load(settings.onnxruntime.as_deref())?;
    let model_digest = folder.model_digest();
    let prompt = Arc::new(prompt);
    let loader = Loader {
        runtime: &runtime,
        settings,
        prompt: &prompt,
        folder: &folder,
        config: &config,
        model_digest: &model_digest,
        limits: *limits,
    };
    let Ready { graph, drafters, nodes } = loader.ready()?;
    let info = ModelInfo {
        name: folder.name(),
        tokenizer_digest: prompt.tokenizer_digest().to_owned(),
        prompt_digest: prompt.digest().to_owned(),
        policy_digest: format!("sha256:{}", hex::encode(Sha256::digest(prompt_text))),
        nodes,
        contract: graph.contract.describe(),
        precision: provider::precision(graph.precision, &settings.device),
        provider: settings.device.name(),
        onnxruntime_version: runtime.version.clone(),
        prompt_tokens: prompt.prefix_ids().len(),
        tail_tokens: prompt.tail_ids().len(),
        max_positions: config.max_positions,
        labels: Vec::new(),
        shape: config.shape(graph.contract.cache()),
        instances: drafters.len(),
        license: folder.license(),
        model_digest,
    };
    Ok(LoadedDraft { drafters, prompt, info: Arc::new(info) })
}

fn check_limits(config: &ModelConfig, prompt: &Prompt, limits: &DraftLimits) -> Result<(), ModelError> {
    if limits.max_rows == 0 || limits.max_new_tokens == 0 {
        return Err(ModelError::Prompt("a drafter needs room for one row and one token at least".to_owned()));
    }
    let around = prompt.prefix_ids().len() + prompt.tail_ids().len();
    let all = around + limits.max_input_tokens + limits.max_new_tokens;
    match config.max_positions {
        Some(most) if all > most => Err(ModelError::Prompt(format!(
            "the prompt takes {around} tokens, a post up to {} and a note up to {}, {all} in all, and the model knows \
             {most} positions: shorten the prompt or lower the limits",
            limits.max_input_tokens, limits.max_new_tokens
        ))),
        _ => Ok(()),
    }
}

/// A graph, and drafters of it.
struct Ready {
    graph: Graph,
    drafters: Vec<Drafter>,
    nodes: BTreeMap<String, usize>,
}

struct Loader<'a> {
    runtime: &'a Runtime,
    settings: &'a ModelSettings,
    prompt: &'a Arc<Prompt>,
    folder: &'a Folder,
    config: &'a ModelConfig,
    model_digest: &'a str,
    limits: DraftLimits,
}

impl Loader<'_> {
    fn ready(&self) -> Result<Ready, ModelError> {
        let graph = self.full_graph()?;
        let inputs = full_inputs(&graph)?;
        let instances = self.settings.instances.unwrap_or(1);
        let threads = self.settings.threads.unwrap_or_else(|| cores().div_ceil(instances));
        let mut drafters = Vec::with_capacity(instances);
        let mut nodes = BTreeMap::new();
        for _ in 0..instances {
            let session = self.open(&graph, threads)?;
            let assignment = Assignment::of(&session).map_err(run_failed)?;
            provider::hold(&self.settings.device, self.settings.strict, &assignment)?;
            nodes = assignment.nodes();
            let engine = GrowingEngine::new(session, inputs.clone(), self.prompt.prefix_ids())?;
            drafters.push(Drafter::new(engine, self.prompt.clone(), self.limits));
        }
        Ok(Ready { graph, drafters, nodes })
    }

    fn full_graph(&self) -> Result<Graph, ModelError> {
        self.folder.graph("full", self.config.fallback())?.ok_or_else(|| {
            self.folder.fault("there is no ONNX graph: expected draft.onnx and full.onnx, or model.onnx".to_owned())
        })
    }

    fn open(&self, graph: &Graph, threads: usize) -> Result<ort::session::Session, ModelError> {
        let row = self.limits.max_input_tokens + self.prompt.tail_ids().len();
        let bounds = Bounds {
            prompt: self.prompt.prefix_ids().len() + row + self.limits.max_new_tokens,
            labels: 0,
            rows: 1,
            row,
            tokens: row,
        };
        self.runtime.open(&Opening {
            graph: &graph.path,
            device: &self.settings.device,
            threads,
            shapes: &Shapes::of_posts(&graph.contract, bounds),
            model_digest: self.model_digest,
            onnxruntime: &self.runtime.version,
            once: false,
        })
    }
}
