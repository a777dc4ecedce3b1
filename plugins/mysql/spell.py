"""How values of a binary log are spelt: as `engine.model.table.Form.TEXT` says. Pure functions and tables of them.

Dates, times and amounts come again and again, so what has been spelt once is remembered, a bounded number of each. The
packed forms are those of MySQL's `my_time.cc` and `decimal.c`, which MariaDB shares.
"""

from __future__ import annotations

import ipaddress
import math
import struct
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

K = TypeVar("K")

# Enough for the days of a century; a table is emptied when it is full, so that no log can make it grow.
REMEMBERED_MAX: Final = 40_000

_FLOAT: Final = struct.Struct("<f")
# Digits in front of a group of four bytes, as bytes (dig2bytes of decimal.c).
_BYTES_OF_DIGITS: Final = (0, 1, 1, 2, 2, 3, 3, 4, 4, 4)
_DATETIME_SIGN: Final = 1 << 22

# Character sets of the server by Python's name. What it calls latin1 is Windows-1252, see `latin1_text`.
CHARACTER_SETS: Final = {
    "utf8": "utf-8",
    "utf8mb3": "utf-8",
    "utf8mb4": "utf-8",
    "ascii": "ascii",
    "latin1": "latin1",
    "latin2": "iso8859_2",
    "latin5": "iso8859_9",
    "latin7": "iso8859_13",
    "greek": "iso8859_7",
    "hebrew": "iso8859_8",
    "cp1250": "cp1250",
    "cp1251": "cp1251",
    "cp1256": "cp1256",
    "cp1257": "cp1257",
    "cp850": "cp850",
    "cp852": "cp852",
    "cp866": "cp866",
    "koi8r": "koi8_r",
    "koi8u": "koi8_u",
    "macce": "mac_latin2",
    "macroman": "mac_roman",
    "tis620": "tis_620",
    "sjis": "shift_jis",
    "cp932": "cp932",
    "ujis": "euc_jp",
    "big5": "big5",
    "gbk": "gbk",
    "gb2312": "gb2312",
    "gb18030": "gb18030",
    "euckr": "cp949",
    "ucs2": "utf_16_be",
    "utf16": "utf_16_be",
    "utf16le": "utf_16_le",
    "utf32": "utf_32_be",
}


# What the server takes for another character than Python does, by Python's; each stands for one code only.
_OTHERS: Final = {
    "cp866": {"№": "ⁿ", "¤": "²"},
    "greek": {"‘": "ʽ", "’": "ʼ"},
    "hebrew": {"¯": "‾"},
    "koi8u": {"∙": "•"},
    "sjis": {"＼": "\\"},
    "ujis": {"＼": "\\"},
}


def text_decoder(character_set: str) -> Callable[[bytes], str] | None:
    """Decodes bytes of one of the server's character sets; None for one that Python does not have. The decoder raises
    ValueError."""
    if character_set == "latin1":
        return latin1_text
    name = CHARACTER_SETS.get(character_set)
    if name is None:
        return None
    if character_set in _OTHERS:
        others = str.maketrans(_OTHERS[character_set])
        return lambda raw: raw.decode(name).translate(others)
    return lambda raw: raw.decode(name)


class Remembered(dict[K, str], Generic[K]):
    """`spell` of a key, remembered."""

    def __init__(self, spell: Callable[[K], str], *, count_max: int = REMEMBERED_MAX) -> None:
        super().__init__()
        self._spell = spell
        self._count_max = count_max

    def __missing__(self, key: K) -> str:
        if len(self) >= self._count_max:
            self.clear()
        text = self[key] = self._spell(key)
        return text


def decimal_size(precision: int, scale: int) -> int:
    """Bytes of a DECIMAL(precision, scale)."""
    whole, rest = divmod(precision - scale, 9)
    parts, last = divmod(scale, 9)
    return 4 * (whole + parts) + _BYTES_OF_DIGITS[rest] + _BYTES_OF_DIGITS[last]


def decimal_speller(precision: int, scale: int) -> Callable[[bytes], str]:
    """Spells a DECIMAL: groups of nine digits in four bytes, the odd digits at both ends in fewer; the first bit is
    set where it is not negative, and all bits are turned over where it is.

    Amounts differ from row to row, so they are not remembered; instead the function is made for these digits.
    """
    whole, rest = divmod(precision - scale, 9)
    parts, last = divmod(scale, 9)
    before = ([(_BYTES_OF_DIGITS[rest], rest)] if rest else []) + [(4, 9)] * whole
    behind = [(4, 9)] * parts + ([(_BYTES_OF_DIGITS[last], last)] if last else [])
    at = 8 * decimal_size(precision, scale)
    sign = 1 << (at - 1)
    lines = [
        "def spell(raw):",
        "    number = from_bytes(raw, 'big')",
        f"    if number & {sign}:",
        f"        number ^= {sign}",
        "        minus = ''",
        "    else:",
        f"        number ^= {sign - 1}",
        "        minus = '-' if number else ''",
    ]
    names: list[str] = []
    limits: list[str] = []
    for n, (size, digits) in enumerate((*before, *behind)):
        at -= 8 * size
        # The first group is what is left above the others.
        mask = f" & {(1 << 8 * size) - 1}" if n else ""
        lines.append(f"    g{n} = number >> {at}{mask}" if at else f"    g{n} = number{mask}")
        names.append(f"g{n}")
        limits.append(f"g{n} >= {10**digits}")
    lines.append(f"    if {' or '.join(limits)}: raise ValueError('a group of a decimal has too many digits')")
    integer = "0"
    for n, (_, digits) in enumerate(before):
        integer = f"{integer} * {10**digits} + g{n}" if n else "g0"
        integer = f"({integer})"
    fraction = "".join(f"{{g{len(before) + n}:0{digits}d}}" for n, (_, digits) in enumerate(behind))
    point = "." if behind else ""
    lines.append(f"    return f'{{minus}}{{{integer}}}{point}{fraction}'")
    namespace: dict[str, Any] = {"from_bytes": int.from_bytes}
    exec(compile("\n".join(lines), "<decimal>", "exec"), namespace)
    return namespace["spell"]


def date_text(raw: bytes) -> str:
    """DATE: three bytes, little-endian: year, four bits of month, five of day."""
    packed = int.from_bytes(raw, "little")
    return f"{packed >> 9:04d}-{(packed >> 5) & 15:02d}-{packed & 31:02d}"


def packed_date_text(packed: int) -> str:
    """The upper 23 bits of a DATETIME: one that is set, 17 of year * 13 + month, 5 of day."""
    if not packed & _DATETIME_SIGN:
        raise ValueError("a negative date")
    packed ^= _DATETIME_SIGN
    year, month = divmod(packed >> 5, 13)
    return f"{year:04d}-{month:02d}-{packed & 31:02d}"


def packed_time_text(packed: int) -> str:
    """The lower 17 bits of a DATETIME: 5 of hour, 6 of minute, 6 of second."""
    return f"{packed >> 12:02d}:{(packed >> 6) & 63:02d}:{packed & 63:02d}"


def day_text(day: int) -> str:
    """A day since 1970, by the calendar's rule of 400 years; `datetime.date` does not reach as far as four bytes."""
    # Counted from 1 March of year 0, so that a leap day is a year's last one.
    era, rest = divmod(day + 719_468, 146_097)
    year = (rest - rest // 1460 + rest // 36_524 - rest // 146_096) // 365
    of_year = rest - (365 * year + year // 4 - year // 100)
    month = (5 * of_year + 2) // 153
    day_of_month = of_year - (153 * month + 2) // 5 + 1
    month = month + 3 if month < 10 else month - 9
    return f"{year + 400 * era + (month <= 2):04d}-{month:02d}-{day_of_month:02d}"


def second_text(second: int) -> str:
    """A second of a day."""
    return f"{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}"


def instant_text(seconds: int, fraction: str) -> str:
    """A TIMESTAMP; 0 is the zero date."""
    if not seconds:
        return f"0000-00-00 00:00:00{fraction}+00"
    return f"{day_text(seconds // 86400)} {second_text(seconds % 86400)}{fraction}+00"


def fraction_text(raw: bytes) -> str:
    """A fraction of one to three bytes, big-endian, two decimals each; with its point, without zeros at its end."""
    return _fraction(int.from_bytes(raw, "big"), len(raw))


def time_text(raw: bytes) -> str:
    """TIME: three bytes and those of the fraction, big-endian, as one number above its middle: a bit, 10 of hour, 6 of
    minute, 6 of second."""
    size = len(raw) - 3
    number = int.from_bytes(raw, "big") - (0x800000 << 8 * size)
    minus, number = ("-", -number) if number < 0 else ("", number)
    packed = number >> 8 * size
    whole = f"{minus}{packed >> 12:02d}:{(packed >> 6) & 63:02d}:{packed & 63:02d}"
    return whole + _fraction(number & ((1 << 8 * size) - 1), size)


def old_time_text(number: int) -> str:
    """TIME of before MySQL 5.6: the digits hhmmss."""
    minus, number = ("-", -number) if number < 0 else ("", number)
    return f"{minus}{number // 10_000:02d}:{number // 100 % 100:02d}:{number % 100:02d}"


def old_datetime_text(number: int) -> str:
    """DATETIME of before MySQL 5.6: the digits YYYYMMDDhhmmss."""
    digits = f"{number:014d}"
    if len(digits) != 14:
        raise ValueError("a date of more than 14 digits")
    return f"{digits[:4]}-{digits[4:6]}-{digits[6:8]} {digits[8:10]}:{digits[10:12]}:{digits[12:]}"


def year_text(number: int) -> str:
    """YEAR: years since 1900, 0 is 0."""
    return str(number + 1900) if number else "0"


def double_text(number: float) -> str:
    """The shortest text that reads back as the same double."""
    if math.isnan(number) or math.isinf(number):
        # No column of this server can hold them.
        raise ValueError("a float that is no number")
    text = repr(number)
    return text[:-2] if text.endswith(".0") else text


def float_text(number: float) -> str:
    """The shortest text that reads back as the same float of four bytes."""
    for digits in range(6, 10):
        text = f"{number:.{digits}g}"
        if _FLOAT.unpack(_FLOAT.pack(float(text)))[0] == number:
            return double_text(float(text))
    return double_text(number)


def latin1_text(raw: bytes) -> str:
    """The server's latin1: Windows-1252, whose five gaps are control characters."""
    if raw.isascii():
        return raw.decode("ascii")
    try:
        return raw.decode("cp1252")
    except UnicodeDecodeError:
        return "".join(chr(byte) if byte in _GAPS else bytes((byte,)).decode("cp1252") for byte in raw)


_GAPS: Final = frozenset((0x81, 0x8D, 0x8F, 0x90, 0x9D))


def uuid_text(raw: bytes) -> str:
    """MariaDB's UUID, which the log holds in the order it is written in."""
    if len(raw) > 16:
        raise ValueError("a uuid of more than 16 bytes")
    text = raw.ljust(16, b"\0").hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def inet4_text(raw: bytes) -> str:
    """MariaDB's INET4."""
    if len(raw) > 4:
        raise ValueError("an address of more than 4 bytes")
    return str(ipaddress.IPv4Address(raw.ljust(4, b"\0")))


def inet6_text(raw: bytes) -> str:
    """MariaDB's INET6; addresses that stand for one of IPv4 end like it (`Inet6::to_string`)."""
    if len(raw) > 16:
        raise ValueError("an address of more than 16 bytes")
    raw = raw.ljust(16, b"\0")
    last = str(ipaddress.IPv4Address(raw[12:]))
    if raw[:12] == bytes(10) + b"\xff\xff":
        return f"::ffff:{last}"
    if raw[:12] == bytes(12) and raw[12:14] != b"\0\0":
        return f"::{last}"
    return ipaddress.IPv6Address(raw).compressed


def _fraction(number: int, size: int) -> str:
    if not number:
        return ""
    if number >= 100**size:
        raise ValueError("a fraction of a second and more")
    return f".{number:0{2 * size}d}".rstrip("0")
