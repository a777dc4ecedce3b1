"""Goal: the feed loses nothing and invents nothing whatever other programs do at the same time or do to the journal; it
hands out whole transactions, forgets only what is confirmed, and says so when its place in the log is gone.

Method: writers in processes of their own, killed in mid-transaction; journals cut, restored and set up anew by hand.
"""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

import anyio
import pytest

from engine.errors import ConcordError, Disposition, PositionLost, SourceUnready, SystemUnreachable
from engine.model.change import Batch
from engine.model.position import Position
from engine.model.value import WireRow
from engine.ports import Feed, Role
from plugins.sqlite import capture
from plugins.sqlite.connect import connect_now
from tests.sqlite.support import World, connect, end, flat, hear, insert, open_world, say

pytestmark = pytest.mark.anyio
TABLE = "create table t (id integer primary key, n)"


async def test_feeds_of_several_files_may_begin_at_the_same_moment() -> None:
    """Each try is a process: what it is about happens once in the life of one."""
    for _ in range(5):
        ended = await anyio.run_process([sys.executable, "-m", "tests.sqlite.open_together"], check=False)
        assert ended.returncode == 0, ended.stderr.decode()[-2000:]


async def test_receive_waits_until_another_process_commits(world: World) -> None:
    await world.create(TABLE)
    writer = world.process(
        "sys.stdin.readline(); connection.execute('begin'); connection.execute('insert into t values (1, 1)')\n"
        "print('written', flush=True); sys.stdin.readline(); connection.execute('commit'); sys.stdin.readline()"
    )
    received: list[Batch] = []
    try:
        async with world.feed("t") as feed, anyio.create_task_group() as tasks:

            async def receive() -> None:
                received.append(await feed.receive(100))

            tasks.start_soon(receive)
            say(writer, "write")
            assert await anyio.to_thread.run_sync(hear, writer) == "written"
            assert received == []
            say(writer, "commit")
        assert flat(received) == [("I", (1, 1))]
    finally:
        end(writer)


@pytest.mark.parametrize("journal_mode", ["wal", "delete", "truncate"])
async def test_every_batch_of_a_busy_writer_holds_whole_transactions(tmp_path: Path, journal_mode: str) -> None:
    """Each transaction of the other process writes its number five times."""
    world = open_world(tmp_path, journal_mode=journal_mode)
    await world.create(TABLE)
    writer = world.process(
        "for number in range(300):\n"
        "    connection.execute('begin immediate')\n"
        "    for _ in range(5): connection.execute('insert into t (n) values (?)', (number,))\n"
        "    connection.execute('commit')\n"
        "print('done', flush=True); sys.stdin.readline()"
    )
    try:
        rows: list[WireRow] = []
        async with world.feed("t") as feed:
            while len(rows) < 1500:
                batch = await feed.receive(10_000)
                rows += [row for _, row in flat([batch])]
                assert batch.is_whole
                assert len(rows) % 5 == 0
                feed.confirm(batch.position)
        assert hear(writer) == "done"
        assert [row[1] for row in rows] == [n // 5 for n in range(1500)]
    finally:
        end(writer)
        world.users.close()


async def test_a_writer_that_is_killed_in_mid_transaction_was_never_there(world: World) -> None:
    await world.create(TABLE)
    writer = world.process(
        "connection.execute('pragma cache_size = 5'); connection.execute('begin')\n"
        "for n in range(5000): connection.execute('insert into t (n) values (?)', ('killed' * 20,))\n"
        "print('written', flush=True); sys.stdin.readline()"
    )
    assert hear(writer) == "written"
    end(writer)
    world.run("insert into t values (1, 'after')")
    assert flat(await world.changes("t")) == [("I", (1, "after"))]


async def test_a_long_journal_read_in_portions_is_whole_at_its_end_only(world: World) -> None:
    await world.create(TABLE)
    world.run("insert into t (n) select value from json_each('[1,2,3,4,5,6,7]')")
    batches = await world.changes("t", rows_max=3)
    assert [batch.is_whole for batch in batches] == [False, False, True]
    assert [len(flat([batch])) for batch in batches] == [3, 3, 1]


async def test_a_writer_that_never_rests_does_not_keep_whole_batches_away(world: World) -> None:
    """Where the journal ended at the first look is a boundary, however much has come behind it since."""
    await world.create(TABLE)
    world.run("insert into t (n) values (1), (1), (1)")
    async with world.feed("t") as feed:
        first = await feed.receive(2)
        world.run("insert into t (n) values (2), (2), (2)")
        second = await feed.receive(2)
        world.run("insert into t (n) values (3)")
        third = await feed.receive(2)
    assert [batch.is_whole for batch in (first, second, third)] == [False, True, False]
    assert [[row[1] for _, row in flat([batch])] for batch in (first, second, third)] == [[1, 1], [1], [2, 2]]


async def test_a_portion_ends_before_a_delivery_rather_than_in_a_transaction(world: World) -> None:
    await world.create(TABLE)
    world.run("insert into t (n) values (1), (1)")
    await world.deliver_alone(insert("t", ("id", "n"), [(100, 0)]))
    world.run("insert into t (n) values (2), (2), (2)")
    batches = await world.changes("t", rows_max=4)
    assert [batch.is_whole for batch in batches] == [True, True]
    assert [[row[1] for _, row in flat([batch])] for batch in batches] == [[1, 1], [2, 2, 2]]
    assert batches[1].segments[0].seen == 1


async def test_an_idle_feed_says_nothing_and_sees_tables_it_has_no_part_in_go_by(world: World) -> None:
    await world.create(TABLE, "create table other (id integer primary key)")
    async with world.feed("t") as feed:
        with anyio.move_on_after(0.1) as scope:
            await feed.receive(10)
        assert scope.cancelled_caught
        world.run("insert into other values (1)")
        batch = await feed.receive(10)
        assert (batch.segments, batch.rows_read, batch.position.order) == ([], 0, (world.head(),))


async def test_a_cancelled_receive_loses_nothing(world: World) -> None:
    await world.create(TABLE)
    rows: list[WireRow] = []
    async with world.feed("t") as feed:
        for n in range(40):
            world.run(f"insert into t values ({n}, {n})")
            with anyio.move_on_after(0.0005 * (n % 7)):
                rows += [row for _, row in flat([await feed.receive(10)])]
        rows += [row for _, row in flat(await world.drain(feed))]
    assert [row[0] for row in rows] == list(range(40))


async def test_a_feed_opened_at_a_position_goes_on_behind_it(world: World) -> None:
    await world.create(TABLE)
    world.run("insert into t (n) values (1), (2), (3)")
    async with world.feed("t") as feed:
        batch = await feed.receive(2)
        assert feed.position == batch.position
    assert [row[1] for _, row in flat(await world.changes("t", after=batch.position))] == [3]


async def test_positions_are_greater_the_later(world: World) -> None:
    await world.create(TABLE)
    world.run(*(f"insert into t (n) values ({n})" for n in range(12)))
    positions = [batch.position for batch in await world.changes("t", rows_max=1)]
    assert positions == sorted(positions)
    assert len(set(positions)) == 12


class TestForgetting:
    async def test_nothing_is_forgotten_that_is_not_confirmed(self, world: World) -> None:
        await world.create(TABLE)
        async with world.feed("t") as feed:
            for n in range(5):
                world.run(f"insert into t values ({n}, {n})")
                await world.drain(feed)
            feed.confirm(Position((3,)))
            await self.forget(world, feed, "select min(id) = 3 from concord_journal")
        assert [row[0] for _, row in flat(await world.changes("t"))] == [3, 4]

    async def test_forgetting_goes_in_portions_and_comes_to_its_end(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(capture, "PURGE_ROWS", 10)
        await world.create(TABLE)
        world.run("insert into t (n) select 1 from json_each('[" + ",".join("1" * 95) + "]')")
        async with world.feed("t") as feed:
            await world.drain(feed)
            feed.confirm(feed.position)
            await self.forget(world, feed, "select count(*) = 1 from concord_journal")

    async def test_forgetting_gives_way_to_a_user_and_tries_again(self, world: World) -> None:
        await world.create(TABLE)
        world.run("insert into t (n) values (1), (2)")
        async with world.feed("t") as feed:
            await world.drain(feed)
            feed.confirm(feed.position)
            world.run("begin immediate")
            started = time.monotonic()
            with anyio.move_on_after(0.2):
                await feed.receive(10)
            # It did not wait for the lock: the busy timeout is five seconds.
            assert time.monotonic() - started < 4
            assert world.value("select count(*) from concord_journal") == 2
            world.run("rollback")
            await self.forget(world, feed, "select count(*) = 1 from concord_journal")

    async def test_numbers_are_never_given_twice(self, world: World) -> None:
        await world.create(TABLE)
        world.run("insert into t (n) values (1)")
        async with world.feed("t") as feed:
            await world.drain(feed)
            feed.confirm(feed.position)
            await self.forget(world, feed, "select purged = 1 from concord_marker")
        world.run("insert into t (n) values (2)", "vacuum", "insert into t (n) values (3)")
        assert world.head() == 3

    async def test_it_goes_on_while_there_is_always_something_to_read(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(capture, "PURGE_SECONDS", 0.0)
        await world.create(TABLE)
        async with world.feed("t") as feed:
            for n in range(20):
                world.run(f"insert into t values ({n}, {n})")
                feed.confirm((await feed.receive(10)).position)
        assert world.value("select count(*) from concord_journal") <= 2

    async def forget(self, world: World, feed: Feed, until: str) -> None:
        with anyio.fail_after(30):
            while not world.value(until):
                with anyio.move_on_after(0.05):
                    await feed.receive(10)


class TestLostPlaces:
    async def test_a_database_restored_from_an_older_copy_is_noticed(self, world: World, tmp_path: Path) -> None:
        position = await self.restore(world, tmp_path)
        with pytest.raises(PositionLost, match="ends at 1, we stand at 2") as caught:
            await world.changes("t", after=position)
        assert caught.value.disposition is Disposition.HALT

    async def test_a_restored_copy_that_has_gone_on_is_noticed_too(self, world: World, tmp_path: Path) -> None:
        position = await self.restore(world, tmp_path)
        await self.next_millisecond(world)
        world.run("insert into t (n) values (9)", "insert into t (n) values (9)")
        with pytest.raises(PositionLost, match="is not the one that we have read"):
            await world.changes("t", after=position)

    async def test_a_journal_that_was_set_up_anew_is_noticed(self, world: World) -> None:
        await world.create(TABLE)
        world.run("insert into t (n) values (1)")
        (batch,) = await world.changes("t")
        await world.system.teardown()
        await world.setup("t")
        await self.next_millisecond(world)
        world.run("insert into t (n) values (2), (3)")
        with pytest.raises(PositionLost, match="is not the one"):
            await world.changes("t", after=batch.position)

    async def test_a_place_that_another_reader_has_confirmed_away_is_noticed(self, world: World) -> None:
        await world.create(TABLE)
        world.run("insert into t (n) values (1), (2), (3)")
        async with world.feed("t") as feed:
            first = await feed.receive(1)
            await world.drain(feed)
            feed.confirm(feed.position)
            await TestForgetting().forget(world, feed, "select purged = 3 from concord_marker")
        with pytest.raises(PositionLost, match="begins behind 3, we stand at 1"):
            await world.changes("t", after=first.position)

    @pytest.mark.parametrize("rows", ["id = 2", "id >= 2", "id between 1 and 3", "1"])
    async def test_journal_rows_that_somebody_deletes_are_missed(self, world: World, rows: str) -> None:
        await world.create(TABLE)
        async with world.feed("t") as feed:
            world.run("insert into t (n) values (1), (2), (3)", f"delete from concord_journal where {rows}")
            with pytest.raises(PositionLost, match="are gone"):
                await feed.receive(10)

    async def restore(self, world: World, directory: Path) -> Position:
        await world.create(TABLE)
        world.run("insert into t (n) values (1)", "pragma wal_checkpoint(truncate)")
        copy = shutil.copy(world.path, directory / "backup.db")
        world.run("insert into t (n) values (2)")
        *_, last = await world.changes("t")
        world.users.close()
        remove(world)
        shutil.copy(copy, world.path)
        world.users = connect(world.path)
        return last.position

    async def next_millisecond(self, world: World) -> None:
        """The journal tells time to the millisecond."""
        now = "select cast((julianday('now') - 2440587.5) * 86400000.0 as integer)"
        started = world.value(now)
        while world.value(now) == started:  # noqa: ASYNC110 - the clock sends no event
            await anyio.sleep(0.001)


def remove(world: World) -> None:
    """The file and what SQLite keeps beside it."""
    for file in world.path.parent.glob("crm.db*"):
        file.unlink()


async def test_a_source_without_set_up_says_so(world: World) -> None:
    world.run(TABLE)
    with pytest.raises(SourceUnready, match="no change journal") as caught:
        await world.changes("t")
    assert caught.value.hint == "Run `concord setup crm`."


async def test_a_teardown_under_a_running_feed_says_so(world: World) -> None:
    await world.create(TABLE)
    async with world.feed("t") as feed:
        await world.system.teardown()
        with pytest.raises(SourceUnready):
            await feed.receive(10)


async def test_a_file_that_is_not_there_is_waited_for(world: World) -> None:
    missing = World(world.path.with_name("other.db"), world.config, world.users)
    missing.config = type(world.config)(path="other.db")
    with pytest.raises(SystemUnreachable, match="there is no file") as caught:
        await missing.system.shapes()
    assert caught.value.disposition is Disposition.RETRY
    assert not missing.path.exists()


async def test_a_file_that_is_no_database_is_told_without_a_trace_of_it(world: World) -> None:
    world.users.close()
    remove(world)
    world.path.write_bytes(b"secret " * 1000)
    with pytest.raises(ConcordError, match="damaged or is no SQLite database") as caught:
        await world.system.shapes()
    assert caught.value.disposition is Disposition.RETRY


async def test_an_exclusive_lock_is_waited_out(tmp_path: Path) -> None:
    """In rollback-journal mode a writer locks readers out for as long as it commits."""
    world = open_world(tmp_path, journal_mode="delete", busy_timeout_seconds=0.05)
    await world.create(TABLE)
    async with world.feed("t") as feed:
        world.run("begin exclusive; insert into t values (1, 1)")
        with pytest.raises(ConcordError) as caught:
            await feed.receive(10)
        assert caught.value.disposition is Disposition.RETRY
        world.run("commit")
        assert flat([await feed.receive(10)]) == [("I", (1, 1))]
    world.users.close()


async def test_a_chunk_shows_what_stands_before_its_low_mark(world: World) -> None:
    await world.create(TABLE)
    world.run("insert into t values (1, 'a'), (2, 'b')")
    async with world.feed("t") as feed:
        chunk = await feed.chunk("t", None, 1)
        world.run("update t set n = 'c'")
        assert (chunk.low, chunk.high) == (Position((2,)), Position((2,)))
        assert (chunk.page.rows, chunk.page.last_key) == ([(1, "a")], ("i1",))
        assert (await feed.chunk("t", chunk.page.last_key, 5)).page.rows == [(2, "c")]
        await world.drain(feed)
        assert chunk.high <= feed.position


async def test_a_chunk_of_a_quiet_journal_that_was_forgotten_is_passed_at_once(world: World) -> None:
    await world.create(TABLE)
    world.run("insert into t values (1, 'a')")
    async with world.feed("t") as feed:
        await world.drain(feed)
        feed.confirm(feed.position)
        await TestForgetting().forget(world, feed, "select purged = 1 from concord_marker")
        assert (await feed.chunk("t", None, 5)).high <= feed.position


async def test_readers_do_not_leave_locks_behind(tmp_path: Path) -> None:
    world = open_world(tmp_path, journal_mode="delete")
    await world.create(TABLE)
    async with world.feed("t") as feed:
        world.run("insert into t values (1, 1)")
        await world.drain(feed)
        await feed.chunk("t", None, 10)
        other = connect_now(world.site, world.config)
        other.set_busy_timeout(0)
        other.execute("begin exclusive; insert into t values (2, 2); commit")
        other.close()
    await world.system.check(["t"], Role.SOURCE)
    world.users.close()
