"""OpenVINO GenAI: continuous batching over paged attention, with its own prefix cache.

Its interface shows the token it generates and that token's log-probability, so a constant is added behind the head
that leaves only the labels' tokens standing: the first token is then its label, and the probability is among the
labels. 49,152 additions a post cost nothing beside the head itself.
Settings: `weights`, the GGUF type that its model was made from; `precision`, its hint for the arithmetic.
"""

import shutil
import tempfile
from pathlib import Path

import numpy as np
import openvino
import openvino_genai
from openvino import opset13 as ops
from serve import Task, serve

MODEL = "openvino_model.xml"


class OpenVino:
    version = f"OpenVINO GenAI {openvino_genai.__version__.partition('-')[0]}"

    def __init__(self, task: Task):
        self._prompt, self._labels = task.prompt, task.labels
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.enable_prefix_caching = True
        scheduler.cache_size = 1  # GiB
        scheduler.max_num_batched_tokens = 4096
        scheduler.max_num_seqs = 64
        self._config = openvino_genai.GenerationConfig()
        self._config.max_new_tokens = 1
        self._config.ignore_eos = True
        self._config.logprobs = 1
        hints = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": task.settings["precision"]}
        with tempfile.TemporaryDirectory() as folder:
            only_labels(task.forms / f"openvino-{task.settings['weights']}", Path(folder), task.labels)
            self._pipeline = openvino_genai.ContinuousBatchingPipeline(folder, scheduler, "CPU", hints)

    def judge(self, rows):
        ids = [openvino.Tensor(np.array([self._prompt + row], np.int64)) for row in rows]
        results = self._pipeline.generate(ids, [self._config] * len(rows))
        return [self._logits(result.m_generation_ids[0][0], result.m_scores[0]) for result in results]

    def _logits(self, token: int, log_probability: float) -> list[float]:
        """Exact for the label chosen; what is left is shared out evenly among the others."""
        chosen = self._labels.index(token)
        rest = max(1 - np.exp(log_probability), 1e-9) / (len(self._labels) - 1)
        return [log_probability if index == chosen else np.log(rest) for index in range(len(self._labels))]


def only_labels(source: Path, target: Path, labels: list[int]) -> None:
    """Copies a model folder; in the copy every token but the labels' has a very low logit."""
    for path in source.iterdir():
        if not path.name.startswith("openvino_model"):
            shutil.copy(path, target)
    model = openvino.Core().read_model(source / MODEL)
    result = next(result for result in model.get_results() if "logits" in result.input(0).get_tensor().get_names())
    logits = result.input_value(0)
    bias = np.full((1, 1, logits.get_partial_shape()[2].get_length()), -1e4, np.float32)
    bias[..., labels] = 0
    masked = ops.add(logits, ops.constant(bias))
    logits.get_tensor().set_names(set())
    masked.output(0).get_tensor().set_names({"logits"})
    result.input(0).replace_source_output(masked.output(0))
    openvino.save_model(model, target / MODEL, compress_to_fp16=False)


if __name__ == "__main__":
    serve(OpenVino)
