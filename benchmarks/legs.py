"""The ways that are measured, each from one kind of source to a PostgreSQL: what is written there, and who reads it.

    postgres   Concord; PostgreSQL's own logical replication; Debezium, Kafka and Debezium's sink
    mariadb    Concord; Debezium, Kafka and Debezium's sink
    topic      Concord; Debezium's sink: both over a topic that Debezium has written

A `Round` is one repetition: fresh databases, fresh consumers, made ready and not running.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final, Protocol

from benchmarks import concord, debezium, native
from benchmarks.concord import concord_consumer, configured
from benchmarks.consumer import WAIT_SECONDS_MAX, Consumer, RunVoid
from benchmarks.debezium import FLATTENED, SOURCE, Kafka, connectors
from benchmarks.latency import Plan, committed, postgres_writer
from benchmarks.mariadb import PASSWORD, Dump, Shop, fresh_shop, make_user
from benchmarks.native import native_consumer
from benchmarks.servers import Contents, Databases, Pair, Slot, fresh_databases, read_contents, settle
from benchmarks.workloads import Workload, preload, write, write_end
from engine.testing.kafka import debezium as settings_of
from engine.testing.kafka.client import end_offset
from engine.testing.kafka.connect import ConnectWorker
from engine.testing.mariadb import MariadbServer

MARIADB: Final = """
plugin = "mysql"
unix_socket = "{socket}"
database = "{database}"
user = "{user}"
password = {{ env = "BENCH_PASSWORD" }}
"""

KAFKA: Final = """
plugin = "kafka"
servers = ["{bootstrap}"]
prefix = "{prefix}"
"""
# What Concord wants of a connector to put whole transactions together. The sink makes nothing of it.
TRANSACTIONS: Final = {"provide.transaction.metadata": "true", "skipped.operations": "none"}
TOPIC_SECONDS: Final = 0.05
FIRST_ROW: Final = 9


class Source(Protocol):
    """The one table at a source, and its writers."""

    def preload(self, workload: Workload, rows: int) -> None: ...
    def write(self, workload: Workload, rows: int) -> None: ...
    def write_end(self, number: int) -> int:
        """Commit one more row behind all others; its id."""
        ...

    def settle(self) -> None:
        """Bring all databases to the same rest."""
        ...

    def contents(self) -> Contents: ...
    def writer(self, plan: Plan) -> AbstractContextManager[Callable[[int], None]]:
        """Commits change after change of the plan; a moment of each is kept."""
        ...

    def began(self, plan: Plan) -> Mapping[int, float]:
        """When each change of the plan was committed, seconds since 1970, by the row's id."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One repetition's source and consumers, in the order in which they are to be run."""

    source: Source
    consumers: Sequence[Consumer]
    databases: Databases


class Leg(Protocol):
    """One way. Its consumers by name; `round` opens the ones of these names."""

    @property
    def name(self) -> str: ...
    @property
    def consumers(self) -> tuple[str, ...]: ...
    def round(self, names: Sequence[str]) -> AbstractContextManager[Round]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresSource:
    databases: Databases

    def preload(self, workload: Workload, rows: int) -> None:
        preload(self.databases.source_dsn, workload, rows)

    def write(self, workload: Workload, rows: int) -> None:
        write(self.databases.source_dsn, workload, rows)

    def write_end(self, number: int) -> int:
        return write_end(self.databases.source_dsn, number)

    def settle(self) -> None:
        settle(self.databases)

    def contents(self) -> Contents:
        return read_contents(self.databases.source_dsn)

    def writer(self, plan: Plan) -> AbstractContextManager[Callable[[int], None]]:
        return postgres_writer(self.databases.source_dsn, plan)

    def began(self, plan: Plan) -> Mapping[int, float]:
        return committed(self.databases.source_dsn, plan)


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresLeg:
    pair: Pair
    kafka: Kafka
    name: str = "postgres"
    consumers: tuple[str, ...] = (concord.NAME, native.NAME, debezium.NAME)

    @contextmanager
    def round(self, names: Sequence[str]) -> Generator[Round]:
        with fresh_databases(self.pair, names) as databases, ExitStack() as stack:
            opened = [stack.enter_context(self._consumer(name, databases)) for name in names]
            yield Round(source=PostgresSource(databases=databases), consumers=opened, databases=databases)

    def _consumer(self, name: str, databases: Databases) -> AbstractContextManager[Consumer]:
        match name:
            case concord.NAME:
                return concord_consumer(databases)
            case native.NAME:
                return native_consumer(databases)
            case _:
                slot = Slot(dsn=databases.source_dsn, name=f"{debezium.NAME}_{databases.name}")
                topic = f"{slot.name}.public.bench"
                feeder = settings_of.postgres_source(
                    slot.dsn, slot.name, tables="public.bench", settings={**SOURCE, **FLATTENED}
                )
                return connectors(self.kafka, databases.target_dsn(name), topic, source=(slot, feeder))


@dataclass(frozen=True, slots=True, kw_only=True)
class MariadbSource:
    shop: Shop
    databases: Databases
    times: dict[int, float]

    def preload(self, workload: Workload, rows: int) -> None:
        self.shop.preload(workload, rows)

    def write(self, workload: Workload, rows: int) -> None:
        self.shop.write(workload, rows)

    def write_end(self, number: int) -> int:
        return self.shop.write_end(number)

    def settle(self) -> None:
        settle(self.databases)

    def contents(self) -> Contents:
        return self.shop.contents()

    def writer(self, plan: Plan) -> AbstractContextManager[Callable[[int], None]]:
        return self.shop.writer(plan, self.times)

    def began(self, plan: Plan) -> Mapping[int, float]:
        return self.times


@dataclass(frozen=True, slots=True, kw_only=True)
class MariadbLeg:
    pair: Pair
    server: MariadbServer
    kafka: Kafka
    name: str = "mariadb"
    consumers: tuple[str, ...] = (concord.NAME, debezium.NAME)

    @contextmanager
    def round(self, names: Sequence[str]) -> Generator[Round]:
        with fresh_shop(self.server) as shop, fresh_databases(self.pair, names) as databases, ExitStack() as stack:
            opened = [stack.enter_context(self._consumer(name, shop, databases)) for name in names]
            source = MariadbSource(shop=shop, databases=databases, times={})
            yield Round(source=source, consumers=opened, databases=databases)

    def _consumer(self, name: str, shop: Shop, databases: Databases) -> AbstractContextManager[Consumer]:
        # A user of its own in each round: its connection is how it is known that it reads.
        user = f"{name}_{shop.name}"
        make_user(self.server, user)
        dump = Dump(server=self.server, user=user)
        if name == concord.NAME:
            system = MARIADB.format(socket=self.server.socket_path, database=shop.name, user=user)
            return configured(databases, system=system, table="bench", source=dump)
        prefix = f"{name}_{shop.name}"
        feeder = settings_of.mariadb_source(
            self.server,
            prefix,
            bootstrap=self.kafka.broker.bootstrap,
            database=shop.name,
            tables=f"{shop.name}.bench",
            settings={"database.user": user, "database.password": PASSWORD, **SOURCE, **FLATTENED},
        )
        topic = f"{prefix}.{shop.name}.bench"
        return connectors(self.kafka, databases.target_dsn(name), topic, source=(dump, feeder))


@dataclass(slots=True, kw_only=True)
class TopicSource:
    """A PostgreSQL whose changes a connector brings to a topic; what has been written is there when a call returns."""

    inner: PostgresSource
    bootstrap: str
    topic: str
    messages: int = 0

    def preload(self, workload: Workload, rows: int) -> None:
        self.inner.preload(workload, rows)
        self._wait(rows if workload.updates else 0)

    def write(self, workload: Workload, rows: int) -> None:
        self.inner.write(workload, rows)
        self._wait(rows)

    def write_end(self, number: int) -> int:
        id = self.inner.write_end(number)
        self._wait(1)
        return id

    def settle(self) -> None:
        self.inner.settle()

    def contents(self) -> Contents:
        return self.inner.contents()

    def writer(self, plan: Plan) -> AbstractContextManager[Callable[[int], None]]:
        return self.inner.writer(plan)

    def began(self, plan: Plan) -> Mapping[int, float]:
        return self.inner.began(plan)

    def _wait(self, rows: int) -> None:
        self.messages += rows
        deadline = time.monotonic() + WAIT_SECONDS_MAX
        while end_offset(self.bootstrap, self.topic) < self.messages:
            if time.monotonic() > deadline:
                raise RunVoid(f"topic {self.topic} has no {self.messages} messages after {WAIT_SECONDS_MAX:.0f} s")
            time.sleep(TOPIC_SECONDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicLeg:
    """`feeder`: the worker that fills the topics. It is nobody's: both consumers read what it has written."""

    pair: Pair
    kafka: Kafka
    feeder: ConnectWorker
    name: str = "topic"
    consumers: tuple[str, ...] = (concord.NAME, debezium.NAME)

    @contextmanager
    def round(self, names: Sequence[str]) -> Generator[Round]:
        with fresh_databases(self.pair, names) as databases, ExitStack() as stack:
            prefix = f"topic_{databases.name}"
            topic, broker = f"{prefix}.public.bench", self.kafka.broker
            for each in (topic, f"{prefix}.transaction"):
                broker.create_topic(each)
            feeder = settings_of.postgres_source(
                databases.source_dsn, prefix, tables="public.bench", settings={**SOURCE, **TRANSACTIONS}
            )
            self.feeder.create(prefix, feeder)
            stack.callback(self._end_feeder, prefix)
            slot = Slot(dsn=databases.source_dsn, name=prefix)
            while slot.reading_since() is None:
                self.feeder.check(prefix)
                time.sleep(TOPIC_SECONDS)
            source = TopicSource(inner=PostgresSource(databases=databases), bootstrap=broker.bootstrap, topic=topic)
            # What the table looks like is told by its messages alone, so one must be there.
            source.write_end(FIRST_ROW)
            opened = [stack.enter_context(self._consumer(name, databases, prefix)) for name in names]
            yield Round(source=source, consumers=opened, databases=databases)

    def _consumer(self, name: str, databases: Databases, prefix: str) -> AbstractContextManager[Consumer]:
        if name == concord.NAME:
            system = KAFKA.format(bootstrap=self.kafka.broker.bootstrap, prefix=prefix)
            return configured(databases, system=system, table="public.bench", source=None)
        return connectors(self.kafka, databases.target_dsn(name), f"{prefix}.public.bench", source=None)

    def _end_feeder(self, name: str) -> None:
        # Its slot is free afterwards.
        self.feeder.stop(name)
        self.feeder.delete(name)
