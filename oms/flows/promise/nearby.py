"""Where a sku lies near a place: for an associate at a till, or a page of stores to pick up from."""

from datetime import date, datetime

import msgspec

from oms import ledger, named, numbers
from oms.cache import Projection
from oms.db import Connection, Database, Sql
from oms.domain import atp as law
from oms.domain import places
from oms.domain.atp import Layout
from oms.domain.order import Named
from oms.domain.promise import ready_from
from oms.domain.shape import Rule
from oms.errors import BadInput, NotFound
from oms.flows.promise.sites import Site, sites_of
from oms.numbers import Shelf

sql = Sql("promise")

LIMIT_MAX = 200

PAGE_MORE = 10
"""Locations that are read beyond those asked for: some may have only what other promises need."""


class Near(msgspec.Struct, frozen=True):
    """A location: how far (null where its coordinates are unknown), what may be picked up there, and from when.

    `pickup_from` is a moment (it is there now) or a day (it is expected), in ISO 8601.
    """

    location: str
    name: str
    km: float | None
    available: int
    pickup_from: str


class _Here(msgspec.Struct, frozen=True):
    location_id: int
    code: str
    name: str
    lat: float | None
    lon: float | None
    segment: int
    units: list[int] | None
    due_on: date | None


class _Part(msgspec.Struct, frozen=True):
    """A part of what was asked for: its row, and how many of it are in one."""

    read: Shelf
    row: Projection
    per: int

    @property
    def layout(self) -> Layout:
        return self.read.layouts[self.row.layout_id]

    def units(self, segment: int | None, available: int) -> int:
        """What may be promised from one location that has so many."""
        if segment is None:
            return 0
        return law.atp_location(
            self.layout, self.row.supply, self.row.reserved, segment=segment, available=available
        )  # fmt: skip

    def gives(self, layout: Layout, segment: int) -> bool:
        """Whether any location of a segment may give some, as far as is known."""
        return self.layout != layout or self.units(segment, self.row.supply[segment]) >= self.per


near_here = sql.rows("near_here", _Here)


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
    async with db.connection() as tx, tx.transaction(isolation="repeatable_read", readonly=True):
        names = await named.skus_of(tx, {(channel_id, sku)})
        if not names:
            raise NotFound(f"no sku has the code {sku!r}")
        name = names[channel_id, sku]
        skus = {name.sku_id, *(part.sku_id for part in name.parts)}
        rule = (await named.rules_of(tx, [channel_id], skus=skus))[channel_id]
        read = await numbers.read(tx, skus, today=now.date())
        near = await near_of(tx, rule, name, read, lat=lat, lon=lon, limit=limit, now=now)
        sites = await sites_of(tx, [n.location for n in near if n.available])
    return [ready_near(n, sites[n.location], now=now) if n.available else n for n in near]


async def near_of(
    tx: Connection, rule: Rule, name: Named, read: Shelf, *, lat: float, lon: float, limit: int, now: datetime
) -> list[Near]:
    """The same of what the caller has read, in its snapshot; what is there may be picked up now."""
    skus = [part.sku_id for part in name.parts]
    most = read.number(read.codes[name.sku_id], rule, now=now)
    parts = [_Part(read, read.rows[read.codes[part.sku_id]], part.quantity) for part in name.parts]
    layout = parts[0].layout
    if rule.pool_id not in layout.pools:
        return []
    bit = 1 << layout.pools.index(rule.pool_id)
    segments = [place for place, mask in enumerate(layout.segments) if mask & bit]
    giving = [place for place in segments if most and all(part.gives(layout, place) for part in parts)]
    # while a change of pools is followed, parts may stand by different layouts for a moment
    others = {p.row.layout_id: await ledger.segments(tx, p.row.layout_id) for p in parts if p.layout != layout}
    near: list[Near] = []
    skip, page = 0, limit + PAGE_MORE
    while len(near) < limit:
        here = await near_here(
            tx, skus=skus, pers=[part.per for part in parts], sku_id=name.sku_id, today=now.date(),
            layout_id=layout.layout_id, segments=segments, giving=giving, lat=lat, lon=lon, limit=page, skip=skip,
        )  # fmt: skip
        for place in here:
            there = [
                (part.units(_segment(others, part, place), units), part.per)
                for units, part in zip(place.units or [0] * len(parts), parts, strict=True)
            ]
            available = min(most, law.kit_atp(there))
            if available or place.due_on:
                near.append(_near(place, available, lat=lat, lon=lon, now=now))
        if len(here) < page:
            break
        skip += page
    near.sort(key=lambda n: (n.km is None, n.km or 0.0, n.location))
    return near[:limit]


def ready_near(near: Near, site: Site, *, now: datetime) -> Near:
    """The same with when it is ready to be picked up, by the location's hours; one that never works gives nothing."""
    ready = ready_from(site.hours, now)
    return msgspec.structs.replace(near, available=0 if ready is None else near.available,
                                   pickup_from=(ready or now).isoformat())  # fmt: skip


def _segment(others: dict[int, dict[int, int]], part: _Part, place: _Here) -> int | None:
    segments = others.get(part.row.layout_id)
    return place.segment if segments is None else segments.get(place.location_id)


def _near(place: _Here, available: int, *, lat: float, lon: float, now: datetime) -> Near:
    km = None
    if place.lat is not None and place.lon is not None:
        km = round(places.distance_km(lat, lon, place.lat, place.lon), 1)
    first = (now if available else place.due_on or now).isoformat()
    return Near(place.code, place.name, km, available, first)
