"""Messages as the consumer brings them become events in the buffers of their partitions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from engine.errors import MalformedLog, PositionLost, SourceUnready
from plugins.kafka.buffer import Partition, Run
from plugins.kafka.config import KafkaConfig
from plugins.kafka.message import (
    NULL,
    Event,
    Malformed,
    Source,
    decode_event,
    decode_names,
    header,
    place_of,
    unwrap,
)
from plugins.kafka.names import Names, Table
from plugins.kafka.position import Place
from plugins.kafka.records import Record
from plugins.kafka.schema import Field

NEW_KEY: Final = "__debezium.newkey"
OLD_KEY: Final = "__debezium.oldkey"
_TAKEN: Final = frozenset("cudrt")


class Ingest:
    """Decodes; knows nothing of the order between partitions.

    `since`: messages before this time are older than the beginning (see `position.Resume`). `keys` gets the columns of
    each table's key, by collection.
    """

    def __init__(
        self, system: str, config: KafkaConfig, names: Names, *, since: int, keys: dict[str, tuple[str, ...]]
    ) -> None:
        self._system = system
        self._config = config
        self._names = names
        self._since = since
        self._keys = keys
        self._is_flat = config.form == "flat"
        self._is_by_transaction = config.order == "transaction"
        self._tables: dict[str, dict[str, Table]] = {}
        for table in names.all:
            self._tables.setdefault(table.topic, {})[table.collection] = table
        self._seen: dict[tuple[str | None, str | None, str | None], Table | None] = {}
        self._schemas: dict[str, tuple[bytes, Field | None]] = {}
        self.replayed = 0
        """Messages that the connector had sent before."""

    def take(self, partition: Partition, records: Iterable[Record]) -> None:
        """Add the records to the partition's buffer. Raises `MalformedLog`, `SourceUnready`, `PositionLost`."""
        offset = partition.next
        try:
            for record in records:
                offset = record[0]
                if record[1] >= self._since:
                    self._take(partition, record)
        except Malformed as error:
            raise MalformedLog(
                f"system {self._system}: topic {partition.topic}, partition {partition.number}, offset {offset}:"
                f" {error}",
                hint='Debezium\'s JSON is wanted: "value.converter": "org.apache.kafka.connect.json.JsonConverter",'
                " without"
                ' a transformation of the message; or say form = "flat" of ExtractNewRecordState.',
            ) from None

    def _take(self, partition: Partition, record: Record) -> None:
        value = record[3]
        if self._is_flat:
            event, schema, schema_bytes = self._flat(partition, record)
        elif value is None:
            # The deletion itself stands before it.
            return
        else:
            known, row = self._schemas.get(partition.topic, (b"", None))
            if known and value.startswith(known):
                event, schema, schema_bytes = decode_event(value[len(known) : -1]), row, known
            else:
                payload, whole, schema_bytes = unwrap(value)
                event = decode_event(payload)
                schema = None if whole is None else whole.member("after")
                if schema is not None and schema_bytes:
                    self._schemas[partition.topic] = (schema_bytes, schema)
        if event.op not in _TAKEN:
            return
        table = self._table(partition.topic, event.source)
        if table is None:
            return
        if record[2] is not None and table.collection not in self._keys:
            self._keys[table.collection] = decode_names(unwrap(record[2])[0])
        self._add(partition, table, event, record, schema, schema_bytes)

    def _table(self, topic: str, source: Source) -> Table | None:
        ours = self._tables[topic]
        if self._is_flat:
            return next(iter(ours.values()))
        seen = (source.db, source.schema, source.table)
        if seen not in self._seen:
            self._seen[seen] = ours.get(source.collection)
        return self._seen[seen]

    def _add(
        self,
        partition: Partition,
        table: Table,
        event: Event,
        record: Record,
        schema: Field | None,
        schema_bytes: bytes,
    ) -> None:
        runs, transaction = partition.runs, event.transaction
        run = runs[-1] if runs else None
        place: Place | None = None
        if self._is_by_transaction:
            if transaction is None:
                key = self._outside(partition, event, record)
            elif event.source.connector == "postgresql":
                key = transaction.id.partition(":")[0]
            else:
                key = transaction.id
            fits = run is not None and run.key == key and run.table is table and run.schema_bytes == schema_bytes
            if fits and transaction is not None:
                assert run is not None
                before = run.events[-1].transaction
                fits = before is not None and transaction.data_collection_order > before.data_collection_order
            if not fits:
                place = place_of(event.source)
        else:
            key = _key_of(event)
            place = place_of(event.source)
            if place is not None and not self._is_new(partition, place, event, record):
                return
            fits = run is not None and run.key == key and run.table is table and run.schema_bytes == schema_bytes
        if not fits or run is None:
            run = Run(table, key, place, schema, schema_bytes)
            partition.add(run)
        if place is not None:
            run.last = place
        self._append(partition, run, event, record)

    def _append(self, partition: Partition, run: Run, event: Event, record: Record) -> None:
        offset, _, key, value, headers = record
        index = len(run.events)
        if event.op == "d" and key is not None:
            run.keys[index] = key
        if headers is not None:
            if event.op == "d" and (new := header(headers, NEW_KEY)) is not None:
                run.moved[index] = (True, unwrap(new)[0])
            elif event.op != "d" and (old := header(headers, OLD_KEY)) is not None:
                run.moved[index] = (False, unwrap(old)[0])
        run.events.append(event)
        run.offsets.append(offset)
        size = len(value or b"")
        run.size += size
        partition.size += size

    def _outside(self, partition: Partition, event: Event, record: Record) -> None:
        """An event that belongs to no transaction: a row of a snapshot. Raises for what should belong to one."""
        if event.op != "r":
            raise SourceUnready(
                f"system {self._system}: topic {partition.topic}, partition {partition.number}, offset {record[0]}: an"
                " event does not tell its transaction",
                hint='Set "provide.transaction.metadata": "true" in the connector, restart it, and run'
                f' `concord backfill {self._system}`; or say order = "row".',
            )
        has_streamed = partition.handed is not None or any(run.key is not None for run in partition.runs)
        if has_streamed and event.source.is_first_read:
            raise PositionLost(
                f"system {self._system}: the connector has begun anew with a snapshot (topic {partition.topic},"
                " partition"
                f" {partition.number}, offset {record[0]}): what changed before it is in no topic",
                hint=f"Run `concord backfill {self._system}`; look why the connector lost its place.",
            )

    def _is_new(self, partition: Partition, place: Place, event: Event, record: Record) -> bool:
        """Whether the connector sends it for the first time: in one partition places only go on, but where it begins
        again behind a restart. Several events of one place (COPY) differ by key."""
        tie = event.op.encode() + (record[2] or b"")
        last, time = partition.place, event.source.time
        if last is None or place > last:
            if last is not None and event.source.is_first_read and event.op == "r" and partition.time:
                self._outside(partition, event, record)
            partition.place, partition.ties = place, {tie}
        elif place == last:
            if tie in partition.ties:
                self.replayed += 1
                return False
            partition.ties.add(tie)
        else:
            check_went_back(self._system, partition, record[0], time, partition.time)
            self.replayed += 1
            return False
        partition.time = max(partition.time, time)
        return True

    def _flat(self, partition: Partition, record: Record) -> tuple[Event, Field | None, bytes]:
        """A message of ExtractNewRecordState as an event. What the transformation added has names that begin with
        `__`."""
        _, time, key, value, _ = record
        source = Source(connector="", ts_ms=time)
        payload, schema, schema_bytes = (NULL, None, b"") if value is None else unwrap(value)
        if payload == NULL:
            if key is None:
                raise Malformed("neither key nor value")
            key, _, _ = unwrap(key)
            return Event(op="d", source=source, before=msgspec.Raw(key)), None, b""
        if not any(name.startswith("__") for name in decode_names(payload)):
            return Event(op="u", source=source, after=msgspec.Raw(payload)), schema, schema_bytes
        row: dict[str, Any] = _decode_row(payload)
        added = {name: row.pop(name) for name in [name for name in row if name.startswith("__")]}
        op = _decode_text(added.get("__op")) or "u"
        if _decode_text(added.get("__deleted")) == "true" or op == "d":
            return Event(op="d", source=source, before=msgspec.Raw(_encode(row))), schema, schema_bytes
        if schema is not None:
            kept = tuple(f for f in schema.fields or () if not str(f.field).startswith("__"))
            schema = msgspec.structs.replace(schema, fields=kept)
        return Event(op=op, source=source, after=msgspec.Raw(_encode(row))), schema, schema_bytes


def check_went_back(system: str, partition: Partition, offset: int, time: int, last: int) -> None:
    """What stands before the last place in the source's log, and was committed after it, is of another log. Raises
    `PositionLost`."""
    if last and time > last:
        raise PositionLost(
            f"system {system}: topic {partition.topic}, partition {partition.number}, offset {offset}: places in the"
            " source's log go back while time goes on, so the connector reads another server now, or a restored one",
            hint=f"Run `concord backfill {system}`.",
        )


def _key_of(event: Event) -> str | None:
    """The transaction, of messages that need not tell it."""
    if event.op == "r":
        return None
    if event.transaction is not None:
        id = event.transaction.id
        return id.partition(":")[0] if event.source.connector == "postgresql" else id
    return event.source.gtid or (None if event.source.txId is None else str(event.source.txId)) or ""


def _decode_text(value: Any) -> str:
    if value is None:
        return ""
    found = msgspec.json.decode(value)
    return found if isinstance(found, str) else str(found).lower()


_decode_row = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode
