"""Goal: a log that no longer holds what we need is said so, never passed over; a slow reader keeps its place.
Method: slots dropped, taken, advanced and given up by real servers, and one that is restored from a copy."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import anyio
import pytest

from engine.errors import PositionLost, SourceUnready, SystemUnreachable
from engine.model.position import WHOLE, Position
from engine.ports import Feed, Role
from engine.testing.postgres import start_postgres
from plugins.postgres.capture import PostgresFeed, PostgresSource
from tests.postgres_source.support import World, drain, flat, make_world, poll

pytestmark = pytest.mark.anyio


async def ready(world: World) -> World:
    world.run("create table t (id int primary key, v text)")
    await world.setup("t")
    return world


async def until(world: World, query: str) -> None:
    """Wait until the query's one value is true."""
    await poll(lambda: world.rows(query) == [(True,)])


async def test_a_missing_slot_is_unready_at_first_and_lost_later(world: World) -> None:
    await ready(world)
    world.run("insert into t values (1)")
    position = (await world.changes("t"))[-1].position
    await until(world, "select not active from pg_replication_slots where slot_name = 'concord_crm'")
    world.run("select pg_drop_replication_slot('concord_crm')")

    with pytest.raises(SourceUnready, match="slot concord_crm does not exist") as unready:
        async with world.feed("t"):
            pass
    with pytest.raises(PositionLost, match="slot concord_crm is gone") as lost:
        async with world.feed("t", after=position):
            pass
    assert "pg_create_logical_replication_slot" in unready.value.hint
    assert "backfill" in lost.value.hint


async def test_a_slot_made_anew_does_not_pass_for_the_old_one(world: World) -> None:
    await ready(world)
    world.run("insert into t values (1)")
    position = (await world.changes("t"))[-1].position
    await until(world, "select not active from pg_replication_slots where slot_name = 'concord_crm'")
    world.run("select pg_drop_replication_slot('concord_crm')", "insert into t values (2)")
    await world.setup("t")

    with pytest.raises(PositionLost, match="past our position"):
        async with world.feed("t", after=position):
            pass


async def test_a_slot_that_was_advanced_is_lost(world: World) -> None:
    await ready(world)
    world.run("insert into t values (1)")
    position = (await world.changes("t"))[-1].position
    await until(world, "select not active from pg_replication_slots where slot_name = 'concord_crm'")
    world.run("insert into t values (2)", "select pg_replication_slot_advance('concord_crm', pg_current_wal_lsn())")

    with pytest.raises(PositionLost, match="past our position"):
        async with world.feed("t", after=position):
            pass


async def test_a_slot_of_another_plugin_is_refused(world: World) -> None:
    await ready(world)
    world.run("select pg_drop_replication_slot('concord_crm')")
    world.run("select pg_create_physical_replication_slot('concord_crm')")

    try:
        with pytest.raises(SourceUnready, match="not pgoutput"):
            async with world.feed("t"):
                pass
    finally:
        # It belongs to no database, so it would outlive this one.
        world.run("select pg_drop_replication_slot('concord_crm')")


async def test_a_slot_of_another_database_is_refused(world: World) -> None:
    await ready(world)
    dsn = world.dsn.replace(world.rows("select current_database()")[0][0], "postgres")
    other = make_world(dsn, world.site.directory)
    other.run("create publication concord_crm")
    try:
        with pytest.raises(SourceUnready, match="belongs to database test_"):
            async with other.feed("t"):
                pass
    finally:
        other.run("drop publication concord_crm")
        other.users.close()


async def test_a_slot_in_use_is_tried_again_later(world: World) -> None:
    await ready(world)
    async with world.feed("t"):
        with pytest.raises(SystemUnreachable) as busy:
            async with world.feed("t"):
                pass
    assert busy.value.context["sqlstate"] == "55006"


async def test_a_slot_that_the_server_gave_up_is_lost(tmp_path: Path) -> None:
    settings = {"max_slot_wal_keep_size": "1MB", "min_wal_size": "32MB", "max_wal_size": "32MB"}
    with start_postgres(tmp_path / "server", settings) as server:
        world = await ready(make_world(server.dsn("postgres"), tmp_path))
        world.run("insert into t values (1)")
        position = (await world.changes("t"))[-1].position
        for _ in range(8):
            world.run("select pg_switch_wal()", "insert into t select n from generate_series(2, 1) n", "checkpoint")
            world.run("create table filler as select n from generate_series(1, 100) n", "drop table filler")
        await until(world, "select wal_status = 'lost' from pg_replication_slots")

        for after in (position, None):
            with pytest.raises(PositionLost, match="given up replication slot") as lost:
                async with world.feed("t", after=after):
                    pass
        with pytest.raises(PositionLost, match="given up replication slot"):
            await world.setup("t")
        findings = await world.system.check(["t"], Role.SOURCE | Role.TARGET)
        health = await world.system.health()
        world.users.close()

    assert "max_slot_wal_keep_size" in lost.value.hint
    assert [finding.path for finding in findings if finding.is_fatal] == ["slot concord_crm"]
    assert "lost" in health.detail


async def test_a_server_restored_from_an_older_copy_is_noticed(tmp_path: Path) -> None:
    with start_postgres(tmp_path / "server") as server:
        world = await ready(make_world(server.dsn("postgres"), tmp_path))
        world.users.close()
    shutil.copytree(tmp_path / "server", tmp_path / "copy", symlinks=True)
    _give_to_server(tmp_path / "copy")
    with start_postgres(tmp_path / "server") as server:
        world = make_world(server.dsn("postgres"), tmp_path)
        world.run("insert into t select n from generate_series(1, 1000) n")
        position = (await world.changes("t"))[-1].position
        world.users.close()
    with start_postgres(tmp_path / "copy") as server:
        world = make_world(server.dsn("postgres"), tmp_path)
        with pytest.raises(PositionLost, match="restored from an older copy"):
            async with world.feed("t", after=position):
                pass
        world.users.close()


async def test_on_a_new_timeline_only_positions_from_before_its_branch_are_good(tmp_path: Path) -> None:
    with start_postgres(tmp_path / "server") as server:
        world = await ready(make_world(server.dsn("postgres"), tmp_path))
        world.run("insert into t values (1)")
        early = (await world.changes("t"))[-1].position
        world.users.close()
    shutil.copytree(tmp_path / "server", tmp_path / "copy", symlinks=True)
    (tmp_path / "copy" / "data" / "standby.signal").touch()
    _give_to_server(tmp_path / "copy")
    with start_postgres(tmp_path / "server") as server:
        world = make_world(server.dsn("postgres"), tmp_path)
        world.run("insert into t values (2)")
        late = (await world.changes("t", after=early))[-1].position
        world.users.close()
    with start_postgres(tmp_path / "copy") as server:
        world = make_world(server.dsn("postgres"), tmp_path)
        world.run("select pg_promote()")
        await poll(lambda: world.rows("select pg_is_in_recovery()") == [(False,)])
        # Far past the position that the copy never had, so that its number alone looks good.
        world.run("create table filler as select n from generate_series(1, 50000) n", "insert into t values (3)")
        changes = flat(await world.changes("t", after=early))
        with pytest.raises(PositionLost, match="left ours, 1, before our position"):
            async with world.feed("t", after=late):
                pass
        world.users.close()

    assert changes == [("I", "t", ("3", None))]


async def test_a_position_of_another_cluster_is_refused(world: World) -> None:
    await ready(world)
    world.run("insert into t values (1)")
    position = (await world.changes("t"))[-1].position
    lsn, timeline, _, publication = position.token.split()
    foreign = Position(position.order, f"{lsn} {timeline} 123 {publication}")

    with pytest.raises(PositionLost, match="system identifier"):
        async with world.feed("t", after=foreign):
            pass


async def test_a_busy_reader_is_not_dropped_and_confirms_meanwhile(world: World) -> None:
    database = world.rows("select current_database()")[0][0]
    world.run(f"alter database {database} set wal_sender_timeout = '1s'")
    await ready(world)
    world.run("insert into t values (1)")
    end = world.end()
    async with world.feed("t") as feed:
        (batch, *_) = await drain(feed, end)
        feed.confirm(batch.position)
        # Nobody receives from here on; a server that heard nothing would have ended the stream three times over.
        await until(
            world,
            f"select confirmed_flush_lsn >= '0/0' and now() > '{_now(world)}'::timestamptz + interval '3.5 s'"
            " from pg_replication_slots where active",
        )
        (confirmed,) = world.rows("select confirmed_flush_lsn::text from pg_replication_slots")[0]
        world.run("insert into t values (2)")
        rest = await drain(feed, world.end())

    assert confirmed == batch.position.token.split()[0]
    assert flat(rest) == [("I", "t", ("2", None))]


async def test_a_reader_that_has_stopped_for_good_is_let_go(world: World) -> None:
    database = world.rows("select current_database()")[0][0]
    world.run(f"alter database {database} set wal_sender_timeout = '1s'")
    await ready(world)
    source = PostgresSource(world.site, world.config, silent_seconds_max=0.2)
    async with source.feed(None, ["t"], frozenset()) as feed:
        # Others can take the slot over, though this process still holds its end of the connection.
        await until(world, "select not active from pg_replication_slots where slot_name = 'concord_crm'")
        with pytest.raises(SystemUnreachable):
            await forever(feed)


async def test_a_lost_connection_is_reported_and_the_position_holds(world: World) -> None:
    await ready(world)
    world.run("insert into t values (1)")
    end = world.end()
    async with world.feed("t") as feed:
        first = await drain(feed, end)
        world.run("select pg_terminate_backend(active_pid) from pg_replication_slots where active")
        with pytest.raises(SystemUnreachable):
            await forever(feed)
    world.run("insert into t values (2)")

    rest = await world.changes("t", after=first[-1].position)

    assert flat([*first, *rest]) == [("I", "t", ("1", None)), ("I", "t", ("2", None))]


async def test_errors_in_the_callers_block_come_out_as_they_are(world: World) -> None:
    await ready(world)
    cause = KeyError("cause")
    with pytest.raises(ValueError, match="mine") as raised:
        async with world.feed("t"):
            raise ValueError("mine") from cause
    assert raised.value.__cause__ is cause


CURE = "select pg_drop_replication_slot('concord_crm'); then `concord setup crm`, then `concord backfill crm`"
PUBLISH = "create publication concord_crm for table t, concord.marker"


async def test_a_publication_dropped_under_a_running_feed_stops_it_with_a_hint(world: World) -> None:
    await ready(world)
    # Up to version 17 the walsender fails; since 18 it goes on without the changes, and only a look finds out.
    async with world.feed("t") as feed:
        assert isinstance(feed, PostgresFeed)
        world.run("drop publication concord_crm", "insert into t values (1)")
        with pytest.raises(PositionLost, match=r"publication.* does not exist") as refusal:
            await forever(feed, look=True)
    assert CURE in refusal.value.hint


async def test_a_publication_made_anew_while_nobody_looked_is_noticed(world: World) -> None:
    """Since version 18 the walsender passes over what changed in between, without a word."""
    await ready(world)
    world.run("insert into t values (1)")
    position = (await world.changes("t"))[-1].position
    world.run("drop publication concord_crm", "insert into t values (2)", PUBLISH, "insert into t values (3)")

    with pytest.raises(PositionLost, match="was dropped and made again behind our position") as lost:
        await world.changes("t", after=position)
    assert CURE in lost.value.hint


async def test_a_publication_made_anew_between_two_looks_is_noticed(world: World) -> None:
    await ready(world)
    async with world.feed("t") as feed:
        assert isinstance(feed, PostgresFeed)
        world.run("drop publication concord_crm", PUBLISH)
        with pytest.raises(PositionLost, match="was dropped and made again behind our position") as lost:
            await feed.look()
    assert CURE in lost.value.hint


async def test_set_up_makes_no_publication_for_an_older_slot_and_the_cure_helps(world: World) -> None:
    await ready(world)
    world.run("insert into t values (1)")
    position = (await world.changes("t"))[-1].position
    await until(world, "select not active from pg_replication_slots where slot_name = 'concord_crm'")
    world.run("drop publication concord_crm", "insert into t values (2)")
    with pytest.raises(PositionLost, match="does not exist") as lost:
        await world.changes("t", after=position)
    with pytest.raises(PositionLost, match="does not fit an older slot") as refused:
        await world.setup("t")
    findings = {finding.path: finding for finding in await world.system.check(["t"], Role.SOURCE)}

    assert CURE in lost.value.hint
    assert CURE in refused.value.hint
    assert world.rows("select count(*) from pg_publication") == [(0,)]
    assert "does not fit an older slot" in findings["slot concord_crm"].message
    world.run(findings["slot concord_crm"].sql)
    await world.setup("t")
    world.run("insert into t values (3)")
    # The second half of the cure reads the tables, and goes on from where set-up has put the new beginning.
    with pytest.raises(PositionLost, match="past our position"):
        await world.changes("t", after=position)
    assert flat(await world.changes("t")) == [("I", "t", ("3", None))]


async def test_a_log_from_before_the_publication_is_never_read_with_a_wrong_cure(world: World) -> None:
    """Nothing of ours knows the older publication here. Up to version 17 every start fails the same way."""
    await ready(world)
    world.run("drop publication concord_crm", "insert into t values (1)", PUBLISH, "insert into t values (2)")
    if int(world.rows("show server_version_num")[0][0]) >= 180_000:
        assert flat(await world.changes("t")) == [("I", "t", ("2", None))]
        return
    for _ in range(2):
        with pytest.raises(PositionLost, match='publication "concord_crm" does not exist') as lost:
            await world.changes("t")
        assert CURE in lost.value.hint


async def test_a_position_that_knows_no_publication_is_read_on(world: World) -> None:
    await ready(world)
    world.run("insert into t values (1)")
    position = (await world.changes("t"))[-1].position
    world.run("insert into t values (2)")
    older = Position(order=position.order, token=position.token.rpartition(" ")[0])
    assert flat(await world.changes("t", after=older)) == [("I", "t", ("2", None))]


async def test_the_end_of_the_log_is_unmoved_while_nothing_happens(world: World) -> None:
    await ready(world)
    async with world.feed("t") as feed:
        await drain(feed, world.end())
        position = feed.position
        with anyio.move_on_after(0.3) as scope:
            batch = await feed.receive(10)
            assert not batch.segments
            assert position < batch.position
    assert position.order[1] == WHOLE or scope.cancelled_caught


async def test_a_server_that_stops_is_not_kept_waiting(tmp_path: Path) -> None:
    with start_postgres(tmp_path / "server") as server:
        world = await ready(make_world(server.dsn("postgres"), tmp_path))
        world.run("insert into t values (1)")
        end = world.end()
        world.users.close()
        async with world.feed("t") as feed:
            for batch in await drain(feed, end):
                feed.confirm(batch.position)
            server.process.send_signal(signal.SIGINT)
            with pytest.raises(SystemUnreachable):
                await forever(feed)
        await poll(lambda: server.process.poll() is not None)


async def forever(feed: Feed, *, look: bool = False) -> None:
    while True:
        feed.confirm((await feed.receive(10)).position)
        if look:
            assert isinstance(feed, PostgresFeed)
            await feed.look()


def _now(world: World) -> str:
    return str(world.rows("select clock_timestamp()::text")[0][0])


def _give_to_server(directory: Path) -> None:
    """A copy made by root belongs to root; the server's user shall own it."""
    owner = (directory.parent / "server" / "data").stat()
    for path in (directory, *directory.rglob("*")):
        shutil.chown(path, owner.st_uid, owner.st_gid)
