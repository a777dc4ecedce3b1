"""Goal: the demo touches no folder that is not its own, and its seed is the same everywhere.

Method: folders of every sort, whose contents are compared before and after; the seed made twice, in two processes with
different hash seeds, and checked against what the schemas and the phone ranges allow.
"""

from __future__ import annotations

import hashlib
import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from engine.demo import folder
from engine.demo.database import SYSTEMS, Business
from engine.demo.seed import make_seed
from engine.errors import ConfigError
from engine.hub.sqlite import hub_lock

PHONE = re.compile(r"(01632 960|07700 900)\d{3}")


def made_in(directory: Path) -> dict[str, Business]:
    return {
        system: Business(system=system, kind="sqlite", address=str(directory / f"{system}.sqlite"))
        for system in SYSTEMS
    }


def test_a_foreign_folder_is_refused_and_untouched_even_with_replace(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    for replace in (False, True):
        with pytest.raises(ConfigError, match="was not made by"):
            folder.prepare(tmp_path, replace=replace)
    assert [entry.name for entry in tmp_path.iterdir()] == ["letter.txt"]


def test_an_earlier_demo_is_replaced_only_when_told_to(tmp_path: Path) -> None:
    folder.prepare(tmp_path, replace=False)
    (tmp_path / "hub.sqlite").write_text("old")
    with pytest.raises(ConfigError, match="earlier demo") as refused:
        folder.prepare(tmp_path, replace=False)
    assert "--replace" in refused.value.hint
    folder.prepare(tmp_path, replace=True)
    assert [entry.name for entry in tmp_path.iterdir()] == [folder.MARK]


def test_a_demo_whose_daemon_runs_is_not_replaced(tmp_path: Path) -> None:
    folder.prepare(tmp_path, replace=False)
    with hub_lock(tmp_path / "hub.sqlite"), pytest.raises(ConfigError, match="a daemon runs"):
        folder.prepare(tmp_path, replace=True)


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "demo").write_text("x")
    with pytest.raises(ConfigError, match="is no folder"):
        folder.prepare(tmp_path / "demo", replace=True)


def test_only_a_folder_with_a_server_is_served(tmp_path: Path) -> None:
    folder.prepare(tmp_path, replace=False)
    with pytest.raises(ConfigError, match="no folder of `concord demo --postgres`"):
        folder.require_served(tmp_path)


def test_the_refusal_comes_as_an_exit_code_with_the_next_step(tmp_path: Path) -> None:
    (tmp_path / "concord-demo").mkdir()
    (tmp_path / "concord-demo" / "mine").write_text("x")
    done = subprocess.run(
        [sys.executable, "-m", "engine.cli", "demo", "--fast"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 78
    assert "next:  Choose another with --directory" in done.stderr


def test_the_seed_does_not_depend_on_the_process(tmp_path: Path) -> None:
    code = "from engine.demo.seed import make_seed; print(repr(make_seed().rows))"
    texts = {
        hashlib.sha256(
            subprocess.run(
                [sys.executable, "-c", code], capture_output=True, check=True, env={**os.environ, "PYTHONHASHSEED": n}
            ).stdout
        ).hexdigest()
        for n in ("1", "2")
    }
    assert len(texts) == 1
    assert make_seed(1).rows != make_seed(2).rows


def test_the_seed_fits_the_schemas_and_their_references(tmp_path: Path) -> None:
    businesses = made_in(tmp_path)
    folder.fill_systems(businesses, make_seed())
    for business in businesses.values():
        connection = sqlite3.connect(business.address)
        try:
            assert connection.execute("pragma foreign_key_check").fetchall() == []
        finally:
            connection.close()


@pytest.mark.parametrize(("system", "table", "columns"), [
    ("crm", "companies", ("phone",)), ("crm", "people", ("phone_work", "phone_mobile")), ("fsm", "client", ("phone",)),
    ("fsm", "person", ("phone", "mobile")), ("erp", "customer", ("tel",)),
])  # fmt: skip
def test_every_telephone_number_is_one_kept_for_fiction(system: str, table: str, columns: tuple[str, ...]) -> None:
    names, rows = make_seed().rows[system][table]
    for column in columns:
        numbers = [row[names.index(column)] for row in rows]
        assert all(number is None or PHONE.fullmatch(str(number)) for number in numbers)


def test_every_mail_address_is_in_a_domain_kept_for_examples() -> None:
    for tables in make_seed().rows.values():
        for _, rows in tables.values():
            mails = [str(value) for row in rows for value in row if isinstance(value, str) and "@" in value]
            assert all(re.search(r"@([a-z0-9-]+\.)*example\.(org|com)$", mail) for mail in mails), mails[:3]
