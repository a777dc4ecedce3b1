"""Workflows: which records follow from others. TOML beside the dictionary, conditions and values in SQL over fields.

The SQL is PostgreSQL's, over canonical values. Fields of the record that a workflow is about go by their names, those
of a child by `entity.field`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path as FilePath
from typing import Any, cast

import msgspec
from sqlglot import exp
from sqlglot.expressions import Expr

from crosswalk.block import MappedField
from crosswalk.carry import Names
from crosswalk.compile import REFUSALS, reason_of
from crosswalk.expression import compile_read, compile_test, parse_sql
from crosswalk.lines import Path, path_text
from crosswalk.problems import Problems, convert_form, near, read_toml
from crosswalk.sql_scope import Scope, SqlProblem, column_name
from engine.errors import ValueRefused
from engine.model.entity import Entity, Field, Type
from engine.model.record import Value
from engine.workflow import Derived, Made, MadeBy, Make, Seen, Workflow

SHIPPED = FilePath(__file__).with_name("workflows")
DIALECT = "postgres"
THIS = "this"


class MakeForm(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, rename={"for_": "for", "as_": "as"}):
    entity: str
    as_: str | None = None
    for_: str | None = None
    where: str | None = None
    key: str | None = None
    set: dict[str, str]
    follow: str | None = None
    change: str | None = None


class WorkflowForm(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    name: str
    description: str
    on: str
    when: str
    make: list[Any]


class WorkflowsForm(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    description: str = ""
    workflow: list[Any] = []


class Workflows:
    """A file of workflows, read. `bind` gives them the entities as the hub numbers their fields."""

    def __init__(self, document: dict[str, Any], problems: Problems) -> None:
        self._document, self._problems = document, problems
        form = convert_form(document, WorkflowsForm, (), problems)
        self.description = form.description if form is not None else ""
        self._raw = form.workflow if form is not None else []

    def bind(self, entities: Mapping[str, Entity], *, is_partial: bool = False) -> tuple[Workflow, ...]:
        """`is_partial`: workflows with entities that are not among these rest.

        Raises `ConfigError` listing every problem as "file:line: path: message".
        """
        found: list[Workflow] = []
        for n, raw in enumerate(self._raw):
            path: Path = ("workflow", n)
            form = convert_form(raw, WorkflowForm, path, self._problems)
            if form is None or (is_partial and not _entities_of(form) <= entities.keys()):
                continue
            if any(other.name == form.name for other in found):
                self._problems.add((*path, "name"), f"there are two workflows named {form.name!r}")
            made = _Binder(entities, self._problems, form, path).workflow()
            if made is not None:
                found.append(made)
        self._problems.raise_if_any("workflows")
        return tuple(found)


def load_workflows(source: str | FilePath) -> Workflows:
    """A TOML file, or the shipped one of that name ("service"). Raises `ConfigError` when it cannot be read."""
    file = FilePath(source) if str(source).endswith(".toml") else SHIPPED / f"{source}.toml"
    document, problems = read_toml(file, "workflows")
    return Workflows(document, problems)


def shipped_workflows() -> list[str]:
    return sorted(file.stem for file in SHIPPED.glob("*.toml"))


def _entities_of(form: WorkflowForm) -> set[str]:
    found = {form.on}
    for raw in form.make:
        if isinstance(raw, dict):
            make = cast("dict[str, Any]", raw)
            found |= {str(make[key]) for key in ("entity", "for") if key in make}
    return found


class _Binder:
    """One workflow."""

    def __init__(self, entities: Mapping[str, Entity], problems: Problems, form: WorkflowForm, path: Path) -> None:
        self.entities, self.problems, self.form, self.path = entities, problems, form, path

    def workflow(self) -> Workflow | None:
        on = self._entity(self.form.on, (*self.path, "on"))
        if on is None:
            return None
        holds = self._test(self.form.when, on, (*self.path, "when"))
        makes: list[Make] = []
        for n, raw in enumerate(self.form.make):
            where = (*self.path, "make", n)
            form = convert_form(raw, MakeForm, where, self.problems)
            if form is not None:
                made = self._make(form, on, [make.name for make in makes], where)
                if made is not None:
                    makes.append(made)
        if not self.form.make:
            self.problems.add((*self.path, "make"), "a workflow makes something: [[workflow.make]]")
        return Workflow(name=self.form.name, on=on.id, holds=holds, makes=tuple(makes))

    def _make(self, form: MakeForm, on: Entity, before: list[str], path: Path) -> Make | None:
        entity = self._entity(form.entity, (*path, "entity"))
        name = form.as_ or form.entity
        if name in before:
            self.problems.add(path, f'there are two makes named {name!r}; give one of them as = "…"')
        children, scope = self._children(form, on, path)
        if entity is None or scope is None:
            return None
        if form.key is None and children is None and form.change is None:
            self.problems.add((*path, "key"), "say what names the record, a field or SQL: the same key is the same one")
        if form.key is not None and form.change is not None:
            self.problems.add((*path, "key"), "what is changed is there, and needs no key")
        key = self._key(form, scope, (*path, "key"))
        return Make(
            name=name,
            entity=entity.id,
            children=children,
            where=self._test(form.where or "true", scope, (*path, "where")),
            key=key,
            values=self._values(form.set, entity, scope, before, (*path, "set")),
            follows=self._test(form.follow or "true", entity, (*path, "follow")),
            change=None if form.change is None else self._changed(form.change, entity, on, scope, (*path, "change")),
        )

    def _changed(self, text: str, entity: Entity, on: Entity, scope: Entity, path: Path) -> int:
        """The reference field whose record is changed; -1: the record that the workflow is about."""
        if text == THIS and entity.name == on.name:
            return -1
        found = self._reference(text, Field(name="", type=Type.REFERENCE, reference=entity.name), scope, [], path)
        return found if isinstance(found, int) else -1

    def _children(self, form: MakeForm, on: Entity, path: Path) -> tuple[tuple[int, int] | None, Entity | None]:
        """Whose children they are, and the names that SQL may use."""
        if form.for_ is None:
            return None, on
        child = self._entity(form.for_, (*path, "for"))
        if child is None:
            return None, None
        fields = [n for n, name in child.references if name == on.name]
        if len(fields) != 1:
            many = "several fields refer" if fields else "no field refers"
            self.problems.add((*path, "for"), f"{many} to {on.name!r} in {child.name!r}; exactly one is wanted")
            return None, None
        own = [msgspec.structs.replace(field, name=f"{child.name}.{field.name}") for field in child.fields]
        both = Entity(name=f"{on.name} and {child.name}", fields=(*on.fields, *own))
        return (child.id, fields[0]), both

    def _entity(self, name: str, path: Path) -> Entity | None:
        found = self.entities.get(name)
        if found is None:
            self.problems.add(path, f"there is no entity {name!r}{near(name, self.entities)}")
        return found

    def _key(self, form: MakeForm, scope: Entity, path: Path) -> Callable[[Seen], str | None]:
        if form.key is None:
            # The child itself names it: `values` are asked with its rid, which the engine adds.
            return lambda seen: ""
        compute = self._value(form.key, Field(name="key", type=Type.TEXT), scope, path)
        return lambda seen: None if (found := compute(seen)) is None else str(found)

    def _values(
        self, texts: Mapping[str, str], entity: Entity, scope: Entity, before: list[str], path: Path
    ) -> Callable[[Seen], dict[int, Derived]]:
        fixed: dict[int, Derived] = {}
        computed: dict[int, Callable[[Seen], Value]] = {}
        for name, text in texts.items():
            where = (*path, name)
            if name not in entity.index or name == "alive":
                self.problems.add(where, f"entity {entity.name!r} has no field {name!r}{near(name, entity.index)}")
                continue
            field = entity.fields[entity.index[name]]
            if field.type is Type.REFERENCE:
                found = self._reference(text, field, scope, before, where)
                if isinstance(found, int):
                    computed[entity.index[name]] = lambda seen, n=found: seen[n]
                elif found is not None:
                    fixed[entity.index[name]] = found
            else:
                computed[entity.index[name]] = self._value(text, field, scope, where)
        return lambda seen: fixed | {n: compute(seen) for n, compute in computed.items()}

    def _reference(
        self, text: str, field: Field, scope: Entity, before: list[str], path: Path
    ) -> Made | MadeBy | int | None:
        """`this`, a make that stands before, or a reference field."""
        if text == THIS:
            return Made.THIS
        if text in before:
            return MadeBy(text)
        found = scope.index.get(text)
        if found is None or scope.fields[found].reference != field.reference:
            known = [f.name for f in scope.fields if f.reference == field.reference]
            self.problems.add(path, f"a reference to {field.reference} is wanted, this or a make{near(text, known)}")
            return None
        return found

    def _test(self, text: str, scope: Entity, path: Path) -> Callable[[Seen], bool]:
        names = Names()
        try:
            code, columns = compile_test(self._parsed(text), Scope.of_entity(scope, DIALECT), names)
        except SqlProblem as problem:
            self.problems.add(path, str(problem))
            return lambda seen: False
        return _function(f"{code} is True", columns, names, self._what(path))

    def _value(self, text: str, field: Field, scope: Entity, path: Path) -> Callable[[Seen], Value]:
        names = Names()
        mapped = MappedField(name=field.name, where=f"{self.problems.file}:{self.problems.line(path)}")
        try:
            code, columns = compile_read(self._parsed(text), Scope.of_entity(scope, DIALECT), names, field, mapped)
        except SqlProblem as problem:
            self.problems.add(path, str(problem))
            return lambda seen: None
        return _function(code, columns, names, self._what(path))

    def _what(self, path: Path) -> str:
        return f"workflow {self.form.name}, {path_text(path[2:])} ({self.problems.file}:{self.problems.line(path)})"

    def _parsed(self, text: str) -> Expr:
        found = parse_sql(text, DIALECT)
        for column in found.find_all(exp.Column):
            if column_name(column) == THIS:
                raise SqlProblem(f"{THIS!r} is the record itself, which only a reference can hold")
        return found


def _function(code: str, columns: tuple[int, ...], names: Names, what: str) -> Callable[[Seen], Any]:
    loads = "".join(f"    c{i} = seen[{i}]\n" for i in columns)
    namespace: dict[str, Any] = dict(names.objects)
    exec(f"def compute(seen):\n{loads}    return {code}\n", namespace)
    compute: Callable[[Seen], Any] = namespace["compute"]

    def checked(seen: Seen) -> Any:
        try:
            return compute(seen)
        except REFUSALS as error:
            reason = reason_of(error, "a value of a kind that does not fit")
            raise ValueRefused(f"{what}: {reason}", hint="Correct the value where it is kept.") from None

    return checked
