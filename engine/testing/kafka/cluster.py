"""A broker and a worker together: what most tests want."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from engine.testing.kafka import client
from engine.testing.kafka.broker import KafkaBroker, start_broker
from engine.testing.kafka.client import READ_SECONDS_MAX, Record
from engine.testing.kafka.connect import ConnectWorker, start_connect


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaCluster:
    """A running broker and a running worker of Kafka Connect; their logs are in `directory`."""

    broker: KafkaBroker
    connect: ConnectWorker
    directory: Path

    def read(self, *topics: str, count: int | None = None, seconds: float = READ_SECONDS_MAX) -> list[Record]:
        """See `client.read_records`."""
        return client.read_records(self.broker.bootstrap, topics, count=count, seconds=seconds)

    def logs(self) -> str:
        """The ends of both logs, for a test that failed."""
        return "\n".join(
            f"--- {path.name}\n{path.read_text(errors='replace')[-4000:]}"
            for path in sorted(self.directory.glob("*/*.log"))
        )


@contextmanager
def start_cluster(directory: Path) -> Generator[KafkaCluster]:
    """Run a broker and a worker in `directory`; stop both on leaving."""
    with (
        start_broker(directory / "broker") as (broker, _),
        start_connect(directory / "connect", broker.bootstrap) as (connect, _),
    ):
        yield KafkaCluster(broker=broker, connect=connect, directory=directory)
