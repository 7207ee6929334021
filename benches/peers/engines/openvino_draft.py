"""OpenVINO GenAI writing: continuous batching over paged attention, greedily; end tokens ignored."""

import numpy as np
import openvino
import openvino_genai
from serve import Task, serve


class OpenVino:
    remembers = True
    version = f"OpenVINO GenAI {openvino_genai.__version__.partition('-')[0]}"

    def __init__(self, task: Task):
        self._prompt = task.prompt
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.enable_prefix_caching = True
        scheduler.cache_size = 1  # GiB
        scheduler.max_num_batched_tokens = 4096
        scheduler.max_num_seqs = 64
        hints = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": task.settings["precision"]}
        folder = task.forms / f"openvino-{task.settings['weights']}"
        self._pipeline = openvino_genai.ContinuousBatchingPipeline(str(folder), scheduler, "CPU", hints)

    def draft(self, rows, tokens):
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = tokens
        config.ignore_eos = True
        ids = [openvino.Tensor(np.array([self._prompt + row], np.int64)) for row in rows]
        results = self._pipeline.generate(ids, [config] * len(rows))
        written = [len(result.m_generation_ids[0]) for result in results]
        assert written == [tokens] * len(rows), written


if __name__ == "__main__":
    serve(OpenVino)
