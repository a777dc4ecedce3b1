"""Two SQLite systems in agreement, and the commands over them: in this process, or in processes of their own."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import time
from pathlib import Path

from typer.testing import CliRunner, Result

from engine.cli import app
from tests.daemons import Running, start_concord


def execute(database: Path, sql: str) -> None:
    connection = sqlite3.connect(database)
    with connection:
        connection.execute(sql)
    connection.close()


def concord(folder: Path, *words: str) -> Result:
    interrupted = signal.getsignal(signal.SIGINT)
    try:
        result = CliRunner().invoke(app, [*words, "-c", str(folder / "concord.toml")])
    finally:
        # A daemon that has ended ignores interrupts; these tests go on.
        signal.signal(signal.SIGINT, interrupted)
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def daemon(folder: Path, *words: str) -> Running:
    log = folder / f"run{len(list(folder.glob('run*.log')))}.log"
    log.touch()
    return start_concord(["run", *words, "-c", str(folder / "concord.toml")], output=log)


def until_started(folder: Path, process: Running | subprocess.Popen[bytes]) -> None:
    newest = max(folder.glob("run*.log"), key=lambda log: int(log.stem.removeprefix("run")))
    while "daemon.started" not in newest.read_text():
        assert process.poll() is None
        time.sleep(0.02)
