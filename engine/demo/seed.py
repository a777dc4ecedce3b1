"""Rows for three systems that have lived apart for years. The same seed number gives the same rows, everywhere.

The CRM knows every customer but a few; FSM and ERP have typed some of the same in by themselves, with keys of their
own, and not always alike. What they share can be told by tax number or mail address, and that is how it is matched.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

from engine.demo import words

SEED = 20_260_302
TODAY = date(2026, 3, 2)
CUSTOMERS = 160
PROSPECTS = 5
FSM_SHARE = 64
ERP_SHARE = 96
FSM_ONLY = 8
ERP_ONLY = 10
ITEMS = 84
FSM_ITEMS = 60
JOBS = 150
INVOICES = 110

Row = tuple[object, ...]
STAGES = ("open", "planned", "planned", "en route", "on site", "waiting", "done", "done", "billed", "billed", "dropped")


@dataclass(slots=True)
class Company:
    """One real customer, whoever knows it. `client` and `cust_no` are its keys where FSM and ERP know it already."""

    company_id: str
    name: str
    sort: str
    state: int
    email: str
    phone: str
    address: tuple[str, str, str]
    vat: str | None
    credit: int
    client: int | None = None
    cust_no: str | None = None
    is_in_crm: bool = True

    @property
    def systems(self) -> int:
        """How many systems know it."""
        return self.is_in_crm + (self.client is not None) + (self.cust_no is not None)


@dataclass(slots=True)
class Seed:
    """`rows[system][table]`: columns and rows, parents before children; `companies` for whoever plays with them."""

    rows: dict[str, dict[str, tuple[tuple[str, ...], list[Row]]]] = field(default_factory=lambda: {})
    companies: list[Company] = field(default_factory=lambda: [])

    def count(self, system: str) -> int:
        return sum(len(rows) for _, rows in self.rows[system].values())


def make_seed(number: int = SEED) -> Seed:
    """All rows of all three systems before they have heard of each other."""
    return _Maker(number).make()


class _Maker:
    def __init__(self, number: int) -> None:
        self.rng = random.Random(number)
        self.seed = Seed({"crm": {}, "fsm": {}, "erp": {}})
        self.phones = iter(self.rng.sample([f"01632 960{n:03d}" for n in range(1000)], 900))
        self.mobiles = iter(self.rng.sample([f"07700 900{n:03d}" for n in range(1000)], 900))
        self.sites: list[tuple[str, Company, Row]] = []
        self.locations: list[tuple[int, Company]] = []

    def make(self) -> Seed:
        self._companies()
        self._people()
        self._sites()
        equipment = self._equipment()
        skus = self._items()
        self._jobs(equipment)
        self._invoices(skus)
        return self.seed

    def table(self, system: str, table: str, columns: str, rows: Sequence[Row]) -> None:
        self.seed.rows[system][table] = (tuple(columns.split()), list(rows))

    def uuid(self) -> str:
        return str(uuid.UUID(int=self.rng.getrandbits(128), version=4))

    def day(self, days_min: int, days_max: int) -> date:
        return TODAY - timedelta(days=self.rng.randint(days_min, days_max))

    def address(self) -> tuple[str, str, str]:
        town, area = self.rng.choice(words.TOWNS)
        number = self.rng.randint(1, 98)
        code = f"{area} {self.rng.randint(1, 9)}{''.join(self.rng.choices('ABDEFGHJLNPQRSTUWXYZ', k=2))}"
        return f"{number} {self.rng.choice(words.STREETS)}", town, code

    def _companies(self) -> None:
        rng = self.rng
        pairs = [f"{first} {second}" for first in words.COMPANY_FIRST for second in words.COMPANY_SECOND]
        names = rng.sample(pairs, CUSTOMERS + FSM_ONLY + ERP_ONLY)
        made = [self._company(n, name) for n, name in enumerate(names)]
        crm, fsm_only = made[:CUSTOMERS], made[CUSTOMERS : CUSTOMERS + FSM_ONLY]
        erp_only = made[CUSTOMERS + FSM_ONLY :]
        for company in (*fsm_only, *erp_only):
            company.is_in_crm = False
        in_fsm = [*rng.sample(crm[PROSPECTS:], FSM_SHARE), *fsm_only]
        in_erp = [*rng.sample(crm[PROSPECTS:], ERP_SHARE), *erp_only]
        rng.shuffle(in_fsm)
        rng.shuffle(in_erp)
        for n, company in enumerate(in_fsm, 1):
            company.client = n
        for n, company in enumerate(in_erp, 70_001):
            company.cust_no = f"C-{n}"
        self.seed.companies = made
        # Two prospects of one owner, reachable under one address: nobody can tell them apart by it.
        crm[1].email = crm[0].email
        self._crm_companies(crm)
        self._fsm_clients(in_fsm)
        self._erp_customers(in_erp)

    def _company(self, n: int, name: str) -> Company:
        host = name.lower().replace(" ", "-")
        return Company(
            company_id=self.uuid(),
            name=name,
            sort="B",
            state=0 if n < PROSPECTS else self.rng.choices((1, 5), (12, 1))[0],
            email=f"office@{host}.example.{'org' if n % 3 else 'com'}",
            phone=next(self.phones),
            address=self.address(),
            # Three zeros in front: numbers like these are not given out.
            vat=None if n < PROSPECTS else f"GB000{100_000 + n * 37:06d}",
            credit=self.rng.choice((1000, 2500, 5000, 10_000)) * 100,
        )

    def _crm_companies(self, companies: Sequence[Company]) -> None:
        columns = "company_id record_type company_name sort state email phone street town post_code country vat_no credit_limit credit_currency is_deleted"  # noqa: E501
        states = {0: "P", 1: "A", 5: "I"}
        rows: list[Row] = [
            (c.company_id, "customer", c.name, c.sort, states[c.state], c.email, c.phone, *c.address, "GB", c.vat,
             f"{c.credit // 100}.00", "GBP", False)
            for c in companies
        ]  # fmt: skip
        for maker, prefix in words.MAKERS:
            host = f"sales@{maker.lower()}.example.com"
            rows.append(
                (self.uuid(), "supplier", f"{maker} {prefix} Works", "B", "A", host, None, *self.address(), "GB", None,
                 None, None, False)
            )  # fmt: skip
        self.table("crm", "companies", columns, rows)

    def _fsm_clients(self, companies: Sequence[Company]) -> None:
        standings = {0: "lead", 1: "live", 5: "sleeping"}
        # Two telephone numbers were typed in differently: the first conflicts that Concord meets.
        different = [c for c in companies if c.is_in_crm and c.cust_no is None][2:4]
        rows: list[Row] = []
        for c in companies:
            phone = next(self.phones) if c in different else c.phone
            rows.append((c.client, c.name, standings[c.state], c.email, phone, *c.address, "GB", False, False))
        columns = "id title standing mail phone street town zip country is_stopped is_archived"
        self.table("fsm", "client", columns, rows)

    def _erp_customers(self, companies: Sequence[Company]) -> None:
        rows: list[Row] = []
        for n, c in enumerate(companies):
            # Two credit limits were raised in the books and never told to the sales people.
            credit = c.credit + 150_000 if n in (5, 23) else c.credit
            terms = ("30 days net", "14 days net", "30 days net, 2% in 10")[n % 3]
            rows.append((c.cust_no, c.name, c.state, c.email, c.phone, c.address[0], c.address[1], c.address[2], "GB",
                         c.vat, terms, credit, "GBP", False))  # fmt: skip
        self.table(
            "erp",
            "customer",
            "cust_no name1 state_no mail tel street city zip land vat_id terms credit_cents credit_cur is_on_hold",
            rows,
        )  # fmt: skip

    def _people(self) -> None:
        crm: list[Row] = []
        fsm: list[Row] = []
        names = [(g, f) for g in words.GIVEN for f in words.FAMILY]
        self.rng.shuffle(names)
        for n, company in enumerate(self.seed.companies[PROSPECTS:CUSTOMERS]):
            for is_main in (True, False) if n % 3 == 0 else (True,):
                given, family = names.pop()
                mail = f"{given}.{family}@{company.email.partition('@')[2]}".lower()
                work, mobile = next(self.phones), next(self.mobiles)
                role = self.rng.choice(words.ROLES)
                crm.append((self.uuid(), company.company_id, given, family, role, mail, work, mobile, is_main, False))
                if company.client is not None and is_main and n % 2 == 0:
                    fsm.append((len(fsm) + 1, company.client, given, family, mail, work, mobile))
        columns = "person_id company_id first_name last_name role email phone_work phone_mobile is_main is_deleted"
        self.table("crm", "people", columns, crm)
        self.table("fsm", "person", "id client_id given family mail phone mobile", fsm)

    def _sites(self) -> None:
        crm: list[Row] = []
        fsm: list[Row] = []
        erp: list[Row] = []
        for n, c in enumerate(self.seed.companies):
            for name in self.rng.sample(words.SITE_NAMES, 0 if n < PROSPECTS else 1 + (n % 3 == 1)):
                place = (name, *(c.address if n % 4 else self.address()), "GB")
                notes = self.rng.choice((None, *words.ACCESS))
                if n < CUSTOMERS:
                    crm.append((self.uuid(), c.company_id, *place, notes, False))
                if c.client is not None:
                    fsm.append((len(fsm) + 1, c.client, *place, notes))
                    self.locations.append((len(fsm), c))
                if c.cust_no is not None and n % 5 == 0:
                    erp.append((f"S-{70_001 + len(erp)}", c.cust_no, *place))
        columns = "site_id company_id site_name street town post_code country gate_notes is_deleted"
        self.table("crm", "sites", columns, crm)
        self.table("fsm", "location", "id client_id label street town zip country access_notes", fsm)
        self.table("erp", "ship_to", "ship_no cust_no name1 street city zip land", erp)

    def _equipment(self) -> list[tuple[int, int, Company]]:
        rows: list[Row] = []
        made: list[tuple[int, int, Company]] = []
        for location, company in self.locations:
            for _ in range(self.rng.randint(1, 2)):
                maker, prefix = self.rng.choice(words.MAKERS)
                number = len(rows) + 1
                health = self.rng.choices(("running", "limping", "broken", "spare"), (14, 3, 1, 1))[0]
                model = f"{prefix}-{self.rng.choice((200, 350, 500, 800))}"
                rows.append((number, company.client, location, self.rng.choice(words.EQUIPMENT), maker, model,
                             f"{prefix}{self.rng.randint(10_000, 99_999)}-{number:03d}", health,
                             self.day(200, 4000).isoformat()))  # fmt: skip
                made.append((number, location, company))
        self.table("fsm", "equipment", "id client_id location_id descr make model serial health installed_on", rows)
        return made

    def _items(self) -> list[tuple[str, str, int]]:
        parts: list[tuple[str, str, int]] = []
        for n in range(ITEMS):
            prefix, name = words.PARTS[n % len(words.PARTS)]
            size = words.SIZES[n // len(words.PARTS) % len(words.SIZES)]
            parts.append((f"{prefix}-{100 + n * 5}", f"{name} {size}", self.rng.randint(8, 420) * 100 + 90))
        articles: list[Row] = [(sku, name, "MAT", "each", self.rng.randint(5, 60), False) for sku, name, _ in parts]
        stock = {row[0]: row[4] for row in articles}
        articles += [
            ("LAB-1", "Technician, hour", "LAB", "h", None, False),
            ("CALL-1", "Call-out", "SRV", "each", None, False),
        ]
        prices = [*parts, ("LAB-1", "Technician, hour", 6400), ("CALL-1", "Call-out", 4500)]
        own: list[Row] = []
        for n, (sku, name, _) in enumerate(parts[:FSM_ITEMS], 1):
            # One part is called something else in the vans.
            own.append((n, sku, "Old pump, blue" if n == 13 else name, "part", "each", stock[sku], True))
        self.table("erp", "article", "sku descr class uom stock is_discontinued", articles)
        first = date(TODAY.year, 1, 1).isoformat()
        self.table("erp", "price", "price_no sku cents cur valid_from",
                   [(n, sku, cents, "GBP", first) for n, (sku, _, cents) in enumerate(prices, 1)])  # fmt: skip
        self.table("fsm", "part", "id part_no name kind unit on_hand is_active", own)
        return prices

    def _jobs(self, equipment: Sequence[tuple[int, int, Company]]) -> None:
        jobs: list[Row] = []
        labour: list[Row] = []
        for number in range(1, JOBS + 1):
            unit, location, company = self.rng.choice(equipment)
            kind, title = self.rng.choice(words.TITLES)
            progress = self.rng.choice(STAGES)
            day = self.day(1, 40) if progress in ("done", "billed", "dropped") else self.day(-14, 0)
            start = datetime(day.year, day.month, day.day, self.rng.randint(8, 16), self.rng.choice((0, 15, 30, 45)))
            visit = None if progress == "open" else int((start - datetime(1970, 1, 1)).total_seconds())
            team = self.rng.choice(words.TEAMS)
            is_done = progress in ("done", "billed")
            jobs.append((number, f"J-{2600 + number}", company.client, location, unit, title, kind,
                         self.rng.choice(("low", "normal", "normal", "high", "urgent")), progress, f"Van {team}", team,
                         visit, self.rng.choice(("0.75", "1.50", "2.00", "4.25")),
                         self.rng.choice(words.DONE) if is_done else None))  # fmt: skip
            for part in range(self.rng.randint(1, 2) if is_done else 0):
                began = start + timedelta(minutes=45 * part)
                labour.append((len(labour) + 1, number, f"Van {team}", "work" if part == 0 else "travel",
                               began.isoformat(sep=" "), self.rng.choice(("0.25", "0.50", "1.25", "2.75")),
                               self.rng.choice(words.DONE)))  # fmt: skip
        columns = "id job_no client_id location_id equipment_id title kind priority progress technician team visit_at planned_hours report"  # noqa: E501
        self.table("fsm", "job", columns, jobs)
        self.table("fsm", "labour", "id job_id technician category started_at hours done", labour)

    def _invoices(self, prices: Sequence[tuple[str, str, int]]) -> None:
        invoices: list[Row] = []
        lines: list[Row] = []
        customers = [c for c in self.seed.companies if c.cust_no is not None]
        for n in range(1, INVOICES + 1):
            company = self.rng.choice(customers)
            # Every eighth is an offer, which stands in the same table and is nobody else's business.
            doc_type = "AN" if n % 8 == 0 else "RE"
            number = f"{'Q' if doc_type == 'AN' else 'R'}-2026-{n:04d}"
            issued = self.day(2, 90)
            net = 0
            # Lines of offers would be read as lines of invoices that never come.
            for position in range(1, self.rng.randint(1, 3) + 1 if doc_type == "RE" else 1):
                sku, name, cents = self.rng.choice(prices)
                quantity = self.rng.randint(1, 4)
                net += quantity * cents
                lines.append((number, position, sku, name, quantity, quantity * cents))
            net = net or 50_000
            state = self.rng.choice((20, 30, 30, 50, 50, 50))
            invoices.append((number, doc_type, company.cust_no, state, issued.isoformat(),
                             (issued + timedelta(days=30)).isoformat(), net, net // 5, net + net // 5))  # fmt: skip
        columns = "invoice_no doc_type cust_no state_no issued due net_cents tax_cents gross_cents"
        self.table("erp", "invoice", columns, invoices)
        self.table("erp", "invoice_line", "invoice_no line_no sku words qty net_cents", lines)
