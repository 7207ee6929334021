"""Publishes posts: python produce.py BROKERS TOPIC < posts.jsonl

Each line is a post.v1; it is sent as it stands, with its id as key, so that edits of a post stay in order, and with a W3C
`traceparent`. A line that does not fit the schema is told and not sent.
"""

import json
import secrets
import sys
from pathlib import Path

from confluent_kafka import Producer
from jsonschema import Draft202012Validator

SCHEMA = Path(__file__).resolve().parents[3] / "schemas/post.v1.json"


def traceparent() -> str:
    """A new trace. Where a request is being traced, hand on its own context: `opentelemetry.propagate.inject`."""
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"


def main(brokers: str, topic: str) -> int:
    post = Draft202012Validator(json.loads(SCHEMA.read_text()))
    # Idempotent: what is sent again after a lost answer is stored once.
    producer = Producer({"bootstrap.servers": brokers, "enable.idempotence": True, "linger.ms": 20})
    faults, taken = [], []

    def report(error, message) -> None:
        faults.append(f"not taken: {error}") if error else taken.append(message.offset())

    for number, line in enumerate(sys.stdin.buffer, 1):
        try:
            value = json.loads(line)
            post.validate(value)
        except Exception as fault:
            faults.append(f"line {number}: {getattr(fault, 'message', fault)}")
            continue
        headers = {"traceparent": traceparent()}
        while True:
            try:
                producer.produce(topic, line.strip(), value["id"].encode(), headers=headers, on_delivery=report)
                break
            except BufferError:  # its queue is full: reports make room
                producer.poll(0.1)
        producer.poll(0)
    producer.flush()
    for fault in faults:
        print(fault, file=sys.stderr)
    print(f"produced {len(taken)}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
