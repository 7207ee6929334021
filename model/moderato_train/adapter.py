"""Adapters on disk, in PEFT's form: what PEFT trains can be merged here, and what is trained here PEFT can load."""

import hashlib
import json
from pathlib import Path

import torch
from moderato_model.errors import ExportError
from moderato_model.lora import CONFIG, WEIGHTS
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from .llama import PARTS, Llama

CARD = "training.json"


def load(model: Llama, folder: Path) -> dict:
    """The adapter of `folder` in place of the model's new one; gives its card."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        rank, alpha, tensors = config["r"], config["lora_alpha"], load_file(folder / WEIGHTS)
    except (OSError, ValueError, KeyError, SafetensorError) as fault:
        raise ExportError(f"{folder}: no adapter to begin with ({fault!r}); it has {CONFIG} and {WEIGHTS}") from fault
    shapes = {name: weight.shape for name, weight in model.trainable.items()}
    if {name: weight.shape for name, weight in tensors.items()} != shapes or alpha != model.lora.alpha:
        ours = f"--rank {model.lora.rank} --first-layer {model.lora.first_layer}"
        theirs = f"r {rank}, lora_alpha {alpha}, layers {min(config.get('layers_to_transform') or [0])} and up"
        raise ExportError(f"{folder}: an adapter of another form ({theirs}) than {ours} makes; give its rank and first layer")
    for name, weight in tensors.items():
        model.trainable[name].data.copy_(weight)
    card = folder / CARD
    return json.loads(card.read_text(encoding="utf-8")) if card.is_file() else {}


def save(model: Llama, folder: Path, base: str, card: dict) -> None:
    """Matrices as float16: half the size, and far finer than what training moves."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: weight.detach().to("cpu", torch.float16).contiguous() for name, weight in model.trainable.items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": model.lora.rank,
        "lora_alpha": model.lora.alpha,
        "lora_dropout": model.lora.dropout,
        "target_modules": [part.split(".")[1] for part in PARTS],
        "layers_to_transform": list(range(model.lora.first_layer, model.shape.layers)),
        "bias": "none",
        "inference_mode": True,
    }
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    digest = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    text = json.dumps({"sha256": digest} | card, indent=2, ensure_ascii=False)
    (folder / CARD).write_text(text + "\n", encoding="utf-8")
