"""A mapping's examples, run in both directions: the row gives the record, and the record gives the row."""

from __future__ import annotations

import json
import math
from datetime import date, datetime, time
from typing import Any

from crosswalk import convert, lists
from crosswalk.block import Block, Example
from crosswalk.place import MappedPlace
from engine.model.entity import Entity, Field, Type
from engine.model.record import bits
from engine.model.table import Column, Form, Kind, Shape
from engine.model.value import ABSENT
from engine.ports import Finding


def run_examples(place: MappedPlace, shape: Shape, entity: Entity) -> list[Finding]:
    """What does not come out as the examples say. Columns an example does not give are null; fields it does not give
    are not looked at. Raises `TableHeld` when the place does not fit the shape."""
    found: list[Finding] = []
    for example in place.block.examples:
        found.extend(_Run(place, shape, entity, example).findings())
    return found


class _Run:
    def __init__(self, place: MappedPlace, shape: Shape, entity: Entity, example: Example) -> None:
        self.block: Block = place.block
        self.place = place
        self.shape = shape
        self.entity = entity
        self.example = example

    def findings(self) -> list[Finding]:
        unknown = [name for name in self.example.row if self.shape.column(name) is None]
        if unknown:
            return [self._finding("row", f"the table has no column {', '.join(map(repr, unknown))}")]
        row = tuple(
            wire_of(self.example.row[column.name], column, self.shape.form) if column.name in self.example.row else None
            for column in self.shape.columns
        )
        return [*self._forward(row), *self._back(row)]

    def _forward(self, row: tuple[Any, ...]) -> list[Finding]:
        read = self.place.reader(self.shape, self.entity).read([row])
        if read.problems:
            return [self._finding("row", read.problems[0].message)]
        record = read.records[0]
        if record is None:
            if self.example.record is None:
                return []
            return [self._finding("row", "the row does not take part: `where` does not hold for it")]
        if self.example.record is None:
            return [self._finding("row", "the row takes part; an example without a record says that it does not")]
        found: list[Finding] = []
        for name, value in self.example.record.items():
            got = record[self.entity.index[name]]
            wanted = canonical_of(value, self.entity.fields[self.entity.index[name]])
            if got != wanted or type(got) is not type(wanted):
                found.append(self._finding(f"record.{name}", f"the row gives {_shown(got)}, not {_shown(wanted)}"))
        return found

    def _back(self, row: tuple[Any, ...]) -> list[Finding]:
        """The record's fields written, and compared with the row's columns."""
        if self.example.record is None:
            return []
        fields = self.entity.fields
        given = {self.entity.index[name] for name in self.example.record}
        record = tuple(
            canonical_of(self.example.record[field.name], field) if n in given else None
            for n, field in enumerate(fields)
        )
        writer = self.place.writer(self.shape, self.entity)
        mask = sum(1 << n for n in bits(writer.mask) if n in given)
        key = self.place.reader(self.shape, self.entity).keys([row])[0]
        written = writer.update(mask, [key], [record])
        if written.problems:
            return [self._finding("record", written.problems[0].message)]
        back = written.rows[0]
        assert back is not None
        found: list[Finding] = []
        for column, value in zip(written.columns, back, strict=True):
            index = self.shape.index(column)
            assert index is not None
            if column in self.block.touched:
                continue
            if value != row[index]:
                found.append(
                    self._finding(f"row.{column}", f"the record gives {_shown(value)}, not {_shown(row[index])}")
                )
        return found

    def _finding(self, part: str, message: str) -> Finding:
        return Finding(
            path=f"{self.block.name}.example.{part}",
            message=f"{message} ({self.example.where})",
            hint="Correct the example or the mapping.",
        )


def _shown(value: object) -> str:
    """Examples are made up by their author; their values may be shown."""
    return "null" if value is None else "nothing" if value is ABSENT else repr(value)


def wire_of(value: Any, column: Column, form: Form) -> Any:
    """A TOML value as the column's wire value."""
    if isinstance(value, (datetime, date, time)):
        value = _time_text(value)
    if isinstance(value, list) and column.kind is Kind.ARRAY:
        parts: list[Any] = value  # pyright: ignore[reportUnknownVariableType]
        element = column.element or column
        return lists.array_text(wire_of(part, element, form) for part in parts)
    if isinstance(value, (list, dict)):
        return convert.json_text(_json(value))  # pyright: ignore[reportUnknownArgumentType]
    if form is Form.NATIVE:
        return int(value) if isinstance(value, bool) else value
    if isinstance(value, bool):
        return ("t" if value else "f") if column.kind is Kind.BOOLEAN else ("1" if value else "0")
    if isinstance(value, float) and not math.isfinite(value):
        return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[str(value)]
    if isinstance(value, (int, float)):
        scale = column.scale if column.kind is Kind.DECIMAL and column.precision is not None else None
        try:
            return convert.decimal_text(value, scale)
        except convert.Loss:
            return convert.decimal_text(value, None)
    return value


def canonical_of(value: Any, field: Field) -> Any:
    """A TOML value as the field's canonical value, as far as it is one."""
    if isinstance(value, (datetime, date, time)):
        text = _time_text(value)
        return convert.instant_text(text, None) if field.type is Type.TIMESTAMP and text[-3:] == "+00" else text
    if field.type in (Type.DECIMAL, Type.MONEY, Type.DURATION) and not isinstance(value, bool):
        try:
            return convert.decimal_text(value, None if field.type is Type.DURATION else field.scale)
        except convert.Loss:
            return value
    if field.of is not None and isinstance(value, list):
        items: list[Any] = value  # pyright: ignore[reportUnknownVariableType]
        element_field = Field(name=field.name, type=field.of)
        return lists.canonical(field.of, [canonical_of(part, element_field) for part in items])
    if field.type is Type.REFERENCE and isinstance(value, int):
        return str(value)
    if field.type is Type.JSON and not isinstance(value, str):
        return convert.json_text(_json(value))
    return value


def _json(value: object) -> str:
    return json.dumps(value, default=str)


def _time_text(value: datetime | date | time) -> str:
    if isinstance(value, datetime) and value.tzinfo is not None:
        return convert.instant_text(value.isoformat(sep=" "), None)
    text = value.isoformat(sep=" ") if isinstance(value, datetime) else value.isoformat()
    return text.rstrip("0") if "." in text else text
