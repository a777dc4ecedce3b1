"""`concord run` in processes of its own, which begin where all modules have been imported.

A test that starts the daemon thirty times would import for longer than it tests. So one process imports, once a test
run's process, and each daemon is a fork of it (the standard library's fork server): with its own folder, environment
and output, and dying by any signal as one that was started by hand.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from engine import cli

PRELOADED: Final = (
    "engine.assemble",
    "engine.cli",
    "engine.commands.running",
    "engine.daemon",
    "plugins.mysql",
    "plugins.mysql.capture",
    "plugins.polling",
    "plugins.postgres",
    "plugins.postgres.apply",
    "plugins.postgres.capture",
    "plugins.sqlite",
    "plugins.sqlite.capture",
    "rich.console",
    "rich.table",
    "tests.daemons",
    "typer._adapters",
    "uvloop",
    "tests.preloaded",
)
_context = get_context("forkserver")
_context.set_forkserver_preload(list(PRELOADED))


class Running:
    """A running `concord`, as `subprocess.Popen` would show it."""

    def __init__(self, process: ForkServerProcess, arguments: Sequence[str]) -> None:
        self._process = process
        self._arguments = tuple(arguments)
        assert process.pid is not None
        self.pid: int = process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            raise subprocess.TimeoutExpired(self._arguments, timeout or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            # It may end, and be waited for by whoever started it, between the two; `Popen` takes no offence either.
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def start_concord(
    arguments: Sequence[str],
    *,
    output: Path,
    errors: Path | None = None,
    directory: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Running:
    """`concord ARGUMENTS` in the background; `output` gets what it prints, and its errors where they have no file of
    their own. Files are appended to."""
    # Daemonic to multiprocessing: it ends with the tests.
    process = _context.Process(
        target=_run,
        args=(tuple(arguments), output, errors or output, directory or Path.cwd(), dict(environment or os.environ)),
        daemon=True,
    )
    process.start()
    return Running(process, arguments)


def run_concord(
    arguments: Sequence[str],
    *,
    directory: Path | None = None,
    environment: Mapping[str, str] | None = None,
    timeout: float = 120.0,
) -> subprocess.CompletedProcess[str]:
    """`concord ARGUMENTS` to its end."""
    with TemporaryDirectory(prefix="concord-run-") as name:
        output, errors = Path(name) / "stdout", Path(name) / "stderr"
        running = start_concord(arguments, output=output, errors=errors, directory=directory, environment=environment)
        try:
            code = running.wait(timeout)
        finally:
            running.kill()
        return subprocess.CompletedProcess(tuple(arguments), code, output.read_text(), errors.read_text())


def _run(arguments: tuple[str, ...], output: Path, errors: Path, directory: Path, environment: dict[str, str]) -> None:
    for stream, path in ((1, output), (2, errors)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(file, stream)
        os.close(file)
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["concord", *arguments]
    cli.main()
