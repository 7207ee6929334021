//! Model folders, devices and libraries that are refused, and by which words.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use moderato::config::{Cuda, Tensorrt};
use moderato::model::{Device, GraphChoice};
use sha2::{Digest, Sha256};

use crate::model::{copy_of_tiny, folder, load_as, refusal, settings, write_manifest};

/// Writes a file of the folder and makes its manifest agree with it.
fn write_listed(folder: &Path, name: &str, content: &[u8]) {
    fs::write(folder.join(name), content).unwrap();
    let path = folder.join("manifest.json");
    let mut manifest: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    for entry in manifest["files"].as_array_mut().unwrap() {
        if entry["path"] == name {
            entry["bytes"] = content.len().into();
            entry["sha256"] = hex::encode(Sha256::digest(content)).into();
        }
    }
    write_manifest(&path, manifest);
}

fn replace(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut out = bytes.to_vec();
    let mut found = 0;
    for start in 0..out.len() - from.len() {
        if out[start..].starts_with(from) {
            out[start..start + from.len()].copy_from_slice(to);
            found += 1;
        }
    }
    assert!(found > 0, "nothing to replace");
    out
}

#[test]
fn an_altered_weight_is_refused_before_anything_is_loaded() {
    let copy = copy_of_tiny();
    let path = copy.path().join("weights.bin");
    let mut weights = fs::read(&path).unwrap();
    let middle = weights.len() / 2;
    weights[middle] ^= 1;
    fs::write(&path, weights).unwrap();
    let mut asked = settings(copy.path().to_owned(), GraphChoice::Auto);
    // Were the library looked for first, this would be what is missing.
    asked.onnxruntime = Some(PathBuf::from("/nowhere/libonnxruntime.so"));
    let error = refusal(&asked);
    assert_eq!(error.code(), "model_folder_invalid");
    assert!(error.to_string().contains("weights.bin was altered"), "{error}");
}

/// The refusal of a spoilt folder, before the library is even looked for: were it, that would be what is missing.
fn refused_unopened(folder: &Path) -> String {
    let mut asked = settings(folder.to_owned(), GraphChoice::Auto);
    asked.onnxruntime = Some(PathBuf::from("/nowhere/libonnxruntime.so"));
    let error = refusal(&asked);
    assert_eq!(error.code(), "model_folder_invalid", "{error}");
    error.to_string()
}

fn names_of(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.collect()
}

#[test]
fn one_flipped_bit_in_any_file_of_the_folder_is_refused_by_the_files_name() {
    let copy = copy_of_tiny();
    let names = names_of(copy.path());
    assert!(names.len() > 6 && names.contains(&"manifest.json".to_owned()), "{names:?}");
    for name in names {
        let path = copy.path().join(&name);
        let whole = fs::read(&path).unwrap();
        for at in [0, whole.len() / 3, whole.len() / 2, whole.len() - 2] {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            fs::write(&path, bytes).unwrap();
            let refused = refused_unopened(copy.path());
            assert!(refused.contains(&name), "{name}, byte {at}: {refused}");
        }
        fs::write(&path, whole).unwrap();
    }
}

#[test]
fn no_byte_of_the_manifest_can_be_altered() {
    let copy = copy_of_tiny();
    let path = copy.path().join("manifest.json");
    let whole = fs::read(&path).unwrap();
    for at in 0..whole.len() - 1 {
        let mut bytes = whole.clone();
        bytes[at] ^= 2;
        fs::write(&path, &bytes).unwrap();
        let refused = refused_unopened(copy.path());
        assert!(refused.contains("manifest.json"), "byte {at}: {refused}");
    }
}

#[test]
fn a_link_in_the_place_of_any_file_is_refused_by_the_files_name() {
    let (copy, elsewhere) = (copy_of_tiny(), copy_of_tiny());
    for name in names_of(copy.path()) {
        let path = copy.path().join(&name);
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(elsewhere.path().join(&name), &path).unwrap();
        let refused = refused_unopened(copy.path());
        assert!(refused.contains(&format!("{name} is a symbolic link")), "{refused}");
        fs::remove_file(&path).unwrap();
        fs::copy(elsewhere.path().join(&name), &path).unwrap();
    }
}

#[test]
fn a_file_that_the_manifest_leaves_out_is_refused_by_its_name() {
    let copy = copy_of_tiny();
    let path = copy.path().join("manifest.json");
    let whole: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    // Without its tokenizer, its graph or its weights, a model cannot be loaded.
    for name in ["tokenizer.json", "tokenizer_config.json", "classify.onnx", "weights.bin"] {
        let mut manifest = whole.clone();
        manifest["files"].as_array_mut().unwrap().retain(|entry| entry["path"] != name);
        write_manifest(&path, manifest);
        let error = refusal(&settings(copy.path().to_owned(), GraphChoice::Auto));
        assert_eq!(error.code(), "model_folder_invalid");
        assert!(error.to_string().contains(name), "{name}: {error}");
    }
}

#[test]
fn a_graph_that_reaches_outside_its_folder_is_refused() {
    let graph = fs::read(folder("tiny-fp32").join("classify.onnx")).unwrap();
    for location in [b"../../a.bin", b"/etc/passwd"] {
        let copy = copy_of_tiny();
        write_listed(copy.path(), "classify.onnx", &replace(&graph, b"weights.bin", location));
        let error = refusal(&settings(copy.path().to_owned(), GraphChoice::Auto));
        assert_eq!(error.code(), "model_folder_invalid");
        assert!(error.to_string().contains("external data outside the folder"), "{error}");
        assert!(error.to_string().contains("classify.onnx"), "{error}");
    }
}

#[test]
fn a_tokenizer_with_more_tokens_than_the_model_is_refused() {
    let copy = copy_of_tiny();
    let text = fs::read_to_string(copy.path().join("config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
    config["vocab_size"] = 100.into();
    write_listed(copy.path(), "config.json", config.to_string().as_bytes());
    let error = refusal(&settings(copy.path().to_owned(), GraphChoice::Auto));
    assert_eq!(error.code(), "tokenizer_invalid");
    assert!(error.to_string().contains("the model knows 100"), "{error}");
}

#[test]
fn a_gpu_that_is_not_there_is_an_error_and_never_a_quiet_cpu() {
    for device in [Device::Cuda(Cuda::default()), Device::Tensorrt(Tensorrt::default())] {
        let mut asked = settings(folder("tiny-fp32"), GraphChoice::Auto);
        let name = device.name();
        asked.device = device;
        let error = refusal(&asked);
        assert_eq!(error.code(), "device_unavailable");
        let message = error.to_string();
        assert!(message.contains(name) && message.contains("onnxruntime-gpu[cuda,cudnn]==1.31.1"), "{message}");
    }
}

#[test]
fn a_missing_or_second_library_is_refused_with_the_way_to_mend_it() {
    let mut asked = settings(folder("tiny-fp32"), GraphChoice::Auto);
    asked.onnxruntime = Some(PathBuf::from("/nowhere/libonnxruntime.so"));
    let error = refusal(&asked);
    assert_eq!(error.code(), "onnxruntime_missing");
    assert!(error.to_string().contains("pip install onnxruntime==1.31.1"), "{error}");
    drop(load_as(folder("tiny-fp32"), GraphChoice::Auto));
    let copy = tempfile::NamedTempFile::new().unwrap();
    asked.onnxruntime = Some(copy.path().to_owned());
    assert!(refusal(&asked).to_string().contains("is loaded already"));
}

#[test]
fn microsofts_llama_2_contract_is_refused_by_name() {
    // ValueInfoProto (1: name) as GraphProto.input (11) of ModelProto.graph (7), by hand.
    let field =
        |number: u8, content: &[u8]| [&[number << 3 | 2, u8::try_from(content.len()).unwrap()], content].concat();
    let input = |name: &&str| field(11, &field(1, name.as_bytes()));
    let graph: Vec<u8> = ["x", "attn_mask", "k_cache", "v_cache", "pos"].iter().flat_map(input).collect();
    let copy = copy_of_tiny();
    write_listed(copy.path(), "full.onnx", &field(7, &graph));
    let error = refusal(&settings(copy.path().to_owned(), GraphChoice::FullSharedPrompt));
    assert_eq!(error.code(), "model_contract_unknown");
    assert!(error.to_string().contains("Microsoft's Llama-2-Onnx"), "{error}");
}
