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
from typing import Final

from benchmarks.consumer import POLL_SECONDS, WAIT_SECONDS_MAX, RunVoid, Usage, read_usage
from benchmarks.servers import Databases, slot_is_active

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
name = "public.bench"
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
plugin = "postgres"
mapping = "source.toml"
mode = "send"
dsn = "{source}"
slot = "{slot}"
publication = "{slot}"

[systems.target]
plugin = "postgres"
mapping = "target.toml"
mode = "receive"
dsn = "{target}"
"""


@dataclass(slots=True, kw_only=True)
class Concord:
    """A configured daemon. `process` while it runs."""

    source_dsn: str
    target_dsn: str
    slot: str
    directory: Path
    name: str = NAME
    process: subprocess.Popen[bytes] | None = None

    @property
    def hub(self) -> Path:
        return self.directory / "hub.sqlite"

    def start(self) -> None:
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
        deadline = time.monotonic() + STOP_SECONDS_MAX
        while slot_is_active(self.source_dsn, self.slot) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)

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


@contextmanager
def concord_consumer(databases: Databases) -> Generator[Concord]:
    """Configure, set up, and let the daemon copy the empty table; it does not run when this yields."""
    source, target = databases.source_dsn, databases.target_dsn(NAME)
    consumer = Concord(
        source_dsn=source,
        target_dsn=target,
        slot=f"concord_{databases.name}",
        directory=databases.directory(NAME),
    )
    write_configuration(consumer.directory, source=source, target=target, slot=consumer.slot)
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


def write_configuration(directory: Path, *, source: str, target: str, slot: str) -> None:
    """The files of a one-way exchange of the one table. New rows get the key that they have at the source."""
    (directory / "bench.toml").write_text(DICTIONARY)
    (directory / "source.toml").write_text(MAPPING.format(allocate=""))
    (directory / "target.toml").write_text(MAPPING.format(allocate='allocate = { field = "number" }'))
    (directory / "concord.toml").write_text(CONFIG.format(source=source, target=target, slot=slot))
