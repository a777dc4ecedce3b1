"""Debezium as a consumer: source connector → Kafka → JDBC sink connector, or the sink alone over a topic that is there.

Broker and worker are started once a run, as Apache Kafka's own scripts start them, and stay: a JVM is at its best when
it has been at work for a while, so it is warmed by a round that does not count. The connectors of a round are made,
stopped, and let go on when it is timed. `SOURCE` and `SINK` are the fastest settings found, with all batching on.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.concord import Reading
from benchmarks.consumer import RunVoid, Usage, read_usage, wait_reading, wait_stopped
from engine.testing.kafka import debezium
from engine.testing.kafka.broker import KafkaBroker, start_broker
from engine.testing.kafka.connect import ConnectorFailed, ConnectWorker, start_connect
from engine.testing.kafka.jvm import JavaProgram

NAME: Final = "debezium"
STOP_SECONDS_MAX: Final = 60.0
# What bin/kafka-run-class.sh, kafka-server-start.sh and connect-standalone.sh of Apache Kafka pass.
JAVA: Final = (
    "-server",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
)
BROKER_HEAP: Final = ("-Xms1G", "-Xmx1G")
WORKER_HEAP: Final = ("-Xms256M", "-Xmx2G")

SOURCE: Final = {
    # Four times as many rows at once as by default, and the queue in proportion.
    "max.batch.size": "8192",
    "max.queue.size": "32768",
    "producer.override.linger.ms": "5",
    "producer.override.batch.size": "262144",
}
# The row alone: half the bytes of the envelope, whose schema is in every message. The sink understands both.
FLATTENED: Final = {
    "transforms": "flat",
    "transforms.flat.type": "io.debezium.transforms.ExtractNewRecordState",
}
# `dialect.postgres.unnest.insert.enabled` is left out: Debezium 3.5.0 cannot write a column of type date by it.
SINK: Final = {
    "batch.size": "5000",
    "use.reduction.buffer": "true",
    "consumer.override.max.poll.records": "5000",
    "collection.name.format": "bench",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kafka:
    """A broker and a worker, running."""

    broker: KafkaBroker
    worker: ConnectWorker
    programs: tuple[JavaProgram, ...]
    """What Debezium's route is charged with."""

    def usage(self) -> Usage:
        """Of these processes together, since they were started."""
        found = [read_usage(program.process.pid) for program in self.programs]
        return Usage(
            peak_rss_mb=round(sum(usage.peak_rss_mb for usage in found), 1),
            private_mb=round(sum(usage.private_mb for usage in found), 1),
            cpu_seconds=round(sum(usage.cpu_seconds for usage in found), 2),
        )


@dataclass(slots=True, kw_only=True)
class Debezium:
    """Connectors, made and stopped. `source` is None where they read a topic alone: nobody else tells of that."""

    kafka: Kafka
    connectors: tuple[str, ...]
    source: Reading | None
    target_dsn: str
    name: str = NAME
    started_at: float | None = None
    cpu_seconds_before: float = 0.0

    def reading_since(self) -> float | None:
        return self.source.reading_since() if self.source is not None else self.started_at

    def start(self) -> None:
        self.cpu_seconds_before = self.kafka.usage().cpu_seconds
        self.started_at = time.time()
        # The sink first, so that the clock, which runs from the source's first reading, has nothing of its start.
        for connector in self.connectors:
            self.kafka.worker.resume(connector)

    def stop(self) -> None:
        for connector in self.connectors:
            self.kafka.worker.stop(connector)
        self.started_at = None
        if self.source is not None:
            self.source.release()
        wait_stopped(self, STOP_SECONDS_MAX)

    def check(self) -> None:
        for connector in self.kafka.worker.names():
            try:
                self.kafka.worker.check(connector)
            except ConnectorFailed as error:
                raise RunVoid(str(error)) from None

    def usage(self) -> Usage:
        """Memory since the JVMs were started, whose heaps only grow; processor time since this was."""
        usage = self.kafka.usage()
        return Usage(
            peak_rss_mb=usage.peak_rss_mb,
            private_mb=usage.private_mb,
            cpu_seconds=round(usage.cpu_seconds - self.cpu_seconds_before, 2),
        )


@contextmanager
def start_kafka(directory: Path) -> Generator[Kafka]:
    """Run a broker and a worker."""
    with (
        start_broker(directory / "broker", java_options=(*JAVA, *BROKER_HEAP)) as (broker, program),
        start_worker(directory / "connect", broker) as (worker, second),
    ):
        yield Kafka(broker=broker, worker=worker, programs=(program, second))


def start_worker(directory: Path, broker: KafkaBroker) -> AbstractContextManager[tuple[ConnectWorker, JavaProgram]]:
    """Run a worker of Kafka Connect."""
    return start_connect(directory, broker.bootstrap, java_options=(*JAVA, *WORKER_HEAP))


@contextmanager
def connectors(
    kafka: Kafka, target_dsn: str, topic: str, *, source: tuple[Reading, dict[str, str]] | None
) -> Generator[Debezium]:
    """A sink of the topic, and before it the connector that writes to it where its settings are given. Both are stopped
    when this yields."""
    name = topic.replace(".", "_")
    sink, feeder = f"{name}_sink", f"{name}_source"
    consumer = Debezium(
        kafka=kafka,
        connectors=(sink,) if source is None else (sink, feeder),
        source=None if source is None else source[0],
        target_dsn=target_dsn,
    )
    made: list[str] = []
    try:
        if source is not None:
            # Before there is a sink: it looks for new topics every five minutes only.
            kafka.broker.create_topic(topic)
            # It runs once, over the empty table, so that there is a place in the log from which it goes on.
            kafka.worker.create(feeder, source[1])
            made.append(feeder)
            wait_reading(consumer)
        settings = debezium.jdbc_sink(target_dsn, topic.replace(".", r"\."), settings=SINK)
        kafka.worker.create_stopped(sink, settings)
        made.append(sink)
        consumer.stop()
        yield consumer
    except ConnectorFailed as error:
        raise RunVoid(str(error)) from None
    finally:
        for connector in made:
            kafka.worker.delete(connector)
