"""Driver errors become Concord's, here and nowhere else, by SQLSTATE.

psycopg and asyncpg have different classes and the same five letters, so only those are looked at. What is passed on is
the SQLSTATE, the names of table, column and constraint, and the server's primary message where it speaks of objects,
users and settings. It is left out where it may quote a value (22P02 and many others) and where a function of the
application's may have raised it. DETAIL is always left out: it quotes whole rows.
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

_REASONS: Final = {
    "23505": ("unique", "a unique constraint is violated"),
    "23P01": ("unique", "an exclusion constraint is violated"),
    "23503": ("foreign_key", "a foreign key is violated"),
    "23001": ("foreign_key", "another row still refers to this one"),
    "23502": ("not_null", "a column that must not be null would be"),
    "23514": ("check", "a check constraint is violated"),
    "44000": ("check", "the check option of a view is violated"),
    "22001": ("value", "a text is too long for its column"),
    "22003": ("value", "a number is out of range"),
    "22007": ("value", "a date or time is malformed"),
    "22008": ("value", "a date or time is out of range"),
    "22021": ("value", "a character cannot be represented in the database's encoding"),
    "22P02": ("value", "a text is no valid value of the column's type"),
    "22P03": ("value", "a binary value is malformed"),
    "22P05": ("value", "a character cannot be represented in the database's encoding"),
    "22032": ("value", "a json text is malformed"),
    "2200N": ("value", "an xml text is malformed"),
    "2200M": ("value", "an xml text is malformed"),
    "54000": ("value", "a row or index entry is too large"),
    "42804": ("value", "a value has another type than its column"),
    "428C9": ("value", "a generated column was given a value"),
    "P0001": ("other", "a trigger or function refused the row"),
}

# Reason, what was found, what to do about it.
_TABLE_STATES: Final = {
    "42P01": ("table", "the table does not exist", "Create the table, or take it out of the mapping"),
    "3F000": ("table", "the schema does not exist", "Create the schema, or take the table out of the mapping"),
    "42703": ("table", "a column does not exist", "Adapt the mapping to the table's columns"),
    "42P10": ("table", "no unique constraint matches the key", "Put a primary key on the key columns"),
    "42809": ("table", "it is not an ordinary table", "Map the table itself"),
    "55000": ("table", "the table does not allow this write", "Give the table a replica identity, or map another"),
    "42704": ("table", "a publication, slot or type does not exist", "Carry out what `concord check {system}` says"),
    "42501": ("permission", "a privilege is missing", "Grant what `concord check {system}` names"),
}

_RETRY: Final = "`concord parked retry --all --system {system}`"
_HINTS: Final = {
    "unique": "Change one of the two rows that have the same value; a changed record is tried at once.",
    "foreign_key": f"Bring the row that it refers to, or remove the one that refers to it; then {_RETRY}.",
    "not_null": "Give the field a value where it was written, or the mapping a `default` for the column.",
    "check": f"Correct the value where it was written, or the constraint; then {_RETRY}.",
    "value": "Correct the value where it was written; a changed record is tried at once.",
    "other": f"Look for it in the server's log, correct the record where it was written, then {_RETRY}.",
}

_BUSY: Final = {
    "40001": "a serialization conflict",
    "40P01": "a deadlock",
    "55P03": "a lock was not granted in time",
    "57014": "the statement was cancelled or took too long",
    "25006": "the server is read-only",
    "25P03": "the server ended an idle transaction",
    "25P04": "the server ended a transaction that took too long",
    "55006": "an object is in use",
    "72000": "the snapshot is too old",
}

_BUSY_HINTS: Final = {
    "55006": "Stop the other daemon or program that uses it, if it does not end by itself; it is tried again.",
    "55P03": "Look for a long transaction that holds the lock (pg_locks); it is tried again.",
    "57014": "Look whether something blocks it, or raise the statement's time limit; it is tried again.",
    "25006": "Switch default_transaction_read_only off, or point the dsn at the primary; it is tried again.",
    "53": "Make room on the server: disk, memory or connections, as its log says; it is tried again.",
}

_CONNECT_ERRORS: Final = frozenset(
    ["OperationalError", "InterfaceError", "InternalClientError", "ConnectionTimeout", "ConnectionDoesNotExistError"]
)

# What to do about a refused login, by the server's words; in another language than English the last has to do.
_LOGIN_HINTS: Final = {
    "pg_hba.conf": "Let our user in from this host in the server's pg_hba.conf, then: select pg_reload_conf();",
    "walsender": "Run `concord check {system}` for the statement that lets our user replicate.",
    "wal sender": "Run `concord check {system}` for the statement that lets our user replicate.",
    "password": "Check the user in the dsn, and the system's `password`.",
    "certificate": "Check sslmode and sslrootcert in the dsn.",
    "permission denied for database": "Grant our user connect on the database.",
    'database "': "Check dbname in the dsn.",
    'role "': "Check the user in the dsn.",
    "": "Check that the server runs, can be reached, and takes our login.",
}

# Classes of states whose primary message names objects, users and settings, and no value of a row.
_TELLING: Final = frozenset(("08", "0A", "25", "28", "3D", "3F", "42", "53", "54", "55", "57", "58"))
# With a context the error may come from a function, which can raise any text under any state. In these files the server
# looks at privileges.
_PRIVILEGE_FILES: Final = frozenset(("aclchk.c", "sequence.c"))
_SAID_LENGTH_MAX: Final = 200


def translate(
    error: BaseException,
    *,
    system: str,
    table: str | None = None,
    role: Role = Role.SOURCE,
    row_index: int | None = None,
    doing: str = "",
    again: str = "start the daemon again",
) -> ConcordError:
    """The Concord error for a driver's error; raise it `from error`.

    `table`: the one table that was written or read. With `role` TARGET an error about it becomes `RowRefused`, so
    that the engine sets aside that table's records and not the whole system; otherwise `SourceUnready` or
    `TargetUnready`. `doing`: what was being done, for the message ("open the slot"); `again`: how it is tried again by
    hand.
    """
    if isinstance(error, ConcordError):
        return error
    state = sqlstate(error)
    where = _where(system, table, error)
    during = f" while trying to {doing}" if doing else ""
    context: dict[str, Any] = {"system": system, "sqlstate": state}
    context |= {name: value for name, value in _names(error).items() if value}
    if table:
        context["table"] = table
    if state is None:
        return _without_state(error, where, during, role, row_index, again, context)
    said = _said(error)
    during = f" (sqlstate {state}){during}" + (f": {said}" if said else "")
    if state[:2] == "08":
        return _unreachable(f"{where}: the connection broke{during}", "", context)
    # 57014 is a cancelled statement; the others of 57P are the server going down, starting, or ending our session.
    if state[:3] == "57P":
        return _unreachable(f"{where}: the server is stopping, starting or ended our session{during}", "", context)
    if state in _BUSY or state[:2] in ("40", "53"):
        found = _BUSY.get(state) or ("the server has no room left" if state[:2] == "53" else "the transaction failed")
        # A source that is busy and one that is away are the same to a lane: try again later.
        kind = TargetBusy if role is Role.TARGET else SystemUnreachable
        hint = _BUSY_HINTS.get(state, _BUSY_HINTS.get(state[:2], "Nothing needs to be done: it is tried again."))
        return kind(f"{where}: {found}{during}", hint=hint, **context)
    if state[:2] == "28" or state == "3D000":
        # Tried again, as it is mended elsewhere; and a driver that tells no state can only be told so by its words.
        return _unreachable(f"{where}: the server refuses our login{during}", said, context)
    if state in ("22021", "22P05") and role is not Role.TARGET:
        # Of a database that checks no encoding. The walsender fails on it again and again, whoever reads.
        return SourceUnready(
            f"{where}: a text is not valid in UTF-8{during}",
            hint="Correct the text in its table, drop the replication slot (pg_drop_replication_slot), then run"
            f" `concord setup {system}` and `concord backfill {system}`.",
            **context,
        )
    return _about_table(state, where, during, table, role, row_index, again, context)


def sqlstate(error: BaseException) -> str | None:
    """The five-letter state of a psycopg or asyncpg error; None where it has none."""
    state = getattr(error, "sqlstate", None)
    return state if isinstance(state, str) and len(state) == 5 else None


def _about_table(
    state: str,
    where: str,
    during: str,
    table: str | None,
    role: Role,
    row_index: int | None,
    again: str,
    context: dict[str, Any],
) -> ConcordError:
    system = context["system"]
    is_row = role is Role.TARGET and table is not None
    if state in _TABLE_STATES:
        reason, found, todo = _TABLE_STATES[state]
        hint = f"{todo}, then {_RETRY if is_row else again}."
    else:
        reason, found = _REASONS.get(state) or _REASONS_BY_CLASS.get(state[:2], ("other", "the server refused"))
        hint = _HINTS[reason] if is_row else f"Look into the server's log, then {again}."
    message, hint = f"{where}: {found}{during}", hint.replace("{system}", system)
    if is_row:
        return RowRefused(message, hint=hint, row_index=row_index, reason=reason, **context)
    return _unready(role, message, hint, context)


_REASONS_BY_CLASS: Final = {
    "22": ("value", "a value is not valid for its column"),
    "23": ("check", "an integrity constraint is violated"),
    "P0": ("other", "a trigger or function refused the row"),
    "38": ("other", "a function refused the row"),
    "39": ("other", "a function refused the row"),
}


def _without_state(
    error: BaseException,
    where: str,
    during: str,
    role: Role,
    row_index: int | None,
    again: str,
    context: dict[str, Any],
) -> ConcordError:
    kinds = {cls.__name__ for cls in type(error).__mro__}
    # Before the next test: asyncpg's DataError is an InterfaceError too. It means a value that the driver itself
    # cannot encode, such as a NUL character.
    if "DataError" in kinds:
        message = f"{where}: a value cannot be sent to its column's type{during}"
        if role is Role.TARGET:
            return RowRefused(message, hint=_HINTS["value"], row_index=row_index, reason="value", **context)
        return _unready(role, message, f"Look into the server's log, then {again}.", context)
    if isinstance(error, (OSError, TimeoutError, EOFError)) or kinds & _CONNECT_ERRORS:
        reason = _reason(error)
        return _unreachable(f"{where}: no connection{during}: {reason}", reason, context)
    return _unready(
        role,
        f"{where}: the driver failed with {type(error).__name__}{during}",
        f"Look into the server's log, then {again}.",
        context,
    )


def _reason(error: BaseException) -> str:
    """The operating system's or libpq's words about a connection, or the server's first line.

    Addresses, names of users and databases; no connection string, which is parsed before.
    """
    if "OperationalError" in {cls.__name__ for cls in type(error).__mro__}:
        # connection to server at "::1", port 5432 failed: FATAL:  role "x" does not exist
        lines = [line for line in str(error).splitlines() if not line.startswith(("\t", "DETAIL:", "HINT:"))]
        said = lines[-1].rpartition("failed: ")[2] if lines else ""
    else:
        said = (error.strerror or str(error) or "no answer in time") if isinstance(error, OSError) else ""
    return _short(re.sub(r"^[A-Z]+: +", "", said)) or type(error).__name__


def _said(error: BaseException) -> str:
    """The server's primary message, where it may be shown."""
    holder: Any = getattr(error, "diag", None) or error
    file = getattr(holder, "source_file", None) or getattr(holder, "server_source_filename", None)
    message = _text(getattr(holder, "message_primary", None) or getattr(holder, "message", None))
    is_shown = (sqlstate(error) or "")[:2] in _TELLING and (
        not getattr(holder, "context", None) or file in _PRIVILEGE_FILES
    )
    return _short(message) if is_shown and message else ""


def _short(text: str) -> str:
    return text.partition("\n")[0][:_SAID_LENGTH_MAX].strip()


def _unreachable(message: str, said: str, context: dict[str, Any]) -> SystemUnreachable:
    hint = next(hint for words, hint in _LOGIN_HINTS.items() if words in said.lower())
    return SystemUnreachable(message, hint=hint.replace("{system}", str(context["system"])), **context)


def _unready(role: Role, message: str, hint: str, context: dict[str, Any]) -> ConcordError:
    kind = TargetUnready if role is Role.TARGET else SourceUnready
    return kind(message, hint=hint, **context)


def _where(system: str, table: str | None, error: BaseException) -> str:
    names = _names(error)
    parts = [f"system {system}"]
    if table:
        parts.append(f"table {table}")
        if names["table"] and names["table"] != table.rpartition(".")[2].strip('"'):
            # A row that cannot go because of another table's: that is the one to look at.
            parts.append(f"because of table {names['table']}")
    elif names["table"]:
        parts.append(f"table {names['table']}")
    parts += [f"{label} {names[label]}" for label in ("column", "constraint") if names[label]]
    return ", ".join(parts)


def _names(error: BaseException) -> dict[str, str | None]:
    """Identifiers in the error: psycopg has them in `diag`, asyncpg on the error itself."""
    holder = getattr(error, "diag", None) or error
    return {label: _text(getattr(holder, f"{label}_name", None)) for label in ("table", "column", "constraint")}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
