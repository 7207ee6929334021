"""Adapters on disk, in PEFT's form: what PEFT trains can be merged here, and what is trained here PEFT can load."""

import hashlib
import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from .llama import PARTS, Llama


def save(model: Llama, folder: Path, base: str, card: dict) -> None:
    """Matrices as float16: half the size, and far finer than what training moves."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: weight.detach().to("cpu", torch.float16).contiguous() for name, weight in model.trainable.items()}
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
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
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    digest = hashlib.sha256((folder / "adapter_model.safetensors").read_bytes()).hexdigest()
    text = json.dumps({"sha256": digest} | card, indent=2, ensure_ascii=False)
    (folder / "training.json").write_text(text + "\n", encoding="utf-8")
