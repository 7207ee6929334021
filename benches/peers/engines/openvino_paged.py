"""OpenVINO GenAI: continuous batching over paged attention, with its own prefix cache.

Its interface shows tokens and not logits, so a constant is added behind the head that leaves only the labels'
tokens standing: the first token that it generates is then its label. 49,152 additions a post cost nothing beside
the head itself.
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
        hints = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": task.settings["precision"]}
        with tempfile.TemporaryDirectory() as folder:
            only_labels(task.forms / f"openvino-{task.settings['weights']}", Path(folder), task.labels)
            self._pipeline = openvino_genai.ContinuousBatchingPipeline(folder, scheduler, "CPU", hints)

    def judge(self, rows):
        ids = [openvino.Tensor(np.array([self._prompt + row], np.int64)) for row in rows]
        results = self._pipeline.generate(ids, [self._config] * len(rows))
        return [[float(result.m_generation_ids[0][0] == label) for label in self._labels] for result in results]


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
