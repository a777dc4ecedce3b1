"""The contract of all plugins, on DuckDB: a stranger, of which the plugin knows its habits and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from engine.plugin import Site
from engine.testing.contract import Kit
from engine.testing.contract.names import NamesContract
from engine.testing.contract.snapshot import SnapshotContract
from engine.testing.contract.source import SourceContract
from engine.testing.contract.target import TargetContract
from engine.testing.contract.values import ValuesContract, common_values
from plugins.polling import plugin
from plugins.polling.config import PollingConfig
from tests.contract.polled import PolledKit, WatchedUsers


class Users:
    """A program that has the file open: DuckDB lets one process at a time write to it, so this one."""

    def __init__(self, path: Path) -> None:
        self._connection: Any = duckdb.connect(str(path))

    def transaction(self, *statements: str) -> None:
        self._connection.execute("begin transaction")
        try:
            for statement in statements:
                self._connection.execute(statement)
            self._connection.execute("commit")
        except duckdb.Error:
            self._connection.execute("rollback")
            raise

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        return self._connection.execute(query).fetchall()

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[Kit]:
    path = tmp_path / "crm.duckdb"
    users = Users(path)
    users.transaction("create sequence ids")
    made = PolledKit(
        plugin=plugin,
        site=Site(name="crm", directory=tmp_path, work_directory=tmp_path / "work"),
        config=PollingConfig(driver="duckdb", dialect="duckdb", connect={"database": str(path)}, every=0.01),
        users=WatchedUsers(users),
        values=common_values(
            {
                "text": "text",
                "integer": "bigint",
                "decimal": "decimal(38, 10)",
                "float": "double",
                "boolean": "boolean",
                "date": "date",
                "time": "time",
                "timestamp": "timestamp",
                "instant": "timestamptz",
                "uuid": "uuid",
                "binary": "blob",
                "enum": "enum('new', 'in work')",
                "json": "json",
            },
            binary=(("'\\x00\\xff\\x5c\\x27'::blob", "''::blob"), ("\\x00ff5c27", "\\x")),
        ),
        assigned="integer primary key default nextval('ids')",
    )
    yield made
    made.users.close()


class TestSource(SourceContract):
    pass


class TestTarget(TargetContract):
    pass


class TestSnapshot(SnapshotContract):
    pass


class TestNames(NamesContract):
    pass


class TestValues(ValuesContract):
    pass
