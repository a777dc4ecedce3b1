"""A system whose mapping joins tables, as the rest of the engine sees it: shapes and pages with the joined columns, and
writes that are taken apart into those of each table.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

from sqlglot import exp

from engine.errors import TableHeld
from engine.model.change import Page
from engine.model.joined import joined_shape
from engine.model.table import Shape
from engine.model.value import Wire, WireRow
from engine.pipeline.join_plan import JoinPlan, ends, listed
from engine.pipeline.join_rows import RowMaker
from engine.pipeline.joined_write import JoinedDelivery, JoinedTables
from engine.ports import (
    Assigned,
    Finding,
    Health,
    Join,
    JoiningDelivery,
    Role,
    RowText,
    Step,
    System,
    Target,
    TargetSession,
)

# Keys in one condition: databases limit how long a statement may be, and how deep.
LINKS_MAX = 500
PAGE_ROWS = 5_000


class JoinedSystem:
    """`engine.ports.System` over another one. `dialect`: sqlglot's name of its SQL."""

    def __init__(self, inner: System, plan: JoinPlan, dialect: str) -> None:
        self.inner = inner
        self.joins = plan
        self._dialect = dialect
        self.seen: dict[str, Shape] = {}
        """What the base tables looked like when they were last looked at."""

    async def base_shapes(self, tables: Sequence[str]) -> dict[str, Shape]:
        """Each table for itself: these, and what is joined to them."""
        found = await self.inner.shapes(self.joins.expand(tables))
        self.seen |= found
        return found

    async def shapes(self, tables: Sequence[str] | None = None) -> dict[str, Shape]:
        if tables is None:
            return await self.inner.shapes(None)
        found = await self.base_shapes(tables)
        return {table: self._joined(table, found) for table in tables if table in found}

    def _joined(self, table: str, found: Mapping[str, Shape]) -> Shape:
        """Without the columns of a table that is not there: the mapping says which of them it wants."""
        joins = self.joins.joins.get(table, ())
        parts = [(join.name, found[join.table]) for join in joins if join.table in found]
        return joined_shape(found[table], parts, listed(joins)).shape if joins else found[table]

    async def plan(self, tables: Sequence[str], role: Role) -> tuple[Step, ...]:
        return await self.inner.plan(self.joins.expand(tables), role)

    async def setup(self, tables: Sequence[str], role: Role) -> tuple[Step, ...]:
        return await self.inner.setup(self.joins.expand(tables), role)

    async def teardown(self) -> tuple[Step, ...]:
        return await self.inner.teardown()

    async def check(self, tables: Sequence[str], role: Role) -> tuple[Finding, ...]:
        return await self.inner.check(self.joins.expand(tables), role)

    async def count(self, table: str, condition: str = "") -> int:
        return await self.inner.count(table, condition)

    async def health(self) -> Health:
        return await self.inner.health()

    async def page(self, table: str, after: tuple[str, ...] | None, rows_max: int, condition: str = "") -> Page:
        """As of the moment of each read: a row that is written meanwhile may show one part before and one after."""
        page = await self.inner.page(table, after, rows_max, condition)
        joins = self.joins.joins.get(table)
        if not joins:
            return page
        found = _Linked({"": page.shape}, {"": page.rows})
        for join in joins:
            await self._fetch(join, found)
        maker = RowMaker(joins, [found.shapes[join.name] for join in joins])
        parts = [(join.name, found.shapes[join.name]) for join in joins]
        page.rows = [maker.whole(row, found.rows_of) for row in page.rows]
        page.shape = joined_shape(page.shape, parts, maker.lists).shape
        return page

    async def _fetch(self, join: Join, found: _Linked) -> None:
        """The rows of the join that belong to any of its owner's."""
        columns, name, others = ends(join)
        owner, rows = found.shapes[name], found.rows[name]
        shapes = await self.inner.shapes([join.table])
        if join.table not in shapes:
            raise TableHeld(f"there is no table {join.table}, which the mapping joins", hint="Correct the mapping.")
        shape = shapes[join.table]
        text = found.texts[join.name] = join.texts(owner, others)
        indexes = [n for other in others if (n := owner.index(other)) is not None]
        links = list({text(row): tuple(row[n] for n in indexes) for row in rows if text(row) is not None}.values())
        by: dict[str, list[WireRow]] = {}
        for start in range(0, len(links), LINKS_MAX):
            condition = self._condition(columns, links[start : start + LINKS_MAX])
            last: tuple[str, ...] | None = None
            while True:
                page = await self.inner.page(join.table, last, PAGE_ROWS, condition)
                shape, last = page.shape, page.last_key
                own, takes = join.texts(shape, columns), join.rows(shape).takes
                for row in page.rows:
                    value = own(row)
                    if value is not None and takes(row):
                        by.setdefault(value, []).append(row)
                if last is None:
                    break
        found.shapes[join.name], found.by[join.name] = shape, by
        found.rows[join.name] = [row for group in by.values() for row in group]

    def _condition(self, columns: Sequence[str], values: Iterable[tuple[Wire, ...]]) -> str:
        """SQL for the rows that have one of `values` in `columns`."""
        names = [exp.column(exp.to_identifier(name, quoted=True)) for name in columns]
        if len(names) == 1:
            return exp.In(this=names[0], expressions=[_literal(v) for (v,) in values]).sql(dialect=self._dialect)
        alternatives = [
            exp.and_(*(exp.EQ(this=name.copy(), expression=_literal(v)) for name, v in zip(names, row, strict=True)))
            for row in values
        ]
        return exp.or_(*alternatives).sql(dialect=self._dialect)


@dataclass(slots=True)
class _Linked:
    """Rows that were read, by join; "" is the mapped table itself."""

    shapes: dict[str, Shape]
    rows: dict[str, Sequence[WireRow]]
    by: dict[str, dict[str, list[WireRow]]] = field(default_factory=lambda: {})
    """By the text of what they are linked by."""
    texts: dict[str, RowText] = field(default_factory=lambda: {})
    """That text of a row of the owner's."""

    def rows_of(self, join: Join, above: WireRow) -> list[WireRow]:
        value = self.texts[join.name](above)
        return [] if value is None else self.by[join.name].get(value, [])


def _literal(value: Wire) -> exp.Expr:
    """A key's value. As a text it takes the type of the column that it is compared with, in every dialect we know."""
    return exp.Literal.number(value) if isinstance(value, int) else exp.Literal.string(str(value))


class JoinedTarget:
    """`engine.ports.Target` over another one."""

    def __init__(self, inner: Target, system: JoinedSystem, hub_id: str) -> None:
        self._inner = inner
        self._system = system
        self._hub_id = hub_id

    @asynccontextmanager
    async def open(self, tables: Sequence[str]) -> AsyncGenerator[TargetSession]:
        system = self._system
        await system.base_shapes(tables)
        async with self._inner.open(system.joins.expand(tables)) as session:
            yield JoinedSession(session, JoinedTables(system.joins, system.seen, self._hub_id))


class JoinedSession:
    """`engine.ports.TargetSession` over another one."""

    def __init__(self, inner: TargetSession, tables: JoinedTables) -> None:
        self._inner = inner
        self._tables = tables

    async def claim(self, hub_id: str, epoch: int) -> int:
        return await self._inner.claim(hub_id, epoch)

    @asynccontextmanager
    async def delivery(self, seq: int) -> AsyncGenerator[JoinedDelivery]:
        async with self._inner.delivery(seq) as delivery:
            yield JoinedDelivery(cast("JoiningDelivery", delivery), self._tables)

    async def assigned(self, seq_after: int) -> tuple[Assigned, ...]:
        found = await self._inner.assigned(seq_after)
        return tuple(row for row in found if not self._tables.is_joined(row.place))
