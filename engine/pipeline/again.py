"""What is not news, and has to be written all the same."""

from __future__ import annotations

from engine.hub.transaction import HubTransaction
from engine.model.record import AGAIN, Entry


def append_again(tx: HubTransaction, entry: Entry, mask: int, concerned: int) -> Entry:
    """Journal a record's present version again: the fields in `mask`, for the systems concerned."""
    seq = tx.last_seq + 1
    again = Entry(
        seq, entry.rid, entry.entity, 0, 0, mask, concerned, entry.seq, AGAIN, entry.seq, entry.values,
        entry.stamps_without(0),
    )  # fmt: skip
    tx.append(again)
    return again
