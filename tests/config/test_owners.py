"""Goal: each field that several systems map has an owner among them, or nobody by somebody's decision; whose they are
is one line of the configuration.

Method: two systems over the shipped dictionary's equipment and a dictionary of the test's own; files alone, and the
command that checks them.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from engine.assemble import Meaning, load_meaning
from engine.config.load import load_config
from engine.errors import ConfigError
from tests.cli.support import concord

CONFIG = """
{above}
[hub]
path = "hub.sqlite"
[systems.{first}]
plugin = "sqlite"
mapping = "one.toml"
path = "one.db"
[systems.{second}]
plugin = "sqlite"
mapping = "two.toml"
path = "two.db"
"""
ASSETS = """
[[table]]
name = "assets"
entity = "asset"
key = ["id"]
[table.fields]
name = "name"
serial_number = "serial"
"""
SITES = """
[[table]]
name = "sites"
entity = "site"
key = ["id"]
[table.fields]
name = "name"
latitude = "lat"
longitude = "lon"
"""


def files(
    folder: Path, above: str = "", *, mapping: str = ASSETS, second: str | None = None, names: str = "fsm erp"
) -> Path:
    one, two = names.split()
    path = folder / "concord.toml"
    path.write_text(CONFIG.format(above=above, first=one, second=two))
    (folder / "one.toml").write_text(mapping)
    (folder / "two.toml").write_text(second or mapping)
    return path


def owners(path: Path, entity: str) -> dict[str, str | None]:
    found = meaning(path).dictionary.entity(entity)
    assert found is not None
    return {field.name: field.owner for field in found.fields}


def meaning(path: Path) -> Meaning:
    return load_meaning(load_config(path))


def told(path: Path) -> str:
    with pytest.raises(ConfigError) as refused:
        meaning(path)
    return "\n".join(refused.value.problems)


def test_equipment_is_the_field_services_and_the_books_by_one_setting(tmp_path: Path) -> None:
    names = ("alive", "name", "serial_number", "status")
    before, after = owners(files(tmp_path), "asset"), owners(files(tmp_path, '[owners]\nasset = "erp"'), "asset")
    assert {before[name] for name in names} == {"fsm"}
    assert {after[name] for name in names} == {"erp"}


def test_fields_that_say_another_owner_than_their_entity_keep_it(tmp_path: Path) -> None:
    found = owners(files(tmp_path, '[owners]\naccount = "fsm"'), "account")
    assert (found["alive"], found["name"], found["credit_limit"]) == ("fsm", "fsm", "erp")


def test_single_fields_have_another_owner_or_none(tmp_path: Path) -> None:
    above = '[owners.site]\nlatitude = "crm"\nlongitude = "crm"\naccess_notes = ""'
    found = owners(files(tmp_path, above, mapping=SITES, names="crm erp"), "site")
    assert (found["name"], found["latitude"], found["access_notes"]) == ("crm", "crm", None)


@pytest.mark.parametrize(
    ("above", "problem"),
    [
        ('[owners]\nasett = "erp"', "concord.toml:3: owners.asett: there is no entity 'asett'; did you mean 'asset'?"),
        ('[owners.asset]\nnaem = "erp"', "owners.asset.naem: asset has no field 'naem'; did you mean 'name'?"),
        (
            '[owners.site]\nlatitude = "erp"',
            "owners.site.longitude: group 'position' has another owner at field 'latitude'",
        ),
        ("[owners]\nasset = 1", "concord.toml:3: owners.asset: a role is wanted here"),
    ],
)
def test_what_does_not_fit_is_told_with_its_line(tmp_path: Path, above: str, problem: str) -> None:
    assert problem in told(files(tmp_path, above))


def test_a_field_that_two_systems_map_and_none_owns_is_refused(tmp_path: Path) -> None:
    path = files(tmp_path, names="crm erp")
    assert "owners: asset.alive, asset.name, asset.serial_number belong to 'fsm'" in told(path)
    # As the message says.
    assert owners(files(tmp_path, '[owners]\nasset = "erp"', names="crm erp"), "asset")["name"] == "erp"
    assert owners(files(tmp_path, '[owners]\nasset = ""', names="crm erp"), "asset")["name"] is None


def test_fields_that_say_an_owner_who_is_away_are_told_with_lines_that_mend_it(tmp_path: Path) -> None:
    path = files(tmp_path, mapping=SITES, names="crm erp")
    (problem,) = told(path).splitlines()
    assert "site.latitude, site.longitude belong to 'fsm'" in problem
    _, _, line = problem.partition("as [owners.site] ")
    lines = line.partition(", with ")[0].replace(", ", "\n")
    found = owners(files(tmp_path, f"[owners.site]\n{lines}", mapping=SITES, names="crm erp"), "site")
    assert (found["latitude"], found["longitude"], found["access_notes"]) == ("crm", "crm", None)


def test_an_owner_that_is_nearly_a_systems_name_is_told_with_it(tmp_path: Path) -> None:
    assert "belong to 'fsmm', and no system plays this role; did you mean 'fsm'?" in told(
        files(tmp_path, '[owners]\nasset = "fsmm"')
    )


def test_where_one_system_alone_has_a_field_its_owner_may_be_away(tmp_path: Path) -> None:
    path = files(tmp_path, second=SITES, names="crm erp")
    assert [(found.path, found.is_fatal) for found in meaning(path).remarks] == [("owner fsm", False)]


def test_two_systems_in_one_role_are_refused(tmp_path: Path) -> None:
    path = files(tmp_path)
    path.write_text(path.read_text().replace("[systems.erp]", '[systems.erp]\nrole = "fsm"'))
    assert "systems 'fsm' and 'erp' both play the role 'fsm'" in told(path)


def test_the_command_shows_owners_as_they_are_here(tmp_path: Path) -> None:
    path = files(tmp_path, '[owners]\nasset = "erp"')
    assert tomllib.loads(path.read_text())["owners"] == {"asset": "erp"}
    assert "| erp |" in concord(tmp_path, "dictionary", "asset", "--format", "md").output
