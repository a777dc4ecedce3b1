"""Pages of the captured database beside its topics.

A page is read by the database's own plugin, whose positions are places in the database's log, and Debezium's events
tell theirs. So: the log's end after the page was read is asked of the database, and in the topics, from where they
ended before the page was read, the first event behind that place is looked for. Whoever has handed out what stands
before it has handed out everything that the page may show. A database in which nobody writes shows no such event: where
it is written to, the marker is touched; where it is only read, the connector's heartbeat must write
(`heartbeat.action.query`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, TypeVar

import anyio
import anyio.to_thread
import kafka.errors

from engine.errors import MalformedLog, SourceUnready, SystemUnreachable
from engine.model.change import Chunk, Page
from engine.model.position import Position
from engine.model.table import Shape
from engine.plugin import Site
from plugins.kafka.broker import ask
from plugins.kafka.config import KafkaConfig, inner_database
from plugins.kafka.consume import Consumer
from plugins.kafka.errors import translate
from plugins.kafka.gather import Number
from plugins.kafka.message import Malformed, decode_boundary, decode_event, place_of, stream_of, unwrap
from plugins.kafka.names import Names
from plugins.kafka.position import Place
from plugins.kafka.records import Record
from plugins.kafka.tables import inner_system, no_shape, shapes_of_messages

T = TypeVar("T")
# How long a database may be quiet while a page waits for its log to be passed.
QUIET_SECONDS_MAX: Final = 60.0
# How often a page is read again because a delivery came between the looks at the marker before and after it.
ATTEMPTS_MAX: Final = 20
PAUSE_SECONDS: Final = 0.05


class _Marker(NamedTuple):
    hub: str
    epoch: int
    seq: int


class Pages:
    """Of one feed. `is_there`: whether there is a database to read."""

    def __init__(self, site: Site, config: KafkaConfig, names: Names) -> None:
        self._site = site
        self._config = config
        self._names = names
        self._inner = inner_database(config)
        self.is_there = self._inner is not None and config.order != "row"

    async def shape(self, table: str) -> Shape:
        """As messages tell it. Raises `SourceUnready`."""
        found = await shapes_of_messages(self._site, self._config, [table])
        if table not in found:
            raise no_shape(self._site.name, table)
        return found[table]

    def nothing(self, shape: Shape, low: Position, high: Position) -> Chunk:
        """A page without rows, the last."""
        page = Page(shape=shape, rows=[], last_key=None, read_at=time.time_ns() // 1000)
        return Chunk(page=page, low=low, high=high)

    def no_condition(self, table: str) -> SourceUnready:
        """The error for a condition where topics are the copy."""
        return SourceUnready(
            f"system {self._site.name}, table {table}: topics answer no condition",
            hint="Ask without one, or, where it is not so yet, name the captured database in"
            f" [systems.{self._site.name}.database].",
            system=self._site.name,
            table=table,
        )

    async def chunk(
        self, table: str, after: tuple[str, ...] | None, rows_max: int, condition: str, *, low: Position
    ) -> Chunk:
        """See `engine.ports.Feed.chunk`. Raises `SystemUnreachable` when the database's log is not passed in time."""
        system = inner_system(self._site, self._config)
        assert system is not None, "asked where there is a database"
        starts = await self._ends()
        for _ in range(ATTEMPTS_MAX):
            before = await self._marker()
            page = await system.page(table, after, rows_max, condition)
            marker = await self._marker()
            # Between two looks that show the same delivery no other has landed: the page has that one, and no later.
            if before == marker:
                break
            await anyio.sleep(PAUSE_SECONDS)
        else:
            raise SystemUnreachable(
                f"system {self._site.name}, table {table}: deliveries come faster than a page can be read",
                hint="It is tried again.",
            )
        head = (await system.health()).head
        if head is None:
            raise SourceUnready(
                f"system {self._site.name}: its database does not say where its log ends",
                hint="Grant the database's user what reading the log's place takes; see `concord check`.",
            )
        if marker is not None:
            await self._beat(table, marker)
        high = await self._find(head.order, starts)
        return Chunk(page=page, low=low, high=high, delivery=None if marker is None else (marker.hub, marker.seq))

    async def _beat(self, table: str, marker: _Marker) -> None:
        """Have the database's log show something behind the page: the marker is claimed once more by whom it belongs
        to, which changes nothing and is an update of a captured table."""
        assert self._inner is not None, "asked where there is a database"
        plugin, options = self._inner
        assert plugin.target is not None, "a database with a marker can be written to"
        async with plugin.target(self._site, options).open([table]) as session:
            await session.claim(marker.hub, marker.epoch)

    async def _marker(self) -> _Marker | None:
        """Our marker; None where there is none, or nobody has claimed it."""
        system, marker = inner_system(self._site, self._config), self._names.marker
        if system is None or marker is None:
            return None
        try:
            page = await system.page(marker.collection, None, 1)
        except SourceUnready:
            # A database that is only read has no marker.
            return None
        row = dict(zip((column.name for column in page.shape.columns), page.rows[0], strict=True)) if page.rows else {}
        hub = row.get("hub", row.get("hub_id"))
        return None if hub is None else _Marker(str(hub), int(str(row["epoch"])), int(str(row["seq"])))

    async def _ends(self) -> dict[Number, int]:
        wanted = [table.topic for table in self._names.all]
        if self._config.order == "transaction":
            wanted.append(self._names.transactions)
        topics = await ask(self._site, self._config, lambda admin: admin.topics(wanted), doing="look at topics")
        numbers = [(topic.name, n) for topic in topics.values() for n in topic.partitions]
        return await self._in_thread(lambda consumer: consumer.bounds(numbers)[1])

    async def _find(self, head: Place, starts: dict[Number, int]) -> Position:
        """The position behind which everything is newer than `head`, a place in the database's log."""
        search = _Search(self._names, head, is_by_transaction=self._config.order == "transaction")
        deadline = time.monotonic() + QUIET_SECONDS_MAX
        stop = anyio.Event()

        def look(consumer: Consumer) -> Position | None:
            for number, records in consumer.follow(starts):
                if stop.is_set() or time.monotonic() > deadline:
                    return None
                try:
                    found = search.look(number, records)
                except Malformed as error:
                    raise MalformedLog(f"system {self._site.name}: topic {number[0]}: {error}") from None
                if found is not None:
                    return found
            return None

        try:
            found = await self._in_thread(look)
        finally:
            stop.set()
        if found is None:
            raise SystemUnreachable(
                f"system {self._site.name}: for {QUIET_SECONDS_MAX:.0f} s nothing has come from behind the place in the"
                " database's log at which a page was read",
                hint='Let the connector write by itself: "heartbeat.interval.ms": "1000" and'
                ' "heartbeat.action.query", into'
                " a table that it captures and `heartbeat` names; see the README of the plugin.",
                system=self._site.name,
            )
        return found

    async def _in_thread(self, work: Callable[[Consumer], T]) -> T:
        """Run `work` with a consumer of its own."""

        def run() -> T:
            try:
                consumer = Consumer(self._site, self._config)
                try:
                    return work(consumer)
                finally:
                    consumer.close()
            except (kafka.errors.KafkaError, OSError) as error:
                raise translate(
                    error, self._config, system=self._site.name, doing="look for a place in topics"
                ) from error

        return await anyio.to_thread.run_sync(run)


class _Search:
    """Looks for the first event that stands behind `head` in the database's log, and for its place in the topics."""

    def __init__(self, names: Names, head: Place, *, is_by_transaction: bool) -> None:
        self._names = names
        self._head = head
        self._is_postgres = names.connector == "postgres"
        self._is_by_transaction = is_by_transaction
        self._ends: dict[str, int] = {}
        """Ends of transactions that were read, by id."""
        self._found: set[str] = set()
        """Transactions that have an event behind the place."""

    def look(self, number: Number, records: Sequence[Record]) -> Position | None:
        """Raises `Malformed` for what is no message of Debezium's."""
        for offset, _, _, value, _ in records:
            if value is None:
                continue
            payload, _, _ = unwrap(value)
            if not self._is_by_transaction:
                if self._is_behind(payload):
                    return Position(order=(offset, 0))
            elif number[0] == self._names.transactions:
                found = self._boundary(payload, offset)
                if found is not None:
                    return found
            elif not self._is_postgres:
                found = self._event(payload)
                if found is not None:
                    return found
        return None

    def _boundary(self, payload: bytes, offset: int) -> Position | None:
        boundary = decode_boundary(payload)
        if boundary.status == "BEGIN":
            return None
        place = stream_of(boundary.id)
        if self._is_postgres:
            # An end tells the LSN behind the commit.
            is_behind = place is not None and place[1][0] > self._head[0]
            return Position(order=(offset, 0)) if is_behind else None
        self._ends[boundary.id] = offset
        return Position(order=(offset, 0)) if boundary.id in self._found else None

    def _event(self, payload: bytes) -> Position | None:
        event = decode_event(payload)
        place = place_of(event.source)
        if event.transaction is None or place is None or place[:2] < self._head[:2]:
            return None
        id = event.transaction.id
        self._found.add(id)
        return Position(order=(self._ends[id], 0)) if id in self._ends else None

    def _is_behind(self, payload: bytes) -> bool:
        event = decode_event(payload)
        place = place_of(event.source)
        if place is None or event.op == "r":
            return False
        return place[1] > self._head[0] if self._is_postgres else place[:2] >= self._head[:2]
