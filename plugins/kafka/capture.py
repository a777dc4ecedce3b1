"""The feed: opens topics behind a position, hands out batches, and reads pages of the captured database beside them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from time import monotonic
from typing import Final

import anyio
import anyio.lowlevel
import anyio.to_thread
import kafka.errors
from anyio.streams.memory import MemoryObjectReceiveStream

from engine.errors import ConcordError, PositionLost, SystemUnreachable
from engine.model.change import Batch, Chunk
from engine.model.position import Position
from engine.plugin import Site
from engine.ports import Feed, Role
from plugins.kafka.begin import beginning, check_topics, topic_names
from plugins.kafka.broker import Topic, ask, describe
from plugins.kafka.config import KafkaConfig
from plugins.kafka.consume import Consumer
from plugins.kafka.errors import translate
from plugins.kafka.gather import Found, Gatherer, Number
from plugins.kafka.layouts import Layouts, NeedLayout
from plugins.kafka.names import Names
from plugins.kafka.pages import Pages
from plugins.kafka.position import Resume, resume_at
from plugins.kafka.rights import needs_of_source
from plugins.kafka.tables import load_catalogue

# Where only others' transactions go on, the position is worth a hub commit this often.
POSITION_SECONDS: Final = 1.0
# How long a transaction whose end was told may lack events, before somebody is told: a connector that was killed
# between the two brings them when it has started again.
MISSING_SECONDS_MAX: Final = 120.0
# How long the position at which the log ends for us may take to become durable.
CONFIRM_SECONDS_MAX: Final = 30.0


class KafkaSource:
    """The topics of one Debezium connector, as far as they are about the tables of one system."""

    def __init__(self, site: Site, config: KafkaConfig) -> None:
        self._site = site
        self._config = config

    def feed(
        self, after: Position | None, tables: Sequence[str], verify: frozenset[str]
    ) -> AbstractAsyncContextManager[Feed]:
        """See `engine.ports.Source.feed`. None: see `begin.py`."""
        return self._feed(after, tables, verify)

    @asynccontextmanager
    async def _feed(
        self, after: Position | None, tables: Sequence[str], verify: frozenset[str]
    ) -> AsyncGenerator[Feed]:
        site, config = self._site, self._config
        known = None if after is None else resume_at(after, system=site.name)
        names = Names(config, tables)
        catalogue = await load_catalogue(site, config, tables)
        wanted = topic_names(config, names)
        needs = needs_of_source(config, wanted)
        topics = await ask(
            site,
            config,
            lambda admin: describe(admin, config, needs, system=site.name, role=Role.SOURCE),
            doing="look at topics",
        )
        if known is not None:
            gone = [name for name in known.next if name in wanted and name not in topics]
            if gone:
                raise PositionLost(
                    f"system {site.name}: topic {', '.join(gone)} is gone, and what it held behind our position with"
                    " it",
                    hint=f"Run `concord backfill {site.name}`.",
                )
        check_topics(config, names, topics, site.name)
        consumer = await anyio.to_thread.run_sync(self._connect)
        send, receive = anyio.create_memory_object_stream[Found](1)
        try:
            resume, ends = await anyio.to_thread.run_sync(
                lambda: self._open(consumer, names, {name: topics[name] for name in wanted}, known)
            )
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(anyio.to_thread.run_sync, consumer.run, send)
                try:
                    async with receive:
                        layouts = Layouts(site.name, config, names.connector, catalogue)
                        gatherer = Gatherer(site.name, config, names, layouts, resume, ends, verify)
                        yield KafkaFeed(site, config, consumer, receive, names, layouts, gatherer)
                finally:
                    consumer.stop()
        finally:
            # Its thread has ended, and may have been kept from doing so.
            send.close()
            receive.close()
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(consumer.close)

    def _connect(self) -> Consumer:
        try:
            return Consumer(self._site, self._config)
        except (kafka.errors.KafkaError, OSError) as error:
            raise translate(error, self._config, system=self._site.name, doing="connect") from error

    def _open(
        self, consumer: Consumer, names: Names, topics: dict[str, Topic], known: Resume | None
    ) -> tuple[Resume, dict[Number, int]]:
        system = self._site.name
        try:
            resume = known or beginning(consumer, self._config, names, topics, system=system)
            for name, topic in topics.items():
                # A table that the mapping has now and had not then: from its topic's end of now, for it is copied.
                if name not in resume.next:
                    _, ends = consumer.bounds([(name, n) for n in topic.partitions])
                    resume.next[name] = {n: ends[name, n] for n in topic.partitions}
                    resume.ids[name] = topic.id
                else:
                    for n in topic.partitions:
                        resume.next[name].setdefault(n, 0)
            for name in [name for name in resume.next if name not in topics]:
                del resume.next[name]
                resume.ids.pop(name, None)
            return resume, consumer.assign(resume, topics)
        except (kafka.errors.KafkaError, OSError) as error:
            raise translate(error, self._config, system=system, doing="find its place in topics") from error


class KafkaFeed:
    """Open topics; see `engine.ports.Feed`."""

    def __init__(
        self,
        site: Site,
        config: KafkaConfig,
        consumer: Consumer,
        stream: MemoryObjectReceiveStream[Found],
        names: Names,
        layouts: Layouts,
        gatherer: Gatherer,
    ) -> None:
        self._site = site
        self._config = config
        self._consumer = consumer
        self._stream = stream
        self._names = names
        self._layouts = layouts
        self._gatherer = gatherer
        self._pages = Pages(site, config, names)
        self._need: NeedLayout | None = None
        self._handed_at = monotonic()
        self._missing_since: float | None = None
        self._stopped: ConcordError | None = None
        """Why nothing more is read."""
        self._lost: PositionLost | None = None
        self._confirmed = anyio.Event()

    @property
    def position(self) -> Position:
        """Everything up to here has been handed out."""
        return self._gatherer.handed

    def confirm(self, position: Position) -> None:
        """What is durable is shown to the group, if one is named. The topics are kept by age and size, whoever reads
        them."""
        if self._lost is not None and position == self._gatherer.handed:
            self._confirmed.set()
        if self._config.group is not None and self._lost is None:
            self._consumer.confirmed = resume_at(position, system=self._site.name).next

    async def receive(self, rows_max: int) -> Batch:
        """The next stretch; see `engine.ports.Feed.receive`. Where there is no reading on, that is kept as a position
        before it is raised: whoever comes back is told when the topics are opened, and may have them begun anew."""
        # With enough in the buffers nothing below waits for anybody.
        await anyio.lowlevel.checkpoint()
        if self._lost is not None:
            # The lane that is told ends at once, with what it has not committed yet.
            with anyio.move_on_after(CONFIRM_SECONDS_MAX):
                await self._confirmed.wait()
            raise self._lost
        batch = await self._receive(max(1, rows_max))
        if batch is not None:
            return batch
        # All that stands before it has been handed out.
        error = self._stopped
        assert error is not None, "a feed without more is one that was stopped"
        if not isinstance(error, PositionLost):
            raise error
        self._lost = error
        return self._gatherer.last_batch(error)

    async def chunk(self, table: str, after: tuple[str, ...] | None, rows_max: int, condition: str = "") -> Chunk:
        """A page beside the topics; see `engine.ports.Feed.chunk`. Without the database the topics are the copy: there
        is nothing else to read, and the place until which they held it when they were opened is told."""
        low = self._gatherer.handed
        if not self._pages.is_there:
            if condition:
                raise self._pages.no_condition(table)
            shape = self._layouts.catalogue.get(table) or await self._pages.shape(table)
            return self._pages.nothing(shape, low, self._gatherer.end_at_open)
        return await self._pages.chunk(table, after, rows_max, condition, low=low)

    async def _receive(self, rows_max: int) -> Batch | None:
        """The next batch; None where there will be none, and `_stopped` says why."""
        gatherer = self._gatherer
        while True:
            # Kept until it is done: cancelled in the middle, it is done again by the next call.
            if self._need is not None:
                tables = [table.name for table in self._names.tables]
                self._layouts.catalogue = await load_catalogue(self._site, self._config, tables)
                need, self._need = self._need, None
                gatherer.learn(need)
            self._take_waiting()
            try:
                is_full = gatherer.take(rows_max)
            except NeedLayout as need:
                self._need = need
                continue
            except PositionLost as error:
                self._stopped = self._stopped or error
                is_full = False
            self._consumer.paused = gatherer.paused
            if is_full or not gatherer.is_empty or self._is_due():
                self._handed_at = monotonic()
                return gatherer.hand_out(is_full=is_full)
            if self._stopped is not None:
                return None
            await self._wait()

    def _take_waiting(self) -> None:
        """Take what the consumer has brought, without waiting."""
        if self._stopped is not None:
            return
        try:
            self._take_in(self._stream.receive_nowait())
        except anyio.WouldBlock:
            return
        except anyio.EndOfStream:
            self._stopped = self._why_ended()

    async def _wait(self) -> None:
        """Wait for the consumer, or until something else is due."""
        self._check_missing()
        with anyio.move_on_after(POSITION_SECONDS if self._missing_since is not None else max(0.05, self._due_in())):
            try:
                self._take_in(await self._stream.receive())
            except anyio.EndOfStream:
                self._stopped = self._why_ended()

    def _take_in(self, found: Found) -> None:
        """What cannot be read stops the feed, when all that stands before it has been handed out."""
        try:
            self._gatherer.take_in(found)
        except ConcordError as error:
            self._stopped = error

    def _check_missing(self) -> None:
        """Raises `SystemUnreachable` when a transaction has lacked events for long."""
        waiting = self._gatherer.waiting
        if not waiting:
            self._missing_since = None
        elif self._missing_since is None:
            self._missing_since = monotonic()
        elif monotonic() - self._missing_since > MISSING_SECONDS_MAX:
            raise SystemUnreachable(
                f"system {self._site.name}: an end of a transaction has come without all events that it counts, missing"
                f" for {MISSING_SECONDS_MAX:.0f} s: {waiting}",
                hint="Look whether the connector runs, and whether a transformation of it drops messages.",
                system=self._site.name,
            )

    def _is_due(self) -> bool:
        """Whether the position has moved alone, and long enough after the last batch."""
        return self._due_in() <= 0 and self._gatherer.position().token != self._gatherer.handed.token

    def _due_in(self) -> float:
        return self._handed_at + POSITION_SECONDS - monotonic()

    def _why_ended(self) -> ConcordError:
        if self._consumer.error is not None:
            return self._consumer.error
        return SystemUnreachable(
            f"system {self._site.name}: the consumer has ended", hint="It is started again.", system=self._site.name
        )
