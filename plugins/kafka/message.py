"""Debezium's messages: bytes in, typed values out. Pure; whatever is no such message is refused.

The fields are those of https://debezium.io/documentation/reference/stable/connectors/postgresql.html, "Data change
events" and "Transaction metadata"; what Concord does not need is not looked at.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from plugins.kafka.position import Place
from plugins.kafka.schema import Field, decode_schema

NULL: Final = b"null"


class Malformed(Exception):
    """Bytes that are no message of Debezium's; says what was found, never a value. Translated by whoever knows
    where."""


class Source(msgspec.Struct, gc=False):
    """The event's place in the source's log. `sequence`: PostgreSQL's [end of the last transaction before it, its own
    LSN], as a text of JSON. `snapshot`: "false" for what comes from the log."""

    connector: str
    ts_ms: int
    ts_us: int | None = None
    snapshot: str | bool | None = None
    db: str | None = None
    schema: str | None = None
    table: str | None = None
    sequence: str | None = None
    txId: int | None = None
    gtid: str | None = None
    file: str | None = None
    pos: int | None = None
    row: int | None = None

    @property
    def time(self) -> int:
        """Commit time, microseconds since 1970."""
        return self.ts_us if self.ts_us is not None else self.ts_ms * 1000

    @property
    def collection(self) -> str:
        """The table as Debezium writes it elsewhere."""
        if self.connector in ("mariadb", "mysql"):
            return f"{self.db}.{self.table}"
        if self.connector == "postgresql":
            return f"{self.schema}.{self.table}"
        return ".".join(part for part in (self.db, self.schema, self.table) if part)

    @property
    def is_first_read(self) -> bool:
        """Whether it is a row of the snapshot that a connector begins with, not of one that was asked for later."""
        return self.snapshot not in (None, False, "false", "incremental")


class Transaction(msgspec.Struct, gc=False):
    """Which transaction, and as the how manyeth event of it and of its table."""

    id: str
    total_order: int
    data_collection_order: int


class Event(msgspec.Struct, gc=False):
    """A change. `op`: c, u, d, r (read by a snapshot), t (truncate), m (a message of an application's). Rows are left
    as they are until somebody wants them."""

    op: str
    source: Source
    before: msgspec.Raw = msgspec.Raw(NULL)
    after: msgspec.Raw = msgspec.Raw(NULL)
    transaction: Transaction | None = None


class Count(msgspec.Struct, gc=False):
    data_collection: str
    event_count: int


class Boundary(msgspec.Struct):
    """A message of the topic of transactions."""

    status: str
    id: str
    event_count: int | None = None
    data_collections: list[Count] | None = None
    ts_ms: int = 0


class _Wrapped(msgspec.Struct):
    schema: msgspec.Raw
    payload: msgspec.Raw


# All decoders are made here, not where they are used: threads that ask msgspec 0.22 for one struct's decoder at once
# end the process.
_decode_event = msgspec.json.Decoder(Event).decode
_decode_boundary = msgspec.json.Decoder(Boundary).decode
_decode_wrapped = msgspec.json.Decoder(_Wrapped).decode
_decode_names = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_sequence = msgspec.json.Decoder(tuple[str | None, str | None]).decode
_FILE: Final = re.compile(r"\d+$")
_POSTGRES: Final = re.compile(r"\d+:(\d+)")
_MARIADB: Final = re.compile(r"(\d+)-\d+-(\d+)")
_MYSQL: Final = re.compile(r"([0-9A-Fa-f-]{36}(?::[a-z_][a-z0-9_]{0,31})?):(\d+)")
_BINLOG: Final = re.compile(r"file=.*?(\d+),pos=(\d+)")
_SQL_SERVER: Final = re.compile(r"([0-9a-f]{8}):([0-9a-f]{8}):([0-9a-f]{4})")


def decode_event(payload: bytes) -> Event:
    """Raises `Malformed`."""
    try:
        return _decode_event(payload)
    except msgspec.MsgspecError as error:
        raise Malformed(f"no change event of Debezium ({_said(error)})") from None


def decode_boundary(payload: bytes) -> Boundary:
    """Raises `Malformed`."""
    try:
        found = _decode_boundary(payload)
    except msgspec.MsgspecError as error:
        raise Malformed(f"no transaction boundary of Debezium ({_said(error)})") from None
    if found.status == "END" and (found.event_count is None or found.data_collections is None):
        raise Malformed("the end of a transaction without its counts")
    if found.status not in ("BEGIN", "END"):
        raise Malformed("neither the beginning nor the end of a transaction")
    return found


def unwrap(value: bytes) -> tuple[bytes, Field | None, bytes]:
    """A message's payload, the schema beside it, None without one, and the bytes before the payload, by which the next
    message of this schema is known. Raises `Malformed`."""
    if not value.startswith(b'{"schema":'):
        return value, None, b""
    try:
        wrapped = _decode_wrapped(value)
    except msgspec.MsgspecError:
        # A flat row may have a column of that name.
        return value, None, b""
    if bytes(wrapped.schema) == NULL:
        return bytes(wrapped.payload), None, b""
    try:
        schema = decode_schema(wrapped.schema)
    except msgspec.MsgspecError as error:
        raise Malformed(f"no schema of Kafka Connect's ({_said(error)})") from None
    before = b'{"schema":' + bytes(wrapped.schema) + b',"payload":'
    payload = bytes(wrapped.payload)
    is_usual = value == before + payload + b"}"
    return payload, schema, before if is_usual else b""


def decode_names(row: bytes | msgspec.Raw) -> tuple[str, ...]:
    """The columns of a row, in its order. Raises `Malformed`."""
    try:
        return tuple(_decode_names(row))
    except msgspec.MsgspecError as error:
        raise Malformed(f"no row ({_said(error)})") from None


def place_of(source: Source) -> Place | None:
    """The event's place in the order in which the connector reads the source's log; None where we know of none. Raises
    `Malformed`.

    PostgreSQL: (end of the transaction before, LSN of the change): transactions come in the order of their commits, and
    the changes of one in the order of their LSNs, of which a row alone says little, for transactions overlap. Changes
    of one record of the log (COPY) share one LSN. MariaDB and MySQL: (number of the file, offset, row in the event).
    """
    if source.connector == "postgresql":
        if source.sequence is None:
            raise Malformed("an event of PostgreSQL without source.sequence")
        try:
            before, own = _decode_sequence(source.sequence)
            return (int(before or 0), int(own or 0))
        except (msgspec.MsgspecError, ValueError):
            raise Malformed("source.sequence is no pair of LSNs") from None
    if source.connector in ("mariadb", "mysql"):
        if source.file is None or source.pos is None:
            raise Malformed("an event of a binary log without source.file and source.pos")
        return (file_number(source.file), source.pos, source.row or 0)
    return None


def file_number(file: str) -> int:
    """Raises `Malformed`."""
    found = _FILE.search(file)
    if found is None:
        raise Malformed("source.file has no number at its end")
    return int(found[0])


def transaction_key(id: str) -> str:
    """What all messages of one transaction share: of PostgreSQL's ids, which end in the LSN of the message's own
    change, the part before."""
    return id.partition(":")[0] if _POSTGRES.fullmatch(id) else id


def stream_of(id: str) -> tuple[str, Place] | None:
    """(stream, place in it) of the transaction whose end has that id: of two in one stream the later is greater. None
    where we know of no such order.

    PostgreSQL "760:24326520": the LSN behind its commit. MariaDB "0-1-6": domain, server, number. MySQL "uuid:6", or
    "file=binlog.000001,pos=154" without GTIDs. SQL Server "00000025:00000d08:0025": the LSN of its commit.
    """
    if found := _POSTGRES.fullmatch(id):
        return "", (int(found[1]),)
    if found := _MARIADB.fullmatch(id):
        return found[1], (int(found[2]),)
    if found := _MYSQL.fullmatch(id):
        return found[1], (int(found[2]),)
    if found := _BINLOG.fullmatch(id):
        return "", (int(found[1]), int(found[2]))
    if found := _SQL_SERVER.fullmatch(id):
        return "", tuple(int(part, 16) for part in found.groups())
    return None


def header(headers: list[tuple[str, bytes | None]], name: str) -> bytes | None:
    return next((value for key, value in headers if key == name), None)


def _said(error: Exception) -> str:
    """The decoder's words: types and paths, no values. A name of a column may be in them."""
    return str(error)
