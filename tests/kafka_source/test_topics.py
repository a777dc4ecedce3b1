"""Goal: a feed goes on exactly where it was, or says why it cannot; it never begins anew by itself.

Method: a real broker, on which topics lose messages, are deleted, made again, compacted and get partitions.
"""

from __future__ import annotations

import copy
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from engine.errors import PositionLost, SourceUnready, SystemUnreachable
from engine.model.position import Position
from engine.ports import Feed, Role
from engine.secret import Secret
from engine.testing.kafka.broker import PASSWORD, USER
from engine.testing.kafka.cluster import KafkaCluster
from plugins.kafka import capture, consume, plugin
from plugins.kafka.config import KafkaConfig
from tests.kafka_cluster.shared import own_name
from tests.kafka_source.topics import SCHEMA, TABLE, Topics, changed, names_of

SECONDS_MAX = 60
pytestmark = pytest.mark.anyio


@pytest.fixture
def topics(kafka_cluster: KafkaCluster, tmp_path: Path) -> Topics:
    return Topics.of(kafka_cluster, own_name("topics"), tmp_path)


@asynccontextmanager
async def opened(topics: Topics, config: KafkaConfig, after: Position | None = None) -> AsyncGenerator[Feed]:
    assert plugin.source is not None
    with anyio.fail_after(SECONDS_MAX):
        async with plugin.source(topics.site, config).feed(after, [TABLE], frozenset()) as feed:
            yield feed


async def test_a_feed_goes_on_behind_its_position(topics: Topics) -> None:
    topics.create(topics.customers)
    topics.write(*(topics.change(n, f"n{n}", number=n) for n in range(1, 6)))
    config = topics.config(order="row")
    async with opened(topics, config) as feed:
        batch = await feed.receive(2)
        assert changed([batch]) == ["n1", "n2"]
    async with opened(topics, config, batch.position) as feed:
        assert await names_of(feed, 3) == ["n3", "n4", "n5"]


async def test_messages_that_are_gone_behind_our_position_stop_the_feed(topics: Topics) -> None:
    topics.create(topics.customers)
    topics.write(*(topics.change(n, f"n{n}", number=n) for n in range(1, 11)))
    config = topics.config(order="row")
    async with opened(topics, config) as feed:
        position = (await feed.receive(2)).position
    topics.delete_records(topics.customers, 7)
    with pytest.raises(PositionLost, match="begins at offset 7 now, behind our position 2") as lost:
        async with opened(topics, config, position):
            pass
    assert "concord backfill crm" in lost.value.hint


async def test_a_topic_that_was_made_again_is_not_taken_for_the_old_one(topics: Topics) -> None:
    topics.create(topics.customers)
    topics.write(*(topics.change(n, f"n{n}", number=n) for n in range(1, 4)))
    config = topics.config(order="row")
    async with opened(topics, config) as feed:
        position = (await feed.receive(2)).position
    topics.delete(topics.customers)
    with pytest.raises(PositionLost, match="is gone"):
        async with opened(topics, config, position):
            pass
    topics.create(topics.customers)
    topics.write(*(topics.change(n, f"new {n}", number=n) for n in range(1, 9)))
    with pytest.raises(PositionLost, match="was deleted and made again"):
        async with opened(topics, config, position):
            pass


async def test_why_a_feed_was_stopped_is_in_its_position(topics: Topics) -> None:
    """Whoever comes back is told when the topics are opened, and may have them begun anew."""
    topics.create(topics.customers)
    topics.write(topics.change(1, "first", number=5), topics.change(2, "second", number=9))
    # Places go back while time goes on: another server.
    odd = topics.change(3, "odd", number=2)
    late = str(1_700_000_000_000 + 900)
    assert odd.value is not None
    topics.write(topics.record(topics.customers, odd.value.decode().replace("1700000000002", late), key='{"id":3}'))
    config = topics.config(order="row")
    async with opened(topics, config) as feed:
        batches = [await feed.receive(100)]
        while "\n" not in batches[-1].position.token:
            batches.append(await feed.receive(100))
        assert changed(batches) == ["first", "second"]
        feed.confirm(batches[-1].position)
        with pytest.raises(PositionLost, match="another server now"):
            await feed.receive(100)
    with pytest.raises(PositionLost, match="another server now"):
        async with opened(topics, config, batches[-1].position):
            pass


async def test_a_missing_topic_is_named_and_made_by_setup(topics: Topics) -> None:
    config = topics.config()
    system = plugin.system(topics.site, config)
    with pytest.raises(SourceUnready, match=f"there is no topic {topics.customers}, {topics.transactions}"):
        async with opened(topics, config):
            pass
    findings = await system.check([TABLE], Role.SOURCE)
    assert [finding.by_setup for finding in findings] == [True, True]
    steps = await system.setup([TABLE], Role.SOURCE)
    assert [step.summary for step in steps] == [f"make topic {topics.customers}", f"make topic {topics.transactions}"]
    assert await system.plan([TABLE], Role.SOURCE) == ()
    async with opened(topics, config):
        pass


async def test_without_a_database_the_last_messages_tell_what_a_table_looks_like(topics: Topics) -> None:
    topics.create(topics.customers, partitions=2)
    topics.create(topics.transactions)
    system = plugin.system(topics.site, topics.config())
    # Of several transactions, in several partitions: one layout for all of them.
    topics.write(*(topics.change(n, f"n{n}", number=n, partition=n % 2) for n in range(1, 7)))
    before = await system.shapes([TABLE])
    assert [column.name for column in before[TABLE].columns] == ["id", "name"]
    assert await system.check([TABLE], Role.SOURCE) == ()
    wider: Any = copy.deepcopy(SCHEMA)
    wider["fields"][0]["fields"].append({"type": "string", "optional": True, "field": "city"})
    row = {"id": 7, "name": "n7", "city": "Ulm"}
    topics.write(topics.event(topics.customers, row, number=7, schema=wider))
    assert [column.name for column in (await system.shapes([TABLE]))[TABLE].columns] == ["id", "name", "city"]


async def test_a_topic_of_transactions_with_two_partitions_is_refused(topics: Topics) -> None:
    topics.create(topics.customers)
    topics.create(topics.transactions, partitions=2)
    with pytest.raises(SourceUnready, match="has 2 partitions"):
        async with opened(topics, topics.config()):
            pass


async def test_a_first_copy_from_topics_wants_all_of_them(topics: Topics) -> None:
    topics.create(topics.customers)
    topics.write(*(topics.change(n, f"n{n}", number=n) for n in range(1, 6)))
    topics.delete_records(topics.customers, 2)
    with pytest.raises(SourceUnready, match="begins at offset 2") as refused:
        async with opened(topics, topics.config(order="row")):
            pass
    assert "[systems.crm.database]" in refused.value.hint


async def test_what_a_compacted_topic_has_lost_behind_our_position_stops_the_feed(topics: Topics) -> None:
    topics.create(
        topics.customers,
        cleanup_policy="compact",
        segment_ms="100",
        min_cleanable_dirty_ratio="0.01",
        min_compaction_lag_ms="0",
        max_compaction_lag_ms="100",
    )
    topics.write(topics.change(1, "kept", number=1))
    config = topics.config(order="row")
    async with opened(topics, config) as feed:
        position = (await feed.receive(1)).position
    topics.write(topics.change(2, "old", number=2))
    for number in range(3, 6):
        # Each in a segment of its own: the last one is never compacted.
        topics.write(topics.change(2, f"new {number}", number=number))
        await anyio.sleep(0.3)
    deadline = time.monotonic() + SECONDS_MAX / 2
    while any(record.offset == 1 for record in topics.cluster.read(topics.customers)):
        assert time.monotonic() < deadline, "the cleaner does nothing"
        topics.write(topics.change(9, "roll", number=100))
        await anyio.sleep(0.5)
    async with opened(topics, config, position) as feed:
        with pytest.raises(PositionLost, match=r"offsets \d+ to \d+ are missing"):
            await receive_for_ever(feed)
    # Read from the beginning it is what a compacted topic is for: the latest of each row.
    async with opened(topics, config) as feed:
        assert "kept" in await names_of(feed, 2)


async def test_a_partition_that_is_added_is_read_in_the_order_of_transactions(
    topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consume, "LOOK_SECONDS", 0.3)
    topics.create(topics.customers, topics.transactions)
    async with opened(topics, topics.config()) as feed:
        topics.write(topics.change(1, "first", number=1), topics.end(1))
        assert await names_of(feed, 1) == ["first"]
        topics.add_partition(topics.customers, 2)
        topics.write(
            topics.change(2, "second", number=2, order=2, partition=0),
            topics.change(3, "third", number=2, order=1, partition=1),
            topics.end(2, **{TABLE: 2}),
        )
        batch = await feed.receive(100)
        while not changed([batch]):
            batch = await feed.receive(100)
        assert changed([batch]) == ["third", "second"]


async def test_a_partition_that_is_added_breaks_the_order_of_rows(
    topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consume, "LOOK_SECONDS", 0.3)
    topics.create(topics.customers)
    async with opened(topics, topics.config(order="row")) as feed:
        topics.add_partition(topics.customers, 2)
        with pytest.raises(PositionLost, match="has got a partition 1"):
            await receive_for_ever(feed)


async def test_an_end_without_its_events_is_told_and_waited_for(
    topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capture, "MISSING_SECONDS_MAX", 0.5)
    topics.create(topics.customers, topics.transactions)
    # The connector was killed before it had written what stands before these ends.
    topics.write(topics.change(1, "first", number=1), topics.end(1), topics.end(2), topics.end(3))
    config = topics.config()
    async with opened(topics, config) as feed:
        assert await names_of(feed, 1) == ["first"]
        with pytest.raises(SystemUnreachable, match=r"transaction 2:299: 1 of public.customers"):
            await receive_for_ever(feed)
        position = feed.position
    # The connector begins again, and brings it.
    topics.write(
        topics.change(2, "second", number=2), topics.end(2), topics.change(3, "third", number=3), topics.end(3)
    )
    async with opened(topics, config, position) as feed:
        assert await names_of(feed, 2) == ["second", "third"]


async def test_the_group_shows_what_is_durable_and_no_more(topics: Topics, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consume, "COMMIT_SECONDS", 0.1)
    group = f"{topics.prefix}-group"
    topics.create(topics.customers)
    topics.write(*(topics.change(n, f"n{n}", number=n) for n in range(1, 4)))
    async with opened(topics, topics.config(order="row", group=group)) as feed:
        first = await feed.receive(1)
        await feed.receive(1)
        await anyio.sleep(0.6)
        assert topics.committed(group, topics.customers) is None
        feed.confirm(first.position)
        await anyio.sleep(2)
        assert topics.committed(group, topics.customers) == 1


async def test_in_one_partition_our_deliveries_are_told_by_their_marker(topics: Topics) -> None:
    topic = f"{topics.prefix}.all"
    topics.create(topic)
    marker = {"id": 1, "seq": 7}
    topics.write(
        topics.event(topic, {"id": 1, "name": "before"}, number=1),
        topics.event(topic, marker, number=2, order=1, op="u", table="concord.marker", schema=None),
        topics.event(topic, {"id": 1, "name": "ours"}, number=2, order=2, op="u"),
        topics.event(topic, {"id": 1, "name": "after"}, number=3, op="u"),
        # Sent again behind a restart of the connector.
        topics.event(topic, {"id": 1, "name": "ours"}, number=2, order=2, op="u"),
        topics.event(topic, {"id": 1, "name": "after"}, number=3, op="u"),
        topics.event(topic, {"id": 1, "name": "last"}, number=4, op="u"),
    )
    config = topics.config(order="partition", topics={TABLE: topic, "concord.marker": topic}, marker="concord.marker")
    async with opened(topics, config) as feed:
        batches = [await feed.receive(100)]
        while "last" not in changed(batches):
            batches.append(await feed.receive(100))
    found: list[tuple[int | None, str]] = []
    seen: int | None = None
    for batch in batches:
        for segment in batch.segments:
            seen = segment.seen if segment.seen is not None else seen
            found += [(seen, str(row[1])) for rows in segment.tables.values() for row in rows.rows]
    assert found == [(None, "before"), (7, "after"), (7, "last")]


@pytest.mark.parametrize(
    ("listener", "settings"),
    [
        ("SASL", {"sasl": "scram-sha-256"}),
        ("SASL", {"sasl": "scram-sha-512"}),
        ("TLS", {"tls": "verify-identity"}),
        ("MUTUAL", {"tls": "verify-identity", "with_certificate": True}),
        ("SASLTLS", {"tls": "verify-ca", "sasl": "plain"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value.values())),
)
async def test_brokers_that_want_to_know_who_comes(topics: Topics, listener: str, settings: dict[str, Any]) -> None:
    topics.create(topics.customers)
    topics.write(topics.change(1, "first", number=1))
    async with opened(topics, secured(topics, listener, dict(settings))) as feed:
        assert await names_of(feed, 1) == ["first"]


async def test_a_wrong_password_is_told_and_not_shown(topics: Topics, tmp_path: Path) -> None:
    topics.create(topics.customers)
    (tmp_path / "password").write_text("wrong-secret")
    config = secured(topics, "SASL", {"sasl": "scram-sha-512"})
    with pytest.raises((SourceUnready, SystemUnreachable)) as refused:
        async with opened(topics, config):
            pass
    assert "wrong-secret" not in f"{refused.value}{refused.value.context}"


async def receive_for_ever(feed: Feed) -> None:
    while True:
        feed.confirm((await feed.receive(100)).position)


def secured(topics: Topics, listener: str, settings: dict[str, Any]) -> KafkaConfig:
    broker, folder = topics.cluster.broker, topics.site.directory
    if "sasl" in settings:
        file = folder / "password"
        if not file.exists():
            file.write_text(PASSWORD)
        settings |= {"user": USER, "password": Secret(file="password")}
    if "tls" in settings:
        settings |= {"tls_ca": str(broker.certificates.authority)}
    if settings.pop("with_certificate", False):
        settings |= {
            "tls_certificate": str(broker.certificates.client_certificate),
            "tls_key": str(broker.certificates.client_key_plain),
        }
    return topics.config(servers=(broker.address(listener),), order="row", connect_seconds_max=5, **settings)


async def test_a_message_that_the_broker_does_not_find_by_its_time_yet_is_found(
    topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    topics.create(topics.customers)
    topics.write(*(topics.change(n, f"n{n}", number=n) for n in range(1, 31)))
    topics.write(topics.change(31, "another moment", number=31))
    number = (topics.customers, 0)

    def look() -> None:
        consumer = consume.Consumer(topics.site, topics.config())
        client = consumer._client  # pyright: ignore[reportPrivateUsage]
        try:
            times = [at for _, at, *_ in consumer.read(number, 0, 31)]
            wanted = [*sorted(set(times)), min(times) - 1, max(times) + 1]
            told = [consumer.offsets_at([number], at) for at in wanted]
            monkeypatch.setattr(client, "offsets_for_times", dict.fromkeys)
            assert [consumer.offsets_at([number], at) for at in wanted] == told
            assert told[-1] == {number: 31}
        finally:
            consumer.close()

    await anyio.to_thread.run_sync(look)
