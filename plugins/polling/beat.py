"""When a table is looked at next: so many seconds after the last look, or at the next of some times of day."""

from __future__ import annotations

from collections.abc import Sequence

DAY_SECONDS = 86_400


def next_look(every: float, at: Sequence[str], last: float | None) -> float:
    """Seconds since 1970 UTC. `last`: when the table was last looked at; None: never, and so it is due. `at`, where
    there is any, holds and not `every`: times of day in UTC."""
    if last is None:
        return 0.0
    if not at:
        return last + every
    midnight = last - last % DAY_SECONDS
    times = [midnight + day + _seconds(time) for time in at for day in (0, DAY_SECONDS)]
    return min(time for time in times if time > last)


def _seconds(time: str) -> int:
    hours, minutes = time.split(":")
    return int(hours) * 3600 + int(minutes) * 60
