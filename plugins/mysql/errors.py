"""Driver errors become Concord's, here and nowhere else, by the server's error number.

The numbers are those of https://mariadb.com/kb/en/mariadb-error-code-reference/, which MySQL shares below 1900. The
server's words are never passed on, for many quote values (1062 and 1366 do); what is passed on are names found in them.
"""

from __future__ import annotations

import re
from typing import Any, Final

from engine.errors import (
    ConcordError,
    RowRefused,
    SourceUnready,
    SystemUnreachable,
    TargetBusy,
    TargetUnready,
)
from engine.ports import Role

UNIQUE: Final = frozenset((1062, 1169, 1586))
"""Two rows would be alike in a unique index."""
DATABASE_DENIED: Final = 1044
_ACCOUNT: Final = re.compile(r"for user '([^']*)'@'([^']*)' to database")
NOT_FOR_US: Final = frozenset((1044, 1142, 1143, 1146))
"""A table is not there, or this user may not read it."""

_REASONS: Final = {
    **dict.fromkeys(UNIQUE, ("unique", "another row has the same value in a unique index")),
    1216: ("foreign_key", "it refers to a row that is not there"),
    1452: ("foreign_key", "it refers to a row that is not there"),
    1217: ("foreign_key", "another row still refers to this one"),
    1451: ("foreign_key", "another row still refers to this one"),
    1761: ("foreign_key", "a foreign key that cascades would make two rows alike"),
    1762: ("foreign_key", "a foreign key that cascades would make two rows alike"),
    1048: ("not_null", "a column that must not be null would be"),
    1364: ("not_null", "a column without a default was given no value"),
    1263: ("not_null", "a column that must not be null would be"),
    4025: ("check", "a check constraint is violated"),
    3819: ("check", "a check constraint is violated"),
    1369: ("check", "the check option of a view is violated"),
    1406: ("value", "a value is too long for its column"),
    1264: ("value", "a number is out of range"),
    1265: ("value", "a value would be cut off or changed"),
    1292: ("value", "a date, time or number is no value of the column's type"),
    1366: ("value", "a value is none of the column's type, or has characters that its character set lacks"),
    3140: ("value", "a json text is malformed"),
    3988: ("value", "a text has characters that the column's character set lacks"),
    1367: ("value", "a value is none of the column's type"),
    1416: ("value", "bytes are no geometry"),
    1411: ("value", "a value is none of the column's type"),
    1690: ("value", "a number is out of range"),
    1118: ("value", "a row is too large"),
    1139: ("value", "a value is none of the column's type"),
    1153: ("value", "a row is larger than max_allowed_packet"),
    1301: ("value", "a row is larger than max_allowed_packet"),
    1300: ("value", "a text has characters that the column's character set lacks"),
    1467: ("other", "the table has no more keys to give"),
    1644: ("other", "a trigger of the table refuses the row"),
    1442: ("other", "a trigger of the table writes to the table that it belongs to"),
}

_TABLE: Final = {
    1146: ("table", "a table does not exist", "Create the table, or take it out of the mapping."),
    1049: ("table", "the database does not exist", "Create the database, or take its tables out of the mapping."),
    1054: ("table", "a column does not exist", "Adapt the mapping to the table's columns."),
    1136: ("table", "the table has other columns", "Adapt the mapping to the table's columns."),
    1288: ("table", "it is a view that cannot be written", "Map the table itself."),
    1471: ("table", "it is a view that cannot be written", "Map the table itself."),
    1305: ("table", "a function that its triggers use does not exist", "Bring it back; its records wait."),
    1906: ("table", "the database computes a column that the mapping writes", "Take the column out of the mapping."),
    3105: ("table", "the database computes a column that the mapping writes", "Take the column out of the mapping."),
    1142: ("permission", "a privilege is missing", "Grant what `concord check` names, then `concord parked retry`."),
    1143: ("permission", "a privilege is missing", "Grant what `concord check` names, then `concord parked retry`."),
    1044: ("permission", "a privilege is missing", "Grant what `concord check` names, then `concord parked retry`."),
    1370: ("permission", "a privilege is missing", "Grant what `concord check` names, then `concord parked retry`."),
    1227: ("permission", "a privilege is missing", "Grant what `concord check` names."),
    1045: ("permission", "the server does not let this user in", "Check user and password in the configuration."),
    1698: ("permission", "the server does not let this user in", "Check user and password in the configuration."),
    1130: ("permission", "the server lets nobody in from this host", "Create the user for this host."),
}

_HINTS: Final = {
    "unique": "Change one of the two rows that have the same value; a changed record is tried at once.",
    "foreign_key": "Bring the row that it refers to, or remove the one that refers to it; then `concord parked retry`.",
    "not_null": "Give the field a value where it was written, or the mapping a `default` for the column.",
    "check": "Correct the value where it was written, or the constraint; then `concord parked retry`.",
    "value": "Correct the value where it was written, or the mapping; then `concord parked retry`.",
    "other": "Look at the table's triggers, correct the record where it was written, then `concord parked retry`.",
}

_BUSY: Final = {
    1213: ("a deadlock", "It is tried again."),
    1205: ("a lock was not granted in time", "Look for a long transaction that holds the lock; it is tried again."),
    3572: ("a lock was not granted in time", "Look for a long transaction that holds the lock; it is tried again."),
    1206: ("the server has no room for more locks", "Raise innodb_buffer_pool_size; it is tried again."),
    1020: ("another transaction changed the row", "It is tried again."),
    1969: ("a statement took too long", "Look whether something blocks it, or raise statement_seconds_max."),
    3024: ("a statement took too long", "Look whether something blocks it, or raise statement_seconds_max."),
    1317: ("the statement was ended by somebody", "It is tried again."),
    1290: ("the server is read-only", "Switch read_only off, or name the primary; it is tried again."),
    1836: ("the server is read-only", "Switch read_only off, or name the primary; it is tried again."),
    1792: ("the transaction is read-only", "Switch transaction_read_only off; it is tried again."),
    1412: ("a table was altered meanwhile", "It is tried again."),
    1615: ("a table was altered meanwhile", "It is tried again."),
    1021: ("its disk is full", "Make room on the server's disk; it is tried again."),
    1026: ("its disk cannot be written", "Look at the server's disk and log; it is tried again."),
    1030: ("its storage engine failed", "Look at the server's log; it is tried again."),
    1114: ("a table or its disk is full", "Make room on the server's disk; it is tried again."),
    1197: ("a transaction is larger than max_binlog_cache_size", "Raise it; it is tried again."),
    3675: ("its disk is full", "Make room on the server's disk; it is tried again."),
    1037: ("it is out of memory", "Look at the server's memory; it is tried again."),
    1038: ("it is out of memory", "Look at the server's memory; it is tried again."),
    1041: ("it is out of memory", "Look at the server's memory; it is tried again."),
    1180: ("the commit failed", "Look at the server's log; it is tried again."),
}

_UNREACHABLE: Final = {
    **dict.fromkeys((2002, 2003, 2005), "it cannot be reached"),
    **dict.fromkeys((2006, 2013, 2014, 2027, 2055, 4031, 0), "the connection broke"),
    **dict.fromkeys((1053, 1077, 1079, 1080, 1152, 1158, 1159, 1160, 1161, 1184, 1927), "the connection was ended"),
    **dict.fromkeys((1040, 1203, 1226), "it has no connection left"),
    **dict.fromkeys((2026,), "the connection cannot be encrypted as tls wants it"),
    1129: "it has blocked this host after too many failed connections",
}

_COLUMN: Final = re.compile(r"(?:for column|Column|column|Field) [`']?(?:(?:`[^`]*`\.)*`)?([^`']+?)[`'](?: |$|\))")
_CONSTRAINT: Final = re.compile(r"CONSTRAINT [`'](?:[^`']*`\.`)*([^`']+)[`']|Check constraint '([^']+)'")
_KEY: Final = re.compile(r"for key '(?:[^']*\.)?([^'.]+)'$")


def number(error: BaseException) -> int:
    """The server's or the driver's number of the error; 0 without one."""
    found = error.args[0] if error.args else 0
    return found if isinstance(found, int) else 0


def database_denied(error: BaseException, system: str, database: str) -> SourceUnready:
    """Whoever has no right in a database cannot even connect to it, so no check can name what is missing there."""
    # The account as it was granted to, with the host's pattern; the text holds nothing else of anybody's.
    found = _ACCOUNT.search(str(error))
    account = f"'{found[1]}'@'{found[2]}'" if found else "our user"
    escaped = database.replace("`", "``")
    return SourceUnready(
        f"system {system}: {account} has no right at all in database {database}",
        hint=f"Have this run: grant select on `{escaped}`.* to {account};"
        f" then `concord check {system}` names the rest.",
        system=system,
        errno=DATABASE_DENIED,
    )


def translate(
    error: BaseException,
    *,
    system: str,
    table: str = "",
    role: Role = Role.SOURCE,
    row_index: int | None = None,
    column: str = "",
    doing: str = "",
) -> ConcordError:
    """The error of ours that says the same; raise it `from error`.

    With `role` TARGET and a table an error about its rows becomes `RowRefused`, so that the engine sets aside records
    and not the whole system. `doing`: what was being done, for the message.
    """
    if isinstance(error, ConcordError):
        return error
    code = number(error)
    where = f"system {system}" + (f", table {table}" if table else "")
    during = f" while trying to {doing}" if doing else ""
    context: dict[str, Any] = {"system": system, "errno": code} | ({"table": table} if table else {})
    if isinstance(error, OSError):
        code = 2003
    if code in _UNREACHABLE:
        return SystemUnreachable(
            f"{where}: {_UNREACHABLE[code]}{during} (error {code})",
            hint="Check that the server runs and can be reached.",
            **context,
        )
    if code in _BUSY:
        said, hint = _BUSY[code]
        return TargetBusy(f"{where}: {said}{during} (error {code})", hint=hint, **context)
    names = _names(error, code, column)
    where += "".join(f", {label} {name}" for label, name in names.items())
    context |= names
    if code in _REASONS:
        reason, said = _REASONS[code]
        return _about_rows(f"{where}: {said}{during}", _HINTS[reason], reason, role, table, row_index, context)
    if code in _TABLE:
        reason, said, hint = _TABLE[code]
        return _about_rows(f"{where}: {said}{during}", hint, reason, role, table, row_index, context)
    text = f"{where}: the server refused the statement{during} (error {code})"
    return _about_rows(text, "Look the number up in the server's manual.", "other", role, table, row_index, context)


def _about_rows(
    message: str, hint: str, reason: str, role: Role, table: str, row_index: int | None, context: dict[str, Any]
) -> ConcordError:
    if Role.TARGET not in role:
        return SourceUnready(message, hint=hint, **context)
    if not table:
        return TargetUnready(message, hint=hint, **context)
    return RowRefused(message, hint=hint, row_index=row_index, reason=reason, **context)


def _names(error: BaseException, code: int, column: str) -> dict[str, str]:
    """Names of column and constraint, as far as they are known. 1062 quotes the value before the name of the key, so
    only the end of its message is looked at; of those that quote a value before a column's name none is."""
    said = str(error.args[1]) if len(error.args) > 1 else ""
    names = {"column": column} if column else {}
    if code in UNIQUE and (found := _KEY.search(said)):
        names["constraint"] = found[1]
    elif code in (1216, 1217, 1451, 1452, 4025, 3819) and (found := _CONSTRAINT.search(said)):
        names["constraint"] = found[1] or found[2]
    elif not column and code in (1048, 1364, 1406, 1264, 1054, 1906, 3105) and (found := _COLUMN.search(said)):
        names["column"] = found[1]
    return names


def row_refused(
    reason: str, said: str, *, system: str, table: str, row_index: int | None = None, column: str = "", hint: str = ""
) -> RowRefused:
    """A refusal of our own."""
    where = f"system {system}, table {table}" + (f", column {column}" if column else "")
    names = {"column": column} if column else {}
    return RowRefused(
        f"{where}: {said}",
        hint=hint or _HINTS.get(reason, "Adapt the mapping to the table's columns."),
        row_index=row_index,
        reason=reason,
        system=system,
        table=table,
        **names,
    )
