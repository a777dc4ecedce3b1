"""One life of a process on a virtual clock, its tasks interleaved by a seed.

Code that imports only anyio runs on Trio, whose clock can jump to the next deadline and whose order of runnable tasks
can be seeded. What outlives the process is plain objects; one life is one run. Nothing here waits for real time, so
code that blocks in threads or on sockets does not belong into a life: the clock would run away from it.

The order of runnable tasks is seeded through two private names of `trio._core._run`, those that Trio's own plugin for
Hypothesis sets. Should a later Trio drop them, `seeded_scheduler` says so at once, and the tests of this module tell
whether they still do what they did. Iteration over sets of texts is the one other source of disorder in a process:
Python salts their hashes. Code whose order matters sorts; set PYTHONHASHSEED to repeat a seed in another process where
it does not.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import trio
from trio.testing import MockClock

from engine.testing.faults import Faults
from engine.testing.memory import START_MICROSECONDS


class Ending(enum.Enum):
    """How a life ended."""

    DONE = "done"
    """The function returned."""
    CRASHED = "crashed"
    """At a crash point, or when its time was up: nothing of it ran to its end."""


@dataclass(slots=True)
class WorldClock:
    """`engine.ports.Clock` of a simulated world: goes on through all lives, and stands still between them.

    `skewed` gives the clocks of systems that are wrong by a constant.
    """

    _seconds: float = 0.0
    _running: MockClock | None = field(default=None, repr=False)

    def monotonic(self) -> float:
        return self._seconds + (self._running.current_time() if self._running is not None else 0.0)

    def now(self) -> int:
        return START_MICROSECONDS + round(self.monotonic() * 1_000_000)

    def skewed(self, seconds: float) -> Callable[[], int]:
        return lambda: self.now() + round(seconds * 1_000_000)

    def pass_time(self, seconds: float) -> None:
        """Let time go by between two lives."""
        assert self._running is None
        self._seconds += seconds

    @contextmanager
    def life(self) -> Generator[MockClock]:
        """The clock for one run of Trio."""
        assert self._running is None, "one life at a time"
        clock = MockClock(autojump_threshold=0)
        self._running = clock
        try:
            yield clock
        finally:
            self._seconds += clock.current_time()
            self._running = None


@contextmanager
def seeded_scheduler(seed: int) -> Generator[None]:
    """Inside, the order in which Trio runs tasks that are ready follows from `seed`."""
    kernel: Any = trio._core._run  # pyright: ignore
    if not hasattr(kernel, "_ALLOW_DETERMINISTIC_SCHEDULING") or not hasattr(kernel, "_r"):
        raise RuntimeError(f"trio {trio.__version__} has no scheduler that can be seeded")
    was_deterministic, state = kernel._ALLOW_DETERMINISTIC_SCHEDULING, kernel._r.getstate()
    kernel._ALLOW_DETERMINISTIC_SCHEDULING = True
    kernel._r.seed(seed)
    try:
        yield
    finally:
        kernel._ALLOW_DETERMINISTIC_SCHEDULING = was_deterministic
        kernel._r.setstate(state)


def live(
    main: Callable[[], Awaitable[None]],
    *,
    seed: int,
    seconds: float | None = None,
    faults: Faults | None = None,
    clock: WorldClock | None = None,
) -> Ending:
    """Run one life of `main`, for `seconds` of virtual time at most: then the process dies where it is.

    Errors of `main` come through as Trio raises them, in an exception group where task groups were involved. What code
    raises on its way out of a crash is dropped: a dead process raises nothing.
    """
    faults = faults or Faults.none()
    faults.new_life()

    async def life() -> None:
        async with anyio.create_task_group() as tasks:
            if seconds is not None:
                tasks.start_soon(_die_after, seconds, faults, name="the end")
            await main()
            tasks.cancel_scope.cancel()

    with seeded_scheduler(seed), (clock or WorldClock()).life() as mock:
        try:
            anyio.run(life, backend="trio", backend_options={"clock": mock})
        except BaseException:
            if faults.is_dead:
                return Ending.CRASHED
            raise
    # A crash that code swallowed is still the end of the process: whatever it did since had no effect.
    return Ending.CRASHED if faults.is_dead else Ending.DONE


async def _die_after(seconds: float, faults: Faults) -> None:
    await anyio.sleep(seconds)
    faults.die()
