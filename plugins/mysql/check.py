"""Everything that would stop or endanger a system's part, found before the daemon does. Reads only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from engine.model.table import Kind, Shape
from engine.plugin import Site
from engine.ports import Finding, Role, Step
from plugins.mysql.apply_table import is_transactional
from plugins.mysql.catalog import IDENTITY, MARKER, list_tables, quoted_table, read_shapes, split_name
from plugins.mysql.config import MysqlConfig
from plugins.mysql.connect import Connection, quoted
from plugins.mysql.grants import Grants, load_grants

MARIADB_MIN: Final = (10, 5)
MYSQL_MIN: Final = (8, 0)
# A daemon that is down over a long weekend finds its place again.
EXPIRE_SECONDS_MIN: Final = 4 * 86400
_VARIABLES: Final = (
    *("log_bin", "binlog_format", "binlog_row_image", "binlog_row_metadata", "binlog_row_value_options"),
    *("gtid_strict_mode", "server_id", "binlog_expire_logs_seconds", "expire_logs_days", "read_only"),
    *("super_read_only", "lower_case_table_names", "max_allowed_packet"),
)


def find_problems(
    connection: Connection,
    site: Site,
    config: MysqlConfig,
    tables: Sequence[str],
    role: Role,
    missing: Sequence[Step],
) -> Iterator[Finding]:
    """The findings of `concord check`. `missing`: what set-up would do."""
    settings = _load_settings(connection)
    grants = load_grants(connection)
    yield from _of_version(connection)
    if Role.SOURCE in role:
        yield from _of_log(settings, config)
        yield from _of_replication(connection, grants)
    if Role.TARGET in role:
        yield from _of_target(settings)
    for step in missing:
        hint = f"Run `concord setup {site.name}`."
        yield Finding(path="setup", message=step.summary, hint=hint, sql=step.sql, by_setup=True)
    shapes = read_shapes(connection, config.database, tables)
    listed = list_tables(connection, config.database)
    for table in tables:
        rights = list(_of_privileges(grants, config.database, table, role)) if table not in shapes else []
        yield from rights
        if table not in shapes and not rights:
            alike = next((name for name in listed if name.lower() == table.lower()), None)
            hint = f"Write {alike} in the mapping." if alike else "Correct the mapping or create the table."
            yield Finding(path=table, message="there is no such table that this user may see", hint=hint)
    for table, shape in shapes.items():
        yield from _of_table(connection, config.database, table, shape, role)
    ours = (MARKER, IDENTITY) if Role.TARGET in role else ()
    for table in (*shapes, *ours):
        yield from _of_privileges(grants, config.database, table, role)


def log_problem(connection: Connection, config: MysqlConfig) -> Finding | None:
    """What keeps the server's log from being read as rows, if anything does."""
    return next((found for found in _of_log(_load_settings(connection), config) if found.is_fatal), None)


def _load_settings(connection: Connection) -> dict[str, str]:
    names = ", ".join(connection.literal(name) for name in _VARIABLES)
    rows = connection.rows(f"show global variables where variable_name in ({names})")
    return {str(name).lower(): str(value) for name, value in rows}


def _of_version(connection: Connection) -> Iterator[Finding]:
    version, kind, least = connection.version, "MySQL", MYSQL_MIN
    if connection.is_mariadb:
        kind, least = "MariaDB", MARIADB_MIN
    if version < least:
        yield Finding(
            path="version",
            message=f"{kind} {version[0]}.{version[1]} is too old; {least[0]}.{least[1]} is the first whose log names"
            " columns",
            hint="Upgrade the server.",
        )


def _of_log(settings: dict[str, str], config: MysqlConfig) -> Iterator[Finding]:
    if settings.get("log_bin") != "ON":
        yield Finding(
            path="log_bin",
            message="the server writes no binary log",
            hint="Put log_bin, binlog_format = ROW and a server_id into the server's configuration and restart it.",
        )
    for name, wanted, why, then in (
        ("binlog_format", "ROW", "changes would come as statements", ""),
        ("binlog_row_image", "FULL", "rows would come without the columns that did not change", ""),
        # A table that is open keeps what was set when it was opened.
        ("binlog_row_metadata", "FULL", "rows would come without the names of their columns", " flush tables;"),
    ):
        found = settings.get(name)
        if found is not None and found != wanted:
            yield Finding(
                path=name,
                message=f"it is {found}: {why}",
                hint="Set it, in the server's configuration too. Sessions that are open keep the old value.",
                sql=f"set global {name} = '{wanted}';{then}",
            )
    if settings.get("binlog_row_value_options", "") != "":
        yield Finding(
            path="binlog_row_value_options",
            message="changed json values would come in parts",
            sql="set global binlog_row_value_options = '';",
        )
    if settings.get("gtid_strict_mode") == "OFF":
        yield Finding(
            path="gtid_strict_mode",
            message="it is off: transactions may stand in the log in another order than their numbers'",
            hint="Switch it on, in the server's configuration too.",
            sql="set global gtid_strict_mode = on;",
            is_fatal=False,
        )
    yield from _of_server_id(settings, config)
    kept = int(float(settings.get("binlog_expire_logs_seconds", "0"))) or int(
        float(settings.get("expire_logs_days", "0")) * 86400
    )
    if 0 < kept < EXPIRE_SECONDS_MIN:
        yield Finding(
            path="binlog_expire_logs_seconds",
            message=f"the log is kept for {kept} s; a daemon that is down for longer loses its place",
            hint="Keep it as long as the longest outage you want to survive, and watch the disk.",
            sql=f"set global binlog_expire_logs_seconds = {7 * 86400};",
            is_fatal=False,
        )


def _of_server_id(settings: dict[str, str], config: MysqlConfig) -> Iterator[Finding]:
    own = settings.get("server_id", "0")
    if own == "0":
        yield Finding(
            path="server_id",
            message="the server has no server_id, and lets no replica read its log",
            hint="Give it one, in the server's configuration too.",
            sql="set global server_id = 1;",
        )
    elif config.server_id is not None and str(config.server_id) == own:
        yield Finding(
            path="server_id",
            message=f"the configuration's server_id {own} is the server's own",
            hint="Choose a number that no server and no replica of this system has, or leave server_id out.",
        )


def _of_replication(connection: Connection, grants: Grants) -> Iterator[Finding]:
    # MariaDB has two names for the second one.
    names = ("BINLOG MONITOR", "REPLICATION CLIENT") if connection.is_mariadb else ("REPLICATION CLIENT",)
    for name, alike in (("REPLICATION SLAVE", ("REPLICATION SLAVE",)), (names[0], names)):
        if not any(grants.allows_everywhere(one) for one in alike):
            yield Finding(
                path="privileges",
                message=f"user {grants.user} lacks the privilege {name.lower()}",
                sql=f"grant {name.lower()} on *.* to {grants.user};",
            )


def _of_target(settings: dict[str, str]) -> Iterator[Finding]:
    for name in ("read_only", "super_read_only"):
        if settings.get(name) not in (None, "OFF", "0"):
            yield Finding(
                path=name,
                message="the server is read-only",
                hint="Name the primary in the configuration, or switch it off.",
                sql=f"set global {name} = off;",
            )
            break
    if settings.get("log_bin") == "ON" and settings.get("binlog_format") == "STATEMENT":
        yield Finding(
            path="binlog_format",
            message="it is STATEMENT, with which the server takes no writes at `read committed`",
            hint="Set it, in the server's configuration too.",
            sql="set global binlog_format = 'ROW';",
        )


def _of_table(connection: Connection, database: str, table: str, shape: Shape, role: Role) -> Iterator[Finding]:
    place = quoted_table(table, database)
    if not shape.key:
        yield Finding(
            path=table,
            message="it has no primary key, so its rows cannot be told apart nor read in order",
            hint="Give it one.",
            sql=f"alter table {place} add primary key (...);",
        )
    if not is_transactional(connection, database, table):
        yield Finding(
            path=table,
            message="its storage engine has no transactions: what was rolled back stays written",
            hint="Change the engine; it rewrites the table.",
            sql=f"alter table {place} engine = InnoDB;",
            is_fatal=Role.TARGET in role,
        )
    if Role.TARGET in role:
        yield from _of_character_sets(connection, database, table, shape)
    if Role.SOURCE in role:
        schema, name = (connection.literal(part) for part in split_name(table, database))
        for constraint, rule in connection.rows(_CASCADED.format(schema=schema, table=name)):
            yield Finding(
                path=f"{table}.{constraint}",
                message=f"{str(rule).lower()} of this foreign key is done inside the storage engine, and what it does"
                " to rows of this table is not in the log",
                hint="Let the application do it, or run `concord compare` now and then.",
                is_fatal=False,
            )


def _of_character_sets(connection: Connection, database: str, table: str, shape: Shape) -> Iterator[Finding]:
    schema, name = (connection.literal(part) for part in split_name(table, database))
    texts = [column.name for column in shape.columns if column.kind in (Kind.TEXT, Kind.JSON)]
    for column, character_set in connection.rows(_CHARACTER_SETS.format(schema=schema, table=name)):
        if str(column) in texts:
            yield Finding(
                path=f"{table}.{column}",
                message=f"its character set {character_set} cannot hold all characters; texts with others are refused",
                hint="Convert the table; it is rewritten.",
                sql=f"alter table {quoted_table(table, database)} convert to character set utf8mb4;",
                is_fatal=False,
            )


def _of_privileges(grants: Grants, database: str, table: str, role: Role) -> Iterator[Finding]:
    schema, name = split_name(table, database)
    needs = ["SELECT"] + (["INSERT", "UPDATE", "DELETE"] if Role.TARGET in role else [])
    lacking = [need for need in needs if not grants.allows(need, schema, name)]
    if lacking:
        listed = ", ".join(lacking).lower()
        yield Finding(
            path=table,
            message=f"user {grants.user} lacks {listed} on it",
            sql=f"grant {listed} on {quoted(schema)}.{quoted(name)} to {grants.user};",
        )


_CASCADED: Final = (
    "select constraint_name, if(delete_rule in ('CASCADE', 'SET NULL'), concat('on delete ', delete_rule),"
    " concat('on update ', update_rule)) from information_schema.referential_constraints where"
    " constraint_schema = {schema} and table_name = {table} and (delete_rule in ('CASCADE', 'SET NULL')"
    " or update_rule in ('CASCADE', 'SET NULL'))"
)
_CHARACTER_SETS: Final = (
    "select column_name, character_set_name from information_schema.columns where table_schema = {schema}"
    " and table_name = {table} and character_set_name not in"
    " ('utf8mb4', 'utf16', 'utf16le', 'utf32', 'gb18030')"
)
