"""Goal: the rule of conflicts holds for the code that runs, not only for a model of it.

Method: worlds of three systems with concurrent users, late captures, coalesced deliveries, refusals and retries, in any
interleaving, around the real hub, resolver, gatherer and settler. When a world has settled: every system holds the
canonical value of every field (agreement), every edit is in the true ancestry of a final value or of a conflict
(no silent loss), counters add up, and nothing more is written (no echo). With all edits before the first capture, the
order of capture decides nothing (arrival).
"""

from __future__ import annotations

import random

import pytest

from tests.pipeline.world import World

SEEDS = 120


def run_world(seed: int, fields: tuple[int, ...], *, repeats: bool = False, has_leaves: bool = False) -> World:
    rng = random.Random(seed)
    world = World(rng, fields, repeats=repeats)
    world.has_leaves = has_leaves
    for _ in range(rng.randrange(5, 60)):
        for _ in range(rng.choice((1, 1, 1, 4))):
            world.step()
    world.settle()
    return world


KINDS = {"plain": (1, 2, 3), "groups": (1, 2, 3, 4, 5, 6), "policies": (2, 5, 7, 8)}


@pytest.mark.parametrize("has_leaves", [False, True], ids=["rows stay", "rows leave"])
@pytest.mark.parametrize("kind", KINDS)
def test_systems_agree_and_no_value_is_lost_in_silence(kind: str, has_leaves: bool) -> None:
    for seed in range(SEEDS):
        world = run_world(seed, KINDS[kind], has_leaves=has_leaves)
        try:
            world.check()
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error


def test_settled_world_writes_nothing_more() -> None:
    for seed in range(SEEDS):
        world = run_world(seed, (1, 2, 3, 4, 5, 6))
        writes = world.writes
        world.settle()
        assert world.writes == writes, f"seed {seed}: echo"


def test_systems_agree_when_the_same_values_come_back() -> None:
    for seed in range(SEEDS):
        world = run_world(seed, (1, 2, 4, 5, 6, 7), repeats=True)
        for key in world.rids:
            canonical = list(world.current(key).values)
            for n, system in world.systems.items():
                assert system.rows[key] == canonical, f"seed {seed}: {key} of system {n}"


def test_arrival_does_not_decide() -> None:
    for seed in range(SEEDS):
        rng = random.Random(seed)
        world = World(rng, (1, 2, 3))
        for _ in range(rng.randrange(1, 25)):
            world.user_edits()
        while any(system.log for system in world.systems.values()):
            world.capture(rng.choice(list(world.systems)))
        world.settle()
        world.check()
        owners = {1: 1, 3: 3}
        for key in world.rids:
            for index in world.fields:
                edits = [(t, v, n) for v, (k, i, n, t) in world.edits.items() if (k, i) == (key, index)]
                own = [edit for edit in edits if edit[2] == owners.get(index)]
                if edits:
                    assert world.current(key).values[index] == max(own or edits)[1], f"seed {seed}: {key} {index}"


def test_one_system_writing_alone_has_no_conflicts() -> None:
    for seed in range(40):
        rng = random.Random(seed)
        world = World(rng, (2, 4, 5))
        for _ in range(30):
            world.user_edits_at(1)
            for step in rng.sample((world.capture, world.deliver), rng.randrange(3)):
                step(rng.choice(list(world.systems)))
        world.settle()
        world.check()
        assert world.conflicts() == [], f"seed {seed}"


@pytest.mark.parametrize("has_leaves", [False, True], ids=["rows stay", "rows leave"])
def test_retention_takes_nothing_that_a_decision_still_needs(has_leaves: bool) -> None:
    swept = 0
    for seed in range(SEEDS):
        rng = random.Random(seed)
        world = World(rng)
        world.is_swept, world.has_leaves = True, has_leaves
        for _ in range(rng.randrange(60, 200)):
            world.step()
        world.settle()
        world.check()
        swept += world.swept
    assert swept > SEEDS, "the sweeps found nothing to do"
