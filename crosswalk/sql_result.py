"""From the value of an expression to a field, and from there to a column."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from crosswalk import convert
from crosswalk.carry import Cell, Unfit, check_carrier, listed, named
from crosswalk.carry_read import number_finisher, reader_of, text_checks
from crosswalk.carry_write import writer_of
from crosswalk.sql_scope import SqlProblem
from crosswalk.sql_typed_functions import SPELLINGS
from engine.model.entity import Field, Type
from engine.model.table import Column, Form, Kind

Convert = Callable[[Any], Any]
NUMBER_KINDS = (Kind.INTEGER, Kind.DECIMAL, Kind.FLOAT)


def canonical_result(field: Field, kind: Kind, zone: ZoneInfo | None, decimals: int | None) -> Convert | None:
    """What makes an expression's value of `kind` the field's. Raises `SqlProblem` when none does.

    `kind` OTHER is a dynamic value, as a column of a dynamically typed system would hold it.
    """
    if kind is Kind.OTHER:
        column = Column(name="expression", kind=Kind.OTHER, type="expression")
        if field.type is Type.TIMESTAMP and zone is None:
            zone = ZoneInfo("UTC")
        return reader_of(Cell(field=field, column=column, form=Form.NATIVE, zone=zone, round=decimals))
    made = _typed_result(field, kind, zone, decimals)
    if made is None:
        raise SqlProblem(f"the expression gives {kind.value}, and the field is {named(field)}; add a cast")
    return made


def _typed_result(field: Field, kind: Kind, zone: ZoneInfo | None, decimals: int | None) -> Convert | None:
    spell = SPELLINGS.get(kind)
    match field.type:
        case Type.TEXT:
            check = text_checks(field)
            return (lambda value: check(value)) if spell is None else (lambda value: check(spell(value)))
        case Type.INTEGER | Type.DECIMAL | Type.MONEY | Type.DURATION if kind in NUMBER_KINDS:
            return _number_result(field, decimals)
        case Type.BOOLEAN if kind is Kind.BOOLEAN:
            return bool
        case Type.DATE if kind is Kind.DATE:
            return date.isoformat
        case Type.TIME if kind is Kind.TIME:
            return convert.time_text
        case Type.TIMESTAMP if kind is Kind.INSTANT:
            return convert.utc_text
        case Type.TIMESTAMP if kind is Kind.TIMESTAMP:
            if zone is None:
                raise SqlProblem('the expression gives a timestamp without a zone; add timezone = "UTC" or another')
            return _in_zone(zone)
        case Type.ENUM if kind in (Kind.TEXT, Kind.ENUM):
            return listed(field.values)
        case Type.REFERENCE if kind in (Kind.TEXT, Kind.UUID, Kind.INTEGER):
            return convert.key_text
        case Type.JSON if kind in (Kind.TEXT, Kind.JSON):
            return convert.json_text
        case Type.LIST if kind in (Kind.TEXT, Kind.JSON):
            column = Column(name="expression", kind=Kind.TEXT, type="text")
            return reader_of(Cell(field=field, column=column, form=Form.TEXT, zone=zone or ZoneInfo("UTC")))
        case _:
            return None


def _number_result(field: Field, decimals: int | None) -> Convert:
    finish = number_finisher(field)

    def number(value: int | Decimal | float) -> Any:
        text = format(value, "f") if isinstance(value, Decimal) else convert.decimal_text(value, None)
        return finish(text if decimals is None else convert.rounded(text, decimals))

    return number


def _in_zone(zone: ZoneInfo) -> Convert:
    def utc(value: datetime) -> str:
        return convert.utc_text(convert.local_to_utc(value, zone))

    return utc


# The field that a value of each kind would be, for writing it.
_FIELDS = {
    Kind.TEXT: Type.TEXT,
    Kind.ENUM: Type.TEXT,
    Kind.UUID: Type.TEXT,
    Kind.INTEGER: Type.INTEGER,
    Kind.DECIMAL: Type.DECIMAL,
    Kind.FLOAT: Type.DECIMAL,
    Kind.BOOLEAN: Type.BOOLEAN,
    Kind.DATE: Type.DATE,
    Kind.TIME: Type.TIME,
    Kind.INSTANT: Type.TIMESTAMP,
    Kind.TIMESTAMP: Type.TIMESTAMP,
    Kind.JSON: Type.JSON,
}


def wire_result(cell: Cell, kind: Kind) -> Convert | None:
    """What makes an expression's value of `kind` the wire value of the cell's column."""
    if cell.form is Form.NATIVE or kind is Kind.OTHER:
        return None
    if cell.column.kind in (Kind.TEXT, Kind.OTHER) and kind not in (Kind.TEXT, Kind.ENUM, Kind.UUID, Kind.JSON):
        spell = SPELLINGS[kind]
        length = cell.column.length
        return spell if length is None else (lambda value: convert.fit_text(spell(value), length))
    field = Field(name=cell.field.name, type=_FIELDS[kind])
    zone = cell.zone or ZoneInfo("UTC")
    plain = Cell(field=field, column=cell.column, form=cell.form, zone=zone)
    try:
        check_carrier(plain)
        write = writer_of(plain)
    except Unfit as unfit:
        raise SqlProblem(f"{unfit}; {unfit.hint}") from None
    finish = canonical_result(field, kind, zone, None)
    assert finish is not None
    return lambda value: write(finish(value))
