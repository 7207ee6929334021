"""moderato's `classify` graph without moderato: what the graph alone is worth."""

import numpy as np
from onnx_session import VERSION, FullGraph, session
from serve import Task, serve


class Cascade:
    version = VERSION

    def __init__(self, task: Task):
        self._labels = np.array(task.labels, np.int64)
        self._past = FullGraph(task.model).past_of(task.prompt)
        self._session = session(task.model / "classify.onnx")

    def judge(self, rows):
        width = max(map(len, rows))
        ids = np.array([row + [0] * (width - len(row)) for row in rows], np.int64)
        last = np.array([index * width + len(row) - 1 for index, row in enumerate(rows)], np.int64)
        feeds = self._past | {"input_ids": ids, "logit_positions": last, "label_ids": self._labels}
        return self._session.run(["logits"], feeds)[0]


if __name__ == "__main__":
    serve(Cascade)
