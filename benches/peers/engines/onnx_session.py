"""ONNX Runtime as a Python user has it, on one thread."""

from pathlib import Path

import numpy as np
import onnxruntime

VERSION = f"ONNX Runtime {onnxruntime.__version__}"


def session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


class FullGraph:
    """full.onnx: the decoder as Hugging Face's tools export it, one row at a time."""

    def __init__(self, folder: Path):
        self._session = session(folder / "full.onnx")
        self._past = {
            value.name: np.zeros((1, value.shape[1], 0, value.shape[3]), np.float32)
            for value in self._session.get_inputs()
            if value.name.startswith("past_key_values.")
        }

    def past_of(self, ids: list[int]) -> dict[str, np.ndarray]:
        """The keys and values of these ids, named as a past."""
        names = [value.name for value in self._session.get_outputs() if value.name.startswith("present.")]
        arrays = self._session.run(names, self._feeds(ids, self._past))
        return {name.replace("present.", "past_key_values."): array for name, array in zip(names, arrays)}

    def last_logits(self, ids: list[int], past: dict[str, np.ndarray] | None = None) -> np.ndarray:
        (logits,) = self._session.run(["logits"], self._feeds(ids, past or self._past))
        return logits[0, -1]

    def _feeds(self, ids: list[int], past: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        before = next(iter(past.values())).shape[2]
        return past | {
            "input_ids": np.array([ids], np.int64),
            "attention_mask": np.ones((1, before + len(ids)), np.int64),
            "position_ids": np.arange(before, before + len(ids), dtype=np.int64)[None],
        }
