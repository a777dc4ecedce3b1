"""Goal: the chapters on configuration and commands name everything there is: keys, commands, exit codes, log events.

Method: the names as the code has them, looked for in the pages.
"""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec

from engine.cli import app
from engine.commands.output import Exit
from engine.config.model import HubConfig, Mode, SystemForm
from engine.plugin import installed_plugins, load_plugin
from engine.promises import Promise
from engine.telemetry.log import EVENTS

ROOT = Path(__file__).parents[2]
CONFIG = (ROOT / "engine/config/README.md").read_text()
PLUGINS = (ROOT / "plugins/README.md").read_text()
COMMANDS = (ROOT / "engine/commands/README.md").read_text()


def test_every_key_is_explained() -> None:
    hub = [f"hub.{field.encode_name}" for field in msgspec.structs.fields(HubConfig)]
    system = [f"systems.NAME.{field.encode_name}" for field in msgspec.structs.fields(SystemForm)]
    for key in ("dictionary", "workflows", *hub, *system):
        assert f"| `{key}` |" in CONFIG, key
    for mode in Mode:
        assert f"`{mode.value}`:" in CONFIG, mode


def test_every_key_of_a_plugin_is_explained() -> None:
    for kind in installed_plugins():
        page = (ROOT / f"plugins/{kind}/README.md").read_text()
        for field in msgspec.structs.fields(load_plugin(kind).config):
            assert field.encode_name in page, (kind, field.encode_name)


def test_the_table_of_promises_is_what_the_plugins_say() -> None:
    kinds = sorted(installed_plugins())
    lines = [f"| promise | {' | '.join(kinds)} |", "|---" * (len(kinds) + 1) + "|"]
    for promise in Promise:
        words = [load_plugin(kind).promises[promise] for kind in kinds]
        cells = [f"{'✓' if word.is_kept else '–'} {word.note}".rstrip() for word in words]
        lines.append(f"| **{promise.value}**: {promise.meaning} | {' | '.join(cells)} |")
    table = "\n".join(lines)
    assert f"\n{table}\n\n" in PLUGINS, f"put this into plugins/README.md:\n{table}"


def test_every_command_is_named() -> None:
    names = [one.name for one in (*app.registered_commands, *app.registered_groups)]
    assert len(names) > 10
    for name in names:
        assert f"`concord {name}" in COMMANDS, name


def test_every_exit_code_is_explained() -> None:
    for code in Exit:
        assert f"\n| {code.value} | " in COMMANDS, code


def test_every_log_event_is_listed_with_its_level_and_meaning() -> None:
    for name, (level, meaning) in EVENTS.items():
        assert f"| `{name}` | {logging.getLevelName(level).lower()}: {meaning} |" in COMMANDS, name
