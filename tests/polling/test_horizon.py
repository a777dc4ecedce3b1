"""Goal: a look goes back far enough and no further, in whatever unit the column is."""

from __future__ import annotations

import pytest

from engine.model.table import Column, Kind
from plugins.polling.horizon import Seen, lower_bound

TIME = Column(name="changed_at", kind=Kind.TIMESTAMP, type="timestamp")
INSTANT = Column(name="changed_at", kind=Kind.INSTANT, type="timestamptz")
NUMBER = Column(name="version", kind=Kind.INTEGER, type="bigint")


def test_before_the_first_look_all_is_read() -> None:
    assert lower_bound([], TIME, 10.0) is None


def test_where_nobody_knows_what_is_open_the_last_look_less_the_overlap() -> None:
    history: list[Seen] = [(1.0, "2026-01-01 10:00:00", None), (2.0, "2026-01-01 11:00:00.5", None)]
    assert lower_bound(history, TIME, 10.0) == "2026-01-01 10:59:50.500000"
    assert len(history) == 1


@pytest.mark.parametrize(
    ("oldest", "bound", "left"),
    [
        pytest.param(4.0, "2026-01-01 10:00:04+00", 1, id="nothing is open: it began behind the last snapshot but one"),
        pytest.param(3.5, "2026-01-01 10:00:03+00", 2, id="one began between two looks"),
        pytest.param(1.0, "2026-01-01 10:00:01+00", 4, id="one began with the first"),
    ],
)
def test_what_was_open_at_the_last_look_began_behind_an_earlier_one(oldest: float, bound: str, left: int) -> None:
    history: list[Seen] = [(float(n), f"2026-01-01 10:00:0{n}+00", float(n)) for n in range(1, 4)]
    history.append((4.0, "2026-01-01 10:00:04+00", oldest))
    assert lower_bound(history, INSTANT, 0.0) == bound
    assert len(history) == left


def test_what_is_older_than_all_looks_is_as_much_further_back() -> None:
    history: list[Seen] = [(100.0, "2026-01-01 10:00:00+00", 40.0)]
    assert lower_bound(history, INSTANT, 0.0) == "2026-01-01 09:59:00+00"


@pytest.mark.parametrize(("value", "before"), [("17", "7"), (17, 7)])
def test_a_number_goes_back_by_its_units(value: str | int, before: str | int) -> None:
    assert lower_bound([(1.0, value, None)], NUMBER, 10.0) == before


def test_what_is_neither_time_nor_number_has_nothing_before_it() -> None:
    assert lower_bound([(1.0, "abc", None)], Column(name="c", kind=Kind.TEXT, type="text"), 10.0) == "abc"
