"""Goal: a log to which nobody adds anything is read to its end like any other.

Method: the simulation's systems, set up and then left alone, with a daemon that is to run until all is done.
"""

from __future__ import annotations

import anyio

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
