"""The mapping by hand reads and writes rows as the ports ask.

Goal: simulations that use it test the pipeline, not the mapping.
Method: records through the writer into a memory database and back through the reader, in both forms and by every rule.
"""

from __future__ import annotations

import pytest

from engine.errors import TableHeld, ValueRefused
from engine.model.entity import Entity, Field, Match, Type
from engine.model.table import Column, Form, Kind, Shape
from engine.model.value import ABSENT, CanonicalRow
from engine.ports import Deletes, KeyRule, Mapping, Place, TableWrite, WriteKind, Written
from engine.testing.mapping import PlainMapping, PlainPlace
from engine.testing.memory import MemoryDatabase
from engine.testing.memory_target import execute
from engine.testing.memory_transaction import MemoryTransaction

JOB = Entity(
    name="job",
    fields=(
        Field(name="alive", type=Type.BOOLEAN),
        Field(name="title", type=Type.TEXT),
        Field(name="minutes", type=Type.INTEGER),
        Field(name="urgent", type=Type.BOOLEAN),
        Field(name="account", type=Type.REFERENCE, reference="account"),
        Field(name="note", type=Type.TEXT),
    ),
    matches=(Match(fields=("title", "minutes"), normalise=("text", "text")),),
)
FIELDS = {"title": "caption", "minutes": "mins", "urgent": "is_urgent", "account": "customer"}


def shape(form: Form) -> Shape:
    text, number, boolean = Kind.TEXT, Kind.INTEGER, Kind.BOOLEAN
    kinds = {"id": number, "kind": text, "caption": text, "mins": number, "is_urgent": boolean, "customer": number,
             "gone": boolean}  # fmt: skip
    return Shape(
        name="jobs",
        form=form,
        key=("id",),
        columns=tuple(Column(name=n, kind=k, type=k.value, is_assigned=n == "id") for n, k in kinds.items()),
    )


def place(**changes: object) -> PlainPlace:
    chosen: dict[str, object] = {
        "table": "jobs", "entity": "job", "fields": FIELDS, "references": {"account": "customers"},
        "constants": {"kind": "service"}, **changes,
    }  # fmt: skip
    return PlainPlace(**chosen)  # pyright: ignore[reportArgumentType]


def write(database: MemoryDatabase, written: Written, kind: WriteKind, *, is_assigned: bool = False) -> None:
    rows = [row for row in written.rows if row is not None]
    with database.transaction() as tx:
        assert isinstance(tx, MemoryTransaction)
        execute(
            tx,
            database.tables["jobs"],
            TableWrite(
                table="jobs", place="jobs", kind=kind, columns=written.columns, key=("id",), rows=rows,
                rids=list(range(len(rows))), assigned="id" if is_assigned else None,
            ),
            None,
        )  # fmt: skip


@pytest.mark.parametrize("form", Form)
@pytest.mark.parametrize("deletes", [Deletes.ROW, Deletes.FIELD])
def test_what_is_written_is_read(form: Form, deletes: Deletes) -> None:
    database = MemoryDatabase("fsm", form)
    database.create_table(shape(form))
    where = place(deletes=deletes, soft_delete="gone")
    writer, reader = where.writer(shape(form), JOB), where.reader(shape(form), JOB)
    first: CanonicalRow = (True, "Boiler", 90, True, "7", ABSENT)
    second: CanonicalRow = (True, None, -5, False, None, ABSENT)
    write(database, writer.insert(["3"], [first]), WriteKind.INSERT)
    write(database, writer.insert([None], [second]), WriteKind.INSERT, is_assigned=True)

    def read() -> tuple[list[str], list[CanonicalRow | None]]:
        rows = [database.tables["jobs"].rows[key] for key in database.sorted_keys("jobs")]
        found = reader.read(rows)
        assert not found.problems
        return found.keys, found.records

    assert read() == (["1", "3"], [second, first])
    changed: CanonicalRow = (deletes is Deletes.ROW, "Pump", 90, True, "7", ABSENT)
    write(database, writer.update(writer.mask & 0b11, ["3"], [changed]), WriteKind.UPDATE)
    assert read()[1] == [second, changed]
    write(database, writer.delete(["3"]), WriteKind.DELETE)
    assert read()[0] == ["1"]
    assert writer.mask & 1 == (deletes is Deletes.FIELD)
    assert reader.references == writer.references == ((4, "customers"),)


def test_rows_without_the_constants_do_not_take_part_and_those_without_the_column_are_a_problem() -> None:
    reader = place().reader(shape(Form.TEXT), JOB)
    read = reader.read(
        [
            ("1", "sales", "a", "1", "t", None, None),
            ("2", ABSENT, "a", "1", "t", None, None),
            ("3", "service", "a", "one", "t", None, None),
            ("4", "service", ABSENT, None, "f", None, None),
        ]
    )
    assert read.records == [None, None, None, (True, ABSENT, None, False, None, ABSENT)]
    assert set(read.problems) == {1, 2}
    assert "one" not in str(read.problems[2])


def test_keys_are_made_by_every_rule_and_again_the_same() -> None:
    record: CanonicalRow = (True, "Boiler", None, None, None, None)
    by_uuid = place(key_rule=KeyRule.UUID).allocate(JOB)
    assert by_uuid("h", [5], [record]) == by_uuid("h", [5], [record]) != by_uuid("h", [6], [record])
    by_field = place(key_rule=KeyRule.FIELD, key_field="title").allocate(JOB)
    assert by_field("h", [5], [record]) == ["Boiler"]
    with pytest.raises(ValueRefused):
        place(key_rule=KeyRule.FIELD, key_field="minutes").allocate(JOB)("h", [5], [record])


def test_a_key_of_several_columns_is_an_array_of_texts() -> None:
    where = place(key=("kind", "id"), constants={})
    reader, writer = where.reader(shape(Form.NATIVE), JOB), where.writer(shape(Form.NATIVE), JOB)
    assert reader.keys([(4, "service", None, None, None, None, None)]) == ['["service","4"]']
    assert writer.delete(['["service","4"]']) == Written(("kind", "id"), [("service", 4)])


def test_a_missing_column_holds_the_table() -> None:
    narrow = Shape(name="jobs", form=Form.TEXT, key=("id",), columns=shape(Form.TEXT).columns[:-1])
    place().reader(narrow, JOB)
    for compile_ in (place(deletes=Deletes.FIELD, soft_delete="gone").reader, place(fields={"note": "memo"}).writer):
        with pytest.raises(TableHeld):
            compile_(narrow, JOB)


def test_match_keys_want_every_field() -> None:
    where: Place = place()
    mapping: Mapping = PlainMapping(places=(where,))
    keys = mapping.match_keys(JOB)
    assert keys((True, "Boiler", 90, None, None, None)) == keys((True, "BOILER", 90, None, None, None)) != ()
    assert keys((True, "Boiler", None, None, None, None)) == ()
