"""Goal: a hub that is damaged, taken, too small or not the right one is told at once, and nothing is written anywhere.

Method: a field is brought into agreement, then its hub file is spoilt or a second daemon is started; what the commands
say, their exit codes, and the systems' tables and the hub's bytes before and after are compared.
"""

from __future__ import annotations

import itertools
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.testing.postgres import PostgresServer
from tests.acceptance.field import Field
from tests.acceptance.trouble import Trouble

ANOTHER_DAEMON, HUB = 75, 9


@pytest.fixture(scope="module")
def agreed(postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trouble]:
    """A field of two databases in agreement, the daemon stopped, and a copy of its hub to start each test with."""
    made = Trouble(Field(postgres_server, tmp_path_factory.mktemp("hub"), "hub", systems=("crm", "erp")))
    made.field.create()
    try:
        made.concord("setup")
        sql = "insert into customers (id, company_name) select 'c' || n, 'Customer Secret ' || n"
        made.run("crm", f"{sql} from generate_series(1, 300) n", rows=300)
        made.secrets.add("Customer Secret")
        made.concord("run", "--once", "--log-level", "warning")
        made.check_agreement()
        keep(made)
        yield made
    finally:
        made.field.drop()


@pytest.fixture
def trouble(agreed: Trouble) -> Iterator[Trouble]:
    """The field with its good hub; whatever a test did to the hub is undone, and then all agree again."""
    yield agreed
    if agreed.daemon is not None:
        agreed.stop()
    restore(agreed)
    agreed.concord("run", "--once", "--log-level", "warning")
    agreed.check_agreement()
    keep(agreed)


def hub_of(trouble: Trouble) -> Path:
    return trouble.field.directory / "hub.sqlite"


def keep(trouble: Trouble) -> None:
    """A backup of the hub as it is."""
    shutil.copy(hub_of(trouble), hub_of(trouble).with_suffix(".good"))


def forget(trouble: Trouble) -> None:
    for name in ("hub.sqlite", "hub.sqlite-wal", "hub.sqlite-shm"):
        (trouble.field.directory / name).unlink(missing_ok=True)


def restore(trouble: Trouble) -> None:
    """What the hint of a damaged hub says: its newest backup."""
    forget(trouble)
    shutil.copy(hub_of(trouble).with_suffix(".good"), hub_of(trouble))


def seen(trouble: Trouble) -> list[object]:
    """All that a daemon could change at the systems: their rows and markers."""
    return [
        trouble.ask("crm", "select count(*), max(company_name) from customers"),
        trouble.ask("erp", "select count(*), max(changed_at) from client"),
        trouble.ask("crm", "select epoch, seq from concord.marker"),
        trouble.ask("erp", "select epoch, seq from concord.marker"),
    ]


def spoil_header(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"no database at all")


def spoil_pages(path: Path) -> None:
    """A stretch of what a broken disk or a wrong program leaves behind, over all pages but the first."""
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(bytes(range(256)) * ((path.stat().st_size - 4096) // 256))


def spoil_middle(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2 // 4096 * 4096)
        file.write(b"\xa5" * 8192)


def truncate(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


@pytest.mark.parametrize("spoil", [spoil_header, spoil_pages, spoil_middle, truncate])
def test_a_damaged_hub_is_told_and_nothing_is_written(trouble: Trouble, spoil: object) -> None:
    assert callable(spoil)
    spoil(hub_of(trouble))
    content, before = hub_of(trouble).read_bytes(), seen(trouble)
    for command in (("run",), ("run", "--once")):
        ended = trouble.concord(*command, code=HUB)
        trouble.check_told(ended.stderr, "hub.sqlite", "damaged", "next:", "backup", "concord compare")
    assert hub_of(trouble).read_bytes() == content
    assert seen(trouble) == before


@pytest.mark.parametrize("spoil", [spoil_header, spoil_pages])
def test_commands_that_read_a_damaged_hub_say_so(trouble: Trouble, spoil: object) -> None:
    assert callable(spoil)
    spoil(hub_of(trouble))
    for command in (("status",), ("parked", "list"), ("compare",), ("conflicts",)):
        ended = trouble.concord(*command, code=HUB)
        trouble.check_told(ended.stderr, "hub.sqlite", "damaged", "next:", "backup")


def test_a_hub_that_was_lost_is_told_by_the_markers_of_the_systems(trouble: Trouble) -> None:
    forget(trouble)
    before = seen(trouble)
    ended = trouble.concord("run", "--once", "--log-level", "warning", code=8)
    trouble.check_told(ended.stderr, "halted", "crm", "erp", "another hub", "next:")
    assert seen(trouble) == before


def test_a_hub_is_its_owners_alone(trouble: Trouble) -> None:
    for file in trouble.field.directory.glob("hub.sqlite*"):
        if file.is_file() and file.suffix not in (".lock", ".good"):
            assert file.stat().st_mode & 0o077 == 0, file.name


def test_a_hub_older_than_what_was_delivered_is_told(trouble: Trouble) -> None:
    trouble.run("crm", "update customers set phone = '1' where id = 'c1'")
    trouble.concord("run", "--once", "--log-level", "warning")
    newest = trouble.field.directory / "newest"
    shutil.copy(hub_of(trouble), newest)
    restore(trouble)
    ended = trouble.concord("run", "--once", "--log-level", "warning", code=7)
    trouble.check_told(ended.stderr, "halted", "erp", "marker", "next:", "backup")
    for n in range(4):
        # The journal grows past the marker, which does not make it one of this hub's.
        trouble.run("crm", "update customers set phone = ? where id = 'c1'", f"grown {n}")
        ended = trouble.concord("run", "--once", "--log-level", "warning", code=7)
    trouble.check_told(ended.stderr, "halted", "erp", "marker", "next:", "backup")
    shutil.copy(newest, hub_of(trouble))
    keep(trouble)


def test_a_hub_without_room_is_told_and_goes_on_when_there_is_some(trouble: Trouble) -> None:
    """The daemon's files may not grow any more, as on a full disk."""
    trouble.start()
    for system, direction in itertools.product(("crm", "erp"), ("source", "target")):
        trouble.wait_lane(system, direction, "running")
    assert trouble.daemon is not None
    log = trouble.field.directory / "hub.sqlite-wal"
    _, most = resource.prlimit(trouble.daemon.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(trouble.daemon.pid, resource.RLIMIT_FSIZE, (log.stat().st_size, most))
    sql = "insert into customers (id, company_name, phone) select 'full' || n, repeat('x', 150), 'full'"
    trouble.run("crm", f"{sql} from generate_series(1, 300) n", rows=300)
    # Whoever writes to the hub first is told first; it is the lane with rows to keep that this is about.
    told = "system=crm direction=source code=hub.full"
    trouble.wait(lambda: told in trouble.log(), "it is told")
    trouble.check_told(trouble.log(), "lane.paused", told, "hub.sqlite", "disk")
    resource.prlimit(trouble.daemon.pid, resource.RLIMIT_FSIZE, (most, most))
    full = "select count(*) from client where tel = 'full'"
    trouble.wait(lambda: trouble.ask("erp", full) == [(300,)], "everything arrives")
    assert trouble.stop() == 0
    keep(trouble)


def test_a_second_daemon_of_one_hub_ends_and_the_first_goes_on(trouble: Trouble) -> None:
    trouble.start()
    trouble.wait_lane("erp", "target", "running")
    assert trouble.daemon is not None
    second = trouble.concord("run", code=ANOTHER_DAEMON)
    trouble.check_told(second.stderr, "another daemon", "hub.sqlite", str(trouble.daemon.pid), "next:", "stop it")
    trouble.run("crm", "insert into customers (id, company_name, phone) values ('late', 'Late', 'late')")
    trouble.wait_row("erp", "select 1 from client where tel = 'late'")
    assert trouble.stop() == 0
    keep(trouble)


def test_a_second_hub_for_the_same_target_halts_before_it_writes(trouble: Trouble) -> None:
    before = seen(trouble)
    trouble.field.configure("other.sqlite")
    try:
        ended = trouble.concord("run", "--once", "--log-level", "warning", code=8)
    finally:
        trouble.field.configure()
        (trouble.field.directory / "other.sqlite").unlink()
    trouble.check_told(ended.stderr, "halted", "erp", "another hub", "next:")
    assert seen(trouble) == before


def test_a_copy_of_a_hub_with_a_daemon_of_its_own_fences_the_first(trouble: Trouble) -> None:
    """A backup is taken and started by mistake: the later daemon has claimed the targets, and the earlier one stops
    before it writes there again. It captures nothing more either; the later one is stopped, and all goes on."""
    claimed = "select epoch from concord.marker"
    ((before,),) = trouble.ask("erp", claimed)
    trouble.start()
    trouble.wait(lambda: trouble.ask("erp", f"{claimed} where epoch > ?", before), "the first claims erp")
    ((epoch,),) = trouble.ask("erp", claimed)
    shutil.copy(hub_of(trouble), trouble.field.directory / "copy.sqlite")
    trouble.field.configure("copy.sqlite")
    try:
        later = trouble.field.start_daemon()
        trouble.wait(lambda: trouble.ask("erp", f"{claimed} where epoch > ?", epoch), "the later claims erp")
        trouble.run("crm", "update customers set city = 'Oak' where id = 'c2'")
        assert trouble.wait_exit() == ANOTHER_DAEMON
        trouble.check_told(trouble.log(), "system erp", "code=fenced", "another daemon", "stop it and start this one")
        later.terminate()
        later.wait()
    finally:
        trouble.field.configure()
    trouble.concord("run", "--once", "--log-level", "warning")
    trouble.wait_row("erp", "select 1 from client where addr_city = 'Oak'")
    keep(trouble)
