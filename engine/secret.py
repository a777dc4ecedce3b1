"""Secrets in configuration: named, never written. The only way a password gets into Concord."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from engine.errors import ConfigError


class Secret(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`{ env = "NAME" }` or `{ file = "path" }` in concord.toml. Its repr shows where the secret is, never what."""

    env: str | None = None
    file: str | None = None

    def __post_init__(self) -> None:
        if (self.env is None) == (self.file is None):
            raise ValueError('a secret is either { env = "NAME" } or { file = "path" }')

    def reveal(self, directory: Path) -> str:
        """The secret itself; a relative file is looked for in `directory`. Raises `ConfigError`."""
        if self.env is not None:
            value = os.environ.get(self.env)
            if value is None:
                raise ConfigError(
                    f"environment variable {self.env} is not set", hint=f"Set {self.env} before starting concord."
                )
            return value
        path = directory / str(self.file)
        try:
            return path.read_text().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"secret file {path} cannot be read: {type(error).__name__}", hint="Make it readable for this user."
            ) from error
