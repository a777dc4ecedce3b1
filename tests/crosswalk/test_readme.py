"""Goal: the chapter on mappings and dictionaries is true: its examples load and hold, its tables name all there is."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import msgspec

from crosswalk.check import check
from crosswalk.dictionary import load_dictionary
from crosswalk.lists import ELEMENTS
from crosswalk.mapping import load_mapping
from crosswalk.mapping_forms import FieldForm, JoinForm, TableForm
from crosswalk.workflow import load_workflows
from engine.model.entity import Type
from engine.model.joined import joined_shape
from tests.crosswalk.tables import dictionary, mapping, shape

CHAPTER = (Path(__file__).parents[2] / "crosswalk/README.md").read_text()
MAPPING, JOINS, LISTS, SETTINGS, CONFIGURATION, DICTIONARY, WORKFLOWS = re.findall(
    r"```toml\n(.*?)```", CHAPTER, re.DOTALL
)
CUSTOMERS = shape(
    "public.customers",
    "id uuid notnull",
    "kind text notnull",
    "company_name varchar(200) notnull",
    "email varchar(254)",
    "may_order boolean",
    "state varchar(9)",
    "hours numeric(8,2)",
    "credit_limit_cents bigint",
    "parent_id uuid",
    "deleted boolean notnull",
    "tenant integer notnull",
    "updated_by text",
    "updated_at timestamptz notnull",
)


def test_the_mapping_loads_and_fits_and_its_example_holds(tmp_path: Path) -> None:
    place = mapping(tmp_path, MAPPING).places[0]
    entity = dictionary(tmp_path).entity("account")
    assert entity is not None
    assert [finding for finding in check(place, CUSTOMERS, entity) if finding.is_fatal] == []


def test_the_joins_load_and_fit(tmp_path: Path) -> None:
    place = mapping(tmp_path, JOINS).places[0]
    entity = dictionary(tmp_path).entity("account")
    assert entity is not None
    tables = {
        "extra": shape("accounts_cstm", "id_c text notnull", "industry_c text"),
        "link": shape(
            "email_addr_bean_rel", "id text notnull", "bean_id text", "bean_module text", "email_address_id text",
            "primary_address integer", "deleted integer",
        ),
        "mail": shape("email_addresses", "id text notnull", "email_address text"),
    }  # fmt: skip
    for join in place.joins:
        join.rows(tables[join.name])
    whole = joined_shape(shape("accounts", "id text notnull", "name text"), list(tables.items())).shape
    assert [finding for finding in check(place, whole, entity) if finding.is_fatal] == []


def test_the_lists_load_and_fit(tmp_path: Path) -> None:
    words = '[entities.thing.fields]\ntags = { type = "list", of = "text" }\nphones = { type = "list", of = "text" }\n'
    block = '[[table]]\nname = "accounts"\nentity = "thing"\nkey = ["id"]\nallocate = "uuid"\n'
    place = mapping(tmp_path, block + LISTS, extra=words).places[0]
    entity = dictionary(tmp_path, words).entity("thing")
    assert entity is not None
    tables = [
        ("tagged", shape("account_tag", "account_id text notnull", "tag_id text notnull")),
        ("tag", shape("tag", "id text notnull", "name text")),
        ("phone", shape("phone", "id text notnull", "account_id text", "number text", "idx integer")),
    ]
    for join, (_, table) in zip(place.joins, tables, strict=True):
        join.rows(table)
    whole = joined_shape(shape("accounts", "id text notnull"), tables, frozenset(["tagged", "tag", "phone"])).shape
    assert [finding for finding in check(place, whole, entity) if finding.is_fatal] == []


def test_the_settings_load(tmp_path: Path) -> None:
    file = tmp_path / "fsm.toml"
    file.write_text(SETTINGS.replace("# ...", 'entity = "site"\nkey = ["id"]\n[table.fields]\nname = "name"'))
    given = tomllib.loads(CONFIGURATION)["systems"]["fsm"]["settings"]
    (place,) = load_mapping(
        file, load_dictionary("service").for_systems(["fsm"], {"fsm": "fsm"}), system="fsm", dialect="postgres",
        settings=given,
    ).places  # fmt: skip
    assert (place.block.constants, place.block.touched) == ({"company_id": 3}, {"updated_by": "concord"})


def test_the_workflow_loads_and_is_among_those_that_ship(tmp_path: Path) -> None:
    file = tmp_path / "workflows.toml"
    file.write_text(WORKFLOWS)
    entities = {entity.name: entity for entity in load_dictionary("service").entities}
    (told,) = load_workflows(file).bind(entities)
    assert [make.name for make in told.makes] == ["work_order", "part_line", "opportunity"]
    assert told.name in [workflow.name for workflow in load_workflows("service").bind(entities)]


def test_the_dictionary_loads(tmp_path: Path) -> None:
    entity = dictionary(tmp_path, DICTIONARY.replace('extends = "service"', "")).entity("account")
    assert entity is not None
    assert entity.fields[entity.index["tier"]].values == ("gold", "silver")


def test_every_type_every_key_and_every_element_is_told() -> None:
    rows = [row.split("|")[1] for row in CHAPTER.splitlines() if row.startswith("|")]
    told = set(re.findall(r"`(\w+)`", " ".join(rows)))
    assert {type_.value for type_ in Type} <= told
    for form in (FieldForm, JoinForm):
        assert {field.encode_name for field in msgspec.structs.fields(form)} <= told
    of_list = next(row for row in reversed(CHAPTER.splitlines()) if row.startswith("| `list`"))
    assert {element.value for element in ELEMENTS} <= set(re.findall(r"`(\w+)`", of_list))
    for field in msgspec.structs.fields(TableForm):
        assert re.search(rf"\b{field.encode_name}\b", MAPPING + CHAPTER), field.encode_name
