"""What may be promised at single locations: for pages of stores, and for pick-ups."""

from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec

from oms import ledger, named, numbers
from oms.db import Connection, Database, Sql
from oms.domain import atp as law
from oms.domain.order import Named
from oms.domain.shape import Rule
from oms.errors import NotFound
from oms.numbers import Shelf

sql = Sql("promise")


class _Cell(msgspec.Struct, frozen=True):
    sku_id: int
    location_id: int
    available: int


cells = sql.rows("cells", _Cell)


async def at_locations(
    db: Database, *, channel_id: int, skus: Sequence[str], locations: Sequence[str], now: datetime
) -> tuple[dict[str, dict[str, int]], list[str]]:
    """Units of each sku that a pick-up would get at each location, 0 left out, and the codes that nobody knows.

    Raises NotFound for a location that nobody knows.
    """
    async with db.connection() as tx, tx.transaction(isolation="repeatable_read", readonly=True):
        rule = (await named.rules_of(tx, [channel_id]))[channel_id]
        names = {code: name for (_, code), name in (await named.skus_of(tx, {(channel_id, c) for c in skus})).items()}
        found = await named.places_of(tx, set(locations))
        for code in locations:
            if code not in found:
                raise NotFound(f"no location has the code {code!r}")
        ids = {p.sku_id for name in names.values() for p in name.parts} | {n.sku_id for n in names.values()}
        read = await numbers.read(tx, ids, today=now.date())
        told = await units_at(tx, rule, names, read, {code: found[code].location_id for code in locations}, now=now)
    return told, [code for code in dict.fromkeys(skus) if code not in names]


async def units_at(
    tx: Connection, rule: Rule, names: Mapping[str, Named], read: Shelf, locations: Mapping[str, int], *, now: datetime
) -> dict[str, dict[str, int]]:
    """The same of what the caller has read, in its snapshot: units by location and sku."""
    segments = {k: await ledger.segments(tx, k) for k in read.layouts}
    ids = sorted({p.sku_id for name in names.values() for p in name.parts})
    here = {
        (c.sku_id, c.location_id): c.available for c in await cells(tx, skus=ids, locations=list(locations.values()))
    }
    told: dict[str, dict[str, int]] = {code: {} for code in locations}
    for sku, name in names.items():
        most = read.number(read.codes[name.sku_id], rule, now=now)
        for code, place in locations.items() if most else ():
            units = law.kit_atp(
                (_at(read, segments, rule, p.sku_id, place, here.get((p.sku_id, place), 0)), p.quantity)
                for p in name.parts
            )
            if units := min(units, most):
                told[code][sku] = units
    return told


def _at(
    read: Shelf, segments: dict[int, dict[int, int]], rule: Rule, sku_id: int, location_id: int, available: int
) -> int:
    """Units of a sku at a location of the channel's pool that break no other promise."""
    row = read.rows[read.codes[sku_id]]
    layout = read.layouts[row.layout_id]
    segment = segments[row.layout_id].get(location_id)
    if not available or segment is None or rule.pool_id not in layout.pools:
        return 0
    if not layout.segments[segment] >> layout.pools.index(rule.pool_id) & 1:
        return 0
    return law.atp_location(layout, row.supply, row.reserved, segment=segment, available=available)
