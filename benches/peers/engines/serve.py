"""How an engine talks with the comparison: one process, one thread, lines of JSON.

An engine is a class with `judge(rows)`: the label logits of a batch of rows, each the ids of one post and the prompt's
tail.
The first line printed tells that it is ready. Then each line read, {"rows": [...], "batch": 8}, is one pass, and each
line printed its measure. Everything else that an engine prints goes to standard error.
"""

import json
import os
import statistics
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

# A thread counts as having worked if it took this part of a pass's CPU time.
WORKED = 0.02


class LeftOut(Exception):
    """Raised by an engine that cannot take part; its words go into the table as they are."""


@dataclass(frozen=True)
class Task:
    """What every engine is given alike."""

    prompt: list[int]
    labels: list[int]
    model: Path  # moderato's model folder
    forms: Path  # the same model in the other engines' forms
    settings: dict  # what the roster says of this row


def serve(engine_class) -> None:
    """Runs an engine's file: `python FILE TASK.json`."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def reply(message: dict) -> None:
        print(json.dumps(message), file=replies, flush=True)

    try:
        engine = engine_class(read_task(Path(sys.argv[1])))
        reply({"ready": True, "version": engine.version})
        for line in sys.stdin:
            request = json.loads(line)
            if hasattr(engine, "measure"):  # the worker measures itself
                reply(engine.measure(request))
            elif hasattr(engine, "draft"):
                reply(measure_draft(engine, request["rows"], request["tokens"]))
            else:
                reply(measure(engine, request["rows"], request["batch"]))
    except LeftOut as reason:
        reply({"error": str(reason)})
    except Exception as error:  # whatever stops a peer is told in the table, not here
        traceback.print_exc()
        reply({"error": " ".join(f"{type(error).__name__}: {error}".split())[:300]})


def read_task(path: Path) -> Task:
    task = json.loads(path.read_text())
    return Task(task["prompt"], task["labels"], Path(task["model"]), Path(task["forms"]), task["settings"])


def measure(engine, rows: list[list[int]], batch: int) -> dict:
    """One pass. A row's latency is the time that its batch took."""
    logits, latencies = [], []
    threads, cpu, wall = thread_times(), time.process_time(), time.perf_counter()
    for start in range(0, len(rows), batch):
        some = rows[start : start + batch]
        began = time.perf_counter()
        logits += [[float(value) for value in row] for row in engine.judge(some)]
        latencies += [time.perf_counter() - began] * len(some)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    spent = {thread: ticks - threads.get(thread, 0) for thread, ticks in thread_times().items()}
    worked = sum(ticks > WORKED * sum(spent.values()) for ticks in spent.values())
    return {"wall": wall, "cpu": cpu, "threads": worked, "logits": logits, "p50": statistics.median(latencies)}


def measure_draft(engine, rows: list[list[int]], tokens: int) -> dict:
    """So many tokens for each row, less what the first of them took: that is the rows' own run."""

    def spent(count: int) -> tuple[float, float]:
        cpu, wall = time.process_time(), time.perf_counter()
        engine.draft(rows, count)
        return time.process_time() - cpu, time.perf_counter() - wall

    if engine.remembers:  # both calls are to find the same in its cache
        spent(1)
    short, whole = spent(1), spent(tokens)
    return {"tokens": (tokens - 1) * len(rows), "cpu": whole[0] - short[0], "wall": whole[1] - short[1]}


def thread_times() -> dict[str, int]:
    """CPU ticks of every thread of this process."""
    times = {}
    for path in Path("/proc/self/task").iterdir():
        # After the name, which may hold anything but ends in the last bracket.
        fields = (path / "stat").read_text().rpartition(")")[2].split()
        times[path.name] = int(fields[11]) + int(fields[12])
    return times
