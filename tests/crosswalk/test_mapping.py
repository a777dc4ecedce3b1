"""Goal: a mapping that is wrong is refused with every mistake, its line and its path; a good one reads and writes rows.

Method: files written to a temporary directory; shapes made by hand; a good file broken at random places by Hypothesis.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from crosswalk.check import check
from crosswalk.dictionary import load_dictionary
from crosswalk.mapping import load_mapping
from crosswalk.place import MappedPlace
from engine.errors import ConfigError, TableHeld, ValueRefused
from engine.model.entity import ALIVE, Entity
from engine.model.table import Form, Shape
from engine.model.value import ABSENT, CanonicalRow
from engine.ports import Deletes, KeyRule
from tests.crosswalk.tables import dictionary, mapping, shape

EXAMPLE = """
[[table]]
name   = "public.customers"
entity = "account"
key    = ["id"]
where  = "kind = 'customer'"

[table.fields]
name         = "company_name"
email        = { read = "lower(email)", write = "email" }
status       = { column = "state", values = { A = "active", X = "closed" } }
labor        = { column = "hours", unit = "h" }
credit_limit = { column = "credit_limit_cents", unit = "0.01", currency = "EUR" }
parent       = { column = "parent_id", reference = "account" }
deleted      = { column = "deleted", soft_delete = true }

[[table.example]]
row    = { id = 1, kind = "customer", company_name = "Acme", email = "Info@Acme.example", state = "A", hours = 1.5, \
credit_limit_cents = 12345, parent_id = 7, deleted = false }
record = { name = "Acme", status = "active", labor = "5400", credit_limit = "123.45", credit_currency = "EUR", \
parent = "7", alive = true }
"""
CUSTOMERS = shape(
    "public.customers",
    "id bigint assigned notnull",
    "kind text notnull",
    "company_name varchar(200) notnull",
    "email text",
    "state varchar(1)",
    "hours numeric(8,2)",
    "credit_limit_cents integer",
    "parent_id bigint",
    "deleted boolean notnull",
)
ROW = ("1", "customer", "Acme", "Info@Acme.example", "A", "1.50", "12345", "7", "f")


def entity_of(directory: Path, name: str = "account") -> Entity:
    found = dictionary(directory).entity(name)
    assert found is not None
    return found


def record_of(entity: Entity, **values: Any) -> CanonicalRow:
    return tuple(values.get(field.name, True if n == ALIVE else None) for n, field in enumerate(entity.fields))


def test_the_documented_mapping_reads_and_writes_a_row(tmp_path: Path) -> None:
    place = mapping(tmp_path, EXAMPLE).places[0]
    entity = entity_of(tmp_path)
    read = place.reader(CUSTOMERS, entity).read([ROW])
    assert read.keys == ["1"]
    assert not read.problems
    record = read.records[0]
    assert record is not None
    found = {field.name: value for field, value in zip(entity.fields, record, strict=True) if value is not ABSENT}
    assert found == {
        "alive": True,
        "name": "Acme",
        "email": "info@acme.example",
        "status": "active",
        "labor": "5400",
        "credit_limit": "123.45",
        "credit_currency": "EUR",
        "parent": "7",
    }
    writer = place.writer(CUSTOMERS, entity)
    written = writer.insert([None], [tuple(None if value is ABSENT else value for value in record)])
    assert dict(zip(written.columns, written.rows[0] or (), strict=True)) == {
        "kind": "customer",
        "company_name": "Acme",
        "email": "info@acme.example",
        "state": "A",
        "hours": "1.50",
        "credit_limit_cents": "12345",
        "parent_id": "7",
        "deleted": "f",
    }
    assert place.key_rule is KeyRule.ASSIGNED
    assert place.deletes is Deletes.FIELD
    assert writer.references == ((entity.index["parent"], "public.customers"),)
    assert check(place, CUSTOMERS, entity) == [f for f in check(place, CUSTOMERS, entity) if not f.is_fatal]


def test_an_update_writes_the_key_and_the_fields_of_the_mask(tmp_path: Path) -> None:
    place = mapping(tmp_path, EXAMPLE).places[0]
    entity = entity_of(tmp_path)
    mask = 1 << entity.index["name"] | 1 << entity.index["labor"] | 1 << entity.index["website"]
    written = place.writer(CUSTOMERS, entity).update(mask, ["9"], [record_of(entity, name="B", labor="1800")])
    assert (written.columns, written.rows) == (("id", "company_name", "hours"), [("9", "B", "0.50")])


def test_a_row_outside_where_is_no_record_and_no_problem(tmp_path: Path) -> None:
    reader = mapping(tmp_path, EXAMPLE).places[0].reader(CUSTOMERS, entity_of(tmp_path))
    read = reader.read([("1", "supplier", *ROW[2:]), ("2", None, *ROW[2:])])
    assert read.records == [None, None]
    assert not read.problems


def test_an_absent_column_leaves_its_field_absent_and_in_where_is_a_problem(tmp_path: Path) -> None:
    entity = entity_of(tmp_path)
    reader = mapping(tmp_path, EXAMPLE).places[0].reader(CUSTOMERS, entity)
    read = reader.read([("1", "customer", ABSENT, ABSENT, *ROW[4:]), ("1", ABSENT, *ROW[2:])])
    assert read.records[0] is not None
    assert read.records[0][entity.index["name"]] is ABSENT
    assert read.records[0][entity.index["email"]] is ABSENT
    assert read.records[1] is None
    assert "did not send" in read.problems[1].message


def test_one_bad_row_is_a_problem_that_names_its_place_and_not_its_value(tmp_path: Path) -> None:
    reader = mapping(tmp_path, EXAMPLE).places[0].reader(CUSTOMERS, entity_of(tmp_path))
    read = reader.read([ROW, (*ROW[:4], "Q", *ROW[5:]), ROW])
    assert list(read.problems) == [1]
    assert read.records[0] is not None
    assert read.records[1] is None
    assert read.records[2] is not None
    assert "system crm, table public.customers, column state, field account.status" in read.problems[1].message
    assert "Q" not in read.problems[1].message


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"labor": "7"}, "column hours, field account.labor: the unit of the other side divides it"),
        ({"labor": "18"}, "decimals, and the column holds 2"),
        ({"name": "x" * 101}, "text longer than 100 characters"),
        ({"credit_limit": "99999999.99"}, "outside the range of the column's integers"),
        ({"status": "prospect"}, "a value that the mapping's `values` do not give"),
        ({"credit_limit": "1.00", "credit_currency": "USD"}, "an amount in another currency"),
    ],
)
def test_what_would_lose_something_is_refused_by_name(tmp_path: Path, changed: dict[str, Any], reason: str) -> None:
    place = mapping(tmp_path, EXAMPLE).places[0]
    entity = entity_of(tmp_path)
    narrow = shape(*["public.customers"], *(_words(CUSTOMERS, "company_name", "company_name varchar(100)")))
    record = record_of(entity, **({"name": "A"} | changed))
    written = place.writer(narrow, entity).update(-1, ["1"], [record])
    assert written.rows == [None]
    assert isinstance(written.problems[0], ValueRefused)
    assert reason in written.problems[0].message


def _words(found: Shape, name: str, words: str) -> list[str]:
    return [
        words if c.name == name else f"{c.name} {c.type}" + (" assigned" if c.is_assigned else "")
        for c in found.columns
    ]


def test_a_missing_column_holds_the_table_and_says_which_field_wants_it(tmp_path: Path) -> None:
    place = mapping(tmp_path, EXAMPLE).places[0]
    cut = Shape(name=CUSTOMERS.name, columns=CUSTOMERS.columns[:-1], form=Form.TEXT, key=("id",))
    with pytest.raises(TableHeld, match="no column 'deleted', which field 'alive' wants") as caught:
        place.reader(cut, entity_of(tmp_path))
    assert caught.value.context["field"] == "alive"
    (found,) = [f for f in check(place, cut, entity_of(tmp_path)) if f.is_fatal]
    assert found.path == "public.customers.deleted"
    # The line of the field, not that of its table.
    line = next(n for n, text in enumerate(EXAMPLE.splitlines(), 1) if text.startswith("deleted "))
    assert found.message.endswith(f":{line})")
    assert caught.value.message.endswith(f":{line})")


def test_all_mistakes_come_at_once_with_their_lines(tmp_path: Path) -> None:
    text = (
        EXAMPLE.replace('entity = "account"', 'entity = "account"\ncolour = "red"')
        .replace('"closed"', '"clsed"')
        .replace('unit = "h"', 'unit = "kg"')
        .replace("parent       =", "parnt        =")
    )
    with pytest.raises(ConfigError) as raised:
        mapping(tmp_path, text)
    problems = raised.value.problems
    lines = text.splitlines()
    for wanted, part in (
        ("colour", "unknown key 'colour'"),
        ("clsed", "did you mean 'closed'?"),
        ('unit = "kg"', "'kg' does not convert"),
        ("parnt", "did you mean 'parent'?"),
    ):
        number = next(n for n, line in enumerate(lines, 1) if wanted in line)
        assert any(f":{number}: " in problem and part in problem for problem in problems), (wanted, problems)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_mutation_of_a_mapping_loads_or_is_a_list_of_problems(tmp_path: Path, data: st.DataObject) -> None:
    lines = EXAMPLE.splitlines()
    n = data.draw(st.integers(0, len(lines) - 1))
    a = data.draw(st.integers(0, len(lines[n])))
    b = data.draw(st.integers(a, len(lines[n])))
    junk = data.draw(
        st.sampled_from(
            [
                "",
                "1",
                "true",
                '"',
                "[",
                "]",
                "{",
                "}",
                "=",
                "[]",
                "{}",
                '"x"',
                "1.5",
                "#",
                "\n",
                "1979-05-27",
                "inf",
                "'",
                ",",
                "\\",
                "-5",
            ]
        )
        | st.text(max_size=3)
    )
    file = tmp_path / "mutant.toml"
    file.write_text("\n".join([*lines[:n], lines[n][:a] + junk + lines[n][b:], *lines[n + 1 :]]))
    _load_or_problems(file, tmp_path)


VALUES = st.recursive(
    st.sampled_from(["", "name", "x", "account", "lower(", "id", "h", "EUR", True, 0, -1, 1.5]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["column", "read", "write", "values", "x"]), inner, max_size=2)
    ),
    max_leaves=4,
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    key=st.sampled_from(
        [
            "name",
            "entity",
            "key",
            "where",
            "only",
            "place",
            "insert",
            "allocate",
            "deletes",
            "timezone",
            "fields",
            "example",
            "fields.name",
            "fields.labor",
            "fields.name.column",
            "fields.name.unit",
            "fields.parent.place",
            "fields.labor.round",
            "fields.name.values",
            "fields.status.default",
        ]
    ),
    value=VALUES,
)
def test_any_value_of_any_key_loads_or_is_a_list_of_problems(tmp_path: Path, key: str, value: object) -> None:
    file = tmp_path / "mutant.toml"
    table = {"name": '"t"', "entity": '"account"', "key": '["id"]', "fields.phone": '"phone"'}
    table = {k: v for k, v in table.items() if not (k.startswith(key + ".") or k == key)}
    file.write_text("[[table]]\n" + "\n".join(f"{k} = {v}" for k, v in (table | {key: toml(value)}).items()))
    _load_or_problems(file, tmp_path)


def toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if type(value) is list:
        return "[" + ", ".join(map(toml, cast(list[Any], value))) + "]"
    if type(value) is dict:
        return "{" + ", ".join(f"{k} = {toml(v)}" for k, v in cast(dict[str, Any], value).items()) + "}"
    return repr(value)


def _load_or_problems(file: Path, directory: Path) -> None:
    places: tuple[MappedPlace, ...] = ()
    problems: tuple[str, ...] = ()
    try:
        places = load_mapping(file, dictionary(directory), system="crm", dialect="postgres").places
    except ConfigError as error:
        problems = error.problems
    assert places or problems
    assert all(problem.startswith(f"{file}:") for problem in problems)
    for place in places:
        entity = entity_of(directory, place.entity)
        check(place, CUSTOMERS, entity)
        assert place.accepts


def test_places_come_parents_first(tmp_path: Path) -> None:
    found = mapping(
        tmp_path,
        """
[[table]]
name = "jobs"
entity = "work_order"
key = ["id"]
fields = { title = "title", account = "customer_id", site = "site_id" }
[[table]]
name = "sites"
entity = "site"
key = ["id"]
fields = { name = "name", account = "customer_id" }
[[table]]
name = "customers"
entity = "account"
key = ["id"]
fields = { name = "name" }
""",
    )
    assert [place.name for place in found.places] == ["customers", "sites", "jobs"]


KEYS = """
[[table]]
name = "t"
entity = "account"
key = [{key}]
allocate = {rule}
insert = {{ {insert} }}
fields = {{ name = "name" }}
"""


@pytest.mark.parametrize(
    ("key", "rule", "insert", "expected"),
    [
        ('"id"', '{ template = "C-{rid:06d}" }', "", "C-000042"),
        ('"id"', '{ template = "{number}/{rid}" }', "", "N7/42"),
        ('"id"', '{ field = "number" }', "", "N7"),
        ('"tenant", "id"', '{ field = "number" }', "tenant = 5", '["5","N7"]'),
    ],
)
def test_allocated_keys_are_the_same_each_time(tmp_path: Path, key: str, rule: str, insert: str, expected: str) -> None:
    place = mapping(tmp_path, KEYS.format(key=key, rule=rule, insert=insert)).places[0]
    entity = entity_of(tmp_path)
    allocate = place.allocate(entity)
    record = record_of(entity, name="A", number="N7")
    assert allocate("hub", [42], [record]) == allocate("hub", [42], [record]) == [expected]


def test_uuid_keys_differ_by_record_and_hub(tmp_path: Path) -> None:
    place = mapping(tmp_path, KEYS.format(key='"id"', rule='"uuid"', insert="")).places[0]
    entity = entity_of(tmp_path)
    allocate = place.allocate(entity)
    made = {key for hub in ("a", "b") for key in allocate(hub, [1, 2], [record_of(entity)] * 2)}
    assert len(made) == 4


def test_a_key_of_several_columns_is_a_json_array_both_ways(tmp_path: Path) -> None:
    place = mapping(tmp_path, KEYS.format(key='"tenant", "id"', rule='"none"', insert="")).places[0]
    table = shape("t", "tenant integer", "id text", "name text", key=("tenant", "id"))
    entity = entity_of(tmp_path)
    read = place.reader(table, entity).read([("5", 'a"b', "N")])
    assert read.keys == ['["5","a\\"b"]']
    written = place.writer(table, entity).update(1 << entity.index["name"], read.keys, [record_of(entity, name="M")])
    assert written.rows == [("5", 'a"b', "M")]
    assert place.writer(table, entity).delete(read.keys).rows == [("5", 'a"b')]


def test_only_decides_which_new_records_go_to_a_place(tmp_path: Path) -> None:
    text = KEYS.format(key='"id"', rule='"none"', insert="").replace(
        "fields =", "only = \"country = 'DE' and (credit_limit > 100 or credit_hold)\"\nfields ="
    )
    entity = entity_of(tmp_path)
    accepts = mapping(tmp_path, text).places[0].accepts(entity)
    assert accepts is not None
    answers = [
        accepts(record_of(entity, country=c, credit_limit=limit, credit_hold=hold))
        for c, limit, hold in (
            ("DE", "100.01", None),
            ("DE", "100.00", None),
            ("DE", None, True),
            (None, "500.00", None),
        )
    ]
    assert answers == [True, False, True, False]


def test_default_stands_for_null_in_both_directions(tmp_path: Path) -> None:
    text = KEYS.format(key='"id"', rule='"none"', insert="").replace(
        'name = "name"', "name = { column = \"name\", default = '' }"
    )
    place = mapping(tmp_path, text).places[0]
    table = shape("t", "id bigint", "name text notnull")
    entity = entity_of(tmp_path)
    read = place.reader(table, entity).read([("1", "")])
    assert read.records[0] is not None
    assert read.records[0][entity.index["name"]] is None
    writer = place.writer(table, entity)
    assert writer.update(-1, ["1"], [record_of(entity)]).rows == [("1", "")]
    assert list(writer.update(-1, ["1"], [record_of(entity, name="")]).problems) == [0]


def test_a_broken_example_is_found_in_each_direction(tmp_path: Path) -> None:
    text = EXAMPLE.replace("hours = 1.5", "hours = 2.5")
    found = [f for f in check(mapping(tmp_path, text).places[0], CUSTOMERS, entity_of(tmp_path)) if f.is_fatal]
    assert [f.path for f in found] == ["public.customers.example.record.labor", "public.customers.example.row.hours"]


def test_check_names_what_would_fail_later(tmp_path: Path) -> None:
    table = shape(
        "public.customers", *_words(CUSTOMERS, "company_name", "company_name varchar(50)"), "must text notnull"
    )
    found = check(mapping(tmp_path, EXAMPLE).places[0], table, entity_of(tmp_path))
    said = [f"{f.path}: {f.message}" for f in found]
    assert any("customers.company_name: the column holds 50 characters" in text for text in said)
    assert any("customers.must: " in text and "inserts will fail" in text for text in said)
    assert any("customers.state: " in text and "cannot be written: prospect" in text for text in said)


PERSONAL = {
    "email",
    "phone",
    "mobile",
    "street",
    "city",
    "region",
    "postal_code",
    "given_name",
    "family_name",
    "author",
}


def test_every_field_of_the_shipped_dictionary_says_what_it_is_and_whose() -> None:
    entities = load_dictionary("service").entities
    assert len(entities) > 40
    for entity in entities:
        assert entity.description, entity.name
        for field in entity.fields:
            assert field.description, (entity.name, field.name)
            assert field.owner in {"crm", "fsm", "erp"}, (entity.name, field.name)
            # A rule of taxes has a region too, and is about nobody.
            if field.name in PERSONAL and entity.name != "tax_rule":
                assert field.pii, (entity.name, field.name)


def test_shipped_dictionary_has_the_documented_owners() -> None:
    found = load_dictionary("service").for_systems(
        ["salesforce", "fsm", "books"], {"salesforce": "crm", "books": "erp"}
    )
    owners = {(e.name, f.name): f.owner for e in found.entities for f in e.fields}
    assert owners["account", "name"] == owners["contact", "email"] == owners["site", "name"] == "salesforce"
    assert owners["asset", "status"] == owners["work_order", "status"] == owners["part_line", "quantity_used"] == "fsm"
    assert owners["item", "name"] == owners["price", "amount"] == owners["invoice", "gross"] == "books"
    assert owners["account", "credit_limit"] == "books"
    assert all(e.fields[ALIVE].name == "alive" and f.description for e in found.entities for f in e.fields)


def test_an_owner_that_is_no_system_leaves_the_field_without_owner() -> None:
    found = load_dictionary("service").for_systems(["crm"], {})
    entity = found.entity("invoice")
    assert entity is not None
    assert {field.owner for field in entity.fields} == {None}


def test_an_extension_changes_single_properties_and_adds_the_rest(tmp_path: Path) -> None:
    found = dictionary(
        tmp_path,
        """
[entities.asset]
owner = "erp"
[entities.account.fields]
name = { owner = "erp" }
tier = { type = "enum", values = ["gold", "silver"], description = "Service level." }
[entities.van]
description = "A van."
fields = { plate = { type = "text" } }
""",
    )
    account, asset, van = (found.entity(name) for name in ("account", "asset", "van"))
    assert account is not None
    assert asset is not None
    assert van is not None
    assert (account.fields[account.index["name"]].owner, account.fields[account.index["name"]].length) == ("erp", 200)
    assert account.fields[-1].name == "tier"
    assert asset.fields[asset.index["status"]].owner == "erp"
    assert [field.name for field in van.fields] == ["alive", "plate"]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ('[entities.account.fields]\nx = { type = "txt" }', "entities.account.fields.x.type"),
        ('[entities.account.fields]\nx = { type = "reference", reference = "acount" }', "did you mean 'account'?"),
        ('[entities.account.fields]\nx = { type = "money" }', "money says its currency"),
        ('[entities.account.fields]\nx = { type = "enum" }', "an enum lists its values"),
        ('[entities.account.fields]\nstreet = { owner = "erp" }', "group 'address' has another owner"),
        ('[entities.account]\nmatch = [{ fields = ["emial"] }]', "did you mean 'email'?"),
        ('[entities.account]\nmatch = [{ fields = ["email"], normalise = ["mail"] }]', "did you mean 'email'?"),
        ('[entities.site]\nmatch = [{ fields = ["account", "name"], optional = ["nam"] }]', "did you mean 'name'?"),
        (
            '[entities.site]\nmatch = [{ fields = ["name"], optional = ["name"] }]',
            "at least one field must say something",
        ),
        ('[entities.site]\nmatch = [{ fields = ["account"], normalise = ["text"] }]', "'account' is no text"),
        ("[entities.account]\nfoo = 1", "unknown key 'foo'"),
    ],
)
def test_a_wrong_dictionary_says_where_and_what(tmp_path: Path, text: str, part: str) -> None:
    with pytest.raises(ConfigError) as raised:
        dictionary(tmp_path, text)
    assert any(part in problem for problem in raised.value.problems), raised.value.problems


def test_names_in_sql_fold_as_the_database_folds_them(tmp_path: Path) -> None:
    text = EXAMPLE.replace("kind = 'customer'", "KIND = 'customer'").replace("lower(email)", "lower(Email)")
    place = mapping(tmp_path, text).places[0]
    entity = entity_of(tmp_path)
    assert place.reader(CUSTOMERS, entity).read([ROW]).records[0] is not None
    assert "kind" in place.writer(CUSTOMERS, entity).insert([None], [record_of(entity, name="A")]).columns


def test_a_time_of_deletion_can_be_read_and_is_never_turned_into_a_deleted_row(tmp_path: Path) -> None:
    text = KEYS.format(key='"id"', rule='"none"', insert="").replace(
        'name = "name"', 'name = "name", gone = { column = "deleted_at", soft_delete = true, read_only = true }'
    )
    place = mapping(tmp_path, text).places[0]
    table = shape("t", "id bigint", "name text", "deleted_at timestamptz")
    entity = entity_of(tmp_path)
    read = place.reader(table, entity).read([("1", "A", None), ("2", "B", "2024-02-29 13:05:00+00")])
    assert [record[ALIVE] for record in read.records if record is not None] == [True, False]
    assert place.deletes is Deletes.KEEP
    assert not place.writer(table, entity).mask & 1


def test_text_is_cut_and_numbers_are_rounded_only_where_the_mapping_asks_for_it(tmp_path: Path) -> None:
    text = KEYS.format(key='"id"', rule='"none"', insert="").replace(
        'name = "name"',
        'name = { column = "name", truncate = true }, labor = { column = "hours", unit = "h", round = 0 }',
    )
    place = mapping(tmp_path, text).places[0]
    table = shape("t", "id bigint", "name varchar(3)", "hours numeric(8,4)")
    entity = entity_of(tmp_path)
    writer = place.writer(table, entity)
    assert writer.update(-1, ["1"], [record_of(entity, name="abcd", labor="1200")]).rows == [("1", "abc", "0.3333")]
    read = place.reader(table, entity).read([("1", "abc", "0.3333")])
    assert read.records[0] is not None
    assert read.records[0][entity.index["labor"]] == "1200"


def test_an_expression_is_written_back_column_by_column(tmp_path: Path) -> None:
    text = """
[[table]]
name = "t"
entity = "account"
key = ["id"]
[table.fields.name]
read = "first || ' ' || last"
write = { first = "split_part(name, ' ', 1)", last = "substring(name from position(' ' in name) + 1)" }
"""
    place = mapping(tmp_path, text).places[0]
    table = shape("t", "id bigint", "first text", "last text")
    entity = entity_of(tmp_path)
    read = place.reader(table, entity).read([("1", "Ada", "King Lovelace")])
    assert read.records[0] is not None
    assert read.records[0][entity.index["name"]] == "Ada King Lovelace"
    written = place.writer(table, entity).update(-1, ["1"], [record_of(entity, name="Ada King Lovelace")])
    assert (written.columns, written.rows) == (("id", "first", "last"), [("1", "Ada", "King Lovelace")])


def test_sqlite_rows_are_read_and_written_as_sqlite_holds_them(tmp_path: Path) -> None:
    text = """
timezone = "UTC"
[[table]]
name = "t"
entity = "work_order"
key = ["id"]
where = "kind and (typ is null or typ <> 'x')"
fields.title = { read = "trim(title) || ''", write = "title" }
fields.is_billable = "billable"
fields.planned_start = "start"
fields.due_at = { column = "due", unit = "unix" }
fields.planned_labour = { column = "hours", unit = "h" }
fields.satisfaction = "score"
"""
    place = mapping(tmp_path, text, dialect="sqlite").places[0]
    table = shape(
        "t",
        "id integer assigned",
        "kind integer",
        "typ text",
        "title text",
        "billable boolean",
        "start datetime",
        "due integer",
        "hours real",
        "score integer",
        form=Form.NATIVE,
    )
    entity = entity_of(tmp_path, "work_order")
    row = (5, 2, None, "Fix", 1, "2024-02-29 13:05:00.25", 86400, 1.5, 4)
    read = place.reader(table, entity).read([row, (6, 0, *row[2:])])
    assert read.keys == ["5", "6"]
    assert read.records[1] is None
    record = read.records[0]
    assert record is not None
    found = {field.name: value for field, value in zip(entity.fields, record, strict=True) if value is not ABSENT}
    assert found == {
        "alive": True,
        "title": "Fix",
        "is_billable": True,
        "planned_start": "2024-02-29 13:05:00.25+00",
        "due_at": "1970-01-02 00:00:00+00",
        "planned_labour": "5400",
        "satisfaction": 4,
    }
    written = place.writer(table, entity).update(-1, ["5"], [record])
    assert written.rows == [(5, "Fix", 1, "2024-02-29 13:05:00.25", 86400, 1.5, 4)]
    assert place.writer(table, entity).insert([None], [record]).columns == ("kind", *written.columns[1:])


def test_a_problem_with_a_column_is_told_at_the_line_of_its_field(tmp_path: Path) -> None:
    columns = tuple(replace(c, labels=("A",)) if c.name == "state" else c for c in CUSTOMERS.columns)
    found = check(mapping(tmp_path, EXAMPLE).places[0], replace(CUSTOMERS, columns=columns), entity_of(tmp_path))
    (problem,) = [f for f in found if f.is_fatal and f.path == "public.customers.state"]
    line = next(n for n, text in enumerate(EXAMPLE.splitlines(), 1) if text.startswith("status "))
    assert problem.message.endswith(f"no value X ({tmp_path / 'mapping.toml'}:{line})")
