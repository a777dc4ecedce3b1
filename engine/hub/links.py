"""The crosswalk's rows inside one hub transaction: which key in which place is which record.

Rows made here wait in memory and go out in a few statements; whoever asks the database first writes them out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from engine.hub.database import Database, integers, texts
from engine.hub.packed import LARGE, SMALL, pairs, plain_integers, read_key, stored_key

_encode_pairs = msgspec.json.Encoder().encode
_decode_keys = msgspec.json.Decoder(list[str | int | None]).decode
_decode_rids = msgspec.json.Decoder(list[int | None]).decode


class Links:
    """Key → rid and back, by place. Valid inside one transaction only."""

    def __init__(self, connection: Database) -> None:
        self.connection = connection
        self._left: dict[int, set[int]] = {}
        self._rids: dict[int, dict[str, int]] = {}
        self._runs: dict[int, list[tuple[Sequence[str], Sequence[int]]]] = {}
        """What is to be in `_rids` too, should anybody ask: place → keys and rids."""
        self._links: dict[tuple[int, int], tuple[list[str], list[int]]] = {}
        """Rows not written yet: (place, seq) → keys and rids."""
        self._bulks: list[tuple[int, int, Sequence[str], Sequence[int]]] = []
        """More of them, each as it came: place, seq, keys and rids."""
        self._numbered: tuple[Sequence[str], list[int] | None] = ((), None)
        """The keys that were last asked for, and their numbers: they are linked next, most often."""

    def clear_links(self) -> None:
        """Forget what was cached for the length of the transaction."""
        self._rids = {}
        self._runs = {}
        self._links = {}
        self._bulks = []
        self._numbered = ((), None)

    def _known(self, place: int) -> dict[str, int]:
        """Key → rid as far as it is in memory."""
        known = self._rids.setdefault(place, {})
        for keys, rids in self._runs.pop(place, ()):
            known.update(zip(keys, rids, strict=True))
        return known

    def forget_links(self) -> None:
        """Nothing in memory is true any more."""
        self.clear_links()
        self._left = {}

    def write(self, sql: str, bindings: Sequence[Any] = ()) -> None:
        """One statement on a side table."""
        self.flush_links()
        self.connection.execute(sql, bindings)

    def rows(self, sql: str, bindings: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a query on side tables."""
        self.flush_links()
        return list(self.connection.execute(sql, bindings))

    # ------------------------------------------------------------------------------------------------ asking

    def load_rids(self, place: int, keys: Iterable[str]) -> dict[str, int]:
        """Key → rid for the known ones among `keys`, and perhaps for others."""
        known = self._known(place)
        wanted = keys if isinstance(keys, list) else list(keys)
        if known:
            wanted = [key for key in wanted if key not in known]
        for found, bound in self.asked(place, wanted):
            row = self.connection.execute(
                "select json_group_array(l.rid) from carray(?) c left join link l on l.place = ? and l.key = c.value",
                (bound, place),
            ).fetchone()
            assert row is not None
            for key, rid in zip(found, _decode_rids(row[0]), strict=True):
                if rid is not None:
                    known[key] = rid
        return known

    def asked(self, place: int, keys: list[str]) -> list[tuple[list[str], object]]:
        """The keys worth asking the database for, with the same as bound arrays, in the order of the index: neighbours
        share pages, and so do the journal rows they lead to."""
        if not keys:
            return []
        numbers = self._numbers(keys)
        if numbers is not None:
            row = self.connection.execute("select max(key) from link where place = ?", (place,)).fetchone()
            greatest = row[0] if row else None
            if greatest is None or (isinstance(greatest, int) and min(numbers) > greatest):
                # Numbers handed out since: none of them can be there.
                return []
            numbers = sorted(numbers)
            return [(list(map(str, numbers)), integers(numbers))]
        stored = [stored_key(key) for key in keys]
        numbers = sorted(key for key in stored if isinstance(key, int))
        others = sorted(key for key in stored if isinstance(key, str))
        found: list[tuple[list[str], object]] = []
        if numbers:
            found.append((list(map(str, numbers)), integers(numbers)))
        if others:
            found.append((list(map(read_key, others)), texts(others)))
        return found

    def keys_of(self, place: int, rids: Sequence[int]) -> dict[int, str]:
        """Rid → key for those linked in `place`, rows that do not take part now included."""
        if not rids:
            return {}
        self.flush_links()
        asked = sorted(rids)
        row = self.connection.execute(
            "select json_group_array(l.key) from carray(?) c left join link l on l.place = ? and l.rid = c.value",
            (integers(asked), place),
        ).fetchone()
        assert row is not None
        return {rid: read_key(key) for rid, key in zip(asked, _decode_keys(row[0]), strict=True) if key is not None}

    def left_of(self, place: int) -> set[int]:
        """Records whose row in `place` does not take part now. Kept up to date: hold on to it, do not change it."""
        if place not in self._left:
            self.flush_links()
            rows = self.connection.execute("select rid from link where place = ? and is_left", (place,))
            self._left[place] = {row[0] for row in rows}
        return self._left[place]

    def linked_by(self, place: int, rid: int) -> tuple[str, int] | None:
        """The record's key in this place and the delivery that made the row (0: a user did); None without a row."""
        self.flush_links()
        found = self.connection.execute(
            "select key, seq from link where place = ? and rid = ?", (place, rid)
        ).fetchone()
        return None if found is None else (read_key(found[0]), found[1])

    # --------------------------------------------------------------------------------------------- changing

    def link(self, place: int, key: str, rid: int, seq: int = 0) -> None:
        """Add a crosswalk row. Neither the key nor the record may be linked in this place already. `seq`: the delivery
        that made the row, 0 when a user did."""
        keys, rids = self._links.setdefault((place, seq), ([], []))
        keys.append(key)
        rids.append(rid)
        self._known(place)[key] = rid

    def link_all(self, place: int, keys: Sequence[str], rids: Sequence[int], seq: int = 0) -> None:
        """`link` for many."""
        if not keys:
            return
        self._bulks.append((place, seq, keys, rids))
        # A first copy or bulk load links each key once and is not asked for it again.
        self._runs.setdefault(place, []).append((keys, rids))

    def relink(self, place: int, key: str, rid: int, seq: int = 0) -> None:
        """Point a key at another record, or a record at another key; what stood in the way goes. The row takes part.
        `seq`: as in `link`."""
        self.flush_links()
        left = self.left_of(place)
        if left:
            for (other,) in self.connection.execute(
                "select rid from link where place = ? and (key = ? or rid = ?)", (place, stored_key(key), rid)
            ):
                left.discard(other)
        self.connection.execute(
            "delete from link where place = ? and (key = ? or rid = ?)", (place, stored_key(key), rid)
        )
        known = self._known(place)
        for other in [k for k, r in known.items() if r == rid]:
            del known[other]
        self.link(place, key, rid, seq)

    def unlink(self, place: int, key: str, rid: int) -> None:
        """Forget which record a key is."""
        self.flush_links()
        self.connection.execute("delete from link where place = ? and key = ?", (place, stored_key(key)))
        self._known(place).pop(key, None)
        self.left_of(place).discard(rid)

    def set_left(self, place: int, key: str, rid: int, *, is_left: bool) -> None:
        left = self.left_of(place)
        self.flush_links()
        self.connection.execute(
            "update link set is_left = ? where place = ? and key = ?", (is_left, place, stored_key(key))
        )
        (left.add if is_left else left.discard)(rid)

    def flush_links(self) -> None:
        """Write the rows that wait."""
        if self._links:
            waiting, self._links = self._links, {}
            for (place, seq), (keys, rids) in waiting.items():
                self._insert(place, seq, keys, rids)
        if self._bulks:
            bulks, self._bulks = self._bulks, []
            for bulk in bulks:
                self._insert(*bulk)

    def _numbers(self, keys: Sequence[str]) -> list[int] | None:
        """`plain_integers`; not to be changed."""
        if self._numbered[0] is not keys:
            self._numbered = (keys, plain_integers(keys))
        return self._numbered[1]

    def _insert(self, place: int, seq: int, keys: Sequence[str], rids: Sequence[int]) -> None:
        numbers = self._numbers(keys)
        if numbers is not None and _is_counted(rids) and numbers == sorted(numbers):
            # A bulk load: both ascend together.
            self.connection.execute(
                "insert into link (place, key, rid, seq) select ?1, c.value, ?2 + c.rowid - 1, ?3 from carray(?4) c",
                (place, rids[0], seq, integers(numbers)),
            )
            return
        base = min(rids)
        packed = None if numbers is None else pairs(numbers, rids, base)
        if packed is not None:
            self.connection.execute(
                f"insert into link (place, key, rid, seq) select ?1, {LARGE}, ?2 + {SMALL}, ?3 from carray(?4) c",
                (place, base, seq, integers(packed)),
            )
            return
        # Sorted: neighbours share pages, and SQLite appends when keys ascend.
        rows = sorted(zip(map(stored_key, keys), rids, strict=True), key=_order)
        self.connection.execute(
            "insert into link (place, key, rid, seq) select ?1, c.value ->> 0, c.value ->> 1, ?2 from json_each(?3) c",
            (place, seq, _encode_pairs(rows).decode()),
        )


def _is_counted(rids: Sequence[int]) -> bool:
    """Whether each is one more than the one before."""
    return list(range(rids[0], rids[0] + len(rids))) == list(rids)


def _order(row: tuple[str | int, int]) -> tuple[int, str]:
    key = row[0]
    return (key, "") if isinstance(key, int) else (1 << 63, key)
