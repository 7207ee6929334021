//! Execution providers: each put before the CPU with its options, or refused with what is missing and how to get it.
//!
//! Promises that the device that was asked for is used or the worker does not start: a provider that cannot be had is an
//! error here, and work that ONNX Runtime left to the CPU is told or refused by [`hold`].

use std::{fs::DirBuilder, os::unix::fs::DirBuilderExt, path::Path};

use ort::{
    environment::Environment,
    ep::{self, ExecutionProvider, ExecutionProviderDispatch},
    memory::DeviceType,
    session::{Session, builder::SessionBuilder},
};
use sha2::{Digest as _, Sha256};
use tracing::warn;

use super::{
    assignment::Assignment,
    error::ModelError,
    hardware::{gpus, mapped},
    operators,
    plugin::{Plugin, preload_beside},
    session::Opening,
};
use crate::config::{
    Cuda, Device, OPENVINO_PLUGIN, Openvino, OpenvinoDevice, OpenvinoPrecision, RTX_PLUGIN, Strict, Tensorrt,
    TensorrtPrecision, TensorrtRtx,
};

pub(super) const NEVER_CPU: &str = "the CPU is never used in its place, set model.device: cpu if you mean it";

/// Puts the provider that was asked for before the CPU.
pub(super) fn add(
    builder: SessionBuilder,
    environment: &Environment,
    opening: &Opening<'_>,
) -> Result<SessionBuilder, ModelError> {
    match opening.device {
        Device::Cpu => with_operators(builder),
        Device::Openvino(options) => openvino(builder, environment, options, opening),
        Device::Cuda(options) => {
            must_be_built_in("cuda", "CUDA", ep::CUDA::is_available())?;
            built_in(builder, "cuda", [cuda(options)])
        }
        Device::Tensorrt(options) => tensorrt(builder, environment, options, opening),
        Device::TensorrtRtx(options) => tensorrt_rtx(builder, environment, options, opening),
    }
}

/// What the int8 classify graph asks for beside ONNX Runtime's own operators.
fn with_operators(builder: SessionBuilder) -> Result<SessionBuilder, ModelError> {
    let registered = operators::domain().and_then(|domain| Ok(builder.with_operators(domain)?));
    registered.map_err(|error| ModelError::Session(format!("ONNX Runtime refuses moderato's operators: {error}")))
}

fn cuda(options: &Cuda) -> ExecutionProviderDispatch {
    let provider = ep::CUDA::default().with_device_id(options.device_id);
    let provider = match options.memory_limit {
        Some(bytes) => provider.with_memory_limit(bytes),
        None => provider,
    };
    provider.build().error_on_failure()
}

fn tensorrt(
    builder: SessionBuilder,
    environment: &Environment,
    options: &Tensorrt,
    opening: &Opening<'_>,
) -> Result<SessionBuilder, ModelError> {
    must_be_built_in("tensorrt", "TensorRT", ep::TensorRT::is_available())?;
    if opening.once {
        // Building an engine takes minutes, and the prompt is run once.
        return built_in(builder, "tensorrt", [cuda(&options.cuda)]);
    }
    let bare = ep::TensorRT::default().with_device_id(options.cuda.device_id);
    let mut provider = bare
        .clone()
        .with_fp16(options.precision == TensorrtPrecision::Fp16)
        .with_bf16(options.precision == TensorrtPrecision::Bf16)
        .with_profile_min_shapes(&opening.shapes.min)
        .with_profile_opt_shapes(&opening.shapes.opt)
        .with_profile_max_shapes(&opening.shapes.max);
    if let Some(folder) = &options.cache {
        // Put before a session that is never opened: it loads TensorRT's library, whose version the name holds.
        let scratch = Session::builder(environment).map_err(|error| unusable("tensorrt", &error.to_string()))?;
        built_in(scratch, "tensorrt", [bare.build().error_on_failure()])?;
        let path = keyed(folder, opening, &[&gpus(), &mapped("libnvinfer.so"), &format!("{:?}", options.precision)])?;
        provider = provider
            .with_engine_cache(true)
            .with_engine_cache_path(&path)
            .with_timing_cache(true)
            .with_timing_cache_path(&path);
    }
    built_in(builder, "tensorrt", [provider.build().error_on_failure(), cuda(&options.cuda)])
}

fn openvino(
    builder: SessionBuilder,
    environment: &Environment,
    options: &Openvino,
    opening: &Opening<'_>,
) -> Result<SessionBuilder, ModelError> {
    let (name, kind) = match options.device_type {
        OpenvinoDevice::Cpu => ("CPU", DeviceType::CPU),
        OpenvinoDevice::Gpu => ("GPU", DeviceType::GPU),
        OpenvinoDevice::Npu => ("NPU", DeviceType::NPU),
    };
    let mut settings = serde_json::Map::new();
    if options.device_type == OpenvinoDevice::Cpu {
        settings.insert("INFERENCE_NUM_THREADS".to_owned(), opening.threads.into());
    }
    if let Some(precision) = hint(options.precision) {
        settings.insert("INFERENCE_PRECISION_HINT".to_owned(), precision.into());
    }
    if let Some(folder) = &options.cache {
        let library = options.library.display().to_string();
        let folder = keyed(folder, opening, &[name, &library, hint(options.precision).unwrap_or("auto")])?;
        settings.insert("CACHE_DIR".to_owned(), folder.into());
    }
    let settings = serde_json::json!({ name: settings }).to_string();
    let plugin = Plugin {
        device: "openvino",
        provider: "OpenVINOExecutionProvider",
        library: &options.library,
        mend: OPENVINO_PLUGIN,
        kind,
        index: 0,
    };
    // Its options of the same meaning (precision, num_of_threads) are accepted by 1.8.1 and change nothing.
    plugin.add(builder, environment, &[("load_config", &settings)])
}

fn hint(precision: OpenvinoPrecision) -> Option<&'static str> {
    match precision {
        OpenvinoPrecision::Auto => None,
        OpenvinoPrecision::F32 => Some("f32"),
        OpenvinoPrecision::Bf16 => Some("bf16"),
        OpenvinoPrecision::F16 => Some("f16"),
    }
}

fn tensorrt_rtx(
    builder: SessionBuilder,
    environment: &Environment,
    options: &TensorrtRtx,
    opening: &Opening<'_>,
) -> Result<SessionBuilder, ModelError> {
    // The package brings these beside the plugin, which looks for them elsewhere.
    preload_beside(&options.library, &["libcudart.so.", "libtensorrt_rtx.so.", "libtensorrt_onnxparser_rtx.so."]);
    let plugin = Plugin {
        device: "tensorrt_rtx",
        provider: "NvTensorRTRTXExecutionProvider",
        library: &options.library,
        mend: RTX_PLUGIN,
        kind: DeviceType::GPU,
        index: usize::try_from(options.device_id).unwrap_or_default(),
    };
    let mut settings = vec![
        ("nv_profile_min_shapes", opening.shapes.min.as_str()),
        ("nv_profile_opt_shapes", opening.shapes.opt.as_str()),
        ("nv_profile_max_shapes", opening.shapes.max.as_str()),
    ];
    let cache =
        options.cache.as_deref().map(|folder| keyed(folder, opening, &[&gpus(), &mapped("libtensorrt_rtx.so")]));
    let cache = cache.transpose()?;
    settings.extend(cache.as_deref().map(|folder| ("nv_runtime_cache_path", folder)));
    plugin.add(builder, environment, &settings)
}

fn built_in<const N: usize>(
    builder: SessionBuilder,
    device: &str,
    providers: [ExecutionProviderDispatch; N],
) -> Result<SessionBuilder, ModelError> {
    builder.with_execution_providers(providers).map_err(|error| {
        let libraries = match device {
            "tensorrt" => ", and TensorRT 10.15 or newer (`pip install tensorrt-cu13==10.16.1.11`)",
            _ => "",
        };
        unusable(
            device,
            &format!(
                "{error}: check the driver (nvidia-smi), model.device_id, the CUDA 13 and cuDNN 9 libraries \
                 (`pip install 'onnxruntime-gpu[cuda,cudnn]==1.31.1'`){libraries}, and that LD_LIBRARY_PATH \
                 names their folders"
            ),
        )
    })
}

fn must_be_built_in(device: &str, name: &str, available: ort::Result<bool>) -> Result<(), ModelError> {
    if matches!(available, Ok(true)) {
        return Ok(());
    }
    Err(unusable(
        device,
        &format!(
            "this ONNX Runtime library is built without {name}: install the GPU package \
             (`pip install 'onnxruntime-gpu[cuda,cudnn]==1.31.1'`) and point model.onnxruntime at its library"
        ),
    ))
}

fn unusable(device: &str, why: &str) -> ModelError {
    ModelError::Device(format!("device {device} was asked for and cannot be used: {why}; {NEVER_CPU}"))
}

/// Holds what the providers really got against what was asked for: a device without a single node is an error, and work
/// left to the CPU is what `strict` says.
pub(super) fn hold(device: &Device, strict: Strict, assignment: &Assignment) -> Result<(), ModelError> {
    if *device == Device::Cpu {
        return Ok(());
    }
    let (name, nodes) = (device.name(), assignment.nodes());
    if !nodes.contains_key(name) {
        return Err(unusable(name, &format!("it took no node of the graph, which ran on {nodes:?}")));
    }
    let work = assignment.work_on_cpu();
    if work.is_empty() || strict == Strict::Off {
        return Ok(());
    }
    let message = format!(
        "{name} left work of the model to the CPU: {work}. Each such node also costs copies there and back. Export the graph \
         with operators that {name} takes, or choose another model.device"
    );
    if strict == Strict::Fail {
        return Err(ModelError::Device(format!("{message}; or set model.strict: warn to start all the same")));
    }
    warn!(device = name, ?nodes, "{message}");
    Ok(())
}

/// Holds `determinism: strict` to its promise: one provider does all of the model's work, and no node makes a row's numbers
/// depend on those of its neighbours.
pub(super) fn hold_alone(device: &Device, assignment: &Assignment) -> Result<(), ModelError> {
    let name = device.name();
    let working = assignment.working();
    if let Some(other) = working.iter().find(|provider| *provider != name) {
        return Err(ModelError::Device(format!(
            "determinism is strict, and work of the model was given to {other} beside {name}: export the graph with operators \
             that {name} takes, choose another model.device, or set determinism: off"
        )));
    }
    let mixing = assignment.mixing_rows();
    if mixing.is_empty() {
        return Ok(());
    }
    Err(ModelError::Contract(format!(
        "determinism is strict, and the graph has {mixing}, which scales a row by its neighbours: export with --precision \
         fp32, fp16 or int8 of moderato's exporter, or set determinism: off"
    )))
}

/// What the scores were computed in: the weights' precision, and the device's where it is another.
pub(super) fn precision(weights: String, device: &Device) -> String {
    match computed_in(device) {
        Some(computed) => format!("{weights} computed in {computed}"),
        None => weights,
    }
}

/// The precision that a device computes in, where it is not the weights' own.
fn computed_in(device: &Device) -> Option<&'static str> {
    match device {
        Device::Openvino(Openvino { precision: OpenvinoPrecision::Auto, .. }) => Some("OpenVINO's choice"),
        Device::Openvino(Openvino { precision: OpenvinoPrecision::F32, .. }) => None,
        Device::Openvino(Openvino { precision, .. }) => hint(*precision),
        Device::Tensorrt(Tensorrt { precision: TensorrtPrecision::Fp16, .. }) => Some("fp16"),
        Device::Tensorrt(Tensorrt { precision: TensorrtPrecision::Bf16, .. }) => Some("bf16"),
        Device::Tensorrt(_) | Device::TensorrtRtx(_) | Device::Cuda(_) | Device::Cpu => None,
    }
}

/// A folder of `folder`, made for one model, ONNX Runtime, graph, range of shapes and whatever else `parts` name:
/// compiled code must not be used with any other. Only the worker may enter it.
fn keyed(folder: &Path, opening: &Opening<'_>, parts: &[&str]) -> Result<String, ModelError> {
    let graph = opening.graph.file_name().unwrap_or_default().to_string_lossy();
    let always = [opening.model_digest, opening.onnxruntime, &graph, &opening.shapes.min, &opening.shapes.max];
    let mut hasher = Sha256::new_with_prefix(b"moderato/engine-cache/1");
    for part in always.iter().chain(parts) {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    let path = folder.join(hex::encode(&hasher.finalize()[..16]));
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&path);
    made.map_err(|error| {
        let (device, path) = (opening.device.name(), path.display());
        ModelError::Device(format!("the cache folder {path} cannot be made: {error}: mend model.{device}.cache"))
    })?;
    Ok(path.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::{super::shapes::Shapes, *};
    use crate::model::assignment::tests::assignment;

    fn rtx() -> Device {
        Device::TensorrtRtx(TensorrtRtx { library: "x".into(), device_id: 0, cache: None })
    }

    #[test]
    fn a_cache_folder_is_of_one_model_runtime_and_range_of_shapes() {
        let folder = tempfile::tempdir().unwrap();
        let shapes = |max: &str| Shapes { min: "a:1".to_owned(), opt: "a:2".to_owned(), max: max.to_owned() };
        let (few, many, device) = (shapes("a:3"), shapes("a:4"), rtx());
        let path = |model_digest: &str, onnxruntime: &str, shapes: &Shapes, parts: &[&str]| {
            let graph = Path::new("m/classify.onnx");
            let opening = Opening {
                graph,
                device: &device,
                threads: 1,
                shapes,
                model_digest,
                onnxruntime,
                once: false,
                deterministic: false,
            };
            keyed(folder.path(), &opening, parts).unwrap()
        };
        let base = path("m", "1.31.1", &few, &["gpu"]);
        assert_eq!(base, path("m", "1.31.1", &few, &["gpu"]));
        assert!(Path::new(&base).is_dir());
        for other in [
            path("n", "1.31.1", &few, &["gpu"]),
            path("m", "1.31.2", &few, &["gpu"]),
            path("m", "1.31.1", &many, &["gpu"]),
            path("m", "1.31.1", &few, &["another gpu"]),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn work_left_to_the_cpu_ends_the_start_only_where_strict_says_so() {
        let mixed = assignment(&[("NvTensorRTRTXExecutionProvider", "MatMul", 9), ("CPUExecutionProvider", "Gemm", 2)]);
        assert!(hold(&rtx(), Strict::Off, &mixed).is_ok());
        assert!(hold(&rtx(), Strict::Warn, &mixed).is_ok());
        let error = hold(&rtx(), Strict::Fail, &mixed).unwrap_err().to_string();
        assert!(error.contains("2 Gemm") && error.contains("model.strict: warn"), "{error}");
        let shapes =
            assignment(&[("NvTensorRTRTXExecutionProvider", "MatMul", 9), ("CPUExecutionProvider", "Shape", 2)]);
        assert!(hold(&rtx(), Strict::Fail, &shapes).is_ok());
    }

    #[test]
    fn strict_scores_want_one_provider_and_rows_that_do_not_mix() {
        let on_cpu =
            |operator| assignment(&[("CPUExecutionProvider", "MatMul", 9), ("CPUExecutionProvider", operator, 1)]);
        assert!(hold_alone(&Device::Cpu, &on_cpu("MatMulIntegerToFloat")).is_ok());
        let error = hold_alone(&Device::Cpu, &on_cpu("DynamicQuantizeMatMul")).unwrap_err();
        assert_eq!(error.code(), "model_contract_unknown");
        let split =
            assignment(&[("NvTensorRTRTXExecutionProvider", "MatMul", 9), ("CPUExecutionProvider", "Softmax", 1)]);
        let error = hold_alone(&rtx(), &split).unwrap_err().to_string();
        assert!(error.contains("given to cpu beside tensorrt_rtx"), "{error}");
        let shapes =
            assignment(&[("NvTensorRTRTXExecutionProvider", "MatMul", 9), ("CPUExecutionProvider", "Shape", 1)]);
        assert!(hold_alone(&rtx(), &shapes).is_ok());
    }

    #[test]
    fn a_device_that_got_no_node_is_an_error_however_lenient_the_setting() {
        let nothing = assignment(&[("CPUExecutionProvider", "MatMul", 9)]);
        let error = hold(&rtx(), Strict::Off, &nothing).unwrap_err();
        assert_eq!(error.code(), "device_unavailable");
        assert!(hold(&Device::Cpu, Strict::Fail, &nothing).is_ok());
    }
}
