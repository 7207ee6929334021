"""transformers with torch: as its documentation shows it, and with a prompt cache made by hand.

Settings: `dtype`, float32 or bfloat16; `shared`, whether the prompt's keys and values are kept and lent to each batch.
"""

import torch
import transformers
from serve import Task, serve
from transformers import AutoModelForCausalLM, DynamicCache


class Transformers:
    version = f"transformers {transformers.__version__}, torch {torch.__version__.partition('+')[0]}"

    def __init__(self, task: Task):
        torch.set_num_threads(1)
        torch.set_num_interop_threads(1)
        self._prompt, self._labels = task.prompt, task.labels
        dtype = getattr(torch, task.settings["dtype"])
        self._model = AutoModelForCausalLM.from_pretrained(task.forms / "huggingface", dtype=dtype).eval()
        self._label_rows = self._model.lm_head.weight[task.labels]
        self.judge = self._shared if task.settings["shared"] else self._naive
        if task.settings["shared"]:
            with torch.inference_mode():
                cache = self._model.model(torch.tensor([task.prompt]), use_cache=True).past_key_values
            self._layers = [(layer.keys, layer.values) for layer in cache.layers]

    @torch.inference_mode()
    def _naive(self, rows):
        return [self._model(torch.tensor([self._prompt + row])).logits[0, -1, self._labels] for row in rows]

    @torch.inference_mode()
    def _shared(self, rows):
        """Rows are padded on the right, where causality keeps the padding out; only the label rows of the head run."""
        width, count = max(map(len, rows)), len(rows)
        cache = DynamicCache()
        for index, (keys, values) in enumerate(self._layers):
            cache.update(keys.expand(count, -1, -1, -1), values.expand(count, -1, -1, -1), index)
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
        hidden = self._model.model(ids, past_key_values=cache).last_hidden_state
        last = hidden[torch.arange(count), torch.tensor([len(row) - 1 for row in rows])]
        return (last @ self._label_rows.T).float()


if __name__ == "__main__":
    serve(Transformers)
