"""Decoders take any bytes, or refuse them with an error of ours."""

from __future__ import annotations

import contextlib
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import ConcordError, MalformedLog
from engine.model.table import Kind
from plugins.mysql import events
from plugins.mysql.compile import LogColumn, compile_decoders
from plugins.mysql.events import MappedColumn, RowsHead
from plugins.mysql.gather import Gatherer, Stop
from plugins.mysql.position import Resume
from tests.mysql_source.support import World

DECODERS: list[Callable[[bytes], Any]] = [
    events.decode_header,
    lambda raw: events.checked_body(raw, has_checksum=True),
    lambda raw: events.checked_body(raw, has_checksum=False),
    events.decode_format,
    events.decode_rotate,
    lambda raw: events.decode_gtid(raw, 1),
    events.decode_gtid_list,
    events.decode_gtid_mysql,
    lambda raw: events.decode_query(events.QUERY, raw),
    lambda raw: events.decode_query(events.QUERY_COMPRESSED, raw),
    events.decode_xid,
    events.table_map_names,
    lambda raw: events.decode_table_map(raw, is_mariadb=True),
    lambda raw: events.decode_table_map(raw, is_mariadb=False),
    *(lambda raw, kind=kind: events.decode_rows_head(kind, raw) for kind in sorted(events.ROWS)),
]

TYPES = (1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12, 13, 15, 16, 17, 18, 19, 246, 247, 248, 252, 254, 255)


@settings(max_examples=300)
@given(st.sampled_from(DECODERS), st.binary(max_size=80))
def test_any_bytes(decode: Callable[[bytes], Any], raw: bytes) -> None:
    with contextlib.suppress(MalformedLog):
        decode(raw)


@st.composite
def columns(draw: st.DrawFn) -> LogColumn:
    type = draw(st.sampled_from(TYPES))
    metadata = draw(st.integers(0, 0xFFFF))
    if type == 246:
        metadata = draw(st.integers(1, 65).flatmap(lambda p: st.integers(0, min(p, 38)).map(lambda s: p | s << 8)))
    elif type in (17, 18, 19):
        metadata %= 7
    elif type in (252, 255):
        metadata = metadata % 4 + 1
    elif type == 247:
        metadata = draw(st.sampled_from((1, 2))) << 8 | type
    elif type == 248:
        metadata = draw(st.integers(1, 8)) << 8 | type
    kind = draw(st.sampled_from((Kind.TEXT, Kind.BINARY, Kind.BOOLEAN, Kind.UUID)))
    set = draw(st.sampled_from(("utf8mb4", "latin1", "binary", "utf16", "sjis")))
    word = draw(st.sampled_from(("", "inet6", "inet4")))
    return LogColumn(MappedColumn(type=type, metadata=metadata), "c", kind, word, set, draw(st.booleans()), ("a", "b"))


@settings(max_examples=400, deadline=None)
@given(st.lists(columns(), min_size=1, max_size=12), st.data())
def test_any_rows(found: list[LogColumn], data: st.DataObject) -> None:
    decoders = compile_decoders(found, keys=(0,), table="system crm, table t")
    size = (len(found) + 7) // 8
    for _ in range(5):
        present = data.draw(st.one_of(st.just(b"\xff" * size), st.binary(max_size=size + 1)))
        after = data.draw(st.one_of(st.just(present), st.binary(max_size=size)))
        body = data.draw(st.binary(max_size=200))
        head = RowsHead(1, present, after, body, data.draw(st.integers(0, 3)))
        for decode in (decoders.rows, decoders.updates, decoders.images):
            with contextlib.suppress(MalformedLog):
                decode(head)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_events(data: st.DataObject) -> None:
    """A whole feed's worth of events with true headers and checksums, and anything inside."""
    gatherer = Gatherer(system="crm", resume=Resume("1", "binlog.000001", 1, 4, 0, {}), has_checksum=True, rows_max=10)
    stream: list[bytes] = []
    for n in range(data.draw(st.integers(1, 6))):
        kind = data.draw(st.sampled_from((2, 4, 15, 16, 19, 23, 24, 30, 31, 38, 39, 162, 163, 165, 166, 27, 26, 99)))
        body = data.draw(st.binary(max_size=60))
        flags = data.draw(st.sampled_from((0, 0x20)))
        raw = struct.pack("<IBIIIH", 1, kind, 1, 19 + len(body) + 4, 4 + 100 * n, flags) + body
        stream.append(raw + zlib.crc32(raw).to_bytes(4, "little"))
    iterator = iter(stream)
    with contextlib.suppress(ConcordError):
        while (stop := gatherer.take(iterator)) is not Stop.DRY:
            if stop is Stop.TABLE:
                gatherer.install(gatherer.unknown, None)


def test_a_real_log_with_a_byte_changed(world: World) -> None:
    """Each byte of a few transactions in turn: with checksums every one is found."""
    world.run("create table t (id int primary key, name varchar(20))")
    start = world.end()
    world.commit("insert into t values (1, 'a'), (2, null)", "update t set name = 'b'")
    path: Path = world.server.directory / "data" / f"binlog.{start[0]:06d}"
    raw = path.read_bytes()[start[1] : world.end()[1]]
    at, stream = 0, list[bytes]()
    while at < len(raw):
        size = int.from_bytes(raw[at + 9 : at + 13], "little")
        stream.append(raw[at : at + size])
        at += size
    for n, event in enumerate(stream):
        for index in range(len(event)):
            changed = event[:index] + bytes((event[index] ^ 0x10,)) + event[index + 1 :]
            gatherer = Gatherer(
                system="crm", resume=Resume("1", path.name, start[0], start[1], 0, {}), has_checksum=True, rows_max=10
            )
            with pytest.raises(ConcordError):
                _take(gatherer, [*stream[:n], changed, *stream[n + 1 :]])


def _take(gatherer: Gatherer, stream: list[bytes]) -> None:
    iterator = iter(stream)
    while gatherer.take(iterator) is Stop.TABLE:
        gatherer.install(gatherer.unknown, None)
