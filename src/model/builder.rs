//! From a verified folder to instances that are warm: which graph, how many at once, with which threads.

use std::{cell::Cell, collections::BTreeMap, thread};

use super::{
    Determinism, Device, GraphChoice, ModelConfig, ModelError, ModelSettings, Prompt,
    buckets::Buckets,
    cascade::{CascadeEngine, spread},
    contract::{CacheShape, Contract, Fallback},
    full::{FullEngine, FullInputs},
    instance::Instance,
    manifest::{Folder, Graph},
    prefix::PrefixCache,
    provider,
    recheck::Recheck,
    session::{Opening, Runtime},
    shapes::{Bounds, Shapes},
    shared::{Sessions, SharedSession},
};
use ort::session::Session;

/// The precision that others are measured by.
pub(super) const EXACT: &str = "fp32";

/// A graph, and instances of it that have run.
pub(super) struct Ready {
    pub graph: Graph,
    /// What the scores are computed in.
    pub precision: String,
    pub instances: Vec<Instance>,
    /// Nodes that each execution provider got.
    pub nodes: BTreeMap<String, usize>,
    /// Nodes of work that the CPU got though another device was asked for.
    pub fallback_nodes: usize,
    /// Threads of one run, where a CPU computes.
    pub threads: Option<usize>,
}

/// The folder's own graph for what was asked.
pub(super) fn choose(
    asked: GraphChoice,
    folder: &Folder,
    fallback: Fallback,
) -> Result<(GraphChoice, Graph), ModelError> {
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
pub(super) struct Builder<'a> {
    pub runtime: &'a Runtime,
    pub settings: &'a ModelSettings,
    pub prompt: &'a Prompt,
    pub folder: &'a Folder,
    pub config: &'a ModelConfig,
    pub model_digest: &'a str,
    /// What is open: what compares with a graph, falls back on it or has another prompt opens it once.
    pub sessions: &'a Sessions,
    /// Counts the tokens of the prompt that are run.
    pub prompt_tokens_run: &'a Cell<usize>,
}

impl Builder<'_> {
    /// Loads the folder's graph of one precision, or its own, and runs the largest shapes once.
    pub(super) fn ready(&self, precision: Option<&str>) -> Result<Ready, ModelError> {
        let (choice, own) = choose(self.settings.graph, self.folder, self.config.fallback())?;
        let (graph, exact) = match precision {
            Some(name) if name != own.precision => (self.further(name, &own)?, Some(own)),
            _ => (own, None),
        };
        check_operators(&graph, &self.settings.device)?;
        let exact = exact.filter(|exact| self.rechecks(&graph, exact));
        let mut instances = match choice {
            GraphChoice::Classify | GraphChoice::Auto => self.cascade(&graph, exact.as_ref())?,
            GraphChoice::FullSharedPrompt => self.full(&graph, true)?,
            GraphChoice::FullWholePrompt => self.full(&graph, false)?,
        };
        let assignment = instances.first().map(Instance::assignment).transpose()?.unwrap_or_default();
        provider::hold(&self.settings.device, self.settings.strict, &assignment)?;
        if self.is_strict() {
            provider::hold_alone(&self.settings.device, &assignment)?;
        }
        self.warm_up(&mut instances)?;
        let precision = match exact {
            Some(exact) => {
                format!("{} rechecked in {} within {}", graph.precision, exact.precision, self.settings.recheck_margin)
            }
            None => graph.precision.clone(),
        };
        let precision = provider::precision(precision, &self.settings.device);
        let fallback_nodes = assignment.fallback_nodes(&self.settings.device);
        let threads = match choice {
            GraphChoice::Classify | GraphChoice::Auto => share_of_cores(self.settings).1,
            GraphChoice::FullSharedPrompt | GraphChoice::FullWholePrompt => threads_of_full(self.settings),
        };
        let threads = self.settings.device.is_cpu().then_some(threads);
        Ok(Ready { graph, precision, instances, nodes: assignment.nodes(), fallback_nodes, threads })
    }

    /// Whether close rows of one graph are run again by the other.
    fn rechecks(&self, graph: &Graph, exact: &Graph) -> bool {
        let margin = self.settings.recheck_margin;
        margin > 0.0 && self.settings.device.is_cpu() && graph.precision == "int8" && exact.precision == EXACT
    }

    /// All at once, as they will run, so that what does not fit into memory fails before the first post.
    fn warm_up(&self, instances: &mut [Instance]) -> Result<(), ModelError> {
        let longest_row = self.longest_row();
        let (id, limits) = (self.prompt.tail_ids()[0], self.settings.batch);
        thread::scope(|scope| {
            let warm = |instance| scope.spawn(move || Instance::warm_up(instance, id, limits, longest_row));
            let threads: Vec<_> = instances.iter_mut().map(warm).collect();
            let panicked = |_| Err(ModelError::run("the warm-up panicked"));
            threads.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(panicked))
        })
    }

    fn is_strict(&self) -> bool {
        self.settings.determinism == Determinism::Strict
    }

    fn longest_row(&self) -> usize {
        let around = self.prompt.prefix_ids().len();
        self.config.max_positions.map_or(usize::MAX, |most| most - around).min(self.bounds().row)
    }

    /// The `classify` graph of a further precision.
    fn further(&self, name: &str, own: &Graph) -> Result<Graph, ModelError> {
        let graph = self.folder.graph(&format!("classify.{name}"), self.config.fallback())?;
        graph.ok_or_else(|| {
            let further = self.folder.further_precisions("classify");
            let has = std::iter::once(own.precision.clone()).chain(further).collect::<Vec<_>>().join(", ");
            self.folder.fault(format!(
                "model.precision is {name} and the folder has {has}: choose one of these, or export with --precision \
                 {name} (fp32,int8 puts both into one folder)"
            ))
        })
    }

    /// The classify graph; the full one computes the prompt's cache and is closed again, weights and all.
    fn cascade(&self, graph: &Graph, exact: Option<&Graph>) -> Result<Vec<Instance>, ModelError> {
        let cache = graph.contract.cache();
        let full = full_beside(graph, self.folder, self.config.fallback())?;
        let inputs = full_inputs(&full)?;
        let (instances, threads) = share_of_cores(self.settings);
        // One way to the same numbers, however many instances there will be.
        let prompt_threads = if self.is_strict() { 1 } else { instances * threads };
        let mut session = self.open(&full, prompt_threads, true)?;
        let prefix = self.run_prompt(&inputs, &mut session, cache)?.into_tensors()?;
        drop(session);
        let session = self.shared(graph, threads)?;
        let exact = exact.map(|exact| self.shared(exact, threads)).transpose()?;
        let spread = spread(self.config.vocab_size);
        let engine =
            |session: &SharedSession| CascadeEngine::new(session.clone(), &prefix, self.prompt.label_ids(), spread);
        let recheck = |session| engine(session).map(|engine| Recheck::new(engine, self.settings.recheck_margin));
        let buckets = self.is_strict().then(|| Buckets::ladder(self.settings.device.is_cpu(), self.longest_row()));
        let instance = |_| Ok(Instance::cascade(engine(&session)?, exact.as_ref().map(recheck).transpose()?, buckets));
        (0..instances).map(instance).collect()
    }

    fn run_prompt(
        &self,
        inputs: &FullInputs,
        session: &mut Session,
        cache: CacheShape,
    ) -> Result<PrefixCache, ModelError> {
        let prompt = self.prompt.prefix_ids();
        self.prompt_tokens_run.set(self.prompt_tokens_run.get() + prompt.len());
        inputs.prompt_cache(session, cache, prompt)
    }

    /// A graph's session, opened once: where a device compiles for shapes, for those of this prompt alone.
    fn shared(&self, graph: &Graph, threads: usize) -> Result<SharedSession, ModelError> {
        let shapes = match self.settings.device {
            Device::Tensorrt(_) | Device::TensorrtRtx(_) => Shapes::of_posts(&graph.contract, self.bounds()).max,
            Device::Cpu | Device::Openvino(_) | Device::Cuda(_) => String::new(),
        };
        self.sessions.opened(&graph.path, shapes, || self.open(graph, threads, false))
    }

    /// A run of this convention lends its inputs, so each instance needs a session of its own: one unless told otherwise.
    fn full(&self, graph: &Graph, shared: bool) -> Result<Vec<Instance>, ModelError> {
        let instances = self.settings.instances.unwrap_or(1);
        let threads = threads_of_full(self.settings);
        (0..instances).map(|_| self.full_instance(graph, shared, threads)).collect()
    }

    fn full_instance(&self, graph: &Graph, shared: bool, threads: usize) -> Result<Instance, ModelError> {
        let inputs = full_inputs(graph)?;
        let cache = inputs.cache;
        let mut session = self.open(graph, threads, false)?;
        let (prefix, before) = if shared {
            (self.run_prompt(&inputs, &mut session, cache)?, Vec::new())
        } else {
            (PrefixCache::empty(cache), self.prompt.prefix_ids().to_vec())
        };
        let one_row = matches!(graph.contract, Contract::Full { one_row_on_a_past: true, .. });
        let labels = self.prompt.label_ids().to_vec();
        let engine = FullEngine { session, inputs, prefix, before, labels, one_row };
        Ok(Instance::full(engine, self.is_strict()))
    }

    /// `once`: to run the prompt and nothing else.
    fn open(&self, graph: &Graph, threads: usize, once: bool) -> Result<Session, ModelError> {
        let shapes = if once {
            Shapes::of_prompt(&graph.contract, self.prompt.prefix_ids().len())
        } else {
            Shapes::of_posts(&graph.contract, self.bounds())
        };
        self.runtime.open(&Opening {
            graph: &graph.path,
            device: &self.settings.device,
            threads,
            shapes: &shapes,
            model_digest: self.model_digest,
            onnxruntime: &self.runtime.version,
            once,
            deterministic: self.is_strict(),
        })
    }

    fn bounds(&self) -> Bounds {
        let batch = self.settings.batch;
        Bounds {
            prompt: self.prompt.prefix_ids().len(),
            labels: self.prompt.label_ids().len(),
            rows: batch.max_posts,
            row: (self.settings.max_input_tokens + self.prompt.tail_ids().len()).min(batch.max_tokens),
            tokens: batch.max_tokens,
        }
    }
}

/// Threads of one run of a graph in Hugging Face's convention.
fn threads_of_full(settings: &ModelSettings) -> usize {
    settings.threads.unwrap_or_else(|| cores().div_ceil(settings.instances.unwrap_or(1)))
}

/// Instances, and threads for each: one instance a core on a CPU, since runs side by side waste less than threads that
/// wait for each other; one on a GPU, which runs one thing at a time.
pub(super) fn share_of_cores(settings: &ModelSettings) -> (usize, usize) {
    match (settings.device.is_cpu(), settings.instances, settings.threads) {
        (_, Some(instances), threads) => (instances, threads.unwrap_or_else(|| (cores() / instances).max(1))),
        (true, None, threads) => ((cores() / threads.unwrap_or(1)).max(1), threads.unwrap_or(1)),
        (false, None, threads) => (1, threads.unwrap_or(1)),
    }
}

/// The graph that computes the prompt's cache for another one.
pub(super) fn full_beside(graph: &Graph, folder: &Folder, fallback: Fallback) -> Result<Graph, ModelError> {
    let full = folder.graph("full", fallback)?.ok_or_else(|| {
        folder.fault("there is no full graph, which computes the prompt's cache: make the folder again".to_owned())
    })?;
    let (cache, of_full) = (graph.contract.cache(), full.contract.cache());
    if (cache.layers, cache.kv_heads, cache.head_dim) == (of_full.layers, of_full.kv_heads, of_full.head_dim) {
        return Ok(full);
    }
    let other = graph.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Err(folder.fault(format!("{other} and the full graph are of different models: make the folder again")))
}

/// Our own operators run on the CPU alone.
pub(super) fn check_operators(graph: &Graph, device: &Device) -> Result<(), ModelError> {
    if !graph.needs_our_operators || *device == Device::Cpu {
        return Ok(());
    }
    Err(ModelError::Device(format!(
        "{} is made for a CPU and device {} was asked for: export with --precision fp16 or int8-plain, or set \
         model.device: cpu",
        graph.path.display(),
        device.name()
    )))
}

/// Cores that this process may use, as far as the operating system tells; a control group's quota included.
pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

pub(super) fn full_inputs(graph: &Graph) -> Result<FullInputs, ModelError> {
    FullInputs::of_contract(&graph.contract).ok_or_else(|| {
        ModelError::Contract(format!("{} is a classify graph where a full one belongs", graph.path.display()))
    })
}
