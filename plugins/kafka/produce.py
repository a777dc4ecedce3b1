"""The producer of a feed: one per daemon, with transactions, and what is known of the marker. Blocking; run in
threads."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import kafka
import msgspec

from engine.errors import Fenced, TargetUnready
from engine.plugin import Site
from plugins.kafka.config import KafkaConfig, client_parameters
from plugins.kafka.consume import Consumer
from plugins.kafka.rights import transactional_id

_kafka: Any = kafka
MARKER_KEY: Final = b'{"id":1}'
# A delivery is one transaction of the producer. Behind this the broker gives it up: a large one takes its time.
TRANSACTION_MILLISECONDS_MAX: Final = 600_000
# What one request may hold; the topic's max.message.bytes bounds a row, and is asked before.
REQUEST_BYTES_MAX: Final = 32 << 20


class Marker(msgspec.Struct, frozen=True):
    """The last delivery: which hub's, of which daemon, and its seq."""

    hub: str
    epoch: int
    seq: int


_decode = msgspec.json.Decoder(Marker).decode
_encode = msgspec.json.Encoder().encode


def marker_topic(config: KafkaConfig) -> str:
    return f"{config.feed}.concord-marker"


def feed_topic(config: KafkaConfig, table: str) -> str:
    return f"{config.feed}.{table}"


class Producer:
    """Writes in transactions. One caller at a time. All raise the driver's errors, beside ours."""

    def __init__(self, site: Site, config: KafkaConfig) -> None:
        self._site = site
        self._config = config
        self._topic = marker_topic(config)
        self._client: Any = None
        self._marker = Marker("", 0, 0)

    def close(self, *, is_good: bool) -> None:
        if self._client is not None:
            # What was not committed is not waited for.
            self._client.close(timeout=None if is_good else 0)

    def claim(self, hub: str, epoch: int) -> int:
        """Shut out earlier daemons and give the seq that was delivered last. Raises `Fenced`, `TargetUnready`."""
        self._check(self.read_marker(), hub, epoch)
        if self._client is None:
            self._client = _kafka.KafkaProducer(
                **client_parameters(self._site, self._config),
                transactional_id=transactional_id(self._config),
                transaction_timeout_ms=TRANSACTION_MILLISECONDS_MAX,
                max_request_size=REQUEST_BYTES_MAX,
                linger_ms=5,
                metrics_enabled=False,
            )
            # From here on whatever an earlier daemon has not committed is aborted, and nothing of it will be.
            self._client.init_transactions()
        found = self.read_marker()
        self._check(found, hub, epoch)
        self._marker = Marker(hub, epoch, 0 if found is None else found.seq)
        self.begin(self._marker.seq)
        self.commit()
        return self._marker.seq

    def begin(self, seq: int) -> None:
        """Begin a delivery with its marker."""
        self._client.begin_transaction()
        marker = Marker(self._marker.hub, self._marker.epoch, seq)
        self._client.send(self._topic, key=MARKER_KEY, value=_encode(marker), partition=0)

    def send(self, topic: str, messages: Iterable[tuple[bytes, bytes | None]]) -> None:
        send = self._client.send
        for key, value in messages:
            send(topic, key=key, value=value)

    def commit(self) -> None:
        self._client.commit_transaction()

    def abort(self) -> None:
        self._client.abort_transaction()

    def read_marker(self) -> Marker | None:
        """The last marker that was committed."""
        consumer = Consumer(self._site, self._config)
        try:
            records = consumer.last_records((self._topic, 0), 20)
        finally:
            consumer.close()
        values = [value for _, _, key, value, _ in records if key == MARKER_KEY and value is not None]
        if not values:
            return None
        try:
            return _decode(values[-1])
        except msgspec.MsgspecError:
            raise TargetUnready(
                f"system {self._site.name}: topic {self._topic} holds what is no marker of ours",
                hint="Choose another name in `feed`.",
                system=self._site.name,
            ) from None

    def _check(self, found: Marker | None, hub: str, epoch: int) -> None:
        if found is None:
            return
        if found.hub != hub:
            raise TargetUnready(
                f"system {self._site.name}: this feed belongs to hub {found.hub}",
                hint="Choose another name in `feed`, or delete the feed's topics.",
                system=self._site.name,
                hub=found.hub,
            )
        if found.epoch > epoch:
            raise Fenced(
                f"system {self._site.name}: a daemon of epoch {found.epoch} writes to it, ours is {epoch}",
                hint="Stop one of the two daemons.",
                system=self._site.name,
            )
