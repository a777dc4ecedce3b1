"""Record batches as brokers keep them become messages, and what is missing among them is noticed.

Takes the place of kafka-python's own loop over a fetched partition, for two reasons. It drops the batches that a
producer's transactions leave (marks of commits and aborts, and what was aborted) before anybody sees their offsets, so
that behind it nobody can tell a message that the cleaner of a compacted topic removed from a mark: here every offset is
accounted for. And it makes three objects of each message, of which one is wanted, and reads headers that nobody looks
at, which with Debezium's messages take as long as all that follows.

The format: https://kafka.apache.org/documentation/#recordbatch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Final

import kafka.errors
from kafka.consumer.fetcher import Fetcher

Headers = list[tuple[str, bytes | None]]
Record = tuple[int, int, bytes | None, bytes | None, Headers | None]
"""Offset, time (milliseconds since 1970), key, value (None: a tombstone), and the headers, where one of `WANTED` is
among them."""
WANTED: Final = (b"__debezium.newkey", b"__debezium.oldkey")
_errors: Any = kafka.errors
_Base: Any = Fetcher.PartitionRecords


class Gap(_errors.KafkaError):
    """Offsets that the partition does not hold, among or before those that it does."""

    def __init__(self, topic: str, partition: int, first: int, last: int) -> None:
        Exception.__init__(self, f"topic {topic}, partition {partition}: offsets {first} to {last} are missing")


class Records(_Base):
    """One fetched partition. `loose_until`: by (topic, partition), the offset before which messages may be missing."""

    loose_until: ClassVar[Mapping[tuple[str, int], int]] = {}

    def _maybe_skip_record(self, record: Record) -> bool:
        return record[0] < self.fetch_offset

    def _unpack_records(
        self, tp: Any, records: Any, key_deserializer: Any, value_deserializer: Any
    ) -> Iterator[Record]:
        expected: int = self.fetch_offset
        loose = self.loose_until.get((tp.topic, tp.partition), 0)
        while (batch := records.next_batch()) is not None:
            if batch.magic < 2:
                for record in batch:
                    self.next_fetch_offset = record.offset + 1
                    self._count(len(record.value or b""))
                    yield record.offset, record.timestamp, record.key, record.value, None
                continue
            if self.check_crcs and not batch.validate_crc():
                raise _errors.CorruptRecordError(
                    f"topic {tp.topic}, partition {tp.partition}, offset {batch.base_offset}: checksum"
                )
            self.leader_epoch = batch.leader_epoch
            if batch.base_offset > expected and expected >= loose:
                raise Gap(tp.topic, tp.partition, expected, batch.base_offset - 1)
            if self._is_left_out(batch):
                expected = self.next_fetch_offset = batch.next_offset
                continue
            for record in _messages(batch):
                offset = record[0]
                if offset > expected and expected >= loose:
                    raise Gap(tp.topic, tp.partition, expected, offset - 1)
                expected = max(expected, offset + 1)
                self.next_fetch_offset = offset + 1
                self._count(len(record[3] or b""))
                yield record
            if batch.next_offset > expected and expected >= loose:
                raise Gap(tp.topic, tp.partition, expected, batch.next_offset - 1)
            expected = max(expected, batch.next_offset)
            self.next_fetch_offset = batch.next_offset
        self.drain()

    def _is_left_out(self, batch: Any) -> bool:
        """Whether it is a mark of a producer's transaction, or of one that was aborted."""
        if batch.has_producer_id():
            self._consume_aborted_transactions_up_to(batch.last_offset)
            if self._contains_abort_marker(batch):
                self.aborted_producer_ids.discard(batch.producer_id)
            elif self._is_batch_aborted(batch):
                return True
        return bool(batch.is_control_batch)

    def _count(self, size: int) -> None:
        counts: Any = self
        counts.records_read += 1
        counts.bytes_read += size


def _messages(batch: Any) -> Iterator[Record]:
    """The messages of a batch, uncompressed. Raises kafka-python's `CorruptRecordError`."""
    iter(batch)  # uncompresses
    data = bytes(batch._buffer)
    position: int = batch._pos
    base, time, is_appended = batch.base_offset, batch.first_timestamp, batch.timestamp_type
    try:
        for _ in range(batch.records_count):
            length, position = _varint(data, position)
            end = position + length
            delta, position = _varint(data, position + 1)
            offset, position = _varint(data, position)
            size, position = _varint(data, position)
            key = None
            if size >= 0:
                key = data[position : position + size]
                position += size
            size, position = _varint(data, position)
            value = None
            if size >= 0:
                value = data[position : position + size]
                position += size
            if position > end or end > len(data):
                raise IndexError
            headers = None
            if data.find(WANTED[0], position, end) >= 0 or data.find(WANTED[1], position, end) >= 0:
                headers = _headers(data, position)
            position = end
            yield base + offset, batch.max_timestamp if is_appended else time + delta, key, value, headers
    except IndexError:
        raise _errors.CorruptRecordError(f"a batch at offset {base} ends inside a message") from None


def _headers(data: bytes, position: int) -> Headers:
    found: Headers = []
    count, position = _varint(data, position)
    for _ in range(count):
        size, position = _varint(data, position)
        name = data[position : position + size].decode(errors="replace")
        position += size
        size, position = _varint(data, position)
        value = None
        if size >= 0:
            value = data[position : position + size]
            position += size
        found.append((name, value))
    return found


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """A number of variable length in zigzag, and the place behind it."""
    byte = data[position]
    position += 1
    if byte < 0x80:
        return (byte >> 1) ^ -(byte & 1), position
    number, shift = byte & 0x7F, 7
    while True:
        byte = data[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (number >> 1) ^ -(number & 1), position
        shift += 7
