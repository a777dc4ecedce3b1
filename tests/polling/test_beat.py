"""Goal: a table is looked at when its beat says so."""

from __future__ import annotations

import pytest

from plugins.polling.beat import DAY_SECONDS, next_look
from plugins.polling.config import PollingConfig, TableOptions

NOON = 20_000 * DAY_SECONDS + DAY_SECONDS // 2


def test_a_table_that_was_never_looked_at_is_due() -> None:
    assert next_look(5.0, (), None) == 0
    assert next_look(5.0, ("02:00",), None) == 0


def test_every_so_many_seconds_after_the_last_look() -> None:
    assert next_look(5.0, (), 100.0) == 105.0


@pytest.mark.parametrize(
    ("at", "hours"),
    [(("13:30",), 1.5), (("02:00", "22:15"), 10.25), (("02:00",), 14), (("12:00",), 24)],
)
def test_at_the_next_of_some_times_of_day(at: tuple[str, ...], hours: float) -> None:
    assert next_look(5.0, at, NOON) == NOON + hours * 3600


def test_a_table_has_a_beat_of_its_own() -> None:
    tables = {"slow": TableOptions(at=("02:00",)), "fast": TableOptions(every=0.2), "plain": TableOptions(overlap=1.0)}
    config = PollingConfig(driver="sqlite3", dialect="sqlite", every=7.0, tables=tables)
    assert [config.beat(name) for name in ("slow", "fast", "plain", "other")] == [
        (7.0, ("02:00",)), (0.2, ()), (7.0, ()), (7.0, ()),
    ]  # fmt: skip
