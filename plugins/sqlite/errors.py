"""SQLite's errors as Concord's, translated here and nowhere else.

The messages of constraint errors name tables and columns, never values (sqlite3.c, `sqlite3UniqueConstraint` and its
neighbours); all others are rebuilt from the result code.
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

_FAILED = re.compile(r"(UNIQUE|NOT NULL|CHECK|FOREIGN KEY|PRIMARY KEY|datatype)[^:]*(?:: (.+))?")
_REASONS = {"UNIQUE": "unique", "PRIMARY KEY": "unique", "NOT NULL": "not_null", "CHECK": "check"}


def translate(error: apsw.Error, *, system: str, table: str = "", row_index: int | None = None) -> ConcordError:
    """The error of ours that says the same. `row_index`: of the write's row that was being written."""
    where = f"system {system}" + (f", table {table}" if table else "")
    context: dict[str, Any] = {"system": system, "table": table}
    if isinstance(error, apsw.ConstraintError):
        return _refused(error, where, context, row_index)
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
    if isinstance(error, (apsw.MismatchError, apsw.TooBigError, apsw.RangeError)):
        return RowRefused(
            f"{where}: a value does not fit its column",
            hint="Run `concord parked list`; correct the value where it was written.",
            row_index=row_index,
            reason="value",
            **context,
        )
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


def _refused(error: apsw.Error, where: str, context: dict[str, Any], row_index: int | None) -> RowRefused:
    found = _FAILED.search(str(error))
    kind, names = (found.group(1), found.group(2) or "") if found else ("", "")
    columns = ", ".join(name.rpartition(".")[2] for name in names.split(", ")) if names else ""
    if "FOREIGN KEY" in str(error):
        return RowRefused(
            f"{where}: a row it refers to is not there",
            hint="It is tried again by itself; if it stays, look where the row it refers to should come from.",
            row_index=row_index,
            reason="foreign_key",
            **context,
        )
    reason = _REASONS.get(kind, "value" if kind == "datatype" else "other")
    said = {
        "unique": f"another row has the same {columns}",
        "not_null": f"column {columns} must not be null",
        "check": f"check {names} failed",
        "value": f"a value has the wrong type for column {columns}",
    }.get(reason, "a constraint failed")
    return RowRefused(
        f"{where}: {said}",
        hint="Run `concord parked list`; correct the value where it was written, or the mapping.",
        row_index=row_index,
        reason=reason,
        column=columns,
        **context,
    )


def _sql(error: apsw.Error, where: str, context: dict[str, Any]) -> ConcordError:
    text = str(error)
    if text.startswith(("no such table: concord_", "no such table: main.concord_")):
        return SourceUnready(f"{where}: Concord's own tables are not there", hint="Run `concord setup`.", **context)
    if text.startswith(("no such table", "no such column", "table ", "no tables specified")):
        return RowRefused(
            f"{where}: the table or a column of it is gone",
            hint="Bring the table back or change the mapping; its records wait.",
            reason="table",
            **context,
        )
    return RowRefused(f"{where}: the database refused the statement", hint="Report this.", reason="other", **context)
