"""What a person decides: parked records, reviews, conflicts. Carried out by whoever owns the hub.

A command beside a running daemon leaves a request in the hub and the daemon answers it, because the daemon holds parts
of the hub in memory; without a daemon the command owns the hub for a moment and does it itself. All of it is audited.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from engine.errors import ConcordError
from engine.hub.transaction import HubTransaction
from engine.model.record import Value, bits
from engine.pipeline.again import append_again
from engine.pipeline.backfill import order_backfill
from engine.pipeline.settle import has_left, retry
from engine.pipeline.slow import Slow
from engine.pipeline.topology import Topology

BACKFILL = "backfill"


class Wish(msgspec.Struct, frozen=True):
    """What is asked: an action of `ACTIONS` and its arguments."""

    action: str
    id: int
    rid: int = 0
    choice: str = ""


_decode_wish = msgspec.msgpack.Decoder(Wish).decode


class Unknown(ConcordError):
    """A person named something that the hub does not have."""

    code = "unknown"


def carry_out(tx: HubTransaction, topology: Topology, wish: Wish, actor: str) -> str:
    """Do it and say in a sentence what was done. Raises `Unknown` when there is no such thing."""
    answer = ACTIONS[wish.action](tx, topology, wish)
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


def answer_requests(tx: HubTransaction, topology: Topology) -> Answered:
    """Carry out what commands have asked for since."""
    answered = Answered()
    waiting = tx.rows("select id, actor, doc from request where done_at is null order by id")
    for number, actor, document in waiting:
        wish = _decode_wish(document)
        answered.count += 1
        try:
            answer, is_ok = carry_out(tx, topology, wish, actor), True
            answered.read_again.update(_read_again(tx, topology, wish))
        except ConcordError as error:
            answer, is_ok = str(error), False
        tx.write(
            "update request set done_at = ?, answer = ?, is_ok = ? where id = ?",
            (tx.clock.now(), answer, is_ok, number),
        )
    return answered


def _read_again(tx: HubTransaction, topology: Topology, wish: Wish) -> list[str]:
    """The sources that a wish which was carried out is about."""
    if wish.action == BACKFILL:
        return [wish.choice]
    found = tx.rows("select system from parked where id = ? and direction = 'source'", (wish.id,))
    return [topology.systems[system].name for (system,) in found] if wish.action == "parked.retry" else []


def _retry_parked(tx: HubTransaction, topology: Topology, wish: Wish) -> str:
    found = tx.rows("select direction, system, rid from parked where id = ?", (wish.id,))
    if not found:
        raise Unknown(f"nothing is parked under number {wish.id}", hint="Run `concord parked list`.")
    direction, system, rid = found[0]
    if direction == "source":
        name = topology.systems[system].name
        return f"what is set aside of {name} is read again at once, or when the daemon starts"
    if not retry(tx, topology, topology.systems[system], rid):
        return f"record {rid} is on its way to {topology.systems[system].name} already"
    return f"record {rid} is journalled again for {topology.systems[system].name}"


def _drop_parked(tx: HubTransaction, topology: Topology, wish: Wish) -> str:
    found = tx.rows("select direction, system, place, rid, key from parked where id = ?", (wish.id,))
    if not found:
        raise Unknown(f"nothing is parked under number {wish.id}", hint="Run `concord parked list`.")
    direction, system, place, rid, key = found[0]
    name = topology.systems[system].name
    if direction == "source":
        tx.unpark_key(place, key)
        return f"the row of {name} that could not be read is given up; its next change is read as usual"
    entry = tx.current(rid)
    if entry is None or not has_left(tx, topology.systems[system], entry):
        tx.close_stretch(system, rid, tx.last_seq + 1)
    tx.write("delete from parked where id = ?", (wish.id,))
    return f"record {rid} is given up at {name} as it is; its next change is delivered as usual"


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
        raise Unknown(
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


def _backfill(tx: HubTransaction, topology: Topology, wish: Wish) -> str:
    part = next((part for part in topology.systems.values() if part.name == wish.choice), None)
    if part is None or not part.is_source:
        names = ", ".join(part.name for part in topology.systems.values() if part.is_source)
        raise Unknown(f"no system {wish.choice!r} is read", hint=f"There is {names}.")
    order_backfill(tx, part)
    return f"all {len(part.tables)} tables of {part.name} are read again as soon as the daemon runs"


ACTIONS: dict[str, Callable[[HubTransaction, Topology, Wish], str]] = {
    "parked.retry": _retry_parked,
    "parked.drop": _drop_parked,
    "review.link": _link,
    "review.new": _keep_new,
    "conflict.choose": _choose,
    BACKFILL: _backfill,
}
