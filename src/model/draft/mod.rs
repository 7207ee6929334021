//! Drafting: a model writes text, a token at a time, greedily, for several rows at once.
//!
//! Rows join and leave between steps, so that nobody waits for the longest of a batch. What is written for a row does
//! not depend on the rows beside it. The prompt is run once and shared by all rows.

mod buffers;
mod drafter;
mod growing;
mod kept;

use std::{collections::BTreeMap, sync::Arc};

use sha2::{Digest, Sha256};

pub use self::drafter::{Drafted, Drafter, Ended};
use self::{
    drafter::Engine,
    growing::GrowingEngine,
    kept::{KeptEngine, KeptPrompt},
};
use super::{
    ModelConfig, ModelError, ModelInfo, ModelSettings, Prompt,
    assignment::Assignment,
    builder::{check_operators, cores, full_beside, full_inputs, share_of_cores},
    contract::{Contract, Fallback},
    error::run_failed,
    hardware, license,
    manifest::{Folder, Graph},
    provider,
    session::{Opening, Runtime},
    shapes::{Bounds, Shapes},
    shared::SharedSession,
};
use crate::config::{GraphChoice, Precision};

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
    license::check(folder.license().as_deref(), settings.license_accepted)?;
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
    let Ready { graph, drafters, nodes, fallback_nodes } = loader.ready()?;
    let precision = provider::precision(graph.precision, &settings.device);
    let info = ModelInfo {
        name: folder.name(),
        tokenizer_digest: prompt.tokenizer_digest().to_owned(),
        prompt_digest: prompt.digest().to_owned(),
        policy_digest: format!("sha256:{}", hex::encode(Sha256::digest(prompt_text))),
        nodes,
        fallback_nodes,
        contract: graph.contract.describe(),
        conditions: hardware::conditions(settings, &runtime.version, &precision, settings.threads),
        precision,
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

/// The precisions in which a folder drafts, its own first; the folder is verified for it.
pub fn draft_precisions(settings: &ModelSettings) -> Result<Vec<String>, ModelError> {
    let folder = Folder::verify(&settings.path, settings.require_manifest)?;
    let fallback = ModelConfig::read(&folder)?.fallback();
    let own = own_graph(settings, &folder, fallback)?;
    Ok(std::iter::once(own.precision).chain(folder.further_precisions("draft")).collect())
}

/// The graph made for drafting, on a CPU and where the folder has one; else the one in Hugging Face's convention.
fn own_graph(settings: &ModelSettings, folder: &Folder, fallback: Fallback) -> Result<Graph, ModelError> {
    let wants_full = matches!(settings.graph, GraphChoice::FullSharedPrompt | GraphChoice::FullWholePrompt);
    if !wants_full
        && settings.device.is_cpu()
        && let Some(graph) = folder.graph("draft", fallback)?
    {
        return Ok(graph);
    }
    folder.graph("full", fallback)?.ok_or_else(|| {
        folder.fault("there is no ONNX graph: expected draft.onnx and full.onnx, or model.onnx".to_owned())
    })
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
    fallback_nodes: usize,
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
        let graph = self.choose()?;
        check_operators(&graph, &self.settings.device)?;
        let (engines, assignment) = match graph.contract {
            Contract::Draft { shared_prompt, .. } => self.kept(&graph, shared_prompt)?,
            _ => self.growing(&graph)?,
        };
        provider::hold(&self.settings.device, self.settings.strict, &assignment)?;
        let drafter = |engine| Drafter::new(engine, self.prompt.clone(), self.limits);
        let mut drafters: Vec<Drafter> = engines.into_iter().map(drafter).collect();
        drafters.iter_mut().try_for_each(Drafter::warm_up)?;
        let fallback_nodes = assignment.fallback_nodes(&self.settings.device);
        Ok(Ready { graph, drafters, nodes: assignment.nodes(), fallback_nodes })
    }

    /// The graph of the precision that was asked for.
    fn choose(&self) -> Result<Graph, ModelError> {
        let (folder, fallback) = (self.folder, self.config.fallback());
        let own = own_graph(self.settings, folder, fallback)?;
        let further = folder.further_precisions("draft");
        let asked = match self.settings.precision {
            Precision::Exported => return Ok(own),
            // The fastest on a CPU.
            Precision::Auto => Precision::Int8.name(),
            named => named.name(),
        };
        if asked == own.precision
            || (self.settings.precision == Precision::Auto && !further.iter().any(|name| name == asked))
        {
            return Ok(own);
        }
        folder.graph(&format!("draft.{asked}"), fallback)?.ok_or_else(|| {
            let has = std::iter::once(own.precision).chain(further).collect::<Vec<_>>().join(", ");
            folder.fault(format!(
                "model.precision is {asked} and the folder drafts in {has}: choose one of these, or export with --task draft \
                 --precision {asked}"
            ))
        })
    }

    fn kept(&self, graph: &Graph, shared_prompt: bool) -> Result<(Vec<Engine>, Assignment), ModelError> {
        let cache = graph.contract.cache();
        let full = full_beside(graph, self.folder, self.config.fallback())?;
        let (instances, threads) = share_of_cores(self.settings);
        let mut session = self.open(&full, instances * threads, true)?;
        let prompt = full_inputs(&full)?.prompt_cache(&mut session, cache, self.prompt.prefix_ids())?;
        drop(session);
        let prompt = KeptPrompt::new(prompt, cache, shared_prompt)?;
        let session = SharedSession::new(self.open(graph, threads, false)?);
        let longest = self.longest_row() + self.limits.max_new_tokens;
        let engine = |_| KeptEngine::new(session.clone(), &prompt, self.limits, longest);
        let engines: Result<_, ModelError> =
            (0..instances).map(|index| engine(index).map(|engine| Engine::Kept(Box::new(engine)))).collect();
        Ok((engines?, Assignment::of(session.session()).map_err(run_failed)?))
    }

    /// A run of this convention lends its inputs, so each drafter needs a session of its own: one unless told otherwise.
    fn growing(&self, graph: &Graph) -> Result<(Vec<Engine>, Assignment), ModelError> {
        let inputs = full_inputs(graph)?;
        let instances = self.settings.instances.unwrap_or(1);
        let threads = self.settings.threads.unwrap_or_else(|| cores().div_ceil(instances));
        let mut engines = Vec::with_capacity(instances);
        let mut assignment = Assignment::default();
        for _ in 0..instances {
            let session = self.open(graph, threads, false)?;
            assignment = Assignment::of(&session).map_err(run_failed)?;
            let engine = GrowingEngine::new(session, inputs.clone(), self.prompt.prefix_ids())?;
            engines.push(Engine::Growing(Box::new(engine)));
        }
        Ok((engines, assignment))
    }

    fn longest_row(&self) -> usize {
        self.limits.max_input_tokens + self.prompt.tail_ids().len()
    }

    /// `once`: to run the prompt and nothing else.
    fn open(&self, graph: &Graph, threads: usize, once: bool) -> Result<ort::session::Session, ModelError> {
        let (prompt, row) = (self.prompt.prefix_ids().len(), self.longest_row());
        let shapes = match once {
            true => Shapes::of_prompt(&graph.contract, prompt),
            // For a full graph, the past is the prompt and all that was written.
            false => Shapes::of_posts(
                &graph.contract,
                Bounds { prompt: prompt + row + self.limits.max_new_tokens, labels: 0, rows: 1, row, tokens: row },
            ),
        };
        self.runtime.open(&Opening {
            graph: &graph.path,
            device: &self.settings.device,
            threads,
            shapes: &shapes,
            model_digest: self.model_digest,
            onnxruntime: &self.runtime.version,
            once,
            deterministic: false,
        })
    }
}
