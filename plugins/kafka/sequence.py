"""Order without transactions: that of one partition (`order = "partition"`), or of each row alone (`order = "row"`).

In one partition everything stands in the order of the source's log, our marker too. A transaction ends there where the
next one begins, and the last one where nothing more has come yet: so a large one may be taken in parts that look whole.
Of several partitions nothing says which of their messages came first; rows of one key stay in their order, for Debezium
puts them into one partition.
"""

from __future__ import annotations

from engine.errors import SourceUnready
from engine.model.position import WHOLE
from plugins.kafka.buffer import Partition, Run
from plugins.kafka.collect import Collector, Rows
from plugins.kafka.layouts import Layouts
from plugins.kafka.names import Names
from plugins.kafka.position import Place
from plugins.kafka.rows import collect, marker_seq, read_run


class SequenceOrder:
    """Takes runs out of the buffers, one partition after the other. One task calls it.

    `is_single`: there is one partition, and so an order of everything. `echo`: the transaction of our delivery that was
    taken last, which may go on.
    """

    def __init__(
        self, system: str, names: Names, layouts: Layouts, verify: frozenset[str], *, is_single: bool, echo: str = ""
    ) -> None:
        self._system = system
        self._layouts = layouts
        self._verify = verify
        self._marker = None if names.marker is None else names.marker.collection
        self._quiet = {table.collection for table in (names.marker, names.heartbeat) if table is not None}
        self._is_single = is_single
        self._partitions: list[Partition] = []
        self._last: str | None = None
        self.echo, self._seq = echo.partition(" ")[2], int(echo.partition(" ")[0] or 0)

    def add_partition(self, partition: Partition) -> None:
        self._partitions.append(partition)

    def take(self, collector: Collector, rows_max: int) -> bool:
        """Gather up to about `rows_max` rows; True when that stopped it. Raises `NeedLayout`, after which it goes on
        where it was."""
        for partition in self._partitions:
            while partition.runs:
                if collector.rows >= rows_max:
                    return True
                room = max(1, rows_max - collector.rows)
                if len(partition.runs[0].events) > room:
                    partition.split(room)
                self._put(partition.runs[0], collector)
                final = partition.runs[0].events[-1]
                collector.committed_at = max(collector.committed_at, final.source.time)
                partition.pop(partition.runs[0].last)
        return False

    @property
    def order(self) -> Place:
        if self._is_single:
            return self._partitions[0].offset - 1, WHOLE
        return (sum(partition.offset for partition in self._partitions),)

    @property
    def has_more(self) -> bool:
        """Whether something has come that has not been handed out."""
        return any(run.table.collection not in self._quiet for p in self._partitions for run in p.runs)

    @property
    def state(self) -> str:
        """Our delivery that may go on, for whoever resumes here."""
        return f"{self._seq} {self.echo}" if self.echo else ""

    def _put(self, run: Run, collector: Collector) -> None:
        """Raises `NeedLayout` before anything is changed."""
        begins = run.key != self._last
        seq = self._marked(run, collector, begins=begins) if run.table.collection == self._marker else None
        if seq is not None:
            if not run.key:
                raise SourceUnready(
                    f"system {self._system}: events do not tell their transactions, so the rows of our deliveries"
                    " cannot be"
                    " told from those of users",
                    hint='Set "provide.transaction.metadata": "true" in the connector, restart it, and run'
                    f" `concord backfill {self._system}`.",
                )
            self.echo, self._seq = run.key, seq
            collector.new_segment(seq)
        if run.table.collection in self._quiet:
            collector.pass_rows(len(run.events))
        elif self.echo and run.key == self.echo:
            if run.table.name in self._verify:
                for rows in read_run(run, self._layouts):
                    if isinstance(rows, Rows):
                        collector.add_echo(self._seq, rows)
            else:
                collector.pass_echoes(len(run.events))
        else:
            # Of the halves of a change of key that stand in two partitions nothing says which comes first.
            is_alone = sum(partition.topic == run.table.topic for partition in self._partitions) == 1
            found = read_run(run, self._layouts, joins_keys=is_alone)
            self.echo = ""
            collect(collector, run, found, self._layouts)
        self._last = run.key

    def _marked(self, run: Run, collector: Collector, *, begins: bool) -> int | None:
        """The seq of our delivery which the run begins; None for rows of the marker that begin none."""
        if begins and run.events[0].op == "u":
            return marker_seq(run, 0, self._system)
        for index, event in enumerate(run.events):
            if event.op == "u" and run.key != self.echo:
                collector.new_segment(marker_seq(run, index, self._system))
        return None
