"""How fast a polled system is looked at and written to.

    python -m tests.polling.measure [ROWS]

Nine columns, in a PostgreSQL and a MariaDB of our own and in files; every number is rows a second by the clock.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import anyio

from engine.model.table import Form
from engine.plugin import Site
from engine.ports import Role, WriteKind
from engine.testing.contract import Kit
from engine.testing.mariadb import start_mariadb
from engine.testing.postgres import start_postgres
from plugins.polling import plugin
from plugins.polling.capture import Looker
from plugins.polling.config import PollingConfig
from plugins.polling.connect import Connection, connect_now
from tests.contract import test_mariadb, test_polling_duckdb, test_polling_sqlite, test_postgres

COLUMNS = ("id", *(f"c{n}" for n in range(8)))


def timed(name: str, rows: int, work: Callable[[], Any]) -> None:
    began = time.perf_counter()
    work()
    seconds = time.perf_counter() - began
    print(f"  {name:46} {rows / seconds:10,.0f} rows/s  {seconds:7.2f} s")


def measure(name: str, folder: Path, config: PollingConfig, users: Any, form: Form, count: int) -> None:
    print(name)
    texts = ", ".join(f"c{n} varchar(40)" for n in range(8))
    users.transaction(f"create table parts (id integer primary key, {texts})")
    values = ", ".join("'a value of a part'" for _ in range(8))
    for start in range(0, count, 1000):
        rows = ", ".join(f"({n}, {values})" for n in range(start, start + 1000))
        users.transaction(f"insert into parts values {rows}")
    site = Site(name="erp", directory=folder, work_directory=folder)
    kit = Kit(plugin=plugin, site=site, config=config, users=users, form=form)
    anyio.run(plugin.system(site, config).setup, ["parts"], Role.SOURCE | Role.TARGET)
    connection: Connection = connect_now(site, config)
    looker = Looker(site, config, ("parts",), frozenset())
    timed("begin: all rows become known", count, lambda: looker.open(connection, None))

    def look() -> None:
        for table in looker.tables.values():
            table.looked_at = None
        looker.look(connection, is_due=True)

    timed("compare all rows, none has changed", count, look)
    users.transaction(f"update parts set c0 = 'other' where id < {count // 10}")
    timed("compare all rows, a tenth has changed", count, look)
    many = range(count, count + 10_000)

    async def deliver(kind: WriteKind, text: str) -> None:
        write = kit.write(kind, "parts", COLUMNS, *((str(n), *(text for _ in range(8))) for n in many))
        write.if_unchanged = True
        await kit.deliver_alone(write)

    timed("deliver new rows", len(many), lambda: anyio.run(deliver, WriteKind.INSERT, "ours"))
    timed("deliver changes", len(many), lambda: anyio.run(deliver, WriteKind.UPDATE, "ours again"))
    timed("read what was delivered again", len(many), look)
    looker.close()
    connection.close()


def main(count: int) -> None:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        postgres = stack.enter_context(start_postgres(folder / "postgres"))
        mariadb = stack.enter_context(start_mariadb(folder / "mariadb"))
        dsn = postgres.dsn("postgres")
        mariadb.execute("create database parts")
        connect: dict[str, Any] = {"unix_socket": str(mariadb.socket_path), "user": "root", "database": "parts"}
        places = {name: folder / name for name in ("a", "b", "c", "d")}
        for place in places.values():
            place.mkdir()
        measure(
            "PostgreSQL, psycopg", places["a"],
            PollingConfig(driver="psycopg", dialect="postgres", connect={"conninfo": dsn}),
            test_postgres.Users(dsn), Form.TEXT, count,
        )  # fmt: skip
        measure(
            "MariaDB, PyMySQL", places["b"], PollingConfig(driver="pymysql", dialect="mysql", connect=connect),
            test_mariadb.Users(mariadb, "parts"), Form.TEXT, count,
        )  # fmt: skip
        path = places["c"] / "parts.db"
        measure(
            "SQLite, sqlite3", places["c"],
            PollingConfig(driver="sqlite3", dialect="sqlite", connect={"database": str(path)}),
            test_polling_sqlite.Users(path), Form.NATIVE, count,
        )  # fmt: skip
        path = places["d"] / "parts.duckdb"
        measure(
            "DuckDB, duckdb", places["d"],
            PollingConfig(driver="duckdb", dialect="duckdb", connect={"database": str(path)}),
            test_polling_duckdb.Users(path), Form.TEXT, count,
        )  # fmt: skip


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
