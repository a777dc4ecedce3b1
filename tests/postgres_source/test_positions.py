"""Goal: a position says exactly what has been handed out: behind it nothing is missing and nothing comes twice.
Method: a history of small, large, streamed, rolled back and echoed transactions is read once without interruption, and
then by feeds that are closed or broken at random places and opened again at the last position; both must be equal.
Confirmations are thrown in, so that the server really forgets."""

from __future__ import annotations

import random

import pytest

from engine.errors import PositionLost
from engine.model.change import Batch
from engine.model.position import WHOLE, Position
from engine.model.value import WireRow
from plugins.postgres.capture import PostgresFeed
from plugins.postgres.position import Cluster, before, resume_at
from tests.postgres_source.support import World, drain, flat, make_world, poll
from tests.postgres_source.test_streams import churn

pytestmark = pytest.mark.anyio


async def history(world: World, chance: random.Random) -> int:
    """Makes tables t and u with a past; returns its end."""
    database = world.rows("select current_database()")[0][0]
    world.run(f"alter database {database} set logical_decoding_work_mem = '64kB'")
    world.run("create table t (id int primary key, v text)", "create table u (id int primary key, v text)")
    await world.setup("t", "u")
    churn(world, chance)
    for seq in range(1, 12):
        wide = chance.choice((1, 5, 400))
        start = -1000 * seq
        world.transaction(
            f"update concord.marker set seq = {seq}",
            f"insert into t select n, 'ours' from generate_series({start}, {start + wide}) n",
        )
        for n in range(chance.randint(0, 6)):
            world.run(f"update t set v = 'user {seq} {n}' where id = {start}")
        if chance.random() < 0.3:
            world.run("truncate u")
    return world.end()


def told(batches: list[Batch]) -> list[tuple[str, str, WireRow | tuple[int | None]]]:
    """Everything the batches tell, in order, without where one ends and the next begins."""
    found: list[tuple[str, str, WireRow | tuple[int | None]]] = []
    for batch in batches:
        for segment in batch.segments:
            found += [(event.kind.value, event.table, ()) for event in segment.events]
            for name, rows in sorted(segment.tables.items()):
                found += [(chr(op), name, row) for op, row in zip(rows.ops, rows.rows, strict=True)]
    return found


def by_table(batches: list[Batch], table: str) -> list[tuple[str, str, WireRow | tuple[int | None]]]:
    return [entry for entry in told(batches) if entry[1] == table]


class _Broken(Exception):
    pass


@pytest.mark.parametrize("seed", range(6))
async def test_feeds_closed_anywhere_give_each_change_once(world: World, seed: int) -> None:
    chance = random.Random(seed)
    end = await history(world, chance)
    async with world.feed("t", "u") as feed:
        whole = await drain(feed, end, 200)

    position: Position | None = None
    accepted: list[Batch] = []
    lives = 0
    while position is None or position.order < (end - 1, 0):
        lives += 1
        try:
            async with world.feed("t", "u", after=position) as feed:
                for _ in range(chance.randint(1, 12)):
                    batch = await feed.receive(chance.choice((1, 3, 50, 300)))
                    if chance.random() < 0.15:
                        # The daemon dies before the hub has committed this batch: it must come again.
                        raise _Broken
                    accepted.append(batch)
                    position = batch.position
                    if chance.random() < 0.5:
                        feed.confirm(position)
                    if position.order >= (end - 1, 0):
                        break
                if chance.random() < 0.3:
                    world.run("select pg_terminate_backend(active_pid) from pg_replication_slots where active")
        except _Broken:
            pass

    assert lives > 3
    for table in ("t", "u"):
        assert by_table(accepted, table) == by_table(whole, table)
    assert sum(b.rows_read for b in accepted) == sum(b.rows_read for b in whole)
    assert sum(b.rows_echoed for b in accepted) == sum(b.rows_echoed for b in whole)


async def test_every_position_leads_to_exactly_the_rest(world: World) -> None:
    chance = random.Random(11)
    end = await history(world, chance)
    async with world.feed("t", "u") as feed:
        whole = await drain(feed, end, 40)
    # Growing: a position that a feed was opened at is durable, and so is confirmed.
    places = sorted(chance.sample(range(len(whole)), 12))

    for place in places:
        async with world.feed("t", "u", after=whole[place].position) as feed:
            rest = await drain(feed, end, 1000)
        for table in ("t", "u"):
            assert by_table(rest, table) == by_table(whole[place + 1 :], table)


async def test_positions_grow_and_parts_stand_before_their_whole(world: World) -> None:
    end = await history(world, random.Random(3))
    async with world.feed("t", "u") as feed:
        start = feed.position
        whole = await drain(feed, end, 25)

    orders = [start.order, *(batch.position.order for batch in whole)]
    assert orders == sorted(set(orders))
    assert {batch.is_whole for batch in whole} == {True, False}
    assert all((batch.position.order[1] == WHOLE) == batch.is_whole for batch in whole)


async def test_confirming_lets_the_server_forget_and_nothing_else_does(world: World) -> None:
    world.run("create table t (id int primary key)")
    await world.setup("t")
    query = "select confirmed_flush_lsn::text from pg_replication_slots"
    (at_first,) = world.rows(query)
    world.run("insert into t values (1)")
    async with world.feed("t") as feed:
        batches = await drain(feed, world.end())
    (unconfirmed,) = world.rows(query)
    async with world.feed("t", after=batches[-1].position) as feed:
        feed.confirm(batches[-1].position)
    # The server reads our last status after we have gone.
    await poll(lambda: world.rows(query) != [at_first])

    assert flat(batches) == [("I", "t", ("1",))]
    assert unconfirmed == at_first
    with pytest.raises(PositionLost, match="somebody else read or advanced it"):
        async with world.feed("t", after=before(1000, resume_cluster(batches[-1].position))):
            pass


async def test_a_part_of_a_transaction_confirms_only_what_stands_before_it(world: World) -> None:
    world.run("create table t (id int primary key)")
    await world.setup("t")
    world.run("insert into t select generate_series(1, 100)")
    end = world.end()
    async with world.feed("t") as feed:
        part = await feed.receive(10)
        feed.confirm(part.position)
    async with world.feed("t", after=part.position) as feed:
        rest = await drain(feed, end)

    assert not part.is_whole
    assert [int(str(row[0])) for _, _, row in flat([part, *rest])] == list(range(1, 101))


async def test_unrelated_log_moves_the_position_and_frees_the_log(world: World) -> None:
    world.run("create table t (id int primary key)", "create table unmapped (id int, v text)")
    await world.setup("t")
    (kept,) = world.rows("select restart_lsn from pg_replication_slots")
    async with world.feed("t") as feed:
        assert isinstance(feed, PostgresFeed)
        for _ in range(3):
            world.run("insert into unmapped select n, repeat('x', 100) from generate_series(1, 5000) n", "checkpoint")
            for batch in await drain(feed, world.end()):
                assert not batch.segments
                feed.confirm(batch.position)
    freed = f"select confirmed_flush_lsn - '{kept[0]}'::pg_lsn > 1000000 from pg_replication_slots"
    await poll(lambda: world.rows(freed) == [(True,)])


async def test_two_systems_in_one_cluster_do_not_mix(world: World, postgres_dsn: str) -> None:
    world.run("create table t (id int primary key)")
    other = make_world(postgres_dsn, world.site.directory, name="second")
    await world.setup("t")
    await other.setup("t")
    world.run("insert into t values (1)")

    changes = [flat(await each.changes("t")) for each in (world, other)]
    other.users.close()

    assert changes == [[("I", "t", ("1",))]] * 2


async def test_no_position_is_taken_from_another_kind_of_log(world: World) -> None:
    world.run("create table t (id int primary key)")
    await world.setup("t")
    for position in (Position((4,)), Position((1, WHOLE), "no lsn"), Position((1, WHOLE), "0/10 x y")):
        with pytest.raises(PositionLost):
            async with world.feed("t", after=position):
                pass


def resume_cluster(position: Position) -> Cluster:
    cluster = resume_at(position, system="crm").cluster
    assert cluster is not None
    return cluster
