"""Rows made while they are read are the rows that would have been made at once, however they are read."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from crosswalk.plain_rows import SOME_ROWS, PlainRows
from engine.model.value import CanonicalRow, WireRow

SIZES = st.one_of(st.integers(0, 5), st.integers(SOME_ROWS - 2, 2 * SOME_ROWS + 2))


def make(keys: Sequence[str | None], records: Sequence[CanonicalRow]) -> list[WireRow]:
    return [(key, *record) for key, record in zip(keys, records, strict=True)]


@given(SIZES, st.integers(-600, 600), st.integers(-600, 600))
def test_rows_are_the_same_whole_by_slice_and_one_by_one(size: int, start: int, stop: int) -> None:
    keys = [str(n) for n in range(size)]
    records: list[CanonicalRow] = [(True, n) for n in range(size)]
    rows, wanted = PlainRows(make, keys, records), make(keys, records)
    assert len(rows) == size
    assert list(rows) == list(rows) == wanted
    assert list(rows[start:stop]) == wanted[start:stop]
    assert [rows[n] for n in range(size)] == wanted
