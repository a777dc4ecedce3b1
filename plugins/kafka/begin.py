"""Where a feed begins that was never read, and whether one may go on. Blocking; run in threads.

With the captured database at hand the tables are copied from it, so the feed begins at the topics' present end. Without
it the topics themselves are the first copy: then they must have everything from their first message on.

In the order of transactions the beginning must not lie inside one. So it is a moment, that of the last message in the
topic of transactions: what is older in the tables' topics is left out. Debezium sends a transaction's beginning, its
events and its end one after the other, so one that began at that moment or later is there whole, and one that began
before and ends behind it is told by its missing beginning and left out; the database, which is read later, has all of
it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from engine.errors import SourceUnready
from plugins.kafka.broker import Topic, present
from plugins.kafka.config import KafkaConfig
from plugins.kafka.consume import Consumer
from plugins.kafka.gather import Number
from plugins.kafka.names import Names
from plugins.kafka.position import Resume

# Where no transaction has ever ended, one may just be on its way to the topics: what came this recently is read.
UNDER_WAY_MILLISECONDS = 60_000


def topic_names(config: KafkaConfig, names: Names) -> list[str]:
    """The topics that are read."""
    found = dict.fromkeys(table.topic for table in names.all)
    if config.order == "transaction":
        found[names.transactions] = None
    return list(found)


def check_topics(config: KafkaConfig, names: Names, topics: Mapping[str, Topic], system: str) -> None:
    """Raises `SourceUnready` when the topics cannot keep what `order` promises."""
    found = present(topics, topic_names(config, names), system)
    if config.order == "transaction" and len(topics[names.transactions].partitions) != 1:
        raise SourceUnready(
            f"system {system}: the topic of transactions {names.transactions} has"
            f" {len(topics[names.transactions].partitions)} partitions, and its order is wanted, which only one has",
            hint="Delete it, make it again with one partition, restart the connector, and run"
            f" `concord backfill {system}`.",
            system=system,
        )
    if config.order == "partition" and sum(len(topic.partitions) for topic in found) != 1:
        listed = ", ".join(f"{topic.name} ({len(topic.partitions)})" for topic in found)
        raise SourceUnready(
            f'system {system}: order = "partition" wants one topic with one partition for all tables, and there are'
            f" {listed}",
            hint="Route all tables to one topic (io.debezium.transforms.ByLogicalTableRouter), or say order ="
            ' "transaction".',
            system=system,
        )


def beginning(
    consumer: Consumer, config: KafkaConfig, names: Names, topics: Mapping[str, Topic], *, system: str
) -> Resume:
    """The beginning. Raises `SourceUnready`."""
    numbers: list[Number] = [(topic.name, n) for topic in topics.values() for n in topic.partitions]
    ids = {topic.name: topic.id for topic in topics.values()}
    if config.database is None:
        first = _from_first(consumer, numbers, topics, config, system)
        _, ends = consumer.bounds([number for number in numbers if topics[number[0]].is_compacted])
        return Resume(next=_next(first), ids=ids, loose=_next(ends))
    if config.order != "transaction":
        _, ends = consumer.bounds(numbers)
        return Resume(next=_next(ends), ids=ids)
    last = consumer.last_time((names.transactions, 0))
    if last is None:
        starts = consumer.offsets_at(numbers, int(time.time() * 1000) - UNDER_WAY_MILLISECONDS)
        return Resume(next=_next(starts), ids=ids, is_fresh=True)
    return Resume(next=_next(consumer.offsets_at(numbers, last)), ids=ids, since=last, is_fresh=True)


def _from_first(
    consumer: Consumer, numbers: list[Number], topics: Mapping[str, Topic], config: KafkaConfig, system: str
) -> dict[Number, int]:
    first, _ = consumer.bounds(numbers)
    for (topic, number), offset in first.items():
        if offset:
            raise SourceUnready(
                f"system {system}: topic {topic}, partition {number} begins at offset {offset}: what stood before is"
                " gone,"
                " and rows may be in it that nothing later tells of",
                hint="Name the captured database in [systems."
                + system
                + ".database], whose tables are read then; or delete"
                " the topics and let the connector begin anew with a snapshot.",
                system=system,
            )
        if topics[topic].is_compacted and config.order == "transaction":
            raise SourceUnready(
                f"system {system}: topic {topic} is compacted, so transactions in it may lack events that they count",
                hint=f"Name the captured database in [systems.{system}.database], set cleanup.policy=delete for the"
                " topic, or"
                ' say order = "row".',
                system=system,
            )
    return first


def _next(offsets: Mapping[Number, int]) -> dict[str, dict[int, int]]:
    found: dict[str, dict[int, int]] = {}
    for (topic, number), offset in sorted(offsets.items()):
        found.setdefault(topic, {})[number] = offset
    return found
