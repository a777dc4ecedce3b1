"""What has been read from each partition and not been handed out yet: runs of events that belong together."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import msgspec

from plugins.kafka.layout import Layout
from plugins.kafka.message import Event
from plugins.kafka.names import Table
from plugins.kafka.position import Place
from plugins.kafka.schema import Field


@dataclass(slots=True)
class Run:
    """Events of one table that follow each other in one partition, of one transaction and with one schema.

    `key`: the transaction, None for what is outside of any (rows of a snapshot). `place`: of the first event in the
    source's log, `last`: of the last. `keys`: the messages' keys, of deletes; `moved`: by index, the other key of an
    event that is half of a change of key: True and the new one for the half that deletes, False and the old one for the
    other. `schema`: of the rows. `size` in bytes.
    """

    table: Table
    key: str | None
    place: Place | None
    schema: Field | None = None
    schema_bytes: bytes = b""
    events: list[Event] = field(default_factory=lambda: [])
    offsets: list[int] = field(default_factory=lambda: [])
    keys: dict[int, bytes] = field(default_factory=lambda: {})
    moved: dict[int, tuple[bool, bytes]] = field(default_factory=lambda: {})
    last: Place | None = None
    size: int = 0
    layout: Layout | None = None
    """How its rows are read, where that is not how the table's latest are."""

    def documents(self, start: int, end: int) -> list[msgspec.Raw]:
        """The rows: after the change, or before it where nothing is left."""
        return [e.before if e.op == "d" else e.after for e in self.events[start:end]]

    def split(self, at: int) -> Run:
        """Take the events from `at` on out of this run; they make another."""
        rest = Run(self.table, self.key, self.place, self.schema, self.schema_bytes, last=self.last, layout=self.layout)
        rest.events, rest.offsets = self.events[at:], self.offsets[at:]
        share = self.size * len(rest.events) // max(1, len(self.events))
        rest.size, self.size = share, self.size - share
        del self.events[at:], self.offsets[at:]
        for name in ("keys", "moved"):
            ours = getattr(self, name)
            setattr(rest, name, {n - at: found for n, found in ours.items() if n >= at})
            setattr(self, name, {n: found for n, found in ours.items() if n < at})
        return rest


@dataclass(slots=True)
class Partition:
    """`next`: the offset behind what has been read; `end`: behind what the broker had when it was last asked."""

    topic: str
    number: int
    next: int
    end: int = 0
    size: int = 0
    runs: deque[Run] = field(default_factory=lambda: deque[Run]())
    place: Place | None = None
    """The source's place of the last event that was read; `ties` are the keys of all events there."""
    ties: set[bytes] = field(default_factory=lambda: set())
    handed: Place | None = None
    """The same of the last event that was handed out."""
    time: int = 0

    @property
    def name(self) -> tuple[str, int]:
        return self.topic, self.number

    @property
    def offset(self) -> int:
        """Where to go on after a restart: everything before it has been handed out."""
        return self.runs[0].offsets[0] if self.runs else self.next

    @property
    def is_read(self) -> bool:
        """Whether all that the broker had has been read."""
        return self.next >= self.end

    def add(self, run: Run) -> None:
        self.runs.append(run)
        self.size += run.size

    def pop(self, last: Place | None = None) -> None:
        """Forget the first run; `last` is the place of its last event, where it has been handed out."""
        run = self.runs.popleft()
        self.size -= run.size
        if last is not None:
            self.handed = last

    def split(self, at: int) -> None:
        """Make two runs of the first."""
        rest = self.runs[0].split(at)
        self.runs.insert(1, rest)
