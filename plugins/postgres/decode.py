"""pgoutput messages, all but the rows: bytes in, values out, no I/O.

The layouts are those of PostgreSQL's manual, "Logical Replication Message Formats", protocol version 2. Rows are
decoded by functions made for each relation, see `compile.py`. Inside a streamed transaction some messages carry the
id of their (sub)transaction behind the type byte; `spool.py` takes it out, so here a message has one form only.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from engine.errors import MalformedLog
from plugins.postgres.position import EPOCH_MICROSECONDS

BEGIN: Final = ord("B")
COMMIT: Final = ord("C")
RELATION: Final = ord("R")
INSERT: Final = ord("I")
UPDATE: Final = ord("U")
DELETE: Final = ord("D")
TRUNCATE: Final = ord("T")
TYPE: Final = ord("Y")
ORIGIN: Final = ord("O")
MESSAGE: Final = ord("M")
STREAM_START: Final = ord("S")
STREAM_STOP: Final = ord("E")
STREAM_COMMIT: Final = ord("c")
STREAM_ABORT: Final = ord("A")

_BEGIN: Final = struct.Struct(">xQq4s")
_COMMIT: Final = struct.Struct(">xBQQq")
_STREAM_COMMIT: Final = struct.Struct(">x4sBQQq")
_STREAM_START: Final = struct.Struct(">x4sB")
_STREAM_ABORT: Final = struct.Struct(">x4s4s")
_COLUMN_TAIL: Final = struct.Struct(">Ii")


class Begin(NamedTuple):
    """`final_lsn`: start of the commit record. `time`: microseconds since 1970 UTC. `xid`: 4 bytes, big-endian."""

    final_lsn: int
    time: int
    xid: bytes


class StreamCommit(NamedTuple):
    """The end of a streamed transaction; `begin` as for one that was not."""

    begin: Begin
    end_lsn: int


class RelationColumn(NamedTuple):
    """`is_key`: part of the replica identity."""

    name: str
    type_id: int
    type_modifier: int
    is_key: bool


class RelationMessage(NamedTuple):
    """What the walsender says of a table before its first row.

    `identity`: "d" the primary key, "i" an index, "f" the full row, "n" nothing.
    """

    id: bytes
    schema: str
    table: str
    identity: str
    columns: tuple[RelationColumn, ...]


class Truncate(NamedTuple):
    relations: tuple[bytes, ...]


def decode_begin(message: bytes) -> Begin:
    """Decode a 'B' message of 21 bytes. Raises `MalformedLog`."""
    try:
        final_lsn, time, xid = _BEGIN.unpack(message)
    except struct.error as error:
        raise malformed("begin", message) from error
    return Begin(final_lsn, time + EPOCH_MICROSECONDS, xid)


def decode_commit(message: bytes) -> int:
    """The end of the commit record, which a 'C' message of 26 bytes tells. Raises `MalformedLog`."""
    try:
        return _COMMIT.unpack(message)[2]
    except struct.error as error:
        raise malformed("commit", message) from error


def decode_stream_start(message: bytes) -> tuple[bytes, bool]:
    """(xid, whether this is the transaction's first block). Raises `MalformedLog`."""
    try:
        xid, first = _STREAM_START.unpack(message)
    except struct.error as error:
        raise malformed("stream start", message) from error
    return xid, first == 1


def decode_stream_commit(message: bytes) -> StreamCommit:
    """Decode a 'c' message. Raises `MalformedLog`."""
    try:
        xid, _, final_lsn, end_lsn, time = _STREAM_COMMIT.unpack(message)
    except struct.error as error:
        raise malformed("stream commit", message) from error
    return StreamCommit(Begin(final_lsn, time + EPOCH_MICROSECONDS, xid), end_lsn)


def decode_stream_abort(message: bytes) -> tuple[bytes, bytes]:
    """(xid, subxid); the same twice when all of the transaction is undone. Raises `MalformedLog`."""
    try:
        return _STREAM_ABORT.unpack(message)
    except struct.error as error:
        raise malformed("stream abort", message) from error


def decode_relation(message: bytes) -> RelationMessage:
    """Decode an 'R' message. Raises `MalformedLog`."""
    try:
        schema, at = _text(message, 5)
        table, at = _text(message, at)
        identity = chr(message[at])
        count = int.from_bytes(message[at + 1 : at + 3], "big")
        at += 3
        columns: list[RelationColumn] = []
        for _ in range(count):
            flags = message[at]
            name, at = _text(message, at + 1)
            type_id, modifier = _COLUMN_TAIL.unpack_from(message, at)
            at += 8
            columns.append(RelationColumn(name, type_id, modifier, bool(flags & 1)))
    except (IndexError, ValueError, struct.error) as error:
        raise malformed("relation", message) from error
    if at != len(message):
        raise malformed("relation", message)
    # pg_catalog is sent as an empty name.
    return RelationMessage(message[1:5], schema or "pg_catalog", table, identity, tuple(columns))


def decode_truncate(message: bytes) -> Truncate:
    """Decode a 'T' message. Raises `MalformedLog`."""
    count = int.from_bytes(message[1:5], "big")
    if len(message) != 6 + 4 * count:
        raise malformed("truncate", message)
    return Truncate(tuple(message[at : at + 4] for at in range(6, len(message), 4)))


def malformed(kind: str, message: bytes) -> MalformedLog:
    """The refusal of a message; says its type and length, never its bytes."""
    first = chr(message[0]) if message and 32 <= message[0] < 127 else "?"
    return MalformedLog(
        f"a {kind} message ({first!r}, {len(message)} bytes) is not laid out as pgoutput's protocol 2 says",
        hint="Report this with the server's version; nothing behind it was taken.",
    )


def _text(message: bytes, at: int) -> tuple[str, int]:
    end = message.index(b"\0", at)
    return message[at:end].decode(), end + 1
