"""The contract of all plugins for systems that are polled: a look after each transaction of the users.

What happens between two looks cannot be told apart, and the plugin's promises say so. Where one is taken after each
transaction, a polled system keeps what every other one does, but for what its promises say of keys.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from engine.model.position import Position
from engine.ports import Feed, TableWrite, WriteKind
from engine.testing.contract import Kit, Users
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

    @contextmanager
    def unwatched(self) -> Generator[None]:
        assert isinstance(self.users, WatchedUsers)
        self.users.kit = None
        yield
        self.users.kit = self
        self.look()

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
