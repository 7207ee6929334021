"""moderato itself: its program's `bench` verb, one run a pass.

A run loads the model anew; its own measure begins after that. The rows come as posts, in text.
"""

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
            folder = Path(name)
            posts, scores = folder / "posts.jsonl", folder / "scores.jsonl"
            posts.write_text("".join(json.dumps(post) + "\n" for post in request["posts"]))
            config = program.write_config(folder, self._task.model)
            precision = self._task.settings["precision"]
            told = json.loads(program.bench(config, posts, "--precisions", precision, "--scores", scores, "--json"))
            logits = [json.loads(line)["logits"] for line in scores.read_text().splitlines()]
        count = len(logits)
        return {
            "wall": count / told["posts_per_second"],
            "cpu": count / told["posts_per_cpu_second"],
            "threads": told["instances"],
            "logits": logits,
            "p50": told["latency_ms"]["p50"] / 1000,
        }


if __name__ == "__main__":
    serve(Worker)
