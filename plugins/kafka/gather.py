"""What the consumer brings becomes batches: buffers, an order, positions. No I/O and no waiting; `capture.py` does
both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from engine.errors import PositionLost
from engine.model.change import Batch
from engine.model.position import Position
from plugins.kafka.buffer import Partition
from plugins.kafka.collect import Collector
from plugins.kafka.config import KafkaConfig
from plugins.kafka.ingest import Ingest
from plugins.kafka.layouts import Layouts, NeedLayout
from plugins.kafka.names import Names
from plugins.kafka.position import Resume, position_of
from plugins.kafka.records import Record
from plugins.kafka.sequence import SequenceOrder
from plugins.kafka.transactions import TransactionOrder

Number = tuple[str, int]
"""A partition: its topic and its number."""
# What has been read of one partition and not been handed out, in bytes; behind it the partition is not read on, unless
# the next transaction waits for it.
BUFFER_BYTES_MAX: Final = 16 << 20


@dataclass(slots=True)
class Found:
    """What one look of the consumer brought. `next`: the offsets behind it; `ends`: how far the brokers' logs go.
    `added`: partitions that are new, and are read from their beginning."""

    records: dict[Number, Sequence[Record]] = field(default_factory=lambda: {})
    next: dict[Number, int] = field(default_factory=lambda: {})
    ends: dict[Number, int] = field(default_factory=lambda: {})
    added: list[Number] = field(default_factory=lambda: [])


class Gatherer:
    """One feed's state. `ends`: of the topics when they were opened."""

    def __init__(
        self,
        system: str,
        config: KafkaConfig,
        names: Names,
        layouts: Layouts,
        resume: Resume,
        ends: Mapping[Number, int],
        verify: frozenset[str],
    ) -> None:
        self._system = system
        self._config = config
        self._names = names
        self._layouts = layouts
        self._resume = resume
        self._ends = dict(ends)
        self._ingest = Ingest(system, config, names, since=resume.since, keys=layouts.keys)
        self._partitions: dict[Number, Partition] = {}
        self._transactions: TransactionOrder | None = None
        if config.order == "transaction":
            self._transactions = TransactionOrder(system, names, resume, layouts, verify)
        is_single = config.order == "partition"
        self._sequence = SequenceOrder(system, names, layouts, verify, is_single=is_single, echo=resume.echo)
        for topic, numbers in resume.next.items():
            for number, offset in numbers.items():
                if not self._is_of_transactions(topic):
                    self._add((topic, number), offset, self._ends.get((topic, number), 0))
        self._collector = Collector()
        self._need: NeedLayout | None = None
        self.handed = self.position()

    @property
    def is_empty(self) -> bool:
        """Whether nothing has been gathered for the next batch."""
        return self._collector.is_empty

    @property
    def replayed(self) -> int:
        """Messages that the connector had sent before, and that were dropped."""
        return self._ingest.replayed + (self._transactions.replayed if self._transactions is not None else 0)

    @property
    def waiting(self) -> str:
        """What the transaction lacks that comes next; empty where there is none."""
        return self._transactions.waiting if self._transactions is not None else ""

    @property
    def paused(self) -> frozenset[Number]:
        """The partitions that have enough in their buffers."""
        full = {name for name, partition in self._partitions.items() if partition.size > BUFFER_BYTES_MAX}
        if self._transactions is None:
            return frozenset(full)
        full -= self._transactions.wanted
        if self._transactions.is_full:
            full |= {(self._names.transactions, 0)}
        return frozenset(full)

    @property
    def end_at_open(self) -> Position:
        """The place until which there was anything when the topics were opened."""
        if self._transactions is not None:
            return Position(order=(self._ends.get((self._names.transactions, 0), 0) - 1, 0))
        if self._config.order == "partition":
            return Position(order=(sum(self._ends.values()) - 1, 0))
        return Position(order=(sum(self._ends.values()),))

    def take_in(self, found: Found) -> None:
        """Put messages into the buffers. Raises `MalformedLog`, `SourceUnready`, `PositionLost`."""
        for topic, number in found.added:
            self._take_added(topic, number)
        for name, records in found.records.items():
            if not self._is_of_transactions(name[0]):
                self._ingest.take(self._partitions[name], records)
            elif self._transactions is not None and records:
                self._transactions.take_boundaries(records, found.next.get(name, records[-1][0] + 1))
        for name, offset in found.next.items():
            if name in self._partitions:
                self._partitions[name].next = offset
            elif self._transactions is not None and name not in found.records:
                self._transactions.take_boundaries((), offset)
        for name, end in found.ends.items():
            if name in self._partitions:
                self._partitions[name].end = end

    def take(self, rows_max: int) -> bool:
        """Gather up to about `rows_max` rows out of the buffers; True when that stopped it. Raises `NeedLayout`; after
        `learn` it goes on where it was."""
        if self._transactions is not None:
            return self._transactions.take(self._collector, rows_max)
        return self._sequence.take(self._collector, rows_max)

    def learn(self, need: NeedLayout) -> None:
        """Make the layout that was needed, with the catalogue of now. Raises what `Layouts.make` raises."""
        run = need.run
        if not need.index and run.layout is not None:
            # The rest of a run that was kept as it was: perhaps the table's latest layout is what it comes in.
            run.layout = None
            return
        if need.index:
            self._layouts.keep(run)
            for partition in self._partitions.values():
                if partition.runs and partition.runs[0] is run:
                    partition.split(need.index)
                    run = partition.runs[1]
                    # Others come here: what has just been kept is not how these are read.
                    run.layout = None
                    break
        self._layouts.make(run)

    def hand_out(self, *, is_full: bool) -> Batch:
        """What was gathered; `is_full` is what `take` said."""
        collector, position = self._collector, self.position()
        if position.order < self.handed.order:
            position = Position(order=self.handed.order, token=position.token)
        is_whole = self._transactions is None or not self._transactions.is_inside
        has_more = (self._transactions or self._sequence).has_more
        self._collector, self.handed = Collector(), position
        return Batch(
            position=position,
            segments=collector.segments,
            is_whole=is_whole,
            has_more=not is_whole or (is_full and has_more),
            rows_read=collector.rows,
            rows_echoed=collector.rows_echoed,
            size=collector.size,
            committed_at=collector.committed_at,
        )

    def last_batch(self, error: PositionLost) -> Batch:
        """What was gathered before the place at which the topics cannot be read on, and that place with the reason."""
        batch = self.hand_out(is_full=False)
        batch.position = self.handed = position_of(batch.position.order, self.state(), error.message, error.hint)
        return batch

    def position(self) -> Position:
        order = self._transactions.order if self._transactions is not None else self._sequence.order
        return position_of(order, self.state())

    def state(self) -> Resume:
        """Where to go on, as it is now."""
        state = self._resume
        for name, partition in self._partitions.items():
            key = f"{name[0]}/{name[1]}"
            state.next.setdefault(name[0], {})[name[1]] = partition.offset
            if partition.handed is not None:
                state.places[key] = partition.handed
            if partition.time:
                state.times[key] = partition.time
        if self._transactions is None:
            state.echo = self._sequence.state
            return state
        offsets, part = self._transactions.resume()
        return msgspec.structs.replace(state, next={**state.next, self._names.transactions: offsets}, part=part)

    def _take_added(self, topic: str, number: int) -> None:
        if self._config.order == "row":
            raise PositionLost(
                f"system {self._system}: topic {topic} has got a partition {number}: messages of one row may stand in"
                " it"
                " and in another, and nothing says which came first",
                hint=f'Run `concord backfill {self._system}`; with order = "transaction" partitions may be added.',
            )
        if self._is_of_transactions(topic) or self._config.order == "partition":
            raise PositionLost(
                f"system {self._system}: topic {topic} has got a partition {number}, and its order is wanted, which"
                " only"
                " one has",
                hint=f"Make the topic anew with one partition, then run `concord backfill {self._system}`.",
            )
        self._add((topic, number), 0, 0)

    def _add(self, name: Number, offset: int, end: int) -> None:
        key = f"{name[0]}/{name[1]}"
        partition = Partition(name[0], name[1], offset, end)
        partition.place = partition.handed = self._resume.places.get(key)
        partition.time = self._resume.times.get(key, 0)
        self._partitions[name] = partition
        (self._transactions or self._sequence).add_partition(partition)

    def _is_of_transactions(self, topic: str) -> bool:
        return self._transactions is not None and topic == self._names.transactions
