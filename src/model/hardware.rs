//! What selects the kernels that a model runs through: instruction sets, GPUs, the provider's libraries.

use std::{collections::BTreeSet, env::consts::ARCH, fs, path::Path};

use crate::{
    config::{Device, ModelSettings},
    verdict::Conditions,
};

/// What ONNX Runtime and moderato's own operators ask a CPU for, as Linux calls it.
const SELECTING: [&str; 24] = [
    "avx",
    "avx2",
    "fma",
    "f16c",
    "avx512f",
    "avx512bw",
    "avx512dq",
    "avx512vl",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "avx_vnni",
    "avx_vnni_int8",
    "amx_tile",
    "amx_int8",
    "amx_bf16",
    "asimd",
    "asimddp",
    "asimdhp",
    "i8mm",
    "bf16",
    "sve",
    "sve2",
    "sme2",
];

/// What answers are computed under, but for the shape of each row's run.
pub(super) fn conditions(
    settings: &ModelSettings,
    onnxruntime: &str,
    precision: &str,
    threads: Option<usize>,
) -> Conditions {
    let device = &settings.device;
    Conditions {
        determinism: settings.determinism,
        bucket: None,
        hardware: if device.is_cpu() { cpu() } else { gpus_and_driver() },
        provider: device.name().to_owned(),
        provider_version: provider_version(device),
        onnxruntime: onnxruntime.to_owned(),
        precision: precision.to_owned(),
        threads: threads.filter(|_| device.is_cpu()),
    }
}

/// The architecture and those of the CPU's instruction sets that kernels are chosen by.
fn cpu() -> String {
    let told = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    std::iter::once(ARCH).chain(selecting(&told)).collect::<Vec<_>>().join(" ")
}

fn selecting(cpuinfo: &str) -> impl Iterator<Item = &'static str> {
    let flags = cpuinfo.lines().find_map(|line| {
        let (name, flags) = line.split_once(':')?;
        matches!(name.trim(), "flags" | "Features").then_some(flags)
    });
    let flags: BTreeSet<&str> = flags.unwrap_or_default().split_whitespace().collect();
    SELECTING.into_iter().filter(move |set| flags.contains(set))
}

/// GPUs and their driver.
fn gpus_and_driver() -> String {
    let version = fs::read_to_string("/proc/driver/nvidia/version").unwrap_or_default();
    let driver =
        version.split_whitespace().find(|word| word.contains('.') && word.starts_with(|c: char| c.is_ascii_digit()));
    format!("{}, driver {}", gpus(), driver.unwrap_or("unknown"))
}

/// The libraries that hold a provider's kernels, by name and size: their names seldom hold their whole version.
fn provider_version(device: &Device) -> Option<String> {
    let libraries: &[&str] = match device {
        Device::Cpu => return None,
        Device::Openvino(_) => {
            &["libopenvino.so", "libopenvino_intel_cpu_plugin.so", "libopenvino_intel_gpu_plugin.so"]
        }
        Device::Cuda(_) => &["libcudart.so", "libcublas.so", "libcublasLt.so", "libcudnn.so"],
        Device::Tensorrt(_) => &["libnvinfer.so"],
        Device::TensorrtRtx(_) => &["libtensorrt_rtx.so"],
    };
    let name = |at: &str| Path::new(at).file_name().map(|name| name.to_string_lossy().into_owned());
    let found: Vec<String> = libraries.iter().filter_map(|library| name(&mapped(library))).collect();
    Some(found.join(", "))
}

/// The GPUs that NVIDIA's driver names, in a fixed order; nothing where there is no such driver.
pub(super) fn gpus() -> String {
    let folders = fs::read_dir("/proc/driver/nvidia/gpus").into_iter().flatten().flatten();
    let texts = folders.filter_map(|folder| fs::read_to_string(folder.path().join("information")).ok());
    let model = |text: String| text.lines().find_map(|line| Some(line.strip_prefix("Model:")?.trim().to_owned()));
    let mut models: Vec<String> = texts.filter_map(model).collect();
    models.sort();
    models.join(", ")
}

/// Path and size of a loaded library whose file name begins so: the version where it is part of the name, and another
/// size where it is not.
pub(super) fn mapped(beginning: &str) -> String {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let paths = maps.lines().filter_map(|line| Some(Path::new(line.get(line.find('/')?..)?)));
    let named = |path: &&Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(beginning));
    paths.filter(named).min().map_or_else(String::new, |path| {
        format!("{} {}", path.display(), fs::metadata(path).map_or(0, |data| data.len()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_that_this_program_runs_on_is_found_by_its_name() {
        assert!(mapped("libc.so").contains("libc.so"), "{}", mapped("libc.so"));
        assert_eq!(mapped("libnothing-of-the-kind"), "");
    }

    #[test]
    fn only_what_selects_kernels_is_told_of_a_cpu_and_always_in_one_order() {
        let intel = "processor\t: 0\nflags\t\t: fpu avx512_vnni sse2 fma avx2 avx\nbugs\t\t: none\n";
        assert_eq!(selecting(intel).collect::<Vec<_>>(), ["avx", "avx2", "fma", "avx512_vnni"]);
        let arm = "processor\t: 0\nFeatures\t: fp i8mm asimd\n";
        assert_eq!(selecting(arm).collect::<Vec<_>>(), ["asimd", "i8mm"]);
        assert_eq!(selecting("").count(), 0);
    }
}
