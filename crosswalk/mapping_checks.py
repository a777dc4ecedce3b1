"""What the file alone shows of a mapped field: options that do not go together, or with the field's type."""

from __future__ import annotations

import math

from crosswalk.lines import Path
from crosswalk.mapping_forms import FieldForm
from crosswalk.problems import Problems, describe, near
from crosswalk.units import CURRENCIES, UNIX_UNITS, factor
from engine.model.entity import Field, Type


class FieldChecks:
    """Problems go to `problems`."""

    def __init__(self, problems: Problems) -> None:
        self.problems = problems

    def check(self, field: Field, form: FieldForm, where: Path) -> None:
        add = self.problems.add
        if (form.column is None) == (form.read is None):
            add(where, "exactly one of column and read is wanted")
        if form.write is not None and (form.column is not None or form.read_only):
            add((*where, "write"), "write goes with read, and not with read_only")
        if isinstance(form.default, float) and not math.isfinite(form.default):
            add((*where, "default"), "a finite number is wanted")
        if form.column is not None and not form.column:
            add((*where, "column"), "a column's name is wanted")
        if form.read is not None:
            for option in ("values", "unit", "default", "truncate", "soft_delete"):
                if getattr(form, option) not in (None, False):
                    add((*where, option), f"{option} goes with column; say it in SQL here")
        self._check_reference(field, form, where)
        self._check_values(field, form, where)
        self._check_unit(field, form, where)
        if form.truncate and field.type not in (Type.TEXT, Type.TIME, Type.TIMESTAMP):
            add((*where, "truncate"), f"only texts and times can be cut; {field.name!r} is {field.type.value}")
        if form.round is not None and (field.type not in (Type.INTEGER, Type.DECIMAL, Type.MONEY, Type.DURATION)
                                       or not 0 <= form.round <= 20):  # fmt: skip
            add((*where, "round"), "a number field and 0 to 20 decimals go with round")

    def _check_reference(self, field: Field, form: FieldForm, where: Path) -> None:
        if field.type is not Type.REFERENCE:
            for option in ("reference", "place"):
                if getattr(form, option) is not None:
                    self.problems.add((*where, option), f"{field.name!r} is {field.type.value}, no reference")
        elif form.reference is not None and form.reference != field.reference:
            self.problems.add((*where, "reference"), f"{field.name!r} refers to {field.reference!r} in the dictionary")

    def _check_values(self, field: Field, form: FieldForm, where: Path) -> None:
        if form.values is None:
            return
        path = (*where, "values")
        if form.unit is not None or form.round is not None:
            self.problems.add(path, "values and unit or round exclude each other")
        wanted: dict[Type, type] = {Type.BOOLEAN: bool, Type.INTEGER: int, Type.TEXT: str, Type.ENUM: str}
        if field.type not in wanted:
            self.problems.add(path, f"values cannot give a {field.type.value}")
            return
        for key, value in form.values.items():
            if type(value) is not wanted[field.type]:
                self.problems.add((*path, key), f"a {field.type.value} is wanted, not {describe(value)}")
            elif field.type is Type.ENUM and value not in field.values:
                near_ = near(str(value), field.values)
                self.problems.add((*path, key), f"{field.name!r} has no value {value!r} in the dictionary{near_}")

    def _check_unit(self, field: Field, form: FieldForm, where: Path) -> None:
        add = self.problems.add
        if form.currency is not None:
            if field.type is not Type.MONEY:
                add((*where, "currency"), f"{field.name!r} is {field.type.value}, no money")
            elif form.currency not in CURRENCIES:
                add((*where, "currency"), f"{form.currency!r} is no ISO 4217 code{near(form.currency, CURRENCIES)}")
        unit = form.unit
        if unit is None:
            return
        if unit in UNIX_UNITS:
            if field.type not in (Type.TIMESTAMP, Type.DATE):
                add((*where, "unit"), f"{unit!r} counts time since 1970; {field.name!r} is {field.type.value}")
            return
        if field.type not in (Type.INTEGER, Type.DECIMAL, Type.MONEY, Type.DURATION):
            add((*where, "unit"), f"{field.name!r} is {field.type.value}, which has no unit")
            return
        canonical = {Type.DURATION: "s", Type.MONEY: None}.get(field.type, field.unit)
        if factor(unit, canonical) is None:
            to = f"to {canonical!r}" if canonical else 'to anything: a plain number as "0.01" is wanted'
            add((*where, "unit"), f"{unit!r} does not convert exactly {to}")
