"""Events of a binary log, all but the rows: bytes in, values out, no I/O.

The layouts are those of the MariaDB knowledge base, "Replication Protocol", and of MySQL's source documentation,
"Binlog Event" (libbinlogevents). An event is a header of 19 bytes, a body and, where the log has them, a checksum of
four bytes. All integers are little-endian. Rows are decoded by functions made for each table map, see `compile.py`.

Any bytes decode or are refused with `MalformedLog`.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Final, NamedTuple

from engine.errors import MalformedLog

HEADER_SIZE: Final = 19
CHECKSUM_SIZE: Final = 4

QUERY: Final = 2
ROTATE: Final = 4
FORMAT_DESCRIPTION: Final = 15
XID: Final = 16
TABLE_MAP: Final = 19
HEARTBEAT: Final = 27
GTID_MYSQL: Final = 33
ANONYMOUS_GTID: Final = 34
XA_PREPARE: Final = 38
PARTIAL_UPDATE: Final = 39
TRANSACTION_PAYLOAD: Final = 40
HEARTBEAT_2: Final = 41
GTID_TAGGED: Final = 42
GTID_MARIADB: Final = 162
GTID_LIST: Final = 163
START_ENCRYPTION: Final = 164
QUERY_COMPRESSED: Final = 165

WRITE_ROWS: Final = frozenset((23, 30, 166, 169))
UPDATE_ROWS: Final = frozenset((24, 31, 167, 170))
DELETE_ROWS: Final = frozenset((25, 32, 168, 171))
ROWS: Final = WRITE_ROWS | UPDATE_ROWS | DELETE_ROWS
_ROWS_COMPRESSED: Final = frozenset(range(166, 172))
# Version 2 of a rows event has a block of extra bytes behind its flags.
_ROWS_WITH_EXTRA: Final = frozenset((30, 31, 32, 169, 170, 171))

# The server made this event for its reader; the log's file does not hold it (LOG_EVENT_ARTIFICIAL_F).
ARTIFICIAL: Final = 0x20

# Flags of a MariaDB GTID event.
STANDALONE: Final = 0x01
PREPARED_XA: Final = 0x40
COMPLETED_XA: Final = 0x80

# A rows event is at most as large as max_allowed_packet, whose greatest value is one gibibyte.
INFLATED_SIZE_MAX: Final = 1 << 30

_HEADER: Final = struct.Struct("<IBIIIH")
_ROTATE: Final = struct.Struct("<Q")
_GTID_MARIADB: Final = struct.Struct("<QIB")
_GTID_MYSQL: Final = struct.Struct("<B16sq")
_QUERY: Final = struct.Struct("<IIBHH")
_XID: Final = struct.Struct("<Q")


class Header(NamedTuple):
    """An event's header. `time`: seconds since 1970 UTC. `end`: offset behind the event in its file; 0 when it stands
    in none. `size` counts header and checksum."""

    time: int
    kind: int
    server_id: int
    size: int
    end: int
    flags: int


class Gtid(NamedTuple):
    """A MariaDB transaction's name and flags."""

    domain: int
    server_id: int
    sequence: int
    flags: int

    def __str__(self) -> str:
        return f"{self.domain}-{self.server_id}-{self.sequence}"


class Query(NamedTuple):
    """A statement, and the database that was the default one when it ran."""

    schema: str
    text: str


class RowsHead(NamedTuple):
    """What stands before the rows. `present` and `present_after` are bitmaps of the columns that the images have, bit
    n of byte n // 8; the second is an update's image after the change, else the same. Rows begin at `start` of `body`.
    """

    table_id: int
    present: bytes
    present_after: bytes
    body: bytes
    start: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MappedColumn:
    """A column of a table map. `metadata` are the type's own bytes as a number, little-endian.

    The rest is None or empty where the server does not send it (binlog_row_metadata is not FULL). `collation` is the
    server's number of it; 63 is binary.
    """

    type: int
    metadata: int
    is_unsigned: bool | None = None
    name: str | None = None
    collation: int | None = None
    labels: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TableMap:
    """The table that rows events with the same `table_id` are about. `key`: indexes of the primary key's columns,
    empty where it is not sent."""

    table_id: int
    schema: str
    table: str
    columns: tuple[MappedColumn, ...]
    key: tuple[int, ...] = ()


def decode_header(event: bytes) -> Header:
    """Decode the header; `event` is the whole event, with its checksum where there is one."""
    if len(event) < HEADER_SIZE:
        raise malformed("short", event)
    header = Header._make(_HEADER.unpack_from(event))
    if header.size != len(event):
        raise malformed("cut", event)
    return header


def checked_body(event: bytes, *, has_checksum: bool) -> bytes:
    """The event's body, after its checksum has been compared. Raises `MalformedLog` when it differs."""
    if not has_checksum:
        return event[HEADER_SIZE:]
    end = len(event) - CHECKSUM_SIZE
    if end < HEADER_SIZE:
        raise malformed("short", event)
    if zlib.crc32(event[:end]) != int.from_bytes(event[end:], "little"):
        refusal = malformed("damaged", event)
        refusal.message = "an event of the binary log does not have the checksum that it was written with"
        refusal.hint = "Look for damage on the server's disk and for a proxy in between; then run the daemon again."
        raise refusal
    return event[HEADER_SIZE:end]


def decode_format(event: bytes) -> bool:
    """Decode a format description: whether the events behind it have checksums.

    The body is: version 2 bytes, server version 50, time 4, header length 1, a length for each kind of event, and since
    MySQL 5.6 and MariaDB 5.3 the checksum's algorithm (0 none, 1 CRC32) and a checksum of its own, even where the
    algorithm is none.
    """
    if len(event) < HEADER_SIZE + 57 + CHECKSUM_SIZE + 1 or int.from_bytes(event[19:21], "little") != 4:
        raise malformed("format description", event)
    if event[HEADER_SIZE + 56] != HEADER_SIZE:
        raise malformed("format description", event)
    algorithm = event[-CHECKSUM_SIZE - 1]
    if algorithm not in (0, 1):
        raise malformed("format description", event)
    if algorithm:
        checked_body(event, has_checksum=True)
    return algorithm == 1


def decode_rotate(body: bytes) -> tuple[str, int]:
    """Decode a rotation: the next file's name and the offset to go on at."""
    if len(body) < 9:
        raise malformed("rotation", body)
    return _text(body[8:]), _ROTATE.unpack_from(body)[0]


def decode_gtid(body: bytes, server_id: int) -> Gtid:
    """Decode a MariaDB GTID; the server's id stands in the event's header."""
    if len(body) < _GTID_MARIADB.size:
        raise malformed("GTID", body)
    sequence, domain, flags = _GTID_MARIADB.unpack_from(body)
    return Gtid(domain, server_id, sequence, flags)


def decode_gtid_list(body: bytes) -> tuple[Gtid, ...]:
    """Decode the GTIDs that stand before a file's beginning: count 4 bytes (28 bits), then domain, server, sequence."""
    count = int.from_bytes(body[:4], "little") & 0x0FFFFFFF
    if len(body) < 4 or len(body) < 4 + 16 * count:
        raise malformed("GTID list", body)
    found = struct.iter_unpack("<IIQ", body[4 : 4 + 16 * count])
    return tuple(Gtid(domain, server_id, sequence, 0) for domain, server_id, sequence in found)


def decode_gtid_mysql(body: bytes) -> tuple[str, int]:
    """Decode a MySQL GTID: `uuid:number`, and the commit time in microseconds since 1970 UTC, 0 when not sent.

    Behind flags, uuid and number stand a byte 2, two numbers of the logical clock, and seven bytes of time whose
    highest bit says that another time, of the first server, follows.
    """
    if len(body) < _GTID_MYSQL.size:
        raise malformed("GTID", body)
    _, uuid, number = _GTID_MYSQL.unpack_from(body)
    at = _GTID_MYSQL.size + 17
    time = int.from_bytes(body[at : at + 7], "little") & ~(1 << 55) if len(body) >= at + 7 and body[25] == 2 else 0
    text = uuid.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}:{number}", time


def decode_query(kind: int, body: bytes) -> Query:
    """Decode a statement."""
    if len(body) < _QUERY.size:
        raise malformed("statement", body)
    _, _, schema_size, _, status_size = _QUERY.unpack_from(body)
    at = _QUERY.size + status_size
    end = at + schema_size
    if len(body) < end + 1 or body[end]:
        raise malformed("statement", body)
    text = body[end + 1 :]
    if kind == QUERY_COMPRESSED:
        text = _inflated(text)
    return Query(_text(body[at:end]), text.decode("utf-8", "replace"))


def decode_xid(body: bytes) -> int:
    """Decode the end of a transaction: the number that its engine gave it."""
    if len(body) < _XID.size:
        raise malformed("commit", body)
    return _XID.unpack_from(body)[0]


def table_id_of(body: bytes) -> int:
    """The table id that a table map or rows event begins with."""
    if len(body) < 8:
        raise malformed("rows", body)
    return int.from_bytes(body[:6], "little")


def decode_rows_head(kind: int, body: bytes) -> RowsHead:
    """Decode what stands before the rows of a rows event; MariaDB's compressed ones are inflated."""
    table_id = table_id_of(body)
    at = 8
    if kind in _ROWS_WITH_EXTRA:
        extra = int.from_bytes(body[8:10], "little")
        if extra < 2:
            raise malformed("rows", body)
        at += extra
    try:
        width, at = _number(body, at)
        size = (width + 7) // 8
        present = present_after = body[at : at + size]
        at += size
        if kind in UPDATE_ROWS:
            present_after = body[at : at + size]
            at += size
    except IndexError as error:
        raise malformed("rows", body) from error
    if at > len(body):
        raise malformed("rows", body)
    if kind in _ROWS_COMPRESSED:
        body, at = _inflated(body[at:]), 0
    return RowsHead(table_id, present, present_after, body, at)


def table_map_names(body: bytes) -> tuple[str, str]:
    """Database and table of a table map, and nothing more of it."""
    try:
        end = 9 + body[8]
        table_end = end + 2 + body[end + 1]
        if body[end] or body[table_end]:
            raise malformed("table map", body)
        return _text(body[9:end]), _text(body[end + 2 : table_end])
    except IndexError as error:
        raise malformed("table map", body) from error


def decode_table_map(body: bytes, *, is_mariadb: bool) -> TableMap:
    """Decode a table map: id, names, the columns' types and what their metadata tells.

    MariaDB counts YEAR among the numbers that may be unsigned and GEOMETRY among the columns with a character set,
    MySQL does not (`Field::binlog_type_info` there, `is_numeric_type` and `is_character_type` here).
    """
    table_id = table_id_of(body)
    schema, table = table_map_names(body)
    try:
        at = 9 + body[8] + 1
        at += 1 + body[at] + 1
        count, at = _number(body, at)
        types = body[at : at + count]
        at += count
        size, at = _number(body, at)
        metadata = body[at : at + size]
        # Behind the metadata stands a bitmap of the columns that may be null, which is of no use here.
        at += size + (count + 7) // 8
        if at > len(body) or len(metadata) != size:
            raise malformed("table map", body)
        numbers = _metadata(types, metadata, body)
        real = [real_type(type, number) for type, number in zip(types, numbers, strict=True)]
        told = _optional(real, body, at, is_mariadb=is_mariadb)
    except (IndexError, ValueError) as error:
        raise malformed("table map", body) from error
    columns = tuple(
        MappedColumn(
            type=type,
            metadata=numbers[index],
            is_unsigned=told.unsigned.get(index),
            name=told.names.get(index),
            collation=told.collations.get(index),
            labels=told.labels.get(index, ()),
        )
        for index, type in enumerate(real)
    )
    key = tuple(index for index in told.key if index < count)
    return TableMap(table_id=table_id, schema=schema, table=table, columns=columns, key=key)


def malformed(what: str, found: bytes) -> MalformedLog:
    """The refusal of bytes; tells their count, never their contents."""
    return MalformedLog(
        f"a {what} event of the binary log, {len(found)} bytes, does not decode",
        hint="Report it with the server's version; the log position does not move past it.",
    )


# Bytes of metadata by type: FLOAT, DOUBLE, TIMESTAMP2, DATETIME2, TIME2, JSON, the blobs, GEOMETRY, MariaDB's
# compressed BLOB have one; VARCHAR, BIT, NEWDECIMAL, ENUM, SET, VAR_STRING, STRING, compressed VARCHAR two.
_METADATA_SIZES: Final[dict[int, int]] = {
    **dict.fromkeys((4, 5, 17, 18, 19, 140, 245, 249, 250, 251, 252, 255), 1),
    **dict.fromkeys((15, 16, 141, 246, 247, 248, 253, 254), 2),
}
_NUMBERS: Final = frozenset((1, 2, 3, 4, 5, 8, 9, 246))
_CHARACTERS: Final = frozenset((15, 140, 141, 249, 250, 251, 252, 253, 254))


@dataclass(slots=True)
class _Optional:
    """What the optional metadata tells, by column."""

    unsigned: dict[int, bool]
    names: dict[int, str]
    collations: dict[int, int]
    labels: dict[int, tuple[bytes, ...]]
    key: tuple[int, ...] = ()


def real_type(type: int, metadata: int) -> int:
    """The type of a column's values: ENUM and SET hide behind STRING, whose metadata begins with the true one.

    For a STRING two bits of the length are folded into that byte, inverted (`Field_string::save_field_metadata`).
    """
    if type == 254:
        first = metadata & 0xFF
        return first if first in (247, 248) else 254
    return type


def _metadata(types: bytes, metadata: bytes, body: bytes) -> list[int]:
    found: list[int] = []
    at: int = 0
    for type in types:
        size = _METADATA_SIZES.get(type, 0)
        if at + size > len(metadata):
            raise malformed("table map", body)
        found.append(int.from_bytes(metadata[at : at + size], "little"))
        at += size
    return found


def _optional(types: list[int], body: bytes, at: int, *, is_mariadb: bool) -> _Optional:
    """The optional metadata: blocks of type 1 byte, length, and as many bytes."""
    numbers = [n for n, type in enumerate(types) if type in _NUMBERS or (type == 13 and is_mariadb)]
    characters = [n for n, type in enumerate(types) if type in _CHARACTERS or (type == 255 and is_mariadb)]
    enums = [n for n, type in enumerate(types) if type == 247]
    sets = [n for n, type in enumerate(types) if type == 248]
    both = [n for n, type in enumerate(types) if type in (247, 248)]
    found = _Optional({}, {}, {}, {})
    while at < len(body):
        kind = body[at]
        size, at = _number(body, at + 1)
        block = body[at : at + size]
        at += size
        if len(block) != size:
            raise malformed("table map", body)
        if kind == 1:
            for place, index in enumerate(numbers):
                found.unsigned[index] = bool(block[place >> 3] & (0x80 >> (place & 7)))
        elif kind in (2, 10):
            places = characters if kind == 2 else both
            default, *pairs = _numbers(block)
            found.collations.update(dict.fromkeys(places, default))
            for place, collation in zip(pairs[::2], pairs[1::2], strict=False):
                found.collations[places[place]] = collation
        elif kind in (3, 11):
            places = characters if kind == 3 else both
            found.collations.update(zip(places, _numbers(block), strict=False))
        elif kind == 4:
            found.names.update(enumerate(_text(text) for text in _texts(block)))
        elif kind in (5, 6):
            place = 0
            for index in sets if kind == 5 else enums:
                count, place = _number(block, place)
                labels: list[bytes] = []
                for _ in range(count):
                    length, place = _number(block, place)
                    labels.append(block[place : place + length])
                    place += length
                    if place > len(block):
                        raise malformed("table map", body)
                found.labels[index] = tuple(labels)
        elif kind == 8:
            found.key = tuple(_numbers(block))
        elif kind == 9:
            found.key = tuple(_numbers(block)[::2])
    return found


def _numbers(block: bytes) -> list[int]:
    found: list[int] = []
    at = 0
    while at < len(block):
        number, at = _number(block, at)
        found.append(number)
    return found


def _texts(block: bytes) -> list[bytes]:
    found: list[bytes] = []
    at = 0
    while at < len(block):
        size, at = _number(block, at)
        if at + size > len(block):
            raise IndexError
        found.append(block[at : at + size])
        at += size
    return found


def _number(body: bytes, at: int) -> tuple[int, int]:
    """A length-encoded integer and where it ends; raises IndexError when it is cut."""
    first = body[at]
    if first < 251:
        return first, at + 1
    size = {252: 2, 253: 3, 254: 8}.get(first)
    if size is None or at + 1 + size > len(body):
        raise IndexError
    return int.from_bytes(body[at + 1 : at + 1 + size], "little"), at + 1 + size


def _inflated(block: bytes) -> bytes:
    """MariaDB's compressed bytes: one byte of 0x80, algorithm (0: zlib) and length's size; that length; zlib.

    See `binlog_buf_uncompress` in sql/log_event.cc.
    """
    if not block or block[0] & 0xF0 != 0x80 or not 0 < block[0] & 0x07 <= 4:
        raise malformed("compressed", block)
    start = 1 + (block[0] & 0x07)
    size = int.from_bytes(block[1:start], "big")
    if len(block) < start or size > INFLATED_SIZE_MAX:
        raise malformed("compressed", block)
    inflater = zlib.decompressobj()
    try:
        found = inflater.decompress(block[start:], size + 1)
    except zlib.error as error:
        raise malformed("compressed", block) from error
    if len(found) != size:
        raise malformed("compressed", block)
    return found


def _text(text: bytes) -> str:
    # Names are UTF-8 in the log whatever the session's character set is.
    return text.decode("utf-8", "replace")
