"""Versions of records as the journal holds them, and the stamps of their fields."""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

Value = str | int | bool | None
"""A canonical value as stored: never ABSENT."""

CHANGE: Final = 0
"""A new version: the fields in `mask` were set by `origin`."""
AGAIN: Final = 1
"""The same version again for the systems concerned: a loser to be written back, a retry, a record newly linked."""
PLACEHOLDER: Final = 2
"""A record that something refers to and that nobody has shown yet."""


class Stamp(NamedTuple):
    """Who last set a field: (system id, seq, commit time in microseconds since 1970 UTC)."""

    origin: int
    seq: int
    time: int


class Entry(msgspec.Struct, array_like=True, gc=False):
    """One journal entry: a record's whole document after it.

    `mask`: bit n is set when field n was set here, or is delivered again here. `concerned`: bit n is set when system n
    is to be written. `prev`: seq of the record's entry before this one, 0 for none. `foreign`: no entry of this record
    between `foreign` and this one concerns `origin`; the quick way to know that nothing is on its way there.
    `older`: stamps of the fields that this entry did not set, as (mask, origin, seq, time).
    """

    seq: int
    rid: int
    entity: int
    origin: int
    time: int
    mask: int
    concerned: int
    prev: int
    kind: int
    foreign: int
    values: tuple[Value, ...]
    older: tuple[tuple[int, int, int, int], ...] = ()

    def stamp(self, index: int) -> Stamp | None:
        """Who set field `index`; None when nobody did."""
        bit = 1 << index
        if self.mask & bit and self.kind == CHANGE:
            return Stamp(self.origin, self.seq, self.time)
        for mask, origin, seq, time in self.older:
            if mask & bit:
                return Stamp(origin, seq, time)
        return None

    def stamps_without(self, mask: int) -> tuple[tuple[int, int, int, int], ...]:
        """`older` of a following entry that sets the fields in `mask`."""
        own = self.mask & ~mask if self.kind == CHANGE else 0
        if not self.older:
            return ((own, self.origin, self.seq, self.time),) if own else ()
        kept = [(m & ~mask, o, s, t) for m, o, s, t in self.older if m & ~mask]
        if own:
            kept.append((own, self.origin, self.seq, self.time))
        return tuple(kept)

    def value(self, index: int) -> Value:
        """The value of field `index`; None also for a field younger than this version."""
        return self.values[index] if index < len(self.values) else None


ENCODER: Final = msgspec.msgpack.Encoder()
encode_entry = ENCODER.encode
_decode_entries = msgspec.msgpack.Decoder(list[Entry | None]).decode
decode_entry = msgspec.msgpack.Decoder(Entry).decode


def decode_entries(count: int, documents: bytes) -> list[Entry | None]:
    """Decode many entries that stand end to end in one pass: an array header before them makes them one message."""
    return _decode_entries(b"\xdd" + count.to_bytes(4, "big") + documents)


def bits(mask: int) -> list[int]:
    """Indexes of the bits set."""
    found: list[int] = []
    while mask:
        low = mask & -mask
        found.append(low.bit_length() - 1)
        mask ^= low
    return found
