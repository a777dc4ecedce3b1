"""A memory database as `engine.ports.System`: catalogue, set-up, checks, pages."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from engine.model.change import Page
from engine.model.position import WHOLE
from engine.model.table import Shape
from engine.ports import Finding, Health, Role, Step
from engine.testing.faults import Faults
from engine.testing.memory import MemoryDatabase
from engine.testing.memory_polled import MemoryLooks
from engine.testing.memory_source import read_page

KEEP_LOG = Step(summary="keep the log from here on", sql="keep log")
CREATE_MARKER = Step(
    summary="create the marker and identity tables", sql="create table concord_marker, concord_identity"
)
FORGET_LOG = Step(summary="keep the log no more", sql="forget log")
DROP_MARKER = Step(summary="drop the marker and identity tables", sql="drop table concord_marker, concord_identity")


class MemorySystem:
    """`engine.ports.System` of a memory database. `looks`: it is polled."""

    def __init__(
        self, database: MemoryDatabase, faults: Faults | None = None, looks: MemoryLooks | None = None
    ) -> None:
        self.database = database
        self.faults = faults or Faults.none()
        self.looks = looks

    async def shapes(self, tables: Sequence[str] | None = None) -> dict[str, Shape]:
        await self._call("shapes")
        found = self.database.tables
        return {name: found[name].shape for name in (found if tables is None else tables) if name in found}

    async def plan(self, tables: Sequence[str], role: Role) -> tuple[Step, ...]:
        await self._call("plan")
        return self._plan(role)

    async def setup(self, tables: Sequence[str], role: Role) -> tuple[Step, ...]:
        await self._call("setup")
        steps = self._plan(role)
        # The marker's table first: a log that is kept from a point without it would miss the first delivery's marker.
        if CREATE_MARKER in steps:
            self.database.has_marker_table = True
        if KEEP_LOG in steps:
            self.database.beginning = self.database.head
        return steps

    async def teardown(self) -> tuple[Step, ...]:
        await self._call("teardown")
        database, steps = self.database, list[Step]()
        if database.beginning is not None:
            database.beginning = database.confirmed = None
            steps.append(FORGET_LOG)
        if database.has_marker_table:
            database.has_marker_table, database.marker, database.identity = False, None, []
            steps.append(DROP_MARKER)
        return tuple(steps)

    async def check(self, tables: Sequence[str], role: Role) -> tuple[Finding, ...]:
        await self._call("check")
        findings = [
            Finding(path=table, message="there is no such table", hint="Correct the mapping.")
            for table in tables
            if table not in self.database.tables
        ]
        for step in self._plan(role):
            findings.append(
                Finding(path=self.database.name, message=f"to do: {step.summary}", hint="Run set-up.", sql=step.sql)
            )
        return tuple(findings)

    async def page(self, table: str, after: tuple[str, ...] | None, rows_max: int, condition: str = "") -> Page:
        await self._call("page")
        return read_page(self.database, table, after, rows_max, condition=condition)

    async def count(self, table: str, condition: str = "") -> int:
        await self._call("count")
        return len(read_page(self.database, table, None, sys.maxsize, condition=condition).rows)

    async def health(self) -> Health:
        await self._call("health")
        database = self.database
        if self.looks is not None:
            return Health(head=self.looks.head)
        confirmed = database.confirmed or database.beginning
        if confirmed is None:
            return Health(head=database.head, detail="the log is not kept for us")
        number, index = confirmed.order
        behind = database.head_number - (number if index == WHOLE else number - 1)
        return Health(head=database.head, detail=f"{behind} transactions behind what was confirmed")

    def _plan(self, role: Role) -> tuple[Step, ...]:
        # A source needs the marker's table as well: its log is where deliveries are seen.
        steps = () if self.database.has_marker_table else (CREATE_MARKER,)
        if Role.SOURCE in role and self.database.beginning is None:
            steps = (*steps, KEEP_LOG)
        return steps

    async def _call(self, name: str) -> None:
        await self.faults.call(self.database.name, name)
