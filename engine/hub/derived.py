"""What workflows have made, and whose children records are, inside one hub transaction."""

from __future__ import annotations

from engine.hub.transaction import HubTransaction
from engine.model.entity import ALIVE
from engine.model.record import Entry, Value

READ_RECORDS = 5_000


class DerivedRecords:
    """What one workflow has made."""

    def __init__(self, tx: HubTransaction, workflow: str) -> None:
        self._tx, self._workflow = tx, workflow

    def get(self, make: str, key: str) -> int | None:
        """The record that was made for a key, None when none was."""
        found = self._tx.rows(
            "select rid from derived where workflow = ? and make = ? and key = ?", (self._workflow, make, key)
        )
        return found[0][0] if found else None

    def add(self, make: str, key: str, rid: int, cause: Entry) -> None:
        self._tx.write(
            "insert into derived values (?, ?, ?, ?, ?, ?)", (self._workflow, make, key, rid, cause.rid, cause.seq)
        )

    def wrote(self, seq: int, cause: Entry) -> None:
        """Entry `seq` follows from another record."""
        self._tx.write("insert into followed values (?, ?, ?, ?)", (seq, self._workflow, cause.rid, cause.seq))

    def note(self, make: str, cause: Entry, message: str) -> None:
        """Keep on record why nothing was made."""
        tx = self._tx
        tx.write(
            "insert or replace into underived values (?, ?, ?, ?, ?, ?)",
            (self._workflow, make, cause.rid, message, cause.seq, tx.clock.now()),
        )

    def forget_note(self, cause: int) -> None:
        self._tx.write("delete from underived where workflow = ? and cause = ?", (self._workflow, cause))

    def has_begun(self, cause: int) -> bool:
        """Whether a record has set it off."""
        return bool(self._tx.rows("select 1 from begun where workflow = ? and rid = ?", (self._workflow, cause)))

    def begin(self, cause: Entry) -> None:
        self._tx.write("insert or ignore into begun values (?, ?, ?)", (self._workflow, cause.rid, cause.seq))


class Children:
    """Records by what a reference field of theirs refers to, as far as workflows look at them."""

    def __init__(self, tx: HubTransaction) -> None:
        self._tx = tx

    def of(self, entity: int, field: int, parent: int) -> list[int]:
        """Oldest first."""
        meaning = sorted(self._tx.meaning({parent}))
        marks = ", ".join("?" * len(meaning))
        sql = f"select distinct rid from child where entity = ? and field = ? and parent in ({marks}) order by rid"
        return [rid for (rid,) in self._tx.rows(sql, (entity, field, *meaning))]

    def move(self, tx: HubTransaction, entry: Entry, before: Value, field: int) -> set[int]:
        """Note what an entry's field refers to now; the parents that this concerns."""
        parents: set[int] = set()
        now = entry.value(field)
        for parent in (before, now):
            if isinstance(parent, int) and not isinstance(parent, bool):
                parents.add(tx.alias(parent))
        if isinstance(before, int) and before != now:
            self._delete(entry.entity, field, before, entry.rid)
        if isinstance(now, int) and before != now and entry.value(ALIVE) is not False:
            self._add(entry.entity, field, now, entry.rid)
        return parents

    def keep(self, wanted: set[tuple[int, int]]) -> None:
        """Note the children that are there by these fields, unless that has been done; what nobody looks at any more is
        forgotten, for nobody keeps it up to date."""
        tx = self._tx
        known = {(entity, field) for entity, field in tx.rows("select entity, field from child_index")}
        for entity, field in known - wanted:
            tx.write("delete from child where entity = ? and field = ?", (entity, field))
            tx.write("delete from child_index where entity = ? and field = ?", (entity, field))
        for entity, field in sorted(wanted - known):
            self._build(entity, field)

    def _build(self, entity: int, field: int) -> None:
        tx = self._tx
        last = tx.last_seq
        for after in range(0, last, READ_RECORDS):
            rids = [rid for (rid,) in tx.rows(
                "select rid from record where rid > ?1 and rid <= ?2 union"
                " select seq from journal where seq > ?1 and seq <= ?2",
                (after, after + READ_RECORDS),
            )]  # fmt: skip
            for rid, entry in tx.load_records(rids).items():
                parent = entry.value(field)
                if entry.entity == entity and isinstance(parent, int) and entry.value(ALIVE) is not False:
                    self._add(entity, field, parent, rid)
        tx.write("insert into child_index values (?, ?)", (entity, field))

    def _add(self, entity: int, field: int, parent: int, rid: int) -> None:
        self._tx.write("insert or ignore into child values (?, ?, ?, ?)", (entity, field, parent, rid))

    def _delete(self, entity: int, field: int, parent: int, rid: int) -> None:
        self._tx.write(
            "delete from child where entity = ? and field = ? and parent = ? and rid = ?", (entity, field, parent, rid)
        )
