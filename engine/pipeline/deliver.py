"""Stage 6: one target's lane. Journal entries behind its cursor become one transaction at the target, marker first.

Whatever happens in between, the marker in the target says how far it is; the hub follows it (`_recover`).
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass

import anyio

from engine.errors import MarkerAhead, TableHeld
from engine.hub.sqlite import SqliteHub
from engine.hub.transaction import HubTransaction
from engine.model.table import Shape
from engine.pipeline.gather import CHUNK_ENTRIES, Fresh, Gathered, gather
from engine.pipeline.settle import Outcome, prepare, prepared, recover_links, settle
from engine.pipeline.topology import PlacePart, SystemPart, Topology
from engine.pipeline.write import Writing
from engine.ports import TargetSession, Writer

# About what one target transaction writes: long enough to be fast, short enough to hold locks for a moment only.
DELIVERY_ENTRIES = 10_000


@dataclass(frozen=True, slots=True)
class Delivered:
    """One step of the lane, for the log. `until`: the new cursor."""

    after: int
    until: int
    outcome: Outcome


class Deliverer:
    """Delivers to one target over one open session."""

    def __init__(
        self, hub: SqliteHub, topology: Topology, system: SystemPart, session: TargetSession, shapes: dict[str, Shape]
    ) -> None:
        self.hub = hub
        self.topology = topology
        self.system = system
        self.session = session
        self._writers: dict[int, Writer | TableHeld] = {}
        self._shapes: dict[str, Shape] = {}
        self._uncaptured: frozenset[str] = frozenset()
        self.has_held_tables = False
        self._sent: Delivered | None = None
        """Committed by the target and not settled in the hub."""
        self.reshape(shapes)

    def reshape(self, shapes: dict[str, Shape]) -> bool:
        """Compile the writers for the tables as they are now; whether any of them is not as it was."""
        is_other, self._shapes = shapes != self._shapes, shapes
        for part in self.system.places:
            self._writers[part.id] = _writer(part, shapes.get(part.place.table), self.system)
        self.has_held_tables = any(isinstance(writer, TableHeld) for writer in self._writers.values())
        return is_other

    def let_go(self, tx: HubTransaction) -> bool:
        """Whether tables that were not captured for a while are again, and have been read."""
        now = uncaptured(tx, self.system, self._uncaptured)
        is_other, self._uncaptured = bool(self._uncaptured - now), now
        return is_other

    def _writing_to(self, part: PlacePart) -> Writer | TableHeld:
        if part.place.table not in self._uncaptured:
            return self._writers[part.id]
        return TableHeld(
            f"system {self.system.name}, table {part.place.table}: its changes are not captured, and a delivery could"
            " overwrite one of them unseen",
            hint=f"Do what `concord status` says of the table; `concord backfill {self.system.name}` lets it go on.",
            system=self.system.name,
            table=part.place.table,
        )

    async def start(self) -> None:
        """Fence earlier daemons, and learn what became of the last delivery."""
        marker = await self.session.claim(self.topology.hub_id, self.hub.epoch)
        known, ahead = await self.hub.read(lambda tx: tx.system(self.system.id, "marker, ahead"))
        end = max(self.hub.opened_at, self.hub.sent.get(self.system.id, 0))
        if marker > end or (ahead and marker >= ahead):
            await self._note_ahead(marker)
            raise MarkerAhead(
                f"system {self.system.name} has marker {marker}, which this hub has not delivered",
                hint="The hub was restored from an older copy; restore its newest backup, then `concord compare`.",
                system=self.system.name,
            )
        if ahead:
            await self._note_ahead(0)
        if marker < known:
            raise MarkerAhead(
                f"system {self.system.name} has marker {marker}, the hub has delivered {known}",
                hint=f"{self.system.name} was restored from an older copy, or the hub belongs to another one: run"
                " `concord compare` and bring the right pair together. If it was torn down and set up again over the"
                " same data, put its marker back as the plugin's chapter says. Then start the daemon again.",
                system=self.system.name,
            )
        if marker > known:
            await self._recover(known, marker)
        else:
            # Refusals of a delivery that never happened: the next attempt may have none.
            await self.hub.transact(lambda tx: tx.write("delete from prepared where system = ?", (self.system.id,)))

    async def _note_ahead(self, marker: int) -> None:
        """The journal will grow past such a marker, which must not make it one of our own."""
        await self.hub.transact(
            lambda tx: tx.write("update system set ahead = ? where id = ?", (marker, self.system.id))
        )

    async def _recover(self, known: int, marker: int) -> None:
        assigned = await self.session.assigned(known)
        places = {part.name: part.id for part in self.system.places}

        def follow(tx: HubTransaction) -> None:
            (cursor,) = tx.system(self.system.id, "cursor")
            outcome = Outcome(refusals=prepared(tx, self.system, marker), is_written=True)
            refused = {r.parked.rid for r in outcome.refusals if r.parked.rid is not None}
            fresh = Fresh()
            for a in assigned:
                if a.place in places:
                    fresh.add(places[a.place], [a.key], [a.rid])
                    outcome.links.add(places[a.place], a.key, a.rid)
            after = cursor
            while after < marker:
                until = min(after + CHUNK_ENTRIES, marker)
                gathered = gather(tx, self.topology, self.system, after, until, fresh, is_recovery=True)
                recover_links(self.topology, gathered, refused, outcome.links)
                # What is parked stays so: a row that was refused was not delivered, whatever else is known of it.
                outcome.rids |= gather(tx, self.topology, self.system, after, until, fresh).rids
                after = until
            settle(tx, self.topology, self.system, marker, outcome)

        await self.hub.transact(follow)

    async def step(self) -> Delivered | None:
        """Deliver up to the next boundary and settle it; None when there is nothing behind the cursor.

        While the hub settles one delivery the next may be on its way already, but the target commits it only then: the
        marker is never more than one delivery ahead of the hub.
        """
        if self._sent is None:
            self._sent = await self._send(None, None)
        sent = self._sent
        if sent is None:
            return None
        settled = anyio.Event()
        if not self._leaves_the_next_alone(sent.outcome):
            await self._settle(sent, settled)
            return sent
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._settle, sent, settled)
            self._sent = await self._send(sent, settled)
        return sent

    def _leaves_the_next_alone(self, outcome: Outcome) -> bool:
        """Whether the next delivery can be worked out before this one is settled: nothing was refused, and nobody but
        us makes rows there, who might have made one of the same key meanwhile."""
        is_alone = not self.system.is_source or not outcome.links.places
        return is_alone and not outcome.refusals and not outcome.changed

    async def _send(self, previous: Delivered | None, settled: anyio.Event | None) -> Delivered | None:
        """The next delivery, up to the target's commit. `previous`: one that is being settled; it is, at `settled`."""
        fresh = Fresh(None if previous is None else previous.outcome.links.places)

        def next_stretch(tx: HubTransaction) -> tuple[int, int, Gathered | None]:
            # Only `let_go` takes away, which has what was refused meanwhile tried again.
            self._uncaptured |= uncaptured(tx, self.system, self._uncaptured)
            cursor = tx.system(self.system.id, "cursor")[0] if previous is None else previous.until
            until = tx.boundary(cursor, DELIVERY_ENTRIES)
            if until == cursor:
                return cursor, until, None
            last = min(until, cursor + CHUNK_ENTRIES)
            return cursor, until, gather(tx, self.topology, self.system, cursor, last, fresh)

        cursor, until, gathered = await self.hub.read(next_stretch)
        if gathered is None:
            return None
        outcome = Outcome()
        async with AsyncExitStack() as stack:
            writing = Writing(
                self.hub,
                self.topology,
                self.system,
                {part.id: self._writing_to(part) for part in self.system.places},
                outcome=outcome,
                until=until,
                fresh=fresh,
                is_long=until - cursor > CHUNK_ENTRIES,
            )
            last = min(until, cursor + CHUNK_ENTRIES)
            while True:
                # Due, and perhaps with nothing to write (deleted before it ever came here): that settles it too.
                outcome.rids |= gathered.rids
                outcome.changed |= gathered.changed
                if not gathered.is_empty:
                    if writing.delivery is None:
                        self.hub.sent[self.system.id] = until
                        writing.delivery = await stack.enter_async_context(self.session.delivery(until))
                    await writing.write(gathered)
                if last >= until:
                    break
                after, last = last, min(until, last + CHUNK_ENTRIES)
                gathered = await self.hub.read(
                    lambda tx, a=after, b=last: gather(tx, self.topology, self.system, a, b, writing.fresh)
                )
            outcome.is_written = writing.delivery is not None
            if settled is not None:
                await settled.wait()
            if outcome.refusals and outcome.is_written:
                await self.hub.transact(lambda tx: prepare(tx, self.system, until, outcome.refusals))
        if any(refusal.parked.reason == "table" for refusal in outcome.refusals):
            self.has_held_tables = True
        # From here on the target has committed; a crash before it is settled is what `_recover` is for.
        return Delivered(cursor, until, outcome)

    async def _settle(self, sent: Delivered, settled: anyio.Event) -> None:
        # Where nobody but us makes rows, and none of them is linked already, there is nothing to look up first.
        is_sure = not self.system.is_source and sent.until - sent.after <= CHUNK_ENTRIES
        await self.hub.transact(
            lambda tx: settle(tx, self.topology, self.system, sent.until, sent.outcome, is_sure=is_sure)
        )
        if self._sent is sent:
            self._sent = None
        settled.set()


def uncaptured(tx: HubTransaction, system: SystemPart, before: frozenset[str]) -> frozenset[str]:
    """Tables of the system whose users' changes are not all known: no log of them is read, or none was (`before`), and
    they have not been read again to their end."""
    held = {name for (name,) in tx.rows("select name from held where system = ? and is_uncaptured", (system.id,))}
    if before - held:
        done = {place for (place,) in tx.rows("select place from snapshot where is_done")}
        held |= {p.place.table for p in system.places if p.place.table in before and p.id not in done}
    return frozenset(held)


def _writer(part: PlacePart, shape: Shape | None, system: SystemPart) -> Writer | TableHeld:
    if shape is None:
        return TableHeld(
            f"system {system.name}: table {part.place.table} does not exist",
            hint="Create the table again or take it out of the mapping; its records wait.",
            system=system.name,
            table=part.place.table,
        )
    try:
        return part.place.writer(shape, part.entity)
    except TableHeld as error:
        return error
