"""What mapped tables look like, against what they looked like when their mapping was last known to fit.

A change that the mapping can follow is taken as known: a column that has come, one that has gone and nobody read. Where
the mapping does not fit any more rows are set aside and a person decides; where a column has another type, values
that fit go on, others are set aside, and the change stands until a person has seen it.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from engine.errors import TableHeld
from engine.hub.transaction import HubTransaction
from engine.model.reshape import Reshape, reshape
from engine.model.table import Shape
from engine.pipeline.topology import SystemPart

_decode = msgspec.msgpack.Decoder(Shape).decode


def note_shapes(tx: HubTransaction, part: SystemPart, shapes: Mapping[str, Shape]) -> None:
    """A lane has looked at its tables: what is met for the first time is known, and what the mapping can follow."""
    known = known_shapes(tx, part)
    for table in part.tables:
        shape = shapes.get(table)
        if shape is None or known.get(table) == shape or misfits(part, table, shape):
            continue
        if table not in known or not reshape(known[table], shape).retyped:
            know(tx, part, table, shape)


def know(tx: HubTransaction, part: SystemPart, table: str, shape: Shape) -> None:
    """The mapping is known to fit this shape, or a person has acknowledged it."""
    tx.write(
        "insert or replace into shape (system, name, doc, since) values (?, ?, ?, ?)",
        (part.id, table, msgspec.msgpack.encode(shape), tx.clock.now()),
    )


def known_shapes(tx: HubTransaction, part: SystemPart) -> dict[str, Shape]:
    return {name: _decode(doc) for name, doc in tx.rows("select name, doc from shape where system = ?", (part.id,))}


def misfits(part: SystemPart, table: str, shape: Shape) -> list[TableHeld]:
    """Why the mapping cannot read this shape, or write it; empty when it can."""
    found: list[TableHeld] = []
    for place in part.places:
        if place.place.table == table:
            for compiled in (place.place.reader, *((place.place.writer,) if part.is_target else ())):
                try:
                    compiled(shape, place.entity)
                except TableHeld as error:
                    if str(error) not in map(str, found):
                        found.append(error)
    return found


def changes(tx: HubTransaction, part: SystemPart, shapes: Mapping[str, Shape]) -> dict[str, Reshape]:
    """Tables that are other than known, as far as columns go. One that is gone, or was never met, is none of them."""
    known = known_shapes(tx, part)
    found = {t: reshape(known[t], shapes[t]) for t in part.tables if t in known and t in shapes}
    return {table: change for table, change in found.items() if change}
