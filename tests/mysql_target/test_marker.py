"""Goal: a delivery is there as a whole with its marker or not at all.

Method: deliveries that end in every way which the contract's tests have not: by a cancellation, a killed connection, an
error after which the server rolls back by itself.
"""

from __future__ import annotations

from pathlib import Path

import anyio
import pymysql
import pytest

from engine.errors import RowRefused, SystemUnreachable, TargetBusy, TargetUnready
from engine.ports import Role
from engine.testing.mariadb import MariadbServer
from plugins.mysql.connect import connect_now
from tests.mysql_target.support import EPOCH, HUB, World, insert, make_world, update

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def table(world: World) -> None:
    world.run("create table t (id int primary key, name varchar(20) unique)")


async def test_a_delivery_that_is_cancelled_leaves_nothing_and_holds_no_lock(world: World) -> None:
    world.run("insert into t values (9, 'locked')")
    other = connect_now(world.site, world.config)
    other.execute("start transaction")
    other.execute("update t set name = 'mine' where id = 9")
    async with world.session("t") as session:
        with anyio.move_on_after(0.5) as scope:
            async with session.delivery(1) as delivery:
                await delivery.write(insert("t", ("id", "name"), [("1", "a")]))
                await delivery.write(update("t", ("id", "name"), [("9", "b")]))
        assert scope.cancelled_caught
        other.execute("rollback")
        other.close()
        with pytest.raises(SystemUnreachable):
            async with session.delivery(2):
                pass

    async with world.session("t", epoch=EPOCH + 1) as session, session.delivery(1) as delivery:
        await delivery.write(insert("t", ("id", "name"), [("1", "c")]))
    assert world.rows("select * from t order by id") == [("1", "c"), ("9", "locked")]


async def test_a_connection_that_is_killed_in_the_middle_leaves_nothing(world: World) -> None:
    async with world.session("t") as session:

        async def lose() -> None:
            others = "select id from information_schema.processlist where id <> connection_id() and db = database()"
            async with session.delivery(1) as delivery:
                await delivery.write(insert("t", ("id", "name"), [("1", "a")]))
                for (number,) in world.rows(others):
                    world.run(f"kill {number}")
                await delivery.write(insert("t", ("id", "name"), [("2", "b")]))

        with pytest.raises(SystemUnreachable):
            await lose()

    assert world.rows("select * from t") == []
    assert world.marker() == (HUB, str(EPOCH), "0")


async def test_a_delivery_that_the_server_rolled_back_is_not_committed(world: World) -> None:
    """Two transactions wait for each other, and ours is the smaller one: the server rolls it back."""
    world.run("insert into t values (1, 'a'), (2, 'b')", "create table ballast (id int)")
    other = connect_now(world.site, world.config)
    other.execute("start transaction")
    other.execute("insert into ballast select seq from seq_1_to_10000")
    other.execute("update t set name = 'other 2' where id = 2")
    async with world.session("t") as session:

        async def lose() -> None:
            async with session.delivery(1) as delivery:
                await delivery.write(update("t", ("id", "name"), [("1", "ours 1")]))
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(
                        anyio.to_thread.run_sync, other.execute, "update t set name = 'other 1' where id = 1"
                    )
                    await anyio.sleep(0.3)
                    with pytest.raises(TargetBusy):
                        await delivery.write(update("t", ("id", "name"), [("2", "ours 2")]))

        # The engine's mistake, if it went on: what follows would be committed without a marker.
        with pytest.raises(TargetBusy):
            await lose()
        other.execute("commit")
        other.close()
        assert world.rows("select * from t order by id") == [("1", "other 1"), ("2", "other 2")]
        assert world.marker() == (HUB, str(EPOCH), "0")
        async with session.delivery(1) as delivery:
            await delivery.write(update("t", ("id", "name"), [("1", "ours 1")]))

    assert world.rows("select name from t where id = 1") == [("ours 1",)]


async def test_a_lock_that_is_not_granted_is_a_reason_to_wait(mariadb_server: MariadbServer, tmp_path: Path) -> None:
    world = await make_world(mariadb_server, tmp_path, lock_seconds_max=1)
    world.run("create table t (id int primary key, name text)", "insert into t values (1, 'a')")
    world.run("start transaction", "update t set name = 'theirs'")
    async with world.session("t") as session:
        with pytest.raises(TargetBusy):
            async with session.delivery(1) as delivery:
                await delivery.write(update("t", ("id", "name"), [("1", "ours")]))
        world.run("rollback")
        async with session.delivery(1) as delivery:
            await delivery.write(update("t", ("id", "name"), [("1", "ours")]))
    assert world.rows("select name from t") == [("ours",)]
    world.close()


async def test_a_system_of_another_hub_is_not_written_to(world: World) -> None:
    await world.deliver_alone(insert("t", ("id", "name"), [("1", "a")]))

    async with world.target.open(("t",)) as session:
        assert await session.claim(HUB, EPOCH) == 1
        with pytest.raises(TargetUnready):
            await session.claim("another hub", EPOCH + 1)


async def test_every_marker_is_a_change_that_the_log_shows(world: World) -> None:
    """A row that stays what it was is not logged, and a delivery without its marker would look like a user's."""
    async with world.session("t") as session:
        for _ in range(2):
            async with session.delivery(1):
                pass
    ((writes,),) = world.rows("select writes from concord_marker")

    assert int(writes) == 3


async def test_set_up_is_asked_for_where_it_is_missing(world: World) -> None:
    async with world.session("t") as session, session.delivery(7):
        pass
    steps = await world.system.teardown()

    assert f"drop table concord_marker, which says hub {HUB}, seq 7" in [step.summary for step in steps]
    with pytest.raises(TargetUnready):
        async with world.target.open(("t",)):
            pass
    assert len(await world.system.plan((), Role.TARGET)) == 3
    assert len(await world.system.setup((), Role.TARGET)) == 3
    assert await world.system.setup((), Role.TARGET) == ()
    assert await world.system.plan(("t",), Role.SOURCE) == ()


async def test_a_server_that_is_not_there_is_unreachable(mariadb_server: MariadbServer, world: World) -> None:
    world.config = type(world.config)(database="none", user="root", host="127.0.0.1", port=1)
    with pytest.raises(SystemUnreachable):
        await world.system.shapes()


async def test_a_wrong_password_names_neither_user_nor_password(world: World) -> None:
    world.config = type(world.config)(database="none", user="somebody", host="127.0.0.1", port=world.server.port)
    with pytest.raises(Exception, match="does not let this user in") as refused:
        await world.system.shapes()
    assert not isinstance(refused.value, pymysql.Error | RowRefused)
