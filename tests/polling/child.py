"""A hub of the smallest kind, to be killed: rows and position of each batch in one transaction of a file.

python -m tests.polling.child FOLDER
"""

from __future__ import annotations

import json
import sqlite3
import sys
from pathlib import Path

import anyio
import msgspec

from engine.model.change import DELETE
from engine.model.position import Position
from engine.plugin import Site
from plugins.polling.capture import PollingSource
from plugins.polling.config import PollingConfig
from tests.polling.support import texts_of

TABLE = "customers"


def open_hub(folder: Path) -> sqlite3.Connection:
    hub = sqlite3.connect(folder / "hub.db", isolation_level=None, timeout=30)
    hub.execute("pragma journal_mode = wal")
    hub.execute("create table if not exists place (id integer primary key, doc blob)")
    hub.execute("create table if not exists copy (id text primary key, row text)")
    hub.execute("create table if not exists odd (what text)")
    return hub


async def main(folder: Path) -> None:
    site = Site(name="erp", directory=folder, work_directory=folder)
    config = PollingConfig(
        driver="sqlite3", dialect="sqlite", connect={"database": str(folder / "erp.db")}, every=0.002
    )
    hub = open_hub(folder)
    stored = hub.execute("select doc from place").fetchone()
    place = None if stored is None else msgspec.msgpack.decode(stored[0], type=Position)
    async with PollingSource(site, config).feed(place, [TABLE], frozenset()) as feed:
        print("open", flush=True)
        if place is None:
            _store(hub, feed.position)
        while True:
            batch = await feed.receive(3)
            hub.execute("begin")
            for segment in batch.segments:
                rows = segment.tables.get(TABLE)
                for op, row in zip(rows.ops, rows.rows, strict=True) if rows is not None else ():
                    _take(hub, op, texts_of(row))
            _store(hub, batch.position)
            hub.execute("commit")
            feed.confirm(batch.position)


def _take(hub: sqlite3.Connection, op: int, row: tuple[str | None, ...]) -> None:
    found = hub.execute("select row from copy where id = ?", (row[0],)).fetchone()
    if op == ord("I") and found is not None:
        hub.execute("insert into odd values ('entered twice')")
    if op == ord("U") and found == (json.dumps(row),):
        hub.execute("insert into odd values ('the same again')")
    if op == DELETE:
        hub.execute("delete from copy where id = ?", (row[0],))
    else:
        hub.execute("insert or replace into copy values (?, ?)", (row[0], json.dumps(row)))


def _store(hub: sqlite3.Connection, place: Position) -> None:
    hub.execute("insert or replace into place values (1, ?)", (msgspec.msgpack.encode(place),))


if __name__ == "__main__":
    anyio.run(main, Path(sys.argv[1]))
