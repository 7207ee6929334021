"""The worker that one would write first: the whole prompt and one post through the graph, for every post."""

from onnx_session import VERSION, FullGraph
from serve import Task, serve


class Naive:
    version = VERSION

    def __init__(self, task: Task):
        self._task, self._graph = task, FullGraph(task.model)

    def judge(self, rows):
        return [self._graph.last_logits(self._task.prompt + row)[self._task.labels] for row in rows]


if __name__ == "__main__":
    serve(Naive)
