"""What people ask the hub: state of systems, conflicts, parked records, reviews, a record's history. Reads only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from engine.errors import TableHeld, Unknown, no_such
from engine.hub.transaction import HubTransaction
from engine.model.record import CHANGE, Entry, Value, bits
from engine.pipeline.topology import SystemPart, Topology


class StatusRow(msgspec.Struct, kw_only=True):
    """One system. Times in microseconds since 1970 UTC; `behind` counts journal entries not delivered yet."""

    system: str
    reads: str
    writes: str
    position: str
    captured_at: int
    delivered_at: int
    behind: int
    seen: int
    rows_read: int
    rows_echoed: int
    rows_filtered: int
    rows_parked: int
    rows_written: int
    read_rate: float
    write_rate: float
    parked: int
    conflicts: int
    reviews: int
    errors: list[str]
    held: list[str]
    copied: str = ""
    retained_bytes: int | None = None
    lag_bytes: int | None = None


class ConflictRow(msgspec.Struct, kw_only=True):
    """One conflict: fields, the rule that decided, both values, who set them and when."""

    id: int
    entity: str
    record: int
    fields: list[str]
    rule: str
    winner: str
    winner_values: list[Value]
    winner_time: int
    loser: str
    loser_values: list[Value]
    loser_time: int
    recorded_at: int
    is_open: bool


class ParkedRow(msgspec.Struct, kw_only=True):
    """One record or row set aside. `rows`: where the record has rows, each as SYSTEM:TABLE:KEY; one that is new to the
    system that refused it has a key elsewhere only."""

    id: int
    system: str
    direction: str
    table: str
    key: str | None
    record: int | None
    reason: str
    field: str | None
    message: str
    hint: str
    attempts: int
    parked_at: int
    try_after: int
    rows: list[str] = []


class ReviewRow(msgspec.Struct, kw_only=True):
    """A row that matches several records. `values`: of the row; `candidates`: rid and values of each."""

    id: int
    system: str
    table: str
    key: str
    entity: str
    values: dict[str, Value]
    candidates: list[tuple[int, dict[str, Value]]]
    created_at: int


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


@dataclass(slots=True)
class BackfillRow:
    """A table that is or was read again. `state`: running, paused, failed, stopped, done. `rows_total`: as counted when
    it was ordered. `rate`: rows a second; `seconds_left`: at that rate, None where nobody can tell. Times:
    microseconds since 1970 UTC."""

    id: int
    system: str
    table: str
    condition: str
    rows_per_s: int | None
    state: str
    rows_read: int
    rows_total: int | None
    rate: float
    seconds_left: float | None
    message: str
    created_at: int
    changed_at: int


def backfills(tx: HubTransaction, limit: int = 50, *, only_open: bool = False) -> list[BackfillRow]:
    """The newest first. `limit` 0: all. `only_open`: that are neither done nor given up."""
    names = system_names(tx)
    which = " where state not in ('done', 'stopped')" if only_open else ""
    rows = tx.rows(
        "select id, system, name, condition, rows_per_s, state, rows_read, rows_total, rate, message, created_at,"
        f" changed_at from backfill{which} order by id desc limit ?",
        (limit or -1,),
    )
    found: list[BackfillRow] = []
    for number, system, name, condition, pace, state, read, total, rate, message, created_at, changed_at in rows:
        left = None
        if state == "running" and total is not None and rate > 0:
            left = max(0, total - read) / rate
        found.append(
            BackfillRow(
                number, names[system], name, condition, pace, state, read, total, rate, left, message, created_at,
                changed_at,
            )
        )  # fmt: skip
    return found


def rows_set_aside(tx: HubTransaction, part: SystemPart) -> dict[str, int]:
    """How many rows of each table wait because the mapping did not fit the table."""
    tables = {place.id: place.place.table for place in part.places}
    found: dict[str, int] = {}
    for place, count in tx.rows(
        "select place, count(*) from parked where system = ? and direction = 'source' and code = ? group by place",
        (part.id, TableHeld.code),
    ):
        if place in tables:
            found[tables[place]] = found.get(tables[place], 0) + count
    return found


def count_backfills(tx: HubTransaction) -> int:
    return tx.rows("select count(*) from backfill")[0][0]


def status(tx: HubTransaction, topology: Topology) -> list[StatusRow]:
    """Every configured system."""
    found: list[StatusRow] = []
    last = tx.last_seq
    for part in topology.systems.values():
        row = tx.system(
            part.id,
            "position, captured_at, delivered_at, cursor, seen, rows_read, rows_echoed, rows_filtered, rows_parked,"
            " rows_written, source_state, source_error, target_state, target_error, read_rate, write_rate",
        )
        position = tx.position(part.id)
        places = {place.id for place in part.places}
        copied = {place for (place,) in tx.rows("select place from snapshot where is_done")} & places
        found.append(
            StatusRow(
                system=part.name,
                reads=row[10] if part.is_source else "-",
                writes=row[12] if part.is_target else "-",
                position="-" if position is None else "/".join(str(n) for n in position.order),
                captured_at=row[1],
                delivered_at=row[2],
                behind=last - row[3] if part.is_target else 0,
                seen=row[4],
                rows_read=row[5],
                rows_echoed=row[6],
                rows_filtered=row[7],
                rows_parked=row[8],
                rows_written=row[9],
                read_rate=row[14],
                write_rate=row[15],
                parked=_count(tx, "parked where system = ?", part.id),
                conflicts=_count(tx, "conflict where loser = ?", part.id),
                reviews=_count(tx, "review where decided_at is null and system = ?", part.id),
                errors=[text for text in (row[11], row[13]) if text],
                held=[f"{text}\n{hint}" for text, hint in tx.rows(
                    "select message, hint from held where system = ? order by name", (part.id,))]
                + [f"system {part.name}, table {table}: its mapping does not fit, rows that wait: {count:,}\n"
                   f"`concord schema list {part.name}` says what has changed."
                   for table, count in sorted(rows_set_aside(tx, part).items())],
                copied=f"{len(copied)}/{len(places)}" if part.is_source else "-",
            )
        )  # fmt: skip
    return found


def _count(tx: HubTransaction, where: str, system: int) -> int:
    return tx.rows(f"select count(*) from {where}", (system,))[0][0]


def system_names(tx: HubTransaction) -> dict[int, str]:
    return {0: "a person", **dict(tx.rows("select id, name from system"))}


def field_names(tx: HubTransaction, entity: int) -> list[str]:
    return [name for (name,) in tx.rows("select name from field where entity = ? order by indexed", (entity,))]


def conflicts(
    tx: HubTransaction, *, record: int | None = None, only_open: bool = False, limit: int = 50
) -> list[ConflictRow]:
    """The newest first. `limit` 0: all."""
    names = system_names(tx)
    entities: dict[int, str] = dict(tx.rows("select id, name from entity"))
    where, bindings = _which_conflicts(record, only_open=only_open)
    rows = tx.rows(
        "select id, entity, rid, mask, rule, winner, winner_values, winner_time, loser, loser_values, loser_time,"
        f" recorded_at, is_open from conflict{where} order by id desc limit ?",
        (*bindings, limit or -1),
    )
    found: list[ConflictRow] = []
    for r in rows:
        fields = field_names(tx, r[1])
        found.append(
            ConflictRow(
                id=r[0],
                entity=entities[r[1]],
                record=r[2],
                fields=[fields[n] for n in bits(r[3])],
                rule=r[4],
                winner=names[r[5]],
                winner_values=msgspec.msgpack.decode(r[6]),
                winner_time=r[7],
                loser=names[r[8]],
                loser_values=msgspec.msgpack.decode(r[9]),
                loser_time=r[10],
                recorded_at=r[11],
                is_open=bool(r[12]),
            )
        )
    return found


def count_conflicts(tx: HubTransaction, *, record: int | None = None, only_open: bool = False) -> int:
    where, bindings = _which_conflicts(record, only_open=only_open)
    return tx.rows(f"select count(*) from conflict{where}", bindings)[0][0]


def _which_conflicts(record: int | None, *, only_open: bool) -> tuple[str, tuple[int, ...]]:
    clauses = ["rid = ?"] * (record is not None) + ["is_open"] * only_open
    return f" where {' and '.join(clauses)}" if clauses else "", () if record is None else (record,)


def parked(
    tx: HubTransaction, *, system: str | None = None, number: int | None = None, record: int | None = None,
    limit: int = 50,
) -> list[ParkedRow]:  # fmt: skip
    """The oldest first. `limit` 0: all. Raises `Unknown` when the hub knows no such system."""
    names = system_names(tx)
    places = dict(tx.rows("select id, name from place"))
    rows = tx.rows(
        "select id, system, direction, place, key, rid, reason, field, message, hint, attempts, parked_at, try_after"
        " from parked where (?1 is null or system = ?1) and (?2 is null or id = ?2) and (?3 is null or rid = ?3)"
        " order by id limit ?4",
        (_system_number(names, system), number, record, limit or -1),
    )
    found = [
        ParkedRow(
            id=r[0], system=names[r[1]], direction=r[2], table=places[r[3]], key=r[4], record=r[5], reason=r[6],
            field=r[7], message=r[8], hint=r[9], attempts=r[10], parked_at=r[11], try_after=r[12],
        )
        for r in rows
    ]  # fmt: skip
    _add_rows(tx, names, found)
    return found


def count_parked(tx: HubTransaction, system: str | None = None) -> int:
    number = _system_number(system_names(tx), system)
    return tx.rows("select count(*) from parked where ?1 is null or system = ?1", (number,))[0][0]


def _system_number(names: dict[int, str], system: str | None) -> int | None:
    if system is None:
        return None
    numbers = {name: number for number, name in names.items() if number}
    if system not in numbers:
        raise no_such("system", system, numbers)
    return numbers[system]


def _add_rows(tx: HubTransaction, names: dict[int, str], found: list[ParkedRow]) -> None:
    rids = sorted({row.record for row in found if row.record is not None})
    places = tx.rows("select id, system, name from place order by id") if rids else []
    keys = [(names[system], name, tx.keys_of(place, rids)) for place, system, name in places]
    for row in found:
        if row.record is not None:
            row.rows = [f"{system}:{name}:{known[row.record]}" for system, name, known in keys if row.record in known]


def reviews(tx: HubTransaction, limit: int = 50) -> list[ReviewRow]:
    """Open ones, the oldest first. `limit` 0: all."""
    names = system_names(tx)
    rows = tx.rows(
        "select r.id, r.system, p.name, r.key, r.rid, r.candidates, r.created_at, e.id, e.name from review r"
        " join place p on p.id = r.place join entity e on e.id = p.entity"
        " where r.decided_at is null order by r.id limit ?",
        (limit or -1,),
    )
    return [
        ReviewRow(
            id=r[0],
            system=names[r[1]],
            table=r[2],
            key=r[3],
            entity=r[8],
            values=values_of(tx, r[4]),
            candidates=[(rid, values_of(tx, rid)) for rid in msgspec.msgpack.decode(r[5], type=list[int])],
            created_at=r[6],
        )
        for r in rows
    ]


def count_reviews(tx: HubTransaction) -> int:
    return tx.rows("select count(*) from review where decided_at is null")[0][0]


def values_of(tx: HubTransaction, rid: int) -> dict[str, Value]:
    """A record's current values by field name, nulls left out."""
    entry = tx.current(rid)
    if entry is None:
        return {}
    return {n: v for n, v in zip(field_names(tx, entry.entity), entry.values, strict=False) if v is not None}


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
    entity: str = tx.rows("select name from entity where id = ?", (entry.entity,))[0][0]
    if field is not None and field not in fields:
        raise no_such("field", field, fields, f"of entity {entity}")
    history = [row for row in _history(tx, entry, names, fields) if field is None or row.field == field]
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
            set_by[name] = (names[stamp.origin], stamp.time, stamp.seq)
    return Explanation(
        record=rid,
        entity=entity,
        values={name: entry.value(n) for n, name in enumerate(fields)},
        set_by=set_by,
        rows=rows,
        history=history,
        parked=parked(tx, record=rid, limit=0),
    )


def _history(tx: HubTransaction, entry: Entry, names: dict[int, str], fields: list[str]) -> Iterator[HistoryRow]:
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
        for index in bits(version.mask):
            replaced = before.value(index) if before is not None else None
            if replaced == version.value(index):
                # Set along with the rest of its group.
                continue
            found.append(
                HistoryRow(
                    seq=version.seq, time=version.time, field=fields[index], kind="set",
                    system=names[version.origin], value=version.value(index), replaced=replaced,
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
