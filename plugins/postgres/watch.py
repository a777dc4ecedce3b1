"""What the log has told of the tables, beside what the catalogue says of them now.

The log sends a relation message before the first row of a table and when its columns have changed; that becomes a
decoder and a shape. What it does not send (a table taken out of the publication, a new label of an enum, a trigger) a
look at the catalogue finds out. Either becomes an event.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from engine.errors import SourceUnready
from engine.model.change import EventKind
from engine.plugin import Site
from plugins.postgres.catalog import MARKER, Catalog, load_catalog, load_types, quoted, split_name
from plugins.postgres.compile import compile_decoders
from plugins.postgres.config import PostgresConfig, publication_name
from plugins.postgres.connect import connected, translated
from plugins.postgres.decode import RelationMessage, decode_relation
from plugins.postgres.gather import Gatherer, Relation
from plugins.postgres.reshaped import describe_change
from plugins.postgres.server import Publication


class Watch:
    """The tables of one feed; tells its gatherer of relations and events."""

    def __init__(
        self, site: Site, config: PostgresConfig, gatherer: Gatherer, tables: Sequence[str], verify: frozenset[str]
    ) -> None:
        self._site = site
        self._config = config
        self._gatherer = gatherer
        self._names = {split_name(name): name for name in tables}
        self._verify = verify
        self._catalog = Catalog(tables={}, types={})
        self._publication: Publication | None = None
        self._relations: dict[str, tuple[RelationMessage, Relation]] = {}
        self._gone: dict[str, EventKind] = {}
        self._members: dict[str, int] = {}

    @property
    def tables(self) -> list[str]:
        """Names of the tables that take part."""
        return list(self._names.values())

    @property
    def generated(self) -> frozenset[str]:
        """The kinds of generated columns that the log carries."""
        return frozenset("s") if self._publication and self._publication.has_generated else frozenset()

    def inspect(self, catalog: Catalog, publication: Publication | None) -> None:
        """Compare what the catalogue says now with what the log has told; adds events where they differ."""
        self._catalog, self._publication = catalog, publication
        published = publication.tables if publication else {}
        self._check_publication(publication)
        for place, name in self._names.items():
            gone = None
            if name not in catalog.tables:
                gone = EventKind.DROPPED
            elif place not in published or published[place].row_filter:
                gone = EventKind.UNPUBLISHED
            elif self._members.setdefault(name, published[place].id) != published[place].id:
                self._members[name] = published[place].id
                if name not in self._gone:
                    self._gatherer.event(EventKind.UNPUBLISHED, name, detail=_WAS_AWAY)
            if gone is not None and self._gone.get(name) is not gone:
                self._gatherer.event(gone, name, detail=self._detail(gone, place))
            if gone is None:
                self._gone.pop(name, None)
            else:
                self._gone[name] = gone
        for name, (message, relation) in list(self._relations.items()):
            if self._knows(name, message):
                # The columns are the same, but a label, a constraint or a trigger may have come or gone.
                self._use(name, message, relation.message)

    def _check_publication(self, publication: Publication | None) -> None:
        """Raises `SourceUnready` when changes of every table, or our own marker, would not be sent."""
        if publication is None:
            return
        name = publication_name(self._site, self._config)
        what = ""
        if missing := [op for op in ("insert", "update", "delete") if op not in publication.operations]:
            what = f"does not publish {' and '.join(missing)}"
        elif publication.has_marker_table and MARKER not in publication.tables:
            what = "has no table concord.marker any more, so our own deliveries would be taken for changes"
        if what:
            raise SourceUnready(
                f"system {self._site.name}: publication {name} {what}",
                hint=f"Run `concord setup {self._site.name}`, then `concord backfill {self._site.name}`: what changed"
                " meanwhile has not been sent.",
            )

    async def install(self, message: bytes) -> None:
        """Learn a table from its relation message, and from the catalogue where that knows no such columns."""
        sent = decode_relation(message)
        name = self._names.get((sent.schema, sent.table))
        if name is None:
            self._gatherer.install(_outsider(sent, message))
            return
        if not self._knows(name, sent):
            async with connected(self._site, self._config, use="catalogue") as connection:
                with translated(self._site.name, doing="read the catalogue", table=name):
                    fresh = await load_catalog(connection, [name])
                    types = await load_types(connection, {c.type_id for c in sent.columns})
            self._catalog.tables.pop(name, None)
            self._catalog.tables.update(fresh.tables)
            self._catalog.types.update(fresh.types | types)
        self._use(name, sent, message)

    def _knows(self, name: str, sent: RelationMessage) -> bool:
        """Whether the catalogue, as last read, has all the columns that the log speaks of."""
        table = self._catalog.tables.get(name)
        known = (
            {(a.name, a.type_id, a.type_modifier) for a in table.attributes} if table else set[tuple[str, int, int]]()
        )
        return all((c.name, c.type_id, c.type_modifier) in known for c in sent.columns)

    def _use(self, name: str, sent: RelationMessage, message: bytes) -> None:
        shape = self._catalog.shape_of(name, sent)
        _, previous = self._relations.get(name, (None, None))
        if previous is not None and previous.message == message and previous.shape == shape:
            return
        identity = tuple(index for index, column in enumerate(sent.columns) if column.is_key)
        keys = tuple(index for index in identity if sent.columns[index].name in shape.key) or identity
        relation = Relation(
            name=name,
            message=message,
            decoders=compile_decoders(len(sent.columns), identity=identity, keys=keys),
            shape=shape,
            is_verified=name in self._verify,
        )
        if previous is not None and previous.shape is not None and previous.shape != shape:
            self._gatherer.event(EventKind.RESHAPED, name, shape, describe_change(previous.shape, shape))
        self._relations[name] = (sent, relation)
        self._gatherer.install(relation)

    def _detail(self, kind: EventKind, place: tuple[str, str]) -> str:
        if kind is EventKind.DROPPED:
            return f"Give the table its name back, or create it again and run `concord setup {self._site.name}`"
        publication = quoted(publication_name(self._site, self._config))
        table = ".".join(quoted(part) for part in place)
        if self._publication is not None and place in self._publication.tables:
            # A row that leaves the filter would look deleted, and one that was never in it does not come at all.
            drop = f"alter publication {publication} drop table {table};"
            return f"The publication filters its rows. Run: {drop} alter publication {publication} add table {table};"
        return f"Run: alter publication {publication} add table {table};"


_WAS_AWAY: Final = "It was taken out of the publication and put back: what changed in between was not sent"


def _outsider(sent: RelationMessage, message: bytes) -> Relation:
    """A table whose rows are not reported: one without a mapping, or the marker."""
    name = f"{sent.schema}.{sent.table}"
    if (sent.schema, sent.table) != MARKER:
        return Relation(name=name, message=message, decoders=compile_decoders(0), shape=None)
    columns = [column.name for column in sent.columns]
    if "seq" not in columns:
        raise SourceUnready(
            f"table {name} has no column seq, so it is none of ours",
            hint="Move it to another schema, run `concord setup`, then start the daemon again.",
        )
    return Relation(
        name=name,
        message=message,
        decoders=compile_decoders(len(columns)),
        shape=None,
        is_marker=True,
        marker_seq=columns.index("seq"),
    )
