"""What every plugin owes the engine, as test classes that a plugin's own tests inherit.

    class TestMyDbSource(SourceContract):
        @pytest.fixture
        def kit(self, tmp_path): ...   # a `Kit` over an empty database, made anew for each test

A kit gives the tests the little that differs between kinds: how its users' statements are run, how names are quoted
and column types are called. The statements themselves are SQL that every database understands. pytest and anyio's
plugin for it must be installed.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import anyio

from engine.model.change import Batch
from engine.model.position import Position
from engine.model.table import Form, Shape
from engine.model.value import ABSENT, WireRow
from engine.plugin import Plugin, Site
from engine.ports import Feed, Role, TableWrite, TargetSession, WriteKind, WriteResult
from engine.promises import Promise
from engine.testing.proxy import Proxy

# Far above what any of it takes; a hang shall fail the test and not the run.
SECONDS_MAX = 120
HUB = "5d1f9c52-8a3e-4a53-9c39-6d1c8b0b7f11"
EPOCH = 3


class Users(Protocol):
    """The programs that use the database, apart from Concord: one connection."""

    def transaction(self, *statements: str) -> None:
        """Run the statements in one transaction and commit it."""
        ...

    def rows(self, query: str) -> list[tuple[Any, ...]]: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Values:
    """Values of one type: `literals` in the database's SQL, `spelt` as text what its log gives for each (`texts`).

    `type`: the database's name of it, `key_type` another one for a column that is a key.
    """

    name: str
    type: str
    literals: tuple[str, ...]
    spelt: tuple[str, ...]
    is_key: bool = True
    key_type: str = ""


@dataclass(slots=True)
class Kit:
    """One database of a kind.

    `form`: how the plugin spells values. `schema` stands before a table's name in the mapping, with its dot. `quote` is
    what names are put between. `integer`, `text`: column types; `text_key`: of a text that is a key; `assigned`: of a
    key that the database hands out.
    `emptied`: what empties the table that is named behind it. `past`: statements after which, and until which others,
    users write past what is read; None where nobody can. `values`: for `values.ValuesContract`.
    `poor`, for `rights.RightsContract`: the configuration with a user who may do nothing but connect.

    For `connection.ConnectionContract`, of kinds that have a server: `address`, its host and port; `through`, makes the
    configuration of the same system behind another port of this machine, with the shortest time limits there are;
    `patience`, limits of the plugin's own (dotted names of module constants) and the seconds they have in the tests.
    """

    plugin: Plugin[Any]
    site: Site
    config: Any
    users: Users
    form: Form = Form.TEXT
    schema: str = ""
    quote: str = '"'
    integer: str = "integer"
    text: str = "text"
    text_key: str = "varchar(100)"
    assigned: str = "integer primary key"
    emptied: str = "truncate table"
    past: tuple[tuple[str, ...], tuple[str, ...]] | None = None
    address: tuple[str, int] | None = None
    through: Callable[[int], Any] | None = None
    values: tuple[Values, ...] = ()
    poor: Any = None
    patience: Mapping[str, float] = field(default_factory=lambda: {})
    seq: int = field(default=0)

    def quoted(self, name: str) -> str:
        """A name as SQL spells it, whatever is in it."""
        return f"{self.quote}{name.replace(self.quote, self.quote * 2)}{self.quote}"

    def create(self, table: str, *columns: str, assigned: bool = False) -> str:
        """A table of an integer key `id` and text columns; its name in the mapping."""
        key = self.assigned if assigned else f"{self.integer} primary key"
        others = "".join(f", {self.quoted(column)} {self.text}" for column in columns)
        self.users.transaction(f"create table {self.quoted(table)} (id {key}{others})")
        return self.schema + table

    def named(self, table: str, *columns: str) -> str:
        """A table of a text key `id` and text columns; its name in the mapping."""
        others = "".join(f", {self.quoted(column)} {self.text}" for column in columns)
        self.users.transaction(f"create table {self.quoted(table)} (id {self.text_key} primary key{others})")
        return self.schema + table

    def keeps(self, promise: Promise) -> bool:
        """Whether the plugin says that a system which is configured so keeps it."""
        return self.plugin.promises_for(self.config)[promise].is_kept

    @contextmanager
    def unwatched(self) -> Generator[None]:
        """For kinds that look now and then: no look inside, one behind it."""
        yield

    def by(self, proxy: Proxy) -> Kit:
        """The same system, reached through a proxy."""
        assert self.through is not None, "a kit with an address says how its system is reached through another port"
        return replace(self, config=self.through(proxy.port))

    async def setup(self, *tables: str) -> None:
        await self.plugin.system(self.site, self.config).setup(tables, Role.SOURCE | Role.TARGET)

    async def shape(self, table: str) -> Shape:
        """What the catalogue says of a table."""
        return (await self.plugin.system(self.site, self.config).shapes([table]))[table]

    @asynccontextmanager
    async def feed(
        self, *tables: str, after: Position | None = None, verify: frozenset[str] = frozenset()
    ) -> AsyncGenerator[Feed]:
        assert self.plugin.source is not None
        with anyio.fail_after(SECONDS_MAX):
            async with self.plugin.source(self.site, self.config).feed(after, tables, verify) as feed:
                yield feed

    async def drain(self, feed: Feed, rows_max: int = 1000) -> list[Batch]:
        """Receive until the feed has passed what is committed now."""
        head = (await self.plugin.system(self.site, self.config).health()).head
        assert head is not None
        batches: list[Batch] = []
        while feed.position < head:
            batches.append(await feed.receive(rows_max))
        return batches

    async def changes(self, *tables: str, after: Position | None = None, rows_max: int = 1000) -> list[Batch]:
        """All batches up to now, from a feed of its own; nothing is confirmed."""
        async with self.feed(*tables, after=after) as feed:
            return await self.drain(feed, rows_max)

    @asynccontextmanager
    async def session(self, *tables: str, epoch: int = EPOCH, hub: str = HUB) -> AsyncGenerator[TargetSession]:
        assert self.plugin.target is not None
        with anyio.fail_after(SECONDS_MAX):
            async with self.plugin.target(self.site, self.config).open(tables) as session:
                await session.claim(hub, epoch)
                yield session

    async def deliver(self, session: TargetSession, *writes: TableWrite) -> list[WriteResult]:
        """The writes as one delivery with the next seq."""
        self.seq += 1
        async with session.delivery(self.seq) as delivery:
            return [await delivery.write(write) for write in writes]

    async def deliver_alone(self, *writes: TableWrite) -> list[WriteResult]:
        """The writes as one delivery of a session of its own."""
        async with self.session(*dict.fromkeys(write.table for write in writes)) as session:
            return await self.deliver(session, *writes)

    def write(
        self, kind: WriteKind, table: str, columns: Sequence[str], *rows: Sequence[str | None], assigned: bool = False
    ) -> TableWrite:
        """Rows to write; the first column is the key. `assigned`: `columns` are without it, the target makes it."""
        key = "id" if assigned else columns[0]
        return TableWrite(
            table=table,
            place=table,
            kind=kind,
            columns=tuple(columns),
            key=(key,),
            rows=[tuple(row) if assigned else self._wire(row) for row in rows],
            rids=list(range(101, 101 + len(rows))),
            assigned=key if assigned else None,
        )

    def _wire(self, row: Sequence[str | None]) -> WireRow:
        key, *others = row
        return (int(key) if self.form is Form.NATIVE and key is not None else key, *others)


Change = tuple[str, tuple[str | None, ...]]
"""Operation and row of one change; every value as text, "(absent)" for one that was not sent."""


def flat(batches: Sequence[Batch], table: str) -> list[Change]:
    """Changes of a table, in log order."""
    return [
        (chr(op), texts(row))
        for batch in batches
        for segment in batch.segments
        if table in segment.tables
        for op, row in zip(segment.tables[table].ops, segment.tables[table].rows, strict=True)
    ]


def texts(row: WireRow) -> tuple[str | None, ...]:
    """Every value as text, whatever the form."""
    return tuple("(absent)" if value is ABSENT else None if value is None else str(value) for value in row)


def seen(batches: Sequence[Batch], table: str) -> list[tuple[str | None, int | None]]:
    """(key, newest marker before it) of each change of a table."""
    found: list[tuple[str | None, int | None]] = []
    newest: int | None = None
    for batch in batches:
        for segment in batch.segments:
            newest = segment.seen if segment.seen is not None else newest
            if table in segment.tables:
                found += [(texts(row)[0], newest) for row in segment.tables[table].rows]
    return found
