"""Does a mapping fit a live table? What `concord check` can say before a single row has moved."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from sqlglot import exp

from crosswalk.block import Block, MappedField
from crosswalk.compile import cell_of, prefix_of
from crosswalk.compile_read import compile_reader
from crosswalk.compile_write import compile_writer
from crosswalk.examples import run_examples
from crosswalk.fits import Sender, doubts
from crosswalk.invert import constants_of
from crosswalk.place import MappedPlace
from crosswalk.probe import lost_on_the_way
from crosswalk.sql_scope import column_name
from engine.errors import TableHeld
from engine.model.entity import Entity, Field, Type
from engine.model.table import Column, Kind, Shape
from engine.ports import Finding, KeyRule

Senders = Mapping[tuple[str, str], Sequence[Sender]]
"""By entity and field: the columns that other systems send it from."""
Placed = tuple[str, MappedPlace, Shape, Entity]
"""A system's name, a place of its mapping, the table's shape, the entity."""


def check(place: MappedPlace, shape: Shape, entity: Entity, senders: Senders | None = None) -> list[Finding]:
    """Everything that is wrong or doubtful about the place for this table. Fatal: it cannot be read or written.

    `senders`: of the other systems; None: they are unknown, and anything may come that the dictionary allows.
    """
    block = place.block
    # Who makes the keys is known once the place has met the table, whether or not it can be compiled.
    whole = _tried(block, "", lambda: place.reader(shape, entity)) or _tried(
        block, "", lambda: place.writer(shape, entity)
    )
    found, missing = _missing_columns(block, shape)
    found.extend(_join_findings(block, shape))
    found.extend(_frame_findings(place, shape, entity, missing))
    for mapped in block.fields:
        if missing.isdisjoint((*mapped.writes, mapped.column or "")):
            found.extend(_field_findings(block, shape, entity, mapped, senders))
    if missing.isdisjoint(block.key):
        found.extend(_key_findings(place, shape))
    found.extend(_insert_findings(place, shape))
    found.extend(_filter_findings(place, shape))
    if not whole:
        found.extend(run_examples(place, shape, entity))
    elif not any(finding.is_fatal for finding in found):
        found.extend(whole)
    return found


def senders_to(system: str, placed: Iterable[Placed]) -> Senders:
    """What the other systems send; `placed` are the places of all systems that are read from."""
    sent: dict[tuple[str, str], list[Sender]] = {}
    for name, place, shape, entity in placed:
        for mapped in place.block.fields if name != system else ():
            column = None if mapped.column is None else shape.column(mapped.column)
            cell = None if column is None else cell_of(place.block, shape, entity, mapped, column)
            title = f"{name}, {place.table}.{mapped.column or mapped.name}"
            sent.setdefault((entity.name, mapped.name), []).append(Sender(title, cell))
    return sent


def _tried(block: Block, path: str, compile_: Callable[[], object]) -> list[Finding]:
    """Why it cannot be compiled, if it cannot."""
    try:
        compile_()
    except TableHeld as error:
        part = path or error.context.get("column") or error.context.get("field")
        return [
            Finding(
                path=f"{block.name}.{part}" if part else block.name,
                message=error.message.removeprefix(prefix_of(block)),
                hint=error.hint,
            )
        ]
    return []


def _missing_columns(block: Block, shape: Shape) -> tuple[list[Finding], set[str]]:
    wanted: dict[str, tuple[str, str]] = {}
    for mapped in block.fields:
        for column in ([mapped.column] if mapped.column else []) + list(mapped.writes):
            wanted.setdefault(column, (f"field {mapped.name!r}", mapped.where))
    for column in block.key:
        wanted.setdefault(column, ("the key", block.where))
    for column in (*block.constants, *block.touched):
        wanted.setdefault(column, ("insert, touch or where", block.where))
    missing = {column: by for column, by in wanted.items() if shape.index(column) is None}
    found = [
        Finding(
            path=f"{block.name}.{column}",
            message=f"the table has no column {column!r}, which {what} wants ({where})",
            hint="Correct the mapping, or put the column back.",
        )
        for column, (what, where) in missing.items()
    ]
    return found, set(missing)


def _join_findings(block: Block, shape: Shape) -> Iterator[Finding]:
    """Joined tables that are not there or lack what the join names, and rows of them that nobody could make."""
    written = {column for mapped in block.fields if not mapped.is_read_only for column in mapped.writes}
    for join in block.joins:
        path = f"{block.name}.{join.name}"
        if not any(column.name.startswith(f"{join.name}.") for column in shape.columns):
            message = f"there is no table {join.table!r} ({join.where})"
            yield Finding(path=path, message=message, hint="Correct the join, or make the table.")
            continue
        links = {link.column for link in join.links}
        wanted = dict.fromkeys((*join.key, *links, *join.constants, *join.find, *join.order))
        for name in wanted:
            if shape.index(f"{join.name}.{name}") is None:
                message = f"the table {join.table} has no column {name!r} ({join.where})"
                yield Finding(path=f"{path}.{name}", message=message, hint="Correct the join, or put the column back.")
        owner = next((other.key for other in block.joins if other.name == join.links[0].owner), block.key)
        is_shared = links == set(join.key) and {link.other for link in join.links} != set(owner)
        own = {column.partition(".")[2] for column in written if column.startswith(f"{join.name}.")}
        is_written = bool(own)
        if is_written and is_shared and not join.find:
            message = f"fields are written to {join.table}, whose rows its owner refers to ({join.where})"
            yield Finding(
                path=path,
                message=message,
                hint="Say with find = … by which columns a row that is there is found, or read_only = true.",
            )
        if is_written and join.key_rule is KeyRule.NONE and not set(join.key) <= {*links, *join.constants, *own}:
            message = f"nobody makes keys for new rows of {join.table} ({join.where})"
            yield Finding(
                path=path,
                message=message,
                hint='Records that want one are parked. Add allocate = "uuid" or "assigned" to the join.',
                is_fatal=False,
            )


def _frame_findings(place: MappedPlace, shape: Shape, entity: Entity, missing: set[str]) -> Iterator[Finding]:
    """What is said of whole rows: `where`, `only`, the key and the constants."""
    block = place.block
    bare = replace(block, fields=())
    yield from _tried(block, "where", lambda: compile_reader(replace(bare, key=()), shape, entity))
    yield from _tried(block, "only", lambda: place.accepts(entity))
    if missing.isdisjoint((*block.key, *block.constants, *block.touched)):
        yield from _tried(block, "", lambda: compile_writer(bare, shape, entity))


def _field_findings(
    block: Block, shape: Shape, entity: Entity, mapped: MappedField, senders: Senders | None
) -> Iterator[Finding]:
    """Everything about one field, as if the block had no other."""
    alone = replace(block, fields=(mapped,), filter=None, constants={}, touched={})
    if any(shape.index(name) is None for name in block.key):
        alone = replace(alone, key=())
    problems = _tried(block, "", lambda: compile_reader(alone, shape, entity))
    problems += _tried(block, "", lambda: compile_writer(alone, shape, entity))
    if problems:
        # Both directions may say the same.
        yield from {problem.message: problem for problem in problems}.values()
        return
    lost = lost_on_the_way(block, shape, entity, mapped)
    if lost:
        yield _remark(
            f"{block.name}.{mapped.name}",
            mapped,
            f"what is written is not always read back as it was: {', '.join(lost)}",
            "Such a record reads otherwise here than elsewhere, and everywhere once a user changes it here. Read the"
            " field so in every system, or write what reads back the same.",
        )
    for name in [mapped.column] if mapped.column else [n for n, sql in mapped.writes.items() if sql is None]:
        column = shape.column(name)
        assert column is not None
        sent = None if senders is None else senders.get((entity.name, mapped.name), ())
        yield from _column_findings(block, shape, entity, mapped, column, sent)


def _remark(path: str, mapped: MappedField, message: str, hint: str) -> Finding:
    return Finding(path=path, message=f"{message} ({mapped.where})", hint=hint, is_fatal=False)


def _column_findings(
    block: Block,
    shape: Shape,
    entity: Entity,
    mapped: MappedField,
    column: Column,
    senders: Sequence[Sender] | None,
) -> Iterator[Finding]:
    """Where a value of the dictionary may not fit the column, or a value of the column not the dictionary."""
    field = entity.fields[entity.index[mapped.name]]
    name, path = f"{entity.name}.{field.name}", f"{block.name}.{column.name}"
    # A key column is written as the key.
    writable = not mapped.is_read_only and column.name not in block.key
    cell = cell_of(block, shape, entity, mapped, column)
    for doubt in doubts(cell, name, senders, is_read=mapped.column is not None, is_written=writable):
        yield _remark(path, mapped, doubt.message, doubt.hint)
    if mapped.column is None:
        return
    if field.is_required and column.is_nullable and block.entity == entity.name:
        yield _remark(
            path,
            mapped,
            f"the column may be null, and {name} is required",
            "Declare the column not null, or expect records without it.",
        )
    has_value = field.is_required or mapped.default is not None or mapped.soft_delete
    if writable and not column.is_nullable and not has_value:
        yield _remark(
            path,
            mapped,
            f"the column is not null, and {name} may be null",
            "Say with default = … which value of the column stands for null.",
        )
    yield from _value_findings(field, column, mapped, path)


def _value_findings(field: Field, column: Column, mapped: MappedField, path: str) -> Iterator[Finding]:
    """Labels of the column that mean nothing, and values of the dictionary that cannot be written."""
    if field.type is not Type.ENUM:
        return
    readable = set(mapped.values) if mapped.values is not None else set(field.values)
    unread = [label for label in column.labels if label not in readable]
    if unread:
        yield _remark(
            path,
            mapped,
            f"the column's type has values that the mapping does not read: {', '.join(unread)}",
            "Add them to values = { … }; rows that have them are parked.",
        )
    if mapped.is_read_only:
        return
    if mapped.values is not None:
        unwritten = [value for value in field.values if value not in mapped.values.values()]
    else:
        unwritten = [value for value in field.values if column.labels and value not in column.labels]
    if unwritten:
        yield _remark(
            path,
            mapped,
            f"values of the dictionary that cannot be written: {', '.join(unwritten)}",
            "Add them to values = { … }; records that have them are parked.",
        )
    invalid = [label for label in mapped.values or () if column.labels and label not in column.labels]
    if invalid:
        message = f"the column's type has no value {', '.join(invalid)} ({mapped.where})"
        yield Finding(path=path, message=message, hint="Correct values.")


def _key_findings(place: MappedPlace, shape: Shape) -> Iterator[Finding]:
    block = place.block
    if shape.key and set(shape.key) != set(block.key) and not any(set(u) == set(block.key) for u in shape.unique):
        yield Finding(
            path=f"{block.name}.key",
            message=f"the mapping's key is ({', '.join(block.key)}), the table's is ({', '.join(shape.key)})"
            f" ({block.where})",
            hint="Use the primary key, or columns with a unique constraint.",
        )
    columns = [shape.column(name) for name in block.key]
    for column in columns:
        if column is not None and column.kind is Kind.UUID and place.key_rule is KeyRule.TEMPLATE:
            yield _key_finding(block, column, "a template makes no uuid", 'Use allocate = "uuid".')
        if column is not None and column.kind is Kind.INTEGER and place.key_rule is KeyRule.UUID:
            yield _key_finding(block, column, "a uuid is no integer", 'Use allocate = "assigned" or { template = … }.')
        if column is not None and place.key_rule is KeyRule.ASSIGNED and not (column.is_assigned or block.draw):
            message = "the database does not assign values to the column"
            yield _key_finding(block, column, message, "Choose another rule for allocate.")
        if column is not None and column.length is not None and place.key_rule is KeyRule.UUID and column.length < 36:
            yield _key_finding(block, column, f"a uuid has 36 characters, the column {column.length}", "Widen it.")
    if place.key_rule is KeyRule.NONE and block.key_rule is None:
        yield Finding(
            path=f"{block.name}.key",
            message="nobody makes keys for new rows: the database does not assign them, and the mapping does not say"
            f" ({block.where})",
            hint='New records do not go there. Add allocate = "uuid", { field = … } or { template = … }, or "none".',
            is_fatal=False,
        )


def _key_finding(block: Block, column: Column, message: str, hint: str) -> Finding:
    return Finding(path=f"{block.name}.{column.name}", message=f"{message} ({block.where})", hint=hint)


def _insert_findings(place: MappedPlace, shape: Shape) -> Iterator[Finding]:
    """Columns without which an insert fails."""
    if place.key_rule is KeyRule.NONE:
        return
    block = place.block
    written = {column for mapped in block.fields if not mapped.is_read_only for column in mapped.writes}
    set_ = written | set(block.constants) | set(block.touched) | set(block.key)
    for column in shape.columns:
        if column.is_nullable or column.has_default or column.is_assigned or column.is_generated or column.name in set_:
            continue
        yield Finding(
            path=f"{block.name}.{column.name}",
            message="the column is not null, has no default, and nothing is written to it: inserts will fail"
            f" ({block.where})",
            hint=f"Map a field to it, or add insert = {{ {column.name} = … }}.",
        )


def _filter_findings(place: MappedPlace, shape: Shape) -> Iterator[Finding]:
    """Columns of `where` that an insert leaves to chance: the new row might not take part."""
    block = place.block
    if block.filter is None or place.key_rule is KeyRule.NONE:
        return
    fixed = set(constants_of(block.filter)) | set(block.constants) | set(block.touched) | set(block.key)
    # What is not set is null.
    fixed |= {
        column_name(node.this)
        for node in block.filter.find_all(exp.Is)
        if isinstance(node.this, exp.Column) and isinstance(node.expression, exp.Null) and not node.args.get("negate")
    }
    written = {column for mapped in block.fields if not mapped.is_read_only for column in mapped.writes}
    for name in sorted({column_name(column) for column in block.filter.find_all(exp.Column)}):
        if name not in fixed and name not in written:
            yield Finding(
                path=f"{block.name}.where",
                message=f"`where` looks at column {name!r}, which inserts do not set ({block.where})",
                hint=f"Add insert = {{ {name} = … }} with a value for which `where` holds.",
                is_fatal=False,
            )
