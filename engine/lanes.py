"""What a lane is: one source's or one target's task, and what its end means."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field

import anyio

from engine.errors import ConcordError, Disposition
from engine.pipeline.signals import Bell
from engine.pipeline.topology import SystemPart
from engine.ports import Source, System, Target


class LaneState(enum.Enum):
    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    HALTED = "halted"
    STOPPED = "stopped"


@dataclass(frozen=True, kw_only=True)
class Member:
    """A system with its live parts; source or target is None when it does not play that part."""

    part: SystemPart
    system: System
    source: Source | None
    target: Target | None


@dataclass(slots=True)
class Lane:
    """One lane's life. `direction` is "source" or "target"."""

    member: Member
    direction: str
    run: Callable[[], Awaitable[None]]
    state: LaneState = LaneState.STARTING
    attempts: int = 0
    error: ConcordError | None = None
    tried: anyio.Event = field(default_factory=anyio.Event)
    """A target's: its marker has been claimed, or could not be, at least once."""
    again: Bell = field(default_factory=Bell)
    """Rung when the lane is to begin again, whether it runs or is halted."""

    @property
    def name(self) -> str:
        return f"{self.member.part.name} {self.direction}"


async def run_until(again: anyio.Event, lane: Lane) -> ConcordError | None:
    """One life of a lane: why it ended, None when it was told to begin again."""

    async def wait_again(scope: anyio.CancelScope) -> None:
        await again.wait()
        scope.cancel()

    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait_again, tasks.cancel_scope)
            await lane.run()
            tasks.cancel_scope.cancel()
    except Exception as error:  # noqa: BLE001 - the one place where everything ends up and is told apart
        return failure_of(error)
    if again.is_set():
        return None
    return ConcordError(f"lane {lane.name} ended by itself", hint="Report this: it never should.")


def failure_of(error: BaseException) -> ConcordError:
    """The one error that says what to do: of several, one that halts. A bug halts its lane and says where to look."""
    found = list(_leaves(error))
    known = [e for e in found if isinstance(e, ConcordError)]
    for candidate in known:
        if candidate.disposition is not Disposition.RETRY:
            return candidate
    unknown = [e for e in found if not isinstance(e, ConcordError)]
    if unknown:
        # Type and place, not the message: a driver's message may carry a value.
        cause = unknown[0]
        trace = cause.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        place = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace is not None else "nowhere"
        return ConcordError(
            f"internal error {type(cause).__name__} at {place}",
            hint="This is a bug in Concord; nothing was lost. Restart with --log-level debug and report it.",
        )
    return known[0]


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
            yield from _leaves(inner)  # pyright: ignore[reportUnknownArgumentType]
    else:
        yield error
