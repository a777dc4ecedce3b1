"""The simulated world's systems once more, with customers that two of them keep in several tables: telephone numbers of
their own, and towns that they share.
"""

from __future__ import annotations

import uuid
from dataclasses import replace

from engine.model.joined import Empty, Link
from engine.model.table import Column, Kind, Shape
from engine.model.value import Wire
from engine.ports import Clock
from engine.testing.kits import KITS, Kit
from engine.testing.mapping import PlainJoin, PlainMapping, PlainPlace
from engine.testing.memory import MemoryDatabase
from engine.testing.memory_transaction import ForeignKey, MemoryTransaction

PHONES = "phones"
TOWNS = "towns"
_NAMESPACE = uuid.UUID("f0a6a7a5-0d6e-4b7a-8f57-9a9d5bdfe2a1")


class JoinedKit(Kit):
    """`phone` is the number of the first row of `phones` that refers to the customer, `city` the name of the town that
    the customer refers to."""

    def create(self, clock: Clock, *, has_parts: bool = False, has_kinds: bool = False) -> MemoryDatabase:
        database = super().create(clock, has_parts=has_parts, has_kinds=has_kinds)
        latest = 0

        def now() -> int:
            # Commits of one time count as one where tables are joined.
            nonlocal latest
            latest = max(latest + 1, clock.now())
            return latest

        database.now = now
        plain = database.tables.pop(self.accounts).shape
        database.tables.pop(self.sites)
        owner, town = plain.columns[0], Column(name="town", kind=Kind.TEXT, type="text")
        kept = [c for c in plain.columns if c.name not in (self.columns["phone"], self.columns["city"])]
        key = Column(name="id", kind=Kind.TEXT, type="text", is_nullable=False)
        name = Column(name="name", kind=Kind.TEXT, type="text", is_nullable=False)
        database.create_table(Shape(name=TOWNS, form=self.form, key=("id",), columns=(key, name), unique=(("name",),)))
        database.create_table(
            Shape(name=self.accounts, form=self.form, key=("id",), columns=(*kept, town)),
            foreign_keys=[ForeignKey(columns=("town",), table=TOWNS)],
        )
        account = Column(name="account", kind=owner.kind, type=owner.type, is_nullable=False)
        label, number = (Column(name=n, kind=Kind.TEXT, type="text") for n in ("label", "number"))
        to_account = ForeignKey(columns=("account",), table=self.accounts)
        database.create_table(
            Shape(name=self.sites, form=self.form, key=("id",), columns=(owner, account, label)),
            foreign_keys=[to_account],
        )
        database.create_table(
            Shape(name=PHONES, form=self.form, key=("id",), columns=(key, account, number)), foreign_keys=[to_account]
        )
        return database

    def customers(self, database: MemoryDatabase) -> list[dict[str, Wire]]:
        towns = {row["id"]: row["name"] for row in database.rows(TOWNS)}
        phones: dict[Wire, Wire] = {}
        for row in sorted(database.rows(PHONES), key=lambda row: str(row["id"])):
            phones.setdefault(row["account"], row["number"])
        return [
            row
            | {self.columns["phone"]: phones.get(row["id"]), self.columns["city"]: towns.get(row["town"])}
            | {"phones": ",".join(str(p["id"]) for p in database.rows(PHONES) if p["account"] == row["id"])}
            for row in database.rows(self.accounts)
        ]

    def enter(self, transaction: MemoryTransaction, values: dict[str, Wire]) -> None:
        own = self._own(transaction, values)
        phone = values[self.columns["phone"]]
        (key,) = transaction.insert(self.accounts, own)
        transaction.insert(PHONES, {"id": f"t{phone}", "account": key, "number": phone})

    def change(self, transaction: MemoryTransaction, row: dict[str, Wire], values: dict[str, Wire]) -> None:
        column = self.columns["phone"]
        if column in values:
            number = values[column]
            first, *_ = str(row["phones"]).split(",")
            # Some applications change the row, some write it anew.
            if first and ord(str(number)[-1]) % 2:
                transaction.update(PHONES, (first,), {"number": number})
            else:
                self._forget_phones(transaction, row)
                transaction.insert(PHONES, {"id": f"t{number}", "account": row["id"], "number": number})
        own = self._own(transaction, values)
        if own:
            transaction.update(self.accounts, (row["id"],), own)

    def remove(self, transaction: MemoryTransaction, row: dict[str, Wire]) -> None:
        self._forget_phones(transaction, row)
        transaction.delete(self.accounts, (row["id"],))

    def _forget_phones(self, transaction: MemoryTransaction, row: dict[str, Wire]) -> None:
        for key in filter(None, str(row["phones"]).split(",")):
            transaction.delete(PHONES, (key,))

    def _own(self, transaction: MemoryTransaction, values: dict[str, Wire]) -> dict[str, Wire]:
        """The columns of the accounts' table; the town is there afterwards."""
        own = {
            name: value for name, value in values.items() if name not in (self.columns["phone"], self.columns["city"])
        }
        city = values.get(self.columns["city"])
        if city is not None:
            key = str(uuid.uuid5(_NAMESPACE, str(city)))
            transaction.insert(TOWNS, {"id": key, "name": city})
            own["town"] = key
        return own

    def mapping(self, *, has_parts: bool = False, has_kinds: bool = False) -> PlainMapping:
        accounts, *others = super().mapping(has_parts=has_parts, has_kinds=has_kinds).places
        assert isinstance(accounts, PlainPlace)
        tel = PlainJoin(
            name="tel", table=PHONES, links=(Link("account", "", "id"),), empty=Empty.DELETE,
            used=frozenset(("id", "account", "number")),
        )  # fmt: skip
        town = PlainJoin(
            name="town", table=TOWNS, links=(Link("id", "", "town"),), find=("name",), used=frozenset(("id", "name"))
        )
        fields = {**accounts.fields, "phone": "tel.number", "city": "town.name"}
        return PlainMapping(places=(replace(accounts, fields=fields, joins=(tel, town)), *others))


JOINED_KITS = tuple(
    JoinedKit(**{name: getattr(kit, name) for name in Kit.__dataclass_fields__}) if kit.name != "erp" else kit
    for kit in KITS
)
