"""Concord as a consumer: the daemon as its users run it, in a process of its own, over configuration files of its own.

Nothing of the engine is imported or called here. `concord setup` makes slot, publication and marker; the first run
finds an empty table to copy and ends; from then on the daemon is started and stopped by signals.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from benchmarks.consumer import WAIT_SECONDS_MAX, RunVoid, Usage, read_usage, wait_stopped
from benchmarks.servers import Databases, Slot

NAME: Final = "concord"
STOP_SECONDS_MAX: Final = 120.0
LOG_TAIL: Final = 3000

DICTIONARY: Final = """
description = "One entity for the benchmarks. The source owns every field, as in one-way replication."

[entities.bench]
description = "A row of nine columns."
owner = "source"

[entities.bench.fields]
number = { type = "integer", required = true, description = "The row's number, which is its key." }
name = { type = "text", required = true, description = "A short text." }
email = { type = "text", required = true, description = "Another." }
note = { type = "text", description = "A longer one." }
quantity = { type = "integer", required = true, description = "A whole number." }
price = { type = "decimal", scale = 2, required = true, description = "An exact number." }
is_active = { type = "boolean", required = true, description = "Yes or no." }
updated_at = { type = "timestamp", required = true, description = "A moment." }
due_on = { type = "date", required = true, description = "A day." }
"""

MAPPING: Final = """
[[table]]
name = "{table}"
entity = "bench"
key = ["id"]
{allocate}

[table.fields]
number = "id"
name = "name"
email = "email"
note = "note"
quantity = "quantity"
price = "price"
is_active = "is_active"
updated_at = "updated_at"
due_on = "due_on"
"""

CONFIG: Final = """
dictionary = "bench.toml"

[hub]
path = "hub.sqlite"

[systems.source]
mapping = "source.toml"
mode = "send"
{source}

[systems.target]
plugin = "postgres"
mapping = "target.toml"
mode = "receive"
dsn = "{target}"
"""


POSTGRES: Final = """
plugin = "postgres"
dsn = "{dsn}"
slot = "{slot}"
publication = "{slot}"
"""


class Reading(Protocol):
    """How it is known that somebody reads from a source."""

    def reading_since(self) -> float | None: ...
    def release(self) -> None:
        """The reader has gone: make the server notice."""
        ...


@dataclass(slots=True, kw_only=True)
class Concord:
    """A configured daemon. `process` while it runs, since `started_at`.

    `source` is None where nobody can tell whether it is read from; then it is from the moment the daemon is started.
    """

    source: Reading | None
    target_dsn: str
    directory: Path
    name: str = NAME
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0

    @property
    def hub(self) -> Path:
        return self.directory / "hub.sqlite"

    def reading_since(self) -> float | None:
        if self.source is not None:
            return self.source.reading_since()
        return self.started_at if self.process is not None else None

    def start(self) -> None:
        self.started_at = time.time()
        with (self.directory / "daemon.log").open("ab") as log:
            self.process = subprocess.Popen(self._command("run"), cwd=self.directory, stdout=log, stderr=log)

    def stop(self) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise RunVoid(f"the daemon does not end: {self.log_tail()}") from None
        if self.source is not None:
            self.source.release()
        wait_stopped(self, STOP_SECONDS_MAX)

    def check(self) -> None:
        if self.process is not None and self.process.poll() is not None:
            raise RunVoid(f"the daemon ended with {self.process.returncode}: {self.log_tail()}")

    def usage(self) -> Usage:
        if self.process is None:
            raise RunVoid("the daemon does not run")
        return read_usage(self.process.pid)

    def command(self, *words: str) -> None:
        """Run another command of Concord to its end. Raises `RunVoid` when it fails."""
        done = subprocess.run(
            self._command(*words), cwd=self.directory, capture_output=True, timeout=WAIT_SECONDS_MAX, check=False
        )
        if done.returncode:
            said = (done.stdout + done.stderr).decode(errors="replace")[-LOG_TAIL:]
            raise RunVoid(f"concord {words[0]} ended with {done.returncode}: {said}")

    def hub_bytes(self) -> int:
        """Size of the hub on disk."""
        return sum(path.stat().st_size for path in self.directory.glob("hub.sqlite*"))

    def log_tail(self) -> str:
        log = self.directory / "daemon.log"
        return log.read_text(errors="replace")[-LOG_TAIL:] if log.exists() else "no log"

    def _command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "engine.cli", *words, "-c", "concord.toml"]


def slot_of(databases: Databases) -> Slot:
    """Where it reads a PostgreSQL. Names of slots are the server's, not the database's."""
    return Slot(dsn=databases.source_dsn, name=f"{NAME}_{databases.name}")


@contextmanager
def concord_consumer(databases: Databases) -> Generator[Concord]:
    """From a PostgreSQL to its target; see `configured`."""
    slot = slot_of(databases)
    system = POSTGRES.format(dsn=slot.dsn, slot=slot.name)
    with configured(databases, system=system, table="public.bench", source=slot) as consumer:
        yield consumer


@contextmanager
def configured(databases: Databases, *, system: str, table: str, source: Reading | None) -> Generator[Concord]:
    """Configure, set up, and let the daemon copy the empty table; it does not run when this yields.

    `system` is the source's part of `concord.toml`, `table` what its mapping calls the table.
    """
    target = databases.target_dsn(NAME)
    consumer = Concord(source=source, target_dsn=target, directory=databases.directory(NAME))
    write_configuration(consumer.directory, system=system, table=table, target=target)
    consumer.command("setup")
    # What is there when a daemon first runs is copied, not replicated. It must find nothing, or a backlog would be
    # worked off twice: as rows of the copy and as rows of the log.
    consumer.command("run", "--once")
    try:
        yield consumer
    finally:
        if consumer.process is not None:
            # Only when something went wrong inside the block.
            os.kill(consumer.process.pid, signal.SIGKILL)
            consumer.process.wait()


def write_configuration(directory: Path, *, system: str, table: str, target: str) -> None:
    """The files of a one-way exchange of the one table. New rows get the key that they have at the source."""
    allocate = 'allocate = { field = "number" }'
    (directory / "bench.toml").write_text(DICTIONARY)
    (directory / "source.toml").write_text(MAPPING.format(table=table, allocate=""))
    (directory / "target.toml").write_text(MAPPING.format(table="public.bench", allocate=allocate))
    (directory / "concord.toml").write_text(CONFIG.format(source=system, target=target))
