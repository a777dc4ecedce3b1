"""Row decoders made for one relation: generated source, one straight line per column.

Most of capture's time is spent here. Two facts make it fast. In a tuple a column is `t`, four bytes of length, text;
and text from PostgreSQL never holds a NUL. So the four characters "t\\0\\0\\0" stand before every column that is there
and is shorter than 256 bytes, and nowhere else, whatever users have written into the columns: one `split` finds them
all, and the first byte of each piece is the length. Where there is a piece for every column, nothing else need be
looked at but the end of the last piece, which has no separator behind it. In the other rows the nulls stand as `n`
behind a piece. Tables have few patterns of nulls, so there is a function for each pattern met lately, which looks at
the ends of the pieces that its nulls stand behind. What is left (long or absent values, other alphabets with nulls)
goes the general way, column by column; that way alone knows the whole layout, and teaches the others.

Many rows at once go faster still. MessagePack's short text is a byte 0xd9, one byte of length, text: put that byte in
the place of every separator and an array's header in the place of every tuple's, and the rows are one MessagePack
document, which msgspec decodes in one step. It takes nothing but as many texts as there are columns, in UTF-8, and
there must be a separator for each of them. Between two rows stands MessagePack's null, a byte that no UTF-8 holds, so
that no row can borrow from its neighbour or hide one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple, cast

import msgspec

from engine.errors import MalformedLog
from engine.model.value import ABSENT, WireRow
from plugins.postgres.decode import malformed

_SEPARATOR: Final = "t\0\0\0"

# A table with more patterns of nulls than this gains nothing from knowing them, and would keep compiling.
PATTERNS_MAX: Final = 64

# Rows that become one document: enough that each costs little, and few enough that the document stays in the cache.
MANY_ROWS: Final = 250
FEW_ROWS: Final = 8
# Wider rows than this gain nothing, and would be copied several times.
WIDE_BYTES: Final = 4_096

General = Callable[[bytes, int], tuple[WireRow, int]]


class Decoders(NamedTuple):
    """Decoders of one relation's messages (without the xid of streamed ones). Each raises `MalformedLog`.

    `insert` gives the new row of an 'I', or of a 'U' that brings no old tuple. `update` gives (new row, old row or
    None); the old row only where key columns differ. `delete` gives the old row, of which the columns that were
    not sent are ABSENT. `inserts` is `insert` for many, in order, all of which have `head` behind the relation's id: a
    new tuple of as many columns.
    """

    head: bytes

    insert: Callable[[bytes], WireRow]
    update: Callable[[bytes], tuple[WireRow, WireRow | None]]
    delete: Callable[[bytes], WireRow]
    inserts: Callable[[list[bytes]], list[WireRow]]


def compile_decoders(column_count: int, *, identity: tuple[int, ...] = (), keys: tuple[int, ...] = ()) -> Decoders:
    """`identity`: indexes of the columns of the replica identity; `keys`: those of them that make the row's key."""
    general = _compile_general(column_count)
    insert = _compile_insert(column_count, general)
    is_key = [index in identity for index in range(column_count)]

    def key_only(row: WireRow) -> WireRow:
        # Columns outside the identity come as nulls in a key tuple, and are none.
        return tuple(value if kept else ABSENT for value, kept in zip(row, is_key, strict=True))

    def update(message: bytes) -> tuple[WireRow, WireRow | None]:
        try:
            image = message[5]
            if image == 78:  # N
                return insert(message), None
            if image not in (75, 79):  # K, O
                raise malformed("update", message)
            old, at = general(message, 6)
            if message[at] != 78:
                raise malformed("update", message)
            new, end = general(message, at + 1)
        except IndexError as error:
            raise malformed("update", message) from error
        if end != len(message):
            raise malformed("update", message)
        if image == 75:
            old = key_only(old)
        if ABSENT in new:
            # What did not change is the same in the old row, if that was sent.
            new = tuple(o if n is ABSENT else n for n, o in zip(new, old, strict=True))
        return new, old if any(old[k] != new[k] for k in keys) else None

    def delete(message: bytes) -> WireRow:
        try:
            image = message[5]
            row, end = general(message, 6)
        except IndexError as error:
            raise malformed("delete", message) from error
        if end != len(message) or image not in (75, 79):
            raise malformed("delete", message)
        return key_only(row) if image == 75 else row

    head = b"N" + column_count.to_bytes(2, "big")
    return Decoders(head, insert, update, delete, _compile_inserts(column_count, insert))


def _compile_insert(count: int, general: General) -> Callable[[bytes], WireRow]:
    """An 'I' message, or a 'U' without an old tuple: header, 'N', column count, columns from byte 8."""
    if not count:
        return lambda message: _general_insert(message, general)
    names = [f"v{index}" for index in range(count)]
    listed, last = ", ".join(names), names[-1]
    source = f"""
def insert(message):
    new = message[5:]
    if new.isascii():
        pieces = new.decode().split(SEPARATOR)
        found = len(pieces)
        if found == {count + 1}:
            head, {listed} = pieces
            if head == HEAD and {last} and ord({last}[0]) == len({last}) - 1:
                return ({", ".join(f"{name}[1:]" for name in names)},)
        elif (known := by_count.get(found)) is not None and (row := known(pieces)) is not None:
            return row
    else:
        pieces = new.split(BYTES_SEPARATOR)
        if len(pieces) == {count + 1}:
            head, {listed} = pieces
            if head == BYTES_HEAD and {last} and {last}[0] == len({last}) - 1:
                try:
                    return ({", ".join(f"{name}[1:].decode()" for name in names)},)
                except UnicodeDecodeError as error:
                    raise not_utf8(message) from error
        found = 0
    row = general_insert(message, general)
    if found + row.count(None) == {count + 1}:
        learn(row, by_count)
    return row
"""
    head = b"N" + count.to_bytes(2, "big")
    by_pattern: dict[tuple[bool, ...], Callable[[list[str]], WireRow | None]] = {}

    def learn(row: WireRow, by_count: dict[int, Callable[[list[str]], WireRow | None]]) -> None:
        pattern = tuple(value is None for value in row)
        known = by_pattern.get(pattern)
        if known is None:
            if len(by_pattern) >= PATTERNS_MAX:
                return
            known = by_pattern[pattern] = _compile_pattern(pattern, head.decode("latin-1"))
        by_count[1 + pattern.count(False)] = known

    namespace: dict[str, Any] = {
        "SEPARATOR": _SEPARATOR,
        "BYTES_SEPARATOR": _SEPARATOR.encode(),
        "HEAD": head.decode("latin-1"),
        "BYTES_HEAD": head,
        "general": general,
        "general_insert": _general_insert,
        "by_count": {},
        "learn": learn,
        "not_utf8": _not_utf8,
    }
    return _made(source, namespace, "insert")


def _compile_inserts(count: int, insert: Callable[[bytes], WireRow]) -> Callable[[list[bytes]], list[WireRow]]:
    """`insert` for many messages: as MessagePack where all rows are short texts, else one by one."""
    array = bytes([0x90 | count]) if count < 16 else b"\xdc" + count.to_bytes(2, "big")
    between = b"\xc0" + array
    separator = _SEPARATOR.encode()
    row_type: Any = tuple.__class_getitem__((str,) * count)
    decode: Callable[[bytes], list[WireRow | None]] = msgspec.msgpack.Decoder(list[row_type | None]).decode
    # Where one row in a few hundred has a null, most documents have: then it is not worth the attempt, mostly.
    to_skip = skipped = 0

    def inserts(messages: list[bytes]) -> list[WireRow]:
        nonlocal to_skip, skipped
        rows: list[WireRow] = []
        for start in range(0, len(messages), MANY_ROWS):
            some = messages[start : start + MANY_ROWS]
            if skipped < to_skip or len(some) < FEW_ROWS:
                skipped += len(some) >= FEW_ROWS
                rows.extend(map(insert, some))
                continue
            found = _document_rows(some)
            skipped = 0
            if found is None:
                to_skip = min(2 * to_skip + 1, 63)
                rows.extend(map(insert, some))
            else:
                to_skip = 0
                rows.extend(found)
        return rows

    def _document_rows(messages: list[bytes]) -> list[WireRow] | None:
        size = len(messages)
        if sum(map(len, messages)) > size * WIDE_BYTES:
            return None
        joined = between.join([message[8:] for message in messages])
        texts = joined.replace(separator, b"\xd9")
        if len(joined) - len(texts) != size * count * (len(separator) - 1):
            return None
        try:
            decoded = decode(b"".join((b"\xdd", (2 * size - 1).to_bytes(4, "big"), array, texts)))
        except (msgspec.DecodeError, UnicodeDecodeError):
            # The one that is at fault is found one by one, and told.
            return None
        # The first of a message is a row, whatever comes behind it; so these are rows when those are not.
        return cast("list[WireRow]", decoded[::2]) if decoded[1::2].count(None) == size - 1 else None

    return inserts


def _compile_pattern(pattern: tuple[bool, ...], head: str) -> Callable[[list[str]], WireRow | None]:
    """A row whose nulls stand exactly where `pattern` is true, from its pieces; None when they do not.

    The pieces are as many as the columns that are there, so each column is a piece or a null. Those that should end in
    nulls are looked at; if they do, all nulls are accounted for and no other piece can end in one.
    """
    names = [f"v{index}" for index, is_null in enumerate(pattern) if not is_null]
    ends: dict[str, int] = {"head": 0}
    owner = "head"
    values: list[str] = []
    for index, is_null in enumerate(pattern):
        if is_null:
            ends[owner] += 1
            values.append("None")
            continue
        owner = f"v{index}"
        ends[owner] = 0
        values.append(owner)
    lines = [f"def decode(pieces):\n    {', '.join(['head', *names])}, = pieces"]
    lines.append(f"    if head != {head + 'n' * ends['head']!r}: return None")
    for name in names:
        if (nulls := ends[name]) or name == names[-1]:
            lines.append(f"    if not {name} or ord({name}[0]) != len({name}) - {1 + nulls}: return None")
        if nulls:
            lines.append(f"    if not {name}.endswith({'n' * nulls!r}): return None")
            values[int(name[1:])] = f"{name}[1:-{nulls}]"
        else:
            values[int(name[1:])] = f"{name}[1:]"
    lines.append(f"    return ({', '.join(values)},)")
    return _made("\n".join(lines), {}, "decode")


def _general_insert(message: bytes, general: General) -> WireRow:
    try:
        is_new = message[5] == 78
        row, end = general(message, 6)
    except IndexError as error:
        raise malformed("insert", message) from error
    if end != len(message) or not is_new:
        raise malformed("insert", message)
    return row


def _compile_general(count: int) -> General:
    """Decodes a tuple (column count, columns) at a place; gives it and where it ends. May raise IndexError."""
    lines = [
        "def general(message, at):",
        f"    if message[at:at + 2] != {count.to_bytes(2, 'big')!r}: raise malformed('tuple', message)",
        "    at += 2",
        "    try:",
    ]
    for index in range(count):
        lines += [
            "        kind = message[at]",
            "        if kind == 116:",
            "            end = at + 5 + (message[at + 4] if message[at + 1:at + 4] == ZEROS else long(message, at))",
            f"            v{index} = message[at + 5:end].decode()",
            "            at = end",
            "        elif kind == 110:",
            f"            v{index} = None",
            "            at += 1",
            "        elif kind == 117:",
            f"            v{index} = ABSENT",
            "            at += 1",
            "        else: raise malformed('tuple', message)",
        ]
    lines += [
        "        pass",
        "    except UnicodeDecodeError as error: raise not_utf8(message) from error",
        "    if at > len(message): raise malformed('tuple', message)",
        f"    return ({''.join(f'v{index}, ' for index in range(count))}), at",
    ]
    namespace: dict[str, Any] = {
        "ABSENT": ABSENT,
        "ZEROS": b"\0\0\0",
        "long": _long,
        "malformed": malformed,
        "not_utf8": _not_utf8,
    }
    return _made("\n".join(lines), namespace, "general")


def _long(message: bytes, at: int) -> int:
    return int.from_bytes(message[at + 1 : at + 5], "big")


def _not_utf8(message: bytes) -> MalformedLog:
    refusal = malformed("row", message)
    refusal.message = "a row holds bytes that are no UTF-8"
    refusal.hint = "Run `concord check`: the database's encoding is probably SQL_ASCII, which promises nothing."
    return refusal


def _made(source: str, namespace: dict[str, Any], name: str) -> Any:
    exec(compile(source, f"<decoder {name}>", "exec"), namespace)
    return namespace[name]
