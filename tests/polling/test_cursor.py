"""Goal: a table with an updated-at column is read from there on, and no row is missed for having been committed late.

Method: on each kind of database, rows whose updated-at lies before that of rows seen already; all rows are compared
seldom enough that no look finds them so. Where the database tells which transactions are open nothing is missed however
late; elsewhere, what is later than the overlap comes with the next comparison of all rows.
"""

from __future__ import annotations

from typing import Any

import psycopg
import pymysql
import pytest

from engine.testing.contract import flat
from plugins.polling import capture
from plugins.polling.config import Argument
from tests.polling.support import SELDOM, Polled

KNOWN_BY_OVERLAP = ("sqlite", "duckdb")
"""They do not tell which transactions are open."""


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "KEEP_ALIVE_SECONDS", 0.0)


async def made(kit: Polled, **options: Any) -> str:
    """A table with an updated-at column; its rows are compared all together as seldom as `sweep_every` says."""
    kit.users.transaction(
        f"create table orders (id integer primary key, state {kit.text}, changed_at {kit.moment} not null)",
        "insert into orders values (1, 'old', '2026-01-01 10:00:00')",
    )
    table = kit.schema + "orders"
    kit.tune(table, updated_at="changed_at", **({"sweep_every": SELDOM, "overlap": 0.0} | options))
    await kit.setup(table)
    return table


@pytest.mark.anyio
async def test_rows_behind_the_cursor_are_read_and_no_others(kit: Polled) -> None:
    if kit.kind not in KNOWN_BY_OVERLAP:
        pytest.skip("it goes back to a look before the last, see below")
    table = await made(kit)
    async with kit.feed(table) as feed:
        kit.users.transaction("insert into orders values (2, 'new', '2026-01-01 11:00:00')")
        kit.users.transaction("update orders set state = 'touched', changed_at = '2026-01-01 12:00:00' where id = 1")
        kit.users.transaction("insert into orders values (3, 'same time', '2026-01-01 12:00:00')")
        found = await kit.found(feed, table)
        assert {(op, row[:2]) for op, row in found} == {
            ("I", ("2", "new")), ("U", ("1", "touched")), ("I", ("3", "same time")),
        }  # fmt: skip
        kit.users.transaction("update orders set state = 'unseen' where id = 2", "delete from orders where id = 3")
        kit.users.transaction("insert into orders values (4, 'same time too', '2026-01-01 12:00:00')")
        assert [(op, row[:2]) for op, row in await kit.found(feed, table)] == [("I", ("4", "same time too"))]
        assert await kit.found(feed, table) == [], "rows that are read again are known"


@pytest.mark.anyio
async def test_with_nothing_open_a_server_is_read_from_the_look_before_the_last(kit: Polled) -> None:
    if kit.kind != "postgres":
        pytest.skip("nobody tells, or in whole seconds only")
    table = await made(kit)
    async with kit.feed(table) as feed:
        kit.users.transaction("insert into orders values (2, 'new', '2026-01-01 11:00:00')")
        for _ in range(3):
            await kit.found(feed, table)
        kit.users.transaction("update orders set state = 'unseen' where id = 1")
        kit.users.transaction("update orders set state = 'seen' where id = 2")
        assert [row[0] for _, row in await kit.found(feed, table)] == ["2"]


@pytest.mark.anyio
async def test_the_comparison_of_all_rows_finds_the_rest(kit: Polled) -> None:
    table = await made(kit, sweep_every=1e-6)
    async with kit.feed(table) as feed:
        kit.users.transaction(
            "insert into orders values (2, 'late', '2025-01-01 10:00:00')",
            "update orders set state = 'no new time' where id = 1",
        )
        found = await kit.found(feed, table)
        assert {(op, row[:2]) for op, row in found} == {("I", ("2", "late")), ("U", ("1", "no new time"))}
        kit.users.transaction("delete from orders where id = 1")
        assert [op for op, _ in await kit.found(feed, table)] == ["D"]


@pytest.mark.anyio
async def test_what_a_look_has_read_is_compared_again_though_its_span_is_as_before(kit: Polled) -> None:
    """The database's hash of a stretch of rows is that of the comparison before, and what is known of them is not."""
    table = await made(kit, sweep_every=SELDOM)
    async with kit.feed(table) as feed:
        kit.users.transaction("update orders set state = 'new', changed_at = '2026-01-02 10:00:00' where id = 1")
        assert [row[:2] for _, row in await kit.found(feed, table)] == [("1", "new")]
        kit.users.transaction("update orders set state = 'old', changed_at = '2026-01-01 10:00:00' where id = 1")
        place = feed.position
    kit.tune(table, updated_at="changed_at", sweep_every=1e-6, overlap=0.0)
    async with kit.feed(table, after=place) as feed:
        assert [row[:2] for _, row in await kit.found(feed, table)] == [("1", "old")]


@pytest.mark.anyio
async def test_a_row_that_came_and_went_between_two_comparisons_is_gone(kit: Polled) -> None:
    """A look has found it, and no comparison of all rows ever saw where it was."""
    table = await made(kit, sweep_every=SELDOM)
    async with kit.feed(table) as feed:
        kit.users.transaction("insert into orders values (2, 'short', '2026-01-02 10:00:00')")
        assert [op for op, _ in await kit.found(feed, table)] == ["I"]
        kit.users.transaction("delete from orders where id = 2")
        place = feed.position
    kit.tune(table, updated_at="changed_at", sweep_every=1e-6, overlap=0.0)
    async with kit.feed(table, after=place) as feed:
        assert [(op, row[0]) for op, row in await kit.found(feed, table)] == [("D", "2")]


@pytest.mark.anyio
async def test_the_overlap_is_read_again(kit: Polled) -> None:
    if kit.kind not in KNOWN_BY_OVERLAP:
        pytest.skip("it goes back to a look before the last, see below")
    table = await made(kit, overlap=3600.0)
    async with kit.feed(table) as feed:
        kit.users.transaction("insert into orders values (2, 'on time', '2026-01-01 12:00:00')")
        await kit.found(feed, table)
        kit.users.transaction("insert into orders values (3, 'late', '2026-01-01 11:30:00')")
        kit.users.transaction("insert into orders values (4, 'too late', '2026-01-01 10:30:00')")
        assert [row[:2] for _, row in await kit.found(feed, table)] == [("3", "late")]


class _Late:
    """A user whose transaction is open for long: it has taken its time, and commits when it is told."""

    def __init__(self, kit: Polled) -> None:
        argument = kit.config.connect
        self._connection: Any = _psycopg(argument) if kit.kind == "postgres" else _pymysql(argument)
        self._cursor: Any = self._connection.cursor()

    def run(self, sql: str) -> None:
        self._cursor.execute(sql)

    def commit(self) -> None:
        self._connection.commit()

    def close(self) -> None:
        self._connection.close()


def _psycopg(argument: dict[str, Argument]) -> Any:
    return psycopg.connect(str(argument["conninfo"]))


def _pymysql(argument: dict[str, Argument]) -> Any:
    given: dict[str, Any] = dict(argument)
    return pymysql.Connection(**given)


@pytest.mark.anyio
async def test_a_row_committed_late_is_not_missed_however_late(kit: Polled) -> None:
    if kit.kind not in ("postgres", "mariadb"):
        pytest.skip("one writer at a time, or nobody tells what is open")
    now = "now()" if kit.kind == "postgres" else "now(6)"
    table = await made(kit)
    async with kit.feed(table) as feed:
        await kit.found(feed, table)
        late = _Late(kit)
        late.run(f"insert into orders values (10, 'late', {now})")
        for n in range(20, 24):
            kit.users.transaction(f"insert into orders values ({n}, 'in time', {now})")
            assert [row[0] for _, row in await kit.found(feed, table)] == [str(n)]
        late.commit()
        assert [row[:2] for _, row in await kit.found(feed, table)] == [("10", "late")]
        late.close()


@pytest.mark.anyio
async def test_what_is_remembered_of_looks_does_not_grow(kit: Polled) -> None:
    if kit.kind == "mariadb":
        pytest.skip("it tells whole seconds, in which there are many looks of a hundredth")
    table = await made(kit)
    async with kit.feed(table) as feed:
        for n in range(2, 8):
            now = {"postgres": "now()", "mariadb": "now(6)"}.get(kit.kind, f"'2026-01-01 12:00:0{n}'")
            kit.users.transaction(f"insert into orders values ({n}, 'x', {now})")
            await kit.found(feed, table)
        looker = feed._looker  # pyright: ignore
        assert len(looker.tables[table].history) <= 4  # pyright: ignore


@pytest.mark.anyio
async def test_a_change_has_the_time_that_its_row_has(kit: Polled) -> None:
    if kit.kind != "postgres":
        pytest.skip("its updated-at has no zone")
    table = await made(kit)
    async with kit.feed(table) as feed:
        kit.users.transaction("insert into orders values (2, 'new', '2026-01-01 11:00:00+01')")
        batches = await kit.drain(feed)
    times = [t for b in batches for s in b.segments if table in s.tables for t in s.tables[table].times]
    assert times == [1_767_261_600_000_000]
    assert len(flat(batches, table)) == 1
