"""How fast the target writes: `python -m tests.mysql_target.measure`, about a minute; not a test.

Nine-column rows on a private server that syncs nothing, on the machine's only disk and beside the client, so compare
the ways with each other, in turn on one server, and not with another machine.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import anyio

from engine.ports import TableWrite, TargetSession
from engine.testing.mariadb import MariadbServer, start_mariadb
from plugins.mysql import apply_together, apply_write
from tests.mysql_target.support import World, delete, insert, make_world, update

SECONDS = 1.5
KEPT = 50_000
COLUMNS = ("id", "name", "email", "state", "amount", "active", "created", "city", "note")
TABLE = (
    "create table {name} (id {key} primary key, name text not null, email varchar(200), state text,"
    " amount decimal(12,2), active bit(1), created datetime, city text, note text)"
)
KEYS = {"numbers": "bigint", "texts": "varchar(40)"}


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="concord-measure") as directory:
        folder = Path(directory)
        with start_mariadb(folder / "server") as server:
            anyio.run(_measure, folder, server)


async def _measure(folder: Path, server: MariadbServer) -> None:
    world = await make_world(server, folder)
    for name, key in KEYS.items():
        world.run(TABLE.format(name=name, key=key))
    async with world.session(*KEYS) as session:
        for name in KEYS:
            for start in range(0, KEPT, 10_000):
                rows = [_row(name, n, 0) for n in range(start, start + 10_000)]
                await world.deliver(session, insert(name, COLUMNS, rows))
        for name in KEYS:
            for count in (1, 10, 100, 1_000, 10_000):
                await _run(f"{name}: update", world, session, count, _changed(name))
                await _run(f"{name}: insert of rows that exist", world, session, count, _existing(name))
                await _run(f"{name}: delete, none there", world, session, count, _deleted(name))
    world.close()


async def _run(
    label: str, world: World, session: TargetSession, count: int, make: Callable[[int, int], TableWrite]
) -> None:
    """Rows a second, one by one and together, in turn."""
    rates: dict[bool, list[float]] = {False: [], True: []}
    for turn in range(4):
        is_together = turn % 2 == 1
        apply_write.TOGETHER_MIN = apply_together.TOGETHER_MIN if is_together else 1 << 60
        done, began = 0, time.perf_counter()
        while time.perf_counter() - began < SECONDS / 2 or not done:
            await world.deliver(session, make(count, world.seq))
            done += count
        rates[is_together].append(done / (time.perf_counter() - began))
    one, many = max(rates[False]), max(rates[True])
    print(f"{label:40} {count:6} a delivery   one by one {one:8,.0f} rows/s   together {many:8,.0f}", flush=True)


def _row(name: str, n: int, seq: int) -> tuple[str, ...]:
    key = str(n) if name == "numbers" else f"key-{n:036}"
    rest = (f"name {n} {seq}", f"{n}@example.net", "open", f"{n % 1000}.25", "t", "2024-02-29 12:00:00", "Bonn", "note")
    return (key, *rest)


def _changed(name: str) -> Callable[[int, int], TableWrite]:
    return lambda count, seq: update(name, COLUMNS, [_row(name, (n * 7 + seq) % KEPT, seq) for n in range(count)])


def _existing(name: str) -> Callable[[int, int], TableWrite]:
    return lambda count, seq: insert(name, COLUMNS, [_row(name, (n * 7 + seq) % KEPT, seq) for n in range(count)])


def _deleted(name: str) -> Callable[[int, int], TableWrite]:
    return lambda count, seq: delete(name, ("id",), [_row(name, KEPT + n, seq)[:1] for n in range(count)])


if __name__ == "__main__":
    main()
