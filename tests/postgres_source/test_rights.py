"""Goal: what our user lacks is told before the daemon meets it, compactly, and what is told is enough.
Method: ordinary roles of a real server; findings' SQL is run as it stands, then the role sets up, reads and writes."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import pytest

from engine.errors import ConcordError, RowRefused
from engine.ports import Role
from plugins.postgres.apply import PostgresTarget
from tests.postgres_source.support import World, flat, make_world
from tests.postgres_target.support import EPOCH, HUB, insert, update

pytestmark = pytest.mark.anyio
BOTH = Role.SOURCE | Role.TARGET


@contextmanager
def ordinary(world: World, attributes: str = "replication") -> Generator[World]:
    """The same database for a role that owns nothing and may do nothing."""
    world.run("drop role if exists ordinary", f"create role ordinary login {attributes}")
    other = make_world(world.dsn.replace("user=postgres", "user=ordinary"), world.site.directory)
    try:
        yield other
    finally:
        other.users.close()
        world.run("drop owned by ordinary cascade", "drop role ordinary")


async def fatal_sql(world: World, *tables: str, role: Role = BOTH) -> list[str]:
    """The statements of all that set-up does not mend."""
    findings = await world.system.check(tables, role)
    return [f.sql for f in findings if f.is_fatal and not f.by_setup]


async def write_and_read(world: World, tables: dict[str, str | None]) -> None:
    """Insert a row with `v` into each, under a key of ours or one that the database assigns, update it, and read it
    back from the log and as a page."""
    end = world.end()
    async with PostgresTarget(world.site, world.config).open([*tables]) as session:
        await session.claim(HUB, EPOCH)
        async with session.delivery(1) as delivery:
            for table, assigned in tables.items():
                columns, row = (("v",), ("a",)) if assigned else (("id", "v"), ("1", "a"))
                await delivery.write(insert(table, columns, [row], assigned=assigned))
                await delivery.write(update(table, ("id", "v"), [("1", "b")]))
    assert end < world.end()
    for table in tables:
        assert (await world.system.page(table, None, 10)).rows == [("1", "b")]
    # Our own deliveries are not changes; what an application writes is.
    first = next(iter(tables))
    world.rows(f"update {first} set v = 'c' returning 1")
    changed = flat(await world.changes(*tables), first)
    assert changed == [("U", first, ("1", "c"))]


async def test_what_is_told_is_enough_to_set_up_to_write_and_to_read(world: World) -> None:
    """A role with nothing but a login; the tables belong to an application."""
    world.run(
        "create schema shop",
        "create table shop.t (id int primary key, v text)",
        "create table u (id serial primary key, v text)",
        "create table w (id int generated always as identity primary key, v text)",
    )
    tables = {"shop.t": None, "u": "id", "w": "id"}
    with ordinary(world, "noreplication") as user:
        first = await fatal_sql(user, *tables)
        world.run(*first)
        done = await user.system.setup([*tables], BOTH)

        assert [step.summary for step in done] == [
            "make the marker of deliveries",
            "put the marker's one row in",
            "make the table of assigned keys",
            "publish 1 table more",
            "keep the log from here on",
        ]
        assert await user.system.check([*tables], BOTH) == await world.system.check([*tables], BOTH)
        assert await fatal_sql(user, *tables) == []
        await write_and_read(user, tables)
    options = "publish = 'insert, update, delete, truncate', publish_via_partition_root = true"
    if world.users.info.server_version >= 180000:
        options += ", publish_generated_columns = stored"
    assert first == [
        'alter role "ordinary" replication;',
        'create publication "concord_crm" for table "shop"."t", "public"."u", "public"."w" with'
        f' ({options}); alter publication "concord_crm" owner to "ordinary";',
        'create schema "concord" authorization "ordinary";',
        'grant usage on schema "shop" to "ordinary";',
        'grant select, insert, update, delete on table "shop"."t", "public"."u", "public"."w" to "ordinary";',
        'grant usage on sequence "public"."u_id_seq" to "ordinary";',
    ]


async def set_up_write_and_read(world: World, table: str) -> None:
    await world.setup(table)
    await write_and_read(world, {table: "id"})


@pytest.mark.parametrize("left_out", [0, 1, 2, 3])
async def test_nothing_is_told_that_is_not_needed(world: World, left_out: int) -> None:
    """Of the grants above each one left out is told again, and without it something fails."""
    world.run("create table u (id serial primary key, v text)")
    with ordinary(world) as user:
        told = await fatal_sql(user, "u")
        assert len(told) == 4, told
        world.run(*told[:left_out], *told[left_out + 1 :])
        again = await fatal_sql(user, "u")
        assert again == [told[left_out]]
        with pytest.raises(ConcordError, match="sqlstate 42501"):
            await set_up_write_and_read(user, "u")


async def test_an_owner_of_the_tables_needs_only_to_create(world: World) -> None:
    with ordinary(world) as user:
        world.run("create table t (id serial primary key, v text)", "alter table t owner to ordinary")
        told = await fatal_sql(user, "t")
        world.run(*told)
        database = world.rows("select quote_ident(current_database())")[0][0]
        assert told == [
            f'grant create on database "{database}" to "ordinary";',
            'create schema "concord" authorization "ordinary";',
        ]
        await user.setup("t")
        assert await fatal_sql(user, "t") == []
        await write_and_read(user, {"t": "id"})


async def test_a_source_alone_needs_to_read_only(world: World) -> None:
    world.run("create table t (id serial primary key, v text)")
    await world.setup("t", role=Role.SOURCE)
    with ordinary(world) as user:
        told = await fatal_sql(user, "t", role=Role.SOURCE)
        world.run(*told)

        assert told == ['grant select on table "public"."t" to "ordinary";']
        assert len((await user.system.page("t", None, 10)).rows) == 0


async def test_tables_of_ours_that_a_dba_made_are_told_with_what_they_need(world: World) -> None:
    world.run("create table t (id int primary key, v text)")
    await world.setup("t")
    with ordinary(world) as user:
        told = await fatal_sql(user, "t")
        world.run(*told)

        assert told == [
            'grant usage on schema "concord" to "ordinary";',
            'grant select, insert, update, delete on table "public"."t" to "ordinary";',
            'grant select, update on table "concord"."marker" to "ordinary";',
            'grant select, insert on table "concord"."identity" to "ordinary";',
        ]
        await write_and_read(user, {"t": None})


async def test_a_schema_of_ours_that_we_may_not_use_is_told(world: World) -> None:
    world.run("create table t (id int primary key, v text)", "create schema concord")
    with ordinary(world) as user:
        world.run("grant select, insert, update, delete on t to ordinary")
        told = await fatal_sql(user, "t", role=Role.TARGET)
        world.run(*told)

        assert told == ['grant usage, create on schema "concord" to "ordinary";']
        await user.setup("t", role=Role.TARGET)
        assert await fatal_sql(user, "t", role=Role.TARGET) == []


async def test_a_publication_of_somebody_else_is_told_before_set_up_must_change_it(world: World) -> None:
    world.run("create table t (id int primary key, v text)", "create table u (id int primary key, v text)")
    world.run("create schema concord")
    await world.setup("t", role=Role.SOURCE)
    with ordinary(world) as user:
        world.run("grant usage, create on schema concord to ordinary")
        world.run("grant select, insert, update, delete on t, u to ordinary")
        findings = [f for f in await user.system.check(["t", "u"], BOTH) if f.is_fatal and not f.by_setup]
        world.run(*(f.sql for f in findings))

        assert [(f.path, f.sql) for f in findings] == [
            ("publication concord_crm", 'alter publication "concord_crm" owner to "ordinary";'),
            ("public.u", 'alter publication "concord_crm" add table "public"."u";'),
        ]
        assert "Let the owner of both run this" in findings[1].hint
        await user.setup("t", "u")
        assert await fatal_sql(user, "t", "u") == []


async def test_privileges_on_columns_count(world: World) -> None:
    world.run("create table t (id int primary key, v text, secret text)", "create table u (id int primary key)")
    await world.setup("t", "u")
    with ordinary(world) as user:
        world.run(*await fatal_sql(user, "u"))
        world.run("grant select (id, v), insert (id, v), update (id, v), delete on t to ordinary")
        partly = [f for f in await user.system.check(["t", "u"], BOTH) if f.path == "t"]
        assert [(f.sql, f.is_fatal) for f in partly] == [
            ('grant select ("secret") on table "public"."t" to "ordinary";', True),
            ('grant insert ("secret") on table "public"."t" to "ordinary";', False),
            ('grant update ("secret") on table "public"."t" to "ordinary";', False),
        ]
        world.run(partly[0].sql)
        assert await fatal_sql(user, "t", "u") == []
        async with PostgresTarget(user.site, user.config).open(["t"]) as session:
            await session.claim(HUB, EPOCH)
            async with session.delivery(1) as delivery:
                await delivery.write(insert("t", ("id", "v"), [("1", "a")]))
                with pytest.raises(RowRefused, match="permission denied for table t"):
                    await delivery.write(insert("t", ("id", "secret"), [("2", "a")]))
