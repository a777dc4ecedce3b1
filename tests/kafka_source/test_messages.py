"""Goal: any bytes are a message or are refused; places and values are what Debezium says they are.

Method: bytes and near-messages from Hypothesis; dates and times beside Python's own.
"""

from __future__ import annotations

import json
from base64 import b64encode
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.errors import MalformedLog, PositionLost, SourceUnready
from plugins.kafka import values
from plugins.kafka.buffer import Partition
from plugins.kafka.config import KafkaConfig
from plugins.kafka.ingest import Ingest
from plugins.kafka.message import Malformed, Source, decode_boundary, decode_event, place_of, stream_of, unwrap
from plugins.kafka.names import Names

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FIELDS = ("op", "source", "before", "after", "transaction", "schema", "payload", "status", "id", "event_count")
NEARLY = st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=6).map(lambda value: json.dumps(value).encode())


@given(st.binary(max_size=80) | NEARLY)
def test_any_bytes_decode_or_are_refused(payload: bytes) -> None:
    for decode in (decode_event, decode_boundary, unwrap):
        try:
            decode(payload)
        except Malformed:
            continue


@given(st.binary(max_size=80) | NEARLY, st.sampled_from(["envelope", "flat"]), st.none() | st.binary(max_size=20))
def test_any_message_is_taken_or_refused(value: bytes, form: Any, key: bytes | None) -> None:
    config = KafkaConfig(servers=("none:1",), prefix="p", order="row", form=form)
    names = Names(config, ["public.t"])
    partition = Partition("p.public.t", 0, next=0)
    ingest = Ingest("crm", config, names, since=0, keys={})
    try:
        ingest.take(partition, [(0, 0, key, value, None)])
    except (MalformedLog, SourceUnready, PositionLost):
        return


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        # PostgreSQL: by the commits before, whatever the changes' own places are.
        ({"sequence": '[null,"900"]'}, {"sequence": '["950","800"]'}),
        ({"sequence": '["950","800"]'}, {"sequence": '["950","960"]'}),
        ({"sequence": '["950","960"]'}, {"sequence": '["1000","10"]'}),
        (
            {"connector": "mariadb", "file": "log.000009", "pos": 900},
            {"connector": "mariadb", "file": "log.000010", "pos": 4},
        ),
        (
            {"connector": "mysql", "file": "log.000010", "pos": 4, "row": 0},
            {"connector": "mysql", "file": "log.000010", "pos": 4, "row": 1},
        ),
    ],
)
def test_places_are_in_the_order_in_which_the_connector_reads(earlier: dict[str, Any], later: dict[str, Any]) -> None:
    common: dict[str, Any] = {"connector": "postgresql", "ts_ms": 0}
    first, second = (place_of(Source(**(common | fields))) for fields in (earlier, later))
    assert first is not None
    assert second is not None
    assert first < second


@pytest.mark.parametrize(
    ("id", "found"),
    [
        ("760:24326520", ("", (24326520,))),
        ("0-1-6", ("0", (6,))),
        ("3e11fa47-71ca-11e1-9e33-c80aa9429562:23", ("3e11fa47-71ca-11e1-9e33-c80aa9429562", (23,))),
        ("file=binlog.000012,pos=154", ("", (12, 154))),
        ("00000025:00000d08:0025", ("", (0x25, 0xD08, 0x25))),
        ("something else", None),
    ],
)
def test_ids_of_transactions_tell_their_place(id: str, found: object) -> None:
    assert stream_of(id) == found


@given(st.dates())
def test_days_are_dates(day: date) -> None:
    assert values.date((day - date(1970, 1, 1)).days) == day.isoformat()


@pytest.mark.parametrize(
    ("days", "text"), [(-719_162, "0001-01-01"), (-719_163, "0001-12-31 BC"), (2_932_897, "10000-01-01")]
)
def test_days_before_christ_and_after_9999(days: int, text: str) -> None:
    assert values.date(days) == text


@given(st.datetimes(), st.sampled_from([1_000, 1_000_000, 1_000_000_000]))
@example(datetime(2262, 4, 11, 23, 47, 10), 1_000_000_000)
def test_numbers_are_moments(moment: datetime, unit: int) -> None:
    if unit == 1_000:
        moment = moment.replace(microsecond=moment.microsecond // 1000 * 1000)
    since = moment.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    number = since // timedelta(microseconds=1) * unit // 1_000_000
    text = moment.isoformat(sep=" ")
    assert values.timestamp_of(unit)(number) == (text.rstrip("0") if "." in text else text)


@given(st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1)), st.integers(-14 * 60, 14 * 60))
def test_moments_with_a_zone_are_told_in_utc(moment: datetime, minutes: int) -> None:
    local = moment.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    text = local.astimezone(UTC).replace(tzinfo=None).isoformat(sep=" ")
    assert values.zoned(local.isoformat()) == (text.rstrip("0") if "." in text else text) + "+00"
    # As Debezium spells it.
    in_utc = local.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ").rjust(27, "0")
    assert values.zoned(in_utc) == values.zoned(local.isoformat())


def test_digits_that_no_database_keeps_are_not_dropped() -> None:
    with pytest.raises(ValueError, match="digits"):
        values.timestamp_of(1_000_000_000)(1_709_208_000_123_456_789)
    with pytest.raises(ValueError, match="digits"):
        values.zoned("2024-02-29T12:00:00.123456789Z")


@given(st.decimals(allow_nan=False, allow_infinity=False, places=4, min_value=-(10**20), max_value=10**20))
def test_bytes_are_decimals(number: Decimal) -> None:
    unscaled = int(number.scaleb(4))
    size = (unscaled.bit_length() + 8) // 8
    coded = b64encode(unscaled.to_bytes(size, "big", signed=True)).decode()
    assert Decimal(values.unscaled(4)(coded)) == number
    assert values.variable({"scale": 4, "value": coded}) == values.unscaled(4)(coded)


def test_a_floating_point_number_is_no_decimal() -> None:
    with pytest.raises(ValueError, match="floating"):
        values.unscaled(2)(0.1)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_the_text_of_a_number_reads_back_the_same(number: float) -> None:
    assert float(values.floating(number)) == number


@pytest.mark.parametrize(
    ("number", "text"),
    [(1e15, "1e+15"), (-1.5e15, "-1.5e+15"), (1e14, "100000000000000"), (0.1, "0.1"), (1e-5, "1e-05")],
)
def test_numbers_are_spelt_as_databases_do(number: float, text: str) -> None:
    assert values.floating(number) == text
