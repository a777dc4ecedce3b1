"""Does a mapping fit a live table? What `concord check` can say before a single row has moved."""

from __future__ import annotations

from collections.abc import Iterator

from sqlglot import exp

from crosswalk.block import Block, MappedField
from crosswalk.examples import run_examples
from crosswalk.invert import constants_of
from crosswalk.place import MappedPlace
from engine.errors import TableHeld
from engine.model.entity import Entity, Field, Type
from engine.model.table import Column, Kind, Shape
from engine.ports import Finding, KeyRule


def check(place: MappedPlace, shape: Shape, entity: Entity) -> list[Finding]:
    """Everything that is wrong or doubtful about the place for this table. Fatal: it cannot be read or written."""
    block = place.block
    found = [*_missing_columns(block, shape)]
    if found:
        return found
    for compile_ in (place.reader, place.writer):
        try:
            compile_(shape, entity)
        except TableHeld as error:
            finding = Finding(path=block.name, message=error.message, hint=error.hint)
            if finding not in found:
                found.append(finding)
    if found:
        return found
    for mapped in block.fields:
        if mapped.column is not None:
            found.extend(_column_findings(block, shape, entity, mapped))
    found.extend(_key_findings(place, shape))
    found.extend(_insert_findings(place, shape))
    found.extend(_filter_findings(place, shape))
    found.extend(run_examples(place, shape, entity))
    return found


def _missing_columns(block: Block, shape: Shape) -> Iterator[Finding]:
    wanted: dict[str, str] = {}
    for mapped in block.fields:
        for column in ([mapped.column] if mapped.column else []) + list(mapped.writes):
            wanted.setdefault(column, f"field {mapped.name!r}")
    for column in block.key:
        wanted.setdefault(column, "the key")
    for column in block.constants:
        wanted.setdefault(column, "insert")
    for column, what in wanted.items():
        if shape.index(column) is None:
            yield Finding(
                path=f"{block.name}.{column}",
                message=f"the table has no column {column!r}, which {what} wants ({block.where})",
                hint="Correct the mapping, or put the column back.",
            )


def _column_findings(block: Block, shape: Shape, entity: Entity, mapped: MappedField) -> Iterator[Finding]:
    """Where a value of the dictionary may not fit the column, or a value of the column not the dictionary."""
    assert mapped.column is not None
    column = shape.column(mapped.column)
    assert column is not None
    field = entity.fields[entity.index[mapped.name]]
    path = f"{block.name}.{column.name}"
    # A key column is written as the key.
    writable = not mapped.is_read_only and mapped.column not in block.key
    is_cut = writable and field.type is Type.TEXT and not mapped.truncate
    if is_cut and column.length is not None and (field.length is None or field.length > column.length):
        limit = "of any length" if field.length is None else f"of up to {field.length} characters"
        yield Finding(
            path=path,
            message=f"the column holds {column.length} characters, {entity.name}.{field.name} has texts {limit}",
            hint="Longer ones are parked; widen the column, or allow cutting with truncate = true.",
            is_fatal=False,
        )
    if writable:
        yield from _number_findings(field, column, mapped, path, entity)
    if field.is_required and column.is_nullable and block.entity == entity.name:
        yield Finding(
            path=path,
            message=f"the column may be null, and {entity.name}.{field.name} is required",
            hint="Declare the column not null, or expect records without it.",
            is_fatal=False,
        )
    if (
        writable
        and not column.is_nullable
        and not field.is_required
        and mapped.default is None
        and not mapped.soft_delete
    ):
        yield Finding(
            path=path,
            message=f"the column is not null, and {entity.name}.{field.name} may be null",
            hint="Say with default = … which value of the column stands for null.",
            is_fatal=False,
        )
    yield from _value_findings(field, column, mapped, path)
    if column.is_generated and writable:
        yield Finding(path=path, message="the database computes the column", hint="Add read_only = true.")


def _number_findings(field: Field, column: Column, mapped: MappedField, path: str, entity: Entity) -> Iterator[Finding]:
    if field.type not in (Type.DECIMAL, Type.MONEY, Type.DURATION) or mapped.round is not None:
        return
    scale = 0 if column.kind is Kind.INTEGER else column.scale if column.precision is not None else None
    message = ""
    if column.kind is Kind.FLOAT:
        message = f"a floating point keeps about 15 digits, {entity.name}.{field.name} is exact"
    elif scale is not None and mapped.unit is None and (field.scale is None or field.scale > scale):
        decimals = "as many decimals as there are" if field.scale is None else f"{field.scale} decimals"
        message = f"the column holds {scale} decimals, {entity.name}.{field.name} has {decimals}"
    if message:
        yield Finding(
            path=path,
            message=message,
            hint="What does not fit is parked; use an exact column, or allow rounding with round = N.",
            is_fatal=False,
        )


def _value_findings(field: Field, column: Column, mapped: MappedField, path: str) -> Iterator[Finding]:
    """Labels of the column that mean nothing, and values of the dictionary that cannot be written."""
    if field.type is not Type.ENUM:
        return
    readable = set(mapped.values) if mapped.values is not None else set(field.values)
    unread = [label for label in column.labels if label not in readable]
    if unread:
        yield Finding(
            path=path,
            message=f"the column's type has values that the mapping does not read: {', '.join(unread)}",
            hint="Add them to values = { … }; rows that have them are parked.",
            is_fatal=False,
        )
    if mapped.is_read_only:
        return
    if mapped.values is not None:
        unwritten = [value for value in field.values if value not in mapped.values.values()]
    else:
        unwritten = [value for value in field.values if column.labels and value not in column.labels]
    if unwritten:
        yield Finding(
            path=path,
            message=f"values of the dictionary that cannot be written: {', '.join(unwritten)}",
            hint="Add them to values = { … }; records that have them are parked.",
            is_fatal=False,
        )
    invalid = [label for label in mapped.values or () if column.labels and label not in column.labels]
    if invalid:
        yield Finding(path=path, message=f"the column's type has no value {', '.join(invalid)}", hint="Correct values.")


def _key_findings(place: MappedPlace, shape: Shape) -> Iterator[Finding]:
    block = place.block
    if shape.key and set(shape.key) != set(block.key) and not any(set(u) == set(block.key) for u in shape.unique):
        yield Finding(
            path=f"{block.name}.key",
            message=f"the mapping's key is ({', '.join(block.key)}), the table's is ({', '.join(shape.key)})",
            hint="Use the primary key, or columns with a unique constraint.",
        )
    columns = [shape.column(name) for name in block.key]
    for column in columns:
        if column is not None and column.kind is Kind.UUID and place.key_rule is KeyRule.TEMPLATE:
            yield _key_finding(block, column, "a template makes no uuid", 'Use allocate = "uuid".')
        if column is not None and column.kind is Kind.INTEGER and place.key_rule is KeyRule.UUID:
            yield _key_finding(block, column, "a uuid is no integer", 'Use allocate = "assigned" or { template = … }.')
        if column is not None and place.key_rule is KeyRule.ASSIGNED and not column.is_assigned:
            message = "the database does not assign values to the column"
            yield _key_finding(block, column, message, "Choose another rule for allocate.")
        if column is not None and column.length is not None and place.key_rule is KeyRule.UUID and column.length < 36:
            yield _key_finding(block, column, f"a uuid has 36 characters, the column {column.length}", "Widen it.")
    if place.key_rule is KeyRule.NONE and block.key_rule is None:
        yield Finding(
            path=f"{block.name}.key",
            message="nobody makes keys for new rows: the database does not assign them, and the mapping does not say",
            hint='New records do not go there. Add allocate = "uuid", { field = … } or { template = … }, or "none".',
            is_fatal=False,
        )


def _key_finding(block: Block, column: Column, message: str, hint: str) -> Finding:
    return Finding(path=f"{block.name}.{column.name}", message=message, hint=hint)


def _insert_findings(place: MappedPlace, shape: Shape) -> Iterator[Finding]:
    """Columns without which an insert fails."""
    if place.key_rule is KeyRule.NONE:
        return
    block = place.block
    written = {column for mapped in block.fields if not mapped.is_read_only for column in mapped.writes}
    set_ = written | set(block.constants) | set(block.key)
    for column in shape.columns:
        if column.is_nullable or column.has_default or column.is_assigned or column.is_generated or column.name in set_:
            continue
        yield Finding(
            path=f"{block.name}.{column.name}",
            message="the column is not null, has no default, and nothing is written to it: inserts will fail",
            hint=f"Map a field to it, or add insert = {{ {column.name} = … }}.",
        )


def _filter_findings(place: MappedPlace, shape: Shape) -> Iterator[Finding]:
    """Columns of `where` that an insert leaves to chance: the new row might not take part."""
    block = place.block
    if block.filter is None or place.key_rule is KeyRule.NONE:
        return
    fixed = set(constants_of(block.filter)) | set(block.constants) | set(block.key)
    # What is not set is null.
    fixed |= {
        node.this.name
        for node in block.filter.find_all(exp.Is)
        if isinstance(node.this, exp.Column) and isinstance(node.expression, exp.Null) and not node.args.get("negate")
    }
    written = {column for mapped in block.fields if not mapped.is_read_only for column in mapped.writes}
    for name in sorted({column.name for column in block.filter.find_all(exp.Column)}):
        if name not in fixed and name not in written:
            yield Finding(
                path=f"{block.name}.where",
                message=f"`where` looks at column {name!r}, which inserts do not set",
                hint=f"Add insert = {{ {name} = … }} with a value for which `where` holds.",
                is_fatal=False,
            )
