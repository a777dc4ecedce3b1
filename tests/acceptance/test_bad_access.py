"""Goal: a system that cannot be reached, written or logged in to is told with its next step, holds up no other system,
and gets everything once the cause is mended.

Method: three databases in agreement with the daemon running; one of them is taken away in every way a server or its
administrator can, while the other two go on. The role that Concord uses is an ordinary one, so privileges count.
"""

from __future__ import annotations

import json
import os
import re
import socket
import threading
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from engine.testing.postgres import PostgresServer, start_postgres
from tests.acceptance.field import Field
from tests.acceptance.trouble import Trouble

PASSWORD = "wrenPassword71"
ROLE = """
do $$ begin
    if not exists (select from pg_roles where rolname = 'replicator') then
        create role replicator login replication password 'wrenPassword71';
    end if;
end $$;
grant create on database {database} to replicator;
alter table client owner to replicator;
alter table place owner to replicator;
"""
FULL = """
create or replace function full_disk() returns trigger language plpgsql as $$
begin raise exception 'could not extend file' using errcode = '53100'; end $$;
create trigger full_disk before insert or update on client for each row execute function full_disk();
"""


@pytest.fixture(scope="module")
def guarded_server() -> Iterator[PostgresServer]:
    """A server of our own that asks for passwords, so that a wrong one is refused, and that can be stopped."""
    with TemporaryDirectory(prefix="concord-pg-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        directory.chmod(0o755)
        with start_postgres(directory) as server:
            rules = "host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
            (directory / "data" / "pg_hba.conf").write_text(rules + "host replication all 127.0.0.1/32 scram-sha-256\n")
            yield server


class Relay:
    """A port in front of the server that can be shut: a network that fails."""

    def __init__(self, server: PostgresServer) -> None:
        self.server = server
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.pairs: list[socket.socket] = []
        self.is_open = True
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            if not self.is_open:
                near.close()
                continue
            far = socket.create_connection(("127.0.0.1", self.server.port))
            self.pairs += [near, far]
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=_copy, args=(source, sink), daemon=True).start()

    def cut(self) -> None:
        self.is_open = False
        pairs, self.pairs = self.pairs, []
        for end in pairs:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def mend(self) -> None:
        self.is_open = True

    def close(self) -> None:
        self.listener.close()
        self.cut()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with closing(source), closing(sink):
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            return


@pytest.fixture(scope="module")
def relay(guarded_server: PostgresServer) -> Iterator[Relay]:
    made = Relay(guarded_server)
    yield made
    made.close()


@pytest.fixture(scope="module")
def trouble(guarded_server: PostgresServer, relay: Relay) -> Iterator[Trouble]:
    """CRM and FSM as ever; the ERP behind the relay, with an ordinary role and a password from the environment."""
    with TemporaryDirectory(prefix="concord-bad-") as directory:
        field = Field(guarded_server, Path(directory), "access")
        database = "access_erp"
        dsn = f"host=127.0.0.1 port={relay.port} user=replicator dbname={database}"
        field.options = {"erp": f'dsn = "{dsn}"\npassword = {{ env = "ERP_PASSWORD" }}'}
        field.environment["ERP_PASSWORD"] = PASSWORD
        field.create()
        with field.connect("erp") as connection:
            connection.execute(ROLE.format(database=database).encode())
            connection.execute("select pg_reload_conf()")
        try:
            made = Trouble(field)
            made.secrets |= {PASSWORD, "kestrelMail"}
            made.concord("setup")
            made.start()
            made.wait_copied()
            yield made
            if made.daemon is not None:
                assert made.stop() == 0
            made.check_agreement()
        finally:
            field.drop()


def add(trouble: Trouble, key: str) -> None:
    sql = "insert into customers (id, company_name, email, phone) values (?, ?, ?, ?)"
    trouble.run("crm", sql, key, f"{key} Ltd", f"{key}.kestrelMail@example.org", key)


@contextmanager
def beside(trouble: Trouble, key: str) -> Generator[None]:
    """What is written while the block's trouble lasts arrives at the FSM meanwhile, and at the ERP in the end, once."""
    yield
    trouble.wait_row("erp", "select 1 from client where tel = ?", key)
    assert trouble.ask("erp", "select count(*) from client where tel = ?", key) == [(1,)]


def flows(trouble: Trouble, key: str) -> None:
    add(trouble, key)
    trouble.wait_row("fsm", "select 1 from client where tel = ?", key)


def check_paused(trouble: Trouble, direction: str, *words: str) -> None:
    told = trouble.wait_lane("erp", direction, "paused")
    message, _, hint = told.partition("\n")
    trouble.check_told(message, "system erp", *words)
    assert hint, told
    assert told in trouble.halted()


def test_a_system_that_is_away_when_the_daemon_starts_gets_everything_later(trouble: Trouble, relay: Relay) -> None:
    assert trouble.stop() == 0
    relay.cut()
    with beside(trouble, "early"):
        trouble.start()
        flows(trouble, "early")
        for direction in ("source", "target"):
            check_paused(trouble, direction, "no connection")
        relay.mend()


def test_a_connection_that_breaks_is_made_again(trouble: Trouble, relay: Relay) -> None:
    trouble.wait_lane("erp", "target", "running")
    with beside(trouble, "broken"):
        relay.cut()
        flows(trouble, "broken")
        for direction in ("source", "target"):
            check_paused(trouble, direction, "connection")
        relay.mend()
    trouble.wait_lane("erp", "source", "running")


def test_a_read_only_target_is_waited_for(trouble: Trouble, guarded_server: PostgresServer) -> None:
    trouble.wait_lane("erp", "target", "running")
    with beside(trouble, "readonly"):
        trouble.ask("crm", "alter system set default_transaction_read_only = on")
        trouble.ask("crm", "alter database access_fsm set default_transaction_read_only = off")
        trouble.ask("crm", "select pg_reload_conf()")
        with trouble.field.application("crm") as crm:
            crm.run("set default_transaction_read_only = off")
            crm.run("insert into customers (id, company_name, phone) values ('readonly', 'Readonly', 'readonly')")
        trouble.changes["crm"] += 1
        trouble.wait_row("fsm", "select 1 from client where tel = 'readonly'")
        check_paused(trouble, "target", "read-only", "25006")
        assert trouble.hub("select source_state from system where name = 'erp'") == [("running",)]
        assert "default_transaction_read_only" in trouble.wait_lane("erp", "target", "paused")
        with trouble.field.application("crm") as crm:
            crm.run("alter system reset default_transaction_read_only")
            crm.run("select pg_reload_conf()")


def test_a_full_target_is_waited_for(trouble: Trouble) -> None:
    """A trigger says what the server says when a write finds the disk full: sqlstate 53100."""
    trouble.wait_lane("erp", "target", "running")
    with beside(trouble, "full"):
        trouble.ask("erp", FULL)
        flows(trouble, "full")
        check_paused(trouble, "target", "no room", "53100")
        trouble.ask("erp", "drop trigger full_disk on client")


def test_a_privilege_that_is_revoked_parks_what_needs_it_until_it_is_granted(trouble: Trouble) -> None:
    trouble.wait_lane("erp", "target", "running")
    with beside(trouble, "revoked"):
        trouble.ask("erp", "revoke insert, update on client from replicator")
        flows(trouble, "revoked")
        row = trouble.wait_parked("erp", "revoked")
        trouble.check_told(row["message"], "system erp", "table public.client", "privilege is missing")
        assert "crm:public.customers:revoked" in row["rows"]
        trouble.check_told(row["hint"], "concord check", "parked retry")
        found = json.loads(trouble.concord("check", "erp", "--json", code=3).stdout)["findings"]
        grants = [finding["sql"] for finding in found if "privilege" in finding["message"]]
        assert grants == ['grant insert, update on table "public"."client" to "replicator";'], found
        for grant in grants:
            trouble.ask("erp", grant)
        trouble.concord("parked", "retry", str(row["id"]))
    trouble.wait_unparked("revoked")


def test_a_wrong_password_after_a_restart_is_told_and_tried_again(trouble: Trouble) -> None:
    trouble.ask("crm", "alter role replicator password 'another71'")
    trouble.secrets.add("another71")
    with beside(trouble, "password"):
        trouble.restart()
        flows(trouble, "password")
        for direction in ("source", "target"):
            check_paused(trouble, direction, "password authentication failed")
        trouble.ask("crm", f"alter role replicator password '{PASSWORD}'")


def test_a_secret_that_is_not_there_is_told_before_anything_starts(trouble: Trouble) -> None:
    trouble.field.environment.pop("ERP_PASSWORD")
    assert "ERP_PASSWORD" not in os.environ
    try:
        assert trouble.stop() == 0
        for command in (("run",), ("run", "--once"), ("setup",)):
            ended = trouble.concord(*command, code=78)
            trouble.check_told(ended.stderr, "system erp", "ERP_PASSWORD", "is not set", "next:", "set ERP_PASSWORD")
    finally:
        trouble.field.environment["ERP_PASSWORD"] = PASSWORD
        trouble.start()
    with beside(trouble, "secret"):
        flows(trouble, "secret")


def test_a_publication_made_anew_is_told_and_what_it_missed_is_read(trouble: Trouble) -> None:
    """By hand, while the daemon was down: what the hint says is enough, and nothing is missing after it."""
    assert trouble.stop() == 0
    trouble.ask("erp", "drop publication concord_erp")
    # No log will have this one; a page has.
    trouble.ask("erp", "insert into client (title, tel) values ('Missed Ltd', 'missed')")
    trouble.ask("erp", "create publication concord_erp for table client, place, concord.marker")
    trouble.start()
    told = trouble.wait_lane("erp", "source", "halted")
    trouble.check_told(told, "system erp", "publication concord_erp", "made again", "concord setup erp")
    slot = trouble.field.slot("erp")
    assert f"select pg_drop_replication_slot('{slot}'); then `concord setup erp`, then `concord backfill erp`" in told
    trouble.ask("erp", "select pg_drop_replication_slot(?)", slot)
    # The administrator's publication belongs to the administrator, and set-up has to alter it.
    ended = trouble.concord("setup", "erp", code=7)
    trouble.check_told(ended.stderr, "must be owner of publication concord_erp", "concord check erp", "run this again")
    found = json.loads(trouble.concord("check", "erp", "--json", code=3).stdout)["findings"]
    (owner,) = [f["sql"] for f in found if f["is_fatal"] and not f["by_setup"]]
    trouble.ask("erp", owner)
    trouble.concord("setup", "erp")
    trouble.concord("backfill", "erp")
    trouble.wait_row("fsm", "select 1 from client where tel = 'missed'")
    trouble.wait_lane("erp", "source", "running")
    with beside(trouble, "afterwards"):
        flows(trouble, "afterwards")


def test_a_system_torn_down_and_set_up_again_is_refused_until_its_marker_is_put_back(trouble: Trouble) -> None:
    """As the plugin's chapter says: only a person knows that the tables are those that were delivered to."""
    with beside(trouble, "torn"):
        flows(trouble, "torn")
    assert trouble.stop() == 0
    removed = trouble.concord("teardown", "erp", "--yes").stdout
    said = re.search(r"drop table concord\.marker, which says hub (\S+), seq (\d+)", removed)
    assert said is not None, removed
    trouble.concord("setup", "erp")
    trouble.start()
    told = trouble.wait_lane("erp", "target", "halted")
    trouble.check_told(told, "system erp", "marker 0", f"the hub has delivered {said[2]}")
    assert trouble.stop() == 3
    trouble.ask("erp", "update concord.marker set hub = ?, seq = ? where id = 1", said[1], int(said[2]))
    trouble.start()
    assert "past our position" in trouble.wait_lane("erp", "source", "halted")
    trouble.concord("backfill", "erp")
    with beside(trouble, "back"):
        flows(trouble, "back")
    trouble.run("erp", "update client set addr_city = 'Backtown' where tel = 'back'")
    trouble.wait_row("fsm", "select 1 from client where addr_city = 'Backtown'")
    trouble.wait_lane("erp", "source", "running")


def test_connections_that_the_server_ends_are_made_again(trouble: Trouble) -> None:
    trouble.wait_lane("erp", "target", "running")
    ended = "select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name like ?"
    assert trouble.ask("crm", ended, "concord %")[0][0] >= 6
    with beside(trouble, "ended"):
        flows(trouble, "ended")
