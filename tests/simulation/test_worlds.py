"""Goal: whatever goes wrong, in whatever order, the guarantees hold when the world has settled.

Method: whole worlds from seeds: the real daemon, pipeline and hub on a virtual clock and a seeded scheduler, over
in-memory systems with users at work; disconnects, lost answers, slow and refusing targets, systems down, and deaths at
crash points. A world that has settled must agree, have nothing twice, have lost nothing in silence, and stay still.
The tests of the tests break the engine on purpose, each in one way, and the same worlds must notice.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from engine.hub import recent
from engine.hub.aside import Conflict
from engine.hub.transaction import HubTransaction
from engine.model.change import Batch
from engine.pipeline import copies, flow, gather, settle
from engine.pipeline.canonicalize import CanonicalSegment
from engine.pipeline.deliver import Deliverer
from engine.pipeline.slow import Slow
from engine.testing.memory import MemoryDatabase
from engine.testing.memory_source import MemoryFeed
from engine.testing.memory_target import MemoryDelivery
from engine.testing.simulation import Simulation

WORLDS = int(os.environ.get("CONCORD_TEST_WORLDS", "16"))
"""Of each kind. More of them find more: `CONCORD_TEST_WORLDS=500 pytest tests/simulation`."""
LIVES = 4


def run_worlds(make: Callable[[int], Simulation], count: int) -> int:
    """Run worlds; returns how many deaths there were. The seed stands in the failure."""
    crashes = 0
    for seed in range(count):
        world = make(seed)
        try:
            world.run(LIVES)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
        crashes += world.crashes
    return crashes


def test_worlds_with_updates_settle_in_agreement() -> None:
    assert run_worlds(lambda seed: Simulation(seed, has_deletes=False, has_twins=False), WORLDS) > WORLDS


def test_worlds_with_deletes_settle_in_agreement() -> None:
    run_worlds(lambda seed: Simulation(1000 + seed, has_deletes=True, has_twins=False), WORLDS)


def test_worlds_in_which_customers_are_entered_twice_settle_in_agreement() -> None:
    run_worlds(lambda seed: Simulation(2000 + seed, has_deletes=True, has_twins=True), WORLDS)


def test_worlds_in_which_many_rows_come_at_once_settle_in_agreement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent, "BIRTHS_MIN", 2)
    bulks = {True: 0, False: 0}
    born = gather._born  # pyright: ignore[reportPrivateUsage]

    def counted(*args: Any) -> gather.Bulk | None:
        bulk = born(*args)
        bulks[bulk is not None] += 1
        return bulk

    monkeypatch.setattr(gather, "_born", counted)
    run_worlds(lambda seed: Simulation(6000 + seed, has_imports=True), WORLDS)
    run_worlds(lambda seed: Simulation(7000 + seed, has_imports=True, has_modes=True, has_retention=True), WORLDS // 2)
    assert min(bulks.values()) > WORLDS


def test_worlds_in_which_customers_are_kept_in_several_tables_settle_in_agreement() -> None:
    run_worlds(lambda seed: Simulation(8000 + seed, has_joins=True), WORLDS // 2)
    run_worlds(lambda seed: Simulation(8500 + seed, has_joins=True, has_backfills=True, has_imports=True), WORLDS // 4)


def test_forgetting_what_a_delivery_made_of_joined_tables_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CanonicalSegment, "raw_echoes", property(lambda self: [], lambda self, value: None))
    assert notices(lambda seed: Simulation(seed, has_joins=True))


def test_leaving_half_of_a_refused_write_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    @asynccontextmanager
    async def unit(self: MemoryDelivery) -> AsyncGenerator[None]:
        yield

    monkeypatch.setattr(MemoryDelivery, "unit", unit)
    assert notices(lambda seed: Simulation(seed, has_joins=True))


def test_the_same_seed_is_the_same_world() -> None:
    traces: list[list[tuple[object, ...]]] = []
    for _ in range(2):
        world = Simulation(7)
        world.run(LIVES)
        traces.append(list(world.connection.execute("select seq, doc from journal")))
    assert traces[0] == traces[1]


def notices(make: Callable[[int], Simulation], count: int = 40) -> bool:
    """Whether any of the worlds fails a check."""
    try:
        run_worlds(make, count)
    except (AssertionError, BaseExceptionGroup):
        return True
    return False


def test_acknowledging_before_the_commit_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    original = MemoryFeed.receive

    async def receive(self: MemoryFeed, rows_max: int) -> Batch:
        batch = await original(self, rows_max)
        database: MemoryDatabase = self._database  # pyright: ignore[reportPrivateUsage]
        database.confirm(batch.position)
        # From here on the daemon's memory is all that has it.
        database.forget_confirmed()
        return batch

    monkeypatch.setattr(MemoryFeed, "receive", receive)
    assert notices(lambda seed: Simulation(seed))


def test_delivering_without_a_marker_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    original = MemoryDatabase.append

    def append(self: MemoryDatabase, seq: int | None, changes: object) -> None:
        # The log shows the delivery's rows as anybody's.
        original(self, None if changes else seq, changes)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(MemoryDatabase, "append", append)
    assert notices(lambda seed: Simulation(seed))


def test_leaving_a_conflict_out_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def add_conflict(self: HubTransaction, conflict: Conflict) -> None:
        return None

    monkeypatch.setattr(HubTransaction, "add_conflict", add_conflict)
    assert notices(lambda seed: Simulation(seed))


def test_taking_a_losing_value_for_written_back_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Slow, "again", lambda self, entry, mask, concerned: entry)  # pyright: ignore
    assert notices(lambda seed: Simulation(seed))


def test_forgetting_a_refusal_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settle, "_park", lambda tx, system, refusal: None)  # pyright: ignore
    assert notices(lambda seed: Simulation(seed))


def test_ignoring_the_marker_of_a_delivery_whose_answer_was_lost_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def start(self: Deliverer) -> None:
        await self.session.claim(self.topology.hub_id, self.hub.epoch)

    monkeypatch.setattr(Deliverer, "start", start)
    assert notices(lambda seed: Simulation(seed))


def test_worlds_in_which_systems_are_only_read_from_for_a_while_settle_in_agreement() -> None:
    run_worlds(lambda seed: Simulation(3000 + seed, has_modes=True), WORLDS)


@pytest.mark.parametrize(
    "seed",
    [
        pytest.param(4025, id="a delivery that the log had not shown when the system went away"),
        pytest.param(5027, id="a record that was deleted before its row was delivered"),
    ],
)
def test_worlds_in_which_a_system_came_back_to_the_wrong_rows(seed: int) -> None:
    Simulation(seed, has_modes=True, has_twins=False).run(5)


@pytest.mark.parametrize(
    "seed",
    [
        pytest.param(4031, id="a record that was refused before its system went away"),
        pytest.param(4671, id="a delivery that was not settled when its system went away, and history that then went"),
        pytest.param(4696, id="the same, with the rows seen as users' own"),
    ],
)
def test_worlds_without_history_in_which_a_system_came_back(seed: int) -> None:
    Simulation(seed, has_modes=True, has_retention=True).run(4)


def test_worlds_in_which_rows_leave_their_filter_settle_in_agreement() -> None:
    run_worlds(lambda seed: Simulation(8000 + seed, has_filter=True), WORLDS)
    run_worlds(lambda seed: Simulation(9000 + seed, has_filter=True, has_modes=True, has_retention=True), WORLDS // 2)


def test_a_row_that_comes_back_while_its_system_is_only_read_from() -> None:
    Simulation(20017, has_filter=True, has_modes=True, has_retention=True).run(LIVES)


def test_a_row_that_leaves_twice_while_its_record_is_deleted() -> None:
    Simulation(8017, has_filter=True).run(LIVES)


def test_worlds_in_which_tables_are_read_again_settle_in_agreement(monkeypatch: pytest.MonkeyPatch) -> None:
    # Tables of these worlds are small, and so are their pages.
    monkeypatch.setattr(copies, "PAGE_ROWS", 3)
    run_worlds(lambda seed: Simulation(10_000 + seed, has_backfills=True), WORLDS)


def test_worlds_in_which_logs_are_lost_settle_in_agreement() -> None:
    # A row that was deleted meanwhile is not found by reading the others.
    run_worlds(lambda seed: Simulation(11_000 + seed, has_losses=True, has_deletes=False), WORLDS)


def test_worlds_that_keep_no_history_settle_in_agreement() -> None:
    run_worlds(lambda seed: Simulation(4000 + seed, has_modes=True, has_retention=True), WORLDS)


def test_a_system_that_comes_back_without_being_brought_up_to_date_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "_catch_up", lambda tx, part, entry, full, cursor: None)  # pyright: ignore
    assert notices(lambda seed: Simulation(3000 + seed, has_modes=True))
