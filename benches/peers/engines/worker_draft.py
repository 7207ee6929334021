"""moderato writing: its program's `bench --task draft`, one run a pass."""

import json
import tempfile
from pathlib import Path

import program
from serve import Task, serve


class Worker:
    def __init__(self, task: Task):
        self._task = task
        self.version = program.version()

    def measure(self, request: dict) -> dict:
        with tempfile.TemporaryDirectory() as name:
            config = program.write_config(Path(name), self._task.model.with_name(program.DRAFT_MODEL))
            told = json.loads(program.draft(config, self._task.settings["precision"], request))
        one = told["measurements"][0]
        return {"tokens": one["tokens"], "cpu": one["cpu_seconds"], "wall": one["tokens"] / one["tokens_per_second"]}


if __name__ == "__main__":
    serve(Worker)
