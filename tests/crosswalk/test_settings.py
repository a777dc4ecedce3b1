"""Goal: one mapping serves every installation of a product: what differs is a setting of a declared type, none guessed.

Method: a mapping with settings in its SQL and its values, loaded as two installations; every mistake in either file.
"""

from __future__ import annotations

from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from crosswalk.mapping import load_mapping
from crosswalk.settings import Setting
from engine.errors import ConfigError
from tests.crosswalk.tables import dictionary, shape

THING = '[entities.thing]\n[entities.thing.fields]\nname = { type = "text" }\nsetting = { type = "text" }\n'
MAPPING = """
timezone = { setting = "zone" }
[settings]
company = { type = "integer", description = "The company whose rows are ours." }
kind = { type = "text", default = "it's", description = "What they are called." }
zone = { type = "text", default = "UTC", description = "Where the server stands." }
[[table]]
name = "t"
entity = "thing"
key = ["id"]
allocate = "uuid"
where = "company = :company and kind = :kind and note is null"
insert = { by = { setting = "kind" } }
[table.fields]
setting = { read = "concat(name, :kind)", read_only = true }
"""
COLUMNS = ("id text notnull", "company integer", "kind text", "by text", "note text", "name text")


def load(folder: Path, text: str = MAPPING, **settings: Setting) -> object:
    file = folder / "m.toml"
    file.write_text(text)
    return load_mapping(file, dictionary(folder, THING), system="fsm", dialect="postgres", settings=settings)


@pytest.mark.parametrize(("company", "kind"), [(3, "it's"), (4, "x")])
def test_a_setting_stands_for_its_value_in_sql_and_elsewhere(tmp_path: Path, company: int, kind: str) -> None:
    dictionary_ = dictionary(tmp_path, THING)
    file = tmp_path / "m.toml"
    file.write_text(MAPPING)
    given: dict[str, Setting] = {"company": company} | ({} if kind == "it's" else {"kind": kind, "zone": "Asia/Tokyo"})
    (place,) = load_mapping(file, dictionary_, system="fsm", dialect="postgres", settings=given).places
    entity = dictionary_.entity("thing")
    assert entity is not None
    whole = shape("t", *COLUMNS)
    written = place.writer(whole, entity).insert(["k"], [(True, None, None)])
    (row,) = (dict(zip(written.columns, row or (), strict=True)) for row in written.rows)
    assert (row["company"], row["kind"], row["by"]) == (str(company), kind, kind)
    # The database itself is asked with the same condition.
    quoted = kind.replace("'", "''")
    assert place.block.filter_sql == f"company = {company} AND kind = '{quoted}' AND note IS NULL"
    reader = place.reader(whole, entity)
    takes = [("k", str(company), kind, "", None, "A"), ("k", str(company + 1), kind, "", None, "A")]
    assert [record is not None for record in reader.read(takes).records] == [True, False]
    zone = place.block.fields[0].zone
    assert zone == ZoneInfo("UTC" if kind == "it's" else "Asia/Tokyo")


@pytest.mark.parametrize(
    ("old", "new", "given", "said"),
    [
        ("", "", {}, "settings.company: [systems.fsm.settings] of concord.toml does not say it: The company whose"),
        ("", "", {"company": "3"}, "settings.company: [systems.fsm.settings] of concord.toml: a value of type integer"),
        ("", "", {"company": True}, "a value of type integer is wanted, not"),
        ("", "", {"company": 3, "knd": "x"}, "gives 'knd', which the mapping does not have; did you mean 'kind'?"),
        (":company", ":compny", {"company": 3}, "table[0].where: the mapping has no setting 'compny'; did you mean"),
        ('{ setting = "kind" }', '{ setting = "kin" }', {"company": 3}, "table[0].insert.by: the mapping has no"),
        ('"integer", des', '"int", des', {"company": 3}, "settings.company.type: there is no type 'int'"),
        ('default = "UTC"', "default = 1", {"company": 3}, "settings.zone: default: a value of type text is wanted"),
        ('default = "UTC"', 'default = "Moon"', {"company": 3}, "timezone: 'Moon' is no time zone"),
    ],
)
def test_what_is_wrong_with_a_setting_is_said(
    tmp_path: Path, old: str, new: str, given: dict[str, Setting], said: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        load(tmp_path, MAPPING.replace(old, new), **given)
    assert said in "\n".join(raised.value.problems)
