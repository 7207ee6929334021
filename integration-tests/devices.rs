//! Devices: each that was asked for and is not there is refused by name, and one that is there says what it did.
//!
//! OpenVINO's plugin stands for all of them: it needs no GPU. Each test runs the program, because a provider that was
//! loaded into a process stays there.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use serde_json::Value;

use crate::support::pool::POLICY;
use crate::support::worker::Setup;
use crate::support::{model, provided, repository};

/// OpenVINO's plugin, where its package says that it is.
static OPENVINO: LazyLock<String> = LazyLock::new(|| {
    let python = provided("MODERATO_TEST_PYTHON", ".venv/bin/python");
    let script = "import onnxruntime_ep_openvino as plugin; print(plugin.get_library_path())";
    let output = Command::new(python).args(["-c", script]).output().unwrap();
    let path = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    assert!(Path::new(&path).is_file(), "onnxruntime-ep-openvino is missing; `make test` installs it");
    path
});

/// `moderato classify` of the tiny model on a device.
fn on(device: &str) -> Setup {
    let policy = repository(POLICY);
    let config =
        format!("model: {{path: {}, threads: 1}}\npolicy: {}\n", model("tiny-fp32").display(), policy.display());
    Setup::new(config).verb("classify").set("model.device", device)
}

fn on_openvino() -> Setup {
    on("openvino").set("model.openvino.library", OPENVINO.as_str())
}

/// The verdict on one line, and the log.
fn judged(setup: Setup) -> (Value, String) {
    let output = setup.output(b"The moon is made of cheese.\n");
    let log = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{log}");
    (serde_json::from_slice(&output.stdout).unwrap(), log)
}

/// Ends with exit 2 and says all of `parts`; nothing is judged.
fn refused(setup: Setup, parts: &[&str]) {
    let output = setup.output(b"The moon is made of cheese.\n");
    let log = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{log}");
    assert!(output.stdout.is_empty());
    for part in parts {
        assert!(log.contains(part), "{part:?} is not in:\n{log}");
    }
}

#[test]
fn a_provider_that_the_library_lacks_is_refused_with_its_package() {
    for device in ["cuda", "tensorrt"] {
        let named = format!("device {device} was asked for and cannot be used");
        refused(on(device), &[&named, "onnxruntime-gpu[cuda,cudnn]==1.31.1", "set model.device: cpu if you mean it"]);
    }
}

#[test]
fn a_plugin_that_no_key_names_is_refused_with_package_and_key() {
    refused(on("openvino"), &["model.openvino.library: is required", "pip install onnxruntime-ep-openvino==1.8.1"]);
    let rtx = ["model.tensorrt_rtx.library: is required", "pip install onnxruntime-ep-nv-tensorrt-rtx-cu13==0.5.0"];
    refused(on("tensorrt_rtx"), &rtx);
    let missing = on("openvino").set("model.openvino.library", "/nowhere/plugin.so");
    refused(missing, &["model.openvino.library: `/nowhere/plugin.so` is not a file"]);
}

#[test]
fn a_plugin_that_is_no_library_is_refused_by_its_path() {
    let file = repository("Cargo.toml").display().to_string();
    let parts = ["device openvino was asked for", "cannot be loaded", file.as_str(), "onnxruntime-ep-openvino==1.8.1"];
    refused(on("openvino").set("model.openvino.library", &file), &parts);
}

#[test]
fn a_plugin_without_the_device_is_refused_with_what_it_has() {
    let gpu = on_openvino().set("model.openvino.device_type", "gpu");
    refused(gpu, &["device openvino was asked for", "finds no GPU", "it has CPU"]);
    // Another provider's plugin has none of the devices that are looked for.
    let other = on("tensorrt_rtx").set("model.tensorrt_rtx.library", OPENVINO.as_str());
    refused(other, &["device tensorrt_rtx was asked for", "NvTensorRTRTXExecutionProvider; it has none at all"]);
}

#[test]
fn options_that_cannot_be_are_told_with_one_that_can() {
    let setup = on("tensorrt").set("model.cuda.memory_limit", "8").set("model.device_id", -1);
    let file = repository("Cargo.toml").display().to_string();
    let parts = [
        "model.cuda.memory_limit: `8` is not a size, such as 16GiB",
        "model.device_id: is negative; the first GPU is 0",
        "model.tensorrt.cache: `",
    ];
    refused(setup.set("model.tensorrt.cache", file), &parts);
}

#[test]
fn openvino_gives_the_scores_of_the_cpu_and_the_verdict_says_which_nodes_it_got() {
    let (on_cpu, _) = judged(on("cpu"));
    let (on_openvino, log) = judged(on_openvino());

    let score = |verdict: &Value| verdict["data"]["verdict"]["score"].as_f64().unwrap();
    assert!((score(&on_cpu) - score(&on_openvino)).abs() < 1e-4, "{on_cpu} {on_openvino}");
    let execution = |verdict: &Value| verdict["data"]["model"]["execution"].clone();
    let nodes = |verdict: &Value, provider: &str| execution(verdict)["nodes"][provider].as_u64().unwrap_or(0);
    assert!(nodes(&on_cpu, "cpu") > 100 && nodes(&on_cpu, "openvino") == 0, "{on_cpu}");
    assert!(nodes(&on_openvino, "openvino") > 100, "{on_openvino}");
    assert_eq!(execution(&on_openvino)["provider"], "openvino");
    assert_eq!(execution(&on_openvino)["precision"], "fp32");
    assert!(log.contains("\"provider\":\"openvino\",\"nodes\":"), "{log}");
}

#[test]
fn a_precision_that_is_not_the_weights_own_stands_in_the_verdict() {
    let (verdict, _) = judged(on_openvino().set("model.openvino.precision", "f16"));
    assert_eq!(verdict["data"]["model"]["execution"]["precision"], "fp32 computed in f16");
}

#[test]
fn work_that_a_device_leaves_to_the_cpu_is_warned_of_or_ends_the_start() {
    // OpenVINO's plugin 1.8.1 takes neither of the two operators of opset 23.
    let (_, log) = judged(on_openvino());
    assert!(log.contains("left work of the model to the CPU: 5 RMSNormalization, 4 RotaryEmbedding"), "{log}");
    let (_, log) = judged(on_openvino().set("model.strict", "off"));
    assert!(!log.contains("left work of the model"), "{log}");
    refused(
        on_openvino().set("model.strict", "fail"),
        &["5 RMSNormalization, 4 RotaryEmbedding", "model.strict: warn"],
    );
}

#[test]
fn compiled_models_are_kept_apart_by_precision_and_used_again() {
    let cache = tempfile::tempdir().unwrap();
    let folders = || -> Vec<PathBuf> {
        let mut found: Vec<PathBuf> =
            std::fs::read_dir(cache.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        found.sort();
        found
    };
    let cached = |precision: &str| {
        let setup = on_openvino().set("model.openvino.precision", precision);
        judged(setup.set("model.openvino.cache", cache.path().display())).0
    };

    let first = cached("f32");
    let made = folders();
    // One for the graph that computes the prompt's cache, one for the graph that judges.
    assert_eq!(made.len(), 2);
    assert!(made.iter().all(|folder| std::fs::read_dir(folder).unwrap().count() > 0));

    let again = cached("f32");
    assert_eq!(folders(), made);
    assert_eq!(first["data"]["verdict"], again["data"]["verdict"]);

    cached("bf16");
    assert_eq!(folders().len(), 4);
}
