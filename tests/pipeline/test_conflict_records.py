"""Goal: a conflict's record names two parties: whose value stands and whose does not.

Method: the worlds of `tests.pipeline.world`; every row of the conflict table is looked at, and through
`engine.views.waiting`, which `concord conflicts` and `concord explain` print.
"""

from __future__ import annotations

import random

from engine.hub.transaction import HubTransaction
from engine.views.waiting import ConflictRow, conflicts
from tests.pipeline.world import SYSTEMS, THING, World


def shown(world: World) -> list[ConflictRow]:
    def read(tx: HubTransaction) -> list[ConflictRow]:
        tx.write("insert or ignore into entity values (1, 'thing')")
        for n, field in enumerate(THING.fields):
            tx.write("insert or ignore into field values (1, ?, ?)", (n, field.name))
        return conflicts(tx, limit=10_000)

    return world.hub.transact_now(read)


def test_a_counter_never_loses_to_its_own_system() -> None:
    # Of other fields a system can overrule itself: a delivery may have landed between its two writes.
    found = 0
    for seed in range(80):
        world = World(random.Random(seed), (7,))
        for _ in range(80):
            world.step()
        world.settle()
        for row in shown(world):
            found += 1
            assert row.winner != row.loser, f"seed {seed}: {row}"
    assert found > 80, "these worlds have no conflicts"


def test_two_counts_that_meet_are_one_conflict_between_the_two() -> None:
    world = World(random.Random(1), (7,))
    world.rids = {"k1": 1}
    for n, count in ((1, 103), (2, 95)):
        world.now += 1
        world.systems[n].rows["k1"][7] = count
        world.systems[n].log.append((None, "k1", tuple(world.systems[n].rows["k1"]), world.now))
        world.capture(n)
    (row,) = shown(world)
    assert (row.rule, row.fields) == ("sum", ["stock"])
    # What stands is nobody's alone: 100 + 3 − 5. What fsm wrote does not stand as it wrote it.
    assert (row.winner, row.winner_values, row.loser, row.loser_values) == (SYSTEMS[0], [98], SYSTEMS[1], [95])
