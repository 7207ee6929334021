//! Execution providers: what the configuration may say about each, and what is known of it once checked.
//!
//! Only the options of the provider that `model.device` names are looked at, so that a file may hold several.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::Checker;
use super::raw::RawModel;

/// Execution providers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawDevice {
    /// The CPU, by ONNX Runtime itself.
    #[default]
    Cpu,
    /// An Intel CPU, GPU or NPU through OpenVINO, a plugin library.
    Openvino,
    /// An NVIDIA GPU through CUDA.
    Cuda,
    /// An NVIDIA GPU through TensorRT; what TensorRT does not take runs through CUDA.
    Tensorrt,
    /// An NVIDIA RTX GPU (compute capability 8.6, 8.9, or 12.0 and above) through TensorRT for RTX, a plugin library.
    TensorrtRtx,
}

/// What happens when work of the model is left to the CPU although another device was asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Strict {
    /// Nothing. The verdicts still say how many nodes each provider got.
    Off,
    /// A warning names it.
    #[default]
    Warn,
    /// The worker does not start.
    Fail,
}

/// Options of `openvino`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawOpenvino {
    /// `libonnxruntime_providers_openvino_plugin.so` of the package onnxruntime-ep-openvino==1.8.1. Required for
    /// `openvino`.
    pub library: Option<String>,
    /// Which kind of device.
    pub device_type: OpenvinoDevice,
    /// Precision that a float model is computed in. `bf16` and `f16` change scores a little; they gain on CPUs with AMX
    /// and on GPUs, and lost time on a CPU with AVX-512 alone.
    pub precision: OpenvinoPrecision,
    /// Folder for compiled models; without it they are compiled at every start.
    pub cache: Option<String>,
}

/// Kinds of device that OpenVINO knows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OpenvinoDevice {
    /// The CPU.
    #[default]
    Cpu,
    /// An Intel GPU.
    Gpu,
    /// An Intel NPU.
    Npu,
}

/// Precisions of OpenVINO.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OpenvinoPrecision {
    /// OpenVINO's choice: bf16 wherever the CPU has instructions for it.
    Auto,
    /// 32 bits.
    #[default]
    F32,
    /// 16 bits with the range of 32.
    Bf16,
    /// 16 bits.
    F16,
}

/// Options of `cuda`, and of the CUDA below `tensorrt`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawCuda {
    /// Most GPU memory that ONNX Runtime's arena takes, weights and batches together, such as `16GiB`; no limit without
    /// it. CUDA's own libraries take some beside it.
    pub memory_limit: Option<String>,
}

/// Options of `tensorrt`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawTensorrt {
    /// Folder for built engines and timings, which are used only with the GPU, TensorRT, ONNX Runtime, model and limits
    /// that they were made for; without it they are built at every start, for minutes. An engine is code: let nobody
    /// but the worker write there.
    pub cache: Option<String>,
    /// Precision that engines may use beside the graph's own.
    pub precision: TensorrtPrecision,
}

/// Precisions of TensorRT.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TensorrtPrecision {
    /// The graph's own.
    #[default]
    Auto,
    /// 16 bits.
    Fp16,
    /// 16 bits with the range of 32.
    Bf16,
}

/// Options of `tensorrt_rtx`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawTensorrtRtx {
    /// `libonnxruntime_providers_nv_tensorrt_rtx.so` of the package onnxruntime-ep-nv-tensorrt-rtx-cu13==0.5.0. Required
    /// for `tensorrt_rtx`.
    pub library: Option<String>,
    /// Folder for compiled engines; see `model.tensorrt.cache`.
    pub cache: Option<String>,
}

/// Execution provider and its options, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Device {
    /// The CPU.
    Cpu,
    /// OpenVINO.
    Openvino(Openvino),
    /// CUDA.
    Cuda(Cuda),
    /// TensorRT.
    Tensorrt(Tensorrt),
    /// TensorRT for RTX.
    TensorrtRtx(TensorrtRtx),
}

/// Checked options of OpenVINO.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Openvino {
    /// The plugin.
    pub library: PathBuf,
    /// Which kind of device.
    pub device_type: OpenvinoDevice,
    /// Precision of the computation.
    pub precision: OpenvinoPrecision,
    /// Where compiled models are kept.
    pub cache: Option<PathBuf>,
}

/// Checked options of CUDA.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cuda {
    /// Which GPU.
    pub device_id: i32,
    /// Most bytes of the arena.
    pub memory_limit: Option<usize>,
}

/// Checked options of TensorRT.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tensorrt {
    /// The GPU, and what runs the nodes that TensorRT does not take.
    pub cuda: Cuda,
    /// Precision beside the graph's own.
    pub precision: TensorrtPrecision,
    /// Where engines are kept.
    pub cache: Option<PathBuf>,
}

/// Checked options of TensorRT for RTX.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorrtRtx {
    /// The plugin.
    pub library: PathBuf,
    /// Which of its GPUs.
    pub device_id: i32,
    /// Where engines are kept.
    pub cache: Option<PathBuf>,
}

impl Device {
    /// As `model.device` names it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Openvino(_) => "openvino",
            Self::Cuda(_) => "cuda",
            Self::Tensorrt(_) => "tensorrt",
            Self::TensorrtRtx(_) => "tensorrt_rtx",
        }
    }

    /// Whether its runs share the machine's cores.
    pub fn is_cpu(&self) -> bool {
        matches!(self, Self::Cpu | Self::Openvino(Openvino { device_type: OpenvinoDevice::Cpu, .. }))
    }
}

/// How to get a plugin: its package, pinned, and the module that tells its library's path.
pub(crate) const OPENVINO_PLUGIN: &str = "`pip install onnxruntime-ep-openvino==1.8.1`, then the path that \
     `python -c 'import onnxruntime_ep_openvino as p; print(p.get_library_path())'` prints";
pub(crate) const RTX_PLUGIN: &str = "`pip install onnxruntime-ep-nv-tensorrt-rtx-cu13==0.5.0`, then the path that \
     `python -c 'import onnxruntime_ep_nv_tensorrt_rtx as p; print(p.get_library_path())'` prints";

impl Checker {
    pub(super) fn device(&mut self, raw: &RawModel) -> Device {
        self.require(raw.device_id >= 0, "model.device_id", || "is negative; the first GPU is 0".to_owned());
        let device_id = raw.device_id;
        match raw.device {
            RawDevice::Cpu => Device::Cpu,
            RawDevice::Openvino => Device::Openvino(Openvino {
                library: self.plugin("model.openvino.library", raw.openvino.library.as_deref(), OPENVINO_PLUGIN),
                device_type: raw.openvino.device_type,
                precision: raw.openvino.precision,
                cache: self.cache_folder("model.openvino.cache", raw.openvino.cache.as_deref()),
            }),
            RawDevice::Cuda => Device::Cuda(self.cuda(raw)),
            RawDevice::Tensorrt => Device::Tensorrt(Tensorrt {
                cuda: self.cuda(raw),
                precision: raw.tensorrt.precision,
                cache: self.cache_folder("model.tensorrt.cache", raw.tensorrt.cache.as_deref()),
            }),
            RawDevice::TensorrtRtx => Device::TensorrtRtx(TensorrtRtx {
                library: self.plugin("model.tensorrt_rtx.library", raw.tensorrt_rtx.library.as_deref(), RTX_PLUGIN),
                device_id,
                cache: self.cache_folder("model.tensorrt_rtx.cache", raw.tensorrt_rtx.cache.as_deref()),
            }),
        }
    }

    fn cuda(&mut self, raw: &RawModel) -> Cuda {
        let key = "model.cuda.memory_limit";
        let memory_limit = raw.cuda.memory_limit.as_deref().map(|text| {
            let limit = bytes(text).filter(|limit| *limit > 0);
            self.require(limit.is_some(), key, || format!("`{text}` is not a size, such as 16GiB or 800MiB"));
            limit.unwrap_or(usize::MAX)
        });
        Cuda { device_id: raw.device_id, memory_limit }
    }

    fn plugin(&mut self, key: &str, path: Option<&str>, mend: &str) -> PathBuf {
        let path = path.unwrap_or_default();
        self.require(Path::new(path).is_file(), key, || match path {
            "" => format!("is required for this model.device: {mend}"),
            path => format!("`{path}` is not a file: {mend}"),
        });
        PathBuf::from(path)
    }

    /// It is made when it is missing; what stands in its place must not be a file.
    fn cache_folder(&mut self, key: &str, path: Option<&str>) -> Option<PathBuf> {
        let path = PathBuf::from(path?);
        let usable = !path.as_os_str().is_empty() && (path.is_dir() || !path.exists());
        self.require(usable, key, || format!("`{}` is not a folder", path.display()));
        Some(path)
    }
}

/// A size in bytes: a whole number and KiB, MiB or GiB.
fn bytes(text: &str) -> Option<usize> {
    let units = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
    let (number, unit) = units.iter().find_map(|(name, unit)| Some((text.strip_suffix(name)?, *unit)))?;
    number.trim().parse::<usize>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_needs_a_unit() {
        assert_eq!(bytes("16GiB"), Some(16 << 30));
        assert_eq!(bytes("800 MiB"), Some(800 << 20));
        for text in ["16", "16GB", "GiB", "-1GiB", "1.5GiB", "99999999999999999GiB"] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }
}
