"""The contract of all plugins, on a SQLite file that is polled."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.model.table import Form
from engine.plugin import Site
from engine.testing.contract import Kit
from engine.testing.contract.names import NamesContract
from engine.testing.contract.snapshot import SnapshotContract
from engine.testing.contract.source import SourceContract
from engine.testing.contract.target import TargetContract
from engine.testing.contract.values import ValuesContract
from plugins.polling import plugin
from plugins.polling.config import PollingConfig
from tests.contract.polled import PolledKit, WatchedUsers
from tests.contract.typed import SQLITE


class Users:
    """One program that has the file open. By the same library as the plugin: two in one process, which a program and
    Concord are not, lose each other's locks (https://www.sqlite.org/howtocorrupt.html, 2.2.1)."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None, timeout=30)
        self._connection.execute("pragma journal_mode = wal")

    def transaction(self, *statements: str) -> None:
        self._connection.execute("begin immediate")
        try:
            for statement in statements:
                self._connection.execute(statement)
            self._connection.execute("commit")
        except sqlite3.Error:
            self._connection.execute("rollback")
            raise

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        return self._connection.execute(query).fetchall()

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[Kit]:
    path = tmp_path / "crm.db"
    made = PolledKit(
        plugin=plugin,
        site=Site(name="crm", directory=tmp_path, work_directory=tmp_path / "work"),
        config=PollingConfig(driver="sqlite3", dialect="sqlite", connect={"database": str(path)}, every=0.01),
        users=WatchedUsers(Users(path)),
        values=SQLITE,
        form=Form.NATIVE,
        emptied="delete from",
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
