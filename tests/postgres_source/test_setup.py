"""Goal: set-up does what its plan says, once; the check names all that would stop us, with the SQL that mends it.
Method: real databases in good and bad states; the SQL of plans and findings is run as it stands."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from engine.errors import SourceUnready
from engine.ports import Finding, Role
from engine.testing.postgres import start_postgres
from tests.postgres_source.support import World, flat, make_world

pytestmark = pytest.mark.anyio
BOTH = Role.SOURCE | Role.TARGET


def fatal(findings: tuple[Finding, ...]) -> dict[str, Finding]:
    return {finding.path: finding for finding in findings if finding.is_fatal}


async def test_setup_carries_out_its_plan_once(world: World) -> None:
    world.run("create table t (id int primary key)", "create table u (id int primary key)")
    planned = await world.system.plan(["t"], BOTH)
    before = await world.system.plan(["t"], BOTH)
    done = await world.system.setup(["t"], BOTH)

    assert planned == before == done
    assert await world.system.plan(["t"], BOTH) == ()
    assert await world.system.setup(["t"], BOTH) == ()
    assert fatal(await world.system.check(["t"], BOTH)) == {}
    assert world.rows("select id, hub, epoch, seq from concord.marker") == [(1, None, 0, 0)]
    assert world.rows("select rid, place, key, seq from concord.identity") == []


async def test_a_dba_can_run_the_plan_by_hand(world: World) -> None:
    world.run("create table t (id int primary key)")
    for step in await world.system.plan(["t"], BOTH):
        world.run(step.sql)

    assert await world.system.plan(["t"], BOTH) == ()


async def test_a_table_mapped_later_is_added_and_captured(world: World) -> None:
    world.run("create table t (id int primary key)", "create table u (id int primary key)")
    await world.setup("t")
    steps = await world.system.setup(["t", "u"], BOTH)
    world.run("insert into u values (1)")

    assert [step.sql for step in steps] == ['alter publication "concord_crm" add table "public"."u";']
    assert flat(await world.changes("t", "u")) == [("I", "u", ("1",))]


async def test_an_altered_publication_is_put_right(world: World) -> None:
    world.run("create table t (id int primary key)")
    await world.setup("t")
    world.run("alter publication concord_crm set (publish = 'insert', publish_via_partition_root = false)")
    findings = fatal(await world.system.check(["t"], BOTH))
    world.run("create table p (id int primary key) partition by list (id)")
    told_of_partitions = [
        f.is_fatal
        for tables in (["t"], ["p"])
        for f in await world.system.check(tables, BOTH)
        if "partition's name" in f.message
    ]
    await world.setup("t")

    assert "does not publish update, delete, truncate" in findings["publication concord_crm"].message
    assert told_of_partitions == [False, True]
    assert await world.system.plan(["t"], BOTH) == ()
    assert fatal(await world.system.check(["t"], BOTH)) == {}


async def test_a_source_alone_needs_no_tables_of_ours(world: World) -> None:
    world.run("create table t (id int primary key)")
    await world.setup("t", role=Role.SOURCE)

    assert world.rows("select count(*) from pg_namespace where nspname = 'concord'") == [(0,)]
    assert world.rows("select tablename::text from pg_publication_tables") == [("t",)]


async def test_a_source_that_becomes_a_target_publishes_the_marker(world: World) -> None:
    world.run("create table t (id int primary key)")
    await world.setup("t", role=Role.SOURCE)
    await world.setup("t", role=BOTH)

    assert sorted(world.rows("select tablename::text from pg_publication_tables")) == [("marker",), ("t",)]


async def test_teardown_leaves_nothing(world: World) -> None:
    world.run("create table t (id int primary key)")
    await world.setup("t")
    steps = await world.system.teardown()

    assert len(steps) == 5
    assert await world.system.teardown() == ()
    for relation in ("pg_replication_slots where database = current_database()", "pg_publication"):
        assert world.rows(f"select count(*) from {relation}") == [(0,)]
    assert world.rows("select count(*) from pg_namespace where nspname = 'concord'") == [(0,)]


async def test_tables_that_do_not_exist_are_named(world: World) -> None:
    with pytest.raises(SourceUnready, match=r"do not exist: t, x\.y"):
        await world.setup("t", "x.y", role=Role.SOURCE)
    findings = fatal(await world.system.check(["x.y"], BOTH))
    assert "does not exist" in findings["x.y"].message


async def test_tables_without_a_usable_key_are_found(world: World) -> None:
    world.run(
        "create table nokey (id int)",
        "create table nothing (id int primary key)",
        "alter table nothing replica identity nothing",
        "create table other (id int primary key, u int not null unique)",
        "alter table other replica identity using index other_u_key",
        "create table whole (id int primary key)",
        "alter table whole replica identity full",
        "create table byindex (u int not null unique, v int)",
        "alter table byindex replica identity using index byindex_u_key",
    )
    tables = ["nokey", "nothing", "other", "whole", "byindex"]
    await world.setup(*tables)
    findings = fatal(await world.system.check(tables, BOTH))

    assert set(findings) == {"nokey", "nothing", "other"}
    for name in ("nothing", "other"):
        world.run(findings[name].sql)
    assert set(fatal(await world.system.check(tables, BOTH))) == {"nokey"}


async def test_filters_and_column_lists_of_somebody_else_are_found(world: World) -> None:
    world.run("create table t (id int primary key, v text)", "create table u (id int primary key, v text)")
    await world.setup("t", "u")
    world.run("alter publication concord_crm set table t where (id > 5), u (id), concord.marker")
    findings = await world.system.check(["t", "u"], BOTH)

    assert "filters its rows" in fatal(findings)["t"].message
    assert any("leaves out columns: v" in finding.message for finding in findings if finding.path == "u")


async def test_generated_columns_that_the_log_lacks_are_found(world: World) -> None:
    world.run("create table t (id int primary key, g int generated always as (id + 1) stored)")
    await world.setup("t")
    version = int(world.rows("show server_version_num")[0][0])
    findings = [finding for finding in await world.system.check(["t"], BOTH) if finding.path == "t.g"]

    assert bool(findings) == (version < 180000)


async def test_missing_privileges_come_with_their_grant(world: World) -> None:
    world.run("create table t (id int primary key)", "drop role if exists weak", "create role weak login")
    try:
        await world.setup("t")
        weak = make_world(world.dsn.replace("user=postgres", "user=weak"), world.site.directory)
        findings = fatal(await weak.system.check(["t"], BOTH))
        for finding in await weak.system.check(["t"], BOTH):
            if finding.is_fatal:
                world.run(finding.sql)
        left = fatal(await weak.system.check(["t"], BOTH))
        weak.users.close()
    finally:
        world.run("drop owned by weak", "drop role weak")

    assert {"role", "t", "concord.marker", 'schema "concord"'} <= set(findings)
    assert left == {}


async def test_a_server_that_is_not_ready_for_logical_replication_says_what_to_set(tmp_path: Path) -> None:
    settings = {"wal_level": "replica", "max_replication_slots": "0", "max_slot_wal_keep_size": "1GB"}
    with start_postgres(tmp_path / "server", settings) as server:
        world = make_world(server.dsn("postgres"), tmp_path)
        world.run("create table t (id int primary key)")
        findings = fatal(await world.system.check(["t"], BOTH))
        world.users.close()

    assert findings["wal_level"].sql == "alter system set wal_level = 'logical';"
    assert "all replication slots are taken" in findings["max_replication_slots"].message


async def test_an_encoding_that_promises_nothing_is_found(world: World) -> None:
    name = world.rows("select current_database()")[0][0] + "_ascii"
    world.run(f"create database {name} encoding 'SQL_ASCII' template template0 lc_collate 'C' lc_ctype 'C'")
    try:
        dsn = world.dsn.replace(f"dbname={name.removesuffix('_ascii')}", f"dbname={name}")
        other = make_world(dsn, world.site.directory, name="ascii")
        findings = fatal(await other.system.check([], Role.TARGET))
        other.users.close()
    finally:
        world.run(f"drop database {name} with (force)")

    assert "SQL_ASCII" in findings["server_encoding"].message


async def test_health_tells_what_is_kept_for_us(world: World) -> None:
    world.run("create table t (id int primary key)")
    assert (await world.system.health()).detail == "no replication slot concord_crm"
    await world.setup("t")
    world.run("insert into t select generate_series(1, 10000)")
    behind = await world.system.health()
    position = (await world.changes("t"))[-1].position
    async with world.feed("t", after=position):
        pass
    level = await world.system.health()

    assert behind.lag_bytes is not None
    assert behind.retained_bytes is not None
    assert level.lag_bytes is not None
    assert behind.retained_bytes >= behind.lag_bytes > 500_000
    assert level.lag_bytes < 100_000
    assert behind.head is not None
    assert level.head is not None
    assert behind.head <= position <= level.head


async def test_setup_of_a_user_without_rights_says_so_without_touching_anything(world: World) -> None:
    world.run("create table t (id int primary key)", "drop role if exists meek", "create role meek login")
    try:
        meek = make_world(world.dsn.replace("user=postgres", "user=meek"), world.site.directory)
        with pytest.raises(SourceUnready, match="privilege") as refusal:
            await meek.setup("t", role=Role.SOURCE)
        meek.users.close()
    finally:
        world.run("drop role meek")

    assert refusal.value.context["sqlstate"] == "42501"
    with pytest.raises(psycopg.errors.UndefinedTable):
        world.run("select * from concord.marker")


async def test_a_slot_of_that_name_in_another_database_is_somebody_elses(world: World) -> None:
    """Slots have the server's names: two installations on one server may want the same."""
    other = world.rows("select 'other_' || current_database()")[0][0]
    world.run("create table t (id int primary key)", f"create database {other}")
    try:
        users = psycopg.connect(f"{world.dsn} dbname={other}", autocommit=True)
        users.execute("select pg_create_logical_replication_slot('concord_crm', 'pgoutput')")
        findings = await world.system.check(("t",), Role.SOURCE)
        assert [f.is_fatal for f in findings if f"belongs to database {other}" in f.message] == [True]
        assert await world.system.teardown() == ()
        assert users.execute(
            "select count(*) from pg_replication_slots where database = current_database()"
        ).fetchone() == (1,)
        users.execute("select pg_drop_replication_slot('concord_crm')")
        users.close()
    finally:
        world.run(f"drop database {other}")
