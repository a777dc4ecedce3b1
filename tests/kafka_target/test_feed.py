"""Goal: a feed holds whole rows by key, whole deliveries or nothing of them, and one daemon writes to it.

Method: a real broker; what is written is read back as others would read it, committed messages only.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from engine.errors import Fenced, RowRefused, TargetUnready
from engine.model.value import WireRow
from engine.plugin import Site
from engine.ports import Role, TableWrite, TargetSession, WriteKind
from engine.testing.kafka.cluster import KafkaCluster
from plugins.kafka import plugin
from plugins.kafka.config import KafkaConfig
from tests.kafka_cluster.shared import own_name

INSERT, UPDATE, DELETE = WriteKind.INSERT, WriteKind.UPDATE, WriteKind.DELETE
HUB = "5d1f9c52-8a3e-4a53-9c39-6d1c8b0b7f11"
COLUMNS = {
    "id": "text",
    "name": "text",
    "count": "integer",
    "credit": "decimal",
    "vip": "boolean",
    "since": "instant",
    "tags": "json",
}
pytestmark = pytest.mark.anyio


@dataclass(slots=True)
class FeedKit:
    """One feed. `read` gives the messages of its table: (key, value) as JSON says them."""

    cluster: KafkaCluster
    site: Site
    config: KafkaConfig

    async def setup(self) -> None:
        await plugin.system(self.site, self.config).setup(["customers"], Role.TARGET)

    @asynccontextmanager
    async def session(self, *, epoch: int = 3, hub: str = HUB) -> AsyncGenerator[TargetSession]:
        assert plugin.target is not None
        async with plugin.target(self.site, self.config).open(["customers"]) as session:
            await session.claim(hub, epoch)
            yield session

    def read(self, table: str = "customers") -> list[tuple[Any, Any]]:
        return [
            (json.loads(record.key or b"null"), None if record.value is None else json.loads(record.value))
            for record in self.cluster.read(f"{self.config.feed}.{table}")
        ]


@pytest.fixture
async def kit(kafka_cluster: KafkaCluster, tmp_path: Path) -> FeedKit:
    config = KafkaConfig(
        servers=(kafka_cluster.broker.bootstrap,),
        feed=own_name("feed"),
        tables={"customers": COLUMNS},
    )
    made = FeedKit(kafka_cluster, Site(name="lake", directory=tmp_path, work_directory=tmp_path / "work"), config)
    await made.setup()
    return made


def rows(kind: WriteKind, columns: Sequence[str], *found: WireRow, key: str = "id") -> TableWrite:
    return TableWrite(
        table="customers",
        place="customers",
        kind=kind,
        columns=tuple(columns),
        key=(key,),
        rows=list(found),
        rids=list(range(101, 101 + len(found))),
    )


async def test_rows_are_documents_by_key_and_deletions_are_tombstones(kit: FeedKit) -> None:
    whole: WireRow = ("a1", 'Zoë "Z"', "12", "12.50", "t", "2024-02-29 13:05:00.25+00", '{"x":[1,2]}')
    async with kit.session() as session, session.delivery(1) as delivery:
        await delivery.write(rows(INSERT, tuple(COLUMNS), whole, ("b2", None, None, None, "f", None, None)))
        await delivery.write(rows(DELETE, ("id",), ("gone",)))
    assert kit.read() == [
        (
            {"id": "a1"},
            {
                "id": "a1",
                "name": 'Zoë "Z"',
                "count": 12,
                "credit": "12.50",
                "vip": True,
                "since": "2024-02-29T13:05:00.25Z",
                "tags": {"x": [1, 2]},
            },
        ),
        (
            {"id": "b2"},
            {"id": "b2", "name": None, "count": None, "credit": None, "vip": False, "since": None, "tags": None},
        ),
        ({"id": "gone"}, None),
    ]


async def test_nobody_sees_a_delivery_that_was_given_up(kit: FeedKit) -> None:
    async def give_up(session: TargetSession) -> None:
        async with session.delivery(1) as delivery:
            await delivery.write(rows(INSERT, ("id", "name"), ("1", "never")))
            raise RuntimeError("given up")

    async with kit.session() as session:
        with pytest.raises(RuntimeError, match="given up"):
            await give_up(session)
        async with session.delivery(1) as delivery:
            await delivery.write(rows(INSERT, ("id", "name"), ("1", "real")))
        assert await session.claim(HUB, 3) == 1
    assert kit.read() == [({"id": "1"}, {"id": "1", "name": "real"})]


async def test_the_marker_says_what_was_delivered_last(kit: FeedKit) -> None:
    async with kit.session() as session:
        assert await session.claim(HUB, 3) == 0
        for seq in (4, 9):
            async with session.delivery(seq):
                pass
    async with kit.session(epoch=4) as session:
        assert await session.claim(HUB, 4) == 9


async def test_an_older_daemon_is_shut_out(kit: FeedKit) -> None:
    async with kit.session(epoch=3) as older:
        async with kit.session(epoch=4):
            pass
        with pytest.raises(Fenced):
            async with older.delivery(1) as delivery:
                await delivery.write(rows(INSERT, ("id", "name"), ("1", "late")))
    assert kit.read() == []
    with pytest.raises(Fenced):
        async with kit.session(epoch=3):
            pass


async def test_a_feed_belongs_to_one_hub(kit: FeedKit) -> None:
    async with kit.session():
        pass
    with pytest.raises(TargetUnready, match="belongs to hub") as refused:
        async with kit.session(hub="another", epoch=99):
            pass
    assert refused.value.context["hub"] == HUB


async def test_a_refused_row_leaves_the_delivery_usable_and_holds_nothing(kit: FeedKit) -> None:
    async with kit.session() as session, session.delivery(1) as delivery:
        await delivery.write(rows(INSERT, ("id", "name"), ("1", "A")))
        with pytest.raises(RowRefused) as refused:
            await delivery.write(rows(INSERT, ("id", "count"), ("2", "7"), ("3", "secret")))
        await delivery.write(rows(INSERT, ("id", "name"), ("4", "D")))
    assert [key["id"] for key, _ in kit.read()] == ["1", "4"]
    assert refused.value.row_index == 1
    assert refused.value.context["column"] == "count"
    assert "secret" not in str(refused.value), "an error never holds a value"


async def test_a_row_larger_than_the_topic_takes_is_refused_alone(kit: FeedKit) -> None:
    async with kit.session() as session, session.delivery(1) as delivery:
        with pytest.raises(RowRefused, match="larger than the topic takes") as refused:
            await delivery.write(rows(INSERT, ("id", "name"), ("1", "small"), ("2", "x" * 1_100_000)))
        assert refused.value.row_index == 1
        # As large as it may be: what stands around it in the batch is counted right.
        await delivery.write(rows(INSERT, ("id", "name"), ("3", "x" * 1_047_900)))
    assert [key["id"] for key, _ in kit.read()] == ["3"]


async def test_keys_must_come_from_elsewhere(kit: FeedKit) -> None:
    async with kit.session() as session, session.delivery(1) as delivery:
        write = rows(INSERT, ("name",), ("A",))
        write.assigned = "id"
        with pytest.raises(RowRefused, match="hands out no keys"):
            await delivery.write(write)


async def test_columns_that_the_feed_does_not_have_are_refused(kit: FeedKit) -> None:
    async with kit.session() as session, session.delivery(1) as delivery:
        with pytest.raises(RowRefused, match="no such column") as refused:
            await delivery.write(rows(INSERT, ("id", "phone"), ("1", "2")))
    assert refused.value.reason == "table"


async def test_pages_are_the_rows_that_the_feed_holds(kit: FeedKit) -> None:
    async with kit.session() as session:
        async with session.delivery(1) as delivery:
            await delivery.write(rows(INSERT, ("id", "count", "vip"), *((f"k{n}", str(n), "t") for n in range(5))))
        async with session.delivery(2) as delivery:
            await delivery.write(rows(UPDATE, ("id", "count", "vip"), ("k3", "33", None)))
            await delivery.write(rows(DELETE, ("id",), ("k1",)))
    system = plugin.system(kit.site, kit.config)
    first = await system.page("customers", None, 2)
    second = await system.page("customers", first.last_key, 10)
    at = [first.shape.index(name) for name in ("id", "count", "vip")]
    found = [tuple(row[n] for n in at if n is not None) for row in (*first.rows, *second.rows)]
    assert found == [("k0", "0", "t"), ("k2", "2", "t"), ("k3", "33", None), ("k4", "4", "t")]
    assert second.last_key is None


async def test_setup_makes_compacted_topics_and_teardown_removes_them(kit: FeedKit) -> None:
    system = plugin.system(kit.site, kit.config)
    assert await system.plan(["customers"], Role.TARGET) == ()
    assert await system.check(["customers"], Role.TARGET) == ()
    removed = await system.teardown()
    assert [step.summary for step in removed] == [
        f"delete topic {kit.config.feed}.concord-marker",
        f"delete topic {kit.config.feed}.customers",
    ]
    findings = await system.check(["customers"], Role.TARGET)
    assert len(findings) == 2
    assert all(finding.by_setup for finding in findings)
    assert plugin.target is not None
    with pytest.raises(TargetUnready, match="there is no topic"):
        async with kit.session():
            pass
