"""Goal: however links and documents are packed into statements, the hub gives back what was put in.

Method: random keys of every kind (numbers, numbers that do not come back as they went in, texts of all alphabets, with
NUL) and numbers at the packing's limits, against plain dicts; transactions end in between at random.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.hub import recent
from engine.hub.packed import DIGITS_MAX, LARGE_END, SMALL_END, pairs, plain_integers, read_key, stored_key
from engine.hub.recent import Recent, Runs
from engine.hub.sqlite import SqliteHub, memory_hub
from engine.hub.transaction import HubTransaction
from engine.model.births import Births
from engine.model.record import CHANGE, Entry, Value, bits, encode_entry
from engine.runtime.clock import SystemClock

PLACE = 7
numbers = st.integers(0, 10**20).map(str) | st.integers(LARGE_END - 3, LARGE_END + 3).map(str)
texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
odd = st.sampled_from(
    [
        "",
        "0",
        "00",
        "007",
        "-1",
        "1.0",
        "٣",
        "1\0",
        "\0",
        "null",
        '"',
        "\\u0000",
        "\x1b",
        "\x1b0",
        "\x1b\x1b0",
        "\0\x1b",
    ]
)
keys = st.lists(numbers | texts | odd, unique=True, max_size=20)


def entry(seq: int, rid: int) -> Entry:
    return Entry(seq, rid, 1, 1, 0, 3, 0, 0 if seq == rid else rid, CHANGE, 0, (True, f"{seq}"))


def births(first: int, count: int) -> Births:
    return Births(first, 1, 1, 0, [0] * count, [(True, f"{seq}") for seq in range(first, first + count)])


def born(hub: SqliteHub, count: int) -> list[int]:
    """`count` new records; their rids."""

    def bear(tx: HubTransaction) -> list[int]:
        new = births(tx.last_seq + 1, count)
        if count:
            tx.append_births(new)
        return list(new.rids)

    return hub.transact_now(bear)


@given(st.lists(keys, max_size=4), st.booleans())
def test_links_come_back_as_they_were_made(groups: list[list[str]], is_one_transaction: bool) -> None:
    hub = memory_hub(SystemClock())
    made: dict[str, int] = {}
    asked = sorted({key for group in groups for key in group} | {"nobody", "12345", "0012345"})
    for n, group in enumerate(groups):
        new = [key for key in group if key not in made]
        rids = born(hub, len(new))

        def link(tx: HubTransaction, new: list[str] = new, rids: list[int] = rids, n: int = n) -> None:
            half = len(new) // 2
            for key, rid in zip(new[:half], rids[:half], strict=True):
                tx.link(PLACE, key, rid, n)
            tx.link_all(PLACE, new[half:], rids[half:], n)
            made.update(zip(new, rids, strict=True))
            if is_one_transaction:
                check(tx, asked, made)

        hub.transact_now(link)
        hub.transact_now(lambda tx: check(tx, asked, made))


def check(tx: HubTransaction, asked: list[str], made: dict[str, int]) -> None:
    rids = tx.load_rids(PLACE, asked)
    assert {key: rids[key] for key in asked if key in rids} == made
    assert tx.keys_of(PLACE, sorted(made.values())) == {rid: key for key, rid in made.items()}
    assert tx.keys_of(PLACE + 1, sorted(made.values())) == {}
    known = tx.load_keys(PLACE, asked)
    assert {key: known[key] for key in asked if key in known} == made
    assert {key: tx.linked_by(PLACE, rid) for key, rid in made.items()}.keys() == made.keys()


@given(st.lists(st.integers(1, 8), min_size=1, max_size=40), st.integers(0, 40))
def test_the_current_entry_is_the_last_one(changes: list[int], after: int) -> None:
    hub = memory_hub(SystemClock())
    born(hub, 8)
    current = {rid: rid for rid in range(1, 9)}

    def change(tx: HubTransaction) -> None:
        for rid in changes:
            seq = tx.last_seq + 1
            tx.append(entry(seq, rid))
            current[rid] = seq

    hub.transact_now(change)

    def look(tx: HubTransaction) -> None:
        found = tx.load_records(range(1, 20))
        assert {rid: e.seq for rid, e in found.items()} == current
        assert [e.seq for e in tx.read_journal(after, tx.last_seq)] == list(range(after + 1, tx.last_seq + 1))

    hub.transact_now(look)


values = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | texts


@given(st.integers(1, 3).flatmap(lambda n: st.lists(st.tuples(*[values] * n), min_size=1, max_size=8)), st.data())
def test_births_are_encoded_as_their_entries_are(records: list[tuple[Value, ...]], data: st.DataObject) -> None:
    times = data.draw(st.lists(st.integers(0, 2**52), min_size=len(records), max_size=len(records)))
    found = Births(data.draw(st.integers(1, 2**40)), 3, 2, 5, times, records)
    assert found.encoded() == [encode_entry(entry) for entry in found]
    for entry, record, rid in zip(found, records, found.rids, strict=True):
        assert (entry.seq, entry.rid, entry.values) == (rid, rid, record)
        assert [n for n, value in enumerate(record) if value is not None] == bits(entry.mask)


@given(keys)
def test_plain_integers_are_those_that_come_back(found: list[str]) -> None:
    stored = [stored_key(key) for key in found]
    expected = stored if found and all(isinstance(key, int) for key in stored) else None
    assert plain_integers(found) == expected
    assert [read_key(key) for key in stored] == found
    assert not any(isinstance(key, str) and "\0" in key for key in stored)
    assert all(len(str(key)) <= DIGITS_MAX for key in stored if isinstance(key, int))


wide = st.integers(-1, LARGE_END)


@given(st.lists(st.tuples(wide, st.integers(100, 100 + SMALL_END)), min_size=1, max_size=20))
def test_pairs_are_packed_in_order_or_not_at_all(found: list[tuple[int, int]]) -> None:
    packed = pairs([a for a, _ in found], [b for _, b in found], 100)
    fits = all(0 <= a < LARGE_END and b - 100 < SMALL_END for a, b in found)
    if not fits:
        assert packed is None
    else:
        assert packed is not None
        assert [(n // SMALL_END, n % SMALL_END + 100) for n in packed] == sorted(found)


@given(
    st.lists(st.tuples(st.integers(1, 7), st.booleans()), min_size=1, max_size=30),
    st.integers(1, 10),
    st.integers(1, 6),
    st.integers(0, 40),
)
def test_the_newest_entries_are_read_whole_or_not_at_all(
    commits: list[tuple[int, bool]], entries_max: int, list_max: int, bytes_max: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recent, "BIRTHS_MIN", 3)
        patch.setattr(recent, "LIST_MAX", list_max)
        newest, last = Recent(entries_max, bytes_max), 5
        expected: dict[int, Entry] = {}
        for count, are_births in commits:
            added, new = Runs(), births(last + 1, count)
            if are_births:
                added.extend(last + 1, new)
            else:
                for n in range(count):
                    added.append(new[n])
            expected.update((e.seq, e) for e in new)
            newest.add(added, count)
            last += count
            for after in range(last + 1):
                for until in (after + 1, last, last + 1):
                    found, found_births = newest.read(after, until), newest.births(after, until)
                    for entries in (found, found_births):
                        if entries is not None:
                            assert list(entries) == [expected[seq] for seq in range(after + 1, until + 1)]
            # An entry is a byte here.
            if last - 5 <= bytes_max:
                kept = min(entries_max, last - 5)
                assert newest.read(last - kept, last) is not None
            # No more than is wanted, and the run that this begins in: a commit, or a list.
            most = min(entries_max, bytes_max) + 7 + list_max
            assert last - 5 <= most or newest.read(last - most, last) is None


@given(st.lists(st.tuples(texts | odd, st.integers(1, 5)), max_size=10))
def test_match_keys_find_their_records(found: list[tuple[str, int]]) -> None:
    hub = memory_hub(SystemClock())

    def remember(tx: HubTransaction) -> None:
        for key, rid in found:
            tx.add_match_keys(1, [key], rid)
            tx.add_match_keys(2, [key], rid + 100)

    hub.transact_now(remember)
    expected: dict[str, set[int]] = {}
    for key, rid in found:
        expected.setdefault(key, set()).add(rid)
    assert hub.transact_now(lambda tx: tx.matches(1, [*expected, "nobody's"])) == expected
