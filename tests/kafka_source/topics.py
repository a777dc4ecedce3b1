"""Messages as Debezium's PostgreSQL connector writes them, with schemas, made by hand: what a test wants of them is not
what a connector would do by itself."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kafka
import kafka.admin

from engine.model.change import Batch
from engine.plugin import Site
from engine.ports import Feed
from engine.testing.kafka.client import Record, write_records
from engine.testing.kafka.cluster import KafkaCluster
from plugins.kafka.config import KafkaConfig

_kafka: Any = kafka
_admin: Any = kafka.admin
SCHEMA = {
    "type": "struct",
    "fields": [
        {
            "type": "struct",
            "field": "after",
            "optional": True,
            "fields": [
                {"type": "int32", "optional": False, "field": "id"},
                {"type": "string", "optional": True, "field": "name"},
            ],
        }
    ],
}
TABLE = "public.customers"


@dataclass(slots=True)
class Topics:
    """Topics of one prefix, and a system that reads them."""

    cluster: KafkaCluster
    prefix: str
    site: Site

    @classmethod
    def of(cls, cluster: KafkaCluster, prefix: str, folder: Path) -> Topics:
        return cls(cluster, prefix, Site(name="crm", directory=folder, work_directory=folder / "work"))

    @property
    def customers(self) -> str:
        return f"{self.prefix}.{TABLE}"

    @property
    def transactions(self) -> str:
        return f"{self.prefix}.transaction"

    def config(self, **settings: Any) -> KafkaConfig:
        options: Any = {"servers": (self.cluster.broker.bootstrap,), "prefix": self.prefix, **settings}
        return KafkaConfig(**options)

    def create(self, *names: str, partitions: int = 1, **settings: str) -> None:
        """Make topics; settings with `_` for dots."""
        chosen = {name.replace("_", "."): value for name, value in settings.items()}
        for name in names:
            self.cluster.broker.create_topic(name, partitions=partitions, settings=chosen)

    def write(self, *records: Record) -> None:
        write_records(self.cluster.broker.bootstrap, records)

    def change(self, id: int, name: str, *, number: int, order: int = 1, partition: int = 0, op: str = "c") -> Record:
        """A change of a customer in transaction `number`, as its how manyeth event."""
        return self.event(
            self.customers, {"id": id, "name": name}, number=number, order=order, partition=partition, op=op
        )

    def event(
        self,
        topic: str,
        row: dict[str, Any],
        *,
        number: int,
        order: int = 1,
        partition: int = 0,
        op: str = "c",
        table: str = TABLE,
        schema: dict[str, Any] | None = SCHEMA,
    ) -> Record:
        space, _, name = table.partition(".")
        payload = {
            "before": None,
            "after": row,
            "source": {
                "connector": "postgresql",
                "ts_ms": 1_700_000_000_000 + number,
                "snapshot": "false",
                "db": "x",
                "schema": space,
                "table": name,
                "txId": number,
                "sequence": json.dumps([str(number * 100), str(number * 100 + order)]),
            },
            "transaction": {"id": f"{number}:{order}", "total_order": order, "data_collection_order": order},
            "op": op,
        }
        value = payload if schema is None else {"schema": schema, "payload": payload}
        key = json.dumps({"id": row["id"]}, separators=(",", ":"))
        return self.record(topic, json.dumps(value, separators=(",", ":")), key=key, partition=partition)

    def end(self, number: int, **counts: int) -> Record:
        """The end of a transaction; counts by table, customers without."""
        told = counts or {TABLE: 1}
        value = {
            "status": "END",
            "id": f"{number}:{number * 100 + 99}",
            "event_count": sum(told.values()),
            "data_collections": [{"data_collection": name, "event_count": count} for name, count in told.items()],
            "ts_ms": 1_700_000_000_000 + number,
        }
        return self.record(self.transactions, json.dumps(value))

    def record(self, topic: str, value: str, *, key: str = "k", partition: int = 0) -> Record:
        """A record of now: what is older than a topic's retention is gone at once."""
        return Record(
            topic=topic,
            partition=partition,
            offset=0,
            timestamp=time.time_ns() // 1_000_000,
            key=key.encode(),
            value=value.encode(),
        )

    def delete_records(self, topic: str, before: int) -> None:
        """As retention does, at once."""
        admin = _kafka.KafkaAdminClient(bootstrap_servers=self.cluster.broker.bootstrap)
        try:
            admin.delete_records({_kafka.TopicPartition(topic, 0): before})
        finally:
            admin.close()

    def delete(self, *names: str) -> None:
        admin = _kafka.KafkaAdminClient(bootstrap_servers=self.cluster.broker.bootstrap)
        try:
            admin.delete_topics(list(names))
        finally:
            admin.close()

    def add_partition(self, topic: str, count: int) -> None:
        admin = _kafka.KafkaAdminClient(bootstrap_servers=self.cluster.broker.bootstrap)
        try:
            admin.create_partitions({topic: _admin.NewPartitions(total_count=count)})
        finally:
            admin.close()

    def committed(self, group: str, topic: str) -> int | None:
        consumer = _kafka.KafkaConsumer(bootstrap_servers=self.cluster.broker.bootstrap, group_id=group)
        try:
            return consumer.committed(_kafka.TopicPartition(topic, 0))
        finally:
            consumer.close(autocommit=False)


async def names_of(feed: Feed, count: int) -> list[str]:
    """The names in the next changes of customers, of so many."""
    batches: list[Batch] = []
    found: list[str] = []
    while len(found) < count:
        batches.append(await feed.receive(100))
        found = changed(batches)
    return found


def changed(batches: Sequence[Batch], column: int = 1) -> list[str]:
    """The names in all changes of customers."""
    return [
        str(row[column])
        for batch in batches
        for segment in batch.segments
        if TABLE in segment.tables
        for row in segment.tables[TABLE].rows
    ]
