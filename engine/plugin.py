"""What a plugin publishes, and how one is found.

A plugin is a value, not a base class. It is found by the entry point group `concord.plugins`; nothing in the engine or
the crosswalk names one.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Generic, TypeVar

from engine.errors import PluginError
from engine.model.table import Shape
from engine.ports import Role, Source, System, Target
from engine.promises import Promise, Promises

API_VERSION = 1
GROUP = "concord.plugins"
Config = TypeVar("Config")


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Where a system stands: its name in concord.toml, the folder that relative paths start from, and a folder of its
    own for spill files, which may be emptied whenever no daemon runs."""

    name: str
    directory: Path
    work_directory: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin(Generic[Config]):
    """A kind of system the engine can talk to.

    `config` is a msgspec struct (forbid_unknown_fields) for the `[systems.NAME]` table of concord.toml, less the keys
    that belong to the engine (`plugin`, `mapping`, `mode`, ...). `dialect` is sqlglot's name for the SQL of expressions
    in mappings. `system` gives what every kind has: catalogue, set-up, snapshot reads. `source` or `target` is None
    when the kind cannot play that part. `address` spells which database it is; two systems of one address
    are refused, for a database has one marker. Where configurations of one kind differ: `dialect_of` gives the dialect
    of one, `roles` the parts that it can play.

    `promises` has a word for each `Promise`; `terms` gives those that are other ones for a table of a system that is
    configured so (table "": for the system as a whole), as far as they can be told before the table has been seen
    (shape None). For people, by `concord plugins show`: `settings` says what each key of `config` means, `makes` what
    set-up puts into a system, `rights` what Concord's user needs there.
    """

    kind: str
    summary: str
    dialect: str
    config: type[Config]
    system: Callable[[Site, Config], System]
    source: Callable[[Site, Config], Source] | None = None
    target: Callable[[Site, Config], Target] | None = None
    address: Callable[[Site, Config], str] | None = None
    dialect_of: Callable[[Config], str] | None = None
    roles: Callable[[Config], Role] | None = None
    promises: Promises
    terms: Callable[[Config, str, Shape | None], Promises] | None = None
    settings: Mapping[str, str]
    makes: tuple[str, ...]
    rights: tuple[str, ...]
    api_version: int = API_VERSION

    def dialect_for(self, config: Config) -> str:
        """sqlglot's name for the SQL of expressions in the mapping of a system that is configured so."""
        return self.dialect if self.dialect_of is None else self.dialect_of(config)

    def roles_for(self, config: Config) -> Role:
        """The parts that a system which is configured so can play."""
        able = Role(0) if self.source is None else Role.SOURCE
        able = able if self.target is None else able | Role.TARGET
        return able if self.roles is None else able & self.roles(config)

    def promises_for(self, config: Config, table: str = "", shape: Shape | None = None) -> Promises:
        """What holds for a table of a system that is configured so."""
        return self.promises if self.terms is None else {**self.promises, **self.terms(config, table, shape)}


def installed_plugins() -> dict[str, Any]:
    """Kind → entry point, nothing imported."""
    return {point.name: point for point in entry_points(group=GROUP)}


def load_plugin(kind: str) -> Plugin[Any]:
    """Import the plugin installed under `kind`; import no other.

    Raises `PluginError` when none is installed, when it fails to import (the cause is kept), or when it was built
    for another `API_VERSION`.
    """
    installed = installed_plugins()
    point = installed.get(kind)
    if point is None:
        near = difflib.get_close_matches(kind, installed, n=1)
        listed = ", ".join(sorted(installed)) or "none"
        raise PluginError(
            f"no plugin of kind {kind!r} is installed",
            hint=f"Did you mean {near[0]!r}?" if near else f"Installed: {listed}.",
        )
    try:
        plugin: object = point.load()
    except ImportError as error:
        raise PluginError(f"plugin {kind!r} ({point.value}) cannot be imported: {error}") from error
    if not isinstance(plugin, Plugin):
        raise PluginError(f"plugin {kind!r} ({point.value}) is not a Plugin value")
    if plugin.api_version != API_VERSION:
        raise PluginError(
            f"plugin {kind!r} was built for plugin API {plugin.api_version}; this engine has {API_VERSION}",
            hint="Install a matching version of the plugin.",
        )
    silent = [promise.value for promise in Promise if promise not in plugin.promises]
    if silent:
        raise PluginError(
            f"plugin {kind!r} does not say whether it keeps: {', '.join(silent)}",
            hint="Its author makes `promises` with `engine.promises.promises`.",
        )
    return plugin  # pyright: ignore[reportUnknownVariableType]
