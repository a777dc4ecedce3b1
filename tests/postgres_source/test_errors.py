"""Goal: every driver error becomes one of ours by its SQLSTATE, whichever driver it came from, and quotes no value.
Method: both drivers meet the same failures of a real server; texts and contexts are searched for what was written."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import asyncpg
import msgspec
import psycopg
import pytest

from engine.errors import (
    ConcordError,
    ConfigError,
    RowRefused,
    SourceUnready,
    SystemUnreachable,
    TargetBusy,
    TargetUnready,
)
from engine.plugin import Site, load_plugin
from engine.ports import Role
from engine.secret import Secret
from engine.testing.postgres import start_postgres
from plugins.postgres.apply_refusals import DRIVER_ERRORS
from plugins.postgres.catalog import joined_name, split_name
from plugins.postgres.config import (
    PostgresConfig,
    asyncpg_parameters,
    psycopg_parameters,
    publication_name,
    slot_name,
)
from plugins.postgres.errors import translate
from tests.postgres_source.support import poll

SECRET = "d0ntshow"
SITE = Site(name="crm", directory=Path("/etc/concord"), work_directory=Path("/tmp"))
TABLE = f"""
create table parent (id int primary key);
create table t (id int primary key, email text not null unique, n smallint check (n > 0), v varchar(3),
  p int references parent, d date, c text collate "C", exclude using btree (c with =));
insert into t (id, email, c) values (1, '{SECRET}', '{SECRET}');
create function refuse() returns trigger language plpgsql as
  $$ begin if new.id = 66 then raise exception 'no {SECRET}'; end if; return new; end $$;
create trigger refuse before insert on t for each row execute function refuse();
"""
REFUSALS = {
    f"insert into t (id, email) values (2, '{SECRET}')": ("unique", None, "t_email_key"),
    "insert into t (id, email) values (2, null)": ("not_null", "email", None),
    f"insert into t (id, email, n) values (2, '{SECRET}2', -1)": ("check", None, "t_n_check"),
    f"insert into t (id, email, p) values (2, '{SECRET}2', 9)": ("foreign_key", None, "t_p_fkey"),
    f"insert into t (id, email, v) values (2, 'x', '{SECRET}')": ("value", None, None),
    f"insert into t (id, email, n) values (2, 'x', '{SECRET}')": ("value", None, None),
    "insert into t (id, email, n) values (2, 'x', 99999)": ("value", None, None),
    f"insert into t (id, email, d) values (2, 'x', '{SECRET}')": ("value", None, None),
    f"insert into t (id, email, c) values (2, 'x', '{SECRET}')": ("unique", None, "t_c_excl"),
    f"insert into t (id, email) values (66, '{SECRET}3')": ("other", None, None),
    "insert into nothere values (1)": ("table", None, None),
    "insert into t (nothere) values (1)": ("table", None, None),
}


async def connect_asyncpg(config: PostgresConfig) -> Any:
    # asyncpg's own annotations are incomplete.
    connect: Any = getattr(asyncpg, "connect")  # noqa: B009
    return await connect(**asyncpg_parameters(SITE, config, use="test"))


@asynccontextmanager
async def both(dsn: str) -> AsyncGenerator[list[Any]]:
    """A connection of each driver, as the plugin would open it."""
    config = PostgresConfig(dsn=dsn)
    first = await psycopg.AsyncConnection.connect(**psycopg_parameters(SITE, config, use="test"), autocommit=True)
    second = await connect_asyncpg(config)
    try:
        yield [first, second]
    finally:
        await first.close()
        await second.close()


async def failure(connection: Any, sql: str) -> BaseException:
    with pytest.raises((psycopg.Error, *DRIVER_ERRORS)) as raised:
        await connection.execute(sql)
    return raised.value


def shown(error: ConcordError) -> str:
    return f"{error} {error.message} {error.hint} {error.context}"


@pytest.mark.anyio
async def test_refused_rows_say_why_and_never_what(postgres_dsn: str) -> None:
    with psycopg.connect(postgres_dsn, autocommit=True) as setup:
        setup.execute(TABLE.encode())
    async with both(postgres_dsn) as connections:
        for connection in connections:
            for sql, (reason, column, constraint) in REFUSALS.items():
                error = await failure(connection, sql)
                refusal = translate(error, system="erp", table="public.t", role=Role.TARGET, row_index=3)
                assert isinstance(refusal, RowRefused), sql
                assert (refusal.reason, refusal.row_index) == (reason, 3), sql
                assert refusal.context.get("column") == column, sql
                assert refusal.context.get("constraint") == constraint, sql
                assert SECRET not in shown(refusal), sql
                assert "erp" in refusal.message
                assert "public.t" in refusal.message


@pytest.mark.anyio
async def test_the_same_failures_without_a_table_stop_the_system(postgres_dsn: str) -> None:
    async with both(postgres_dsn) as connections:
        for connection in connections:
            error = await failure(connection, "select * from nothere")
            assert isinstance(translate(error, system="erp", role=Role.TARGET), TargetUnready)
            assert isinstance(translate(error, system="erp"), SourceUnready)
            assert isinstance(translate(error, system="erp", table="t"), SourceUnready)


@pytest.mark.anyio
async def test_what_passes_by_itself_is_busy_or_unreachable(postgres_dsn: str) -> None:
    with psycopg.connect(postgres_dsn, autocommit=True) as other:
        other.execute("create table t (id int)")
        async with both(postgres_dsn) as connections:
            other.execute("begin")
            other.execute("lock table t")
            for connection in connections:
                await connection.execute("set lock_timeout = '1ms'")
                locked = await failure(connection, "select * from t")
                await connection.execute("set lock_timeout = 0")
                await connection.execute("set statement_timeout = '1ms'")
                slow = await failure(connection, "select * from t")
                await connection.execute("set statement_timeout = 0")
                await connection.execute("set default_transaction_read_only = on")
                read_only = await failure(connection, "create table u ()")
                for error in (locked, slow, read_only):
                    assert isinstance(translate(error, system="erp", table="t", role=Role.TARGET), TargetBusy)
                    assert isinstance(translate(error, system="erp"), SystemUnreachable)
            other.execute("commit")
            other.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'concord%'"
            )
            for connection in connections:
                error = await failure(connection, "select 1")
                assert isinstance(translate(error, system="erp", table="t", role=Role.TARGET), SystemUnreachable)


@pytest.mark.anyio
async def test_a_server_that_is_not_there_is_unreachable() -> None:
    config = PostgresConfig(dsn="host=127.0.0.1 port=1 user=u dbname=d")
    with pytest.raises(psycopg.Error) as first:
        await psycopg.AsyncConnection.connect(**psycopg_parameters(SITE, config, use="test"))
    with pytest.raises(OSError) as second:  # noqa: PT011 - the class is what is tested
        await connect_asyncpg(config)
    for error in (first.value, second.value):
        assert isinstance(translate(error, system="erp"), SystemUnreachable)


def psycopg_failure(dsn: str, **parameters: Any) -> BaseException:
    with pytest.raises(psycopg.Error) as raised:
        psycopg.connect(dsn, **parameters)
    return raised.value


async def asyncpg_failure(dsn: str, password: str | None = None) -> BaseException:
    with pytest.raises(DRIVER_ERRORS) as raised:
        await connect_asyncpg(PostgresConfig(dsn=dsn, password=None if password is None else Secret(file=password)))
    return raised.value


@pytest.mark.anyio
async def test_a_refused_login_says_what_the_server_said_and_where_to_look(tmp_path: Path) -> None:
    """Whichever driver it was, and tried again: an administrator mends it elsewhere."""
    with TemporaryDirectory(prefix="concord-pg-") as name, start_postgres(Path(name)) as server:
        base = f"host=127.0.0.1 port={server.port}"
        with psycopg.connect(server.dsn("postgres"), autocommit=True) as admin:
            admin.execute("create role meek login")
            admin.execute(f"create role guarded login password '{SECRET}'".encode())
            admin.execute("create database closed")
            admin.execute("revoke connect on database closed from public")
        rules = "host all guarded all scram-sha-256\nhost all stranger all trust\n"
        rules += "host all meek all trust\nhost all postgres all trust\n"
        (server.directory / "data" / "pg_hba.conf").write_text(rules)
        with psycopg.connect(server.dsn("postgres"), autocommit=True) as admin:
            admin.execute("select pg_reload_conf()")
        wrong = tmp_path / "wrong"
        wrong.write_text("not it")
        await poll(lambda: "pg_hba.conf" in str(psycopg_failure(f"{base} user=nobody dbname=postgres")))
        logins = [
            ("user=guarded dbname=postgres", 'password authentication failed for user "guarded"', "password"),
            (
                "user=nobody dbname=postgres",
                'no pg_hba.conf entry for host "127.0.0.1", user "nobody"',
                "pg_reload_conf",
            ),
            ("user=stranger dbname=postgres", 'role "stranger" does not exist', "Check the user in the dsn"),
            ("user=meek dbname=missing", 'database "missing" does not exist', "Check dbname in the dsn"),
        ]
        for login, said, hint in logins:
            dsn = f"{base} {login}"
            for failed in (psycopg_failure(dsn, password="not it"), await asyncpg_failure(dsn, str(wrong))):
                found = translate(failed, system="erp", role=Role.TARGET, doing="connect")
                assert isinstance(found, SystemUnreachable), login
                assert said in found.message
                assert found.message.startswith("system erp: ")
                assert hint in found.hint
                assert "not it" not in shown(found)
        closed = f"{base} user=meek dbname=closed"
        for failed in (psycopg_failure(closed), await asyncpg_failure(closed)):
            assert 'permission denied for database "closed"' in translate(failed, system="erp").message
        no_walsender = psycopg_failure(f"{base} user=meek dbname=postgres", replication="database")
        found = translate(no_walsender, system="erp", doing="connect for replication")
        assert re.search("walsender|WAL sender", found.message)
        assert "concord check erp" in found.hint
        # Of several addresses the last one's reason.
        several = psycopg_failure(f"host=127.0.0.1,127.0.0.1 port=1,{server.port} user=stranger dbname=postgres")
        assert found.message.count("failed") == 0
        assert translate(several, system="erp").message.endswith('no connection: role "stranger" does not exist')
        nowhere = psycopg_failure("host=nowhere.invalid user=u dbname=d")
        assert "nowhere.invalid" in translate(nowhere, system="erp").message


@pytest.mark.anyio
async def test_what_the_server_says_is_passed_on_unless_it_may_quote_a_row(postgres_dsn: str) -> None:
    """A function can raise any text under any state; where it merely lacks a privilege, the server's words are safe."""
    raises = {
        f"do $$ begin raise exception 'no {SECRET}' using errcode = '{state}'; end $$": False
        for state in ("42501", "53100", "57014", "55000", "22023")
    }
    statements = raises | {
        "create schema s": True,
        "select * from closed": True,
        "do $$ begin perform * from closed; end $$": True,
        "select * from nothere": True,
        "alter system set wal_level = 'minimal'": True,
    }
    with psycopg.connect(postgres_dsn, autocommit=True) as setup:
        setup.execute("create table closed (id int); drop role if exists meek; create role meek login")
        try:
            async with both(postgres_dsn.replace("user=postgres", "user=meek")) as connections:
                for connection in connections:
                    for sql, is_said in statements.items():
                        error = await failure(connection, sql)
                        said = str(error).split("\n")[0]
                        found = translate(error, system="erp")
                        assert SECRET not in shown(found), sql
                        assert (said in found.message) == is_said, found.message
        finally:
            setup.execute("drop role meek")


@pytest.mark.anyio
async def test_hints_lead_somewhere(postgres_dsn: str) -> None:
    """What is parked is tried again by a command, a lane that is halted by a start of the daemon."""
    async with both(postgres_dsn) as connections:
        for connection in connections:
            error = await failure(connection, "select * from nothere")
            parked = translate(error, system="erp", table="nothere", role=Role.TARGET)
            halted = translate(error, system="erp", role=Role.TARGET)
            by_hand = translate(error, system="erp", again="run this again")
            assert parked.hint.endswith("then `concord parked retry --all --system erp`.")
            assert halted.hint.endswith("then start the daemon again.")
            assert by_hand.hint.endswith("then run this again.")


@pytest.mark.anyio
async def test_a_value_that_the_driver_itself_refuses_is_a_refused_row(postgres_dsn: str) -> None:
    async with both(postgres_dsn) as (first, second):
        with pytest.raises(asyncpg.DataError) as wrong_type:
            await second.execute("select $1::int", SECRET)
        with pytest.raises(psycopg.DataError) as nul:
            await first.execute("select %s::text", [f"{SECRET}\0"])
        for error in (wrong_type.value, nul.value):
            refusal = translate(error, system="erp", table="t", role=Role.TARGET)
            assert isinstance(refusal, RowRefused)
            assert refusal.reason == "value"
            assert SECRET not in shown(refusal)


@pytest.mark.anyio
async def test_both_drivers_get_the_same_session(postgres_dsn: str) -> None:
    names = "datestyle timezone intervalstyle bytea_output extra_float_digits client_encoding lc_monetary row_security"
    query = "select " + " || ' ' || ".join(f"current_setting('{name}')" for name in names.split())
    async with both(postgres_dsn) as (first, second):
        one = (await (await first.execute(query)).fetchone())[0]
        two = await second.fetchval(query)
    assert one == two == "ISO, MDY UTC iso_8601 hex 1 UTF8 C off"


@pytest.mark.parametrize("dsn", [f"host=h password={SECRET}", f"postgresql://u:{SECRET}@h/d", f"{SECRET} = = x"])
def test_a_password_in_the_dsn_is_refused_and_not_repeated(dsn: str) -> None:
    with pytest.raises(msgspec.ValidationError) as refusal:
        msgspec.convert({"dsn": dsn}, PostgresConfig)
    assert SECRET not in str(refusal.value)
    assert "password" in str(refusal.value) or "connection string" in str(refusal.value)


def test_wrong_settings_are_refused_with_their_place() -> None:
    for wrong in ({"slot": "Big"}, {"publication": ""}, {"connect_seconds_max": 0}, {"sslmode": "require"}):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert({"dsn": "host=h", **wrong}, PostgresConfig)


def test_names_come_from_the_system_and_files_from_its_folder() -> None:
    config = PostgresConfig(dsn="host=h sslrootcert=ca.pem options='-c geqo=off'", password=Secret(file="pw"))
    site = Site(name="CRM-1", directory=Path("/etc/concord"), work_directory=Path("/tmp"))
    assert (slot_name(site, config), publication_name(site, config)) == ("concord_crm_1", "concord_crm_1")
    with pytest.raises(ConfigError):
        psycopg_parameters(site, config, use="test")
    parameters = psycopg_parameters(site, PostgresConfig(dsn=config.dsn), use="test")
    assert parameters["sslrootcert"] == "/etc/concord/ca.pem"
    assert parameters["options"].startswith("-c geqo=off -c datestyle=ISO,MDY ")


@pytest.mark.parametrize("name", ["t", "s.t", '"a.b".t', '"a""b"."c.d"', 's."T"'])
def test_table_names_split_and_join(name: str) -> None:
    assert split_name(joined_name(*split_name(name))) == split_name(name)


@pytest.mark.parametrize("name", ["", ".t", "t.", "a.b.c", '"a', '"a"b', '""'])
def test_table_names_that_are_none_are_refused(name: str) -> None:
    with pytest.raises(ConfigError):
        split_name(name)


def test_the_plugin_loads_by_its_entry_point() -> None:
    plugin = load_plugin("postgres")
    assert (plugin.kind, plugin.dialect, plugin.config) == ("postgres", "postgres", PostgresConfig)


def test_loading_the_plugin_imports_no_driver() -> None:
    program = (
        "import sys; from engine.plugin import load_plugin; load_plugin('postgres');"
        "sys.exit(bool({'psycopg', 'asyncpg', 'anyio'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
