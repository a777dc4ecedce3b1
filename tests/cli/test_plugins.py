"""Goal: whoever has a database learns from the commands alone which plugin is for it, and what it wants and promises.

Method: what is printed, held against what the plugins say of themselves.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from engine.cli import app
from engine.commands.output import Exit
from engine.plugin import installed_plugins, load_plugin
from engine.promises import Promise

KINDS = sorted(installed_plugins())


def run(*words: str) -> str:
    result = CliRunner().invoke(app, ["plugins", *words])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_list_has_every_kind_with_its_package() -> None:
    lines = run("list").splitlines()
    assert [line.split()[0] for line in lines[2:]] == KINDS
    for line, kind in zip(lines[2:], KINDS, strict=True):
        assert load_plugin(kind).summary in line
        assert "concord-cdc" in line


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_shown_of_a_kind_is_all_that_it_says(kind: str) -> None:
    plugin, text = load_plugin(kind), run("show", kind)
    fields = msgspec.structs.fields(plugin.config)
    assert {field.encode_name for field in fields} == set(plugin.settings), "each setting has a meaning"
    # A setting may have the name of a promise; settings come first.
    rows: dict[str, list[str]] = {}
    for line in text.splitlines():
        rows.setdefault(line.split("  ")[0], []).append(line)
    for field in fields:
        assert plugin.settings[field.encode_name] in rows[field.encode_name][0]
        assert ("needed" in rows[field.encode_name][0]) is field.required
    for promise, word in plugin.promises.items():
        assert f" {'yes' if word.is_kept else 'no'} " in rows[promise.value][-1]
        assert (word.note or promise.meaning) in rows[promise.value][-1]
    for line in (*plugin.makes, *plugin.rights):
        assert f"  {line}" in text
    page = Path(text.rpartition("Its chapter: ")[2].strip())
    assert page.is_file()
    assert page.parent.name == kind


def test_a_default_is_as_the_file_would_spell_it() -> None:
    rows = {line.split()[0]: line.split()[1:] for line in run("show", "mysql").splitlines() if line.strip()}
    assert rows["port"][:3] == ["whole", "number", "3306"]
    assert rows["host"][:2] == ["text", '"localhost"']
    assert rows["password"][:2] == ["secret", "none"]


def test_a_slip_of_the_pen_is_told() -> None:
    result = CliRunner().invoke(app, ["plugins", "show", "postgre"])
    assert result.exit_code == Exit.NOT_FOUND
    assert "Did you mean 'postgres'?" in result.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_each_promise_has_a_word(kind: str) -> None:
    promises = load_plugin(kind).promises
    assert set(promises) == set(Promise)
    assert [p for p, word in promises.items() if not word.is_kept and not word.note] == [], "why not?"
