"""What an associate finds for a customer: a sku by code, barcode or words; here, nearby, sent home, or expected."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any

import msgspec

from oms import named, numbers
from oms.db import Connection, Database, Sql
from oms.domain.codes import CodeUnreadable, read_code
from oms.domain.promise import DEFAULT_TRANSITS, Transit
from oms.domain.search import TEXT_MAX, word_query
from oms.errors import BadInput, Conflict, NotFound
from oms.flows.promise.dated import (
    NEAR_MAX,
    Asked,
    line_of,
    promise_rules,
    transits_of,
    ways_of,
)  # fmt: skip
from oms.flows.promise.nearby import Near, near_of, ready_near
from oms.flows.promise.places import units_at
from oms.flows.promise.sites import Site, sites_of

sql = Sql("aisle")

FOUND_MAX = 50
NEARBY_MAX = 5
MET_MAX = 200
"""Skus that are ranked, of those that bear the words; who gets others types one more word."""
AISLE_METHOD = "standard"


class Store(msgspec.Struct, frozen=True):
    """The store where an associate stands."""

    location_id: int
    code: str
    name: str
    lat: float | None
    lon: float | None
    is_on: bool


class SellingChannel(msgspec.Struct, frozen=True):
    """A channel that sells from a store; `is_aisle`: its setting `endless_aisle` is true."""

    channel_id: int
    code: str
    is_aisle: bool


class Hit(msgspec.Struct, frozen=True):
    """A sku that was found: by `code`, `barcode`, `alias` (a source's code) or `words`."""

    sku_id: int
    code: str
    name: str
    price_cents: int | None
    found_by: str


class _Beside(msgspec.Struct, frozen=True):
    sku_id: int
    barcodes: list[str]
    parts: list[dict[str, Any]] | None
    bin: str | None


class Here(msgspec.Struct, frozen=True):
    """In this store: units that may be sold now, and the bin where they lie, where it is known."""

    available: int
    bin: str | None


class Home(msgspec.Struct, frozen=True):
    """One unit sent to the customer: there on which day (null: it cannot be promised), from where, and why."""

    arrives_on: date | None
    location: str | None
    why: str


class Next(msgspec.Struct, frozen=True):
    """When more is expected, and how much."""

    on: date
    quantity: int


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A sku for a customer. `price` is for one, in minor units; `next` is given where nothing is available at all."""

    sku: str
    name: str
    found_by: str
    price: int | None
    barcodes: list[str]
    parts: list[dict[str, Any]]
    available: int
    here: Here
    nearby: list[Near]
    ship: Home
    next: Next | None


store = sql.maybe("store", Store)
channels_of = sql.rows("channels_of", SellingChannel)
exact = sql.rows("exact", Hit)
by_words = sql.rows("by_words", Hit)
beside = sql.rows("beside", _Beside)


async def aisle_of(db: Database, *, location_id: int, channel: str | None) -> tuple[Store, SellingChannel]:
    """A store, and the channel of its endless aisle: the one named, else the only one that sells from the store, else the
    only one whose setting `endless_aisle` is true. Raises NotFound, BadInput, Conflict.
    """
    async with db.reading() as tx:
        place = await store(tx, location_id=location_id)
        selling = await channels_of(tx, location_id=location_id)
    if place is None:
        raise NotFound("no location has this id")
    if channel is not None:
        chosen = [c for c in selling if c.code == channel]
        if not chosen:
            raise NotFound(f"no channel that sells from {place.code} has the code {channel!r}")
        return place, chosen[0]
    marked = selling if len(selling) == 1 else [c for c in selling if c.is_aisle]
    if not selling:
        raise Conflict(f"location {place.code} is in the pool of no channel that is on: it sells nothing")
    if len(marked) != 1:
        codes = ", ".join(c.code for c in selling)
        raise BadInput(
            f"channel: several sell from {place.code} ({codes}); name one, or give one the setting endless_aisle"
        )
    return place, marked[0]


async def search(
    db: Database, *, store: Store, channel_id: int, text: str, to: tuple[float, float] | None, limit: int, now: datetime
) -> list[Found]:
    """Skus that a text means, each with where a customer may have it from. A code or barcode comes alone.

    `to` is where it would be sent; the store itself where nothing is given. Raises BadInput.
    """
    if not text.strip() or len(text) > TEXT_MAX or "\0" in text:
        raise BadInput(f"q: a code, a barcode or words are expected, 1 to {TEXT_MAX} characters")
    here = None if store.lat is None or store.lon is None else (store.lat, store.lon)
    async with db.connection() as tx, tx.transaction(isolation="repeatable_read", readonly=True):
        hits = await _hits(tx, text.strip(), limit=limit)
        if not hits:
            return []
        codes = [hit.code for hit in hits]
        names = {code: name for (_, code), name in (await named.skus_of(tx, {(channel_id, c) for c in codes})).items()}
        every = {sku_id for name in names.values() for sku_id in (name.sku_id, *(p.sku_id for p in name.parts))}
        rule = (await named.rules_of(tx, [channel_id], skus=every))[channel_id]
        read = await numbers.read(tx, every, today=now.date())
        asked = Asked(rule, names, read, dict.fromkeys(codes, 1))
        there = (await units_at(tx, rule, names, read, {store.code: store.location_id}, now=now))[store.code]
        told = {b.sku_id: b for b in await beside(tx, skus=[h.sku_id for h in hits], location_id=store.location_id)}
        near = {code: await _near(tx, asked, code, here or to, now=now) for code in codes}
        sent = near if to is None or to == here else {c: await _near(tx, asked, c, to, now=now) for c in codes}
        every_place = {n.location for found in (*near.values(), *sent.values()) for n in found}
        around = _Around(
            asked, await transits_of(tx, method=AISLE_METHOD) or list(DEFAULT_TRANSITS),
            await promise_rules(tx, channel_id=channel_id), await sites_of(tx, every_place), store, here or to,
        )  # fmt: skip
    return [
        _found(
            around, hit, told[hit.sku_id], near[hit.code], sent[hit.code], now=now,
            there=there.get(hit.code, 0) if store.is_on else 0,
        )
        for hit in hits
    ]  # fmt: skip


async def _hits(tx: Connection, text: str, *, limit: int) -> list[Hit]:
    try:
        barcodes = read_code(text).candidates
    except CodeUnreadable:
        barcodes = ()
    codes = list(dict.fromkeys((text, text.upper(), text.lower())))
    hits = await exact(tx, codes=codes, barcodes=list(barcodes), limit=limit)
    if hits:
        best = hits[0].found_by
        return [hit for hit in hits if hit.found_by == best]
    words = word_query(text)
    return [] if words is None else await by_words(tx, words=words, met=MET_MAX, limit=limit)


async def _near(tx: Connection, asked: Asked, sku: str, to: tuple[float, float] | None, *, now: datetime) -> list[Near]:
    """Where a sku lies, the nearest to a place first; by code where no place is known."""
    lat, lon = to or (0.0, 0.0)
    return await near_of(tx, asked.rule, asked.names[sku], asked.read, lat=lat, lon=lon, limit=NEAR_MAX, now=now)


class _Around(msgspec.Struct, frozen=True):
    """What all answers of one search share; `to` is None where nobody knows where it would be sent."""

    asked: Asked
    zones: Sequence[Transit]
    says: dict[str, Any]
    sites: Mapping[str, Site]
    store: Store
    to: tuple[float, float] | None


def _found(
    around: _Around, hit: Hit, told: _Beside, near: Sequence[Near], sent: Sequence[Near], *, there: int, now: datetime
) -> Found:
    read, rule = around.asked.read, around.asked.rule
    available = read.number(hit.code, rule, now=now)
    more = read.next(hit.code, rule, today=now.date()) if not available else None
    have = [n for n in near if n.available and n.location != around.store.code]
    ready = [n for n in (ready_near(n, around.sites[n.location], now=now) for n in have) if n.available]
    return Found(
        sku=hit.code, name=hit.name, found_by=hit.found_by, price=hit.price_cents, barcodes=told.barcodes,
        parts=told.parts or [], available=available, here=Here(there, told.bin),
        nearby=ready[:NEARBY_MAX],
        ship=_home(around, hit.code, sent, now=now), next=None if more is None else Next(*more),
    )  # fmt: skip


def _home(around: _Around, sku: str, near: Sequence[Near], *, now: datetime) -> Home:
    if around.to is None:
        return Home(None, None, "the store has no coordinates: say where it goes")
    ways = ways_of(near, around.sites, around.zones, now=now)
    line = line_of(around.asked, sku, ways, around.zones, says=around.says, now=now)
    return Home(line.arrives_on, line.parts[0].location if line.parts else None, line.why)
