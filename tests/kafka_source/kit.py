"""A PostgreSQL that Debezium captures, as a `Kit`: users write to it, Concord reads topics and writes to the
database."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio.to_thread
import psycopg
import pymysql

from engine.model.change import Batch
from engine.model.position import Position
from engine.ports import Feed, Role
from engine.testing.contract import Kit
from engine.testing.kafka import debezium
from engine.testing.kafka.cluster import KafkaCluster
from engine.testing.mariadb import MariadbServer

HEARTBEAT = "public.heartbeat"
SYNC_SECONDS_MAX = 30
SETTINGS = {
    "provide.transaction.metadata": "true",
    "skipped.operations": "none",
    "interval.handling.mode": "string",
    "heartbeat.interval.ms": "300",
    "heartbeat.action.query": f"update {HEARTBEAT} set at = clock_timestamp()",
}


class PostgresUsers:
    """One connection of an application."""

    def __init__(self, dsn: str) -> None:
        self._connection = psycopg.connect(dsn)

    def transaction(self, *statements: str) -> None:
        try:
            for statement in statements:
                self._connection.execute(statement.encode())
        except psycopg.Error:
            self._connection.rollback()
            raise
        self._connection.commit()

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        found = self._connection.execute(query.encode()).fetchall()
        self._connection.commit()
        return found

    def close(self) -> None:
        self._connection.close()


@dataclass(slots=True, kw_only=True)
class DebeziumKit(Kit):
    """The connector is made by `setup`, when the test has made its tables; the log begins where it was then."""

    cluster: KafkaCluster
    dsn: str
    prefix: str
    schemas: bool = False
    settings: Mapping[str, str] = field(default_factory=lambda: {})
    beginning: Position | None = None

    async def setup(self, *tables: str) -> None:
        if self.beginning is not None:
            return
        self.create_tables()
        system = self.plugin.system(self.site, self.config)
        await system.setup(tables, Role.SOURCE | Role.TARGET)
        # As a daemon does when it starts.
        async with self.session(*tables):
            pass
        await anyio.to_thread.run_sync(self.cluster.connect.create, self.prefix, self.connector())
        await self.synchronise()
        async with super(DebeziumKit, self).feed(*tables) as feed:
            self.beginning = feed.position

    async def synchronise(self) -> None:
        """Wait until Debezium has brought to the topics what is committed now."""
        self.beat()
        await anyio.to_thread.run_sync(self._wait, self.place())

    def beat(self) -> None:
        """A transaction that the connector captures, whatever users do."""
        self.users.transaction(f"update {HEARTBEAT} set at = clock_timestamp()")

    def place(self) -> int:
        """Where the log ends now, as the last number in the id of a transaction that ends there or later."""
        ((lsn,),) = self.users.rows("select (pg_current_wal_insert_lsn() - '0/0')::bigint")
        return int(lsn)

    def create_tables(self) -> None:
        self.users.transaction(
            f"create table {HEARTBEAT} (id int primary key, at timestamptz)",
            f"insert into {HEARTBEAT} values (1, now())",
        )

    def connector(self) -> dict[str, str]:
        """Everything of the database is captured, whatever the mapping has."""
        return debezium.postgres_source(
            self.dsn,
            self.prefix,
            tables=r"(public|concord)\..*",
            schemas=self.schemas,
            settings={**SETTINGS, **self.settings},
        )

    def _wait(self, place: int) -> None:
        deadline = time.monotonic() + SYNC_SECONDS_MAX
        while True:
            self.cluster.connect.check(self.prefix)
            for record in reversed(self.cluster.read(f"{self.prefix}.transaction")):
                assert record.value is not None
                id = record.value.partition(b'"id":"')[2].partition(b'"')[0].decode()
                if b'"END"' in record.value and int(id.replace("-", ":").split(":")[-1]) >= place:
                    return
            assert time.monotonic() < deadline, f"Debezium brings nothing: {self.cluster.logs()}"
            time.sleep(0.05)
            self.beat()

    async def drain(self, feed: Feed, rows_max: int = 1000) -> list[Batch]:
        await self.synchronise()
        return await super(DebeziumKit, self).drain(feed, rows_max)

    @asynccontextmanager
    async def feed(
        self, *tables: str, after: Position | None = None, verify: frozenset[str] = frozenset()
    ) -> AsyncGenerator[Feed]:
        async with super(DebeziumKit, self).feed(*tables, after=after or self.beginning, verify=verify) as feed:
            yield feed

    def close(self) -> None:
        self.users.close()
        if self.prefix in self.cluster.connect.names():
            self.cluster.connect.stop(self.prefix)
            self.cluster.connect.delete(self.prefix)


def rows_read(batches: Sequence[Batch]) -> int:
    return sum(batch.rows_read - batch.rows_echoed for batch in batches)


class MariadbUsers:
    """One connection of an application."""

    def __init__(self, server: MariadbServer, database: str) -> None:
        self._connection: Any = pymysql.Connection(
            ssl_disabled=True,
            unix_socket=str(server.socket_path),
            user="root",
            database=database,
            charset="utf8mb4",
            # The contract's statements are everybody's SQL, in which a backslash is a character like any other.
            sql_mode="STRICT_ALL_TABLES,NO_BACKSLASH_ESCAPES",
        )

    def transaction(self, *statements: str) -> None:
        with self._connection.cursor() as cursor:
            try:
                for statement in statements:
                    cursor.execute(statement)
            except pymysql.Error:
                self._connection.rollback()
                raise
            self._connection.commit()

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with self._connection.cursor() as cursor:
            cursor.execute(query)
            found = list(cursor.fetchall())
        self._connection.commit()
        return found

    def close(self) -> None:
        self._connection.close()


@dataclass(slots=True, kw_only=True)
class MariadbKit(DebeziumKit):
    """The same, of a MariaDB's database; `dsn` is its name."""

    server: MariadbServer

    def create_tables(self) -> None:
        self.users.transaction(
            "create table heartbeat (id int primary key, at datetime(6))", "insert into heartbeat values (1, now())"
        )

    def beat(self) -> None:
        self.users.transaction("update heartbeat set at = now(6)")

    def place(self) -> int:
        ((gtid,),) = self.users.rows("select @@gtid_binlog_pos")
        return int(str(gtid).rpartition("-")[2])

    def connector(self) -> dict[str, str]:
        grants = f"grant update on {self.dsn}.heartbeat to {debezium.USER}@'%'"
        config = debezium.mariadb_source(
            self.server,
            self.prefix,
            bootstrap=self.cluster.broker.bootstrap,
            database=self.dsn,
            tables=rf"{self.dsn}\..*",
            schemas=self.schemas,
            settings={
                "provide.transaction.metadata": "true",
                "skipped.operations": "none",
                "heartbeat.interval.ms": "300",
                "heartbeat.action.query": f"update {self.dsn}.heartbeat set at = now(6)",
                **self.settings,
            },
        )
        self.server.execute(grants)
        return config
