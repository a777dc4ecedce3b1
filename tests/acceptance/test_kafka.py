"""Goal: a system that comes by Debezium and is written to directly agrees with one that has a plugin of its own, and a
feed holds what both hold, whoever writes and whatever is killed.

Method: PostgreSQL captured by a real connector, SQLite, and a feed; the command `concord` in a process of its own.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest

from engine.testing.kafka import debezium
from engine.testing.kafka.cluster import KafkaCluster
from tests.kafka_cluster.shared import own_name
from tests.kafka_source.kit import HEARTBEAT, SETTINGS

SECONDS_MAX = 90
DICTIONARY = """
[entities.account]
description = "A customer"
match = [{ fields = ["email"], normalise = ["email"] }]
[entities.account.fields]
name = { type = "text", owner = "crm" }
email = { type = "text" }
phone = { type = "text" }
credit = { type = "decimal", scale = 2, owner = "erp" }
"""
CRM = """
[[table]]
name = "customers"
entity = "account"
key = ["id"]
allocate = "uuid"
[table.fields]
name = "company"
email = "email"
phone = "phone"
credit = { column = "credit_cents", unit = "0.01" }
"""
ERP = """
[[table]]
name = "client"
entity = "account"
key = ["client_no"]
allocate = "assigned"
[table.fields]
name = "title"
email = "mail"
phone = "tel"
credit = "credit"
"""
LAKE = """
[[table]]
name = "customers"
entity = "account"
key = ["id"]
allocate = "uuid"
[table.fields]
name = "name"
email = "email"
phone = "phone"
credit = "credit"
"""


@dataclass(slots=True)
class Mesh:
    """Three systems and a daemon."""

    cluster: KafkaCluster
    dsn: str
    folder: Path
    prefix: str
    daemon: subprocess.Popen[bytes] | None = field(default=None)

    def create(self) -> None:
        with psycopg.connect(self.dsn, autocommit=True) as crm:
            crm.execute(
                "create table customers (id text primary key, company text not null, email text unique, phone text,"
                " credit_cents bigint)"
            )
            crm.execute(f"create table {HEARTBEAT} (id int primary key, at timestamptz)".encode())
            crm.execute(f"insert into {HEARTBEAT} values (1, now())".encode())
        with closing(sqlite3.connect(self.folder / "erp.db")) as erp:
            erp.execute(
                "create table client (client_no integer primary key autoincrement, title text, mail text unique, tel"
                " text,"
                " credit numeric(12, 2))"
            )
            erp.execute("pragma journal_mode = wal")
        for name, text in (("own", DICTIONARY), ("crm", CRM), ("erp", ERP), ("lake", LAKE)):
            (self.folder / f"{name}.toml").write_text(text)
        servers = json.dumps([self.cluster.broker.bootstrap])
        (self.folder / "concord.toml").write_text(f"""
dictionary = "own.toml"
[systems.crm]
plugin = "kafka"
mapping = "crm.toml"
servers = {servers}
prefix = "{self.prefix}"
heartbeat = "{HEARTBEAT}"
[systems.crm.database]
plugin = "postgres"
dsn = "{self.dsn}"
[systems.erp]
plugin = "sqlite"
mapping = "erp.toml"
path = "erp.db"
[systems.lake]
plugin = "kafka"
mode = "receive"
mapping = "lake.toml"
servers = {servers}
feed = "{self.prefix}-lake"
[systems.lake.tables.customers]
id = "uuid"
name = "text"
email = "text"
phone = "text"
credit = "decimal"
""")

    def concord(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "engine.cli", *arguments]
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=SECONDS_MAX)

    def connect(self) -> None:
        config = debezium.postgres_source(
            self.dsn, self.prefix, tables=r"(public|concord)\..*", schemas=False, settings=SETTINGS
        )
        self.cluster.connect.create(self.prefix, config)

    def start(self) -> None:
        with (self.folder / "daemon.log").open("ab") as log:
            self.daemon = subprocess.Popen([sys.executable, "-m", "engine.cli", "run"], cwd=self.folder, stderr=log)

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self.daemon is not None:
            os.kill(self.daemon.pid, number)
            self.daemon.wait(timeout=SECONDS_MAX)
            self.daemon = None

    def in_crm(self, *statements: str) -> None:
        with psycopg.connect(self.dsn) as crm:
            for statement in statements:
                crm.execute(statement.encode())

    def in_erp(self, *statements: str) -> None:
        with closing(sqlite3.connect(self.folder / "erp.db", timeout=30)) as erp, erp:
            for statement in statements:
                erp.execute(statement)

    def crm(self) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.dsn) as crm:
            query = "select email, company, phone, credit_cents from customers order by email"
            return [tuple(row) for row in crm.execute(query).fetchall()]

    def erp(self) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.folder / "erp.db", timeout=30)) as erp:
            rows = erp.execute("select mail, title, tel, credit from client order by mail").fetchall()
        return [(*row[:3], None if row[3] is None else round(float(row[3]) * 100)) for row in rows]

    def lake(self) -> list[tuple[Any, ...]]:
        rows: dict[bytes, dict[str, Any]] = {}
        for record in self.cluster.read(f"{self.prefix}-lake.customers"):
            assert record.key is not None
            rows.pop(record.key, None)
            if record.value is not None:
                rows[record.key] = json.loads(record.value)
        cents = {id: None if row["credit"] is None else round(float(row["credit"]) * 100) for id, row in rows.items()}
        return sorted((row["email"], row["name"], row["phone"], cents[id]) for id, row in rows.items())

    def wait(self, is_so: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + SECONDS_MAX
        while not is_so():
            assert time.monotonic() < deadline, f"{what}\n{self.seen()}"
            time.sleep(0.3)

    def seen(self) -> str:
        """Everything that tells who has stopped: the connector and its task, the three systems, the daemon. What
        cannot be read is told as its error, for it shall not hide the rest."""
        parts = [self.cluster.connect.states(self.prefix)]
        for read in (self.crm, self.erp, self.lake, self.log):
            try:
                parts.append(f"{read.__name__}: {read()}")
            except (OSError, TimeoutError, psycopg.Error, sqlite3.Error) as error:
                parts.append(f"{read.__name__}: {error}")
        return "\n".join(parts)

    def agree(self, count: int) -> bool:
        return len(self.crm()) == count and self.crm() == self.erp() == self.lake()

    def log(self) -> str:
        return (self.folder / "daemon.log").read_text()[-3000:]


@pytest.fixture
def mesh(kafka_cluster: KafkaCluster, postgres_dsn: str, tmp_path: Path) -> Iterator[Mesh]:
    made = Mesh(kafka_cluster, postgres_dsn, tmp_path, own_name("mesh"))
    made.create()
    try:
        yield made
    finally:
        made.stop(signal.SIGKILL)
        if made.prefix in kafka_cluster.connect.names():
            kafka_cluster.connect.stop(made.prefix)
            kafka_cluster.connect.delete(made.prefix)


def test_a_captured_database_its_neighbour_and_a_feed_agree(mesh: Mesh) -> None:
    mesh.in_crm("insert into customers values ('c1', 'Alder', 'a@x', '1', 1050), ('c2', 'Birch', 'b@x', null, null)")
    mesh.in_erp("insert into client (title, mail, tel, credit) values ('Cedar', 'c@x', '3', 12.75)")
    assert mesh.concord("setup").returncode == 0
    mesh.connect()
    mesh.wait(lambda: mesh.concord("check").returncode == 0, "the connector has not made its topics")
    mesh.start()
    mesh.wait(lambda: mesh.agree(3), "the first copy")
    # A change of one column goes out, and comes back as ours: nobody's change undoes another's.
    mesh.in_erp("update client set credit = 20.5 where mail = 'a@x'")
    mesh.in_crm(
        "update customers set phone = '22' where email = 'b@x'", "update customers set company = 'Ash' where id = 'c1'"
    )
    mesh.wait(lambda: mesh.agree(3) and ("a@x", "Ash", "1", 2050) in mesh.crm(), "changes on both sides")
    assert ("b@x", "Birch", "22", None) in mesh.lake()
    mesh.stop(signal.SIGKILL)
    mesh.in_crm(
        "delete from customers where id = 'c2'", "insert into customers values ('c4', 'Dogwood', 'd@x', '4', 1)"
    )
    mesh.in_erp("update client set tel = '33' where mail = 'c@x'")
    mesh.cluster.connect.stop(mesh.prefix)
    mesh.start()
    mesh.cluster.connect.resume(mesh.prefix)
    mesh.wait(
        lambda: mesh.agree(3) and ("d@x", "Dogwood", "4", 1) in mesh.erp(), "after a kill and a connector's restart"
    )
    mesh.stop()
    compared = mesh.concord("compare")
    assert compared.returncode == 0, compared.stdout + compared.stderr
    conflicts = mesh.concord("conflicts", "--json")
    assert json.loads(conflicts.stdout or "{}").get("conflicts", []) == [], conflicts.stdout
