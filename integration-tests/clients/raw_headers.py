"""Record headers whose names need not be UTF-8, which Kafka allows and most clients cannot say: librdkafka's C interface.

    raw_headers.py produce BROKERS TOPIC VALUE NAME=TEXT...    one record to partition 0; NAME and TEXT in hexadecimal
    raw_headers.py read BROKERS TOPIC                          the headers of the first record there, as NAME=TEXT lines
"""

import ctypes
import sys
from pathlib import Path

import confluent_kafka

PRODUCER, CONSUMER = 0, 1
END, TOPIC, PARTITION, VALUE, HEADER = 0, 1, 3, 4, 9
SECONDS_30 = 30_000


class Message(ctypes.Structure):
    """rd_kafka_message_t, as far as it is needed."""

    _fields_ = [("err", ctypes.c_int), ("topic", ctypes.c_void_p), ("partition", ctypes.c_int32)]


def library() -> ctypes.CDLL:
    """The librdkafka that the wheel of confluent-kafka carries."""
    beside = Path(confluent_kafka.__file__).parent.parent / "confluent_kafka.libs"
    found = ctypes.CDLL(str(next(beside.glob("librdkafka*"))))
    for name in ("conf_new", "new", "topic_partition_list_new", "topic_partition_list_add"):
        getattr(found, f"rd_kafka_{name}").restype = ctypes.c_void_p
    found.rd_kafka_consumer_poll.restype = ctypes.POINTER(Message)
    return found


def client(kafka: ctypes.CDLL, kind: int, settings: dict[str, str]) -> ctypes.c_void_p:
    told = ctypes.create_string_buffer(512)
    conf = ctypes.c_void_p(kafka.rd_kafka_conf_new())
    for key, value in settings.items():
        if kafka.rd_kafka_conf_set(conf, key.encode(), value.encode(), told, 512) != 0:
            raise RuntimeError(told.value.decode())
    made = kafka.rd_kafka_new(kind, conf, told, ctypes.c_size_t(512))
    if not made:
        raise RuntimeError(told.value.decode())
    return ctypes.c_void_p(made)


def produce(brokers: str, topic: str, value: str, headers: list[str]) -> None:
    kafka = library()
    producer = client(kafka, PRODUCER, {"bootstrap.servers": brokers})
    arguments = [TOPIC, topic.encode(), PARTITION, 0, VALUE, value.encode(), ctypes.c_size_t(len(value.encode()))]
    for header in headers:
        name, text = (bytes.fromhex(part) for part in header.split("="))
        arguments += [HEADER, name, text, ctypes.c_ssize_t(len(text))]
    if kafka.rd_kafka_producev(producer, *arguments, END) or kafka.rd_kafka_flush(producer, SECONDS_30):
        raise RuntimeError("the broker did not take the record")


def read(brokers: str, topic: str) -> None:
    kafka = library()
    consumer = client(kafka, CONSUMER, {"bootstrap.servers": brokers, "group.id": "raw", "auto.offset.reset": "earliest"})
    wanted = ctypes.c_void_p(kafka.rd_kafka_topic_partition_list_new(1))
    kafka.rd_kafka_topic_partition_list_add(wanted, topic.encode(), 0)
    kafka.rd_kafka_assign(consumer, wanted)
    message = kafka.rd_kafka_consumer_poll(consumer, SECONDS_30)
    if not message or message.contents.err:
        raise RuntimeError("no record came")
    headers, number = ctypes.c_void_p(), 0
    kafka.rd_kafka_message_headers(message, ctypes.byref(headers))
    name, text, size = ctypes.c_char_p(), ctypes.c_void_p(), ctypes.c_size_t()
    parts = (ctypes.byref(name), ctypes.byref(text), ctypes.byref(size))
    while kafka.rd_kafka_header_get_all(headers, ctypes.c_size_t(number), *parts) == 0:
        print(f"{name.value.hex()}={ctypes.string_at(text, size.value).hex()}")
        number += 1


if __name__ == "__main__":
    verb, *rest = sys.argv[1:]
    if verb == "produce":
        produce(rest[0], rest[1], rest[2], rest[3:])
    else:
        read(*rest)
