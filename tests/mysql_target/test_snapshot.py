"""Goal: a snapshot shows what stands in the log before its place, and nothing that stands behind it.

Method: a user commits a row at a time while snapshots are taken; the rows that each one shows are counted against the
rows in the log before its place.
"""

from __future__ import annotations

import threading

import pytest

from plugins.mysql.connect import connect_now
from plugins.mysql.snapshot import read_page, snapshot
from tests.mysql_target.support import World

pytestmark = pytest.mark.anyio


async def test_a_snapshot_lies_where_it_says(world: World) -> None:
    world.run("create table t (id int primary key)", "flush binary logs")
    stop = threading.Event()

    def write() -> None:
        user = connect_now(world.site, world.config)
        number = 0
        while not stop.is_set():
            number += 1
            user.execute(f"insert into t values ({number})")
        user.close()

    writer = threading.Thread(target=write)
    writer.start()
    reading = connect_now(world.site, world.config)
    found: list[tuple[str, int, int]] = []
    try:
        while len(found) < 20 or len({count for _, _, count in found}) < 3:
            with snapshot(reading) as placed:
                page = read_page(reading, world.database, "t", None, 1_000_000)
            assert placed.low is not None
            assert placed.low == placed.high
            assert placed.gtids
            found.append((placed.low.file, placed.low.offset, len(page.rows)))
    finally:
        stop.set()
        writer.join()
        reading.close()

    events = world.rows(f"show binlog events in '{found[0][0]}'")
    for file, offset, count in found:
        assert file == found[0][0]
        logged = [row for row in events if str(row[2]).startswith("Write_rows") and int(row[4]) <= offset]
        assert len(logged) == count
