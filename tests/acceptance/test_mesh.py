"""Goal: databases of every kind in one mesh, each written to by users of its own, agree whatever fails: nothing is lost
or doubled, and every value that lost is on record.

Method: a MariaDB as CRM, a PostgreSQL as FSM behind a network that can be cut, a database that is only looked at as
ERP, and a portal whose PostgreSQL comes in through Debezium and Kafka; concurrent users on all four. One after the
other each server is stopped and started again, the network is cut, and every time the daemon is killed in the middle
of it. A system's users rest while its server is away, so that it is known what they committed; all others go on.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from dataclasses import field as default
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from engine.testing.kafka import debezium
from engine.testing.kafka.broker import KafkaBroker, start_broker
from engine.testing.kafka.client import read_records
from engine.testing.kafka.connect import ConnectWorker, start_connect
from engine.testing.mariadb import MariadbServer, start_mariadb
from engine.testing.postgres import PostgresServer, start_postgres
from engine.testing.proxy import Proxy
from tests.acceptance.field import CRM_MAPPING, Field, Shape
from tests.acceptance.users import STARTED, User, check_every_value_accounted, check_no_doubles, collide, writing

CRM_SCHEMA = """
create table customers (
    id varchar(80) primary key, company_name varchar(200) not null, email varchar(200) unique, phone varchar(200),
    credit_cents bigint, street varchar(200), city varchar(200)
) collate utf8mb4_nopad_bin;
create table locations (
    id varchar(80) primary key, customer varchar(80) not null, label varchar(200) not null,
    foreign key (customer) references customers (id)
) collate utf8mb4_nopad_bin;
"""
SYSTEMS = ("crm", "fsm", "erp", "portal")
PREFIX = "mesh"
HEARTBEAT = "public.heartbeat"
CATCH_UP_SECONDS_MAX = 120.0
CONNECTOR = {
    "provide.transaction.metadata": "true",
    "skipped.operations": "none",
    "heartbeat.interval.ms": "300",
    "heartbeat.action.query": f"update {HEARTBEAT} set at = clock_timestamp()",
    # A server that is started again is tried again soon.
    "retriable.restart.connector.wait.ms": "1000",
}


@dataclass
class Mesh:
    """The servers, each of which can be away for a while, and the field that is spread over them."""

    directory: Path
    lives: dict[str, ExitStack] = default(default_factory=lambda: {})
    ports: dict[str, int] = default(default_factory=lambda: {})
    field: Field = default(init=False)
    network: Proxy = default(init=False)
    broker: KafkaBroker = default(init=False)
    connect: ConnectWorker = default(init=False)

    def postgres(self, name: str) -> PostgresServer:
        server = self._live(name).enter_context(start_postgres(self.directory / name, port=self.ports.get(name)))
        self.ports[name] = server.port
        return server

    def mariadb(self) -> MariadbServer:
        server = self._live("mariadb").enter_context(
            start_mariadb(self.directory / "mariadb", port=self.ports.get("mariadb"))
        )
        self.ports["mariadb"] = server.port
        return server

    def start_broker(self) -> None:
        known = self.broker.ports if "broker" in self.ports else None
        self.broker, program = self._live("broker").enter_context(start_broker(self.directory / "broker", ports=known))
        self.ports["broker"] = program.process.pid

    def stop(self, name: str) -> None:
        self.lives.pop(name).close()

    def _live(self, name: str) -> ExitStack:
        return self.lives.setdefault(name, ExitStack())

    def close(self) -> None:
        for daemon in self.field.daemons:
            if daemon.poll() is None:
                daemon.kill()
            daemon.wait()
        for name in reversed(list(self.lives)):
            self.stop(name)

    # Trouble. Each is told which systems are away meanwhile.

    def restart_mariadb(self) -> None:
        self.stop("mariadb")
        time.sleep(0.5)
        self.mariadb()

    def restart_postgres(self) -> None:
        self.stop("main")
        time.sleep(0.5)
        self.postgres("main")

    def restart_captured(self) -> None:
        self.stop("captured")
        time.sleep(0.5)
        self.postgres("captured")

    def restart_broker(self) -> None:
        self.stop("broker")
        time.sleep(0.5)
        self.start_broker()

    def cut_network(self) -> None:
        self.network.is_refusing = True
        self.network.cut()
        time.sleep(1.5)
        self.network.is_refusing = False

    def wait_captured(self) -> None:
        """Until Debezium has brought to the topics what the portal's users have committed by now."""
        with self.field.application("portal") as portal:
            ((lsn,),) = portal.run("select (pg_current_wal_insert_lsn() - '0/0')::bigint")
            deadline = time.monotonic() + CATCH_UP_SECONDS_MAX
            while True:
                portal.run(f"update {HEARTBEAT} set at = clock_timestamp()")
                for record in reversed(read_records(self.broker.bootstrap, [f"{PREFIX}.transaction"])):
                    end = json.loads(record.value or b"{}")
                    if end.get("status") == "END" and int(end["id"].split(":")[1]) >= int(lsn):
                        return
                assert time.monotonic() < deadline, f"Debezium brings nothing: {self.connect.status(PREFIX)}"
                time.sleep(0.2)


@pytest.fixture
def mesh(tmp_path: Path, kafka_resolved: None, mariadb_installed: None) -> Iterator[Mesh]:
    with TemporaryDirectory(prefix="concord-mesh-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)
        made = Mesh(Path(name))
        try:
            _build(made, tmp_path)
            yield made
        finally:
            made.close()


def _build(mesh: Mesh, directory: Path) -> None:
    main, captured, mariadb = mesh.postgres("main"), mesh.postgres("captured"), mesh.mariadb()
    mesh.start_broker()
    mesh.network = Proxy(("127.0.0.1", main.port))
    mesh._live("network").callback(mesh.network.end)  # pyright: ignore[reportPrivateUsage]
    field = mesh.field = Field(
        main,
        directory,
        "mesh",
        systems=SYSTEMS,
        mariadb={"crm": mariadb},
        servers={"portal": captured},
        shapes={"crm": Shape(CRM_SCHEMA, CRM_MAPPING.replace("public.", ""))},
    )
    near = field.dsn("fsm").replace(f"port={main.port}", f"port={mesh.network.port}")
    field.options = {
        "crm": f"""
            plugin = "mysql"
            host = "127.0.0.1"
            port = {mariadb.port}
            user = "root"
            database = "{field.database("crm")}"
            """,
        "fsm": f'dsn = "{near}"',
        "erp": f"""
            plugin = "polling"
            driver = "psycopg"
            dialect = "postgres"
            connect = {{ conninfo = "{field.dsn("erp")}" }}
            every = 0.3
            sweep_every = 1.0
            without = ["commit times"]
            tables."public.client" = {{ updated_at = "changed_at" }}
            """,
        "portal": f"""
            plugin = "kafka"
            servers = ["{mesh.broker.bootstrap}"]
            prefix = "{PREFIX}"
            heartbeat = "{HEARTBEAT}"
            database = {{ plugin = "postgres", dsn = "{field.dsn("portal")}" }}
            """,
    }
    field.create()
    with field.application("portal") as portal:
        portal.run(f"create table {HEARTBEAT} (id int primary key, at timestamptz)")
        portal.run(f"insert into {HEARTBEAT} values (1, now())")
    ready = field.concord("setup")
    assert ready.returncode == 0, ready.stderr
    mesh.connect, _ = mesh._live("connect").enter_context(  # pyright: ignore[reportPrivateUsage]
        start_connect(mesh.directory / "connect", mesh.broker.bootstrap)
    )
    source = debezium.postgres_source(
        field.dsn("portal"), PREFIX, tables=r"(public|concord)\..*", schemas=False, settings=CONNECTOR
    )
    mesh.connect.create(PREFIX, source)
    mesh.wait_captured()


@contextmanager
def resting(users: list[User], systems: tuple[str, ...]) -> Generator[None]:
    """The users of these systems rest; all others write."""
    for user in users:
        user.is_stopping.clear()
    with writing([user for user in users if user.system not in systems]):
        yield


def test_a_mesh_of_every_kind_agrees_whatever_fails(mesh: Mesh) -> None:
    field, rng = mesh.field, random.Random(4714)
    users = [User(field, system, n) for n, system in enumerate(SYSTEMS)]
    troubles: list[tuple[tuple[str, ...], Callable[[], None]]] = [
        ((), mesh.cut_network),
        (("crm",), mesh.restart_mariadb),
        (("fsm", "erp"), mesh.restart_postgres),
        (("portal",), mesh.restart_captured),
        ((), mesh.restart_broker),
    ]
    rng.shuffle(troubles)
    for away, trouble in [((), lambda: None), *troubles, ((), mesh.cut_network)]:
        starts = field.log().count(STARTED)
        daemon = field.start_daemon()
        with resting(users, away):
            deadline = time.monotonic() + 60
            while field.log().count(STARTED) == starts and time.monotonic() < deadline:
                time.sleep(0.05)
            time.sleep(rng.random() * 2)
            trouble()
            time.sleep(rng.random() * 3)
            assert daemon.poll() is None, f"ended with {daemon.returncode}: {field.log()[-3000:]}"
            daemon.kill()
            daemon.wait()
        assert [user.failure for user in users] == [None] * len(users)
    for _ in range(2):
        mesh.wait_captured()
        field.settle()
        collide(users)
    # What a delivery sets off at a system comes in through Debezium when that has brought it.
    for _ in range(2):
        mesh.wait_captured()
        field.settle()
    compared = field.concord("compare", "--json")
    assert compared.returncode == 0, compared.stdout[:3000]
    check_no_doubles(field, users)
    check_every_value_accounted(field, users)
    assert "internal error" not in field.log()
