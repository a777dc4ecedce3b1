"""Goal: each of our writes sets what the application sets with each of its own: who it was, and when.

Method: columns of all kinds that hold a moment; inserts and updates compared; what cannot be meant is refused.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from crosswalk.check import check
from engine.errors import ConfigError, TableHeld
from engine.model.table import Form
from tests.crosswalk.tables import dictionary, mapping, shape

THING = '[entities.thing]\n[entities.thing.fields]\nname = { type = "text" }\n'
BLOCK = """
timezone = "Asia/Tokyo"
[[table]]
name = "t"
entity = "thing"
key = ["id"]
allocate = "uuid"
insert = { owner = "sync", made = { now = true } }
touch = { by = 7, at = { now = true } }
[table.fields]
name = "name"
"""
NAMES = ("id", "owner", "made", "by", "at", "name")


def table(kind: str) -> tuple[str, ...]:
    return ("id text notnull", "owner text", f"made {kind}", "by integer", f"at {kind}", "name text")


@pytest.mark.parametrize(
    ("kind", "form", "zone", "pattern"),
    [
        ("timestamptz", Form.TEXT, "UTC", "%Y-%m-%d %H:%M:%S.%f%z"),
        ("timestamp", Form.TEXT, "Asia/Tokyo", "%Y-%m-%d %H:%M:%S.%f"),
        ("date", Form.TEXT, "Asia/Tokyo", "%Y-%m-%d"),
        ("datetime", Form.NATIVE, "Asia/Tokyo", "%Y-%m-%d %H:%M:%S.%f"),
    ],
)
def test_who_and_when_go_with_each_write(tmp_path: Path, kind: str, form: Form, zone: str, pattern: str) -> None:
    place = mapping(tmp_path, BLOCK, extra=THING).places[0]
    entity = dictionary(tmp_path, THING).entity("thing")
    assert entity is not None
    whole = shape("t", *table(kind), form=form)
    assert [f for f in check(place, whole, entity) if f.is_fatal] == []
    writer = place.writer(whole, entity)
    before = datetime.now(UTC)
    inserted, updated = writer.insert(["k"], [(True, "A")]), writer.update(2, ["k"], [(True, "B")])
    assert sorted(inserted.columns) == sorted(NAMES)
    assert inserted.only_new == {"owner", "made"}
    assert sorted(updated.columns) == ["at", "by", "id", "name"]
    for written in (inserted, updated):
        (values,) = (dict(zip(written.columns, row or (), strict=True)) for row in written.rows)
        assert str(values["by"]) == "7"
        text = str(values["at"])
        if "%f" in pattern and "." not in text:
            pattern = pattern.replace(".%f", "")
        found = datetime.strptime(text + ("00" if text.endswith("+00") else ""), pattern)
        found = found if found.tzinfo is not None else found.replace(tzinfo=ZoneInfo(zone))
        spent = timedelta(days=1) if kind == "date" else timedelta(seconds=1)
        assert before - spent <= found.astimezone(UTC) <= datetime.now(UTC) + spent
    # Nothing is written where nothing changed, and a deletion has its key alone.
    assert writer.update(0, ["k"], [(True, "B")]).columns == ("id",)
    assert writer.delete(["k"]).columns == ("id",)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("touch = { by = 7", 'touch = { name = "x", by = 7', "a field is written to this column already"),
        ("touch = { by = 7", "touch = { owner = 7", "every write sets this column already"),
        ("at = { now = true }", "at = { now = false }", "a value or { now = true } is wanted"),
        ("by = 7", '"x.by" = 7', "only the table's own columns"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        mapping(tmp_path, BLOCK.replace(old, new), extra=THING)
    assert said in " ".join(refused.value.problems)


def test_a_column_that_holds_no_moment_holds_the_table(tmp_path: Path) -> None:
    place = mapping(tmp_path, BLOCK, extra=THING).places[0]
    entity = dictionary(tmp_path, THING).entity("thing")
    assert entity is not None
    with pytest.raises(TableHeld, match="column 'made' for the moment of the write"):
        place.writer(shape("t", *table("boolean")), entity)
