"""Everything that would stop or endanger reading topics, found before the daemon does. Reads only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import anyio.to_thread
import kafka.errors

from engine.errors import ConcordError
from engine.model.table import Shape
from engine.plugin import Site
from engine.ports import Finding, Role, Step
from plugins.kafka.begin import check_topics, topic_names
from plugins.kafka.broker import Topic, ask
from plugins.kafka.buffer import Partition
from plugins.kafka.config import KafkaConfig
from plugins.kafka.consume import Consumer
from plugins.kafka.errors import translate
from plugins.kafka.ingest import Ingest
from plugins.kafka.layouts import Layouts
from plugins.kafka.names import Names
from plugins.kafka.tables import LAST_MESSAGES, load_catalogue

# A daemon that is down over a long weekend finds its place again.
RETENTION_MILLISECONDS_MIN: Final = 4 * 86_400_000


async def find_problems(
    site: Site, config: KafkaConfig, tables: Sequence[str], role: Role, missing: Sequence[Step]
) -> list[Finding]:
    """The findings of `concord check`. `missing`: what set-up would make."""
    names = Names(config, tables)
    wanted = topic_names(config, names)
    topics = await ask(site, config, lambda admin: admin.topics(wanted, with_settings=True), doing="look at topics")
    found = [
        Finding(
            path="topic",
            message=f"{step.summary}: there is none of that name",
            hint="It is made by the connector with a table's first message. Check topic.prefix, table.include.list and"
            f" provide.transaction.metadata of the connector; for an empty table run `concord setup {site.name}`.",
            sql=step.sql,
            by_setup=True,
        )
        for step in missing
    ]
    found += _of_topics(config, names, topics)
    found += _of_heartbeat(config, names, role)
    if not missing:
        try:
            check_topics(config, names, topics, site.name)
        except ConcordError as error:
            found.append(Finding(path="topic", message=error.message, hint=error.hint))
    catalogue = await load_catalogue(site, config, tables)
    found += [
        Finding(path=name, message="the database has no such table", hint="Correct the mapping or create the table.")
        for name in tables
        if config.database is not None and name not in catalogue
    ]
    found += await anyio.to_thread.run_sync(lambda: list(_of_messages(site, config, names, topics, catalogue)))
    return found


def _of_topics(config: KafkaConfig, names: Names, topics: Mapping[str, Topic]) -> Iterator[Finding]:
    for name, topic in topics.items():
        if topic.is_compacted and config.order != "row":
            yield Finding(
                path=f"topic {name}",
                message="it is compacted: what a daemon has not read when the cleaner comes is lost, and stops it",
                hint="Let it be kept by age.",
                sql=f"kafka-configs.sh --alter --topic {name} --add-config cleanup.policy=delete",
                is_fatal=False,
            )
        kept = int(topic.settings.get("retention.ms", "-1"))
        if 0 < kept < RETENTION_MILLISECONDS_MIN and not topic.is_compacted:
            yield Finding(
                path=f"topic {name}",
                message=f"it is kept for {kept // 3_600_000} hours; a daemon that is down for longer loses its place",
                hint="Keep it as long as the longest outage you want to survive.",
                sql=f"kafka-configs.sh --alter --topic {name} --add-config retention.ms={7 * 86_400_000}",
                is_fatal=False,
            )
        if topic.settings.get("message.timestamp.type") == "LogAppendTime" and config.order == "transaction":
            yield Finding(
                path=f"topic {name}",
                message="the broker puts its own time on messages, by which the beginning of the first copy is found",
                hint="Let messages keep the connector's time.",
                sql=f"kafka-configs.sh --alter --topic {name} --add-config message.timestamp.type=CreateTime",
                is_fatal=False,
            )


def _of_heartbeat(config: KafkaConfig, names: Names, role: Role) -> Iterator[Finding]:
    """Where the system is written to, our marker shows how far the log is; else only what somebody writes does."""
    if config.database is not None and config.order != "row" and names.heartbeat is None and Role.TARGET not in role:
        yield Finding(
            path="heartbeat",
            message="no heartbeat table is named: while nobody writes to the database, first copies and backfills wait",
            hint='Set "heartbeat.interval.ms" and "heartbeat.action.query" in the connector, into a table that it'
            " captures, and name that table in `heartbeat`.",
            is_fatal=False,
        )


def _of_messages(
    site: Site, config: KafkaConfig, names: Names, topics: Mapping[str, Topic], catalogue: Mapping[str, Shape]
) -> Iterator[Finding]:
    """Whether the last messages of each table can be read."""
    try:
        consumer = Consumer(site, config)
    except (kafka.errors.KafkaError, OSError) as error:
        raise translate(error, config, system=site.name, doing="connect") from error
    keys: dict[str, tuple[str, ...]] = {}
    ingest = Ingest(site.name, config, names, since=0, keys=keys)
    layouts = Layouts(site.name, config, names.connector, catalogue, keys)
    try:
        for table in names.tables:
            for number in topics[table.topic].partitions if table.topic in topics else ():
                partition = Partition(table.topic, number, next=0)
                try:
                    ingest.take(partition, consumer.last_records((table.topic, number), LAST_MESSAGES))
                    for run in partition.runs:
                        if any(event.op in ("c", "u", "r") for event in run.events):
                            yield from _of_key(table.name, layouts.of(run).shape)
                            yield from _of_columns(table.name, layouts.left_out(run))
                            break
                except ConcordError as error:
                    yield Finding(path=table.name, message=error.message, hint=error.hint)
                    break
    except (kafka.errors.KafkaError, OSError) as error:
        raise translate(error, config, system=site.name, doing="read the last messages") from error
    finally:
        consumer.close()


def _of_columns(table: str, left_out: Mapping[str, str]) -> Iterator[Finding]:
    for column, why in left_out.items():
        hint = "Left out until then; a mapping that reads it has its table held."
        yield Finding(path=f"{table}.{column}", message=why, hint=hint, is_fatal=False)


def _of_key(table: str, shape: Shape) -> Iterator[Finding]:
    if not shape.key:
        yield Finding(
            path=table,
            message="its messages tell no key, so deletions and changes of one row cannot be told from those of others",
            hint="Give the table a primary key, or the connector message.key.columns.",
        )
