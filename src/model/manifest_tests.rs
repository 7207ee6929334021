//! A hand-made folder, tampered with in every way that can be thought of.

use std::{fs, os::unix::fs::symlink};

use serde_json::json;
use tempfile::TempDir;

use super::{
    super::scan::tests::{bytes_field, external_tensor, model, port},
    *,
};

/// A folder with one graph whose weights are in `location`.
fn folder(location: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let past =
        |part: &str| bytes_field(11, &port(&format!("past_key_values.0.{part}"), 1, &[None, Some(2), None, Some(4)]));
    let graph = model(&[
        past("key"),
        past("value"),
        bytes_field(11, &port("attention_mask", 7, &[])),
        bytes_field(12, &port("logits", 1, &[])),
        bytes_field(12, &port("present.0.key", 1, &[])),
        bytes_field(5, &external_tensor(location)),
    ]);
    fs::write(dir.path().join("full.onnx"), graph).unwrap();
    fs::write(dir.path().join("weights.bin"), [7; 1000]).unwrap();
    fs::write(dir.path().join("tokenizer.json"), "{}").unwrap();
    write_manifest(&dir, &["full.onnx", "tokenizer.json", "weights.bin"]);
    dir
}

fn write_manifest(dir: &TempDir, files: &[&str]) {
    let entry = |name: &&str| {
        let path = dir.path().join(name);
        let digest = sha256_of(&path).unwrap_or_else(|_| "0".repeat(64));
        json!({"path": name, "sha256": digest, "bytes": fs::metadata(&path).map_or(0, |found| found.len())})
    };
    let manifest = json!({
        "schema": SCHEMA, "name": "Handmade", "license": "Apache-2.0", "precision": "fp32",
        "source": {"kind": "seed", "ref": "1", "sha256": "00"},
        "graphs": {"full": {"file": "full.onnx", "contract": "huggingface/past-key-values/1"}},
        "exporter": {"name": "hand", "version": "1"},
        "files": files.iter().map(entry).collect::<Vec<_>>(),
    });
    fs::write(dir.path().join(MANIFEST), manifest.to_string()).unwrap();
}

fn verify(dir: &TempDir) -> Result<Folder, ModelError> {
    Folder::verify(dir.path(), true)
}

fn full_graph(dir: &TempDir) -> Result<Option<Graph>, ModelError> {
    verify(dir)?.graph("full", Fallback::default())
}

fn refusal<T: std::fmt::Debug>(result: Result<T, ModelError>) -> String {
    let error = result.unwrap_err();
    assert_eq!(error.code(), "model_folder_invalid");
    error.to_string()
}

#[test]
fn an_untouched_folder_is_accepted() {
    let dir = folder("weights.bin");
    let graph = full_graph(&dir).unwrap().unwrap();
    assert_eq!(graph.contract.cache().kv_heads, 2);
    let found = verify(&dir).unwrap();
    assert_eq!(found.name(), "Handmade");
    assert!(found.graph("classify", Fallback::default()).unwrap().is_none());
}

#[test]
fn an_altered_file_is_refused_even_at_the_same_size() {
    let dir = folder("weights.bin");
    let mut bytes = [7; 1000];
    bytes[999] ^= 1;
    fs::write(dir.path().join("weights.bin"), bytes).unwrap();
    assert!(refusal(verify(&dir)).contains("weights.bin was altered"));
}

#[test]
fn a_shortened_and_a_missing_file_are_reported_together() {
    let dir = folder("weights.bin");
    fs::write(dir.path().join("weights.bin"), [7; 999]).unwrap();
    fs::remove_file(dir.path().join("tokenizer.json")).unwrap();
    let message = refusal(verify(&dir));
    assert!(message.contains("weights.bin has 999 bytes"), "{message}");
    assert!(message.contains("tokenizer.json is missing"), "{message}");
}

#[test]
fn a_symbolic_link_is_refused_though_its_content_is_right() {
    let dir = folder("weights.bin");
    let elsewhere = tempfile::tempdir().unwrap();
    fs::rename(dir.path().join("weights.bin"), elsewhere.path().join("w")).unwrap();
    symlink(elsewhere.path().join("w"), dir.path().join("weights.bin")).unwrap();
    assert!(refusal(verify(&dir)).contains("symbolic link"));
    fs::remove_file(dir.path().join(MANIFEST)).unwrap();
    assert!(refusal(Folder::verify(dir.path(), false)).contains("symbolic link"));
}

#[test]
fn listed_paths_must_be_plain_names() {
    for name in ["../weights.bin", "/etc/passwd", "sub/weights.bin", "./weights.bin", "..", "", "a\\b", "c:d"] {
        let dir = folder("weights.bin");
        write_manifest(&dir, &["full.onnx", name]);
        assert!(refusal(verify(&dir)).contains("not a plain file name"), "{name}");
    }
}

#[test]
fn external_data_outside_the_folder_is_refused() {
    for name in ["../../etc/passwd", "/etc/passwd", "sub/weights.bin", "..", "a/../weights.bin", ""] {
        assert!(refusal(full_graph(&folder(name))).contains("external data outside the folder"), "{name}");
    }
}

#[test]
fn external_data_that_the_manifest_does_not_list_is_refused() {
    let dir = folder("weights.bin");
    write_manifest(&dir, &["full.onnx", "tokenizer.json"]);
    assert!(refusal(full_graph(&dir)).contains("which manifest.json does not list"));
}

#[test]
fn a_plain_name_written_with_a_leading_dot_is_the_same_file() {
    assert!(full_graph(&folder("./weights.bin")).is_ok());
}

#[test]
fn a_graph_that_is_not_onnx_is_refused() {
    let dir = folder("weights.bin");
    fs::write(dir.path().join("full.onnx"), "not a graph").unwrap();
    write_manifest(&dir, &["full.onnx", "tokenizer.json", "weights.bin"]);
    assert!(refusal(full_graph(&dir)).contains("cannot be read as an ONNX file"));
}

#[test]
fn a_manifest_of_another_version_or_contract_is_refused() {
    let dir = folder("weights.bin");
    let path = dir.path().join(MANIFEST);
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("model-manifest/1", "model-manifest/2")).unwrap();
    assert!(refusal(verify(&dir)).contains("this version reads"));
    fs::write(&path, text.replace("past-key-values/1", "past-key-values/9")).unwrap();
    assert!(refusal(verify(&dir)).contains("past-key-values/9"));
    fs::write(&path, "[]").unwrap();
    assert!(refusal(verify(&dir)).contains("not a model manifest"));
}

#[test]
fn a_folder_without_a_manifest_needs_leave_and_is_hashed_all_the_same() {
    let dir = folder("weights.bin");
    fs::remove_file(dir.path().join(MANIFEST)).unwrap();
    assert!(refusal(verify(&dir)).contains("require_manifest"));
    let before = Folder::verify(dir.path(), false).unwrap();
    assert!(before.graph("full", Fallback::default()).unwrap().is_some());
    fs::write(dir.path().join("weights.bin"), [8; 1000]).unwrap();
    let after = Folder::verify(dir.path(), false).unwrap();
    assert_ne!(before.model_digest(), after.model_digest());
}

#[test]
fn graphs_are_found_by_the_names_that_exporters_use() {
    let dir = folder("weights.bin");
    fs::remove_file(dir.path().join(MANIFEST)).unwrap();
    for name in ["model.onnx", "anything.onnx", "full.onnx"] {
        let old =
            fs::read_dir(dir.path()).unwrap().flatten().find(|e| e.path().extension().is_some_and(|x| x == "onnx"));
        fs::rename(old.unwrap().path(), dir.path().join(name)).unwrap();
        let found = Folder::verify(dir.path(), false).unwrap().graph("full", Fallback::default()).unwrap().unwrap();
        assert!(found.path.ends_with(name));
    }
    fs::rename(dir.path().join("full.onnx"), dir.path().join("gpu.onnx")).unwrap();
    fs::write(dir.path().join("other.onnx"), "").unwrap();
    fs::write(dir.path().join("genai_config.json"), r#"{"model":{"decoder":{"filename":"gpu.onnx"}}}"#).unwrap();
    let found = Folder::verify(dir.path(), false).unwrap().graph("full", Fallback::default()).unwrap().unwrap();
    assert!(found.path.ends_with("gpu.onnx"));
}
