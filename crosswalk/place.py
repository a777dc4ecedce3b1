"""A block of a mapping as the engine sees it: `engine.ports.Place`."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

from crosswalk.block import Block, Template
from crosswalk.compile import encode_key, held
from crosswalk.compile_read import CompiledReader, compile_reader
from crosswalk.compile_write import CompiledWriter, compile_writer
from crosswalk.expression import SqlProblem, compile_accepts
from crosswalk.joined import Join, used_columns
from engine.model.draw import Draw
from engine.model.entity import ALIVE, Entity
from engine.model.table import Shape
from engine.model.value import ABSENT, Canonical, CanonicalRow
from engine.ports import Allocate, CanonicalTest, Deletes, KeyRule

# Version 5 uuids need a namespace of the maker's own; this one was drawn once at random.
NAMESPACE = uuid.UUID("6f1c0d4e-4c29-4b3a-9a53-0f5e0c8d7b11")


@dataclass(slots=True)
class MappedPlace:
    """One block. Where the mapping does not say who makes keys, that is known once a shape has been compiled: the
    database when it assigns the key column, otherwise nobody."""

    block: Block
    _is_assigned: bool = field(default=False)

    @property
    def name(self) -> str:
        return self.block.name

    @property
    def table(self) -> str:
        return self.block.table

    @property
    def entity(self) -> str:
        return self.block.entity

    @property
    def key(self) -> tuple[str, ...]:
        return self.block.key

    @property
    def field_names(self) -> frozenset[str]:
        """The fields that it maps; `alive` comes with every row."""
        return frozenset({"alive"}.union(mapped.name for mapped in self.block.fields))

    @property
    def key_rule(self) -> KeyRule:
        if self.block.key_rule is not None:
            return self.block.key_rule
        return KeyRule.ASSIGNED if self._is_assigned else KeyRule.NONE

    @property
    def deletes(self) -> Deletes:
        return self.block.deletes

    @property
    def draw(self) -> Draw | None:
        return self.block.draw

    @property
    def joins(self) -> tuple[Join, ...]:
        return self.block.joins

    @property
    def used(self) -> frozenset[str]:
        return frozenset(name for name in used_columns(self.block) if "." not in name)

    @property
    def is_lossy(self) -> bool:
        # SQL of its own for each direction may not undo itself: `lower(email)`, written back as `email`.
        # A set is spelt in an order of its own.
        return any(join.is_list for join in self.block.joins) or any(
            field.truncate or field.round is not None or field.read is not None
            for field in self.block.fields
            if not field.is_read_only
        )

    def own_fields(self, entity: Entity) -> int:
        block, mask = self.block, 0
        for mapped in block.fields:
            is_key = all(column in block.key for column in mapped.writes)
            is_made_from_it = block.key_rule is KeyRule.FIELD and block.key_field == mapped.name
            if (mapped.is_read_only or (is_key and not is_made_from_it)) and mapped.name in entity.index:
                mask |= 1 << entity.index[mapped.name]
        return mask & ~(1 << ALIVE)

    def reader(self, shape: Shape, entity: Entity) -> CompiledReader:
        self._learn(shape)
        self._check_entity(entity)
        return compile_reader(self.block, shape, entity)

    def writer(self, shape: Shape, entity: Entity) -> CompiledWriter:
        self._learn(shape)
        self._check_entity(entity)
        return compile_writer(self.block, shape, entity)

    def accepts(self, entity: Entity) -> CanonicalTest | None:
        if self.block.only is None:
            return None
        try:
            return compile_accepts(self.block.only, entity, self.block.dialect)
        except SqlProblem as problem:
            raise held(self.block, f"only: {problem}", "Correct the condition in the mapping.") from None

    def allocate(self, entity: Entity) -> Allocate:
        rule, block = self.key_rule, self.block
        inner: Allocate
        if rule is KeyRule.UUID:
            inner = _Uuid(block.system, block.name)
        elif rule is KeyRule.FIELD:
            assert block.key_field is not None
            inner = _FieldKey(block, block.key_field, entity.index[block.key_field])
        else:
            assert rule is KeyRule.TEMPLATE, f"{rule} makes no keys"
            assert block.key_template is not None
            inner = _TemplateKey(block, block.key_template, entity)
        return inner if len(block.key) == 1 else _Framed(block, inner)

    def _learn(self, shape: Shape) -> None:
        column = shape.column(self.block.key[0]) if len(self.block.key) == 1 else None
        self._is_assigned = column is not None and column.is_assigned

    def _check_entity(self, entity: Entity) -> None:
        for mapped in self.block.fields:
            index = entity.index.get(mapped.name)
            if index is None or entity.fields[index].is_retired:
                raise held(
                    self.block,
                    f"entity {entity.name!r} has no field {mapped.name!r}",
                    "Put the field back into the dictionary, or take it out of the mapping.",
                    field=mapped.name,
                )


@dataclass(frozen=True, slots=True)
class _Framed:
    """Puts an allocated text between the constants of a key of several columns."""

    block: Block
    inner: Allocate

    def __call__(self, hub_id: str, rids: Sequence[int], records: Sequence[CanonicalRow]) -> list[str]:
        constants = self.block.constants
        keys: list[str] = []
        for own in self.inner(hub_id, rids, records):
            parts = [self._constant(column) if column in constants else own for column in self.block.key]
            keys.append(encode_key(parts).decode())
        return keys

    def _constant(self, column: str) -> str:
        value = self.block.constants[column]
        return str(int(value)) if isinstance(value, bool) else str(value)


@dataclass(frozen=True, slots=True)
class _Uuid:
    system: str
    place: str

    def __call__(self, hub_id: str, rids: Sequence[int], records: Sequence[CanonicalRow]) -> list[str]:
        prefix = f"{hub_id}\x1f{self.system}\x1f{self.place}\x1f"
        return [str(uuid.uuid5(NAMESPACE, f"{prefix}{rid}")) for rid in rids]


@dataclass(frozen=True, slots=True)
class _FieldKey:
    block: Block
    name: str
    index: int

    def __call__(self, hub_id: str, rids: Sequence[int], records: Sequence[CanonicalRow]) -> list[str]:
        index = self.index
        values = [record[index] for record in records]
        if set(map(type, values)) <= {int}:
            return list(map(str, values))
        return list(map(self.text, values))

    def text(self, value: Canonical) -> str:
        if value is None or value is ABSENT or value == "":
            raise self.block.refused(
                f"the key of a new row is made from field {self.name!r}, which is empty",
                field_name=self.name,
                column=self.block.key[0],
                hint=f"Give the record a {self.name}, or let another rule make the key.",
            )
        return str(value)


@dataclass(frozen=True, slots=True)
class _TemplateKey:
    block: Block
    template: Template
    entity: Entity

    def __call__(self, hub_id: str, rids: Sequence[int], records: Sequence[CanonicalRow]) -> list[str]:
        return [self._text(rid, record) for rid, record in zip(rids, records, strict=True)]

    def _text(self, rid: int, record: CanonicalRow) -> str:
        text = ""
        for literal, name, spec in self.template.parts:
            text += literal
            if name == "rid":
                text += format(rid, spec)
            elif name is not None:
                index = self.entity.index[name]
                text += _FieldKey(self.block, name, index).text(record[index])
        return text
