"""How fast the target writes: `python -m tests.postgres_target.measure`, about a minute; not a test.

Nine-column rows on a private server without fsync, on the machine's only disk and beside the client, so compare the
ways with each other and not with another machine. `client` is the share of one processor that this process took.
"""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import uvloop

from engine.ports import TableWrite, TargetSession
from engine.testing.postgres import start_postgres
from tests.postgres_target.support import World, insert, make_world, update

SECONDS = 3.0
KEPT = 100_000
COLUMNS = ("id", "name", "email", "state", "amount", "active", "created", "city", "note")
TABLE = (
    "create table t (id integer primary key, name text not null, email varchar(200), state text, amount numeric(12,2),"
    " active boolean, created timestamptz, city text, note text)"
)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="concord-measure") as directory:
        folder = Path(directory)
        with start_postgres(folder / "server") as server:
            uvloop.run(_measure(server.dsn("postgres"), folder))


async def _measure(dsn: str, folder: Path) -> None:
    world = await make_world(dsn, folder)
    world.run(
        TABLE,
        "create table s (like t)",
        "alter table s alter id add generated always as identity, add primary key (id)",
    )
    async with world.session("public.t", "public.s") as session:
        await world.deliver(session, insert("public.t", COLUMNS, [_row(n, 0) for n in range(KEPT)]))
        world.run("vacuum analyze t")
        for count in (1, 10, 100, 1_000, 10_000):
            await _run("insert", world, session, count, _new)
            await _run("insert, key assigned", world, session, count, _assigned)
            await _run("insert that exists", world, session, count, _existing)
            await _run("update", world, session, count, _changed)
            world.run(
                f"delete from t where id >= {KEPT}", "truncate s", "truncate concord.identity", "vacuum analyze t"
            )
    world.users.close()


async def _run(
    label: str, world: World, session: TargetSession, count: int, make: Callable[[int, int], TableWrite]
) -> None:
    """Deliver for `SECONDS` of delivery; making the rows is not counted."""
    seconds = cpu = 0.0
    turns = 0
    slowest = 0.0
    while seconds < SECONDS:
        write = make(turns, count)
        began, before = time.perf_counter(), _cpu()
        await world.deliver(session, write)
        took = time.perf_counter() - began
        cpu += _cpu() - before
        seconds += took
        slowest = max(slowest, took)
        turns += 1
    print(
        f"{label:22}{count:7} rows a delivery{turns * count / seconds:10.0f} rows/s"
        f"{1000 * seconds / turns:9.2f} ms each, at most{1000 * slowest:7.1f}  client {cpu / seconds:.2f}",
        flush=True,
    )


def _new(turn: int, count: int) -> TableWrite:
    return insert("public.t", COLUMNS, [_row(KEPT + turn * count + n, turn) for n in range(count)])


def _assigned(turn: int, count: int) -> TableWrite:
    rids = list(range(turn * count, turn * count + count))
    return insert(
        "public.s", COLUMNS[1:], [_row(n, turn)[1:] for n in rids], assigned="id", rids=rids, place=f"s{count}"
    )


def _existing(turn: int, count: int) -> TableWrite:
    return insert("public.t", COLUMNS, [_row((turn * count + n) % KEPT, turn) for n in range(count)])


def _changed(turn: int, count: int) -> TableWrite:
    return update("public.t", COLUMNS, [_row((turn * count + n) % KEPT, turn) for n in range(count)])


def _row(number: int, version: int) -> tuple[str | None, ...]:
    return (
        str(number),
        f"Customer number {number} v{version}",
        f"user{number}@example.com",
        "active",
        f"{number % 1000}.50",
        "t",
        "2024-02-29 13:05:00.25+00",
        "Springfield",
        None if number % 3 == 0 else "some note here",
    )


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
