"""One record: which it is, what it is now, and how it came about."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec

from engine.errors import Unknown, no_such
from engine.hub.transaction import HubTransaction
from engine.model.record import CHANGE, Entry, Value, bits
from engine.pipeline.topology import Topology
from engine.views.names import field_names, system_names
from engine.views.waiting import ParkedRow, conflicts, parked


class HistoryRow(msgspec.Struct, kw_only=True):
    """One thing that happened to a field of a record. `kind`: "set", "lost" (with `rule`)."""

    seq: int
    time: int
    field: str
    kind: str
    system: str
    value: Value
    replaced: Value = None
    rule: str | None = None
    because: int | None = None
    """The record that it follows from, where a workflow set it."""


@dataclass(slots=True)
class Explanation:
    """A record: what it is now, who set each field, where its rows are, and how it came about."""

    record: int
    entity: str
    values: dict[str, Value]
    set_by: dict[str, tuple[str, int, int]]
    rows: list[tuple[str, str, str]]
    history: list[HistoryRow]
    parked: list[ParkedRow]


def find_record(tx: HubTransaction, topology: Topology, text: str) -> int | None:
    """RECORD of a command line: a record number, or SYSTEM:TABLE:KEY. None when there is none."""
    if text.isdigit():
        rid = tx.alias(int(text))
        entry = tx.current(rid)
        return rid if entry is not None and entry.rid == rid else None
    name, _, rest = text.partition(":")
    place, _, key = rest.rpartition(":")
    for part in topology.systems.values():
        for known in part.places:
            if part.name == name and place in (known.name, known.name.rpartition(".")[2]):
                return tx.load_rids(known.id, [key]).get(key)
    return None


def named_record(tx: HubTransaction, topology: Topology, text: str) -> int:
    """`find_record`. Raises `Unknown`, which says what of the text is known, when there is none."""
    rid = find_record(tx, topology, text)
    if rid is not None:
        return rid
    if text.isdigit():
        raise Unknown(f"there is no record {text}", hint="Name one of its rows instead: SYSTEM:TABLE:KEY.")
    name, _, rest = text.partition(":")
    table, _, key = rest.rpartition(":")
    if not table:
        raise Unknown(f"{text!r} names no record", hint="Give a record number, or a row as SYSTEM:TABLE:KEY.")
    part = next((part for part in topology.systems.values() if part.name == name), None)
    if part is None:
        raise no_such("system", name, (part.name for part in topology.systems.values()))
    places = [place.name for place in part.places]
    if table not in places and table not in [place.rpartition(".")[2] for place in places]:
        raise no_such("table", table, places, f"in the mapping of system {name}")
    raise Unknown(
        f"system {name}, table {table}: no row with key {key!r} is known",
        hint="One that cannot be read is on `concord parked list`; one that was just written is read in a moment.",
    )


def explain(tx: HubTransaction, topology: Topology, rid: int, field: str | None = None) -> Explanation:
    """Everything the hub knows of a record, the oldest first. `field` limits the history to one field. Raises `Unknown`
    when its entity has no such field."""
    entry = tx.current(rid)
    assert entry is not None
    names, fields = system_names(tx), field_names(tx, entry.entity)
    followed = _followed(tx)
    entity: str = tx.rows("select name from entity where id = ?", (entry.entity,))[0][0]
    if field is not None and field not in fields:
        raise no_such("field", field, fields, f"of entity {entity}")
    history = [row for row in _history(tx, entry, names, fields, followed) if field is None or row.field == field]
    rows: list[tuple[str, str, str]] = []
    for part in topology.systems.values():
        for place in part.places_of(entry.entity):
            key = tx.keys_of(place.id, [rid]).get(rid)
            if key is not None:
                rows.append((part.name, place.name, key))
    set_by: dict[str, tuple[str, int, int]] = {}
    for n, name in enumerate(fields):
        stamp = entry.stamp(n)
        if stamp is not None:
            by = followed(stamp.seq)
            set_by[name] = (by[0] if by else names[stamp.origin], stamp.time, stamp.seq)
    return Explanation(
        record=rid,
        entity=entity,
        values={name: entry.value(n) for n, name in enumerate(fields)},
        set_by=set_by,
        rows=rows,
        history=history,
        parked=parked(tx, record=rid, limit=0),
    )


Followed = Callable[[int], tuple[str, int] | None]
"""The workflow that wrote a journal entry, and the record that it follows from."""


def _followed(tx: HubTransaction) -> Followed:
    def find(seq: int) -> tuple[str, int] | None:
        found = tx.rows("select workflow, cause from followed where seq = ?", (seq,))
        return (f"workflow {found[0][0]}", found[0][1]) if found else None

    return find


def _history(
    tx: HubTransaction, entry: Entry, names: dict[int, str], fields: list[str], followed: Followed
) -> Iterator[HistoryRow]:
    chain: list[Entry] = []
    step: Entry | None = entry
    while step is not None:
        chain.append(step)
        step = tx.version(step.prev)
    found: list[HistoryRow] = []
    for n, version in enumerate(chain):
        before = chain[n + 1] if n + 1 < len(chain) else None
        if version.kind != CHANGE:
            continue
        by = followed(version.seq)
        for index in bits(version.mask):
            replaced = before.value(index) if before is not None else None
            if replaced == version.value(index):
                # Set along with the rest of its group.
                continue
            found.append(
                HistoryRow(
                    seq=version.seq, time=version.time, field=fields[index], kind="set",
                    system=by[0] if by else names[version.origin], value=version.value(index), replaced=replaced,
                    because=by[1] if by else None,
                )
            )  # fmt: skip
    for conflict in conflicts(tx, record=entry.rid, limit=0):
        for name, value, other in zip(conflict.fields, conflict.loser_values, conflict.winner_values, strict=False):
            found.append(
                HistoryRow(
                    seq=tx.rows("select seq from conflict where id = ?", (conflict.id,))[0][0],
                    time=conflict.loser_time, field=name, kind="lost", system=conflict.loser, value=value,
                    replaced=other, rule=conflict.rule,
                )
            )  # fmt: skip
    yield from sorted(found, key=lambda row: (row.seq, row.kind == "lost"))
