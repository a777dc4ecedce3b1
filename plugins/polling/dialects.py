"""What databases do each in their own way and sqlglot does not write: how a transaction begins whose reads show one
moment, what the clock says, how old the oldest open transaction is, how rows are hashed where they are.

A dialect that is not listed gets the habits of the standard, and says in `snapshot` how such a transaction begins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from engine.model.table import Form, Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """One dialect's.

    `session`: statements for a new connection. `snapshot` and `write` begin a transaction, to read and to write.
    `can_lock`: a select may lock what it finds. `as_text`: kinds whose values are read as texts that the database
    spells. `casts`: a parameter has to be cast to its column's type. `has_numbered_enums`: enums are put in the order
    of their numbers, and compared with a text as texts. `clock`: a query for seconds since 1970.
    `oldest`: a query for how many seconds ago the oldest transaction began that may still write, which answers null
    where it may not know; None where nobody knows. `digest`: from quoted columns to an
    aggregate over rows that changes with any of them; None where the database has no hash.
    """

    form: Form = Form.TEXT
    session: tuple[str, ...] = ()
    snapshot: tuple[str, ...] = ()
    write: tuple[str, ...] = ("begin",)
    has_savepoints: bool = True
    can_lock: bool = True
    has_returning: bool = False
    as_text: frozenset[Kind] = frozenset()
    casts: bool = False
    has_numbered_enums: bool = False
    clock: str | None = None
    oldest: str | None = None
    digest: Callable[[Sequence[str]], str] | None = None


def _postgres_digest(columns: Sequence[str]) -> str:
    row = f"row({', '.join(columns)})::text"
    return f"coalesce(sum(('x' || substr(md5({row}), 1, 15))::bit(60)::bigint), 0)::text"


def _mysql_digest(columns: Sequence[str]) -> str:
    # quote() tells null from 'NULL', and where one value ends. As bytes: columns have character sets of their own.
    row = ", ".join(f"cast(quote({column}) as binary)" for column in columns)
    return f"cast(coalesce(sum(cast(conv(substr(md5(concat_ws(',', {row})), 1, 15), 16, 10) as unsigned)), 0) as char)"


def _duckdb_digest(columns: Sequence[str]) -> str:
    return f"cast(coalesce(sum(hash({', '.join(columns)})), 0) as varchar)"


STANDARD = Habits()
HABITS = {
    "postgres": Habits(
        session=(
            "set time zone 'UTC'",
            "set datestyle to 'ISO, YMD'",
            "set intervalstyle to 'iso_8601'",
            "set bytea_output to 'hex'",
            "set extra_float_digits to 1",
        ),
        snapshot=("begin isolation level repeatable read, read only",),
        write=("begin isolation level read committed",),
        has_returning=True,
        # Every value: these are the spellings of `Form.TEXT`.
        as_text=frozenset(Kind),
        clock="select extract(epoch from clock_timestamp())::float8",
        # Sessions of others show no times to one who may not see them: then nobody knows.
        oldest=(
            "select case when bool_or(is_hidden) then null else"
            " coalesce(max(extract(epoch from clock_timestamp() - began)), 0)::float8 end from ("
            "select query = '<insufficient privilege>' as is_hidden, xact_start as began from pg_stat_activity"
            " where datname = current_database() and pid <> pg_backend_pid()"
            " union all select false, prepared - interval '1 hour' from pg_prepared_xacts"
            " where database = current_database()) as open_transactions"
        ),
        digest=_postgres_digest,
    ),
    "mysql": Habits(
        session=(
            "set time_zone = '+00:00'",
            "set sql_mode = 'STRICT_ALL_TABLES,NO_AUTO_VALUE_ON_ZERO,ERROR_FOR_DIVISION_BY_ZERO'",
            "set session transaction isolation level repeatable read",
        ),
        snapshot=("start transaction with consistent snapshot, read only",),
        write=("set transaction isolation level read committed", "start transaction"),
        has_numbered_enums=True,
        clock="select unix_timestamp(now(6)) + 0e0",
        # trx_started has whole seconds and the server's zone (https://mariadb.com/kb/en/information-schema-innodb_trx-table/).
        oldest=(
            "select coalesce(max(timestampdiff(second, trx_started, sysdate())), 0) + 1e0"
            " from information_schema.innodb_trx where trx_mysql_thread_id <> connection_id()"
        ),
        digest=_mysql_digest,
    ),
    "sqlite": Habits(
        form=Form.NATIVE,
        session=("pragma foreign_keys = on", "pragma busy_timeout = 10000"),
        snapshot=("begin",),
        write=("begin immediate",),
        can_lock=False,
        has_returning=True,
        clock="select (julianday('now') - 2440587.5) * 86400.0",
    ),
    "duckdb": Habits(
        session=("set timezone = 'UTC'",),
        snapshot=("begin transaction",),
        write=("begin transaction",),
        has_savepoints=False,
        can_lock=False,
        has_returning=True,
        as_text=frozenset((Kind.INSTANT, Kind.INTERVAL, Kind.ARRAY, Kind.JSON, Kind.OTHER)),
        casts=True,
        has_numbered_enums=True,
        clock="select epoch(get_current_timestamp())",
        digest=_duckdb_digest,
    ),
}


def habits_of(dialect: str) -> Habits:
    return HABITS.get(dialect, STANDARD)
