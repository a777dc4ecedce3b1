"""What a person decides: parked records, reviews, conflicts. Carried out by whoever owns the hub.

A command beside a running daemon leaves a request in the hub and the daemon answers it, because the daemon holds parts
of the hub in memory; without a daemon the command owns the hub for a moment and does it itself. All of it is audited.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from engine.errors import ConcordError, NotNow, Unknown, no_such
from engine.hub.transaction import HubTransaction
from engine.model.entity import ALIVE
from engine.model.record import Entry, Value, bits
from engine.model.table import Shape
from engine.pipeline.again import append_again
from engine.pipeline.backfill import copy_anew, order_backfill
from engine.pipeline.derive import Deriver
from engine.pipeline.gather import document
from engine.pipeline.settle import has_left, retry
from engine.pipeline.shapes import know
from engine.pipeline.slow import Slow
from engine.pipeline.topology import PlacePart, SystemPart, Topology
from engine.ports import KeyRule

BACKFILL = "backfill"
BACKFILL_STATE = "backfill.state"
SCHEMA_ACK = "schema.ack"


class Wish(msgspec.Struct, frozen=True):
    """What is asked: an action of `ACTIONS` and its arguments."""

    action: str
    id: int
    rid: int = 0
    choice: str = ""
    is_missing: bool = False
    rids: tuple[int, ...] = ()
    table: str = ""
    condition: str = ""
    rows_per_s: int | None = None
    rows_total: int | None = None
    shapes: tuple[Shape, ...] = ()


_decode_wish = msgspec.msgpack.Decoder(Wish).decode


def carry_out(tx: HubTransaction, topology: Topology, wish: Wish, actor: str) -> str:
    """Do it and say in a sentence what was done. Raises `Unknown` when there is no such thing, `NotNow` when it cannot
    be done as things are."""
    first = tx.last_seq
    answer = ACTIONS[wish.action](tx, topology, wish)
    if topology.workflows:
        Deriver(topology).derive(tx, first, only_known=True)
    tx.mark_boundary()
    tx.write(
        "insert into audit (at, actor, action, detail) values (?, ?, ?, ?)",
        (tx.clock.now(), actor, wish.action, answer),
    )
    return answer


@dataclass(slots=True)
class Answered:
    """How many requests, and the systems whose lanes are to begin again because of them: they read what was set aside,
    and tables that count as not copied, when they start."""

    count: int = 0
    read_again: set[str] = field(default_factory=lambda: set())
    is_reload: bool = False
    """The daemon is to begin again with its files as they are now."""


def answer_requests(tx: HubTransaction, topology: Topology) -> Answered:
    """Carry out what commands have asked for since."""
    answered = Answered()
    waiting = tx.rows("select id, actor, doc from request where done_at is null order by id")
    for number, actor, packed in waiting:
        wish = _decode_wish(packed)
        answered.count += 1
        try:
            answer, hint, code = carry_out(tx, topology, wish, actor), "", None
            answered.read_again.update(_read_again(tx, topology, wish))
            answered.is_reload = answered.is_reload or wish.action == SCHEMA_ACK
        except ConcordError as error:
            answer, hint, code = error.message, error.hint, error.code
        tx.write(
            "update request set done_at = ?, answer = ?, is_ok = ?, hint = ?, code = ? where id = ?",
            (tx.clock.now(), answer, code is None, hint, code, number),
        )
    return answered


def _read_again(tx: HubTransaction, topology: Topology, wish: Wish) -> list[str]:
    """The sources that a wish which was carried out is about."""
    if wish.action == BACKFILL:
        return [wish.choice]
    if wish.action == BACKFILL_STATE:
        return [topology.systems[_backfill_of(tx, wish.id)[0]].name]
    if wish.action == "parked.retry":
        found = tx.rows("select system from parked where id = ? and direction = 'source'", (wish.id,))
    elif wish.action == "parked.retry_all":
        found = tx.rows("select distinct system from parked where direction = 'source'")
    else:
        return []
    names = [topology.systems[system].name for (system,) in found if system in topology.systems]
    return [name for name in names if wish.choice in ("", name)]


def _retry_parked(tx: HubTransaction, topology: Topology, wish: Wish) -> str:
    found = tx.rows("select direction, system, rid from parked where id = ?", (wish.id,))
    if not found:
        raise Unknown(f"nothing is parked under number {wish.id}", hint="Run `concord parked list`.")
    direction, system, rid = found[0]
    if direction == "source":
        name = topology.systems[system].name
        return f"what is set aside of {name} is read again"
    if not retry(tx, topology, topology.systems[system], rid):
        return f"record {rid} is on its way to {topology.systems[system].name} already"
    return f"record {rid} is journalled again for {topology.systems[system].name}"


def _retry_all(tx: HubTransaction, topology: Topology, wish: Wish) -> str:
    parts = [named_system(topology, wish.choice)] if wish.choice else list(topology.systems.values())
    count = 0
    for part in parts:
        found = tx.rows("select direction, rid from parked where system = ? order by id", (part.id,))
        count += len(found)
        for direction, rid in found:
            if direction == "target":
                retry(tx, topology, part, rid)
    what = "1 parked record is" if count == 1 else f"{count:,} parked records are"
    return f"{what} tried again{f' at {wish.choice}' if wish.choice else ''}"


def dropped(system: str, record: int | None) -> str:
    """What becomes of a parked record that is given up, and how to undo that."""
    if record is None:
        return (
            f"the row of {system} stays unread until it changes, and what it says reaches nobody; `concord compare`"
            f" shows it, `concord backfill {system}` reads it after all"
        )
    return (
        f"{system} keeps what it has of the record until that changes again; `concord compare` shows the difference,"
        f" `concord rewrite {record} --system {system}` writes the record there after all"
    )


def _drop_parked(tx: HubTransaction, topology: Topology, wish: Wish) -> str:
    found = tx.rows("select direction, system, place, rid, key from parked where id = ?", (wish.id,))
    if not found:
        raise Unknown(f"nothing is parked under number {wish.id}", hint="Run `concord parked list`.")
    direction, system, place, rid, key = found[0]
    name = topology.systems[system].name
    if direction == "source":
        tx.unpark_key(place, key)
        return f"given up: {dropped(name, None)}"
    entry = tx.current(rid)
    if entry is None or not has_left(tx, topology.systems[system], entry):
        tx.close_stretch(system, rid, tx.last_seq + 1)
    tx.write("delete from parked where id = ?", (wish.id,))
    return f"record {rid} is given up: {dropped(name, rid)}"


def _review(tx: HubTransaction, wish: Wish) -> tuple[int, int, str, int, list[int]]:
    found = tx.rows(
        "select system, place, key, rid, candidates from review where id = ? and decided_at is null", (wish.id,)
    )
    if not found:
        raise Unknown(f"no review {wish.id} is open", hint="Run `concord review list`.")
    system, place, key, rid, candidates = found[0]
    return system, place, key, rid, msgspec.msgpack.decode(candidates, type=list[int])


def _link(tx: HubTransaction, topology: Topology, wish: Wish) -> str:
    system, place, key, rid, candidates = _review(tx, wish)
    chosen = tx.alias(wish.rid)
    if chosen not in {tx.alias(c) for c in candidates}:
        listed = ", ".join(str(c) for c in candidates)
        raise Unknown(f"record {wish.rid} is no candidate of review {wish.id}", hint=f"Choose one of {listed}.")
    linked = tx.linked_by(place, chosen)
    if linked is not None and linked[1] == 0:
        raise NotNow(
            f"record {chosen} has another row in that table by now, which a user made",
            hint=f"Run `concord explain {chosen}` and decide again.",
        )
    entry = tx.current(rid)
    assert entry is not None
    part = topology.places[place]
    slow = Slow(topology, topology.systems[system], tx)
    slow.move_row(part, key, chosen)
    tx.set_alias(rid, chosen)
    tx.undecided.discard(rid)
    slow.join(topology.entities[part.entity.id], chosen, entry.values, entry.time)
    slow.finish()
    _close_review(tx, wish.id, f"link {chosen}")
    return f"the row is record {chosen}; {slow.conflicts} fields differed and are on record"


def _keep_new(tx: HubTransaction, topology: Topology, wish: Wish) -> str:
    system, _, _, rid, _ = _review(tx, wish)
    entry = tx.current(rid)
    assert entry is not None
    tx.undecided.discard(rid)
    entity = topology.entities[entry.entity]
    append_again(tx, entry, entity.full, entity.concerned & ~topology.systems[system].bit)
    _close_review(tx, wish.id, "new")
    return f"record {rid} is a record of its own and goes to the other systems"


def _close_review(tx: HubTransaction, number: int, decision: str) -> None:
    tx.write("update review set decided_at = ?, decision = ? where id = ?", (tx.clock.now(), decision, number))


def _choose(tx: HubTransaction, topology: Topology, wish: Wish) -> str:
    found = tx.rows("select rid, mask, loser, loser_values from conflict where id = ? and is_open", (wish.id,))
    if not found:
        raise Unknown(f"no conflict {wish.id} is open", hint="Run `concord conflicts --open`.")
    rid, mask, loser, document = found[0]
    tx.write("update conflict set is_open = 0 where id = ?", (wish.id,))
    if wish.choice == "keep":
        return f"conflict {wish.id}: the present value stays"
    entry = tx.current(rid)
    assert entry is not None
    values: dict[int, Value] = dict(zip(bits(mask), msgspec.msgpack.decode(document, type=list[Value]), strict=True))
    slow = Slow(topology, topology.systems[loser], tx)
    slow.override(topology.entities[entry.entity], rid, values, tx.clock.now())
    return f"conflict {wish.id}: the other value is taken and goes to every system"


def _rewrite(tx: HubTransaction, topology: Topology, wish: Wish) -> str:
    """Journal the record's present version for one system, whole. `is_missing`: its row is to be made again, under the
    key it had; a deletion by the system's users that is on its way was made before this and wins all the same.

    Otherwise the row is only updated: a table may demand columns of a new row that the mapping does not have.
    """
    part, rid = named_system(topology, wish.choice), tx.alias(wish.id)
    entry = tx.current(rid)
    if entry is None or entry.rid != rid:
        raise Unknown(f"there is no record {wish.id}", hint="`concord compare` shows the numbers of records.")
    is_update = _has_row(tx, part, entry) and entry.value(ALIVE) and not wish.is_missing
    if not retry(tx, topology, part, rid):
        full = topology.entities[entry.entity].full
        append_again(tx, entry, full & ~(1 << ALIVE) if is_update else full, part.bit)
    if not entry.value(ALIVE):
        return f"record {rid} is deleted, and {part.name} is told so again"
    return f"record {rid} is written to {part.name} again, whole, as it is now"


def _rewrite_missing(tx: HubTransaction, topology: Topology, wish: Wish) -> str:
    """`_rewrite` of many. One that got another fate since they were looked for is left as it is."""
    _need_target(named_system(topology, wish.choice))
    count = 0
    for rid in wish.rids:
        try:
            _rewrite(tx, topology, Wish(action="rewrite", id=rid, choice=wish.choice, is_missing=True))
        except ConcordError:
            continue
        count += 1
    if not wish.rids:
        return f"no row is missing at {wish.choice}"
    left = f", {len(wish.rids) - count:,} are not to have one any more" if count < len(wish.rids) else ""
    return f"{count:,} {'row is' if count == 1 else 'rows are'} made again at {wish.choice}{left}"


def _has_row(tx: HubTransaction, part: SystemPart, entry: Entry) -> bool:
    """Whether a record has a row at a system, as far as the hub knows. Raises `NotNow` when it is not written there."""
    rid, places = entry.rid, part.places_of(entry.entity)
    _need_target(part)
    if not places:
        raise NotNow(
            f"record {rid} has no table at system {part.name}", hint=f"`concord mapping {part.name}` shows what has."
        )
    if rid in tx.undecided:
        raise NotNow(f"record {rid} waits for a decision who it is", hint="Run `concord review list`.")
    linked = [place for place in places if tx.linked_by(place.id, rid) is not None]
    if any(rid in tx.left_of(place.id) for place in linked):
        raise NotNow(
            f"the row of record {rid} does not take part at system {part.name} now",
            hint="The `where` of its [[table]] says which rows do.",
        )
    if not linked and not (entry.value(ALIVE) and any(_takes(place, entry) for place in places)):
        raise NotNow(
            f"record {rid} has no row at system {part.name} and is not to get one",
            hint=f"`concord explain {rid}` shows whether it is deleted, `concord mapping {part.name}` who makes keys.",
        )
    return bool(linked)


def _need_target(part: SystemPart) -> None:
    if not part.is_target:
        raise NotNow(
            f"system {part.name} is only read, never written to", hint='Say mode = "live" for it in concord.toml first.'
        )


def _takes(place: PlacePart, entry: Entry) -> bool:
    accepts = place.place.accepts(place.entity)
    return place.place.key_rule is not KeyRule.NONE and (accepts is None or accepts(document(place, entry)))


def _backfill(tx: HubTransaction, topology: Topology, wish: Wish) -> str:
    part = named_system(topology, wish.choice)
    if not part.is_source:
        raise NotNow(
            f"system {part.name} is only written to, never read",
            hint='Say mode = "live" for it in concord.toml first; or `concord compare` shows what differs there.',
        )
    if wish.table:
        return _backfill_table(tx, part, wish)
    copy_anew(tx, part, part.tables)
    tables = "the table" if len(part.tables) == 1 else f"all {len(part.tables)} tables"
    return f"{tables} of {part.name} {'is' if len(part.tables) == 1 else 'are'} read again, beside the log"


def _backfill_table(tx: HubTransaction, part: SystemPart, wish: Wish) -> str:
    table = named_table(part, wish.table)
    if tx.rows("select 1 from held where system = ? and name = ?", (part.id, table)):
        if wish.condition:
            raise NotNow(
                f"table {table} of {part.name} is held: what of it was missed is not known",
                hint=f"Run `concord backfill {part.name} {table}` without --where.",
            )
        copy_anew(tx, part, [table])
        return f"table {table} of {part.name}, which was held, is read again from its beginning, beside the log"
    number = order_backfill(
        tx,
        part,
        table,
        condition=wish.condition,
        rows_per_s=wish.rows_per_s,
        rows_total=wish.rows_total,
    )
    which = "rows for which the condition holds" if wish.condition else "rows"
    count = "its" if wish.rows_total is None else f"{wish.rows_total:,}"
    return f"backfill {number}: {count} {which} of table {table} of {part.name} are read again, beside the log"


def _backfill_of(tx: HubTransaction, number: int) -> tuple[int, str, str]:
    """System, table and state. Raises `Unknown`."""
    found = tx.rows("select system, name, state from backfill where id = ?", (number,))
    if not found:
        raise Unknown(f"there is no backfill {number}", hint="`concord backfill` lists them.")
    return found[0]


def _set_backfill_state(tx: HubTransaction, topology: Topology, wish: Wish) -> str:
    """`choice`: running, paused or stopped."""
    _, table, state = _backfill_of(tx, wish.id)
    if state in ("done", "stopped"):
        raise NotNow(f"backfill {wish.id} is {state}", hint="Begin another one.")
    tx.write(
        "update backfill set state = ?, message = '', changed_at = ? where id = ?",
        (wish.choice, tx.clock.now(), wish.id),
    )
    means = {"running": "goes on behind the last row that was read", "paused": "waits", "stopped": "is given up"}
    return f"backfill {wish.id} of table {table} {means[wish.choice]}"


def _acknowledge(tx: HubTransaction, topology: Topology, wish: Wish) -> str:
    """The shapes are taken as known. Whoever asks has seen that the mapping, as its file is now, fits them."""
    part = named_system(topology, wish.choice)
    for shape in wish.shapes:
        know(tx, part, shape.name, shape)
    names = ", ".join(shape.name for shape in wish.shapes)
    return f"{part.name}: {names} {'is' if len(wish.shapes) == 1 else 'are'} acknowledged as they are now"


def named_table(part: SystemPart, name: str) -> str:
    """A table of the system that is mapped, or joined to one that is; it may be named without its schema. Raises
    `Unknown`."""
    found = [table for table in part.logged if name in (table, table.rpartition(".")[2])]
    if len(found) != 1:
        raise no_such("table", name, part.logged, f"in the mapping of system {part.name}")
    return found[0]


def named_system(topology: Topology, name: str) -> SystemPart:
    """Raises `Unknown` when no system has this name."""
    found = next((part for part in topology.systems.values() if part.name == name), None)
    if found is None:
        raise no_such("system", name, (part.name for part in topology.systems.values()))
    return found


ACTIONS: dict[str, Callable[[HubTransaction, Topology, Wish], str]] = {
    "parked.retry": _retry_parked,
    "parked.retry_all": _retry_all,
    "parked.drop": _drop_parked,
    "rewrite": _rewrite,
    "rewrite.missing": _rewrite_missing,
    "review.link": _link,
    "review.new": _keep_new,
    "conflict.choose": _choose,
    BACKFILL: _backfill,
    BACKFILL_STATE: _set_backfill_state,
    SCHEMA_ACK: _acknowledge,
}
