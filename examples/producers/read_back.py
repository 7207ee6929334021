"""For the test of the examples: read_back.py ports | make BROKERS TOPIC | compare BROKERS TOPIC

`ports` prints two that are free. `make` makes the topic, and waits for a broker that is just starting. `compare` reads it from its beginning and compares with the lines on standard input: the value as it
stands, the id as key, a `traceparent` of its own.
"""

import json
import re
import socket
import sys

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

TRACEPARENT = re.compile(rb"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-0[01]")


def ports() -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        print(one.getsockname()[1], other.getsockname()[1])


def make(brokers: str, topic: str) -> None:
    client = AdminClient({"bootstrap.servers": brokers, "reconnect.backoff.ms": 500, "log_level": 0})
    client.create_topics([NewTopic(topic, 1, 1)], request_timeout=60)[topic].result(60)


def records(brokers: str, topic: str) -> list:
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": topic, "enable.auto.commit": False, "enable.partition.eof": True})
    consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
    found = []
    while (message := consumer.poll(30)) is not None and message.error() is None:
        found.append(message)
    consumer.close()
    assert message is not None, "the broker did not answer within 30 seconds"
    assert message.error().name() == "_PARTITION_EOF", message.error()
    return found


def compare(brokers: str, topic: str) -> None:
    found = records(brokers, topic)
    lines = [line.rstrip(b"\n") for line in sys.stdin.buffer]
    assert [record.value() for record in found] == lines
    assert [record.key().decode() for record in found] == [json.loads(line)["id"] for line in lines]
    traces = [dict(record.headers() or []).get("traceparent", b"") for record in found]
    assert all(TRACEPARENT.fullmatch(trace) for trace in traces), traces
    assert len(set(traces)) == len(traces)


if __name__ == "__main__":
    {"ports": ports, "make": make, "compare": compare}[sys.argv[1]](*sys.argv[2:])
