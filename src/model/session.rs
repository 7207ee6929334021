//! ONNX Runtime: its library, its one environment, and sessions on the device that was asked for.
//!
//! Promises that a GPU which was asked for is used or the worker does not start, and that nothing is downloaded
//! or reported to anyone. Everything about models is above this file.

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use super::{assignment, error::ModelError, provider, shapes::Shapes};
use crate::config::Device;
use ort::{
    environment::Environment,
    logging::LogLevel,
    session::{
        Session,
        builder::{AutoDevicePolicy, GraphOptimizationLevel, SessionBuilder},
    },
};

/// The loaded library.
#[derive(Clone)]
pub(super) struct Runtime {
    environment: Environment,
    /// Its version, such as `1.31.1`.
    pub version: String,
}

/// Which graph to open, and for what.
pub(super) struct Opening<'a> {
    /// The file; verified.
    pub graph: &'a Path,
    /// Execution provider.
    pub device: &'a Device,
    /// Threads of one run on a CPU.
    pub threads: usize,
    /// What its inputs will be, for providers that compile ahead.
    pub shapes: &'a Shapes,
    /// Identifies the model, for the names of cache folders.
    pub model_digest: &'a str,
    /// The library's version, for the same.
    pub onnxruntime: &'a str,
    /// Run once, for the prompt's cache, and closed again.
    pub once: bool,
    /// Whether kernels are to give the same for the same, each time.
    pub deterministic: bool,
}

/// One environment a process, for ever: ONNX Runtime cannot be unloaded and loaded again.
static LOADED: Mutex<Option<(PathBuf, Runtime)>> = Mutex::new(None);

const MEND: &str = "install it with `pip install onnxruntime==1.31.1` (GPU: onnxruntime-gpu==1.31.1) and set \
                    model.onnxruntime, or ORT_DYLIB_PATH, to onnxruntime/capi/libonnxruntime.so.1.31.1 of that package";

impl Runtime {
    /// Loads the library at `path`, else at `ORT_DYLIB_PATH`.
    pub(super) fn load(path: Option<&Path>) -> Result<Self, ModelError> {
        let path = library_path(path)?;
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((before, runtime)) = loaded.as_ref() {
            return if *before == path {
                Ok(runtime.clone())
            } else {
                let (now, before) = (path.display(), before.display());
                Err(ModelError::Library(format!(
                    "ONNX Runtime {before} is loaded already; {now} cannot be loaded beside it"
                )))
            };
        }
        let environment = ort::init_from(&path)
            .map_err(|error| ModelError::Library(format!("ONNX Runtime cannot be used: {error}: {MEND}")))?
            .with_name("moderato")
            .with_telemetry(false)
            .build()
            .map_err(|error| ModelError::Library(format!("ONNX Runtime {} cannot start: {error}", path.display())))?;
        // Told otherwise, it formats its verbose messages and has them thrown away by the subscriber.
        environment.set_log_level(LogLevel::Warning);
        let runtime = Self { environment, version: version_of(ort::info(), &path) };
        *loaded = Some((path, runtime.clone()));
        Ok(runtime)
    }

    /// Opens a verified graph on the device that was asked for, or says why it cannot.
    pub(super) fn open(&self, opening: &Opening<'_>) -> Result<Session, ModelError> {
        let refused = |error: &ort::Error| {
            let (graph, device) = (opening.graph.display(), opening.device.name());
            ModelError::Session(format!("ONNX Runtime refuses {graph} on {device}: {error}"))
        };
        let builder = self.options(opening.threads).map_err(|error| refused(&error))?;
        let builder = builder.with_deterministic_compute(opening.deterministic);
        let builder = builder.map_err(|error| refused(&error.into()))?;
        let mut builder = provider::add(builder, &self.environment, opening)?;
        builder.commit_from_file(opening.graph).map_err(|error| refused(&error))
    }

    pub(super) fn options(&self, intra_threads: usize) -> ort::Result<SessionBuilder> {
        let builder = Session::builder(&self.environment)?
            // The library's own default looks for an NPU.
            .with_auto_device(AutoDevicePolicy::PreferCPU)?
            .with_optimization_level(GraphOptimizationLevel::All)?
            .with_intra_threads(intra_threads)?
            .with_inter_threads(1)?
            .with_parallel_execution(false)?
            // Spinning threads take the core from the other instances while they wait.
            .with_intra_op_spinning(false)?
            .with_inter_op_spinning(false)?
            // Patterns are kept per shape, and hardly two batches have the same.
            .with_memory_pattern(false)?
            .with_config_entry(assignment::RECORD, "1")?;
        Ok(builder)
    }
}

fn library_path(configured: Option<&Path>) -> Result<PathBuf, ModelError> {
    let from_environment = || std::env::var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty()).map(PathBuf::from);
    let Some(path) = configured.map(Path::to_owned).or_else(from_environment) else {
        return Err(ModelError::Library(format!("ONNX Runtime's library is not configured: {MEND}")));
    };
    // Also makes the path absolute: the loader would search relative ones beside the program.
    path.canonicalize().map_err(|error| {
        ModelError::Library(format!("ONNX Runtime's library {} cannot be found: {error}: {MEND}", path.display()))
    })
}

/// The version as its build says, else as the file's name says.
fn version_of(build: &str, path: &Path) -> String {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let in_build = build.split("git-branch=rel-").nth(1).and_then(|rest| rest.split([',', ' ']).next());
    let in_name = name.split_once(".so.").map(|(_, version)| version);
    in_build.or(in_name).unwrap_or("unknown").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_library_is_named_with_the_way_to_get_it() {
        let error = library_path(Some(Path::new("/nowhere/libonnxruntime.so"))).unwrap_err();
        let message = error.to_string();
        assert_eq!(error.code(), "onnxruntime_missing");
        assert!(message.contains("/nowhere/libonnxruntime.so"), "{message}");
        assert!(message.contains("pip install onnxruntime==1.31.1"), "{message}");
    }

    #[test]
    fn a_file_that_is_no_library_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = Runtime::load(Some(file.path())).err().unwrap();
        assert_eq!(error.code(), "onnxruntime_missing");
    }

    #[test]
    fn the_version_comes_from_the_build_or_the_file_name() {
        let path = Path::new("/lib/libonnxruntime.so.1.31.1");
        assert_eq!(version_of("ORT Build Info: git-branch=rel-1.31.0, git-commit-id=0", path), "1.31.0");
        assert_eq!(version_of("ORT Build Info: git-branch=HEAD", path), "1.31.1");
        assert_eq!(version_of("", Path::new("onnxruntime.dll")), "unknown");
    }
}
