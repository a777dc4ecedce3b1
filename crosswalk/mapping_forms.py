"""The TOML of a mapping, as it is written; `mapping` gives it meaning."""

from __future__ import annotations

from typing import Any

import msgspec


class FieldForm(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    column: str | None = None
    read: str | None = None
    write: str | dict[str, str] | None = None
    values: dict[str, str | int | bool] | None = None
    unit: str | None = None
    currency: str | None = None
    reference: str | None = None
    place: str | None = None
    soft_delete: bool = False
    timezone: str | None = None
    default: str | int | float | bool | None = None
    round: int | None = None
    truncate: bool = False
    read_only: bool = False


class KeyForm(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    field: str | None = None
    template: str | None = None
    sequence: str | None = None
    series: str | None = None
    table: str = "tabSeries"
    name: str = "name"
    current: str = "current"


class ExampleForm(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    row: dict[str, Any]
    record: dict[str, Any] | None = None


class JoinForm(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, rename={"as_": "as", "is_list": "list"}):
    name: str
    as_: str | None = None
    key: list[str]
    on: dict[str, str]
    where: str | None = None
    insert: dict[str, str | int | float | bool] = {}
    allocate: str | None = None
    find: list[str] = []
    empty: str | None = None
    order: list[str] = []
    is_list: bool = False
    ordinal: str | None = None


class NowForm(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    now: bool


GivenForm = str | int | float | bool | NowForm


class TableForm(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    name: str
    entity: str
    key: list[str]
    place: str | None = None
    where: str | None = None
    only: str | None = None
    insert: dict[str, GivenForm] = {}
    touch: dict[str, GivenForm] = {}
    allocate: str | dict[str, Any] | None = None
    deletes: str | None = None
    timezone: str | None = None
    join: list[Any] = []
    fields: dict[str, Any] = {}
    example: list[Any] = []


class MappingForm(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    description: str = ""
    timezone: str | None = None
    region: str | None = None
    table: list[Any] = []
