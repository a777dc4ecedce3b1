"""The consumer: one connection to the cluster, read in one thread of its own.

Partitions are assigned by us, all of them, and not by a consumer group: order across partitions asks for one reader,
and a group that moved partitions from one member to another could never keep it. A group is used, where one is named,
only to show others how far we are.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from time import monotonic, sleep
from typing import Any, Final

import anyio
import anyio.from_thread
import kafka
import kafka.errors
import kafka.structs
from anyio.streams.memory import MemoryObjectSendStream

from engine.errors import ConcordError
from engine.plugin import Site
from plugins.kafka.broker import Topic, open_admin, present
from plugins.kafka.config import KafkaConfig, client_parameters
from plugins.kafka.errors import lost, translate
from plugins.kafka.gather import Found, Number
from plugins.kafka.position import Resume
from plugins.kafka.records import Record, Records

_kafka: Any = kafka
_structs: Any = kafka.structs
# The broker answers as soon as there is anything; a wait ends so often that we may be told to stop.
POLL_MILLISECONDS: Final = 200
POLL_RECORDS_MAX: Final = 5_000
# What one answer brings at most: a few batches' worth, so that memory stays flat however far we are behind.
FETCH_BYTES_MAX: Final = 8 << 20
PARTITION_BYTES_MAX: Final = 2 << 20
# How often topics are looked at: for new partitions, and whether they are still the same topics.
LOOK_SECONDS: Final = 30.0
COMMIT_SECONDS: Final = 5.0
ASK_AGAIN_SECONDS: Final = 0.1


class Consumer:
    """Blocking. Made and used in threads, by one at a time; `paused`, `confirmed` and `stop` may be set by others."""

    def __init__(self, site: Site, config: KafkaConfig) -> None:
        self._site = site
        self._config = config
        self._client: Any = _kafka.KafkaConsumer(
            **client_parameters(site, config),
            group_id=config.group,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
            allow_auto_create_topics=False,
            max_poll_records=POLL_RECORDS_MAX,
            fetch_max_bytes=FETCH_BYTES_MAX,
            max_partition_fetch_bytes=PARTITION_BYTES_MAX,
            metadata_max_age_ms=int(LOOK_SECONDS * 1000),
            metrics_enabled=False,
        )
        loose: dict[Number, int] = {}

        class Strict(Records):
            loose_until = loose

        self._loose = loose
        self._client._fetcher.PartitionRecords = Strict
        self._topics: dict[str, Topic] = {}
        self._next: dict[Number, int] = {}
        self._paused: frozenset[Number] = frozenset()
        self._stopping = threading.Event()
        self.paused: frozenset[Number] = frozenset()
        """Partitions that are not to be read on for now."""
        self.confirmed: Mapping[str, Mapping[int, int]] | None = None
        """Offsets that are durable elsewhere."""
        self.error: ConcordError | None = None

    def close(self) -> None:
        self._client.close(autocommit=False)

    def stop(self) -> None:
        """Let `run` end soon."""
        self._stopping.set()

    def bounds(self, numbers: Iterable[Number]) -> tuple[dict[Number, int], dict[Number, int]]:
        """The first offset that each partition holds, and the one that the next message gets. Raises the driver's
        errors."""
        places = self._places(numbers)
        first, end = (self._asked(ask, places) for ask in (self._client.beginning_offsets, self._client.end_offsets))
        return {tuple(p): int(o) for p, o in first.items()}, {tuple(p): int(o) for p, o in end.items()}

    def offsets_at(self, numbers: Iterable[Number], time: int) -> dict[Number, int]:
        """The first offset of each partition whose message is of this time, milliseconds since 1970, or later; the end
        where there is none."""
        places = self._places(numbers)
        # The ends first: what comes in between belongs to what is later.
        ends = self._asked(self._client.end_offsets, places)
        found = self._asked(lambda wanted: self._client.offsets_for_times(dict.fromkeys(wanted, time)), places)
        # A partition without a leader is left out there as if it had no such message; here that is an error.
        self._asked(self._client.end_offsets, places)
        offsets = {tuple(p): int(ends[p]) if found[p] is None else int(found[p].offset) for p in places}
        # The broker was seen not to find a message that was the last and had just come: so the last ones are looked at.
        first, _ = self.bounds([tuple(p) for p in places if found[p] is None])
        return offsets | {
            number: self._first_since(number, time, begin, offsets[number]) for number, begin in first.items()
        }

    def _first_since(self, number: Number, time: int, first: int, end: int) -> int:
        """`offsets_at` of one partition, by reading from its end backwards."""
        start, count, later = end, 1, list[int]()
        while start > first:
            start = max(first, end - count)
            records = self.read(number, start, end)
            later = [offset for offset, at, *_ in records if at >= time]
            if len(later) < len(records):
                break
            count *= 10
        return min(later, default=end)

    def _asked(self, ask: Callable[[list[Any]], dict[Any, Any]], places: list[Any]) -> dict[Any, Any]:
        """What the client says of these partitions. One of which it has not heard yet, or whose broker has gone, is
        not in its answer, and it fails over that itself: then it asks again, as long as any request may take."""
        deadline = monotonic() + self._config.request_seconds_max
        while True:
            try:
                return ask(places)
            except KeyError:
                if monotonic() > deadline:
                    raise kafka.errors.LeaderNotAvailableError from None
            sleep(ASK_AGAIN_SECONDS)
            for topic in {place.topic for place in places}:
                self._client.partitions_for_topic(topic)

    def last_time(self, number: Number) -> int | None:
        """The time of the partition's last message, milliseconds since 1970; None where it is empty."""
        records = self.last_records(number, 1)
        return records[-1][1] if records else None

    def last_records(self, number: Number, count: int) -> list[Record]:
        """The partition's last messages: some, where there are any, and no more than `count` offsets' worth where the
        last of these are not marks that transactions of a producer leave."""
        first, end = self.bounds([number])
        while True:
            start = max(first[number], end[number] - count)
            records = self.read(number, start, end[number])
            if records or start == first[number]:
                return records
            count *= 10

    def follow(self, starts: Mapping[Number, int]) -> Iterator[tuple[Number, Sequence[Record]]]:
        """Messages from these offsets on, for ever; an empty list where a moment brings none."""
        self._next = dict(starts)
        self._let_gaps(starts)
        self._assign()
        while True:
            polled = self._client.poll(timeout_ms=POLL_MILLISECONDS)
            if not polled:
                yield next(iter(starts)), ()
            for place, records in polled.items():
                yield (place.topic, place.partition), records

    def _let_gaps(self, numbers: Iterable[Number]) -> None:
        """What is only looked at may be compacted."""
        self._loose |= dict.fromkeys(numbers, 2**63)

    def _places(self, numbers: Iterable[Number]) -> list[Any]:
        """As the driver spells them. It answers for partitions alone of which it has heard: so they are told to it."""
        places = [_kafka.TopicPartition(*number) for number in numbers]
        for topic in {place.topic for place in places}:
            self._client.partitions_for_topic(topic)
        return places

    def partitions(self, topic: str) -> list[int]:
        return sorted(self._client.partitions_for_topic(topic))

    def read(self, number: Number, start: int, end: int) -> list[Record]:
        """The messages that the partition holds from one offset to before another."""
        found: list[Record] = []
        if start >= end:
            return found
        self._next = {number: start}
        self._let_gaps([number])
        self._assign()
        place = _kafka.TopicPartition(*number)
        while self._client.position(place) < end:
            found += self._client.poll(timeout_ms=POLL_MILLISECONDS).get(place, ())
        return found

    def assign(self, resume: Resume, topics: Mapping[str, Topic]) -> dict[Number, int]:
        """Go on where `resume` says; gives the ends. Raises `PositionLost` where that is not to be had any more."""
        system = self._site.name
        for name, topic in topics.items():
            known = resume.ids.get(name, "")
            if known and topic.id and known != topic.id:
                raise lost(f"system {system}: topic {name} was deleted and made again", system)
        wanted = {(topic, n): offset for topic, offsets in resume.next.items() for n, offset in offsets.items()}
        for number in wanted:
            if number[0] not in topics or number[1] not in topics[number[0]].partitions:
                raise lost(f"system {system}: topic {number[0]} has no partition {number[1]} any more", system)
        self._loose.clear()
        self._loose |= {(topic, n): end for topic, ends in resume.loose.items() for n, end in ends.items()}
        first, ends = self.bounds(wanted)
        for number, offset in wanted.items():
            where = f"system {system}: topic {number[0]}, partition {number[1]}"
            if offset < first[number]:
                raise lost(f"{where} begins at offset {first[number]} now, behind our position {offset}", system)
            if offset > ends[number]:
                raise lost(f"{where} ends at offset {ends[number]}, before our position {offset}", system)
        self._topics = dict(topics)
        self._next = wanted
        self._assign()
        return ends

    def run(self, send: MemoryObjectSendStream[Found]) -> None:
        """Read until told to stop. What goes wrong is left in `error`; the stream then ends. Called in a thread of
        anyio."""
        looked = committed = monotonic()
        try:
            while not self._stopping.is_set():
                added: list[Number] = []
                if monotonic() - looked > LOOK_SECONDS:
                    added, looked = self.look(), monotonic()
                if self.confirmed is not None and monotonic() - committed > COMMIT_SECONDS:
                    self._commit()
                    committed = monotonic()
                self._pause()
                found = self._poll()
                found.added = added
                if found.records or found.next or added:
                    anyio.from_thread.run(send.send, found)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            # Whoever received has gone.
            return
        except ConcordError as error:
            self.error = error
        except (kafka.errors.KafkaError, OSError) as error:
            self.error = translate(error, self._config, system=self._site.name, doing="read topics")
        finally:
            anyio.from_thread.run_sync(send.close)

    def look(self) -> list[Number]:
        """Partitions that have come since the last look, which are read from now on. Raises `SourceUnready`,
        `PositionLost`."""
        with open_admin(self._site, self._config) as admin:
            topics = admin.topics(list(self._topics))
        added: list[Number] = []
        for topic in present(topics, self._topics, self._site.name):
            if topic.id != self._topics[topic.name].id:
                system = self._site.name
                raise lost(f"system {system}: topic {topic.name} was deleted and made again", system)
            added += [(topic.name, n) for n in topic.partitions if (topic.name, n) not in self._next]
        self._topics = topics
        if added:
            # Whatever they hold came after our position. Without its beginning something is lost.
            self._next |= dict.fromkeys(added, 0)
            self._assign()
        return added

    def _assign(self) -> None:
        places = [_kafka.TopicPartition(*number) for number in self._next]
        self._client.assign(places)
        for place in places:
            self._client.seek(place, self._next[place.topic, place.partition])
        self._paused = frozenset()

    def _pause(self) -> None:
        wanted = self.paused & self._next.keys()
        if wanted != self._paused:
            self._client.pause(*(_kafka.TopicPartition(*number) for number in wanted - self._paused))
            self._client.resume(*(_kafka.TopicPartition(*number) for number in self._paused - wanted))
            self._paused = wanted

    def _poll(self) -> Found:
        found = Found()
        for place, records in self._client.poll(timeout_ms=POLL_MILLISECONDS).items():
            found.records[place.topic, place.partition] = records
        for number, before in self._next.items():
            place = _kafka.TopicPartition(*number)
            after, end = self._client.position(place), self._client.highwater(place)
            if after is not None and after != before:
                found.next[number] = int(after)
            if end is not None:
                found.ends[number] = int(end)
        self._next |= found.next
        return found

    def _commit(self) -> None:
        confirmed, self.confirmed = self.confirmed, None
        if confirmed is None or self._config.group is None:
            return
        offsets: dict[Any, Any] = {
            _kafka.TopicPartition(topic, n): _structs.OffsetAndMetadata(offset, "", -1)
            for topic, numbers in confirmed.items()
            for n, offset in numbers.items()
        }
        self._client.commit_async(offsets)
