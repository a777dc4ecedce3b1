"""Goal: the chapter on mappings and dictionaries is true: its examples load and hold, its tables name all there is."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from crosswalk.check import check
from crosswalk.lists import ELEMENTS
from crosswalk.mapping_forms import FieldForm, JoinForm, TableForm
from engine.model.entity import Type
from engine.model.joined import joined_shape
from tests.crosswalk.tables import dictionary, mapping, shape

CHAPTER = (Path(__file__).parents[2] / "crosswalk/README.md").read_text()
MAPPING, JOINS, DICTIONARY = re.findall(r"```toml\n(.*?)```", CHAPTER, re.DOTALL)
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
    of_list = next(row for row in CHAPTER.splitlines() if row.startswith("| `list`"))
    assert {element.value for element in ELEMENTS} <= set(re.findall(r"`(\w+)`", of_list))
    for field in msgspec.structs.fields(TableForm):
        assert re.search(rf"\b{field.encode_name}\b", MAPPING + CHAPTER), field.encode_name
