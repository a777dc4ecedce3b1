"""A mapping by hand, for tests and simulation: columns under other names, references, keys and deletions by every rule.

It implements the same ports as the crosswalk and shares nothing with it, so that the pipeline can be tried without
mapping files and the two can be tried against each other. It converts spellings (integers and booleans) and nothing
else: no expressions, units, value maps or time zones.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from engine.errors import TableHeld, ValueRefused
from engine.model.draw import Draw
from engine.model.entity import ALIVE, Entity, Type
from engine.model.joined import Empty, Link
from engine.model.table import Form, Shape
from engine.model.value import ABSENT, Canonical, CanonicalRow, Wire, WireRow
from engine.ports import Allocate, CanonicalTest, Deletes, Join, KeyRule, MatchKeys, Place, Read, RowText, Written

NAMESPACE = uuid.UUID("0b8e6a2c-51d5-4a0e-9a43-2c7a0f6d1e55")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainPlace:
    """One table ↔ one entity. `fields`: field → column.

    `references`: field → place whose keys its column holds. `constants`: column → value that every row which takes part
    has; others do not take part. `soft_delete`: the boolean column that says a record is deleted (Deletes.FIELD).
    `key_field`: the field that makes the key (KeyRule.FIELD). `only`: which records new to the system belong here.
    """

    table: str
    entity: str
    fields: Mapping[str, str]
    key: tuple[str, ...] = ("id",)
    key_rule: KeyRule = KeyRule.ASSIGNED
    deletes: Deletes = Deletes.ROW
    references: Mapping[str, str] = field(default_factory=lambda: {})
    constants: Mapping[str, Wire] = field(default_factory=lambda: {})
    soft_delete: str | None = None
    key_field: str | None = None
    only: Callable[[CanonicalRow], bool] | None = None
    place_name: str | None = None
    is_lossy: bool = False
    joins: tuple[Join, ...] = ()
    draw: Draw | None = None

    @property
    def used(self) -> frozenset[str]:
        return frozenset(self.fields.values()) | self.constants.keys() | frozenset(self.key)

    @property
    def name(self) -> str:
        return self.place_name or self.table

    def own_fields(self, entity: Entity) -> int:
        names = [name for name, column in self.fields.items() if column in self.key]
        made = self.key_field if self.key_rule is KeyRule.FIELD else None
        return sum(1 << entity.index[name] for name in names if name != made)

    def reader(self, shape: Shape, entity: Entity) -> PlainReader:
        columns = _columns(self, shape, entity)
        keys = [_index(self, shape, name) for name in self.key]
        constants = [(_index(self, shape, name), value) for name, value in self.constants.items()]
        return PlainReader(self, shape.form, entity, columns, keys, constants)

    def writer(self, shape: Shape, entity: Entity) -> PlainWriter:
        for name in (*self.key, *self.constants):
            _index(self, shape, name)
        written = {n: shape.columns[c].name for n, c in _columns(self, shape, entity).items()}
        # A key column is written as the key; a mapped field on it is only read.
        written = {n: name for n, name in written.items() if name not in self.key}
        return PlainWriter(self, shape, entity, written)

    def accepts(self, entity: Entity) -> CanonicalTest | None:
        only = self.only
        return None if only is None else (lambda record: only(record))

    def allocate(self, entity: Entity) -> Allocate:
        if self.key_rule is KeyRule.UUID:
            return lambda hub_id, rids, records: [
                str(uuid.uuid5(NAMESPACE, f"{hub_id} {self.name} {rid}")) for rid in rids
            ]
        assert self.key_rule is KeyRule.FIELD, f"{self.key_rule} makes no keys here"
        assert self.key_field is not None
        index = entity.index[self.key_field]
        return lambda hub_id, rids, records: [self._key_from_field(record[index]) for record in records]

    def _key_from_field(self, value: Canonical) -> str:
        if value is None or value is ABSENT:
            raise ValueRefused(
                f"the key of a new row of {self.name} is made from field {self.key_field}, which is empty",
                hint="Give the record a value there.",
                field=self.key_field,
            )
        return str(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainJoin:
    """`engine.ports.Join` by the columns' texts. `constants`: column → value that every row which takes part has."""

    name: str
    table: str
    links: tuple[Link, ...]
    key: tuple[str, ...] = ("id",)
    find: tuple[str, ...] = ()
    empty: Empty = Empty.KEEP
    key_rule: KeyRule = KeyRule.UUID
    order: tuple[str, ...] = ()
    used: frozenset[str] = frozenset()
    constants: Mapping[str, Wire] = field(default_factory=lambda: {})
    is_list: bool = False
    ordinal: str = ""

    def rows(self, shape: Shape) -> PlainJoined:
        return PlainJoined(self, shape)

    def texts(self, shape: Shape, columns: Sequence[str]) -> RowText:
        places = [n for name in columns if (n := shape.index(name)) is not None]

        def text(row: WireRow) -> str | None:
            values = [row[n] for n in places]
            return None if None in values or ABSENT in values else _join([str(value) for value in values])

        return text


@dataclass(frozen=True, slots=True)
class PlainJoined:
    """`engine.ports.JoinedRows`."""

    join: PlainJoin
    shape: Shape

    @property
    def constants(self) -> dict[str, Wire]:
        return dict(self.join.constants)

    def takes(self, row: WireRow) -> bool:
        return all(row[self.shape.index(name) or 0] == value for name, value in self.join.constants.items())

    def make_key(self, hub_id: str, owner: str) -> str:
        return str(uuid.uuid5(NAMESPACE, f"{hub_id} {self.join.name} {owner}"))


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainMapping:
    """`engine.ports.Mapping`. Places come parents first: the order is the maker's to keep."""

    places: tuple[Place, ...]

    def match_keys(self, entity: Entity) -> MatchKeys:
        """Fields compared as they stand, but for capitals."""
        rules = [tuple(entity.index[name] for name in match.fields) for match in entity.matches]

        def keys(record: CanonicalRow) -> tuple[str, ...]:
            found: list[str] = []
            for number, indexes in enumerate(rules):
                values = [record[n] for n in indexes]
                if all(value is not None and value is not ABSENT and value != "" for value in values):
                    found.append(f"{number} {_join([str(value).casefold() for value in values])}")
            return tuple(found)

        return keys


@dataclass(frozen=True, slots=True)
class PlainReader:
    """`engine.ports.Reader`. `columns`: field index → column index."""

    place: PlainPlace
    form: Form
    entity: Entity
    columns: Mapping[int, int]
    key_indexes: Sequence[int]
    constants: Sequence[tuple[int, Wire]]

    @property
    def mask(self) -> int:
        return 1 << ALIVE | sum(1 << n for n in self.columns)

    @property
    def references(self) -> tuple[tuple[int, str], ...]:
        return _references(self.place, self.entity, self.columns)

    def read(self, rows: Sequence[WireRow]) -> Read:
        found = Read(self.keys(rows), [])
        for number, row in enumerate(rows):
            record: CanonicalRow | None = None
            if any(row[n] is ABSENT for n, _ in self.constants):
                found.problems[number] = self._refused(ALIVE, "a column that decides whether it takes part is absent")
            elif all(row[n] == value for n, value in self.constants):
                try:
                    record = self._record(row)
                except ValueRefused as problem:
                    found.problems[number] = problem
            found.records.append(record)
        return found

    def keys(self, rows: Sequence[WireRow]) -> list[str]:
        return [_join([str(row[n]) for n in self.key_indexes]) for row in rows]

    def _record(self, row: WireRow) -> CanonicalRow:
        record: list[Canonical] = [True, *(ABSENT for _ in self.entity.fields[1:])]
        for n, column in self.columns.items():
            value = row[column]
            if n == ALIVE:
                record[n] = value if value is ABSENT else not _is_true(value)
            else:
                record[n] = self._value(n, value)
        return tuple(record)

    def _value(self, index: int, value: Wire) -> Canonical:
        if value is None or value is ABSENT:
            return value
        type_ = self.entity.fields[index].type
        if type_ is Type.INTEGER:
            try:
                return int(value)
            except ValueError:
                raise self._refused(index, "a text that is no integer") from None
        return _is_true(value) if type_ is Type.BOOLEAN else str(value)

    def _refused(self, index: int, found: str) -> ValueRefused:
        name = self.entity.fields[index].name
        return ValueRefused(f"field {name} of {self.place.name}: {found}", hint="Correct the row.", field=name)


@dataclass(frozen=True, slots=True)
class PlainWriter:
    """`engine.ports.Writer`. `columns`: field index → column name."""

    place: PlainPlace
    shape: Shape
    entity: Entity
    columns: Mapping[int, str]

    @property
    def mask(self) -> int:
        return sum(1 << n for n in self.columns)

    @property
    def references(self) -> tuple[tuple[int, str], ...]:
        return _references(self.place, self.entity, self.columns)

    def insert(self, keys: Sequence[str | None], records: Sequence[CanonicalRow]) -> Written:
        constants = self.place.constants
        is_assigned = bool(keys) and keys[0] is None
        columns = (*(() if is_assigned else self.place.key), *constants, *self.columns.values())
        rows: list[WireRow | None] = []
        for key, record in zip(keys, records, strict=True):
            assert (key is None) == is_assigned, "keys of one write are all given or all assigned"
            own = () if key is None else self._key(key)
            rows.append((*own, *constants.values(), *(self._wire(n, record[n]) for n in self.columns)))
        return Written(columns, rows, only_new=frozenset(constants))

    def update(self, mask: int, keys: Sequence[str], records: Sequence[CanonicalRow]) -> Written:
        fields = [n for n in self.columns if mask >> n & 1]
        rows: list[WireRow | None] = [
            (*self._key(key), *(self._wire(n, record[n]) for n in fields))
            for key, record in zip(keys, records, strict=True)
        ]
        return Written((*self.place.key, *(self.columns[n] for n in fields)), rows)

    def delete(self, keys: Sequence[str]) -> Written:
        return Written(self.place.key, [self._key(key) for key in keys])

    def _key(self, key: str) -> WireRow:
        texts = [key] if len(self.place.key) == 1 else msgspec.json.decode(key, type=list[str])
        return tuple(self._spelt(name, text) for name, text in zip(self.place.key, texts, strict=True))

    def _spelt(self, column: str, text: str) -> Wire:
        """A text as the column spells it."""
        found = self.shape.column(column)
        is_number = found is not None and found.kind.value == "integer"
        return int(text) if self.shape.form is Form.NATIVE and is_number else text

    def _wire(self, index: int, value: Canonical) -> Wire:
        assert value is not ABSENT, "a record that is written is whole"
        if index == ALIVE:
            value = not value
        if isinstance(value, bool):
            return int(value) if self.shape.form is Form.NATIVE else "t" if value else "f"
        return value if value is None else self._spelt(self.columns[index], str(value))


def _columns(place: PlainPlace, shape: Shape, entity: Entity) -> dict[int, int]:
    """Field index → column index. Raises `TableHeld` when a column is missing."""
    found = {entity.index[name]: _index(place, shape, column) for name, column in place.fields.items()}
    if place.deletes is Deletes.FIELD:
        assert place.soft_delete is not None
        found[ALIVE] = _index(place, shape, place.soft_delete)
    return dict(sorted(found.items()))


def _index(place: PlainPlace, shape: Shape, column: str) -> int:
    index = shape.index(column)
    if index is None:
        raise TableHeld(
            f"table {shape.name} has no column {column}, which place {place.name} needs",
            hint="Put the column back or correct the mapping.",
            table=shape.name,
            column=column,
        )
    return index


def _references(place: PlainPlace, entity: Entity, fields: Mapping[int, object]) -> tuple[tuple[int, str], ...]:
    found = {entity.index[name]: other for name, other in place.references.items()}
    return tuple((n, found[n]) for n in sorted(found) if n in fields)


def _join(texts: list[str]) -> str:
    return texts[0] if len(texts) == 1 else msgspec.json.encode(texts).decode()


def _is_true(value: Wire) -> bool:
    """PostgreSQL's texts and SQLite's numbers; null is false."""
    return value not in (None, "f", "false", 0, "0")
