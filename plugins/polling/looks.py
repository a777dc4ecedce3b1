"""What is known of a polled system's rows, in a SQLite file beside the hub; and what was found and the hub has not yet.

A look and what it found are one transaction of this file: what is known of the rows is always as of the last look that
is in `found`, whenever the process dies. The hub's position says how much of `found` it has; the rest is handed out
again. So the file turns a database without a log into one: positions in it are (number of the look, index in it).

| table | one row is |
|---|---|
| about | the file: its token, the look we are at, the newest marker seen, up to where the hub has it |
| looked | a table: shape, when it was looked at, how far its updated-at column was read |
| known | a row as last found: key and hash, and the span of keys that it lies in |
| span | a stretch of a table's keys, with the digest that the database gave for it |
| written | a row as our delivery `seq` leaves it, noted before that commits: counts when the marker says that it did |
| wanted | a row that a delivery did not find as last seen: handed out at the next look whatever it is |
| look, found | what a look found, until the hub has it |
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import apsw
import msgspec

from engine.errors import SystemUnreachable
from engine.model.table import Shape

BUSY_MILLISECONDS = 600_000
"""A look writes as long as it reads, and a delivery then waits to note what it writes."""
SCHEMA = """
create table about (id integer primary key check (id = 1), token text not null, look integer not null,
  seen integer not null, purged_look integer not null, purged_index integer not null);
create table looked (id integer primary key, name text not null unique, shape blob not null, names blob not null,
  looked_at real, swept_at real, swept integer not null, history blob not null, verify integer not null,
  is_gone integer not null);
create table known (looked integer not null, key text not null, hash blob not null, span integer,
  primary key (looked, key)) without rowid;
create index known_span on known (looked, span);
create table span (id integer primary key, looked integer not null, place integer not null, upto text, digest text);
create index span_place on span (looked, place);
create table written (looked integer not null, key text not null, seq integer not null, hash blob, image blob,
  primary key (looked, key, seq)) without rowid;
create table wanted (looked integer not null, key text not null, primary key (looked, key)) without rowid;
create table shape (id integer primary key, looked integer not null, doc blob not null);
create table look (number integer primary key, seen integer not null, seen_at_least integer not null,
  at integer not null, echoed integer not null);
create table found (look integer not null, n integer not null, shape integer not null, op integer not null,
  delivery integer not null, time integer not null, row blob not null, primary key (look, n)) without rowid;
pragma user_version = 1;
"""


@dataclass(slots=True)
class Looked:
    """A table as it was last looked at. `swept`: the marker when all its rows were last compared. `names`: its columns
    as a query gives them, to see quickly that they are others. `history`: looks at its updated-at, oldest first
    (`horizon.Seen`)."""

    id: int
    name: str
    shape: Shape
    names: tuple[str, ...]
    looked_at: float | None = None
    swept_at: float | None = None
    swept: int = 0
    history: list[tuple[float, Any, float | None]] = field(default_factory=lambda: [])
    verify: bool = False
    is_gone: bool = False


@dataclass(slots=True)
class About:
    token: str
    look: int
    seen: int
    purged: tuple[int, int]


class Looks:
    """The open file. Used by one thread at a time; several may have it open."""

    def __init__(self, path: Path) -> None:
        self.path = path
        is_new = not path.exists()
        try:
            self.db: Any = cast("Any", apsw.Connection(str(path)))
            self.db.set_busy_timeout(BUSY_MILLISECONDS)
            if is_new:
                # It holds rows until the hub has them.
                path.chmod(0o600)
            self.db.execute("pragma journal_mode = wal").close()
            # Whoever only reads must not wait for a look that is under way.
            if not self._is_made():
                with self.transaction():
                    if not self._is_made():
                        self.db.execute(SCHEMA)
                        self.reset()
        except apsw.Error as error:
            raise SystemUnreachable(
                f"the file {path} cannot be used ({type(error).__name__})", hint="Check its folder and its permissions."
            ) from error

    def close(self) -> None:
        self.db.close()

    def _is_made(self) -> bool:
        return bool(self.rows("select 1 from sqlite_schema where name = 'about'"))

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return list(self.db.execute(sql, values))

    def run(self, sql: str, values: Sequence[Any] = ()) -> None:
        self.db.execute(sql, values).close()

    def each(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        self.db.executemany(sql, rows).close()

    @contextmanager
    def transaction(self, *, is_lasting: bool = True) -> Generator[None]:
        """`is_lasting`: it must be there after a power cut, not only after a kill."""
        self.db.execute(f"pragma synchronous = {'full' if is_lasting else 'normal'}").close()
        self.db.execute("begin immediate").close()
        try:
            yield
            self.db.execute("commit").close()
        except BaseException:
            if self.db.in_transaction:
                self.db.execute("rollback").close()
            raise

    # The file as a whole.

    def about(self) -> About:
        ((token, look, seen, purged_look, purged_index),) = self.rows(
            "select token, look, seen, purged_look, purged_index from about"
        )
        return About(token, look, seen, (purged_look, purged_index))

    def reset(self) -> None:
        """Know nothing. Numbers of looks go on, so that no place of before is taken for one of now."""
        last = self.rows("select look from about")
        look = last[0][0] + 1 if last else 0
        for table in ("looked", "known", "span", "written", "wanted", "shape", "look", "found", "about"):
            self.run(f"delete from {table}")
        self.run("insert into about values (1, ?, ?, 0, ?, 0)", (secrets.token_hex(8), look, look))

    # Tables.

    def tables(self) -> dict[str, Looked]:
        found: dict[str, Looked] = {}
        for id, name, shape, names, looked_at, swept_at, swept, history, verify, is_gone in self.rows(
            "select id, name, shape, names, looked_at, swept_at, swept, history, verify, is_gone from looked"
        ):
            found[name] = Looked(
                id,
                name,
                msgspec.json.decode(shape, type=Shape),
                tuple(json.loads(names)),
                looked_at,
                swept_at,
                swept,
                [(at, value, oldest) for at, value, oldest in json.loads(history)],
                bool(verify),
                bool(is_gone),
            )
        return found

    def add_table(self, name: str, shape: Shape, names: Sequence[str]) -> Looked:
        ((id,),) = self.rows("select coalesce(max(id), 0) + 1 from looked")
        table = Looked(id, name, shape, tuple(names))
        self.run("insert into looked values (?, ?, '', '', null, null, 0, '[]', 0, 0)", (id, name))
        self.save(table)
        return table

    def save(self, table: Looked) -> None:
        self.run(
            "update looked set shape = ?, names = ?, looked_at = ?, swept_at = ?, swept = ?, history = ?, verify = ?,"
            " is_gone = ? where id = ?",
            (
                msgspec.json.encode(table.shape), json.dumps(table.names), table.looked_at, table.swept_at, table.swept,
                json.dumps(table.history), table.verify, table.is_gone, table.id,
            ),
        )  # fmt: skip

    def drop_table(self, id: int) -> None:
        for name in ("known", "span", "written", "wanted"):
            self.run(f"delete from {name} where looked = ?", (id,))
        self.run("delete from looked where id = ?", (id,))

    def shape_number(self, table: Looked) -> int:
        """The number under which rows that are found say what they look like."""
        document = msgspec.json.encode(table.shape)
        known = self.rows("select id from shape where looked = ? and doc = ?", (table.id, document))
        if known:
            return known[0][0]
        self.run("insert into shape (looked, doc) values (?, ?)", (table.id, document))
        return self.db.last_insert_rowid()

    # Rows.

    def known(self, table: int, keys: Sequence[str]) -> dict[str, tuple[bytes, int | None]]:
        """Key → hash and span."""
        rows = self.rows(
            "select key, hash, span from known where looked = ? and key in (select value from json_each(?))",
            (table, json.dumps(keys, ensure_ascii=False)),
        )
        return {key: (hash, span) for key, hash, span in rows}

    def written(self, table: int, keys: Sequence[str], seq: int) -> dict[str, bytes | None]:
        """Key → hash that the newest delivery up to `seq` left; None where that deleted the row."""
        rows = self.rows(
            "select key, hash from written where looked = ?1 and seq <= ?3 and key in (select value from json_each(?2))"
            " order by seq",
            (table, json.dumps(keys, ensure_ascii=False), seq),
        )
        return dict(rows)

    def expected(self, table: int, keys: Sequence[str], seq: int) -> dict[str, bytes]:
        """Key → hash of the row as delivery `seq` has left it, else as it was last found; none where there is none."""
        found: dict[str, bytes | None] = {key: hash for key, (hash, _) in self.known(table, keys).items()}
        found |= self.written(table, keys, seq)
        return {key: hash for key, hash in found.items() if hash is not None}

    def asked(self, table: int, seq: int) -> list[str]:
        """Keys of rows that the next look must read: what deliveries up to `seq` wrote, and what is wanted."""
        rows = self.rows(
            "select key from written where looked = ?1 and seq <= ?2 union select key from wanted where looked = ?1",
            (table, seq),
        )
        return [key for (key,) in rows]

    def has_asked(self) -> bool:
        """Whether any table has; `written` of a delivery that is not committed yet counts as well."""
        return bool(self.rows("select 1 from wanted union all select 1 from written limit 1"))

    def wanted(self, table: int, keys: Sequence[str]) -> set[str]:
        rows = self.rows(
            "select key from wanted where looked = ? and key in (select value from json_each(?))",
            (table, json.dumps(keys, ensure_ascii=False)),
        )
        return {key for (key,) in rows}

    def know(self, table: int, rows: Iterable[tuple[str, bytes, int | None]]) -> None:
        self.each(
            "insert into known (looked, key, hash, span) values (?, ?, ?, ?) on conflict (looked, key) do update set"
            " hash = excluded.hash, span = excluded.span",
            ((table, *row) for row in rows),
        )

    def know_no_more(self, table: int, keys: Iterable[str]) -> None:
        self.each("delete from known where looked = ? and key = ?", ((table, key) for key in keys))

    def settle(self, table: int, keys: Sequence[str], seq: int) -> None:
        """These rows have been read as delivery `seq` and their users left them."""
        values = (table, json.dumps(keys, ensure_ascii=False))
        these = "looked = ?1 and key in (select value from json_each(?2))"
        self.run(f"delete from written where {these} and seq <= ?3", (*values, seq))
        self.run(f"delete from wanted where {these}", values)

    def touch_spans(self, spans: Iterable[int]) -> None:
        """What the database said of these spans holds no more."""
        self.each("update span set digest = null where id = ?", ((span,) for span in spans))
