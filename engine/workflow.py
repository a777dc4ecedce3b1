"""What the engine asks of a workflow: which records follow from others, in canonical terms. No I/O."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from engine.model.record import Value

Seen = Sequence[Value]
"""The record that the workflow is about, then the child that a make looks at, field by field; references are rids."""


class Made(enum.Enum):
    """A value that the engine fills in."""

    THIS = "this"
    """The rid of the record that the workflow is about."""


@dataclass(frozen=True, slots=True)
class MadeBy:
    """The rid of what another make of the same workflow has made."""

    make: str


Derived = Value | Made | MadeBy


@dataclass(frozen=True, slots=True, kw_only=True)
class Make:
    """One entity that follows. `children`: (entity, index of its reference field): one record for each child.

    `change`: index of the reference field, of what is seen, whose record is changed, -1 for the record that the
    workflow is about; then nothing is made. `where` tells whether one follows, `key` names it: the same key always
    means the same record; None: it cannot be said yet. `values` by field index. `follows` looks at what was made, as it
    is now: whether it is still to be what `values` says.
    """

    name: str
    entity: int
    children: tuple[int, int] | None
    where: Callable[[Seen], bool]
    key: Callable[[Seen], str | None]
    values: Callable[[Seen], dict[int, Derived]]
    follows: Callable[[Seen], bool]
    change: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Workflow:
    """Begins when a record of entity `on` comes to fulfil `holds`. From then on, while it does, what was made follows
    it."""

    name: str
    on: int
    holds: Callable[[Seen], bool]
    makes: tuple[Make, ...]
