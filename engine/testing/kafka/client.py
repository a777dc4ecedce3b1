"""What tests ask of a broker, by kafka-python: topics, records written, records read."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import kafka
import kafka.errors

# It has no types; what it gives is given types here.
_kafka: Any = kafka
ANSWER_SECONDS_MAX = 10
READ_SECONDS_MAX = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One record as the broker holds it. `timestamp` is milliseconds since 1970; a tombstone's value is None."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()


def is_answering(bootstrap: str) -> bool:
    """Whether a broker is there that answers."""
    host, port = bootstrap.split(":")
    try:
        # Not by the client alone: it waits for seconds after a refusal.
        socket.create_connection((host, int(port)), timeout=1).close()
        _admin(bootstrap, seconds=2).close()
    except (kafka.errors.KafkaError, OSError):
        return False
    return True


def create_topic(bootstrap: str, name: str, *, partitions: int, settings: Mapping[str, str]) -> None:
    """Make a topic; return when it has been made. Raises kafka.errors.TopicAlreadyExistsError."""
    admin = _admin(bootstrap)
    try:
        topic = {"num_partitions": partitions, "replication_factor": 1, "configs": dict(settings)}
        admin.create_topics({name: topic}, timeout_ms=ANSWER_SECONDS_MAX * 1000)
    finally:
        admin.close()


def topics(bootstrap: str, **settings: Any) -> list[str]:
    """The names of all topics that the one who comes by these settings of kafka-python may see."""
    admin = _admin(bootstrap, seconds=3, **settings)
    try:
        return sorted(admin.list_topics())
    finally:
        admin.close()


def end_offset(bootstrap: str, topic: str) -> int:
    """The offset that the next record of a topic with one partition will have."""
    consumer = _kafka.KafkaConsumer(bootstrap_servers=bootstrap, group_id=None)
    try:
        place = _kafka.TopicPartition(topic, 0)
        return consumer.end_offsets([place])[place]
    finally:
        consumer.close()


def write_records(bootstrap: str, records: Iterable[Record]) -> None:
    """Write records to their topics and partitions, in this order; offsets are the broker's. Returns when all of them
    are acknowledged."""
    producer = _kafka.KafkaProducer(bootstrap_servers=bootstrap, acks="all", linger_ms=5)
    try:
        sent = [
            producer.send(
                record.topic,
                partition=record.partition,
                key=record.key,
                value=record.value,
                headers=list(record.headers),
                timestamp_ms=record.timestamp,
            )
            for record in records
        ]
        for future in sent:
            future.get(timeout=ANSWER_SECONDS_MAX)
    finally:
        producer.close()


def read_records(
    bootstrap: str, names: Sequence[str], *, count: int | None = None, seconds: float = READ_SECONDS_MAX
) -> list[Record]:
    """What the topics hold from their beginning, in the order in which it came.

    With `count`, waits until there are as many; without it, stops at what is the end now. A topic that is not there
    yet is waited for. Raises TimeoutError, with what came, when `seconds` have passed.
    """
    deadline = time.monotonic() + seconds
    consumer = _kafka.KafkaConsumer(
        bootstrap_servers=bootstrap,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        group_id=None,
        metadata_max_age_ms=500,
        isolation_level="read_committed",
    )
    try:
        places = [place for name in names for place in _partitions(consumer, name, deadline)]
        consumer.assign(places)
        consumer.seek_to_beginning(*places)
        ends: dict[Any, int] = consumer.end_offsets(places)
        found: list[Record] = []
        while (
            len(found) < count if count is not None else any(consumer.position(place) < ends[place] for place in places)
        ):
            if time.monotonic() > deadline:
                wanted = "all there is" if count is None else f"{count} records"
                raise TimeoutError(f"{', '.join(names)}: {len(found)} records after {seconds} s, wanted {wanted}")
            for records in consumer.poll(timeout_ms=100).values():
                found.extend(_record(record) for record in records)
        return found
    finally:
        consumer.close()


def _admin(bootstrap: str, *, seconds: int = ANSWER_SECONDS_MAX, **settings: Any) -> Any:
    return _kafka.KafkaAdminClient(bootstrap_servers=bootstrap, bootstrap_timeout_ms=seconds * 1000, **settings)


def _partitions(consumer: Any, name: str, deadline: float) -> list[Any]:
    while True:
        partitions: set[int] | None = consumer.partitions_for_topic(name)
        if partitions:
            return [_kafka.TopicPartition(name, partition) for partition in sorted(partitions)]
        if time.monotonic() > deadline:
            raise TimeoutError(f"there is no topic {name}")
        time.sleep(0.1)


def _record(record: Any) -> Record:
    return Record(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        timestamp=record.timestamp,
        key=record.key,
        value=record.value,
        headers=tuple((name, value) for name, value in record.headers),
    )
