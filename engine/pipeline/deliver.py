"""Stage 6: one target's lane. Journal entries behind its cursor become one transaction at the target, marker first.

Whatever happens in between, the marker in the target says how far it is; the hub follows it (`_recover`).
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass

from engine.errors import MarkerAhead, RowRefused, TableHeld, ValueRefused
from engine.hub.sqlite import SqliteHub
from engine.hub.transaction import HubTransaction, Parked
from engine.model.entity import ALIVE
from engine.model.table import Shape
from engine.model.value import CanonicalRow, WireRow
from engine.pipeline.gather import CHUNK_ENTRIES, Fresh, Gathered, Item, document, gather
from engine.pipeline.settle import Outcome, Refusal, add_links, prepare, prepared, recover_links, settle
from engine.pipeline.topology import PlacePart, SystemPart, Topology
from engine.ports import Deletes, Delivery, TableWrite, TargetSession, WriteKind, Writer, Written

# About what one target transaction writes: long enough to be fast, short enough to hold locks for a moment only.
DELIVERY_ENTRIES = 10_000
VALUE_HINT = "Correct the value where it was written, or the mapping; a new value is tried at once."


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
        self.has_held_tables = False
        self.reshape(shapes)

    def reshape(self, shapes: dict[str, Shape]) -> None:
        """Compile the writers for the tables as they are now."""
        for part in self.system.places:
            self._writers[part.id] = _writer(part, shapes.get(part.place.table), self.system)
        self.has_held_tables = any(isinstance(writer, TableHeld) for writer in self._writers.values())

    async def start(self) -> None:
        """Fence earlier daemons, and learn what became of the last delivery."""
        marker = await self.session.claim(self.topology.hub_id, self.hub.epoch)
        known = await self.hub.read(lambda tx: tx.system(self.system.id, "marker")[0])
        if marker < known:
            raise MarkerAhead(
                f"system {self.system.name} has marker {marker}, the hub has delivered {known}",
                hint=f"{self.system.name} was restored from an older copy, or the hub belongs to another one; run"
                " `concord compare` and bring the right pair together.",
                system=self.system.name,
            )
        if marker > known:
            await self._recover(known, marker)
        else:
            # Refusals of a delivery that never happened: the next attempt may have none.
            await self.hub.transact(lambda tx: tx.write("delete from prepared where system = ?", (self.system.id,)))

    async def _recover(self, known: int, marker: int) -> None:
        assigned = await self.session.assigned(known)
        places = {part.name: part.id for part in self.system.places}

        def follow(tx: HubTransaction) -> None:
            (cursor,) = tx.system(self.system.id, "cursor")
            if marker > tx.last_seq:
                raise MarkerAhead(
                    f"system {self.system.name} has marker {marker}, the hub's journal ends at {tx.last_seq}",
                    hint="The hub was restored from an older copy; restore its newest backup, then `concord compare`.",
                    system=self.system.name,
                )
            outcome = Outcome(refusals=prepared(tx, self.system, marker), is_written=True)
            refused = {r.parked.rid for r in outcome.refusals if r.parked.rid is not None}
            fresh: Fresh = {}
            for a in assigned:
                if a.place in places:
                    fresh.setdefault(places[a.place], {})[a.rid] = a.key
                    outcome.links.append((places[a.place], a.key, a.rid))
            after = cursor
            while after < marker:
                until = min(after + CHUNK_ENTRIES, marker)
                gathered = gather(tx, self.topology, self.system, after, until, fresh, is_recovery=True)
                outcome.links.extend(recover_links(self.topology, gathered, refused))
                # What is parked stays so: a row that was refused was not delivered, whatever else is known of it.
                outcome.rids |= gather(tx, self.topology, self.system, after, until, fresh).rids
                after = until
            settle(tx, self.topology, self.system, marker, outcome)

        await self.hub.transact(follow)

    async def step(self) -> Delivered | None:
        """Deliver up to the next boundary; None when there is nothing behind the cursor."""

        def next_stretch(tx: HubTransaction) -> tuple[int, int, Gathered | None]:
            (cursor,) = tx.system(self.system.id, "cursor")
            until = tx.boundary(cursor, DELIVERY_ENTRIES)
            if until == cursor:
                return cursor, until, None
            last = min(until, cursor + CHUNK_ENTRIES)
            return cursor, until, gather(tx, self.topology, self.system, cursor, last, {})

        cursor, until, gathered = await self.hub.read(next_stretch)
        if gathered is None:
            return None
        outcome = Outcome()
        async with AsyncExitStack() as stack:
            writing = _Writing(self, outcome, until, is_long=until - cursor > CHUNK_ENTRIES)
            last = min(until, cursor + CHUNK_ENTRIES)
            while True:
                # Due, and perhaps with nothing to write (deleted before it ever came here): that settles it too.
                outcome.rids |= gathered.rids
                outcome.changed |= gathered.changed
                if not gathered.is_empty:
                    if writing.delivery is None:
                        writing.delivery = await stack.enter_async_context(self.session.delivery(until))
                    await writing.write(gathered)
                if last >= until:
                    break
                after, last = last, min(until, last + CHUNK_ENTRIES)
                gathered = await self.hub.read(
                    lambda tx, a=after, b=last: gather(tx, self.topology, self.system, a, b, writing.fresh)
                )
            outcome.is_written = writing.delivery is not None
            if outcome.refusals and outcome.is_written:
                await self.hub.transact(lambda tx: prepare(tx, self.system, until, outcome.refusals))
        if any(refusal.parked.reason == "table" for refusal in outcome.refusals):
            self.has_held_tables = True
        # From here on the target has committed; a crash before the next line is what `_recover` is for.
        # Where nobody but us makes rows, and none of them is linked already, there is nothing to look up first.
        is_sure = not self.system.is_source and until - cursor <= CHUNK_ENTRIES
        await self.hub.transact(lambda tx: settle(tx, self.topology, self.system, until, outcome, is_sure=is_sure))
        return Delivered(cursor, until, outcome)

    def writer(self, part: PlacePart) -> Writer | TableHeld:
        return self._writers[part.id]


class _Writing:
    """One delivery in the making."""

    def __init__(self, lane: Deliverer, outcome: Outcome, until: int, *, is_long: bool) -> None:
        self.lane = lane
        self.until = until
        self.outcome = outcome
        self.is_long = is_long
        self.delivery: Delivery | None = None
        self.fresh: Fresh = {}
        self._again: list[tuple[Item, TableWrite]] = []

    async def write(self, gathered: Gathered) -> None:
        """Write the items of one chunk: parents first, then the deletions in reverse."""
        links_before = len(self.outcome.links)
        deletions: list[tuple[PlacePart, Writer, list[Item]]] = []
        for part in self.lane.system.places:
            items = gathered.items.get(part.id)
            if not items:
                continue
            writer = self.lane.writer(part)
            if isinstance(writer, TableHeld):
                self._refuse_all(items, writer)
                continue
            dead, alive = _split(part, items)
            if dead:
                deletions.append((part, writer, dead))
            await self._write_alive(part, writer, alive, gathered)
        for part, writer, dead in reversed(deletions):
            written = writer.delete([item.key or "" for item in dead])
            await self._send(part, WriteKind.DELETE, written, dead, ())
        again, self._again = self._again, []
        for item, write in again:
            await self._attempt(write, [item], is_last=True)
        if self.is_long:
            # So many that they had better not be kept; a link to a row that is not committed does no harm, the row
            # is written under the same key next time. Keys that the target assigned are kept: it may take them back.
            made = [link for link in self.outcome.links[links_before:] if link[2] not in self.fresh.get(link[0], {})]
            kept = [link for link in self.outcome.links[links_before:] if link[2] in self.fresh.get(link[0], {})]
            system, topology = self.lane.system, self.lane.topology
            await self.lane.hub.transact(lambda tx: add_links(tx, topology, system, made, self.until))
            del self.outcome.links[links_before:]
            self.outcome.links.extend(kept)

    async def _write_alive(self, part: PlacePart, writer: Writer, items: list[Item], gathered: Gathered) -> None:
        """Inserts and updates of one place; in rounds, where records refer to others of the same place."""
        if not writer.references:
            await self._write_ready(part, writer, [(item, document(part, item.entry)) for item in items])
            return
        waiting = items
        while waiting:
            ready: list[tuple[Item, CanonicalRow]] = []
            later: list[Item] = []
            missing: dict[int, int] = {}
            own = {item.rid for item in waiting} if len(waiting) > 1 else set[int]()
            for item in waiting:
                row, lacks = self._keyed(part, writer, item, gathered, own)
                if row is None:
                    later.append(item)
                    missing[item.rid] = lacks
                else:
                    ready.append((item, row))
            if not ready:
                for item in later:
                    self._wait(part, item, missing[item.rid])
                return
            await self._write_ready(part, writer, ready)
            waiting = later

    def _keyed(
        self, part: PlacePart, writer: Writer, item: Item, gathered: Gathered, own: set[int]
    ) -> tuple[CanonicalRow | None, int]:
        """The record with rids replaced by the target's keys; (None, rid) for one that the target lacks."""
        row = document(part, item.entry)
        for n, name in writer.references:
            rid = row[n]
            if rid is None:
                continue
            assert isinstance(rid, int)
            rid = gathered.aliases.get(rid, rid)
            place = self.lane.system.place(name).id
            key = self.fresh.get(place, {}).get(rid) or gathered.keys.get(place, {}).get(rid)
            if key is None:
                return None, rid
            row = (*row[:n], key, *row[n + 1 :])
        return row, 0

    async def _write_ready(self, part: PlacePart, writer: Writer, ready: list[tuple[Item, CanonicalRow]]) -> None:
        inserts: list[tuple[Item, CanonicalRow]] = []
        assigned: list[tuple[Item, CanonicalRow]] = []
        updates: dict[int, list[tuple[Item, CanonicalRow]]] = {}
        for pair in ready:
            item = pair[0]
            if item.problem is not None:
                self._refuse(item, item.problem)
            elif item.key is None:
                assigned.append(pair)
            elif item.is_new or (item.mask & 1 << ALIVE and item.entry.value(ALIVE)):
                inserts.append(pair)
            elif item.mask & writer.mask:
                updates.setdefault(item.mask & writer.mask, []).append(pair)
        key = part.place.key
        if inserts:
            written = writer.insert([item.key for item, _ in inserts], [row for _, row in inserts])
            await self._send(part, WriteKind.INSERT, written, [item for item, _ in inserts], key)
        if assigned:
            written = writer.insert([None] * len(assigned), [row for _, row in assigned])
            await self._send(part, WriteKind.INSERT, written, [item for item, _ in assigned], key, assigned=key[0])
        for mask, pairs in updates.items():
            keys = [item.key or "" for item, _ in pairs]
            written = writer.update(mask, keys, [row for _, row in pairs])
            await self._send(part, WriteKind.UPDATE, written, [item for item, _ in pairs], key)

    async def _send(
        self,
        part: PlacePart,
        kind: WriteKind,
        written: Written,
        items: list[Item],
        key: tuple[str, ...],
        assigned: str | None = None,
    ) -> None:
        rows: list[WireRow] = []
        kept: list[Item] = []
        if written.problems:
            for n, (item, row) in enumerate(zip(items, written.rows, strict=True)):
                if row is None:
                    self._refuse(item, written.problems[n])
                else:
                    rows.append(row)
                    kept.append(item)
        else:
            rows, kept = [row for row in written.rows if row is not None], items
        if not rows:
            return
        write = TableWrite(
            table=part.place.table,
            place=part.name,
            kind=kind,
            columns=written.columns,
            key=key or part.place.key,
            rows=rows,
            rids=[item.rid for item in kept],
            assigned=assigned,
        )
        await self._attempt(write, kept, is_last=False)

    async def _attempt(self, write: TableWrite, items: list[Item], *, is_last: bool) -> None:
        """The whole write, else its halves, down to the single record that is refused."""
        assert self.delivery is not None
        outcome = self.outcome
        stack = [(write, items)]
        while stack:
            write, items = stack.pop()
            try:
                result = await self.delivery.write(write)
            except RowRefused as error:
                if len(items) == 1:
                    if error.reason == "unique" and not is_last:
                        # Perhaps a row that stands in the way is deleted, or changed, by the end of this delivery.
                        self._again.append((items[0], write))
                    else:
                        self._refuse(items[0], error)
                elif error.reason in ("table", "permission"):
                    self._refuse_all(items, error)
                else:
                    stack.extend(_parts(write, items, error.row_index))
                continue
            outcome.rows_written += len(items) - len(result.missing)
            outcome.rows_missing += len(result.missing)
            outcome.tables[write.table] = outcome.tables.get(write.table, 0) + len(items)
            if write.assigned is not None:
                handed_out = self.fresh.setdefault(items[0].part.id, {})
                for item, key in zip(items, result.keys, strict=True):
                    handed_out[item.rid] = key
                    outcome.links.append((item.part.id, key, item.rid))
            elif write.kind is WriteKind.INSERT:
                new = [item for item in items if item.is_new]
                if new:
                    outcome.links.extend((item.part.id, str(item.key), item.rid) for item in new)
                    self._hand_out(items[0].part, new)

    def _hand_out(self, part: PlacePart, items: list[Item]) -> None:
        """Children of the same delivery find these keys here; only where a mapped entity refers to them."""
        if any(n == part.entity.name for p in self.lane.system.places for _, n in p.entity.references):
            self.fresh.setdefault(part.id, {}).update((item.rid, str(item.key)) for item in items)

    def _refuse_all(self, items: list[Item], error: RowRefused | ValueRefused | TableHeld) -> None:
        for item in items:
            self._refuse(item, error)

    def _refuse(self, item: Item, error: RowRefused | ValueRefused | TableHeld, waits_for: int | None = None) -> None:
        reason = error.reason if isinstance(error, RowRefused) else "value"
        if isinstance(error, TableHeld):
            reason = "table"
        name = error.context.get("field") or error.context.get("column")
        parked = Parked(
            system=self.lane.system.id,
            direction="target",
            place=item.part.id,
            rid=item.rid,
            key=item.key,
            seq=item.first,
            seen=0,
            code=error.code,
            reason="waits" if waits_for else reason,
            message=error.message,
            hint=error.hint or VALUE_HINT,
            field=str(name) if name else None,
            waits_for=waits_for,
        )
        self.outcome.refusals.append(Refusal(item.first, parked))

    def _wait(self, part: PlacePart, item: Item, rid: int) -> None:
        error = RowRefused(
            f"system {self.lane.system.name}, table {part.place.table}: record {item.rid} refers to record {rid}, which"
            " has no row there",
            hint=f"Run `concord explain {rid}`; this record follows by itself when that one arrives.",
            reason="waits",
        )
        self._refuse(item, error, waits_for=rid)


def _split(part: PlacePart, items: list[Item]) -> tuple[list[Item], list[Item]]:
    """(rows to delete, rows to write). A record that is deleted and has no row here is neither."""
    dead: list[Item] = []
    alive: list[Item] = []
    for item in items:
        if item.entry.value(ALIVE) or (item.key is not None and part.place.deletes is Deletes.FIELD):
            alive.append(item)
        elif item.key is not None and part.place.deletes is Deletes.ROW and item.mask & 1 << ALIVE:
            dead.append(item)
    return dead, alive


def _parts(write: TableWrite, items: list[Item], row_index: int | None) -> list[tuple[TableWrite, list[Item]]]:
    """The write without its bad row, and that row alone; halves where the target could not tell which."""
    if row_index is not None:
        cuts = [range(row_index, row_index + 1), [n for n in range(len(items)) if n != row_index]]
    else:
        middle = len(items) // 2
        cuts = [range(middle, len(items)), range(middle)]
    parts: list[tuple[TableWrite, list[Item]]] = []
    for cut in cuts:
        part = TableWrite(
            table=write.table,
            place=write.place,
            kind=write.kind,
            columns=write.columns,
            key=write.key,
            rows=[write.rows[n] for n in cut],
            rids=[write.rids[n] for n in cut],
            assigned=write.assigned,
        )
        parts.append((part, [items[n] for n in cut]))
    return parts


def _writer(part: PlacePart, shape: Shape | None, system: SystemPart) -> Writer | TableHeld:
    if shape is None:
        return TableHeld(
            f"system {system.name} has no table {part.place.table}",
            hint="Create the table again or take it out of the mapping; its records wait.",
            system=system.name,
            table=part.place.table,
        )
    try:
        return part.place.writer(shape, part.entity)
    except TableHeld as error:
        return error
