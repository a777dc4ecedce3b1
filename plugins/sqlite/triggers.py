"""The change journal: its table, the triggers that fill it, and what can be read back from their text.

One journal for all tables gives one order for all changes. Its value columns have no declared type, so SQLite stores
every value in the storage class it came in (https://www.sqlite.org/datatype3.html, section 3.1, rule 3): an exact copy
without any encoding, and the cheapest there is for the writing application. JSON would lose blobs and digits of reals.

A row written while one of our deliveries is active carries the delivery's seq. `D` rows hold the old row, `K` rows the
old key of the update that follows; `P` rows are "possibly deleted": REPLACE deletes rows that stand in the way of a
unique constraint without firing delete triggers (https://www.sqlite.org/lang_conflict.html), so a trigger that runs
before notes them, and whoever reads the journal looks whether they are still there.
"""

from __future__ import annotations

import re

from engine.model.table import Shape
from plugins.sqlite.catalog import PREFIX
from plugins.sqlite.connect import Connection, quoted

JOURNAL = "concord_journal"
MARKER = "concord_marker"
IDENTITY = "concord_identity"

CREATE_MARKER = (
    "create table concord_marker (id integer primary key check (id = 1), hub text, epoch integer not null,"
    " seq integer not null, active integer not null default 0, purged integer not null default 0, written_at text);\n"
    "insert into concord_marker (id, hub, epoch, seq) values (1, null, 0, 0);"
)
CREATE_IDENTITY = (
    "create table concord_identity (rid integer not null, place text not null, key text not null,"
    " seq integer not null, primary key (place, rid)) without rowid;"
)
# Milliseconds are all that julianday gives; writers may run any SQLite, so nothing newer is used.
_NOW = "cast((julianday('now') - 2440587.5) * 86400000.0 as integer) * 1000"
_ACTIVE = "(select active from concord_marker)"
_VALUE = re.compile(r'\b(?:new|old)\.("(?:[^"]|"")*"|\w+)', re.IGNORECASE)


def create_journal(width: int) -> str:
    columns = "".join(f", c{n}" for n in range(width))
    return (
        "create table concord_journal (id integer primary key autoincrement, op text not null, name text not null,"
        f" at integer not null, delivery integer not null{columns});"
    )


def journal_width(connection: Connection) -> int:
    """How many value columns the journal has; -1 without a journal."""
    names = [name for (name,) in connection.execute("select name from pragma_table_info('concord_journal')")]
    return sum(1 for name in names if re.fullmatch(r"c\d+", name)) if names else -1


def triggers(shape: Shape) -> dict[str, str]:
    """Name → `create trigger` of everything that captures one table."""
    table = shape.name
    columns = [column.name for column in shape.columns]
    key_changed = " or ".join(f"old.{quoted(name)} is not new.{quoted(name)}" for name in shape.key)
    insert = _journal(table, "I", "new", columns)
    update = _journal(table, "U", "new", columns)
    delete = _journal(table, "D", "old", columns)
    old_key = _journal(table, "K", "old", columns)
    made = {
        "insert": f"after insert on {quoted(table)} begin {insert} end",
        # The old key stands before the row it became: the reader meets it first.
        "key": f"after update on {quoted(table)} when {key_changed} begin {old_key} {update} end",
        "update": f"after update on {quoted(table)} when not ({key_changed}) begin {update} end",
        "delete": f"after delete on {quoted(table)} begin {delete} end",
    }
    for n, unique in enumerate(shape.unique):
        for event in ("insert", "update"):
            made[f"replace_{event}_{n}"] = _before(shape, unique, event, columns)
    return {
        f"{PREFIX}{table}_{name}": f"create trigger {quoted(f'{PREFIX}{table}_{name}')} {body}"
        for name, body in made.items()
    }


def _journal(table: str, op: str, row: str, columns: list[str], where: str = "") -> str:
    names = "".join(f", c{n}" for n in range(len(columns)))
    values = "".join(f", {row}.{quoted(name)}" for name in columns)
    text = table.replace("'", "''")
    source = f"select '{op}', '{text}', {_NOW}, {_ACTIVE}{values}{where}"
    return f"insert into concord_journal (op, name, at, delivery{names}) {source};"


def _before(shape: Shape, unique: tuple[str, ...], event: str, columns: list[str]) -> str:
    table = shape.name
    same = " and ".join(f"victim.{quoted(name)} = new.{quoted(name)}" for name in unique)
    row = "new" if event == "insert" else "old"
    # For an insert the key may not be assigned yet (null): then no row has it.
    other = " or ".join(f"victim.{quoted(name)} is not {row}.{quoted(name)}" for name in shape.key)
    noted = _journal(table, "P", "victim", columns, f" from {quoted(table)} victim where {same} and ({other})")
    return f"before {event} on {quoted(table)} begin {noted} end"


def captured_columns(sql: str) -> tuple[str, ...]:
    """The columns that an insert trigger journals, in order. SQLite rewrites the text when a column is renamed."""
    found = _VALUE.findall(sql)
    return tuple(name[1:-1].replace('""', '"') if name.startswith('"') else name for name in found)


def installed(connection: Connection) -> dict[str, str]:
    """Name → text of our triggers in the database."""
    rows = connection.execute(
        "select name, sql from sqlite_schema where type = 'trigger' and name like 'concord\\_%' escape '\\'"
    )
    return {str(name): str(sql) for name, sql in rows}
