"""A Hugging Face folder as a checkpoint: config.json, safetensors in one file or many, a tokenizer."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from .chat import with_llama2_template
from .checkpoint import Checkpoint, Source, TokenizerFiles, combined_sha256, sha256_of
from .errors import ExportError
from .sentencepiece import read_tokenizer_model, sentencepiece_tokenizer

FLOAT_TYPES = ("F32", "F16", "BF16", "F64")
INDEX = "model.safetensors.index.json"


def open_folder(folder: Path) -> Checkpoint:
    config = read_json(folder / "config.json")
    places = _locate_tensors(folder)
    shards = sorted(set(places.values()))

    def read(name: str) -> np.ndarray:
        # Opened for each tensor: a mapping kept open would count every page read as ours.
        with safe_open(places[name], "numpy") as shard:
            return shard.get_tensor(name).astype(np.float32, copy=False)

    digests = [(path.name, sha256_of(path)) for path in (folder / "config.json", *shards)]
    return Checkpoint(
        config=config,
        source=Source("huggingface", folder.resolve().name, combined_sha256(digests)),
        make_tokenizer=lambda: _tokenizer(folder),
        tensor_names=frozenset(places),
        read=read,
        name=folder.resolve().name,
    )


def read_json(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ExportError(f"{path}: no such file; a Hugging Face checkpoint has one") from None
    except ValueError as error:
        raise ExportError(f"{path}: not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ExportError(f"{path}: a JSON object is expected")
    return content


def _locate_tensors(folder: Path) -> dict[str, Path]:
    """The file that holds each tensor."""
    if (folder / INDEX).is_file():
        weight_map = read_json(folder / INDEX).get("weight_map", {})
        shards = sorted({folder / name for name in weight_map.values()})
    else:
        shards = sorted(folder.glob("*.safetensors"))
    if not shards:
        hint = "convert pytorch_model.bin to safetensors first" if any(folder.glob("*.bin")) else "none found"
        raise ExportError(f"{folder}: weights are read from *.safetensors; {hint}")
    places: dict[str, Path] = {}
    for shard in shards:
        if not shard.is_file():
            raise ExportError(f"{shard}: named by {INDEX} and not there; the download is incomplete")
        for name in _names(shard):
            places[name] = shard
    return places


def _names(shard: Path) -> list[str]:
    try:
        with safe_open(shard, "numpy") as file:
            for name in file.keys():
                kind = file.get_slice(name).get_dtype()
                if kind not in FLOAT_TYPES:
                    raise ExportError(f"{shard}: {name} has type {kind}; quantised checkpoints are not supported")
            return list(file.keys())
    except SafetensorError as error:
        raise ExportError(f"{shard}: not a readable safetensors file: {error}") from error


def _tokenizer(folder: Path) -> TokenizerFiles:
    """tokenizer.json as it is, or made from tokenizer.model; the config with plain strings for tokens."""
    if (folder / "tokenizer.json").is_file():
        text = (folder / "tokenizer.json").read_text(encoding="utf-8")
        vocabulary = read_json(folder / "tokenizer.json").get("model", {}).get("vocab", {})
        tokens = sorted(vocabulary, key=vocabulary.get) if isinstance(vocabulary, dict) else []
        defaults = {}
    elif (folder / "tokenizer.model").is_file():
        pieces = read_tokenizer_model(folder / "tokenizer.model")
        text = sentencepiece_tokenizer(pieces)
        tokens = [piece.text for piece in pieces.pieces]
        roles = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
        defaults = {"tokenizer_class": "LlamaTokenizer"} | {k: v for k, v in roles.items() if v in tokens}
    else:
        raise ExportError(f"{folder}: neither tokenizer.json nor tokenizer.model; copy one of them in")
    return TokenizerFiles(text, with_llama2_template(defaults | _tokenizer_config(folder), tokens))


def _tokenizer_config(folder: Path) -> dict:
    config: dict = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            config |= read_json(folder / name)
    for key, value in config.items():
        if key.endswith("_token") and isinstance(value, Mapping):
            config[key] = value.get("content")
    template = folder / "chat_template.jinja"
    if template.is_file():
        config["chat_template"] = template.read_text(encoding="utf-8")
    if isinstance(config.get("chat_template"), list):
        named = {entry["name"]: entry["template"] for entry in config["chat_template"]}
        config["chat_template"] = named.get("default")
    return config
