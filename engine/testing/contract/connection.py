"""What a plugin of a server owes when the connection is bad: it may end at any byte, go silent, or never be made.

Nothing hangs, the error is `SystemUnreachable` and no other, what arrives in all is exactly the log, and a delivery
happened with its marker or not at all. A plugin without a server, of a file for example, does not inherit this. A kit
for it needs `address` and `through`, and `patience` where the plugin waits longer than a test should.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import anyio
import pytest

from engine.errors import SystemUnreachable
from engine.model.change import Batch
from engine.model.position import Position
from engine.ports import Feed, Role, TargetSession, WriteKind
from engine.testing.contract import EPOCH, HUB, SECONDS_MAX, Kit, flat, seen, texts
from engine.testing.proxy import Manner, Proxy, Way, proxy_to

CUTS = 8
"""How many bytes of a conversation are tried for each way and manner, others every time; fewer of a silence, which the
plugin has to wait for."""
LONG = "long " * 12_000
ATTEMPTS_MAX = 20
WAYS = pytest.mark.parametrize("way", Way, ids=lambda way: way.name.lower())
MANNERS = pytest.mark.parametrize("manner", Manner, ids=lambda manner: manner.name.lower())
COLUMNS = ("id", "name")


@pytest.mark.anyio
class ConnectionContract:
    """Inherit, and give the fixture `kit`."""

    @pytest.fixture
    def proxy(self, kit: Kit, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
        assert kit.address is not None, "a kit for this contract says where its server listens"
        for name, seconds in kit.patience.items():
            monkeypatch.setattr(name, seconds)
        with proxy_to(kit.address) as proxy:
            yield proxy

    @MANNERS
    @WAYS
    async def test_a_feed_that_is_cut_at_any_byte_goes_on_where_it_was(
        self, kit: Kit, proxy: Proxy, way: Way, manner: Manner
    ) -> None:
        """Whoever opens it behind a position has all before, so each cut has a stretch of the log for itself."""
        table = kit.create("customers", "name")
        await kit.setup(table)
        far, position, before, met, total = kit.by(proxy), None, proxy.relayed[way], 0, 0
        cuts_max = _count(manner)
        for n, part in enumerate((None, *range(cuts_max))):
            await _write_some(kit, table, n)
            whole = await kit.changes(table, after=position)
            if part is None:
                batches = await _all(far, proxy, table, position)
                total = proxy.relayed[way] - before
                size = 0
            else:
                size, cuts = _somewhere(total, part, cuts_max), proxy.cuts
                proxy.cut_after(size, way, manner)
                batches = await _all(far, proxy, table, position)
                met += proxy.cuts > cuts
                proxy.keep()
            where = f"cut after {size} of {total} bytes {way.value}"
            assert flat(batches, table) == flat(whole, table), where
            assert seen(batches, table) == seen(whole, table), where
            position = batches[-1].position
        assert met > cuts_max // 2, "the cuts have not been made"

    async def test_a_feed_that_hears_nothing_any_more_says_so(self, kit: Kit, proxy: Proxy) -> None:
        table = kit.create("customers", "name")
        await kit.setup(table)
        kit.users.transaction("insert into customers values (1, 'before')")
        far = kit.by(proxy)
        async with far.feed(table) as feed:
            batches = await far.drain(feed)
            position = feed.position
            proxy.silence()
            kit.users.transaction("insert into customers values (2, 'meanwhile')")
            with pytest.raises(SystemUnreachable):
                await _receive_for_ever(feed)
        proxy.cut()
        proxy.resume()
        batches += await _all(far, proxy, table, position)
        assert flat(batches, table) == [("I", ("1", "before")), ("I", ("2", "meanwhile"))]

    async def test_an_idle_feed_stays_open(self, kit: Kit, proxy: Proxy) -> None:
        """Longer than it would take silence for an end: nothing to tell is not nothing heard."""
        table = kit.create("customers", "name")
        await kit.setup(table)
        async with kit.by(proxy).feed(table) as feed:
            with anyio.move_on_after(3 * max(kit.patience.values(), default=1.0)):
                await _receive_for_ever(feed)
            kit.users.transaction("insert into customers values (1, 'after')")
            assert flat(await kit.drain(feed), table) == [("I", ("1", "after"))]

    @pytest.mark.parametrize("trouble", ["refused", "silent", "cut"])
    async def test_what_cannot_be_reached_is_unreachable(self, kit: Kit, proxy: Proxy, trouble: str) -> None:
        table = kit.create("customers", "name")
        await kit.setup(table)
        far = kit.by(proxy)
        system = far.plugin.system(far.site, far.config)

        async def feed() -> None:
            async with far.feed(table) as feed:
                await feed.receive(1)

        async def session() -> None:
            async with far.session(table):
                pass

        calls = (
            feed,
            session,
            lambda: system.page(table, None, 10),
            lambda: system.count(table),
            lambda: system.shapes([table]),
            lambda: system.plan([table], Role.SOURCE | Role.TARGET),
            lambda: system.health(),
        )
        for n, call in enumerate(calls):
            proxy.is_refusing = trouble == "refused"
            if trouble == "silent":
                proxy.silence()
            elif trouble == "cut":
                proxy.cut_after(1, Way.TO_CLIENT, Manner.CLOSE)
            with anyio.fail_after(SECONDS_MAX), pytest.raises(SystemUnreachable) as told:
                await call()
            assert far.site.name in told.value.message, f"call {n}"
            assert told.value.hint, f"call {n}"
            proxy.resume()

    @MANNERS
    @WAYS
    async def test_a_page_that_is_cut_at_any_byte_is_no_page(
        self, kit: Kit, proxy: Proxy, way: Way, manner: Manner
    ) -> None:
        table = kit.create("customers", "name")
        await kit.setup(table)
        kit.users.transaction(*(f"insert into customers values ({n}, '{LONG[:n]}')" for n in range(300)))
        expected = [(str(n), LONG[:n]) for n in range(300)]
        far = kit.by(proxy)
        before = proxy.relayed[way]
        system = far.plugin.system(far.site, far.config)
        assert [texts(row) for row in (await system.page(table, None, 1000)).rows] == expected
        total = proxy.relayed[way] - before
        for part in range(_count(manner)):
            size = _somewhere(total, part, _count(manner))
            proxy.cut_after(size, way, manner)
            try:
                with anyio.fail_after(SECONDS_MAX):
                    page = await system.page(table, None, 1000)
            except SystemUnreachable:
                pass
            else:
                # All of it was there: what was cut is the farewell.
                assert [texts(row) for row in page.rows] == expected, f"cut after {size} bytes {way.value}"
            proxy.keep()

    async def test_a_chunk_in_silence_ends_and_the_feed_goes_on(self, kit: Kit, proxy: Proxy) -> None:
        table = kit.create("customers", "name")
        await kit.setup(table)
        async with kit.by(proxy).feed(table) as feed:
            await kit.drain(feed)
            proxy.cut_after(200, Way.TO_CLIENT)
            with pytest.raises(SystemUnreachable):
                await feed.chunk(table, None, 10)
        async with kit.by(proxy).feed(table) as feed:
            proxy.silence()
            with pytest.raises(SystemUnreachable):
                await feed.chunk(table, None, 10)

    @MANNERS
    @WAYS
    async def test_a_delivery_that_is_cut_at_any_byte_happens_with_its_marker_or_not_at_all(
        self, kit: Kit, proxy: Proxy, way: Way, manner: Manner
    ) -> None:
        table = kit.create("customers", "name")
        await kit.setup(table)
        far = kit.by(proxy)
        before = proxy.relayed[way]
        async with far.session(table) as session:
            await _deliver(far, session, table, 1)
        marker = 1
        total = proxy.relayed[way] - before
        outcomes: set[bool] = set()
        for part in range(_count(manner)):
            size = _somewhere(total, part, _count(manner))
            proxy.cut_after(size, way, manner)
            is_told = True
            try:
                async with far.session(table) as session:
                    await _deliver(far, session, table, marker + 1)
                    # What is left of the cut is about the farewell.
                    is_told = False
            except SystemUnreachable:
                pass
            proxy.keep()
            proxy.cut()
            async with kit.session(table) as session:
                found = await session.claim(HUB, EPOCH)
            where = f"cut after {size} of {total} bytes {way.value}"
            assert found in (marker, marker + 1), where
            assert is_told or found == marker + 1, f"{where}: told to be done and is not"
            assert kit.users.rows("select count(*), min(name), max(name) from customers") == [
                (50, f"at {found}", f"at {found}")
            ], where
            outcomes.add(found == marker)
            marker = found
        assert True in outcomes, "no cut met a delivery"

    async def test_a_delivery_in_silence_ends_and_leaves_nothing(self, kit: Kit, proxy: Proxy) -> None:
        table = kit.create("customers", "name")
        await kit.setup(table)
        far = kit.by(proxy)

        async def deliver() -> None:
            async with far.session(table) as session, session.delivery(1) as delivery:
                await delivery.write(kit.write(WriteKind.INSERT, table, COLUMNS, ("1", "half")))
                proxy.silence()
                await delivery.write(kit.write(WriteKind.INSERT, table, COLUMNS, ("2", "done")))

        with pytest.raises(SystemUnreachable):
            await deliver()
        proxy.cut()
        async with kit.session(table) as session:
            assert await session.claim(HUB, EPOCH) == 0
        assert kit.users.rows("select * from customers") == []

    async def test_a_commit_that_is_not_answered_is_told_by_the_marker(self, kit: Kit, proxy: Proxy) -> None:
        table = kit.create("customers", "name")
        await kit.setup(table)
        far = kit.by(proxy)

        async def deliver() -> None:
            async with far.session(table) as session, session.delivery(1) as delivery:
                await delivery.write(kit.write(WriteKind.INSERT, table, COLUMNS, ("1", "all")))
                proxy.silence()

        with pytest.raises(SystemUnreachable):
            await deliver()
        proxy.cut()
        async with kit.session(table) as session:
            marker = await session.claim(HUB, EPOCH)
        assert kit.users.rows("select count(*) from customers") == [(marker,)]

    async def test_a_slow_connection_changes_nothing(self, kit: Kit, proxy: Proxy) -> None:
        table = kit.create("customers", "name")
        await kit.setup(table)
        await _write_some(kit, table, 0)
        proxy.delay_seconds = 0.005
        far = kit.by(proxy)
        assert flat(await far.changes(table), table) == flat(await kit.changes(table), table)


async def _receive_for_ever(feed: Feed) -> None:
    while True:
        await feed.receive(100)


async def _write_some(kit: Kit, table: str, n: int) -> None:
    """Transactions of every kind, a delivery of ours among them, with keys from 1,000 n on."""
    run, k = kit.users.transaction, 1000 * n
    run(*(f"insert into customers values ({k + m}, 'Zoë {m}')" for m in range(1, 4)))
    run(f"update customers set name = null where id = {k + 1}", f"delete from customers where id = {k + 2}")
    run(*(f"insert into customers values ({k + m}, 'n{m}')" for m in range(100, 140)))
    await kit.deliver_alone(kit.write(WriteKind.INSERT, table, COLUMNS, (str(k + 3), "ours"), (str(k + 4), "ours")))
    run(f"update customers set name = 'after' where id = {k + 3}")
    run(f"insert into customers values ({k + 5}, '{LONG}')")
    run(f"delete from customers where id > {k + 120}", f"insert into customers values ({k + 121}, 'again')")


async def _all(kit: Kit, proxy: Proxy, table: str, after: Position | None = None) -> list[Batch]:
    """As the engine does it: receive, and where the system is unreachable open again behind the last batch."""
    head: Position | None = None
    batches: list[Batch] = []
    for _ in range(ATTEMPTS_MAX):
        try:
            if head is None:
                head = (await kit.plugin.system(kit.site, kit.config).health()).head
                assert head is not None
            async with kit.feed(table, after=batches[-1].position if batches else after) as feed:
                while feed.position < head:
                    batches.append(await feed.receive(7))
            return batches
        except SystemUnreachable:
            # The server needs a moment to find out that its side is dead too; of a silence only its limits tell it.
            proxy.cut()
            await anyio.sleep(0.05)
    raise AssertionError(f"not opened again in {ATTEMPTS_MAX} attempts")


async def _deliver(kit: Kit, session: TargetSession, table: str, seq: int) -> None:
    async with session.delivery(seq) as delivery:
        for part in range(0, 50, 10):
            rows = [(str(n), f"at {seq}") for n in range(part, part + 10)]
            await delivery.write(kit.write(WriteKind.INSERT, table, COLUMNS, *rows))


def _count(manner: Manner) -> int:
    return CUTS // 4 if manner is Manner.SILENCE else CUTS


def _somewhere(total: int, part: int, parts: int) -> int:
    """A byte of the conversation to cut after: the very first, then one of each part of it."""
    assert total > parts
    return random.randint(total * (part - 1) // (parts - 1), total * part // (parts - 1) - 1) if part else 0
