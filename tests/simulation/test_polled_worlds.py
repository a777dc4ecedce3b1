"""Goal: a system that is only looked at now and then agrees with the others like any, and no edit of its users is
overwritten unread.

Method: the worlds of `test_worlds`, in which one system or several are polled: looks miss rows that changed, find
deletions seldom, and see nothing of what was between two of them. What only stood between two looks may go unseen;
everything else is as promised. Then what makes it so is left out, and the same worlds must notice.
"""

from __future__ import annotations

from typing import Any

import pytest

from engine.model.change import DELETE, INSERT, UPDATE
from engine.model.table import Column, Form, Kind, Shape
from engine.model.value import ABSENT
from engine.pipeline import commit
from engine.testing import memory_polled
from engine.testing.memory import Marker, MemoryDatabase
from engine.testing.memory_polled import MemoryLooks, PolledFeed
from engine.testing.memory_target import MemoryDelivery
from engine.testing.simulation import Simulation
from tests.simulation import test_worlds
from tests.simulation.test_worlds import notices, run_worlds

WORLDS = test_worlds.WORLDS // 2


def polled(seed: int, **kinds: Any) -> Simulation:
    return Simulation(seed, has_polling=True, **kinds)


@pytest.mark.parametrize("has_deletes", [False, True], ids=["updates", "deletes"])
@pytest.mark.parametrize("has_twins", [False, True], ids=["", "twins"])
def test_polled_worlds_settle_in_agreement(has_deletes: bool, has_twins: bool) -> None:
    run_worlds(lambda seed: polled(30_000 + seed, has_deletes=has_deletes, has_twins=has_twins), WORLDS)


def test_polled_worlds_in_which_many_rows_come_at_once_settle_in_agreement() -> None:
    run_worlds(lambda seed: polled(31_000 + seed, has_imports=True), WORLDS)


def test_polled_worlds_in_which_systems_are_only_read_from_for_a_while_settle_in_agreement() -> None:
    run_worlds(lambda seed: polled(32_000 + seed, has_modes=True, has_retention=True), WORLDS)


def test_polled_worlds_in_which_tables_are_read_again_settle_in_agreement() -> None:
    run_worlds(lambda seed: polled(33_000 + seed, has_backfills=True), WORLDS)


@pytest.mark.parametrize(
    "seed",
    [
        pytest.param(19, id="a row entered beside ours, which its users then changed"),
        pytest.param(119, id="the same, where something had referred to it before"),
    ],
)
def test_polled_worlds_in_which_what_a_user_had_set_went_without_a_word(seed: int) -> None:
    polled(seed, has_deletes=seed == 119).run(4)


def test_a_world_in_which_a_customer_referred_to_before_it_was_shown_was_doubled_when_a_system_came_back() -> None:
    polled(32_002, has_modes=True, has_retention=True).run(4)


def test_writing_over_what_was_not_read_yet_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryDelivery, "_changed", lambda self, transaction, table, key: False)  # pyright: ignore
    assert notices(lambda seed: polled(seed, has_twins=False, has_deletes=False))


def test_that_a_new_row_was_there_before_it_was_found_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    original = PolledFeed._next  # pyright: ignore[reportPrivateUsage]

    def next_batch(self: PolledFeed, rows_max: int) -> memory_polled.Batch:
        batch = original(self, rows_max)
        for segment in batch.segments:
            segment.seen_at_least = None
        return batch

    monkeypatch.setattr(PolledFeed, "_next", next_batch)
    assert notices(lambda seed: polled(seed))


def test_rows_left_out_are_written_when_they_have_been_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only when the pause of a refused record is over, which is longer each time."""
    retried: list[int] = []
    original = commit.retry_reread

    def noted(tx: commit.HubTransaction, *args: object) -> None:
        last = tx.last_seq
        original(tx, *args)  # pyright: ignore[reportArgumentType]
        retried.append(tx.last_seq - last)

    monkeypatch.setattr(commit, "retry_reread", noted)
    run_worlds(lambda seed: polled(34_000 + seed), WORLDS)
    assert sum(retried) > WORLDS


def never() -> bool:
    return False


def looked_at() -> tuple[MemoryDatabase, MemoryLooks]:
    """A table with one row, known from a look, in a database that has our marker."""
    database = MemoryDatabase("erp", Form.NATIVE)
    columns = (Column(name="id", kind=Kind.INTEGER, type="integer"), Column(name="name", kind=Kind.TEXT, type="text"))
    database.create_table(Shape(name="parts", form=Form.NATIVE, key=("id",), columns=columns))
    with database.transaction() as users:
        users.insert("parts", {"id": 1, "name": "first"})
    database.marker = Marker("hub", 1, 4)
    looks = MemoryLooks()
    looks.begin(database, ["parts"])
    return database, looks


def found(database: MemoryDatabase, looks: MemoryLooks) -> list[tuple[int, object]]:
    looks.found.clear()
    looks.look(database, ["parts"], is_sweep=True, misses=never)
    return [(op, row[1]) for look in looks.found for _, op, row in look.changes]


def test_what_a_user_sets_back_on_top_of_a_delivery_is_a_change() -> None:
    database, looks = looked_at()
    looks.note(5, {("parts", (1,)): (1, "ours")})
    with database.transaction() as delivery:
        delivery.update("parts", 1, {"name": "ours"})
    database.marker = Marker("hub", 1, 5)
    with database.transaction() as users:
        users.update("parts", 1, {"name": "first"})
    assert found(database, looks) == [(UPDATE, "first")]
    assert found(database, looks) == []


def test_what_a_delivery_wrote_is_no_change_and_one_that_never_happened_is_nothing() -> None:
    database, looks = looked_at()
    looks.note(5, {("parts", (1,)): (1, "never")})
    assert found(database, looks) == []
    looks.forget_undelivered(4)
    looks.note(6, {("parts", (1,)): (1, "ours")})
    with database.transaction() as delivery:
        delivery.update("parts", 1, {"name": "ours"})
    database.marker = Marker("hub", 1, 6)
    assert found(database, looks) == []


def test_a_row_that_is_asked_for_is_handed_out_whatever_has_become_of_it() -> None:
    database, looks = looked_at()
    looks.wanted = {("parts", (1,)), ("parts", (2,))}
    with database.transaction() as users:
        users.insert("parts", {"id": 3, "name": "new"})
    assert found(database, looks) == [(UPDATE, "first"), (DELETE, ABSENT), (INSERT, "new")]
