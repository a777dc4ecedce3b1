"""The feed: opens the log behind a position, hands out batches, and reads pages beside the running log.

`receive` reads the dump connection; the catalogue and pages have connections of their own. A server keeps its log for
as long as it is configured to, whoever reads it, so there is nothing to confirm.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Final

import anyio
import anyio.lowlevel

from engine.errors import PositionLost, SourceUnready, SystemUnreachable
from engine.model.change import Batch, Chunk, EventKind
from engine.model.position import Position
from engine.model.table import Shape
from engine.plugin import Site
from engine.ports import Feed
from plugins.mysql.catalog import MARKER, read_shapes, split_name
from plugins.mysql.check import log_problem
from plugins.mysql.collect import Relation
from plugins.mysql.columns import log_columns, shape_of
from plugins.mysql.compile import compile_decoders
from plugins.mysql.config import MysqlConfig
from plugins.mysql.connect import Connection, Session, session
from plugins.mysql.events import decode_table_map, table_map_names
from plugins.mysql.gather import Gatherer, Stop
from plugins.mysql.position import Resume, file_base, file_number, parse_gtids, position_of, resume_at
from plugins.mysql.snapshot import log_end, read_delivery, read_page, snapshot
from plugins.mysql.statements import Effect, understand
from plugins.mysql.wire import Wire, dump

# Where only others' transactions go on, the position is worth a hub commit this often.
POSITION_SECONDS: Final = 1.0
INSPECT_SECONDS: Final = 10.0
# A transaction is sent as soon as it is in the log, a moment before other sessions see its rows.
SETTLE_SECONDS_MAX: Final = 60.0
SETTLE_PAUSE_SECONDS: Final = 0.02
# Longer than any coordinator takes that is still there.
DISTRIBUTED_SECONDS_MAX: Final = 60.0
# How long the position at which the log ends for us may take to become durable.
CONFIRM_SECONDS_MAX: Final = 30.0


@dataclass(frozen=True, slots=True)
class _Catalogue:
    """What the server says about itself. `end`: where its log ended when it was asked; `character_sets` by collation
    number."""

    server: str
    is_mariadb: bool
    end: Position
    shapes: dict[str, Shape]
    character_sets: dict[int, str]


class MysqlSource:
    """The binary log of one MariaDB or MySQL server, as far as it is about the tables of one system."""

    def __init__(self, site: Site, config: MysqlConfig) -> None:
        self._site = site
        self._config = config

    def feed(
        self, after: Position | None, tables: Sequence[str], verify: frozenset[str]
    ) -> AbstractAsyncContextManager[Feed]:
        """See `engine.ports.Source.feed`. None: from where the log ends now, for there is nothing that set-up could
        put down; what is older is in the tables, which are copied then."""
        return self._feed(after, tables, verify)

    @asynccontextmanager
    async def _feed(
        self, after: Position | None, tables: Sequence[str], verify: frozenset[str]
    ) -> AsyncGenerator[Feed]:
        site, config = self._site, self._config
        async with session(site, config) as opened:
            problem = await opened.run(lambda connection: log_problem(connection, config))
            if problem is not None:
                hint = f"Run: {problem.sql} {problem.hint}" if problem.sql else problem.hint
                raise SourceUnready(f"system {site.name}, setting {problem.path}: {problem.message}", hint=hint)
            catalogue = await opened.run(lambda connection: load_catalogue(connection, config, tables))
            start = after or await opened.run(partial(_load_start, catalogue))
            if after is None and catalogue.is_mariadb:
                await _wait_distributed(opened)
        resume = resume_at(start, system=site.name)
        if after is not None:
            _check(resume, catalogue, system=site.name)
        async with dump(site, config, resume) as (wire, has_checksum):
            gatherer = Gatherer(system=site.name, resume=resume, has_checksum=has_checksum)
            feed = MysqlFeed(site, config, wire, gatherer, start, tables, verify)
            feed.inspect(catalogue)
            yield feed


class MysqlFeed:
    """An open log; see `engine.ports.Feed`."""

    def __init__(
        self,
        site: Site,
        config: MysqlConfig,
        wire: Wire,
        gatherer: Gatherer,
        start: Position,
        tables: Sequence[str],
        verify: frozenset[str],
    ) -> None:
        self._site = site
        self._config = config
        self._wire = wire
        self._gatherer = gatherer
        self._tables = tuple(tables)
        self._names = {split_name(name, config.database): name for name in tables}
        self._verify = verify
        self._catalogue: _Catalogue | None = None
        self._shapes: dict[str, Shape] = {}
        """As the last events or the first look told the engine."""
        self._gone: set[str] = set()
        self._stop: Stop | None = None
        self._handed = start
        self._handed_at = monotonic()
        self._inspect_at = monotonic() + INSPECT_SECONDS
        self._end_at_open: tuple[int, ...] | None = None
        self._lost: PositionLost | None = None
        self._confirmed = anyio.Event()

    @property
    def position(self) -> Position:
        """Everything up to here has been handed out."""
        return self._handed

    def confirm(self, position: Position) -> None:
        """The server keeps its log by age and size, and asks nobody."""
        if self._lost is not None and position == self._handed:
            self._confirmed.set()

    async def receive(self, rows_max: int) -> Batch:
        """The next stretch of the log; see `engine.ports.Feed.receive`. Where there is no reading on, that is kept as a
        position before it is raised: whoever comes back is told when the log is opened, and may have it begun anew."""
        if self._lost is not None:
            # The lane that is told ends at once, with what it has not committed yet.
            with anyio.move_on_after(CONFIRM_SECONDS_MAX):
                await self._confirmed.wait()
            raise self._lost
        try:
            return await self._receive(rows_max)
        except PositionLost as error:
            self._lost = error
            batch = self._gatherer.last_batch(self._handed, error)
            self._handed = batch.position
            return batch

    async def _receive(self, rows_max: int) -> Batch:
        gatherer, wire = self._gatherer, self._wire
        gatherer.rows_max = max(1, rows_max)
        while True:
            # Kept until it is done: cancelled in the middle, it is done again by the next call.
            if self._stop is Stop.TABLE:
                await self._install(gatherer.unknown)
            elif self._stop is Stop.STATEMENT:
                await self._read_statement()
            self._stop = None
            if monotonic() >= self._inspect_at and not gatherer.is_inside:
                await self.look()
            stop = gatherer.take(wire.events())
            if stop in (Stop.TABLE, Stop.STATEMENT):
                self._stop = stop
            elif stop is Stop.FULL:
                if gatherer.has_changes or self._is_due():
                    batch = self._hand_out()
                    batch.has_more = not batch.is_whole or wire.has_event() or self._is_behind()
                    return batch
                # Nothing for the engine, but it was much: let others run.
                await anyio.lowlevel.checkpoint()
            elif not gatherer.is_inside and (gatherer.has_changes or self._is_due()):
                batch = self._hand_out()
                batch.has_more = self._is_behind()
                return batch
            else:
                await self._wait()

    async def chunk(self, table: str, after: tuple[str, ...] | None, rows_max: int, condition: str = "") -> Chunk:
        """A page beside the running log; see `engine.ports.Feed.chunk`."""
        config, deadline = self._config, monotonic() + SETTLE_SECONDS_MAX
        async with session(self._site, config) as opened:
            while monotonic() < deadline:
                # Before the snapshot is taken: what was handed out by then must be in it.
                low = self._handed
                found = await opened.run(partial(self._page, low, table, after, rows_max, condition), table)
                if found is not None:
                    return found
                await anyio.sleep(SETTLE_PAUSE_SECONDS)
        raise SystemUnreachable(
            f"system {self._site.name}: transactions that are in the log have not been committed for"
            f" {SETTLE_SECONDS_MAX:.0f} s",
            hint="Look at the replicas whose acknowledgement the server waits for.",
        )

    def _page(
        self,
        low: Position,
        table: str,
        after: tuple[str, ...] | None,
        rows_max: int,
        condition: str,
        connection: Connection,
    ) -> Chunk | None:
        with snapshot(connection) as placed:
            if placed.low is None or placed.high is None:
                raise _no_log(self._site.name)
            if (file_number(placed.low.file), placed.low.offset, 0) < low.order:
                return None
            page = read_page(connection, self._config.database, table, after, rows_max, condition)
            # Inside the snapshot: a delivery that lands while the page is read is in neither.
            delivery = read_delivery(connection, self._config.database)
            server = self._gatherer.resume.server
            gtids = parse_gtids(placed.gtids)
            high = position_of(server, placed.high.file, placed.high.offset, 0, gtids)
            return Chunk(page=page, low=low, high=high, delivery=delivery)

    async def look(self) -> None:
        """The periodic look at the catalogue."""
        async with session(self._site, self._config) as opened:
            found = await opened.run(lambda connection: load_catalogue(connection, self._config, self._tables))
        self.inspect(found)

    def inspect(self, catalogue: _Catalogue) -> None:
        """Compare what the catalogue says now with what was told; adds events where they differ."""
        is_first = self._catalogue is None
        previous = self._catalogue.shapes if self._catalogue else {}
        self._catalogue = catalogue
        if is_first:
            self._end_at_open = catalogue.end.order
        for name in self._tables:
            shape = catalogue.shapes.get(name)
            if shape is None:
                if name not in self._gone:
                    self._gone.add(name)
                    self._shapes.pop(name, None)
                    self._gatherer.forget(name)
                    detail = "Give the table its name back, create it again, or take it out of the mapping"
                    self._gatherer.collected.event(EventKind.DROPPED, name, None, detail)
                continue
            self._gone.discard(name)
            if shape != previous.get(name) and not is_first:
                # Its next table map says which of the two its rows have.
                self._gatherer.forget(name)
        self._inspect_at = monotonic() + INSPECT_SECONDS

    async def _wait(self) -> None:
        """Wait for the socket, or until something else is due."""
        if self._gatherer.is_inside:
            await self._wire.wait()
            return
        wake = self._inspect_at
        if self._gatherer.order > self._handed.order:
            wake = min(wake, self._handed_at + POSITION_SECONDS)
        with anyio.move_on_after(max(0.0, wake - monotonic())):
            await self._wire.wait()

    def _is_due(self) -> bool:
        """Whether the position has moved alone, and long enough after the last batch."""
        due = monotonic() >= self._handed_at + POSITION_SECONDS
        return due and not self._gatherer.is_inside and self._gatherer.order > self._handed.order

    def _is_behind(self) -> bool:
        """Whether the log held more than what has been read when it was opened."""
        end = self._end_at_open
        if end is not None and (self._gatherer.is_caught_up or self._gatherer.order >= end):
            end = self._end_at_open = None
        return end is not None

    def _hand_out(self) -> Batch:
        batch = self._gatherer.batch(self._handed)
        self._handed = batch.position
        self._handed_at = monotonic()
        return batch

    async def _install(self, body: bytes) -> None:
        """Learn a table from its table map, and from the catalogue where that knows no such columns."""
        schema, table = table_map_names(body)
        if (schema, table) == (self._config.database, MARKER):
            self._gatherer.install(body, self._marker(body))
            return
        name = self._names.get((schema, table))
        if name is None:
            self._gatherer.install(body, None)
            return
        catalogue = self._catalogue
        assert catalogue is not None, "the catalogue is read when the feed is opened"
        sent = decode_table_map(body, is_mariadb=catalogue.is_mariadb)
        shape = self._shape(body, name, catalogue)
        if shape is not catalogue.shapes.get(name):
            # The catalogue as last read does not have these columns; it may now, and otherwise the log's own do.
            await self.look()
            catalogue = self._catalogue
            assert catalogue is not None, "it has just been read"
            shape = self._shape(body, name, catalogue)
        where = f"system {self._site.name}, table {name}"
        columns = log_columns(sent, shape, character_sets=catalogue.character_sets)
        keys = tuple(index for column in shape.key if (index := shape.index(column)) is not None)
        told = self._shapes.get(name) or catalogue.shapes.get(name)
        if told is not None and told != shape:
            self._gatherer.collected.event(EventKind.RESHAPED, name, shape, "its columns are not what they were")
        self._shapes[name] = shape
        present = sum(1 << index for index, column in enumerate(shape.columns) if not column.is_generated)
        self._gatherer.install(
            body,
            Relation(
                name=name,
                decoders=compile_decoders(columns, keys=keys, table=where),
                shape=shape,
                columns_present=present.to_bytes((len(columns) + 7) // 8, "little"),
                is_verified=name in self._verify,
            ),
        )

    def _shape(self, body: bytes, name: str, catalogue: _Catalogue) -> Shape:
        return shape_of(
            decode_table_map(body, is_mariadb=catalogue.is_mariadb),
            catalogue.shapes.get(name),
            name=name,
            system=self._site.name,
            character_sets=catalogue.character_sets,
        )

    def _marker(self, body: bytes) -> Relation:
        """The marker's decoders. Its columns are what our set-up made them."""
        catalogue = self._catalogue
        assert catalogue is not None, "the catalogue is read when the feed is opened"
        sent = decode_table_map(body, is_mariadb=catalogue.is_mariadb)
        where = f"system {self._site.name}, table {MARKER}"
        sets = catalogue.character_sets
        shape = shape_of(sent, catalogue.shapes.get(MARKER), name=MARKER, system=self._site.name, character_sets=sets)
        seq = shape.index("seq")
        if seq is None:
            raise SourceUnready(f"{where}: it has no column seq, so it is none of ours", hint="Run `concord teardown`.")
        columns = log_columns(sent, shape, character_sets=sets)
        return Relation(name=MARKER, decoders=compile_decoders(columns, keys=(), table=where), marker_seq=seq)

    async def _read_statement(self) -> None:
        """Do what the statement that the log holds next asks for."""
        gatherer = self._gatherer
        assert gatherer.statement is not None, "take stops with one"
        effect, tables = understand(gatherer.statement.text, gatherer.statement.schema, self._names)
        if effect is Effect.CHANGE:
            raise PositionLost(
                f"system {self._site.name}: the log has a statement instead of the rows that it changed; it may be of"
                f" table {', '.join(tables[:5])}",
                hint="Run: set global binlog_format = 'ROW'; then end the sessions that began before, and run"
                f" `concord backfill {self._site.name}`.",
            )
        if effect in (Effect.DEFINE, Effect.DROP, Effect.TRUNCATE):
            await self.look()
            for name in tables if effect is not Effect.DEFINE else ():
                # A table that was dropped and is there again has lost its rows all the same.
                if name not in self._gone:
                    gatherer.truncated(name)


def load_catalogue(connection: Connection, config: MysqlConfig, tables: Sequence[str]) -> _Catalogue:
    """Read what the feed must know of the server and of its tables."""
    is_mariadb = connection.is_mariadb
    end = log_end(connection)
    if end is None:
        raise _no_log(connection.system)
    ((server,),) = connection.rows("select @@global.server_id" if is_mariadb else "select @@global.server_uuid")
    shapes = read_shapes(connection, config.database, (*tables, MARKER))
    return _Catalogue(
        server=str(server),
        is_mariadb=is_mariadb,
        end=position_of(str(server), end.file, end.offset, 0, {}),
        shapes=shapes,
        character_sets=_character_sets(connection),
    )


def _load_start(catalogue: _Catalogue, connection: Connection) -> Position:
    """The end of the log, with the last GTIDs before it."""
    if not catalogue.is_mariadb:
        return catalogue.end
    end = log_end(connection)
    if end is None:
        raise _no_log(connection.system)
    # Reads the file from its beginning: exact, and too slow to be asked often.
    text = f"select binlog_gtid_pos({connection.literal(end.file)}, {end.offset})"
    ((gtids,),) = connection.rows(text)
    return position_of(catalogue.server, end.file, end.offset, 0, parse_gtids(str(gtids or "")))


async def _wait_distributed(opened: Session) -> None:
    """Return when the distributed transactions (XA) that are prepared now have ended.

    Their rows stand in the log before its beginning, and behind it only that they have committed; but then they are in
    the tables, which are copied. A copy that did not wait would show them no more than the log does.
    """
    deadline, waiting = monotonic() + DISTRIBUTED_SECONDS_MAX, await opened.run(_prepared)
    while waiting:
        if monotonic() > deadline:
            raise SourceUnready(
                f"system {opened.system}: {len(waiting)} distributed transactions (XA) have been prepared and not ended"
                f" for {DISTRIBUTED_SECONDS_MAX:.0f} s",
                hint="Run: xa recover; and commit or roll back what it lists.",
            )
        await anyio.sleep(SETTLE_PAUSE_SECONDS)
        waiting &= await opened.run(_prepared)


def _prepared(connection: Connection) -> set[tuple[str, ...]]:
    return {tuple(map(str, row)) for row in connection.rows("xa recover")}


def _character_sets(connection: Connection) -> dict[int, str]:
    rows = [*connection.rows("select id, character_set_name from information_schema.collations")]
    if connection.is_mariadb:
        # Since 10.10 a collation may serve several character sets, and has its numbers here.
        columns = {
            str(name).lower()
            for (name,) in connection.rows(
                "select column_name from information_schema.columns where table_schema = 'information_schema'"
                " and table_name = 'COLLATION_CHARACTER_SET_APPLICABILITY'"
            )
        }
        if "id" in columns:
            rows += connection.rows(
                "select id, character_set_name from information_schema.collation_character_set_applicability"
            )
    return {int(number): str(name) for number, name in rows if number is not None and name is not None}


def _check(resume: Resume, catalogue: _Catalogue, *, system: str) -> None:
    """Raises `PositionLost` when the position is of another log: another server, or one that was restored."""
    trouble = ""
    end = resume_at(catalogue.end, system=system)
    if resume.server != catalogue.server:
        trouble = f"the server is {catalogue.server}, not {resume.server}"
    elif file_base(resume.file) != file_base(end.file):
        trouble = f"its files are called {file_base(end.file)}, not {file_base(resume.file)}"
    elif (resume.number, resume.offset) > (end.number, end.offset):
        trouble = "it ends before our position"
    if trouble:
        raise PositionLost(
            f"system {system}: this is not the log that we read before: {trouble}",
            hint=f"Name the server that was read before, or run `concord backfill {system}`.",
        )


def _no_log(system: str) -> SourceUnready:
    return SourceUnready(
        f"system {system}: the server keeps no binary log",
        hint="Set log_bin, binlog_format = ROW and binlog_row_metadata = FULL in its configuration, and restart it.",
    )
