"""Goal: a mapping says where keys of new rows are drawn from, and what it cannot mean is refused with its line."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from crosswalk.check import check
from engine.errors import ConfigError
from engine.model.draw import Sequence, Series
from engine.ports import KeyRule
from tests.crosswalk.tables import dictionary, mapping, shape

THING = '[entities.thing]\n[entities.thing.fields]\nname = { type = "text" }\n'
BLOCK = """
timezone = "Pacific/Auckland"
[[table]]
name = "t"
entity = "thing"
key = ["id"]
allocate = {rule}
[table.fields]
name = "name"
"""


def test_a_sequence_and_a_series_are_told_apart_and_fit_a_column_without_a_default(tmp_path: Path) -> None:
    place = mapping(tmp_path, BLOCK.replace("{rule}", '{ sequence = "work_order_seq" }'), extra=THING).places[0]
    assert (place.key_rule, place.draw) == (KeyRule.ASSIGNED, Sequence(name="work_order_seq"))
    entity = dictionary(tmp_path, THING).entity("thing")
    assert entity is not None
    assert [f for f in check(place, shape("t", "id bigint notnull", "name text"), entity) if f.is_fatal] == []
    place = mapping(tmp_path, BLOCK.replace("{rule}", '{ series = "SO-{year}{month}-{n:04d}" }'), extra=THING).places[0]
    series = place.draw
    assert isinstance(series, Series)
    assert (series.table, series.name_column, series.number_column) == ("tabSeries", "name", "current")
    # The year is that of the place where the application stands.
    new_year = datetime(2026, 12, 31, 12, tzinfo=ZoneInfo("UTC"))
    assert series.keys(series.text(new_year), [7, 12345]) == ["SO-202701-0007", "SO-202701-12345"]


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ('{ series = "SO-" }', "a text with a number at its end is wanted"),
        ('{ series = "{n}-SO" }', "a text with a number at its end is wanted"),
        ('{ series = "{name}-{n}" }', "a text with a number at its end is wanted"),
        ('{ series = "SO-{n}", sequence = "s" }', "exactly one of field, template, sequence and series"),
        ("{}", "exactly one of field, template, sequence and series"),
    ],
)
def test_what_draws_nothing_is_refused(tmp_path: Path, rule: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        mapping(tmp_path, BLOCK.replace("{rule}", rule), extra=THING)
    assert said in " ".join(refused.value.problems)
