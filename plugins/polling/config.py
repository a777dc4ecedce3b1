"""`[systems.NAME]` with plugin = "polling"."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import msgspec

from engine.errors import ConfigError
from engine.model.table import Kind, Shape
from engine.plugin import Site
from engine.promises import Promise, Promises, Word, kept, not_kept
from engine.secret import Secret

_TIME = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")
_SECRETS = ("password", "passwd", "pwd", "secret", "token")
Argument = Secret | str | int | float | bool


class TableOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How one table is looked at; what is not said is as for the system. `key` and `updated_at` are columns; `ignore`
    names columns that are not read at all."""

    every: float | None = None
    at: tuple[str, ...] = ()
    sweep_every: float | None = None
    overlap: float | None = None
    updated_at: str | None = None
    key: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check(self.every, self.at, self.sweep_every, self.overlap)


SETTINGS: Final = {
    "driver": "the module that has PEP 249's connect",
    "dialect": "sqlglot's name for the database's SQL",
    "connect": "arguments of connect, as they stand; secrets are named",
    "every": "seconds between two looks at a table",
    "at": "times of day in UTC instead",
    "sweep_every": "seconds between two comparisons of all rows of a table with an updated-at column",
    "overlap": "seconds that a look goes back behind the last one's newest updated-at",
    "session": "statements for each new connection",
    "snapshot": "statements that begin a transaction whose reads all show one moment, where they are not known",
    "state": "file that remembers the rows; else NAME.looks.sqlite",
    "tables": "by table: every, at, sweep_every, overlap, updated_at, key, ignore",
}
"""What each setting means, for `concord plugins show`."""


class PollingConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`driver`: the module that has PEP 249's `connect`; `connect`: its arguments. `dialect`: sqlglot's name.

    A table is looked at `every` so many seconds, or `at` times of day in UTC ("02:30"). `sweep_every`: seconds between
    comparisons of all rows, which find deletions and what a look missed. `overlap`: seconds that a look at an
    updated-at column goes back behind the last one. `session`: statements for each new connection. `snapshot`: those
    that begin a transaction whose reads show one moment, where the plugin does not know them. `state`: the file that
    remembers the rows, relative to the configuration's folder.
    """

    driver: str
    dialect: str
    connect: dict[str, Argument] = msgspec.field(default_factory=dict[str, Argument])
    every: float = 5.0
    at: tuple[str, ...] = ()
    sweep_every: float = 300.0
    overlap: float = 10.0
    session: tuple[str, ...] = ()
    snapshot: tuple[str, ...] = ()
    state: str | None = None
    tables: dict[str, TableOptions] = msgspec.field(default_factory=dict[str, TableOptions])

    def __post_init__(self) -> None:
        _check(self.every, self.at, self.sweep_every, self.overlap)
        for name, value in self.connect.items():
            if isinstance(value, str) and any(word in name.lower() for word in _SECRETS):
                raise ValueError(
                    f'connect.{name}: a secret is named, never written down: {{ env = "NAME" }} or {{ file = "path" }}'
                )

    def beat(self, table: str) -> tuple[float, tuple[str, ...]]:
        """(seconds between looks, times of day): one of the two holds, the times where there are any."""
        options = self.tables.get(table)
        if options is None or (options.every is None and not options.at):
            return self.every, self.at
        return options.every or self.every, options.at

    def sweep_seconds(self, table: str) -> float:
        options = self.tables.get(table)
        return self.sweep_every if options is None or options.sweep_every is None else options.sweep_every

    def overlap_seconds(self, table: str) -> float:
        options = self.tables.get(table)
        return self.overlap if options is None or options.overlap is None else options.overlap

    def options(self, table: str) -> TableOptions:
        return self.tables.get(table, _PLAIN)


def _check(every: float | None, at: tuple[str, ...], sweep_every: float | None, overlap: float | None) -> None:
    if (every is not None and every <= 0) or (sweep_every is not None and sweep_every <= 0):
        raise ValueError("every and sweep_every are seconds, and more than none")
    if overlap is not None and overlap < 0:
        raise ValueError("overlap is in seconds, and not negative")
    for time in at:
        if not _TIME.fullmatch(time):
            raise ValueError(f'at has times of day in UTC like "02:30", not {time!r}')


def terms(config: PollingConfig, table: str, shape: Shape | None) -> Promises:
    """What this configuration, and the table's columns where they are known, make of the kind's promises."""
    found: dict[Promise, Word] = {}
    updated_at = config.options(table).updated_at
    column = None if updated_at is None or shape is None else shape.column(updated_at)
    if updated_at is not None and (column is None or column.kind is Kind.INSTANT):
        found[Promise.COMMIT_TIMES] = kept(f"that of {updated_at}; a deletion has that of the look")
    elif updated_at is not None:
        found[Promise.COMMIT_TIMES] = not_kept(f"{updated_at} has no zone, so the time of the look counts")
    if len({config.beat(name) for name in ("", *config.tables)}) > 1:
        found[Promise.WHOLE_TRANSACTIONS] = not_kept("its tables are looked at at different times")
    return found


def dialect_of(config: PollingConfig) -> str:
    return config.dialect


def address(site: Site, config: PollingConfig) -> str:
    """The driver with those of its arguments that are no secrets, in one spelling."""
    plain = {name: value for name, value in config.connect.items() if not isinstance(value, Secret)}
    return f"{config.driver} {msgspec.json.encode(plain, order='sorted').decode()}"


def state_path(site: Site, config: PollingConfig) -> Path:
    """The file with what is known of the rows."""
    return site.directory / (config.state or f"{site.name}.looks.sqlite")


def arguments(site: Site, config: PollingConfig) -> dict[str, Any]:
    """What the driver's `connect` is called with. Raises `ConfigError` for a secret that is not there."""
    found: dict[str, Any] = {}
    for name, value in config.connect.items():
        try:
            found[name] = value.reveal(site.directory) if isinstance(value, Secret) else value
        except ConfigError as error:
            raise ConfigError(f"system {site.name}: connect.{name}: {error.message}", hint=error.hint) from error
    return found


_PLAIN = TableOptions()
