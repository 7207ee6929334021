"""A model folder is whole or absent; its manifest lists and dates everything in it."""

import hashlib
import json
import shutil
from dataclasses import replace

import onnx
import pytest
from onnx import TensorProto, helper

from models import make_config, make_weights, write_gguf, write_hugging_face
from moderato_model import EXPORTER_VERSION
from moderato_model.cli import main
from moderato_model.errors import ExportError
from moderato_model.export import Options, export


def snapshot(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_manifest_lists_every_file_with_digest_and_size(tiny, tmp_path):
    out = tmp_path / "out"
    export(tiny, out, Options(name="a name", license="MIT"))
    text = (out / "manifest.json").read_text()
    manifest = json.loads(text)
    digest = manifest.pop("digest")
    assert digest == hashlib.sha256(text.replace(digest, "0" * 64).encode()).hexdigest()
    listed = {entry["path"]: (entry["sha256"], entry["bytes"]) for entry in manifest.pop("files")}
    content = {name: data for name, data in snapshot(out).items() if name != "manifest.json"}
    assert listed == {name: (hashlib.sha256(data).hexdigest(), len(data)) for name, data in content.items()}
    assert list(listed) == sorted(listed)
    assert set(listed) == {
        "classify.onnx", "config.json", "full.onnx", "tokenizer.json", "tokenizer_config.json", "weights.bin"
    }  # fmt: skip
    assert manifest == {
        "schema": "moderato/model-manifest/1",
        "name": "a name",
        "license": "MIT",
        "source": {"kind": "seed", "ref": "tiny --seed 7", "sha256": tiny.source.sha256},
        "precision": "fp32",
        "graphs": {
            "classify": {"file": "classify.onnx", "contract": "moderato/cascade/1", "precision": "fp32"},
            "full": {"file": "full.onnx", "contract": "huggingface/past-key-values/1", "precision": "fp32"},
        },
        "exporter": {"name": "moderato-model", "version": EXPORTER_VERSION},
    }


def test_int8_stands_beside_fp32_in_one_folder_and_shares_its_full_graph(tiny, tmp_path):
    export(tiny, tmp_path / "both", Options(precisions=("fp32", "int8")))
    export(tiny, tmp_path / "alone", Options())
    both, alone = snapshot(tmp_path / "both"), snapshot(tmp_path / "alone")
    assert both["full.onnx"] == alone["full.onnx"] and both["classify.onnx"] == alone["classify.onnx"]
    manifest = json.loads(both["manifest.json"])
    assert manifest["precision"] == "fp32"
    assert manifest["graphs"]["classify.int8"] == {
        "file": "classify.int8.onnx", "contract": "moderato/cascade/1", "precision": "int8"
    }  # fmt: skip
    with pytest.raises(ExportError, match="fp16 cannot stand beside fp32"):
        export(tiny, tmp_path / "refused", Options(precisions=("fp32", "fp16")))


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(tmp_path):
    for name, seed in (("a", "7"), ("b", "7"), ("c", "8")):
        assert main(["tiny", str(tmp_path / name), "--seed", seed]) == 0
    assert snapshot(tmp_path / "a") == snapshot(tmp_path / "b")
    assert (tmp_path / "a" / "weights.bin").read_bytes() != (tmp_path / "c" / "weights.bin").read_bytes()
    assert sum(map(len, snapshot(tmp_path / "a").values())) < 2_000_000


def test_an_interrupted_export_leaves_no_folder_that_looks_whole(tiny, tmp_path):
    def read(name):
        if name == "model.layers.1.mlp.down_proj.weight":
            raise KeyboardInterrupt
        return tiny.read(name)

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        export(replace(tiny, read=read), out, Options())
    assert not out.exists()
    assert not list(tmp_path.rglob("manifest.json"))
    assert export(tiny, out, Options())
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_interrupted_replacement_keeps_the_old_folder(tiny, tmp_path):
    def read(name):
        raise KeyboardInterrupt

    out = tmp_path / "out"
    export(tiny, out, Options())
    before = snapshot(out)
    with pytest.raises(KeyboardInterrupt):
        export(replace(tiny, read=read), out, Options(force=True))
    assert snapshot(out) == before


def test_an_intact_export_of_the_same_source_is_left_as_it_is(tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["tiny", str(out)]) == 0
    before = (out / "weights.bin").stat().st_ino
    assert main(["tiny", str(out)]) == 0
    assert "left as it is" in capsys.readouterr().out
    assert (out / "weights.bin").stat().st_ino == before


@pytest.mark.parametrize("arguments", [["--precision", "int8"], ["--seed", "8"]], ids=["precision", "source"])
def test_a_different_export_needs_force(tmp_path, capsys, arguments):
    out = tmp_path / "out"
    assert main(["tiny", str(out)]) == 0
    before = snapshot(out)
    assert main(["tiny", str(out), *arguments]) == 1
    assert "--force" in capsys.readouterr().err
    assert snapshot(out) == before
    assert main(["tiny", str(out), *arguments, "--force"]) == 0
    assert snapshot(out) != before


@pytest.mark.parametrize("damage", ["changed", "missing", "added"])
def test_a_damaged_export_is_not_taken_for_an_intact_one(tmp_path, capsys, damage):
    out = tmp_path / "out"
    assert main(["tiny", str(out)]) == 0
    if damage == "changed":
        data = bytearray((out / "weights.bin").read_bytes())
        data[5000] ^= 1
        (out / "weights.bin").write_bytes(data)
    elif damage == "missing":
        (out / "tokenizer.json").unlink()
    else:
        (out / "extra.txt").write_text("hello")
    assert main(["tiny", str(out)]) == 1
    assert "not an intact export" in capsys.readouterr().err


def test_the_command_line_exports_folders_and_gguf_files(tmp_path, capsys):
    config = make_config()
    weights = make_weights(config)
    folder = write_hugging_face(tmp_path / "llama", config, weights)
    gguf = write_gguf(tmp_path / "llama.gguf", config, weights)
    assert main(["export", str(folder), str(tmp_path / "a"), "--license", "MIT"]) == 0
    assert main(["export", str(gguf), str(tmp_path / "b"), "--precision", "fp16", "--name", "small"]) == 0
    a, b = (json.loads((tmp_path / name / "manifest.json").read_text()) for name in "ab")
    assert (a["name"], a["license"], a["source"]["kind"], a["precision"]) == ("llama", "MIT", "huggingface", "fp32")
    assert (b["name"], b["license"], b["source"]["kind"], b["precision"]) == ("small", "unknown", "gguf", "fp16")
    assert b["source"]["sha256"] == hashlib.sha256(gguf.read_bytes()).hexdigest()
    assert main(["export", str(tmp_path / "nowhere"), str(tmp_path / "c")]) == 1
    assert "nowhere" in capsys.readouterr().err


def write_foreign_folder(folder, inputs: dict[str, int]):
    """A folder as another exporter leaves it: a graph told by its inputs, and the texts beside it."""
    folder.mkdir()
    values = [helper.make_tensor_value_info(name, kind, None) for name, kind in inputs.items()]
    graph = helper.make_graph([], "foreign", values, [])
    onnx.save(helper.make_model(graph), folder / "model.onnx")
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_text("{}")
    return folder


OPTIMUM = {
    "input_ids": TensorProto.INT64,
    "attention_mask": TensorProto.INT64,
    "past_key_values.0.key": TensorProto.FLOAT16,
    "past_key_values.0.value": TensorProto.FLOAT16,
}


def test_a_foreign_folder_is_sealed_by_what_its_graph_takes(tmp_path):
    folder = write_foreign_folder(tmp_path / "foreign", OPTIMUM)
    (folder / "onnx").mkdir()
    (folder / "onnx" / "weights.data").write_bytes(b"123")
    assert main(["seal", str(folder), "--name", "theirs", "--license", "MIT"]) == 0
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["graphs"] == {"full": {"file": "model.onnx", "contract": "huggingface/past-key-values/1"}}
    assert manifest["precision"] == "fp16"
    assert [entry["path"] for entry in manifest["files"]] == [
        "config.json", "model.onnx", "onnx/weights.data", "tokenizer.json", "tokenizer_config.json"
    ]  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["foreign"]


def test_sealing_again_describes_the_folder_as_it_is_now(tiny, tmp_path):
    out = tmp_path / "out"
    export(tiny, out, Options())
    (out / "tokenizer_config.json").write_text('{"chat_template": "edited"}')
    assert main(["seal", str(out), "--name", "edited", "--license", "MIT"]) == 0
    manifest = json.loads((out / "manifest.json").read_text())
    digests = {entry["path"]: entry["sha256"] for entry in manifest["files"]}
    assert digests["tokenizer_config.json"] == hashlib.sha256(b'{"chat_template": "edited"}').hexdigest()
    assert set(manifest["graphs"]) == {"classify", "full"}


@pytest.mark.parametrize(
    ("inputs", "named"),
    [
        (dict.fromkeys(["x", "attn_mask", "k_cache", "v_cache", "pos"], TensorProto.FLOAT), "Llama-2-Onnx"),
        ({"input_ids": TensorProto.INT64}, "no known contract"),
        (OPTIMUM | {"use_cache_branch": TensorProto.BOOL}, "use_cache_branch"),
        (OPTIMUM | {"past_key_values.0.key": TensorProto.BFLOAT16}, "BFLOAT16"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_foreign_graph_of_another_contract_is_refused_by_name(tmp_path, capsys, inputs, named):
    folder = write_foreign_folder(tmp_path / "foreign", inputs)
    assert main(["seal", str(folder), "--name", "x", "--license", "MIT"]) == 1
    assert named in capsys.readouterr().err
    assert not (folder / "manifest.json").exists()


def test_sealing_names_what_is_missing_or_double(tmp_path, capsys):
    folder = write_foreign_folder(tmp_path / "foreign", OPTIMUM)
    shutil.copy(folder / "model.onnx", folder / "other.onnx")
    assert main(["seal", str(folder), "--name", "x", "--license", "MIT"]) == 1
    assert "model.onnx and other.onnx" in capsys.readouterr().err
    (folder / "tokenizer.json").unlink()
    assert main(["seal", str(folder), "--name", "x", "--license", "MIT"]) == 1
    assert "tokenizer.json missing" in capsys.readouterr().err
