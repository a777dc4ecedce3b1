"""What the engine asks of the world.

Plugins implement `System`, `Source` and `Target`; the crosswalk implements `Mapping`; `engine.hub` implements `Hub`.
Errors are those of `engine.errors`: a driver's own never come through. Every `await` here may be cancelled; a port
leaves nothing half done that its next user would not notice.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

from engine.errors import ValueRefused
from engine.model.change import Batch, Chunk, Page
from engine.model.draw import Draw
from engine.model.entity import Entity
from engine.model.joined import Empty, Link
from engine.model.position import Position
from engine.model.table import Shape
from engine.model.value import CanonicalRow, Wire, WireRow

# ---------------------------------------------------------------------------------------------- systems


class Role(enum.Flag):
    """What a system does in the exchange; set-up and checks differ."""

    SOURCE = enum.auto()
    TARGET = enum.auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing that set-up does: a sentence for people and the exact SQL a DBA would run."""

    summary: str
    sql: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing a check found wrong or doubtful. `path` says where: "public.customers.email" or "wal_level"."""

    path: str
    message: str
    hint: str = ""
    sql: str = ""
    """The exact SQL that mends it, where there is any."""
    is_fatal: bool = True
    by_setup: bool = False
    """`concord setup` mends it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """A system's answer to `concord status`. None where the kind has no such number."""

    head: Position | None = None
    """The end of its log."""
    retained_bytes: int | None = None
    """Log the system keeps for us alone (PostgreSQL: behind the slot's restart_lsn; SQLite: journal rows)."""
    lag_bytes: int | None = None
    """Log between what we confirmed and the end."""
    detail: str = ""


class System(Protocol):
    """One database that takes part, apart from the stream of its changes. Each method opens and closes a connection.

    Table names are spelt as in the mapping. Every method may raise `SystemUnreachable`.
    """

    async def shapes(self, tables: Sequence[str] | None = None) -> dict[str, Shape]:
        """The live catalogue's view of the tables; those that do not exist are left out. None: every ordinary table
        a user of this system would map (no catalogue tables, none of ours)."""
        ...

    async def plan(self, tables: Sequence[str], role: Role) -> tuple[Step, ...]:
        """What is still to be done before the system can play `role` for `tables`; empty when it is ready."""
        ...

    async def setup(self, tables: Sequence[str], role: Role) -> tuple[Step, ...]:
        """Carry out `plan`; returns the steps taken. Idempotent. Never recreates a log position that was lost."""
        ...

    async def teardown(self) -> tuple[Step, ...]:
        """Remove everything that `setup` made; returns the steps taken."""
        ...

    async def check(self, tables: Sequence[str], role: Role) -> tuple[Finding, ...]:
        """All that would stop or endanger `role`: settings, privileges, replica identity, disk. Changes nothing."""
        ...

    async def page(self, table: str, after: tuple[str, ...] | None, rows_max: int, condition: str = "") -> Page:
        """Rows in key order behind `after`, from one snapshot, for which `condition`, SQL of the system, holds. Values
        are spelt as the source's feed spells them."""
        ...

    async def count(self, table: str, condition: str = "") -> int:
        """How many rows there are for which `condition`, SQL of the system, holds. Raises `SourceUnready` where the
        system will not have it."""
        ...

    async def health(self) -> Health: ...


class Source(Protocol):
    """A system whose log is read."""

    def feed(
        self, after: Position | None, tables: Sequence[str], verify: frozenset[str]
    ) -> AbstractAsyncContextManager[Feed]:
        """Open the log behind `after`; None: from where set-up put the beginning.

        `tables` take part. For the tables in `verify` the rows of our own deliveries are decoded too, as
        `Segment.echoes`. Raises `SourceUnready` when set-up is missing, `PositionLost` when the log no longer holds
        what stands after `after`.
        """
        ...


class Feed(Protocol):
    """An open log. One task calls `receive`; `confirm` and `chunk` may be called by others of the same event loop."""

    @property
    def position(self) -> Position:
        """Everything up to here has been handed out; at first the place where the log was opened."""
        ...

    async def receive(self, rows_max: int) -> Batch:
        """The next stretch of the log, as soon as there is any; at most about `rows_max` rows.

        Takes what is there rather than waiting for more. A batch that only moves `position` (transactions of
        tables that take no part) is possible, at most about one a second. Rows of one batch are in commit order; a
        source transaction is never interleaved with another. Cancellation loses nothing: what was not returned is
        returned next time.
        """
        ...

    def confirm(self, position: Position) -> None:
        """Everything up to `position` is durable elsewhere; the source may forget it. Sends nothing by itself."""
        ...

    async def chunk(self, table: str, after: tuple[str, ...] | None, rows_max: int, condition: str = "") -> Chunk:
        """Read rows of the table in key order behind `after`, in one snapshot, beside the running log.

        See `Chunk` for what `low` and `high` promise. `condition`: SQL of the system for which rows, one expression
        that a person gave and sqlglot has parsed.
        """
        ...


# ---------------------------------------------------------------------------------------------- targets


class WriteKind(enum.Enum):
    INSERT = "insert"
    """Rows that should be new; one that exists under the same key is updated instead. Another unique constraint's
    violation is a refusal."""
    UPDATE = "update"
    """Rows that exist; one that does not is left out and reported as missing."""
    DELETE = "delete"
    """Rows to remove; one that is gone already is fine. `columns` are the key columns."""


@dataclass(slots=True, kw_only=True)
class TableWrite:
    """Rows to write to one table, all with the same columns. `columns` has the `key` columns too, except `assigned`.

    `rids[i]` is the record of `rows[i]`. `assigned`: the key column whose value the target hands out (INSERT only);
    then `key` is `(assigned,)`, the rows do not have it, and each (rid, key) is stored in `concord_identity` in the
    same transaction. `draw`: where it takes that value from; None: the database gives it by itself. `place` names the
    mapping block, for `concord_identity`. Wire values are in the form of the table's `Shape`. `rows` may be read as
    often as needed; some are made where they are read. `only_new`: columns that an INSERT gives to a row that was not
    there; one that was keeps what it has. `if_unchanged`: see `WriteResult`.
    """

    table: str
    place: str
    kind: WriteKind
    columns: tuple[str, ...]
    key: tuple[str, ...]
    rows: Sequence[WireRow]
    rids: Sequence[int]
    assigned: str | None = None
    draw: Draw | None = None
    only_new: frozenset[str] = frozenset()
    if_unchanged: bool = False

    @property
    def changed(self) -> list[str]:
        """Columns that are written to a row which is there already."""
        return [name for name in self.columns if name not in self.key and name not in self.only_new]


@dataclass(slots=True, kw_only=True)
class WriteResult:
    """`missing`: indexes of rows of an UPDATE that were not there. `keys`: what the target assigned, row by row.

    `changed`: indexes of rows that were left out, because they are not what the system's source last handed out or a
    delivery has made of them since: changed by users, entered, or gone. Only for a write with `if_unchanged`, and only
    by a kind whose source may not have a change yet that a delivery would land on (one that is polled). Its source then
    reads these rows again soon, in a transaction behind this delivery, and hands each of them out whatever it finds.
    """

    missing: tuple[int, ...] = ()
    keys: tuple[str, ...] = ()
    changed: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Assigned:
    """A row of `concord_identity`: the key that the target gave a record, in the delivery `seq`."""

    rid: int
    place: str
    key: str
    seq: int


class Target(Protocol):
    """A system that is written to."""

    def open(self, tables: Sequence[str]) -> AbstractAsyncContextManager[TargetSession]:
        """Connect. Raises `TargetUnready` when set-up is missing."""
        ...


class TargetSession(Protocol):
    """One connection to a target. One task calls it; calls never overlap."""

    async def claim(self, hub_id: str, epoch: int) -> int:
        """Put `epoch` in the marker and return its seq, 0 at first. From then on older epochs are fenced.

        Raises `Fenced` when the marker's epoch is greater, `TargetUnready` when it belongs to another hub.
        """
        ...

    def delivery(self, seq: int) -> AbstractAsyncContextManager[Delivery]:
        """One transaction at the target whose first write is the marker (hub id, epoch, `seq`).

        Leaving the block normally commits; an exception rolls back. Raises `Fenced` when another epoch took over.
        When the commit raises, its outcome is unknown: claim again and compare the marker.
        """
        ...

    async def assigned(self, seq_after: int) -> tuple[Assigned, ...]:
        """Keys handed out in deliveries behind `seq_after`."""
        ...


class Delivery(Protocol):
    async def write(self, write: TableWrite) -> WriteResult:
        """Write all rows or none of them. `RowRefused` leaves the transaction usable, holding nothing of `write`."""
        ...


class JoiningDelivery(Delivery, Protocol):
    """What a delivery needs besides where tables are joined (`Promise.JOINS`)."""

    async def linked(
        self, shape: Shape, wanted: frozenset[str], columns: Sequence[str], values: Sequence[tuple[Wire, ...]]
    ) -> list[WireRow]:
        """The rows of a table that have one of `values` in `columns`, as this transaction sees them; nobody else
        changes them until it ends. Null is not found. Columns beside `wanted` are ABSENT. Raises `RowRefused` where
        they cannot be read."""
        ...

    def unit(self) -> AbstractAsyncContextManager[None]:
        """What is written inside holds together: when `RowRefused` leaves the block, nothing of it does. Not nested."""
        ...


# ---------------------------------------------------------------------------------------------- mapping


@dataclass(slots=True)
class Read:
    """Rows turned into records; the lists run parallel to the rows.

    `keys[i]`: the row's key as text (one column: its text; several: a JSON array of texts). `records[i]`: one value
    per field of the entity in the hub's order, ABSENT where the block does not map the field or the source did not
    send its columns; None when the row does not take part (`where`) or has a problem. A reference field holds the
    referred key as text, None for null: the pipeline turns it into a rid. `problems`: why rows could not be read.
    """

    keys: list[str]
    records: list[CanonicalRow | None]
    problems: dict[int, ValueRefused] = field(default_factory=lambda: {})


class Reader(Protocol):
    """Rows of one table under one shape → records of one entity."""

    @property
    def mask(self) -> int:
        """Bit n is set when field n of the entity is read here."""
        ...

    @property
    def references(self) -> tuple[tuple[int, str], ...]:
        """(index of a reference field, place its keys belong to)."""
        ...

    def read(self, rows: Sequence[WireRow]) -> Read: ...

    def keys(self, rows: Sequence[WireRow]) -> list[str]:
        """Keys alone: for deletes and old images, of which only the key columns need be there."""
        ...


@dataclass(slots=True)
class Written:
    """Records turned into rows; `rows` runs parallel to them, None where there is a problem. `only_new`: columns that
    are for rows which are not there yet."""

    columns: tuple[str, ...]
    rows: Sequence[WireRow | None]
    problems: dict[int, ValueRefused] = field(default_factory=lambda: {})
    only_new: frozenset[str] = frozenset()


class Writer(Protocol):
    """Records of one entity → rows of one table under one shape."""

    @property
    def mask(self) -> int:
        """Bit n is set when field n of the entity can be written here."""
        ...

    @property
    def references(self) -> tuple[tuple[int, str], ...]:
        """As `Reader.references`, of the fields that are written."""
        ...

    def insert(self, keys: Sequence[str | None], records: Sequence[CanonicalRow]) -> Written:
        """Rows to insert: every writable field and the block's constants. Key None: the target assigns it.

        Reference fields of the records hold the target's key text, not rids.
        """
        ...

    def update(self, mask: int, keys: Sequence[str], records: Sequence[CanonicalRow]) -> Written:
        """Rows to update: the key columns and those of the fields in `mask`."""
        ...

    def delete(self, keys: Sequence[str]) -> Written:
        """Key columns alone."""
        ...


class KeyRule(enum.Enum):
    """Who makes the key of a row that is new at a system."""

    ASSIGNED = "assigned"
    """The database does (serial, identity, rowid)."""
    UUID = "uuid"
    FIELD = "field"
    TEMPLATE = "template"
    NONE = "none"
    """Nobody: new records do not go there."""


class Deletes(enum.Enum):
    """What a deleted record means for its row."""

    ROW = "row"
    """The row is deleted."""
    FIELD = "field"
    """A column says so (soft delete); `alive` is a mapped field like any other."""
    KEEP = "keep"
    """Nothing."""


class JoinedRows(Protocol):
    """A join, compiled for its table's shape."""

    @property
    def constants(self) -> dict[str, Wire]:
        """Columns that a new row gets beside those that are written: `insert`, and what `where` fixes."""
        ...

    def takes(self, row: WireRow) -> bool:
        """Whether the row takes part (`where`). Raises `ValueRefused` where that cannot be told."""
        ...

    def make_key(self, hub_id: str, owner: str) -> str:
        """The key of a new row that belongs to the row with the key `owner`; for UUID. Always the same one."""
        ...


class Join(Protocol):
    """Rows of another table that belong to a row of a place's table: at most one for each, or a list of them. Their
    columns stand beside the table's own in the shape that the place is compiled for, as `name.column`.

    A row that links to the key of its owner belongs to it, and is written for it alone. One whose own key its owner
    refers to may be shared by many: it is found by the columns `find`, or made, and the owner made to refer to it.
    """

    @property
    def name(self) -> str: ...
    @property
    def table(self) -> str: ...
    @property
    def key(self) -> tuple[str, ...]: ...
    @property
    def links(self) -> tuple[Link, ...]: ...
    @property
    def find(self) -> tuple[str, ...]: ...
    @property
    def empty(self) -> Empty: ...
    @property
    def key_rule(self) -> KeyRule: ...
    @property
    def order(self) -> tuple[str, ...]:
        """Which row it is where there are several, or their order in a list: by these columns, then by the key."""
        ...

    @property
    def is_list(self) -> bool:
        """Whether all rows count. A column of theirs, or of what they refer to, is then a list (`engine.model.joined`),
        and a list that is written is compared with the rows that are there."""
        ...

    @property
    def ordinal(self) -> str:
        """The column that counts a list's rows from 1; "": the list is a set."""
        ...

    @property
    def used(self) -> frozenset[str]:
        """Columns of the table that anything needs."""
        ...

    def rows(self, shape: Shape) -> JoinedRows:
        """Compile for the shape. Raises `TableHeld` when a column is missing."""
        ...

    def texts(self, shape: Shape, columns: Sequence[str]) -> RowText:
        """A function for the text of a row's values in some columns, spelt as keys are. Raises `TableHeld`."""
        ...


class RowText(Protocol):
    def __call__(self, row: WireRow) -> str | None:
        """None where a value is null or was not sent."""
        ...


class Place(Protocol):
    """One `[[table]]` block of a system's mapping: rows of a table ↔ records of an entity.

    `name` is unique in the system: the table's name, or what the block says where a table has several blocks.
    """

    @property
    def name(self) -> str: ...
    @property
    def table(self) -> str: ...
    @property
    def entity(self) -> str: ...
    @property
    def key(self) -> tuple[str, ...]: ...
    @property
    def key_rule(self) -> KeyRule: ...
    @property
    def deletes(self) -> Deletes: ...

    @property
    def draw(self) -> Draw | None:
        """For ASSIGNED: where the target takes keys from; None: the database gives them by itself."""
        ...

    @property
    def joins(self) -> Sequence[Join]:
        """Owners first."""
        ...

    @property
    def used(self) -> frozenset[str]:
        """Columns of its own table that the mapping reads."""
        ...

    def own_fields(self, entity: Entity) -> int:
        """Bit n is set when field n is read here and never written, `alive` apart: the system alone sets it. A number
        that is the key which it gives to new rows, a column that the database computes."""
        ...

    @property
    def is_lossy(self) -> bool:
        """Whether the mapping lets a value be stored as another one (rounded, cut): what a row then holds of a delivery
        is no change of a user."""
        ...

    def reader(self, shape: Shape, entity: Entity) -> Reader:
        """Compile for the shape. Raises `TableHeld` when a mapped column is missing or of another kind."""
        ...

    def writer(self, shape: Shape, entity: Entity) -> Writer:
        """Compile for the shape. Raises `TableHeld` as `reader` does."""
        ...

    def accepts(self, entity: Entity) -> CanonicalTest | None:
        """Whether a record that is new to this system belongs in this place (the block's `only`); None: each does."""
        ...

    def allocate(self, entity: Entity) -> Allocate:
        """Makes the keys of new rows; not for ASSIGNED and NONE."""
        ...


class CanonicalTest(Protocol):
    def __call__(self, record: CanonicalRow) -> bool: ...


class Allocate(Protocol):
    def __call__(self, hub_id: str, rids: Sequence[int], records: Sequence[CanonicalRow]) -> list[str]:
        """Always the same key for the same record, so that a repeated delivery writes the same row.

        Raises `ValueRefused` when a field that one of them needs is null.
        """
        ...


class MatchKeys(Protocol):
    def __call__(self, record: CanonicalRow) -> tuple[str, ...]:
        """One text per match rule of the entity whose fields are all there, prefixed with the rule's number."""
        ...


class Mapping(Protocol):
    """One system's mapping. Places come parents first, by the references of their entities."""

    @property
    def places(self) -> tuple[Place, ...]: ...

    def match_keys(self, entity: Entity) -> MatchKeys: ...


# ---------------------------------------------------------------------------------------------- time


class Clock(Protocol):
    def now(self) -> int:
        """Wall clock, microseconds since 1970 UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds, for durations."""
        ...
