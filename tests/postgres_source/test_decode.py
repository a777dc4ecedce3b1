"""Goal: the decoders give back what an encoder wrote, whatever the texts, and refuse everything else.
Method: an encoder written here after the manual's "Logical Replication Message Formats"; rows of any text, nulls,
absent and long values; and arbitrary or damaged bytes, which must decode or be refused as `MalformedLog`."""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from engine.errors import MalformedLog
from engine.model.position import Position
from engine.model.table import Column, Form, Kind, Shape
from engine.model.value import ABSENT, WireRow
from plugins.postgres import compile
from plugins.postgres.compile import compile_decoders
from plugins.postgres.decode import (
    Begin,
    RelationColumn,
    RelationMessage,
    StreamCommit,
    decode_begin,
    decode_commit,
    decode_relation,
    decode_stream_abort,
    decode_stream_commit,
    decode_stream_start,
    decode_truncate,
)
from plugins.postgres.gather import Gatherer, Relation, Stop
from plugins.postgres.position import EPOCH_MICROSECONDS, Cluster, Resume
from plugins.postgres.spool import Spool

ID = b"\0\0\x40\x0b"
CLUSTER = Cluster(identifier="1", timeline=1)

# PostgreSQL stores any character but NUL.
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40)
ASCII = st.text(st.characters(codec="ascii", exclude_characters="\0"), max_size=9)
LONG = st.integers(250, 70_000).map(lambda size: ("t\x01n" * size)[:size])
VALUE = st.one_of(TEXT, TEXT, TEXT, LONG, st.none(), st.just(ABSENT))
ROWS = st.integers(1, 12).flatmap(lambda n: st.tuples(*[VALUE] * n))
PLAIN_ROWS = st.integers(1, 12).flatmap(lambda n: st.tuples(*[st.one_of(TEXT, st.none())] * n))
LSN = st.integers(0, 2**63)
XID = st.binary(min_size=4, max_size=4)
TIME = st.integers(0, 2**62)


def encode_tuple(row: WireRow) -> bytes:
    parts = [struct.pack(">H", len(row))]
    for value in row:
        if value is None:
            parts.append(b"n")
        elif value is ABSENT:
            parts.append(b"u")
        else:
            text = str(value).encode()
            parts.append(b"t" + struct.pack(">I", len(text)) + text)
    return b"".join(parts)


def encode_insert(row: WireRow) -> bytes:
    return b"I" + ID + b"N" + encode_tuple(row)


def encode_update(new: WireRow, old: WireRow | None = None, image: bytes = b"K") -> bytes:
    before = b"" if old is None else image + encode_tuple(old)
    return b"U" + ID + before + b"N" + encode_tuple(new)


def encode_delete(row: WireRow, image: bytes) -> bytes:
    return b"D" + ID + image + encode_tuple(row)


def encode_relation(message: RelationMessage) -> bytes:
    columns = b"".join(
        bytes([c.is_key]) + c.name.encode() + b"\0" + struct.pack(">Ii", c.type_id, c.type_modifier)
        for c in message.columns
    )
    names = message.schema.encode() + b"\0" + message.table.encode() + b"\0"
    return b"R" + message.id + names + message.identity.encode() + struct.pack(">H", len(message.columns)) + columns


@given(ROWS)
@example(("",))
@example(("t\x01\x02", "tt", "t", "", "ntnt"))
@example(("x" * 255, "y" * 256))
@example(("x" * 127, "é" * 64, "z"))
def test_an_inserted_row_comes_back(row: WireRow) -> None:
    assert compile_decoders(len(row)).insert(encode_insert(row)) == row


@given(ROWS)
def test_an_updated_row_without_old_comes_back(row: WireRow) -> None:
    assert compile_decoders(len(row)).update(encode_update(row)) == (row, None)


@given(st.data())
def test_a_full_old_row_fills_what_is_absent_and_tells_a_changed_key(data: st.DataObject) -> None:
    old = data.draw(PLAIN_ROWS)
    new = tuple(data.draw(st.one_of(st.just(ABSENT), st.just(value), TEXT)) for value in old)
    keys = tuple(sorted(data.draw(st.sets(st.integers(0, len(old) - 1), min_size=1))))
    decoders = compile_decoders(len(old), identity=tuple(range(len(old))), keys=keys)

    row, told = decoders.update(encode_update(new, old, b"O"))

    filled = tuple(o if n is ABSENT else n for n, o in zip(new, old, strict=True))
    assert row == filled
    assert told == (old if any(filled[k] != old[k] for k in keys) else None)


@given(st.data())
def test_a_key_tuple_tells_its_key_columns_and_nothing_else(data: st.DataObject) -> None:
    row = data.draw(PLAIN_ROWS)
    keys = data.draw(st.sets(st.integers(0, len(row) - 1), min_size=1))
    decoders = compile_decoders(len(row), identity=tuple(sorted(keys)), keys=tuple(sorted(keys)))
    sent = tuple(value if n in keys else None for n, value in enumerate(row))
    known = tuple(value if n in keys else ABSENT for n, value in enumerate(row))
    changed = tuple(f"{value}!" for value in row)

    assert decoders.delete(encode_delete(sent, b"K")) == known
    assert decoders.delete(encode_delete(row, b"O")) == row
    assert decoders.update(encode_update(changed, sent)) == (changed, known)


@given(LSN, TIME, XID, LSN)
def test_transactions_begin_and_end_as_written(lsn: int, time: int, xid: bytes, end: int) -> None:
    begin = Begin(lsn, time + EPOCH_MICROSECONDS, xid)

    assert decode_begin(struct.pack(">cQq4s", b"B", lsn, time, xid)) == begin
    assert decode_commit(struct.pack(">cBQQq", b"C", 0, lsn, end, time)) == end
    assert decode_stream_commit(struct.pack(">c4sBQQq", b"c", xid, 0, lsn, end, time)) == StreamCommit(begin, end)
    assert decode_stream_start(b"S" + xid + b"\1") == (xid, True)
    assert decode_stream_abort(b"A" + xid + xid[::-1]) == (xid, xid[::-1])


NAME = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)
COLUMN = st.builds(RelationColumn, NAME, st.integers(0, 2**32 - 1), st.integers(-1, 2**31 - 1), st.booleans())


@given(st.builds(RelationMessage, XID, NAME, NAME, st.sampled_from("dnfi"), st.lists(COLUMN, max_size=8).map(tuple)))
def test_a_relation_comes_back(message: RelationMessage) -> None:
    assert decode_relation(encode_relation(message)) == message


@given(st.lists(XID, max_size=5).map(tuple))
def test_a_truncate_comes_back(ids: tuple[bytes, ...]) -> None:
    assert decode_truncate(b"T" + struct.pack(">IB", len(ids), 0) + b"".join(ids)).relations == ids


DECODERS: list[Callable[[bytes], object]] = [
    decode_begin,
    decode_commit,
    decode_relation,
    decode_truncate,
    decode_stream_start,
    decode_stream_commit,
    decode_stream_abort,
    *(decoder for count in (0, 1, 3) for decoder in compile_decoders(count, identity=tuple(range(count)))[1:4]),
]


@given(st.one_of(st.binary(max_size=60), st.binary(max_size=30).map(lambda tail: b"I" + ID + b"N\0\3" + tail)))
def test_any_bytes_decode_or_are_refused(payload: bytes) -> None:
    for decode in DECODERS:
        with suppress(MalformedLog):
            decode(payload)


@given(ROWS, st.data())
def test_a_cut_message_is_refused(row: WireRow, data: st.DataObject) -> None:
    message = encode_insert(row)
    cut = message[: data.draw(st.integers(0, len(message) - 1))]
    with pytest.raises(MalformedLog):
        compile_decoders(len(row)).insert(cut)


ASCII_ROWS = st.lists(ASCII, min_size=1, max_size=4)


@given(ASCII_ROWS.map(tuple))
def test_a_plain_row_cut_anywhere_is_refused(row: WireRow) -> None:
    message = encode_insert(row)
    decoders = compile_decoders(len(row))
    assert decoders.insert(message) == row
    for cut in range(len(message)):
        with pytest.raises(MalformedLog):
            decoders.insert(message[:cut])


NULLABLE = st.one_of(st.none(), st.sampled_from(["", "n", "nn", "t", "a"]), ASCII, TEXT, st.just(ABSENT), LONG)
TABLES = st.integers(1, 5).flatmap(lambda n: st.lists(st.tuples(*[NULLABLE] * n), max_size=12))


@given(TABLES)
@example([("a", None), ("n", None), (None, "n"), (None, ""), ("an", None), ("", None)])
@example([(None, None), (None, "x"), (None, None)])
def test_what_was_learnt_from_one_row_never_misreads_another(rows: list[WireRow]) -> None:
    decoders = compile_decoders(len(rows[0]) if rows else 1)
    for row in (*rows, *rows):
        assert decoders.insert(encode_insert(row)) == row


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A document of three rows, and every time as one."""
    monkeypatch.setattr(compile, "MANY_ROWS", 3)
    monkeypatch.setattr(compile, "FEW_ROWS", 1)


ALPHABETS = st.one_of(ASCII, TEXT, st.sampled_from(["", "t", "n", "Ù", "é" * 127, "x" * 255, "x" * 217, "\x7f" * 192]))
PLAIN_TABLES = st.one_of(st.integers(1, 5), st.integers(14, 18)).flatmap(
    lambda n: st.lists(st.tuples(*[ALPHABETS] * n), min_size=1, max_size=10)
)


@pytest.mark.usefixtures("few")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(PLAIN_TABLES, TABLES))
def test_many_rows_decode_as_one_by_one(rows: list[WireRow]) -> None:
    decoders = compile_decoders(len(rows[0]) if rows else 1)
    for _ in range(3):
        assert decoders.inserts([encode_insert(row) for row in rows]) == rows


@pytest.mark.usefixtures("few")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=500)
@given(PLAIN_TABLES, st.data())
def test_a_spoilt_row_among_many_is_refused_as_it_is_alone(rows: list[WireRow], data: st.DataObject) -> None:
    decoders, alone = compile_decoders(len(rows[0])), compile_decoders(len(rows[0]))
    messages = [encode_insert(row) for row in rows]
    for _ in range(data.draw(st.integers(1, 2))):
        n = data.draw(st.integers(0, len(messages) - 1))
        at = data.draw(st.integers(8, len(messages[n])))
        until = data.draw(st.integers(at, min(at + 6, len(messages[n]))))
        odd = st.lists(st.sampled_from(b"\0\1t\x74nu\xc0\xd0\xd9\xda\xa1\xff\x91\x99a"), max_size=6).map(bytes)
        messages[n] = messages[n][:at] + data.draw(odd) + messages[n][until:]
    try:
        expected = [alone.insert(message) for message in messages]
    except MalformedLog:
        with pytest.raises(MalformedLog):
            decoders.inserts(messages)
    else:
        assert decoders.inserts(messages) == expected


def test_rows_that_are_no_document_are_tried_as_one_less_and_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = 0
    compile_insert = compile._compile_insert  # pyright: ignore[reportPrivateUsage]

    def counting(count: int, general: compile.General) -> Callable[[bytes], WireRow]:
        insert = compile_insert(count, general)

        def counted(message: bytes) -> WireRow:
            nonlocal alone
            alone += 1
            return insert(message)

        return counted

    monkeypatch.setattr(compile, "_compile_insert", counting)
    decoders = compile_decoders(2)
    plain, odd = ("é", "Ù"), ("é", None)
    documents = [plain, odd, plain, plain, odd, plain, plain, plain, plain, plain]
    # Tried are 0, 1, and after one that is passed over 3; 4, and after one 6; from there on all.
    ways: list[int] = []
    for row in documents:
        alone = 0
        assert decoders.inserts([encode_insert(row)] * 100) == [row] * 100
        ways.append(alone)
    assert ways == [0, 100, 100, 0, 100, 100, 0, 0, 0, 0]
    for _ in range(200):
        decoders.inserts([encode_insert(odd)] * 100)
    alone = 0
    for _ in range(64):
        decoders.inserts([encode_insert(plain)] * 100)
    assert 0 < alone <= 6300


@given(st.lists(st.one_of(st.none(), ASCII), min_size=1, max_size=4).map(tuple))
def test_a_row_with_learnt_nulls_cut_anywhere_is_refused(row: WireRow) -> None:
    message = encode_insert(row)
    decoders = compile_decoders(len(row))
    assert decoders.insert(message) == decoders.insert(message) == row
    for cut in range(len(message)):
        with pytest.raises(MalformedLog):
            decoders.insert(message[:cut])


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=8))
def test_any_messages_are_gathered_or_refused(messages: list[bytes]) -> None:
    spool = Spool(Path("/nonexistent"), system="crm")
    gatherer = Gatherer(system="crm", cluster=CLUSTER, resume=Resume(lsn=0), spool=spool, rows_max=10)
    # Streamed blocks need files; they have tests of their own.
    kept = [message for message in messages if message[0] not in b"SEcA"]
    with suppress(MalformedLog):
        gatherer.take(iter(kept))


KINDS = st.lists(st.sampled_from("IUKD"), max_size=12)


@given(st.lists(KINDS, max_size=6), st.integers(1, 6), st.integers(1, 9))
def test_every_row_is_handed_out_once_and_in_order_wherever_reading_stops(
    transactions: list[list[str]], rows_max: int, messages_max: int
) -> None:
    shape = Shape(name="t", form=Form.TEXT, key=("id",), columns=(Column(name="id", kind=Kind.TEXT, type="text"),))
    spool = Spool(Path("/nonexistent"), system="crm")
    gatherer = Gatherer(system="crm", cluster=CLUSTER, resume=Resume(lsn=0), spool=spool, rows_max=rows_max)
    decoders = compile_decoders(1, identity=(0,), keys=(0,))
    gatherer.install(Relation(name="t", message=b"R" + ID, decoders=decoders, shape=shape))
    sent: list[tuple[int, str, int]] = []
    messages: list[bytes] = []
    for number, kinds in enumerate(transactions, 1):
        messages.append(b"B" + struct.pack(">Qq", number, number - EPOCH_MICROSECONDS) + b"\0\0\0\1")
        for kind in kinds:
            value = str(len(sent))
            op = {"K": "U"}.get(kind, kind)
            tuple_ = encode_insert((value,))[6:]
            old = b"K" + encode_insert((value + "old",))[6:]
            messages.append(op.encode() + ID + {"D": b"K", "K": old + b"N"}.get(kind, b"N") + tuple_)
            sent.append((ord(op), value, number))
        messages.append(b"C" + struct.pack(">BQQq", 0, number, number + 1, 0))
    found: list[tuple[int, str, int]] = []
    read = 0
    # What has arrived is taken in portions, as from a socket.
    for first in range(0, len(messages), messages_max):
        portion = iter(messages[first : first + messages_max])
        stop = Stop.FULL
        while stop is Stop.FULL:
            stop = gatherer.take(portion)
            batch = gatherer.batch(0, Position((0, 0)))
            read += batch.rows_read
            for segment in batch.segments:
                for rows in segment.tables.values():
                    assert len(rows.rows) == len(rows.ops) == len(rows.times) <= 2 * rows_max
                    found.extend(
                        (op, str(row[0]), at) for op, row, at in zip(rows.ops, rows.rows, rows.times, strict=True)
                    )
                    assert all(rows.old[n][0] == f"{rows.rows[n][0]}old" for n in rows.old)
        assert stop is Stop.DRY
    assert found == sent
    assert read == len(sent)


def test_bytes_that_are_no_utf8_are_refused_without_being_shown() -> None:
    message = b"I" + ID + b"N" + struct.pack(">H", 1) + b"t" + struct.pack(">I", 6) + b"caf\xe9 1"
    with pytest.raises(MalformedLog, match=r"no UTF-8") as refusal:
        compile_decoders(1).insert(message)
    assert "caf" not in str(refusal.value)


def test_binary_values_are_refused() -> None:
    message = b"I" + ID + b"N" + struct.pack(">H", 1) + b"b" + struct.pack(">I", 1) + b"x"
    with pytest.raises(MalformedLog):
        compile_decoders(1).insert(message)
