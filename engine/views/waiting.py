"""What is on record, and what waits for a person: conflicts, parked records, reviews."""

from __future__ import annotations

import msgspec

from engine.errors import no_such
from engine.hub.transaction import HubTransaction
from engine.model.record import Value, bits
from engine.views.names import field_names, system_names, values_of


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
