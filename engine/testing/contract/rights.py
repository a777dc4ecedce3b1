"""What a kind with users and privileges owes whoever has too few: a check that names each right that is missing with
the statement that gives it, and errors that lead there. A kind without, of a file for example, does not inherit this.
"""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from engine.errors import ConcordError
from engine.ports import Role, WriteKind
from engine.testing.contract import Kit, flat

BOTH = Role.SOURCE | Role.TARGET
ROUNDS_MAX = 4
"""What is hidden behind one right is told once that is there."""


@pytest.mark.anyio
class RightsContract:
    """Inherit, and give the fixture `kit` with `poor`."""

    async def test_what_is_told_is_enough(self, kit: Kit) -> None:
        table = kit.create("customers", "name")
        await kit.setup(table)
        kit.users.transaction("insert into customers values (1, 'A')")
        poor = _poor(kit)
        system = poor.plugin.system(poor.site, poor.config)
        given: list[str] = []
        for _ in range(ROUNDS_MAX):
            lacking = [finding for finding in await system.check([table], BOTH) if finding.is_fatal]
            if not lacking:
                break
            for finding in lacking:
                assert not finding.by_setup, "all is set up"
                assert finding.sql, f"{finding.path}: {finding.message}: no statement mends it"
                statements = [sql for sql in re.split(r";\s*", finding.sql) if sql]
                kit.users.transaction(*statements)
                given += statements
        else:
            pytest.fail("rights are still missing")
        assert given, "a user without rights lacks some"
        await poor.deliver_alone(poor.write(WriteKind.INSERT, table, ("id", "name"), ("2", "ours"), ("3", "ours")))
        await poor.deliver_alone(poor.write(WriteKind.UPDATE, table, ("id", "name"), ("2", "again")))
        await poor.deliver_alone(poor.write(WriteKind.DELETE, table, ("id",), ("3",)))
        assert kit.users.rows("select * from customers order by id") == [(1, "A"), (2, "again")]
        assert len((await system.page(table, None, 10)).rows) == 2
        assert flat(await poor.changes(table), table) == [("I", ("1", "A"))]

    @pytest.mark.parametrize("what", ["write", "read", "page"])
    async def test_who_may_do_nothing_is_told_where_to_look(self, kit: Kit, what: str) -> None:
        table = kit.create("customers", "name")
        await kit.setup(table)
        with pytest.raises(ConcordError) as told:
            await _do(_poor(kit), table, what)
        assert "concord check" in told.value.hint or "grant " in told.value.hint.lower()

    async def test_a_table_without_a_key_is_told(self, kit: Kit) -> None:
        kit.users.transaction(f"create table notes (note {kit.text})")
        system = kit.plugin.system(kit.site, kit.config)
        found = [f for f in await system.check([kit.schema + "notes"], BOTH) if f.is_fatal and not f.by_setup]
        assert [f.path for f in found if "key" in f.message or "identity" in f.message] == [kit.schema + "notes"]


async def _do(kit: Kit, table: str, what: str) -> None:
    if what == "write":
        await kit.deliver_alone(kit.write(WriteKind.INSERT, table, ("id", "name"), ("1", "ours")))
    elif what == "read":
        async with kit.feed(table) as feed:
            await feed.receive(1)
    else:
        await kit.plugin.system(kit.site, kit.config).page(table, None, 10)


def _poor(kit: Kit) -> Kit:
    assert kit.poor is not None, "a kit for this contract says how somebody without rights connects"
    return replace(kit, config=kit.poor)
