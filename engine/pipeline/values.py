"""Records and versions beside each other: what differs, what was not sent, what has a value. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import compress
from operator import ne
from typing import TypeVar, cast

from engine.model.record import Value
from engine.model.value import ABSENT, CanonicalRow

T = TypeVar("T")

BITS = tuple(1 << n for n in range(1024))


def has_any(those: Collection[T], wanted: Iterable[T]) -> bool:
    """Whether any of `wanted` is among `those`; most often these are none at all."""
    return bool(those) and any(map(those.__contains__, wanted))


@dataclass(frozen=True, slots=True)
class Compared:
    """Records beside the versions before: which fields differ in each, in any, and the records whole."""

    masks: list[int]
    touched: int
    records: list[tuple[Value, ...]]


def compare(records: Sequence[CanonicalRow], values: Sequence[tuple[Value, ...]]) -> Compared:
    """Compare many records with versions of the same width. What was not sent is taken from the version."""
    masks, touched, columns, is_whole = [0] * len(records), 0, list[tuple[object, ...]](), True
    for n, (sent, held) in enumerate(zip(zip(*records, strict=True), zip(*values, strict=True), strict=True)):
        column: tuple[object, ...] = sent
        if column != held and ABSENT in column:
            is_whole = False
            column = tuple(b if a is ABSENT else a for a, b in zip(sent, held, strict=True))
        columns.append(column)
        if column != held:
            bit = 1 << n
            touched |= bit
            masks = [mask | bit if a != b else mask for mask, a, b in zip(masks, column, held, strict=True)]
    whole = records if is_whole else list(zip(*columns, strict=True))
    return Compared(masks, touched, cast("list[tuple[Value, ...]]", whole))


def changed(record: CanonicalRow, values: Sequence[Value]) -> int:
    """Mask of the fields that were sent and differ."""
    if len(values) < len(record):
        values = (*values, *(None for _ in range(len(record) - len(values))))
    if ABSENT in record:
        return sum(1 << n for n, (a, b) in enumerate(zip(record, values, strict=False)) if a is not ABSENT and a != b)
    # The usual row, without a step of Python for each field.
    return sum(compress(BITS, map(ne, record, values)))


def merged(record: CanonicalRow, values: Sequence[Value]) -> tuple[Value, ...]:
    """The record, with what was not sent taken from `values`."""
    width = len(values)
    return tuple((values[n] if n < width else None) if v is ABSENT else v for n, v in enumerate(record))


def stored(record: CanonicalRow) -> tuple[Value, ...]:
    """A new record: what was not sent is null."""
    return tuple(None if v is ABSENT else v for v in record) if ABSENT in record else record  # pyright: ignore
