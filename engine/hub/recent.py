"""Entries in memory: those of a transaction, and the newest committed ones, which targets that keep up need not read
and decode again."""

from __future__ import annotations

from collections.abc import Sequence

from engine.model.births import Births
from engine.model.record import Entry

# Fewer births than these had better be entries, which cost nothing to put end to end.
BIRTHS_MIN = 256
# A list as long as that is left as it is, so that it can go when it is old.
LIST_MAX = 5_000


class Runs:
    """Entries whose seqs are consecutive, in runs: lists of entries, and births.

    One thread adds, others read: a list is only ever appended to. Entries are never changed.
    """

    def __init__(self, runs: Sequence[tuple[int, Sequence[Entry]]] = ()) -> None:
        self.runs = list(runs)
        """Seq of each run's first entry, and the run."""
        last = self.runs[-1][1] if self.runs else None
        self._open = last if isinstance(last, list) else None

    def __bool__(self) -> bool:
        return bool(self.runs)

    @property
    def first(self) -> int:
        return self.runs[0][0]

    @property
    def last(self) -> int:
        seq, run = self.runs[-1]
        return seq + len(run) - 1

    def append(self, entry: Entry) -> None:
        if self._open is None:
            self._open = [entry]
            self.runs.append((entry.seq, self._open))
        else:
            self._open.append(entry)

    def extend(self, seq: int, run: Sequence[Entry]) -> None:
        """Add a run whose first entry is `seq`."""
        if isinstance(run, Births) and len(run) >= BIRTHS_MIN:
            self._open = None
            self.runs.append((seq, run))
        elif self._open is not None and len(self._open) + len(run) <= LIST_MAX:
            self._open.extend(run)
        else:
            self._open = list(run)
            self.runs.append((seq, self._open))

    def entry(self, seq: int) -> Entry | None:
        """Entry `seq` if it is here."""
        for first, run in reversed(self.runs):
            if first <= seq:
                return run[seq - first] if seq < first + len(run) else None
        return None

    def read(self, after: int, until: int) -> list[Entry] | None:
        """Entries behind `after` up to `until`, or None when not all of them are here."""
        if not self.runs or self.first > after + 1 or self.last < until:
            return None
        found: list[Entry] = []
        for first, run in self.runs:
            if first <= until:
                found.extend(run[max(after + 1 - first, 0) : until + 1 - first])
        return found

    def births(self, after: int, until: int) -> Births | None:
        """The same as births, when they are all of one run of them."""
        for first, run in reversed(self.runs):
            if first <= after + 1:
                if isinstance(run, Births) and until < first + len(run):
                    return run[after + 1 - first : until + 1 - first]
                return None
        return None


class Recent:
    """The journal's end: the newest `entries_max` entries and what stands in one run with the first of these, as they
    were added; fewer, when their documents come to more than `bytes_max`."""

    def __init__(self, entries_max: int, bytes_max: int) -> None:
        self._entries_max = entries_max
        self._bytes_max = bytes_max
        self._runs = Runs()
        self._sizes: dict[int, int] = {}
        """Bytes of a run's documents, by the seq of its first entry."""

    def add(self, added: Runs, size: int) -> None:
        """Entries of one commit, whose documents have `size` bytes. They are kept as they are: nobody may add to them
        any more."""
        if not self._runs or added.first != self._runs.last + 1:
            self._runs, self._sizes = added, {added.first: size}
            return
        for first, run in added.runs:
            self._runs.extend(first, run)
        runs, newest = self._runs.runs, self._runs.runs[-1][0]
        self._sizes[newest] = self._sizes.get(newest, 0) + size
        enough, total, old = self._runs.last + 1 - self._entries_max, sum(self._sizes.values()), 0
        while old + 1 < len(runs) and (runs[old + 1][0] <= enough or total > self._bytes_max):
            total -= self._sizes.pop(runs[old][0], 0)
            old += 1
        if old:
            self._runs = Runs(runs[old:])

    def read(self, after: int, until: int) -> list[Entry] | None:
        return self._runs.read(after, until)

    def births(self, after: int, until: int) -> Births | None:
        return self._runs.births(after, until)
