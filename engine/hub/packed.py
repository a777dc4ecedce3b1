"""Many rows in one statement: pairs of numbers packed into one array, texts as one JSON document, documents end to end.

A statement that gives or takes a row at a time costs a step of Python for each, and each step lets go of Python's lock
and has to win it back from the other lanes' threads. One statement for a whole batch costs one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

# A pair is `large << SMALL_BITS | small`: 43 bits for keys and rids, 20 for a number within a batch.
SMALL_BITS: Final = 20
SMALL_END: Final = 1 << SMALL_BITS
LARGE_END: Final = 1 << 43
LARGE: Final = f"c.value >> {SMALL_BITS}"
SMALL: Final = f"(c.value & {SMALL_END - 1})"

DIGITS_MAX: Final = 18
INTEGER_END: Final = 10**DIGITS_MAX
ESCAPE: Final = "\x1b"

_decode_integers = msgspec.json.Decoder(list[int]).decode


def stored_key(key: str) -> str | int:
    """Plain integers are stored as integers: half the size, and in the order they were handed out."""
    if key.isascii() and key.isdigit() and len(key) <= DIGITS_MAX and (key[0] != "0" or key == "0"):
        return int(key)
    return escaped(key)


def escaped(text: str) -> str:
    """The text without NUL, where SQLite's arrays and JSON functions would end it."""
    if "\0" in text or ESCAPE in text:
        return text.replace(ESCAPE, ESCAPE * 2).replace("\0", ESCAPE + "0")
    return text


def read_key(stored: str | int) -> str:
    """The key that `stored_key` stored."""
    if isinstance(stored, int):
        return str(stored)
    if ESCAPE not in stored:
        return stored
    return (ESCAPE).join(part.replace(ESCAPE + "0", "\0") for part in stored.split(ESCAPE * 2))


def plain_integers(keys: Sequence[str]) -> list[int] | None:
    """The keys as `stored_key` stores them, when all of them are plain integers; else None."""
    text = ",".join(keys)
    digits = text.replace(",", "")
    if not (digits.isascii() and digits.isdigit()):
        return None
    try:
        # JSON has no leading zeros, which would not come back.
        numbers = _decode_integers(f"[{text}]")
    except msgspec.DecodeError:
        return None
    # More of them than keys: a key holds a comma.
    return numbers if len(numbers) == len(keys) and max(numbers) < INTEGER_END else None


def pairs(large: Sequence[int], small: Sequence[int], base: int) -> list[int] | None:
    """`(large, small - base)` packed, in the order of `large`; None when a number is out of range."""
    if min(large) < 0 or max(large) >= LARGE_END or min(small) < base or max(small) - base >= SMALL_END:
        return None
    packed = [a << SMALL_BITS | b - base for a, b in zip(large, small, strict=True)]
    packed.sort()
    return packed
