"""Row decoders made for one table map: generated source, one straight line per column.

Most of capture's time is spent here. A row image is a bitmap of nulls and then the values of the columns that are
there, without anything in between (MariaDB knowledge base, "Rows_event_v1/v2"). So for a given pattern of nulls the
layout is known but for the lengths of variable columns: columns of fixed size, and the length that stands before the
next variable one, are taken in one step by a `struct`. Rows without nulls are decoded in the loop itself; for each
other pattern met lately there is a function; patterns beyond `PATTERNS_MAX` go column by column.

A slice beyond the end of the bytes is short, silently. But the place only ever moves on, so a row that was cut has
moved it past the end, and that is looked at when all rows are done.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from engine.errors import MalformedLog, SourceUnready
from engine.model.table import Kind
from engine.model.value import ABSENT, WireRow
from plugins.mysql.events import MappedColumn, RowsHead
from plugins.mysql.spell import (
    CHARACTER_SETS,
    Remembered,
    date_text,
    day_text,
    decimal_size,
    decimal_speller,
    double_text,
    float_text,
    fraction_text,
    inet4_text,
    inet6_text,
    instant_text,
    old_datetime_text,
    old_time_text,
    packed_date_text,
    packed_time_text,
    second_text,
    text_decoder,
    time_text,
    uuid_text,
    year_text,
)

# A table with more patterns of nulls than this gains nothing from knowing them, and would keep compiling.
PATTERNS_MAX: Final = 64


class LogColumn(NamedTuple):
    """A column to decode: what the table map says, and what its values mean. `character_set`: the server's name of it,
    "binary" for bytes. `type`: the database's own name of the type."""

    mapped: MappedColumn
    name: str
    kind: Kind
    type: str
    character_set: str
    is_unsigned: bool
    labels: tuple[str, ...]


class Decoders(NamedTuple):
    """Decoders of rows events of one table map. Both raise `MalformedLog`.

    `rows` gives the images of an insert or delete. `updates` gives the images after the change, and the old row where
    a key column differs, by index: key columns alone, the others ABSENT. Columns that an image does not have are
    ABSENT. `images` counts images, an update's two of a row counted apart.
    """

    rows: Callable[[RowsHead], list[WireRow]]
    updates: Callable[[RowsHead], tuple[list[WireRow], dict[int, WireRow]]]
    images: Callable[[RowsHead], int]


One = Callable[[bytes, int], tuple[WireRow, int]]


def compile_decoders(columns: Sequence[LogColumn], *, keys: tuple[int, ...], table: str) -> Decoders:
    """`keys`: indexes of the columns that make the row's key; `table` is for messages ("system crm, table orders").

    Raises `SourceUnready` for a column that cannot be read. Decoders are made for the columns that images have when
    the first such image comes: all of them, unless binlog_row_image is not FULL.
    """
    values = [_value(column, index, table) for index, column in enumerate(columns)]
    everything = frozenset(range(len(columns)))
    images: dict[tuple[bytes, frozenset[int]], _Image] = {}

    def image_of(present: bytes, wanted: frozenset[int]) -> _Image:
        found = images.get((present, wanted))
        if found is None:
            if len(present) != (len(columns) + 7) // 8:
                raise _refused(table)
            # A row without any column would take no bytes, and there would be no end of them.
            if not int.from_bytes(present, "little") & ((1 << len(columns)) - 1):
                raise _refused(table)
            found = images[present, wanted] = _Image(values, present, wanted)
        return found

    def rows(head: RowsHead) -> list[WireRow]:
        image = image_of(head.present, everything)
        try:
            found, at = image.rows(head.body, head.start, len(head.body))
        except (IndexError, KeyError, ValueError, OverflowError, struct.error) as error:
            raise _refused(table) from error
        if at != len(head.body):
            raise _refused(table)
        return found

    key_columns = frozenset(keys)

    def updates(head: RowsHead) -> tuple[list[WireRow], dict[int, WireRow]]:
        before = image_of(head.present, key_columns)
        after = image_of(head.present_after, everything)
        body, at, end = head.body, head.start, len(head.body)
        before_size, after_size = before.nulls_size, after.nulls_size
        before_ones, after_ones = before.ones, after.ones
        found: list[WireRow] = []
        old: dict[int, WireRow] = {}
        try:
            while at < end:
                one = before_ones.get(body[at : at + before_size]) or before.learn(body, at)
                was, at = one(body, at)
                one = after_ones.get(body[at : at + after_size]) or after.learn(body, at)
                row, at = one(body, at)
                for key in keys:
                    if row[key] != was[key]:
                        old[len(found)] = was
                        break
                found.append(row)
        except (IndexError, KeyError, ValueError, OverflowError, struct.error) as error:
            raise _refused(table) from error
        if at != end:
            raise _refused(table)
        return found, old

    nothing = frozenset[int]()

    def images_in(head: RowsHead) -> int:
        first, second = image_of(head.present, nothing), image_of(head.present_after, nothing)
        if first is second:
            image = first
            try:
                found, at = image.rows(head.body, head.start, len(head.body))
            except (IndexError, struct.error) as error:
                raise _refused(table) from error
            if at != len(head.body):
                raise _refused(table)
            return len(found)
        rows, _ = updates(head)
        return 2 * len(rows)

    return Decoders(rows, updates, images_in)


class _Value(NamedTuple):
    """How one column is read. `format`: its `struct` code, or that of the length before it, or those of its parts.

    `expression` makes the wire value of `{0}`, for a fixed column the first of its parts; `length` is empty for a
    fixed column, else the length in terms of the parts. Parts are `{0}`, `{1}` ….
    """

    format: str
    size: int
    parts: int
    expression: str
    length: str
    names: dict[str, Any]


class _Image:
    """Decoders of images with the same columns. `ones` are those of single rows, by the bitmap of nulls."""

    def __init__(self, values: list[_Value], present: bytes, wanted: frozenset[int]) -> None:
        self._values = values
        self._wanted = wanted
        self._places = [n for n in range(len(values)) if present[n >> 3] & (1 << (n & 7))]
        self.nulls_size = (len(self._places) + 7) // 8
        self.ones: dict[bytes, One] = {}
        self._general: One | None = None
        # The bits of the bitmap's last byte that stand for no column are ones (`pack_row` of rpl_record.cc).
        none = (1 << 8 * self.nulls_size) - (1 << len(self._places))
        self._no_nulls = none.to_bytes(self.nulls_size, "little")
        self.rows: Callable[[bytes, int, int], tuple[list[WireRow], int]] = self._make_rows()

    def learn(self, body: bytes, at: int) -> One:
        """A decoder for the row at `at`, whose pattern of nulls is new."""
        nulls = body[at : at + self.nulls_size]
        if len(nulls) != self.nulls_size:
            raise IndexError
        if len(self.ones) >= PATTERNS_MAX:
            if self._general is None:
                self._general = self._make_general()
            return self._general
        found = self.ones[nulls] = self._make_one(nulls)
        return found

    def _make_rows(self) -> Callable[[bytes, int, int], tuple[list[WireRow], int]]:
        writer = _Writer(self._values, self._wanted)
        size = self.nulls_size
        writer.lines += [
            "def rows(body, at, end):",
            "    found = []",
            "    add = found.append",
            "    while at < end:",
            f"        nulls = body[at:at + {size}]",
            "        if nulls == NO_NULLS:",
        ]
        writer.row(self._places, indent=12, skip=size)
        writer.lines += [
            f"            add({writer.tuple_of(self._places)})",
            "        else:",
            "            row, at = (ones.get(nulls) or learn(body, at))(body, at)",
            "            add(row)",
            "    return found, at",
        ]
        names = {"NO_NULLS": self._no_nulls, "ones": self.ones, "learn": self.learn}
        return _made(writer, names, "rows")

    def _make_one(self, nulls: bytes) -> One:
        places = [index for bit, index in enumerate(self._places) if not nulls[bit >> 3] & (1 << (bit & 7))]
        writer = _Writer(self._values, self._wanted)
        writer.lines.append("def one(body, at):")
        writer.row(places, indent=4, skip=self.nulls_size)
        missing = {index: "None" for index in self._places if index not in places}
        writer.lines.append(f"    return {writer.tuple_of(places, missing)}, at")
        return _made(writer, {}, "one")

    def _make_general(self) -> One:
        """Each column by itself, asking the bitmap."""
        writer = _Writer(self._values, self._wanted)
        writer.lines += [
            "def one(body, at):",
            f"    nulls = int.from_bytes(body[at:at + {self.nulls_size}], 'little')",
            f"    at += {self.nulls_size}",
        ]
        given: dict[int, str] = {}
        for bit, index in enumerate(self._places):
            writer.lines += [f"    if nulls & {1 << bit}: w{index} = None", "    else:"]
            writer.row([index], indent=8, skip=0)
            writer.lines.append(f"        w{index} = {writer.tuple_of([index])}[{index}]")
            given[index] = f"w{index}"
        writer.lines.append(f"    return {writer.tuple_of([], given)}, at")
        return _made(writer, {}, "one")


class _Writer:
    """Writes the source of one decoder."""

    def __init__(self, values: list[_Value], wanted: frozenset[int]) -> None:
        self._values = values
        self._wanted = wanted
        self.lines: list[str] = []
        self.names: dict[str, Any] = {"ABSENT": ABSENT}

    def row(self, places: Sequence[int], *, indent: int, skip: int) -> None:
        """Lines that read the columns `places`, none of which is null, and move `at` behind them. The row begins
        `skip` bytes behind `at`."""
        tab = " " * indent
        codes: list[str] = []
        parts: list[str] = []
        # Bytes between `at` and the first code, and bytes of the codes.
        size = 0

        def flush() -> None:
            nonlocal size, skip
            if parts:
                name = f"U{len(self.names)}"
                self.names[name] = struct.Struct("<" + "".join(codes)).unpack_from
                start = f"at + {skip}" if skip else "at"
                self.lines.append(f"{tab}{', '.join(parts)}, = {name}(body, {start})")
            if skip + size:
                self.lines.append(f"{tab}at += {skip + size}")
            codes.clear()
            parts.clear()
            size = skip = 0

        for index in places:
            value = self._values[index]
            self.names.update(value.names)
            named = [f"r{index}_{part}" for part in range(value.parts)]
            if not value.length:
                if index in self._wanted:
                    codes.append(value.format)
                    parts += named
                else:
                    codes.append(f"{value.size}x")
                size += value.size
                continue
            codes.append(value.format)
            parts += named
            size += value.size
            flush()
            length = value.length.format(*named)
            if index in self._wanted:
                self.lines += [f"{tab}end{index} = at + {length}", f"{tab}v{index} = body[at:end{index}]"]
                self.lines.append(f"{tab}at = end{index}")
            else:
                self.lines.append(f"{tab}at += {length}")
        flush()

    def tuple_of(self, places: Sequence[int], given: dict[int, str] | None = None) -> str:
        """The expression of the row: `places` as they were read, those `given`, and ABSENT for all else."""
        texts: list[str] = []
        for index, value in enumerate(self._values):
            if index not in self._wanted:
                texts.append("ABSENT")
            elif given and index in given:
                texts.append(given[index])
            elif index not in places:
                texts.append("ABSENT")
            elif value.length:
                texts.append(value.expression.format(f"v{index}"))
            else:
                texts.append(value.expression.format(*(f"r{index}_{part}" for part in range(value.parts))))
        return f"({', '.join(texts)},)" if texts else "()"


def _made(writer: _Writer, names: dict[str, Any], name: str) -> Any:
    namespace = {**writer.names, **names}
    exec(compile("\n".join(writer.lines), f"<decoder {name}>", "exec"), namespace)
    return namespace[name]


_DATES: Final = Remembered(date_text)
_PACKED_DATES: Final = Remembered(packed_date_text)
# Of these there are no more than so many: 17 bits, and the seconds of a day.
_PACKED_TIMES: Final = Remembered(packed_time_text, count_max=1 << 17)
_DAYS: Final = Remembered(day_text)
_SECONDS: Final = Remembered(second_text, count_max=86_400)
_FRACTIONS: Final = Remembered(fraction_text)
_TIMES: Final = Remembered(time_text)
_INTEGERS: Final = {1: ("b", 1), 2: ("h", 2), 3: ("i", 4), 8: ("q", 8)}


def _value(column: LogColumn, index: int, table: str) -> _Value:
    """How to read a column; the types are those of `enum_field_types` in MySQL's field_types.h."""
    mapped = column.mapped
    type, metadata = mapped.type, mapped.metadata
    if type in _INTEGERS:
        code, size = _INTEGERS[type]
        return _fixed(code.upper() if column.is_unsigned else code, size, "f'{{{0}}}'")
    if type == 9:
        return _Value("HB" if column.is_unsigned else "Hb", 3, 2, "f'{{{0} + ({1} << 16)}}'", "", {})
    if type == 13:
        return _fixed("B", 1, "year({0})", {"year": year_text})
    if type == 4:
        return _fixed("f", 4, "float_text({0})", {"float_text": float_text})
    if type == 5:
        return _fixed("d", 8, "double_text({0})", {"double_text": double_text})
    if type == 246:
        precision, scale = metadata & 0xFF, metadata >> 8
        if not 0 < precision <= 65 or scale > precision:
            raise _refused(table)
        size = decimal_size(precision, scale)
        return _fixed(f"{size}s", size, f"D{index}({{0}})", {f"D{index}": decimal_speller(precision, scale)})
    if type in (10, 17, 18, 19, 7, 11, 12):
        return _moment(type, metadata, table)
    if type == 16:
        return _bits(column, metadata)
    if type in (247, 248):
        return _named(column, index, metadata >> 8, table)
    return _variable(column, index, table)


def _fixed(code: str, size: int, expression: str, names: dict[str, Any] | None = None) -> _Value:
    return _Value(code, size, 1, expression, "", names or {})


def _moment(type: int, metadata: int, table: str) -> _Value:
    """Dates and times; `metadata` is the number of decimals of a second."""
    if type == 10:
        return _fixed("3s", 3, "DATES[{0}]", {"DATES": _DATES})
    if type == 7:
        return _fixed("I", 4, "instant({0}, '')", {"instant": instant_text})
    if type == 11:
        return _Value("Hb", 3, 2, "old_time({0} + ({1} << 16))", "", {"old_time": old_time_text})
    if type == 12:
        return _fixed("Q", 8, "old_datetime({0})", {"old_datetime": old_datetime_text})
    if metadata > 6:
        raise _refused(table)
    size = (metadata + 1) // 2
    if type == 19:
        return _fixed(f"{3 + size}s", 3 + size, "TIMES[{0}]", {"TIMES": _TIMES})
    names: dict[str, Any] = {"number": int.from_bytes, "FRACTIONS": _FRACTIONS}
    fraction = "{{FRACTIONS[{1}]}}" if size else ""
    code = f"{size}s" if size else ""
    if type == 18:
        names |= {"PACKED_DATES": _PACKED_DATES, "PACKED_TIMES": _PACKED_TIMES}
        text = 'f\'{{PACKED_DATES[(n := number({0}, "big")) >> 17]}} {{PACKED_TIMES[n & 131071]}}' + fraction + "'"
        return _Value("5s" + code, 5 + size, 1 + bool(size), text, "", names)
    names |= {"DAYS": _DAYS, "SECONDS": _SECONDS, "instant": instant_text}
    text = (
        "(f'{{DAYS[n // 86400]}} {{SECONDS[n % 86400]}}" + fraction + "+00' if (n := number({0}, 'big'))"
        " else instant(0, " + ("FRACTIONS[{1}]" if size else "''") + "))"
    )
    return _Value("4s" + code, 4 + size, 1 + bool(size), text, "", names)


def _bits(column: LogColumn, metadata: int) -> _Value:
    """BIT: bytes in the high byte, odd bits in the low one; big-endian."""
    size = (metadata >> 8) + (1 if metadata & 0xFF else 0)
    if column.kind is Kind.BOOLEAN:
        return _fixed("B", 1, "'ft'[{0}]") if size == 1 else _hexadecimal(size)
    return _hexadecimal(size)


def _hexadecimal(size: int) -> _Value:
    return _fixed(f"{size}s", size, "'\\\\x' + {0}.hex()")


def _named(column: LogColumn, index: int, size: int, table: str) -> _Value:
    """ENUM: the label's number from 1, 0 is an invalid value, written as the empty text. SET: a bit for each member."""
    if not column.labels:
        raise SourceUnready(
            f"{table}, column {column.name}: the log has numbers where the values have names",
            hint="Run: set global binlog_row_metadata = 'FULL';",
        )
    codes = {1: "B", 2: "H", 4: "I", 8: "Q"}
    if column.mapped.type == 247:
        if size not in (1, 2):
            raise _refused(table)
        return _fixed(codes[size], size, f"L{index}[{{0}}]", {f"L{index}": ("", *column.labels)})
    members = column.labels

    def spell(bits: int) -> str:
        if bits >> len(members):
            raise ValueError("a set with more members than it can have")
        return ",".join(member for n, member in enumerate(members) if bits >> n & 1)

    names: dict[str, Any] = {f"S{index}": Remembered(spell), "number": int.from_bytes}
    if not 0 < size <= 8:
        raise _refused(table)
    if size in codes:
        return _fixed(codes[size], size, f"S{index}[{{0}}]", names)
    return _fixed(f"{size}s", size, f"S{index}[number({{0}}, 'little')]", names)


def _variable(column: LogColumn, index: int, table: str) -> _Value:
    """Texts and bytes: a length, and as many bytes."""
    type, metadata = column.mapped.type, column.mapped.metadata
    expression, names = _spelling(column, index, table)
    if type in (15, 253, 254):
        length_max = metadata
        if type == 254:
            # Two bits of the length are folded into the byte of the type, inverted.
            first = metadata & 0xFF
            length_max = (metadata >> 8) | (((first & 0x30) ^ 0x30) << 4)
        if type == 254 and column.kind is Kind.BINARY:
            # The zeros at the end of BINARY are not sent.
            expression = f"'\\\\x' + {{0}}.ljust({length_max}, ZERO).hex()"
            names = {"ZERO": b"\0"}
        if length_max > 255:
            return _Value("H", 2, 1, expression, "{0}", names)
        return _Value("B", 1, 1, expression, "{0}", names)
    if type in (249, 250, 251, 252, 255) or (type == 245 and column.character_set not in ("", "binary")):
        codes = {1: ("B", 1, "{0}"), 2: ("H", 2, "{0}"), 3: ("HB", 2, "{0} + ({1} << 16)"), 4: ("I", 1, "{0}")}
        if metadata not in codes:
            raise _refused(table)
        code, _, length = codes[metadata]
        return _Value(code, metadata, len(code), expression, length, names)
    raise SourceUnready(
        f"{table}, column {column.name}: values of type {column.type} (number {type} in the log) cannot be read",
        hint="Take the table out of the mapping, or give the column another type.",
    )


def _spelling(column: LogColumn, index: int, table: str) -> tuple[str, dict[str, Any]]:
    if column.kind is Kind.UUID:
        return "uuid({0})", {"uuid": uuid_text}
    if column.type == "inet6":
        return "inet6({0})", {"inet6": inet6_text}
    if column.type == "inet4":
        return "inet4({0})", {"inet4": inet4_text}
    if column.kind is Kind.BINARY or column.character_set == "binary":
        return "'\\\\x' + {0}.hex()", {}
    if CHARACTER_SETS.get(column.character_set) == "utf-8":
        return "{0}.decode()", {}
    decode = text_decoder(column.character_set)
    if decode is None:
        raise SourceUnready(
            f"{table}, column {column.name}: texts in character set {column.character_set or 'unknown'} cannot be read",
            hint="Run: alter table … convert to character set utf8mb4;",
        )
    return f"C{index}({{0}})", {f"C{index}": decode}


def _refused(table: str) -> MalformedLog:
    return MalformedLog(
        f"{table}: a row of the binary log does not decode",
        hint="Report it with the server's version and the table's definition; the log position does not move past it.",
    )
