"""Goal: whoever waits for a long first copy, or for a target with much to write, sees that it moves, and nobody else is
bothered.

Method: the events with a clock of the test's own; then a real first copy.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from engine.telemetry.log import Log
from engine.telemetry.progress import BEHIND_MIN, LINE_SECONDS, Progress


class _Told:
    def __init__(self) -> None:
        self.now = 100.0
        self._stream = io.StringIO()
        self.progress = Progress(Log(stream=self._stream, format="json"), lambda: self.now)

    @property
    def lines(self) -> list[tuple[str, Any]]:
        found = [json.loads(line) for line in self._stream.getvalue().splitlines()]
        return [(line["event"], line["rows"]) for line in found]


def test_a_long_copy_tells_now_and_then_and_at_its_end() -> None:
    told = _Told()
    for _ in range(40):
        told.progress.copied("crm", "customers", 1000, is_done=False)
        told.now += LINE_SECONDS / 10
    told.progress.copied("crm", "customers", 7, is_done=True)
    told.progress.copied("crm", "orders", 3, is_done=True)

    expected = [("capture.copying", n) for n in (11_000, 21_000, 31_000)]
    assert told.lines == [*expected, ("capture.copied", 40_007), ("capture.copied", 3)]


def test_a_target_tells_only_while_it_is_far_behind() -> None:
    told = _Told()
    for behind in (BEHIND_MIN - 1, BEHIND_MIN, 3 * BEHIND_MIN, 2 * BEHIND_MIN, 5, 4, 3):
        told.progress.delivered("erp", 10, behind)
        told.now += LINE_SECONDS / 2

    assert told.lines == [("deliver.behind", 20)]


def test_a_first_copy_is_told_with_its_rows(agreed: Path) -> None:
    lines = [line for line in (agreed / "run0.log").read_text().splitlines() if "capture.copied" in line]
    assert any("system=crm table=customers rows=1" in line for line in lines)
    assert any("system=erp table=debtors rows=0" in line for line in lines)
