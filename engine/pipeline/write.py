"""Stage 6, second half: the writes of one delivery. Parents first, the usual bulk in one write, whatever the target or
the mapping refuses taken out record by record.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import cast

from engine.errors import RowRefused, TableHeld, ValueRefused
from engine.hub.aside import Parked
from engine.hub.sqlite import SqliteHub
from engine.model.entity import ALIVE
from engine.model.value import CanonicalRow, WireRow
from engine.pipeline.gather import Bulk, Fresh, Gathered, Item, document
from engine.pipeline.settle import CHANGED, NewLinks, Outcome, Refusal, add_links
from engine.pipeline.topology import PlacePart, SystemPart, Topology
from engine.ports import Deletes, Delivery, TableWrite, WriteKind, Writer, WriteResult, Written

VALUE_HINT = (
    "Correct the value where it was written, which is tried at once; or change the column and run `concord parked"
    " retry --all`; or mend the mapping and start the daemon again."
)


class Writing:
    """One delivery in the making."""

    def __init__(
        self,
        hub: SqliteHub,
        topology: Topology,
        system: SystemPart,
        writers: Mapping[int, Writer | TableHeld],
        *,
        outcome: Outcome,
        until: int,
        fresh: Fresh,
        is_long: bool,
    ) -> None:
        self.hub = hub
        self.topology = topology
        self.system = system
        self.writers = writers
        self.until = until
        self.outcome = outcome
        self.is_long = is_long
        self.delivery: Delivery | None = None
        self.fresh = fresh
        self._made = NewLinks()
        """Links of a long delivery: so many that they had better not be kept. A link to a row that is not committed
        does no harm, the row is written under the same key next time."""
        self._again: list[tuple[Item, TableWrite]] = []

    async def write(self, gathered: Gathered) -> None:
        """Write the items of one chunk: parents first, then the deletions in reverse."""
        if gathered.bulk is not None:
            await self._write_bulk(gathered.bulk)
        deletions: list[tuple[PlacePart, Writer, list[Item]]] = []
        for part in self.system.places:
            items = gathered.items.get(part.id)
            if not items:
                continue
            writer = self.writers[part.id]
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
        if self._made.places:
            made, self._made = self._made, NewLinks()
            await self.hub.transact(lambda tx: add_links(tx, self.topology, self.system, made, self.until))

    async def _write_bulk(self, bulk: Bulk) -> None:
        """All of them in one write; one by one where the mapping or the target does not take that."""
        part, writer = bulk.part, self.writers[bulk.part.id]
        if isinstance(writer, TableHeld):
            self._refuse_all(bulk.items(), writer)
            return
        if not bulk.is_new and not bulk.mask & writer.mask:
            return
        assert self.delivery is not None
        if bulk.is_new:
            kind, written = WriteKind.INSERT, writer.insert(bulk.keys, bulk.records)
        else:
            kind, written = WriteKind.UPDATE, writer.update(bulk.mask & writer.mask, bulk.keys, bulk.records)
        if not written.problems:
            write = _table_write(part, kind, written, cast("list[WireRow]", written.rows), bulk.rids)
            write.if_unchanged = self.system.is_source
            with suppress(RowRefused):
                result = await self.delivery.write(write)
                self._count(write, result)
                if result.changed:
                    self._leave_out(bulk.items(), write, result)
                elif bulk.is_new:
                    self._link(part, bulk.keys, bulk.rids)
                return
        items = bulk.items()
        await self._write_alive(part, writer, items, Gathered({part.id: items}, {}, {}, set(), set()))

    async def _write_alive(self, part: PlacePart, writer: Writer, items: list[Item], gathered: Gathered) -> None:
        """Inserts and updates of one place; in rounds, where records refer to others of the same place."""
        if not writer.references:
            await self._write_ready(part, writer, [(item, document(part, item.entry)) for item in items])
            return
        waiting = items
        while waiting:
            ready: list[tuple[Item, CanonicalRow]] = []
            later: list[Item] = []
            missing: dict[int, tuple[int, str]] = {}
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
                    self._wait(part, item, *missing[item.rid])
                return
            await self._write_ready(part, writer, ready)
            waiting = later

    def _keyed(
        self, part: PlacePart, writer: Writer, item: Item, gathered: Gathered, own: set[int]
    ) -> tuple[CanonicalRow | None, tuple[int, str]]:
        """The record with rids replaced by the target's keys; None where the target lacks one: that rid, and the field
        that refers to it."""
        row = document(part, item.entry)
        for n, name in writer.references:
            rid = row[n]
            if rid is None:
                continue
            assert isinstance(rid, int)
            rid = gathered.aliases.get(rid, rid)
            place = self.system.place(name).id
            key = self.fresh.keys(place).get(rid) or gathered.keys.get(place, {}).get(rid)
            if key is None:
                return None, (rid, item.part.entity.fields[n].name)
            row = (*row[:n], key, *row[n + 1 :])
        return row, (0, "")

    async def _write_ready(self, part: PlacePart, writer: Writer, ready: list[tuple[Item, CanonicalRow]]) -> None:
        inserts: list[tuple[Item, CanonicalRow]] = []
        assigned: list[tuple[Item, CanonicalRow]] = []
        updates: dict[int, list[tuple[Item, CanonicalRow]]] = {}
        whole: dict[int, list[tuple[Item, CanonicalRow]]] = {}
        for pair in ready:
            item = pair[0]
            if item.problem is not None:
                self._refuse(item, item.problem)
            elif item.key is None:
                assigned.append(pair)
            elif item.is_new:
                inserts.append(pair)
            elif item.mask & 1 << ALIVE and item.entry.value(ALIVE):
                whole.setdefault(item.mask & writer.mask, []).append(pair)
            elif item.mask & writer.mask:
                updates.setdefault(item.mask & writer.mask, []).append(pair)
        key = part.place.key
        for mask, pairs in whole.items():
            # Its row is there, or was deleted. An insert that finds it would not do for both: what the table demands of
            # a new row, and no field has, is there already.
            written = writer.update(mask, [item.key or "" for item, _ in pairs], [row for _, row in pairs])
            missing = set(map(id, await self._send(part, WriteKind.UPDATE, written, [item for item, _ in pairs], key)))
            inserts += [pair for pair in pairs if id(pair[0]) in missing]
            self.outcome.rows_missing -= len(missing)
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
    ) -> list[Item]:
        """Returns those whose rows an update did not find."""
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
            rows, kept = cast("list[WireRow]", written.rows), items
        if not rows:
            return []
        write = _table_write(part, kind, written, rows, [item.rid for item in kept], key, assigned)
        write.if_unchanged = self.system.is_source
        return await self._attempt(write, kept, is_last=False)

    async def _attempt(self, write: TableWrite, items: list[Item], *, is_last: bool) -> list[Item]:
        """The whole write, else its halves, down to the single record that is refused. Returns those whose rows an
        update did not find."""
        assert self.delivery is not None
        missing: list[Item] = []
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
            self._count(write, result)
            missing += [items[n] for n in result.missing]
            part = items[0].part
            if write.assigned is not None:
                rids = [item.rid for item in items]
                self.fresh.add(part.id, result.keys, rids)
                self.outcome.links.extend(part.id, result.keys, rids)
            if result.changed:
                self._leave_out(items, write, result)
            elif write.assigned is None and write.kind is WriteKind.INSERT:
                self._link_new(part, items)
        return missing

    def _leave_out(self, items: list[Item], write: TableWrite, result: WriteResult) -> None:
        """Rows that their users have changed, and the source has not handed out so: what is to be written may be other
        than it was when that is known. They wait until the source has read them again."""
        changed = set(result.changed)
        for n in result.changed:
            error = RowRefused(
                f"system {self.system.name}, table {write.table}: the row was changed since it was last read",
                hint="Nothing is to be done: it is read again, decided, and written.",
                reason=CHANGED,
            )
            self._refuse(items[n], error)
        if write.kind is WriteKind.INSERT and write.assigned is None:
            self._link_new(items[0].part, [item for n, item in enumerate(items) if n not in changed])

    def _link_new(self, part: PlacePart, items: list[Item]) -> None:
        new = [item for item in items if item.is_new]
        if new:
            self._link(part, [str(item.key) for item in new], [item.rid for item in new])

    def _count(self, write: TableWrite, result: WriteResult) -> None:
        outcome = self.outcome
        outcome.rows_written += len(write.rows) - len(result.missing) - len(result.changed)
        outcome.rows_missing += len(result.missing)
        outcome.tables[write.table] = outcome.tables.get(write.table, 0) + len(write.rows)

    def _link(self, part: PlacePart, keys: Sequence[str], rids: Sequence[int]) -> None:
        """Note new rows; children of the same delivery find their keys, where a mapped entity refers to them."""
        if any(n == part.entity.name for p in self.system.places for _, n in p.entity.references):
            self.fresh.add(part.id, keys, rids)
        elif self.is_long:
            self._made.extend(part.id, keys, rids)
            return
        self.outcome.links.extend(part.id, keys, rids)

    def _refuse_all(self, items: list[Item], error: RowRefused | ValueRefused | TableHeld) -> None:
        for item in items:
            self._refuse(item, error)

    def _refuse(self, item: Item, error: RowRefused | ValueRefused | TableHeld, waits_for: int | None = None) -> None:
        reason = error.reason if isinstance(error, RowRefused) else "value"
        if isinstance(error, TableHeld):
            reason = "table"
        name = error.context.get("field") or error.context.get("column")
        parked = Parked(
            system=self.system.id,
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

    def _wait(self, part: PlacePart, item: Item, rid: int, field: str) -> None:
        error = RowRefused(
            f"system {self.system.name}, table {part.place.table}, field {part.place.entity}.{field}: record"
            f" {item.rid} refers to record {rid}, which has no row there",
            hint=f"Run `concord explain {rid}` to see why; this record follows by itself when that one arrives.",
            reason="waits",
            field=field,
        )
        self._refuse(item, error, waits_for=rid)


def _table_write(
    part: PlacePart,
    kind: WriteKind,
    written: Written,
    rows: list[WireRow],
    rids: Sequence[int],
    key: tuple[str, ...] = (),
    assigned: str | None = None,
) -> TableWrite:
    return TableWrite(
        table=part.place.table,
        place=part.name,
        kind=kind,
        columns=written.columns,
        key=key or part.place.key,
        rows=rows,
        rids=rids,
        assigned=assigned,
        draw=part.place.draw if assigned is not None else None,
        only_new=written.only_new,
    )


def _split(part: PlacePart, items: list[Item]) -> tuple[list[Item], list[Item]]:
    """(rows to delete, rows to write). A record that is deleted and has no row here is neither."""
    dead: list[Item] = []
    alive: list[Item] = []
    for item in items:
        if item.entry.value(ALIVE) or (item.key is not None and part.place.deletes is Deletes.FIELD):
            alive.append(item)
        elif (
            item.key is not None
            and part.place.deletes is Deletes.ROW
            and item.mask & 1 << ALIVE
            # A record of which nothing is known yet is not deleted.
            and item.entry.value(ALIVE) is False
        ):
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
            draw=write.draw,
            only_new=write.only_new,
            if_unchanged=write.if_unchanged,
        )
        parts.append((part, [items[n] for n in cut]))
    return parts
