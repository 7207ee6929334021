"""What runs beside the script: a broker, workers, a producer. Each ends what it started."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread

from confluent_kafka import ConsumerGroupTopicPartitions, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "integration-tests/clients"))
from produce import made  # noqa: E402

JARS = ROOT / ".cache/kafka/libs"
PATIENCE = 60  # seconds for a start or an end


def until(what: str, ready, seconds: float = PATIENCE):
    """What `ready` gives as soon as that is something."""
    deadline = time.monotonic() + seconds
    while not (found := ready()):
        if time.monotonic() > deadline:
            raise SystemExit(f"{what}: not within {seconds:g} seconds")
        time.sleep(0.05)
    return found


def free_port() -> int:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return door.getsockname()[1]


class Child:
    def __init__(self, command: list[str], log: Path, environment: dict[str, str] | None = None):
        self.log, self.told_to_end = log, False
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                stdout=out,
                stderr=out,
                env={**os.environ, **(environment or {})},
                start_new_session=True,  # the script ends it, not the terminal
            )

    def said(self, pattern: str) -> list:
        if self.process.poll() not in (None, 0):
            raise SystemExit(f"ended with {self.process.returncode}: {self.log.read_text()[-2000:]}")
        return re.findall(pattern, self.log.read_text(errors="replace"))

    def term(self) -> None:
        """Once: a second SIGTERM tells a worker to end at once."""
        if not self.told_to_end and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.told_to_end = True

    def end(self) -> int:
        self.term()
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


class Broker(Child):
    def __init__(self, folder: Path):
        port = free_port()
        self.address = f"127.0.0.1:{port}"
        start = ROOT / "integration-tests/kafka/broker"
        command = [str(start), str(JARS), str(folder / "kafka"), str(port), str(free_port())]
        super().__init__(command, folder / "broker.log")
        try:
            until("the broker", lambda: self.said("Kafka Server started"))
        except BaseException:
            self.end()
            raise
        self.admin = AdminClient({"bootstrap.servers": self.address})

    def topics(self, partitions: dict[str, int]) -> None:
        wanted = [NewTopic(name, count, 1) for name, count in partitions.items()]
        for topic in self.admin.create_topics(wanted).values():
            topic.result()

    def lag(self, group: str, topic: str, partitions: int) -> tuple[int, int]:
        """The end of the topic and what the group has committed of it, both over all partitions."""
        asked = self.admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])[group]
        ends = self.admin.list_offsets({TopicPartition(topic, number): OffsetSpec.latest() for number in range(partitions)})
        committed = sum(max(known.offset, 0) for known in asked.result().topic_partitions if known.topic == topic)
        return sum(end.result().offset for end in ends.values()), committed

    def generations(self, group: str) -> int:
        """The last of the group's generations: rebalances that the coordinator brought to an end."""
        return max(map(int, self.said(rf"Stabilized group {group} generation (\d+)")), default=0)

    def expelled(self, group: str) -> int:
        return len(self.said(rf"Member \S+ in group {group} has failed"))

    def end(self) -> int:
        self.admin = None  # which would say that the broker is gone
        return super().end()


class Worker(Child):
    def __init__(self, program: Path, config: Path, name: str, environment: dict[str, str], settings: list[str]):
        self.name, self.seen = name, {}
        folder = config.parent / name
        folder.mkdir()
        own = [f"kafka.worker_id={name}", f"state_dir={folder / 'state'}", *settings]
        command = [str(program), "run", "-c", str(config), *(word for each in own for word in ("--set", each))]
        super().__init__(command, folder / "log", environment)
        self.address = None

    def served(self) -> str:
        self.address = self.address or next(iter(self.said(r'status page are served","address":"([^"]+)"')), None)
        return self.address

    def metrics(self) -> dict[str, list[float]]:
        """Values by name, one for each set of attributes; empty while nothing is served."""
        if not self.served():
            return {}
        with urllib.request.urlopen(f"http://{self.address}/metrics", timeout=5) as page:
            values: dict[str, list[float]] = {}
            for name, value in re.findall(r"^(\w+)(?:\{.*\})? (\S+)$", page.read().decode(), re.MULTILINE):
                values.setdefault(name, []).append(float(value))
        self.seen = values
        return values


@dataclass
class Load:
    """Posts by the clock, `steps` of (posts a second, seconds), each with a key of its own."""

    address: str
    topic: str
    steps: list[tuple[float, float]]
    sent: int = 0
    refused: int = 0
    began: float = 0.0
    _stop: Event = field(default_factory=Event)

    def start(self) -> None:
        self.began = time.monotonic()
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def rate(self, at: float) -> float:
        """Posts a second, so many seconds after the begin."""
        for rate, seconds in self.steps:
            if at < seconds:
                return rate
            at -= seconds
        return 0.0

    def over(self) -> bool:
        return not self._thread.is_alive()

    def _due(self, at: float) -> int:
        due = 0.0
        for rate, seconds in self.steps:
            due += rate * min(max(at, 0.0), seconds)
            at -= seconds
        return int(due)

    def _run(self) -> None:
        producer = Producer({"bootstrap.servers": self.address, "enable.idempotence": True, "linger.ms": 5})
        total = sum(seconds for _, seconds in self.steps)
        posts = made(self._due(total), self.topic, authors=10**9)
        at = 0.0
        while at < total and not self._stop.wait(0.01):
            at = time.monotonic() - self.began
            for _ in range(self._due(at) - self.sent):
                key, value = next(posts)
                producer.produce(self.topic, value, key, on_delivery=self._delivered)
                self.sent += 1
            producer.poll(0)
        self.refused += producer.flush(PATIENCE)

    def _delivered(self, error, _message) -> None:
        self.refused += error is not None

    def end(self) -> None:
        self._stop.set()
        self._thread.join()


def reconcile(program: Path, config: Path) -> dict:
    done = subprocess.run([program, "reconcile", "-c", config, "--json"], cwd=ROOT, stdout=subprocess.PIPE, check=False)
    return {"exit": done.returncode, **json.loads(done.stdout)}
