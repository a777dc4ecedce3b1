"""SQLite's errors as Concord's, translated here and nowhere else.

The messages of constraint errors name tables and columns, never values (sqlite3.c, `sqlite3UniqueConstraint` and its
neighbours), but for those that a trigger of the owner raises; all others are rebuilt from the result code.
"""

from __future__ import annotations

import re
from typing import Any

import apsw

from engine.errors import (
    ConcordError,
    MalformedLog,
    RowRefused,
    SourceUnready,
    SystemUnreachable,
    TargetBusy,
)

_CODES = {
    apsw.SQLITE_CONSTRAINT_UNIQUE: "unique",
    apsw.SQLITE_CONSTRAINT_PRIMARYKEY: "unique",
    apsw.SQLITE_CONSTRAINT_ROWID: "unique",
    apsw.SQLITE_CONSTRAINT_NOTNULL: "not_null",
    apsw.SQLITE_CONSTRAINT_CHECK: "check",
    apsw.SQLITE_CONSTRAINT_FOREIGNKEY: "foreign_key",
    apsw.SQLITE_CONSTRAINT_DATATYPE: "value",
}
# "UNIQUE constraint failed: t.a, t.b"; "CHECK constraint failed: name"; "cannot store TEXT value in INTEGER column t.c"
_NAMES = re.compile(r"(?:constraint failed: | column )(.+)$", re.DOTALL)
_HINT = "Run `concord parked list`; correct the value where it was written, or the mapping."
_FOREIGN_HINT = "It is tried again by itself; if it stays, look where the row it refers to should come from."


def row_refused(
    reason: str,
    system: str,
    table: str,
    row_index: int | None = None,
    *,
    column: str = "",
    constraint: str = "",
    said: str = "",
) -> RowRefused:
    """A refusal in our words."""
    default = {
        "unique": f"another row has the same {column}",
        "not_null": f"column {column} must not be null",
        "check": f"check {constraint} failed",
        "foreign_key": "it refers to a row that is not there, or is referred to",
        "value": f"a value has the wrong type for column {column}",
    }.get(reason, "a constraint or a trigger of the table refuses the row")
    where = f"system {system}, table {table}" + (f", column {column}" if said and column else "")
    names = {name: text for name, text in (("column", column), ("constraint", constraint)) if text}
    return RowRefused(
        f"{where}: {said or default}",
        hint=_FOREIGN_HINT if reason == "foreign_key" else _HINT,
        row_index=row_index,
        reason=reason,
        system=system,
        table=table,
        **names,
    )


def translate(error: apsw.Error, *, system: str, table: str = "", row_index: int | None = None) -> ConcordError:
    """The error of ours that says the same. `row_index`: of the write's row that was being written."""
    where = f"system {system}" + (f", table {table}" if table else "")
    context: dict[str, Any] = {"system": system, "table": table}
    if isinstance(error, apsw.ConstraintError):
        return _refused(error, system, table, row_index)
    if isinstance(error, (apsw.BusyError, apsw.LockedError, apsw.SchemaChangeError)):
        return TargetBusy(
            f"{where}: another program holds the database's write lock",
            hint="Look for a program with a long transaction; Concord tries again by itself.",
            **context,
        )
    if isinstance(error, apsw.ReadOnlyError):
        return TargetBusy(
            f"{where}: the database is read-only", hint="Check the file's and its folder's permissions.", **context
        )
    if isinstance(error, apsw.FullError):
        return TargetBusy(f"{where}: no space is left on its disk", hint="Free space on the disk.", **context)
    if isinstance(error, (apsw.MismatchError, apsw.TooBigError)):
        said = "a value does not fit its column" if isinstance(error, apsw.MismatchError) else "a row is too large"
        return row_refused("value", system, table, row_index, said=said)
    if isinstance(error, (apsw.CorruptError, apsw.NotADBError)):
        # Nothing can be read any more, whatever the lane does; it waits until somebody has restored the file.
        return SystemUnreachable(
            f"{where}: the file is damaged or is no SQLite database", hint="Restore the file from a backup.", **context
        )
    if isinstance(error, (apsw.CantOpenError, apsw.IOError, apsw.PermissionsError, apsw.AuthError)):
        return SystemUnreachable(
            f"{where}: the database file cannot be opened or read",
            hint="Check the path and its permissions.",
            **context,
        )
    if isinstance(error, apsw.SQLError):
        return _sql(error, where, context)
    return MalformedLog(f"{where}: SQLite failed ({type(error).__name__})", hint="Report this.", **context)


def _refused(error: apsw.Error, system: str, table: str, row_index: int | None) -> RowRefused:
    reason = _CODES.get(getattr(error, "extendedresult", 0), "other")
    found = _NAMES.search(str(error)) if reason in ("unique", "not_null", "check", "value") else None
    names = found.group(1) if found else ""
    if reason == "check":
        return row_refused(reason, system, table, row_index, constraint=names)
    # "index 'name'" is what SQLite says of an index over expressions.
    columns = ", ".join(name.rpartition(".")[2] for name in names.split(", "))
    return row_refused(reason, system, table, row_index, column=columns)


def _sql(error: apsw.Error, where: str, context: dict[str, Any]) -> ConcordError:
    text = str(error)
    if "concord_" in text and text.startswith(("no such table", "no such column")):
        return SourceUnready(
            f"{where}: Concord's own tables are not there, or are of another make",
            hint=f"Run `concord setup {context['system']}`.",
            **context,
        )
    if text.startswith(("no such table", "no such column", "table ", "no tables specified")):
        return RowRefused(
            # A statement's text holds names only, and a trigger's is the owner's: nothing of a row.
            f"{where}: the table, a column of it, or what its triggers use is gone: {text}",
            hint="Bring it back or change the mapping; its records wait.",
            reason="table",
            **context,
        )
    if text.startswith("cannot ") and "generated column" in text:
        return RowRefused(
            f"{where}: the database computes a column that the mapping writes",
            hint="Take the column out of what the mapping writes; its records wait.",
            reason="table",
            **context,
        )
    if text.startswith(("no such function", "unknown function", "no such collation")):
        return RowRefused(
            f"{where}: the table or its triggers use what only its application has: {text}",
            hint="Do without it in the table's triggers, checks and indexes; its records wait.",
            reason="table",
            **context,
        )
    return RowRefused(f"{where}: the database refused the statement", hint="Report this.", reason="other", **context)
