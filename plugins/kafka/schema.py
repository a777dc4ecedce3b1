"""The schema that Connect's JSON converter puts beside a message (`schemas.enable`), as far as it is needed here."""

from __future__ import annotations

from typing import Any

import msgspec


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """One schema, a field's or a whole message's. `type`: Connect's word; `name`: what it means
    (`io.debezium.time.Date`); `field`: what it is called inside a struct. `items`: of an array; `fields`: of a
    struct."""

    type: str
    optional: bool = False
    name: str | None = None
    field: str | None = None
    parameters: dict[str, Any] | None = None
    items: Field | None = None
    fields: tuple[Field, ...] | None = None

    def member(self, name: str) -> Field | None:
        return next((found for found in self.fields or () if found.field == name), None)


# Made here, not where it is used: threads that ask msgspec 0.22 for one struct's decoder at once end the process.
decode_schema = msgspec.json.Decoder(Field).decode
