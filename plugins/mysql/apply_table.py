"""What a delivery must know of a table: its shape, whether it takes part in transactions."""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.model.table import Shape
from engine.ports import TableWrite
from plugins.mysql.catalog import quoted_table, read_shape, split_name
from plugins.mysql.connect import Connection
from plugins.mysql.errors import row_refused


@dataclass(slots=True)
class TargetTable:
    """`name` is for SQL, `place` is its database and its own name."""

    name: str
    shape: Shape
    place: tuple[str, str]
    _collations: dict[str, tuple[str, str]] = field(default_factory=lambda: {})

    def collation(self, connection: Connection, column: str) -> tuple[str, str]:
        """Character set and collation of a column of texts."""
        if not self._collations:
            schema, table = map(connection.literal, self.place)
            rows = connection.rows(
                "select column_name, character_set_name, collation_name from information_schema.columns"
                f" where table_schema = {schema} and table_name = {table} and collation_name is not null"
            )
            self._collations = {str(name): (str(letters), str(order)) for name, letters, order in rows}
        return self._collations[column]

    def has_unique(self, key: tuple[str, ...]) -> bool:
        """Whether an index keeps rows of the same key out."""
        return set(key) in (set(self.shape.key), *map(set, self.shape.unique))

    def check(self, system: str, write: TableWrite) -> None:
        """Raises `RowRefused` when the write has columns that the table has not, or that are the database's."""
        assigned = () if write.assigned is None else (write.assigned,)
        for name in (*write.columns, *write.key, *assigned):
            column = self.shape.column(name)
            if column is None or (column.is_generated and name in write.columns and name not in write.key):
                said = "the column does not exist" if column is None else "the database computes it"
                raise row_refused("table", said, system=system, table=write.table, column=name)


def load_table(connection: Connection, database: str, name: str) -> TargetTable:
    """The table as it is now. Raises `RowRefused` when there is none, or none that rolls back."""
    system = connection.system
    shape = read_shape(connection, database, name, is_brief=True)
    if shape is None:
        hint = "Create the table, or take it out of the mapping; its records wait."
        raise row_refused("table", "the table does not exist", system=system, table=name, hint=hint)
    table = quoted_table(name, database)
    if not is_transactional(connection, database, name):
        raise row_refused(
            "table",
            "its storage engine has no transactions, so a delivery could not be taken back",
            system=system,
            table=name,
            hint=f"Run `alter table {table} engine = InnoDB;`.",
        )
    return TargetTable(table, shape, split_name(name, database))


def is_transactional(connection: Connection, database: str, name: str) -> bool:
    """Whether the table's storage engine rolls back."""
    schema, table = split_name(name, database)
    rows = connection.rows(
        "select transactions from information_schema.engines where engine = (select engine from"
        f" information_schema.tables where table_schema = {connection.literal(schema)}"
        f" and table_name = {connection.literal(table)})"
    )
    return bool(rows) and rows[0][0] == "YES"
