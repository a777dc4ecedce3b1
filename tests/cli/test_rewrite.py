"""Goal: what `concord compare` finds is made to agree by the command that it names; a deletion of the system's own
users that is on its way wins over that.

Method: changes that stand in no log, as after a restore or with triggers off; a daemon whose lanes run one after the
other, so that the writing comes before the deletion is read, and after it.
"""

from __future__ import annotations

import dataclasses
import io
import json
import sqlite3
import time
from pathlib import Path
from typing import Any

import anyio
import pytest

from engine.assemble import open_daemon
from engine.config.load import load_config
from engine.daemon import Daemon
from engine.telemetry.log import Log
from tests.cli.support import concord, daemon, execute
from tests.daemons import Running


def unseen(folder: Path, sql: str) -> None:
    """A change of the ERP that its log does not have."""
    erp = sqlite3.connect(folder / "erp.db", isolation_level=None)
    erp.execute("begin immediate")
    triggers = erp.execute("select name, sql from sqlite_schema where type = 'trigger'").fetchall()
    for name, _ in triggers:
        erp.execute(f'drop trigger "{name}"')
    erp.execute(sql)
    for _, trigger in triggers:
        erp.execute(trigger)
    erp.execute("commit")
    erp.close()


def debtors(folder: Path) -> list[tuple[Any, ...]]:
    erp = sqlite3.connect(folder / "erp.db")
    rows = erp.execute("select no, name1 from debtors order by no").fetchall()
    erp.close()
    return rows


def customers(folder: Path) -> list[str]:
    crm = sqlite3.connect(folder / "crm.db")
    names = [name for (name,) in crm.execute("select name from customers order by id")]
    crm.close()
    return names


def settle(folder: Path) -> None:
    assert daemon(folder, "--once").wait(60) == 0


@pytest.mark.parametrize(
    ("damage", "missing"),
    [
        ("update debtors set name1 = 'other'", []),
        ("update debtors set name1 = null", []),
        ("delete from debtors", ["--missing"]),
    ],
)
def test_a_difference_is_mended_by_the_command_that_compare_names(
    agreed: Path, damage: str, missing: list[str]
) -> None:
    before = debtors(agreed)
    unseen(agreed, damage)
    settle(agreed)
    found = concord(agreed, "compare")
    assert found.exit_code == 3
    assert "1 difference\n" in found.stdout
    command = ["rewrite", "1", "--system", "erp", *missing]
    assert f"concord {' '.join(command)}: " in found.stdout
    told = concord(agreed, *command)
    assert (told.exit_code, "no daemon runs" in told.stdout) == (0, True)
    settle(agreed)
    assert debtors(agreed) == before
    assert "all systems agree" in concord(agreed, "compare").stdout


def test_a_row_of_a_deleted_record_goes(agreed: Path) -> None:
    ((key, _),) = debtors(agreed)
    execute(agreed / "crm.db", "delete from customers")
    settle(agreed)
    assert debtors(agreed) == []
    unseen(agreed, f"insert into debtors (no, name1) values ('{key}', 'acme')")
    found = concord(agreed, "compare")
    assert (found.exit_code, "deleted" in found.stdout) == (3, True)
    assert concord(agreed, "rewrite", "1", "--system", "erp").exit_code == 0
    settle(agreed)
    assert debtors(agreed) == []
    assert concord(agreed, "compare").exit_code == 0


def test_beside_the_daemon(agreed: Path, running: Running) -> None:
    before = debtors(agreed)
    unseen(agreed, "update debtors set name1 = 'other'")
    told = json.loads(concord(agreed, "rewrite", "crm:customers:1", "--system", "erp", "--json").stdout)
    assert told == {"v": 1, "answer": "record 1 is written to erp again, whole, as it is now", "daemon": running.pid}
    deadline = time.monotonic() + 60
    while debtors(agreed) != before:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_all_missing_rows_are_made_again(agreed: Path) -> None:
    execute(agreed / "crm.db", "insert into customers (name) values ('bravo'), ('cedar')")
    settle(agreed)
    execute(agreed / "erp.db", "update debtors set name1 = 'bravo & sons' where name1 = 'bravo'")
    settle(agreed)
    before = debtors(agreed)
    command = ["rewrite", "--system", "erp", "--missing"]
    assert "no row is missing at erp" in concord(agreed, *command).stdout
    unseen(agreed, "delete from debtors where name1 != 'cedar'")
    unasked = concord(agreed, *command)
    assert (unasked.exit_code, "make 2 rows again at erp?" in unasked.stderr) == (130, True)
    told = concord(agreed, *command, "--yes")
    assert (told.exit_code, "2 rows are made again at erp" in told.stdout) == (0, True)
    settle(agreed)
    assert debtors(agreed) == before
    assert concord(agreed, "compare").exit_code == 0


def test_without_a_record_it_is_about_missing_rows_only(agreed: Path) -> None:
    refused = concord(agreed, "rewrite", "--system", "erp")
    assert (refused.exit_code, "--missing" in refused.stderr) == (2, True)
    (agreed / "concord.toml").write_text(
        (agreed / "concord.toml").read_text().replace("[systems.erp]", '[systems.erp]\nmode = "send"')
    )
    refused = concord(agreed, "rewrite", "--system", "erp", "--missing")
    assert (refused.exit_code, "only read" in refused.stderr) == (5, True)


def only(folder: Path, *, targets: bool) -> None:
    """The daemon lives once with its targets alone, or with its sources alone."""

    async def life() -> None:
        async with open_daemon(load_config(folder / "concord.toml"), Log(stream=io.StringIO())) as whole:
            members = [dataclasses.replace(m, **{"source" if targets else "target": None}) for m in whole.members]
            part = Daemon(whole.hub, whole.topology, members, whole.log)
            ending = await part.run(until_settled=True, with_signals=False)
            assert not ending.halted

    anyio.run(life)


@pytest.mark.parametrize("missing", [[], ["--missing"]], ids=["updated", "made again"])
@pytest.mark.parametrize("targets_first", [True, False], ids=["written before it is read", "read first"])
def test_a_deletion_that_is_on_its_way_wins(agreed: Path, targets_first: bool, missing: list[str]) -> None:
    execute(agreed / "erp.db", "delete from debtors")
    assert concord(agreed, "rewrite", "1", "--system", "erp", *missing).exit_code == 0
    only(agreed, targets=targets_first)
    assert bool(debtors(agreed)) is (targets_first and bool(missing)), "written, or not yet"
    settle(agreed)
    assert (debtors(agreed), customers(agreed)) == ([], [])
    assert concord(agreed, "compare").exit_code == 0


@pytest.mark.parametrize("targets_first", [True, False], ids=["written before it is read", "read first"])
def test_a_change_that_is_on_its_way_wins(agreed: Path, targets_first: bool) -> None:
    execute(agreed / "erp.db", "update debtors set name1 = 'bravo'")
    assert concord(agreed, "rewrite", "1", "--system", "erp").exit_code == 0
    only(agreed, targets=targets_first)
    settle(agreed)
    assert [name for _, name in debtors(agreed)] == customers(agreed) == ["bravo"]
    assert concord(agreed, "compare").exit_code == 0


def test_a_table_whose_rows_only_its_users_make(folder: Path) -> None:
    """A column that the mapping does not have must be given in every new row."""
    execute(folder / "erp.db", "drop table debtors")
    execute(
        folder / "erp.db",
        "create table debtors (no text primary key not null, name1 text, matchcode text, clerk text not null)",
    )
    (folder / "erp.toml").write_text((folder / "erp.toml").read_text().replace("allocate", "# allocate"))
    assert concord(folder, "setup").exit_code == 0
    execute(folder / "erp.db", "insert into debtors (no, name1, clerk) values ('D1', 'acme', 'x')")
    settle(folder)
    unseen(folder, "update debtors set name1 = 'other'")
    assert concord(folder, "rewrite", "erp:debtors:D1", "--system", "erp").exit_code == 0
    settle(folder)
    assert debtors(folder) == [("D1", "acme")]
    assert concord(folder, "compare").exit_code == 0


@pytest.mark.parametrize(
    ("damage", "kind", "names"),
    [
        ("update debtors set name1 = 'other'", "field", ["other"]),
        ("insert into debtors (no, name1) values ('D99', 'new')", "extra", ["acme", "new"]),
    ],
)
def test_a_backfill_takes_what_stands_there(agreed: Path, damage: str, kind: str, names: list[str]) -> None:
    unseen(agreed, damage)
    found = concord(agreed, "compare")
    assert (found.exit_code, kind in found.stdout) == (3, True)
    assert "concord backfill erp: " in found.stdout
    assert concord(agreed, "backfill", "erp").exit_code == 0
    settle(agreed)
    assert sorted(customers(agreed)) == sorted(name for _, name in debtors(agreed)) == names
    assert concord(agreed, "compare").exit_code == 0


def test_a_backfill_brings_a_deleted_record_back(agreed: Path) -> None:
    ((key, _),) = debtors(agreed)
    execute(agreed / "crm.db", "delete from customers")
    settle(agreed)
    unseen(agreed, f"insert into debtors (no, name1) values ('{key}', 'acme')")
    assert concord(agreed, "backfill", "erp").exit_code == 0
    settle(agreed)
    assert [name for _, name in debtors(agreed)] == customers(agreed) == ["acme"]
    assert concord(agreed, "compare").exit_code == 0
