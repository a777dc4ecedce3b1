"""The demo's folder: made, refused, replaced; it holds everything, and nothing outside it is touched."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from importlib.resources import as_file, files
from pathlib import Path
from string import Template

from engine.demo import places
from engine.demo.database import SCHEMA, SYSTEMS, Business, fill, make_schema
from engine.demo.seed import Seed
from engine.errors import ConfigError
from engine.hub.sqlite import lock_owner

MARK = ".concord-demo"


def prepare(directory: Path, *, replace: bool) -> None:
    """An empty folder with our mark. Raises `ConfigError` for one that is not ours, or ours without `replace`."""
    if directory.exists():
        if not directory.is_dir():
            raise ConfigError(f"{directory} is there and is no folder", hint="Choose another with --directory.")
        if any(directory.iterdir()):
            if not (directory / MARK).is_file():
                raise ConfigError(
                    f"the folder {directory} is there and was not made by `concord demo`",
                    hint="Choose another with --directory; nothing in it was touched.",
                )
            if not replace:
                raise ConfigError(
                    f"the folder {directory} holds an earlier demo",
                    hint="Add --replace to make it anew, or choose another with --directory.",
                )
            _require_idle(directory)
            for entry in directory.iterdir():
                if entry.name != MARK:
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / MARK).write_text(json.dumps({"made_by": "concord demo"}) + "\n")
    except OSError as error:
        raise ConfigError(
            f"the folder {directory} cannot be made: {error.strerror}", hint="Choose another with --directory."
        ) from error


def require_served(directory: Path) -> None:
    """Raises `ConfigError` unless the folder is a demo's with a PostgreSQL server that does not run."""
    if not (directory / MARK).is_file() or not (directory / places.SERVER / "data" / "PG_VERSION").is_file():
        raise ConfigError(
            f"{directory} is no folder of `concord demo --postgres`", hint="Name the folder that the demo has made."
        )
    _require_idle(directory)


def _require_idle(directory: Path) -> None:
    daemon, server = lock_owner(directory / "hub.sqlite"), places.server_owner(directory)
    if daemon is not None:
        raise ConfigError(f"a daemon runs in {directory}, process {daemon}", hint=f"Stop it first: kill {daemon}.")
    if server is not None:
        raise ConfigError(f"a server runs from {directory}, process {server}", hint=f"Stop it first: kill {server}.")


def write_configuration(directory: Path, businesses: Mapping[str, Business]) -> None:
    """`concord.toml`, the dictionary, and a mapping for each system."""
    lines = ["# Made by `concord demo`.", 'dictionary = "dictionary.toml"', "", "[hub]", 'path = "hub.sqlite"']
    assets = files("engine.demo.assets")
    (directory / "dictionary.toml").write_text((assets / "dictionary.toml").read_text())
    for system in SYSTEMS:
        business = businesses[system]
        text = Template((assets / f"{system}.toml").read_text()).substitute(schema=SCHEMA[business.kind])
        (directory / f"{system}.toml").write_text(text)
        lines += ["", f"[systems.{system}]", f'plugin = "{business.kind}"', f'mapping = "{system}.toml"']
        if business.kind == "sqlite":
            lines += [
                f'path = "{Path(business.address).name}"',
                "# A program that keeps the database locked longer than this pauses the lane; it is tried again.",
                "busy_timeout_seconds = 0.5",
            ]
        else:
            lines += [f'dsn = "{business.address}"']
    (directory / "concord.toml").write_text("\n".join(lines) + "\n")


def fill_systems(businesses: Mapping[str, Business], seed: Seed) -> None:
    with as_file(files("engine.demo.assets")) as assets:
        for business in businesses.values():
            make_schema(business, assets)
            fill(business, seed)
