"""Goal: numbers in tables are short, and right; a fact in a log line ends where it ends. Method: values at the edges of
each unit, and any count; texts with quotes and line ends."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.commands.output import age_text, count_text, size_text
from engine.telemetry.log import Log


@pytest.mark.parametrize(
    ("count", "text"),
    [(0.2, "0.2"), (3, "3"), (9.96, "10.0"), (12.4, "12"), (999, "999"), (999.6, "1.0k"), (3140, "3.1k"),
     (119_900, "120k"), (2_500_000, "2.5M")],
)  # fmt: skip
def test_counts(count: float, text: str) -> None:
    assert count_text(count) == text


@given(st.floats(0.1, 1e11))
def test_a_count_has_few_letters_and_says_the_number(count: float) -> None:
    text = count_text(count)
    assert len(text) <= 4
    unit = {"k": 1e3, "M": 1e6, "G": 1e9}.get(text[-1], 1.0)
    assert float(text.rstrip("kMG")) * unit == pytest.approx(count, rel=0.5 if count < 1 else 0.06)


def test_sizes_and_ages() -> None:
    assert [size_text(n) for n in (None, 0, 999, 1000, 16_400_000, 5 * 10**15)] == [
        "-", "0 B", "999 B", "1 kB", "16 MB", "5000 TB",
    ]  # fmt: skip
    assert [age_text(n) for n in (None, 0, 119, 120, 7200, 172_800)] == ["-", "0 s", "119 s", "2 min", "2 h", "2 d"]


def test_a_fact_with_quotes_or_line_ends_is_one_fact_of_one_line() -> None:
    stream = io.StringIO()
    for text in ('authentication failed for user "concord"', "a\nb", '"'):
        Log(stream=stream).event("lane.paused", error=text, attempts=2)
        line = stream.getvalue().splitlines()[-1]
        told, _, rest = line.partition(" error=")[2].rpartition(" ")
        assert (json.loads(told), rest) == (text, "attempts=2")
    assert len(stream.getvalue().splitlines()) == 3
