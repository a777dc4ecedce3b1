"""Goal: a delivery on its way while a user changes keys is made up for, at the row it missed and at the one it hit.

Method: the CRM's user gives the row of one record another key, and its old key to the row of another, while a change
from elsewhere is being delivered to the CRM under the old key. Nothing but the CRM's log tells the engine.
"""

from __future__ import annotations

import random

import pytest

from engine.model.change import DELETE, UPDATE
from engine.model.position import Position
from engine.model.value import CanonicalRow
from engine.pipeline.canonicalize import CanonicalBatch, CanonicalSegment, PlaceRows
from engine.pipeline.commit import Committer
from engine.pipeline.gather import Item
from tests.pipeline.world import World, WorldSystem

CRM, FSM = 1, 2
PHONE, NOTE = 2, 6


class Keys(World):
    """A world in which the CRM's user moves rows from key to key."""

    def move(self, old: str, new: str) -> None:
        rows = self.systems[CRM].rows
        rows[new] = rows.pop(old)
        self._capture_later(UPDATE, new, tuple(rows[new]), old)

    def swap(self, one: str, other: str) -> None:
        """In one statement, which is possible where keys are checked at its end."""
        rows = self.systems[CRM].rows
        rows[one], rows[other] = rows[other], rows[one]
        self._capture_later(UPDATE, other, tuple(rows[other]), one)
        self._capture_later(UPDATE, one, tuple(rows[one]), other)

    def delete(self, key: str) -> None:
        del self.systems[CRM].rows[key]
        self._capture_later(DELETE, key, None, None)

    def edit(self, n: int, key: str, field: int, value: str) -> None:
        row = self.systems[n].rows[key]
        row[field] = value
        if n == CRM:
            self._capture_later(UPDATE, key, tuple(row), None)
        else:
            self.systems[n].log.append((None, key, tuple(row), self.now))

    def _capture_later(self, op: int, key: str, row: CanonicalRow | None, old: str | None) -> None:
        part = self.systems[CRM].part.places[0]
        old_keys = {} if old is None else {0: old}
        rows = PlaceRows(part, (), 511, bytearray([op]), [key], [row], [self.now], old_keys, {}, {})
        self.systems[CRM].log.append((None, key, None, -1))
        self.moves.append(rows)

    moves: list[PlaceRows]

    def __init__(self) -> None:
        super().__init__(random.Random(0))
        self.moves = []
        self.now = 1

    def capture(self, n: int) -> bool:
        log = self.systems[n].log
        if n != CRM or not log or log[0][3] != -1:
            return super().capture(n)
        log.pop(0)
        rows = self.moves.pop(0)
        if rows.old_keys and self.moves and self.moves[0].old_keys.get(0) == rows.keys[0]:
            # Two rows of one statement.
            rows, more = self.moves.pop(0), rows
            log.pop(0)
            rows = PlaceRows(
                rows.part, (), 511, more.ops + rows.ops, [*more.keys, *rows.keys], [*more.records, *rows.records],
                [self.now] * 2, {0: more.old_keys[0], 1: rows.old_keys[0]}, {}, {},
            )  # fmt: skip
        batch = CanonicalBatch(Position((self.now,)), [CanonicalSegment(None, [], [rows])], True, 1, 0, 0)
        committer = Committer(self.topology, self.systems[CRM].part)
        self.hub.transact_now(lambda tx: committer.commit(tx, batch))
        return True

    def _write(self, system: WorldSystem, item: Item) -> None:
        # A row that is not there is not written.
        if item.key in system.rows:
            super()._write(system, item)

    def row(self, n: int, rid: int) -> list[str | int | bool | None]:
        """The record's row, whatever its key is now."""
        keys = self.hub.transact_now(lambda tx: tx.keys_of(n, [rid]))
        return self.systems[n].rows[keys[rid]]


@pytest.fixture
def world() -> Keys:
    made = Keys()
    for n in made.systems:
        for key, rid in made.rids.items():
            made.systems[n].rows[key][1] = f"record {rid}"
    # Let everybody know of the names.
    for key in made.rids:
        made.edit(CRM, key, PHONE, f"phone {key}")
    made.settle()
    return made


def test_the_row_that_was_missed_and_the_row_that_was_hit_are_both_set_right(world: Keys) -> None:
    first, second = world.rids
    world.edit(FSM, first, PHONE, "new")
    assert world.capture(FSM)
    world.move(first, "between")
    world.move(second, first)
    world.move("between", second)
    while world.deliver(CRM):
        pass
    assert world.systems[CRM].rows[first][PHONE] == "new", "the delivery did not hit the other row"
    world.settle()
    assert world.row(CRM, world.rids[first])[PHONE] == "new"
    for n in world.systems:
        assert world.row(n, world.rids[second])[PHONE] == f"phone {second}"


def test_what_the_row_holds_by_mistake_is_not_taken_for_its_users_word(world: Keys) -> None:
    first, second = world.rids
    world.edit(FSM, first, PHONE, "new")
    assert world.capture(FSM)
    world.move(first, "between")
    world.move(second, first)
    world.move("between", second)
    while world.deliver(CRM):
        pass
    # Both rows are written whole by their users, before what went astray is made up for.
    world.edit(CRM, first, NOTE, "seen with the wrong telephone number")
    world.edit(CRM, second, NOTE, "seen with the old telephone number")
    world.settle()
    for n in world.systems:
        assert world.row(n, world.rids[first])[PHONE] == "new"
        assert world.row(n, world.rids[first])[NOTE] == "seen with the old telephone number"
        assert world.row(n, world.rids[second])[PHONE] == f"phone {second}"
        assert world.row(n, world.rids[second])[NOTE] == "seen with the wrong telephone number"


def test_a_key_taken_over_from_a_deleted_row_brings_nothing_of_it(world: Keys) -> None:
    first, second = world.rids
    world.edit(FSM, first, PHONE, "new")
    assert world.capture(FSM)
    world.delete(first)
    world.move(second, first)
    while world.deliver(CRM):
        pass
    assert world.systems[CRM].rows[first][PHONE] == "new", "the delivery did not hit the other row"
    world.settle()
    for n in world.systems:
        assert world.row(n, world.rids[second])[PHONE] == f"phone {second}"


def test_keys_swapped_in_one_statement_stay_with_their_records(world: Keys) -> None:
    first, second = world.rids
    world.swap(first, second)
    world.edit(FSM, first, PHONE, "new")
    world.settle()
    for n in world.systems:
        assert world.row(n, world.rids[first])[PHONE] == "new"
        assert world.row(n, world.rids[second])[PHONE] == f"phone {second}"
    assert world.systems[CRM].rows[second][PHONE] == "new"
