"""Errors of PEP 249 drivers as Concord's, translated here and nowhere else.

A driver tells by the class of its error what sort it is (PEP 249, "Exceptions"), and most by a code as well: SQLSTATE
for PostgreSQL and ODBC, a number for MySQL, a name for SQLite, a class of its own for DuckDB. Their texts may hold
values and are never passed on; names of columns and constraints are, where the driver has them apart.
"""

from __future__ import annotations

import re
from typing import Any

from engine.errors import ConcordError, RowRefused, SourceError, SourceUnready, SystemUnreachable, TargetBusy

_HINT = "Run `concord parked list`; correct the value where it was written, or the mapping."
_SQLSTATES = {
    "23505": "unique", "23503": "foreign_key", "23502": "not_null", "23514": "check", "23P01": "unique",
    "42501": "permission", "42P01": "table", "42703": "table", "428C9": "table", "3F000": "table",
}  # fmt: skip
_MYSQL = {
    1062: "unique", 1451: "foreign_key", 1452: "foreign_key", 1048: "not_null", 1364: "not_null", 3819: "check",
    4025: "check", 1142: "permission", 1143: "permission", 1044: "permission", 1146: "table", 1054: "table",
    1906: "table", 3105: "table", 1264: "value", 1265: "value", 1292: "value", 1366: "value", 1406: "value",
    1411: "value", 1690: "value", 1153: "value",
}  # fmt: skip
_MYSQL_BUSY = (1205, 1213, 1020, 1290, 1836, 1037, 1040, 1203, 1114, 1021, 3572)
_MYSQL_GONE = (
    1053,
    1077,
    1927,
    2002,
    2003,
    2006,
    2013,
    2014,
    2055,
    1129,
    1130,
    1045,
    1049,
    1152,
    1158,
    1159,
    1160,
    1161,
)
_SQLITE = {
    "SQLITE_CONSTRAINT_UNIQUE": "unique", "SQLITE_CONSTRAINT_PRIMARYKEY": "unique", "SQLITE_CONSTRAINT_ROWID": "unique",
    "SQLITE_CONSTRAINT_FOREIGNKEY": "foreign_key", "SQLITE_CONSTRAINT_NOTNULL": "not_null",
    "SQLITE_CONSTRAINT_CHECK": "check", "SQLITE_CONSTRAINT_DATATYPE": "value", "SQLITE_MISMATCH": "value",
    "SQLITE_TOOBIG": "value",
}  # fmt: skip
_WORDS = (
    # Drivers without a code: the words of their constraint errors, which come before any value.
    ("foreign key", "foreign_key"), ("not null", "not_null"), ("check", "check"), ("duplicate", "unique"),
    ("unique", "unique"), ("primary key", "unique"),
)  # fmt: skip
_MYSQL_DENIED = re.compile(r"for user '([^']*)'@'([^']*)' to database '([^'`]*)'")
_SAID = {
    "unique": "another row has the same value in a unique column",
    "foreign_key": "it refers to a row that is not there, or is referred to",
    "not_null": "a column must not be null",
    "check": "a check of the table failed",
    "value": "a value does not fit its column",
    "permission": "our user may not write it",
    "table": "the table or a column of it is gone",
}


def translate(error: BaseException, *, system: str, table: str = "", row_index: int | None = None) -> ConcordError:
    """The error of ours that says the same. `row_index`: of the row of a write, where it can only be that one."""
    where = f"system {system}" + (f", table {table}" if table else "")
    context: dict[str, Any] = {"system": system, "table": table}
    kind = kind_of(error)
    if kind == "busy":
        return TargetBusy(
            f"{where}: the database cannot do it just now ({type(error).__name__})",
            hint="Nothing is to be done: it is tried again. If it lasts, look for a long transaction or a full disk.",
            **context,
        )
    if kind == "gone":
        return SystemUnreachable(
            f"{where}: the database does not answer, or refuses our connection ({type(error).__name__})",
            hint=f"Check `connect` in [systems.{system}], and whether the server is up.",
            **context,
        )
    if kind in _SAID or kind == "other":
        return row_refused(kind, system, table, row_index, error)
    return SourceError(
        f"{where}: the driver failed ({type(error).__name__})", hint="Look into the database's own log.", **context
    )


def unreachable(error: BaseException, system: str) -> ConcordError:
    """What goes wrong while a connection is opened: there is no row that could be refused."""
    if kind_of(error) == "permission":
        return _denied(error, system)
    found = translate(error, system=system)
    if not isinstance(found, RowRefused | SourceError):
        return found
    return SystemUnreachable(
        f"system {system}: it refuses our connection ({type(error).__name__})",
        hint=f"Check `connect` and `session` in [systems.{system}].",
        system=system,
    )


def _denied(error: BaseException, system: str) -> SourceUnready:
    """Our user may not even use the database. MySQL names the account as it was granted to, which nobody else knows."""
    found = _MYSQL_DENIED.search(str(error))
    given = (
        f"Have this run: grant select on `{found[3]}`.* to '{found[1]}'@'{found[2]}';" if found else "Let it use it:"
    )
    return SourceUnready(
        f"system {system}: our user has no right at all in the database",
        hint=f"{given} then `concord check {system}` names the rest.",
        system=system,
    )


def row_refused(
    reason: str,
    system: str,
    table: str,
    row_index: int | None = None,
    error: BaseException | None = None,
    said: str = "",
) -> RowRefused:
    """A refusal in our words."""
    # psycopg has the names apart (https://www.psycopg.org/psycopg3/docs/api/errors.html, Diagnostic).
    diagnosis = getattr(error, "diag", None)
    found = (("column", "column_name"), ("constraint", "constraint_name"))
    names = {ours: name for ours, theirs in found if (name := getattr(diagnosis, theirs, None))}
    named = "".join(f", {ours} {name}" for ours, name in names.items())
    return RowRefused(
        f"system {system}, table {table}{named}: {said or _SAID.get(reason, 'the database refuses the row')}",
        hint=_HINT,
        row_index=row_index,
        reason=reason,
        system=system,
        table=table,
        **names,
    )


def no_key(system: str, table: str) -> SourceUnready:
    return SourceUnready(
        f"system {system}, table {table}: it has no primary key that our user may see",
        hint=f'Name unique columns that are never null: `key` of [systems.{system}.tables."{table}"].'
        f" `concord check {system}` says if our user may not see the key that it has.",
        system=system,
        table=table,
    )


def kind_of(error: BaseException) -> str:
    """ "busy", "gone", a reason of a refusal, or "" for what is none of them."""
    names = {base.__name__ for base in type(error).__mro__}
    first = error.args[0] if error.args else None
    if isinstance(first, int) and first > 999:
        # Before its SQLSTATE, which has one for all constraints.
        if first in _MYSQL_BUSY:
            return "busy"
        return "gone" if first in _MYSQL_GONE else _MYSQL.get(first, "other")
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    if not state and isinstance(first, str) and len(first) == 5 and first.isalnum() and first[0].isdigit():
        # ODBC's drivers give it as the first argument (https://github.com/mkleehammer/pyodbc/wiki/Exceptions).
        state = first
    if state:
        return _of_state(str(state))
    name = getattr(error, "sqlite_errorname", None)
    if name:
        return _of_sqlite(str(name), str(first))
    return _of_class(error, names)


def _of_state(state: str) -> str:
    if state in _SQLSTATES:
        return _SQLSTATES[state]
    match state[:2]:
        case "22":
            return "value"
        case "40" | "55" | "53" | "57" if state not in ("57P01", "57P02", "57P03"):
            return "busy"
        case "25":
            return "busy"
        case "08" | "57" | "28" | "3D":
            return "gone"
        case _:
            return "other"


def _of_sqlite(name: str, said: str) -> str:
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_FULL", "SQLITE_READONLY", "SQLITE_SCHEMA")):
        return "busy"
    if name.startswith(("SQLITE_CANTOPEN", "SQLITE_IOERR", "SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return "gone"
    if name == "SQLITE_ERROR" and said.startswith(("no such table", "no such column", "table ")):
        return "table"
    return _SQLITE.get(name, "other")


def _of_class(error: BaseException, names: set[str]) -> str:
    said = str(error)[:80].lower()
    if "TransactionException" in names or ("conflict" in said and "OperationalError" in names):
        return "busy"
    if "ConversionException" in names or "OutOfRangeException" in names or "DataError" in names:
        return "value"
    if "CatalogException" in names or "BinderException" in names:
        return "table"
    if "IntegrityError" in names:
        return next((reason for words, reason in _WORDS if words in said), "other")
    if "OperationalError" in names or "InterfaceError" in names:
        return "gone"
    if "ProgrammingError" in names or "NotSupportedError" in names:
        return "other"
    return ""
