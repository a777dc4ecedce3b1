"""Goal: what is wrong with a join is said before a row moves: by its file alone, and by its tables.

Method: joins with a mistake in each line; the shapes of joined tables put together as the engine does.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from crosswalk.check import check
from engine.errors import ConfigError
from engine.model.joined import joined_shape
from engine.model.table import Shape
from tests.crosswalk.tables import dictionary, mapping, shape

THING = """
[entities.thing]
[entities.thing.fields]
name = { type = "text" }
email = { type = "text" }
"""
BLOCK = """
[[table]]
name = "t"
entity = "thing"
key = ["id"]
allocate = "uuid"
{joins}
[table.fields]
name = "name"
email = {{ read = "lower(m.address)", write = "m.address" }}
"""
LINK = """
[[table.join]]
name = "links"
as = "l"
key = ["id"]
on = { owner = "id" }
where = "module = 'T' and deleted = 0"
allocate = "uuid"
"""
MAIL = """
[[table.join]]
name = "mail"
as = "m"
key = ["id"]
on = { id = "l.mail" }
find = ["address"]
allocate = "uuid"
"""
OWN = shape("t", "id text notnull", "name text")
LINKS = shape("links", "id text", "owner text", "module text", "deleted integer", "mail text")
MAILS = shape("mail", "id text", "address text")


@pytest.mark.parametrize(
    ("joins", "said"),
    [
        (MAIL, "there is no join 'l' before this one"),
        (LINK + LINK + MAIL, "there are two joins named 'l'"),
        (LINK.replace('as = "l"', 'as = "l.x"') + MAIL, "a plain name is wanted"),
        (LINK + MAIL.replace('on = { id = "l.mail" }', "on = {}"), "say which columns are equal"),
        (LINK + MAIL.replace("id =", "address ="), "either the owner's key or the joined table's own key"),
        (LINK.replace("allocate", 'find = ["mail"]\nallocate') + MAIL, "find is for a row that its owner refers to"),
        (LINK + MAIL + 'empty = "delete"', "a row that others may refer to is not deleted"),
        (LINK + 'empty = "gone"' + MAIL, '"keep" or "delete" is wanted'),
        (LINK.replace('"uuid"', '"uiud"') + MAIL, "there is no rule 'uiud'; did you mean 'uuid'?"),
        (LINK + MAIL.replace('"uuid"', '"assigned"'), "what is shared has a key of our making"),
        (LINK, "there is no join 'm'"),
        (LINK + MAIL + "list = true", "a list is of rows that refer to the key of the block's own row"),
        (LINK + "list = true" + MAIL, "'m.address' is a list, for a field that is a list of texts or integers"),
        (LINK + 'ordinal = "n"' + MAIL, "what is counted is a list"),
        (LINK + 'list = true\nempty = "keep"' + MAIL, "a row of a list is there or not"),
        (LINK + "list = true" + MAIL.replace("id =", "owner ="), "of a list's rows only what they refer to can be"),
    ],
)
def test_what_the_file_alone_shows_is_told_with_its_line(tmp_path: Path, joins: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        mapping(tmp_path, BLOCK.format(joins=joins), extra=THING)
    assert said in " ".join(refused.value.problems)
    assert "mapping.toml:" in refused.value.problems[0]


PHONE = """
[[table.join]]
name = "phone"
key = ["id"]
on = { owner = "id" }
list = true
allocate = "uuid"
"""


def listing(fields: str) -> str:
    block = BLOCK.format(joins=PHONE)
    return block[: block.index("email =")] + fields


def test_one_column_of_a_list_is_written(tmp_path: Path) -> None:
    both = 'phones = "phone.number"\nkinds = "phone.kind"'
    lists = 'phones = { type = "list", of = "text" }\nkinds = { type = "list", of = "text" }\n'
    with pytest.raises(ConfigError, match="field 'phones' is written to list 'phone' already"):
        mapping(tmp_path, listing(both), extra=THING + lists)
    both = both.replace('"phone.kind"', '{ column = "phone.kind", read_only = true }')
    mapping(tmp_path, listing(both), extra=THING + lists)


@pytest.mark.parametrize(
    ("of", "type_", "said"),
    [
        ("text", "text", []),
        ("integer", "bigint", []),
        ("text", "bigint", ["a column of type bigint gives a list of integer"]),
        ("integer", "text", ["a column of type text gives a list of text"]),
        ("text", "date", ["a column of type date gives nothing"]),
    ],
)
def test_a_list_is_of_what_its_column_holds(tmp_path: Path, of: str, type_: str, said: list[str]) -> None:
    fields = f'phones = {{ type = "list", of = "{of}" }}\n'
    (place,) = mapping(tmp_path, listing('phones = "phone.number"'), extra=THING + fields).places
    entity = dictionary(tmp_path, THING + fields).entity("thing")
    assert entity is not None
    phone = shape("phone", "id text", "owner text", f"number {type_}")
    found = check(place, joined_shape(OWN, [("phone", phone)], frozenset(["phone"])).shape, entity)
    assert [f.message.partition(": ")[2].partition(" (")[0] for f in found if f.is_fatal] == said


def test_a_joined_column_in_the_blocks_where_is_refused(tmp_path: Path) -> None:
    text = BLOCK.format(joins=LINK + MAIL).replace('allocate = "uuid"\n', 'where = "m.address is null"\n', 1)
    with pytest.raises(ConfigError, match="only the table's own columns can be tested here"):
        mapping(tmp_path, text, extra=THING)


@pytest.mark.parametrize(
    ("joins", "parts", "said"),
    [
        (LINK + MAIL, [("l", LINKS), ("m", MAILS)], []),
        (LINK + MAIL, [("l", LINKS)], ["t.m: there is no table 'mail'"]),
        (LINK + MAIL, [("l", shape("links", "id text", "mail text")), ("m", MAILS)],
         ["t.l.owner: the table links has no column 'owner'", "t.l.module: the table links has no column 'module'"]),
        (LINK + MAIL.replace('find = ["address"]', ""), [("l", LINKS), ("m", MAILS)],
         ["t.m: fields are written to mail, whose rows its owner refers to"]),
    ],
)  # fmt: skip
def test_what_the_tables_show_is_told(
    tmp_path: Path, joins: str, parts: list[tuple[str, Shape]], said: list[str]
) -> None:
    place = mapping(tmp_path, BLOCK.format(joins=joins), extra=THING).places[0]
    entity = dictionary(tmp_path, THING).entity("thing")
    assert entity is not None
    whole = joined_shape(OWN, parts).shape
    found = [f"{f.path}: {f.message}" for f in check(place, whole, entity) if f.is_fatal]
    for text in said:
        assert any(line.startswith(text) for line in found), found
    assert said or found == []


def test_a_row_of_which_nobody_makes_the_key_is_a_remark(tmp_path: Path) -> None:
    joins = LINK.replace('allocate = "uuid"', "") + MAIL
    text = BLOCK.format(joins=joins).replace('name = "name"', 'name = "l.mail"')
    place = mapping(tmp_path, text, extra=THING).places[0]
    entity = dictionary(tmp_path, THING).entity("thing")
    assert entity is not None
    found = check(place, joined_shape(OWN, [("l", LINKS), ("m", MAILS)]).shape, entity)
    assert any("nobody makes keys for new rows of links" in f.message and not f.is_fatal for f in found)


def test_a_key_that_a_field_is_written_to_needs_nobody_to_make_it(tmp_path: Path) -> None:
    area = '[[table.join]]\nname = "area"\nkey = ["owner", "area"]\non = { owner = "id" }\n'
    text = BLOCK.format(joins=area).partition("email")[0] + 'email = "area.area"\n'
    place = mapping(tmp_path, text, extra=THING).places[0]
    entity = dictionary(tmp_path, THING).entity("thing")
    assert entity is not None
    areas = shape("area", "owner text", "area text")
    assert check(place, joined_shape(OWN, [("area", areas)]).shape, entity) == []
