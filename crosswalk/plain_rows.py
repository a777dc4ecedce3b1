"""Rows of a write that are made while the target reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final, overload

from engine.model.value import CanonicalRow, WireRow

# Few enough that a target which turns them into a text at once finds them in the processor's cache.
SOME_ROWS: Final = 250


@dataclass(frozen=True, slots=True)
class PlainRows(Sequence[WireRow]):
    """Rows that no value can keep from being made: they are made where they are read, and again when read again."""

    _make: Callable[[Sequence[str | None], Sequence[CanonicalRow]], list[WireRow]]
    _keys: Sequence[str | None]
    _records: Sequence[CanonicalRow]

    def __len__(self) -> int:
        return len(self._records)

    @overload
    def __getitem__(self, index: int) -> WireRow: ...
    @overload
    def __getitem__(self, index: slice) -> PlainRows: ...
    def __getitem__(self, index: int | slice) -> WireRow | PlainRows:
        if isinstance(index, slice):
            return PlainRows(self._make, self._keys[index], self._records[index])
        return self._make([self._keys[index]], [self._records[index]])[0]

    def __iter__(self) -> Iterator[WireRow]:
        keys, records = self._keys, self._records
        return chain.from_iterable(
            self._make(keys[at : at + SOME_ROWS], records[at : at + SOME_ROWS])
            for at in range(0, len(records), SOME_ROWS)
        )
