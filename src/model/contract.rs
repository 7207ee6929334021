//! Which convention a graph follows, told by the names of its inputs and outputs.
//!
//! Knows moderato's own (`moderato/cascade/1`, `moderato/draft/1`) and Hugging Face's (`huggingface/past-key-values/1`, which
//! Optimum and onnxruntime-genai write). Others that are known are refused by name, the rest with what was found.

use super::{
    error::ModelError,
    scan::{FLOAT16, FLOAT32, Scan},
};

/// The shape of one layer's key or value cache, and how many layers there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CacheShape {
    pub layers: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub half: bool,
}

/// A graph that moderato can run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Contract {
    /// Scores label rows on a prompt cache of batch 1.
    Cascade { cache: CacheShape },
    /// Writes: one token more for each row, whose cache it keeps in place. With `shared_prompt` the prompt's cache is given
    /// once for all rows, and keys are transposed; otherwise it is the beginning of every row's.
    Draft { cache: CacheShape, shared_prompt: bool },
    /// Gives all logits and the grown cache.
    Full { cache: CacheShape, position_ids: bool, one_row_on_a_past: bool },
}

/// Sizes that the graph leaves open, from `config.json`.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Fallback {
    pub kv_heads: Option<usize>,
    pub head_dim: Option<usize>,
}

impl Contract {
    /// Tells the convention of the graph in `file`.
    pub(super) fn detect(file: &str, scan: &Scan, fallback: Fallback) -> Result<Self, ModelError> {
        refuse_the_known_others(file, scan)?;
        let has = |name: &str| scan.input(name).is_some();
        if !has("input_ids") {
            return Err(unknown(file, scan, "there is no input_ids"));
        }
        if !has("past_key_values.0.key") {
            return Err(unknown(
                file,
                scan,
                "there is no past_key_values.0.key: export with a key-value cache (Optimum: --task text-generation-with-past)",
            ));
        }
        let cache = cache_shape(file, scan, fallback)?;
        if has("logit_positions") && has("label_ids") {
            let outputs = scan.has_output("logits") && scan.has_output("log_normalizer");
            return if outputs {
                Ok(Self::Cascade { cache })
            } else {
                Err(unknown(file, scan, "an output is missing"))
            };
        }
        if has("lengths") {
            let outputs = ["next_ids", "next_logits", "present.0.key", "present.0.value"];
            return if outputs.iter().all(|name| scan.has_output(name)) {
                Ok(Self::Draft { cache, shared_prompt: has("prompt_key_values.0.key") })
            } else {
                Err(unknown(file, scan, "an output is missing"))
            };
        }
        if let Some(port) = scan.inputs.iter().find(|port| !is_full_input(&port.name)) {
            return Err(unknown(file, scan, &format!("the input {} has no known meaning", port.name)));
        }
        if !has("attention_mask") || !scan.has_output("logits") || !scan.has_output("present.0.key") {
            return Err(unknown(file, scan, "attention_mask, logits or present.0.key is missing"));
        }
        Ok(Self::Full {
            cache,
            position_ids: has("position_ids"),
            // ONNX Runtime's CPU kernel: "batch_size must be 1 when sequence_length > 1 and past context is given".
            one_row_on_a_past: scan.operators.contains("GroupQueryAttention"),
        })
    }

    /// The cache's shape.
    pub(super) fn cache(&self) -> CacheShape {
        match self {
            Self::Cascade { cache } | Self::Draft { cache, .. } | Self::Full { cache, .. } => *cache,
        }
    }

    /// One line for a person.
    pub(super) fn describe(&self) -> String {
        let (name, notes) = match self {
            Self::Cascade { .. } => ("moderato/cascade/1", "one prompt cache for all rows".to_owned()),
            Self::Draft { shared_prompt, .. } => {
                let prompt =
                    if *shared_prompt { "one prompt cache for all rows" } else { "the prompt's cache in every row" };
                ("moderato/draft/1", prompt.to_owned())
            }
            Self::Full { position_ids, one_row_on_a_past, .. } => {
                let positions = if *position_ids { "with position_ids" } else { "without position_ids" };
                let rows = if *one_row_on_a_past { ", GroupQueryAttention: one row at a time on a cache" } else { "" };
                ("huggingface/past-key-values/1", format!("{positions}{rows}"))
            }
        };
        let CacheShape { layers, kv_heads, head_dim, half } = self.cache();
        let element = if half { "float16" } else { "float32" };
        format!("{name} ({layers} layers, {kv_heads} key-value heads of {head_dim}, {element} cache, {notes})")
    }
}

fn is_full_input(name: &str) -> bool {
    matches!(name, "input_ids" | "attention_mask" | "position_ids") || name.starts_with("past_key_values.")
}

fn refuse_the_known_others(file: &str, scan: &Scan) -> Result<(), ModelError> {
    let has = |name: &str| scan.input(name).is_some();
    let starts = |start: &str| scan.inputs.iter().any(|port| port.name.starts_with(start));
    if has("x") && has("attn_mask") && starts("k_cache") && starts("v_cache") {
        return Err(ModelError::Contract(format!(
            "{file} follows Microsoft's Llama-2-Onnx contract (x, attn_mask, k_cache, v_cache, pos), which takes embeddings \
             and is not supported: export the same weights with moderato's model/ package, Optimum or onnxruntime-genai"
        )));
    }
    if has("use_cache_branch") {
        return Err(ModelError::Contract(format!(
            "{file} is a merged decoder of Optimum (input use_cache_branch), which is not supported: \
             export again with a current Optimum, which writes one model.onnx without it"
        )));
    }
    Ok(())
}

fn unknown(file: &str, scan: &Scan, why: &str) -> ModelError {
    let names: Vec<&str> = scan.inputs.iter().map(|port| port.name.as_str()).take(12).collect();
    let more = if scan.inputs.len() > names.len() { ", ..." } else { "" };
    ModelError::Contract(format!(
        "{file} follows no known convention: {why}. Its inputs are {}{more}. Known are moderato/cascade/1, \
         moderato/draft/1 and huggingface/past-key-values/1 (input_ids, attention_mask, past_key_values.N.key and .value, optionally position_ids)",
        names.join(", ")
    ))
}

fn cache_shape(file: &str, scan: &Scan, fallback: Fallback) -> Result<CacheShape, ModelError> {
    let layers = (0..).take_while(|layer| scan.input(&past_name(*layer, Part::Key)).is_some()).count();
    let (mut kv_heads, mut head_dim) = (fallback.kv_heads, fallback.head_dim);
    let mut element = FLOAT32;
    for part in [Part::Key, Part::Value] {
        let Some(port) = scan.input(&past_name(0, part)) else {
            return Err(unknown(file, scan, "past_key_values.0.value is missing"));
        };
        let size = |axis: usize| port.shape.get(axis).copied().flatten();
        kv_heads = size(1).or(kv_heads);
        head_dim = size(3).or(head_dim);
        element = port.element;
    }
    match (kv_heads, head_dim, element) {
        (Some(kv_heads), Some(head_dim), FLOAT32 | FLOAT16) => {
            Ok(CacheShape { layers, kv_heads, head_dim, half: element == FLOAT16 })
        }
        (Some(_), Some(_), other) => Err(unknown(
            file,
            scan,
            &format!("the cache has ONNX element type {other}; float32 and float16 are supported"),
        )),
        _ => Err(unknown(
            file,
            scan,
            "the number and size of the key-value heads are open in the graph: put the model's config.json beside it",
        )),
    }
}

/// The two halves of a cache.
#[derive(Debug, Clone, Copy)]
pub(super) enum Part {
    Key,
    Value,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Value => "value",
        }
    }
}

/// The names of all cache inputs, in the order in which caches are kept: key and value, layer by layer.
pub(super) fn past_names(layers: usize) -> Vec<String> {
    (0..layers).flat_map(|layer| [past_name(layer, Part::Key), past_name(layer, Part::Value)]).collect()
}

/// The names of the inputs that hold the prompt's cache where rows have one beside it, in the same order.
pub(super) fn prompt_names(layers: usize) -> Vec<String> {
    let name = |layer: usize, part: Part| format!("prompt_key_values.{layer}.{}", part.name());
    (0..layers).flat_map(|layer| [name(layer, Part::Key), name(layer, Part::Value)]).collect()
}

/// The names of the outputs that hold the grown cache, in the same order.
pub(super) fn present_names(layers: usize) -> Vec<String> {
    let name = |layer: usize, part: Part| format!("present.{layer}.{}", part.name());
    (0..layers).flat_map(|layer| [name(layer, Part::Key), name(layer, Part::Value)]).collect()
}

fn past_name(layer: usize, part: Part) -> String {
    format!("past_key_values.{layer}.{}", part.name())
}

#[cfg(test)]
mod tests {
    use super::{super::scan::Port, *};

    fn scan(inputs: &[&str], outputs: &[&str]) -> Scan {
        let port = |name: &&str| Port {
            name: (*name).to_owned(),
            element: if name.starts_with("past") { FLOAT32 } else { 7 },
            shape: vec![None, Some(3), None, Some(64)],
        };
        Scan {
            inputs: inputs.iter().map(port).collect(),
            outputs: outputs.iter().map(port).collect(),
            ..Scan::default()
        }
    }

    const PAST: [&str; 4] =
        ["past_key_values.0.key", "past_key_values.0.value", "past_key_values.1.key", "past_key_values.1.value"];

    fn full(extra: &[&str]) -> Scan {
        scan(&[&["input_ids", "attention_mask"], &PAST[..], extra].concat(), &["logits", "present.0.key"])
    }

    fn detect(scan: &Scan) -> Result<Contract, ModelError> {
        Contract::detect("model.onnx", scan, Fallback::default())
    }

    #[test]
    fn the_cascade_is_told_by_its_label_inputs() {
        let inputs = [&["input_ids"], &PAST[..], &["logit_positions", "label_ids"]].concat();
        let found = detect(&scan(&inputs, &["logits", "log_normalizer"])).unwrap();
        let cache = CacheShape { layers: 2, kv_heads: 3, head_dim: 64, half: false };
        assert_eq!(found, Contract::Cascade { cache });
    }

    #[test]
    fn a_graph_that_writes_is_told_by_its_lengths() {
        let outputs = ["logits", "next_ids", "next_logits", "present.0.key", "present.0.value"];
        for prompt in [None, Some("prompt_key_values.0.key")] {
            let inputs: Vec<&str> = ["input_ids", "lengths"].into_iter().chain(PAST).chain(prompt).collect();
            let found = detect(&scan(&inputs, &outputs)).unwrap();
            assert!(matches!(found, Contract::Draft { shared_prompt, .. } if shared_prompt == prompt.is_some()));
            assert!(detect(&scan(&inputs, &outputs[..1])).is_err());
        }
    }

    #[test]
    fn position_ids_are_optional_in_the_hugging_face_convention() {
        assert!(matches!(detect(&full(&[])).unwrap(), Contract::Full { position_ids: false, .. }));
        assert!(matches!(detect(&full(&["position_ids"])).unwrap(), Contract::Full { position_ids: true, .. }));
    }

    #[test]
    fn group_query_attention_runs_one_row_at_a_time() {
        let mut graph = full(&[]);
        graph.operators.insert("GroupQueryAttention".to_owned());
        let found = detect(&graph).unwrap();
        assert!(matches!(found, Contract::Full { one_row_on_a_past: true, .. }));
        assert!(found.describe().contains("one row at a time"), "{}", found.describe());
    }

    #[test]
    fn open_head_sizes_come_from_the_config_or_are_an_error() {
        let mut graph = full(&[]);
        graph.inputs.iter_mut().for_each(|port| port.shape = vec![None; 4]);
        assert!(detect(&graph).unwrap_err().to_string().contains("config.json"));
        let fallback = Fallback { kv_heads: Some(8), head_dim: Some(128) };
        let found = Contract::detect("model.onnx", &graph, fallback).unwrap();
        assert_eq!((found.cache().kv_heads, found.cache().head_dim), (8, 128));
    }

    #[test]
    fn known_others_are_refused_by_name() {
        let llama2 = scan(&["x", "attn_mask", "k_cache", "v_cache", "pos"], &["logits"]);
        assert!(detect(&llama2).unwrap_err().to_string().contains("Microsoft's Llama-2-Onnx contract"));
        let merged = detect(&full(&["use_cache_branch"])).unwrap_err().to_string();
        assert!(merged.contains("merged decoder of Optimum"), "{merged}");
    }

    #[test]
    fn an_unknown_graph_is_refused_with_its_inputs() {
        let message = detect(&scan(&["pixel_values", "labels"], &["loss"])).unwrap_err().to_string();
        assert!(message.contains("pixel_values, labels"), "{message}");
        let message = detect(&full(&["beam_idx"])).unwrap_err().to_string();
        assert!(message.contains("beam_idx"), "{message}");
        let message = detect(&scan(&["input_ids", "attention_mask"], &["logits"])).unwrap_err().to_string();
        assert!(message.contains("text-generation-with-past"), "{message}");
    }
}
