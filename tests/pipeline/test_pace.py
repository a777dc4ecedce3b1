"""Goal: a source gives targets that are near a moment to stay near, and never waits for one that is far or stuck.

Method: a source that has just committed beside targets at given places, on a virtual clock: how long it waited.
"""

from __future__ import annotations

import anyio
import pytest
import trio.testing

from engine.hub.sqlite import RECENT_ENTRIES
from engine.pipeline.pace import LAG_ENTRIES, WAIT_SECONDS, keep_pace
from engine.pipeline.signals import Signals

LAST, ENTRIES = 1_000_000, 10_000
MOST = ENTRIES * WAIT_SECONDS
NEAR, BEHIND, FAR = LAST - LAG_ENTRIES, LAST - LAG_ENTRIES - 1, LAST - RECENT_ENTRIES - 1


def waited(reached: dict[int, int], *steps: tuple[float, int, int]) -> float:
    """Seconds that the source waits; `steps`: after so many seconds more, this target is there."""

    async def main() -> float:
        signals = Signals()
        signals.reached.update(reached)

        async def deliver() -> None:
            for seconds, system, seq in steps:
                await anyio.sleep(seconds)
                signals.reached[system] = seq
                signals.cursor[system].ring()

        started = ended = 0.0
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(deliver)
            started = anyio.current_time()
            await keep_pace(signals, ENTRIES, LAST)
            ended = anyio.current_time()
            tasks.cancel_scope.cancel()
        return ended - started

    clock = trio.testing.MockClock(autojump_threshold=0)
    return anyio.run(main, backend="trio", backend_options={"clock": clock})


@pytest.mark.parametrize("reached", [{}, {1: LAST}, {1: NEAR, 2: LAST}, {1: FAR}, {1: FAR, 2: NEAR}])
def test_nobody_waits_for_targets_that_keep_up_or_are_far(reached: dict[int, int]) -> None:
    assert waited(reached) == 0


def test_a_target_that_is_falling_behind_is_given_time() -> None:
    assert waited({1: BEHIND}, (MOST / 4, 1, NEAR)) == pytest.approx(MOST / 4)
    assert waited({1: BEHIND, 2: BEHIND - 5}, (MOST / 4, 2, NEAR), (MOST / 4, 1, NEAR)) == pytest.approx(MOST / 2)


def test_the_time_is_short_whatever_a_target_does() -> None:
    assert waited({1: BEHIND}) == pytest.approx(MOST)
    assert waited({1: FAR + 10}, *[(MOST / 8, 1, FAR + 10 + n) for n in range(20)]) == pytest.approx(MOST)
