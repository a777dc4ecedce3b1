"""A system's mapping: which of its tables hold which entities, and how their columns correspond to fields.

Loading checks everything that can be told from the file and the dictionary, and reports all of it at once. What needs
the table's real columns is checked when a place is compiled for a shape, and by `check`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import cast
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from sqlglot import exp
from sqlglot.expressions import Expr

from crosswalk.block import Block, Example, Given, MappedField, Now, parents_first
from crosswalk.dictionary import Dictionary
from crosswalk.expression import parse_sql
from crosswalk.invert import constants_of
from crosswalk.joined import Join, with_used
from crosswalk.lines import Path, path_text
from crosswalk.mapping_checks import FieldChecks
from crosswalk.mapping_forms import ExampleForm, FieldForm, GivenForm, MappingForm, NowForm, TableForm
from crosswalk.mapping_joins import load_joins
from crosswalk.mapping_keys import KeyLoader
from crosswalk.matching import EntityMatchKeys, match_keys
from crosswalk.place import MappedPlace
from crosswalk.problems import Problems, convert_form, describe, near, read_toml
from crosswalk.settings import Setting, chosen_settings, filled, with_settings
from crosswalk.sql_scope import SqlProblem, column_name
from engine.model.entity import Entity, Field, Type
from engine.model.joined import listed_joins
from engine.ports import Deletes

LISTED_TYPES = (Type.TEXT, Type.INTEGER)
SHIPPED = FilePath(__file__).with_name("products")
_COLUMN = re.compile(r"[^\W\d][\w$]*")
_WRITTEN = re.compile(rf"({_COLUMN.pattern}\.)?{_COLUMN.pattern}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemMapping:
    """`engine.ports.Mapping`. `region`: where telephone numbers without a country prefix belong."""

    system: str
    places: tuple[MappedPlace, ...]
    region: str = ""

    def match_keys(self, entity: Entity) -> EntityMatchKeys:
        return match_keys(entity, self.region)

    def place(self, name: str) -> MappedPlace | None:
        return next((place for place in self.places if place.name == name), None)


def load_mapping(
    path: str | FilePath,
    dictionary: Dictionary,
    *,
    system: str,
    dialect: str,
    settings: Mapping[str, Setting] | None = None,
) -> SystemMapping:
    """Load a system's mapping: a TOML file, or the shipped one of that name. `dialect`: sqlglot's name for the SQL of
    its expressions; `settings`: values for what it leaves open.

    Raises `ConfigError` listing every problem as "file:line: path: message".
    """
    document, problems = read_toml(mapping_file(path), "mapping")
    chosen = chosen_settings(document.pop("settings", {}), settings or {}, system, problems)
    form = convert_form(filled(document, chosen, problems), MappingForm, (), problems, is_tolerant=True)
    if form is None:
        problems.raise_if_any("mapping")
        raise AssertionError("a form is missing only when there are problems")
    if not form.table:
        problems.add((), "no [[table]]")
    loader = _Loader(dictionary, problems, system, dialect, form, chosen)
    blocks = loader.blocks()
    problems.raise_if_any("mapping")
    places = tuple(MappedPlace(block) for block in parents_first(blocks, dictionary))
    return SystemMapping(system=system, places=places, region=form.region or "")


def shipped_mappings() -> list[str]:
    """Names of the products whose mappings come with Concord."""
    return sorted(file.stem for file in SHIPPED.glob("*.toml"))


def mapping_file(named: str | FilePath) -> FilePath:
    """A bare name is a shipped mapping; anything else is a path."""
    return FilePath(named) if str(named).endswith(".toml") else SHIPPED / f"{named}.toml"


class _Loader:
    """One load; holds what every step needs."""

    def __init__(
        self,
        dictionary: Dictionary,
        problems: Problems,
        system: str,
        dialect: str,
        form: MappingForm,
        settings: Mapping[str, Setting],
    ) -> None:
        self.dictionary = dictionary
        self.problems = problems
        self.system = system
        self.dialect = dialect
        self.form = form
        self.settings = settings
        self.zone = self._zone(form.timezone, ("timezone",))
        self.tables: list[tuple[Path, TableForm]] = []

    def blocks(self) -> list[Block]:
        for n, raw in enumerate(self.form.table):
            table = convert_form(raw, TableForm, ("table", n), self.problems, is_tolerant=True)
            if table is not None:
                self.tables.append((("table", n), table))
        if self.form.region is not None and not re.fullmatch("[A-Z]{2}", self.form.region):
            self.problems.add(("region",), 'an ISO 3166-1 code is wanted, as "DE"')
        names: dict[str, Path] = {}
        for path, table in self.tables:
            name = table.place or table.name
            if name in names:
                self.problems.add(path, f'there are two blocks named {name!r}; give one of them a place = "…"')
            names[name] = path
        built = [self._block(path, table) for path, table in self.tables]
        return [block for block in built if block is not None]

    def _block(self, path: Path, table: TableForm) -> Block | None:
        entity = self.dictionary.entity(table.entity)
        if entity is None:
            known = [entity.name for entity in self.dictionary.entities]
            self.problems.add((*path, "entity"), f"there is no entity {table.entity!r}{near(table.entity, known)}")
            return None
        zone = self._zone(table.timezone, (*path, "timezone")) or self.zone
        fields = self._fields(entity, table, path, zone)
        joins = load_joins(table, path, self.system, self.dialect, self.problems, self._sql)
        if not table.key:
            self.problems.add((*path, "key"), "the columns of the key are wanted")
        if len(set(table.key)) != len(table.key):
            self.problems.add((*path, "key"), "a column is listed twice")
        filter_ = self._sql(table.where, (*path, "where"))
        only = self._sql(table.only, (*path, "only"))
        if only is not None:
            self._check_canonical(only, entity, (*path, "only"))
        rule, key_field, template, draw = KeyLoader(self.problems).allocate(entity, table, path, zone)
        self._check_joined_names(entity, fields, filter_, joins, path)
        block = Block(
            system=self.system,
            dialect=self.dialect,
            where=self._where(path),
            path=path_text(path),
            name=table.place or table.name,
            table=table.name,
            entity=entity.name,
            key=tuple(table.key),
            filter=filter_,
            filter_sql=self._text(table.where, filter_),
            only=only,
            fields=tuple(fields),
            constants=self._constants(table, filter_, fields, path, zone),
            touched=self._given(table.touch, fields, (*path, "touch"), zone),
            key_rule=rule,
            key_field=key_field,
            key_template=template,
            draw=draw,
            deletes=self._deletes(table, fields, path),
            joins=tuple(joins),
            examples=tuple(self._examples(table, path)),
        )
        return with_used(block)

    # -------------------------------------------------------------------------------------------- fields

    def _fields(self, entity: Entity, table: TableForm, path: Path, zone: ZoneInfo | None) -> list[MappedField]:
        fields: list[MappedField] = []
        for name, raw in table.fields.items():
            where = (*path, "fields", name)
            shorthand: object = {"column": raw} if isinstance(raw, str) else raw
            if not isinstance(shorthand, dict):
                self.problems.add(where, f"a column's name or a table is wanted, not {describe(raw)}")
                continue
            form = convert_form(cast(object, shorthand), FieldForm, where, self.problems)
            if form is None:
                continue
            canonical = "alive" if form.soft_delete else name
            if canonical not in entity.index:
                self.problems.add(
                    where, f"entity {entity.name!r} has no field {canonical!r}{near(canonical, entity.index)}"
                )
                continue
            field = entity.fields[entity.index[canonical]]
            FieldChecks(self.problems).check(field, form, where)
            built = self._field(entity, field, form, where, zone)
            if any(other.name == built.name for other in fields):
                self.problems.add(where, f"field {built.name!r} is mapped twice")
            fields.append(built)
        self._check_written_once(fields, path)
        self._check_currencies(entity, fields, path)
        return fields

    def _field(self, entity: Entity, field: Field, form: FieldForm, where: Path, zone: ZoneInfo | None) -> MappedField:
        read = self._sql(form.read, (*where, "read"))
        writes, is_written = self._writes(entity, field, form, read, where)
        return MappedField(
            name=field.name,
            where=self._where(where),
            column=form.column,
            read=read,
            read_sql=self._text(form.read, read),
            writes=writes,
            values=form.values,
            unit=form.unit,
            currency=form.currency,
            place=self._target_place(field, form, where),
            zone=self._zone(form.timezone, (*where, "timezone")) or zone,
            default=form.default,
            round=form.round,
            truncate=form.truncate,
            soft_delete=form.soft_delete,
            is_read_only=form.read_only or not is_written,
        )

    def _writes(
        self, entity: Entity, field: Field, form: FieldForm, read: Expr | None, where: Path
    ) -> tuple[dict[str, Expr | None], bool]:
        """Column → SQL (None: the value itself), and whether anything is written at all."""
        if form.column is not None:
            return {form.column: None}, True
        if form.write is None:
            if read is not None and not form.read_only:
                self.problems.add(
                    where,
                    'an expression does not say how to write back; add write = "column",'
                    ' write = { column = "SQL" } or read_only = true',
                )
            return {}, False
        if isinstance(form.write, str) and _WRITTEN.fullmatch(form.write):
            return {form.write: None}, True
        texts = form.write
        if isinstance(texts, str):
            columns = sorted(columns_in(read)) if read is not None else []
            if len(columns) != 1:
                self.problems.add((*where, "write"), 'say which column is written: write = { column = "SQL" }')
                return {}, False
            texts = {columns[0]: texts}
        writes: dict[str, Expr | None] = {}
        for column, text in texts.items():
            expression = self._sql(text, (*where, "write"))
            if expression is not None:
                self._check_canonical(expression, entity, (*where, "write"), only=field.name)
            writes[column] = expression
        return writes, True

    def _check_lists(self, entity: Entity, fields: list[MappedField], joins: list[Join], path: Path) -> None:
        """A column of a list is a list, and is mapped as it is; of each list one column is written."""
        add = self.problems.add
        owners = {join.name: join.links[0].owner for join in joins if join.links}
        lists = listed_joins((join.name, owners[join.name], join.is_list) for join in joins if join.links)
        written: dict[str, str] = {}
        for field in fields:
            where = (*path, "fields", field.name)
            canonical = entity.fields[entity.index[field.name]]
            columns = {*field.writes, *([field.column] if field.column else [])}
            columns |= columns_in(field.read) if field.read is not None else set()
            for column in sorted(columns):
                name = column.partition(".")[0]
                if name not in lists:
                    continue
                if field.read is not None or canonical.type is not Type.LIST or canonical.of not in LISTED_TYPES:
                    add(where, f"{column!r} is a list, for a field that is a list of texts or integers")
                while owners[name]:
                    name = owners[name]
                if not field.is_read_only and written.setdefault(name, field.name) != field.name:
                    self.problems.add(
                        where,
                        f"field {written[name]!r} is written to list {name!r} already; make one of them read_only",
                    )

    def _check_joined_names(
        self, entity: Entity, fields: list[MappedField], filter_: Expr | None, joins: list[Join], path: Path
    ) -> None:
        names = {join.name for join in joins}
        for field in fields:
            columns = {*field.writes, *([field.column] if field.column else [])}
            columns |= columns_in(field.read) if field.read is not None else set()
            for column in sorted(columns):
                owner, dot, _ = column.partition(".")
                if dot and owner not in names:
                    self.problems.add((*path, "fields", field.name), f"there is no join {owner!r}{near(owner, names)}")
        self._check_lists(entity, fields, joins, path)
        for column in sorted(columns_in(filter_) if filter_ is not None else ()):
            if "." in column:
                self.problems.add((*path, "where"), f"only the table's own columns can be tested here, not {column!r}")

    def _target_place(self, field: Field, form: FieldForm, where: Path) -> str | None:
        """The block whose keys a reference holds."""
        if field.type is not Type.REFERENCE:
            return None
        places = [table.place or table.name for _, table in self.tables if table.entity == field.reference]
        if form.place is not None:
            if form.place not in places:
                text = near(form.place, places) or f"; no block maps {field.reference!r}"
                self.problems.add((*where, "place"), f"no block of {field.reference!r} is named {form.place!r}{text}")
            return form.place
        if len(places) == 1:
            return places[0]
        if places:
            self.problems.add(where, f"several blocks map {field.reference!r}: say place = one of {', '.join(places)}")
        else:
            self.problems.add(where, f"no block of this mapping maps the entity {field.reference!r} it refers to")
        return None

    def _check_currencies(self, entity: Entity, fields: list[MappedField], path: Path) -> None:
        """Money without its currency is refused here: it is mapped, or constant in this table."""
        mapped = {field.name: field for field in fields}
        constant: dict[str, str] = {}
        for field in fields:
            canonical = entity.fields[entity.index[field.name]]
            if canonical.type is not Type.MONEY or canonical.unit is None:
                continue
            where = (*path, "fields", field.name)
            if canonical.unit not in entity.index:
                if field.currency not in (None, canonical.unit):
                    self.problems.add(where, f"{field.name!r} is in {canonical.unit} in the dictionary")
            elif canonical.unit in mapped:
                if field.currency is not None:
                    self.problems.add(where, f"the currency is mapped already, as field {canonical.unit!r}")
            elif field.currency is None:
                self.problems.add(where, f'in which currency? Map {canonical.unit!r}, or add currency = "EUR"')
            elif constant.setdefault(canonical.unit, field.currency) != field.currency:
                self.problems.add(where, f"another field of this table says {constant[canonical.unit]!r}")

    def _check_written_once(self, fields: list[MappedField], path: Path) -> None:
        owners: dict[str, str] = {}
        for field in fields:
            for column in () if field.is_read_only else field.writes:
                if column in owners:
                    self.problems.add(
                        (*path, "fields", field.name),
                        f"column {column!r} is written by field {owners[column]!r} too; make one of them read_only",
                    )
                owners[column] = field.name

    # ---------------------------------------------------------------------------------------- whole rows

    def _constants(
        self, table: TableForm, filter_: Expr | None, fields: list[MappedField], path: Path, zone: ZoneInfo | None
    ) -> dict[str, Given]:
        """`insert`, and what the filter's equalities imply where no field is written there."""
        written = {column for field in fields if not field.is_read_only for column in field.writes}
        given = self._given(table.insert, fields, (*path, "insert"), zone)
        implied = {} if filter_ is None else constants_of(filter_)
        taken = written | table.touch.keys()
        for column in table.insert.keys() & table.touch.keys():
            self.problems.add((*path, "insert", column), "every write sets this column already: `touch`")
        return {column: value for column, value in implied.items() if column not in taken} | given

    def _given(
        self, forms: Mapping[str, GivenForm], fields: list[MappedField], path: Path, zone: ZoneInfo | None
    ) -> dict[str, Given]:
        """Values that stand in the mapping, for columns that no field is written to."""
        written = {column for field in fields if not field.is_read_only for column in field.writes}
        found: dict[str, Given] = {}
        for column, value in forms.items():
            where = (*path, column)
            if column in written:
                self.problems.add(where, "a field is written to this column already")
            if "." in column:
                self.problems.add(where, "only the table's own columns can be given a value here")
            if isinstance(value, float) and not math.isfinite(value):
                self.problems.add(where, "a finite number is wanted")
            if isinstance(value, NowForm):
                if not value.now:
                    self.problems.add(where, "a value or { now = true } is wanted")
                found[column] = Now(zone)
            else:
                found[column] = value
        return found

    def _deletes(self, table: TableForm, fields: list[MappedField], path: Path) -> Deletes:
        soft = [field for field in fields if field.name == "alive"]
        if table.deletes is None and soft:
            # A deletion that cannot be said in the column is not said by deleting the row either.
            return Deletes.KEEP if soft[0].is_read_only else Deletes.FIELD
        if table.deletes is None:
            return Deletes.ROW
        if table.deletes not in ("row", "keep"):
            self.problems.add((*path, "deletes"), f'"row" or "keep" is wanted, not {table.deletes!r}')
        if soft and not soft[0].is_read_only:
            self.problems.add((*path, "deletes"), "the soft_delete field already says what a deletion does")
        return Deletes.KEEP if table.deletes == "keep" else Deletes.ROW

    def _examples(self, table: TableForm, path: Path) -> list[Example]:
        found: list[Example] = []
        for n, raw in enumerate(table.example):
            where = (*path, "example", n)
            form = convert_form(raw, ExampleForm, where, self.problems)
            if form is None:
                continue
            names = {"alive" if is_soft_delete(raw) else name for name, raw in table.fields.items()}
            known = names | {"alive"} | self._currency_fields(table)
            for name in form.record or {}:
                if name not in known:
                    self.problems.add((*where, "record", name), f"field {name!r} is not mapped{near(name, known)}")
            found.append(Example(where=self._where(where), row=form.row, record=form.record))
        return found

    def _currency_fields(self, table: TableForm) -> set[str]:
        entity = self.dictionary.entity(table.entity)
        if entity is None:
            return set()
        return {field.unit for field in entity.fields if field.type is Type.MONEY and field.unit}

    # -------------------------------------------------------------------------------------------- pieces

    def _sql(self, text: str | None, where: Path) -> Expr | None:
        try:
            found = None if text is None else parse_sql(text, self.dialect)
        except SqlProblem as problem:
            self.problems.add(where, str(problem))
            return None
        return None if found is None else with_settings(found, self.settings, where, self.problems)

    def _text(self, text: str | None, expression: Expr | None) -> str:
        """The SQL as it was written; spelt anew where settings stand in it."""
        written = text or ""
        if expression is None or not any(f":{name}" in written for name in self.settings):
            return written
        return expression.sql(dialect=self.dialect)

    def _check_canonical(self, expression: Expr, entity: Entity, where: Path, only: str | None = None) -> None:
        for name in sorted(columns_in(expression)):
            if name not in entity.index:
                self.problems.add(where, f"entity {entity.name!r} has no field {name!r}{near(name, entity.index)}")
            elif only is not None and name != only:
                self.problems.add(where, f"only the field itself can be written here, {only!r}, not {name!r}")

    def _zone(self, name: str | None, where: Path) -> ZoneInfo | None:
        if name is None:
            return None
        try:
            return ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            self.problems.add(where, f'{name!r} is no time zone of the IANA database, as "Europe/Berlin"')
            return None

    def _where(self, path: Path) -> str:
        return f"{self.problems.file}:{self.problems.line(path)}"


def columns_in(expression: Expr) -> set[str]:
    """Names of the columns an expression refers to."""
    return {column_name(column) for column in expression.find_all(exp.Column)}


def is_soft_delete(raw: object) -> bool:
    return isinstance(raw, Mapping) and cast(Mapping[str, object], raw).get("soft_delete") is True
