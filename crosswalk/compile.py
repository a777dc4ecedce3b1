"""Blocks compiled for a table's shape: one generated Python function that reads rows, one that writes them.

The source of a function is put together from the fields' conversions (`carry`) and expressions (`expression`) and
executed once per shape. A column that needs nothing costs an index load; a row that something is wrong with leaves the
straight line and is taken apart field by field, to say which field it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from crosswalk import carry_read, carry_write, convert
from crosswalk.block import Block, MappedField
from crosswalk.carry import Cell, Names, Unfit
from crosswalk.convert import Loss
from crosswalk.expression import Scope, SqlProblem, compile_read, compile_test, compile_write
from engine.errors import TableHeld, ValueRefused
from engine.model.entity import ALIVE, Entity, Type
from engine.model.table import Column, Form, Kind, Shape
from engine.model.value import CanonicalRow, WireRow
from engine.ports import Read, Written

# What a conversion can raise over a value: its own refusals, and Python's for a value of another kind than the
# column's. Anything else is a mistake of ours and is let through.
REFUSALS = (Loss, ValueError, TypeError, KeyError, IndexError, ArithmeticError, AttributeError, RecursionError)

_encode_key = msgspec.json.Encoder().encode
_decode_key = msgspec.json.Decoder(list[str]).decode


@dataclass(frozen=True, slots=True)
class Piece:
    """A generated expression. `columns`: indexes of the row's (or record's) values it uses, as variables `c3`."""

    code: str
    columns: tuple[int, ...]
    field_name: str
    column_name: str | None = None

    @property
    def is_plain(self) -> bool:
        """Whether it is a column's value as it stands."""
        return len(self.columns) == 1 and self.code == f"c{self.columns[0]}"


def held(block: Block, message: str, hint: str, **context: object) -> TableHeld:
    """The error for a table that does not have what the block wants."""
    return TableHeld(
        f"{block.title}: {message} ({block.where})", hint=hint, system=block.system, table=block.table, **context
    )


def column_of(block: Block, shape: Shape, name: str, wanted_by: str) -> tuple[int, Column]:
    """Index and column. Raises `TableHeld` when the table does not have it."""
    index = shape.index(name)
    if index is None:
        raise held(
            block,
            f"the table has no column {name!r}, which {wanted_by} wants",
            "Correct the mapping, or put the column back.",
            column=name,
            field=wanted_by,
        )
    return index, shape.columns[index]


def cell_of(block: Block, shape: Shape, entity: Entity, mapped: MappedField, column: Column) -> Cell:
    return Cell(
        field=entity.fields[entity.index[mapped.name]],
        column=column,
        form=shape.form,
        values=mapped.values,
        unit=mapped.unit,
        zone=mapped.zone,
        default=mapped.default,
        round=mapped.round,
        truncate=mapped.truncate,
        soft_delete=mapped.soft_delete,
    )


def currency_constants(block: Block, entity: Entity) -> dict[int, str]:
    """Index of a currency field → the currency that all amounts of this table are in."""
    found: dict[int, str] = {}
    for mapped in block.fields:
        unit = entity.fields[entity.index[mapped.name]].unit
        if mapped.currency is not None and unit in entity.index:
            found[entity.index[unit]] = mapped.currency
    return found


# ------------------------------------------------------------------------------------------------ reading


@dataclass(slots=True)
class CompiledReader:
    """`engine.ports.Reader` for one shape."""

    block: Block
    mask: int
    references: tuple[tuple[int, str], ...]
    source: str
    """The generated Python, for people who look for a mistake."""
    _read: Callable[[Sequence[WireRow]], tuple[list[CanonicalRow | None], dict[int, ValueRefused]]]
    _key_indexes: tuple[int, ...]
    _key_readers: tuple[Callable[[Any], str], ...]

    def read(self, rows: Sequence[WireRow]) -> Read:
        keys, bad = self._keys(rows)
        records, problems = self._read(rows)
        for index, refused in bad.items():
            records[index] = None
            problems[index] = refused
        return Read(keys, records, problems)

    def keys(self, rows: Sequence[WireRow]) -> list[str]:
        keys, bad = self._keys(rows)
        if bad:
            raise next(iter(bad.values()))
        return keys

    def _keys(self, rows: Sequence[WireRow]) -> tuple[list[str], dict[int, ValueRefused]]:
        if len(self._key_indexes) == 1:
            index, read = self._key_indexes[0], self._key_readers[0]
            try:
                raw = [row[index] for row in rows]
            except IndexError:
                return self._keys_slowly(rows)
            if read is convert.key_text:
                kinds = set(map(type, raw))
                if kinds == {str}:
                    return raw, {}  # pyright: ignore[reportReturnType]
                if kinds == {int}:
                    return list(map(str, raw)), {}
        return self._keys_slowly(rows)

    def _keys_slowly(self, rows: Sequence[WireRow]) -> tuple[list[str], dict[int, ValueRefused]]:
        keys: list[str] = []
        problems: dict[int, ValueRefused] = {}
        is_single = len(self._key_indexes) == 1
        for row in rows:
            try:
                parts = [read(row[i]) for i, read in zip(self._key_indexes, self._key_readers, strict=True)]
                keys.append(parts[0] if is_single else _encode_key(parts).decode())
            except REFUSALS as error:
                keys.append("")
                problems[len(keys) - 1] = self.block.refused(
                    _reason(error, "a key that cannot be read"), field_name="key", column=", ".join(self.block.key)
                )
        return keys, problems


def compile_reader(block: Block, shape: Shape, entity: Entity) -> CompiledReader:
    """Raises `TableHeld` when the table cannot be read as the block says."""
    names = Names()
    scope = Scope.of_shape(shape, block.dialect)
    pieces: dict[int, Piece] = {}
    references: list[tuple[int, str]] = []
    for mapped in block.fields:
        index = entity.index[mapped.name]
        pieces[index] = _reading_piece(block, shape, entity, mapped, scope, names)
        if mapped.place is not None:
            references.append((index, mapped.place))
    for index, code in currency_constants(block, entity).items():
        pieces[index] = Piece(repr(code), (), entity.fields[index].name)
    test = _filter_piece(block, scope, names)
    parts = [pieces[i] for i in sorted(pieces)]
    refuse = _explainer(block, ([test] if test else []) + parts, names, "r")
    source = _reading_source(pieces, test, len(entity.fields))
    namespace = names.objects | {"refuse": refuse, "REFUSALS": REFUSALS}
    exec(compile(source, f"<{block.system} {block.name} reader>", "exec"), namespace)
    key = [column_of(block, shape, name, "key") for name in block.key]
    return CompiledReader(
        block=block,
        mask=1 << ALIVE | sum(1 << index for index in pieces if index != ALIVE),
        references=tuple(sorted(references)),
        source=source,
        _read=namespace["read"],
        _key_indexes=tuple(index for index, _ in key),
        _key_readers=tuple(carry_read.key_reader(column, shape.form) for _, column in key),
    )


def _reading_piece(
    block: Block, shape: Shape, entity: Entity, mapped: MappedField, scope: Scope, names: Names
) -> Piece:
    try:
        if mapped.column is None:
            assert mapped.read is not None
            field_ = entity.fields[entity.index[mapped.name]]
            code, columns = compile_read(mapped.read, scope, names, field_, mapped)
            return Piece(code, columns, mapped.name)
        index, column = column_of(block, shape, mapped.column, f"field {mapped.name!r}")
        code = carry_read.reading_code(cell_of(block, shape, entity, mapped, column), names).replace("{v}", f"c{index}")
        if mapped.soft_delete:
            code = f"(True if c{index} is None else {code})"
        return Piece(code, (index,), mapped.name, mapped.column)
    except Unfit as unfit:
        raise held(
            block, f"column {mapped.column!r} for field {mapped.name!r}: {unfit}", unfit.hint, column=mapped.column
        ) from None
    except SqlProblem as problem:
        raise held(
            block, f"field {mapped.name!r}: {problem}", "Correct the expression in the mapping.", field=mapped.name
        ) from None


def _filter_piece(block: Block, scope: Scope, names: Names) -> Piece | None:
    if block.filter is None:
        return None
    try:
        code, columns = compile_test(block.filter, scope, names)
    except SqlProblem as problem:
        raise held(block, f"where: {problem}", "Correct the condition in the mapping.") from None
    if columns:
        absent = " or ".join(f"c{i} is ABSENT" for i in columns)
        code = f"({names.bind(_filter_blind)}() if {absent} else {code})"
    return Piece(code, columns, "where")


def _filter_blind() -> bool:
    raise Loss("the source did not send a column that `where` needs")


def _reading_source(pieces: dict[int, Piece], test: Piece | None, width: int) -> str:
    used = [*pieces.values(), *([test] if test else [])]
    # A value that is used once and as it stands is loaded where it is used.
    plain = {piece.columns[0] for piece in used if piece.is_plain}
    shared = {i for piece in used if not piece.is_plain for i in piece.columns}
    shared |= {i for i in plain if sum(i in piece.columns for piece in used) > 1}
    values: list[str] = []
    for index in range(width):
        piece = pieces.get(index)
        if piece is None:
            values.append("True" if index == ALIVE else "ABSENT")
        elif piece.is_plain and piece.columns[0] not in shared:
            values.append(f"r[{piece.columns[0]}]")
        else:
            values.append(piece.code)
    record = f"({', '.join(values)},)"
    if not shared and test is None:
        return (
            "def read(rows):\n"
            "    try:\n"
            f"        return [{record} for r in rows], {{}}\n"
            "    except IndexError:\n"
            "        return [None] * len(rows), {n: refuse(r) for n, r in enumerate(rows)}\n"
        )
    loads = "".join(f"            c{i} = r[{i}]\n" for i in sorted(shared))
    if test is not None:
        loads += f"            if {test.code} is not True:\n                add(None)\n                continue\n"
    return (
        "def read(rows):\n"
        "    records = []\n"
        "    problems = {}\n"
        "    add = records.append\n"
        "    for r in rows:\n"
        "        try:\n"
        f"{loads}"
        f"            add({record})\n"
        "        except REFUSALS:\n"
        "            problems[len(records)] = refuse(r)\n"
        "            add(None)\n"
        "    return records, problems\n"
    )


def _reason(error: BaseException, otherwise: str) -> str:
    """A `Loss` says why; Python's own errors would quote the value."""
    return str(error) if isinstance(error, Loss) else otherwise


def _explainer(block: Block, pieces: list[Piece], names: Names, row: str) -> Callable[[Any], ValueRefused]:
    """A function that finds out which field of a row refuses. Its own source is compiled at the first refusal."""
    functions: list[tuple[Piece, Callable[[Any], Any]]] = []

    def refuse(values: Any) -> ValueRefused:
        if not functions:
            functions.extend((piece, _function(piece, names)) for piece in pieces)
        for piece, function in functions:
            try:
                function(values)
            except REFUSALS as error:
                reason = _reason(error, "a value of a kind that does not fit")
                return block.refused(reason, field_name=piece.field_name, column=piece.column_name)
        return block.refused("a row that does not have the columns of its table", field_name="row", column=None)

    return refuse


def _function(piece: Piece, names: Names) -> Callable[[Any], Any]:
    loads = "".join(f"    c{i} = r[{i}]\n" for i in piece.columns)
    namespace = dict(names.objects)
    exec(f"def part(r):\n{loads}    return {piece.code}\n", namespace)
    return namespace["part"]


# ------------------------------------------------------------------------------------------------ writing


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
    _constants: dict[str, Any]
    _key_codes: tuple[str, ...]
    _names: Names
    _functions: dict[Any, Any] = field(default_factory=lambda: {})

    def insert(self, keys: Sequence[str | None], records: Sequence[CanonicalRow]) -> Written:
        is_assigned = bool(keys) and keys[0] is None
        assert all((key is None) == is_assigned for key in keys), (
            "keys are assigned for all rows of a write or for none"
        )
        columns, function = self._function(("insert", is_assigned), self._targets, has_key=not is_assigned, all_=True)
        rows, problems = function(keys, records)
        return Written(columns, rows, problems)

    def update(self, mask: int, keys: Sequence[str], records: Sequence[CanonicalRow]) -> Written:
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
        return self._source(targets, has_key=True, constants={})

    def _function(self, cached: Any, targets: tuple[Target, ...], *, has_key: bool, all_: bool) -> tuple[Any, Any]:
        found = self._functions.get(cached)
        if found is None:
            constants = self._constants if all_ else {}
            source = self._source(targets, has_key=has_key, constants=constants)
            key_pieces = [Piece(code, (), "key", ", ".join(self.block.key)) for code in self._key_codes]
            refuse = _write_explainer(
                self.block, key_pieces if has_key else [], [target.piece for target in targets], self._names
            )
            namespace = self._names.objects | {"refuse": refuse, "REFUSALS": REFUSALS, "split": self._split}
            exec(compile(source, f"<{self.block.system} {self.block.name} writer>", "exec"), namespace)
            columns = (*(self.block.key if has_key else ()), *constants, *(target.column for target in targets))
            found = self._functions[cached] = (columns, namespace["write"])
        return found

    def _source(self, targets: tuple[Target, ...], *, has_key: bool, constants: dict[str, Any]) -> str:
        key_codes = self._key_codes if has_key else ()
        counts: dict[int, int] = {}
        for target in targets:
            for i in target.piece.columns:
                counts[i] = counts.get(i, 0) + (1 if target.piece.is_plain else 2)
        shared = {i for i, count in counts.items() if count > 1}
        values = [*key_codes, *(self._names.bind(value) for value in constants.values())]
        for target in targets:
            piece = target.piece
            values.append(f"x[{piece.columns[0]}]" if piece.is_plain and piece.columns[0] not in shared else piece.code)
        row = f"({', '.join(values)},)" if values else "()"
        if not shared and key_codes in ((), ("k",)):
            return f"def write(keys, records):\n    return [{row} for k, x in zip(keys, records)], {{}}\n"
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
        parts = _decode_key(key)
        if len(parts) != len(self._key_codes):
            raise Loss("a key of another number of columns")
        return parts


def _write_explainer(
    block: Block, key_pieces: list[Piece], pieces: list[Piece], names: Names
) -> Callable[[Any, Any], ValueRefused]:
    explain = _explainer(block, pieces, names, "x")

    def refuse(key: Any, record: Any) -> ValueRefused:
        for piece in key_pieces:
            namespace = dict(names.objects)
            try:
                parts = _decode_key(key) if len(key_pieces) > 1 else []
                if len(key_pieces) > 1 and len(parts) != len(key_pieces):
                    raise Loss("a key of another number of columns")
                eval(piece.code, namespace, {"k": key, "p": parts})
            except REFUSALS as error:
                reason = _reason(error, "a key that cannot be written")
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
    constants: dict[str, Any] = {}
    for name, value in block.constants.items():
        if name in block.key:
            continue
        constants[name] = constant_wire(value, column_of(block, shape, name, "insert")[1], shape.form)
    return CompiledWriter(
        block=block,
        mask=_mask(targets),
        references=tuple(sorted(references)),
        _targets=tuple(targets),
        _constants=constants,
        _key_codes=tuple(_key_codes(keys, shape.form, names)),
        _names=names,
    )


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
    _, column = column_of(block, shape, column_name, f"field {mapped.name!r}")
    if column.is_generated:
        raise held(
            block,
            f"the database computes column {column_name!r}; field {mapped.name!r} cannot be written there",
            "Add read_only = true to the field.",
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
            block, f"column {column_name!r} for field {mapped.name!r}: {unfit}", unfit.hint, column=column_name
        ) from None
    except SqlProblem as problem:
        raise held(
            block, f"write of field {mapped.name!r}: {problem}", "Correct the expression in the mapping."
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
