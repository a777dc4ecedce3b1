"""What our user may not do, found by having the database explain how it would do it: that asks for the same rights,
and does nothing. For the databases of which the plugin knows that it is so; of others nothing is told beforehand.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from engine.ports import Finding, Role
from plugins.polling.catalog import IDENTITY, MARKER, read_shape
from plugins.polling.connect import Connection
from plugins.polling.errors import kind_of

READ = ("select",)
WRITE = ("select", "insert", "update", "delete")
DIALECTS = ("postgres", "mysql")


def missing_rights(connection: Connection, tables: Sequence[str], role: Role) -> Iterator[Finding]:
    """One finding for each table with rights that are missing, and the statement that gives them."""
    if connection.sql.dialect not in DIALECTS:
        return
    needs = WRITE if Role.TARGET in role else READ
    ours = (MARKER, IDENTITY) if Role.TARGET in role else (MARKER,)
    for table in (*tables, *ours):
        lacking = [need for need in needs if not _may(connection, table, need)]
        if not lacking:
            continue
        listed = ", ".join(lacking)
        # Where all rights are missing MySQL does not say whether there is such a table, and grants none on one that is
        # not there, but with the right to make it.
        is_hidden = connection.sql.dialect == "mysql" and table in ours
        given = f"create, {listed}" if is_hidden else listed
        yield Finding(
            path=table,
            message=f"our user lacks {listed} on it",
            hint="Have it granted.",
            sql=_usage(connection, table) + f"grant {given} on {_name(connection, table)} to {_user(connection)};",
        )


def _may(connection: Connection, table: str, need: str) -> bool:
    """Whether it would be done to some column; also where it cannot be done for another reason, which others tell."""
    name, quoted = _name(connection, table), connection.sql.quoted
    if need == "select":
        return _explains(connection, f"select * from {name} where 1 = 0")
    if need == "delete":
        return _explains(connection, f"delete from {name} where 1 = 0")
    shape = read_shape(connection, table)
    if shape is None:
        # It is hidden from who may not read it, or not there at all.
        return _may(connection, table, "select")
    columns = [quoted(column.name) for column in shape.columns if not column.is_generated]
    if need == "update":
        return any(_explains(connection, f"update {name} set {c} = {c} where 1 = 0") for c in columns)
    return any(_explains(connection, f"insert into {name} ({c}) select {c} from {name} where 1 = 0") for c in columns)


def _explains(connection: Connection, statement: str) -> bool:
    try:
        connection.rows(f"explain {statement}")
    except connection.failures as error:
        return kind_of(error) != "permission"
    return True


def _name(connection: Connection, table: str) -> str:
    return connection.sql.written(connection.sql.table(table))


def _usage(connection: Connection, table: str) -> str:
    """The right to see a schema, which PostgreSQL has apart."""
    schema, dot, _ = table.partition(".")
    if connection.sql.dialect != "postgres" or not dot:
        return ""
    rows = connection.rows("select has_schema_privilege(oid, 'usage') from pg_namespace where nspname = \x01", [schema])
    if not rows or rows[0][0]:
        return ""
    return f"grant usage on schema {connection.sql.quoted(schema)} to {_user(connection)}; "


def _user(connection: Connection) -> str:
    quoted = connection.sql.quoted
    if connection.sql.dialect == "postgres":
        return quoted(str(connection.rows("select current_user::text")[0][0]))
    name, _, host = str(connection.rows("select current_user()")[0][0]).rpartition("@")
    return f"{quoted(name)}@{quoted(host)}"
