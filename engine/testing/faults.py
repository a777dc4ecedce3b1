"""What goes wrong in a simulated world: drawn from a seed, asked for at every call of a port.

Two kinds of trouble. *Rates* strike by chance: a call takes long, the connection drops, an answer is lost. *Periods*
are declared by the test and last until a moment of its clock or until they are ended: a system down, read-only, slow, a
record refused. `quiet` ends all of it, so that a world can settle.

A crash of the process is not an error that code may handle: whatever runs at that moment never runs again, and nothing
it does on its way out may reach the world. So a crash point does two things. It raises `Crash`, a BaseException, which
no `except Exception` stops and which takes every task group down; and from then on the whole `Faults` is dead: every
port call made by a `finally`, by a shielded commit or by a task that has not noticed yet raises `Crash` as well,
without effect. Cancelling the life alone would not do: a shielded commit would still finish, which a dead process does
not.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from random import Random

import anyio

from engine.errors import RowRefused, SystemUnreachable, TargetBusy
from engine.ports import TableWrite


class Crash(BaseException):
    """The simulated process is dead. Not an Exception: nobody may handle it but who started the life."""


class Commit(enum.Enum):
    """What becomes of a commit."""

    DONE = "done"
    LOST = "lost"
    """It did not happen, and the caller is told nothing but that the connection is gone."""
    UNHEARD = "unheard"
    """It happened, and the answer was lost: the caller is told the same."""


@dataclass(slots=True, kw_only=True)
class Rates:
    """Chances per call, 0 to 1. `delay` is the chance of waiting at all, `delay_seconds_max` how long at most."""

    delay: float = 0.0
    delay_seconds_max: float = 5.0
    disconnect: float = 0.0
    busy: float = 0.0
    lost: float = 0.0
    unheard: float = 0.0
    refusal: float = 0.0
    """Per row of a write: refused this once."""
    cut: float = 0.0
    """Per batch of a feed: made much shorter than asked for, so that transactions come in parts."""
    stale: float = 0.0
    """Per chunk: read from a snapshot older than what the feed has handed out already."""
    crash: float = 0.0
    """Per crash point."""


# Far above what networks do: a run of some hundred calls should meet each kind that is switched on.
_SWARM_MAX = {"delay": 0.5, "disconnect": 0.05, "busy": 0.1, "lost": 0.1, "unheard": 0.1, "refusal": 0.1, "cut": 0.5,
              "stale": 0.5}  # fmt: skip


@dataclass(slots=True, kw_only=True)
class Faults:
    """The trouble of one world. Use one for all systems of a world, and across the lives of its process.

    `now`: seconds on the world's clock, for periods. `crash_in`: die at the crash point that many points from here (1
    is the next); None: only by `rates.crash`. `points`: crash points passed so far, by name, for tests that want to die
    at each of them once.
    """

    rng: Random = field(default_factory=lambda: Random(0))
    now: Callable[[], float] = lambda: 0.0
    rates: Rates = field(default_factory=Rates)
    crash_in: int | None = None
    points: dict[str, int] = field(default_factory=lambda: {})
    is_dead: bool = False
    is_quiet: bool = False
    _down: dict[str, float] = field(default_factory=lambda: {})
    _read_only: dict[str, float] = field(default_factory=lambda: {})
    _slow: dict[str, float] = field(default_factory=lambda: {})
    _refused: dict[tuple[str, int], float] = field(default_factory=lambda: {})

    @classmethod
    def none(cls) -> Faults:
        """A world in which nothing goes wrong."""
        return cls(is_quiet=True)

    @classmethod
    def swarm(cls, seed: int, *, now: Callable[[], float] = lambda: 0.0) -> Faults:
        """Rates drawn from the seed, about half of them zero: bugs often need one kind of trouble without another."""
        rng = Random(seed)
        rates = Rates()
        for each in fields(Rates):
            if each.name in _SWARM_MAX and rng.random() < 0.5:
                setattr(rates, each.name, rng.uniform(0, _SWARM_MAX[each.name]))
        rates.delay_seconds_max = rng.choice((0.01, 1.0, 60.0))
        return cls(rng=rng, now=now, rates=rates)

    def quiet(self) -> None:
        """End every period and every rate."""
        self.is_quiet = True
        self.crash_in = None
        for period in (self._down, self._read_only, self._slow, self._refused):
            period.clear()

    def new_life(self) -> None:
        """The process starts again."""
        self.is_dead = False

    # Periods: until `seconds` from now, for ever by default.

    def take_down(self, system: str, seconds: float = math.inf) -> None:
        """The system does not answer."""
        self._down[system] = self.now() + seconds

    def make_read_only(self, system: str, seconds: float = math.inf) -> None:
        """The system takes no writes: `TargetBusy`."""
        self._read_only[system] = self.now() + seconds

    def make_slow(self, system: str, seconds_per_write: float) -> None:
        """Every write to the system takes that long; 0 ends it."""
        self._slow[system] = seconds_per_write

    def refuse(self, system: str, rids: Iterable[int], seconds: float = math.inf) -> None:
        """The system refuses rows of these records."""
        for rid in rids:
            self._refused[system, rid] = self.now() + seconds

    def accept(self, system: str, rids: Iterable[int]) -> None:
        for rid in rids:
            self._refused.pop((system, rid), None)

    def bring_back(self, system: str) -> None:
        """The system is up, and takes writes."""
        self._down.pop(system, None)
        self._read_only.pop(system, None)

    # What code under test passes through.

    def check_alive(self) -> None:
        """Raise `Crash` when the process is dead. For synchronous calls that reach the world."""
        if self.is_dead:
            raise Crash

    def die(self) -> None:
        """The process is dead from here on."""
        self.is_dead = True
        raise Crash

    def pass_point(self, name: str) -> None:
        """A place where the process may die, for synchronous code."""
        self.check_alive()
        self.points[name] = self.points.get(name, 0) + 1
        if self.crash_in is not None:
            self.crash_in -= 1
            if self.crash_in <= 0:
                self.crash_in = None
                self.die()
        if self.strikes("crash"):
            self.die()

    async def point(self, name: str) -> None:
        """A place where the process may die or others may run."""
        self.pass_point(name)
        await anyio.lowlevel.checkpoint()
        self.check_alive()

    async def call(self, system: str, name: str) -> None:
        """A call of a port: a crash point, perhaps a wait, perhaps no connection."""
        self.pass_point(f"{system}.{name}")
        await self.delay()
        self.check_alive()
        if self._lasts(self._down.get(system)) or self.strikes("disconnect"):
            raise SystemUnreachable(
                f"{system} dropped the connection", hint="Wait; the daemon tries again.", system=system
            )

    async def write(self, system: str, write: TableWrite) -> None:
        """A write to a target, before it does anything: busy, slow, or a row of it refused."""
        await self.call(system, "write")
        if system in self._slow:
            await anyio.sleep(self._slow[system])
            self.check_alive()
        if self._lasts(self._read_only.get(system)) or self.strikes("busy"):
            raise TargetBusy(f"{system} cannot write just now", hint="Wait; the daemon tries again.", system=system)
        for index, rid in enumerate(write.rids):
            if self._lasts(self._refused.get((system, rid))) or self.strikes("refusal"):
                raise RowRefused(
                    f"{system} refused a row of {write.table}: a check of its own",
                    hint="Mend the record at its source.",
                    row_index=self.told(index),
                    reason="check",
                    system=system,
                    table=write.table,
                )

    def told(self, index: int) -> int | None:
        """The index of a refused row, or None: not every plugin can tell."""
        return None if not self.is_quiet and self.rng.random() < 0.3 else index

    def commit(self) -> Commit:
        """What becomes of the commit that is about to happen."""
        if self.strikes("lost"):
            return Commit.LOST
        return Commit.UNHEARD if self.strikes("unheard") else Commit.DONE

    async def delay(self) -> None:
        """Let others run, perhaps for long. Short waits are the more likely ones."""
        if self.strikes("delay"):
            await anyio.sleep(self.rates.delay_seconds_max * self.rng.random() ** 3)
        else:
            await anyio.lowlevel.checkpoint()

    def strikes(self, rate: str) -> bool:
        """Whether trouble of this kind happens now."""
        chance: float = getattr(self.rates, rate)
        return not self.is_quiet and chance > 0 and self.rng.random() < chance

    def _lasts(self, until: float | None) -> bool:
        return until is not None and self.now() < until
