"""Goal: what the table will not have is refused with its reason, its row and no value, and the delivery goes on.

Method: one table with every kind of constraint; a write of three rows whose second one is refused, between two others.
"""

from __future__ import annotations

import pytest

from engine.errors import RowRefused, TargetBusy
from engine.model.value import WireRow
from engine.ports import TableWrite
from plugins.mysql import apply_write
from tests.mysql_target.support import World, delete, insert, update

pytestmark = pytest.mark.anyio

SECRET = "s3cr3t"


@pytest.fixture(autouse=True)
def tables(world: World) -> None:
    world.run(
        "create table parent (id int primary key)",
        "insert into parent values (1), (2)",
        "create table child (parent int references parent (id))",
        "insert into child values (2)",
        """create table t (id int primary key, code varchar(10) unique, must varchar(10) not null default 'x',
        small tinyint, amount decimal(6,2), born date, at datetime, moment timestamp null, latin varchar(10) character
        set latin1, label enum('a','b'), flags set('a','b'), flag bit(1), raw varbinary(4), fixed char(5), y year,
        ratio float, parent int, doc json, checked int, computed int as (id + 1) stored,
        constraint small_check check (checked < 10),
        constraint to_parent foreign key (parent) references parent (id))""",
        "insert into t (id, code) values (100, 'taken')",
    )


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("code", "taken", "unique"),
        ("must", None, "not_null"),
        ("must", SECRET * 3, "value"),
        ("must", "x" + " " * 10, "value"),
        ("small", "128", "value"),
        ("small", "12.5", "value"),
        ("small", SECRET, "value"),
        ("amount", "12345.67", "value"),
        ("amount", "1.234", "value"),
        ("born", "2023-02-29", "value"),
        ("born", "infinity", "value"),
        ("born", "0044-03-15 BC", "value"),
        ("at", "2023-01-01 00:00:00.5", "value"),
        ("at", "-infinity", "value"),
        ("moment", "2024-01-01 00:00:00", "value"),
        ("moment", "1969-12-31 23:00:00+00", "value"),
        ("latin", "日本", "value"),
        ("label", "c", "value"),
        ("label", "1", "value"),
        ("label", "A", "value"),
        ("flags", "a,c", "value"),
        ("flags", "3", "value"),
        ("flag", "true", "value"),
        ("raw", "\\x0102030405", "value"),
        ("raw", SECRET, "value"),
        ("fixed", "ab ", "value"),
        ("y", "24", "value"),
        ("ratio", "NaN", "value"),
        ("ratio", "1e40", "value"),
        ("parent", "7", "foreign_key"),
        ("doc", f"{{{SECRET}", "check"),
        ("checked", "10", "check"),
        ("code", "\udc80", "value"),
        ("computed", "5", "table"),
        ("missing", "5", "table"),
    ],
)
@pytest.mark.parametrize("kind", ["insert", "update"])
async def test_a_refused_write_holds_nothing_and_the_delivery_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch, kind: str, column: str, value: str | None, reason: str
) -> None:
    # Together first, and then row by row, which finds the one that is refused.
    monkeypatch.setattr(apply_write, "TOGETHER_MIN", 2)
    world.run("insert into t (id) values (1), (2), (3)" if kind == "update" else "do 1")
    good: WireRow = ("1", "good" if column == "code" else None)
    rows: list[WireRow] = [good, ("2", value), ("3", None)]
    if column == "must":
        rows = [("1", "good"), ("2", value), ("3", "good")]
    make = insert if kind == "insert" else update

    async with world.session("t") as session, session.delivery(1) as delivery:
        await delivery.write(insert("t", ("id", "code"), [("10", "before")]))
        before = await _state(world)
        with pytest.raises(RowRefused) as refused:
            await delivery.write(make("t", ("id", column), rows))
        await delivery.write(insert("t", ("id", "code"), [("11", "after")]))

    error = refused.value
    assert error.reason == reason
    assert error.row_index == (None if reason == "table" else 1)
    assert SECRET not in str(error)
    assert SECRET not in str(error.context)
    if reason in ("value", "not_null", "table"):
        assert error.context.get("column", column) == column
    assert world.rows("select id, code from t where id > 9 order by id") == [
        ("10", "before"),
        ("11", "after"),
        ("100", "taken"),
    ]
    assert world.rows("select id, code from t where id < 9 order by id") == before


async def _state(world: World) -> list[tuple[object, ...]]:
    return world.rows("select id, code from t where id < 9 order by id")


async def test_a_row_that_others_refer_to_is_not_deleted(world: World) -> None:
    async with world.session("t") as session, session.delivery(1) as delivery:
        with pytest.raises(RowRefused) as refused:
            await delivery.write(delete("parent", ("id",), [("1",), ("2",)]))

    assert (refused.value.reason, refused.value.row_index) == ("foreign_key", 1)
    assert world.rows("select id from parent") == [("1",), ("2",)]


async def test_what_a_trigger_refuses_is_refused_without_its_words(world: World) -> None:
    world.run(
        "create trigger refuses before insert on t for each row begin if new.id = 2 then"
        f" signal sqlstate '45000' set message_text = '{SECRET}'; end if; end"
    )
    with pytest.raises(RowRefused) as refused:
        await world.deliver_alone(insert("t", ("id",), [("1",), ("2",)]))

    assert (refused.value.reason, refused.value.row_index) == ("other", 1)
    assert SECRET not in str(refused.value)


async def test_an_error_inside_a_trigger_does_not_blame_the_first_row(world: World) -> None:
    """The server says "at row 1", and means the trigger's own statement."""
    world.run(
        "create table log (name varchar(3))",
        "create trigger notes after insert on t for each row insert into log values (new.code)",
    )
    with pytest.raises(RowRefused) as refused:
        await world.deliver_alone(insert("t", ("id", "code"), [("1", "abc"), ("2", "abc"), ("3", "abcd")]))
    assert (refused.value.reason, refused.value.row_index) == ("unique", 1)

    with pytest.raises(RowRefused) as refused:
        await world.deliver_alone(insert("t", ("id", "code"), [("1", "abc"), ("2", "ab"), ("3", "abcd")]))
    assert (refused.value.reason, refused.value.row_index) == ("value", 2)


@pytest.mark.parametrize(
    "write",
    [
        insert("gone", ("id",), [("1",), ("2",)]),
        update("gone", ("id",), [("1",), ("2",)]),
        delete("gone", ("id",), [("1",)]),
        insert("nowhere.gone", ("id",), [("1",)]),
        insert("isam", ("id",), [("1",)]),
    ],
)
async def test_a_table_that_is_gone_or_never_rolls_back_is_refused(world: World, write: TableWrite) -> None:
    world.run("create table isam (id int primary key) engine = MyISAM")
    async with world.session("t") as session, session.delivery(1) as delivery:
        with pytest.raises(RowRefused) as refused:
            await delivery.write(write)
        await delivery.write(insert("t", ("id",), [("1",)]))

    assert refused.value.reason == "table"
    assert world.rows("select id from t") == [("1",), ("100",)]


async def test_a_missing_privilege_is_refused(world: World) -> None:
    name = f"{world.database}_user"
    world.run(
        f"create user {name}",
        f"grant select, insert, update on {world.database}.concord_marker to {name}",
        f"grant select, insert, update on {world.database}.concord_identity to {name}",
        f"grant select on {world.database}.t to {name}",
    )
    world.config = type(world.config)(database=world.database, user=name, host="127.0.0.1", port=world.server.port)
    try:
        async with world.session("t") as session, session.delivery(1) as delivery:
            with pytest.raises(RowRefused) as refused:
                await delivery.write(insert("t", ("id",), [("1",)]))
        assert refused.value.reason == "permission"
    finally:
        world.run(f"drop user {name}")


async def test_a_read_only_server_is_busy(world: World) -> None:
    name = f"{world.database}_user"
    world.run(f"create user {name}", f"grant select, insert, update, delete on {world.database}.* to {name}")
    world.config = type(world.config)(database=world.database, user=name, host="127.0.0.1", port=world.server.port)
    async with world.session("t") as session:
        world.run("set global read_only = on")
        try:
            with pytest.raises(TargetBusy):
                await world.deliver(session, insert("t", ("id",), [("1",)]))
        finally:
            world.run("set global read_only = off")
        await world.deliver(session, insert("t", ("id",), [("1",)]))
    world.run(f"drop user {name}")
