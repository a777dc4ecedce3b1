"""Goal: the marker and the rows are one step, one daemon writes, and nothing of a delivery that broke off remains.

Method: sessions side by side on a real server, their backends ended or their tasks cancelled at chosen places.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import anyio
import asyncpg
import psycopg
import pytest

from engine.errors import Fenced, RowRefused, SystemUnreachable, TargetBusy, TargetUnready
from engine.plugin import Site
from engine.ports import TargetSession
from plugins.postgres.apply import PostgresTarget
from plugins.postgres.config import PostgresConfig
from tests.postgres_target.support import EPOCH, HUB, World, delete, insert, make_world, update

pytestmark = pytest.mark.anyio

TABLE = "create table t (id int primary key, name text)"


async def test_a_target_without_set_up_is_unready(postgres_dsn: str, tmp_path: Path) -> None:
    site = Site(name="crm", directory=tmp_path, work_directory=tmp_path)
    with pytest.raises(TargetUnready, match="concord"):
        async with PostgresTarget(site, PostgresConfig(dsn=postgres_dsn)).open([]):
            pass


async def test_a_server_that_is_not_there_is_unreachable(tmp_path: Path) -> None:
    site = Site(name="crm", directory=tmp_path, work_directory=tmp_path)
    with pytest.raises(SystemUnreachable):
        async with PostgresTarget(site, PostgresConfig(dsn="host=127.0.0.1 port=1 user=x dbname=x")).open([]):
            pass


async def test_a_marker_without_its_row_is_unready(world: World) -> None:
    world.run("delete from concord.marker")
    async with world.target.open([]) as session:
        with pytest.raises(TargetUnready):
            await session.claim(HUB, EPOCH)


async def test_a_claim_returns_the_last_delivery(world: World) -> None:
    async with world.target.open([]) as session:
        assert await session.claim(HUB, 1) == 0
        assert world.marker() == (HUB, 1, 0)
        async with session.delivery(17):
            pass
        assert await session.claim(HUB, 1) == 17
        assert await session.claim(HUB, 2) == 17
    assert world.marker() == (HUB, 2, 17)


async def test_the_marker_of_another_hub_is_left_alone(world: World) -> None:
    async with world.target.open([]) as session:
        await session.claim(HUB, 1)
        with pytest.raises(TargetUnready, match="belongs to another hub"):
            await session.claim("another", 9)
    assert world.marker() == (HUB, 1, 0)


async def test_any_hub_id_can_claim_and_deliver(world: World) -> None:
    hub = "o'hub\\ \"$1;-- ünï"
    async with world.target.open([]) as session:
        await session.claim(hub, 1)
        async with session.delivery(1):
            pass
    assert world.marker() == (hub, 1, 1)


async def test_an_earlier_daemon_is_fenced(world: World) -> None:
    world.run(TABLE)
    async with world.session("public.t", epoch=4) as earlier, world.session("public.t", epoch=5) as later:
        with pytest.raises(Fenced):
            async with earlier.delivery(9):
                pytest.fail("a fenced delivery must not begin")
        with pytest.raises(Fenced):
            await earlier.claim(HUB, 4)
        await world.deliver(later, insert("public.t", ("id",), [("1",)]))
    assert world.marker() == (HUB, 5, 1)


async def test_a_successor_waits_for_a_delivery_under_way_and_then_knows_it(world: World) -> None:
    world.run(TABLE)
    seqs: list[int] = []

    async def claim_later() -> None:
        async with world.target.open([]) as session:
            seqs.append(await session.claim(HUB, EPOCH + 1))

    async with (
        world.session("public.t") as frozen,
        anyio.create_task_group() as tasks,
        frozen.delivery(8) as delivery,
    ):
        await delivery.write(insert("public.t", ("id",), [("1",)]))
        tasks.start_soon(claim_later)
        await _until(world, "select count(*) from pg_stat_activity where wait_event_type = 'Lock'", 1)
    assert seqs == [8]


async def test_a_frozen_session_that_wakes_after_its_successor_writes_nothing(world: World) -> None:
    """The server ends a delivery that is idle too long; here its backend is ended, for the same effect at once."""
    world.run(TABLE)

    async def freeze_in_delivery(frozen: TargetSession) -> None:
        async with frozen.delivery(8) as delivery:
            await delivery.write(insert("public.t", ("id",), [("1",)]))
            _end_backends(world)
            async with world.session("public.t", epoch=EPOCH + 1) as successor:
                await world.deliver(successor, insert("public.t", ("id",), [("2",)]))
            await delivery.write(insert("public.t", ("id",), [("3",)]))

    async with world.session("public.t") as frozen:
        with pytest.raises(SystemUnreachable):
            await freeze_in_delivery(frozen)
        with pytest.raises(SystemUnreachable):
            await frozen.claim(HUB, EPOCH)
    assert world.rows("select id from t") == [(2,)]
    assert world.marker() == (HUB, EPOCH + 1, 1)


async def test_a_backend_that_dies_before_the_commit_takes_marker_and_rows_with_it(world: World) -> None:
    world.run(TABLE)

    async def lose_the_backend(session: TargetSession) -> None:
        async with session.delivery(5) as delivery:
            await delivery.write(insert("public.t", ("id",), [("1",)]))
            _end_backends(world)

    async with world.session("public.t") as session:
        with pytest.raises(SystemUnreachable):
            await lose_the_backend(session)
    assert world.rows("select * from t") == []
    assert world.marker() == (HUB, EPOCH, 0)


async def test_an_exception_rolls_marker_and_rows_back_and_the_session_goes_on(world: World) -> None:
    world.run(TABLE)

    async def fail(session: TargetSession) -> None:
        async with session.delivery(5) as delivery:
            await delivery.write(insert("public.t", ("id",), [("1",)]))
            raise ZeroDivisionError

    async with world.session("public.t") as session:
        with pytest.raises(ZeroDivisionError):
            await fail(session)
        assert world.rows("select * from t") == []
        assert world.marker() == (HUB, EPOCH, 0)
        await world.deliver(session, insert("public.t", ("id",), [("2",)]))
    assert world.rows("select id from t") == [(2,)]


async def test_marker_and_refused_write_and_the_others_are_one_delivery(world: World) -> None:
    world.run(TABLE)
    async with world.session("public.t") as session, session.delivery(5) as delivery:
        await delivery.write(insert("public.t", ("id",), [("1",)]))
        with pytest.raises(RowRefused):
            await delivery.write(insert("public.t", ("id",), [("2",), ("x",)]))
        with pytest.raises(RowRefused):
            await delivery.write(update("public.t", ("id", "name"), [("1", "\0")]))
        await delivery.write(insert("public.t", ("id",), [("3",)]))
    assert world.rows("select id from t order by 1") == [(1,), (3,)]
    assert world.marker() == (HUB, EPOCH, 5)


async def test_the_marker_is_the_first_row_change_of_the_log(world: World) -> None:
    world.run(TABLE, "alter table t replica identity full")
    world.run("create publication everything for all tables")
    world.run("select pg_create_logical_replication_slot('peek', 'pgoutput')")
    rows = [(str(n), "a") for n in range(3000)]
    async with world.session("public.t") as session:
        await world.deliver(session, insert("public.t", ("id", "name"), rows))
        await world.deliver(session, update("public.t", ("id", "name"), rows))
    messages = [
        bytes(message)
        for (message,) in world.rows(
            "select data from pg_logical_slot_get_binary_changes('peek', null, null, 'proto_version', '1',"
            " 'publication_names', 'everything')"
        )
    ]
    # Begin and row changes; a change has its table's id behind the first byte.
    kinds = [m for m in messages if m[:1] in b"BIUD"]
    firsts = [after for message, after in itertools.pairwise(kinds) if message[:1] == b"B"]
    ((marker,),) = world.rows("select 'concord.marker'::regclass::oid::bigint")

    assert len(firsts) == 3  # the claim and two deliveries
    assert all(first[:1] == b"U" and int.from_bytes(first[1:5], "big") == marker for first in firsts)


@pytest.mark.parametrize("deferral", ["initially deferred", "initially immediate"])
async def test_a_deferrable_constraint_refuses_the_write_and_not_the_commit(world: World, deferral: str) -> None:
    world.run(TABLE, f"create table child (id int primary key, t int references t deferrable {deferral})")
    async with world.session("public.child") as session, session.delivery(1) as delivery:
        with pytest.raises(RowRefused):
            await delivery.write(insert("public.child", ("id", "t"), [("1", "404")]))
    assert world.marker() == (HUB, EPOCH, 1)


async def test_a_read_only_server_is_busy(world: World) -> None:
    async with world.session() as session:
        world.run(f"alter database {world.database} set default_transaction_read_only = on")
    with pytest.raises(TargetBusy):
        async with world.session() as session, session.delivery(1):
            pass


async def test_a_lock_that_is_held_too_long_is_busy_and_not_a_refusal(postgres_dsn: str, tmp_path: Path) -> None:
    world = await make_world(postgres_dsn, tmp_path, lock_seconds_max=1)
    world.run(TABLE, "insert into t values (1, 'a')")
    with psycopg.connect(postgres_dsn) as user:
        user.execute("update t set name = 'b'")
        async with world.session("public.t") as session:
            with pytest.raises(TargetBusy):
                await world.deliver(session, update("public.t", ("id", "name"), [("1", "c")]))
        user.commit()
    assert world.rows("select name from t") == [("b",)]
    world.users.close()


async def test_the_session_is_set_as_delivery_needs_it(world: World) -> None:
    """A commit must be durable even where the server's default is not: a crash of the target would set its marker
    back, which no start could tell from a restored backup. And a delivery that stands still must end."""
    world.run(f"alter database {world.database} set synchronous_commit = off")
    wanted = {
        "synchronous_commit": "on",
        "idle_in_transaction_session_timeout": "1min",
        "session_replication_role": "origin",
        "TimeZone": "UTC",
        "IntervalStyle": "iso_8601",
        "application_name": "concord crm deliver",
        "lock_timeout": "30s",
        "statement_timeout": "5min",
    }
    settings = ", ".join(f"current_setting('{name}')" for name in wanted)
    world.run("create table t (id int primary key, settings text[])")
    world.run(
        "create function note() returns trigger language plpgsql as"
        f" $$ begin new.settings := array[{settings}]; return new; end $$",
        "create trigger note before insert on t for each row execute function note()",
    )
    await world.deliver_alone(insert("public.t", ("id",), [("1",)]))
    assert world.rows("select settings from t") == [(list(wanted.values()),)]


Step = Callable[[TargetSession], Coroutine[Any, Any, None]]


async def _insert_slowly(session: TargetSession) -> None:
    async with session.delivery(1) as delivery:
        await delivery.write(insert("public.t", ("id",), [("1",)]))
        await delivery.write(insert("public.slow", ("id",), [("1",)]))


async def _update_slowly(session: TargetSession) -> None:
    async with session.delivery(1) as delivery:
        await delivery.write(insert("public.t", ("id",), [("1",)]))
        await delivery.write(delete("public.slow", ("id",), [("0",)]))


async def _wait_inside(session: TargetSession) -> None:
    async with session.delivery(1) as delivery:
        await delivery.write(insert("public.t", ("id",), [("1",)]))
        await anyio.sleep_forever()


@pytest.mark.parametrize("step", [_insert_slowly, _update_slowly, _wait_inside])
async def test_a_cancelled_delivery_leaves_nothing_and_no_task(world: World, step: Step) -> None:
    world.run(TABLE, "create table slow (id int primary key)", "insert into slow values (0)")
    world.run(
        "create function nap() returns trigger language plpgsql as $$ begin perform pg_sleep(60); return new; end $$"
    )
    world.run("create trigger nap before insert or delete on slow for each row execute function nap()")
    before = asyncio.all_tasks()
    async with world.session("public.t", "public.slow") as session:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(step, session)
            await _until(world, _BUSY_OR_IDLE_INSIDE, 1)
            tasks.cancel_scope.cancel()
        assert asyncio.all_tasks() == before
        await _until(world, _BUSY_OR_IDLE_INSIDE, 0)
        assert world.rows("select * from t") == []
        assert world.marker() == (HUB, EPOCH, 0)
        await world.deliver(session, insert("public.t", ("id",), [("2",)]))
    assert world.rows("select id from t") == [(2,)]
    assert asyncio.all_tasks() == before


async def test_a_cancelled_commit_is_carried_through(world: World) -> None:
    """A constraint trigger that sleeps stands for a slow flush; it puts itself off until the commit."""
    world.run(TABLE)
    world.run(
        "create function nap() returns trigger language plpgsql as $$ begin perform pg_sleep(1); return null; end $$"
    )
    world.run(
        "create function later() returns trigger language plpgsql as"
        " $$ begin set constraints all deferred; return new; end $$"
    )
    world.run(
        "create constraint trigger nap after insert on t deferrable initially deferred"
        " for each row execute function nap()"
    )
    world.run("create trigger later before insert on t for each row execute function later()")
    async with world.session("public.t") as session:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_deliver, world, session)
            await _until(world, "select count(*) from pg_stat_activity where query = 'commit' and state = 'active'", 1)
            tasks.cancel_scope.cancel()
        assert world.marker() == (HUB, EPOCH, 1)
        assert world.rows("select id from t") == [(1,)]


async def test_a_cancelled_opening_leaves_no_connection_and_no_task(world: World) -> None:
    loop = asyncio.get_running_loop()
    before = asyncio.all_tasks()
    handler = loop.get_exception_handler()
    # asyncpg leaves a future unread when it is cancelled between socket and start-up; asyncio reports that.
    loop.set_exception_handler(lambda _, context: None)
    try:
        for turns in range(12):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_open_for_ever, world)
                for _ in range(turns):
                    await anyio.lowlevel.checkpoint()
                tasks.cancel_scope.cancel()
            assert asyncio.all_tasks() == before
        await _until(world, "select count(*) from pg_stat_activity where application_name like 'concord%deliver'", 0)
        gc.collect()
    finally:
        loop.set_exception_handler(handler)


async def _deliver(world: World, session: TargetSession) -> None:
    await world.deliver(session, insert("public.t", ("id",), [("1",)]))


async def _open_for_ever(world: World) -> None:
    async with world.target.open([]):
        await anyio.sleep_forever()


_BUSY_OR_IDLE_INSIDE = (
    "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
    " and (wait_event = 'PgSleep' or (state = 'idle in transaction' and query like 'COPY%'))"
)


def _end_backends(world: World) -> None:
    world.rows(
        "select pg_terminate_backend(pid, 5000) from pg_stat_activity"
        " where datname = current_database() and pid <> pg_backend_pid()"
    )


async def _until(world: World, query: str, count: int) -> None:
    """Ask until the answer is `count`; the test's own time limit ends it otherwise."""
    while world.rows(query) != [(count,)]:  # noqa: ASYNC110 - nothing in another process can set our event
        await anyio.sleep(0.005)


def test_the_driver_is_the_one_whose_cancellation_was_looked_at() -> None:
    """asyncpg cancels a query by a task of its own; from 0.32 on, the next call waits until that is done."""
    assert tuple(map(int, asyncpg.__version__.split(".")[:2])) >= (0, 32)
