"""A block's reader: rows of a table under one shape → records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from crosswalk import carry_read, convert
from crosswalk.block import Block, MappedField
from crosswalk.carry import Names, Unfit
from crosswalk.compile import (
    REFUSALS,
    Piece,
    cell_of,
    column_of,
    currency_constants,
    encode_key,
    explainer,
    held,
    reason_of,
)
from crosswalk.convert import Loss
from crosswalk.expression import Scope, SqlProblem, compile_read, compile_test
from engine.errors import ValueRefused
from engine.model.entity import ALIVE, Entity
from engine.model.table import Shape
from engine.model.value import CanonicalRow, WireRow
from engine.ports import Read


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
                keys.append(parts[0] if is_single else encode_key(parts).decode())
            except REFUSALS as error:
                keys.append("")
                problems[len(keys) - 1] = self.block.refused(
                    reason_of(error, "a key that cannot be read"), field_name="key", column=", ".join(self.block.key)
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
        pieces[index] = _currency_piece(block, shape, entity, index, code)
    test = _filter_piece(block, scope, names)
    parts = [pieces[i] for i in sorted(pieces)]
    refuse = explainer(block, ([test] if test else []) + parts, names, "r")
    source = _reading_source(pieces, test, len(entity.fields))
    namespace: dict[str, Any] = names.objects | {"refuse": refuse, "REFUSALS": REFUSALS}
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


def _currency_piece(block: Block, shape: Shape, entity: Entity, index: int, code: str) -> Piece:
    """The table's one currency; null where there is no amount: nothing is in no currency."""
    name = entity.fields[index].name
    amounts = [mapped for mapped in block.fields if entity.fields[entity.index[mapped.name]].unit == name]
    if any(mapped.column is None for mapped in amounts):
        # Made by an expression; whether it is null is known only when it has been computed.
        return Piece(repr(code), (), name)
    columns = tuple(column_of(block, shape, mapped.column, mapped)[0] for mapped in amounts if mapped.column)
    is_null = " and ".join(f"c{column} is None" for column in columns)
    return Piece(f"(None if {is_null} else {code!r})", columns, name)


def _reading_piece(
    block: Block, shape: Shape, entity: Entity, mapped: MappedField, scope: Scope, names: Names
) -> Piece:
    try:
        if mapped.column is None:
            assert mapped.read is not None
            field_ = entity.fields[entity.index[mapped.name]]
            code, columns = compile_read(mapped.read, scope, names, field_, mapped)
            return Piece(code, columns, mapped.name)
        index, column = column_of(block, shape, mapped.column, mapped)
        code = carry_read.reading_code(cell_of(block, shape, entity, mapped, column), names).replace("{v}", f"c{index}")
        if mapped.soft_delete:
            code = f"(True if c{index} is None else {code})"
        return Piece(code, (index,), mapped.name, mapped.column)
    except Unfit as unfit:
        raise held(
            block,
            f"column {mapped.column!r} for field {mapped.name!r}: {unfit}",
            unfit.hint,
            where=mapped.where,
            column=mapped.column,
        ) from None
    except SqlProblem as problem:
        raise held(
            block,
            f"field {mapped.name!r}: {problem}",
            "Correct the expression in the mapping.",
            where=mapped.where,
            field=mapped.name,
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
