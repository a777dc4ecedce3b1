"""Which row and which column a refusal means, from what the server says beside the error.

`errors.translate` turns the error itself into ours. Here its CONTEXT and DETAIL are searched for two things, a number
and names, so that the engine can set one record aside without halving a write of thousands. Both texts quote values of
rows; nothing of them is passed on but names that are columns of the write.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

import asyncpg

from engine.errors import ConcordError, RowRefused
from engine.ports import Role, TableWrite
from plugins.postgres.apply_text import text_rows
from plugins.postgres.errors import sqlstate, translate

DRIVER_ERRORS: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
"""All that asyncpg raises for the world's faults."""

STAGE: Final = "concord_stage"
"""The names of our temporary tables begin so; their columns are c0, c1, ... in the order of the write's."""

# The words are translated by the server's lc_messages, which only a superuser may change; name and number are not.
_IN_STAGE: Final = re.compile(rf"{STAGE}_\d+\D*?(\d+)(?:[^\d\":«»„]*?(?<![a-z0-9_])c(\d+))?")
_KEY: Final = re.compile(r"\(([^()]+)\)=\((.*)\)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Spot:
    """Where in a write an error lies, as far as known."""

    row_index: int | None = None
    columns: tuple[str, ...] = ()


def refusal(
    error: BaseException, system: str, write: TableWrite, *, relation: str = "", spot: Spot | None = None
) -> ConcordError:
    """Our error for a driver's. `relation`: the table that COPY was reading into, if it was."""
    found = translate(error, system=system, table=write.table, role=Role.TARGET)
    if not isinstance(found, RowRefused):
        return found
    if spot is None:
        spot = _spot_in_copy(error, relation, write) if relation else Spot()
        in_detail = _spot_in_detail(error, write)
        index = in_detail.row_index if spot.row_index is None else spot.row_index
        spot = Spot(index, spot.columns or in_detail.columns)
    return _refined(found, spot, write)


def can_be_shown_by_copy(error: BaseException) -> bool:
    """Whether COPY into a table of the same types would meet the same error, and say where."""
    state = sqlstate(error) or ""
    # Besides values (class 22), the check of a domain belongs to a type and not to the table.
    return state[:2] == "22" or (state in ("23514", "23502") and getattr(error, "data_type_name", None) is not None)


def _refined(found: RowRefused, spot: Spot, write: TableWrite) -> RowRefused:
    index = 0 if len(write.rows) == 1 else spot.row_index
    context: dict[str, Any] = {name: value for name, value in found.context.items() if name != "reason"}
    message = found.message
    if spot.columns and not context.get("column"):
        noun = "column" if len(spot.columns) == 1 else "columns"
        message = f"{message}, {noun} {', '.join(spot.columns)}"
        context |= {"column": spot.columns[0]} if len(spot.columns) == 1 else {"columns": spot.columns}
    return RowRefused(message, hint=found.hint, row_index=index, reason=found.reason, **context)


def _spot_in_copy(error: BaseException, relation: str, write: TableWrite) -> Spot:
    """`COPY customers, line 2, column price: "x"`; lines count from 1, one to a row, as line ends are escaped."""
    context = getattr(error, "context", None) or ""
    if relation.startswith(STAGE):
        match = _IN_STAGE.search(context)
        if match is None:
            return Spot()
        number = int(match[2] or len(write.columns))
        return Spot(_in_range(int(match[1]), write), write.columns[number : number + 1])
    # Here the name of a column may be any text, so its end is sought with the write's columns in hand.
    match = re.search(rf"^COPY {re.escape(relation)}, \S+ (\d+)(.*)", context, re.MULTILINE | re.DOTALL)
    if match is None:
        return Spot()
    rest = re.match(r", \S+ (.*)", match[2], re.DOTALL)
    named = [name for name in write.columns if rest and rest[1].startswith(f"{name}:")]
    return Spot(_in_range(int(match[1]), write), tuple(named[:1]))


def _spot_in_detail(error: BaseException, write: TableWrite) -> Spot:
    """`Key (a, b)=(1, 2) already exists`, and the like of foreign keys: the one row with these values."""
    match = _KEY.search(getattr(error, "detail", None) or "")
    if match is None:
        return Spot()
    names = tuple(name.strip('"') for name in match[1].split(", "))
    if not set(names) <= set(write.columns):
        return Spot()
    indexes = [write.columns.index(name) for name in names]
    rows = [
        n
        for n, row in enumerate(text_rows(write))
        if ", ".join("null" if (v := row[i]) is None else v for i in indexes) == match[2]
    ]
    return Spot(rows[0] if len(rows) == 1 else None, names)


def _in_range(line: int, write: TableWrite) -> int | None:
    return line - 1 if 1 <= line <= len(write.rows) else None
