"""Both graphs of the tiny model against the float64 equations, and what their contracts promise."""

from dataclasses import replace

import numpy as np
import onnx
import pytest

from moderato_model import rotation
from moderato_model.export import Options, export
from sessions import Folder, expanded

RANDOM = np.random.RandomState(11)
VOCAB = 500
PROMPT = RANDOM.randint(3, VOCAB, 37).tolist()
ROWS = [RANDOM.randint(3, VOCAB, length).tolist() for length in (23, 1, 40, 9)]
LABELS = [263, 270, 277, 281, 5]

# Largest error of any logit, where the label logits reach about 10. fp32 is rounding alone; fp16 keeps
# 11 bits and int8 seven.
BOUNDS = {"fp32": 1e-4, "fp16": 5e-2, "int8-plain": 0.8}


def reference_logits(reference, prompt):
    """Logits at the last token of each row."""
    return np.stack([reference.logits(prompt + row)[-1] for row in ROWS])


@pytest.mark.parametrize("prompt", [PROMPT, []], ids=["shared prompt", "no prompt"])
@pytest.mark.parametrize("precision", BOUNDS)
def test_classify_agrees_with_the_equations(tiny_folders, tiny_reference, precision, prompt):
    folder = tiny_folders(precision)
    expected = reference_logits(tiny_reference, prompt)
    logits, normalizers = folder.classify(ROWS, folder.prompt(prompt), LABELS)
    assert logits.dtype == normalizers.dtype == np.float32
    assert np.abs(logits - expected[:, LABELS]).max() < BOUNDS[precision]
    assert np.abs(normalizers - np.log(np.exp(expected).sum(axis=1))).max() < BOUNDS[precision]


@pytest.mark.parametrize("prompt", [PROMPT, []], ids=["shared prompt", "no prompt"])
@pytest.mark.parametrize("precision", BOUNDS)
def test_full_agrees_with_the_equations_at_every_token(tiny_folders, tiny_reference, precision, prompt):
    folder = tiny_folders(precision)
    for row in ROWS:
        logits, _ = folder.full([row], folder.prompt(prompt))
        expected = tiny_reference.logits(prompt + row)[len(prompt) :]
        assert logits.dtype == np.float32
        assert np.abs(logits[0] - expected).max() < BOUNDS[precision]


def test_full_continues_from_its_own_cache(tiny_folders, tiny_reference):
    folder = tiny_folders("fp32")
    ids, past = ROWS[0], None
    for token in range(len(ids)):
        logits, past = folder.full([[ids[token]]], past)
    assert np.abs(logits[0, 0] - tiny_reference.logits(ids)[-1]).max() < 1e-4


def test_full_takes_rows_padded_on_the_left(tiny_folders, tiny_reference):
    folder = tiny_folders("fp32")
    width = max(map(len, ROWS))
    ids = np.array([[7] * (width - len(row)) + row for row in ROWS])
    mask = np.array([[0] * (width - len(row)) + [1] * len(row) for row in ROWS])
    logits, _ = folder.full(ids, mask=mask, positions=np.maximum(mask.cumsum(axis=1) - 1, 0))
    assert np.abs(logits[:, -1] - reference_logits(tiny_reference, [])).max() < 1e-4


def test_full_with_the_prompt_expanded_equals_classify(tiny_folders):
    folder = tiny_folders("fp32")
    past = folder.prompt(PROMPT)
    row = ROWS[2]
    logits, _ = folder.full([row] * 3, expanded(past, 3))
    labels, _ = folder.classify([row] * 3, past, LABELS)
    assert np.abs(logits[:, -1][:, LABELS] - labels).max() < 1e-4


@pytest.mark.parametrize("precision", BOUNDS)
def test_padding_and_its_content_change_nothing(tiny_folders, precision):
    folder = tiny_folders(precision)
    past = folder.prompt(PROMPT)
    logits, _ = folder.classify(ROWS, past, LABELS, filler=0)
    other, _ = folder.classify(ROWS, past, LABELS, filler=VOCAB - 1, width=61)
    assert np.abs(logits - other).max() < (1e-5 if precision == "fp32" else 2e-2)


def test_an_int8_score_does_not_depend_on_batch_mates(tiny_folders):
    folder = tiny_folders("int8-plain")
    past = folder.prompt(PROMPT)
    together, _ = folder.classify(ROWS, past, LABELS)
    alone = np.concatenate([folder.classify([row], past, LABELS)[0] for row in ROWS])
    assert np.abs(together - alone).max() < 2e-2


def test_rows_may_be_read_at_several_positions_and_in_any_order(tiny_folders, tiny_reference):
    folder = tiny_folders("fp32")
    row = ROWS[0]
    feeds = folder.prompt(PROMPT) | {
        "input_ids": np.array([row, row]),
        "logit_positions": np.array([len(row) + 4, 2, 4]),
        "label_ids": np.array(LABELS),
    }
    logits, _ = folder.classify_session.run(None, feeds)
    expected = tiny_reference.logits(PROMPT + row)[len(PROMPT) :][[4, 2, 4]][:, LABELS]
    assert np.abs(logits - expected).max() < 1e-4


def test_log_normalizer_survives_large_logits(tiny, tmp_path):
    loud = replace(tiny, read=lambda name: tiny.read(name) * (100 if name == "lm_head.weight" else 1))
    export(loud, tmp_path / "loud", Options())
    folder = Folder(tmp_path / "loud")
    logits, normalizers = folder.classify(ROWS, folder.empty_past(), range(VOCAB))
    assert logits.max() > 100  # exp of this overflows float32
    assert np.isfinite(normalizers).all() and (normalizers >= logits.max(axis=1)).all()


@pytest.mark.parametrize("precision", BOUNDS)
def test_graphs_use_standard_operators_and_share_one_weight_file(tiny_folders, precision):
    folder = tiny_folders(precision)
    references = {}
    for name in ("classify.onnx", "full.onnx"):
        model = onnx.load(folder.path / name, load_external_data=False)
        assert [(opset.domain, opset.version <= 23) for opset in model.opset_import] == [("", True)]
        assert {node.domain for node in model.graph.node} == {""}
        external = [t for t in model.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]
        references[name] = {t.name: {e.key: e.value for e in t.external_data} for t in external}
    assert references["classify.onnx"] == references["full.onnx"]
    locations = {reference["location"] for reference in references["full.onnx"].values()}
    assert locations == {"weights.bin"}


def test_inputs_and_outputs_are_those_of_the_contracts(tiny_folders):
    folder = tiny_folders("fp16")
    cache = [f"past_key_values.{layer}.{part}" for layer in (0, 1) for part in ("key", "value")]
    classify, full = folder.classify_session, folder.full_session
    assert [i.name for i in classify.get_inputs()] == ["input_ids", *cache, "logit_positions", "label_ids"]
    assert {i.name: i.shape for i in classify.get_inputs()}[cache[0]] == [1, 2, "past", 16]
    assert {o.name: o.shape for o in classify.get_outputs()} == {
        "logits": ["rows", "labels"],
        "log_normalizer": ["rows"],
    }
    assert [i.name for i in full.get_inputs()] == ["input_ids", "attention_mask", "position_ids", *cache]
    assert full.get_outputs()[0].shape == ["batch", "seq", folder.config["vocab_size"]]
    assert full.get_outputs()[1].shape == ["batch", 2, "total", 16]
    assert {i.type for i in full.get_inputs() if i.name in cache} == {"tensor(float16)"}
    assert {o.type for o in full.get_outputs()[1:]} == {"tensor(float16)"}


def test_the_operators_graph_multiplies_by_the_turned_weights_within_half_a_step(tiny, tmp_path):
    export(tiny, tmp_path / "out", Options(precisions=("int8",)))
    graph = onnx.load(tmp_path / "out" / "classify.onnx").graph
    operators = [node.op_type for node in graph.node if node.domain == "moderato"]
    assert {name: operators.count(name) for name in operators} == {
        "AddNormQuantize": 5,
        "CascadeAttention": 2,
        "SwiGluQuantize": 2,
    }
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    joined = {
        "self_attn.qkv_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        "self_attn.o_proj": ("self_attn.o_proj",),
        "mlp.gate_up_proj": ("mlp.gate_proj", "mlp.up_proj"),
        "mlp.down_proj": ("mlp.down_proj",),
    }
    turn = rotation.residual(tiny.shape.hidden)
    assert np.abs(turn @ turn.T - np.eye(len(turn))).max() < 1e-12
    norms = {"self_attn.qkv_proj": "input_layernorm", "mlp.gate_up_proj": "post_attention_layernorm"}
    for name, parts in joined.items():
        matrices = [tiny.read(f"model.layers.1.{part}.weight") for part in parts]
        if len(parts) == 3:
            matrices[0] = matrices[0] / np.sqrt(tiny.shape.head_dim)
        matrix = np.concatenate(matrices)
        if name in norms:
            matrix = matrix * tiny.read(f"model.layers.1.{norms[name]}.weight") @ turn
        else:
            matrix = turn.T @ matrix
        if name == "mlp.down_proj":
            matrix = np.linalg.solve(mixing(tiny.shape.ffn).T, matrix.T).T
        scale = stored[f"model.layers.1.{name}.weight.turned.scale"]
        error = stored[f"model.layers.1.{name}.weight.turned.int8"] * scale - matrix.T
        assert np.all(np.abs(error) <= 0.5001 * scale)


def mixing(width):
    """What the gate's operator multiplies a row by: sums and differences of channels 16, 32, ... apart."""
    count = rotation.mixed(width)
    matrix = np.kron(rotation.hadamard(count), np.eye(16)) if count > 1 else np.eye(width)
    return np.kron(np.eye(width // len(matrix)), matrix)


@pytest.mark.parametrize("width", [16, 72, 576, 1536, 4096])
def test_every_width_has_a_turn_and_a_mix_that_can_be_undone(width):
    turn = rotation.residual(width)
    assert np.abs(turn @ turn.T - np.eye(width)).max() < 1e-12
    random = np.random.RandomState(0)
    row, matrix = random.standard_normal((1, width)), random.standard_normal((3, width))
    assert np.allclose(row @ mixing(width) @ rotation.unmix(matrix).T, row @ matrix.T)


def test_an_int8_graph_may_stand_beside_float_with_and_without_operators(tiny, tmp_path):
    export(tiny, tmp_path / "out", Options(precisions=("fp32", "int8", "int8-plain")))
    domains = {}
    for name in ("classify", "classify.int8", "classify.int8-plain"):
        model = onnx.load(tmp_path / "out" / f"{name}.onnx", load_external_data=False)
        domains[name] = sorted(entry.domain for entry in model.opset_import)
    assert domains == {
        "classify": [""],
        "classify.int8": ["", "com.microsoft", "moderato"],
        "classify.int8-plain": [""],
    }
