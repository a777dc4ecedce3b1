"""Goal: a configuration that needs a promise which its plugin does not keep is refused before a row moves, with file,
line, path and what to do; one that does not need it is taken.

Method: the files of a CRM with a log and an ERP that is polled, changed one thing at a time; plugins that say less.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from engine.assemble import load_meaning
from engine.config.load import load_config
from engine.errors import ConfigError
from engine.plugin import load_plugin
from engine.promises import Promise, not_kept
from tests.cli.support import concord, execute

POLLED = """
plugin = "polling"
driver = "sqlite3"
dialect = "sqlite"
connect = { database = "%s" }
"""
DICTIONARY = """
[entities.customer.fields]
name = { type = "text" }
phone = { type = "text" }
number = { type = "text", owner = "erp" }
stock = { type = "integer", policy = "sum" }
note = { type = "text", policy = "manual" }
"""
FIELDS = ("name", "phone", "number", "stock", "note")
MAPPING = """
[[table]]
name = "customers"
entity = "customer"
key = ["id"]
allocate = "assigned"
[table.fields]
"""
NO_TIME = "does not know when a change of customers was made"


def write(
    folder: Path,
    *,
    crm: Sequence[str] = FIELDS,
    erp: Sequence[str] = FIELDS,
    crm_more: str = "",
    erp_more: str = "",
    dictionary: str = DICTIONARY,
) -> None:
    polled = POLLED % (folder / "erp.db")
    (folder / "concord.toml").write_text(
        f'dictionary = "dictionary.toml"\n[systems.crm]\nplugin = "sqlite"\nmapping = "crm.toml"\npath = "crm.db"\n'
        f'{crm_more}\n[systems.erp]\nmapping = "erp.toml"{polled}{erp_more}\n'
    )
    (folder / "dictionary.toml").write_text(dictionary)
    for name, fields in (("crm", crm), ("erp", erp)):
        (folder / f"{name}.toml").write_text(MAPPING + "".join(map(_mapped, fields)))


def _mapped(field: str) -> str:
    return 'gone = { column = "gone", soft_delete = true }\n' if field == "gone" else f'{field} = "{field}"\n'


def problems(folder: Path) -> tuple[str, ...]:
    try:
        load_meaning(load_config(folder / "concord.toml"))
    except ConfigError as error:
        return error.problems
    return ()


def test_a_field_that_the_later_one_wins_needs_the_time_of_each_change(tmp_path: Path) -> None:
    write(tmp_path)
    (problem,) = problems(tmp_path)
    assert problem.startswith(f"{tmp_path / 'erp.toml'}:2: table[0]: ")
    for part in ("customer.name, customer.phone here and in crm", NO_TIME, 'without = ["commit times"]', "owner"):
        assert part in problem
    for field in ("number", "stock", "note", "alive"):
        assert f"customer.{field}" not in problem


@pytest.mark.parametrize(
    "files",
    [
        {"erp_more": 'without = ["commit times"]'},
        {"erp_more": 'mode = "receive"'},
        {"erp_more": 'tables.customers = { updated_at = "changed" }'},
        {"crm_more": 'mode = "receive"'},
        {"crm": ("number", "stock", "note")},
        {"erp": ("number", "stock", "note")},
        # When a row was marked as deleted no table says either.
        {"crm": ("number", "gone"), "erp": ("number", "gone")},
        {"dictionary": DICTIONARY.replace('type = "text" }', 'type = "text", owner = "crm" }')},
    ],
    ids=str,
)
def test_what_does_not_need_it_is_taken(tmp_path: Path, files: dict[str, str]) -> None:
    write(tmp_path, **files)
    assert problems(tmp_path) == ()


def test_a_column_without_a_zone_is_found_where_it_is_seen(tmp_path: Path) -> None:
    write(tmp_path, erp_more='tables.customers = { updated_at = "changed" }')
    for name in ("crm", "erp"):
        columns = "name text, phone text, number text, stock integer, note text, changed text"
        execute(tmp_path / f"{name}.db", f"create table customers (id integer primary key, {columns})")
    assert concord(tmp_path, "setup").exit_code == 0
    result = concord(tmp_path, "check")
    assert result.exit_code == 3
    assert "erp: problem: customers: of concurrent changes of customer.name, customer.phone" in result.stdout
    assert "changed has no zone" in result.stdout
    (tmp_path / "concord.toml").write_text((tmp_path / "concord.toml").read_text() + 'without = ["commit times"]\n')
    assert concord(tmp_path, "check").exit_code == 0


def test_nobody_does_without_what_would_be_wrong(tmp_path: Path) -> None:
    write(tmp_path, crm_more='without = ["own writes", "order"]')
    found = problems(tmp_path)
    assert len(found) == 2
    for problem, name in zip(found, ("own writes", "order"), strict=True):
        assert f"{tmp_path / 'concord.toml'}:6: systems.crm.without: nobody can do without '{name}'" in problem
    write(tmp_path, crm_more='without = ["comit times"]')
    (problem,) = problems(tmp_path)
    assert "systems.crm.without" in problem


@pytest.fixture
def less(monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite, if it kept less."""
    said = load_plugin("sqlite").promises
    assert isinstance(said, dict)
    monkeypatch.setitem(said, Promise.OWN_WRITES, not_kept("it has no marker"))
    monkeypatch.setitem(said, Promise.ASSIGNED_KEYS, not_kept("it is a feed"))


@pytest.mark.usefixtures("less")
def test_writing_to_what_is_read_needs_our_writes_told_apart(tmp_path: Path) -> None:
    write(tmp_path, erp_more='without = ["commit times"]')
    (problem,) = problems(tmp_path)
    assert f"{tmp_path / 'concord.toml'}:2: systems.crm" in problem
    assert "cannot tell our own writes" in problem
    assert "it has no marker" in problem
    write(tmp_path, crm_more='mode = "send"', erp_more='without = ["commit times"]')
    assert problems(tmp_path) == ()


@pytest.mark.usefixtures("less")
def test_keys_that_the_database_hands_out_need_a_plugin_that_learns_them(tmp_path: Path) -> None:
    write(tmp_path, crm_more='mode = "receive"')
    (problem,) = problems(tmp_path)
    assert problem.startswith(f"{tmp_path / 'crm.toml'}:2: table[0]: ")
    assert "it is a feed" in problem
