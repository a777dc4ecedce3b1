"""One look at a polled system: in one snapshot the marker, the rows that were asked for, rows behind the updated-at
cursor, and where it is due all rows, span by span. What differs from what is known goes into `Looks`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

import msgspec

from engine.model.change import DELETE, INSERT, UPDATE
from engine.model.table import Column, Kind, Shape
from engine.model.value import WireRow
from plugins.polling.connect import Connection
from plugins.polling.horizon import instant_micros, lower_bound
from plugins.polling.looks import Looked, Looks
from plugins.polling.reader import Digests, Found, Reader
from plugins.polling.values import key_values

ECHO = ord("E")
"""A row as our delivery has left it."""
ECHO_GONE = ord("F")
"""A row that our delivery has deleted."""
TRUNCATED = ord("T")
DROPPED = ord("X")
RESHAPED = ord("R")
SPAN_ROWS = 1_000
KEYS_AT_ONCE = 200
# Fewer rows that are all gone are taken for deleted one by one.
EMPTIED_ROWS = 100


class Look:
    """One look, in the connection's thread, inside a snapshot and a transaction of `looks`."""

    def __init__(self, connection: Connection, looks: Looks, number: int, seq: int) -> None:
        self.connection = connection
        self.looks = looks
        self.number = number
        self.seq = seq
        self.at = time.time_ns() // 1000
        self.count = 0
        self.echoed = 0
        self._shapes: dict[int, tuple[Shape, int]] = {}
        self.is_silent = False
        """What is found is known, and no news: at the beginning."""

    def read_asked(self, table: Looked) -> None:
        """Rows that our deliveries wrote or did not find as they were last seen."""
        if table.verify:
            self._show_written(table)
        asked = self.looks.asked(table.id, self.seq)
        reader = Reader(self.connection, table.shape)
        for start in range(0, len(asked), KEYS_AT_ONCE):
            keys = asked[start : start + KEYS_AT_ONCE]
            found = {key: (hash, row) for key, hash, row in reader.read_keys(keys)}
            written = self.looks.written(table.id, keys, self.seq)
            expected = self.looks.expected(table.id, keys, self.seq)
            wanted = self.looks.wanted(table.id, keys)
            known = self.looks.known(table.id, keys)
            for key in keys:
                hash, row = found.get(key, (None, None))
                was = expected.get(key)
                if hash != was or key in wanted:
                    self._change(table, key, row, was)
                if key in written:
                    self.echoed += 1
            self._know(table, [(key, hash) for key, (hash, _) in found.items()], known)
            self._know_no_more(table, [key for key in keys if key not in found], known)
            self.looks.settle(table.id, keys, self.seq)

    def _show_written(self, table: Looked) -> None:
        """Rows as our deliveries have left them."""
        for key, image, seq in self.looks.rows(
            "select key, image, seq from written where looked = ? and seq <= ? and (image is not null or hash is null)"
            " order by seq, key",
            (table.id, self.seq),
        ):
            if image is None:
                self._add(table, ECHO_GONE, msgspec.msgpack.encode(key_values(key)), delivery=seq)
            else:
                self._add(table, ECHO, image, delivery=seq)

    def read_cursor(
        self, table: Looked, updated_at: Column, overlap: float, clock: float, oldest: float | None
    ) -> None:
        """Rows whose updated-at is not before that of the last looks. `clock`, `oldest`: as in `Seen`."""
        bound = lower_bound(table.history, updated_at, overlap)
        reader = Reader(self.connection, table.shape)
        greatest = table.history[-1][1] if table.history else None
        for page in reader.pages_behind(updated_at, bound):
            self._compare(table, page)
            greatest = reader.value(page[-1][2], updated_at)
        table.history.append((clock, greatest, oldest))

    def begin_cursor(self, table: Looked, updated_at: Column, clock: float, oldest: float | None) -> None:
        """From here on."""
        greatest = Reader(self.connection, table.shape).greatest(updated_at)
        table.history = [(clock, greatest, oldest)]

    def sweep(self, table: Looked) -> None:
        """Compare all rows, and find those that are gone."""
        if not self.is_silent and self._is_emptied(table):
            return
        reader = Reader(self.connection, table.shape)
        digests = Digests(reader, self.connection)
        spans = self.looks.rows("select id, upto, digest from span where looked = ? order by place", (table.id,))
        if not spans:
            self.looks.run("insert into span (looked, place) values (?, 0)", (table.id,))
            spans = [(self.looks.db.last_insert_rowid(), None, None)]
        after: str | None = None
        for span, upto, digest in spans:
            if digest is None or digests.of(after, upto) != digest:
                self._read_span(table, reader, digests, span, after, upto)
            after = upto
        # Rows found by a cursor lie in no span yet. What was not found in any is gone.
        gone = [key for (key,) in self.looks.rows(
            "select key from known where looked = ? and span is null", (table.id,)
        )]  # fmt: skip
        self._gone(table, gone)
        table.swept, table.swept_at = self.seq, time.time()

    # Spans.

    def _read_span(
        self, table: Looked, reader: Reader, digests: Digests, span: int, after: str | None, upto: str | None
    ) -> None:
        """Read a span's rows, cutting off new spans where it has grown."""
        left = {key for (key,) in self.looks.rows(
            "select key from known where looked = ? and span = ?", (table.id, span)
        )}  # fmt: skip
        buffer: list[Found] = []
        for page in reader.pages(after, upto):
            buffer += page
            while len(buffer) >= 2 * SPAN_ROWS:
                cut, buffer = buffer[:SPAN_ROWS], buffer[SPAN_ROWS:]
                high = cut[-1][0]
                new = self._cut_off(table, span, high)
                left.difference_update(key for key, _, _ in cut)
                self._compare(table, cut, new)
                self._set_digest(new, digests.of(after, high))
                after = high
        left.difference_update(key for key, _, _ in buffer)
        self._compare(table, buffer, span)
        self._gone(table, sorted(left))
        self._set_digest(span, digests.of(after, upto))

    def _cut_off(self, table: Looked, span: int, upto: str) -> int:
        """A new span before another one, up to a key."""
        ((place,),) = self.looks.rows("select place from span where id = ?", (span,))
        self.looks.run("update span set place = place + 1 where looked = ? and place >= ?", (table.id, place))
        self.looks.run("insert into span (looked, place, upto) values (?, ?, ?)", (table.id, place, upto))
        return self.looks.db.last_insert_rowid()

    def _set_digest(self, span: int, digest: str | None) -> None:
        self.looks.run("update span set digest = ? where id = ?", (digest, span))

    def _is_emptied(self, table: Looked) -> bool:
        """A table of many rows that has none is held: nothing says that each of them was meant."""
        ((count,),) = self.looks.rows("select count(*) from known where looked = ?", (table.id,))
        if count <= EMPTIED_ROWS or Reader(self.connection, table.shape).has_rows():
            return False
        self.looks.run("delete from known where looked = ?", (table.id,))
        self.looks.run("delete from span where looked = ?", (table.id,))
        self._add(table, TRUNCATED, b"")
        table.swept, table.swept_at = self.seq, time.time()
        return True

    # Rows.

    def _compare(self, table: Looked, rows: Sequence[Found], span: int | None = None) -> None:
        """Rows as they are, against what is known of them; `span`: where they lie, None: not known, or as before."""
        if not rows:
            return
        known = self.looks.known(table.id, [key for key, _, _ in rows])
        if not self.is_silent:
            for key, hash, row in rows:
                was = known.get(key)
                if was is None or was[0] != hash:
                    self._change(table, key, row, was and was[0])
        changed = [(key, hash) for key, hash, _ in rows if known.get(key) != (hash, span)]
        if span is None:
            self._know(table, [pair for pair in changed if known.get(pair[0], (None,))[0] != pair[1]], known)
        else:
            self.looks.know(table.id, ((key, hash, span) for key, hash in changed))

    def _know(
        self, table: Looked, rows: Iterable[tuple[str, bytes | None]], known: dict[str, tuple[bytes, int | None]]
    ) -> None:
        """Rows read by another way than their span: its digest is of before."""
        new = [(key, hash, known[key][1] if key in known else None) for key, hash in rows if hash is not None]
        self.looks.know(table.id, new)
        self.looks.touch_spans({span for _, _, span in new if span is not None})

    def _know_no_more(self, table: Looked, keys: list[str], known: dict[str, tuple[bytes, int | None]]) -> None:
        self.looks.know_no_more(table.id, keys)
        self.looks.touch_spans({span for key in keys if key in known and (span := known[key][1]) is not None})

    def _gone(self, table: Looked, keys: list[str]) -> None:
        for key in keys:
            self._change(table, key, None, b"")
        self.looks.know_no_more(table.id, keys)

    def _change(self, table: Looked, key: str, row: WireRow | None, was: bytes | None) -> None:
        if self.is_silent:
            return
        if row is None:
            self._add(table, DELETE, msgspec.msgpack.encode(key_values(key)))
        else:
            self._add(
                table, INSERT if was is None else UPDATE, msgspec.msgpack.encode(row), time=self._time(table, row)
            )

    def _time(self, table: Looked, row: WireRow) -> int:
        name = self.connection.config.options(table.name).updated_at
        column = None if name is None else table.shape.column(name)
        value = None if name is None or column is None or column.kind is not Kind.INSTANT else table.shape.index(name)
        found = None if value is None else instant_micros(row[value])
        return self.at if found is None else min(found, self.at)

    def _add(self, table: Looked, op: int, row: bytes, *, delivery: int = 0, time: int | None = None) -> None:
        self.looks.run(
            "insert into found values (?, ?, ?, ?, ?, ?, ?)",
            (self.number, self.count, self._shape(table), op, delivery, time or self.at, row),
        )
        self.count += 1

    def _shape(self, table: Looked) -> int:
        known = self._shapes.get(table.id)
        if known is None or known[0] is not table.shape:
            known = self._shapes[table.id] = table.shape, self.looks.shape_number(table)
        return known[1]

    def tell(self, table: Looked, op: int) -> None:
        """Something happened to the table."""
        self._add(table, op, b"")
