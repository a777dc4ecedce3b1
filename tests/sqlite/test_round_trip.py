"""Goal: pages and feed together are the table, to the letter, whatever users and deliveries do to it and in what order,
and no row of a delivery is ever told as a change of a user.

Method: Hypothesis runs statements of users, transactions, deliveries, portions of the feed and chunks of a copy in any
order against a table with awkward names; a replica keeps the engine's rule for chunks (`engine.model.change.Chunk`).
Deliveries are replayed where the feed says they stand: from the echoes where there are any, else from what they did.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import anyio
import apsw
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from engine.errors import RowRefused
from engine.model.change import Batch, Chunk, TableRows
from engine.model.value import Wire, WireRow
from engine.ports import Feed, TableWrite, TargetSession, WriteKind
from plugins.sqlite import capture
from tests.sqlite.support import World, exact, key_of, make_write, open_world, replay

TABLE = 't "x'
T, K, A, C = '"t ""x"', '"i\'d"', '"a b"', '"select"'
COLUMNS = ("i'd", "a b", "select")
SCHEMAS = (
    f"create table {T} ({K} integer primary key, {A} unique, {C})",
    f"create table {T} ({K} not null, {A} not null, {C} unique, primary key ({A}, {K}))",
    f"create table {T} ({K} text collate nocase not null primary key, {A}, {C} unique) without rowid",
    f"create table {T} ({K} any not null, {A} any not null, {C} any, primary key ({K}, {A})) strict, without rowid",
    f"create table {T} ({K} not null unique, {A}, {C})",
    f"create table {T} ({K} integer primary key autoincrement, {A} blob, {C} numeric unique on conflict replace)",
)
OWNERS_TRIGGERS = (
    "",
    f"create trigger tidy after insert on {T} when typeof(new.{C}) = 'text' begin"
    f" update {T} set {C} = new.{C} || '!' where {K} = new.{K} and {A} is new.{A}; end",
    f"create trigger move before update on {T} when new.{C} = 3 begin delete from {T} where {C} = 2; end",
    f"create trigger ignore before update on {T} when new.{C} = 'a' begin select raise(ignore); end",
    f"create trigger fail before insert on {T} when new.{C} = 2.5 begin select raise(fail, 'no'); end",
    f"create trigger copy after delete on {T} when old.{C} = 1 begin"
    f" insert or replace into {T} values (old.{K}, old.{A}, 'back'); end",
)
VALUES: st.SearchStrategy[Wire] = st.sampled_from(
    (
        1,
        2,
        3,
        1.0,
        2.5,
        -0.0,
        2**53 + 1,
        -(2**63),
        2**63 - 1,
        "1",
        "a",
        "A",
        "",
        "ä\0b",
        "1e2",
        b"",
        b"a",
        b"\xff\0",
        None,
    )
)
ROWS = st.tuples(VALUES, VALUES, VALUES)
WORDS = ("or abort", "or replace", "or ignore", "or fail", "or rollback")
Step = tuple[str, Sequence[Wire]] | list[TableWrite] | str


def statement(sql: str, *bindings: st.SearchStrategy[Wire]) -> st.SearchStrategy[Step]:
    """`{word}` stands for what to do on a conflict."""
    texts = st.sampled_from([sql.format(word=word) for word in WORDS])
    return st.tuples(texts, st.tuples(*bindings))


def _write(kind: WriteKind, rows: list[WireRow], key: tuple[str, ...]) -> TableWrite:
    if kind is WriteKind.DELETE:
        rows = [tuple(row[COLUMNS.index(name)] for name in key) for row in rows]
        return make_write(kind, TABLE, key, rows, key)
    return make_write(kind, TABLE, COLUMNS, rows, key)


STATEMENTS = st.one_of(
    statement(f"insert {{word}} into {T} values (?, ?, ?)", VALUES, VALUES, VALUES),
    statement(f"insert {{word}} into {T} values (?, ?, ?), (?, ?, ?)", *[VALUES] * 6),
    statement(f"insert into {T} values (?, ?, ?) on conflict do nothing", VALUES, VALUES, VALUES),
    statement(f"insert into {T} values (?, ?, ?) on conflict do update set {A} = excluded.{A}", VALUES, VALUES, VALUES),
    statement(f"insert into {T} values (?, ?, ?) on conflict do update set {K} = ?", VALUES, VALUES, VALUES, VALUES),
    statement(f"update {{word}} {T} set {K} = ? where {A} is ?", VALUES, VALUES),
    statement(f"update {{word}} {T} set {A} = ?, {C} = ? where {K} = ?", VALUES, VALUES, VALUES),
    statement(f"update {{word}} {T} set {C} = ?", VALUES),
    statement(f"delete from {T} where {K} > ?", VALUES),
    st.just((f"delete from {T}", ())),
)
WRITES = st.builds(
    _write,
    st.sampled_from(WriteKind),
    st.lists(ROWS, min_size=1, max_size=3),
    st.sampled_from([COLUMNS[:1], COLUMNS[:2]]),
)
CONTROL = st.sampled_from(["begin", "commit", "rollback", "savepoint s", "rollback to s", "release s", "vacuum"])
READS = st.sampled_from(["receive", "chunk", "chunk", "confirm"])
STEPS = st.lists(
    st.one_of(STATEMENTS, STATEMENTS, st.lists(WRITES, min_size=1, max_size=2), CONTROL, READS), min_size=4, max_size=30
)


@dataclass(slots=True)
class Replica:
    """What somebody who sees nothing but the feed and its chunks believes the table to be."""

    state: dict[WireRow, WireRow] = field(default_factory=lambda: {})
    delivered: dict[int, tuple[list[WireRow], dict[WireRow, WireRow]]] = field(default_factory=lambda: {})
    """Seq → keys gone and rows new, for deliveries that are not echoed."""
    chunk: Chunk | None = None
    touched: set[WireRow] = field(default_factory=lambda: set())
    after: tuple[str, ...] | None = None
    is_copied: bool = False

    def take(self, batch: Batch) -> None:
        for segment in batch.segments:
            if segment.seen is not None:
                gone, new = self.delivered.pop(segment.seen)
                self.touched.update(gone, new)
                for key in gone:
                    self.state.pop(key, None)
                self.state |= new
            for tables in (segment.echoes, segment.tables):
                if TABLE in tables:
                    self.replay(tables[TABLE])
        if self.chunk is not None and self.chunk.high <= batch.position:
            self.settle()

    def replay(self, rows: TableRows) -> None:
        indexes = [rows.shape.index(name) for name in rows.shape.key]
        self.touched.update(key_of(row, indexes) for row in (*rows.rows, *rows.old.values()))
        replay(self.state, rows)

    def settle(self) -> None:
        """The feed has passed the chunk: its rows are true where the feed said nothing since."""
        assert self.chunk is not None
        page, self.chunk = self.chunk.page, None
        indexes = [page.shape.index(name) for name in page.shape.key]
        for row in page.rows:
            if (key := key_of(row, indexes)) not in self.touched:
                self.state[key] = row
        self.after, self.is_copied = page.last_key, page.last_key is None


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    schema=st.sampled_from(SCHEMAS),
    trigger=st.sampled_from(OWNERS_TRIGGERS),
    has_verify=st.booleans(),
    early=st.lists(STATEMENTS, max_size=8),
    steps=STEPS,
    rows_max=st.integers(1, 5),
)
def test_pages_and_feed_are_the_table(
    schema: str, trigger: str, has_verify: bool, early: list[Step], steps: list[Step], rows_max: int
) -> None:
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        # What is confirmed is forgotten at the next read.
        patch.setattr(capture, "PURGE_SECONDS", 0.0)
        world = open_world(Path(directory))
        try:
            world.run(schema, *([trigger] if trigger else []))
            for step in early:
                run(world, step)
            run(world, "rollback")
            anyio.run(partial(follow, world, steps, rows_max, has_trigger=bool(trigger), has_verify=has_verify))
        finally:
            world.users.close()


async def follow(world: World, steps: list[Step], rows_max: int, *, has_trigger: bool, has_verify: bool) -> None:
    await world.setup(TABLE)
    verify = frozenset({TABLE} if has_verify else ())
    replica = Replica()
    async with world.feed(TABLE, verify=verify) as feed, world.session(TABLE) as session:
        for step in steps:
            if isinstance(step, list):
                if world.users.in_transaction:
                    continue
                is_alone = world.seq % 2 == 0
                if is_alone:
                    await catch_up(world, feed, replica, rows_max)
                await deliver(world, session, replica, step, is_echoed=has_trigger or has_verify)
                if is_alone:
                    told = await catch_up(world, feed, replica, rows_max)
                    assert not any(segment.tables for batch in told for segment in batch.segments)
            elif step in ("receive", "chunk", "confirm"):
                await read(world, feed, replica, str(step), rows_max)
            else:
                run(world, step)
        run(world, "rollback")
        while not replica.is_copied:
            await read(world, feed, replica, "chunk", rows_max)
            await catch_up(world, feed, replica, rows_max)
        await catch_up(world, feed, replica, rows_max)
    shape = (await world.system.shapes([TABLE]))[TABLE]
    columns = "*, rowid" if shape.key == ("rowid",) else "*"
    held = world.rows(f"select {columns} from {T}")
    assert sorted(map(repr, exact(replica.state.values()))) == sorted(map(repr, exact(held)))
    assert replica.delivered == {}


async def read(world: World, feed: Feed, replica: Replica, step: str, rows_max: int) -> None:
    if step == "receive" and feed.position.order < (world.head(),):
        replica.take(await feed.receive(rows_max))
    elif step == "chunk" and replica.chunk is None and not replica.is_copied:
        replica.touched.clear()
        replica.chunk = await feed.chunk(TABLE, replica.after, rows_max)
        if replica.chunk.high <= feed.position:
            replica.settle()
    elif step == "confirm":
        feed.confirm(feed.position)


async def catch_up(world: World, feed: Feed, replica: Replica, rows_max: int) -> list[Batch]:
    batches = await world.drain(feed, rows_max)
    for batch in batches:
        replica.take(batch)
    return batches


async def deliver(
    world: World, session: TargetSession, replica: Replica, writes: list[TableWrite], *, is_echoed: bool
) -> None:
    shape = (await world.system.shapes([TABLE]))[TABLE]
    indexes = [shape.index(name) for name in shape.key]
    columns = "*, rowid" if shape.key == ("rowid",) else "*"
    before = by_key(world.rows(f"select {columns} from {T}"), indexes)
    world.seq += 1
    async with session.delivery(world.seq) as delivery:
        for write in writes:
            try:
                await delivery.write(write)
                event("a write is carried out")
            except RowRefused as refused:
                event(f"a write is refused: {refused.reason}")
    now = by_key(world.rows(f"select {columns} from {T}"), indexes)
    gone = [key for key in before if key not in now]
    new = {key: row for key, row in now.items() if key not in before or exact([before[key]]) != exact([row])}
    replica.delivered[world.seq] = ([], {}) if is_echoed else (gone, new)


def by_key(rows: Iterable[WireRow], indexes: Sequence[int | None]) -> dict[WireRow, WireRow]:
    return {key_of(row, indexes): row for row in rows}


def run(world: World, step: Step) -> None:
    sql, bindings = (str(step), ()) if isinstance(step, str | list) else step
    with contextlib.suppress(apsw.Error):
        world.users.execute(sql, bindings)
