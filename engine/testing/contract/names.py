"""What every kind owes a name: whatever it is, of a table, a key or a column, it means what the catalogue says."""

from __future__ import annotations

import pytest

from engine.ports import WriteKind
from engine.testing.contract import Kit, flat, texts

NAMES = (
    'Order "Lines" of a Select',
    "select",
    "MixedCase",
    "mixedcase of 100%",
    "o'Brien's `ticks` \\ ünï",
    ":colon ?mark $1 %s %(p)s",
)
"""Spaces, quotes, reserved words, capitals, and what drivers take for a parameter."""


@pytest.mark.anyio
class NamesContract:
    """Inherit, and give the fixture `kit`, for a kind that is read and written."""

    async def test_names_are_nobodys_business(self, kit: Kit) -> None:
        """Each name is once a table's, once its key's and once a column's."""
        tables = {name: (NAMES[n - 1], NAMES[n - 2]) for n, name in enumerate(NAMES)}
        for name, (key, column) in tables.items():
            kit.users.transaction(
                f"create table {kit.quoted(name)} ({kit.quoted(key)} {kit.integer} primary key,"
                f" {kit.quoted(column)} {kit.text})"
            )
        places = [kit.schema + name for name in NAMES]
        await kit.setup(*places)
        system = kit.plugin.system(kit.site, kit.config)
        assert set(await system.shapes(places)) == set(places)
        for name, (_, column) in tables.items():
            kit.users.transaction(f"insert into {kit.quoted(name)} values (1, 'first')")
            kit.users.transaction(f"update {kit.quoted(name)} set {kit.quoted(column)} = 'second'")
        batches = await kit.changes(*places)
        for place, name in zip(places, NAMES, strict=True):
            columns = tables[name]
            assert flat(batches, place) == [("I", ("1", "first")), ("U", ("1", "second"))], name
            page = await system.page(place, None, 10)
            assert (page.shape.key, [texts(row) for row in page.rows]) == (columns[:1], [("1", "second")]), name
            await kit.deliver_alone(kit.write(WriteKind.INSERT, place, columns, ("2", "ours"), ("3", "ours")))
            await kit.deliver_alone(kit.write(WriteKind.UPDATE, place, columns, ("2", "again")))
            await kit.deliver_alone(kit.write(WriteKind.DELETE, place, columns[:1], ("3",)))
            assert kit.users.rows(f"select * from {kit.quoted(name)} order by 1") == [(1, "second"), (2, "again")], name
