"""The rare ways of a change: possible conflicts, first links, deletions, keys that move, rows that leave.

Everything here is exact and one record at a time; `commit` sends here what its straight line cannot decide.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from engine.hub.aside import Conflict
from engine.hub.exceptions import Overlay, Stretch
from engine.hub.transaction import HubTransaction
from engine.model.entity import ALIVE
from engine.model.record import CHANGE, PLACEHOLDER, Entry, Stamp, Value, bits
from engine.model.value import ABSENT, CanonicalRow
from engine.pipeline.again import append_again
from engine.pipeline.astray import leave_key
from engine.pipeline.doubles import Doubles
from engine.pipeline.identify import candidates
from engine.pipeline.resolve import NEVER, Decisions, History, Rules, resolve, seen_of
from engine.pipeline.topology import EntityPart, PlacePart, SystemPart, Topology, unwritten
from engine.ports import Deletes

JOINED = 0
"""`Stretch.refused` of a record that was linked to a row which nobody had delivered: from the beginning. No refusal has
this seq."""


class Slow:
    """Works on one hub transaction for one source, up to `finish`. `conflicts` and `reviews` count what it records.
    `seen_at_least`: as in `Segment`. `is_read`: the rows were read, not changed: which came first says nothing."""

    def __init__(
        self,
        topology: Topology,
        system: SystemPart,
        tx: HubTransaction,
        seen_at_least: int | None = None,
        *,
        is_read: bool = False,
    ) -> None:
        self.topology = topology
        self.system = system
        self.tx = tx
        self.conflicts = 0
        self.reviews = 0
        self._seen_at_least = seen_at_least
        self._is_read = is_read
        self._doubles = Doubles(tx, topology)
        self._gone: set[tuple[int, str]] = set()
        """Places and keys of rows that were deleted."""
        self._pushed: dict[tuple[int, str], int] = {}
        """Place and key → the record whose row had the key when another row got it, and has not got another yet."""

    def finish(self) -> None:
        """Do what is done for all rows together."""
        self._doubles.remove()

    def current(self, rid: int) -> Entry:
        entry = self.tx.current(rid)
        assert entry is not None, "a crosswalk row points at a record that the journal does not have"
        return entry

    def is_news(self, part: PlacePart, rid: int | None) -> bool:
        """Whether nothing is known of what a row held until now: it was never there, or took no part."""
        return rid is None or rid in self.tx.left_of(part.id) or self.current(rid).kind == PLACEHOLDER

    def take(
        self, part: PlacePart, entity: EntityPart, rid: int, key: str, record: CanonicalRow, time: int, seen: int
    ) -> None:
        """A row of a record that is known."""
        tx = self.tx
        if rid in tx.left_of(part.id):
            tx.set_left(part.id, key, rid, is_left=False)
            self._come_back(part, entity, rid, record, time, seen)
            return
        if tx.alias(rid) != rid:
            self._note_doomed(rid, tx.alias(rid), record, time, seen)
            return
        entry = self.current(rid)
        if entry.kind == PLACEHOLDER and entity.match_keys is not None:
            found, is_sure = self._matched(part, entity, record, seen)
            if is_sure:
                tx.set_alias(rid, found[0])
                self._adopt(part, entity, found[0], key, record, time, seen)
                return
            if found:
                self._ask(part, key, rid, found)
        self.apply(entity, rid, self._said(part, entity, entry, record), time, seen)

    def _said(self, part: PlacePart, entity: EntityPart, entry: Entry, record: CanonicalRow) -> dict[int, Value]:
        """What a row says, less what it only goes on showing: what is never written there does not arrive, and is a
        change only where its users have changed it since they last did."""
        said = _sent(record)
        if part.place.deletes is Deletes.KEEP and entry.value(ALIVE) is False:
            said.pop(ALIVE, None)
        for n in bits(unwritten(part, entity, self.system.id)):
            if n in said and said[n] != entry.value(n) and self._only_shows(entry, n, said[n]):
                del said[n]
        return said

    def _only_shows(self, entry: Entry | None, index: int, value: Value) -> bool:
        """Whether a system that is never written this field shows what it last said of it, or, if it never did, what
        the field once was."""
        held: set[Value] = {None}
        while entry is not None:
            is_birth = entry.seq == entry.rid
            if entry.kind == CHANGE and entry.origin == self.system.id and (entry.mask >> index & 1 or is_birth):
                return entry.value(index) == value
            held.add(entry.value(index))
            entry = self.tx.version(entry.prev)
        return value in held

    def newcomer(
        self, part: PlacePart, entity: EntityPart, key: str, record: CanonicalRow, time: int, seen: int
    ) -> None:
        """A row whose key was never seen: the record it matches, or a new one; several matches wait for a person."""
        tx = self.tx
        found, is_sure = self._matched(part, entity, record, seen)
        if is_sure:
            self._adopt(part, entity, found[0], key, record, time, seen)
            return
        seq = tx.last_seq + 1
        values = tuple(None if v is ABSENT else v for v in record)
        mask = sum(1 << n for n, v in enumerate(values) if v is not None)
        others = 0 if found else entity.concerned & ~self.system.bit
        tx.append(Entry(seq, seq, part.entity.id, self.system.id, time, mask, others, 0, CHANGE, 0, values))
        tx.link(part.id, key, seq)
        self.remember_matches(entity, seq, values)
        if found:
            self._ask(part, key, seq, found)

    def _matched(self, part: PlacePart, entity: EntityPart, record: CanonicalRow, seen: int) -> tuple[list[int], bool]:
        """Records that a row may be, and whether it is the first of them for sure."""
        if entity.match_keys is None:
            return [], False
        seen = self._seen_when_new(seen)
        return candidates(self.tx, entity, part, record, seen, is_read=self._is_read)

    def _ask(self, part: PlacePart, key: str, rid: int, candidates: list[int]) -> None:
        """Which record it is a person decides; until then it goes to nobody."""
        tx = self.tx
        tx.write(
            "insert into review (system, place, key, rid, candidates, created_at) values (?, ?, ?, ?, ?, ?)",
            (self.system.id, part.id, key, rid, msgspec.msgpack.encode(candidates), tx.clock.now()),
        )
        tx.undecided.add(rid)
        self.reviews += 1

    def _note_doomed(self, rid: int, means: int, record: CanonicalRow, time: int, seen: int) -> None:
        """Somebody wrote to a row that is one too many and about to be deleted: what it said is kept on record."""
        entry, doomed = self.current(means), self.current(rid)
        fields = [n for n, v in enumerate(record) if v is not ABSENT and n != ALIVE and v != entry.value(n)]
        winner = doomed.stamp(ALIVE)
        if not fields or winner is None:
            return
        values: list[Value] = [v for n, v in enumerate(record) if n in fields and v is not ABSENT]
        mine = Stamp(self.system.id, 0, time)
        mask = sum(1 << n for n in fields)
        held = [entry.value(n) for n in fields]
        self.tx.add_conflict(
            Conflict(doomed.seq, means, entry.entity, mask, "double", winner, mine, seen, held, values, False)
        )
        self.conflicts += 1

    def _seen_when_new(self, seen: int) -> int:
        return seen if self._seen_at_least is None else min(seen, self._seen_at_least)

    def _adopt(
        self, part: PlacePart, entity: EntityPart, rid: int, key: str, record: CanonicalRow, time: int, seen: int
    ) -> None:
        """The row is one of record `rid`, which others know."""
        before = None if self.tx.linked_by(part.id, rid) is None else self.current(rid)
        self.move_row(part, key, rid)
        self.join(entity, rid, record, time)
        if before is not None:
            self._note_overtaken(before, seen)

    def _note_overtaken(self, before: Entry, seen: int) -> None:
        """A row took the place of one that had been there for the same record, and that users of the same system had
        changed already: what they had set, and the new row says otherwise, is kept on record."""
        after = self.current(before.rid)
        for n in range(len(before.values)):
            winner, loser = after.stamp(n), before.stamp(n)
            if winner is None or loser is None or loser.origin != self.system.id or winner.origin != self.system.id:
                continue
            if after.value(n) != before.value(n):
                values: tuple[list[Value], list[Value]] = [after.value(n)], [before.value(n)]
                self.tx.add_conflict(
                    Conflict(after.seq, after.rid, after.entity, 1 << n, "double", winner, loser, seen, *values, False)
                )
                self.conflicts += 1

    def move_row(self, part: PlacePart, key: str, rid: int) -> None:
        """The row is this record's. A row that our delivery made for it meanwhile is one too many, and goes."""
        linked = self.tx.linked_by(part.id, rid)
        self.tx.relink(part.id, key, rid)
        if linked is not None and linked[0] != key:
            self._doubles.add(part, linked[0], rid)

    def join(self, entity: EntityPart, rid: int, record: CanonicalRow, time: int) -> None:
        """The first look at a row of a record that others know: nothing of theirs had reached this row.

        What differs is concurrent and decided as ever; then the row is brought to what the record is. Deliveries from
        before that do not count as seen.
        """
        tx, system = self.tx, self.system.id
        tx.write("delete from stretch where system = ? and rid = ?", (system, rid))
        self._bring(entity, rid, record, _sent(record), time, 0, JOINED)

    def _come_back(
        self, part: PlacePart, entity: EntityPart, rid: int, record: CanonicalRow, time: int, seen: int
    ) -> None:
        """A row takes part again. Nothing has reached it since it left; what differs from then its users changed."""
        stretches = self.tx.stretches(self.system.id, rid)
        if stretches and stretches[-1].good is None:
            said = self._said(part, entity, self.current(rid), record)
            self._bring(entity, rid, record, said, time, seen, stretches[-1].refused)
        else:
            self.join(entity, rid, record, time)

    def _bring(
        self,
        entity: EntityPart,
        rid: int,
        record: CanonicalRow,
        said: Mapping[int, Value],
        time: int,
        seen: int,
        refused: int,
    ) -> None:
        """Decide what a row says to which nothing came from `refused` on, and bring it to what the record is."""
        tx, system, bit = self.tx, self.system.id, self.system.bit
        self._unpark(rid)
        tx.set_stretch(system, rid, Stretch(refused, None))
        self.apply(entity, rid, said, time, seen)
        if not entity.concerned & bit:
            # Nothing is written there now; when it is again, it gets what it has missed by then.
            return
        entry = self.current(rid)
        mask = sum(1 << n for n, v in enumerate(record) if v is not ABSENT and v != entry.value(n))
        if refused != JOINED:
            # What the row does not hold yet, and what is on its way and no longer true when it lands.
            held = min(seen, refused - 1)
            for missed in self.chain(rid, held):
                mask |= missed.mask if missed.concerned & bit and missed.seq > held else 0
        good = tx.last_seq + 1
        if mask:
            self.again(entry, mask, bit)
        tx.set_stretch(system, rid, Stretch(refused, good))

    def take_row(
        self, part: PlacePart, entity: EntityPart, key: str, record: CanonicalRow, time: int, seen: int
    ) -> None:
        """A row, whether or not its key is known."""
        rid = self.tx.load_keys(part.id, [key]).get(key)
        if rid is None:
            self.newcomer(part, entity, key, record, time, seen)
        else:
            self.take(part, entity, rid, key, record, time, seen)

    def delete(self, part: PlacePart, entity: EntityPart, key: str, time: int, seen: int) -> None:
        """A row is gone."""
        rid = self.tx.load_keys(part.id, [key]).get(key)
        self._gone.add((part.id, key))
        if rid is None:
            return
        has_left = rid in self.tx.left_of(part.id)
        if has_left or part.place.deletes is Deletes.KEEP:
            self.tx.unlink(part.id, key, rid)
            if has_left:
                self._unpark(rid)
                self.tx.close_stretch(self.system.id, rid, self.tx.last_seq + 1)
            return
        self.apply(entity, rid, {ALIVE: False}, time, seen)

    def leave(self, part: PlacePart, key: str) -> None:
        """A row does not take part any more; its record goes on without it. What is in the journal by now may be on its
        way to the row and reaches it, nothing that comes later does."""
        tx, system = self.tx, self.system
        rid = tx.load_keys(part.id, [key]).get(key)
        if rid is None or rid in tx.left_of(part.id) or tx.alias(rid) != rid:
            # One too many is deleted wherever its users put it.
            return
        tx.set_left(part.id, key, rid, is_left=True)
        self._unpark(rid)
        # What others changed while this system was only read from is not on its way.
        last = tx.last_seq if system.is_target else tx.system(system.id, "cursor")[0]
        tx.open_stretch(system.id, rid, last + 1)

    def move_key(self, part: PlacePart, entity: EntityPart, old_key: str, key: str, seen: int) -> None:
        """A row's key changed: the record goes with it. A deleted record whose row had the new key has none any more.

        Where keys are checked at the end of a statement or transaction only, two rows may have one key for a moment:
        the next that moves away from it is the one that had it first, as when keys are swapped in one statement.
        """
        known = self.tx.load_keys(part.id, [old_key, key])
        rid, before = self._pushed.pop((part.id, old_key), None) or known.get(old_key), known.get(key)
        if rid is None or old_key == key:
            return
        if before is not None and before != rid:
            if self.current(before).value(ALIVE) and (part.id, key) not in self._gone:
                self._pushed[part.id, key] = before
            leave_key(self.tx, self.system, entity, part, key, before, seen)
        was_left = rid in self.tx.left_of(part.id)
        self.tx.relink(part.id, key, rid)
        if was_left:
            self.tx.set_left(part.id, key, rid, is_left=True)
        leave_key(self.tx, self.system, entity, part, old_key, rid, seen)

    def _unpark(self, rid: int) -> None:
        """What this system refused of a record is history."""
        sql = "delete from parked where direction = 'target' and system = ? and rid = ?"
        self.tx.write(sql, (self.system.id, rid))

    def unpark_row(self, part: PlacePart, key: str) -> None:
        """A newer state of a row that was set aside has come: what was set aside is history."""
        self.tx.unpark_key(part.id, key)

    def remember_matches(self, entity: EntityPart, rid: int, values: tuple[Value, ...]) -> None:
        if entity.match_keys is not None:
            self.tx.add_match_keys(entity.entity.id, entity.match_keys(values), rid)

    def apply(self, entity: EntityPart, rid: int, change: Mapping[int, Value], time: int, seen: int) -> None:
        """Decide a change by the whole rule and journal what follows from it."""
        tx, system = self.tx, self.system.id
        stretches = tx.stretches(system, rid)
        seen = seen_of(seen, stretches)
        chain = self.chain(rid, seen)
        overlays = tx.overlays(system, rid)
        history = History(system=system, chain=chain, overlays=overlays, seen=seen, stretches=stretches)
        rules = Rules(entity=entity.entity, owners=entity.owners, rank=self.topology.rank)
        decisions = resolve(rules, history, change, time)
        self._write(entity, rid, chain[0], decisions, time)

    def rewrite(self, part: PlacePart, key: str, mask: int) -> None:
        """Write these fields of a row again: it spells them in a way that is about to mean nothing."""
        rid = self.tx.load_keys(part.id, [key]).get(key)
        if rid is not None:
            self.again(self.current(rid), mask, self.system.bit)

    def override(self, entity: EntityPart, rid: int, values: Mapping[int, Value], time: int) -> None:
        """A person's decision: these values, for every system, the one they came from too."""
        self._change(self.current(rid), values, entity.concerned, time)

    def chain(self, rid: int, seen: int) -> list[Entry]:
        """The record's entries, newest first, back to the first one at or before `seen` (it included)."""
        entry = self.tx.current(rid)
        found: list[Entry] = []
        while entry is not None:
            found.append(entry)
            if entry.seq <= seen:
                break
            entry = self.tx.version(entry.prev)
        return found

    def again(self, entry: Entry, mask: int, concerned: int) -> Entry:
        """The same version again, for the systems concerned."""
        return append_again(self.tx, entry, mask, concerned)

    def _write(self, entity: EntityPart, rid: int, entry: Entry, decisions: Decisions, time: int) -> None:
        tx, system, bit = self.tx, self.system.id, self.system.bit
        everyone = 0 if rid in tx.undecided else entity.concerned
        own: dict[int, int] = {}
        was_dead = entry.value(ALIVE) is False
        if decisions.quiet:
            entry = self._change(entry, decisions.quiet, everyone & ~bit, time)
            own.update(dict.fromkeys(decisions.quiet, entry.seq))
        if decisions.loud:
            # The system too, even when it is not written to any more: what is on its way there still lands, and by
            # this bit it is known that the change stands before that.
            entry = self._change(entry, decisions.loud, 0 if rid in tx.undecided else everyone | bit, time)
            own.update(dict.fromkeys(decisions.loud, entry.seq))
        if was_dead and {**decisions.quiet, **decisions.loud}.get(ALIVE) is True:
            # It comes back: where its row was deleted, all of it has to be written.
            entry = self.again(entry, entity.full, entry.concerned)
        if decisions.lost and everyone & bit:
            entry = self.again(entry, sum(1 << n for n in decisions.lost), bit)
            own.update(dict.fromkeys(decisions.lost, entry.seq))
        for n, (value, stamp, until) in decisions.overlays.items():
            if stamp is not None and stamp.seq == 0:
                stamp = stamp._replace(seq=own[n])
            tx.set_overlay(system, rid, n, Overlay(value, stamp, until or own.get(n, NEVER)))
        for n in decisions.void:
            tx.drop_overlay(system, rid, n)
        if (decisions.quiet or decisions.loud) and entity.match_keys is not None:
            self.remember_matches(entity, rid, entry.values)
        for conflict in decisions.conflicts:
            seq = own.get(bits(conflict.mask)[0], 0)
            if conflict.winner.seq == 0:
                conflict = conflict._replace(winner=conflict.winner._replace(seq=seq))
            tx.add_conflict(conflict._replace(seq=entry.seq, rid=rid))
            self.conflicts += 1

    def _change(self, entry: Entry, values: Mapping[int, Value], concerned: int, time: int) -> Entry:
        tx, system, bit = self.tx, self.system.id, self.system.bit
        mask = sum(1 << n for n in values)
        width = max(len(entry.values), max(values) + 1)
        document = tuple(values[n] if n in values else entry.value(n) for n in range(width))
        foreign = entry.foreign if entry.origin == system and not entry.concerned & bit else entry.seq
        seq = tx.last_seq + 1
        new = Entry(
            seq, entry.rid, entry.entity, system, time, mask, concerned, entry.seq, CHANGE, foreign, document,
            entry.stamps_without(mask),
        )  # fmt: skip
        tx.append(new)
        return new


def _sent(record: CanonicalRow) -> dict[int, Value]:
    return {n: v for n, v in enumerate(record) if v is not ABSENT}
