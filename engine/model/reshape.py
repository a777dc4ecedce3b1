"""What has become of a table's columns between two shapes."""

from __future__ import annotations

from dataclasses import dataclass

from engine.model.table import Column, Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Reshape:
    """Columns by what has become of them. `renamed`: pairs that may be one column under two names; only a person
    knows, so they stand under `dropped` and `added` too."""

    added: tuple[Column, ...] = ()
    dropped: tuple[Column, ...] = ()
    retyped: tuple[tuple[Column, Column], ...] = ()
    renamed: tuple[tuple[Column, Column], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.dropped or self.retyped)

    def sentences(self) -> list[str]:
        """For people, a column each."""
        new = {old.name: column.name for old, column in self.renamed}
        found = [
            f"column {c.name} is gone" + (f", perhaps it is {new[c.name]} now" if c.name in new else "")
            for c in self.dropped
        ]
        found += [f"column {new.name} is {new.type} and was {old.type}" for old, new in self.retyped]
        return found + [f"column {c.name} ({c.type}) has come" for c in self.added]


def reshape(old: Shape, new: Shape) -> Reshape:
    """What has become of the columns of `old`. Nullability, defaults, keys and triggers are no matter of columns."""
    before, after = {c.name: c for c in old.columns}, {c.name: c for c in new.columns}
    dropped = tuple(c for c in old.columns if c.name not in after)
    added = tuple(c for c in new.columns if c.name not in before)
    return Reshape(
        added=added,
        dropped=dropped,
        retyped=tuple((c, after[c.name]) for c in old.columns if c.name in after and _is_other(c, after[c.name])),
        renamed=tuple((c, likely) for c in dropped if (likely := _successor(c, dropped, added, old, new)) is not None),
    )


def _is_other(old: Column, new: Column) -> bool:
    return (old.type, old.kind, old.labels) != (new.type, new.kind, new.labels)


def _successor(
    column: Column, dropped: tuple[Column, ...], added: tuple[Column, ...], old: Shape, new: Shape
) -> Column | None:
    """The column that stands where this one stood, or the only one of its type that has come for the only one that has
    gone. Databases keep a renamed column in its place, and put a new one behind all others."""
    alike = [c for c in added if c.type == column.type]
    index = old.index(column.name)
    in_place = [c for c in alike if new.index(c.name) == index]
    if in_place:
        return in_place[0]
    rivals = [c for c in dropped if c.type == column.type]
    return alike[0] if len(alike) == len(rivals) == 1 else None
