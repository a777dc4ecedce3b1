"""Record what real Debezium connectors write, for the tests of what reads it.

    python -m tests.kafka_cluster.record [FOLDER]

makes all files of `tests/kafka_source/recorded` again, or makes them in another folder. It takes about a minute.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Generator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import psycopg
import pymysql
from pymysql.constants.CLIENT import MULTI_STATEMENTS

from engine.testing.kafka import client, debezium
from engine.testing.kafka.client import Record
from engine.testing.kafka.cluster import KafkaCluster, start_cluster
from engine.testing.mariadb import MariadbServer, start_mariadb
from engine.testing.postgres import PostgresServer, start_postgres
from tests.kafka_cluster.record_mariadb import MARIADB
from tests.kafka_cluster.record_postgres import POSTGRES
from tests.kafka_cluster.recordings import RECORDED, Recording, Text, Told, write_recording, write_told
from tests.kafka_cluster.scenarios import Scenario, Script

ARRIVE_SECONDS_MAX = 120
# The recorder's own table: what users have done has arrived when its last row has.
DONE = "create table done (id integer primary key)"


class Database(Protocol):
    """The database that a script is run on."""

    def run(self, statement: str) -> None:
        """Run a statement, or several in one transaction."""
        ...

    def rows(self, table: str) -> list[dict[str, Text]]:
        """What a table holds, each value as the database spells it."""
        ...

    def connector(self, prefix: str, scenario: Scenario) -> dict[str, str]: ...

    def topic(self, prefix: str, table: str) -> str: ...


def record(cluster: KafkaCluster, script: Script, database: Database, folder: Path) -> None:
    """Run a script beneath the connectors of all its scenarios and write what each of them made of it."""
    for statement in (DONE, *script.before, "insert into done values (1)"):
        database.run(statement)
    prefixes = {f"{script.name}-{scenario.name}": scenario for scenario in script.scenarios}
    try:
        for prefix, scenario in prefixes.items():
            cluster.connect.create(prefix, database.connector(prefix, scenario))
        for prefix in prefixes:
            _wait_for(cluster, prefix, database.topic(prefix, "done"), count=1)
        for statement in script.statements:
            database.run(statement)
        database.run("insert into done values (2)")
        rows = tuple((table, row) for table in script.told for row in database.rows(table))
        told = Told(before=script.before, statements=script.statements, rows=rows)
        write_told(folder / f"{script.name}.jsonl", told)
        for prefix, scenario in prefixes.items():
            done = database.topic(prefix, "done")
            _wait_for(cluster, prefix, done, count=2)
            recording = Recording(
                script=script.name,
                settings={**scenario.settings, "schemas": str(scenario.schemas).lower()},
                records=tuple(_records(cluster, prefix, done)),
            )
            write_recording(folder / f"{prefix}.jsonl", recording)
    finally:
        for prefix in cluster.connect.names():
            cluster.connect.delete(prefix)


def _wait_for(cluster: KafkaCluster, connector: str, topic: str, *, count: int) -> None:
    """Wait for records; raises ConnectorFailed as soon as it is known that none will come."""
    deadline = time.monotonic() + ARRIVE_SECONDS_MAX
    while True:
        try:
            cluster.read(topic, count=count, seconds=5)
        except TimeoutError:
            cluster.connect.check(connector)
            if time.monotonic() > deadline:
                raise
        else:
            return


def _records(cluster: KafkaCluster, prefix: str, done: str) -> list[Record]:
    """All that a connector wrote, without the recorder's own table and the connector's memory of schemas."""
    mine = [
        topic
        for topic in client.topics(cluster.broker.bootstrap)
        if topic in (prefix, f"__debezium-heartbeat.{prefix}") or topic.startswith(f"{prefix}.")
        if topic not in (done, f"{prefix}.history")
    ]
    found = cluster.read(*mine)
    return sorted(found, key=lambda record: (record.topic, record.partition, record.offset))


class _Postgres:
    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._connection = psycopg.connect(dsn, autocommit=True)
        self._connection.execute("set timezone to 'UTC'")

    def run(self, statement: str) -> None:
        self._connection.execute(statement.encode())

    def rows(self, table: str) -> list[dict[str, Text]]:
        columns = [
            column.name
            for column in self._connection.execute(f"select * from {table} limit 0".encode()).description or ()
        ]
        spelled = ", ".join(f'"{name}"::text' for name in columns)
        found = self._connection.execute(f"select {spelled} from {table} order by 1".encode()).fetchall()
        return [dict(zip(columns, row, strict=True)) for row in found]

    def connector(self, prefix: str, scenario: Scenario) -> dict[str, str]:
        return debezium.postgres_source(
            self._dsn, prefix, tables=r"public\..*", settings=scenario.settings, schemas=scenario.schemas
        )

    def topic(self, prefix: str, table: str) -> str:
        return f"{prefix}.public.{table}"

    def close(self) -> None:
        self._connection.close()


class _Mariadb:
    """A fresh database `shop`."""

    def __init__(self, server: MariadbServer, bootstrap: str) -> None:
        self._server, self._bootstrap = server, bootstrap
        server.execute("drop database if exists shop", "create database shop")
        self._connection: Any = pymysql.Connection(
            ssl_disabled=True,
            unix_socket=str(server.socket_path),
            user="root",
            database="shop",
            charset="utf8mb4",
            autocommit=True,
            # As the server spells them.
            conv={},
            client_flag=MULTI_STATEMENTS,
            # Days that are none, and time zones of nowhere in particular.
            init_command="set sql_mode = '', time_zone = '+00:00'",
        )

    def run(self, statement: str) -> None:
        with self._connection.cursor() as cursor:
            cursor.execute(statement)
            while cursor.nextset():
                pass

    def rows(self, table: str) -> list[dict[str, Text]]:
        with self._connection.cursor() as cursor:
            cursor.execute(f"select * from {table} order by 1")
            columns = [column[0] for column in cursor.description]
            return [dict(zip(columns, row, strict=True)) for row in cursor.fetchall()]

    def connector(self, prefix: str, scenario: Scenario) -> dict[str, str]:
        return debezium.mariadb_source(
            self._server,
            prefix,
            bootstrap=self._bootstrap,
            database="shop",
            tables=r"shop\..*",
            settings={"include.schema.changes": "false", **scenario.settings},
            schemas=scenario.schemas,
        )

    def topic(self, prefix: str, table: str) -> str:
        return f"{prefix}.shop.{table}"

    def close(self) -> None:
        self._connection.close()


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="concord-record-", ignore_cleanup_errors=True) as name, ExitStack() as stack:
        directory = Path(name)
        directory.chmod(0o755)
        cluster = stack.enter_context(start_cluster(directory / "kafka"))
        postgres = stack.enter_context(start_postgres(directory / "postgres", {"max_connections": "200"}))
        mariadb = stack.enter_context(start_mariadb(directory / "mariadb"))
        for script in POSTGRES:
            with _fresh_postgres(postgres) as database:
                _say_and_record(cluster, script, database, folder)
        for script in MARIADB:
            with closing(_Mariadb(mariadb, cluster.broker.bootstrap)) as database:
                _say_and_record(cluster, script, database, folder)


@contextmanager
def _fresh_postgres(server: PostgresServer) -> Generator[_Postgres]:
    """A database whose slots go with it."""
    with psycopg.connect(server.dsn("postgres"), autocommit=True) as admin:
        admin.execute("create database shop")
    try:
        with closing(_Postgres(server.dsn("shop"))) as database:
            yield database
    finally:
        server.drop_database("shop")


def _say_and_record(cluster: KafkaCluster, script: Script, database: Database, folder: Path) -> None:
    began = time.monotonic()
    record(cluster, script, database, folder)
    seconds = time.monotonic() - began
    print(f"{script.name}: {len(script.scenarios)} connectors in {seconds:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else RECORDED)
