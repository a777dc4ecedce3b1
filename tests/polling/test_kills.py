"""Goal: whenever the process is killed, what is known of the rows and what the hub has been told fit together.

Method: a process that polls a file and keeps what it is told, with its place, in one transaction; SIGKILL at random
moments while users write. In the end what it was told is the table, and nothing was told twice.
"""

from __future__ import annotations

import json
import random
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

from tests.polling.child import open_hub

KILLS = 25
SECONDS_MAX = 60.0


def test_kills_at_any_moment_lose_and_double_nothing(tmp_path: Path) -> None:
    rng = random.Random(11)
    users = sqlite3.connect(tmp_path / "erp.db", isolation_level=None, timeout=30)
    users.execute("pragma journal_mode = wal")
    users.execute("create table customers (id integer primary key, name text)")
    users.execute("create table concord_marker (id integer primary key, hub text, epoch bigint, seq bigint)")
    users.execute("insert into concord_marker values (1, null, 0, 0)")
    number = 0
    for _ in range(KILLS):
        child = _start(tmp_path)
        end = time.monotonic() + rng.random() * 0.12
        while time.monotonic() < end:
            number += 1
            _edit(users, rng, number)
        child.kill()
        child.wait()
        for _ in range(rng.randrange(4)):
            number += 1
            _edit(users, rng, number)
    child = _start(tmp_path)
    expected = {str(id): json.dumps([str(id), name]) for id, name in users.execute("select * from customers")}
    hub = open_hub(tmp_path)
    try:
        deadline = time.monotonic() + SECONDS_MAX
        while dict(hub.execute("select id, row from copy").fetchall()) != expected:
            assert time.monotonic() < deadline, "what was told is not the table"
            time.sleep(0.02)
        assert hub.execute("select * from odd").fetchall() == []
        assert len(expected) > KILLS
    finally:
        child.kill()
        child.wait()
        hub.close()
        users.close()


def _start(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.polling.child", str(folder)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "open\n"
    child.stdout.close()
    return child


def _edit(users: sqlite3.Connection, rng: random.Random, number: int) -> None:
    users.execute("begin immediate")
    for _ in range(rng.randrange(1, 12)):
        id = rng.randrange(200)
        if rng.random() < 0.2:
            users.execute("delete from customers where id = ?", (id,))
        else:
            users.execute("insert or replace into customers values (?, ?)", (id, f"n{number}"))
    users.execute("commit")
