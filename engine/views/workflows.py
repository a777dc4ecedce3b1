"""What workflows have done: what set them off, what they made, what they could not."""

from __future__ import annotations

import msgspec

from engine.hub.transaction import HubTransaction


class Waiting(msgspec.Struct, kw_only=True):
    """What could not be made for a record, because a value could not be computed. `at`: microseconds since 1970 UTC."""

    record: int
    make: str
    message: str
    at: int


class WorkflowRow(msgspec.Struct, kw_only=True):
    """One workflow. `begun`: records that have set it off; `made`: how many records each make has made."""

    name: str
    begun: int
    made: dict[str, int]
    waiting: list[Waiting]


def workflows(tx: HubTransaction, names: list[str]) -> list[WorkflowRow]:
    """In the order of `names`."""
    return [
        WorkflowRow(
            name=name,
            begun=tx.rows("select count(*) from begun where workflow = ?", (name,))[0][0],
            made=dict(tx.rows("select make, count(*) from derived where workflow = ? group by make", (name,))),
            waiting=[
                Waiting(record=cause, make=make, message=message, at=at)
                for cause, make, message, at in tx.rows(
                    "select cause, make, message, at from underived where workflow = ? order by at", (name,)
                )
            ],
        )
        for name in names
    ]
