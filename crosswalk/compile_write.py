"""A block's writer: records → rows of a table under one shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from crosswalk import carry_write, convert
from crosswalk.block import Block, Given, MappedField, Now
from crosswalk.carry import Cell, Names, Unfit
from crosswalk.compile import (
    REFUSALS,
    Piece,
    cell_of,
    column_of,
    currency_constants,
    decode_key,
    explainer,
    held,
    reason_of,
)
from crosswalk.convert import Loss
from crosswalk.expression import SqlProblem, compile_write
from crosswalk.plain_rows import PlainRows
from engine.errors import ValueRefused
from engine.model.entity import Entity, Field, Type
from engine.model.table import Column, Form, Kind, Shape
from engine.model.value import CanonicalRow
from engine.ports import Written


@dataclass(frozen=True, slots=True)
class Target:
    """A column that a field is written to."""

    column: str
    index: int
    """The field's index in the record."""
    piece: Piece


@dataclass(slots=True)
class CompiledWriter:
    """`engine.ports.Writer` for one shape."""

    block: Block
    mask: int
    references: tuple[tuple[int, str], ...]
    _targets: tuple[Target, ...]
    _constants: dict[str, str]
    """Columns that new rows get besides, with Python for their values; `_touched`: that every write sets."""
    _touched: dict[str, str]
    _key_codes: tuple[str, ...]
    _names: Names
    _is_whole: bool = False
    _functions: dict[Any, Any] = field(default_factory=lambda: {})

    def insert(self, keys: Sequence[str | None], records: Sequence[CanonicalRow]) -> Written:
        is_assigned = bool(keys) and keys[0] is None
        assert all((key is None) == is_assigned for key in keys), (
            "keys are assigned for all rows of a write or for none"
        )
        columns, function = self._function(("insert", is_assigned), self._targets, has_key=not is_assigned, all_=True)
        rows, problems = function(keys, records)
        return Written(columns, rows, problems, frozenset(self._constants))

    def update(self, mask: int, keys: Sequence[str], records: Sequence[CanonicalRow]) -> Written:
        if self._is_whole:
            return self.insert(keys, records)
        wanted = mask & self.mask
        targets = tuple(target for target in self._targets if wanted >> target.index & 1)
        columns, function = self._function(wanted, targets, has_key=True, all_=False)
        rows, problems = function(keys, records)
        return Written(columns, rows, problems)

    def delete(self, keys: Sequence[str]) -> Written:
        columns, function = self._function("delete", (), has_key=True, all_=False)
        rows, problems = function(keys, [()] * len(keys))
        return Written(columns, rows, problems)

    def source(self, mask: int) -> str:
        """The generated Python of an update, for people who look for a mistake."""
        targets = tuple(target for target in self._targets if mask >> target.index & 1)
        return self._source(targets, has_key=True, constants=self._touched)

    def _function(self, cached: Any, targets: tuple[Target, ...], *, has_key: bool, all_: bool) -> tuple[Any, Any]:
        found = self._functions.get(cached)
        if found is None:
            constants = (self._constants if all_ else {}) | (self._touched if all_ or targets else {})
            source = self._source(targets, has_key=has_key, constants=constants)
            key_pieces = [Piece(code, (), "key", ", ".join(self.block.key)) for code in self._key_codes]
            refuse = _write_explainer(
                self.block, key_pieces if has_key else [], [target.piece for target in targets], self._names
            )
            namespace = self._names.objects | {
                "refuse": refuse,
                "REFUSALS": REFUSALS,
                "split": self._split,
                "PlainRows": PlainRows,
            }
            exec(compile(source, f"<{self.block.system} {self.block.name} writer>", "exec"), namespace)
            columns = (*(self.block.key if has_key else ()), *constants, *(target.column for target in targets))
            found = self._functions[cached] = (columns, namespace["write"])
        return found

    def _source(self, targets: tuple[Target, ...], *, has_key: bool, constants: dict[str, str]) -> str:
        key_codes = self._key_codes if has_key else ()
        counts: dict[int, int] = {}
        for target in targets:
            for i in target.piece.columns:
                counts[i] = counts.get(i, 0) + (1 if target.piece.is_plain else 2)
        shared = {i for i, count in counts.items() if count > 1}
        values = [*key_codes, *constants.values()]
        for target in targets:
            piece = target.piece
            values.append(f"x[{piece.columns[0]}]" if piece.is_plain and piece.columns[0] not in shared else piece.code)
        row = f"({', '.join(values)},)" if values else "()"
        if not shared and key_codes in ((), ("k",)):
            return (
                f"def some(keys, records):\n    return [{row} for k, x in zip(keys, records)]\n"
                "def write(keys, records):\n    return PlainRows(some, keys, records), {}\n"
            )
        loads = "            p = split(k)\n" if len(key_codes) > 1 else ""
        loads += "".join(f"            c{i} = x[{i}]\n" for i in sorted(shared))
        return (
            "def write(keys, records):\n"
            "    rows = []\n"
            "    problems = {}\n"
            "    add = rows.append\n"
            "    for k, x in zip(keys, records):\n"
            "        try:\n"
            f"{loads}"
            f"            add({row})\n"
            "        except REFUSALS:\n"
            "            problems[len(rows)] = refuse(k, x)\n"
            "            add(None)\n"
            "    return rows, problems\n"
        )

    def _split(self, key: str) -> list[str]:
        parts = decode_key(key)
        if len(parts) != len(self._key_codes):
            raise Loss("a key of another number of columns")
        return parts


def _write_explainer(
    block: Block, key_pieces: list[Piece], pieces: list[Piece], names: Names
) -> Callable[[Any, Any], ValueRefused]:
    explain = explainer(block, pieces, names, "x")

    def refuse(key: Any, record: Any) -> ValueRefused:
        for piece in key_pieces:
            namespace = dict(names.objects)
            try:
                parts = decode_key(key) if len(key_pieces) > 1 else []
                if len(key_pieces) > 1 and len(parts) != len(key_pieces):
                    raise Loss("a key of another number of columns")
                eval(piece.code, namespace, {"k": key, "p": parts})
            except REFUSALS as error:
                reason = reason_of(error, "a key that cannot be written")
                return block.refused(reason, field_name="key", column=piece.column_name)
        return explain(record)

    return refuse


def compile_writer(block: Block, shape: Shape, entity: Entity) -> CompiledWriter:
    """Raises `TableHeld` when the table cannot be written as the block says."""
    names = Names()
    keys = [column_of(block, shape, name, "key")[1] for name in block.key]
    currencies = currency_constants(block, entity)
    targets: list[Target] = []
    references: list[tuple[int, str]] = []
    for mapped in block.fields:
        if mapped.is_read_only:
            continue
        index = entity.index[mapped.name]
        own = [
            _target(block, shape, entity, mapped, column, index, currencies, names)
            for column in mapped.writes
            if column not in block.key
        ]
        targets.extend(own)
        if own and mapped.place is not None:
            references.append((index, mapped.place))
    constants = _given(block, shape, block.constants, "insert", names)
    touched = _given(block, shape, block.touched, "touch", names)
    return CompiledWriter(
        block=block,
        mask=_mask(targets),
        references=tuple(sorted(references)),
        _targets=tuple(targets),
        _constants=constants,
        _touched=touched,
        _key_codes=tuple(_key_codes(keys, shape.form, names)),
        _names=names,
        _is_whole=shape.is_whole,
    )


def _given(block: Block, shape: Shape, given: Mapping[str, Given], wanted_by: str, names: Names) -> dict[str, str]:
    """Column → Python for the value that the mapping gives it."""
    found: dict[str, str] = {}
    for name, value in given.items():
        if name in block.key:
            continue
        _, column = column_of(block, shape, name, wanted_by)
        if not isinstance(value, Now):
            found[name] = names.bind(constant_wire(value, column, shape.form))
            continue
        if column.kind is Kind.DATE:
            found[name] = f"{names.bind(_Today(value.zone))}()"
            continue
        cell = Cell(
            field=Field(name=name, type=Type.TIMESTAMP), column=column, form=shape.form, zone=value.zone, truncate=True
        )
        try:
            carry_write.check_carrier(cell)
            found[name] = f"{names.bind(_Moment(carry_write.writer_of(cell)))}()"
        except Unfit as unfit:
            message = f"column {name!r} for the moment of the write: {unfit}"
            raise held(block, message, unfit.hint, column=name) from None
    return found


@dataclass(frozen=True, slots=True)
class _Moment:
    """Now, as a column spells it."""

    spell: Callable[[Any], Any]

    def __call__(self) -> Any:
        return self.spell(convert.instant_text(datetime.now(UTC).isoformat(sep=" "), None))


@dataclass(frozen=True, slots=True)
class _Today:
    zone: ZoneInfo | None

    def __call__(self) -> str:
        return datetime.now(self.zone or UTC).date().isoformat()


def _mask(targets: list[Target]) -> int:
    mask = 0
    for target in targets:
        mask |= 1 << target.index
    return mask


def _key_codes(keys: list[Column], form: Form, names: Names) -> list[str]:
    codes: list[str] = []
    for n, column in enumerate(keys):
        value = "k" if len(keys) == 1 else f"p[{n}]"
        if form is Form.TEXT and column.kind is not Kind.BINARY:
            codes.append(value)
        else:
            codes.append(f"{names.bind(carry_write.key_writer(column, form))}({value})")
    return codes


def _target(
    block: Block,
    shape: Shape,
    entity: Entity,
    mapped: MappedField,
    column_name: str,
    index: int,
    currencies: dict[int, str],
    names: Names,
) -> Target:
    _, column = column_of(block, shape, column_name, mapped)
    if column.is_generated:
        raise held(
            block,
            f"the database computes column {column_name!r}; field {mapped.name!r} cannot be written there",
            "Add read_only = true to the field.",
            where=mapped.where,
            column=column_name,
        )
    expression = mapped.writes[column_name]
    cell = cell_of(block, shape, entity, mapped, column)
    try:
        if expression is not None:
            code, columns = compile_write(expression, entity, block.dialect, names, cell)
        else:
            code, columns = carry_write.writing_code(cell, names).replace("{v}", f"c{index}"), (index,)
    except Unfit as unfit:
        raise held(
            block,
            f"column {column_name!r} for field {mapped.name!r}: {unfit}",
            unfit.hint,
            where=mapped.where,
            column=column_name,
        ) from None
    except SqlProblem as problem:
        raise held(
            block,
            f"write of field {mapped.name!r}: {problem}",
            "Correct the expression in the mapping.",
            where=mapped.where,
        ) from None
    field_ = entity.fields[index]
    currency = entity.index.get(field_.unit or "") if field_.type is Type.MONEY else None
    if currency in currencies:
        wanted = currencies[currency]
        other = names.bind(_CurrencyRefusal(wanted))
        is_same = f"c{index} is None or c{currency} is None or c{currency} == {wanted!r}"
        code = f"({code} if {is_same} else {other}())"
        columns = tuple(sorted({*columns, index, currency}))
    return Target(column_name, index, Piece(code, columns, mapped.name, column_name))


@dataclass(frozen=True, slots=True)
class _CurrencyRefusal:
    wanted: str

    def __call__(self) -> object:
        raise Loss(f"an amount in another currency, and the table holds {self.wanted} only")


def constant_wire(value: str | int | float | bool, column: Column, form: Form) -> Any:
    """A constant of the mapping as a wire value."""
    if form is Form.NATIVE:
        return int(value) if isinstance(value, bool) else value
    if isinstance(value, bool):
        if column.kind is Kind.BOOLEAN:
            return "t" if value else "f"
        return "1" if value else "0"
    return value if isinstance(value, str) else convert.decimal_text(value, None)
