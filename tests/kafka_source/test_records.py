"""Goal: batches of a partition become messages, and no offset is missing without a word.

Method: batches made by kafka-python's own builder, with offsets taken out as a cleaner of compacted topics does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.consumer.fetcher import Fetcher
from kafka.errors import CorruptRecordError
from kafka.protocol.consumer import IsolationLevel
from kafka.record.default_records import DefaultRecordBatchBuilder
from kafka.record.memory_records import MemoryRecords
from kafka.structs import TopicPartition

from plugins.kafka.records import Gap, Record, Records

_builder: Any = DefaultRecordBatchBuilder
_memory: Any = MemoryRecords
_place: Any = TopicPartition("t", 0)
MESSAGES = st.lists(
    st.tuples(
        st.none() | st.binary(max_size=300),
        st.none() | st.binary(max_size=300),
        st.lists(st.tuples(st.sampled_from(["__debezium.newkey", "other"]), st.binary(max_size=200)), max_size=2),
    ),
    min_size=1,
    max_size=8,
)


def batch(
    first: int, messages: Sequence[Any], *, offsets: Sequence[int] | None = None, last: int | None = None
) -> bytes:
    """A batch with these messages at `offsets` (all from `first` on without it), and the last offset that it tells."""
    builder = _builder(
        magic=2, compression_type=0, is_transactional=False, producer_id=-1, producer_epoch=-1, base_sequence=-1,
        batch_size=1 << 20,
    )  # fmt: skip
    for n, (key, value, headers) in enumerate(messages):
        offset = n if offsets is None else offsets[n] - first
        builder.append(offset, 1_700_000_000_000 + n, key, value, list(headers))
    built = bytearray(builder.build())
    built[0:8] = first.to_bytes(8, "big")
    if last is not None:
        built[23:27] = (last - first).to_bytes(4, "big")
    return bytes(built)


def messages_of(*batches: bytes, start: int = 0, until: int = 0) -> list[Record]:
    """All messages; `until`: before which some may be missing."""

    class Loose(Records):
        loose_until: ClassVar = {("t", 0): until}

    made: Any = Loose
    records = made(
        start, _place, _memory(b"".join(batches)), check_crcs=False, isolation_level=IsolationLevel.READ_COMMITTED
    )
    found: list[Record] = []
    while records:
        found += records.take()
    return found


@given(MESSAGES)
def test_messages_come_out_as_they_were_put_in(messages: list[Any]) -> None:
    found = messages_of(batch(0, messages))
    assert [(offset, key, value) for offset, _, key, value, _ in found] == [
        (n, key, value) for n, (key, value, _) in enumerate(messages)
    ]
    for (_, time, _, _, headers), (n, (key, value, wanted)) in zip(found, enumerate(messages), strict=True):
        assert time == 1_700_000_000_000 + n
        content = (key or b"") + (value or b"") + b"".join(text for _, text in wanted)
        if any(name == "__debezium.newkey" for name, _ in wanted):
            assert headers == wanted
        elif b"__debezium." not in content:
            assert headers is None


@given(MESSAGES, st.data())
def test_what_is_cut_short_is_refused(messages: list[Any], data: Any) -> None:
    whole = batch(0, messages)
    cut = data.draw(st.integers(62, len(whole) - 1))
    # The batch says that it ends there.
    broken = bytearray(whole[:cut])
    broken[8:12] = (cut - 12).to_bytes(4, "big")
    with pytest.raises(CorruptRecordError):
        messages_of(bytes(broken))


MESSAGE: Any = (b"k", b"v", [])


@pytest.mark.parametrize(
    ("batches", "start", "missing"),
    [
        ([batch(0, [MESSAGE]), batch(2, [MESSAGE])], 0, "1 to 1"),
        ([batch(5, [MESSAGE])], 3, "3 to 4"),
        ([batch(0, [MESSAGE, MESSAGE], offsets=[0, 3], last=3)], 0, "1 to 2"),
        ([batch(0, [MESSAGE], offsets=[0], last=4)], 0, "1 to 4"),
    ],
    ids=["a batch", "before the first", "inside a batch", "at its end"],
)
def test_offsets_that_are_missing_are_told(batches: list[bytes], start: int, missing: str) -> None:
    with pytest.raises(Gap, match=f"offsets {missing} are missing"):
        messages_of(*batches, start=start)


def test_what_was_removed_before_our_position_is_no_gap() -> None:
    found = messages_of(batch(0, [MESSAGE, MESSAGE], offsets=[0, 3], last=3), start=3)
    assert [record[0] for record in found] == [3]


def test_a_first_reading_may_meet_gaps() -> None:
    batches = [batch(0, [MESSAGE]), batch(7, [MESSAGE])]
    assert [record[0] for record in messages_of(*batches, until=8)] == [0, 7]


def test_the_driver_reads_partitions_by_the_class_that_is_replaced() -> None:
    """What `consume.Consumer` relies on: a later version of the driver may do otherwise."""
    import inspect

    fetcher: Any = Fetcher
    assert "self.PartitionRecords(" in inspect.getsource(fetcher._parse_fetched_data)
