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

from engine.errors import PositionLost, SourceUnready, SystemUnreachable
from engine.model.change import Batch, Chunk, EventKind
from engine.model.position import Position
from engine.plugin import Site
from engine.ports import Feed
from plugins.postgres.catalog import MARKER, Catalog, Connection, load_catalog, load_types, quoted, split_name
from plugins.postgres.compile import compile_decoders
from plugins.postgres.config import PostgresConfig, publication_name, slot_name
from plugins.postgres.connect import connected, translated
from plugins.postgres.decode import RelationMessage, decode_relation
from plugins.postgres.gather import Gatherer, Relation, Stop
from plugins.postgres.position import Cluster, Resume, before, cure, format_lsn, parse_lsn, resume_at
from plugins.postgres.reshaped import describe_change
from plugins.postgres.server import Publication, Server, Slot, load_publication, load_server, load_slot
from plugins.postgres.snapshot import snapshot
from plugins.postgres.spool import Spool
from plugins.postgres.wire import Wire, replication_connection, start_replication

# wal_sender_timeout is 60 s unless somebody chose less; then a third of it is what leaves room for one lost answer.
STATUS_SECONDS_MAX: Final = 10.0
# A reader that has stopped must not look alive for ever: the slot stays taken, the log piles up and nobody can take
# over. No batch takes ten minutes to commit; after that the server may drop us, and the lane starts again.
SILENT_SECONDS_MAX: Final = 600.0
# Where only others' transactions go on, the position is worth a hub commit this often.
POSITION_SECONDS: Final = 1.0
INSPECT_SECONDS: Final = 30.0
# A transaction that has been sent but has not ended for other sessions yet is waiting for a synchronous standby. That
# takes milliseconds, or for ever when the standby is gone; then the lane should say so.
SETTLE_SECONDS_MAX: Final = 60.0
SETTLE_PAUSE_SECONDS: Final = 0.02
# 55006, the slot is in use: most often by our own feed of a moment ago, whose walsender has yet to notice its end.
RELEASE_SECONDS_MAX: Final = 5.0
RELEASE_PAUSE_SECONDS: Final = 0.05
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
        if publication is None:
            is_new = slot is None and after is None
            kind = SourceUnready if after is None else PositionLost
            raise kind(
                f"system {site.name}: publication {publication_is} does not exist",
                hint=f"Run `concord setup {site.name}`, then start the daemon again."
                if is_new
                else cure(site.name, slot_is if slot else None),
            )
        async with replication_connection(site, config) as connection:
            cluster = await _identify(connection, site.name, publication)
            resume = resume_at(after, system=site.name) if after else None
            usable = _checked_slot(slot, resume, system=site.name, slot_name=slot_is, server=server)
            if resume is None:
                resume = Resume(lsn=usable.confirmed_lsn)
            else:
                await _check_history(connection, resume, cluster, system=site.name)
                _check_same(resume.cluster, publication, system=site.name, slot=slot_is)
            wire = await _start(connection, site.name, slot_is, publication_is, resume.lsn)
            spool = Spool(site.work_directory / "streams", system=site.name)
            spool.clear()
            gatherer = Gatherer(system=site.name, cluster=cluster, resume=resume, spool=spool)
            feed = PostgresFeed(site, config, wire, gatherer, after or before(resume.lsn, cluster), tables, verify)
            feed.inspect(catalog, publication)
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
        start: Position,
        tables: Sequence[str],
        verify: frozenset[str],
    ) -> None:
        self._site = site
        self._config = config
        self._wire = wire
        self._gatherer = gatherer
        self._names = {split_name(name): name for name in tables}
        self._verify = verify
        self._catalog = Catalog(tables={}, types={})
        self._publication: Publication | None = None
        self._relations: dict[str, tuple[RelationMessage, Relation]] = {}
        self._gone: dict[str, EventKind] = {}
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

    async def chunk(self, table: str, after: tuple[str, ...] | None, rows_max: int) -> Chunk:
        """A page beside the running log; see `engine.ports.Feed.chunk`."""
        system, cluster = self._site.name, self._gatherer.cluster
        deadline = monotonic() + SETTLE_SECONDS_MAX
        async with connected(self._site, self._config, use="snapshot") as connection:
            while monotonic() < deadline:
                # Before the snapshot is taken: what was handed out by then must be in it.
                low, xids = self._handed, bytes(self._gatherer.xids)
                page = delivery = None
                with translated(system, doing="read a page", table=table):
                    async with snapshot(connection) as view:
                        if not view.unseen(xids):
                            page = await view.page(table, after, rows_max, self._generated())
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

    def inspect(self, catalog: Catalog, publication: Publication | None) -> None:
        """Compare what the catalogue says now with what the log has told; adds events where they differ."""
        self._catalog, self._publication = catalog, publication
        published = publication.tables if publication else {}
        self._check_publication(publication)
        for place, name in self._names.items():
            gone = None
            if name not in catalog.tables:
                gone = EventKind.DROPPED
            elif place not in published or published[place].row_filter:
                gone = EventKind.UNPUBLISHED
            if gone is not None and self._gone.get(name) is not gone:
                self._gatherer.event(gone, name, detail=self._detail(gone, place))
            if gone is None:
                self._gone.pop(name, None)
            else:
                self._gone[name] = gone
        for name, (message, relation) in list(self._relations.items()):
            if self._knows(name, message):
                # The columns are the same, but a label, a constraint or a trigger may have come or gone.
                self._use(name, message, relation.message)
        self._inspect_at = monotonic() + INSPECT_SECONDS

    def _check_publication(self, publication: Publication | None) -> None:
        """Raises `SourceUnready` when changes of every table, or our own marker, would not be sent."""
        if publication is None:
            return
        name = publication_name(self._site, self._config)
        what = ""
        if missing := [op for op in ("insert", "update", "delete") if op not in publication.operations]:
            what = f"does not publish {' and '.join(missing)}"
        elif publication.has_marker_table and MARKER not in publication.tables:
            what = "has no table concord.marker any more, so our own deliveries would be taken for changes"
        if what:
            raise SourceUnready(
                f"system {self._site.name}: publication {name} {what}",
                hint=f"Run `concord setup {self._site.name}`, then `concord backfill {self._site.name}`: what changed"
                " meanwhile has not been sent.",
            )

    async def _receive(self, rows_max: int) -> Batch:
        gatherer, wire = self._gatherer, self._wire
        gatherer.rows_max = max(1, rows_max)
        while True:
            if monotonic() >= self._inspect_at and not gatherer.is_inside:
                await self.look()
            stop = gatherer.take(self._replay if self._replay is not None else wire.messages())
            if stop is Stop.RELATION:
                await self._install(gatherer.unknown)
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
                catalog = await load_catalog(connection, list(self._names.values()))
                async with snapshot(connection) as view:
                    # Nobody else adds to them meanwhile: this is the task that reads the log.
                    self._gatherer.xids[:] = view.unseen(self._gatherer.xids)
        # Since version 18 a walsender passes over a missing publication, and sends nothing until there is one again.
        if publication is None:
            raise PositionLost(
                f"system {site.name}: publication {publication_name(site, config)} does not exist any more",
                hint=cure(site.name, slot_name(site, config)),
            )
        _check_same(self._gatherer.cluster, publication, system=site.name, slot=slot_name(site, config))
        self.inspect(catalog, publication)

    async def _install(self, message: bytes) -> None:
        """Learn a table from its relation message, and from the catalogue where that knows no such columns."""
        sent = decode_relation(message)
        name = self._names.get((sent.schema, sent.table))
        if name is None:
            self._gatherer.install(_outsider(sent, message))
            return
        if not self._knows(name, sent):
            async with connected(self._site, self._config, use="catalogue") as connection:
                with translated(self._site.name, doing="read the catalogue", table=name):
                    fresh = await load_catalog(connection, [name])
                    types = await load_types(connection, {c.type_id for c in sent.columns})
            self._catalog.tables.pop(name, None)
            self._catalog.tables.update(fresh.tables)
            self._catalog.types.update(fresh.types | types)
        self._use(name, sent, message)

    def _knows(self, name: str, sent: RelationMessage) -> bool:
        """Whether the catalogue, as last read, has all the columns that the log speaks of."""
        table = self._catalog.tables.get(name)
        known = (
            {(a.name, a.type_id, a.type_modifier) for a in table.attributes} if table else set[tuple[str, int, int]]()
        )
        return all((c.name, c.type_id, c.type_modifier) in known for c in sent.columns)

    def _use(self, name: str, sent: RelationMessage, message: bytes) -> None:
        shape = self._catalog.shape_of(name, sent)
        _, previous = self._relations.get(name, (None, None))
        if previous is not None and previous.message == message and previous.shape == shape:
            return
        identity = tuple(index for index, column in enumerate(sent.columns) if column.is_key)
        keys = tuple(index for index in identity if sent.columns[index].name in shape.key) or identity
        relation = Relation(
            name=name,
            message=message,
            decoders=compile_decoders(len(sent.columns), identity=identity, keys=keys),
            shape=shape,
            is_verified=name in self._verify,
        )
        if previous is not None and previous.shape is not None and previous.shape != shape:
            self._gatherer.event(EventKind.RESHAPED, name, shape, describe_change(previous.shape, shape))
        self._relations[name] = (sent, relation)
        self._gatherer.install(relation)

    def _generated(self) -> frozenset[str]:
        return frozenset("s") if self._publication and self._publication.has_generated else frozenset()

    def _detail(self, kind: EventKind, place: tuple[str, str]) -> str:
        if kind is EventKind.DROPPED:
            return f"Give the table its name back, or create it again and run `concord setup {self._site.name}`"
        publication = quoted(publication_name(self._site, self._config))
        table = ".".join(quoted(part) for part in place)
        if self._publication is not None and place in self._publication.tables:
            # A row that leaves the filter would look deleted, and one that was never in it does not come at all.
            drop = f"alter publication {publication} drop table {table};"
            return f"The publication filters its rows. Run: {drop} alter publication {publication} add table {table};"
        return f"Run: alter publication {publication} add table {table};"


def _outsider(sent: RelationMessage, message: bytes) -> Relation:
    """A table whose rows are not reported: one without a mapping, or the marker."""
    name = f"{sent.schema}.{sent.table}"
    if (sent.schema, sent.table) != MARKER:
        return Relation(name=name, message=message, decoders=compile_decoders(0), shape=None)
    columns = [column.name for column in sent.columns]
    if "seq" not in columns:
        raise SourceUnready(
            f"table {name} has no column seq, so it is none of ours",
            hint="Move it to another schema, run `concord setup`, then start the daemon again.",
        )
    return Relation(
        name=name,
        message=message,
        decoders=compile_decoders(len(columns)),
        shape=None,
        is_marker=True,
        marker_seq=columns.index("seq"),
    )


def _checked_slot(slot: Slot | None, resume: Resume | None, *, system: str, slot_name: str, server: Server) -> Slot:
    """The slot, if the log behind `resume` can be had from it. Raises `PositionLost` or `SourceUnready`."""
    if slot is None:
        if resume is None:
            raise SourceUnready(
                f"system {system}: replication slot {slot_name} does not exist",
                hint=f"Run `concord setup {system}`, or: select pg_create_logical_replication_slot('{slot_name}',"
                " 'pgoutput'); then start the daemon again.",
            )
        raise PositionLost(
            f"system {system}: replication slot {slot_name} is gone; our position is {format_lsn(resume.lsn)}",
            hint=cure(system),
            slot=slot_name,
        )
    if slot.trouble:
        raise PositionLost(
            f"system {system}: the server has given up replication slot {slot_name} ({slot.trouble})",
            hint=f"Raise max_slot_wal_keep_size. {cure(system, slot_name)}",
            slot=slot_name,
        )
    if slot.database not in ("", server.database):
        raise SourceUnready(
            f"system {system}: replication slot {slot_name} belongs to database {slot.database}, not {server.database}",
            hint="Name another slot in the configuration, then start the daemon again.",
        )
    if slot.plugin != "pgoutput":
        raise SourceUnready(
            f"system {system}: replication slot {slot_name} decodes with {slot.plugin}, not pgoutput",
            hint="Name another slot in the configuration, then start the daemon again.",
        )
    if resume is not None and slot.confirmed_lsn > resume.lsn:
        raise PositionLost(
            f"system {system}: replication slot {slot_name} stands at {format_lsn(slot.confirmed_lsn)},"
            f" past our position {format_lsn(resume.lsn)}: somebody else read or advanced it",
            hint=cure(system),
            slot=slot_name,
        )
    if resume is not None and resume.lsn > server.log_end:
        raise PositionLost(
            f"system {system}: the log ends at {format_lsn(server.log_end)}, before our position"
            f" {format_lsn(resume.lsn)}: the server was restored from an older copy",
            hint=cure(system),
            slot=slot_name,
        )
    return slot


async def _start(connection: Connection, system: str, slot: str, publication: str, lsn: int) -> Wire:
    deadline = monotonic() + RELEASE_SECONDS_MAX
    while True:
        try:
            return await start_replication(connection, system=system, slot=slot, publication=publication, lsn=lsn)
        except SystemUnreachable as error:
            if error.context.get("sqlstate") != "55006" or monotonic() > deadline:
                raise
        await anyio.sleep(RELEASE_PAUSE_SECONDS)


async def _identify(connection: Connection, system: str, publication: Publication) -> Cluster:
    with translated(system, doing="identify the server"):
        row = await (await connection.execute("IDENTIFY_SYSTEM")).fetchone()
    assert row is not None, "IDENTIFY_SYSTEM gives one row"
    return Cluster(identifier=str(row[0]), timeline=int(row[1]), publication=publication.id)


def _check_same(known: Cluster | None, publication: Publication, *, system: str, slot: str) -> None:
    """Raises `PositionLost` when the publication is not the one by which our position was reached."""
    if known is not None and known.publication not in (0, publication.id):
        raise PositionLost(
            f"system {system}: publication {publication.name} was dropped and made again behind our position; what"
            " changed in between has not been sent",
            hint=cure(system, slot),
        )


async def _check_history(connection: Connection, resume: Resume, cluster: Cluster, *, system: str) -> None:
    """Raises `PositionLost` when the server's log does not contain our position: restored, or another server."""
    known = resume.cluster
    if known is None or (known.identifier, known.timeline) == (cluster.identifier, cluster.timeline):
        return
    trouble = ""
    if known.identifier != cluster.identifier:
        trouble = f"its system identifier is {cluster.identifier}, not {known.identifier}"
    else:
        with translated(system, doing="read the timeline's history"):
            cursor = await connection.execute(f"TIMELINE_HISTORY {cluster.timeline}".encode())
        result = cursor.pgresult
        assert result is not None, "TIMELINE_HISTORY gives one row"
        branch = _branch(result.get_value(0, 1) or b"", known.timeline)
        if branch is None or branch < resume.lsn:
            trouble = f"its timeline {cluster.timeline} left ours, {known.timeline}, before our position"
    if trouble:
        raise PositionLost(
            f"system {system}: this is not the log that we read before: {trouble}",
            hint=cure(system),
        )


def _branch(history: bytes, timeline: int) -> int | None:
    """The LSN up to which `timeline` is part of this history; a line is: timeline, tab, LSN, tab, reason."""
    for line in history.decode(errors="replace").splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == str(timeline):
            return parse_lsn(words[1])
    return None


async def _reach(connection: Connection, lsn: int) -> None:
    """See to it that the log is written up to `lsn`: a walsender sends nothing that is not, and on an idle server
    nobody else may come to write the last bytes."""
    cursor = await connection.execute("select pg_catalog.pg_current_wal_flush_lsn() >= %s::pg_lsn", [format_lsn(lsn)])
    row = await cursor.fetchone()
    if row is not None and not row[0]:
        # A transaction of nothing but a message nobody asked for; committing it flushes the log.
        await connection.execute("set synchronous_commit = local")
        await connection.execute("select pg_catalog.pg_logical_emit_message(true, 'concord', '')")
