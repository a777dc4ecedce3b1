"""A life repeats from its seed, and a crash lets nothing out.

Goal: a failing simulation can be run again, and a crash in it is as final as one of a process.
Method: lives of small tasks that write down what they do; the same with memory systems and trouble drawn from a seed.
"""

from __future__ import annotations

import anyio
import pytest

from engine.errors import ConcordError, SystemUnreachable, TargetBusy
from engine.testing.faults import Crash, Faults, Rates
from engine.testing.memory import MemoryDatabase
from engine.testing.memory_source import MemorySource
from engine.testing.memory_target import MemoryTarget
from engine.testing.scheduler import Ending, WorldClock, live, seeded_scheduler
from tests.simulation.memory_world import NOBODY, database, insert

TASKS = 5


def _interleaving(seed: int) -> str:
    trace: list[str] = []

    async def task(name: str) -> None:
        for _ in range(4):
            trace.append(name)
            await anyio.lowlevel.checkpoint()

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            for n in range(TASKS):
                tasks.start_soon(task, str(n))

    assert live(main, seed=seed) is Ending.DONE
    return "".join(trace)


def test_same_seed_same_trace() -> None:
    for seed in range(20):
        assert _interleaving(seed) == _interleaving(seed)


def test_different_seeds_interleave_differently() -> None:
    assert len({_interleaving(seed) for seed in range(30)}) > 25


def test_the_scheduler_is_left_as_it_was() -> None:
    with seeded_scheduler(1):
        pass
    before = _interleaving(3)
    _interleaving(4)
    assert _interleaving(3) == before


def _troubled_world(seed: int) -> tuple[MemoryDatabase, str]:
    """Edits, a reader and a writer under every kind of trouble; what they met, in order, with virtual times."""
    found, clock, trace = database(), WorldClock(), list[str]()
    faults = Faults.swarm(seed, now=clock.monotonic)
    found.now = clock.now

    async def read() -> None:
        while True:
            try:
                async with MemorySource(found, faults).feed(found.confirmed, ["customers"], NOBODY) as feed:
                    while True:
                        batch = await feed.receive(10)
                        trace.append(f"{clock.monotonic():.6f} read {batch.position.order} {batch.rows_read}")
                        feed.confirm(batch.position)
            except ConcordError as error:
                trace.append(f"{clock.monotonic():.6f} {error.code}")
                await anyio.sleep(1)

    async def write() -> None:
        for seq in range(1, 20):
            try:
                async with MemoryTarget(found, faults).open(["customers"]) as session:
                    await session.claim("hub", 1)
                    async with session.delivery(seq) as delivery:
                        await delivery.write(insert([(str(seq), f"customer {seq}", None)], [seq]))
                trace.append(f"{clock.monotonic():.6f} delivered {seq}")
            except ConcordError as error:
                trace.append(f"{clock.monotonic():.6f} {error.code}")

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            tasks.start_soon(write)
            for n in range(20):
                await anyio.sleep(1)
                with found.transaction() as tx:
                    tx.insert("jobs", {"id": f"j{n}"})
            tasks.cancel_scope.cancel()

    live(main, seed=seed, seconds=1000, faults=faults, clock=clock)
    return found, "\n".join(trace)


def test_a_troubled_world_repeats_from_its_seed() -> None:
    traces: set[str] = set()
    for seed in range(12):
        first, again = _troubled_world(seed), _troubled_world(seed)
        assert first[1] == again[1], f"seed {seed}"
        assert first[0].log == again[0].log, f"seed {seed}"
        traces.add(first[1])
    assert len(traces) == 12
    assert {word for trace in traces for word in trace.split()} >= {"unreachable", "target.busy", "target.refused"}


def test_a_life_ends_when_its_time_is_up_and_the_clock_goes_on_in_the_next() -> None:
    clock = WorldClock()
    assert live(anyio.sleep_forever, seed=1, seconds=90, clock=clock) is Ending.CRASHED
    assert clock.monotonic() == 90
    clock.pass_time(10)

    async def main() -> None:
        await anyio.sleep(5)
        assert clock.monotonic() == 105

    assert live(main, seed=1, seconds=90, clock=clock) is Ending.DONE
    assert clock.now() - WorldClock().now() == 105_000_000
    assert clock.skewed(-2.5)() == clock.now() - 2_500_000


def test_an_error_of_a_life_comes_through() -> None:
    async def main() -> None:
        raise LookupError

    with pytest.raises(BaseExceptionGroup) as raised:
        live(main, seed=1)
    assert raised.group_contains(LookupError)


def test_after_a_crash_not_even_a_shielded_commit_gets_out() -> None:
    """The crash strikes in one task while another is inside its shielded commit."""
    found = database()
    faults = Faults(rates=Rates(delay=1.0, delay_seconds_max=10.0))
    unwound: list[str] = []

    async def deliver() -> None:
        try:
            with anyio.fail_after(1000, shield=True):
                async with MemoryTarget(found, faults).open(["customers"]) as session:
                    await session.claim("hub", 1)
                    async with session.delivery(1) as delivery:
                        await delivery.write(insert([("1", "Alder", None)], [11]))
                        crash.set()
                        await anyio.sleep(100)
        finally:
            unwound.append("deliver")

    async def die() -> None:
        await crash.wait()
        faults.die()

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(deliver)
            tasks.start_soon(die)

    crash = anyio.Event()
    assert live(main, seed=1, faults=faults) is Ending.CRASHED
    assert unwound == ["deliver"]
    assert not found.rows("customers")
    with pytest.raises(Crash):
        faults.check_alive()


def test_code_that_swallows_a_crash_is_dead_all_the_same() -> None:
    faults = Faults(crash_in=1)

    async def main() -> None:
        with pytest.raises(Crash):
            await faults.point("here")
        with pytest.raises(Crash):
            await faults.point("there")

    assert live(main, seed=1, faults=faults) is Ending.CRASHED
    assert faults.points == {"here": 1}
    assert live(anyio.lowlevel.checkpoint, seed=1, faults=faults) is Ending.DONE


def test_every_crash_point_can_be_the_last() -> None:
    """Dying at each point in turn: a delivery is there as a whole or not at all, and its marker with it."""
    fates: set[bool] = set()
    for count in range(1, 50):
        found, faults = database(), Faults(crash_in=count)

        async def main(found: MemoryDatabase = found, faults: Faults = faults) -> None:
            async with MemoryTarget(found, faults).open(["customers"]) as session:
                await session.claim("hub", 1)
                async with session.delivery(1) as delivery:
                    await delivery.write(insert([("1", "Alder", None), ("2", "Birch", None)], [11, 12]))

        ending = live(main, seed=count, faults=faults)
        is_committed = found.marker is not None and found.marker.seq == 1
        assert len(found.rows("customers")) == (2 if is_committed else 0)
        if ending is Ending.DONE:
            break
        fates.add(is_committed)
    else:
        raise AssertionError("it never came to its end")
    assert fates == {True, False}


def test_periods_end_with_the_clock() -> None:
    clock = WorldClock()
    faults = Faults(now=clock.monotonic)
    found = database()
    met: list[str] = []

    async def main() -> None:
        faults.take_down("crm", 10)
        faults.make_read_only("crm", 20)
        while True:
            try:
                async with MemoryTarget(found, faults).open(["customers"]) as session:
                    await session.claim("hub", 1)
                    async with session.delivery(1) as delivery:
                        await delivery.write(insert([("1", "Alder", None)], [11]))
                return
            except (SystemUnreachable, TargetBusy) as error:
                met.append(error.code)
                await anyio.sleep(5)

    assert live(main, seed=1, faults=faults, clock=clock) is Ending.DONE
    assert met == ["unreachable"] * 2 + ["target.busy"] * 2
