"""The business of the simulated world: its entities, and what each of three systems makes of them."""

from __future__ import annotations

from dataclasses import dataclass

from engine.model.entity import Entity, Field, Match, Policy, Type
from engine.model.table import Column, Form, Kind, Shape
from engine.model.value import Wire
from engine.ports import Clock, Deletes, KeyRule
from engine.testing.mapping import PlainMapping, PlainPlace
from engine.testing.memory import MemoryDatabase
from engine.testing.memory_transaction import ForeignKey, MemoryTransaction

ACCOUNT = Entity(
    name="account",
    fields=(
        Field(name="alive", type=Type.BOOLEAN),
        Field(name="email", type=Type.TEXT),
        Field(name="name", type=Type.TEXT, owner="crm"),
        Field(name="phone", type=Type.TEXT),
        Field(name="credit", type=Type.TEXT, owner="erp"),
        Field(name="street", type=Type.TEXT, group="address"),
        Field(name="city", type=Type.TEXT, group="address"),
        Field(name="stock", type=Type.INTEGER, policy=Policy.SUM),
    ),
    matches=(Match(fields=("email",), normalise=("email",)),),
)
SITE = Entity(
    name="site",
    fields=(
        Field(name="alive", type=Type.BOOLEAN),
        Field(name="account", type=Type.REFERENCE, reference="account"),
        Field(name="label", type=Type.TEXT),
    ),
)
PART = Entity(
    name="part",
    fields=(
        Field(name="alive", type=Type.BOOLEAN),
        Field(name="code", type=Type.TEXT),
        Field(name="note", type=Type.TEXT),
    ),
)
TEXTS = ("name", "phone", "credit", "street", "city")
PARTS = "parts"
KIND = "kind"
"""A column of the CRM's customers in worlds with a filter: who is a prospect takes no part."""


@dataclass(frozen=True, kw_only=True)
class Kit:
    """One system's schema and mapping. `columns`: field → column of the accounts' table."""

    name: str
    form: Form
    accounts: str
    sites: str
    columns: dict[str, str]
    is_assigned: bool
    soft_delete: str | None = None

    def create(self, clock: Clock, *, has_parts: bool = False, has_kinds: bool = False) -> MemoryDatabase:
        database = MemoryDatabase(self.name, self.form, now=clock.now)
        key = Column(
            name="id",
            kind=Kind.INTEGER if self.is_assigned else Kind.TEXT,
            type="integer" if self.is_assigned else "text",
            is_nullable=False,
            is_assigned=self.is_assigned,
            has_default=self.is_assigned,
        )
        columns = [
            Column(name=c, kind=Kind.INTEGER if n == "stock" else Kind.TEXT, type="integer" if n == "stock" else "text")
            for n, c in self.columns.items()
        ]
        if self.soft_delete is not None:
            columns.append(Column(name=self.soft_delete, kind=Kind.BOOLEAN, type="boolean"))
        if has_kinds:
            columns.append(Column(name=KIND, kind=Kind.TEXT, type="text"))
        database.create_table(Shape(name=self.accounts, form=self.form, key=("id",), columns=(key, *columns)))
        owner = Column(name="account", kind=key.kind, type=key.type, is_nullable=False)
        label = Column(name="label", kind=Kind.TEXT, type="text")
        database.create_table(
            Shape(name=self.sites, form=self.form, key=("id",), columns=(key, owner, label)),
            foreign_keys=[ForeignKey(columns=("account",), table=self.accounts)],
        )
        if has_parts:
            texts = [Column(name=n, kind=Kind.TEXT, type="text", is_nullable=n != "id") for n in ("id", "code", "note")]
            database.create_table(Shape(name=PARTS, form=self.form, key=("id",), columns=tuple(texts)))
        return database

    def living(self, database: MemoryDatabase) -> list[dict[str, Wire]]:
        """Its customers that are not deleted, by the names of `columns`, as an application shows them."""
        rows = self.customers(database)
        return [row for row in rows if self.soft_delete is None or row[self.soft_delete] not in ("t", 1)]

    def customers(self, database: MemoryDatabase) -> list[dict[str, Wire]]:
        return database.rows(self.accounts)

    def enter(self, transaction: MemoryTransaction, values: dict[str, Wire]) -> None:
        """A user enters a customer."""
        transaction.insert(self.accounts, values)

    def change(self, transaction: MemoryTransaction, row: dict[str, Wire], values: dict[str, Wire]) -> None:
        """A user changes a customer, whom the application has shown as `row`."""
        transaction.update(self.accounts, (row["id"],), values)

    def remove(self, transaction: MemoryTransaction, row: dict[str, Wire]) -> None:
        transaction.delete(self.accounts, (row["id"],))

    def mapping(self, *, has_parts: bool = False, has_kinds: bool = False) -> PlainMapping:
        rule = KeyRule.ASSIGNED if self.is_assigned else KeyRule.UUID
        accounts = PlainPlace(
            table=self.accounts,
            entity="account",
            fields=self.columns,
            key_rule=rule,
            deletes=Deletes.ROW if self.soft_delete is None else Deletes.FIELD,
            soft_delete=self.soft_delete,
            constants={KIND: "customer"} if has_kinds else {},
        )
        fields = {"account": "account", "label": "label"}
        references = {"account": self.accounts}
        sites = PlainPlace(table=self.sites, entity="site", fields=fields, key_rule=rule, references=references)
        if not has_parts:
            return PlainMapping(places=(accounts, sites))
        fields = {"code": "code", "note": "note"}
        parts = PlainPlace(table=PARTS, entity="part", fields=fields, key_rule=KeyRule.UUID)
        return PlainMapping(places=(accounts, sites, parts))


def _columns(prefix: str) -> dict[str, str]:
    return {name: prefix + name for name in ("email", *TEXTS, "stock")}


KITS = (
    Kit(name="crm", form=Form.TEXT, accounts="customers", sites="locations", columns=_columns(""), is_assigned=False),
    Kit(name="fsm", form=Form.NATIVE, accounts="clients", sites="places", columns=_columns("c_"), is_assigned=True),
    Kit(
        name="erp", form=Form.TEXT, accounts="parties", sites="sites", columns=_columns("x"), is_assigned=True,
        soft_delete="gone",
    ),
)  # fmt: skip
