"""Reads concord.toml: every problem at once, each with file, line and path; secrets are named here, never read."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, cast, get_args

import msgspec

from crosswalk.dictionary import shipped_dictionaries
from crosswalk.mapping import shipped_mappings
from crosswalk.problems import Problems, convert_form, describe, near, read_toml
from crosswalk.workflow import shipped_workflows
from engine.config.model import Config, HubConfig, Mode, SystemConfig, SystemForm
from engine.errors import ConfigError, PluginError
from engine.plugin import Plugin, Site, load_plugin
from engine.ports import Role
from engine.promises import Promise
from engine.secret import Secret

NAME = re.compile(r"[a-z][a-z0-9_]*")
SYSTEMS_MAX = 62
WAIVED = (Promise.COMMIT_TIMES,)
"""Promises that a configuration may do without though it needs them."""
DEFAULT_FILE = "concord.toml"


class _Document(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    dictionary: str = "service"
    workflows: str | None = None
    owners: Any = {}
    hub: Any = {}
    systems: Any = {}


def load_config(file: Path) -> Config:
    """The configuration. Raises `ConfigError` with every problem found."""
    if not file.exists():
        raise ConfigError(
            f"there is no {file}",
            hint="Run `concord demo` for a working example, or name your file with --config.",
            file=str(file),
        )
    raw, problems = read_toml(file, "configuration")
    document = convert_form(raw, _Document, (), problems)
    if document is None:
        # Unknown keys at the top do not keep the rest from being looked at.
        document = _Document(hub=raw.get("hub", {}), systems=raw.get("systems", {}), owners=raw.get("owners", {}))
    hub = convert_form(document.hub, HubConfig, ("hub",), problems) or HubConfig()
    directory = file.resolve().parent
    dictionary = _dictionary(document.dictionary, directory, problems)
    owners = _owners(document.owners, problems)
    workflows = None if document.workflows is None else _workflows(document.workflows, directory, problems)
    systems = _systems(document.systems, directory, directory / hub.path, problems)
    problems.raise_if_any("configuration")
    return Config(
        file=file.resolve(),
        hub=directory / hub.path,
        retention_days=hub.retention_days,
        dictionary=dictionary,
        workflows=workflows,
        owners=owners,
        systems=tuple(systems),
    )


def _dictionary(named: str, directory: Path, problems: Problems) -> str | Path:
    """The name of a shipped one, or a file."""
    if named.endswith(".toml"):
        _expect_file(directory / named, ("dictionary",), problems)
        return directory / named
    shipped = shipped_dictionaries()
    if named not in shipped:
        problems.add(
            ("dictionary",), f"no dictionary {named!r} is shipped{near(named, shipped)}; a file of yours ends in .toml"
        )
    return named


def _workflows(named: str, directory: Path, problems: Problems) -> str | Path:
    """The name of shipped ones, or a file."""
    shipped = shipped_workflows()
    if named in shipped:
        return named
    if not named.endswith(".toml"):
        problems.add(
            ("workflows",), f"no workflows {named!r} are shipped{near(named, shipped)}; a file of yours ends in .toml"
        )
    else:
        _expect_file(directory / named, ("workflows",), problems)
    return directory / named


def _mapping(named: str, directory: Path, path: tuple[str, ...], problems: Problems) -> str | Path:
    """The name of a shipped one, or a file."""
    shipped = shipped_mappings()
    if named in shipped:
        return named
    if not named.endswith(".toml"):
        problems.add(
            (*path, "mapping"), f"no mapping {named!r} is shipped{near(named, shipped)}; a file of yours ends in .toml"
        )
    else:
        _expect_file(directory / named, (*path, "mapping"), problems)
    return directory / named


def _owners(raw: object, problems: Problems) -> dict[str, str | dict[str, str]]:
    """Whether there are such entities and fields is for the dictionary to say."""
    found: dict[str, str | dict[str, str]] = {}
    if not isinstance(raw, dict):
        problems.add(("owners",), f"a table is wanted here, not {describe(raw)}")
        return found
    for entity, given in cast(dict[str, object], raw).items():
        fields = cast(dict[str, object], given) if isinstance(given, dict) else {"": given}
        wrong = [name for name, role in fields.items() if not isinstance(role, str)]
        for name in wrong:
            path = ("owners", entity, name) if name else ("owners", entity)
            problems.add(path, f'a role is wanted here, as "crm", or "" for nobody, not {describe(fields[name])}')
        if not wrong:
            found[entity] = cast("str | dict[str, str]", given)
    return found


def _expect_file(file: Path, path: tuple[str, ...], problems: Problems) -> None:
    if not os.path.isfile(file):
        problems.add(path, f"there is no file {file}")


def _systems(raw: object, directory: Path, hub: Path, problems: Problems) -> list[SystemConfig]:
    if not isinstance(raw, dict) or not raw:
        problems.add(("systems",), 'no system is configured; add a table [systems.crm] with plugin = "postgres" or so')
        return []
    given = cast(dict[str, object], raw)
    if len(given) > SYSTEMS_MAX:
        problems.add(("systems",), f"{len(given)} systems are configured, {SYSTEMS_MAX} at most can take part")
    found = [_system(name, table, directory, hub, problems) for name, table in given.items()]
    systems = [system for system in found if system is not None]
    _expect_databases_of_their_own(systems, problems)
    return systems


def _expect_databases_of_their_own(systems: list[SystemConfig], problems: Problems) -> None:
    """Two systems in one database would take each other's marker for their own."""
    known: dict[tuple[str, str], str] = {}
    for system in systems:
        if system.plugin.address is None:
            continue
        address = (system.plugin.kind, system.plugin.address(system.site, system.options))
        first = known.setdefault(address, system.name)
        if first != system.name:
            problems.add(
                ("systems", system.name),
                f"it is the database of system {first}; a database is one system, with all its tables in one mapping",
            )


def _system(name: str, raw: object, directory: Path, hub: Path, problems: Problems) -> SystemConfig | None:
    path = ("systems", name)
    if not NAME.fullmatch(name):
        problems.add(path, "a system's name is lower-case letters, digits and _, and begins with a letter")
    if not isinstance(raw, dict):
        problems.add(path, f"a table is wanted here, not {describe(raw)}")
        return None
    table = cast(dict[str, object], raw)
    own = {field.name for field in msgspec.structs.fields(SystemForm)}
    plugin = _plugin(table.get("plugin"), path, problems)
    known = {field.encode_name for field in msgspec.structs.fields(plugin.config)} if plugin else set[str]()
    secrets = (
        {field.encode_name for field in msgspec.structs.fields(plugin.config) if _is_secret(field)} if plugin else ()
    )
    ours = {key: value for key, value in table.items() if key in own}
    form = convert_form(ours, SystemForm, path, problems)
    mapping = directory if form is None else _mapping(form.mapping, directory, path, problems)
    theirs = {key: value for key, value in table.items() if key not in own}
    options = None
    if plugin is not None:
        for key in [key for key in theirs if key not in known]:
            problems.add((*path, key), f"unknown key {key!r}{near(key, own | known)}")
            del theirs[key]
        for key in [key for key, value in theirs.items() if key in secrets and not isinstance(value, dict)]:
            problems.add((*path, key), 'a secret is named, never written down: { env = "NAME" } or { file = "path" }')
            del theirs[key]
        options = convert_form(theirs, plugin.config, path, problems)
    if form is None or plugin is None or options is None:
        return None
    able = plugin.roles_for(options)
    what = f"plugin {plugin.kind}" if plugin.roles is None else f"a system of plugin {plugin.kind} with these settings"
    if form.mode.is_source and Role.SOURCE not in able:
        problems.add((*path, "mode"), f'{what} cannot be read from; say mode = "receive"')
    if form.mode.is_target and Role.TARGET not in able:
        problems.add((*path, "mode"), f'{what} cannot be written to; say mode = "send"')
    if form.mode is Mode.LIVE and able == Role.SOURCE | Role.TARGET:
        word = plugin.promises_for(options)[Promise.OWN_WRITES]
        if not word.is_kept:
            problems.add(
                (*path, "mode"),
                f"plugin {plugin.kind} cannot tell our own writes from changes of users ({word.note}), so they would go"
                ' round for ever; say mode = "send" or "receive"',
            )
    for promise in form.without:
        if promise not in WAIVED:
            known = ", ".join(f'"{waived.value}"' for waived in WAIVED)
            problems.add((*path, "without"), f"nobody can do without {promise.value!r}, only without {known}")
    return SystemConfig(
        name=name,
        plugin=plugin,
        mapping=mapping,
        mode=form.mode,
        role=form.role or name,
        options=options,
        without=form.without,
        settings=form.settings,
        site=Site(name=name, directory=directory, work_directory=hub.with_name(hub.name + ".work") / name),
    )


def _is_secret(field: msgspec.structs.FieldInfo) -> bool:
    return field.type is Secret or Secret in get_args(field.type)


def _plugin(kind: object, path: tuple[str, ...], problems: Problems) -> Plugin[Any] | None:
    if not isinstance(kind, str):
        return None
    try:
        return load_plugin(kind)
    except PluginError as error:
        problems.add((*path, "plugin"), str(error))
        return None
