"""A feed apart from its deliveries: its tables, set-up, check, and what rows it has."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Final

import anyio.to_thread
import kafka.errors
import msgspec

from engine.errors import MalformedLog, SourceUnready
from engine.model.change import Page
from engine.model.table import Shape
from engine.model.value import WireRow
from engine.plugin import Site
from engine.ports import Finding, Health, Role, Step
from plugins.kafka.broker import Topic, ask
from plugins.kafka.config import KafkaConfig
from plugins.kafka.consume import Consumer
from plugins.kafka.documents import decode_row, feed_shapes
from plugins.kafka.errors import translate
from plugins.kafka.produce import feed_topic, marker_topic
from plugins.kafka.rights import findings, needs_of_feed

# A row's latest message stays; a deletion's goes after a day, when whoever reads the feed has seen it.
SETTINGS: Final = {"cleanup.policy": "compact"}
_decode_key = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class FeedSystem:
    """See `engine.ports.System`."""

    def __init__(self, site: Site, config: KafkaConfig) -> None:
        self._site = site
        self._config = config
        self._rows: dict[str, tuple[dict[int, int], list[tuple[tuple[str, ...], WireRow]]]] = {}

    async def shapes(self, tables: Sequence[str] | None = None) -> dict[str, Shape]:
        """As the configuration has them."""
        found = feed_shapes(self._config)
        return found if tables is None else {name: found[name] for name in tables if name in found}

    async def plan(self, tables: Sequence[str], role: Role) -> tuple[Step, ...]:
        there = await self._topics(tables)
        return tuple(
            Step(
                summary=f"make topic {name}",
                sql=f"kafka-topics.sh --create --topic {name} --partitions {partitions}"
                f" --replication-factor {self._config.replicas} --config cleanup.policy=compact",
            )
            for name, partitions in self._wanted(tables).items()
            if name not in there
        )

    async def setup(self, tables: Sequence[str], role: Role) -> tuple[Step, ...]:
        """Make the topics that are missing."""
        steps = await self.plan(tables, role)
        there = await self._topics(tables)
        wanted = [
            (name, partitions, self._config.replicas, SETTINGS)
            for name, partitions in self._wanted(tables).items()
            if name not in there
        ]
        if wanted:
            await ask(self._site, self._config, lambda admin: admin.make(wanted), doing="make topics", role=Role.TARGET)
        return steps

    async def teardown(self) -> tuple[Step, ...]:
        """Delete the topics of the feed."""
        there = sorted(await self._topics(list(self._config.tables)))
        if there:
            await ask(
                self._site, self._config, lambda admin: admin.delete(there), doing="delete topics", role=Role.TARGET
            )
        return tuple(
            Step(summary=f"delete topic {name}", sql=f"kafka-topics.sh --delete --topic {name}") for name in there
        )

    async def check(self, tables: Sequence[str], role: Role) -> tuple[Finding, ...]:
        needs = needs_of_feed(self._config, self._wanted(tables))
        missing = await ask(
            self._site, self._config, lambda admin: admin.lacking(needs), doing="look at rights", role=Role.TARGET
        )
        if missing:
            # Without them nothing else can be seen.
            return tuple(findings(self._config, missing))
        there = await self._topics(tables)
        found = [
            Finding(
                path=table,
                message="the feed has no such table",
                hint=f"Write it in [systems.{self._site.name}.tables].",
            )
            for table in tables
            if table not in self._config.tables
        ]
        for step in await self.plan(tables, role):
            hint = f"Run `concord setup {self._site.name}`."
            found.append(Finding(path="topic", message=step.summary, hint=hint, sql=step.sql, by_setup=True))
        for name, topic in there.items():
            if not topic.is_compacted:
                found.append(
                    Finding(
                        path=f"topic {name}",
                        message="it is not compacted: rows that do not change are forgotten with age",
                        hint="Let it be compacted.",
                        sql=f"kafka-configs.sh --alter --topic {name} --add-config cleanup.policy=compact",
                        is_fatal=name == marker_topic(self._config),
                    )
                )
        marker = there.get(marker_topic(self._config))
        if marker is not None and len(marker.partitions) != 1:
            hint = "Delete it while no daemon runs, and run `concord setup`."
            found.append(Finding(path=f"topic {marker.name}", message="it must have one partition", hint=hint))
        return tuple(found)

    async def page(self, table: str, after: tuple[str, ...] | None, rows_max: int, condition: str = "") -> Page:
        """Rows that the topic holds, in the order of their keys as texts. The whole topic is read, and kept in memory
        as long as nothing is added to it: for `concord compare`. Nothing there understands a condition."""
        rows, shape = await self._all(table, condition)
        start = 0
        if after is not None:
            start = next((n for n, (key, _) in enumerate(rows) if key > after), len(rows))
        chosen = rows[start : start + rows_max]
        return Page(
            shape=shape,
            rows=[row for _, row in chosen],
            last_key=chosen[-1][0] if len(chosen) == rows_max else None,
            read_at=time.time_ns() // 1000,
        )

    async def count(self, table: str, condition: str = "") -> int:
        """Rows that the topic holds, as in `page`."""
        rows, _ = await self._all(table, condition)
        return len(rows)

    async def _all(self, table: str, condition: str) -> tuple[list[tuple[tuple[str, ...], WireRow]], Shape]:
        if condition:
            raise SourceUnready(
                f"system {self._site.name}, table {table}: a feed answers no condition",
                hint="Ask without one.",
                system=self._site.name,
                table=table,
            )
        shape = (await self.shapes([table])).get(table)
        if shape is None:
            raise SourceUnready(
                f"system {self._site.name}: the feed has no table {table}", hint="Correct the mapping.", table=table
            )
        return await anyio.to_thread.run_sync(lambda: self._read(table, shape)), shape

    async def health(self) -> Health:
        there = await self._topics(list(self._config.tables))
        return Health(detail=f"{len(there)} topics")

    def _read(self, table: str, shape: Shape) -> list[tuple[tuple[str, ...], WireRow]]:
        topic = feed_topic(self._config, table)
        try:
            consumer = Consumer(self._site, self._config)
            try:
                numbers = [(topic, n) for n in consumer.partitions(topic)]
                first, ends = consumer.bounds(numbers)
                known = self._rows.get(table)
                state = {n: end for (_, n), end in ends.items()}
                if known is not None and known[0] == state:
                    return known[1]
                values: dict[bytes, bytes | None] = {}
                for number in numbers:
                    for _, _, key, value, _ in consumer.read(number, first[number], ends[number]):
                        if key is not None:
                            values[key] = value
            finally:
                consumer.close()
        except (kafka.errors.KafkaError, OSError) as error:
            raise translate(
                error, self._config, system=self._site.name, doing="read the feed", role=Role.TARGET
            ) from error
        try:
            rows = sorted((_key(key), decode_row(shape, value)) for key, value in values.items() if value is not None)
        except (ValueError, msgspec.MsgspecError):
            raise MalformedLog(f"system {self._site.name}: topic {topic} holds what is no row of a feed") from None
        self._rows[table] = (state, rows)
        return rows

    def _wanted(self, tables: Sequence[str]) -> dict[str, int]:
        """Topics and their partitions."""
        found = {feed_topic(self._config, table): self._config.partitions for table in tables}
        return {marker_topic(self._config): 1, **found}

    async def _topics(self, tables: Sequence[str]) -> Mapping[str, Topic]:
        wanted = list(self._wanted(tables))
        return await ask(
            self._site,
            self._config,
            lambda admin: admin.topics(wanted, with_settings=True),
            doing="look at topics",
            role=Role.TARGET,
        )


def _key(document: bytes) -> tuple[str, ...]:
    return tuple(str(msgspec.json.decode(raw)) for raw in _decode_key(document).values())
