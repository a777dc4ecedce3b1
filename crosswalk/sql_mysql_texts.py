"""How MySQL compares texts: by a collation, of which its name tells what is certain.

What is certain: texts of the same characters are equal under every collation. Under the collations listed here a
printable ASCII character has one weight of its own, which letters share with their other case where the name ends in
`_ci`; spaces at the end count for nothing unless the collation is one without padding. Other characters may weigh
nothing, like an ASCII character, or like several of them. So a text that has any is certain to differ from an ASCII
text only when its own ASCII characters are not in the other one, in this order; those that stand beside another
character are left out, for the two may weigh something together (l and a middle dot do). Where nothing is certain the
comparison is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from crosswalk.convert import Loss
from crosswalk.sql_scope import SqlProblem

FIELDS: Final = "fields"
"""Stands for the collation of canonical values, which have none: they are compared by their characters."""

# Without tailoring for a language, where i may be y, or ch a letter of its own.
_KNOWN = re.compile(
    r"(?:[a-z0-9]+_)?"
    r"(?:general(?:_mysql500)?(?:_nopad)?_ci|unicode(?:_520)?(?:_nopad)?_ci|general_cs"
    r"|0900_(?:ai_ci|as_ci|as_cs)|uca1400(?:_nopad)?_a[is]_c[is])"
    r"|latin1_(?:swedish(?:_nopad)?|german1)_ci"
)
_PRINTABLE = re.compile(r"[ -~]*")
_OTHER = re.compile(r"[^ -~]")
# Characters that have no other beside them.
_LONE = re.compile(r"(?<![^ -~])[ -~](?![^ -~])")
_DOUBT: Final = "texts of which the column's collation alone says whether they are alike"


@dataclass(frozen=True, slots=True)
class Rule:
    """What a collation does. `is_exact`: characters are compared by their codes."""

    is_exact: bool
    folds: bool
    pads: bool

    def equal(self, left: str, right: str) -> bool:
        if self.pads:
            left, right = left.rstrip(" "), right.rstrip(" ")
        if left == right:
            return True
        if self.is_exact:
            return False
        if self.folds:
            left, right = _ascii_upper(left), _ascii_upper(right)
        left_is_plain, right_is_plain = _PRINTABLE.fullmatch(left), _PRINTABLE.fullmatch(right)
        if left_is_plain and right_is_plain:
            return left == right
        if left_is_plain and not _is_within(_LONE.findall(right), left):
            return False
        if right_is_plain and not _is_within(_LONE.findall(left), right):
            return False
        raise Loss(_DOUBT)

    def like(self, text: str, pattern: str, escape: str = "\\") -> bool:
        """Character by character, without padding. Other characters are alike to themselves for certain, and may be
        to any one character."""
        certain, possible = _patterns(pattern, escape, self.folds and not self.is_exact)
        if certain.fullmatch(text):
            return True
        if not self.is_exact and possible.fullmatch(text):
            raise Loss(_DOUBT)
        return False

    def locate(self, part: str, text: str, start: int = 1) -> int:
        """Counted from 1; 0 where it is not."""
        if start < 1 or start > len(text) + 1:
            return 0
        if not part:
            if start > 1:
                raise Loss("the place of nothing, which MariaDB counts in bytes")
            return 1
        if not self.is_exact:
            is_sign = len(part) == 1 and _PRINTABLE.fullmatch(part) and not part.isalpha() and part != " "
            if not is_sign and not (_PRINTABLE.fullmatch(part) and _PRINTABLE.fullmatch(text)):
                raise Loss(_DOUBT)
            if self.folds:
                part, text = _ascii_upper(part), _ascii_upper(text)
        return text.find(part, start - 1) + 1


@lru_cache(maxsize=256)
def rule_of(collation: str, what: str) -> Rule:
    """Raises `SqlProblem` for a collation of which too little is certain. `what`: a comparison, for the message."""
    if collation in (FIELDS, "binary"):
        return Rule(is_exact=True, folds=False, pads=False)
    if not collation:
        raise SqlProblem(f"{what}: no collation is known for these texts; add collate utf8mb4_bin, or another")
    pads = "nopad" not in collation and "_0900_" not in collation
    if collation.endswith("_bin"):
        return Rule(is_exact=True, folds=False, pads=pads)
    if _KNOWN.fullmatch(collation) is None:
        raise SqlProblem(f"{what} under collation {collation} is not computed here; add collate utf8mb4_bin")
    return Rule(is_exact=False, folds=collation.endswith("_ci"), pads=pads)


def merged(collations: list[str], what: str) -> str:
    """The collation of what is made from several texts; literals have none."""
    found = {collation for collation in collations if collation}
    if len(found) > 1:
        raise SqlProblem(f"{what}: texts of the collations {' and '.join(sorted(found))}; add collate to both")
    return found.pop() if found else ""


def is_unicode(collation: str) -> bool:
    return collation.startswith(("utf8", "uca1400"))


def _is_within(wanted: list[str], text: str) -> bool:
    """Whether the characters stand in the text in this order, with or without others between them."""
    rest = iter(text)
    return all(char in rest for char in wanted)


_UPPER = {ord(char): ord(char.upper()) for char in "abcdefghijklmnopqrstuvwxyz"}


def _ascii_upper(text: str) -> str:
    return text.translate(_UPPER)


@lru_cache(maxsize=512)
def _patterns(pattern: str, escape: str, folds: bool) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """What is like the pattern for certain, and what may be. A last escape character stands for itself."""
    certain: list[str] = []
    possible: list[str] = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        if char == escape and at + 1 < len(pattern):
            at += 1
            char = pattern[at]
        elif char in "%_":
            certain.append(".*" if char == "%" else ".")
            possible.append(certain[-1])
            at += 1
            continue
        one = f"[{char.lower()}{char.upper()}]" if folds and char.isascii() and char.isalpha() else re.escape(char)
        certain.append(one)
        possible.append("." if _OTHER.match(char) else f"(?:{one}|[^ -~])")
        at += 1
    return re.compile("".join(certain), re.DOTALL), re.compile("".join(possible), re.DOTALL)


_LATIN = frozenset("ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÐÑÒÓÔÕÖØÙÚÛÜÝÞàáâãäåæçèéêëìíîïðñòóôõöøùúûüýþ")


def _cased(method: Callable[[str], str]) -> Callable[[str, bool], str]:
    def change(text: str, wide: bool) -> str:
        """`wide`: of a column that holds Unicode; others have tables of their own beyond the letters of Latin-1."""
        if text.isascii():
            return method(text)
        for char in text:
            if char in _LATIN or char.lower() == char == char.upper() or char.isascii():
                continue
            is_usual = ("Ā" <= char <= "ķ" and char not in "İı") or "А" <= char <= "я"
            if not (wide and is_usual):
                raise Loss("a letter whose other case depends on the version of the database's collation")
        return method(text)

    return change


lower: Final = _cased(str.lower)
upper: Final = _cased(str.upper)
