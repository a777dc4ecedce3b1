"""Which tables of a system are joined to which, and what has to be known of their rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from engine.model.joined import listed_joins
from engine.ports import Join, Place


@dataclass(frozen=True, slots=True)
class Base:
    """A table whose rows are kept. `used`: its columns that are needed."""

    name: str
    key: tuple[str, ...]
    used: frozenset[str]
    indexes: frozenset[tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class JoinPlan:
    """Which tables of a system are joined to which. `joins`: by mapped table, owners first."""

    joins: dict[str, tuple[Join, ...]]
    bases: dict[str, Base]

    @property
    def joined(self) -> tuple[str, ...]:
        """The tables that are joined to others, in the order in which they can be copied."""
        return tuple(dict.fromkeys(join.table for joins in self.joins.values() for join in joins))

    def expand(self, tables: Iterable[str]) -> tuple[str, ...]:
        """These tables, and what is joined to them."""
        found: dict[str, None] = {}
        for table in tables:
            found |= dict.fromkeys((table, *(join.table for join in self.joins.get(table, ()))))
        return tuple(found)

    def together(self, table: str) -> set[str]:
        """The tables whose rows are put together with those of this one, and with theirs: all, if any is to be copied
        anew, for nobody knows what a row is while a part of it is missing."""
        found: set[str] = set()
        new = {table} & self.bases.keys()
        while new:
            found |= new
            new = {
                base
                for own, joins in self.joins.items()
                if not found.isdisjoint((own, *(join.table for join in joins)))
                for base in (own, *(join.table for join in joins))
            } - found
        return found

    def owners(self, table: str) -> tuple[str, ...]:
        """The mapped tables whose rows a table is a part of."""
        return tuple(own for own, joins in self.joins.items() if table in (own, *(join.table for join in joins)))


def plan_joins(places: Sequence[Place]) -> JoinPlan:
    """Work out what is joined; empty without joins."""
    joins: dict[str, dict[str, Join]] = {}
    for place in places:
        for join in place.joins:
            joins.setdefault(place.table, {})[join.name] = join
    keys: dict[str, tuple[str, ...]] = {}
    used: dict[str, set[str]] = {}
    for place in places:
        if place.table in joins:
            keys[place.table] = place.key
            used.setdefault(place.table, set()).update(place.used, place.key)
    for own in joins.values():
        for join in own.values():
            keys.setdefault(join.table, join.key)
            used.setdefault(join.table, set()).update(join.used)
    indexes: dict[str, set[tuple[str, ...]]] = {table: set() for table in keys}
    for table, own in joins.items():
        for join in own.values():
            columns, owner, others = ends(join)
            if columns != keys[join.table]:
                indexes[join.table].add(columns)
            above = own[owner].table if owner else table
            used[join.table].update(columns)
            used[above].update(others)
            if others != keys[above]:
                indexes[above].add(others)
    return JoinPlan(
        {table: tuple(own.values()) for table, own in joins.items()},
        {
            table: Base(table, key, frozenset(used[table]), frozenset(indexes[table]))
            for table, key in keys.items()
        },
    )  # fmt: skip


def listed(joins: Iterable[Join]) -> frozenset[str]:
    """Names of the joins whose columns are lists."""
    return listed_joins((join.name, join.links[0].owner, join.is_list) for join in joins)


def ends(join: Join) -> tuple[tuple[str, ...], str, tuple[str, ...]]:
    """A join's columns, its owner and the owner's columns, in the order of the joined table's key."""
    order = {column: n for n, column in enumerate(join.key)}
    links = sorted(join.links, key=lambda link: (order.get(link.column, len(order)), link.column))
    return tuple(link.column for link in links), links[0].owner, tuple(link.other for link in links)
