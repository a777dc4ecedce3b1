"""Goal: a transaction of a million rows takes no more memory than one of ten thousand, streamed or not.
Method: a process of its own reads it, with the system's own count of its memory; it may not grow between the first
parts and the last by more than a fraction of what the transaction holds."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import anyio
import pytest

from tests.postgres_source.support import World

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the count of memory is Linux's"),
]
ROWS = 1_000_000
# The transaction is about 100 MB as messages, several times that as Python objects.
GROWTH_MAX = 24 << 20


@pytest.mark.parametrize("is_streamed", [True, False])
async def test_a_million_rows_in_one_transaction_leave_memory_flat(world: World, is_streamed: bool) -> None:
    database = world.rows("select current_database()")[0][0]
    memory = "1MB" if is_streamed else "2GB"
    world.run(f"alter database {database} set logical_decoding_work_mem = '{memory}'")
    world.run("create table t (id int primary key, v text, w text)")
    await world.setup("t")
    world.run(f"insert into t select n, 'customer number ' || n, repeat('x', 40) from generate_series(1, {ROWS}) n")
    end = world.end()

    child = await anyio.run_process(
        [sys.executable, "-m", "tests.postgres_source.drain_child", world.dsn, world.site.directory, _lsn(end)],
        cwd=Path(__file__).parents[2],
    )

    told = json.loads(child.stdout)
    assert told["rows"] == ROWS
    assert told["sum"] == ROWS * (ROWS + 1) // 2
    assert told["parts"] > 90
    assert (told["spooled"] > 80_000_000) == is_streamed
    assert told["peak"] - told["early"] < GROWTH_MAX, told


def _lsn(lsn: int) -> str:
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"
