"""Goal: a table that its owners change, drop or stop publishing under a running daemon is told with what to do; the
other tables go on; and after doing it, nothing of what was written meanwhile is missing or there twice.

Method: one daemon over two PostgreSQL databases with a table for each kind of trouble, and one table that is left alone
and must flow all the time.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from engine.testing.postgres import PostgresServer
from tests.acceptance.field import Field, Shape
from tests.acceptance.trouble import Trouble

TABLES = ("calm", "dropped", "unpublished", "truncated", "renamed", "retyped", "widened", "away", "late")
DICTIONARY = "".join(
    f"""
[entities.{table}]
description = "Something"
[entities.{table}.fields]
name = {{ type = "text" }}
size = {{ type = "integer" }}
"""
    for table in TABLES
)
SHAPE = Shape(
    "".join(f"create table {table} (id text primary key, name text, size int);" for table in TABLES),
    "".join(
        f"""
[[table]]
name = "public.{table}"
entity = "{table}"
key = ["id"]
allocate = "uuid"
[table.fields]
name = "name"
size = "size"
"""
        for table in TABLES
    ),
)


@pytest.fixture(scope="module")
def trouble(postgres_server: PostgresServer) -> Iterator[Trouble]:
    with TemporaryDirectory(prefix="concord-bad-") as directory:
        field = Field(
            postgres_server,
            Path(directory),
            "schema",
            systems=("crm", "erp"),
            dictionary=DICTIONARY,
            shapes={"crm": SHAPE, "erp": SHAPE},
        )
        with field.standing():
            made = Trouble(field)
            made.secrets |= {"kestrel", "717171"}
            made.concord("setup")
            for table in TABLES:
                put(made, table, "before")
            made.start()
            made.wait_copied()
            yield made
            assert made.stop() == 0
            made.check_agreement()


def put(trouble: Trouble, table: str, key: str, *, rows: int = 1) -> None:
    trouble.run("crm", f"insert into {table} (id, name, size) values (?, ?, 717171)", key, f"kestrel {key}", rows=rows)


def wait(trouble: Trouble, table: str, key: str, system: str = "erp") -> None:
    trouble.wait_row(system, f"select 1 from {table} where name = ?", f"kestrel {key}")


def check_calm(trouble: Trouble, key: str) -> None:
    """Another table is not held up."""
    put(trouble, "calm", key)
    wait(trouble, "calm", key)


def wait_held(trouble: Trouble, system: str, table: str, *words: str) -> None:
    sql = "select h.message, h.hint from held h join system s on s.id = h.system where s.name = ? and h.name = ?"
    trouble.wait(lambda: trouble.hub(sql, system, f"public.{table}"), f"{table} is held")
    ((message, hint),) = trouble.hub(sql, system, f"public.{table}")
    assert f"{message}\n{hint}" in trouble.halted()
    trouble.check_told(f"{message} {hint}", f"system {system}", f"table public.{table}", "concord backfill", *words)


def test_a_table_gone_or_no_longer_published_is_told_and_read_again(trouble: Trouble) -> None:
    trouble.ask("crm", "drop table dropped")
    trouble.ask("crm", "alter publication concord_crm drop table unpublished")
    put(trouble, "unpublished", "unseen", rows=0)
    trouble.run("crm", "update unpublished set name = 'kestrel changed' where id = 'before'", rows=0)
    trouble.run("crm", "truncate truncated", rows=0)
    wait_held(trouble, "crm", "truncated", "truncated", "concord rewrite")
    wait_held(trouble, "crm", "dropped", "the table is gone", "concord setup crm")
    wait_held(trouble, "crm", "unpublished", "not captured", 'alter publication "concord_crm" add table "public"."unpu')
    check_calm(trouble, "gone")
    assert trouble.ask("erp", "select count(*) from unpublished") == [(1,)]
    # Nothing is written over what nobody has read.
    trouble.run("erp", "update unpublished set name = 'kestrel elsewhere' where name = 'kestrel before'")
    row = trouble.wait_parked("crm", "before")
    trouble.check_told(row["message"], "system crm", "table public.unpublished", "not captured")
    assert trouble.ask("crm", "select name from unpublished where id = 'before'") == [("kestrel changed",)]
    # What the hints say, one after the other.
    trouble.ask("crm", "create table dropped (id text primary key, name text, size int)")
    put(trouble, "dropped", "before", rows=0)
    put(trouble, "dropped", "anew", rows=0)
    trouble.concord("setup", "crm")
    assert trouble.ask("crm", "select count(*) from pg_publication_tables where tablename = 'unpublished'") == [(1,)]
    trouble.concord("rewrite", "--missing", "--yes", "--system", "crm")
    wait(trouble, "truncated", "before", "crm")
    trouble.concord("backfill", "crm")
    wait(trouble, "dropped", "anew")
    wait(trouble, "unpublished", "unseen")
    trouble.wait_unparked("before")
    trouble.wait(lambda: trouble.hub("select 1 from conflict") != [], "what both have changed meanwhile is on record")
    trouble.wait_copied()
    assert trouble.hub("select * from held") == []
    put(trouble, "unpublished", "after")
    wait(trouble, "unpublished", "after")


def test_a_column_renamed_at_a_source_parks_its_rows_until_mapping_and_table_fit(trouble: Trouble) -> None:
    trouble.ask("crm", "alter table renamed rename column size to extent")
    trouble.run("crm", "insert into renamed (id, name, extent) values ('r1', 'kestrel r1', 717171)")
    row = trouble.wait_parked("crm", "r1")
    trouble.check_told(row["message"], "public.renamed", "size", "crm.toml")
    trouble.check_told(row["hint"], "mapping")
    check_calm(trouble, "renamed")
    listed = trouble.concord("schema", "list", code=3).stdout
    renamed = "column size is gone, perhaps it is extent now"
    trouble.check_told(listed, renamed, "column extent (integer) has come", "does not fit", "crm.toml")
    refused = trouble.concord("schema", "ack", "crm", code=5).stderr
    trouble.check_told(refused, "does not fit", "table public.renamed", "no column 'size'", "crm.toml")
    trouble.ask("crm", "alter table renamed rename column extent to size")
    trouble.run("crm", "update renamed set name = name where id = 'before'")
    # What the row has under the old name may be the value of the new one, or not.
    trouble.wait(lambda: "backfill" in trouble.wait_parked("crm", "r1")["hint"], "the row has to be read again")
    row = trouble.wait_parked("crm", "r1")
    trouble.check_told(f"{row['message']} {row['hint']}", "system crm", "table public.renamed", "extent", "size")
    trouble.concord("backfill", "crm")
    wait(trouble, "renamed", "r1")
    assert trouble.ask("erp", "select size from renamed where name = 'kestrel r1'") == [(717171,)]
    trouble.wait_unparked("r1")


def test_a_column_that_is_mended_in_the_mapping_is_read_when_that_is_acknowledged(trouble: Trouble) -> None:
    trouble.ask("crm", "alter table retyped rename column size to extent")
    trouble.run("crm", "insert into retyped (id, name, extent) values ('r2', 'kestrel r2', 717171)")
    trouble.wait_parked("crm", "r2")
    mapping = trouble.field.directory / "crm.toml"
    head, tail = mapping.read_text().split('entity = "retyped"')
    mapping.write_text(head + 'entity = "retyped"' + tail.replace('size = "size"', 'size = "extent"', 1))
    told = trouble.concord("schema", "ack", "crm", "retyped").stdout
    trouble.check_told(told, "public.retyped is acknowledged")
    wait(trouble, "retyped", "r2")
    trouble.wait_unparked("r2")
    assert "daemon.reloading" in trouble.field.log()
    trouble.check_told(trouble.concord("schema", "list").stdout, "all mapped tables are as known")


def test_a_column_that_gets_another_type_is_followed_or_parks_what_does_not_fit(trouble: Trouble) -> None:
    trouble.ask("crm", "alter table widened alter column size type text")
    trouble.secrets.add("many kestrels")
    trouble.run("crm", "insert into widened (id, name, size) values ('w1', 'kestrel w1', '717171')")
    wait(trouble, "widened", "w1")
    trouble.run("crm", "insert into widened (id, name, size) values ('w2', 'kestrel w2', 'many kestrels')")
    row = trouble.wait_parked("crm", "w2")
    trouble.check_told(row["message"], "system crm", "table public.widened", "column size", "text that is no number")
    check_calm(trouble, "widened")
    trouble.run("crm", "update widened set size = '5' where id = 'w2'")
    wait(trouble, "widened", "w2")
    trouble.wait_unparked("w2")
    listed = trouble.concord("schema", "list", "crm").stdout
    trouble.check_told(listed, "column size is text and was integer", "concord schema ack crm public.widened")
    trouble.concord("schema", "ack", "crm")
    trouble.check_told(trouble.concord("schema", "list").stdout, "all mapped tables are as known")


def test_a_target_table_that_is_away_parks_its_records_until_it_is_back(trouble: Trouble) -> None:
    trouble.ask("erp", "alter table away rename to elsewhere")
    put(trouble, "away", "a1")
    row = trouble.wait_parked("erp", "a1")
    trouble.check_told(row["message"], "system erp", "table public.away", "does not exist")
    trouble.check_told(row["hint"], "create the table")
    check_calm(trouble, "away")
    noticed = "select 1 from parked where message like ?"
    trouble.wait(
        lambda: trouble.hub(noticed, "%table public.away does not exist%"), "the lane has seen that the table is away"
    )
    trouble.ask("erp", "alter table elsewhere rename to away")
    wait(trouble, "away", "a1")
    trouble.wait_unparked("a1")
    trouble.ask("erp", "alter table away rename column name to title")
    put(trouble, "away", "a2")
    trouble.wait(lambda: trouble.hub(noticed, "%/erp.toml:%"), "the lane has seen that the column is away")
    row = trouble.wait_parked("erp", "a2")
    trouble.check_told(f"{row['message']} {row['hint']}", "system erp", "table public.away", "mapping")
    trouble.ask("erp", "alter table away rename column title to name")
    wait(trouble, "away", "a2")
    trouble.wait_unparked("a2")


def test_a_column_that_is_missing_when_the_daemon_starts_is_told(trouble: Trouble) -> None:
    assert trouble.stop() == 0
    trouble.ask("crm", "alter table late drop column size")
    trouble.run("crm", "insert into late (id, name) values ('l1', 'kestrel l1')")
    checked = trouble.concord("check", code=3).stdout
    trouble.check_told(checked, "crm: problem", "public.late", "size", "crm.toml")
    trouble.start()
    trouble.wait_parked("crm", "l1")
    check_calm(trouble, "late")
    trouble.ask("crm", "alter table late add column size int default 717171")
    trouble.run("crm", "update late set size = 717171 where id in ('l1', 'before')", rows=2)
    wait(trouble, "late", "l1")
    trouble.wait_unparked("l1")


def test_a_slot_that_is_dropped_halts_its_source_and_is_never_made_anew_in_silence(trouble: Trouble) -> None:
    assert trouble.stop() == 0
    trouble.ask("crm", "select pg_drop_replication_slot(?)", "schema_crm")
    put(trouble, "calm", "lost", rows=0)
    ended = trouble.concord("run", "--once", "--log-level", "warning", code=7)
    trouble.check_told(ended.stderr, "halted: crm source", "slot schema_crm is gone", "next:", "concord backfill crm")
    assert trouble.ask("crm", "select 1 from pg_replication_slots where slot_name = ?", "schema_crm") == []
    trouble.concord("setup", "crm")
    ended = trouble.concord("run", "--once", "--log-level", "warning", code=7)
    trouble.check_told(ended.stderr, "halted: crm source", "past our position", "concord backfill crm")
    assert trouble.ask("erp", "select 1 from calm where name = 'kestrel lost'") == []
    told = trouble.concord("backfill", "crm").stdout
    trouble.check_told(told, "tables of crm", "daemon")
    trouble.start()
    wait(trouble, "calm", "lost")
    trouble.wait_copied()
    check_calm(trouble, "found")
