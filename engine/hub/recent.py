"""The newest committed entries in memory: targets that keep up need not read and decode them again."""

from __future__ import annotations

from collections.abc import Sequence

from engine.model.record import Entry


class Recent:
    """The journal's end, up to about twice `entries_max` entries, as they were appended.

    One thread adds, others read: a list that readers may hold is only ever appended to. Entries are never changed.
    """

    def __init__(self, entries_max: int) -> None:
        self._entries_max = entries_max
        self._window: tuple[int, list[Entry]] = (0, [])
        """Seq of the first entry, and the entries."""

    def add(self, run: Sequence[Entry]) -> None:
        """Entries of one commit, in order."""
        first, entries = self._window
        if not entries or run[0].seq != first + len(entries):
            self._window = (run[0].seq, list(run))
            return
        entries.extend(run)
        if len(entries) > 2 * self._entries_max:
            kept = entries[-self._entries_max :]
            self._window = (kept[0].seq, kept)

    def read(self, after: int, until: int) -> list[Entry] | None:
        """Entries behind `after` up to `until`, or None when not all of them are here."""
        first, entries = self._window
        if not entries or first > after + 1 or first + len(entries) <= until:
            return None
        return entries[after + 1 - first : until + 1 - first]
