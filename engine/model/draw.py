"""Where keys of new rows are drawn from, when the database does not give them by itself: a sequence, or an
application's own table of counters.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequence:
    """A sequence of the database, named as its SQL names it. A key is one number: what a sequence that counts in steps
    leaves between two numbers is its application's."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Texts that are counted in a table of the application's: a row for each text that stands before a number.

    `before`: that text, with `{year}`, `{month}` and `{day}` for today's date in `zone`; `digits` the number has at
    least. `table` has the text in `name_column` and the number that was given last in `number_column`.
    """

    before: str
    digits: int
    table: str
    name_column: str
    number_column: str
    zone: ZoneInfo

    def text(self, now: datetime) -> str:
        """What stands before the number. `now` has a zone."""
        today = now.astimezone(self.zone)
        return self.before.format(year=f"{today.year:04d}", month=f"{today.month:02d}", day=f"{today.day:02d}")

    def keys(self, text: str, numbers: Iterable[int]) -> list[str]:
        return [f"{text}{number:0{self.digits}d}" for number in numbers]


Draw = Sequence | Series
