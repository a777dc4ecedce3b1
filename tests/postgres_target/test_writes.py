"""Goal: a write does to a table what its kind says, at any number of rows, and says what it could not do.

Method: small tables on a real server; the numbers of rows are chosen on both sides of the limits where the way of
writing changes (COPY, unnest, temporary table).
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine.errors import RowRefused
from engine.model.draw import Sequence as Numbers
from engine.ports import Assigned, WriteResult
from plugins.postgres.apply_delivery import STAGED_ROWS_MIN
from tests.postgres_target.support import World, delete, insert, update

pytestmark = pytest.mark.anyio

COUNTS = [1, 3, STAGED_ROWS_MIN - 1, STAGED_ROWS_MIN, STAGED_ROWS_MIN + 1]


@pytest.mark.parametrize("count", COUNTS)
async def test_rows_that_are_new_are_inserted(world: World, count: int) -> None:
    world.run("create table t (id int primary key, name text)")
    rows = [(str(n), f"name {n}") for n in range(count)]

    await world.deliver_alone(insert("public.t", ("id", "name"), rows))

    assert world.rows("select id::text, name from t order by t.id") == rows


@pytest.mark.parametrize("count", COUNTS)
async def test_an_insert_updates_the_rows_that_exist(world: World, count: int) -> None:
    world.run("create table t (id int primary key, name text, kept text default 'kept')")
    world.run(f"insert into t values ({count - 1}, 'old', 'theirs')")
    rows = [(str(n), f"name {n}") for n in range(count)]

    await world.deliver_alone(insert("public.t", ("id", "name"), rows))

    assert world.rows("select id::text, name from t order by t.id") == rows
    assert world.rows(f"select kept from t where id = {count - 1}") == [("theirs",)]


async def test_a_replay_changes_nothing(world: World) -> None:
    world.run("create table t (id int primary key, name text unique)")
    writes = (
        insert("public.t", ("id", "name"), [("1", "a"), ("2", "b")]),
        update("public.t", ("id", "name"), [("1", "c")]),
        delete("public.t", ("id",), [("2",)]),
    )
    async with world.session("public.t") as session:
        await world.deliver(session, *writes)
        once = world.rows("select * from t")
        await world.deliver(session, *writes)

    assert world.rows("select * from t") == once == [(1, "c")]


async def test_a_key_without_other_columns_is_inserted_once(world: World) -> None:
    world.run("create table t (id int primary key)")
    write = insert("public.t", ("id",), [("1",), ("2",)])

    await world.deliver_alone(write, write)

    assert world.rows("select * from t order by 1") == [(1,), (2,)]


@pytest.mark.parametrize("count", COUNTS)
async def test_an_update_reports_the_rows_that_are_missing(world: World, count: int) -> None:
    world.run("create table t (id int primary key, name text, kept text default 'kept')")
    world.run(f"insert into t select n, 'old' from generate_series(0, {count - 1}) n")
    rows = [(str(n), f"name {n}") for n in range(count)]

    whole = await world.deliver_alone(update("public.t", ("id", "name"), rows))
    assert world.rows("select id::text, name from t order by t.id") == rows
    world.run(f"delete from t where id = {count // 2}")
    lacking = await world.deliver_alone(update("public.t", ("name", "id"), [(f"b{n}", str(n)) for n in range(count)]))

    assert whole == [WriteResult()]
    assert lacking == [WriteResult(missing=(count // 2,))]
    assert world.rows("select count(*), count(*) filter (where name = 'b' || id and kept = 'kept') from t") == [
        (count - 1, count - 1)
    ]


async def test_an_update_of_the_key_alone_reports_what_is_missing(world: World) -> None:
    world.run("create table t (id int primary key)", "insert into t values (1)")

    results = await world.deliver_alone(update("public.t", ("id",), [("1",), ("2",)]))

    assert results == [WriteResult(missing=(1,))]


async def test_a_row_that_is_gone_already_may_be_deleted(world: World) -> None:
    world.run("create table t (a int, b text, name text, primary key (a, b))")
    world.run("insert into t values (1, 'x', 'n'), (1, 'y', 'n'), (2, 'x', 'n')")

    await world.deliver_alone(delete("public.t", ("b", "a"), [("x", "1"), ("z", "9"), ("x", "2")]))

    assert world.rows("select a, b from t") == [(1, "y")]


@pytest.mark.parametrize("count", [2, STAGED_ROWS_MIN])
async def test_composite_keys_and_awkward_names(world: World, count: int) -> None:
    world.run(
        'create schema "A.b"',
        'create table "A.b"."T ""x" ("Id" uuid, "or der" text, "select" int, primary key ("Id", "or der"))',
    )
    table = '"A.b"."T ""x"'
    ids = [f"{n:08x}-0000-0000-0000-000000000000" for n in range(count)]
    key = ("Id", "or der")
    async with world.session(table) as session:
        await world.deliver(session, insert(table, (*key, "select"), [(i, "o'1", "1") for i in ids], key))
        await world.deliver(session, update(table, (*key, "select"), [(i, "o'1", "2") for i in ids], key))
        assert world.rows('select count(*), sum("select") from "A.b"."T ""x"') == [(count, 2 * count)]
        await world.deliver(session, insert(table, (*key, "select"), [(i, "o'1", "3") for i in ids], key))
        await world.deliver(session, delete(table, key, [(ids[0], "o'1")]))

    assert world.rows('select count(*), sum("select") from "A.b"."T ""x"') == [(count - 1, 3 * (count - 1))]


@pytest.mark.parametrize(
    "index",
    [
        "",
        "create index on t (code)",
        "alter table t add unique (code) deferrable initially deferred",
        "create unique index on t (code) where id > 0",
    ],
)
async def test_a_key_without_a_usable_unique_index_is_still_written_once(world: World, index: str) -> None:
    world.run(
        "create table t (id int generated by default as identity primary key, code text, name text)",
        index or "select 1",
    )
    async with world.session("public.t") as session:
        for round_ in ("first", "second"):
            rows = [("a", round_), ("b", round_)]
            await world.deliver(session, insert("public.t", ("code", "name"), rows, key=("code",)))
        await world.deliver(session, insert("public.t", ("code",), [("b",), ("c",)], key=("code",)))

    assert world.rows("select code, name from t order by 1") == [("a", "second"), ("b", "second"), ("c", None)]


async def test_the_users_triggers_fire(world: World) -> None:
    world.run(
        "create table t (id int primary key, name text)",
        "create function shout() returns trigger language plpgsql as"
        " $$ begin new.name := upper(new.name); return new; end $$",
        "create trigger shout before insert or update on t for each row execute function shout()",
    )

    await world.deliver_alone(
        insert("public.t", ("id", "name"), [("1", "a")]), update("public.t", ("id", "name"), [("1", "b")])
    )

    assert world.rows("select name from t") == [("B",)]


KEYS = {
    "serial": "id serial",
    "always": "id bigint generated always as identity",
    "by default": "id bigint generated by default as identity",
    "uuid": "id uuid default gen_random_uuid()",
    "own default": "id text default 'C' || (random() * 1e15)::bigint",
}


@pytest.mark.parametrize("count", [1, 1_000])
@pytest.mark.parametrize("kind", KEYS)
async def test_assigned_keys_are_paired_with_their_records(world: World, kind: str, count: int) -> None:
    world.run(f"create table t ({KEYS[kind]} primary key, name text)")
    rids = [7 * n + 1 for n in range(count)]
    write = insert(
        "public.t", ("name",), [(f"name {rid}",) for rid in rids], assigned="id", place="customers", rids=rids
    )
    async with world.session("public.t") as session:
        (result,) = await world.deliver(session, write)
        assigned = await session.assigned(0)
        later = await session.assigned(world.seq)

    assert dict(world.rows("select id::text, name from t")) == {
        key: f"name {rid}" for key, rid in zip(result.keys, rids, strict=True)
    }
    expected = [
        Assigned(rid=rid, place="customers", key=key, seq=1) for rid, key in zip(rids, result.keys, strict=True)
    ]
    assert sorted(assigned, key=lambda a: a.rid) == expected
    assert later == ()


async def test_a_record_that_has_an_assigned_key_keeps_it(world: World) -> None:
    world.run("create table t (id int generated always as identity primary key, name text)")
    columns, options = ("name",), {"assigned": "id", "place": "customers"}
    async with world.session("public.t") as session:
        (first,) = await world.deliver(session, insert("public.t", columns, [("a",), ("b",)], rids=[1, 2], **options))
        (again,) = await world.deliver(
            session, insert("public.t", columns, [("c",), ("b2",), ("a",)], rids=[3, 2, 1], **options)
        )

    assert again.keys[1:] == first.keys[::-1]
    assert dict(world.rows("select id::text, name from t")) == {
        first.keys[0]: "a",
        first.keys[1]: "b2",
        again.keys[0]: "c",
    }
    assert world.rows("select count(*) from concord.identity") == [(3,)]


async def test_keys_are_drawn_from_a_sequence_one_number_each_whatever_its_increment(world: World) -> None:
    world.run("create table t (id bigint primary key, name text)", "create sequence t_seq increment 50")
    rows, rids = [(f"name {n}",) for n in range(3)], [11, 12, 13]
    write = replace(
        insert("public.t", ("name",), rows, assigned="id", place="t", rids=rids), draw=Numbers(name="t_seq")
    )
    async with world.session("public.t") as session:
        (result,) = await world.deliver(session, write)
        (again,) = await world.deliver(session, write)
        assert sorted(found.key for found in await session.assigned(0)) == ["1", "101", "51"]
    assert result.keys == again.keys == ("1", "51", "101")
    assert world.rows("select id, name from t order by id") == [(1, "name 0"), (51, "name 1"), (101, "name 2")]
    missing = replace(write, draw=Numbers(name="nowhere"), rids=[21, 22, 23])
    with pytest.raises(RowRefused, match="nowhere"):
        await world.deliver_alone(missing)


async def test_a_table_with_nothing_but_an_assigned_key(world: World) -> None:
    world.run("create table t (id int generated always as identity primary key)")

    (result,) = await world.deliver_alone(insert("public.t", (), [(), ()], assigned="id"))

    assert world.rows("select id::text from t order by t.id") == [(key,) for key in result.keys]


async def test_an_assigned_key_that_a_trigger_makes_is_the_one_kept(world: World) -> None:
    world.run(
        "create table t (id int generated always as identity primary key, name text)",
        "create function renumber() returns trigger language plpgsql as"
        " $$ begin new.id := 1000 + new.id; return new; end $$",
        "create trigger renumber before insert on t for each row execute function renumber()",
    )

    (result,) = await world.deliver_alone(insert("public.t", ("name",), [("a",), ("b",)], assigned="id"))

    assert dict(world.rows("select id::text, name from t")) == dict(zip(result.keys, "ab", strict=True))


async def test_a_row_that_a_trigger_leaves_out_is_refused_and_its_neighbour_not(world: World) -> None:
    world.run(
        "create table t (id int generated always as identity primary key, name text)",
        "create function skip() returns trigger language plpgsql as"
        " $$ begin if new.name = 'b' then return null; end if; return new; end $$",
        "create trigger skip before insert on t for each row execute function skip()",
    )
    async with world.session("public.t") as session, session.delivery(1) as delivery:
        with pytest.raises(RowRefused) as refused:
            await delivery.write(insert("public.t", ("name",), [("a",), ("b",)], assigned="id"))
        await delivery.write(insert("public.t", ("name",), [("a",)], assigned="id"))

    assert refused.value.context["column"] == "id"
    assert world.rows("select name from t") == [("a",)]


async def test_without_the_temp_privilege_a_large_update_goes_another_way(world: World) -> None:
    world.run("create table t (id int primary key, name text)")
    world.run("insert into t select n, 'a' from generate_series(1, 5000) n")
    async with world.role("writer") as writer:
        world.run(f"revoke temporary on database {world.database} from public")
        world.run("grant all on t to writer")
        async with writer.session("public.t") as session:
            rows = [(str(n), "b") for n in range(1, 5001)]
            assert await writer.deliver(session, update("public.t", ("id", "name"), rows)) == [WriteResult()]
            with pytest.raises(RowRefused):
                await writer.deliver(session, update("public.t", ("id", "name"), [("x", "b")]))

    assert world.rows("select count(*) from t where name = 'b'") == [(5000,)]


async def test_an_update_does_not_scan_a_table_that_was_small_when_it_was_first_updated(world: World) -> None:
    """A cached plan made for ten rows reads the whole table; nobody may have analyzed it since."""
    world.run("create table t (id int primary key, name text) with (autovacuum_enabled = false)")
    small = [(str(n), "a") for n in range(10)]
    large = [(str(n), "a") for n in range(10, 30_000)]
    columns = ("id", "name")
    async with world.session("public.t") as session:
        await world.deliver(session, insert("public.t", columns, small))
        for _ in range(10):
            await world.deliver(session, update("public.t", columns, small))
        await world.deliver(session, insert("public.t", columns, large))
        for _ in range(20):
            await world.deliver(session, update("public.t", columns, small))

    ((rows_scanned,),) = world.rows("select seq_tup_read from pg_stat_user_tables where relname = 't'")
    assert rows_scanned < 3 * len(large)


async def test_large_updates_leave_no_temporary_table(world: World) -> None:
    world.run("create table t (id int primary key, name text)")
    world.run(f"insert into t select n, 'a' from generate_series(1, {STAGED_ROWS_MIN}) n")
    write = update("public.t", ("id", "name"), [(str(n), "b") for n in range(1, STAGED_ROWS_MIN + 1)])
    async with world.session("public.t") as session:
        await world.deliver(session, write, write)
        await world.deliver(session, write)
        assert world.rows("select relname from pg_class where relname like 'concord_stage%'") == []
