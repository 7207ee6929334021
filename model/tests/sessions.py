"""Runs a model folder's graphs in ONNX Runtime, in the terms of the two contracts."""

import json
from pathlib import Path

import numpy as np
import onnxruntime as ort

ort.set_default_logger_severity(3)


class Folder:
    """Both graphs of one folder, on one thread."""

    def __init__(self, path: Path):
        self.path = path
        self.config = json.loads((path / "config.json").read_text())
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.classify_session, self.full_session = (
            ort.InferenceSession(path / name, options, providers=["CPUExecutionProvider"])
            for name in ("classify.onnx", "full.onnx")
        )
        kind = next(i.type for i in self.classify_session.get_inputs() if i.name == "past_key_values.0.key")
        self.dtype = {"tensor(float)": np.float32, "tensor(float16)": np.float16}[kind]

    def empty_past(self, batch: int = 1) -> dict[str, np.ndarray]:
        heads = self.config["num_key_value_heads"]
        size = self.config.get("head_dim") or self.config["hidden_size"] // self.config["num_attention_heads"]
        empty = np.zeros((batch, heads, 0, size), self.dtype)
        layers = range(self.config["num_hidden_layers"])
        return {f"past_key_values.{layer}.{part}": empty for layer in layers for part in ("key", "value")}

    def full(self, ids, past: dict | None = None, mask=None, positions=None) -> tuple[np.ndarray, dict]:
        """Logits of every token, and the cache extended by these tokens."""
        ids = np.asarray(ids, np.int64)
        past = past or self.empty_past(len(ids))
        start, length = past["past_key_values.0.key"].shape[2], ids.shape[1]
        mask = np.ones((len(ids), start + length), np.int64) if mask is None else mask
        positions = np.tile(np.arange(start, start + length), (len(ids), 1)) if positions is None else positions
        feeds = past | {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
        logits, *present = self.full_session.run(None, feeds)
        names = [output.name.replace("present", "past_key_values") for output in self.full_session.get_outputs()[1:]]
        return logits, dict(zip(names, present, strict=True))

    def prompt(self, ids) -> dict:
        """The cache of one prompt; empty for no prompt."""
        return self.full([ids])[1] if len(ids) else self.empty_past()

    def classify(self, rows: list, past: dict, labels, filler: int = 0, width: int = 0):
        """Label logits and log-normalisers of rows of any lengths, padded on the right with `filler`."""
        width = max(width, *map(len, rows))
        ids = np.full((len(rows), width), filler, np.int64)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = row
        last = np.array([index * width + len(row) - 1 for index, row in enumerate(rows)], np.int64)
        feeds = past | {"input_ids": ids, "logit_positions": last, "label_ids": np.asarray(labels, np.int64)}
        return self.classify_session.run(["logits", "log_normalizer"], feeds)


def expanded(past: dict, batch: int) -> dict:
    return {name: np.repeat(tensor, batch, axis=0) for name, tensor in past.items()}
