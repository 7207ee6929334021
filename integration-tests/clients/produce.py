"""The outside client: produces posts to a topic by confluent-kafka and waits for every acknowledgement.

    produce.py BROKERS TOPIC --count 20000            posts of its own making, ids post-000000 and on
    produce.py BROKERS TOPIC --jsonl FILE             one JSON object a line, as it stands

A line of FILE is sent unchanged with its `id` as key; posts made here share the keys of their authors. Prints
`produced N` and exits 0 only if the broker took all of them.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from confluent_kafka import KafkaException, Producer

SUBJECTS = ["the bridge", "the vaccine", "the new tram", "the election", "the river", "the school", "the budget", "the storm"]
CLAIMS = ["was closed for good last night", "costs twice what they told us", "is the best thing in years", "was never tested"]


def made(count: int, prefix: str, authors: int) -> Iterator[tuple[bytes, bytes]]:
    """Posts that differ in id and text; an author's posts share a key and so a partition."""
    for number in range(count):
        subject, claim = SUBJECTS[number % len(SUBJECTS)], CLAIMS[number // len(SUBJECTS) % len(CLAIMS)]
        post = {"id": f"{prefix}-{number:06}", "text": f"Number {number}: {subject} {claim}."}
        yield f"author-{number % authors}".encode(), json.dumps(post).encode()


def from_file(path: Path, count: int | None) -> Iterator[tuple[bytes, bytes]]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines):
            if number == count:
                return
            yield str(json.loads(line)["id"]).encode(), line.strip()


def produce(brokers: str, topic: str, posts: Iterator[tuple[bytes, bytes]]) -> tuple[int, list[str]]:
    """How many the broker acknowledged, and what it said of those it did not."""
    producer = Producer({"bootstrap.servers": brokers, "enable.idempotence": True, "linger.ms": 20})
    taken, refused = 0, []

    def report(error, _message) -> None:
        nonlocal taken
        if error is None:
            taken += 1
        else:
            refused.append(str(error))

    for key, value in posts:
        while True:
            try:
                producer.produce(topic, value, key, on_delivery=report)
                break
            except BufferError:  # its queue is full: reports make room
                producer.poll(0.1)
        producer.poll(0)
    left = producer.flush(60)
    if left:
        refused.append(f"{left} without an answer after 60 seconds")
    return taken, refused


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("brokers", help="bootstrap address, such as 127.0.0.1:9092")
    parser.add_argument("topic")
    parser.add_argument("--jsonl", type=Path, help="posts, one JSON object a line")
    parser.add_argument("--count", type=int, help="how many posts to make, or to take from the file at most")
    parser.add_argument("--prefix", default="post", help="of the ids of made posts (default: post)")
    parser.add_argument("--authors", type=int, default=1000, help="how many keys made posts share (default: 1000)")
    options = parser.parse_args()
    if options.jsonl is None and options.count is None:
        parser.error("give --count, --jsonl or both")

    posts = from_file(options.jsonl, options.count) if options.jsonl else made(options.count, options.prefix, options.authors)
    try:
        taken, refused = produce(options.brokers, options.topic, posts)
    except (KafkaException, OSError, ValueError, KeyError) as error:
        print(f"produce.py: {error!r}", file=sys.stderr)
        return 1
    print(f"produced {taken}")
    for fault in sorted(set(refused)):
        print(f"produce.py: not taken: {fault}", file=sys.stderr)
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
