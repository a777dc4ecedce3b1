"""Goal: what has become of a table's columns is told as a person would tell it; what only a person knows is a question.

Method: shapes by hand.
"""

from __future__ import annotations

import pytest

from engine.model.reshape import reshape
from engine.model.table import Column, Form, Kind, Shape


def shape(*columns: str) -> Shape:
    """A table of columns "name type"."""
    kinds = {"int": Kind.INTEGER, "text": Kind.TEXT, "date": Kind.DATE}
    made = [Column(name=n, type=t, kind=kinds[t]) for n, t in (column.split() for column in columns)]
    return Shape(name="t", form=Form.TEXT, key=("id",), columns=tuple(made))


OLD = shape("id int", "name text", "size int", "note text")


@pytest.mark.parametrize(
    ("new", "told"),
    [
        (OLD, []),
        (shape("id int", "name text", "size int", "note text", "extra date"), ["column extra (date) has come"]),
        (shape("id int", "name text", "note text"), ["column size is gone"]),
        (shape("id int", "name text", "size text", "note text"), ["column size is text and was int"]),
        (
            shape("id int", "name text", "extent int", "note text"),
            ["column size is gone, perhaps it is extent now", "column extent (int) has come"],
        ),
        (
            shape("id int", "name text", "note text", "extent int"),
            ["column size is gone, perhaps it is extent now", "column extent (int) has come"],
        ),
        (
            shape("id int", "name text", "note text", "extent date"),
            ["column size is gone", "column extent (date) has come"],
        ),
        (
            # Each stands where the other one stood before.
            shape("id int", "label text", "size int", "remark text"),
            [
                "column name is gone, perhaps it is label now",
                "column note is gone, perhaps it is remark now",
                "column label (text) has come",
                "column remark (text) has come",
            ],
        ),
        (
            # Two for one: nobody can tell.
            shape("id int", "size int", "note text", "label text", "title text"),
            ["column name is gone", "column label (text) has come", "column title (text) has come"],
        ),
        (shape("note text", "size int", "name text", "id int"), []),
    ],
)
def test_what_has_become_of_columns(new: Shape, told: list[str]) -> None:
    change = reshape(OLD, new)
    assert change.sentences() == told
    assert bool(change) is bool(told)
