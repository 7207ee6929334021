"""Runs every engine of the roster on the same rows, interleaved in rounds, and writes what came out.

    python compare.py [--quick] [--only WORD]     # called by `run`, which sets up what it needs

Each engine is a process of its own (engines/serve.py). Posts are split among the rounds, so that every engine
judges every post once and none sees a row twice: a prefix cache that also keeps posts gains nothing by it.
"""

import argparse
import contextlib
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import report
import workload
from roster import MODEL, Entry, roster
from workload import ROOT, Workload

HERE = Path(__file__).resolve().parent
FORMS = ROOT / ".cache/peers"
# Rows of a warm-up, one batch.
WARM = 8
# Rows that a batch size is tried on: at least so many, and one batch.
TRIED = 16
# An engine that leaves the machine less than this is ended after each pass and started anew for the next.
SPARE_GIB = 5


@dataclass(frozen=True)
class Plan:
    rounds: int
    posts: int
    naive_rows: int  # a round
    largest_batch: int


FULL = Plan(rounds=3, posts=192, naive_rows=10, largest_batch=32)
QUICK = Plan(rounds=2, posts=64, naive_rows=3, largest_batch=16)


class EngineError(Exception):
    """Why an engine is left out; goes into the table."""


class Engine:
    """One entry's process, started when it is needed."""

    def __init__(self, entry: Entry, work: Workload, texts: list[str], models: Path):
        self.entry, self.version = entry, ""
        self._process: subprocess.Popen | None = None
        self._work, self._texts, self._models = work, texts, models

    def run(self, indices: list[int], batch: int) -> dict:
        """One pass over these posts."""
        self.start()
        measure = self._ask(self._request([self._work.rows[index] for index in indices], indices, batch))
        self.leave_room()
        return measure

    def rehearse(self, batch: int, count: int) -> dict:
        """One pass over rows of the same length that are none of the posts."""
        self.start()
        mixer = random.Random(f"{self.entry.name} {batch} {count}")
        rows = [mixer.sample(row[:-1], len(row) - 1) + row[-1:] for row in self._work.rows[:count]]
        return self._ask(self._request(rows, list(range(count)), batch))

    def stop(self) -> None:
        if self._process:
            with contextlib.suppress(BrokenPipeError):  # it ended before it read the last request
                self._process.stdin.close()
            self._process.wait()
            self._process = None

    def _request(self, rows: list[list[int]], indices: list[int], batch: int) -> dict:
        posts = [{"id": f"bench-{index}", "text": self._texts[index]} for index in indices]
        return {"rows": rows, "posts": posts, "batch": batch}

    def start(self) -> None:
        if self._process:
            return
        with tempfile.NamedTemporaryFile("w", suffix=".json", delete=False) as file:
            task = {"prompt": self._work.prompt, "labels": self._work.labels, "settings": self.entry.settings}
            json.dump(task | {"model": str(self._models / MODEL), "forms": str(FORMS)}, file)
        environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        self._log = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [sys.executable, HERE / "engines" / self.entry.file, file.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=environment,
        )
        try:
            self.version = self._answer()["version"]
        finally:
            os.unlink(file.name)
        if self.entry.file != "worker.py":  # which starts anew for each pass, and warms up by itself
            self.rehearse(WARM, 1 if self.entry.naive else WARM)

    def _ask(self, request: dict) -> dict:
        try:
            print(json.dumps(request), file=self._process.stdin, flush=True)
        except BrokenPipeError:
            pass  # its answer, or the lack of one, says why
        return self._answer()

    def _answer(self) -> dict:
        line = self._process.stdout.readline()
        answer = json.loads(line) if line else {"error": self._last_words()}
        if "error" in answer:
            self.stop()
            raise EngineError(answer["error"])
        return answer

    def _last_words(self) -> str:
        """An engine that died without an answer: its exit status and the last line that it wrote."""
        status = self._process.wait()
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return f"ended with {status}: {lines[-1][:200] if lines else 'it said nothing'}"

    def leave_room(self) -> None:
        if memory_gib("MemAvailable") < SPARE_GIB:
            self.stop()


@dataclass
class Row:
    """What is known of one entry in the end."""

    entry: Entry
    version: str = ""
    skipped: str = ""
    batch: int = 1
    passes: list[dict] = field(default_factory=list)
    logits: dict[int, list[float]] = field(default_factory=dict)  # post -> one for each label


def memory_gib(key: str) -> float:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key + ":")) / 2**20


def cpu_ticks() -> tuple[int, int]:
    """Ticks of the whole machine so far: all, and those that the hypervisor took."""
    fields = [int(value) for value in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return sum(fields), fields[7]


def reference(work: Workload, texts: list[str], models: Path) -> list[list[float]]:
    """fp32 label logits of every row; kept, for they cost a minute and never change."""
    digest = hashlib.sha256(json.dumps(asdict(work)).encode()).hexdigest()[:16]
    kept = FORMS / f"reference-{digest}.json"
    if not kept.exists():
        say("fp32 answers to compare with")
        engine = Engine(Entry("reference", "reference.py", ""), work, texts, models)
        measure = engine.run(list(range(len(work.rows))), 1)
        engine.stop()
        kept.write_text(json.dumps(measure["logits"]))
    return json.loads(kept.read_text())


def make_work(models: Path, count: int) -> tuple[Workload, list[str], str]:
    """The rows, by the worker's own word if it can give it; and who made them."""
    sys.path.insert(0, str(HERE / "engines"))
    import program

    model = models / MODEL
    prompt = workload.Prompt(model)
    texts = workload.texts(prompt)[:count]
    try:
        program.version()
        with tempfile.TemporaryDirectory() as folder:
            posts, dump = Path(folder, "posts.jsonl"), Path(folder, "rows.json")
            workload.write_posts(posts, texts)
            program.bench(program.write_config(Path(folder), model), posts, "--precisions", "fp32", "--dump-rows", dump)
            return workload.read_dump(dump), texts, "moderato bench --dump-rows"
    except program.LeftOut as missing:
        say(f"token ids are made here: {missing}")
        return prompt.workload(texts), texts, "workload.py"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def choose_batch(engine: Engine, largest: int) -> int:
    """The batch size with the most posts a CPU-second in one pass each."""
    rates = {}
    for batch in (size for size in engine.entry.batches if size <= largest):
        count = max(batch, TRIED)
        rates[batch] = count / engine.rehearse(batch, count)["cpu"]
        say(f"  batch {batch}: {rates[batch]:.2f} posts per CPU-second")
    return max(rates, key=rates.get)


def play(rows: list[Row], engines: list[Engine], plan: Plan, count: int) -> None:
    """First who takes part and with which batch; then the rounds, each in another order."""

    def each(number: int, what, shown: str) -> None:
        for row, engine in zip(rotate(rows, number), rotate(engines, number)):
            if row.skipped:
                continue
            say(f"{shown}: {row.entry.name}")
            try:
                what(row, engine)
            except EngineError as error:
                row.skipped = str(error)
                say(f"  left out: {error}")

    def search(row: Row, engine: Engine) -> None:
        engine.start()
        row.version = engine.version
        if len(row.entry.batches) > 1:
            row.batch = choose_batch(engine, plan.largest_batch)
        engine.leave_room()

    each(0, search, "first look")
    for number in range(plan.rounds):
        indices = list(range(number, count, plan.rounds))

        def turn(row: Row, engine: Engine) -> None:
            mine = indices[: plan.naive_rows] if row.entry.naive else indices
            measure = engine.run(mine, row.batch)
            row.logits |= dict(zip(mine, measure.pop("logits"), strict=True))
            row.passes.append(measure | {"posts": len(mine)})
            say(f"  {len(mine) / measure['cpu']:.2f} posts per CPU-second")

        each(number, turn, f"round {number + 1} of {plan.rounds}")


def rotate(items: list, by: int) -> list:
    """Another start in each round, so that no engine always follows the same one."""
    by = by * len(items) // 3 % len(items)
    return items[by:] + items[:by]


def main() -> None:
    parser = argparse.ArgumentParser(description="moderato and its peers on the same posts")
    parser.add_argument("--quick", action="store_true", help="fewer posts and rounds; for trying, not for quoting")
    parser.add_argument("--only", default="", help="engines with this word in their name, and the naive one")
    parser.add_argument("--out", type=Path, default=HERE, help="where RESULTS.md and chart.svg go")
    arguments = parser.parse_args()
    plan = QUICK if arguments.quick else FULL
    models = Path(os.environ.get("MODERATO_BENCH_MODELS", ROOT / ".cache/models")).resolve()
    work, texts, maker = make_work(models, plan.posts)
    answers = reference(work, texts, models)
    entries = [e for e in roster() if arguments.only in e.name or e.name == report.BASELINE]
    engines = [Engine(entry, work, texts, models) for entry in entries]
    rows = [Row(entry) for entry in entries]
    before = cpu_ticks()
    try:
        play(rows, engines, plan, len(work.rows))
    finally:
        for engine in engines:
            engine.stop()
    total, stolen = (after - start for after, start in zip(cpu_ticks(), before))
    facts = report.Facts(work, answers, maker, replace(plan, posts=len(work.rows)), stolen / total, arguments.quick)
    report.write(arguments.out, rows, facts)
    print(f"{arguments.out / 'RESULTS.md'} and chart.svg written")


if __name__ == "__main__":
    main()
