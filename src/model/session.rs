//! ONNX Runtime: its library, its one environment, and sessions on the device that was asked for.
//!
//! Promises that a GPU which was asked for is used or the worker does not start, and that nothing is downloaded
//! or reported to anyone. Everything about models is above this file.

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use super::{error::ModelError, operators};
use crate::config::Device;
use ort::{
    environment::Environment,
    ep::{self, ExecutionProvider},
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

    /// Opens a verified graph.
    pub(super) fn open(&self, graph: &Path, device: Device, intra_threads: usize) -> Result<Session, ModelError> {
        let builder = self.options(intra_threads).map_err(|error| refused(graph, &error))?;
        let mut builder = on_device(builder, device)?;
        builder.commit_from_file(graph).map_err(|error| refused(graph, &error))
    }

    fn options(&self, intra_threads: usize) -> ort::Result<SessionBuilder> {
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
            .with_memory_pattern(false)?;
        Ok(builder)
    }
}

fn refused(graph: &Path, error: &ort::Error) -> ModelError {
    ModelError::Session(format!("ONNX Runtime refuses {}: {error}", graph.display()))
}

fn on_device(builder: SessionBuilder, device: Device) -> Result<SessionBuilder, ModelError> {
    let cuda = |device_id: i32| ep::CUDA::default().with_device_id(device_id).build().error_on_failure();
    let providers = match device {
        Device::Cpu => return with_operators(builder),
        Device::Cuda { device_id } => {
            must_be_built_in(device, "CUDA", ep::CUDA::is_available())?;
            vec![cuda(device_id)]
        }
        Device::Tensorrt { device_id } => {
            must_be_built_in(device, "TensorRT", ep::TensorRT::is_available())?;
            let tensorrt = ep::TensorRT::default().with_device_id(device_id).build().error_on_failure();
            vec![tensorrt, cuda(device_id)]
        }
    };
    builder.with_execution_providers(providers).map_err(|error| {
        ModelError::Device(format!(
            "device {} was asked for and cannot be used: {error}: check the driver (nvidia-smi), the CUDA 13 and cuDNN 9 \
             libraries{} and device_id; the CPU is never used in its place, set model.device: cpu if you mean it",
            device.name(),
            if matches!(device, Device::Tensorrt { .. }) { ", libnvinfer.so.10" } else { "" }
        ))
    })
}

/// What the int8 classify graph asks for beside ONNX Runtime's own operators.
fn with_operators(builder: SessionBuilder) -> Result<SessionBuilder, ModelError> {
    let registered = operators::domain().and_then(|domain| Ok(builder.with_operators(domain)?));
    registered.map_err(|error| ModelError::Session(format!("ONNX Runtime refuses moderato's operators: {error}")))
}

fn must_be_built_in(device: Device, name: &str, available: ort::Result<bool>) -> Result<(), ModelError> {
    if matches!(available, Ok(true)) {
        return Ok(());
    }
    Err(ModelError::Device(format!(
        "device {} was asked for, but this ONNX Runtime library is built without {name}: install the GPU package \
         (`pip install onnxruntime-gpu==1.31.1`) and point model.onnxruntime at its library; the CPU is never used in \
         its place, set model.device: cpu if you mean it",
        device.name()
    )))
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
