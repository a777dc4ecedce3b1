"""Many records born one after another, as columns: what a first copy or a bulk load brings, without an object each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress, count, repeat
from operator import contains
from typing import Final, overload

from engine.model.record import CHANGE, Entry, Value, encode_entry

NIL: Final = b"\xc0"
"""MessagePack's null. No UTF-8 text holds this byte."""


@dataclass(frozen=True, slots=True)
class Births(Sequence[Entry]):
    """Entries of which number `n` has seq and rid `first + n`, was made by a change of `origin` at `times[n]`, concerns
    `concerned`, and sets what has a value in `records[n]`; all of these have the same width."""

    first: int
    entity: int
    origin: int
    concerned: int
    times: Sequence[int]
    records: Sequence[tuple[Value, ...]]

    def __len__(self) -> int:
        return len(self.records)

    @overload
    def __getitem__(self, index: int) -> Entry: ...
    @overload
    def __getitem__(self, index: slice) -> Births: ...
    def __getitem__(self, index: int | slice) -> Entry | Births:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            assert step == 1
            if stop - start == len(self):
                return self
            return Births(
                self.first + start, self.entity, self.origin, self.concerned, self.times[index], self.records[index]
            )
        n = range(len(self))[index]
        seq, values = self.first + n, self.records[n]
        return Entry(
            seq, seq, self.entity, self.origin, self.times[n], mask_of(values), self.concerned, 0, CHANGE, 0, values
        )

    @property
    def rids(self) -> range:
        return range(self.first, self.first + len(self.records))

    def encoded(self) -> list[bytes]:
        """Each as `encode_entry` spells it. Raises TypeError for a record with anything in it but values."""
        full = (1 << len(self.records[0])) - 1
        fields = zip(
            count(self.first), count(self.first), repeat(self.entity), repeat(self.origin), self.times, repeat(full),
            repeat(self.concerned), repeat(0), repeat(CHANGE), repeat(0), self.records, repeat(()),
        )  # fmt: skip
        documents = list(map(encode_entry, fields))
        # Where there is no such byte there is no null.
        for n in compress(count(), map(contains, documents, repeat(NIL))):
            if None in self.records[n]:
                documents[n] = encode_entry(self[n])
        return documents


def mask_of(values: tuple[Value, ...]) -> int:
    """Mask of the fields that have a value."""
    if None not in values:
        return (1 << len(values)) - 1
    mask, bit = 0, 1
    for value in values:
        if value is not None:
            mask |= bit
        bit <<= 1
    return mask
