"""The fp32 answers that every engine is held against: the same graph as the naive worker's, its prompt run once."""

from onnx_session import VERSION, FullGraph
from serve import Task, serve


class Reference:
    version = VERSION

    def __init__(self, task: Task):
        self._labels, self._graph = task.labels, FullGraph(task.model)
        self._past = self._graph.past_of(task.prompt)

    def judge(self, rows):
        return [self._graph.last_logits(row, self._past)[self._labels] for row in rows]


if __name__ == "__main__":
    serve(Reference)
