"""The daemon: one task group, a lane per source and per target, signals, and the pause after a failure.

A lane that fails stops alone. What happens next stands in the error's class: RETRY waits and starts the lane again from
what the hub knows, HALT leaves it stopped with its reason until a person has acted. PARK never comes this far.
"""

from __future__ import annotations

import random
import signal
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

import anyio

from engine.errors import ConcordError, DeliveryHeld, Disposition, Fenced, HubError, TargetUnready
from engine.hub.sqlite import SqliteHub
from engine.hub.sweep import sweep
from engine.hub.transaction import HubTransaction
from engine.lanes import Lane, LaneState, Member, run_until
from engine.operate import answer_requests
from engine.pipeline.brake import LOOK_SECONDS, Brake
from engine.pipeline.canonicalize import CanonicalBatch
from engine.pipeline.commit import Counts
from engine.pipeline.deliver import Delivered
from engine.pipeline.flow import Flow, Gate, Hooks, run_source, run_target
from engine.pipeline.settle import CHANGED
from engine.pipeline.signals import Signals
from engine.pipeline.topology import SystemPart, Topology
from engine.settled import Settled
from engine.telemetry.log import Log
from engine.telemetry.progress import Progress

PAUSE_SECONDS_MIN = 0.5
PAUSE_SECONDS_MAX = 60.0
# A lane that has worked this long has recovered; its next failure starts with a short pause again.
RECOVERED_SECONDS = 60.0
# How long a drain may take before the rest is left for the next start, where it goes on anyway.
DRAIN_SECONDS_MAX = 30.0
REQUEST_POLL_SECONDS = 0.5
# Rates in `concord status` are means over this long.
RATE_SECONDS = 5.0
SWEEP_SECONDS = 600.0


@contextmanager
def _signals() -> Generator[AsyncIterator[signal.Signals]]:
    """What the process is told. An interrupt that comes when the daemon has ended is ignored from then on: Python's own
    answer breaks off the end of the event loop, whose threads the process then waits for."""
    try:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            yield signals
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


@dataclass(slots=True)
class Ending:
    """How the daemon ended: lanes that were halted, and whether everything in the journal was delivered."""

    halted: list[Lane] = field(default_factory=lambda: [])
    is_drained: bool = True
    signal: int | None = None
    is_reload: bool = False
    """It is to begin again, with its files as they are now."""


class Daemon:
    """Runs all lanes over one hub until told to stop."""

    def __init__(
        self,
        hub: SqliteHub,
        topology: Topology,
        members: list[Member],
        log: Log,
        *,
        retention_days: float = 30,
        rng: random.Random | None = None,
        gate: Gate | None = None,
    ) -> None:
        self.hub = hub
        self.check_files: Callable[[], object] | None = None
        """Raises what is wrong with configuration, dictionary and mappings as their files are now."""
        self._rng = rng or random.Random()
        self.retention = int(retention_days * 86_400_000_000)
        self.topology = topology
        self.members = members
        self.log = log
        self.signals = Signals()
        hooks = Hooks(committed=self._committed, delivered=self._delivered, claimed=self._claimed)
        self.flow = Flow(hub=hub, topology=topology, signals=self.signals, hooks=hooks, gate=gate)
        self.lanes = list(self._make_lanes())
        self.settled = Settled(hub, self.lanes, self.signals)
        self._ending = Ending()
        self._attempts_max: int | None = None
        self._drain = anyio.Event()
        self._stop_now = anyio.Event()
        self._rows = {part: [0, 0] for part in topology.systems}
        self._progress = Progress(log, hub.transaction.clock.monotonic)
        self._last_seq = 0

    def _make_lanes(self) -> Iterator[Lane]:
        for member in self.members:
            part, system, source, target = member.part, member.system, member.source, member.target
            if source is not None:
                yield Lane(member, "source", lambda p=part, y=system, s=source: run_source(self.flow, p, y, s))
            if target is not None:
                yield Lane(member, "target", lambda p=part, y=system, t=target: run_target(self.flow, p, y, t))

    async def run(
        self, *, until_settled: bool = False, with_signals: bool = True, attempts_max: int | None = None
    ) -> Ending:
        """Run until a signal, `stop()`, or with `until_settled` until every lane has nothing left to do. A lane that
        has failed `attempts_max` times in a row is halted, though what it met may pass."""
        # First: whoever reads that the daemon has started may tell it to stop.
        with _signals() if with_signals else nullcontext() as signals:
            return await self._run(signals, until_settled=until_settled, attempts_max=attempts_max)

    async def _run(
        self, signals: AsyncIterator[signal.Signals] | None, *, until_settled: bool, attempts_max: int | None
    ) -> Ending:
        self._attempts_max = attempts_max
        self._last_seq = await self.hub.read(lambda tx: tx.last_seq)
        async with anyio.create_task_group() as tasks:
            if signals is not None:
                tasks.start_soon(self._watch_signals, signals)
            self.log.event("daemon.started", systems=len(self.members), lanes=len(self.lanes), epoch=self.hub.epoch)
            sources, targets = anyio.CancelScope(), anyio.CancelScope()
            for member in self.members:
                if member.source is None:
                    self.signals.opened[member.part.id].set()
            read_out = anyio.Event()
            tasks.start_soon(self._run_group, "source", sources, read_out)
            tasks.start_soon(self._run_group, "target", targets, anyio.Event())
            tasks.start_soon(self._watch_stop_now, tasks.cancel_scope)
            tasks.start_soon(self._answer_requests)
            tasks.start_soon(self._measure)
            tasks.start_soon(self._sweep)
            tasks.start_soon(self._brake_loops)
            if until_settled:
                tasks.start_soon(self._watch_settled)
            await self._drain.wait()
            self.log.event("daemon.draining", seconds_max=DRAIN_SECONDS_MAX)
            sources.cancel()
            for part in self.topology.systems:
                self.signals.opened[part].set()
            with anyio.move_on_after(DRAIN_SECONDS_MAX):
                # A batch that was being committed has to be delivered too.
                await read_out.wait()
                await self.settled.wait_delivered()
            self._ending.is_drained = not await self.settled.is_undelivered()
            tasks.cancel_scope.cancel()
        self._ending.halted = [lane for lane in self.lanes if lane.state is LaneState.HALTED]
        with anyio.CancelScope(shield=True):
            for lane in self.lanes:
                if lane.state is not LaneState.HALTED:
                    await self._note(lane, LaneState.STOPPED, None)
        self.log.event("daemon.stopped", halted=len(self._ending.halted), is_drained=self._ending.is_drained)
        return self._ending

    def reload(self) -> None:
        """Stop, to begin again with the files as they are now; where they are wrong, say so and go on with the old."""
        try:
            if self.check_files is not None:
                self.check_files()
        except ConcordError as trouble:
            self.log.event("daemon.not_reloaded", code=trouble.code, error=trouble.message, hint=trouble.hint)
            return
        self.log.event("daemon.reloading")
        self._ending.is_reload = True
        self.stop()

    def stop(self) -> None:
        """Drain: stop capturing, deliver what the journal holds, end."""
        self._drain.set()

    async def _measure(self) -> None:
        """Rows a second, read and written, for `concord status`. Written only when they change."""
        known: dict[int, tuple[float, float]] = {}
        # What stands in the hub are an earlier daemon's.
        rates = dict.fromkeys(self.topology.systems, (0.0, 0.0))
        while True:
            new = {part: rate for part, rate in rates.items() if known.get(part) != rate}
            known = rates
            if new:
                try:
                    await self.hub.transact(lambda tx, new=new: _store_rates(tx, new))
                except HubError as trouble:
                    self.log.event("hub.failed", code=trouble.code, error=trouble.message, hint=trouble.hint)
            self._rows = {part: [0, 0] for part in self.topology.systems}
            await anyio.sleep(RATE_SECONDS)
            rates = {
                part: (read / RATE_SECONDS, written / RATE_SECONDS) for part, (read, written) in self._rows.items()
            }

    async def _answer_requests(self) -> None:
        """What commands have asked for: they may not change the hub themselves while we hold parts of it in memory."""
        while True:
            await anyio.sleep(REQUEST_POLL_SECONDS)
            try:
                waiting = await self.hub.read(lambda tx: tx.rows("select 1 from request where done_at is null limit 1"))
                if waiting:
                    done = await self.hub.transact(lambda tx: answer_requests(tx, self.topology))
                    self.signals.journal.ring()
                    self.log.event("request.answered", count=done.count)
                    if done.is_reload:
                        self.reload()
                    for lane in self.lanes:
                        part = lane.member.part
                        # A target that is held may be about to halt only.
                        is_held = part.id in self.signals.lost or isinstance(lane.error, DeliveryHeld)
                        if part.name in done.read_again and (lane.direction == "source" or is_held):
                            lane.again.ring()
            except HubError as trouble:
                self.log.event("hub.failed", code=trouble.code, error=trouble.message, hint=trouble.hint)

    async def _sweep(self) -> None:
        """Retention, a portion at a time, in the quiet between batches."""
        after = 0
        while True:
            older_than = self.hub.transaction.clock.now() - self.retention
            try:
                swept = await self.hub.transact(lambda tx, a=after, o=older_than: sweep(tx, a, o))
            except HubError as trouble:
                self.log.event("hub.failed", code=trouble.code, error=trouble.message, hint=trouble.hint)
                await anyio.sleep(SWEEP_SECONDS)
                continue
            after = swept.until
            if swept.removed:
                self.log.debug("hub.swept", until=swept.until, removed=swept.removed)
            await anyio.sleep(SWEEP_SECONDS if swept.is_done else 0.1)

    async def _brake_loops(self) -> None:
        brake = Brake(self.topology)
        while True:
            try:
                loops = await self.hub.read(brake.look)
                if loops:
                    for system, table, message in await self.hub.transact(
                        lambda tx, found=loops: brake.park(tx, found)
                    ):
                        self.log.event("loop.braked", system=system, table=table, error=message)
            except HubError as trouble:
                self.log.event("hub.failed", code=trouble.code, error=trouble.message, hint=trouble.hint)
            await anyio.sleep(LOOK_SECONDS)

    async def _watch_stop_now(self, scope: anyio.CancelScope) -> None:
        await self._stop_now.wait()
        scope.cancel()

    async def _run_group(self, direction: str, scope: anyio.CancelScope, ended: anyio.Event) -> None:
        with scope:
            async with anyio.create_task_group() as tasks:
                for lane in self.lanes:
                    if lane.direction == direction:
                        tasks.start_soon(self._supervise, lane, name=lane.name)
        ended.set()

    async def _supervise(self, lane: Lane) -> None:
        if not await self._may_read(lane):
            return
        while True:
            clock = self.hub.transaction.clock
            started = clock.monotonic()
            await self._note(lane, LaneState.RUNNING, None)
            again = lane.again.next
            failure = await run_until(again, lane)
            if failure is None:
                continue
            if clock.monotonic() - started > RECOVERED_SECONDS:
                lane.attempts = 0
            lane.attempts += 1
            is_hopeless = self._attempts_max is not None and lane.attempts >= self._attempts_max
            if failure.disposition is not Disposition.RETRY or is_hopeless:
                await self._note(lane, LaneState.HALTED, failure)
                lane.tried.set()
                if isinstance(failure, Fenced):
                    # Another daemon works on this hub's behalf: nothing here may go on, not even reading.
                    self._ending.is_drained = False
                    self._stop_now.set()
                    return
                await again.wait()
                continue
            pause = min(PAUSE_SECONDS_MAX, PAUSE_SECONDS_MIN * 2 ** min(lane.attempts - 1, 16))
            # Full jitter: systems that failed together do not come back together.
            pause = self._rng.uniform(pause / 2, pause)
            await self._note(lane, LaneState.PAUSED, failure, pause)
            lane.tried.set()
            await anyio.sleep(pause)

    async def _may_read(self, lane: Lane) -> bool:
        """Whether a lane may start. A system that another hub writes to is not read either: what we confirm, that
        hub could never read again."""
        target = next((x for x in self.lanes if x.member is lane.member and x.direction == "target"), None)
        if lane.direction != "source" or target is None:
            return True
        await target.tried.wait()
        error = target.error
        if not isinstance(error, TargetUnready) or "hub" not in error.context:
            return True
        await self._note(lane, LaneState.HALTED, error)
        return False

    def _claimed(self, part: SystemPart) -> None:
        for lane in self.lanes:
            if lane.member.part is part and lane.direction == "target":
                lane.tried.set()

    async def _note(self, lane: Lane, state: LaneState, error: ConcordError | None, pause: float = 0.0) -> None:
        """Log it, and keep it in the hub for `concord status`."""
        was = lane.state
        lane.state, lane.error = state, error
        facts: dict[str, str | int | float] = {"system": lane.member.part.name, "direction": lane.direction}
        if error is not None:
            facts |= {"code": error.code, "error": error.message, "hint": error.hint}
        if state is LaneState.HALTED:
            self.log.event("lane.halted", **facts)
        elif state is LaneState.PAUSED:
            self.log.event("lane.paused", **facts, seconds=round(pause, 2), attempts=lane.attempts)
        elif state is LaneState.RUNNING:
            self.log.event("lane.resumed" if was is LaneState.PAUSED else "lane.started", **facts)
        text = None if error is None else f"{error.message}\n{error.hint}"
        values = (state.value, text, lane.member.part.id)
        sql = f"update system set {lane.direction}_state = ?, {lane.direction}_error = ? where id = ?"
        try:
            await self.hub.transact(lambda tx: tx.write(sql, values))
        except HubError as trouble:
            # The hub itself is what fails; the log has the line, and the lane's own pause is all there is to do.
            self.log.event("hub.failed", code=trouble.code, error=trouble.message, hint=trouble.hint)

    async def _watch_signals(self, signals: AsyncIterator[signal.Signals]) -> None:
        """SIGTERM or the first SIGINT drains, the second SIGINT stops now; what is cut off is done at the next run.
        SIGHUP begins again with the files as they are now."""
        async for number in signals:
            if number == signal.SIGHUP:
                self.reload()
                continue
            if self._drain.is_set() and number == signal.SIGINT:
                self._ending.signal = number
                self._ending.is_drained = False
                self._stop_now.set()
                return
            self._ending.signal = number
            self.stop()

    async def _watch_settled(self) -> None:
        await self.settled.wait_settled()
        self.stop()

    async def _committed(self, part: SystemPart, counts: Counts, batch: CanonicalBatch) -> None:
        self._rows[part.id][0] += counts.read
        self._last_seq = max(self._last_seq, counts.last_seq)
        if counts.entries or counts.read:
            self.log.debug(
                "capture.batch",
                system=part.name,
                read=counts.read,
                echoed=counts.echoed,
                filtered=counts.filtered,
                parked=counts.parked,
                entries=counts.entries,
                conflicts=counts.conflicts,
                seq=counts.last_seq,
            )
        tables = {place.id: place.place.table for place in part.places}
        for table, last, rows in {(tables[place], last, rows) for place, last, rows in batch.done}:
            self._progress.copied(part.name, table, rows, is_done=last is None)
        if batch.backfill is not None:
            page = batch.backfill
            self._progress.copied(part.name, page.table, page.rows, is_done=page.last_key is None)
        for segment in batch.segments:
            for event in segment.events:
                name = "capture.reshaped" if event.kind.value == "reshaped" else "capture.held"
                self.log.event(name, system=part.name, table=event.table, kind=event.kind.value, detail=event.detail)
        for (place, code), (count, message, hint) in sorted(counts.parked_as.items()):
            facts: dict[str, str | int] = {"system": part.name, "place": place, "count": count, "code": code}
            self.log.event("capture.parked", **facts, error=message, hint=hint)
        if counts.conflicts:
            self.log.event("conflict.recorded", system=part.name, count=counts.conflicts)
        if counts.reviews:
            self.log.event("review.opened", system=part.name, count=counts.reviews)

    async def _delivered(self, part: SystemPart, delivered: Delivered) -> None:
        outcome = delivered.outcome
        self._rows[part.id][1] += outcome.rows_written
        self._progress.delivered(part.name, outcome.rows_written, self._last_seq - delivered.until)
        self.log.debug(
            "deliver.done",
            system=part.name,
            after=delivered.after,
            until=delivered.until,
            rows=outcome.rows_written,
            missing=outcome.rows_missing,
        )
        refused = [refusal for refusal in outcome.refusals if refusal.parked.reason != CHANGED]
        if len(refused) < len(outcome.refusals):
            self.log.debug("deliver.changed", system=part.name, count=len(outcome.refusals) - len(refused))
        if refused:
            first = refused[0].parked
            self.log.event(
                "deliver.parked",
                system=part.name,
                count=len(refused),
                reason=first.reason,
                error=first.message,
                hint=first.hint,
            )


def _store_rates(tx: HubTransaction, rates: dict[int, tuple[float, float]]) -> None:
    for part, (read, written) in rates.items():
        tx.write("update system set read_rate = ?, write_rate = ? where id = ?", (read, written, part))
