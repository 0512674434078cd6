"""Where a sku lies near a place: for an associate at a till, or a page of stores to pick up from."""

from datetime import date, datetime

import msgspec

from oms import named, numbers
from oms.db import Database, Sql
from oms.domain import atp as law
from oms.domain import places
from oms.errors import BadInput, NotFound
from oms.flows.promise.past import StockHere, stock_by_location

sql = Sql("promise")

LIMIT_MAX = 200


class Near(msgspec.Struct, frozen=True):
    """A location: how far (null where its coordinates are unknown), what may be picked up there, and from when.

    `pickup_from` is a moment (it is there now) or a day (it is expected), in ISO 8601.
    """

    location: str
    name: str
    km: float | None
    available: int
    pickup_from: str


class _Coming(msgspec.Struct, frozen=True):
    sku_id: int
    location_id: int
    due_on: date


incoming_here = sql.rows("incoming_here", _Coming)


def place_of(*, postal_code: str | None, country: str, lat: float | None, lon: float | None) -> tuple[float, float]:
    """Coordinates of a place: those given, or the center of a postal code of the United States."""
    if lat is not None and lon is not None:
        if not (-90 <= lat <= 90 and -180 <= lon <= 180):
            raise BadInput("lat, lon: from -90 to 90 and from -180 to 180 are expected")
        return lat, lon
    if postal_code is None:
        raise BadInput("a place is expected: postal_code and country, or lat and lon")
    if not places.has_centers(country):
        raise BadInput(f"postal_code: centers of {country!r} are not known here; give lat and lon")
    center = places.center_of(postal_code, country)
    if center is None:
        raise BadInput(f"postal_code: {postal_code!r} is not known; give another one, or lat and lon")
    return center


async def nearby(
    db: Database, *, channel_id: int, sku: str, lat: float, lon: float, limit: int, now: datetime
) -> list[Near]:
    """Locations of the channel's pool that have the sku or expect it, nearest first; unknown distances come last.

    `available` is what may be promised there without breaking another promise: what a pick-up would get.
    """
    async with db.connection() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        names = await named.skus_of(connection, {(channel_id, sku)})
        if not names:
            raise NotFound(f"no sku has the code {sku!r}")
        name = names[channel_id, sku]
        rule = (await named.rules_of(connection, [channel_id]))[channel_id]
        ids = {name.sku_id, *(part.sku_id for part in name.parts)}
        read = await numbers.read(connection, ids, today=now.date())
        coming = await incoming_here(connection, skus=sorted(ids), today=now.date())
        most = read.number(read.codes[name.sku_id], rule, now=now)
        stock: dict[str, list[tuple[StockHere, int, int]]] = {}
        for part in name.parts:
            row = read.rows[read.codes[part.sku_id]]
            layout = read.layouts[row.layout_id]
            bit = 1 << layout.pools.index(rule.pool_id) if rule.pool_id in layout.pools else 0
            for place in await stock_by_location(connection, sku_id=part.sku_id, layout_id=row.layout_id):
                if layout.segments[place.segment] & bit and place.is_on:
                    units = law.atp_location(
                        layout, row.supply, row.reserved, segment=place.segment, available=place.available
                    )
                    stock.setdefault(place.code, []).append((place, units, part.quantity))
    due = {(c.sku_id, c.location_id): c.due_on for c in coming}
    near = []
    for parts in stock.values():
        place = parts[0][0]
        available = min(most, law.kit_atp([(units, per) for _, units, per in parts]))
        on = due.get((name.sku_id, place.location_id))
        if available or on:
            km = None
            if place.lat is not None and place.lon is not None:
                km = round(places.distance_km(lat, lon, place.lat, place.lon), 1)
            first = (now if available else on or now).isoformat()
            near.append(Near(place.code, place.name, km, available, first))
    near.sort(key=lambda n: (n.km is None, n.km or 0.0, n.location))
    return near[:limit]
