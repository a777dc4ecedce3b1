"""Run by test_memory.py in a process of its own: read everything, and say what it took."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import anyio

from engine.plugin import Site
from plugins.postgres.capture import PostgresFeed, PostgresSource
from plugins.postgres.config import PostgresConfig
from plugins.postgres.position import parse_lsn


async def read(dsn: str, directory: str, end: int) -> dict[str, int]:
    site = Site(name="crm", directory=Path(directory), work_directory=Path(directory) / "crm")
    source = PostgresSource(site, PostgresConfig(dsn=dsn))
    rows = parts = total = peak_after_first = 0
    async with source.feed(None, ["t"], frozenset()) as feed:
        while feed.position.order < (end - 1, 0):
            batch = await feed.receive(10_000)
            rows += batch.rows_read
            parts += not batch.is_whole
            total += sum(int(str(row[0])) for s in batch.segments for table in s.tables.values() for row in table.rows)
            if parts == 3 and not peak_after_first:
                peak_after_first = peak()
        assert isinstance(feed, PostgresFeed)
        spooled = feed.spooled_bytes
    return {"rows": rows, "parts": parts, "sum": total, "spooled": spooled, "early": peak_after_first, "peak": peak()}


def peak() -> int:
    """The most memory this process has had so far, bytes."""
    # Not getrusage: a child of a large process begins with its parent's number.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


if __name__ == "__main__":
    sys.stdout.write(json.dumps(anyio.run(read, sys.argv[1], sys.argv[2], parse_lsn(sys.argv[3]))))
