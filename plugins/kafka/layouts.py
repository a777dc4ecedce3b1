"""The layouts of all tables of one feed: found by the message's schema, or by its columns where it brings none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from engine.errors import MalformedLog, SourceUnready
from engine.model.table import Column, Form, Shape
from plugins.kafka.buffer import Run
from plugins.kafka.config import KafkaConfig
from plugins.kafka.layout import Layout, make_layout
from plugins.kafka.meaning import Reading, column_of, reading_in, reading_of, what_is_lost
from plugins.kafka.message import Malformed, decode_names, unwrap
from plugins.kafka.schema import Field
from plugins.kafka.values import unscaled

# Tables that are altered every day, for years.
SCHEMAS_MAX: Final = 1_000


class NeedLayout(Exception):
    """The rows of a run, from `index` on, come in a layout that is not made yet; the catalogue is to be looked at
    first."""

    def __init__(self, run: Run, index: int = 0) -> None:
        super().__init__(run.table.name)
        self.run = run
        self.index = index


@dataclass(slots=True)
class Layouts:
    """`catalogue`: the tables as the captured database has them now, empty without one; `keys`: by collection, the
    key's columns as messages tell them."""

    system: str
    config: KafkaConfig
    connector: str
    catalogue: Mapping[str, Shape]
    keys: dict[str, tuple[str, ...]] = field(default_factory=lambda: {})
    _by_schema: dict[tuple[str, bytes], Layout] = field(default_factory=lambda: {})
    _latest: dict[str, Layout] = field(default_factory=lambda: {})
    _told: dict[str, Shape] = field(default_factory=lambda: {})

    def find(self, run: Run) -> Layout:
        """Raises `NeedLayout`."""
        if run.layout is not None:
            return run.layout
        name = run.table.name
        found = self._by_schema.get((name, run.schema_bytes)) if run.schema_bytes else self._latest.get(name)
        if found is None:
            raise NeedLayout(run)
        return found

    def of(self, run: Run) -> Layout:
        """The run's layout, made where there is none yet. Raises what `make` raises."""
        try:
            return self.find(run)
        except NeedLayout:
            self.make(run)
            return self.find(run)

    def keep(self, run: Run) -> None:
        """Read this run as the table's latest rows, though others will come."""
        run.layout = self._latest.get(run.table.name)

    def tell(self, table: str, shape: Shape) -> bool:
        """Note the shape of rows that are handed out; True when it is not that of those before."""
        last = self._told.get(table)
        self._told[table] = shape
        return last is not None and last is not shape and last != shape

    def make(self, run: Run) -> None:
        """Make the layout of the run's first rows. Where that is the one which has just failed, values are of other
        types than their columns: then whatever comes is handed on, and the mapping sets aside what it cannot read.
        Raises `MalformedLog` where even that has failed, or where the message itself had told the types."""
        name, where = run.table.name, self.where(run.table.name)
        row = run.schema
        if row is not None:
            fields = [(str(member.field), member) for member in row.fields or ()]
        else:
            fields = [(column, None) for column in self._columns(run)]
        known = self.catalogue.get(name)
        columns: list[Column] = []
        readings: list[Reading] = []
        for column_name, member in fields:
            found = self._read(known, column_name, member, where)
            if not isinstance(found, str):
                columns.append(found[0])
                readings.append(found[1])
        shape = self._shape(run, known, columns)
        names = [column for column, _ in fields]
        failed = self._by_schema.get((name, run.schema_bytes)) if run.schema_bytes else self._latest.get(name)
        layout = make_layout(shape, readings, names, unavailable=self.config.unavailable)
        if failed is not None and _is_same(failed, layout):
            if failed.is_loose or row is not None:
                raise MalformedLog(
                    f"{where}: topic {run.table.topic}, offset {run.offsets[0]}: a row that does not have the columns"
                    " which it names itself",
                    hint="Report this with the connector's version and settings; nothing behind it was taken.",
                )
            layout = replace(layout, is_loose=True)
        self._latest[name] = layout
        if run.schema_bytes:
            if len(self._by_schema) > SCHEMAS_MAX:
                self._by_schema.clear()
            self._by_schema[name, run.schema_bytes] = layout

    def left_out(self, run: Run) -> dict[str, str]:
        """Columns of the run's rows that are left out, and why: their values come in a form that holds less than the
        database does, or that is none we know. A mapping that reads one of them has its table held."""
        where, known = self.where(run.table.name), self.catalogue.get(run.table.name)
        members = {str(member.field): member for member in run.schema.fields or ()} if run.schema is not None else {}
        found = {name: self._read(known, name, members.get(name), where) for name in members or self._columns(run)}
        return {name: why for name, why in found.items() if isinstance(why, str)}

    def where(self, table: str) -> str:
        return f"system {self.system}, table {table}"

    def unwrap_key(self, key: bytes | None, where: str) -> bytes:
        """The key of a message, without its schema. Raises `MalformedLog`."""
        try:
            if key is None:
                raise Malformed("a deletion with neither row nor key")
            return unwrap(key)[0]
        except Malformed as error:
            raise MalformedLog(f"{where}: {error}") from None

    def _columns(self, run: Run) -> tuple[str, ...]:
        try:
            return decode_names(run.documents(0, 1)[0])
        except Malformed as error:
            raise MalformedLog(f"{self.where(run.table.name)}: topic {run.table.topic} holds {error}") from None

    def _read(self, known: Shape | None, name: str, member: Field | None, where: str) -> tuple[Column, Reading] | str:
        """How a column comes, or why it is left out. Raises `SourceUnready` where nothing tells what it is."""
        column = None if known is None else known.column(name)
        if member is not None:
            reading = reading_of(member, column, self.config.binary)
        elif column is not None:
            reading = reading_in(column, self.connector, self.config.time, self.config.decimal, self.config.binary)
        elif known is not None:
            # It was dropped or renamed since.
            return "the database has no such column, and messages bring no schema"
        else:
            raise SourceUnready(
                f"{where}: messages bring no schema",
                hint='Set "value.converter.schemas.enable": "true" in the connector, or name the captured database in'
                f" [systems.{self.system}.database].",
            )
        if reading is None:
            return "the connector writes it in a way that cannot be read"
        if column is not None:
            if why := what_is_lost(reading, column):
                return why
            if column.kind in reading.carries:
                return column, _unsigned(column, reading)
        return column_of(name, reading, is_nullable=member is None or member.optional), reading

    def _shape(self, run: Run, known: Shape | None, columns: list[Column]) -> Shape:
        if known is not None and tuple(columns) == known.columns:
            return known
        names = {column.name for column in columns}
        key = known.key if known is not None else self.keys.get(run.table.collection, ())
        return Shape(
            name=run.table.name,
            columns=tuple(columns),
            form=Form.TEXT,
            key=key if names.issuperset(key) else (),
            unique=() if known is None else tuple(u for u in known.unique if names.issuperset(u)),
            has_triggers=known is not None and known.has_triggers,
        )


def _is_same(one: Layout, other: Layout) -> bool:
    return (one.shape, one.readings, one.names) == (other.shape, other.readings, other.names)


def _unsigned(column: Column, reading: Reading) -> Reading:
    """Debezium tells a `bigint unsigned` as a signed one of the same bits (`bigint.unsigned.handling.mode`)."""
    if not column.type.startswith("bigint") or "unsigned" not in column.type or reading.convert is not str:
        return reading
    return Reading(Any, _unsigned_text, reading.kind, reading.word, reading.carries, reading.digits, reading.loses)


def _unsigned_text(value: int | str) -> str:
    if isinstance(value, str):
        # `bigint.unsigned.handling.mode` is precise.
        return unscaled(0)(value)
    return str(value if value >= 0 else value + 2**64)
