"""Words for the hub's numbers."""

from __future__ import annotations

from engine.hub.transaction import HubTransaction
from engine.model.record import Value


def system_names(tx: HubTransaction) -> dict[int, str]:
    return {0: "a person", **dict(tx.rows("select id, name from system"))}


def field_names(tx: HubTransaction, entity: int) -> list[str]:
    return [name for (name,) in tx.rows("select name from field where entity = ? order by indexed", (entity,))]


def values_of(tx: HubTransaction, rid: int) -> dict[str, Value]:
    """A record's current values by field name, nulls left out."""
    entry = tx.current(rid)
    if entry is None:
        return {}
    return {n: v for n, v in zip(field_names(tx, entry.entity), entry.values, strict=False) if v is not None}
