"""A LoRA adapter in PEFT's form, merged into a checkpoint: W + scale * B @ A, tensor by tensor as they are read."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
from safetensors import safe_open

from .checkpoint import Checkpoint, Source, combined_sha256, sha256_of
from .errors import ExportError

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
# Settings of PEFT that change the sum, with the values under which it is plain LoRA.
PLAIN = {
    "use_dora": (False, None),
    "bias": ("none", None),
    "fan_in_fan_out": (False, None),
    "modules_to_save": (None, []),
    "rank_pattern": (None, {}),
    "alpha_pattern": (None, {}),
}


def merged(checkpoint: Checkpoint, folder: Path) -> Checkpoint:
    """The checkpoint with the adapter of `folder` added to its weights."""
    scale = _scale(folder)
    pairs = _pairs(folder, checkpoint)

    def read(name: str) -> np.ndarray:
        weight = checkpoint.read(name)
        if name not in pairs:
            return weight
        a, b = pairs[name]
        # Sums of float16 products are exact in float64, in any order: such an adapter merges to the same bits everywhere.
        return (weight + scale * (b.astype(np.float64) @ a.astype(np.float64))).astype(np.float32)

    files = [(name, sha256_of(folder / name)) for name in (CONFIG, WEIGHTS)]
    source = checkpoint.source
    digest = combined_sha256([("base", source.sha256), *files])
    name = f"{checkpoint.name}+{folder.name}"
    return replace(checkpoint, name=name, read=read, source=Source(f"{source.kind}+lora", f"{source.ref} + {folder.name}", digest))


def _scale(folder: Path) -> float:
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        rank, alpha = config["r"], config["lora_alpha"]
    except (OSError, ValueError, KeyError) as fault:
        raise ExportError(f"{path}: not the config of a PEFT adapter ({fault!r}); save it with save_pretrained") from fault
    if config.get("peft_type") != "LORA":
        raise ExportError(f"{path}: peft_type is {config.get('peft_type')!r}; only LORA adapters can be merged here")
    for key, values in PLAIN.items():
        if config.get(key) not in values:
            raise ExportError(
                f"{path}: {key} is {config[key]!r}, which is not plain LoRA; merge it with PEFT "
                "(merge_and_unload, save_pretrained) and export the result"
            )
    return alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank


def _pairs(folder: Path, checkpoint: Checkpoint) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Weight name -> (A, B), each checked against the weight that it is for."""
    path = folder / WEIGHTS
    if not path.is_file():
        raise ExportError(f"{path}: missing; an adapter folder has {CONFIG} and {WEIGHTS}")
    with safe_open(path, framework="numpy") as file:
        halves = {name: file.get_tensor(name).astype(np.float32) for name in file.keys()}
    pairs = {}
    for name in sorted(halves):
        if name.endswith(".lora_B.weight"):
            continue
        stem = name.removesuffix(".lora_A.weight")
        target = f"{stem.removeprefix(PREFIX)}.weight"
        a, b = halves[name], halves.get(f"{stem}.lora_B.weight")
        if stem == name or b is None or target not in checkpoint.tensor_names:
            raise ExportError(f"{path}: {name} belongs to no weight of {checkpoint.source.ref}; is it another model's adapter?")
        pairs[target] = (a, b)
    _check_shapes(path, pairs, checkpoint)
    return pairs


def _check_shapes(path: Path, pairs: dict, checkpoint: Checkpoint) -> None:
    """By the sizes of the config, so that no weight is read twice."""
    shape = checkpoint.shape
    sizes = {
        "q_proj": (shape.heads * shape.head_dim, shape.hidden),
        "k_proj": (shape.kv_heads * shape.head_dim, shape.hidden),
        "v_proj": (shape.kv_heads * shape.head_dim, shape.hidden),
        "o_proj": (shape.hidden, shape.heads * shape.head_dim),
        "gate_proj": (shape.ffn, shape.hidden),
        "up_proj": (shape.ffn, shape.hidden),
        "down_proj": (shape.hidden, shape.ffn),
    }
    if not pairs:
        raise ExportError(f"{path}: holds no LoRA matrices")
    for name, (a, b) in pairs.items():
        expected = sizes.get(name.split(".")[-2])
        if expected is None or (b.shape[0], a.shape[1]) != expected or a.shape[0] != b.shape[1]:
            raise ExportError(
                f"{path}: the matrices for {name} are {b.shape} and {a.shape}, which do not make a weight of "
                f"{expected}; is it the adapter of another model?"
            )
