"""What people scan at a location, as skus: every code that cannot be understood is named, and nothing is applied."""

from collections.abc import Collection, Sequence
from typing import Any

import msgspec

from oms.db import Connection, Sql
from oms.domain.codes import CodeUnreadable, read_code
from oms.domain.counting import VALUE_CENTS_DEFAULT
from oms.errors import BadInput, NotFound

sql = Sql("stock")


class Meant(msgspec.Struct, frozen=True):
    """A sku that a code may mean."""

    k: int
    sku_id: int
    sku: str
    is_kit: bool
    value_cents: int | None


class Sku(msgspec.Struct, frozen=True):
    """A sku that was named."""

    sku_id: int
    code: str
    value_cents: int


class Place(msgspec.Struct, frozen=True):
    """A location as its stock is changed; the owner is the source of its quantities."""

    location_id: int
    code: str
    kind: str
    time_zone: str
    owner_kind: str | None
    owner: str | None
    additions: dict[str, Any]


meant = sql.rows("meant", Meant)
place_row = sql.maybe("place", Place)


async def place(tx: Connection, location_id: int) -> Place:
    """A location; raises NotFound."""
    found = await place_row(tx, location_id=location_id)
    if found is None:
        raise NotFound("no such location")
    return found


async def skus_of(tx: Connection, codes: Sequence[str], *, rather: Collection[int] = ()) -> list[Sku]:
    """The sku of each scanned code; of several, the one among `rather`. Raises BadInput with an item per fault."""
    candidates: list[tuple[int, str]] = []
    faults: list[dict[str, Any]] = []
    for k, text in enumerate(codes):
        try:
            candidates += [(k, code) for code in read_code(text).candidates]
        except CodeUnreadable as error:
            faults.append({"index": k, "field": "code", "reason": str(error)})
    found: dict[int, list[Meant]] = {}
    for row in await meant(tx, ks=[k for k, _ in candidates], codes=[code for _, code in candidates]):
        found.setdefault(row.k, []).append(row)
    named: list[Sku] = []
    for k, text in enumerate(codes):
        rows = found.get(k, [])
        if len(rows) > 1:
            rows = [row for row in rows if row.sku_id in rather] or rows
        if len(rows) != 1 or rows[0].is_kit:
            why = "nobody knows it" if not rows else "it is a kit: name its components"
            if len(rows) > 1:
                why = f"it may be {', '.join(row.sku for row in rows)}: name the sku"
            if not any(fault["index"] == k for fault in faults):
                faults.append({"index": k, "field": "code", "reason": f"{text[:100]!r}: {why}"})
            continue
        value = rows[0].value_cents
        named.append(Sku(rows[0].sku_id, rows[0].sku, VALUE_CENTS_DEFAULT if value is None else value))
    if faults:
        raise BadInput(f"{len(faults)} of {len(codes)} codes cannot be taken; nothing was applied.", items=faults)
    return named
