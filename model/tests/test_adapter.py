"""Adapters: what is merged is what PEFT would merge, and what cannot be merged is refused with the reason."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from moderato_model.checkpoint import layer_tensor
from moderato_model.errors import ExportError
from moderato_model.lora import merged

QUERY = "base_model.model.model.layers.1.self_attn.q_proj"


def adapter(folder, tiny, config=(), **tensors):
    """Rank 2 on one weight; `config` and `tensors` change it."""
    random = np.random.default_rng(5)
    out, width = tiny.read(layer_tensor(1, "self_attn.q_proj")).shape
    halves = {
        f"{QUERY}.lora_A.weight": random.standard_normal((2, width)).astype(np.float16),
        f"{QUERY}.lora_B.weight": random.standard_normal((out, 2)).astype(np.float16),
    } | tensors
    folder.mkdir(exist_ok=True)
    save_file({name: half for name, half in halves.items() if half is not None}, folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 6, "bias": "none"} | dict(config)
    (folder / "adapter_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def test_the_product_is_added_to_its_weight_and_to_no_other(tiny, tmp_path):
    folder = adapter(tmp_path / "a", tiny)
    tuned = merged(tiny, folder)
    from safetensors.numpy import load_file

    halves = load_file(folder / "adapter_model.safetensors")
    a, b = (halves[f"{QUERY}.lora_{half}.weight"].astype(np.float64) for half in "AB")
    name = layer_tensor(1, "self_attn.q_proj")
    np.testing.assert_allclose(tuned.read(name), tiny.read(name) + 3.0 * (b @ a), atol=1e-4)
    for name in (layer_tensor(0, "self_attn.q_proj"), layer_tensor(1, "mlp.up_proj"), "model.norm.weight"):
        np.testing.assert_array_equal(tuned.read(name), tiny.read(name))


def test_another_adapter_is_another_source(tiny, tmp_path):
    first = merged(tiny, adapter(tmp_path / "a", tiny)).source
    second = merged(tiny, adapter(tmp_path / "b", tiny, config={"lora_alpha": 7})).source
    assert len({tiny.source.sha256, first.sha256, second.sha256}) == 3


def test_rank_stabilised_adapters_have_their_own_scale(tiny, tmp_path):
    name = layer_tensor(1, "self_attn.q_proj")
    plain = merged(tiny, adapter(tmp_path / "a", tiny)).read(name) - tiny.read(name)
    stable = merged(tiny, adapter(tmp_path / "b", tiny, config={"use_rslora": True})).read(name) - tiny.read(name)
    np.testing.assert_allclose(stable, plain * np.sqrt(2), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"peft_type": "IA3"}, "peft_type"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"bias": "all"}, "bias"),
    ],
)
def test_what_is_not_plain_lora_is_refused(tiny, tmp_path, config, words):
    with pytest.raises(ExportError, match=words):
        merged(tiny, adapter(tmp_path / "a", tiny, config=config))


def test_an_adapter_of_another_model_is_refused(tiny, tmp_path):
    wide = np.zeros((2, 999), np.float16)
    with pytest.raises(ExportError, match="adapter of another model"):
        merged(tiny, adapter(tmp_path / "a", tiny, **{f"{QUERY}.lora_A.weight": wide}))
    with pytest.raises(ExportError, match="belongs to no weight"):
        merged(tiny, adapter(tmp_path / "b", tiny, **{"base_model.model.model.layers.99.x.lora_A.weight": wide}))
    with pytest.raises(ExportError, match="belongs to no weight"):
        merged(tiny, adapter(tmp_path / "c", tiny, **{f"{QUERY}.lora_B.weight": None}))


def test_a_folder_without_an_adapter_says_what_is_missing(tiny, tmp_path):
    with pytest.raises(ExportError, match="adapter_config.json"):
        merged(tiny, tmp_path)
