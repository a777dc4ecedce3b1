"""What tables look like: by the captured database's own catalogue; without one by the schemas of the last messages."""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter

import anyio.to_thread
import kafka.errors

from engine.errors import SourceUnready
from engine.model.table import Shape
from engine.plugin import Site
from engine.ports import System
from plugins.kafka.broker import ask, present
from plugins.kafka.buffer import Partition
from plugins.kafka.config import KafkaConfig, inner_database
from plugins.kafka.consume import Consumer
from plugins.kafka.errors import translate
from plugins.kafka.ingest import Ingest
from plugins.kafka.layouts import Layouts
from plugins.kafka.names import Names

# Messages from the end of a partition among which one with a row is looked for.
LAST_MESSAGES = 100


def inner_system(site: Site, config: KafkaConfig) -> System | None:
    """The captured database; None without one."""
    inner = inner_database(config)
    return None if inner is None else inner[0].system(site, inner[1])


async def load_catalogue(site: Site, config: KafkaConfig, tables: Sequence[str] | None) -> dict[str, Shape]:
    """The tables as the captured database has them; empty without one."""
    system = inner_system(site, config)
    return {} if system is None else await system.shapes(tables)


async def shapes_of_messages(site: Site, config: KafkaConfig, tables: Sequence[str]) -> dict[str, Shape]:
    """The tables as the last message of each describes them; those of whose rows there is none are left out. Raises
    `SourceUnready` where messages bring no schema."""
    names = Names(config, tables)
    wanted = [table.topic for table in names.tables]
    topics = await ask(site, config, lambda admin: admin.topics(wanted), doing="look at topics")
    there = present(topics, [name for name in wanted if name in topics], site.name)
    numbers = [(topic.name, n) for topic in there for n in topic.partitions]

    def read() -> dict[str, Shape]:
        keys: dict[str, tuple[str, ...]] = {}
        ingest = Ingest(site.name, config, names, since=0, keys=keys)
        layouts = Layouts(site.name, config, names.connector, {}, keys)
        newest: dict[str, tuple[int, Shape]] = {}
        try:
            consumer = Consumer(site, config)
            try:
                for number in numbers:
                    partition = Partition(*number, next=0)
                    ingest.take(partition, consumer.last_records(number, LAST_MESSAGES))
                    for run in partition.runs:
                        if any(event.op in ("c", "u", "r") for event in run.events):
                            # Partitions are in no order among each other.
                            told = run.events[-1].source.time, layouts.of(run).shape
                            newest[run.table.name] = max(newest.get(run.table.name, told), told, key=itemgetter(0))
            finally:
                consumer.close()
        except (kafka.errors.KafkaError, OSError) as error:
            raise translate(error, config, system=site.name, doing="read the last messages") from error
        return {name: shape for name, (_, shape) in newest.items()}

    found = await anyio.to_thread.run_sync(read)
    return {name: found[name] for name in tables if name in found}


def no_shape(system: str, table: str) -> SourceUnready:
    return SourceUnready(
        f"system {system}, table {table}: no message tells what it looks like",
        hint=f"Write a row of it, or name the captured database in [systems.{system}.database].",
        system=system,
        table=table,
    )
