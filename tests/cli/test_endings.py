"""Goal: a command that does not come to its end ends as a script expects: a question that is not answered with yes, a
pipe that is closed, a system that is broken or gone.

Method: the commands as processes of their own, over two SQLite systems.
"""

from __future__ import annotations

import logging
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

from engine.assemble import open_daemon
from engine.config.load import load_config
from engine.daemon import Ending
from engine.hub.transaction import HubTransaction
from engine.pipeline.canonicalize import CanonicalBatch
from engine.pipeline.commit import Committer, Counts
from engine.telemetry.log import Log
from tests.cli.support import daemon, execute, until_started


def start(folder: Path, *words: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "engine.cli", *words, "-c", str(folder / "concord.toml")]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.parametrize("answer", [b"n\n", b"\n", b""], ids=["no", "nothing", "end"])
def test_a_question_that_is_not_answered_with_yes(agreed: Path, answer: bytes) -> None:
    before = (agreed / "crm.db").read_bytes()
    asking = start(agreed, "teardown", "crm")
    told, said = asking.communicate(answer, timeout=60)
    assert (asking.returncode, told.strip()) == (130, b"")
    assert b"nothing was done" in said
    assert b"Aborted" not in said
    assert (agreed / "crm.db").read_bytes() == before


def test_a_question_that_is_interrupted(agreed: Path) -> None:
    asking = start(agreed, "teardown", "crm")
    assert asking.stderr is not None
    while asking.stderr.read(1) != b"[":
        assert asking.poll() is None
    asking.send_signal(signal.SIGINT)
    assert asking.wait(60) == 130
    asking.communicate()


# More than a pipe holds, less than one, and a table.
@pytest.mark.parametrize("words", [["conflicts", "--limit", "0", "--json"], ["status"], ["conflicts", "--limit", "0"]])
def test_a_pipe_that_is_closed(agreed: Path, words: list[str]) -> None:
    with sqlite3.connect(agreed / "hub.sqlite") as hub:
        hub.executemany(
            "insert into conflict (seq, rid, entity, mask, rule, winner, winner_seq, winner_time, loser, loser_seq,"
            " loser_time, loser_seen, winner_values, loser_values, recorded_at)"
            " values (1, 1, 1, 2, 'latest', 1, 1, 1, 2, 1, 1, 0, x'91a161', x'91a162', ?)",
            [(n,) for n in range(2000)],
        )
    hub.close()
    cut = start(agreed, *words)
    assert cut.stdout is not None
    cut.stdout.close()
    assert cut.stderr is not None
    assert cut.stderr.read() == b""
    assert cut.wait(60) == 141
    assert cut.stdin is not None
    cut.stdin.close()
    cut.stderr.close()


def test_once_says_by_its_code_where_it_failed(agreed: Path) -> None:
    # The ERP's marker is that of another hub: nothing is written there.
    execute(agreed / "erp.db", "update concord_marker set hub = 'another'")
    execute(agreed / "crm.db", "update customers set name = 'bravo'")
    ended = daemon(agreed, "--once")
    assert ended.wait(60) == 8
    assert "halted: erp target" in (agreed / "run1.log").read_text()


def test_once_says_that_a_source_failed(agreed: Path) -> None:
    execute(agreed / "crm.db", "drop table concord_journal")
    ended = daemon(agreed, "--once")
    assert ended.wait(60) == 7
    assert "halted: crm source" in (agreed / "run1.log").read_text()


@contextmanager
def impatient(folder: Path, name: str, value: int, *words: str) -> Generator[subprocess.Popen[bytes]]:
    """The daemon, with one of its patiences cut."""
    module, _, constant = name.rpartition(".")
    program = f"import {module} as m, engine.cli; m.{constant} = {value}; engine.cli.main()"
    command = [sys.executable, "-c", program, "run", *words, "-c", str(folder / "concord.toml")]
    with (folder / "run1.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def locked(agreed: Path) -> Iterator[sqlite3.Connection]:
    """A connection that lets nobody write to the ERP, while there is something to be written."""
    config = agreed / "concord.toml"
    config.write_text(config.read_text().replace('path = "erp.db"', 'path = "erp.db"\nbusy_timeout_seconds = 0.1'))
    execute(agreed / "crm.db", "update customers set name = 'bravo'")
    erp = sqlite3.connect(agreed / "erp.db", isolation_level=None)
    erp.execute("begin immediate")
    yield erp
    erp.close()


def test_once_does_not_wait_for_ever(agreed: Path, locked: sqlite3.Connection) -> None:
    with impatient(agreed, "engine.commands.running.ONCE_ATTEMPTS_MAX", 2, "--once") as ended:
        assert ended.wait(60) == 8
    log = (agreed / "run1.log").read_text()
    assert "lane.paused" in log
    assert "halted: erp target" in log
    locked.execute("rollback")
    again = daemon(agreed, "--once")
    assert again.wait(60) == 0
    assert locked.execute("select name1 from debtors").fetchall() == [("bravo",)]


def test_told_to_stop_before_all_is_delivered(agreed: Path, locked: sqlite3.Connection) -> None:
    with impatient(agreed, "engine.daemon.DRAIN_SECONDS_MAX", 1) as process:
        until_started(agreed, process)
        while "lane.paused" not in (agreed / "run1.log").read_text() or not is_journalled(agreed):
            assert process.poll() is None
            time.sleep(0.02)
        process.terminate()
        assert process.wait(60) == 143
    assert "is_drained=false" in (agreed / "run1.log").read_text().lower()
    locked.execute("rollback")
    again = daemon(agreed, "--once")
    assert again.wait(60) == 0
    assert locked.execute("select name1 from debtors").fetchall() == [("bravo",)]


def is_journalled(folder: Path) -> bool:
    hub = sqlite3.connect(folder / "hub.sqlite")
    ((last, cursor),) = hub.execute("select max(j.seq), (select cursor from system where name = 'erp') from journal j")
    hub.close()
    return last > cursor


def test_told_to_stop_with_a_halted_lane(agreed: Path) -> None:
    execute(agreed / "crm.db", "drop table concord_journal")
    process = daemon(agreed)
    until_started(agreed, process)
    while "lane.halted" not in (agreed / "run1.log").read_text():
        assert process.poll() is None
        time.sleep(0.02)
    process.terminate()
    assert process.wait(60) == 3


def test_told_to_stop_while_a_batch_is_committed_it_delivers_that_too(
    agreed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    committing = threading.Event()
    real = Committer.commit

    def slowly(committer: Committer, tx: HubTransaction, batch: CanonicalBatch) -> Counts:
        if batch.rows_read:
            committing.set()
            time.sleep(1)
        return real(committer, tx, batch)

    async def run() -> Ending:
        ending: list[Ending] = []
        async with open_daemon(load_config(agreed / "concord.toml"), Log(level=logging.WARNING)) as running:

            async def to_its_end() -> None:
                ending.append(await running.run(with_signals=False))

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(to_its_end)
                assert await anyio.to_thread.run_sync(committing.wait, 60)
                running.stop()
        return ending[0]

    monkeypatch.setattr(Committer, "commit", slowly)
    execute(agreed / "crm.db", "insert into customers (name) values ('late')")
    assert anyio.run(run).is_drained
    erp = sqlite3.connect(agreed / "erp.db")
    assert ("late",) in erp.execute("select name1 from debtors").fetchall()
    erp.close()
