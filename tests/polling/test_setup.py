"""Goal: what is missing or doubtful is named before the daemon runs, and what cannot work is refused with a reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.errors import ConfigError, SystemUnreachable
from engine.model.table import Column, Form, Kind, Shape
from engine.plugin import Site
from engine.ports import Role
from engine.promises import Promise
from engine.secret import Secret
from plugins.polling import plugin
from plugins.polling.config import PollingConfig, TableOptions, address, arguments
from plugins.polling.connect import connect_now, statements_of
from tests.polling.support import Polled

BOTH = Role.SOURCE | Role.TARGET


@pytest.mark.anyio
async def test_set_up_makes_two_tables_once_and_teardown_drops_them(kit: Polled) -> None:
    table = kit.create("customers", "name")
    system = kit.plugin.system(kit.site, kit.config)
    planned = await system.plan([table], BOTH)
    assert [step.summary for step in planned] == ["create the marker", "create the table of assigned keys"]
    assert await system.setup([table], BOTH) == planned
    assert await system.plan([table], BOTH) == ()
    assert await system.setup([table], BOTH) == ()
    assert list(await system.shapes()) == ["customers"], "ours are no tables of a user's"
    async with kit.feed(table):
        pass
    assert len(await system.teardown()) == 2
    assert not list(kit.site.directory.glob("*.looks.sqlite*"))
    assert [step.summary for step in await system.plan([table], Role.SOURCE)] == ["create the marker"]


@pytest.mark.anyio
async def test_a_check_names_what_is_missing(kit: Polled) -> None:
    table = kit.create("customers", "name")
    kit.users.transaction(f"create table log (line {kit.text})")
    kit.tune("elsewhere", every=1.0)
    system = kit.plugin.system(kit.site, kit.config)
    findings = await system.check([table, kit.schema + "log", kit.schema + "nowhere"], BOTH)
    told = {(finding.path, finding.is_fatal) for finding in findings}
    assert ("setup", True) in told
    assert (kit.schema + "nowhere", True) in told
    assert (kit.schema + "log", True) in told
    assert ("tables.elsewhere", False) in told
    assert all(finding.hint for finding in findings)
    await kit.setup(table)
    assert [f for f in await system.check([table], BOTH) if f.is_fatal] == []


@pytest.mark.anyio
async def test_who_may_not_see_open_transactions_is_told(kit: Polled) -> None:
    if kit.kind != "postgres":
        pytest.skip("a user without the privilege is made for PostgreSQL")
    kit.users.transaction(
        "create table orders (id integer primary key, changed_at timestamptz)",
        "drop role if exists looker", "create role looker login", "grant select on orders to looker",
    )  # fmt: skip
    try:
        await kit.setup("public.orders")
        kit.users.transaction("grant all on concord_marker, concord_identity to looker")
        conninfo = str(kit.config.connect["conninfo"]).replace("user=postgres", "user=looker")
        kit.tune(connect={"conninfo": conninfo})
        kit.tune("public.orders", updated_at="changed_at")
        system = kit.plugin.system(kit.site, kit.config)
        findings = {finding.path: finding for finding in await system.check(["public.orders"], Role.SOURCE)}
        assert findings["privileges"].sql.startswith("grant pg_read_all_stats")
        assert not findings["privileges"].is_fatal
        assert findings["public.orders.changed_at"].hint == "Declare it not null, with a default."
        # It is read all the same, and its key is known though the standard's views hide it.
        async with kit.feed("public.orders") as feed:
            kit.users.transaction("insert into orders values (1, now())")
            assert [op for op, _ in await kit.found(feed, "public.orders")] == ["I"]
    finally:
        kit.users.transaction("drop owned by looker", "drop role looker")


@pytest.mark.anyio
async def test_columns_that_the_configuration_names_must_be_there(sqlite: Polled) -> None:
    table = sqlite.create("customers", "name")
    await sqlite.setup(table)
    for options in ({"updated_at": "changed"}, {"key": ("number",)}, {"ignore": ("secret",)}):
        sqlite.tune(table, **options)
        with pytest.raises(ConfigError) as wrong:
            await sqlite.plugin.system(sqlite.site, sqlite.config).shapes([table])
        assert next(iter(options)) in str(wrong.value)
        assert "id, name" in str(wrong.value)


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"driver": "no_such_driver"}, "no_such_driver"),
        ({"driver": "json"}, "no PEP 249 driver"),
        ({"dialect": "klingon"}, "klingon"),
        ({"dialect": "oracle"}, "snapshot"),
    ],
)
def test_what_cannot_work_is_refused(tmp_path: Path, given: dict[str, Any], word: str) -> None:
    config = msgspec.convert({"driver": "sqlite3", "dialect": "sqlite"} | given, PollingConfig)
    with pytest.raises(ConfigError) as wrong:
        statements_of(Site(name="erp", directory=tmp_path, work_directory=tmp_path), config)
    assert word in str(wrong.value)
    assert wrong.value.hint


def test_arguments_that_the_driver_does_not_take(tmp_path: Path) -> None:
    config = PollingConfig(driver="sqlite3", dialect="sqlite", connect={"databse": "x"})
    with pytest.raises(ConfigError) as wrong:
        connect_now(Site(name="erp", directory=tmp_path, work_directory=tmp_path), config)
    assert "databse" in str(wrong.value)


@pytest.mark.anyio
async def test_a_connection_that_is_cut_is_no_fault_of_a_row(kit: Polled) -> None:
    """Nor is a server that does not answer: both are tried again."""
    if kit.kind not in ("postgres", "mariadb"):
        pytest.skip("a file has no connections")
    table = kit.create("customers", "name")
    await kit.setup(table)
    async with kit.feed(table) as feed, kit.session(table) as session:
        _cut_others(kit)
        with pytest.raises(SystemUnreachable):
            await kit.drain(feed)
        with pytest.raises(SystemUnreachable):
            await session.assigned(0)
    place = {"conninfo": "host=127.0.0.1 port=1 dbname=x connect_timeout=2"}
    kit.tune(connect=place if kit.kind == "postgres" else {"host": "127.0.0.1", "port": 1})
    with pytest.raises(SystemUnreachable) as unreachable:
        await kit.plugin.system(kit.site, kit.config).shapes()
    assert "connect" in unreachable.value.hint


def _cut_others(kit: Polled) -> None:
    if kit.kind == "postgres":
        kit.users.rows("select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database()"
                       " and pid <> pg_backend_pid()")  # fmt: skip
        return
    others = "select id from information_schema.processlist where db = database() and id <> connection_id()"
    for (number,) in kit.users.rows(others):
        kit.users.transaction(f"kill {number}")


@pytest.mark.parametrize(
    "given",
    [
        {"every": 0},
        {"at": ["24:00"]},
        {"at": ["2:30"]},
        {"overlap": -1},
        {"tables": {"t": {"every": -1}}},
        {"tables": {"t": {"sometimes": 1}}},
        {"connect": {"password": "written down"}},
    ],
)
def test_configurations_that_mean_nothing_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"driver": "sqlite3", "dialect": "sqlite"} | given, PollingConfig)


def test_secrets_are_named_and_revealed_where_they_are_used(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("open sesame\n")
    site = Site(name="erp", directory=tmp_path, work_directory=tmp_path)
    config = PollingConfig(
        driver="pymysql", dialect="mysql", connect={"user": "concord", "password": Secret(file="password")}
    )
    assert arguments(site, config) == {"user": "concord", "password": "open sesame"}
    assert "sesame" not in address(site, config)
    missing = msgspec.structs.replace(config, connect={"password": Secret(env="NO_SUCH_VARIABLE")})
    with pytest.raises(ConfigError) as wrong:
        arguments(site, missing)
    assert "erp" in str(wrong.value)


def test_the_dialect_is_that_of_the_configuration() -> None:
    assert plugin.dialect_of is not None
    assert plugin.dialect_of(PollingConfig(driver="duckdb", dialect="duckdb")) == "duckdb"


def test_promises_are_as_good_as_the_tables_settings() -> None:
    dated, plain = TableOptions(updated_at="changed_at"), TableOptions()
    config = PollingConfig(driver="duckdb", dialect="duckdb", tables={"dated": dated, "plain": plain})

    def keeps(promise: Promise, table: str = "", kind: Kind | None = None, config: PollingConfig = config) -> bool:
        column = None if kind is None else Column(name="changed_at", kind=kind, type="")
        shape = None if column is None else Shape(name=table, columns=(column,), form=Form.TEXT)
        return plugin.promises_for(config, table, shape)[promise].is_kept

    assert keeps(Promise.COMMIT_TIMES, "dated")
    assert keeps(Promise.COMMIT_TIMES, "dated", Kind.INSTANT)
    assert not keeps(Promise.COMMIT_TIMES, "dated", Kind.TIMESTAMP)
    assert not keeps(Promise.COMMIT_TIMES, "plain")
    assert not keeps(Promise.COMMIT_TIMES, "not named")
    assert keeps(Promise.WHOLE_TRANSACTIONS)
    seldom = msgspec.structs.replace(config, tables={"plain": TableOptions(every=config.every + 1)})
    assert not keeps(Promise.WHOLE_TRANSACTIONS, config=seldom)
