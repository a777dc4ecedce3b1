"""The feed: looks at the system when they are due, and hands out what they found from where the hub is."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from functools import partial

import anyio
from sqlglot import exp

from engine.errors import PositionLost, SourceUnready, no_table
from engine.model.change import Batch, Chunk
from engine.model.position import WHOLE, Position
from engine.model.table import Column, Shape
from engine.plugin import Site
from plugins.polling.beat import next_look
from plugins.polling.catalog import MARKER, read_shape
from plugins.polling.config import PollingConfig, state_path
from plugins.polling.connect import Connection, Session, session
from plugins.polling.errors import kind_of, no_key
from plugins.polling.found import read_found
from plugins.polling.horizon import read_clock, read_oldest
from plugins.polling.look import DROPPED, RESHAPED, Look
from plugins.polling.looks import Looked, Looks
from plugins.polling.snapshot import read_page

KEEP_ALIVE_SECONDS = 1.0
# Rows that deliveries wrote or left out are read again that soon, whatever the tables' beats.
ASK_SECONDS = 0.5


class PollingSource:
    """`engine.ports.Source` of one polled system."""

    def __init__(self, site: Site, config: PollingConfig) -> None:
        self.site = site
        self.config = config

    @asynccontextmanager
    async def feed(
        self, after: Position | None, tables: Sequence[str], verify: frozenset[str]
    ) -> AsyncGenerator[PollingFeed]:
        async with session(self.site, self.config) as opened:
            looker = Looker(self.site, self.config, tuple(tables), verify)
            try:
                start = await opened.run(lambda connection: looker.open(connection, after))
                yield PollingFeed(opened, looker, start)
            finally:
                looker.close()


class Looker:
    """Takes looks, in the connection's thread."""

    def __init__(self, site: Site, config: PollingConfig, tables: tuple[str, ...], verify: frozenset[str]) -> None:
        self.site = site
        self.config = config
        self.names = tables
        self.verify = verify
        self.looks = Looks(state_path(site, config))
        self.tables: dict[str, Looked] = {}
        self.number = 0
        self.token = ""

    def close(self) -> None:
        self.looks.close()

    # Opening.

    def open(self, connection: Connection, after: Position | None) -> Position:
        """Go on behind `after`; None: from now. Raises `PositionLost`, `SourceUnready`."""
        read_marker(connection)
        about = self.looks.about()
        if after is not None:
            self._check_place(after)
            self.number = about.look
        with self.looks.transaction():
            if after is None:
                self.looks.reset()
                self.number = self.looks.about().look
            self.tables = self.looks.tables()
            for name in [name for name in self.tables if name not in self.names]:
                self.looks.drop_table(self.tables.pop(name).id)
            new = [name for name in self.names if name not in self.tables]
            if new:
                self._begin(connection, new)
            for table in self.tables.values():
                table.verify = table.name in self.verify
                self.looks.save(table)
        self.token = self.looks.about().token
        return after or Position((self.number, WHOLE), self.token)

    def _check_place(self, after: Position) -> None:
        about = self.looks.about()
        hint = f"Run `concord backfill {self.site.name}`, then `concord compare`: rows deleted meanwhile are not known."
        name = state_path(self.site, self.config).name
        if after.token != about.token:
            raise PositionLost(
                f"system {self.site.name}: the file {name} is not the one that we have read: what was known of the rows"
                " is gone",
                hint=hint,
                system=self.site.name,
            )
        if after.order[0] > about.look or after.order < about.purged:
            raise PositionLost(
                f"system {self.site.name}: the file {name} and the hub are of different times, so what was found"
                " between is gone",
                hint=hint,
                system=self.site.name,
            )

    def _begin(self, connection: Connection, names: Sequence[str]) -> None:
        """Know the rows of these tables as they are now; none of them is news."""
        ours = time.time()
        oldest = read_oldest(connection, ours)
        with connection.snapshot():
            seq = read_marker(connection)
            clock = read_clock(connection, ours)
            look = Look(connection, self.looks, self.number, seq)
            look.is_silent = True
            for name in names:
                shape = read_shape(connection, name)
                if shape is None or not shape.key:
                    raise _unusable(self.site.name, name, shape)
                table = self.tables[name] = self.looks.add_table(name, shape, probe(connection, name))
                look.sweep(table)
                column = self._updated_at(table)
                if column is not None:
                    look.begin_cursor(table, column, clock, oldest)
                table.looked_at = table.swept_at = ours
                self.looks.save(table)
        self.looks.run("update about set seen = ?", (seq,))

    # Looking.

    def next_due(self) -> float:
        """When the next table is due, seconds since 1970."""
        return min((self._due(table) for table in self.tables.values()), default=time.time() + 60)

    def _due(self, table: Looked) -> float:
        return next_look(*self.config.beat(table.name), table.looked_at)

    def look(self, connection: Connection, *, is_due: bool) -> None:
        """Take one look at the tables that are due, and at rows that were asked for; without `is_due` at these only."""
        ours = time.time()
        due = [table for table in self.tables.values() if is_due and self._due(table) <= ours]
        oldest = read_oldest(connection, ours) if due else None
        present = {name: probe(connection, name) for name in self.tables}
        with self.looks.transaction(), connection.snapshot():
            about = self.looks.about()
            if about.look != self.number:
                raise SourceUnready(
                    f"system {self.site.name}: somebody else looks at it with the same file",
                    hint="Let one daemon run.",
                    system=self.site.name,
                )
            self.number += 1
            seq = read_marker(connection)
            look = Look(connection, self.looks, self.number, seq)
            clock = read_clock(connection, ours) if due else ours
            seen_at_least = min((table.swept for table in self.tables.values()), default=0)
            for table in self.tables.values():
                if self._is_there(connection, look, table, present[table.name]):
                    look.read_asked(table)
                    if table in due:
                        self._look_at(look, table, ours, clock, oldest)
                    self.looks.save(table)
            if look.count or look.echoed or seq != about.seen:
                self.looks.run(
                    "insert into look values (?, ?, ?, ?, ?)", (self.number, seq, seen_at_least, look.at, look.echoed)
                )
            self.looks.run("update about set look = ?, seen = ?", (self.number, seq))

    def known(self, table: str, seq: int, keys: list[str]) -> set[str]:
        """Those of the keys whose rows a look has found, or a delivery has made: what is new comes with the next look,
        which says since when it may have been there."""
        looked = self.tables.get(table)
        return set() if looked is None else set(self.looks.expected(looked.id, keys, seq))

    def _look_at(self, look: Look, table: Looked, ours: float, clock: float, oldest: float | None) -> None:
        column = self._updated_at(table)
        if column is not None:
            look.read_cursor(table, column, self.config.overlap_seconds(table.name), clock, oldest)
        if column is None or (table.swept_at or 0) + self.config.sweep_seconds(table.name) <= ours:
            look.sweep(table)
        table.looked_at = ours

    def _updated_at(self, table: Looked) -> Column | None:
        name = self.config.options(table.name).updated_at
        return None if name is None else table.shape.column(name)

    def _is_there(self, connection: Connection, look: Look, table: Looked, names: tuple[str, ...]) -> bool:
        """Whether the table is there; `names`: its columns as they are now."""
        if not names:
            if not table.is_gone:
                table.is_gone = True
                look.tell(table, DROPPED)
                self.looks.save(table)
            return False
        if names != table.names or table.is_gone:
            shape = read_shape(connection, table.name)
            if shape is None or not shape.key:
                raise _unusable(self.site.name, table.name, shape)
            table.names, table.is_gone = names, False
            if shape != table.shape:
                table.shape = shape
                look.tell(table, RESHAPED)
            self.looks.run("update span set digest = null where looked = ?", (table.id,))
        return True


class PollingFeed:
    """`engine.ports.Feed` over looks."""

    def __init__(self, opened: Session, looker: Looker, start: Position) -> None:
        self._session = opened
        self._looker = looker
        self._position = start
        self._confirmed = start
        self._purged = start
        self._kept_alive_at = -KEEP_ALIVE_SECONDS

    @property
    def position(self) -> Position:
        return self._position

    def confirm(self, position: Position) -> None:
        if self._confirmed < position:
            self._confirmed = position

    async def receive(self, rows_max: int) -> Batch:
        while True:
            batch = await self._session.run(lambda _: self._read(max(rows_max, 1)))
            if batch is not None:
                self._position = batch.position
                return batch
            now = time.time()
            wait = min(self._looker.next_due(), now + ASK_SECONDS) - now
            await anyio.sleep(max(wait, 0.0))
            is_due = self._looker.next_due() <= time.time()
            if is_due or self._looker.looks.has_asked():
                await self._session.run(partial(self._looker.look, is_due=is_due))

    async def chunk(self, table: str, after: tuple[str, ...] | None, rows_max: int, condition: str = "") -> Chunk:
        def read(connection: Connection) -> Chunk:
            looker = self._looker
            place = Position((looker.number, WHOLE), looker.token)
            with connection.snapshot():
                hub, seq = marker_row(connection)
                known = partial(looker.known, table, seq)
                page = read_page(connection, table, after, rows_max, known, condition)
            return Chunk(page=page, low=place, high=place, delivery=(hub, seq) if hub else None)

        return await self._session.run(read, table)

    def _read(self, rows_max: int) -> Batch | None:
        """What was found behind our place, or that nothing was, at most once a second."""
        looks = self._looker.looks
        if self._purged < self._confirmed:
            self._purged = self._confirmed
            _purge(looks, self._confirmed)
        batch = read_found(looks, self._position, rows_max, self._looker.number, self._looker.token)
        if batch.segments:
            return batch
        if self._position < batch.position and time.monotonic() >= self._kept_alive_at + KEEP_ALIVE_SECONDS:
            self._kept_alive_at = time.monotonic()
            return batch
        return None


def _purge(looks: Looks, confirmed: Position) -> None:
    look, index = confirmed.order
    with looks.transaction(is_lasting=False):
        looks.run("delete from found where look < ?1 or (look = ?1 and n <= ?2)", (look, index))
        looks.run("delete from look where number < ?1 or (number = ?1 and ?2)", (look, index == WHOLE))
        looks.run("update about set purged_look = ?, purged_index = ?", (look, index))


def marker_row(connection: Connection) -> tuple[str, int]:
    """Hub and seq of the newest delivery; "" where there was none."""
    sql = connection.sql
    rows = connection.rows(f"select {sql.quoted('hub')}, {sql.quoted('seq')} from {sql.quoted(MARKER)}")
    if not rows:
        raise SourceUnready(
            f"system {connection.system}: our marker's row is gone",
            hint=f"Run `concord teardown {connection.system}`, then `concord setup {connection.system}`.",
            system=connection.system,
        )
    hub, seq = rows[0]
    return str(hub or ""), int(seq)


def read_marker(connection: Connection) -> int:
    """Seq of the newest delivery. Raises `SourceUnready` where set-up is missing."""
    if not probe(connection, MARKER):
        raise SourceUnready(
            f"system {connection.system}: our table {MARKER} is not there",
            hint=f"Run `concord setup {connection.system}`.",
            system=connection.system,
        )
    return marker_row(connection)[1]


def probe(connection: Connection, table: str) -> tuple[str, ...]:
    """The table's columns, cheaply; none where it is not there. Not inside a transaction, which some databases end
    when they are asked for what is not there."""
    try:
        return connection.columns(exp.select("*").from_(connection.sql.table(table)).where("1 = 0"))
    except connection.failures as error:
        if kind_of(error) != "table":
            raise
        return ()


def _unusable(system: str, table: str, shape: Shape | None) -> SourceUnready:
    return no_table(system, table) if shape is None else no_key(system, table)
