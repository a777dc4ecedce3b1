"""Two SQLite systems in agreement, and the commands over them: in this process, or in processes of their own."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from pathlib import Path

from typer.testing import CliRunner, Result

from engine.cli import app


def execute(database: Path, sql: str) -> None:
    connection = sqlite3.connect(database)
    with connection:
        connection.execute(sql)
    connection.close()


def concord(folder: Path, *words: str) -> Result:
    result = CliRunner().invoke(app, [*words, "-c", str(folder / "concord.toml")])
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def daemon(folder: Path, *words: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "engine.cli", "run", *words, "-c", str(folder / "concord.toml")]
    with (folder / f"run{len(list(folder.glob('run*.log')))}.log").open("wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=log)


def until_started(folder: Path, process: subprocess.Popen[bytes]) -> None:
    newest = max(folder.glob("run*.log"), key=lambda log: int(log.stem.removeprefix("run")))
    while "daemon.started" not in newest.read_text():
        assert process.poll() is None
        time.sleep(0.02)
