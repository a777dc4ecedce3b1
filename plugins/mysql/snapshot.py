"""Pages of a table in key order, spelt as the feed spells values, and between which places of the log they lie."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import pymysql

from engine.errors import SourceUnready, no_table
from engine.model.change import Page
from engine.model.table import Column, Shape
from engine.model.value import WireRow
from plugins.mysql.catalog import MARKER, quoted_table, read_shape
from plugins.mysql.connect import Connection
from plugins.mysql.errors import NOT_FOR_US, number
from plugins.mysql.values import Unfit, ordered, ordered_speller, reader, selected

_READ_AT: Final = "select cast(unix_timestamp(sysdate(6)) * 1000000 as signed)"


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A place in the binary log: a file's name and the bytes before it."""

    file: str
    offset: int


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a snapshot lies: it shows all that stands before `low` and nothing that stands behind `high`. `gtids`: the
    last one of each domain before `low`, as the server spells them; empty where it does not say. None: no log."""

    low: Place | None
    high: Place | None
    gtids: str = ""


@contextmanager
def snapshot(connection: Connection) -> Generator[Placed]:
    """A read-only transaction whose reads all see one state of the database, on a connection at `repeatable read`.

    MariaDB tells exactly where it lies (https://mariadb.com/kb/en/enhancements-for-start-transaction-with-consistent-
    snapshot/): then `low` and `high` are the same. MySQL does not, and the ends of the log before and after are told.
    """
    before = None if connection.is_mariadb else log_end(connection)
    connection.execute("start transaction with consistent snapshot, read only")
    try:
        if connection.is_mariadb:
            low, gtids = _snapshot_place(connection)
            yield Placed(low, low, gtids)
        else:
            yield Placed(before, log_end(connection))
    finally:
        connection.execute("rollback")


def log_end(connection: Connection) -> Place | None:
    """The end of the binary log; None where there is none. Raises the driver's error without the privilege."""
    is_renamed = not connection.is_mariadb and connection.version >= (8, 4)
    rows = connection.rows("show binary log status" if is_renamed else "show master status")
    return Place(str(rows[0][0]), int(rows[0][1])) if rows else None


def _snapshot_place(connection: Connection) -> tuple[Place | None, str]:
    found = {
        str(name).lower(): str(value) for name, value in connection.rows("show status like 'binlog\\_snapshot\\_%'")
    }
    file = found.get("binlog_snapshot_file")
    if not file:
        return None, ""
    place = Place(file, int(found["binlog_snapshot_position"]))
    text = f"select binlog_gtid_pos({connection.literal(place.file)}, {place.offset})"
    ((gtids,),) = connection.rows(text)
    return place, str(gtids or "")


def read_page(
    connection: Connection,
    database: str,
    table: str,
    after: tuple[str, ...] | None,
    rows_max: int,
    condition: str = "",
) -> Page:
    """Rows behind `after` for which `condition` holds, in key order; call it inside `snapshot`."""
    system = connection.system
    shape = read_shape(connection, database, table)
    if shape is None:
        raise no_table(system, table)
    # Columns on which our user has no right are not shown, and the key may be among them.
    if not shape.key or len(key_columns(shape)) < len(shape.key):
        raise SourceUnready(
            f"system {system}, table {table}: it has no primary key, so its rows cannot be read in order",
            hint=f"Give it a primary key; `concord check {system}` says if our user may not see the one that it has.",
            system=system,
            table=table,
        )
    if after is not None and len(after) != len(shape.key):
        raise SourceUnready(
            f"system {system}, table {table}: the key has {len(shape.key)} columns, not {len(after)}",
            system=system,
            table=table,
        )
    columns = ", ".join(selected(column) for column in shape.columns)
    wanted = [f"({condition})"] if condition else []
    if after is not None:
        wanted.append(f"({_behind(connection, shape, after)})")
    where = f" where {' and '.join(wanted)}" if wanted else ""
    order = ", ".join(ordered(column) for column in key_columns(shape))
    sql = f"select {columns} from {quoted_table(table, database)}{where} order by {order} limit {int(rows_max)}"
    rows = read_values(connection.rows(sql), shape.columns)
    ((read_at,),) = connection.rows(_READ_AT)
    places = [index for name in shape.key if (index := shape.index(name)) is not None]
    last = tuple(str(rows[-1][place]) for place in places) if rows and len(rows) == rows_max else None
    return Page(shape=shape, rows=rows, last_key=last, read_at=int(read_at))


def read_delivery(connection: Connection, database: str) -> tuple[str, int] | None:
    """Hub id and seq of our marker, None without one; call it inside `snapshot`."""
    try:
        rows = connection.rows(f"select hub_id, seq from {quoted_table(MARKER, database)} where id = 1")
    except pymysql.Error as error:
        # A system that is only read has no marker, and its user may have no right to one. The snapshot goes on.
        if number(error) in NOT_FOR_US:
            return None
        raise
    return None if not rows or rows[0][0] is None else (str(rows[0][0]), int(rows[0][1]))


def key_columns(shape: Shape) -> list[Column]:
    return [column for name in shape.key if (column := shape.column(name)) is not None]


def read_values(rows: Sequence[tuple[object, ...]], columns: Sequence[Column]) -> list[WireRow]:
    """What `selected` gave as wire values. Column by column, since most columns need nothing done."""
    readers = [reader(column) for column in columns]
    if not any(readers):
        return [tuple(None if value is None else str(value) for value in row) for row in rows]
    return [
        tuple(
            None if value is None else read(str(value)) if read else str(value)
            for value, read in zip(row, readers, strict=True)
        )
        for row in rows
    ]


def _behind(connection: Connection, shape: Shape, after: tuple[str, ...]) -> str:
    """`(a, b) > (1, 2)` spelt out: the server makes a range of an index of this form only."""
    columns = key_columns(shape)
    try:
        values = [ordered_speller(connection, column)(text) for column, text in zip(columns, after, strict=True)]
    except Unfit as error:
        raise SourceUnready(f"system {connection.system}, table {shape.name}: {error} in the key to go on at") from None
    names = [ordered(column) for column in columns]
    ways = [
        " and ".join(
            [*(f"{n} = {v}" for n, v in zip(names[:at], values[:at], strict=True)), f"{names[at]} > {values[at]}"]
        )
        for at in range(len(names))
    ]
    # Said once more of the first column alone, so that the index is entered there.
    return f"{names[0]} >= {values[0]} and ({' or '.join(f'({way})' for way in ways)})"
