"""The contract of all plugins, on MariaDB."""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pymysql
import pytest

from engine.model.position import Position
from engine.plugin import Site
from engine.ports import Feed
from engine.testing.contract import Kit
from engine.testing.contract.connection import ConnectionContract
from engine.testing.contract.names import NamesContract
from engine.testing.contract.rights import RightsContract
from engine.testing.contract.snapshot import SnapshotContract
from engine.testing.contract.source import SourceContract
from engine.testing.contract.target import TargetContract
from engine.testing.contract.values import ValuesContract
from engine.testing.mariadb import MariadbServer
from plugins.mysql import plugin
from plugins.mysql.config import MysqlConfig
from tests.contract.typed import MARIADB

_names = itertools.count(1)


class Users:
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


@dataclass(slots=True)
class MariadbKit(Kit):
    """The server keeps no place for anybody, so the log begins where somebody first opened it: here, after set-up."""

    beginning: Position | None = None

    async def setup(self, *tables: str) -> None:
        await super(MariadbKit, self).setup(*tables)
        if self.beginning is None:
            async with super(MariadbKit, self).feed(*tables) as feed:
                self.beginning = feed.position

    @asynccontextmanager
    async def feed(
        self, *tables: str, after: Position | None = None, verify: frozenset[str] = frozenset()
    ) -> AsyncGenerator[Feed]:
        async with super(MariadbKit, self).feed(*tables, after=after or self.beginning, verify=verify) as feed:
            yield feed


@pytest.fixture
def kit(mariadb_server: MariadbServer, tmp_path: Path) -> Iterator[Kit]:
    database = f"contract_{next(_names)}"
    mariadb_server.execute(f"create database {database} character set utf8mb4")

    def through(port: int) -> MysqlConfig:
        return MysqlConfig(
            database=database,
            user="root",
            host="127.0.0.1",
            port=port,
            tls="off",
            connect_seconds_max=2,
            statement_seconds_max=2,
            lock_seconds_max=2,
        )

    made = MariadbKit(
        plugin=plugin,
        site=Site(name="crm", directory=tmp_path, work_directory=tmp_path / "work"),
        config=MysqlConfig(database=database, user="root", unix_socket=str(mariadb_server.socket_path), tls="off"),
        users=Users(mariadb_server, database),
        values=MARIADB,
        quote="`",
        past=(("set sql_log_bin = 0",), ("set sql_log_bin = 1",)),
        assigned="integer primary key auto_increment",
        address=("127.0.0.1", mariadb_server.port),
        through=through,
        patience={
            "plugins.mysql.wire.SILENCE_SECONDS_MAX": 2.0,
            "plugins.mysql.wire.HEARTBEAT_SECONDS": 1,
            "plugins.mysql.connect.GRACE_SECONDS": 1,
        },
    )
    mariadb_server.execute(f"create user {database}@localhost")
    # Without any right in the database nobody can connect to it.
    mariadb_server.execute(f"grant show view on {database}.* to {database}@localhost")
    made.poor = msgspec.structs.replace(made.config, user=database)
    try:
        yield made
    finally:
        made.users.close()
        mariadb_server.execute(f"drop database {database}")
        mariadb_server.execute(f"drop user {database}@localhost")


class TestSource(SourceContract):
    pass


class TestTarget(TargetContract):
    pass


class TestSnapshot(SnapshotContract):
    pass


class TestNames(NamesContract):
    pass


class TestRights(RightsContract):
    pass


class TestValues(ValuesContract):
    pass


class TestConnection(ConnectionContract):
    pass
