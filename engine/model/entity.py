"""Entities and fields as the pipeline needs them. The dictionary (crosswalk) makes them; the hub fixes their order."""

from __future__ import annotations

import enum
from functools import cached_property

import msgspec

ALIVE = 0
"""Index of the field `alive`, which every entity has: False once the record is deleted."""


class Type(enum.Enum):
    """Canonical types; their spellings are in `engine.model.value`."""

    TEXT = "text"
    INTEGER = "integer"
    DECIMAL = "decimal"
    MONEY = "money"
    BOOLEAN = "boolean"
    DATE = "date"
    TIME = "time"
    TIMESTAMP = "timestamp"
    DURATION = "duration"
    ENUM = "enum"
    REFERENCE = "reference"
    JSON = "json"
    BINARY = "binary"
    LIST = "list"


class Policy(enum.Enum):
    """Who wins among concurrent changes of a field where no owner decides."""

    LATEST = "latest"
    """The later commit time; on a tie the greater system rank (order of the systems in concord.toml)."""
    SUM = "sum"
    """A counter: concurrent changes add up."""
    MANUAL = "manual"
    """The present value stays; the other one waits for a person in the conflict list."""


class Others(enum.Enum):
    """What happens to a change by a system that does not own the field."""

    RESTORE = "restore"
    """The owner's value is written back."""
    ACCEPT = "accept"
    """It is taken when it follows the owner's value; a concurrent one still loses."""


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """One field of an entity. `owner` is a system's name. Fields of the same `group` win or lose as one."""

    name: str
    type: Type
    owner: str | None = None
    others: Others = Others.RESTORE
    policy: Policy = Policy.LATEST
    group: str | None = None
    reference: str | None = None
    """The entity referred to, for a reference."""
    unit: str | None = None
    values: tuple[str, ...] = ()
    """Allowed values of an enum."""
    length: int | None = None
    scale: int | None = None
    of: Type | None = None
    """What a list holds."""
    is_required: bool = False
    is_retired: bool = False
    """No longer in the dictionary; kept so that the indexes of the others stay what they are in the hub."""
    description: str = ""
    pii: str | None = None


class Match(msgspec.Struct, frozen=True, kw_only=True):
    """Fields that together tell that two rows of two systems are one record; `normalise` names a rule per field.
    `optional`: those that may say nothing, which is then the same in both."""

    fields: tuple[str, ...]
    normalise: tuple[str, ...]
    optional: tuple[str, ...] = ()


class Entity(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """One entity. `fields[0]` is `alive`; the order is the hub's and never changes, new fields come at the end."""

    name: str
    fields: tuple[Field, ...]
    matches: tuple[Match, ...] = ()
    description: str = ""
    id: int = 0
    """The hub's number for it; 0 before the hub knows it."""

    @cached_property
    def index(self) -> dict[str, int]:
        """Field name → index in a canonical row."""
        return {field.name: n for n, field in enumerate(self.fields)}

    @cached_property
    def cells(self) -> tuple[tuple[int, ...], ...]:
        """Indexes of the fields that win or lose together; a field without a group is a cell of its own."""
        groups: dict[str, list[int]] = {}
        for n, field in enumerate(self.fields):
            groups.setdefault(f"group {field.group}" if field.group else field.name, []).append(n)
        return tuple(tuple(cell) for cell in groups.values())

    @cached_property
    def references(self) -> tuple[tuple[int, str], ...]:
        """(index, entity referred to) of every reference field."""
        return tuple((n, f.reference) for n, f in enumerate(self.fields) if f.reference and not f.is_retired)
