//! The model folder: every file is measured and hashed before any of them is parsed.
//!
//! Promises that what is loaded is what `manifest.json` says, byte for byte, and that no graph can reach a file
//! outside the folder. A folder without a manifest is hashed all the same, so that verdicts carry its digests.
//! All problems found are reported together.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Read},
    path::{Component, Path, PathBuf},
};

use serde::{Deserialize, de::IgnoredAny};
use sha2::{Digest, Sha256};

use super::{
    contract::{Contract, Fallback},
    error::ModelError,
    scan::Scan,
};

const MANIFEST: &str = "manifest.json";
const SCHEMA: &str = "moderato/model-manifest/1";

/// A folder whose files have been verified.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    manifest: Option<Manifest>,
    /// SHA-256 by file name, in hexadecimal.
    files: BTreeMap<String, String>,
}

/// A key that is not known may be one that was altered.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    /// SHA-256 of the manifest itself, this digest's own digits as zeros; older exporters wrote none.
    digest: Option<String>,
    schema: String,
    name: String,
    license: String,
    precision: String,
    graphs: BTreeMap<String, GraphEntry>,
    files: Vec<FileEntry>,
    /// For people, as is the exporter.
    #[serde(rename = "source", default)]
    _source: IgnoredAny,
    #[serde(rename = "exporter", default)]
    _exporter: IgnoredAny,
}

#[derive(Debug, Deserialize)]
struct GraphEntry {
    file: String,
    contract: String,
    /// Of this graph; the folder's own where it is left out.
    precision: Option<String>,
}

#[derive(Debug, Deserialize)]
struct FileEntry {
    path: String,
    sha256: String,
    bytes: u64,
}

/// A graph of the folder that has been looked into and may be given to ONNX Runtime.
#[derive(Debug)]
pub(super) struct Graph {
    pub path: PathBuf,
    pub contract: Contract,
    /// `fp32`, `fp16`, `int8`, or what the exporter called it.
    pub precision: String,
    /// Whether it asks for operators of moderato's own, which run on the CPU alone.
    pub needs_our_operators: bool,
}

/// What the operators tell of the precision, for folders without a manifest.
fn precision_of(operators: &BTreeSet<String>, half: bool) -> &'static str {
    let has = |name: &str| operators.contains(name);
    match half {
        _ if has("MatMulNBits") => "nbits",
        _ if has("MatMulInteger") || has("MatMulIntegerToFloat") || has("DynamicQuantizeMatMul") => "int8",
        true => "fp16",
        false => "fp32",
    }
}

impl Folder {
    /// Verifies the folder. `require_manifest` false accepts a folder made by others.
    pub(super) fn verify(path: &Path, require_manifest: bool) -> Result<Self, ModelError> {
        let fault = |problems| ModelError::Folder { path: path.to_owned(), problems };
        if !path.is_dir() {
            return Err(fault(vec![
                "there is no such folder: make one with moderato's model/ package, or correct model.path".to_owned(),
            ]));
        }
        let manifest = read_manifest(path).map_err(|problem| fault(vec![problem]))?;
        if manifest.is_none() && require_manifest {
            return Err(fault(vec![format!(
                "{MANIFEST} is missing: make the folder with moderato's model/ package, or set \
                 model.require_manifest: false to trust these files as they are"
            )]));
        }
        let checked = match &manifest {
            Some(manifest) => check_listed(path, manifest),
            None => hash_all(path),
        };
        Ok(Self { path: path.to_owned(), files: checked.map_err(fault)?, manifest })
    }

    /// The path of a verified file, if the folder has it.
    pub(super) fn file(&self, name: &str) -> Option<PathBuf> {
        self.files.contains_key(name).then(|| self.path.join(name))
    }

    /// The text of a verified file.
    pub(super) fn read(&self, name: &str) -> Result<Option<String>, ModelError> {
        let Some(path) = self.file(name) else { return Ok(None) };
        let text = fs::read_to_string(&path).map_err(|error| self.fault(format!("{name}: {error}")))?;
        Ok(Some(text))
    }

    /// The text of a file that no folder can do without.
    pub(super) fn require(&self, name: &str) -> Result<String, ModelError> {
        self.read(name)?
            .ok_or_else(|| self.fault(format!("{name} is missing: add it to the folder (and to its manifest)")))
    }

    /// Looks into the graph called `role` (`classify`, `draft`, `full`, or `classify.` or `draft.` and a further precision) without giving it to ONNX Runtime.
    pub(super) fn graph(&self, role: &str, fallback: Fallback) -> Result<Option<Graph>, ModelError> {
        let Some(file) = self.graph_file(role)? else { return Ok(None) };
        let Some(path) = self.file(&file) else {
            return Err(self.fault(format!("{file}, the {role} graph, is missing or not listed in {MANIFEST}")));
        };
        let scan = Scan::of_file(&path)
            .map_err(|error| self.fault(format!("{file} cannot be read as an ONNX file: {error}: export it again")))?;
        let problems: Vec<String> =
            scan.external_files.iter().filter_map(|name| self.external_problem(&file, name)).collect();
        if !problems.is_empty() {
            return Err(ModelError::Folder { path: self.path.clone(), problems });
        }
        let contract = Contract::detect(&file, &scan, fallback)?;
        let told = self.manifest.as_ref().map(|manifest| {
            let own = manifest.graphs.get(role).and_then(|graph| graph.precision.clone());
            own.unwrap_or_else(|| manifest.precision.clone())
        });
        let precision = told.unwrap_or_else(|| precision_of(&scan.operators, contract.cache().half).to_owned());
        let needs_our_operators =
            ["CascadeAttention", "DraftAttention"].iter().any(|name| scan.operators.contains(*name));
        Ok(Some(Graph { path, contract, precision, needs_our_operators }))
    }

    /// The precisions that graphs of this folder for a task (`classify` or `draft`) have beside its own.
    pub(super) fn further_precisions(&self, task: &str) -> Vec<String> {
        let graphs = self.manifest.iter().flat_map(|manifest| manifest.graphs.keys());
        graphs.filter_map(|role| role.strip_prefix(task)?.strip_prefix('.').map(str::to_owned)).collect()
    }

    /// The file of a graph: as the manifest says, else by the names that exporters use.
    fn graph_file(&self, role: &str) -> Result<Option<String>, ModelError> {
        if let Some(manifest) = &self.manifest {
            return Ok(manifest.graphs.get(role).map(|graph| graph.file.clone()));
        }
        let own = format!("{role}.onnx");
        if self.files.contains_key(&own) {
            return Ok(Some(own));
        }
        if role != "full" {
            return Ok(None);
        }
        if let Some(config) = self.read("genai_config.json")? {
            return Ok(genai_graph(&config).or_else(|| Some("model.onnx".to_owned())));
        }
        let common = ["model.onnx", "decoder_with_past_model.onnx", "decoder_model_merged.onnx"];
        let mut graphs = self.files.keys().filter(|name| name.ends_with(".onnx"));
        let only = graphs.next().filter(|_| graphs.next().is_none()).cloned();
        Ok(common.iter().find(|name| self.files.contains_key(**name)).map(|name| (*name).to_owned()).or(only))
    }

    /// ONNX Runtime opens external data by itself, so what it may open is settled here.
    fn external_problem(&self, graph: &str, name: &str) -> Option<String> {
        // Exporters write "./weights.bin" now and then; that is the same plain file.
        let plain = name.strip_prefix("./").unwrap_or(name);
        if !is_plain(plain) {
            return Some(format!(
                "{graph} keeps weights in {name:?}, which is not a plain file name: external data outside the folder is refused"
            ));
        }
        (!self.files.contains_key(plain)).then(|| match self.manifest {
            Some(_) => {
                format!("{graph} keeps weights in {name}, which {MANIFEST} does not list: make the folder again")
            }
            None => format!("{graph} keeps weights in {name}, which is missing: copy it into the folder"),
        })
    }

    /// Identifies the model: the digest of every file's name and digest.
    pub(super) fn model_digest(&self) -> String {
        let mut hash = Sha256::new();
        for (name, digest) in &self.files {
            hash.update(format!("{name}\0{digest}\n"));
        }
        format!("sha256:{}", hex::encode(hash.finalize()))
    }

    pub(super) fn name(&self) -> String {
        let folder =
            || self.path.file_name().map_or_else(|| "model".into(), |name| name.to_string_lossy().into_owned());
        self.manifest.as_ref().map_or_else(folder, |manifest| manifest.name.clone())
    }

    pub(super) fn license(&self) -> Option<String> {
        self.manifest.as_ref().map(|manifest| manifest.license.clone())
    }

    /// The folder for its tokenizer alone: the small text files, hashed and unverified.
    pub(super) fn tokenizer_of(path: &Path) -> Result<Self, ModelError> {
        let names = ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"];
        let there = names.iter().filter(|name| plain_length(&path.join(name)).is_ok());
        let files = there.map(|name| ((*name).to_owned(), String::new())).collect();
        Ok(Self { path: path.to_owned(), manifest: None, files })
    }

    pub(super) fn fault(&self, problem: String) -> ModelError {
        ModelError::Folder { path: self.path.clone(), problems: vec![problem] }
    }
}

/// Where onnxruntime-genai says its graph is.
fn genai_graph(config: &str) -> Option<String> {
    let config: serde_json::Value = serde_json::from_str(config).ok()?;
    config.pointer("/model/decoder/filename")?.as_str().map(str::to_owned)
}

fn read_manifest(folder: &Path) -> Result<Option<Manifest>, String> {
    let path = folder.join(MANIFEST);
    if fs::symlink_metadata(&path).is_err() {
        return Ok(None);
    }
    plain_length(&path).map_err(|problem| format!("{MANIFEST} {problem}"))?;
    let text = fs::read_to_string(&path).map_err(|error| format!("{MANIFEST} cannot be read: {error}"))?;
    let manifest: Manifest = serde_json::from_str(&text)
        .map_err(|error| format!("{MANIFEST} is not a model manifest: {error}: make the folder again"))?;
    if let Some(digest) = &manifest.digest
        && *digest != own_digest(&text, digest)
    {
        return Err(format!("{MANIFEST} was altered: it does not have the digest it names; copy or make it again"));
    }
    if manifest.schema != SCHEMA {
        return Err(format!("{MANIFEST} has schema {:?}; this version reads {SCHEMA}", manifest.schema));
    }
    Ok(Some(manifest))
}

/// The digest of a manifest that cannot hold it beforehand: of its text with zeros in the digest's place.
fn own_digest(text: &str, digest: &str) -> String {
    hex::encode(Sha256::digest(text.replace(digest, &"0".repeat(64))))
}

/// Checks every listed file, and that every graph is listed and of a contract we know.
fn check_listed(folder: &Path, manifest: &Manifest) -> Result<BTreeMap<String, String>, Vec<String>> {
    let mut problems = Vec::new();
    let mut files = BTreeMap::new();
    for entry in &manifest.files {
        match check_file(folder, entry) {
            Ok(()) if files.contains_key(&entry.path) => problems.push(format!("{} is listed twice", entry.path)),
            Ok(()) => drop(files.insert(entry.path.clone(), entry.sha256.clone())),
            Err(problem) => problems.push(problem),
        }
    }
    for (role, graph) in &manifest.graphs {
        let expected = match role.as_str() {
            role if role == "classify" || role.starts_with("classify.") => "moderato/cascade/1",
            role if role == "draft" || role.starts_with("draft.") => "moderato/draft/1",
            _ => "huggingface/past-key-values/1",
        };
        if graph.contract != expected {
            problems.push(format!("the {role} graph has contract {:?}; this version reads {expected}", graph.contract));
        }
        if !manifest.files.iter().any(|entry| entry.path == graph.file) {
            problems.push(format!("{}, the {role} graph, is not among the listed files", graph.file));
        }
    }
    if problems.is_empty() { Ok(files) } else { Err(problems) }
}

fn check_file(folder: &Path, entry: &FileEntry) -> Result<(), String> {
    let name = &entry.path;
    if !is_plain(name) {
        return Err(format!("{name:?} is not a plain file name: a model folder is flat and holds all of its files"));
    }
    let path = folder.join(name);
    let bytes = plain_length(&path).map_err(|problem| format!("{name} {problem}"))?;
    if bytes != entry.bytes {
        return Err(format!(
            "{name} has {bytes} bytes and {MANIFEST} says {}: it was altered or only partly copied; copy or make it again",
            entry.bytes
        ));
    }
    let digest = sha256_of(&path).map_err(|error| format!("{name} cannot be read: {error}"))?;
    if !digest.eq_ignore_ascii_case(&entry.sha256) {
        return Err(format!(
            "{name} was altered: its SHA-256 is {digest} and {MANIFEST} says {}; copy or make it again",
            entry.sha256
        ));
    }
    Ok(())
}

fn hash_all(folder: &Path) -> Result<BTreeMap<String, String>, Vec<String>> {
    let (mut files, mut problems) = (BTreeMap::new(), Vec::new());
    let entries = fs::read_dir(folder).map_err(|error| vec![format!("cannot be listed: {error}")])?;
    for entry in entries.flatten() {
        // Subfolders hold what exporters leave behind; a graph cannot refer to them.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let name = entry.file_name().to_string_lossy().into_owned();
        let digest = plain_length(&entry.path())
            .and_then(|_| sha256_of(&entry.path()).map_err(|error| format!("cannot be read: {error}")));
        match digest {
            Ok(digest) => drop(files.insert(name, digest)),
            Err(problem) => problems.push(format!("{name} {problem}")),
        }
    }
    if problems.is_empty() { Ok(files) } else { Err(problems) }
}

/// The size of a regular file. Links are refused: what they lead to can change after it was hashed.
fn plain_length(path: &Path) -> Result<u64, String> {
    let found = fs::symlink_metadata(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => "is missing: copy or make it again".to_owned(),
        _ => format!("cannot be read: {error}"),
    })?;
    if found.is_symlink() {
        return Err("is a symbolic link, which is refused: put the file itself into the folder".to_owned());
    }
    if !found.is_file() {
        return Err("is not a file".to_owned());
    }
    Ok(found.len())
}

/// One name, no folder, no `..`, nothing absolute, on any system.
fn is_plain(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    let single = matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == name);
    single && !name.contains(['/', '\\', ':', '\0'])
}

fn sha256_of(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex::encode(hash.finalize())),
            read => hash.update(&buffer[..read]),
        }
    }
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
