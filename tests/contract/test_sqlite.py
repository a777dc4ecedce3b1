"""The contract of all plugins, on a SQLite file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import apsw
import pytest

from engine.model.table import Form
from engine.plugin import Site
from engine.testing.contract import Kit
from engine.testing.contract.names import NamesContract
from engine.testing.contract.snapshot import SnapshotContract
from engine.testing.contract.source import SourceContract
from engine.testing.contract.target import TargetContract
from engine.testing.contract.values import ValuesContract
from plugins.sqlite import plugin
from plugins.sqlite.config import SqliteConfig
from plugins.sqlite.connect import Connection
from tests.contract.typed import SQLITE


class Users:
    """One program that has the file open."""

    def __init__(self, path: Path) -> None:
        self._connection = cast("Connection", apsw.Connection(str(path)))
        self._connection.set_busy_timeout(30_000)
        self._connection.execute("pragma journal_mode = wal").close()

    def transaction(self, *statements: str) -> None:
        self._connection.execute("begin immediate")
        try:
            for statement in statements:
                self._connection.execute(statement)
            self._connection.execute("commit")
        except apsw.Error:
            self._connection.execute("rollback")
            raise

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        return list(self._connection.execute(query))

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[Kit]:
    made = Kit(
        plugin=plugin,
        site=Site(name="crm", directory=tmp_path, work_directory=tmp_path / "work"),
        config=SqliteConfig(path="crm.db", poll_seconds=0.01),
        users=Users(tmp_path / "crm.db"),
        values=SQLITE,
        form=Form.NATIVE,
        emptied="delete from",
        past=(("drop trigger concord_customers_insert",), ()),
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
