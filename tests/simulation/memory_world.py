"""Tables and small questions that the tests of the memory systems share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import anyio
from trio.testing import MockClock

from engine.model.change import Batch, TableRows
from engine.model.position import Position
from engine.model.table import Column, Form, Kind, Shape
from engine.model.value import WireRow
from engine.ports import Role, TableWrite, WriteKind
from engine.testing.memory import MemoryDatabase
from engine.testing.memory_source import MemorySource
from engine.testing.memory_system import MemorySystem
from engine.testing.memory_transaction import ForeignKey

T = TypeVar("T")
NOBODY: frozenset[str] = frozenset()


def customers(form: Form = Form.TEXT, *, is_assigned: bool = True) -> Shape:
    return Shape(
        name="customers",
        form=form,
        key=("id",),
        unique=(("email",),),
        columns=(
            Column(name="id", kind=Kind.INTEGER, type="integer", is_nullable=False, is_assigned=is_assigned),
            Column(name="name", kind=Kind.TEXT, type="text", is_nullable=False, length=20),
            Column(name="email", kind=Kind.TEXT, type="text"),
        ),
    )


def jobs(form: Form = Form.TEXT) -> Shape:
    return Shape(
        name="jobs",
        form=form,
        key=("id",),
        columns=(
            Column(name="id", kind=Kind.TEXT, type="text", is_nullable=False),
            Column(name="customer", kind=Kind.INTEGER, type="integer"),
            Column(name="title", kind=Kind.TEXT, type="text"),
        ),
    )


def database(form: Form = Form.TEXT, *, is_assigned: bool = True) -> MemoryDatabase:
    """Customers and their jobs, set up for both roles, with an empty log."""
    found = MemoryDatabase("crm", form)
    found.create_table(customers(form, is_assigned=is_assigned))
    found.create_table(jobs(form), foreign_keys=[ForeignKey(columns=("customer",), table="customers")])

    async def set_up() -> None:
        await MemorySystem(found).setup(("customers", "jobs"), Role.SOURCE | Role.TARGET)

    run(set_up)
    return found


def run(main: Callable[[], Awaitable[T]]) -> T:
    """Run on Trio with a clock that jumps."""
    return anyio.run(main, backend="trio", backend_options={"clock": MockClock(autojump_threshold=0)})


def read_log(
    found: MemoryDatabase,
    after: Position | None = None,
    *,
    rows_max: int = 1000,
    tables: Sequence[str] = ("customers", "jobs"),
    verify: frozenset[str] = NOBODY,
) -> list[Batch]:
    """Every batch there is behind `after`."""

    async def read() -> list[Batch]:
        batches: list[Batch] = []
        async with MemorySource(found).feed(after, tables, verify) as feed:
            # Longer than a batch that only moves the position is held back.
            while True:
                with anyio.move_on_after(2) as scope:
                    batches.append(await feed.receive(rows_max))
                if scope.cancelled_caught:
                    return batches

    return run(read)


def rows_of(batches: Sequence[Batch], table: str) -> list[TableRows]:
    return [s.tables[table] for batch in batches for s in batch.segments if table in s.tables]


def names(batches: Sequence[Batch], column: int = 1) -> list[object]:
    return [row[column] for rows in rows_of(batches, "customers") for row in rows.rows]


def insert(rows: list[WireRow], rids: list[int], *, assigned: bool = False) -> TableWrite:
    return TableWrite(
        table="customers",
        place="customers",
        kind=WriteKind.INSERT,
        columns=("name", "email") if assigned else ("id", "name", "email"),
        key=("id",),
        rows=rows,
        rids=rids,
        assigned="id" if assigned else None,
    )


def update(rows: list[WireRow], rids: list[int], columns: tuple[str, ...] = ("id", "name")) -> TableWrite:
    return TableWrite(
        table="customers", place="customers", kind=WriteKind.UPDATE, columns=columns, key=("id",), rows=rows, rids=rids
    )


def delete(rows: list[WireRow], rids: list[int]) -> TableWrite:
    return TableWrite(
        table="customers", place="customers", kind=WriteKind.DELETE, columns=("id",), key=("id",), rows=rows, rids=rids
    )
