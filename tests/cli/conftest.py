"""What the tests of commands start from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.test_numbers import CONFIG, CRM, DICTIONARY, ERP
from tests.cli.support import concord, daemon, execute, until_started
from tests.daemons import Running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in (("concord", CONFIG), ("dictionary", DICTIONARY), ("crm", CRM), ("erp", ERP)):
        (tmp_path / f"{name}.toml").write_text(text)
    execute(
        tmp_path / "crm.db", "create table customers (id integer primary key, name text, number text, sort_name text)"
    )
    execute(tmp_path / "erp.db", "create table debtors (no text primary key not null, name1 text, matchcode text)")
    return tmp_path


@pytest.fixture
def agreed(folder: Path) -> Path:
    """Set up and run until one customer of the CRM is in the ERP."""
    assert concord(folder, "setup").exit_code == 0
    execute(folder / "crm.db", "insert into customers (name) values ('acme')")
    done = daemon(folder, "--once")
    assert done.wait(60) == 0
    return folder


@pytest.fixture
def running(agreed: Path) -> Iterator[Running]:
    process = daemon(agreed)
    try:
        until_started(agreed, process)
        yield process
    finally:
        process.kill()
        process.wait()
