"""A first sync that does what its plan says, and no more.

Systems are copied one after the other, as they were when the plan was made; nothing is written before all have been
copied and the whole of it has been compared with the plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import anyio

from engine.errors import DeliveryHeld
from engine.hub.sqlite import SqliteHub
from engine.pipeline.flow import is_copied
from engine.pipeline.topology import SystemPart, Topology
from engine.planning import Plan, PlannedPlace, Planner, looked_at
from engine.ports import System

if TYPE_CHECKING:
    from engine.hub.transaction import HubTransaction

POLL_SECONDS = 0.1


class FirstSync:
    """`engine.pipeline.flow.Gate`. `slack`: rows beyond the plan that may be made or changed in each table, for what
    users have done since. Where deliveries have begun it lets everything pass."""

    def __init__(
        self, hub: SqliteHub, topology: Topology, plan: Plan, slack: int, systems: Sequence[tuple[SystemPart, System]]
    ) -> None:
        self._hub, self._topology, self._plan, self._slack, self._systems = hub, topology, plan, slack, systems
        self._checking = anyio.Lock()
        self._is_open = False

    async def may_read(self, part: SystemPart) -> None:
        """Wait until those before it have been copied."""
        before = [other for other, _ in self._systems if other.is_source]
        await self._wait_copied(before[: next((n for n, p in enumerate(before) if p.id == part.id), 0)])

    async def may_write(self, part: SystemPart) -> None:
        """Wait until all have been copied and what comes is as planned. Raises `DeliveryHeld` where it is not."""
        async with self._checking:
            if self._is_open or await self._hub.read(self._has_begun):
                self._is_open = True
                return
            await self._wait_copied([other for other, _ in self._systems if other.is_source])
            with looked_at(self._hub) as tx:
                found = await Planner(tx, self._topology).plan(self._systems, lambda system, table, rows: None)
            problems = [problem for place in found.places for problem in self._beyond(place)]
            if problems:
                raise DeliveryHeld(
                    f"the first sync would do more than planned: {'; '.join(problems)}",
                    hint="Nothing was written. Look at it with `concord plan`, and begin again with the new plan.",
                    system=part.name,
                )
            self._is_open = True

    def _beyond(self, found: PlannedPlace) -> list[str]:
        where = (found.system, found.table, found.entity)
        planned = next((p for p in self._plan.places if (p.system, p.table, p.entity) == where), None)
        if found.problem:
            return [f"system {found.system}, table {found.table}: {found.problem}"]
        create, overwrite = (0, 0) if planned is None else (planned.create, planned.overwrite)
        return [
            f"system {found.system}, table {found.table}: {count:,} rows {done}, {limit:,} were planned"
            for done, count, limit in (("made", found.create, create), ("changed", found.overwrite, overwrite))
            if count > limit + self._slack
        ]

    async def _wait_copied(self, parts: Sequence[SystemPart]) -> None:
        while True:
            if await self._hub.read(lambda tx: all(is_copied(tx, part) for part in parts)):
                return
            await anyio.sleep(POLL_SECONDS)

    def _has_begun(self, tx: HubTransaction) -> bool:
        """Whether anything was delivered to anybody."""
        return tx.rows("select 1 from system where rows_written > 0 limit 1") != []
