"""What one kind of system can promise and another cannot: the words in which a plugin says so, as data.

What every plugin owes is not here: that nothing is handed out twice or forgotten, deliveries with their marker or
not at all, fencing, values exact, pages that meet the log. `engine.testing.contract` holds a kind to what it says: a
promise that is kept is tested, and of one that is not the opposite is. `engine.needs` refuses configurations that need
more.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass


class Promise(enum.Enum):
    """The value is its name, for configurations, pages and machines; `meaning` is a sentence."""

    ORDER = "order"
    EVERY_STATE = "every state"
    WHOLE_TRANSACTIONS = "whole transactions"
    WHOLE_ROWS = "whole rows"
    KEY_CHANGES = "key changes"
    TRUNCATION = "truncation"
    COMMIT_TIMES = "commit times"
    EVERY_WRITER = "every writer"
    OWN_WRITES = "own writes"
    SEEN = "seen"
    JOINS = "joins"
    ASSIGNED_KEYS = "assigned keys"
    DRAWN_KEYS = "drawn keys"

    @property
    def meaning(self) -> str:
        return _MEANINGS[self]


_MEANINGS = {
    Promise.ORDER: "changes come in the order of their commits",
    Promise.EVERY_STATE: "each state of a row that was committed comes, however short it was",
    Promise.WHOLE_TRANSACTIONS: "what was committed together comes together",
    Promise.WHOLE_ROWS: "a change brings all columns of its row, also those that it left as they were",
    Promise.KEY_CHANGES: "a row that gets another key stays one row, and its old key is told",
    Promise.TRUNCATION: "a table that is emptied at a stroke is told as such, and not as rows that were deleted",
    Promise.COMMIT_TIMES: "a change has the time of its commit",
    Promise.EVERY_WRITER: "no program can change a row without its being seen",
    Promise.OWN_WRITES: "our own deliveries are told from the changes of users",
    Promise.SEEN: "of each change it is known exactly which of our deliveries it came after",
    Promise.JOINS: "rows of several tables can be one row to the mapping, and a delivery finds which of them are there",
    Promise.ASSIGNED_KEYS: "keys that the database hands out come back with the delivery",
    Promise.DRAWN_KEYS: "keys are drawn from a sequence or a table of counters, as the application does it",
}


@dataclass(frozen=True, slots=True)
class Word:
    """What a kind says of a promise. `note`: on which terms it is kept, or why it is not, in a few words."""

    is_kept: bool
    note: str = ""


KEPT = Word(True)
Promises = Mapping[Promise, Word]


def kept(note: str) -> Word:
    return Word(True, note)


def not_kept(note: str) -> Word:
    return Word(False, note)


def promises(**broken_or_noted: Word) -> Promises:
    """All promises, kept but for those that are named otherwise, by their names in lower case with `_`.

    For a plugin that has been looked through: one that says less than it should fails its contract tests.
    """
    words = {Promise[name.upper()]: word for name, word in broken_or_noted.items()}
    return {promise: words.get(promise, KEPT) for promise in Promise}
