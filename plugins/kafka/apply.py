"""The target: deliveries as transactions of a producer, marker first; rows as keyed messages, whole."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Final, TypeVar

import anyio
import anyio.to_thread
import kafka.errors

from engine.errors import ConcordError, RowRefused, TargetUnready
from engine.model.table import Shape
from engine.plugin import Site
from engine.ports import Assigned, Delivery, Role, TableWrite, TargetSession, WriteKind, WriteResult
from plugins.kafka.broker import ask, describe
from plugins.kafka.config import KafkaConfig
from plugins.kafka.documents import Documents, Unfit, feed_shapes
from plugins.kafka.errors import translate
from plugins.kafka.produce import Producer, feed_topic, marker_topic
from plugins.kafka.rights import needs_of_feed

T = TypeVar("T")
# What a message has beside key and value: its frame in the batch and the batch's own.
FRAME_BYTES: Final = 512
# The broker's default of max.message.bytes.
MESSAGE_BYTES_MAX: Final = 1_048_588
# A commit is a few requests; behind this its outcome is unknown.
COMMIT_SECONDS_MAX: Final = 120.0


class FeedTarget:
    """See `engine.ports.Target`."""

    def __init__(self, site: Site, config: KafkaConfig) -> None:
        self._site = site
        self._config = config

    def open(self, tables: Sequence[str]) -> AbstractAsyncContextManager[TargetSession]:
        return self._open(tables)

    @asynccontextmanager
    async def _open(self, tables: Sequence[str]) -> AsyncGenerator[TargetSession]:
        site, config = self._site, self._config
        shapes = feed_shapes(config)
        unknown = [table for table in tables if table not in shapes]
        wanted = [marker_topic(config), *(feed_topic(config, table) for table in tables)]
        topics = await ask(
            site,
            config,
            lambda admin: describe(admin, config, needs_of_feed(config, wanted), system=site.name, role=Role.TARGET),
            doing="look at topics",
            role=Role.TARGET,
        )
        missing = [name for name in wanted if name not in topics]
        if unknown or missing:
            said = f"tables names no {unknown[0]}" if unknown else f"there is no topic {', '.join(missing)}"
            hint = f"Write its columns in [systems.{site.name}.tables.{unknown[0]}]." if unknown else ""
            raise TargetUnready(
                f"system {site.name}: {said}", hint=hint or f"Run `concord setup {site.name}`.", system=site.name
            )
        sizes = {
            name: int(topic.settings.get("max.message.bytes", MESSAGE_BYTES_MAX)) for name, topic in topics.items()
        }
        session = FeedSession(site, config, shapes, sizes)
        try:
            yield session
        finally:
            with anyio.CancelScope(shield=True):
                await session.close()


class FeedSession:
    """See `engine.ports.TargetSession`."""

    def __init__(self, site: Site, config: KafkaConfig, shapes: dict[str, Shape], sizes: dict[str, int]) -> None:
        self._site = site
        self._config = config
        self._shapes = shapes
        self._sizes = sizes
        self._producer = Producer(site, config)
        self._documents: dict[tuple[str, tuple[str, ...], tuple[str, ...]], Documents] = {}
        self._is_good = True

    async def close(self) -> None:
        await anyio.to_thread.run_sync(lambda: self._producer.close(is_good=self._is_good))

    async def claim(self, hub_id: str, epoch: int) -> int:
        return await self.run(lambda: self._producer.claim(hub_id, epoch), "claim the feed")

    def delivery(self, seq: int) -> AbstractAsyncContextManager[Delivery]:
        return self._delivery(seq)

    async def assigned(self, seq_after: int) -> tuple[Assigned, ...]:
        """A feed hands out no keys."""
        return ()

    @asynccontextmanager
    async def _delivery(self, seq: int) -> AsyncGenerator[Delivery]:
        await self.run(lambda: self._producer.begin(seq), "begin a delivery")
        try:
            yield FeedDelivery(self)
        except BaseException:
            # What is not aborted here the broker aborts: nobody who reads committed messages sees it. Why it is given
            # up is told, and not why that could not be said.
            with anyio.CancelScope(shield=True), suppress(ConcordError):
                await self.run(self._producer.abort, "give a delivery up")
            raise
        with anyio.fail_after(COMMIT_SECONDS_MAX, shield=True):
            await self.run(self._producer.commit, "commit a delivery")

    async def write(self, write: TableWrite) -> WriteResult:
        """Raises `RowRefused` before anything of `write` is sent."""
        messages = self._encode(write)
        await self.run(lambda: self._producer.send(feed_topic(self._config, write.table), messages), "write rows")
        return WriteResult()

    async def run(self, work: Callable[[], T], doing: str) -> T:
        """In a thread; not interrupted by cancellation."""

        def translated() -> T:
            try:
                return work()
            except (kafka.errors.KafkaError, OSError) as error:
                # A producer that has failed says so for ever: the next session makes another.
                self._is_good = False
                raise translate(error, self._config, system=self._site.name, doing=doing, role=Role.TARGET) from error

        return await anyio.to_thread.run_sync(translated)

    def _encode(self, write: TableWrite) -> list[tuple[bytes, bytes | None]]:
        where = f"system {self._site.name}, table {write.table}"
        if write.assigned is not None:
            raise RowRefused(
                f"{where}: a feed hands out no keys", hint='Say allocate = "uuid" in the mapping.', reason="table"
            )
        at = write.table, tuple(write.columns), write.key
        documents = self._documents.get(at)
        if documents is None:
            documents = self._documents[at] = Documents(self._shapes[write.table], write.columns, write.key)
        if documents.unknown is not None:
            raise RowRefused(
                f"{where}, column {documents.unknown}: the feed has no such column",
                hint=f"Write it in [systems.{self._site.name}.tables.{write.table}], or take it out of the mapping.",
                reason="table",
                column=documents.unknown,
            )
        try:
            messages = documents.encode(write.rows, is_deleted=write.kind is WriteKind.DELETE)
        except Unfit as error:
            raise RowRefused(
                f"{where}, column {error.column}: a value is none of the column's type",
                hint="Correct the value where it was written, or the column's type; then `concord parked retry`.",
                row_index=error.index,
                reason="value",
                column=error.column,
            ) from None
        most = self._sizes[feed_topic(self._config, write.table)] - FRAME_BYTES
        for index, (key, value) in enumerate(messages):
            if len(key) + len(value or b"") > most:
                raise RowRefused(
                    f"{where}: a row is larger than the topic takes ({most} bytes)",
                    hint="Raise max.message.bytes of the topic and start the daemon again; then `concord parked"
                    " retry`.",
                    row_index=index,
                    reason="value",
                )
        return messages


class FeedDelivery:
    """See `engine.ports.Delivery`."""

    def __init__(self, session: FeedSession) -> None:
        self._session = session

    async def write(self, write: TableWrite) -> WriteResult:
        return await self._session.write(write)
