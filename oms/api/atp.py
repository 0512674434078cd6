"""What may be promised: `/v1/atp`, its explanation, and where it lies nearby."""

from datetime import date, datetime
from typing import Annotated, Any

import msgspec
from litestar import get, post
from litestar.params import Parameter

from oms.access import Actor
from oms.api.scope import channel_of
from oms.cache import Atp, Cache
from oms.db import Database
from oms.errors import BadInput
from oms.flows.promise.explain import Explained, explain
from oms.flows.promise.nearby import LIMIT_MAX, Near, nearby, place_of
from oms.flows.promise.read import SKUS_MAX, Found, atp

READ = frozenset({"storefront", "associate", "planner", "operator", "approver", "admin"})


class NextReceipt(msgspec.Struct, frozen=True):
    """When more is expected, and how much."""

    on: date
    quantity: int


class AtpItem(msgspec.Struct, frozen=True):
    """What a channel may sell of a sku, as of a version of its availability."""

    sku: str
    atp: int
    version: int
    next: NextReceipt | None


class AtpAnswer(msgspec.Struct, frozen=True):
    """Numbers in the order of the question; codes that nobody knows stand apart."""

    channel: str
    items: list[AtpItem]
    unknown: list[str]


class AtpQuestion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Many skus of one channel."""

    channel: str
    skus: Annotated[list[str], msgspec.Meta(min_length=1, max_length=SKUS_MAX)]


class NearbyAnswer(msgspec.Struct, frozen=True):
    """Locations by distance."""

    items: list[Near]


@get("/v1/atp", opt={"roles": READ}, tags=["atp"])
async def atp_of(
    *,
    db: Database,
    cache: Cache,
    actor: Actor,
    now: datetime,
    channel: str,
    sku: Annotated[list[str], Parameter(min_items=1, max_items=SKUS_MAX)],
) -> AtpAnswer:
    """What a channel may sell of one or more skus."""
    channel_id = await channel_of(db, actor, channel)
    return _answer(channel, await atp(db, cache, channel=channel, channel_id=channel_id, skus=sku, today=now.date()))


@post("/v1/atp", status_code=200, opt={"roles": READ}, tags=["atp"])
async def atp_of_many(db: Database, cache: Cache, actor: Actor, now: datetime, data: AtpQuestion) -> AtpAnswer:
    """What a channel may sell of up to 1,000 skus."""
    channel_id = await channel_of(db, actor, data.channel)
    found = await atp(db, cache, channel=data.channel, channel_id=channel_id, skus=data.skus, today=now.date())
    return _answer(data.channel, found)


@get("/v1/atp/{sku:str}/explain", opt={"roles": READ}, tags=["atp"])
async def explain_atp(db: Database, actor: Actor, sku: str, channel: str) -> Explained:
    """The waterfall from on hand to the channel's number: its steps add up to it."""
    return await explain(db, channel_id=await channel_of(db, actor, channel), sku=sku)


@get("/v1/atp/{sku:str}/nearby", opt={"roles": READ}, tags=["atp"])
async def atp_nearby(
    *,
    db: Database,
    actor: Actor,
    now: datetime,
    sku: str,
    channel: str,
    postal_code: str | None = None,
    country: str = "US",
    lat: float | None = None,
    lon: float | None = None,
    limit: Annotated[int, Parameter(ge=1, le=LIMIT_MAX)] = 20,
) -> NearbyAnswer:
    """The closest locations that have the sku or expect it, with what a pick-up there would get."""
    channel_id = await channel_of(db, actor, channel)
    if (lat is None) != (lon is None):
        raise BadInput("lat, lon: give both or none")
    here = place_of(postal_code=postal_code, country=country, lat=lat, lon=lon)
    near = await nearby(db, channel_id=channel_id, sku=sku, lat=here[0], lon=here[1], limit=limit, now=now)
    return NearbyAnswer(near)


def _answer(channel: str, found: Found) -> AtpAnswer:
    return AtpAnswer(channel, [_item(row) for row in found.items], found.unknown)


def _item(row: Atp) -> AtpItem:
    coming = NextReceipt(row.next_on, row.next_quantity) if row.next_on else None
    return AtpItem(row.sku, row.atp, row.version, coming)


routes: list[Any] = [atp_of, atp_of_many, explain_atp, atp_nearby]
