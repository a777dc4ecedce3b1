"""A system whose log comes by topics, apart from that log: shapes, set-up, pages, health; `check.py` has the check.

Set-up makes the topics that are missing, so that an empty table has one too; and at the captured database, where it is
written to, what its own plugin makes there. What Debezium needs of the database is the business of whoever runs
Debezium.
"""

from __future__ import annotations

from collections.abc import Sequence

import anyio.to_thread
import kafka.errors

from engine.errors import SourceUnready
from engine.model.change import Page
from engine.model.position import Position
from engine.model.table import Shape
from engine.plugin import Site
from engine.ports import Finding, Health, Role, Step, System
from plugins.kafka.begin import topic_names
from plugins.kafka.broker import Admin, ask
from plugins.kafka.check import find_problems
from plugins.kafka.config import KafkaConfig
from plugins.kafka.consume import Consumer
from plugins.kafka.errors import translate
from plugins.kafka.names import Names
from plugins.kafka.rights import findings, needs_of_source
from plugins.kafka.tables import inner_system, shapes_of_messages


class TopicSystem:
    """See `engine.ports.System`."""

    def __init__(self, site: Site, config: KafkaConfig) -> None:
        self._site = site
        self._config = config
        self._inner = inner_system(site, config)

    async def shapes(self, tables: Sequence[str] | None = None) -> dict[str, Shape]:
        """The captured database's view; without one what messages tell."""
        if self._inner is not None:
            return await self._inner.shapes(tables)
        if tables is None:
            tables = await self._list()
        return await shapes_of_messages(self._site, self._config, tables)

    async def plan(self, tables: Sequence[str], role: Role) -> tuple[Step, ...]:
        """What is still to be done."""
        steps = await self._in_database(tables, role, is_real=False)
        return (*steps, *await self._missing(tables))

    async def setup(self, tables: Sequence[str], role: Role) -> tuple[Step, ...]:
        """Carry out the plan: the database first, for the marker's topic is made for its table."""
        steps = await self._in_database(tables, role, is_real=True)
        missing = await self._missing(tables)
        wanted = await self._missing_topics(tables)
        settings = {"cleanup.policy": "delete"}
        topics = [(name, self._config.partitions_for(name), self._config.replicas, settings) for name in wanted]
        if topics:
            await ask(self._site, self._config, lambda admin: admin.make(topics), doing="make topics")
        return (*steps, *missing)

    async def teardown(self) -> tuple[Step, ...]:
        """What set-up made at the database; topics are Debezium's."""
        return () if self._inner is None else await self._inner.teardown()

    async def check(self, tables: Sequence[str], role: Role) -> tuple[Finding, ...]:
        """All that would stop or endanger the role."""
        found: list[Finding] = []
        if self._inner is not None and Role.TARGET in role:
            found += await self._inner.check(tables, Role.TARGET)
        needs = needs_of_source(self._config, topic_names(self._config, Names(self._config, tables)))
        lacking = await ask(self._site, self._config, lambda admin: admin.lacking(needs), doing="look at rights")
        if lacking:
            # Without them nothing else can be seen.
            return (*found, *findings(self._config, lacking))
        missing = await self._missing(tables)
        return (*found, *await find_problems(self._site, self._config, tables, role, missing))

    async def page(self, table: str, after: tuple[str, ...] | None, rows_max: int, condition: str = "") -> Page:
        """Rows of the captured database. Raises `SourceUnready` without one: topics hold changes, no tables."""
        return await self._database(table).page(table, after, rows_max, condition)

    async def count(self, table: str, condition: str = "") -> int:
        """Rows of the captured database, as in `page`."""
        return await self._database(table).count(table, condition)

    def _database(self, table: str) -> System:
        if self._inner is not None:
            return self._inner
        raise SourceUnready(
            f"system {self._site.name}, table {table}: topics hold changes, and what rows there are only the database"
            " tells",
            hint=f"Name the captured database in [systems.{self._site.name}.database].",
            system=self._site.name,
            table=table,
        )

    async def health(self) -> Health:
        """Where the topics end. What the connector has not brought yet nobody sees here."""
        names = Names(self._config, ())
        by_transaction = self._config.order == "transaction"

        def look(admin: Admin) -> list[tuple[str, int]]:
            prefix = f"{self._config.prefix}."
            wanted = [names.transactions] if by_transaction else [n for n in admin.names() if n.startswith(prefix)]
            topics = admin.topics(wanted)
            return [(topic.name, n) for topic in topics.values() for n in topic.partitions]

        numbers = await ask(self._site, self._config, look, doing="look at topics")
        if not numbers:
            return Health(detail="its topics are not there yet")
        if not by_transaction and self._config.order == "row":
            return Health(detail=f"{len(numbers)} partitions")
        ends = await anyio.to_thread.run_sync(lambda: self._ends(numbers))
        end = max(ends.values())
        return Health(head=Position(order=(end - 1, 0)), detail=f"topic {numbers[0][0]} ends at offset {end}")

    def _ends(self, numbers: list[tuple[str, int]]) -> dict[tuple[str, int], int]:
        try:
            consumer = Consumer(self._site, self._config)
            try:
                return consumer.bounds(numbers)[1]
            finally:
                consumer.close()
        except (kafka.errors.KafkaError, OSError) as error:
            raise translate(error, self._config, system=self._site.name, doing="look at topics") from error

    async def _in_database(self, tables: Sequence[str], role: Role, *, is_real: bool) -> tuple[Step, ...]:
        """The part of the database's own plugin: it is written to, and its log is not read."""
        if self._inner is None or Role.TARGET not in role:
            return ()
        return await (self._inner.setup if is_real else self._inner.plan)(tables, Role.TARGET)

    async def _missing(self, tables: Sequence[str]) -> tuple[Step, ...]:
        return tuple(
            Step(
                summary=f"make topic {name}",
                sql=f"kafka-topics.sh --create --topic {name} --partitions {self._config.partitions_for(name)}"
                f" --replication-factor {self._config.replicas}",
            )
            for name in await self._missing_topics(tables)
        )

    async def _missing_topics(self, tables: Sequence[str]) -> list[str]:
        wanted = topic_names(self._config, Names(self._config, tables))
        there = await ask(self._site, self._config, lambda admin: admin.topics(wanted), doing="look at topics")
        return [name for name in wanted if name not in there]

    async def _list(self) -> list[str]:
        """Tables by the names of topics."""
        prefix = f"{self._config.prefix}."
        names = await ask(self._site, self._config, lambda admin: admin.names(), doing="list topics")
        ours = Names(self._config, ()).transactions
        return [name.removeprefix(prefix) for name in names if name.startswith(prefix) and name != ours]
