"""What is different about a table, in words for its operator. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from engine.model.table import Column, Shape


def describe_change(old: Shape, new: Shape) -> str:
    """`column fax dropped, column size is bigint, was integer`. A renamed column is one dropped and one added."""
    return ", ".join(_differences(old, new)) or "its columns stand in another order"


def _differences(old: Shape, new: Shape) -> Iterator[str]:
    before, after = ({column.name: column for column in shape.columns} for shape in (old, new))
    yield from (f"column {name} dropped" for name in before if name not in after)
    yield from (f"column {name} added ({column.type})" for name, column in after.items() if name not in before)
    for name, column in after.items():
        if name in before and before[name] != column:
            yield f"column {name} {', '.join(_column_differences(before[name], column))}"
    if old.key != new.key:
        yield f"key is ({', '.join(new.key)}), was ({', '.join(old.key)})"
    if old.unique != new.unique:
        yield "its unique constraints are others"
    if old.has_triggers != new.has_triggers:
        yield "it has triggers now" if new.has_triggers else "it has no triggers any more"


def _column_differences(old: Column, new: Column) -> Iterator[str]:
    known = False
    if old.type != new.type:
        known = True
        yield f"is {new.type}, was {old.type}"
    if added := [label for label in new.labels if label not in old.labels]:
        known = True
        yield f"allows {', '.join(added)} now"
    if dropped := [label for label in old.labels if label not in new.labels]:
        known = True
        yield f"does not allow {', '.join(dropped)} any more"
    if old.is_nullable != new.is_nullable:
        known = True
        yield "may be null now" if new.is_nullable else "must not be null now"
    if old.has_default != new.has_default:
        known = True
        yield "has a default now" if new.has_default else "has no default any more"
    if not known:
        yield "is made otherwise"
