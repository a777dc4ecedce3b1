"""Joins the stages: one source's lane and one target's lane, from opening the connection to the last cleanup."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

import anyio

from engine.errors import DeliveryHeld, PositionLost
from engine.hub.exceptions import Stretch
from engine.hub.sqlite import SqliteHub
from engine.hub.transaction import HubTransaction
from engine.model.change import EventKind
from engine.model.entity import ALIVE
from engine.model.record import PLACEHOLDER, Entry
from engine.pipeline.again import append_again
from engine.pipeline.backfill import open_feed
from engine.pipeline.canonicalize import CanonicalBatch
from engine.pipeline.capture import Capturer, replay_parked
from engine.pipeline.commit import Counts
from engine.pipeline.deliver import Delivered, Deliverer
from engine.pipeline.joined import Joiner, are_copied
from engine.pipeline.joined_system import JoinedSystem
from engine.pipeline.resolve import NEVER
from engine.pipeline.settle import SHAPE_CODES, has_left, make_due, retry_due
from engine.pipeline.shapes import note_shapes
from engine.pipeline.signals import Signals
from engine.pipeline.topology import SystemPart, Topology
from engine.ports import Source, System, Target

# How often an idle target looks whether something parked is due.
IDLE_SECONDS = 2.0
# Records journalled at once for a system that joins later.
ADMIT_RECORDS = 5_000


@dataclass(frozen=True, slots=True)
class Hooks:
    """What the daemon wants to hear of. Called after the fact, never inside a transaction."""

    committed: Callable[[SystemPart, Counts, CanonicalBatch], Awaitable[None]]
    delivered: Callable[[SystemPart, Delivered], Awaitable[None]]
    claimed: Callable[[SystemPart], None]


class Gate(Protocol):
    """Who may begin when. Both return once the system may, or raise why not."""

    async def may_read(self, part: SystemPart) -> None: ...
    async def may_write(self, part: SystemPart) -> None: ...


@dataclass(frozen=True, slots=True)
class Flow:
    """What all lanes of one daemon share. `gate`: None lets everybody begin at once."""

    hub: SqliteHub
    topology: Topology
    signals: Signals
    hooks: Hooks
    gate: Gate | None = None


async def run_source(flow: Flow, part: SystemPart, system: System, source: Source) -> None:
    """Capture one system until cancelled or something fails."""
    if flow.gate is not None:
        await flow.gate.may_read(part)
    shapes = await system.shapes(part.tables)
    position = await flow.hub.read(lambda tx: tx.position(part.id))
    # Where writing one row may change others (triggers, cascades), what a delivery made of all of them is looked at;
    # else only where the system sets fields of new rows by itself, or the mapping has values rounded or cut.
    verify = frozenset(p.place.table for p in part.places if p.place.own_fields(p.entity) or p.place.is_lossy)
    if any(shape.has_triggers for shape in shapes.values()):
        verify = frozenset(shapes)
    verify = verify if part.is_target else frozenset[str]()
    # What is kept of joined tables is what they hold: our own deliveries are among it, also those of a time when more
    # than reading was configured.
    verify |= frozenset(part.joins.bases)
    joiner = Joiner(part, await system.base_shapes(part.tables)) if isinstance(system, JoinedSystem) else None

    async def committed(counts: Counts, batch: CanonicalBatch) -> None:
        await flow.hooks.committed(part, counts, batch)
        if any(event.kind is EventKind.RESHAPED for segment in batch.segments for event in segment.events):
            await _replay(flow, part, system)

    try:
        async with open_feed(flow.hub, part, source, position, verify) as feed:
            # Behind the feed's first look at the tables: a change between two looks the other way round would be
            # news to neither.
            await _replay(flow, part, system)
            flow.signals.lost.discard(part.id)
            flow.signals.opened[part.id].set()
            await Capturer(flow.hub, flow.topology, part, feed, flow.signals, committed, joiner).run()
    except* PositionLost:
        flow.signals.lost.add(part.id)
        # The target may be waiting for something to deliver.
        flow.signals.journal.ring()
        raise
    finally:
        flow.signals.opened[part.id].set()


async def _replay(flow: Flow, part: SystemPart, system: System) -> None:
    """Read what could not be read again, now that tables or mapping may be other ones."""
    shapes = await system.shapes(part.tables)

    def replay(tx: HubTransaction) -> Counts:
        note_shapes(tx, part, shapes)
        return replay_parked(tx, flow.topology, part, shapes)

    counts = await flow.hub.transact(replay)
    if counts.entries:
        flow.signals.journal.ring()


async def run_target(flow: Flow, part: SystemPart, system: System, target: Target) -> None:
    """Deliver to one system until cancelled or something fails."""
    shapes = await system.shapes(part.tables)
    async with target.open(part.tables) as session:
        lane = Deliverer(flow.hub, flow.topology, part, session, shapes)
        await lane.start()
        flow.hooks.claimed(part)
        # Whoever starts a lane again has mended something; what is parked need not wait for its next turn.
        await flow.hub.transact(lambda tx: make_due(tx, part))
        if not part.is_source:
            await flow.hub.transact(lambda tx: note_shapes(tx, part, shapes))
        flow.signals.cursor[part.id].ring()
        await _wait_copied(flow, part)
        if flow.gate is not None:
            await flow.gate.may_write(part)
        if part.is_source:
            await flow.signals.opened[part.id].wait()
        await _admit(flow, part)
        await _deliver(flow, part, system, lane)


async def _deliver(flow: Flow, part: SystemPart, system: System, lane: Deliverer) -> None:
    try:
        while True:
            event = flow.signals.journal.next
            if part.id in flow.signals.lost:
                raise DeliveryHeld(
                    f"nothing is written to {part.name} while its log is lost: what its users changed since would be"
                    " overwritten unseen",
                    hint=f"Mend what `concord status` says of its source, then run `concord backfill {part.name}`.",
                    system=part.name,
                )
            delivered = await lane.step()
            if delivered is not None:
                flow.signals.reached[part.id] = delivered.until
                flow.signals.cursor[part.id].ring()
                await flow.hooks.delivered(part, delivered)
                if any(refusal.parked.code in SHAPE_CODES for refusal in delivered.outcome.refusals):
                    await _look_again(flow, part, system, lane)
                continue
            with anyio.move_on_after(IDLE_SECONDS):
                await event.wait()
                continue
            if lane.has_held_tables:
                await _look_again(flow, part, system, lane)
            if await flow.hub.transact(lambda tx: retry_due(tx, flow.topology, part)):
                flow.signals.journal.ring()
    finally:
        flow.signals.reached.pop(part.id, None)


async def _look_again(flow: Flow, part: SystemPart, system: System, lane: Deliverer) -> None:
    """See whether the tables are other than when their writers were compiled; then what these refused is due."""
    # Both are asked: each remembers what it saw.
    if lane.reshape(await system.shapes(part.tables)) | await flow.hub.read(lane.let_go):
        await flow.hub.transact(lambda tx: make_due(tx, part, only_of_shape=True))


async def _wait_copied(flow: Flow, part: SystemPart) -> None:
    """A system's own rows must be known before it gets others', or one customer would be there twice."""
    if not part.is_source:
        return
    while True:
        event = flow.signals.cursor[part.id].next
        if await flow.hub.read(lambda tx: is_copied(tx, part)):
            return
        await event.wait()


def is_copied(tx: HubTransaction, part: SystemPart) -> bool:
    """Whether the first copies of all of a system's tables are complete."""
    done = {place for (place,) in tx.rows("select place from snapshot where is_done")}
    return {place.id for place in part.places} <= done and are_copied(tx, part)


async def _admit(flow: Flow, part: SystemPart) -> None:
    """Journal every record again for a system that joined a hub with records, or was not written to for a while; those
    that came since know of it."""
    (state,), last = await flow.hub.read(lambda tx: (tx.system(part.id, "is_admitted"), tx.last_seq))
    if state > 0:
        return
    was_away = state < 0
    for after in range(0, last, ADMIT_RECORDS):
        await flow.hub.transact(
            lambda tx, a=after: _admit_range(tx, flow.topology, part, a, a + ADMIT_RECORDS, was_away=was_away)
        )
    await flow.hub.transact(lambda tx: tx.write("update system set is_admitted = 1 where id = ?", (part.id,)))


def _admit_range(
    tx: HubTransaction, topology: Topology, part: SystemPart, after: int, until: int, *, was_away: bool
) -> None:
    rids = [rid for (rid,) in tx.rows(
        "select rid from record where rid > ?1 and rid <= ?2"
        " union select seq from journal where seq > ?1 and seq <= ?2",
        (after, until),
    )]  # fmt: skip
    entries, cursor = tx.load_records(rids), tx.system(part.id, "cursor")[0]
    for rid in rids:
        # A seq that is no record's birth loads nothing under its own number. What nobody has shown yet stays what its
        # row can still be matched from: journalled again it would pass for a record that is known.
        entry = entries.get(rid)
        if entry is None or entry.kind == PLACEHOLDER or not part.places_of(entry.entity):
            continue
        full = topology.entities[entry.entity].full
        if rid in tx.undecided or has_left(tx, part, entry):
            continue
        if was_away:
            _catch_up(tx, part, entry, full, cursor)
        elif entry.value(ALIVE) and not entry.concerned & part.bit:
            append_again(tx, entry, full, part.bit)
    tx.mark_boundary()


def _catch_up(tx: HubTransaction, part: SystemPart, entry: Entry, full: int, cursor: int) -> None:
    """Bring a record up to date of which the system got only a part: what it holds of it is what it held before, until
    this arrives, and what it should have got before that is not delivered alone."""
    is_current = entry.seq <= cursor or (entry.origin == part.id and not entry.prev)
    stretches = tx.stretches(part.id, entry.rid)
    is_cut_off = bool(stretches) and stretches[-1].good is None
    # What it wrote meanwhile and lost was never written back.
    if is_current and not is_cut_off and entry.rid not in tx.overlaid(part.id):
        return
    again = append_again(tx, entry, full, part.bit)
    first = cursor + 1
    if stretches and (stretches[-1].good is None or stretches[-1].good > cursor):
        # It was refused before the system went away, and has not got its retry: nothing has reached it since then.
        first = stretches[-1].refused
    tx.set_stretch(part.id, entry.rid, Stretch(first, again.seq))
    for n, overlay in tx.overlays(part.id, entry.rid).items():
        if overlay.until == NEVER:
            tx.set_overlay(part.id, entry.rid, n, overlay._replace(until=again.seq))
