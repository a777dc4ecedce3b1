"""Goal: a value is the same, storage class and all, in the table, the feed, a page, and a row that was delivered.

Method: Hypothesis makes rows of all five storage classes; they are written by a user or by a delivery and compared by
type and value with what comes out on the other side.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import anyio
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from engine.errors import RowRefused
from engine.model.value import Wire, WireRow
from plugins.sqlite.snapshot import decode_key, encode_key
from tests.sqlite.support import World, exact, flat, insert, is_same, open_world

pytestmark = pytest.mark.anyio
TABLE = "create table t (id integer primary key, a, b text, c real, d integer, e blob, f numeric)"
COLUMNS = ("id", "a", "b", "c", "d", "e", "f")
VALUES: st.SearchStrategy[Wire] = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(),
    st.binary(),
    st.sampled_from([1, 1.0, "1", b"1", 0.1 + 0.2, -0.0, 2.0**53 + 2, math.inf, -math.inf, "a\0b", "", b"", "1e5"]),
)
ROWS = st.lists(st.tuples(*[VALUES] * 6), min_size=1, max_size=6)
SOME = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def in_world(work: Callable[[World], Awaitable[None]]) -> None:
    """Hypothesis wants a fresh file per example."""
    with tempfile.TemporaryDirectory() as directory:
        world = open_world(Path(directory))
        try:
            anyio.run(partial(work, world))
        finally:
            world.users.close()


@SOME
@given(rows=ROWS)
def test_feed_and_page_give_exactly_what_the_table_holds(rows: list[WireRow]) -> None:
    async def work(world: World) -> None:
        await world.create(TABLE)
        for n, row in enumerate(rows):
            world.users.execute("insert into t values (?, ?, ?, ?, ?, ?, ?)", (n, *row))
        held = exact(world.rows("select * from t"))
        assert exact(row for _, row in flat(await world.changes("t"))) == held
        assert exact((await world.system.page("t", None, 100)).rows) == held

    in_world(work)


@SOME
@given(rows=ROWS)
def test_a_delivery_stores_exactly_what_a_user_would_have_stored(rows: list[WireRow]) -> None:
    async def work(world: World) -> None:
        await world.create(TABLE)
        await world.deliver_alone(insert("t", COLUMNS, [(n, *row) for n, row in enumerate(rows)]))
        delivered = exact(world.rows("select * from t"))
        world.run("delete from t")
        for n, row in enumerate(rows):
            world.users.execute("insert into t values (?, ?, ?, ?, ?, ?, ?)", (n, *row))
        assert delivered == exact(world.rows("select * from t"))

    in_world(work)


@settings(max_examples=60, deadline=None)
@given(
    keys=st.lists(st.tuples(VALUES, VALUES), unique_by=lambda key: tuple(map(repr, key))), rows_max=st.integers(1, 4)
)
@example(keys=[(None, 1), (None, 2), (1, None), (1, 2)], rows_max=1)
@example(keys=[("a", "a\0b"), ("a", "a\0c"), ("a", "b")], rows_max=1)
def test_pages_go_through_keys_of_all_classes_without_gap_or_end(keys: list[tuple[Wire, Wire]], rows_max: int) -> None:
    async def work(world: World) -> None:
        world.run("create table t (a, b, primary key (a, b))")
        world.users.executemany("insert or ignore into t values (?, ?)", keys)
        held = world.rows("select * from t order by a, b")
        found: list[WireRow] = []
        after: tuple[str, ...] | None = None
        for _ in range(len(held) + 1):
            page = await world.system.page("t", after, rows_max)
            found += page.rows
            after = page.last_key
            if after is None:
                break
        assert after is None
        assert exact(found) == exact(held)

    in_world(work)


@given(value=VALUES)
def test_the_place_where_a_page_ends_is_spelt_exactly(value: Wire) -> None:
    assert is_same(decode_key(encode_key(value)), value)


async def test_text_that_is_no_utf8_comes_as_bytes_and_stops_nobody(world: World) -> None:
    await world.create("create table t (id integer primary key, a)")
    world.run("insert into t values (1, 'good'), (2, cast(x'ff41' as text)), (3, x'ff')")
    wanted = exact([(1, "good"), (2, b"\xffA"), (3, b"\xff")])
    assert exact(row for _, row in flat(await world.changes("t"))) == wanted
    assert exact((await world.system.page("t", None, 10)).rows) == wanted
    assert (await world.system.health()).retained_bytes


async def test_a_utf16_database_gives_the_same_texts(world: World) -> None:
    world.run("pragma encoding = 'UTF-16le'")
    await world.create("create table t (id integer primary key, a)")
    assert world.value("pragma encoding") == "UTF-16le"
    await world.deliver_alone(insert("t", ("id", "a"), [(1, "grün 😀")]))
    world.run("insert into t values (2, 'blau 😀')")
    assert world.rows("select a from t") == [("grün 😀",), ("blau 😀",)]
    assert [row[1] for _, row in flat(await world.changes("t"))] == ["blau 😀"]


@pytest.mark.parametrize(
    ("value", "said"),
    [(2**63, "64 bits"), (-(2**63) - 1, "64 bits"), ("\ud800", "Unicode"), (math.nan, "not a number")],
)
async def test_what_sqlite_cannot_hold_is_refused_by_row_and_column(world: World, value: Wire, said: str) -> None:
    """It would take a NaN for null."""
    await world.create(TABLE)
    with pytest.raises(RowRefused, match=said) as caught:
        await world.deliver_alone(insert("t", ("id", "a"), [(1, 2), (2, value)]))
    assert (caught.value.reason, caught.value.row_index, caught.value.context["column"]) == ("value", 1, "a")
    assert str(value).encode("utf-8", "replace") not in str(caught.value).encode()
