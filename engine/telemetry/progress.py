"""How far long work is: first copies, and targets with much to write. A line now and then, not one a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from engine.telemetry.log import Log

LINE_SECONDS: Final = 5.0
# A target that is less behind will have it written before anybody has read the line.
BEHIND_MIN: Final = 20_000


class Progress:
    """Counts since the daemon started. `monotonic`: seconds."""

    def __init__(self, log: Log, monotonic: Callable[[], float]) -> None:
        self._log = log
        self._monotonic = monotonic
        self._copied: dict[tuple[str, str], int] = {}
        self._written: dict[str, int] = {}
        self._told: dict[tuple[str, str], float] = {}

    def copied(self, system: str, table: str, rows: int, *, is_done: bool) -> None:
        """A page of a first copy, or of a backfill, is in the hub; `is_done`: it was the table's last."""
        whole = self._copied[system, table] = self._copied.get((system, table), 0) + rows
        if is_done:
            self._log.event("capture.copied", system=system, table=table, rows=whole)
            del self._copied[system, table]
        elif self._is_due(system, "source"):
            self._log.event("capture.copying", system=system, table=table, rows=whole)

    def delivered(self, system: str, rows: int, behind: int) -> None:
        """A delivery is done. `behind`: entries of the journal that are still to be delivered."""
        self._written[system] = self._written.get(system, 0) + rows
        if behind < BEHIND_MIN:
            self._written[system] = 0
            # The next stretch of long work tells of itself only when it has become one.
            self._told[system, "target"] = self._monotonic()
        elif self._is_due(system, "target"):
            self._log.event("deliver.behind", system=system, rows=self._written[system], behind=behind)

    def _is_due(self, system: str, lane: str) -> bool:
        now = self._monotonic()
        if now - self._told.setdefault((system, lane), now) < LINE_SECONDS:
            return False
        self._told[system, lane] = now
        return True
