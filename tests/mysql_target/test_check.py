"""Goal: what would stop or endanger a part is found beforehand, with the SQL that mends it, and mending it helps.

Method: settings, privileges and tables that are wrong one at a time; the SQL of a finding is run, and the finding gone.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from engine.errors import SourceUnready
from engine.ports import Role
from plugins.mysql.grants import Grants, parse_grants
from tests.mysql_target.support import World

pytestmark = pytest.mark.anyio

BOTH = Role.SOURCE | Role.TARGET


@pytest.fixture
def user(world: World) -> Iterator[str]:
    """A user without privileges, whom the system connects as."""
    name = f"{world.database}_user"
    world.run(f"create user {name}")
    world.config = type(world.config)(database=world.database, user=name, host="127.0.0.1", port=world.server.port)
    yield name
    world.run(f"drop user {name}")


async def test_a_server_that_is_set_up_has_few_findings(world: World) -> None:
    world.run("create table t (id int primary key, v text)")

    found = await world.system.check(("t",), BOTH)

    assert [f for f in found if f.is_fatal] == []


@pytest.mark.parametrize(
    ("setting", "value", "role", "is_fatal"),
    [
        ("binlog_format", "'MIXED'", Role.SOURCE, True),
        ("binlog_format", "'STATEMENT'", Role.TARGET, True),
        ("binlog_row_image", "'MINIMAL'", Role.SOURCE, True),
        ("binlog_row_metadata", "'NO_LOG'", Role.SOURCE, True),
        ("gtid_strict_mode", "off", Role.SOURCE, False),
        ("binlog_expire_logs_seconds", "3600", Role.SOURCE, False),
        ("read_only", "on", Role.TARGET, True),
    ],
)
async def test_a_setting_that_is_wrong_is_found_and_mended_by_the_sql(
    world: World, setting: str, value: str, role: Role, is_fatal: bool
) -> None:
    ((before,),) = world.rows(f"select @@global.{setting}")
    before = before if before.isdecimal() else f"'{before}'"
    world.run(f"set global {setting} = {value}")
    try:
        (found,) = [f for f in await world.system.check((), role) if f.path == setting]
        assert found.is_fatal == is_fatal
        world.run(found.sql)
        assert [f for f in await world.system.check((), role) if f.path == setting] == []
    finally:
        world.run(f"set global {setting} = {before}")


async def test_tables_that_cannot_take_part_are_found(world: World) -> None:
    world.run(
        "create table nokey (v text)",
        "create table isam (id int primary key) engine = MyISAM",
        "create table narrow (id int primary key, v varchar(10) character set latin1)",
        "create table parent (id int primary key)",
        "create table child (id int primary key, p int, constraint up foreign key (p) references parent (id)"
        " on delete cascade)",
    )
    tables = ("nokey", "isam", "narrow", "child", "Parent", "missing")

    found = {f.path: f for f in await world.system.check(tables, BOTH)}

    assert "no primary key" in found["nokey"].message
    assert found["isam"].is_fatal
    assert "latin1" in found["narrow.v"].message
    assert "cascade" in found["child.up"].message
    assert "Write parent" in found["Parent"].hint
    assert "no such table" in found["missing"].message
    for path in ("isam", "narrow.v"):
        world.run(found[path].sql)
    left = {f.path for f in await world.system.check(tables, BOTH)}
    assert left >= {"nokey", "missing"}
    assert not left & {"isam", "narrow.v"}


async def test_set_up_is_named_where_it_is_missing(world: World) -> None:
    await world.system.teardown()

    found = [f for f in await world.system.check((), Role.TARGET) if f.by_setup]

    assert len(found) == 3
    for finding in found:
        world.run(finding.sql)
    assert await world.system.plan((), Role.TARGET) == ()


async def test_privileges_that_are_missing_are_named_until_they_are_there(world: World, user: str) -> None:
    world.run("create table t (id int primary key)", f"grant select (id) on {world.database}.t to {user}")

    for _ in range(4):
        lacking = [f for f in await world.system.check(("t",), BOTH) if "lacks" in f.message]
        for finding in lacking:
            world.run(finding.sql)
        if not lacking:
            break
    else:
        pytest.fail("privileges are still missing")

    assert [f for f in await world.system.check(("t",), BOTH) if f.is_fatal] == []
    async with world.session("t"):
        pass
    assert (await world.page("t")).rows == []


async def test_who_has_no_right_in_the_database_is_told_how_to_get_in(world: World, user: str) -> None:
    """Nobody can connect then, so the check cannot name what is missing."""
    with pytest.raises(SourceUnready) as told:
        await world.system.check((), BOTH)

    grant, _, rest = told.value.hint.removeprefix("Have this run: ").partition(";")
    assert (grant, "concord check" in rest) == (f"grant select on `{world.database}`.* to '{user}'@'%'", True)
    world.run(grant)
    assert await world.system.check((), BOTH)


async def test_health_tells_the_end_of_the_log(world: World) -> None:
    assert "binary log at binlog.0" in (await world.system.health()).detail


@pytest.mark.parametrize(
    ("text", "privilege", "is_allowed"),
    [
        ("GRANT ALL PRIVILEGES ON *.* TO `u`@`%`", "DELETE", True),
        ("GRANT SELECT, INSERT ON `crm`.* TO `u`@`%`", "INSERT", True),
        ("GRANT SELECT, INSERT ON `crm`.* TO `u`@`%`", "DELETE", False),
        ("GRANT SELECT ON `c\\_m`.* TO `u`@`%`", "SELECT", False),
        ("GRANT SELECT ON `c_m`.* TO `u`@`%`", "SELECT", True),
        ("GRANT SELECT ON `c%`.* TO `u`@`%`", "SELECT", True),
        ("GRANT SELECT ON `crm`.`t``x` TO `u`@`%`", "SELECT", True),
        ("GRANT SELECT ON `crm`.`t` TO `u`@`%`", "SELECT", False),
        ("GRANT SELECT (`a`, `b`), INSERT ON `crm`.`t``x` TO `u`@`%`", "SELECT", False),
        ("GRANT SELECT (`a`, `b`), INSERT ON `crm`.`t``x` TO `u`@`%`", "INSERT", True),
        ("GRANT `some role` TO `u`@`%`", "SELECT", False),
        ("GRANT USAGE ON *.* TO `u`@`%` IDENTIFIED BY PASSWORD '*00'", "SELECT", False),
    ],
)
def test_grants_are_read(text: str, privilege: str, is_allowed: bool) -> None:
    assert Grants("u", parse_grants([text])).allows(privilege, "crm", "t`x") is is_allowed
