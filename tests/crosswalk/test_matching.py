"""Goal: texts to match by are equal where people mean the same, and different where they do not.

Method: spellings side by side; rules compiled for an entity of the shipped dictionary.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crosswalk.dictionary import load_dictionary
from crosswalk.matching import NORMALISERS, match_keys
from engine.model.value import ABSENT, CanonicalRow


@pytest.mark.parametrize(
    ("rule", "left", "right"),
    [
        ("email", " Jane@X.org ", "jane@x.org"),
        ("phone", "030 901820", "+49 30 901820"),
        ("text", "ACME  GmbH & Co.", "acme gmbh co"),
        ("text", "Straße", "STRASSE"),
        ("tax", "DE 123.456-789", "de123456789"),
        ("postal", "sw1a 1aa", "SW1A1AA"),
    ],
)
def test_spellings_of_one_thing_match(rule: str, left: str, right: str) -> None:
    assert NORMALISERS[rule](left, "DE") == NORMALISERS[rule](right, "DE") != ""


@pytest.mark.parametrize(
    ("rule", "value"),
    [("email", "n/a"), ("email", "@"), ("phone", "none"), ("phone", "12"), ("text", " - "), ("tax", "-")],
)
def test_what_says_nothing_matches_nothing(rule: str, value: str) -> None:
    assert NORMALISERS[rule](value, "DE") == ""


def test_keys_carry_the_number_of_their_rule_and_need_all_fields() -> None:
    entity = load_dictionary("service").entity("account")
    assert entity is not None
    keys = match_keys(entity, "DE")

    def record(**values: Any) -> CanonicalRow:
        return tuple(values.get(field.name) for field in entity.fields)

    assert keys(record(email="Jane@X.org", name="Acme")) == ("2:jane@x.org",)
    assert keys(record(name="Acme", postal_code="10115", tax_id=ABSENT)) == ("3:acme\x1f10115",)
    assert keys(record()) == ()


def test_what_a_rule_leaves_open_may_say_nothing_and_is_then_the_same() -> None:
    entity = load_dictionary("service").entity("price")
    assert entity is not None
    keys = match_keys(entity)

    def record(**values: Any) -> CanonicalRow:
        return tuple(values.get(field.name) for field in entity.fields)

    assert keys(record(item=7)) == keys(record(item=7, price_list=ABSENT)) == ("1:7\x1f\x1f\x1f\x1f",)
    assert keys(record(item=7, price_list="Retail")) == ("1:7\x1f\x1fretail\x1f\x1f",) != keys(record(item=7))
    assert keys(record(price_list="Retail")) == ()


@given(value=st.text(max_size=40))
def test_normalising_twice_changes_nothing_and_nothing_raises(value: str) -> None:
    for rule in ("email", "phone", "text", "tax", "postal", "exact"):
        once = NORMALISERS[rule](value, "DE")
        assert NORMALISERS[rule](once, "DE") == once
