"""Goal: a log to which nobody adds anything is read to its end like any other.

Method: the simulation's systems, set up and then left alone, with a daemon that is to run until all is done.
"""

from __future__ import annotations

import anyio

from engine.daemon import Ending
from engine.testing.scheduler import live
from engine.testing.simulation import Simulation


def test_a_daemon_over_idle_systems_ends_when_it_is_to_run_once() -> None:
    world = Simulation(1)
    # Deliveries would add to the logs: each begins with a claim.
    world.sending = set(world.databases)
    world.faults.quiet()

    async def main() -> None:
        daemon = await world._start()  # pyright: ignore[reportPrivateUsage]
        with anyio.fail_after(600):
            await daemon.run(until_settled=True, with_signals=False)

    live(main, seed=1, seconds=5_000, faults=world.faults, clock=world.clock)
    positions = list(world.connection.execute("select position from system"))
    assert len(positions) == len(world.databases)
    assert (None,) not in positions


def test_a_source_that_waits_for_its_halted_target_keeps_nobody_from_ending() -> None:
    """A delivery that was committed and not settled, and then its target cannot be written to."""
    world = Simulation(1)
    world.faults.quiet()
    for _ in range(5):
        world.edit()
    world.settle()
    (last,) = world.connection.execute("select max(seq) from journal").fetchone() or (0,)
    world.connection.execute(
        "update system set position = null, cursor = 0, seen = 0, marker = ? where name = 'fsm'", (last + 1,)
    )
    found: list[Ending] = []

    async def main() -> None:
        daemon = await world._start()  # pyright: ignore[reportPrivateUsage]
        with anyio.fail_after(600):
            found.append(await daemon.run(until_settled=True, with_signals=False))

    live(main, seed=1, seconds=5_000, faults=world.faults, clock=world.clock)
    assert [lane.name for lane in found[0].halted] == ["fsm target"]
