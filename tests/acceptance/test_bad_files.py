"""Goal: what goes wrong with SQLite files, and with a PostgreSQL database that checks no encoding, is told like all
else and mended as told.

Method: a CRM in a SQLite file and an ERP in a database of encoding SQL_ASCII, which takes any bytes for text; a second
database beside them takes part in UTF-8 and must get everything.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from engine.testing.postgres import PostgresServer
from tests.acceptance.field import Field
from tests.acceptance.trouble import Trouble


@pytest.fixture(scope="module")
def trouble(postgres_server: PostgresServer) -> Iterator[Trouble]:
    with TemporaryDirectory(prefix="concord-bad-") as directory:
        field = Field(
            postgres_server, Path(directory), "files", files=frozenset(("crm",)), encodings={"erp": "SQL_ASCII"}
        )
        with field.standing():
            made = Trouble(field)
            made.secrets |= {"kestrel", "\\xe9"}
            made.concord("setup")
            made.start()
            made.wait_copied()
            yield made
            assert made.stop() == 0
            made.check_agreement()


def add(trouble: Trouble, key: str, *, rows: int = 1) -> None:
    sql = "insert into customers (id, company_name, phone) values (?, ?, ?)"
    trouble.run("crm", sql, key, f"kestrel {key}", key, rows=rows)


def wait(trouble: Trouble, key: str) -> None:
    for system in ("fsm", "erp"):
        trouble.wait_row(system, "select 1 from client where tel = ?", key)


def test_a_text_that_is_no_utf8_in_a_log_is_told_and_read_from_its_table_once_corrected(trouble: Trouble) -> None:
    """The server itself fails on such a text in its log, so there is no way past it but a new slot."""
    latin = b"insert into client (title, tel, addr_city) values ('kestrel latin', 'latin', E'caf\\xe9')"
    with trouble.field.connect("erp") as erp:
        erp.execute(latin)
        erp.execute("insert into client (title, tel) values ('kestrel beside', 'beside')")
    message, _, hint = trouble.wait_lane("erp", "source", "halted").partition("\n")
    trouble.check_told(message, "system erp", "not valid in UTF-8", "read the log")
    trouble.check_told(
        hint, "correct the text", "pg_drop_replication_slot", "concord setup erp", "concord backfill erp"
    )
    add(trouble, "flowing")
    wait(trouble, "flowing")
    trouble.ask("erp", "update client set addr_city = 'cafe' where tel = 'latin'")
    trouble.ask("erp", "select pg_drop_replication_slot(?)", "files_erp")
    trouble.concord("setup", "erp")
    trouble.concord("backfill", "erp")
    trouble.wait_row("crm", "select 1 from customers where phone = 'latin' and city = 'cafe'")
    trouble.wait_row("crm", "select 1 from customers where phone = 'beside'")
    trouble.wait_lane("erp", "source", "running")


def test_a_file_that_is_moved_away_is_waited_for(trouble: Trouble) -> None:
    path = trouble.field.path("crm")
    names = [Path(f"{path}{suffix}") for suffix in ("", "-wal", "-shm")]
    assert trouble.stop() == 0
    add(trouble, "moved")
    there = [name for name in names if name.exists()]
    for name in there:
        name.rename(f"{name}.away")
    trouble.start()
    for direction in ("source", "target"):
        message, _, hint = trouble.wait_lane("crm", direction, "paused").partition("\n")
        trouble.check_told(message, "system crm", "no file", "crm.sqlite")
        trouble.check_told(hint, "path", "[systems.crm]")
    trouble.run("fsm", "insert into client (title, tel) values ('kestrel meanwhile', 'meanwhile')")
    trouble.wait_row("erp", "select 1 from client where tel = 'meanwhile'")
    for name in there:
        Path(f"{name}.away").rename(name)
    wait(trouble, "moved")
    trouble.wait_row("crm", "select 1 from customers where phone = 'meanwhile'")


def test_a_table_that_is_made_anew_in_a_file_is_told_and_read_again(trouble: Trouble) -> None:
    add(trouble, "kept")
    wait(trouble, "kept")
    with trouble.field.application("crm") as crm:
        crm.run("pragma foreign_keys = off")
        crm.run("create table copy as select * from customers")
        ((schema,),) = crm.run("select sql from sqlite_schema where name = 'customers'")
        crm.run("drop table customers")
        crm.run(schema)
        crm.run("insert into customers select * from copy")
        crm.run("drop table copy")
    add(trouble, "uncaptured", rows=0)
    held = "select message, hint from held where name = 'customers'"
    trouble.wait(lambda: trouble.hub(held), "the table is held")
    ((message, hint),) = trouble.hub(held)
    trouble.check_told(message, "system crm", "table customers", "not captured")
    trouble.check_told(hint, "concord setup crm", "concord backfill crm")
    trouble.run("fsm", "update client set addr_city = 'Ash' where tel = 'kept'")
    trouble.wait_row("erp", "select 1 from client where tel = 'kept' and addr_city = 'Ash'")
    trouble.concord("setup", "crm")
    trouble.concord("backfill", "crm")
    wait(trouble, "uncaptured")
    trouble.wait_copied()
    assert trouble.hub(held) == []
    # What was to be written to the table meanwhile follows.
    trouble.wait_unparked("kept")
    trouble.wait_row("crm", "select 1 from customers where phone = 'kept' and city = 'Ash'")


def test_a_file_that_is_no_database_is_told_and_waited_for(trouble: Trouble) -> None:
    assert trouble.stop() == 0
    add(trouble, "spoilt")
    path = trouble.field.path("crm")
    with trouble.field.application("crm") as crm:
        crm.run("pragma wal_checkpoint(truncate)")
    good = path.read_bytes()
    path.write_bytes(b"no database" + os.urandom(8192))
    trouble.start()
    message, _, hint = trouble.wait_lane("crm", "source", "paused").partition("\n")
    trouble.check_told(message, "system crm", "damaged", "no SQLite database")
    trouble.check_told(hint, "restore", "backup")
    for name in (f"{path}-wal", f"{path}-shm"):
        Path(name).unlink(missing_ok=True)
    path.write_bytes(good)
    wait(trouble, "spoilt")
