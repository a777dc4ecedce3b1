"""Goal: medians, percentiles and shares of processors are what they say.

Method: cases small enough to be counted by hand.
"""

from __future__ import annotations

import pytest

from benchmarks.machine import Reading, read_counters, share_between
from benchmarks.report import percentile, spread


@pytest.mark.parametrize(("share", "value"), [(0.5, 50.0), (0.95, 95.0), (0.99, 99.0), (0.991, 100.0), (1.0, 100.0)])
def test_percentile_is_the_least_value_that_so_many_do_not_exceed(share: float, value: float) -> None:
    assert percentile([float(n) for n in range(1, 101)], share) == value


def test_percentile_of_one_value_is_that_value() -> None:
    assert percentile([7.0], 0.99) == 7.0


def test_spread_keeps_the_order_in_which_values_were_taken() -> None:
    found = spread([3.0, 1.0, 2.0])
    assert (found.median, found.least, found.greatest, found.values) == (2.0, 1.0, 3.0, [3.0, 1.0, 2.0])


def test_share_tells_own_work_from_that_of_others() -> None:
    first = Reading(at=10.0, own=1.0, busy=100.0, stolen=5.0)
    last = Reading(at=12.0, own=3.0, busy=103.0, stolen=5.5)
    share = share_between(first, last)
    assert (share.own_cores, share.other_cores, share.stolen_cores, share.own_seconds) == (1.0, 0.5, 0.25, 2.0)


def test_own_work_is_counted() -> None:
    before = read_counters()
    number = 0
    while read_counters().own - before.own < 0.02:
        number += sum(range(10_000))
    assert share_between(before, read_counters()).own_seconds > 0
