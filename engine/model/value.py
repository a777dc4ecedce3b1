"""The values that move through the engine, and the one that says "not sent".

Two vocabularies meet here. *Wire* values are what a system's log, snapshot or driver gives and takes; `Shape.form`
tells which. *Canonical* values are what the hub stores and compares; each canonical type has exactly one spelling of
each value, so equality is `==` and a document packs without conversion:

    text, enum   str
    integer      int
    boolean      bool
    decimal      str, plain notation, no exponent, no "-0"; with the field's scale exactly that many decimals,
    money        else none at the end that are zero: "12.50" (scale 2), "12.5" (no scale)
    duration     like decimal without scale, in seconds
    date         str "2024-02-29"; "infinity", "-infinity" and " BC" as PostgreSQL writes them
    time         str "13:05:00.25", no zeros at the end of the fraction
    timestamp    str "2024-02-29 13:05:00.25+00": UTC, a space, "+00", no zeros at the end of the fraction; "infinity"
    reference    int, the rid of the record referred to
    json         str, keys sorted, no spaces, numbers as written
    binary       str, lower-case hexadecimal
    list         str, a JSON array without spaces: numbers and booleans as JSON has them, everything else as texts, each
                 spelt as above; null is null

None is the null of every type.
"""

from __future__ import annotations

import enum
from typing import Final


class Absent(enum.Enum):
    """The source did not send this column (unchanged TOAST, a column filter, a key-only image). Not null."""

    # A value that cannot be encoded: whatever was not sent is never stored by mistake.
    TOKEN = object()

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Final = Absent.TOKEN

Wire = str | int | float | bytes | bool | None | Absent
Canonical = str | int | bool | None | Absent
WireRow = tuple[Wire, ...]
CanonicalRow = tuple[Canonical, ...]
