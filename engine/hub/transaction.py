"""What the pipeline can do inside one hub transaction.

Reads are cached for the length of the transaction and see what it wrote; writes are gathered and go out as a few
statements at its end (`flush`). Nothing here decides anything: it remembers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from engine.hub.aside import Aside
from engine.hub.database import Database, blobs, integers, texts
from engine.hub.packed import LARGE, SMALL, escaped, pairs
from engine.hub.recent import Recent, Runs
from engine.model.births import Births
from engine.model.position import Position
from engine.model.record import Entry, decode_entries, decode_entry, encode_entry
from engine.ports import Clock

# What a scan of the journal has in memory at once.
READ_ENTRIES = 5_000

_encode = msgspec.msgpack.Encoder().encode
_decode_position = msgspec.msgpack.Decoder(Position).decode


class HubTransaction(Aside):
    """The hub as one transaction sees it. Valid inside `SqliteHub.transact` only."""

    def __init__(self, connection: Database, clock: Clock, recent: Recent | None = None) -> None:
        super().__init__(connection, clock)
        self._recent = recent or Recent(0, 0)
        self._has_aliases: bool | None = None
        self._last_seq: int | None = None
        self._clear()

    def _clear(self) -> None:
        self._entries: dict[int, Entry] = {}
        self._versions: dict[int, Entry] = {}
        self._appended = Runs()
        self._encoded: list[bytes] = []
        self._changed: dict[int, int] = {}
        self.clear_links()
        self.clear_aside()
        self._match_keys: list[tuple[int, str, int]] = []

    def settle(self) -> None:
        """The transaction was committed: what it cached may be stale for the next one."""
        if self._appended:
            self._recent.add(self._appended, sum(map(len, self._encoded)))
        self._clear()

    def forget(self) -> None:
        """The transaction was rolled back: nothing it left in memory is true."""
        self._clear()
        self._has_aliases = self._last_seq = None
        self.forget_aside()
        self.forget_exceptions()
        self.forget_links()

    # ------------------------------------------------------------------------------------------ the journal

    @property
    def last_seq(self) -> int:
        """Newest seq of the journal, this transaction's entries included."""
        if self._last_seq is None:
            row = self.connection.execute("select max(seq) from journal").fetchone()
            last: int = (row[0] if row else 0) or 0
            self._last_seq = last
        return self._last_seq

    def append(self, entry: Entry) -> None:
        """Append; `entry.seq` must be `last_seq + 1`. A born record has rid = seq."""
        seq = entry.seq
        assert seq == self.last_seq + 1
        self._last_seq = seq
        self._appended.append(entry)
        self._encoded.append(encode_entry(entry))
        rid = entry.rid
        if rid != seq:
            self._changed[rid] = seq
        self._entries[rid] = entry

    def append_births(self, births: Births) -> None:
        """`append` for each. Raises TypeError, and does nothing, when one of them cannot be encoded."""
        documents = births.encoded()
        first = self.last_seq + 1
        assert births.first == first
        self._last_seq = first + len(births) - 1
        self._appended.extend(first, births)
        self._encoded.extend(documents)

    def append_changes(self, entries: Sequence[Entry]) -> None:
        """`append` for many, of different records that were born before this transaction."""
        first = self.last_seq + 1
        assert entries[0].seq == first
        self._last_seq = entries[-1].seq
        self._appended.extend(first, entries)
        self._encoded.extend(map(encode_entry, entries))
        changed = {entry.rid: entry for entry in entries}
        self._changed.update(zip(changed, range(first, first + len(entries)), strict=True))
        self._entries.update(changed)

    def current(self, rid: int) -> Entry | None:
        """The newest entry of a record."""
        entry = self._entries.get(rid) or self._born(rid)
        if entry is None:
            row = self.connection.execute(
                "select doc from journal where seq = coalesce((select seq from record where rid = ?1), ?1)", (rid,)
            ).fetchone()
            if row is None:
                return None
            entry = self._remember(row[0])
        return entry

    def _born(self, rid: int) -> Entry | None:
        """The entry of a record that was born in this transaction, and in `_entries` if it changed since."""
        entry = self._appended.entry(rid) if self._appended else None
        return entry if entry is not None and entry.rid == rid else None

    def version(self, seq: int) -> Entry | None:
        """Entry `seq`, None when retention has removed it."""
        entry = self._versions.get(seq)
        if entry is None and self._appended and seq >= self._appended.first:
            return self._appended.entry(seq)
        if entry is None and seq:
            row = self.connection.execute("select doc from journal where seq = ?", (seq,)).fetchone()
            if row is None:
                return None
            entry = decode_entry(row[0])
            self._versions[seq] = entry
        return entry

    def as_of(self, rid: int, seq: int) -> Entry | None:
        """The record as it was after journal entry `seq`; None when it was not yet, or retention has removed it."""
        entry = self.current(rid)
        while entry is not None and entry.seq > seq:
            entry = self.version(entry.prev)
        return entry

    def _remember(self, document: bytes) -> Entry:
        entry = decode_entry(document)
        self._entries[entry.rid] = entry
        self._versions[entry.seq] = entry
        return entry

    def load_records(self, rids: Iterable[int]) -> dict[int, Entry]:
        """Current entries of many records; numbers that are no record's are left out."""
        entries = self._entries
        wanted = sorted(rid for rid in rids if rid not in entries)
        if wanted and self._appended and wanted[-1] >= self._appended.first:
            born = {rid: entry for rid in wanted if (entry := self._born(rid)) is not None}
            entries.update(born)
            wanted = [rid for rid in wanted if rid not in born]
        if wanted:
            found = self._documents(
                "carray(?) c left join record r on r.rid = c.value"
                " left join journal j on j.seq = coalesce(r.seq, c.value)",
                (integers(wanted),),
            )
            entries.update((rid, e) for rid, e in zip(wanted, found, strict=True) if e is not None and e.rid == rid)
        return entries

    def read_births(self, after: int, until: int) -> Births | None:
        """Entries behind `after` up to `until`, when they are births of one kind and in memory; only what is
        committed."""
        return self._recent.births(after, until)

    def read_journal(self, after: int, until: int) -> list[Entry]:
        """Entries behind `after` up to `until`, in order; only what is committed."""
        recent = self._recent.read(after, until)
        if recent is not None:
            return recent
        found = self._documents("(select doc from journal where seq > ? and seq <= ? order by seq) j", (after, until))
        return [entry for entry in found if entry is not None]

    def entries_behind(self, after: int) -> Iterator[Entry]:
        """Every entry behind `after`, in order, this transaction's too. Nothing may be appended meanwhile."""
        committed = self._appended.first - 1 if self._appended else self.last_seq
        for start in range(after, committed, READ_ENTRIES):
            yield from self.read_journal(start, min(start + READ_ENTRIES, committed))
        yield from self._appended.read(max(after, committed), self.last_seq) or ()

    def _documents(self, source: str, bindings: Sequence[Any]) -> list[Entry | None]:
        """The documents `j.doc` of a query in the order of its rows, None where there is none."""
        row = self.connection.execute(
            f"select count(*), cast(group_concat(coalesce(j.doc, x'c0'), '') as blob) from {source}", bindings
        ).fetchone()
        assert row is not None
        return decode_entries(row[0], row[1]) if row[0] else []

    def add_boundary(self, system: int, *, is_whole: bool) -> None:
        """Note whether `system` is inside a transaction; when no system is, a delivery may end at the journal's end."""
        if is_whole:
            self.connection.execute("delete from unfinished where system = ?", (system,))
        else:
            self.connection.execute("insert or ignore into unfinished values (?)", (system,))
        self.mark_boundary()

    def mark_boundary(self) -> None:
        if self.connection.execute("select 1 from unfinished limit 1").fetchone() is None:
            self.connection.execute("insert or ignore into boundary values (?)", (self.last_seq,))

    def boundary(self, after: int, rows_max: int) -> int:
        """Where the next delivery behind `after` ends: the greatest boundary within `rows_max` entries, else the first
        one behind, else `after` itself."""
        row = self.connection.execute(
            "select max(seq) from boundary where seq > ? and seq <= ?", (after, after + rows_max)
        ).fetchone()
        if row is None or row[0] is None:
            row = self.connection.execute("select min(seq) from boundary where seq > ?", (after,)).fetchone()
        return row[0] if row and row[0] is not None else after

    # ---------------------------------------------------------------------------------------- the crosswalk

    def load_keys(self, place: int, keys: Sequence[str]) -> dict[str, int]:
        """Key → rid for the known ones among `keys`, and perhaps for others; their current entries are loaded too."""
        known = self._known(place)
        wanted = [key for key in keys if key not in known] if known else list(keys)
        entries = self._entries
        for asked, bound in self.asked(place, wanted):
            found = self._documents(
                "carray(?) c left join link l on l.place = ? and l.key = c.value left join record r on r.rid = l.rid"
                " left join journal j on j.seq = coalesce(r.seq, l.rid)",
                (bound, place),
            )
            for key, entry in zip(asked, found, strict=True):
                if entry is not None:
                    rid = known[key] = entry.rid
                    if rid not in entries:
                        entries[rid] = entry
        return known

    @property
    def entries(self) -> dict[int, Entry]:
        """Current entries in memory, by rid; not all of them of records that were born in this transaction."""
        return self._entries

    def add_match_keys(self, entity: int, keys: Iterable[str], rid: int) -> None:
        self._match_keys.extend((entity, escaped(key), rid) for key in keys)

    def matches(self, entity: int, keys: Sequence[str]) -> dict[str, set[int]]:
        """Match key → records."""
        found: dict[str, set[int]] = {}
        if keys:
            self._flush_matches()
            asked = {escaped(key): key for key in keys}
            rows = self.connection.execute(
                "select m.key, m.rid from carray(?) c cross join match_key m on m.entity = ? and m.key = c.value",
                (texts(list(asked)), entity),
            )
            for key, rid in rows:
                found.setdefault(asked[key], set()).add(rid)
        return found

    def alias(self, rid: int) -> int:
        """The record that `rid` stands for: itself, unless it was a placeholder of one known under another rid."""
        if self._has_aliases is None:
            self._has_aliases = self.connection.execute("select 1 from alias limit 1").fetchone() is not None
        while self._has_aliases:
            row = self.connection.execute("select means from alias where rid = ?", (rid,)).fetchone()
            if row is None:
                break
            rid = row[0]
        return rid

    def meaning(self, rids: Iterable[int]) -> set[int]:
        """All numbers that stand for one of these records, their own among them."""
        found = new = set(rids)
        by_meaning: dict[int, list[int]] = {}
        for rid, means in self.connection.execute("select rid, means from alias"):
            by_meaning.setdefault(means, []).append(rid)
        while new:
            new = {rid for means in new for rid in by_meaning.get(means, ())} - found
            found = found | new
        return found

    def set_alias(self, rid: int, means: int) -> None:
        self.connection.execute("insert into alias values (?, ?)", (rid, means))
        self._has_aliases = True

    # --------------------------------------------------------------------------------------------- systems

    def system(self, system: int, columns: str) -> Any:
        """Some columns of a system's row."""
        row = self.connection.execute(f"select {columns} from system where id = ?", (system,)).fetchone()
        assert row is not None
        return row

    def position(self, system: int) -> Position | None:
        (document,) = self.system(system, "position")
        return None if document is None else _decode_position(document)

    def set_position(
        self, system: int, position: Position, at: int, *, read: int, echoed: int, filtered: int, parked: int
    ) -> None:
        self.connection.execute(
            "update system set position = ?, captured_at = max(captured_at, ?), rows_read = rows_read + ?,"
            " rows_echoed = rows_echoed + ?, rows_filtered = rows_filtered + ?, rows_parked = rows_parked + ?"
            " where id = ?",
            (_encode(position), at, read, echoed, filtered, parked, system),
        )

    def seen(self, system: int) -> int:
        return self.system(system, "seen")[0]

    def set_seen(self, system: int, seen: int, before: int | None = None) -> None:
        """`before`: what the system had seen until then, where its log shows the delivery `seen`; None keeps that."""
        self.connection.execute(
            "update system set seen = max(seen, ?1), seen_before = coalesce(?2, seen_before) where id = ?3",
            (seen, before, system),
        )
        self.sweep_overlays(system, seen)
        self.sweep_stretches(system, seen)

    # ------------------------------------------------------------------------------------------- writing out

    def flush(self) -> None:
        """Write what was gathered. Called once before the commit."""
        if self._appended:
            first = self._appended.first
            self.connection.execute(
                "insert into journal select ?1 + c.rowid - 1, c.value from carray(?2) c",
                (first, blobs(self._encoded)),
            )
            self._flush_changed(first)
        self.flush_links()
        self._flush_matches()
        self.flush_conflicts()

    def _flush_changed(self, first: int) -> None:
        changed, self._changed = self._changed, {}
        if not changed:
            return
        packed = pairs(list(changed), list(changed.values()), first)
        if packed is None:
            self.connection.executemany("insert or replace into record values (?, ?)", sorted(changed.items()))
            return
        self.connection.execute(
            f"insert or replace into record select {LARGE}, ?1 + {SMALL} from carray(?2) c", (first, integers(packed))
        )

    def _flush_matches(self) -> None:
        if self._match_keys:
            self.connection.executemany("insert or ignore into match_key values (?, ?, ?)", sorted(self._match_keys))
            self._match_keys = []
