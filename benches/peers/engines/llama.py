"""llama.cpp through llama-cpp-python's bindings of its C interface.

The prompt is decoded once as sequence 0; each post gets a sequence of its own that shares the prompt's cells
(seq_cp, unified cache), and a batch is one llama_decode.
"""

import llama_cpp as llama
import numpy as np
from serve import Task, serve

MOST_ROWS = 32
ROW_TOKENS = 64


class Llama:
    version = f"llama.cpp of llama-cpp-python {llama.__version__}"

    def __init__(self, task: Task):
        self._prompt, self._labels = task.prompt, task.labels
        llama.llama_backend_init()
        # Kept: the library calls it as long as it lives.
        self._silence = llama.llama_log_callback(lambda level, text, data: None)
        llama.llama_log_set(self._silence, None)
        path = task.forms / f"{task.settings['weights']}.gguf"
        parameters = llama.llama_model_default_params()
        parameters.use_mmap = False  # mapped weights are not repacked for this processor
        model = llama.llama_model_load_from_file(str(path).encode(), parameters)
        if not model:
            raise RuntimeError(f"{path.name} was not loaded")
        self._vocabulary = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))
        self._context = llama.llama_init_from_model(model, context_settings(len(task.prompt)))
        self._memory = llama.llama_get_memory(self._context)
        self._decode([(token, place, 0, False) for place, token in enumerate(task.prompt)])

    def judge(self, rows):
        start = len(self._prompt)
        items, last = [], []
        for sequence, row in enumerate(rows, 1):
            llama.llama_memory_seq_rm(self._memory, sequence, -1, -1)
            llama.llama_memory_seq_cp(self._memory, 0, sequence, 0, start)
            end = len(row) - 1
            items += [(token, start + place, sequence, place == end) for place, token in enumerate(row)]
            last.append(len(items) - 1)
        self._decode(items)
        return [self._logits(index)[self._labels] for index in last]

    def _decode(self, items: list[tuple[int, int, int, bool]]) -> None:
        """One llama_decode of (token, place, sequence, whether its logits are wanted)."""
        batch = llama.llama_batch_init(len(items), 0, 1)
        batch.n_tokens = len(items)
        for index, (token, place, sequence, wanted) in enumerate(items):
            batch.token[index], batch.pos[index], batch.logits[index] = token, place, wanted
            batch.n_seq_id[index], batch.seq_id[index][0] = 1, sequence
        status = llama.llama_decode(self._context, batch)
        llama.llama_batch_free(batch)
        if status != 0:
            raise RuntimeError(f"llama_decode answered {status}")

    def _logits(self, index: int) -> np.ndarray:
        pointer = llama.llama_get_logits_ith(self._context, index)
        return np.ctypeslib.as_array(pointer, (self._vocabulary,))


def context_settings(prompt: int):
    """Room for the prompt and the rows of one batch, no more: attention passes over all of it.

    Flash attention is left to the library, which turns it on: without it one post alone is faster, and eight
    together are slower than with it.
    """
    settings = llama.llama_context_default_params()
    settings.n_ctx = settings.n_batch = prompt + MOST_ROWS * ROW_TOKENS
    settings.n_seq_max = MOST_ROWS + 1
    settings.n_threads = settings.n_threads_batch = 1
    settings.kv_unified = True
    return settings


if __name__ == "__main__":
    serve(Llama)
