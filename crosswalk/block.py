"""What one `[[table]]` block of a mapping says, checked against the dictionary; no table has been seen yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from sqlglot.expressions import Expr

from crosswalk.dictionary import Dictionary
from engine.errors import ValueRefused
from engine.model.draw import Draw
from engine.model.entity import Entity
from engine.model.entity import Field as EntityField
from engine.ports import Deletes, KeyRule

if TYPE_CHECKING:
    from crosswalk.joined import Join

Constant = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Now:
    """The moment of the write. `zone`: of a column that says none."""

    zone: ZoneInfo | None


Given = Constant | Now


@dataclass(frozen=True, slots=True, kw_only=True)
class MappedField:
    """One field of a block. Either `column`, or `read` with perhaps `writes` (column → SQL over canonical fields)."""

    name: str
    """The canonical field."""
    where: str
    """File and line, for messages about the table."""
    column: str | None = None
    read: Expr | None = None
    read_sql: str = ""
    writes: Mapping[str, Expr | None] = field(default_factory=lambda: {})
    """Column → what is written there; None: the field's value as it is."""
    values: Mapping[str, str | int | bool] | None = None
    unit: str | None = None
    currency: str | None = None
    place: str | None = None
    """Of a reference: the block whose keys the column holds."""
    zone: ZoneInfo | None = None
    default: Constant | None = None
    round: int | None = None
    truncate: bool = False
    soft_delete: bool = False
    is_read_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """`"C-{rid:06d}"`: literal parts and (name, format); the name is `rid` or a field."""

    text: str
    parts: tuple[tuple[str, str | None, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A row and the record it stands for; `None` on a side that is not given."""

    where: str
    row: Mapping[str, Any]
    record: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A `[[table]]` block."""

    system: str
    dialect: str
    where: str
    path: str
    """Its place in that file: "table[0]"."""
    name: str
    table: str
    entity: str
    key: tuple[str, ...]
    filter: Expr | None
    filter_sql: str
    only: Expr | None
    fields: tuple[MappedField, ...]
    constants: Mapping[str, Given]
    """What inserts set beside the fields."""
    touched: Mapping[str, Given]
    """What every write sets beside the fields, inserts too."""
    key_rule: KeyRule | None
    """None: assigned where the database assigns the key, else nobody makes keys."""
    key_field: str | None
    key_template: Template | None
    draw: Draw | None
    """Where the target takes the keys of new rows from (ASSIGNED)."""
    deletes: Deletes
    joins: tuple[Join, ...] = ()
    """Owners first."""
    examples: tuple[Example, ...] = ()

    @property
    def title(self) -> str:
        return f"{self.system}: {self.table}" + ("" if self.name == self.table else f" ({self.name})")

    def field_of(self, entity: Entity, name: str) -> EntityField:
        return entity.fields[entity.index[name]]

    def refused(self, reason: str, *, field_name: str, column: str | None, hint: str = "") -> ValueRefused:
        """A refusal that says where, and never what the value was."""
        place = f"table {self.table}, column {column}" if column else f"table {self.table}"
        return ValueRefused(
            f"system {self.system}, {place}, field {self.entity}.{field_name}: {reason}",
            hint=hint,
            system=self.system,
            table=self.table,
            column=column,
            key=self.key,
            entity=self.entity,
            field=field_name,
        )


def parents_first(blocks: list[Block], dictionary: Dictionary) -> list[Block]:
    """Blocks in the order of their entities' references; among equals the file's order. Circles are cut anywhere."""
    order: list[str] = []

    def visit(name: str, path: tuple[str, ...]) -> None:
        entity = dictionary.entity(name)
        if entity is None or name in order or name in path:
            return
        for _, parent in entity.references:
            visit(parent, (*path, name))
        order.append(name)

    for block in blocks:
        visit(block.entity, ())
    return sorted(blocks, key=lambda block: order.index(block.entity))
