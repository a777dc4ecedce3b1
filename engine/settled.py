"""When there is nothing left to do: everything read, and everything delivered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import anyio

from engine.errors import ConcordError
from engine.hub.sqlite import SqliteHub
from engine.hub.transaction import HubTransaction
from engine.lanes import Lane, LaneState
from engine.model.position import Position
from engine.pipeline.backfill import backfills
from engine.pipeline.signals import Signals

SETTLED_POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Settled:
    """Looks at the lanes and the hub of one daemon, and at where the sources' logs end."""

    _hub: SqliteHub
    _lanes: Sequence[Lane]
    _signals: Signals

    async def is_undelivered(self) -> bool:
        """Whether a running target has something left to deliver."""
        targets = [lane.member.part.id for lane in self._lanes if lane.direction == "target" and self._is_working(lane)]
        return await self._hub.read(
            lambda tx: any(tx.boundary(cursor, 1) != cursor for (cursor,) in (tx.system(n, "cursor") for n in targets))
        )

    async def wait_delivered(self) -> None:
        # A target lane may be in the middle of a pause: the hub is asked, not a lane.
        while True:
            if not await self.is_undelivered():
                return
            await anyio.sleep(SETTLED_POLL_SECONDS / 4)

    async def wait_settled(self) -> None:
        """Until the logs are read to where they ended a moment ago, nothing came of it, and all is delivered.

        Twice: what a delivery sets off at its target stands in that target's log behind the first look.
        """
        last_seq = -1
        while any(self._is_working(lane) for lane in self._lanes):
            heads = await self._heads()
            while any(self._is_working(lane) for lane in self._lanes):
                await anyio.sleep(SETTLED_POLL_SECONDS)
                # The same ends again and again: on a busy server the log grows while we look.
                seq, is_read = await self._hub.read(lambda tx, heads=heads: (tx.last_seq, self._is_read(tx, heads)))
                if is_read and not await self.is_undelivered():
                    break
            else:
                return
            if seq == last_seq:
                return
            last_seq = seq

    def _is_working(self, lane: Lane) -> bool:
        """Whether anything may still come of a lane by itself: not of a source that waits for its halted target."""
        if lane.direction == "source" and lane.member.part.id in self._signals.waiting:
            return not any(x.member is lane.member and x.state is LaneState.HALTED for x in self._lanes)
        return lane.state in (LaneState.STARTING, LaneState.RUNNING, LaneState.PAUSED)

    async def _heads(self) -> dict[int, Position | None]:
        """Where each source's log ends; None for one that does not say or does not answer."""
        heads: dict[int, Position | None] = {}
        for lane in self._lanes:
            if lane.direction == "source" and self._is_working(lane):
                try:
                    heads[lane.member.part.id] = (await lane.member.system.health()).head
                except ConcordError:
                    # Its lane says why; until it answers nobody can know what stands in its log.
                    heads[lane.member.part.id] = None
        return heads

    def _is_read(self, tx: HubTransaction, heads: dict[int, Position | None]) -> bool:
        """Whether the hub has everything up to `heads`, and every source that works has been copied, and read again
        where that was asked for."""
        for lane in self._lanes:
            part = lane.member.part
            if lane.direction != "source" or not self._is_working(lane):
                continue
            done = {place for (place,) in tx.rows("select place from snapshot where is_done")}
            if lane.state is LaneState.PAUSED or not {place.id for place in part.places} <= done:
                return False
            if backfills(tx, part):
                return False
            head, position = heads.get(part.id), tx.position(part.id)
            if head is not None and (position is None or position < head):
                return False
        return True
