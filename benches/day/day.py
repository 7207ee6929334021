"""A simulated day: load doubles every minute until the largest pool is full, and halves again.

The autoscaler's formula starts and stops workers by what they tell of the lag. Ends with 1 if the day proves less than
docs/day.md says.

    day.py [--minute SECONDS] [--docs]

Chart, figures and logs go to target/day; --docs writes docs/day.svg and the table of docs/day.md too.
MODERATO_DAY_PROGRAM  the worker, built with `--features failpoints` (target/debug/moderato)
"""

import argparse
import json
import os
import platform
import re
import shutil
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from autoscaler import Autoscaler, Settings
from pool import ROOT, Broker, Load, Worker, reconcile, until
from report import Sample, drawing, faults, figures, table

# As `worker.autoscaling` of the chart; times in minutes of the day, whose minute is ten of the chart's.
minReplicas = 1
maxReplicas = 8
stabilizationMinutes = 1.0  # scaleDown.stabilizationSeconds: 600
periodMinutes = 0.2  # scaleDown.periodSeconds: 120
syncMinutes = 0.25  # a HorizontalPodAutoscaler looks every 15 s
acceptableDelayMinutes = 1 / 6  # lagThreshold: posts/s of one worker times this

PARTITIONS = 8
DOUBLINGS = 4  # from the first step to the peak
PEAK = 1.1  # of what maxReplicas judge
MODEL_SECONDS = 0.020  # added to each run of the model, without CPU: as if it were on a device
MEASURE_SECONDS = 10

GROUP, TOPIC, MEASURED = "day", "posts", "measured"
OUT = ROOT / "target/day"
MODEL = ROOT / ".cache/models/tiny-fp32"
FAULT = {"FAILPOINTS": f"model_run=sleep({MODEL_SECONDS * 1000:g})"}
MARKS = ("<!-- figures: written by benches/day/day.py -->\n", "<!-- end of figures -->")


class Pool:
    """The workers; the youngest goes first, as in a ReplicaSet."""

    def __init__(self, program: Path, config: Path):
        self.program, self.config = program, config
        self.alive: list[Worker] = []
        self.gone: list[Worker] = []

    def scale(self, count: int) -> None:
        while len(self.alive) < count:
            name = f"worker-{len(self.alive) + len(self.gone) + 1}"
            self.alive.append(Worker(self.program, self.config, name, FAULT, []))
        while len(self.alive) > count:
            worker = self.alive.pop()
            worker.metrics()
            worker.term()
            self.gone.append(worker)

    def look(self) -> dict:
        pages = [worker.metrics() for worker in self.alive]

        def all_of(name: str) -> list[float]:
            return [value for page in pages for value in page.get(name, [])]

        lags = all_of("moderato_consumer_lag")
        return {
            "lag": sum(lags),
            "told": len(lags),
            "drain": max(all_of("moderato_time_to_drain_seconds"), default=0.0),
            "poll_age": max(all_of("moderato_poll_age_seconds"), default=0.0),
            "judged": self.counted("messaging_process_duration_seconds_count"),
            "replicas": len(self.alive),
        }

    def counted(self, name: str) -> float:
        """By all workers, those that are gone as they were last seen."""
        return sum(sum(worker.seen.get(name, [])) for worker in self.alive + self.gone)

    def end(self) -> list[int]:
        self.scale(0)
        return [worker.end() for worker in self.gone]


def configuration(folder: Path, brokers: str) -> Path:
    runtime = next((ROOT / ".venv/lib").glob("python3*/site-packages/onnxruntime/capi/libonnxruntime.so.1.*"))
    file = folder / "day.yaml"
    settings = {
        "kafka": {"brokers": brokers, "group": GROUP, "topics": {"posts": TOPIC}},
        "model": {"path": str(MODEL), "onnxruntime": str(runtime), "instances": 1},
        "policy": str(ROOT / "model/policies/misinformation-short.md"),
        "limits": {"max_in_flight": 16, "max_batch_posts": 1},
        "cache": {"kind": "off"},
        "admin": {"listen": "127.0.0.1:0"},
        "log": {"format": "json"},
    }
    file.write_text(json.dumps(settings, indent=1))  # which is YAML too
    return file


def one_worker(program: Path, config: Path, broker: Broker) -> float:
    """Posts a second of a worker that never waits for posts."""
    load = Load(broker.address, MEASURED, [(2 / MODEL_SECONDS, MEASURE_SECONDS)])
    load.start()
    topics = [f"kafka.topics.{name}={MEASURED}{suffix}" for name, suffix in [("posts", ""), ("verdicts", ".verdicts")]]
    worker = Worker(program, config, "measured", FAULT, [f"kafka.group={MEASURED}", *topics])
    try:
        def judged() -> float:
            return sum(worker.metrics().get("messaging_process_duration_seconds_count", []))

        until("the first posts", lambda: judged() > 50)
        began, first = time.monotonic(), judged()
        time.sleep(MEASURE_SECONDS)
        rate = (judged() - first) / (time.monotonic() - began)
    finally:
        load.end()
        worker.end()
    if rate > 1 / MODEL_SECONDS:
        raise SystemExit("the program has no fault points: cargo build --locked --features failpoints")
    return rate


def live(pool: Pool, broker: Broker, load: Load, scaler: Autoscaler) -> list[Sample]:
    """The day, looked at every second."""
    samples: list[Sample] = []
    pool.scale(scaler.replicas)
    until("the first worker's share", lambda: broker.generations(GROUP))
    load.start()
    look = scaler.settings.syncSeconds
    while not load.over() or samples[-1].committed < samples[-1].ends:
        at = time.monotonic() - load.began
        seen = pool.look()
        ends, committed = broker.lag(GROUP, TOPIC, PARTITIONS)
        samples.append(Sample(at, load.rate(at), ends, committed, generation=broker.generations(GROUP), **seen))
        if at >= look:
            look += scaler.settings.syncSeconds
            pool.scale(scaler.look(at, seen["lag"]))
            if scaler.replicas != seen["replicas"]:
                print(f"{at:6.1f} s  lag {seen['lag']:6.0f}  {seen['replicas']} -> {scaler.replicas} workers")
        time.sleep(max(0.0, load.began + at + 1 - time.monotonic()))
    return samples


def cpu() -> tuple[float, float, float]:
    """Seconds since boot that all cores worked, that they were there, and that the hypervisor took."""
    user, nice, system, idle, wait, irq, soft, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    busy = user + nice + system + irq + soft
    hertz = os.sysconf("SC_CLK_TCK")
    return busy / hertz, (busy + idle + wait + steal) / hertz, steal / hertz


def machine() -> str:
    names = re.findall(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text()) or [platform.machine()]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores of {names[0]}, {memory:.0f} GiB"


def spend(minute: float, program: Path, folder: Path) -> tuple[list[Sample], dict]:
    broker = Broker(folder)
    pool = None
    try:
        config = configuration(folder, broker.address)
        names = {TOPIC: PARTITIONS, "verdicts": PARTITIONS, MEASURED: PARTITIONS, f"{MEASURED}.verdicts": PARTITIONS}
        broker.topics({**names, "posts.dead-letters": 1})
        rate = one_worker(program, config, broker)
        settings = Settings(
            minReplicas=minReplicas,
            maxReplicas=maxReplicas,
            lagThreshold=round(rate * acceptableDelayMinutes * minute),
            stabilizationSeconds=stabilizationMinutes * minute,
            periodSeconds=periodMinutes * minute,
            syncSeconds=syncMinutes * minute,
        )
        print(f"one worker: {rate:.1f} posts/s; {settings}")
        powers = [*range(DOUBLINGS, -1, -1), *range(1, DOUBLINGS + 1)]
        load = Load(broker.address, TOPIC, [(PEAK * maxReplicas * rate / 2**power, minute) for power in powers])
        pool = Pool(program, config)
        before = cpu()
        samples = live(pool, broker, load, Autoscaler(settings, minReplicas))
        busy, there, stolen = (now - then for now, then in zip(cpu(), before))
        told = figures(samples, PARTITIONS, minute, (DOUBLINGS + 1) * minute)
        told |= {"posts": load.sent, "refused": load.refused, "one_worker": rate, "lagThreshold": settings.lagThreshold}
        pool.look()
        told |= {"rebalances_total": int(pool.counted("moderato_rebalances_total")), "expelled": broker.expelled(GROUP)}
        told |= {"exits": pool.end(), "reconcile": reconcile(program, config), "minute": minute}
        told |= {"kafka": broker.said(r"Kafka version: (\S+)")[0]}
    finally:
        if pool:
            pool.end()
        broker.end()
    ours = sum(os.times()[:4])  # the broker's and the workers' too
    told |= {"cpu_busy": busy / there, "cpu_ours": ours / there, "cpu_stolen": stolen / there}
    told |= {"date": datetime.now(UTC).date().isoformat(), "machine": machine()}
    return samples, told


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minute", type=float, default=60, help="length of a step in seconds (60); 12 for a quick try")
    parser.add_argument("--docs", action="store_true", help="write docs/day.svg and the figures in docs/day.md")
    options = parser.parse_args()
    program = Path(os.environ.get("MODERATO_DAY_PROGRAM", ROOT / "target/debug/moderato"))
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)

    print(f"{program}, {options.minute * (2 * DOUBLINGS + 1):.0f} s of load")
    copied = shutil.copy2(program, OUT / "moderato")  # whoever builds meanwhile changes nothing
    samples, told = spend(options.minute, Path(copied), OUT)
    told["program"] = f"`{program.relative_to(ROOT)}`" if program.is_relative_to(ROOT) else program.name
    (OUT / "figures.json").write_text(json.dumps(told | {"by_second": [vars(it) for it in samples]}, indent=1))
    picture, text = drawing(samples, told), table(told)
    (OUT / "day.svg").write_text(picture)
    print(text, end="")
    if options.docs:
        (ROOT / "docs/day.svg").write_text(picture)
        page = ROOT / "docs/day.md"
        head, rest = page.read_text().split(MARKS[0])
        page.write_text(head + MARKS[0] + text + MARKS[1] + rest.split(MARKS[1])[1])
    wrong = faults(told)
    print("\n".join(f"NOT PROVED: {fault}" for fault in wrong) or "proved: drained in the time told, no storm, whole")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
