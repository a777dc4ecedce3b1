"""The feed: opens the slot behind a position, hands out batches, confirms, and reads pages beside the running log.

Three things share one event loop and one replication connection: `receive`, which reads; a small task that sends the
server a status now and then, also while the engine is busy with a batch; and `chunk`, which has a connection of its
own. None of them awaits while it holds libpq, so they need no lock.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from time import monotonic
from typing import Final

import anyio
import anyio.lowlevel

from engine.errors import PositionLost, SystemUnreachable
from engine.model.change import Batch, Chunk
from engine.model.position import Position
from engine.plugin import Site
from engine.ports import Feed
from plugins.postgres.catalog import Connection, load_catalog
from plugins.postgres.config import PostgresConfig, publication_name, slot_name
from plugins.postgres.connect import connected, translated
from plugins.postgres.gather import Gatherer, Stop
from plugins.postgres.opening import (
    check_history,
    check_same,
    checked_publication,
    checked_slot,
    identified,
    started,
)
from plugins.postgres.position import Resume, before, cure, format_lsn, resume_at
from plugins.postgres.server import load_publication, load_server, load_slot
from plugins.postgres.snapshot import snapshot
from plugins.postgres.spool import Spool
from plugins.postgres.watch import Watch
from plugins.postgres.wire import Wire, replication_connection

# wal_sender_timeout is 60 s unless somebody chose less; then a third of it is what leaves room for one lost answer.
STATUS_SECONDS_MAX: Final = 10.0
# A reader that has stopped must not look alive for ever: the slot stays taken, the log piles up and nobody can take
# over. No batch takes ten minutes to commit; after that the server may drop us, and the lane starts again.
SILENT_SECONDS_MAX: Final = 600.0
# Where only others' transactions go on, the position is worth a hub commit this often.
POSITION_SECONDS: Final = 1.0
INSPECT_SECONDS: Final = 10.0
# A transaction that has been sent but has not ended for other sessions yet is waiting for a synchronous standby. That
# takes milliseconds, or for ever when the standby is gone; then the lane should say so.
SETTLE_SECONDS_MAX: Final = 60.0
SETTLE_PAUSE_SECONDS: Final = 0.02
# In the middle of a large transaction the socket holds a message or two whenever it is looked at. A breath lets some
# hundreds gather, for the price of one read.
BREATH_SECONDS: Final = 0.001
BREATH_ROWS_MIN: Final = 100


class PostgresSource:
    """The change log of one PostgreSQL database."""

    def __init__(self, site: Site, config: PostgresConfig, *, silent_seconds_max: float = SILENT_SECONDS_MAX) -> None:
        self._site = site
        self._config = config
        self._silent_seconds_max = silent_seconds_max

    def feed(
        self, after: Position | None, tables: Sequence[str], verify: frozenset[str]
    ) -> AbstractAsyncContextManager[Feed]:
        """See `engine.ports.Source.feed`."""
        return self._feed(after, tables, verify)

    @asynccontextmanager
    async def _feed(
        self, after: Position | None, tables: Sequence[str], verify: frozenset[str]
    ) -> AsyncGenerator[Feed]:
        site, config = self._site, self._config
        slot_is, publication_is = slot_name(site, config), publication_name(site, config)
        async with connected(site, config, use="catalogue") as connection:
            with translated(site.name, doing="read the catalogue"):
                server = await load_server(connection)
                slot = await load_slot(connection, slot_is)
                publication = await load_publication(connection, publication_is)
                catalog = await load_catalog(connection, tables)
        publication = checked_publication(
            publication, after, slot, system=site.name, name=publication_is, slot_name=slot_is
        )
        async with replication_connection(site, config) as connection:
            cluster = await identified(connection, site.name, publication)
            resume = resume_at(after, system=site.name) if after else None
            usable = checked_slot(slot, resume, system=site.name, slot_name=slot_is, server=server)
            if resume is None:
                resume = Resume(lsn=usable.confirmed_lsn)
            else:
                await check_history(connection, resume, cluster, system=site.name)
                check_same(resume.cluster, publication, system=site.name, slot=slot_is)
            wire = await started(connection, site.name, slot_is, publication_is, resume.lsn)
            spool = Spool(site.work_directory / "streams", system=site.name)
            spool.clear()
            gatherer = Gatherer(system=site.name, cluster=cluster, resume=resume, spool=spool)
            watch = Watch(site, config, gatherer, tables, verify)
            watch.inspect(catalog, publication)
            feed = PostgresFeed(site, config, wire, gatherer, watch, after or before(resume.lsn, cluster))
            timeout = int(server.settings.get("wal_sender_timeout", "60000")) / 1000
            interval = min(STATUS_SECONDS_MAX, timeout / 3) if timeout else STATUS_SECONDS_MAX
            try:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(feed.report, interval, self._silent_seconds_max, name=f"{site.name} status")
                    try:
                        yield feed
                    finally:
                        tasks.cancel_scope.cancel()
                        wire.send_status()
                        spool.clear()
            except BaseExceptionGroup as group:
                # The task above never fails, so this is what the caller's block raised; it shall see that, not a group.
                inner = group.exceptions[0]
                raise inner from inner.__cause__


class PostgresFeed:
    """An open log; see `engine.ports.Feed`."""

    def __init__(
        self,
        site: Site,
        config: PostgresConfig,
        wire: Wire,
        gatherer: Gatherer,
        watch: Watch,
        start: Position,
    ) -> None:
        self._site = site
        self._config = config
        self._wire = wire
        self._gatherer = gatherer
        self._watch = watch
        self._replay: Iterator[bytes] | None = None
        self._handed = start
        self._handed_at = monotonic()
        self._owes = False
        """The last batch said that more was there; it was nothing for the engine, perhaps."""
        self._inspect_at = monotonic() + INSPECT_SECONDS
        self._receives = False
        self._received_at = monotonic()

    @property
    def position(self) -> Position:
        """Everything up to here has been handed out."""
        return self._handed

    @property
    def spooled_bytes(self) -> int:
        """How much of transactions that arrived before their commit has been put into files."""
        return self._gatherer.spool.bytes_written

    async def receive(self, rows_max: int) -> Batch:
        """The next stretch of the log; see `engine.ports.Feed.receive`."""
        self._receives = True
        try:
            return await self._receive(rows_max)
        finally:
            self._receives = False
            self._received_at = monotonic()

    def confirm(self, position: Position) -> None:
        """Everything up to `position` is durable elsewhere."""
        lsn = resume_at(position, system=self._site.name).lsn
        self._wire.confirmed = max(self._wire.confirmed, lsn)

    async def chunk(self, table: str, after: tuple[str, ...] | None, rows_max: int, condition: str = "") -> Chunk:
        """A page beside the running log; see `engine.ports.Feed.chunk`."""
        system, cluster = self._site.name, self._gatherer.cluster
        deadline = monotonic() + SETTLE_SECONDS_MAX
        async with connected(self._site, self._config, use="snapshot") as connection:
            while monotonic() < deadline:
                # Before the snapshot is taken: what was handed out by then must be in it.
                low, xids = self._handed, bytes(self._gatherer.xids)
                page = delivery = None
                with translated(system, doing="read a page", table=table):
                    async with snapshot(connection, system) as view:
                        if not view.unseen(xids):
                            page = await view.page(table, after, rows_max, self._watch.generated, condition)
                            delivery = await view.delivery()
                    if page is not None:
                        await _reach(connection, view.log_end)
                        return Chunk(page=page, low=low, high=before(view.log_end, cluster), delivery=delivery)
                await anyio.sleep(SETTLE_PAUSE_SECONDS)
        raise SystemUnreachable(
            f"system {system}: committed transactions have been waiting for a synchronous standby"
            f" for {SETTLE_SECONDS_MAX:.0f} s",
            hint="Look at synchronous_standby_names and the standbys.",
        )

    async def report(self, interval: float, silent_seconds_max: float) -> None:
        """Send statuses until cancelled: every `interval` seconds, and within a second of a confirmation.

        None while nobody has received for `silent_seconds_max`.
        """
        sent_at = 0.0
        while True:
            now = monotonic()
            is_alive = self._receives or now - self._received_at < silent_seconds_max
            if is_alive and (now - sent_at >= interval or self._wire.has_unsent):
                self._wire.send_status()
                sent_at = now
            await anyio.sleep(min(1.0, interval))

    async def _receive(self, rows_max: int) -> Batch:
        gatherer, wire = self._gatherer, self._wire
        gatherer.rows_max = max(1, rows_max)
        while True:
            if monotonic() >= self._inspect_at and not gatherer.is_inside:
                await self.look()
            stop = gatherer.take(self._replay if self._replay is not None else wire.messages())
            if stop is Stop.RELATION:
                await self._watch.install(gatherer.unknown)
            elif stop is Stop.STREAM and gatherer.committed is not None:
                gatherer.begin(gatherer.committed.begin)
                self._replay = gatherer.spool.read(gatherer.committed.begin.xid)
            elif stop is Stop.FULL:
                if gatherer.has_changes or self._is_due():
                    batch = self._hand_out()
                    self._owes = not batch.is_whole or self._replay is not None or wire.has_message()
                    batch.has_more = self._owes
                    return batch
                # Nothing for the engine, but it was much: let others run.
                await anyio.lowlevel.checkpoint()
            elif self._replay is not None and gatherer.committed is not None:
                self._replay = None
                gatherer.end(gatherer.committed.end_lsn)
                gatherer.spool.drop(gatherer.committed.begin.xid)
            elif not gatherer.is_inside and gatherer.has_changes:
                return self._hand_out()
            elif (batch := await self._wait()) is not None:
                return batch

    async def _wait(self) -> Batch | None:
        """Wait for the socket; a batch when the position has moved alone, and long enough ago."""
        gatherer = self._gatherer
        if gatherer.is_inside:
            await self._wire.wait()
            if gatherer.rows >= BREATH_ROWS_MIN:
                await anyio.sleep(BREATH_SECONDS)
            return None
        if self._owes or self._is_due():
            return self._hand_out()
        wake = self._inspect_at
        if gatherer.has_moved(self._wire.wal_end, self._handed):
            wake = min(wake, self._handed_at + POSITION_SECONDS)
        with anyio.move_on_after(max(0.0, wake - monotonic())):
            await self._wire.wait()
        return None

    def _is_due(self) -> bool:
        """Whether the position has moved alone, and long enough after the last batch."""
        due = monotonic() >= self._handed_at + POSITION_SECONDS
        return due and self._gatherer.has_moved(self._wire.wal_end, self._handed)

    def _hand_out(self) -> Batch:
        batch = self._gatherer.batch(self._wire.wal_end, self._handed)
        self._owes = False
        self._handed = batch.position
        self._handed_at = monotonic()
        return batch

    async def look(self) -> None:
        """The periodic look at the catalogue, and forgetting transactions that have ended for everybody."""
        site, config = self._site, self._config
        async with connected(site, config, use="catalogue") as connection:
            with translated(site.name, doing="read the catalogue"):
                publication = await load_publication(connection, publication_name(site, config))
                catalog = await load_catalog(connection, self._watch.tables)
                async with snapshot(connection, site.name) as view:
                    # Nobody else adds to them meanwhile: this is the task that reads the log.
                    self._gatherer.xids[:] = view.unseen(self._gatherer.xids)
        # Since version 18 a walsender passes over a missing publication, and sends nothing until there is one again.
        if publication is None:
            raise PositionLost(
                f"system {site.name}: publication {publication_name(site, config)} does not exist any more",
                hint=cure(site.name, slot_name(site, config)),
            )
        check_same(self._gatherer.cluster, publication, system=site.name, slot=slot_name(site, config))
        self._watch.inspect(catalog, publication)
        self._inspect_at = monotonic() + INSPECT_SECONDS


async def _reach(connection: Connection, lsn: int) -> None:
    """See to it that the log is written up to `lsn`: a walsender sends nothing that is not, and on an idle server
    nobody else may come to write the last bytes."""
    cursor = await connection.execute("select pg_catalog.pg_current_wal_flush_lsn() >= %s::pg_lsn", [format_lsn(lsn)])
    row = await cursor.fetchone()
    if row is not None and not row[0]:
        # A transaction of nothing but a message nobody asked for; committing it flushes the log.
        await connection.execute("set synchronous_commit = local")
        await connection.execute("select pg_catalog.pg_logical_emit_message(true, 'concord', '')")
