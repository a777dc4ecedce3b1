"""The contract of all plugins for systems that are polled: a look after each transaction of the users.

What happens between two looks cannot be told apart, and the chapter of the plugin says so. Where one is taken after
each transaction, a polled system keeps what every other one does; what it cannot even then has a test of its own here.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest

from engine.model.position import Position
from engine.ports import Feed, TableWrite, WriteKind
from engine.testing.contract import Kit, Users, flat
from engine.testing.contract.source import SourceContract
from plugins.polling import capture
from plugins.polling.capture import Looker
from plugins.polling.connect import connect_now, guarded


class WatchedUsers:
    """Users, with a look after each of their transactions once there is a feed's beginning."""

    def __init__(self, users: Users) -> None:
        self._users = users
        self.kit: PolledKit | None = None

    def transaction(self, *statements: str) -> None:
        self._users.transaction(*statements)
        if self.kit is not None:
            self.kit.look()

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        return self._users.rows(query)

    def close(self) -> None:
        self._users.close()


@dataclass(slots=True)
class PolledKit(Kit):
    """Nobody keeps a place for a feed, so the log begins where it is first opened: here, after set-up."""

    beginning: Position | None = None
    tables: tuple[str, ...] = ()
    is_open: int = 0
    """Feeds that are: they look by themselves."""

    async def setup(self, *tables: str) -> None:
        await super(PolledKit, self).setup(*tables)
        if self.beginning is None:
            self.tables = tables
            async with super(PolledKit, self).feed(*tables) as feed:
                self.beginning = feed.position
            assert isinstance(self.users, WatchedUsers)
            self.users.kit = self

    def look(self) -> None:
        """What the feed does when it is due, here and now."""
        if self.is_open:
            return
        connection = connect_now(self.site, self.config)
        looker = Looker(self.site, self.config, self.tables, frozenset())
        try:
            about = looker.looks.about()
            guarded(lambda c: looker.open(c, Position((about.look, 0), about.token)), connection)
            for table in looker.tables.values():
                table.looked_at = None
            guarded(lambda c: looker.look(c, is_due=True), connection)
        finally:
            looker.close()
            connection.close()

    @asynccontextmanager
    async def feed(
        self, *tables: str, after: Position | None = None, verify: frozenset[str] = frozenset()
    ) -> AsyncGenerator[Feed]:
        async with super(PolledKit, self).feed(*tables, after=after or self.beginning, verify=verify) as feed:
            self.is_open += 1
            try:
                yield feed
            finally:
                self.is_open -= 1

    def write(
        self, kind: WriteKind, table: str, columns: Sequence[str], *rows: Sequence[str | None], assigned: bool = False
    ) -> TableWrite:
        made = super(PolledKit, self).write(kind, table, columns, *rows, assigned=assigned)
        return replace(made, if_unchanged=True)


class PolledSourceContract(SourceContract):
    """What polling cannot keep is here as it is."""

    @pytest.fixture(autouse=True)
    def _says_soon_that_nothing_is_new(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(capture, "KEEP_ALIVE_SECONDS", 0.05)

    async def test_a_key_that_changes_names_the_old_one(self, kit: Kit) -> None:
        """It does not: a row is known by its key."""
        table = kit.create("customers", "name")
        await kit.setup(table)
        kit.users.transaction("insert into customers values (1, 'A')")
        kit.users.transaction("update customers set id = 7 where id = 1")
        changes = flat(await kit.changes(table), table)
        assert changes[0] == ("I", ("1", "A"))
        assert sorted((op, row[0]) for op, row in changes[1:]) == [("D", "1"), ("I", "7")]

    async def test_a_row_deleted_and_entered_again_is_both(self, kit: Kit) -> None:
        """Only where a look comes between."""
        table = kit.create("customers", "name")
        await kit.setup(table)
        kit.users.transaction("insert into customers values (1, 'A')")
        kit.users.transaction("delete from customers where id = 1", "insert into customers values (1, 'B')")
        kit.users.transaction("delete from customers where id = 1")
        kit.users.transaction("insert into customers values (1, 'C')")
        changes = flat(await kit.changes(table), table)
        assert [(op, row[0]) for op, row in changes] == [("I", "1"), ("U", "1"), ("D", "1"), ("I", "1")]
        assert [row[1] for _, row in changes if row[1] != "(absent)"] == ["A", "B", "C"]
