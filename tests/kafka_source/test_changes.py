"""Goal: what users did is what comes out of a connector's messages, whatever form it writes them in.

Method: recorded messages of a script with every kind of change, taken by a feed without a broker; the changes applied
to an empty table are what the database held in the end.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest

from engine.errors import MalformedLog, SourceUnready
from engine.model.change import DELETE, READ, UPDATE, Batch, EventKind
from engine.model.table import Column, Form, Kind, Shape
from engine.model.value import ABSENT, Wire
from plugins.kafka.config import KafkaConfig
from plugins.kafka.gather import Found, Gatherer, Number
from plugins.kafka.layouts import Layouts, NeedLayout
from plugins.kafka.names import Names
from plugins.kafka.position import Resume
from tests.kafka_cluster.recordings import RECORDED, Recording, read_recording, read_told

Row = dict[str, Wire]
COLUMNS: Final = ("id", "name", "note", "city")
SPACES: Final = {"postgres": "public", "mariadb": "shop"}
# What the transformation itself drops: then rows stay that are gone.
WITHOUT_DELETIONS: Final = ("flat-drop",)
RECORDINGS: Final = [path for kind in SPACES for path in sorted(RECORDED.glob(f"{kind}-changes-*.jsonl"))]


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_the_changes_make_the_table(path: Path) -> None:
    kind, told = path.stem.partition("-")[0], read_told(RECORDED / f"{path.stem.partition('-')[0]}-changes.jsonl")
    table = f"{SPACES[kind]}.customers"
    batches = taken(read_recording(path), path.stem, table)
    wanted = {str(row["id"]): {name: row[name] for name in COLUMNS} for row in told.rows_of("customers")}
    found = applied(batches, table)
    if any(mode in path.stem for mode in WITHOUT_DELETIONS):
        found = {id: row for id, row in found.items() if id in wanted}
    assert found == wanted


@pytest.mark.parametrize("kind", SPACES)
def test_a_change_of_key_is_one_update_that_names_the_old_one(kind: str) -> None:
    stem = f"{kind}-changes-envelope-transactions"
    batches = taken(read_recording(RECORDED / f"{stem}.jsonl"), stem, f"{SPACES[kind]}.customers")
    moved = [
        (str(old[0]), str(rows.rows[index][0]), rows.ops[index] == UPDATE)
        for batch in batches
        for segment in batch.segments
        for rows in segment.tables.values()
        for index, old in rows.old.items()
    ]
    assert moved == [("2", "20", True), ("1", "10", True)]


def test_a_value_that_the_log_does_not_have_is_absent_in_whatever_column() -> None:
    stem = "postgres-changes-envelope"
    batches = taken(read_recording(RECORDED / f"{stem}.jsonl"), stem, "public.papers")
    (rows,) = [rows for _, rows in updates(batches, "public.papers")]
    assert {name for name, value in rows.items() if value is ABSENT} == {
        "a_text",
        "a_bytea",
        "a_json",
        "texts",
        "numbers",
    }
    assert rows["count"] == "1"


@pytest.mark.parametrize("kind", SPACES)
def test_a_table_that_is_emptied_is_told(kind: str) -> None:
    stem = f"{kind}-changes-envelope-transactions"
    table = f"{SPACES[kind]}.visits"
    batches = taken(read_recording(RECORDED / f"{stem}.jsonl"), stem, table)
    events = [event for batch in batches for segment in batch.segments for event in segment.events]
    assert [(event.kind, event.table) for event in events] == [(EventKind.TRUNCATED, table)]
    # What is entered afterwards comes after it.
    last = batches[-1].segments[-1].tables[table]
    assert [str(value) for value in last.rows[-1][:2]] == ["5", "5"]


@pytest.mark.parametrize("kind", SPACES)
def test_columns_that_come_and_go_are_told(kind: str) -> None:
    stem = f"{kind}-changes-envelope-transactions"
    table = f"{SPACES[kind]}.customers"
    batches = taken(read_recording(RECORDED / f"{stem}.jsonl"), stem, table)
    shapes = [
        [column.name for column in event.shape.columns]
        for batch in batches
        for segment in batch.segments
        for event in segment.events
        if event.kind is EventKind.RESHAPED and event.shape is not None
    ]
    assert shapes == [["id", "name", "note", "score", "city"], ["id", "name", "note", "city"]]


def test_rows_of_a_snapshot_are_read_and_not_changed() -> None:
    stem = "postgres-changes-envelope"
    batches = taken(read_recording(RECORDED / f"{stem}.jsonl"), stem, "public.customers")
    ops = [op for batch in batches for s in batch.segments for op in s.tables["public.customers"].ops]
    assert ops[:2] == [READ, READ]
    assert READ not in ops[2:]


def test_rows_of_an_incremental_snapshot_stand_where_they_were_read() -> None:
    stem = "postgres-signals-envelope"
    batches = taken(read_recording(RECORDED / f"{stem}.jsonl"), stem, "public.visits")
    ops = bytes(op for batch in batches for s in batch.segments for op in s.tables["public.visits"].ops)
    assert ops == b"RRRURRRU"


def test_flat_messages_where_envelopes_are_told_are_refused() -> None:
    recording = read_recording(RECORDED / "postgres-changes-flat-rewrite.jsonl")
    with pytest.raises(MalformedLog, match="no change event of Debezium") as refused:
        taken(recording, "postgres-changes-envelope", "public.customers")
    assert 'form = "flat"' in refused.value.hint
    assert "Alder" not in str(refused.value), "an error never holds a value"


def test_events_without_a_transaction_are_refused_where_order_is_that_of_transactions() -> None:
    recording = read_recording(RECORDED / "postgres-changes-envelope.jsonl")
    with pytest.raises(SourceUnready, match="does not tell its transaction") as refused:
        taken(recording, "postgres-changes-envelope-transactions", "public.customers")
    assert "provide.transaction.metadata" in refused.value.hint


def taken(recording: Recording, stem: str, table: str) -> list[Batch]:
    """What a feed hands out of the recorded messages, without a broker."""
    space, _, name = table.partition(".")
    topic = next(record.topic for record in recording.records if record.topic.endswith(f"{space}.{name}"))
    prefix = topic.removesuffix(f".{table}")
    config = KafkaConfig(
        servers=("none:1",),
        prefix=prefix,
        order="transaction" if "transactions" in stem else "row",
        form="flat" if "flat" in stem else "envelope",
    )
    names = Names(config, [table])
    catalogue = {table: customers(table)} if "schemaless" in stem else {}
    wanted = {topic, f"{prefix}.transaction"} if config.order == "transaction" else {topic}
    found = Found()
    for record in recording.records:
        if record.topic in wanted:
            place: Number = (record.topic, record.partition)
            message = (record.offset, record.timestamp, record.key, record.value, list(record.headers))
            found.records.setdefault(place, [])
            found.records[place] = [*found.records[place], message]
            found.next[place] = record.offset + 1
    resume = Resume(next={topic: {0: 0} for topic in wanted} | {t: {n: 0} for t, n in found.records})
    layouts = Layouts("crm", config, stem.partition("-")[0], catalogue)
    gatherer = Gatherer("crm", config, names, layouts, resume, {}, frozenset())
    gatherer.take_in(found)
    batches: list[Batch] = []
    while True:
        try:
            is_full = gatherer.take(1000)
        except NeedLayout as need:
            gatherer.learn(need)
            continue
        batches.append(gatherer.hand_out(is_full=is_full))
        if not is_full:
            assert gatherer.waiting == ""
            return batches


def customers(table: str) -> Shape:
    """The table as the database had it in the end."""
    columns = tuple(Column(name=n, kind=Kind.INTEGER if n == "id" else Kind.TEXT, type="text") for n in COLUMNS)
    return Shape(name=table, columns=columns, form=Form.TEXT, key=("id",))


def changes(batches: list[Batch], table: str) -> list[tuple[int, Row, Row | None]]:
    """Operation, row and old row of each change."""
    found: list[tuple[int, Row, Row | None]] = []
    for batch in batches:
        for segment in batch.segments:
            rows = segment.tables.get(table)
            if rows is None:
                continue
            names = [column.name for column in rows.shape.columns]
            for index, row in enumerate(rows.rows):
                old = rows.old.get(index)
                was = None if old is None else dict(zip(names, old, strict=True))
                found.append((rows.ops[index], dict(zip(names, row, strict=True)), was))
    return found


def updates(batches: list[Batch], table: str) -> list[tuple[int, Row]]:
    return [(op, row) for op, row, _ in changes(batches, table) if op == UPDATE]


def applied(batches: list[Batch], table: str) -> dict[str, dict[str, Any]]:
    """The table that the changes make, by key. What an update does not have stays."""
    state: dict[str, Row] = {}
    for op, row, old in changes(batches, table):
        id = str(row["id"])
        before = state.pop(id if old is None else str(old["id"]), {})
        if op != DELETE:
            state[id] = {**before, **{name: value for name, value in row.items() if value is not ABSENT}}
    # A column that came later had its default in rows that were never changed since.
    return {id: {name: row.get(name, "Ulm") for name in COLUMNS} for id, row in state.items()}
