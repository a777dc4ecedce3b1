"""Numbers for systems, entities, fields and places, given once and kept for ever.

Journal entries refer to fields by index and to systems by bit, so what the hub has numbered keeps its number: new
fields come at the end, a field that left the dictionary stays as retired.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from engine.errors import HubError
from engine.hub.transaction import HubTransaction
from engine.model.entity import Entity, Field, Type

# Entry.concerned is a 64-bit integer in msgpack and SQLite alike; bit 0 means nobody.
SYSTEMS_MAX = 62
# Entry.mask likewise, a bit for each field an entity has or ever had.
FIELDS_MAX = 63

# `is_admitted` of a system: 1 when it gets what concerns it, 0 while it is still to get the records there were before.
READ_ONLY = -1
"""It was never written to, and is not now: its rows may be known, and lack what others have changed."""
AWAY = -2
"""The same of one that was written to until some time. Its last delivery may have landed without our knowing."""


def register_systems(tx: HubTransaction, names: Sequence[str], targets: Collection[str]) -> dict[str, int]:
    """System name → number. One that joins a hub with records is brought up to date by its own lane (`admit`), and so
    is one that becomes a target (again)."""
    known: dict[str, int] = {name: n for n, name in tx.rows("select id, name from system")}
    is_empty = tx.last_seq == 0
    for name in known.keys() - targets:
        tx.write(
            "update system set is_admitted = case when is_admitted in (1, ?1) then ?1 else ?2 end where name = ?3",
            (AWAY, READ_ONLY, name),
        )
    for name in names:
        if name in known:
            continue
        number = max(known.values(), default=0) + 1
        if number > SYSTEMS_MAX:
            raise HubError(
                f"the hub knows {SYSTEMS_MAX} systems and has no number left for {name}",
                hint="Start a new hub; a hub takes part with at most 62 systems in its life.",
            )
        tx.write(
            "insert into system (id, name, cursor, is_admitted) values (?, ?, ?, ?)",
            (number, name, tx.last_seq, is_empty if name in targets else READ_ONLY),
        )
        known[name] = number
    return known


def register_entity(tx: HubTransaction, entity: Entity) -> Entity:
    """The entity with its number and its fields in the hub's order."""
    found = tx.rows("select id from entity where name = ?", (entity.name,))
    if found:
        number = found[0][0]
    else:
        number = tx.rows("select coalesce(max(id), 0) + 1 from entity")[0][0]
        tx.write("insert into entity values (?, ?)", (number, entity.name))
    order = [name for (name,) in tx.rows("select name from field where entity = ? order by indexed", (number,))]
    by_name = {field.name: field for field in entity.fields}
    for name in by_name:
        if name not in order:
            tx.write("insert into field values (?, ?, ?)", (number, len(order), name))
            order.append(name)
    if len(order) > FIELDS_MAX:
        raise HubError(
            f"entity {entity.name} has or had {len(order)} fields; {FIELDS_MAX} at most can be told apart",
            hint="Split the entity in two, one referring to the other.",
            entity=entity.name,
        )
    fields = tuple(by_name.get(name) or Field(name=name, type=Type.TEXT, is_retired=True) for name in order)
    return Entity(name=entity.name, fields=fields, matches=entity.matches, description=entity.description, id=number)


def register_place(tx: HubTransaction, system: int, name: str, entity: int) -> int:
    """The place's number. A place keeps its entity for ever: its keys are linked to records of it."""
    found = tx.rows("select id, entity from place where system = ? and name = ?", (system, name))
    if found:
        number, known = found[0]
        if known != entity:
            raise HubError(
                f"place {name} held another entity when this hub first saw it",
                hint="Give the [[table]] block another `place` name.",
            )
        return number
    number = tx.rows("select coalesce(max(id), 0) + 1 from place")[0][0]
    tx.write("insert into place values (?, ?, ?, ?)", (number, system, name, entity))
    return number
