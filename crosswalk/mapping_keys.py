"""Who makes the keys of a block's new rows: `allocate`, loaded and checked as far as the file alone allows."""

from __future__ import annotations

import re
import string
from zoneinfo import ZoneInfo

from crosswalk.block import Template
from crosswalk.lines import Path
from crosswalk.mapping_forms import KeyForm, TableForm
from crosswalk.problems import Problems, convert_form, near
from engine.model.draw import Draw, Sequence, Series
from engine.model.entity import Entity, Type
from engine.ports import KeyRule

_SERIES = re.compile(r"(.*)\{n(?::0(\d))?d?\}")


class KeyLoader:
    """Problems go to `problems`."""

    def __init__(self, problems: Problems) -> None:
        self.problems = problems

    def allocate(
        self, entity: Entity, table: TableForm, path: Path, zone: ZoneInfo | None
    ) -> tuple[KeyRule | None, str | None, Template | None, Draw | None]:
        where = (*path, "allocate")
        rule = table.allocate
        if rule is None:
            return None, None, None, None
        open_columns = [column for column in table.key if column not in table.insert]
        if rule != "none" and len(open_columns) != 1:
            self.problems.add(where, "of a key of several columns all but one must be constants of `insert`")
        if isinstance(rule, str):
            if rule not in ("assigned", "uuid", "none"):
                known = ("assigned", "uuid", "none")
                self.problems.add(where, f"there is no rule {rule!r}{near(rule, known)}")
                return None, None, None, None
            if rule == "assigned" and len(table.key) != 1:
                self.problems.add(where, "a database assigns keys of one column only")
            return KeyRule(rule), None, None, None
        form = convert_form(rule, KeyForm, where, self.problems)
        if form is None:
            return None, None, None, None
        if sum(rule is not None for rule in (form.field, form.template, form.sequence, form.series)) != 1:
            self.problems.add(where, "exactly one of field, template, sequence and series is wanted")
        if form.sequence is not None or form.series is not None:
            if len(table.key) != 1:
                self.problems.add(where, "keys of one column only are drawn")
            return KeyRule.ASSIGNED, None, None, self._draw(form, where, zone)
        if form.field is not None:
            self._check_key_field(form.field, entity, (*where, "field"))
            return KeyRule.FIELD, form.field, None, None
        return KeyRule.TEMPLATE, None, self._template(form.template or "", entity, (*where, "template")), None

    def _draw(self, form: KeyForm, where: Path, zone: ZoneInfo | None) -> Draw | None:
        if form.sequence is not None:
            return Sequence(name=form.sequence)
        found = _SERIES.fullmatch(form.series or "")
        if found is None or re.search(r"[{}]", re.sub(r"\{(year|month|day)\}", "", found[1])):
            wanted = 'a text with a number at its end is wanted, as "SINV-{year}-{n:05d}" (or {month}, {day})'
            self.problems.add((*where, "series"), f"{wanted}, not {form.series!r}")
            return None
        return Series(
            before=found[1],
            digits=int(found[2] or 1),
            table=form.table,
            name_column=form.name,
            number_column=form.current,
            zone=zone or ZoneInfo("UTC"),
        )

    def _check_key_field(self, name: str, entity: Entity, where: Path) -> None:
        if name not in entity.index:
            self.problems.add(where, f"entity {entity.name!r} has no field {name!r}{near(name, entity.index)}")
        elif entity.fields[entity.index[name]].type in (Type.REFERENCE, Type.BOOLEAN, Type.JSON, Type.LIST):
            self.problems.add(where, f"a {entity.fields[entity.index[name]].type.value} makes no key")

    def _template(self, text: str, entity: Entity, where: Path) -> Template | None:
        try:
            parsed = list(string.Formatter().parse(text))
        except ValueError as error:
            self.problems.add(where, f"no template: {error}")
            return None
        parts: list[tuple[str, str | None, str]] = []
        for literal, name, spec, conversion in parsed:
            parts.append((literal, name, spec or ""))
            if name is None:
                continue
            if conversion is not None or "{" in (spec or ""):
                self.problems.add(where, f"only {{rid:06d}} or {{field}} can stand in a template, not {text!r}")
            elif name == "rid":
                self._check_spec(spec or "", where)
            else:
                self._check_key_field(name, entity, where)
                if spec:
                    self.problems.add(where, "only rid takes a format")
        if not any(name for _, name, _ in parts):
            self.problems.add(where, "a template without {rid} or a field gives every record the same key")
        return Template(text=text, parts=tuple(parts))

    def _check_spec(self, spec: str, where: Path) -> None:
        if not re.fullmatch(r"(0?[1-9]\d?)?[dxX]?", spec, re.ASCII):
            self.problems.add(where, f"the format of rid is as 06d, not {spec!r}")
