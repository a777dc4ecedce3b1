"""Goal: whatever a server may say to a write ends as the right error, which names what a person needs and no value.

Method: each mistake is made on a real server, among good rows and alone; then the delivery must go on. Values that must
not show up hold the word SECRET, or a number of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import asyncpg
import pytest

from engine.errors import RowRefused, TargetBusy
from engine.ports import TableWrite
from plugins.postgres.apply_delivery import STAGED_ROWS_MIN
from plugins.postgres.apply_refusals import refusal
from tests.postgres_target.support import World, delete, insert, update

pytestmark = pytest.mark.anyio

SCHEMA = """
create type mood as enum ('good', 'bad');
create domain age as int check (value > 0);
create table parent (id int primary key, name text);
create table t (
  id int primary key,
  name text not null,
  short varchar(5),
  fixed char(3),
  bits bit(4),
  price numeric(6,2) check (price < 500),
  small smallint,
  day date,
  at timestamptz,
  flag boolean,
  code uuid,
  doc jsonb,
  tags int[],
  net inet,
  mood mood,
  age age,
  parent int references parent,
  "Odd: name" int,
  email text unique,
  a int, b text,
  twice int generated always as (id * 2) stored,
  constraint pair unique (a, b),
  exclude using btree (net with =)
);
insert into parent values (1, 'p');
insert into t (id, name, email, a, b, parent) values (90000, 'x', 'SECRET@taken', 7, 'SECRET', 1);
"""

BAD = {
    "too long": ("short", "SECRET", "value"),
    "too long a char": ("fixed", "SECRET", "value"),
    "too long a bit string": ("bits", "10101", "value"),
    "too great a numeric": ("price", "98765.43", "value"),
    "too great a smallint": ("small", "98765", "value"),
    "no number": ("small", "SECRET", "value"),
    "no day": ("day", "2024-02-30", "value"),
    "no time": ("at", "SECRET", "value"),
    "no boolean": ("flag", "SECRET", "value"),
    "no uuid": ("code", "SECRET", "value"),
    "no json": ("doc", '{"SECRET', "value"),
    "no array": ("tags", "{1,SECRET", "value"),
    "no address": ("net", "SECRET", "value"),
    "no label": ("mood", "SECRET", "value"),
    "not in the domain": ("age", "-98765", "check"),
    "an odd name": ("Odd: name", "SECRET", "value"),
    "nul": ("name", "SEC\0RET", "value"),
    "half a pair": ("name", "SECRET\ud800", "value"),
    "null": ("name", None, "not_null"),
    "no parent": ("parent", "98765", "foreign_key"),
    "taken": ("email", "SECRET@taken", "unique"),
}


def _rows(column: str, value: str | None, count: int, bad: int) -> tuple[tuple[str, ...], list[tuple[str | None, ...]]]:
    """`count` good rows, the one at `bad` with `value` in `column`."""
    columns = ("id", "name", column) if column != "name" else ("id", "name")
    rows: list[tuple[str | None, ...]] = []
    for n in range(count):
        good = (str(n), "fine", None) if column != "name" else (str(n), "fine")
        rows.append((*good[: len(columns) - 1], value) if n == bad else good)
    return columns, rows


@pytest.mark.parametrize("count", [1, 9, STAGED_ROWS_MIN])
@pytest.mark.parametrize("mistake", BAD)
async def test_a_bad_row_among_new_ones_is_named(world: World, mistake: str, count: int) -> None:
    column, value, reason = BAD[mistake]
    bad = count // 2
    columns, rows = _rows(column, value, count, bad)
    world.run(*SCHEMA.split(";\n"))
    async with world.session("public.t") as session, session.delivery(1) as delivery:
        with pytest.raises(RowRefused) as refused:
            await delivery.write(insert("public.t", columns, rows))
        await delivery.write(
            insert(
                "public.t",
                columns,
                [row for n, row in enumerate(rows) if n != bad] or [("5", "f", None)[: len(columns)]],
            )
        )

    _is_telling(refused.value, reason, column)
    assert refused.value.row_index == bad
    assert world.rows("select count(*) from t where id < 90000") == [(max(count - 1, 1),)]


@pytest.mark.parametrize("count", [1, 9, STAGED_ROWS_MIN])
@pytest.mark.parametrize("mistake", BAD)
async def test_a_bad_row_among_updates_is_named(world: World, mistake: str, count: int) -> None:
    column, value, reason = BAD[mistake]
    bad = count // 2
    columns, rows = _rows(column, value, count, bad)
    world.run(*SCHEMA.split(";\n"), f"insert into t (id, name) select n, 'old' from generate_series(0, {count - 1}) n")
    async with world.session("public.t") as session, session.delivery(1) as delivery:
        with pytest.raises(RowRefused) as refused:
            await delivery.write(update("public.t", columns, rows))
        others = [row for n, row in enumerate(rows) if n != bad]
        await delivery.write(update("public.t", columns, others))

    _is_telling(refused.value, reason, column)
    if reason != "not_null":
        assert refused.value.row_index == bad
    assert world.rows("select count(*) from t where id < 90000 and name = 'fine'") == [(count - 1,)]


async def test_a_bad_row_of_an_upsert_is_named(world: World) -> None:
    world.run(*SCHEMA.split(";\n"))
    rows = [("90000", "fine", "ok"), ("1", "fine", "SECRET")]
    async with world.session("public.t") as session, session.delivery(1) as delivery:
        with pytest.raises(RowRefused) as refused:
            await delivery.write(insert("public.t", ("id", "name", "short"), rows))
        with pytest.raises(RowRefused) as taken:
            await delivery.write(
                insert(
                    "public.t", ("id", "email", "name"), [("90000", "x", "n"), ("90001", "y", "n"), ("90002", "x", "n")]
                )
            )
        await delivery.write(insert("public.t", ("id", "name", "short"), rows[:1]))

    _is_telling(refused.value, "value", "short")
    assert refused.value.row_index == 1
    _is_telling(taken.value, "unique", "email")
    assert world.rows("select id, short from t") == [(90000, "ok")]


async def test_a_bad_row_with_an_assigned_key_is_named(world: World) -> None:
    world.run("create table s (id serial primary key, name varchar(5))")
    async with world.session("public.s") as session, session.delivery(1) as delivery:
        with pytest.raises(RowRefused) as refused:
            await delivery.write(insert("public.s", ("name",), [("a",), ("SECRET",)], assigned="id"))
        await delivery.write(insert("public.s", ("name",), [("a",)], assigned="id"))

    _is_telling(refused.value, "value", "name")
    assert refused.value.row_index == 1
    assert world.rows("select name from s") == [("a",)]
    assert world.rows("select count(*) from concord.identity") == [(1,)]


async def test_a_unique_constraint_of_several_columns_is_named_with_them(world: World) -> None:
    world.run(*SCHEMA.split(";\n"))
    rows = [("1", "n", "7", "free"), ("2", "n", "7", "SECRET")]
    async with world.session("public.t") as session, session.delivery(1) as delivery:
        with pytest.raises(RowRefused, match=r"constraint pair.*columns a, b") as refused:
            await delivery.write(insert("public.t", ("id", "name", "a", "b"), rows))

    _is_telling(refused.value, "unique", "")
    assert refused.value.row_index == 1
    assert refused.value.context["columns"] == ("a", "b")


async def test_a_check_constraint_is_named(world: World) -> None:
    world.run(*SCHEMA.split(";\n"))
    async with world.session("public.t") as session, session.delivery(1) as delivery:
        with pytest.raises(RowRefused, match="t_price_check") as refused:
            await delivery.write(insert("public.t", ("id", "name", "price"), [("1", "n", "1"), ("2", "n", "501.25")]))
    _is_telling(refused.value, "check", "")
    assert refused.value.row_index == 1


async def test_an_exclusion_constraint_is_named(world: World) -> None:
    world.run(*SCHEMA.split(";\n"))
    rows = [("1", "n", "10.0.0.1"), ("2", "n", "10.0.0.1")]
    async with world.session("public.t") as session, session.delivery(1) as delivery:
        with pytest.raises(RowRefused, match="t_net_excl") as refused:
            await delivery.write(insert("public.t", ("id", "name", "net"), rows))
    _is_telling(refused.value, "unique", "net")


async def test_a_parent_with_children_is_not_deleted(world: World) -> None:
    world.run(*SCHEMA.split(";\n"), "insert into parent values (2, 'q')")
    async with world.session("public.parent") as session, session.delivery(1) as delivery:
        with pytest.raises(RowRefused, match="t_parent_fkey") as refused:
            await delivery.write(delete("public.parent", ("id",), [("2",), ("1",)]))
        await delivery.write(delete("public.parent", ("id",), [("2",)]))
    _is_telling(refused.value, "foreign_key", "id")
    assert refused.value.row_index == 1
    assert world.rows("select id from parent") == [(1,)]


async def test_a_triggers_refusal_does_not_show_its_words(world: World) -> None:
    world.run(
        "create table t (id int primary key, name text)",
        "create function refuse() returns trigger language plpgsql as"
        " $$ begin if new.name like 'SECRET%' then raise exception 'no %', new.name; end if; return new; end $$",
        "create trigger refuse before insert or update on t for each row execute function refuse()",
    )
    async with world.session("public.t") as session, session.delivery(1) as delivery:
        with pytest.raises(RowRefused) as refused:
            await delivery.write(insert("public.t", ("id", "name"), [("1", "a"), ("2", "SECRET")]))
        await delivery.write(insert("public.t", ("id", "name"), [("1", "a")]))
        with pytest.raises(RowRefused) as alone:
            await delivery.write(update("public.t", ("id", "name"), [("1", "SECRET")]))
    _is_telling(refused.value, "other", "")
    assert refused.value.row_index == 1
    assert alone.value.row_index == 0
    assert world.rows("select id, name from t") == [(1, "a")]


async def test_a_generated_column_is_not_written(world: World) -> None:
    world.run(*SCHEMA.split(";\n"))
    async with world.session("public.t") as session, session.delivery(1) as delivery:
        for write in (insert, update):
            with pytest.raises(RowRefused) as refused:
                await delivery.write(write("public.t", ("id", "twice"), [("1", "2")]))
            _is_telling(refused.value, "table", "twice")


@pytest.mark.parametrize(
    "write",
    [
        insert("public.gone", ("id",), [("1",)]),
        update("public.gone", ("id", "name"), [("1", "SECRET")]),
        delete("public.gone", ("id",), [("1",)]),
    ],
)
async def test_a_table_dropped_under_us_refuses_its_rows_and_no_others(world: World, write: TableWrite) -> None:
    world.run("create table gone (id int primary key, name text)", "create table t (id int primary key)")
    async with world.session("public.gone", "public.t") as session:
        await world.deliver(session, write)
        world.run("drop table gone")
        async with session.delivery(2) as delivery:
            await delivery.write(insert("public.t", ("id",), [("1",)]))
            with pytest.raises(RowRefused) as refused:
                await delivery.write(write)
            await delivery.write(insert("public.t", ("id",), [("2",)]))
        _is_telling(refused.value, "table", "")
        world.run("create table gone (id int primary key, name text)")
        await world.deliver(session, write)
    assert world.rows("select count(*) from t") == [(2,)]


async def test_a_column_that_is_gone_is_named(world: World) -> None:
    world.run("create table t (id int primary key, name text)")
    async with world.session("public.t") as session:
        await world.deliver(session, insert("public.t", ("id", "name"), [("1", "a")]))
        world.run("alter table t drop column name")
        for write in (insert, update):
            with pytest.raises(RowRefused) as refused:
                await world.deliver(session, write("public.t", ("id", "name"), [("1", "SECRET")]))
            _is_telling(refused.value, "table", "name")


async def test_a_column_that_changes_its_type_is_followed(world: World) -> None:
    world.run("create table t (id int primary key, amount int)", "insert into t values (1, 1)")
    async with world.session("public.t") as session:
        for value in ("2", "3"):
            await world.deliver(session, update("public.t", ("id", "amount"), [("1", value)]))
        world.run("alter table t alter amount type numeric(9,3)")
        await world.deliver(session, update("public.t", ("id", "amount"), [("1", "4.125")]))
        assert world.rows("select amount::text from t") == [("4.125",)]
        world.run("alter table t alter amount type text")
        await world.deliver(session, update("public.t", ("id", "amount"), [("1", "five")]))
        world.run("alter table t add added text")
        await world.deliver(session, update("public.t", ("id", "added"), [("1", "six")]))
    assert world.rows("select amount, added from t") == [("five", "six")]


@pytest.mark.parametrize("kind", ["insert", "update", "delete"])
async def test_a_privilege_taken_away_refuses_the_tables_rows(world: World, kind: str) -> None:
    world.run("create table t (id int primary key, name text)", "insert into t values (1, 'a')")
    writes: dict[str, Callable[[], TableWrite]] = {
        "insert": lambda: insert("public.t", ("id", "name"), [("2", "SECRET")]),
        "update": lambda: update("public.t", ("id", "name"), [("1", "SECRET")]),
        "delete": lambda: delete("public.t", ("id",), [("1",)]),
    }
    async with world.role("clerk") as clerk:
        world.run("grant all on t to clerk")
        async with clerk.session("public.t") as session:
            await clerk.deliver(session, writes[kind]())
            world.run(f"revoke {kind} on t from clerk")
            with pytest.raises(RowRefused) as refused:
                await clerk.deliver(session, writes[kind]())
    _is_telling(refused.value, "permission", "")


@dataclass
class _Raised:
    state: str
    error: type[Exception]


@pytest.mark.parametrize(
    "raised",
    [
        _Raised("53100", TargetBusy),
        _Raised("53200", TargetBusy),
        _Raised("40001", TargetBusy),
        _Raised("40P01", TargetBusy),
        _Raised("25006", TargetBusy),
        _Raised("57014", TargetBusy),
    ],
    ids=lambda raised: raised.state,
)
async def test_what_passes_by_itself_is_no_refusal(world: World, raised: _Raised) -> None:
    """A trigger stands in for a full disk and the like: the server reports those in the same way."""
    world.run(
        "create table t (id int primary key)",
        "create function fail() returns trigger language plpgsql as"
        f" $$ begin raise exception 'SECRET' using errcode = '{raised.state}'; end $$",
        "create trigger fail before insert or delete on t for each row execute function fail()",
    )
    async with world.session("public.t") as session:
        with pytest.raises(raised.error) as failed:
            await world.deliver(session, insert("public.t", ("id",), [("1",)]))
        assert "SECRET" not in str(failed.value)
        world.run("alter table t disable trigger fail")
        await world.deliver(session, insert("public.t", ("id",), [("1",)]))
    assert world.marker()[2] == 2


def _is_telling(error: RowRefused, reason: str, column: str) -> None:
    """Its reason is `reason`, it names system and table and, unless empty, the column; and no value of a row."""
    told = f"{error} {error.context}"
    assert error.reason == reason, told
    assert "system crm, table public." in told
    assert column in told
    for value in ("SECRET", "98765", "2024-02-30", "10101", "501.25", "10.0.0.1"):
        assert value not in told


@pytest.mark.parametrize(
    ("relation", "context", "row_index", "column"),
    [
        ("t", 'COPY t, line 2, column name: "SECRET, line 1"', 1, "name"),
        ("t", "COPY t, Zeile 2, Spalte name: »SECRET«", 1, "name"),
        ("t", 'PL/pgSQL function f() line 9 at RAISE\nCOPY t, line 2: "SECRET, column id: 1"', 1, None),
        ("t", 'COPY t, line 99: "SECRET"', None, None),
        ("t", 'COPY other, line 2: "SECRET"', None, None),
        ("t", "", None, None),
        ("concord_stage_12", 'COPY concord_stage_12, line 2, column c1: "c0"', 1, "name"),
        ("concord_stage_12", "COPY concord_stage_12, ligne 2, colonne c1 : « SECRET »", 1, "name"),
        ("concord_stage_12", 'concord_stage_12のCOPY、行2、列c1: "SECRET"', 1, "name"),
        ("concord_stage_12", 'COPY concord_stage_12, line 2: "c1\tc0"', 1, None),
    ],
)
def test_row_and_column_are_found_in_any_language(
    relation: str, context: str, row_index: int | None, column: str | None
) -> None:
    error = asyncpg.InvalidTextRepresentationError("SECRET")
    vars(error)["context"] = context
    write = insert("public.t", ("id", "name"), [("1", "a"), ("2", "SECRET"), ("3", "c")])

    found = refusal(error, "crm", write, relation=relation)

    assert isinstance(found, RowRefused)
    _is_telling(found, "value", column or "")
    assert found.row_index == row_index
    assert found.context.get("column") == column
