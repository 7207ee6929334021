"""onnxruntime-genai writing: a batch of sequences over one past and present buffer, greedily."""

import numpy as np
import onnxruntime
import onnxruntime_genai as genai
from serve import Task, serve


class Genai:
    remembers = False
    version = f"onnxruntime-genai {genai.__version__}, ONNX Runtime {onnxruntime.__version__}"

    def __init__(self, task: Task):
        self._prompt = task.prompt
        self._model = genai.Model(str(task.forms / f"genai-draft-{task.settings['precision']}"))

    def draft(self, rows, tokens):
        texts = [self._prompt + row for row in rows]
        length = len(texts[0]) + tokens
        parameters = genai.GeneratorParams(self._model)
        # With the least length at the most, no end token ends a sequence.
        parameters.set_search_options(max_length=length, min_length=length, batch_size=len(rows), do_sample=False)
        generator = genai.Generator(self._model, parameters)
        generator.append_tokens(np.array(texts if len(texts) > 1 else texts[0], np.int32))
        for _ in range(tokens):
            generator.generate_next_token()


if __name__ == "__main__":
    serve(Genai)
