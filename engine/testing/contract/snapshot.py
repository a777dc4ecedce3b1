"""What reading a table in pages owes: each row once, in key order, spelt as the log spells it, and meeting the log."""

from __future__ import annotations

import pytest

from engine.errors import SourceUnready
from engine.model.change import DELETE
from engine.ports import WriteKind
from engine.testing.contract import HUB, Kit, flat, texts

ROWS = 25


@pytest.mark.anyio
class SnapshotContract:
    """Inherit, and give the fixture `kit`."""

    async def test_pages_have_each_row_once_in_the_order_of_keys(self, kit: Kit) -> None:
        table = kit.create("customers", "name")
        await kit.setup(table)
        # 2 before 10: keys are in their own order, not in that of texts.
        kit.users.transaction(*(f"insert into customers values ({n}, 'n{n}')" for n in range(ROWS, 0, -1)))
        system, found, after, pages = kit.plugin.system(kit.site, kit.config), list[tuple[str | None, ...]](), None, 0
        while True:
            page = await system.page(table, after, 4)
            found += [texts(row) for row in page.rows]
            after, pages = page.last_key, pages + 1
            if after is None:
                break
        assert found == [(str(n), f"n{n}") for n in range(1, ROWS + 1)]
        assert pages >= ROWS // 4

    async def test_a_page_spells_values_as_the_log_does(self, kit: Kit) -> None:
        table = kit.create("customers", "name", "note")
        await kit.setup(table)
        kit.users.transaction(
            "insert into customers values (1, null, '')", "insert into customers values (2, 'Zoë 𝄞', 'x')"
        )
        page = await kit.plugin.system(kit.site, kit.config).page(table, None, 100)
        logged = flat(await kit.changes(table), table)
        assert [texts(row) for row in page.rows] == [row for _, row in logged]

    async def test_pages_beside_the_log_and_the_log_make_the_table(self, kit: Kit) -> None:
        table = kit.create("customers", "name")
        await kit.setup(table)
        kit.users.transaction(*(f"insert into customers values ({n}, 'first')" for n in range(1, ROWS + 1)))
        state: dict[str | None, tuple[str | None, ...]] = {}
        async with kit.feed(table) as feed:
            await kit.drain(feed)
            after = None
            for n in range(1, ROWS):
                kit.users.transaction(f"update customers set name = 'changed' where id = {n}")
                chunk = await feed.chunk(table, after, 10)
                touched: set[str | None] = set()
                kit.users.transaction(f"delete from customers where id = {n + 1}")
                while feed.position < chunk.high:
                    batch = await feed.receive(100)
                    for segment in batch.segments:
                        if table in segment.tables:
                            rows = segment.tables[table]
                            for op, row in zip(rows.ops, rows.rows, strict=True):
                                key, *_ = found = texts(row)
                                touched.add(key)
                                state.pop(key, None)
                                if op != DELETE:
                                    state[key] = found
                state |= {texts(r)[0]: texts(r) for r in chunk.page.rows if texts(r)[0] not in touched}
                after = chunk.page.last_key
                if after is None:
                    break
            for batch in await kit.drain(feed):
                for op, row in flat([batch], table):
                    state.pop(row[0], None)
                    if op != "D":
                        state[row[0]] = row
        expected = {str(id): (str(id), name) for id, name in kit.users.rows("select id, name from customers")}
        assert state == expected

    async def test_a_page_beside_the_log_says_which_delivery_it_has(self, kit: Kit) -> None:
        """By it the hub knows whether a row that differs from its record is a change or has not been written yet."""
        table = kit.create("customers", "name")
        await kit.setup(table)
        async with kit.feed(table) as feed:
            await kit.drain(feed)
            found = [(await feed.chunk(table, None, 10)).delivery]
            for seq in (1, 2):
                write = kit.write(WriteKind.INSERT, table, ("id", "name"), (str(seq), "ours"))
                await kit.deliver_alone(write)
                chunk = await feed.chunk(table, None, 10)
                found.append(chunk.delivery)
                assert [texts(row)[0] for row in chunk.page.rows] == ["1", "2"][:seq]
        # Nobody has claimed the marker yet, or somebody has and delivered nothing.
        assert found[0] in (None, (HUB, 0)), found
        assert found[1:] == [(HUB, 1), (HUB, 2)], found

    async def test_pages_of_the_rows_for_which_a_condition_holds(self, kit: Kit) -> None:
        table = kit.create("customers", "name")
        await kit.setup(table)
        kit.users.transaction(
            *(f"insert into customers values ({n}, '{'odd' if n % 2 else 'even'}')" for n in range(1, ROWS + 1))
        )
        system, condition = kit.plugin.system(kit.site, kit.config), "name = 'odd' or name = 'none'"
        assert [await system.count(table), await system.count(table, condition)] == [ROWS, (ROWS + 1) // 2]
        found: list[str | None] = []
        async with kit.feed(table) as feed:
            await kit.drain(feed)
            after = None
            while True:
                chunk = await feed.chunk(table, after, 4, condition)
                found += [texts(row)[0] for row in chunk.page.rows]
                after = chunk.page.last_key
                if after is None:
                    break
        assert found == [str(n) for n in range(1, ROWS + 1, 2)]

    async def test_a_condition_that_the_system_will_not_have_is_told(self, kit: Kit) -> None:
        """Once and for all: trying it again would not help."""
        table = kit.create("customers", "name")
        await kit.setup(table)
        with pytest.raises(SourceUnready, match="customers"):
            await kit.plugin.system(kit.site, kit.config).count(table, "nope = 1")
        async with kit.feed(table) as feed:
            with pytest.raises(SourceUnready, match="customers"):
                await feed.chunk(table, None, 10, "nope = 1")
            kit.users.transaction("insert into customers values (1, 'still read')")
            assert flat(await kit.drain(feed), table)
