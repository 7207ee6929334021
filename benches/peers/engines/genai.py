"""onnxruntime-genai: one sequence, rewound to the end of the prompt before each post.

One post at a time: GroupQueryAttention on a CPU takes several new tokens after a past for a batch of one alone.
"""

import numpy as np
import onnxruntime
import onnxruntime_genai as genai
from serve import Task, serve


class Genai:
    version = f"onnxruntime-genai {genai.__version__}, ONNX Runtime {onnxruntime.__version__}"

    def __init__(self, task: Task):
        self._labels, self._start = task.labels, len(task.prompt)
        self._model = genai.Model(str(task.forms / f"genai-{task.settings['precision']}"))
        parameters = genai.GeneratorParams(self._model)
        parameters.set_search_options(max_length=1024, do_sample=False)
        self._generator = genai.Generator(self._model, parameters)
        self._generator.append_tokens(np.array(task.prompt, np.int32))

    def judge(self, rows):
        answers = []
        for row in rows:
            self._generator.rewind_to(self._start)
            self._generator.append_tokens(np.array(row, np.int32))
            answers.append(self._generator.get_logits()[0, -1][self._labels])
        return answers


if __name__ == "__main__":
    serve(Genai)
