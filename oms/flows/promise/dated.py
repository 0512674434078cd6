"""A promise with a date: for a cart, a place and a method, what can be there by when, from where, whole or split.

It reserves nothing: a reservation is decided by the same numbers when it is made.
"""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from oms import enquiries, named, numbers
from oms.db import Connection, Database, Sql
from oms.domain import atp as law
from oms.domain.order import CartLine, Named
from oms.domain.promise import DEFAULT_TRANSITS, Hours, Transit, arrives_on, ready_from, ships_on
from oms.domain.shape import Coming, Rule
from oms.errors import BadInput, NotFound
from oms.flows.promise.nearby import Near, near_of
from oms.flows.promise.places import units_at
from oms.flows.promise.sites import Site, sites_of
from oms.numbers import Shelf, rulebook_version

sql = Sql("promise")

NEAR_MAX = 40
"""The nearest locations that are looked at for a sku; nearer ones seldom arrive later."""
BACKORDER_DAYS = 60


class PromisedPart(msgspec.Struct, frozen=True):
    """Units from one location (none named: from what is expected), when they leave and when they are there."""

    quantity: int
    location: str | None
    kind: str | None
    ships_on: date | None
    arrives_on: date | None


class PromisedLine(msgspec.Struct, frozen=True):
    """A line: by when all of it is there (null: it cannot be promised), in which parts, and why."""

    sku: str
    quantity: int
    arrives_on: date | None
    why: str
    parts: list[PromisedPart]


class Promised(msgspec.Struct, frozen=True, kw_only=True):
    """A cart's promise. `whole`: one location sends all of it. `arrives_on`: the last of it; null where some cannot be.

    Of a pick-up `ready_from` is a moment or a day, in ISO 8601; null where some of it is not there.
    """

    channel: str
    method: str
    whole: bool
    arrives_on: date | None
    ready_from: str | None = None
    lines: list[PromisedLine]


class Way(msgspec.Struct, frozen=True):
    """A location that may send a sku: how many units, and when they leave and arrive."""

    near: Near
    site: Site
    ships_on: date
    arrives_on: date


transits_of = sql.rows("transits_of", Transit)
promise_rules = sql.one("promise_rules", dict)


class Place(msgspec.Struct, frozen=True):
    """Where a cart goes: coordinates, or the location where it is picked up."""

    lat: float | None = None
    lon: float | None = None
    pickup: str | None = None


async def promise(
    db: Database, *, channel_id: int, lines: Sequence[CartLine], method: str, to: Place, now: datetime
) -> Promised:
    """What can be promised of a cart at a place; kept in the log of enquiries. Raises BadInput for unknown skus, by line."""
    units: dict[str, int] = {}
    for line in lines:
        units[line.sku] = units.get(line.sku, 0) + line.quantity
    async with db.connection() as tx, tx.transaction(isolation="repeatable_read", readonly=True):
        names = {code: name for (_, code), name in (await named.skus_of(tx, {(channel_id, s) for s in units})).items()}
        if len(names) < len(units):
            faults = [
                {"field": f"lines[{place}].sku", "reason": f"no sku has the code {line.sku!r}"}
                for place, line in enumerate(lines) if line.sku not in names
            ]  # fmt: skip
            raise BadInput("; ".join(f"{f['field']}: {f['reason']}" for f in faults), items=faults)
        version = await rulebook_version(tx)
        rule = (await named.rules_of(tx, [channel_id]))[channel_id]
        every = {sku_id for name in names.values() for sku_id in (name.sku_id, *(p.sku_id for p in name.parts))}
        asked = Asked(rule, names, await numbers.read(tx, every, today=now.date()), units)
        if to.pickup is not None:
            said = await picked_up(tx, asked, location=to.pickup, method=method, now=now)
        else:
            said = await sent(tx, asked, method=method, to=to, now=now)
    shelf = asked.read
    codes = {sku: shelf.codes[name.sku_id] for sku, name in names.items()}
    enquiries.of(db).promised(
        enquiries.Asked(
            now, channel_id, version,
            {"method": method, "to": msgspec.to_builtins(to), "lines": [msgspec.to_builtins(line) for line in lines]},
            msgspec.to_builtins(said),
            {sku: {"version": shelf.version(code), "atp": shelf.number(code, rule, now=now)} for sku, code in codes.items()},
        )
    )  # fmt: skip
    return said


class Asked(msgspec.Struct, frozen=True):
    """A cart in our words: units by sku, and what there is of them."""

    rule: Rule
    names: dict[str, Named]
    read: Shelf
    units: dict[str, int]


async def picked_up(tx: Connection, asked: Asked, *, location: str, method: str, now: datetime) -> Promised:
    """All of it from one location, from when that has it ready."""
    found = await named.places_of(tx, [location])
    if location not in found:
        raise NotFound(f"no location has the code {location!r}")
    there = (await units_at(tx, asked.rule, asked.names, asked.read, {location: found[location].location_id}, now=now))[
        location
    ]
    site = (await sites_of(tx, [location]))[location]
    ready = ready_from(site.hours, now) if found[location].is_on else None
    day = ready.astimezone(ZoneInfo(site.time_zone)).date() if isinstance(ready, datetime) else ready
    told = [
        PromisedLine(sku, units, day, "there", [PromisedPart(units, location, site.kind, None, day)])
        if there.get(sku, 0) >= units and ready is not None
        else PromisedLine(sku, units, None, f"{there.get(sku, 0)} are there for a pick-up", [])
        for sku, units in asked.units.items()
    ]
    whole = all(line.arrives_on for line in told)
    return Promised(
        channel=asked.rule.code, method=method, whole=whole, arrives_on=day if whole else None,
        ready_from=ready.isoformat() if whole and ready else None, lines=told,
    )  # fmt: skip


async def sent(tx: Connection, asked: Asked, *, method: str, to: Place, now: datetime) -> Promised:
    """Sent to a place: whole from one location, or split, or when it is expected."""
    assert to.lat is not None and to.lon is not None
    rule, units = asked.rule, asked.units
    around = {
        sku: await near_of(
            tx, rule, asked.names[sku], asked.read, lat=to.lat, lon=to.lon, limit=NEAR_MAX, now=now
        )
        for sku in units
    }  # fmt: skip
    sites = await sites_of(tx, {near.location for found in around.values() for near in found})
    zones = await transits_of(tx, method=method) or list(DEFAULT_TRANSITS)
    says = await promise_rules(tx, channel_id=rule.channel_id)
    ways = {sku: ways_of(found, sites, zones, now=now) for sku, found in around.items()}
    whole = whole_way(ways, units)
    told = []
    for sku, quantity in units.items():
        if whole is not None:
            parts = [_part(whole[sku], quantity)]
            told.append(PromisedLine(sku, quantity, parts[0].arrives_on, "in stock", parts))
        else:
            told.append(line_of(asked, sku, ways[sku], zones, says=says, now=now))
    if not says.get("partial", True) and any(line.arrives_on is None for line in told):
        told = [
            msgspec.structs.replace(n, arrives_on=None, parts=[], why="the channel takes no part of a cart")
            if n.arrives_on else n
            for n in told
        ]  # fmt: skip
    dates = [line.arrives_on for line in told]
    return Promised(
        channel=rule.code, method=method, whole=whole is not None,
        arrives_on=None if None in dates else max((d for d in dates if d), default=None), lines=told,
    )  # fmt: skip


def ways_of(found: Sequence[Near], sites: Mapping[str, Site], zones: Sequence[Transit], *, now: datetime) -> list[Way]:
    """The locations that have a sku now, by when it would be there, then by distance."""
    ways = []
    for near in found:
        site = sites.get(near.location)
        shipped = ships_on(site.hours, now) if site is not None and near.available else None
        arrives = arrives_on(shipped, zones, near.km) if shipped is not None else None
        if site is not None and shipped is not None and arrives is not None:
            ways.append(Way(near, site, shipped, arrives))
    return sorted(ways, key=lambda w: (w.arrives_on, w.near.km is None, w.near.km or 0.0, w.near.location))


def whole_way(ways: Mapping[str, Sequence[Way]], units: Mapping[str, int]) -> dict[str, Way] | None:
    """The location that can send all of it first, as its way of each sku."""
    able = [
        {way.near.location: way for way in ways[sku] if way.near.available >= quantity}
        for sku, quantity in units.items()
    ]
    common = set.intersection(*(set(of_sku) for of_sku in able)) if able else set()
    best = min(common, key=lambda code: (able[0][code].arrives_on, able[0][code].near.km or 0.0, code), default=None)
    return None if best is None else {sku: of_sku[best] for sku, of_sku in zip(units, able, strict=True)}


def _part(way: Way, quantity: int) -> PromisedPart:
    return PromisedPart(quantity, way.near.location, way.site.kind, way.ships_on, way.arrives_on)


def line_of(
    asked: Asked, sku: str, ways: Sequence[Way], zones: Sequence[Transit], *, says: dict[str, Any], now: datetime
) -> PromisedLine:
    """One sku: from one location, else from several, else when enough of it is expected."""
    rule, read, quantity = asked.rule, asked.read, asked.units[sku]
    one = next((way for way in ways if way.near.available >= quantity), None)
    if one is not None:
        return PromisedLine(sku, quantity, one.arrives_on, "in stock", [_part(one, quantity)])
    code = read.codes[asked.names[sku].sku_id]
    if read.number(code, rule, now=now) >= quantity:
        parts, left = [], quantity
        for way in ways:
            taken = min(left, way.near.available)
            if taken:
                parts.append(_part(way, taken))
                left -= taken
        if left == 0:
            dates = [part.arrives_on for part in parts if part.arrives_on]
            return PromisedLine(sku, quantity, max(dates), "in stock, split", parts)
        return PromisedLine(
            sku, quantity, None, "the locations that have it do not reach this place by this method", []
        )
    days = says.get("backorder_days", BACKORDER_DAYS)
    on = expected(read, code, rule, quantity, now=now)
    if on is None:
        return PromisedLine(sku, quantity, None, "not available, and not enough is expected", [])
    if (on - now.date()).days > days:
        return PromisedLine(
            sku, quantity, None, f"expected on {on}, later than the {days} days that may be promised", []
        )
    shipped = ships_on(Hours("UTC", handling_days=1), now, not_before=on)
    arrives = arrives_on(shipped, zones, None) if shipped else None
    return PromisedLine(
        sku, quantity, arrives, f"expected on {on}", [PromisedPart(quantity, None, None, shipped, arrives)]
    )


def expected(read: Shelf, sku: str, rule: Rule, quantity: int, *, now: datetime) -> date | None:
    """The day from which so many of a sku may be promised, with what is expected; None where there is none."""
    row = read.rows[sku]
    if row.parts:
        days = [expected(read, part.sku, rule, quantity * part.quantity, now=now) for part in row.parts]
        return None if None in days else max(d for d in days if d)
    layout = read.layouts[row.layout_id]
    if rule.pool_id not in layout.pools:
        return None
    steps = [law.Step(on, supply=supply) for on, supply in _by_day(row.coming, today=now.date()).items()]
    back = rule.buffer
    for on, units in law.atp_by_date(
        layout, row.supply, row.reserved, layout.pools.index(rule.pool_id), today=now.date(), steps=steps
    ):
        if units - back >= quantity:
            return on
    return None


def _by_day(coming: Sequence[Coming], *, today: date) -> dict[date, dict[int, int]]:
    days: dict[date, dict[int, int]] = {}
    for c in coming:
        if (day := c.day(today)) is not None:
            here = days.setdefault(day, {})
            here[c.segment] = here.get(c.segment, 0) + c.units
    return days
