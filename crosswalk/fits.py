"""Does what comes fit the column? Said before a row moves, of a field's column and the columns that other systems send
the field from; without those, of the column and the dictionary."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from zoneinfo import ZoneInfo

from crosswalk import convert
from crosswalk.carry import Cell, is_padded, ratio_of
from crosswalk.carry_write import SECOND_DIGITS, integer_range, second_digits
from crosswalk.units import UNIX_UNITS
from engine.model.entity import Type
from engine.model.table import Form, Kind

NUMBERS = (Type.INTEGER, Type.DECIMAL, Type.MONEY, Type.DURATION)


@dataclass(frozen=True, slots=True)
class Sender:
    """A column that another system sends the field from. `cell` None: an expression, of which nothing is known."""

    title: str
    cell: Cell | None


@dataclass(frozen=True, slots=True)
class Doubt:
    """Something that may not fit, and what to do about it."""

    message: str
    hint: str


def doubts(
    cell: Cell, name: str, senders: Sequence[Sender] | None, *, is_read: bool, is_written: bool
) -> Iterator[Doubt]:
    """What may be parked between the column and field `name`. `senders`: all there are; None: unknown."""
    if cell.values is None and not cell.soft_delete:
        if is_read:
            yield from _read_doubts(cell, name)
        if is_written and (senders is None or senders):
            yield from _text_doubts(cell, name, senders)
            yield from _number_doubts(cell, name, senders)
            yield from _time_doubts(cell, name, senders)


def _read_doubts(cell: Cell, name: str) -> Iterator[Doubt]:
    """Values of the column that the field does not have."""
    field, column = cell.field, cell.column
    if field.type is Type.TEXT and field.length is not None and (column.length or 0) > field.length:
        yield Doubt(
            f"the column has up to {column.length} characters, {name} up to {field.length}",
            "Rows with longer ones are parked; give the field a greater length in the dictionary.",
        )
    decimals = column.scale if column.kind is Kind.DECIMAL and column.precision is not None else None
    is_exact = field.type in (Type.DECIMAL, Type.MONEY) and cell.unit is None and cell.round is None
    if is_exact and field.scale is not None and decimals is not None and decimals > field.scale:
        yield Doubt(
            f"the column has {decimals} decimals, {name} has {field.scale}",
            f"Rows with more are parked; allow rounding with round = {field.scale}, or give the field a greater scale.",
        )
    if field.type is Type.DATE and column.kind is Kind.TIMESTAMP:
        yield Doubt(
            f"the column has times of day, {name} is a day",
            "Rows with another time than 00:00 are parked; cast the column to date with read =, or map a timestamp.",
        )
    is_number = column.kind is Kind.INTEGER and cell.form is Form.TEXT and column.type != "tinyint(1)"
    if field.type is Type.BOOLEAN and is_number:
        yield Doubt(
            f"the column has any whole number, {name} is yes or no",
            "Rows with another number than 0 and 1 are parked; say with values = { … } what they mean.",
        )


def _text_doubts(cell: Cell, name: str, senders: Sequence[Sender] | None) -> Iterator[Doubt]:
    field, column = cell.field, cell.column
    if field.type is not Type.TEXT:
        return
    if column.length is not None and not cell.truncate:
        most, title = _most(field.length, senders, _text_length)
        if most is None or most > column.length:
            limit = "of any length" if most is None else f"of up to {most} characters"
            yield Doubt(
                f"the column holds {column.length} characters, {name} has texts {limit}{title}",
                "Longer ones are parked; widen the column, or allow cutting with truncate = true.",
            )
    padded = [s for s in senders or () if s.cell is not None and is_padded(s.cell.column)]
    if is_padded(column) and field.unit is None and (senders is None or len(padded) < len(senders)):
        yield Doubt(
            f"a column of type {column.type} drops spaces at the end, {name} has any text",
            "Texts that end in spaces are parked; a column of another type keeps them.",
        )


def _text_length(cell: Cell) -> int | None:
    column = cell.column
    if cell.values is not None:
        return max(map(len, map(str, cell.values.values())), default=0)
    if column.kind is Kind.ENUM and column.labels:
        return max(map(len, column.labels))
    return 36 if column.kind is Kind.UUID else column.length


def _number_doubts(cell: Cell, name: str, senders: Sequence[Sender] | None) -> Iterator[Doubt]:
    field, column = cell.field, cell.column
    if field.type not in NUMBERS or cell.unit in UNIX_UNITS:
        return
    are_floats = senders and all(s.cell is not None and s.cell.column.kind is Kind.FLOAT for s in senders)
    if column.kind is Kind.FLOAT and field.type is not Type.INTEGER and cell.round is None and not are_floats:
        yield Doubt(f"a floating point keeps about 15 digits, {name} is exact", _ROUND_HINT)
    scale = 0 if column.kind is Kind.INTEGER else column.scale if column.precision is not None else None
    if column.kind is Kind.INTERVAL and column.scale != SECOND_DIGITS:
        scale = column.scale
    if scale is not None and field.type is not Type.INTEGER and cell.unit is None and cell.round is None:
        most, title = _most(field.scale, senders, _decimals)
        if most is None or most > scale:
            decimals = "as many decimals as there are" if most is None else f"{most} decimals"
            yield Doubt(f"the column holds {scale} decimals, {name} has {decimals}{title}", _ROUND_HINT)
    if senders is not None:
        yield from _range_doubts(cell, name, senders)


_ROUND_HINT = "What does not fit is parked; use an exact column, or allow rounding with round = N."


def _range_doubts(cell: Cell, name: str, senders: Sequence[Sender]) -> Iterator[Doubt]:
    """A bigint that is sent to an integer, a numeric(12,2) to a numeric(9,2). Where a sender says nothing of its size
    nothing is said either: nearly every column could be too small for what no application writes."""
    held = _range(cell)
    for sender in senders:
        sent = None if sender.cell is None or sender.cell.values or sender.cell.unit != cell.unit else sender.cell
        most = None if sent is None else _range(sent)
        if held is not None and most is not None and (most[0] < held[0] or most[1] > held[1]):
            yield Doubt(
                f"the column holds numbers from {_plain(held[0])} to {_plain(held[1])}, {name} has numbers from"
                f" {_plain(most[0])} to {_plain(most[1])} ({sender.title})",
                "What does not fit is parked; widen the column.",
            )
            return


def _range(cell: Cell) -> tuple[Fraction, Fraction] | None:
    """The least and the greatest number of the column, as far as its type says."""
    column = cell.column
    if column.kind is Kind.INTEGER and cell.form is Form.TEXT:
        low, high = integer_range(column, cell.form)
        return Fraction(low), Fraction(high)
    if column.kind is Kind.DECIMAL and column.precision is not None:
        scale = column.scale or 0
        high = Fraction(10**column.precision - 1) / Fraction(10) ** scale
        return -high, high
    return None


def _decimals(cell: Cell) -> int | None:
    """How many decimals of the field come from the column at most."""
    column = cell.column
    if column.kind is Kind.INTEGER:
        found = 0
    elif column.kind is Kind.INTERVAL:
        found = SECOND_DIGITS if column.scale is None else column.scale
    elif column.kind is Kind.DECIMAL and column.precision is not None:
        found = column.scale or 0
    else:
        return None
    if cell.unit is not None:
        ratio = ratio_of(cell)
        while ratio.denominator != 1:
            ratio, found = ratio * 10, found + 1
    return found if cell.round is None else min(found, cell.round)


def _time_doubts(cell: Cell, name: str, senders: Sequence[Sender] | None) -> Iterator[Doubt]:
    field, column = cell.field, cell.column
    if field.type not in (Type.TIME, Type.TIMESTAMP):
        return
    digits = second_digits(cell)
    if digits is not None and not cell.truncate:
        most, title = _most(SECOND_DIGITS, senders, second_digits)
        if most is not None and most > digits:
            yield Doubt(
                f"the column keeps {digits or 'no'} digits of a second's fraction, {name} has up to {most}{title}",
                "Times with more are parked; widen the column, or allow cutting with truncate = true.",
            )
    if field.type is Type.TIMESTAMP and column.kind is Kind.TIMESTAMP and cell.zone is not None:
        alike = [s for s in senders or () if s.cell is not None and s.cell.zone == cell.zone
                 and s.cell.column.kind is Kind.TIMESTAMP]  # fmt: skip
        if _has_repeated_hour(cell.zone) and (senders is None or len(alike) < len(senders)):
            yield Doubt(
                f"the column has local times of {cell.zone.key}, where clocks repeat an hour each year, and {name} has"
                " every moment",
                "Moments in the second of the two hours are parked; a column with a zone, or one in UTC, has them all.",
            )


def _has_repeated_hour(zone: ZoneInfo) -> bool:
    year = datetime.now(zone).year
    return len({zone.utcoffset(datetime(year, month, 1)) for month in range(1, 13)}) > 1


def _most(
    known: int | None, senders: Sequence[Sender] | None, of: Callable[[Cell], int | None]
) -> tuple[int | None, str]:
    """The most that comes, None without a limit: as the dictionary says, or less where no sender has so much. And which
    sender has it."""
    if senders is None:
        return known, ""
    most, title = -1, ""
    for sender in senders:
        found = None if sender.cell is None else of(sender.cell)
        if found is None or (known is not None and found >= known):
            return known, f" ({sender.title})"
        if found > most:
            most, title = found, f" ({sender.title})"
    return most, title


def _plain(number: Fraction) -> str:
    return convert.fraction_text(number, None)
