"""What a table looks like: its columns as the log or catalogue describes them."""

from __future__ import annotations

import enum

import msgspec


class Kind(enum.Enum):
    """What a column's values mean, in terms that all databases share."""

    TEXT = "text"
    INTEGER = "integer"
    DECIMAL = "decimal"
    FLOAT = "float"
    BOOLEAN = "boolean"
    DATE = "date"
    TIME = "time"
    TIMESTAMP = "timestamp"
    """Date and time without a zone; the mapping says which zone is meant."""
    INSTANT = "instant"
    """Date and time with a zone (timestamptz)."""
    INTERVAL = "interval"
    UUID = "uuid"
    BINARY = "binary"
    JSON = "json"
    ENUM = "enum"
    ARRAY = "array"
    OTHER = "other"
    """Carried as text: ranges, network addresses, geometry, whatever has no kind of its own."""


class Form(enum.Enum):
    """How wire values of a table are spelt. One form for all columns of a system."""

    TEXT = "text"
    """Every value is a str in PostgreSQL's output syntax under DateStyle ISO, TimeZone UTC, IntervalStyle iso_8601,
    bytea_output hex; booleans "t" and "f"."""
    NATIVE = "native"
    """int, float, str, bytes as the driver gives them (SQLite: dynamically typed)."""


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """One column.

    `type` is the database's own name with its modifier (`numeric(12,2)`), for messages and casts. `length` is the
    greatest number of characters, `precision` and `scale` those of a decimal, `labels` an enum's. `scale` of a time or
    an interval is how many digits of a second it keeps, None when nobody counts. `element`: what one element of an
    array is. `collation`: the rule by which the database compares the texts, where that matters; empty when
    nobody told. `is_generated`: the database computes it, never write it. `has_default`: an insert may leave it out.
    `is_assigned`: serial, identity or rowid: the database hands out values itself.
    """

    name: str
    kind: Kind
    type: str
    is_nullable: bool = True
    length: int | None = None
    precision: int | None = None
    scale: int | None = None
    labels: tuple[str, ...] = ()
    element: Column | None = None
    collation: str = ""
    is_generated: bool = False
    has_default: bool = False
    is_assigned: bool = False


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """A table at one moment: rows decoded under a shape have one value per column, in `columns` order.

    `name` is as the mapping writes it ("public.customers"; SQLite: "customers"). `key` are the primary key's column
    names, empty without one. `unique` are the column sets of further unique constraints. `has_triggers`: writing here
    may change more than what is written: triggers of its owner, foreign keys that cascade. `is_whole`: rows are written
    whole, for nothing there keeps the columns that a write leaves out.
    """

    name: str
    columns: tuple[Column, ...]
    form: Form
    key: tuple[str, ...] = ()
    unique: tuple[tuple[str, ...], ...] = ()
    has_triggers: bool = False
    is_whole: bool = False

    def index(self, column: str) -> int | None:
        """The column's index in a row, or None."""
        return next((n for n, c in enumerate(self.columns) if c.name == column), None)

    def column(self, name: str) -> Column | None:
        return next((c for c in self.columns if c.name == name), None)
