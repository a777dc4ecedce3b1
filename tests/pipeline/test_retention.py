"""Goal: retention moves whoever takes part, and takes nothing that a decision still needs.

Method: worlds in which one system is only read from, or one is only written to, lived through twice from the same seed,
with and without retention: the records and the conflicts must be the same, and retention must have found something.
"""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from engine.hub.aside import Parked
from engine.hub.registry import READ_ONLY
from engine.hub.sweep import floor, sweep
from engine.hub.transaction import HubTransaction
from engine.pipeline.topology import Topology
from tests.pipeline.world import World


def live(
    seed: int, *, is_swept: bool, sends: frozenset[int] = frozenset(), receives: frozenset[int] = frozenset()
) -> World:
    rng = random.Random(seed)
    world = World(rng, (1, 2, 3, 4, 5, 7))
    parts = dict(world.topology.systems)
    for n in sends:
        parts[n] = replace(parts[n], is_target=False)
    entity = world.topology.entities[1]
    entity = replace(entity, concerned=entity.concerned & ~sum(1 << n for n in sends))
    world.topology = Topology(hub_id="h", systems=parts, entities={1: entity})
    for n, system in world.systems.items():
        system.part = parts[n]

    def begin(tx: HubTransaction) -> None:
        for n in sends:
            tx.write("update system set is_admitted = ?, marker = 0, seen = 0 where id = ?", (READ_ONLY, n))
        tx.write("insert into entity values (1, 'thing')")
        tx.write("insert into place select id, id, 'things', 1 from system")
        for n in world.systems.keys() - receives:
            tx.write("insert into snapshot (place, is_done) values (?, 1)", (n,))

    world.hub.transact_now(begin)
    for _ in range(rng.randrange(60, 160)):
        kind = rng.choices(("edit", "capture", "deliver", "sweep"), (6, 6, 6, 3))[0]
        n = rng.choice(list(world.systems))
        if kind == "edit" and n not in receives:
            world.user_edits_at(n)
        elif kind == "capture" and n not in receives:
            world.capture(n)
        elif kind == "deliver" and n not in sends:
            world.deliver(n)
        elif kind == "sweep" and is_swept:
            world.swept += world.hub.transact_now(lambda tx: sweep(tx, 0, older_than=1 << 60)).removed
    for _ in range(500):
        moved = [world.capture(n) for n in world.systems if n not in receives]
        moved += [world.deliver(n) for n in world.systems if n not in sends]
        if not any(moved):
            return world
    raise AssertionError("does not settle")


@pytest.mark.parametrize(
    "roles", [{"sends": frozenset((3,))}, {"sends": frozenset((1, 3))}, {"receives": frozenset((2,))}]
)
def test_records_and_conflicts_are_the_same_with_and_without_retention(roles: dict[str, frozenset[int]]) -> None:
    swept = 0
    for seed in range(120):
        kept, cut = live(seed, is_swept=False, **roles), live(seed, is_swept=True, **roles)
        for key in kept.rids:
            assert cut.current(key).values == kept.current(key).values, f"seed {seed}: {key}"
        assert cut.conflicts() == kept.conflicts(), f"seed {seed}"
        swept += cut.swept
    assert swept > 120, "the sweeps found nothing to do"


def test_a_system_that_nothing_is_written_to_does_not_hold_up_retention() -> None:
    world = live(5, is_swept=False)
    before = world.hub.transact_now(floor)

    def go_on(tx: HubTransaction) -> None:
        # Deliveries that had nothing for system 2: its cursor moved, no marker was written.
        tx.write("update system set cursor = ?, seen = ? where id != 2", (before + 50, before + 50))
        tx.write("update system set cursor = ?, marker = seen where id = 2", (before + 50,))

    world.hub.transact_now(go_on)
    assert world.hub.transact_now(floor) == before + 50


def test_a_row_that_waits_to_be_read_again_keeps_what_its_system_had_seen() -> None:
    world = live(5, is_swept=False)

    def park(tx: HubTransaction) -> None:
        tx.park(Parked(system=1, direction="source", place=1, rid=None, key="k1", seq=9, seen=7, code="value.refused",
                       reason="value", message="no number", doc=b"\x80"))  # fmt: skip

    assert world.hub.transact_now(floor) > 7
    world.hub.transact_now(park)
    assert world.hub.transact_now(floor) == 7


def test_what_a_row_held_when_it_left_its_filter_is_kept() -> None:
    world = World(random.Random(1), (2, 7))
    crm, key = world.systems[1], "k1"
    crm.away.add(key)
    world._log(crm, key)  # pyright: ignore[reportPrivateUsage]
    world.capture(1)
    for n in range(3):
        for system in (2, 3):
            row = world.systems[system].rows[key]
            row[2], row[7] = f"{system} {n}", int(row[7] or 0) + 1
            world.sums[key] += 1
            world._log(world.systems[system], key)  # pyright: ignore[reportPrivateUsage]
            settle_all(world)
    assert not world.hub.transact_now(lambda tx: sweep(tx, 0, older_than=1 << 60)).removed
    row = list(crm.rows[key])
    crm.away.remove(key)
    world._log(crm, key)  # pyright: ignore[reportPrivateUsage]
    settle_all(world)
    world.check()
    assert crm.rows[key] != row
    assert world.conflicts() == []
    assert world.hub.transact_now(lambda tx: sweep(tx, 0, older_than=1 << 60)).removed, "it is history now"


def settle_all(world: World) -> None:
    while any([f(n) for n in world.systems for f in (world.capture, world.deliver)]):  # noqa: C419 - all of them
        pass
