"""concord.toml as typed values."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated, Any

import msgspec

from engine.plugin import Plugin, Site
from engine.promises import Promise


class Mode(enum.Enum):
    """What a system does, for a roll-out in phases."""

    LIVE = "live"
    """Its changes go out and others' come in."""
    SEND = "send"
    """Its changes go out; nothing is written to it."""
    RECEIVE = "receive"
    """It is written to; its changes are not read."""

    @property
    def is_source(self) -> bool:
        return self is not Mode.RECEIVE

    @property
    def is_target(self) -> bool:
        return self is not Mode.SEND


class HubConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[hub]`. `path` is relative to the configuration's folder; `retention_days` is how long history is kept."""

    path: str = "hub.sqlite"
    retention_days: Annotated[float, msgspec.Meta(ge=0)] = 30.0


class SystemForm(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The engine's part of `[systems.NAME]`; every other key belongs to the plugin."""

    plugin: str
    mapping: str
    mode: Mode = Mode.LIVE
    role: str | None = None
    without: tuple[Promise, ...] = ()
    settings: dict[str, str | int | bool] = {}


class SystemConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One system. `role` is whose part it plays in the dictionary's owners; `options` is the plugin's own struct;
    `without` are promises that its plugin need not keep; `mapping` is the name of a shipped one, or a file, and
    `settings` what it leaves open."""

    name: str
    plugin: Plugin[Any]
    mapping: str | Path
    mode: Mode
    role: str
    options: Any
    site: Site
    without: tuple[Promise, ...] = ()
    settings: dict[str, str | int | bool] = {}

    @property
    def dialect(self) -> str:
        """Whose SQL the expressions of its mapping are."""
        return self.plugin.dialect_for(self.options)


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """All of it. The order of `systems` is their rank: on a tie of commit times the later one wins."""

    file: Path
    hub: Path
    retention_days: float
    dictionary: str | Path
    workflows: str | Path | None
    """Shipped ones by name, or a file."""
    owners: dict[str, str | dict[str, str]]
    """Other owners than the dictionary's: entity → role, or entity → field → role."""
    systems: tuple[SystemConfig, ...]

    @property
    def directory(self) -> Path:
        return self.file.parent

    def system(self, name: str) -> SystemConfig | None:
        return next((system for system in self.systems if system.name == name), None)
