"""A table's names: in the mapping, in Debezium's messages, and of the topic that they go to."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from plugins.kafka.config import KafkaConfig, inner_database

# Debezium puts "_" for what a topic's name must not have (`TopicNameSanitizer`).
_UNFIT: Final = re.compile(r"[^A-Za-z0-9._-]")


class Table(NamedTuple):
    """`name`: as the mapping writes it; `collection`: as Debezium does, "public.customers" or "shop.customers"."""

    name: str
    collection: str
    topic: str


class Names:
    """The tables of one configuration. `marker` and `heartbeat` are None where there are none.

    A table that the mapping names without schema (PostgreSQL) or database (MariaDB, MySQL) is in `public`, or in the
    database that `[systems.NAME.database]` names.
    """

    def __init__(self, config: KafkaConfig, tables: Iterable[str]) -> None:
        self._config = config
        self.connector, self._space, marker = "", "public", config.marker
        inner = inner_database(config)
        if inner is not None:
            self.connector, options = inner[0].kind, inner[1]
            if self.connector == "postgres":
                marker = marker or "concord.marker"
            else:
                self._space = str(getattr(options, "database", ""))
                marker = marker or f"{self._space}.concord_marker"
        # A row of the marker means nothing where order is that of single rows.
        self.marker = self._table("", marker) if marker is not None and config.order != "row" else None
        self.heartbeat = None if config.heartbeat is None else self._table("", config.heartbeat)
        self.tables = [self._table(name, self._qualified(name)) for name in dict.fromkeys(tables)]

    @property
    def transactions(self) -> str:
        """The topic of transactions."""
        return self._config.transactions or f"{self._config.prefix}.transaction"

    @property
    def all(self) -> list[Table]:
        """Every table that is read: the mapping's, the marker and the heartbeat."""
        return [*self.tables, *(table for table in (self.marker, self.heartbeat) if table is not None)]

    def _table(self, name: str, collection: str) -> Table:
        given = self._config.topics.get(name) if name else None
        topic = given or self._config.topics.get(collection) or f"{self._config.prefix}.{collection}"
        return Table(name, collection, topic if given else _UNFIT.sub("_", topic))

    def _qualified(self, name: str) -> str:
        if self.connector == "postgres":
            parts = _parts(name)
            return ".".join(parts if len(parts) > 1 else (self._space, *parts))
        before, dot, after = name.partition(".")
        if self.connector and not dot:
            return f"{self._space}.{name}"
        return f"{before}{dot}{after}"


def _parts(name: str) -> list[str]:
    """The parts of a name as the PostgreSQL plugin takes it: one that begins with a quote goes to the next single one,
    any other to the next dot."""
    return [
        quoted.replace('""', '"') if quoted else plain
        for quoted, plain in re.findall(r'"((?:[^"]|"")+)"(?:\.|$)|([^.]+)(?:\.|$)', name)
    ]
