"""Every form of checkpoint gives the same logits as the equations; what cannot be expressed is refused by name."""

import json
import tracemalloc

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from models import bfloat16, make_config, make_weights, write_gguf, write_hugging_face
from moderato_model.errors import ExportError
from moderato_model.export import Options, export
from moderato_model.gguf_file import open_gguf
from moderato_model.huggingface import open_folder
from moderato_model.weights import ALIGNMENT
from reference import Llama
from sessions import Folder

PROMPT = [5, 9, 2, 77, 31, 40, 8]
ROWS = [[11, 60, 3, 3, 90], [44, 6]]
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def assert_agrees(checkpoint, reference: Llama, out) -> np.ndarray:
    """Exports, runs both graphs, compares with the equations; returns the classify logits."""
    assert export(checkpoint, out, Options())
    folder = Folder(out)
    past = folder.prompt(PROMPT)
    vocabulary = range(folder.config["vocab_size"])
    logits, _ = folder.classify(ROWS, past, vocabulary)
    for row, answer in zip(ROWS, logits, strict=True):
        expected = reference.logits(PROMPT + row)
        assert np.abs(answer - expected[-1]).max() < 1e-4
        assert np.abs(folder.full([row], past)[0][0] - expected[len(PROMPT) :]).max() < 1e-4
    return logits


@pytest.mark.parametrize("kv_heads", [6, 2, 1])
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_a_hugging_face_folder_agrees_with_the_equations(tmp_path, kv_heads, tied):
    config = make_config(num_key_value_heads=kv_heads, tie_word_embeddings=tied)
    weights = make_weights(config)
    folder = write_hugging_face(tmp_path / "source", config, weights)
    assert_agrees(open_folder(folder), Llama(config, weights), tmp_path / "out")


@pytest.mark.parametrize("scaling", [LLAMA3, {"rope_type": "linear", "factor": 4.0}], ids=lambda s: s["rope_type"])
def test_scaled_rotary_embedding_agrees_with_the_equations(tmp_path, scaling):
    config = make_config(rope_scaling=scaling)
    weights = make_weights(config)
    folder = write_hugging_face(tmp_path / "source", config, weights)
    assert_agrees(open_folder(folder), Llama(config, weights), tmp_path / "out")


def test_rope_parameters_mean_the_same_as_rope_theta_and_rope_scaling(tmp_path):
    config = make_config(rope_theta=50000.0, rope_scaling=LLAMA3)
    weights = make_weights(config)
    newer = {key: value for key, value in config.items() if not key.startswith("rope")}
    newer["rope_parameters"] = LLAMA3 | {"rope_theta": 50000.0}
    folder = write_hugging_face(tmp_path / "source", newer, weights)
    assert_agrees(open_folder(folder), Llama(config, weights), tmp_path / "out")


def test_a_sharded_bfloat16_folder_agrees_with_the_equations(tmp_path):
    config = make_config()
    weights = make_weights(config)
    folder = write_hugging_face(tmp_path / "source", config, weights, shards=3, dtype=ml_dtypes.bfloat16)
    assert_agrees(open_folder(folder), Llama(config, bfloat16(weights)), tmp_path / "out")


def test_a_gguf_file_gives_the_logits_of_the_folder_it_was_made_from(tmp_path):
    config = make_config(rope_theta=20000.0)
    weights = make_weights(config)
    reference = Llama(config, weights)
    from_folder = assert_agrees(
        open_folder(write_hugging_face(tmp_path / "source", config, weights)), reference, tmp_path / "folder"
    )
    from_gguf = assert_agrees(
        open_gguf(write_gguf(tmp_path / "model.gguf", config, weights)), reference, tmp_path / "gguf"
    )
    assert np.array_equal(from_folder, from_gguf)


def test_a_tied_embedding_is_stored_once(tmp_path):
    sizes = {}
    for tied in (False, True):
        config = make_config(tie_word_embeddings=tied, vocab_size=4096)
        folder = write_hugging_face(tmp_path / f"source-{tied}", config, make_weights(config))
        export(open_folder(folder), tmp_path / f"out-{tied}", Options())
        sizes[tied] = (tmp_path / f"out-{tied}" / "weights.bin").stat().st_size
    spared = sizes[False] - sizes[True]
    assert abs(spared - 4096 * config["hidden_size"] * 4) < ALIGNMENT


def test_peak_memory_is_that_of_a_few_tensors_not_of_the_model(tmp_path):
    config = make_config(num_hidden_layers=24, intermediate_size=2048)
    weights = make_weights(config)
    largest = max(tensor.nbytes for tensor in weights.values())
    total = sum(tensor.nbytes for tensor in weights.values())
    checkpoint = open_folder(write_hugging_face(tmp_path / "source", config, weights))
    del weights
    tracemalloc.start()
    export(checkpoint, tmp_path / "out", Options())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert total > 20 * largest
    assert peak < 4 * largest


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model_type": "qwen2"}, "qwen2"),
        ({"attention_bias": True}, "attention_bias"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"sliding_window": 4096}, "sliding_window"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "yarn"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "dynamic"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 2.0}}, "low_freq_factor"),
        ({"num_key_value_heads": 4}, "6 attention heads"),
        ({"hidden_size": None}, "hidden_size"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_config_that_the_graphs_cannot_express_is_refused_by_name(tmp_path, change, named):
    config = make_config()
    folder = write_hugging_face(tmp_path / "source", config, make_weights(config))
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ExportError, match=named):
        export(open_folder(folder), tmp_path / "out", Options())
    assert not (tmp_path / "out").exists()


def test_a_tensor_the_graphs_would_leave_out_is_refused_by_name(tmp_path):
    config = make_config()
    weights = make_weights(config) | {"model.layers.1.self_attn.q_proj.bias": np.zeros(48, np.float32)}
    folder = write_hugging_face(tmp_path / "source", config, weights)
    with pytest.raises(ExportError, match="q_proj.bias"):
        export(open_folder(folder), tmp_path / "out", Options())


def test_a_missing_tensor_and_a_missing_shard_are_named(tmp_path):
    config = make_config()
    weights = make_weights(config)
    lost = "model.layers.2.mlp.up_proj.weight"
    partial = {name: tensor for name, tensor in weights.items() if name != lost}
    with pytest.raises(ExportError, match=lost):
        folder = write_hugging_face(tmp_path / "tensor", config, partial)
        export(open_folder(folder), tmp_path / "out", Options())
    folder = write_hugging_face(tmp_path / "shard", config, weights, shards=2)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ExportError, match="model-00002-of-00002.safetensors"):
        open_folder(folder)


def test_quantised_safetensors_and_torch_pickles_are_refused(tmp_path):
    config = make_config()
    folder = write_hugging_face(tmp_path / "source", config, make_weights(config))
    save_file({"model.norm.weight": np.zeros(40, np.int8)}, folder / "model.safetensors")
    with pytest.raises(ExportError, match="model.norm.weight has type I8"):
        open_folder(folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ExportError, match="pytorch_model.bin"):
        open_folder(folder)


def test_a_gguf_of_another_architecture_is_refused_by_name(tmp_path):
    config = make_config()
    path = write_gguf(tmp_path / "model.gguf", config, make_weights(config), architecture="qwen2")
    with pytest.raises(ExportError, match="qwen2"):
        open_gguf(path)


def test_a_gguf_tensor_without_a_place_is_refused_by_name(tmp_path):
    config = make_config()
    path = write_gguf(tmp_path / "model.gguf", config, make_weights(config))
    path.write_bytes(path.read_bytes().replace(b"blk.0.attn_q.weight", b"blk.0.attn_q.biased"))
    with pytest.raises(ExportError, match="blk.0.attn_q.biased"):
        open_gguf(path)


def test_a_file_that_is_not_gguf_is_refused(tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(b"not a model at all, only text")
    with pytest.raises(ExportError, match="not a readable GGUF file"):
        open_gguf(path)
