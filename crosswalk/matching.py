"""Do two rows of two systems mean the same customer? Texts to compare by, made from an entity's match rules.

The rules normalise what people spell differently without changing who is meant. They are for finding candidates; the
values of the records stay as they were written.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import phonenumbers

from engine.model.entity import Entity
from engine.model.value import ABSENT, CanonicalRow

Normaliser = Callable[[str, str], str]
"""(value, region) → the text to compare by; "" when nothing is left to compare."""

# Some countries have local numbers of two or three digits; as a telephone number of a customer they are a placeholder.
PHONE_DIGITS_MIN = 7

_PUNCTUATION = re.compile(r"[\W_]+")
_NOT_ALPHANUMERIC = re.compile(r"[^0-9A-Z]+")


def normalise_email(value: str, region: str = "") -> str:
    """`" Jane@X.org "` → `jane@x.org`. Without an @ it is no address and matches nothing."""
    text = unicodedata.normalize("NFKC", value).strip().lower()
    return text if "@" in text[1:-1] else ""


def normalise_phone(value: str, region: str = "") -> str:
    """E.164. A number without a country prefix is read as one of `region`; one that is no number matches nothing."""
    try:
        number = phonenumbers.parse(value, region or None)
    except phonenumbers.NumberParseException:
        return ""
    if not phonenumbers.is_possible_number(number):
        return ""
    text = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
    return text if len(text) > PHONE_DIGITS_MIN else ""


def normalise_text(value: str, region: str = "") -> str:
    """Case, width, punctuation and runs of spaces make no difference."""
    return _PUNCTUATION.sub(" ", unicodedata.normalize("NFKC", value).casefold()).strip()


def normalise_tax(value: str, region: str = "") -> str:
    """Letters and digits, in capitals: `"de 123.456-789"` → `DE123456789`."""
    return _NOT_ALPHANUMERIC.sub("", unicodedata.normalize("NFKC", value).upper())


def normalise_postal(value: str, region: str = "") -> str:
    """As for tax numbers: `"sw1a 1aa"` and `"SW1A1AA"` are one code."""
    return normalise_tax(value)


def normalise_exact(value: str, region: str = "") -> str:
    return value


NORMALISERS: Final[dict[str, Normaliser]] = {
    "email": normalise_email,
    "phone": normalise_phone,
    "text": normalise_text,
    "tax": normalise_tax,
    "postal": normalise_postal,
    "exact": normalise_exact,
}
"""Rule name → function. `"phone:DE"` gives the rule a region of its own."""

_Part = tuple[int, Normaliser, str, bool]
"""Field, rule, region, and whether it may say nothing."""


@dataclass(frozen=True, slots=True)
class EntityMatchKeys:
    """Match texts of one entity's records: `engine.ports.MatchKeys`."""

    rules: tuple[tuple[int, tuple[_Part, ...]], ...]

    def __call__(self, record: CanonicalRow) -> tuple[str, ...]:
        found: list[str] = []
        for number, parts in self.rules:
            texts: list[str] = []
            for index, normaliser, region, is_optional in parts:
                value = record[index] if index < len(record) else None
                text = ""
                if value is not None and value is not ABSENT:
                    text = normaliser(value if isinstance(value, str) else str(value), region)
                if not text and not is_optional:
                    break
                # The separator cannot come from a value, or two fields could be split in two ways.
                texts.append(text.replace("\x1f", " "))
            else:
                found.append(f"{number}:" + "\x1f".join(texts))
        return tuple(found)


def match_keys(entity: Entity, region: str = "") -> EntityMatchKeys:
    """Compile the entity's rules. `region`: ISO 3166-1 code of the country that local telephone numbers belong to."""
    rules: list[tuple[int, tuple[_Part, ...]]] = []
    for number, match in enumerate(entity.matches):
        parts: list[_Part] = []
        for name, rule in zip(match.fields, match.normalise, strict=True):
            kind, _, own_region = rule.partition(":")
            parts.append((entity.index[name], NORMALISERS[kind], own_region or region, name in match.optional))
        rules.append((number, tuple(parts)))
    return EntityMatchKeys(tuple(rules))
