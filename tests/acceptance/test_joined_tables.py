"""Goal: a record that a system keeps in several tables is one record: side tables with further columns, addresses that
are several tables away, sets of links and rows in an order, whoever writes to which of them.

Method: a system with joined tables beside one that has everything in one row, on SQLite, PostgreSQL and MariaDB; users
write to every table of the joins, in one transaction and in several. In the end all must agree, and the rows of the
side tables must be those that an application would have made.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.testing.postgres import PostgresServer
from tests.acceptance.field import Field, Shape
from tests.acceptance.trouble import Trouble

DICTIONARY = """
[entities.account]
description = "A customer"
[entities.account.fields]
name = { type = "text" }
segment = { type = "text" }
email = { type = "text" }
tags = { type = "list", of = "text" }
phones = { type = "list", of = "text" }
area = { type = "text" }
"""
SCHEMA = """
create table accounts (id varchar(36) primary key, name varchar(150), deleted integer default 0,
    modified_by varchar(36), date_modified timestamp);
create table accounts_cstm (id_c varchar(36) primary key, segment_c varchar(50), other_c varchar(50));
create table mail (id varchar(36) primary key, address varchar(200), address_caps varchar(200), deleted integer);
create table mail_link (id varchar(36) primary key, mail_id varchar(36), bean_id varchar(36), bean_module varchar(20),
    is_primary integer, deleted integer);
create table tag (id varchar(36) primary key, name varchar(50));
create table account_tag (account_id varchar(36), tag_id varchar(36), primary key (account_id, tag_id));
create table phone (id varchar(36) primary key, account_id varchar(36), number varchar(50), idx integer);
create table account_area (account_id varchar(36), area varchar(20), since varchar(10), primary key (account_id, area));
"""
MAPPING = """
timezone = "UTC"
[[table]]
name = "accounts"
entity = "account"
key = ["id"]
allocate = "uuid"
where = "deleted = 0"
touch = { modified_by = "sync", date_modified = { now = true } }

[[table.join]]
name = "accounts_cstm"
as = "extra"
key = ["id_c"]
on = { id_c = "id" }

[[table.join]]
name = "mail_link"
as = "link"
key = ["id"]
on = { bean_id = "id" }
where = "bean_module = 'Accounts' and is_primary = 1 and deleted = 0"
allocate = "uuid"
empty = "delete"

[[table.join]]
name = "mail"
key = ["id"]
on = { id = "link.mail_id" }
where = "deleted = 0"
find = ["address"]
allocate = "uuid"

[[table.join]]
name = "account_tag"
as = "tagged"
key = ["account_id", "tag_id"]
on = { account_id = "id" }
list = true

[[table.join]]
name = "tag"
key = ["id"]
on = { id = "tagged.tag_id" }
find = ["name"]
allocate = "uuid"

[[table.join]]
name = "phone"
key = ["id"]
on = { account_id = "id" }
list = true
ordinal = "idx"
allocate = "uuid"

[[table.join]]
name = "account_area"
as = "in"
key = ["account_id", "area"]
on = { account_id = "id" }

[table.fields]
name = "name"
segment = "extra.segment_c"
email = "mail.address"
tags = "tag.name"
phones = "phone.number"
area = "in.area"

[[table.example]]
row = { id = "1", name = "Acme", deleted = 0, "extra.segment_c" = "gold", "mail.address" = "a@acme.example" }
record = { name = "Acme", segment = "gold", email = "a@acme.example" }

[[table.example]]
row = { id = "1", name = "Acme", deleted = 0, "tag.name" = '["a","b"]', "phone.number" = '["2","1"]' }
record = { name = "Acme", tags = '["a","b"]', phones = '["2","1"]' }
"""
PLAIN_SCHEMA = (
    "create table client (id integer primary key, title text, segment text, mail text, tags text,"
    " phones text, area text);"
)
PLAIN = """
[[table]]
name = "client"
entity = "account"
key = ["id"]
[table.fields]
name = "title"
segment = "segment"
email = "mail"
tags = "tags"
phones = "phones"
area = "area"
"""
_numbers = itertools.count(1)


@pytest.fixture(scope="module", params=["sqlite", "postgres", "mariadb"])
def trouble(
    request: pytest.FixtureRequest, postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Trouble]:
    kind: str = request.param
    crm = Shape(SCHEMA, MAPPING)
    if kind == "postgres":
        crm = Shape(SCHEMA, _qualified(MAPPING))
    if kind == "mariadb":
        crm = Shape(SCHEMA.replace("timestamp", "datetime"), MAPPING)
    field = Field(
        postgres_server,
        Path(tmp_path_factory.mktemp("joined")),
        f"joined{next(_numbers)}",
        systems=("crm", "erp"),
        files=frozenset(("crm", "erp") if kind == "sqlite" else ("erp",)),
        mariadb={"crm": request.getfixturevalue("mariadb_server")} if kind == "mariadb" else {},
        dictionary=DICTIONARY,
        shapes={"crm": crm, "erp": Shape(PLAIN_SCHEMA, PLAIN)},
    )
    with field.standing():
        made = Trouble(field)
        with field.application("crm") as crm:
            crm.run("insert into accounts (id, name, deleted) values ('old', 'Old', 0)")
            crm.run("insert into accounts_cstm values ('old', 'bronze', null)")
            crm.run("insert into mail values ('m-old', 'old@old.example', 'OLD@OLD.EXAMPLE', 0)")
            crm.run("insert into mail_link values ('l-old', 'm-old', 'old', 'Accounts', 1, 0)")
        planned = json.loads(made.concord("plan", "--json").stdout)["places"]
        assert [(p["rows"], p["create"], p["overwrite"]) for p in planned] == [(1, 0, 0), (0, 1, 0)]
        made.concord("setup")
        checked = made.concord("check", "--json")
        found = json.loads(checked.stdout)["findings"]
        assert [f for f in found if f["is_fatal"] or "example" in f["path"]] == []
        made.start()
        made.wait_copied()
        yield made
        assert made.stop() == 0
        made.check_agreement()


def _qualified(mapping: str) -> str:
    for table in ("accounts_cstm", "mail_link", "mail", "accounts", "account_tag", "tag", "phone", "account_area"):
        mapping = mapping.replace(f'name = "{table}"', f'name = "public.{table}"')
    return mapping


def wrote(trouble: Trouble, rows: int) -> None:
    """A transaction of the CRM's users has changed so many rows."""
    trouble.changes["crm"] = trouble.changes.get("crm", 0) + rows


def test_the_mapping_is_shown_with_its_joins(trouble: Trouble) -> None:
    shown = json.loads(trouble.concord("mapping", "crm", "--json").stdout)["tables"][0]
    assert [(join["name"], join["on"]) for join in shown["joins"]] == [
        ("extra", {"id_c": "id"}), ("link", {"bean_id": "id"}), ("mail", {"id": "link.mail_id"}),
        ("tagged", {"account_id": "id"}), ("tag", {"id": "tagged.tag_id"}), ("phone", {"account_id": "id"}),
        ("in", {"account_id": "id"}),
    ]  # fmt: skip
    assert shown["touch"] == ["date_modified", "modified_by"]
    told = trouble.concord("mapping", "crm").stdout
    assert "mail: the row of" in told
    assert "with mail.id = link.mail_id" in told
    assert "each write sets date_modified, modified_by" in told


def test_what_was_there_is_one_record(trouble: Trouble) -> None:
    trouble.wait_row(
        "erp", "select 1 from client where title = 'Old' and segment = 'bronze' and mail = 'old@old.example'"
    )


def test_rows_of_several_tables_arrive_as_one_and_a_change_of_any_is_one_of_the_record(trouble: Trouble) -> None:
    with trouble.field.application("crm") as crm, crm.transaction():
        crm.run("insert into accounts (id, name, deleted) values ('a', 'Acme', 0)")
        crm.run("insert into accounts_cstm values ('a', 'gold', 'x')")
        crm.run("insert into mail values ('m-a', 'a@acme.example', 'A@ACME.EXAMPLE', 0)")
        crm.run("insert into mail_link values ('l-a', 'm-a', 'a', 'Accounts', 1, 0)")
    wrote(trouble, 4)
    acme = "select 1 from client where title = 'Acme'"
    trouble.wait_row("erp", f"{acme} and segment = 'gold' and mail = 'a@acme.example'")
    trouble.run("crm", "update mail set address = 'b@acme.example' where id = 'm-a'")
    trouble.wait_row("erp", f"{acme} and mail = 'b@acme.example'")
    trouble.run("crm", "update accounts_cstm set segment_c = 'silver' where id_c = 'a'")
    trouble.wait_row("erp", f"{acme} and segment = 'silver'")
    trouble.run("crm", "update mail_link set deleted = 1 where id = 'l-a'")
    trouble.wait_row("erp", f"{acme} and mail is null")
    trouble.run("crm", "insert into mail_link values ('l-b', 'm-a', 'a', 'Accounts', 1, 0)")
    trouble.wait_row("erp", f"{acme} and mail = 'b@acme.example'")
    trouble.run("crm", "delete from accounts_cstm where id_c = 'a'")
    trouble.wait_row("erp", f"{acme} and segment is null")


def test_what_comes_from_elsewhere_is_written_to_each_table(trouble: Trouble) -> None:
    trouble.run("crm", "insert into mail values ('m-info', 'info@bolt.example', 'INFO@BOLT.EXAMPLE', 0)")
    trouble.run("erp", "insert into client (title, segment, mail) values ('Bolt', 'gold', 'info@bolt.example')")
    whole = (
        "select l.mail_id, c.segment_c from accounts a join accounts_cstm c on c.id_c = a.id"
        " join mail_link l on l.bean_id = a.id and l.bean_module = 'Accounts' and l.is_primary = 1 and l.deleted = 0"
        " where a.name = 'Bolt'"
    )
    trouble.wait(lambda: trouble.ask("crm", whole) == [("m-info", "gold")], "the address that was there is used")
    touched = "select 1 from accounts where name = ? and modified_by = 'sync' and date_modified is not null"
    trouble.wait_row("crm", touched, "Bolt")
    trouble.run("erp", "update client set mail = 'new@bolt.example' where title = 'Bolt'")
    trouble.wait_row("crm", "select 1 from mail where address = 'new@bolt.example' and deleted = 0")
    links = "select count(*) from mail_link where bean_id in (select id from accounts where name = 'Bolt')"
    trouble.wait(lambda: trouble.ask("crm", links) == [(1,)], "it has one link, not two")
    trouble.wait_row("crm", "select 1 from mail where id = 'm-info' and address = 'info@bolt.example'")
    ours = "update mail_link set deleted = 1 where bean_id in (select id from accounts where name = 'Bolt')"
    trouble.run("crm", ours)
    trouble.wait_row("erp", "select 1 from client where title = 'Bolt' and mail is null")
    trouble.run("erp", "update client set mail = 'again@bolt.example' where title = 'Bolt'")
    again = "select 1 from mail_link l join mail m on m.id = l.mail_id where l.deleted = 0 and m.address = ?"
    trouble.wait_row("crm", again, "again@bolt.example")
    trouble.run("erp", "update client set mail = null, segment = null where title = 'Bolt'")
    trouble.wait(lambda: trouble.ask("crm", whole) == [], "the link is gone")
    trouble.wait(lambda: trouble.ask("crm", links) == [(0,)], "and is not kept as an empty one")


def test_our_own_deliveries_are_known_when_a_user_writes_next(trouble: Trouble) -> None:
    trouble.run("erp", "insert into client (title, segment, mail) values ('Dove', 'tin', 'd@dove.example')")
    trouble.wait_row("crm", "select 1 from accounts_cstm where segment_c = 'tin'")
    trouble.run("crm", "update accounts set name = 'Dove Ltd' where name = 'Dove'")
    trouble.wait_row(
        "erp", "select 1 from client where title = 'Dove Ltd' and segment = 'tin' and mail = 'd@dove.example'"
    )
    trouble.wait_row("crm", "select 1 from mail where address = 'd@dove.example'")


def test_a_deletion_takes_what_belongs_to_it_along(trouble: Trouble) -> None:
    trouble.run("erp", "insert into client (title, segment) values ('Gone', 'lead')")
    trouble.wait_row("crm", "select 1 from accounts_cstm where segment_c = 'lead'")
    trouble.run("erp", "delete from client where title = 'Gone'")
    left = "select 1 from accounts where name = 'Gone' union all select 1 from accounts_cstm where segment_c = 'lead'"
    trouble.wait(lambda: trouble.ask("crm", left) == [], "both rows are gone")


def test_a_set_of_links_is_a_list_and_only_what_differs_is_written(trouble: Trouble) -> None:
    with trouble.field.application("crm") as crm, crm.transaction():
        crm.run("insert into accounts (id, name, deleted) values ('s', 'Set', 0)")
        crm.run("insert into tag values ('t-b', 'boiler'), ('t-a', 'alarm'), ('t-c', 'chiller')")
        crm.run("insert into account_tag values ('s', 't-b'), ('s', 't-a')")
    wrote(trouble, 6)
    row = "select 1 from client where title = 'Set' and tags = ?"
    trouble.wait_row("erp", row, '["alarm","boiler"]')
    # Some applications write a set anew whenever they store it.
    with trouble.field.application("crm") as crm, crm.transaction():
        crm.run("delete from account_tag where account_id = 's'")
        crm.run("insert into account_tag values ('s', 't-a'), ('s', 't-b'), ('s', 't-c')")
    wrote(trouble, 5)
    trouble.wait_row("erp", row, '["alarm","boiler","chiller"]')
    trouble.run("crm", "update tag set name = 'cooler' where id = 't-c'")
    trouble.wait_row("erp", row, '["alarm","boiler","cooler"]')
    trouble.run("erp", """update client set tags = '["new","cooler"]' where title = 'Set'""")
    tags = "select t.name, t.id from account_tag l join tag t on t.id = l.tag_id where l.account_id = 's'"
    trouble.wait(lambda: {name for name, _ in trouble.ask("crm", tags)} == {"new", "cooler"}, "two tags")
    assert ("cooler", "t-c") in trouble.ask("crm", tags)
    trouble.run("crm", "update accounts set name = 'Set Ltd' where id = 's'")
    trouble.wait_row("erp", "select 1 from client where title = 'Set Ltd'")
    trouble.run("erp", "update client set tags = '[]' where title = 'Set Ltd'")
    trouble.wait(lambda: trouble.ask("crm", tags) == [], "no tags")
    trouble.wait(lambda: len(trouble.ask("crm", "select 1 from tag where name in ('alarm', 'boiler')")) == 2, "kept")


def test_rows_in_an_order_are_a_list_that_keeps_it(trouble: Trouble) -> None:
    trouble.run("erp", """insert into client (title, phones) values ('Order', '["3","1","2"]')""")
    trouble.run("erp", """insert into client (title, phones) values ('Nobody', '[]')""")
    phones = (
        "select number, idx, id from phone where account_id in (select id from accounts where name = 'Order')"
        " order by idx"
    )
    trouble.wait(lambda: [n for n, _, _ in trouble.ask("crm", phones)] == ["3", "1", "2"], "three in order")
    before = {number: key for number, _, key in trouble.ask("crm", phones)}
    trouble.run("erp", """update client set phones = '["2","3","4","4"]' where title = 'Order'""")
    trouble.wait(lambda: [(n, i) for n, i, _ in trouble.ask("crm", phones)]
                 == [("2", 1), ("3", 2), ("4", 3), ("4", 4)], "in the new order, twice what comes twice")  # fmt: skip
    after = {number: key for number, _, key in trouble.ask("crm", phones)}
    assert (after["2"], after["3"]) == (before["2"], before["3"])
    with trouble.field.application("crm") as crm, crm.transaction():
        crm.run("update phone set idx = 9 where number = '2'")
        crm.run("insert into phone select 'p-5', id, '5', 2 from accounts where name = 'Order'")
    wrote(trouble, 2)
    trouble.wait_row("erp", "select 1 from client where title = 'Order' and phones = ?", '["3","5","4","4","2"]')


def test_a_link_whose_value_is_in_its_key_is_written_anew(trouble: Trouble) -> None:
    trouble.run("erp", "insert into client (title, area) values ('Area', 'north')")
    area = "select area, since from account_area where account_id in (select id from accounts where name = 'Area')"
    trouble.wait(lambda: trouble.ask("crm", area) == [("north", None)], "one area")
    trouble.run("crm", "update account_area set since = '2020' where area = 'north'")
    trouble.run("erp", "update client set area = 'south' where title = 'Area'")
    trouble.wait(lambda: trouble.ask("crm", area) == [("south", "2020")], "the same row of another area")
    trouble.run("crm", "update account_area set area = 'east' where area = 'south'")
    trouble.wait_row("erp", "select 1 from client where title = 'Area' and area = 'east'")
    # Of two that are delivered together one has a row already, with more in it than a new one.
    trouble.run("crm", "update account_area set since = '2021' where area = 'east'")
    trouble.run("erp", "insert into client (title) values ('Area too')")
    trouble.run("erp", "update client set area = 'west' where title like 'Area%'", rows=2)
    west = "select since from account_area where area = 'west' order by since is null"
    trouble.wait(lambda: trouble.ask("crm", west) == [("2021",), (None,)], "both in the west")
    trouble.run("erp", "update client set area = null where title = 'Area'")
    trouble.wait(lambda: trouble.ask("crm", area) == [], "no area")


def test_a_row_of_ours_that_users_have_made_another_is_not_overwritten(trouble: Trouble) -> None:
    trouble.run("erp", "insert into client (title, mail) values ('Shared', 'one@shared.example')")
    trouble.wait_row("crm", "select 1 from mail where address = 'one@shared.example'")
    trouble.run("crm", "update mail set address = 'two@shared.example' where address = 'one@shared.example'")
    trouble.wait_row("erp", "select 1 from client where title = 'Shared' and mail = 'two@shared.example'")
    trouble.run("erp", "insert into client (title, mail) values ('Later', 'one@shared.example')")
    mails = (
        "select a.name, m.address from accounts a join mail_link l on l.bean_id = a.id and l.deleted = 0"
        " join mail m on m.id = l.mail_id where a.name in ('Shared', 'Later', 'Heir') order by a.name"
    )
    both = [("Later", "one@shared.example"), ("Shared", "two@shared.example")]
    trouble.wait(lambda: trouble.ask("crm", mails) == both, "each has its address")
    # A link of ours is given to another account; a new one for the first must not take it back.
    trouble.run("crm", "insert into accounts (id, name, deleted) values ('heir', 'Heir', 0)")
    trouble.run(
        "crm", "update mail_link set bean_id = 'heir' where bean_id in (select id from accounts where name = 'Shared')"
    )
    trouble.wait_row("erp", "select 1 from client where title = 'Heir' and mail = 'two@shared.example'")
    trouble.wait_row("erp", "select 1 from client where title = 'Shared' and mail is null")
    trouble.run("erp", "update client set mail = 'three@shared.example' where title = 'Shared'")
    three = [("Heir", "two@shared.example"), *both[:1], ("Shared", "three@shared.example")]
    trouble.wait(lambda: trouble.ask("crm", mails) == three, "the heir keeps it")


def test_a_member_that_comes_twice_is_there_twice_wherever_the_first_was_made(trouble: Trouble) -> None:
    trouble.run("erp", """insert into client (title, phones) values ('Twice', '["x","4"]')""")
    phones = (
        "select number, idx from phone where account_id in (select id from accounts where name = 'Twice') order by idx"
    )
    trouble.wait(lambda: trouble.ask("crm", phones) == [("x", 1), ("4", 2)], "two numbers")
    trouble.run("erp", """update client set phones = '["4","4"]' where title = 'Twice'""")
    trouble.wait(lambda: trouble.ask("crm", phones) == [("4", 1), ("4", 2)], "the same number twice")
    trouble.run("crm", "update phone set number = '5' where number = '4' and idx = 1")
    trouble.wait_row("erp", "select 1 from client where title = 'Twice' and phones = ?", '["5","4"]')
    trouble.run("erp", """update client set phones = '["5","4","4"]' where title = 'Twice'""")
    trouble.wait(lambda: trouble.ask("crm", phones) == [("5", 1), ("4", 2), ("4", 3)], "and a changed one beside it")
