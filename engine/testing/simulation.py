"""A whole world in one process: three systems with users, the real daemon over the real hub, and everything that goes
wrong.

A world is a seed. It lives through some lives of the daemon, each with users writing meanwhile, faults striking at port
calls, and a death at a crash point or at a moment; then it grows quiet, runs one last life until settled, and is
checked. The same seed is the same world, so a failure can be looked at as often as it takes.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TypeVar

import anyio
import msgspec

from engine.daemon import Daemon, Ending
from engine.errors import RowRefused
from engine.hub.database import Database
from engine.hub.sqlite import SqliteHub, connect, migrate
from engine.hub.transaction import HubTransaction
from engine.lanes import Member
from engine.model.entity import ALIVE
from engine.model.record import Entry
from engine.model.table import Form
from engine.model.value import Wire
from engine.pipeline.enroll import Enrolment, enroll, forget_absent_sources
from engine.pipeline.joined_system import JoinedSystem, JoinedTarget
from engine.pipeline.topology import Topology
from engine.ports import Clock, Role, System, Target
from engine.telemetry.log import Log
from engine.testing.faults import Faults
from engine.testing.joined_kits import JOINED_KITS
from engine.testing.kits import ACCOUNT, KIND, KITS, PART, PARTS, SITE, TEXTS, Kit
from engine.testing.memory import MemoryDatabase
from engine.testing.memory_polled import MemoryLooks, PolledSource
from engine.testing.memory_source import MemorySource
from engine.testing.memory_system import MemorySystem
from engine.testing.memory_target import MemoryTarget
from engine.testing.memory_transaction import MemoryTransaction
from engine.testing.scheduler import WorldClock, live

T = TypeVar("T")
SETTLE_SECONDS_MAX = 20_000.0


class SimulatedHub(SqliteHub):
    """The hub with a place to die on both sides of every transaction. A dead process writes nothing more."""

    def __init__(self, connection: Database, clock: Clock, faults: Faults) -> None:
        super().__init__(connection, None, clock, inline=True, path=None)
        self._faults = faults

    async def transact(self, work: Callable[[HubTransaction], T]) -> T:
        await self._faults.point("hub before")
        result = self.transact_now(work)
        await self._faults.point("hub after")
        return result

    async def read(self, work: Callable[[HubTransaction], T]) -> T:
        await self._faults.point("hub read")
        return self.transact_now(work)


@dataclass
class Simulation:
    """One world. `has_deletes`: users delete customers. `has_twins`: users enter customers whom another system has.
    `has_modes`: in some lives a system is only read from. `has_retention`: what no decision needs goes at once.
    `has_imports`: users load many parts at once and change many at once, which the engine takes as bulks. `has_filter`:
    customers of the CRM become prospects, which take no part, and customers again. `has_backfills`: tables are read
    again beside the log. `has_losses`: logs are lost, and then the tables are read again. `has_polling`: some systems
    have no log and are looked at now and then. `has_joins`: customers are kept in several tables."""

    seed: int
    has_deletes: bool = True
    has_twins: bool = True
    has_modes: bool = False
    has_retention: bool = False
    has_imports: bool = False
    has_filter: bool = False
    has_backfills: bool = False
    has_losses: bool = False
    has_polling: bool = False
    has_joins: bool = False
    crashes: int = 0
    log: io.StringIO = field(default_factory=io.StringIO)

    def __post_init__(self) -> None:
        self.rng = Random(self.seed)
        self.clock = WorldClock()
        self.faults = Faults.swarm(self.seed, now=self.clock.monotonic)
        self.faults.rng = Random(self.seed + 1)
        self.kits = {kit.name: kit for kit in (JOINED_KITS if self.has_joins else KITS)}
        self.databases = {
            kit.name: kit.create(self.clock, has_parts=self.has_imports, has_kinds=self._has_kinds(kit))
            for kit in self.kits.values()
        }
        self.connection = connect(None)
        migrate(self.connection, self.clock)
        # Keys are made from the hub's id, and rows are read in the order of their keys.
        self.connection.execute("update hub set id = ?", (f"{self.seed:032x}",))
        self.serial = 0
        self.parent: dict[str, str | None] = {}
        self.written_by: dict[str, str] = {}
        self.stock_sum: dict[str, int] = {}
        self.with_sites: set[str] = set()
        self.deleted: set[str] = set()
        self.unseen: set[str] = set()
        self.sending: set[str] = set()
        self._is_ready = False
        polled = self.rng.sample(KITS, self.rng.randrange(1, len(KITS) + 1)) if self.has_polling else ()
        self.looks = {kit.name: MemoryLooks() for kit in polled}

    def _has_kinds(self, kit: Kit) -> bool:
        return self.has_filter and kit.name == "crm"

    # ---------------------------------------------------------------------------------------------- lives

    def run(self, lives: int) -> None:
        """All of the world's history, and its end."""
        for _ in range(lives):
            if self.has_modes:
                self.sending = {name for name in self.databases if self.rng.random() < 0.3}
            for _ in range(self.rng.randrange(4)):
                self.edit()
            if self._is_ready and (self.has_backfills or self.has_losses) and self.rng.random() < 0.5:
                self._read_again(self._any_kit())
            self._life(self.rng.uniform(0.5, 90.0))
            self.clock.pass_time(self.rng.uniform(0, 100))
        if self.has_filter:
            self._make_customers()
        self.settle()
        self.check()
        self._check_silence()

    def _read_again(self, kit: Kit) -> None:
        """What `concord backfill` does, between two lives."""
        if self.has_losses:
            # Its administrator sets it up again before.
            database = self.databases[kit.name]
            database.lose_log()
            database.beginning = database.head
        hub = SqliteHub(self.connection, None, self.clock, inline=True, path=None)
        number = self._hub_rows(f"select id from system where name = '{kit.name}'")[0][0]
        is_whole = self.has_losses or self.rng.random() < 0.3
        table = self.rng.choice((kit.accounts, kit.sites))
        street, living = kit.columns["street"], self._living(kit)
        condition = ""
        if table == kit.accounts and living and self.rng.random() < 0.5:
            condition = f"{street} = '{self.rng.choice(living)[street]}'"
        pace = self.rng.choice((None, 1, 3))

        def order(tx: HubTransaction) -> None:
            if is_whole:
                tx.write("delete from snapshot where place in (select id from place where system = ?)", (number,))
                return
            tx.write(
                "insert into backfill (system, name, condition, rows_per_s, created_at, changed_at)"
                " values (?1, ?2, ?3, ?4, ?5, ?5)",
                (number, table, condition, pace, self.clock.now()),
            )

        hub.transact_now(order)

    def _make_customers(self) -> None:
        """Nobody is a prospect any more: they would be compared with nobody."""
        with self.databases["crm"].transaction() as transaction:
            for row in self.databases["crm"].rows("customers"):
                if row[KIND] != "customer":
                    transaction.update("customers", (row["id"],), {KIND: "customer"})

    def settle(self) -> None:
        """Quiet: no more faults and users. Runs until nothing is left to do, parked records included."""
        self.faults.quiet()
        self.sending = set()
        for _ in range(20):
            # Parked records wait longer and longer; here somebody asks for them at once, as `concord parked retry`
            # does.
            self.connection.execute("update parked set try_after = 0")
            ending = self._life(SETTLE_SECONDS_MAX, until_settled=True, seconds_min=30.0)
            assert ending is not None, f"does not settle:\n{self.log.getvalue()[-3000:]}"
            assert not ending.halted, [str(lane.error) for lane in ending.halted]
            if self._hub_rows("select count(*) from parked") == [(0,)]:
                return
        raise AssertionError(f"still parked: {self._hub_rows('select system, rid, reason, message from parked')}")

    def _life(self, seconds: float, *, until_settled: bool = False, seconds_min: float = 0.0) -> Ending | None:
        found: list[Ending] = []

        async def main() -> None:
            daemon = await self._start()
            async with anyio.create_task_group() as tasks:
                if not until_settled:
                    tasks.start_soon(self._users)
                if until_settled:
                    tasks.start_soon(self._stop_later, daemon, seconds_min)
                found.append(await daemon.run(with_signals=False))
                tasks.cancel_scope.cancel()

        if not until_settled and self.rng.random() < 0.7:
            self.faults.crash_in = self.rng.randrange(1, 400)
        live(main, seed=self.rng.randrange(1 << 30), seconds=seconds, faults=self.faults, clock=self.clock)
        self.crashes += not found
        return found[0] if found else None

    async def _stop_later(self, daemon: Daemon, seconds: float) -> None:
        await anyio.sleep(seconds)
        await daemon.settled.wait_settled()
        daemon.stop()

    async def _start(self) -> Daemon:
        hub = SimulatedHub(self.connection, self.clock, self.faults)

        def enrol(tx: HubTransaction) -> Topology:
            systems = [
                Enrolment(
                    name=kit.name,
                    mapping=kit.mapping(has_parts=self.has_imports, has_kinds=self._has_kinds(kit)),
                    is_source=True,
                    is_target=kit.name not in self.sending,
                )
                for kit in self.kits.values()
            ]
            topology = enroll(tx, hub.hub_id, (ACCOUNT, SITE, PART), systems)
            forget_absent_sources(tx, topology)
            return topology

        topology = hub.transact_now(enrol)
        hub.take_over()
        if not self._is_ready:
            for database in self.databases.values():
                tables = tuple(database.tables)
                await MemorySystem(database).setup(tables, Role.SOURCE | Role.TARGET)
            self._is_ready = True
        members = [self._member(topology, name, database) for name, database in self.databases.items()]
        log = Log(stream=self.log, level=10)
        days = 0.0 if self.has_retention else 30.0
        return Daemon(hub, topology, members, log, rng=self.rng, retention_days=days)

    def _member(self, topology: Topology, name: str, database: MemoryDatabase) -> Member:
        looks = self.looks.get(name)
        source = MemorySource(database, self.faults) if looks is None else PolledSource(database, looks, self.faults)
        part = topology.named(name)
        system: System = MemorySystem(database, self.faults, looks)
        target: Target | None = None if name in self.sending else MemoryTarget(database, self.faults, looks)
        if part.joins.joins:
            system = JoinedSystem(system, part.joins, "postgres")
            target = None if target is None else JoinedTarget(target, system, topology.hub_id)
        return Member(part=part, system=system, source=source, target=target)

    async def _users(self) -> None:
        """Users at work beside the daemon, and the world's weather."""
        while True:
            await anyio.sleep(self.rng.expovariate(1.0))
            for _ in range(self.rng.choice((1, 1, 2, 5))):
                self.edit()
            if self.rng.random() < 0.1:
                self._weather()

    def _weather(self) -> None:
        name = self.rng.choice(list(self.databases))
        kind = self.rng.randrange(4)
        if kind == 0:
            self.faults.take_down(name, self.rng.uniform(1, 50))
        elif kind == 1:
            self.faults.make_read_only(name, self.rng.uniform(1, 50))
        elif kind == 2:
            last = self._hub_rows("select coalesce(max(seq), 1) from journal")[0][0]
            self.faults.refuse(name, [self.rng.randrange(1, last + 2) for _ in range(3)], self.rng.uniform(5, 200))
        else:
            self.faults.make_slow(name, self.rng.choice((0.0, 0.5, 3.0)))

    # ---------------------------------------------------------------------------------------------- users

    def _any_kit(self) -> Kit:
        return self.rng.choice(list(self.kits.values()))

    def edit(self) -> None:
        """One transaction of one system's users."""
        kit = self._any_kit()
        try:
            with self.databases[kit.name].transaction() as transaction:
                if self.has_imports and self.rng.random() < 0.5:
                    self._import(kit, transaction)
                else:
                    for _ in range(self.rng.choice((1, 1, 1, 2, 4))):
                        self._step(kit, transaction)
        except RowRefused:
            # A constraint of the user's own database; the application shows a message, nothing is written.
            self._forget()
        else:
            self._keep()

    def _step(self, kit: Kit, transaction: MemoryTransaction) -> None:
        kind = self.rng.choices(("insert", "update", "site", "label", "stock", "delete"), (3, 8, 2, 2, 2, 1))[0]
        accounts = self._living(kit)
        # Before the first copy is complete, a customer who becomes a prospect was never there for the engine.
        if self._has_kinds(kit) and accounts and self._is_copied() and self.rng.random() < 0.3:
            row = self.rng.choice(accounts)
            other = "prospect" if row[KIND] == "customer" else "customer"
            transaction.update(kit.accounts, (row["id"],), {KIND: other})
            return
        # What users write while a row takes no part, and what is on its way overwrites, nobody could account for.
        accounts = [row for row in accounts if row.get(KIND, "customer") == "customer"]
        if kind == "insert" or not accounts:
            self._insert(kit, transaction)
        elif kind == "update":
            self._update(kit, transaction, self.rng.choice(accounts))
        elif kind == "stock":
            self._count(kit, transaction, self.rng.choice(accounts))
        elif kind == "site":
            # Nobody sends work to a customer whom somebody is deleting: that a site then stays without a customer is
            # for people to sort out (it parks), and no question of this world.
            accounts = [row for row in accounts if str(row[kit.columns["email"]]) not in self.deleted]
            if not accounts:
                return
            row = self.rng.choice(accounts)
            self.with_sites.add(str(row[kit.columns["email"]]))
            values: dict[str, Wire] = {"account": row["id"], "label": self._value(kit, None)}
            if not kit.is_assigned:
                values["id"] = f"s{self.serial}"
            transaction.insert(kit.sites, values)
        elif kind == "label":
            sites = self.databases[kit.name].rows(kit.sites)
            if sites:
                site = self.rng.choice(sites)
                transaction.update(kit.sites, (site["id"],), {"label": self._value(kit, site["label"])})
        elif self.has_deletes and self._is_copied():
            row = self.rng.choice(accounts)
            if str(row[kit.columns["email"]]) not in self.with_sites:
                self._delete(kit, transaction, row)

    def _import(self, kit: Kit, transaction: MemoryTransaction) -> None:
        """Many parts that are new, or one column of many parts; seldom a few that go."""
        parts = self.databases[kit.name].rows(PARTS)
        kind = self.rng.choices(("insert", "update", "delete"), (4, 4, 1))[0]
        chosen = self.rng.sample(parts, min(len(parts), self.rng.randrange(1, 9)))
        if kind == "insert" or not parts:
            for _ in range(self.rng.randrange(1, 13)):
                code = self._value(kit, None)
                note = None if self.rng.random() < 0.1 else self._value(kit, None)
                transaction.insert(PARTS, {"id": f"p{code}", "code": code, "note": note})
        elif kind == "update":
            for part in chosen:
                transaction.update(PARTS, (part["id"],), {"note": self._value(kit, part["note"])})
        elif self.has_deletes and self._is_copied():
            for part in chosen[:2]:
                transaction.delete(PARTS, (part["id"],))
                self._let_go(kit, part)

    def _is_copied(self) -> bool:
        """Before the first copy is complete, a row that comes and goes was never there for the engine."""
        return self._hub_rows("select count(*) from snapshot where is_done") == [
            ((3 if self.has_imports else 2) * len(KITS),)
        ]

    def _living(self, kit: Kit) -> list[dict[str, Wire]]:
        return kit.living(self.databases[kit.name])

    def _insert(self, kit: Kit, transaction: MemoryTransaction) -> None:
        values: dict[str, Wire] = {kit.columns[name]: self._value(kit, None) for name in TEXTS}
        values[kit.columns["email"]] = self._email(kit)
        values[kit.columns["stock"]] = "0" if kit.form is Form.TEXT else 0
        if self._has_kinds(kit):
            values[KIND] = "customer"
        if kit.soft_delete is not None:
            values[kit.soft_delete] = "f"
        if not kit.is_assigned:
            values["id"] = f"k{self.serial}"
        kit.enter(transaction, values)

    def _email(self, kit: Kit) -> str:
        """Mostly a new one; sometimes that of a customer whom another system knows and this one does not yet."""
        others = {
            str(row[other.columns["email"]])
            for other in self.kits.values()
            if other is not kit
            for row in self._living(other)
        }
        own = {str(row[kit.columns["email"]]) for row in kit.customers(self.databases[kit.name])}
        # Nor one whom somebody has deleted: entered again, that may well be another customer, and a person would be
        # asked.
        twins = sorted(others - own - self.deleted)
        if self.has_twins and twins and self.rng.random() < 0.3:
            return self.rng.choice(twins)
        self.serial += 1
        return f"e{self.serial}@example.org"

    def _update(self, kit: Kit, transaction: MemoryTransaction, row: dict[str, Wire]) -> None:
        column = kit.columns[self.rng.choice(TEXTS)]
        kit.change(transaction, row, {column: self._value(kit, row[column])})

    def _count(self, kit: Kit, transaction: MemoryTransaction, row: dict[str, Wire]) -> None:
        column = kit.columns["stock"]
        change = self.rng.randrange(-3, 4)
        count = int(str(row[column] or 0)) + change
        email = str(row[kit.columns["email"]])
        self._sums.append((email, change))
        kit.change(transaction, row, {column: str(count) if kit.form is Form.TEXT else count})

    def _delete(self, kit: Kit, transaction: MemoryTransaction, row: dict[str, Wire]) -> None:
        self.deleted.add(str(row[kit.columns["email"]]))
        if kit.soft_delete is not None:
            kit.change(transaction, row, {kit.soft_delete: "t"})
        else:
            kit.remove(transaction, row)
            self._let_go(kit, row)
            if self.has_joins:
                # What was never committed is not told of a row that is put together.
                self.unseen.update(str(value) for value in row.values() if value in self._pending)

    def _let_go(self, kit: Kit, row: dict[str, Wire]) -> None:
        if kit.name in self.looks:
            # What a deleted row held may have stood there between two looks only, and nobody has seen it.
            self.unseen.update(value for value in row.values() if isinstance(value, str))

    def _value(self, kit: Kit, replaced: Wire) -> str:
        self.serial += 1
        value = f"{kit.name}{self.serial}"
        self._pending[value] = replaced if isinstance(replaced, str) else None
        return value

    _pending: dict[str, str | None] = field(default_factory=lambda: {})
    _sums: list[tuple[str, int]] = field(default_factory=lambda: [])

    def _keep(self) -> None:
        self.parent.update(self._pending)
        for email, change in self._sums:
            self.stock_sum[email] = self.stock_sum.get(email, 0) + change
        self._forget()

    def _forget(self) -> None:
        self._pending.clear()
        self._sums.clear()

    # --------------------------------------------------------------------------------------------- checks

    def _hub_rows(self, sql: str) -> list[tuple[int, ...]]:
        return list(self.connection.execute(sql))

    def records(self) -> Iterator[Entry]:
        """Every record as it is now."""
        hub = SqliteHub(self.connection, None, self.clock, inline=True, path=None)

        def read(tx: HubTransaction) -> list[Entry]:
            rids = [rid for (rid,) in tx.rows("select rid from record union select seq from journal")]
            entries = tx.load_records(rids)
            return [entries[rid] for rid in rids if rid in entries]

        yield from hub.transact_now(read)

    def check(self) -> None:
        """Agreement, no duplicates, no silent loss."""
        self._check_agreement()
        # What a lost log had of a field that a delivery has overwritten nobody can tell.
        if not self.has_losses:
            self._check_no_silent_loss()

    def _check_agreement(self) -> None:
        tables: dict[str, list[tuple[str | None, ...]]] = {}
        sites: dict[str, list[tuple[str, str]]] = {}
        for name, kit in self.kits.items():
            rows = self._living(kit)
            order = ("email", *TEXTS, "stock")
            texts = (
                tuple(None if row[kit.columns[n]] is None else str(row[kit.columns[n]]) for n in order) for row in rows
            )
            tables[name] = sorted(texts, key=_nulls_last)
            emails = [row[0] for row in tables[name]]
            doubled = sorted({str(e) for e in emails if emails.count(e) > 1})
            assert not doubled, f"{name} has {doubled} twice"
            by_key = {row["id"]: str(row[kit.columns["email"]]) for row in kit.customers(self.databases[name])}
            sites[name] = sorted(
                (by_key[row["account"]], str(row["label"])) for row in self.databases[name].rows(kit.sites)
            )
        for name in self.kits:
            assert tables[name] == tables["crm"], (
                f"accounts of crm and {name} differ:{_differ(tables['crm'], tables[name])}"
            )
            assert sites[name] == sites["crm"], f"sites of crm and {name} differ:{_differ(sites['crm'], sites[name])}"
        if self.has_imports:
            parts = {
                name: sorted((str(row["code"]), str(row["note"])) for row in database.rows(PARTS))
                for name, database in self.databases.items()
            }
            for name, found in parts.items():
                assert len({code for code, _ in found}) == len(found), f"{name} has parts twice"
                assert found == parts["crm"], f"parts of crm and {name} differ:{_differ(parts['crm'], found)}"
        canonical = sorted(
            (
                tuple(None if v is None else str(v) for v in entry.values[1:])
                for entry in self.records()
                if len(entry.values) == len(ACCOUNT.fields) and entry.values[ALIVE]
            ),
            key=_nulls_last,
        )
        assert canonical == tables["crm"], f"records and crm differ:{_differ(canonical, tables['crm'])}"

    def _check_no_silent_loss(self) -> None:
        roots: list[object] = [*self.unseen]
        roots += [value for entry in self.records() for value in entry.values]
        for winner, loser in self.connection.execute("select winner_values, loser_values from conflict"):
            roots.extend((*msgspec.msgpack.decode(winner), *msgspec.msgpack.decode(loser)))
        accounted: set[str] = set()
        for root in roots:
            value = root if isinstance(root, str) else None
            while value is not None and value not in accounted:
                accounted.add(value)
                value = self.parent.get(value)
        lost = sorted(set(self.parent) - accounted)
        assert not lost, f"lost in silence: {lost}"

    def _check_silence(self) -> None:
        """Nothing comes of nothing: another life writes no row anywhere and journals nothing."""
        before = self._hub_rows("select max(seq) from journal")
        rows = {name: {t: database.rows(t) for t in database.tables} for name, database in self.databases.items()}
        self.settle()
        assert self._hub_rows("select max(seq) from journal") == before, "echo: the journal grew in a settled world"
        for name, database in self.databases.items():
            for table in database.tables:
                assert database.rows(table) == rows[name][table], f"echo: {name} was written in a settled world"


def _nulls_last(row: tuple[str | None, ...]) -> list[tuple[bool, str]]:
    return [(value is None, value or "") for value in row]


def _differ(a: Sequence[object], b: Sequence[object]) -> str:
    only_a = [row for row in a if row not in b][:3]
    only_b = [row for row in b if row not in a][:3]
    return f"\n  first only: {only_a}\n  second only: {only_b}"
