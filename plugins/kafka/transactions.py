"""Order by the topic of transactions (`order = "transaction"`).

The connector tells each transaction's end, in the order in which it read them from the source's log, with the number of
events of each table. So the topic of transactions, which has one partition, is the order of everything: a transaction
is handed out when its end has come and as many events of each of our tables as it counts; whichever partition they
stand in, and however late. Nothing is waited for but what is known to come.

An event stands in its partition behind those of earlier transactions and before those of later ones. A connector that
begins again behind a restart of its own sends what it has sent before once more, transactions' ends too; these are told
by their places in the source's log (`message.stream_of`, `message.place_of`) and dropped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from engine.errors import MalformedLog
from engine.model.position import WHOLE
from plugins.kafka.buffer import Partition, Run
from plugins.kafka.collect import Collector, Rows
from plugins.kafka.ingest import check_went_back
from plugins.kafka.layouts import Layouts
from plugins.kafka.message import (
    Boundary,
    Event,
    Malformed,
    decode_boundary,
    place_of,
    stream_of,
    transaction_key,
    unwrap,
)
from plugins.kafka.names import Names
from plugins.kafka.position import Part, Place, Resume
from plugins.kafka.records import Record
from plugins.kafka.rows import collect, marker_seq, read_run

# A transaction of rows larger than this is not held in memory, however few they are.
TRANSACTION_BYTES_MAX: Final = 32 << 20
# Ends of transactions that may wait in memory; behind so many the topic is not read on for a while.
ENDS_MAX: Final = 20_000


@dataclass(slots=True)
class _Open:
    """The transaction that is being handed out. By collection: `counts`, its events; `done`, how many of them have been
    taken; `taken`, by partition, the last `data_collection_order` of these. `seq` is that of our delivery which it
    is."""

    end: int
    id: str
    key: str
    time: int
    counts: dict[str, int]
    seq: int | None = None
    is_marked: bool = False
    taken: dict[tuple[str, int], int] = field(default_factory=lambda: {})
    done: dict[str, int] = field(default_factory=lambda: {})
    echoes: list[Rows] = field(default_factory=lambda: [])

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    @property
    def count(self) -> int:
        return sum(self.done.values())

    @property
    def is_complete(self) -> bool:
        return self.count >= self.total


class TransactionOrder:
    """Takes whole transactions out of the buffers. One task calls it."""

    def __init__(self, system: str, names: Names, resume: Resume, layouts: Layouts, verify: frozenset[str]) -> None:
        self._system = system
        self._names = names
        self._resume = resume
        self._layouts = layouts
        self._verify = verify
        self._marker = None if names.marker is None else names.marker.collection
        self._tables = {table.collection: table for table in names.all}
        self._quiet = {table.collection for table in (names.marker, names.heartbeat) if table is not None}
        self._partitions: dict[str, list[Partition]] = {table.topic: [] for table in names.all}
        self._all: list[Partition] = []
        self._ends: deque[tuple[int, Boundary]] = deque()
        self._open: _Open | None = None
        self._read_until = resume.next[names.transactions][0]
        self.replayed = 0

    def add_partition(self, partition: Partition) -> None:
        self._partitions[partition.topic].append(partition)
        self._all.append(partition)

    def take_boundaries(self, records: Iterable[Record], read_until: int) -> None:
        """Messages of the topic of transactions. Raises `MalformedLog`."""
        for offset, _, _, value, _ in records:
            if value is None:
                continue
            try:
                payload, _, _ = unwrap(value)
                self._ends.append((offset, decode_boundary(payload)))
            except Malformed as error:
                raise MalformedLog(
                    f"system {self._system}: topic {self._names.transactions}, offset {offset}: {error}",
                    hint="Name Debezium's topic of transactions in `transactions`.",
                ) from None
        self._read_until = read_until

    @property
    def is_full(self) -> bool:
        """Whether the topic of transactions shall not be read on."""
        return len(self._ends) > ENDS_MAX

    def take(self, collector: Collector, rows_max: int) -> bool:
        """Gather up to about `rows_max` rows; True when that stopped it, False when there is nothing more now. Raises
        `NeedLayout`, after which it goes on where it was."""
        while True:
            if self._open is None and not self._begin():
                self._settle(None, self._all, collector)
                return False
            assert self._open is not None, "it has just begun"
            if collector.rows >= rows_max or not self._fits(self._open, collector, rows_max):
                return True
            if not self._go_on(self._open, collector, rows_max):
                # Rows that a snapshot read may have filled the batch.
                return collector.rows >= rows_max
            if not self._open.is_complete:
                # A part of a large one.
                if collector.rows >= rows_max:
                    return True
                continue
            self._finish(self._open, collector)

    @property
    def order(self) -> Place:
        """The place behind what has been taken."""
        part = self.resume()[1]
        return (self._offset - 1, WHOLE) if part is None else (part.end, sum(part.done.values()))

    @property
    def is_inside(self) -> bool:
        """Whether a part of a user's transaction has been taken, perhaps by the feed before this one."""
        if self._open is None:
            return self._resume.part is not None and self._resume.part.seq is None
        return self._open.count > 0 and self._open.seq is None

    @property
    def has_more(self) -> bool:
        """Whether the end of a transaction has come that has rows of our tables, and has not been handed out."""
        if self._open is not None:
            return not self._quiet.issuperset(self._open.counts)
        return any(
            boundary.status == "END" and self._counts(boundary).keys() - self._quiet and not self._is_replayed(boundary)
            for _, boundary in self._ends
        )

    @property
    def waiting(self) -> str:
        """What the transaction lacks that comes next; empty when there is none."""
        transaction = self._open
        if transaction is None:
            return ""
        missing = [
            f"{count - transaction.done.get(name, 0)} of {name}"
            for name, count in transaction.counts.items()
            if count > transaction.done.get(name, 0) + self._available(transaction, name)
        ]
        return f"transaction {transaction.id}: {', '.join(missing)}" if missing else ""

    @property
    def wanted(self) -> set[tuple[str, int]]:
        """The partitions that the transaction may wait for, whatever is in their buffers: those that hold no later
        one."""
        transaction = self._open
        if transaction is None:
            return set()
        return {p.name for p in self._concerned(transaction) if not self._has_later(transaction, p)}

    def resume(self) -> tuple[dict[int, int], Part | None]:
        """Where to go on in the topic of transactions, and inside which one."""
        transaction, known = self._open, self._resume.part
        if transaction is None and known is not None:
            # Its end has not been read again yet.
            return {0: known.end}, known
        if transaction is None or not transaction.count:
            return {0: self._offset}, None
        taken: dict[str, dict[int, int]] = {}
        for (collection, number), order in transaction.taken.items():
            taken.setdefault(collection, {})[number] = order
        done = dict(transaction.done)
        return {0: transaction.end}, Part(transaction.end, transaction.id, transaction.seq, taken, done)

    @property
    def _offset(self) -> int:
        if self._open is not None:
            return self._open.end
        return self._ends[0][0] if self._ends else self._read_until

    def _begin(self) -> bool:
        """Open the transaction that ended next; those that are nothing to us are passed."""
        while self._ends:
            offset, boundary = self._ends.popleft()
            was_fresh, self._resume.is_fresh = self._resume.is_fresh, False
            if boundary.status == "BEGIN":
                continue
            if was_fresh:
                # It began before we did: the tables, which are read later, have all of it.
                self._resume.dropped = transaction_key(boundary.id)
                self._pass(boundary)
                continue
            if self._is_replayed(boundary):
                self.replayed += 1
                continue
            counts = self._counts(boundary)
            if not counts:
                self._pass(boundary)
                continue
            key = transaction_key(boundary.id)
            self._open = _Open(offset, boundary.id, key, boundary.ts_ms * 1000, counts)
            known = self._resume.part
            if known is not None and known.end == offset:
                self._open.taken = {(c, n): order for c, ps in known.taken.items() for n, order in ps.items()}
                self._open.done, self._open.seq = dict(known.done), known.seq
                self._open.is_marked = True
            self._resume.part = None
            return True
        return False

    def _counts(self, boundary: Boundary) -> dict[str, int]:
        """How many events of each of our tables it has."""
        told = boundary.data_collections or ()
        return {c.data_collection: c.event_count for c in told if c.data_collection in self._tables and c.event_count}

    def _is_replayed(self, boundary: Boundary) -> bool:
        found = stream_of(boundary.id)
        if found is None:
            return False
        stream, place = found
        last = self._resume.streams.get(stream)
        return last is not None and place <= last

    def _pass(self, boundary: Boundary) -> None:
        found = stream_of(boundary.id)
        if found is not None:
            self._resume.streams[found[0]] = found[1]

    def _fits(self, transaction: _Open, collector: Collector, rows_max: int) -> bool:
        """Whether it may still come into the batch; a large one begins another."""
        return collector.rows == 0 or collector.rows + transaction.total <= 2 * rows_max

    def _go_on(self, transaction: _Open, collector: Collector, rows_max: int) -> bool:
        """Take the transaction's events, all of them or, of a large one, those that are there; False when it waits for
        more."""
        partitions = [p for p in self._concerned(transaction) if not self._is_taken(transaction, p.topic)]
        self._settle(transaction, partitions, collector)
        missing = [
            name
            for name, count in transaction.counts.items()
            if transaction.done.get(name, 0) + self._available(transaction, name) < count
        ]
        # Our deliveries are no larger than the engine makes them, and what is verified of them is handed out at once.
        is_large = self._marker not in transaction.counts and (
            transaction.total > 2 * rows_max or self._size(transaction, partitions) > TRANSACTION_BYTES_MAX
        )
        if missing and not is_large:
            return False
        if not transaction.is_marked:
            self._mark(transaction, collector)
        before, limit = transaction.count, rows_max if is_large else None
        progress = -1
        while progress < transaction.count:
            progress = transaction.count
            for partition in partitions:
                self._take_from(transaction, partition, collector, limit)
        return transaction.count > before or transaction.is_complete

    def _mark(self, transaction: _Open, collector: Collector) -> None:
        """Find out whether it is our delivery: then its first event is an update of the marker."""
        transaction.is_marked = True
        if self._marker is None or self._marker not in transaction.counts:
            return
        for partition in self._partitions[self._tables[self._marker].topic]:
            for run in self._runs_of(transaction, partition):
                for index, event in enumerate(run.events):
                    if run.table.collection != self._marker or event.op != "u" or event.transaction is None:
                        continue
                    seq = marker_seq(run, index, self._system)
                    if event.transaction.total_order == 1:
                        transaction.seq = seq
                    elif transaction.seq is None:
                        # It hides nothing: the rows around it stay changes of users.
                        collector.new_segment(seq)

    def _take_from(self, transaction: _Open, partition: Partition, collector: Collector, rows_max: int | None) -> None:
        """Take the transaction's events at the head of the partition that come next in their table, with `rows_max`
        only until there are so many."""
        while not self._is_taken(transaction, partition.topic):
            # Behind its events may stand what the connector has sent again, and then its other events.
            self._settle(transaction, (partition,), collector)
            if not partition.runs or partition.runs[0].key != transaction.key:
                return
            run = partition.runs[0]
            name = run.table.collection
            at = name, partition.number
            skip = _repeated(run, transaction.taken.get(at, 0))
            if skip == len(run.events):
                self.replayed += skip
                partition.pop()
                continue
            if skip:
                partition.split(skip)
                continue
            count = len(run.events)
            if len(self._partitions[run.table.topic]) > 1:
                # The table's other events stand in other partitions.
                count = _consecutive(run, transaction.done.get(name, 0) + 1)
            if rows_max is not None:
                count = min(count, rows_max - collector.rows)
            if count <= 0:
                return
            if count < len(run.events):
                partition.split(count)
            self._put(transaction, run, collector)
            final = run.events[-1]
            transaction.taken[at] = _order(final)
            transaction.done[name] = transaction.done.get(name, 0) + count
            partition.time = max(partition.time, final.source.time)
            partition.pop(place_of(final.source))

    def _put(self, transaction: _Open, run: Run, collector: Collector) -> None:
        """The run's rows into the batch. Raises `NeedLayout` before anything is changed."""
        if run.table.collection in self._quiet:
            collector.pass_rows(len(run.events))
        elif transaction.seq is None:
            collect(collector, run, read_run(run, self._layouts), self._layouts)
        elif run.table.name in self._verify:
            found = [rows for rows in read_run(run, self._layouts) if not isinstance(rows, str)]
            transaction.echoes += found
        else:
            collector.pass_echoes(len(run.events))

    def _finish(self, transaction: _Open, collector: Collector) -> None:
        if transaction.seq is not None:
            collector.new_segment(transaction.seq)
            for rows in transaction.echoes:
                collector.add_echo(transaction.seq, rows)
        collector.committed_at = transaction.time or collector.committed_at
        found = stream_of(transaction.id)
        if found is not None:
            self._resume.streams[found[0]] = found[1]
        self._open = None

    def _settle(self, transaction: _Open | None, partitions: Sequence[Partition], collector: Collector) -> None:
        """Leave at the head of each partition what belongs to this transaction or a later one. What stands before it
        and belongs to none was read by a snapshot, before this transaction: it goes first."""
        for partition in partitions:
            while partition.runs:
                run = partition.runs[0]
                if transaction is not None and run.key == transaction.key:
                    break
                if self._is_replayed_run(partition, run):
                    self.replayed += len(run.events)
                    partition.pop()
                elif run.key is None or self._is_unended(run, transaction):
                    self._put_outside(partition, collector)
                else:
                    break

    def _put_outside(self, partition: Partition, collector: Collector) -> None:
        run = partition.runs[0]
        if run.table.collection in self._quiet:
            collector.pass_rows(len(run.events))
        else:
            collect(collector, run, read_run(run, self._layouts), self._layouts)
        partition.pop(None if run.key is None else run.place)

    def _is_replayed_run(self, partition: Partition, run: Run) -> bool:
        """Whether the connector has sent these events before: in one partition places only go on, but where it begins
        again behind a restart of its own; or whether they are of a transaction that began before us."""
        if run.key is not None and run.key == self._resume.dropped:
            return True
        if run.place is None:
            return False
        source, handed = run.events[0].source, partition.handed
        # A row that was read has the place of the last change before it.
        is_replayed = handed is not None and (run.place < handed if run.key is None else run.place <= handed)
        if source.connector == "postgresql" and run.key is not None:
            # (End of the transaction before, …): nothing that was committed later has an earlier one.
            last = self._resume.streams.get("")
            is_replayed = is_replayed or (last is not None and run.place[0] < last[0])
        if is_replayed:
            check_went_back(self._system, partition, run.offsets[0], source.time, partition.time)
        return is_replayed

    def _is_unended(self, run: Run, transaction: _Open | None) -> bool:
        """Whether it is an emptied table of MariaDB's or MySQL's, whose connectors tell no end of a statement that
        defines tables: then a later end says that it is over."""
        if run.key is None or any(event.op != "t" for event in run.events):
            return False
        found, last = stream_of(run.key), None
        if found is None:
            return False
        last = self._resume.streams.get(found[0])
        if transaction is not None and (present := stream_of(transaction.id)) is not None and present[0] == found[0]:
            last = present[1]
        return last is not None and found[1] < last

    def _concerned(self, transaction: _Open) -> list[Partition]:
        """The partitions of its tables."""
        if len(transaction.counts) == 1:
            (name,) = transaction.counts
            return self._partitions[self._tables[name].topic]
        topics = dict.fromkeys(self._tables[name].topic for name in transaction.counts)
        return [partition for topic in topics for partition in self._partitions[topic]]

    def _runs_of(self, transaction: _Open, partition: Partition) -> Iterator[Run]:
        """The transaction's runs in the partition, in which others may stand that the connector has sent again."""
        for run in partition.runs:
            if run.key == transaction.key:
                yield run
            elif run.key is not None and not self._is_replayed_run(partition, run):
                return

    def _has_later(self, transaction: _Open, partition: Partition) -> bool:
        """Whether the partition holds an event of a later transaction, and so all of this one."""
        others = (run for run in partition.runs if run.key is not None and run.key != transaction.key)
        return any(not self._is_replayed_run(partition, run) for run in others)

    def _size(self, transaction: _Open, partitions: Sequence[Partition]) -> int:
        return sum(run.size for partition in partitions for run in self._runs_of(transaction, partition))

    def _is_taken(self, transaction: _Open, topic: str) -> bool:
        """Whether all of its events of the topic's tables have been taken; what stands behind them comes after it."""
        counts, done = transaction.counts, transaction.done
        return all(done.get(n, 0) >= count for n, count in counts.items() if self._tables[n].topic == topic)

    def _available(self, transaction: _Open, name: str) -> int:
        """How many of the transaction's events of the table have come and not been taken."""
        found = 0
        for partition in self._partitions[self._tables[name].topic]:
            last = transaction.taken.get((name, partition.number), 0)
            for run in self._runs_of(transaction, partition):
                if run.table.collection == name:
                    found += len(run.events) - _repeated(run, last)
                    last = max(last, _order(run.events[-1]))
        return found


def _order(event: Event) -> int:
    assert event.transaction is not None, "the event's run is of a transaction"
    return event.transaction.data_collection_order


def _consecutive(run: Run, first: int) -> int:
    """How many events of the run, from its beginning, are the table's next ones, `first` and so on."""
    return next((n for n, event in enumerate(run.events) if _order(event) != first + n), len(run.events))


def _repeated(run: Run, last: int) -> int:
    """How many events of the run, from its beginning, have been taken before."""
    for index, event in enumerate(run.events):
        if _order(event) > last:
            return index
    return len(run.events)
