"""Goal: the rates of SQLite's plugin come out of one command as one document.

Method: the real thing with a few hundred rows; no number that depends on the machine is looked at.
"""

from __future__ import annotations

import json

import pytest

from benchmarks import sqlite_rates


def test_the_command_prints_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert sqlite_rates.main(["--json", "--rows", "400", "--repetitions", "2"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["rows"] == 400
    measured = document["measured"]
    assert {"capture", "target: inserts", "inserts with capture, 1 a commit"} <= set(measured)
    for found in measured.values():
        assert len(found["rows_per_s"]["values"]) == 2
        assert found["rows_per_s"]["least"] > 0
