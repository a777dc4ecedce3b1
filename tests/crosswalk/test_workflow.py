"""Goal: a workflow means what its file says, and a mistake in it is told with its line before anything runs.

Method: workflows over the shipped dictionary, asked with records; mistakes of every kind.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from crosswalk.dictionary import load_dictionary
from crosswalk.workflow import load_workflows, shipped_workflows
from engine.errors import ConfigError, ValueRefused
from engine.model.entity import Entity
from engine.model.record import Value
from engine.workflow import Made, MadeBy, Workflow

ENTITIES = {entity.name: entity for entity in load_dictionary("service").entities}
TEXT = """
[[workflow]]
name = "jobs"
description = "Quotes become jobs."
on = "quote"
when = "status = 'approved' and revision > 0"
[[workflow.make]]
entity = "work_order"
key = "number || '/' || revision"
follow = "status = 'new'"
[workflow.make.set]
account = "account"
title = "'Quote ' || number"
planned_labour = "labour"
[[workflow.make]]
for = "quote_line"
where = "quote_line.kind = 'part'"
entity = "part_line"
[workflow.make.set]
work_order = "work_order"
item = "quote_line.item"
quantity_planned = "quote_line.quantity * 2"
[[workflow.make]]
change = "this"
entity = "quote"
set = { status = "'invoiced'" }
"""


def bound(folder: Path, text: str = TEXT) -> Workflow:
    file = folder / "flows.toml"
    file.write_text(text)
    (found,) = load_workflows(file).bind(ENTITIES)
    return found


def record(entity: Entity, **values: Any) -> tuple[Value, ...]:
    return tuple(values.get(field.name) for field in entity.fields)


def test_a_workflow_means_what_it_says(tmp_path: Path) -> None:
    workflow = bound(tmp_path)
    quote, line, job, part = (ENTITIES[name] for name in ("quote", "quote_line", "work_order", "part_line"))
    approved = record(quote, alive=True, number="Q7", revision=2, status="approved", account=5, labour="7200")
    assert workflow.holds(approved)
    assert not workflow.holds(record(quote, number="Q7", revision=2, status="draft"))
    assert not workflow.holds(record(quote, status="approved"))
    work, parts, own = workflow.makes
    assert work.key(approved) == "Q7/2"
    assert work.key(record(quote, number="Q7")) is None
    assert {job.fields[n].name: value for n, value in work.values(approved).items()} == {
        "account": 5, "title": "Quote Q7", "planned_labour": "7200",
    }  # fmt: skip
    assert work.follows(record(job, status="new"))
    assert not work.follows(record(job, status="closed"))
    assert parts.children == (line.id, line.index["quote"])
    seen = (*approved, *record(line, alive=True, kind="part", item=9, quantity="1.5"))
    assert parts.where(seen)
    assert not parts.where((*approved, *record(line, kind="labour")))
    assert {part.fields[n].name: value for n, value in parts.values(seen).items()} == {
        "work_order": MadeBy("work_order"), "item": 9, "quantity_planned": "3",
    }  # fmt: skip
    assert (own.change, own.values(approved)) == (-1, {quote.index["status"]: "invoiced"})


def test_this_is_the_record_itself(tmp_path: Path) -> None:
    text = TEXT.replace('on = "quote"', 'on = "account"').replace("status = 'approved' and revision > 0", "true")
    text = text[: text.index("[[workflow.make]]")] + (
        '[[workflow.make]]\nentity = "contact"\nkey = "name"\nset = { account = "this", family_name = "name" }'
    )
    (make,) = bound(tmp_path, text).makes
    values = make.values(record(ENTITIES["account"], name="Acme"))
    assert values[ENTITIES["contact"].index["account"]] is Made.THIS


def test_a_value_that_cannot_be_computed_names_its_place(tmp_path: Path) -> None:
    text = TEXT.replace("quote_line.quantity * 2", "1 / (quote_line.quantity - 1)")
    make = bound(tmp_path, text).makes[1]
    seen = (*record(ENTITIES["quote"]), *record(ENTITIES["quote_line"], quantity="1"))
    with pytest.raises(ValueRefused, match=r"workflow jobs, make\[1\].set.quantity_planned \(.*flows.toml:\d+\)"):
        make.values(seen)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('on = "quote"', 'on = "quot"', "workflow[0].on: there is no entity 'quot'; did you mean 'quote'?"),
        ("status = 'approved'", "stats = 'approved'", "did you mean 'status'?"),
        ('entity = "work_order"', 'entity = "job"', "make[0].entity: there is no entity 'job'"),
        ('for = "quote_line"', 'for = "invoice_line"', "no field refers to 'quote' in 'invoice_line'"),
        ("key = \"number || '/' || revision\"\n", "", "say what names the record"),
        ('change = "this"', 'change = "this"\nkey = "number"', "what is changed is there, and needs no key"),
        ('account = "account"', 'account = "site"', "a reference to account is wanted"),
        ('account = "account"', 'acount = "account"', "has no field 'acount'; did you mean 'account'?"),
        ("'Quote ' || number", "'Quote ' || this", "'this' is the record itself"),
        ('item = "quote_line.item"', 'item = "quote_line.itm"', "did you mean 'quote_line.item'?"),
        ('entity = "part_line"', 'entity = "part_line"\nas = "work_order"', "there are two makes named 'work_order'"),
        ('name = "jobs"', 'nam = "jobs"', "unknown key 'nam'; did you mean 'name'?"),
    ],
)
def test_a_mistake_is_told_with_its_line(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in TEXT
    with pytest.raises(ConfigError) as raised:
        bound(tmp_path, TEXT.replace(old, new, 1))
    assert said in "\n".join(raised.value.problems)
    assert "flows.toml:" in raised.value.problems[0]


def test_what_ships_binds_to_the_dictionary_and_rests_where_an_entity_is_not_mapped() -> None:
    assert shipped_workflows() == ["service"]
    shipped = load_workflows("service")
    assert shipped.bind(ENTITIES)
    some = {name: entity for name, entity in ENTITIES.items() if name != "part_line"}
    assert [flow.name for flow in shipped.bind(some, is_partial=True)] == []
