"""What may be promised: `/v1/atp`, its explanation, and where it lies nearby."""

from datetime import datetime
from typing import Annotated, Any

import msgspec
from litestar import Request, get, post
from litestar.openapi import ResponseSpec
from litestar.params import Parameter
from litestar.types import ASGIApp

from oms.access import Actor
from oms.api.ready import Ready
from oms.api.scope import channel_of, channels_seen, check_location
from oms.cache import Cache
from oms.db import Database
from oms.errors import BadInput
from oms.flows.promise.evidence import Sees
from oms.flows.promise.explain import Explained, explain
from oms.flows.promise.nearby import LIMIT_MAX, Near, nearby, place_of
from oms.flows.promise.places import at_locations
from oms.flows.promise.read import CELLS_MAX, SKUS_MAX, Atp, Found, atp

SAYS = {304: ResponseSpec(None, description="The numbers are as the caller knows them.")}
READ = frozenset({"storefront", "associate", "planner", "operator", "approver", "admin"})


class AtpAnswer(msgspec.Struct, frozen=True):
    """Numbers in the order of the question; codes that nobody knows stand apart.

    All that was committed `age_seconds` ago, and earlier, is in them; `stale` where that is longer than it should be.
    """

    channel: str
    items: list[Atp]
    unknown: list[str]
    age_seconds: float = 0.0
    stale: bool = False


class ChannelItems(msgspec.Struct, frozen=True):
    """One channel's numbers."""

    channel: str
    items: list[Atp]


class ChannelsAnswer(msgspec.Struct, frozen=True):
    """Numbers of several channels."""

    channels: list[ChannelItems]
    unknown: list[str]
    age_seconds: float
    stale: bool


class LocationItems(msgspec.Struct, frozen=True):
    """What may be promised at one location, by sku; what is not named has none there."""

    location: str
    items: dict[str, int]


class LocationsAnswer(msgspec.Struct, frozen=True):
    """What a pick-up would get, by location, as of now."""

    channel: str
    locations: list[LocationItems]
    unknown: list[str]


class AtpQuestion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Many skus of one channel, or of several, or of one at several locations: up to 10,000 cells."""

    skus: Annotated[list[str], msgspec.Meta(min_length=1, max_length=SKUS_MAX)]
    channel: str | None = None
    channels: Annotated[list[str], msgspec.Meta(min_length=1, max_length=CELLS_MAX)] | None = None
    locations: Annotated[list[str], msgspec.Meta(min_length=1, max_length=CELLS_MAX)] | None = None


class NearbyAnswer(msgspec.Struct, frozen=True):
    """Locations by distance."""

    items: list[Near]


@get(
    "/v1/atp",
    opt={"roles": READ},
    tags=["atp"],
    responses=SAYS | {200: ResponseSpec(AtpAnswer, description="Numbers.")},
)
async def atp_of(
    *,
    request: Request[Any, Any, Any],
    db: Database,
    cache: Cache,
    actor: Actor,
    now: datetime,
    channel: str,
    sku: Annotated[list[str], Parameter(min_items=1, max_items=SKUS_MAX)],
) -> ASGIApp:
    """What a channel may sell of one or more skus."""
    await channel_of(db, actor, channel)
    return _ready(request, _answer(channel, await atp(db, cache, channels=[channel], skus=sku, now=now)))


@post(
    "/v1/atp", status_code=200, opt={"roles": READ}, tags=["atp"],
    responses=SAYS | {200: ResponseSpec(AtpAnswer | ChannelsAnswer | LocationsAnswer, description="Numbers.")},
)  # fmt: skip
async def atp_of_many(
    *, request: Request[Any, Any, Any], db: Database, cache: Cache, actor: Actor, now: datetime, data: AtpQuestion
) -> ASGIApp:
    """What a channel may sell of up to 1,000 skus; or several `channels`, or at `locations`, up to 10,000 cells."""
    given = [data.channel] if data.channels is None and data.channel is not None else data.channels
    if given is None or (data.channel is not None and data.channels is not None):
        raise BadInput("channel: give a channel, or channels, and not both")
    cells = len(data.skus) * max(len(given), len(data.locations or ()))
    if cells > CELLS_MAX:
        raise BadInput(f"skus: {cells:,} cells; at most {CELLS_MAX:,} are answered at once")
    ids = [await channel_of(db, actor, code) for code in dict.fromkeys(given)]
    if data.locations is not None:
        if data.channel is None:
            raise BadInput("locations: are asked for one channel; give it as channel")
        for location in data.locations if actor.is_bound else ():
            await check_location(db, actor, location)
        found, unknown = await at_locations(db, channel_id=ids[0], skus=data.skus, locations=data.locations, now=now)
        places = [LocationItems(code, items) for code, items in found.items()]
        return _ready(request, LocationsAnswer(data.channel, places, unknown))
    told = await atp(db, cache, channels=list(dict.fromkeys(given)), skus=data.skus, now=now)
    if data.channel is not None:
        return _ready(request, _answer(data.channel, told))
    channels = [ChannelItems(code, rows) for code, rows in told.channels.items()]
    return _ready(request, ChannelsAnswer(channels, told.unknown, told.age_seconds, told.stale))


@get("/v1/atp/{sku:str}/explain", opt={"roles": READ}, tags=["atp"])
async def explain_atp(
    *, db: Database, actor: Actor, now: datetime, sku: str, channel: str, at: datetime | None = None
) -> Explained:
    """The waterfall from on hand to the channel's number, now or `at` a past moment: its steps add up to it.

    `evidence` holds the rows behind the steps, as far as the caller sees them.
    """
    if at is not None and at.tzinfo is None:
        raise BadInput("at: a moment with its offset is expected, as 2026-11-23T08:00:00Z")
    channel_id = await channel_of(db, actor, channel)
    return await explain(db, channel_id=channel_id, sku=sku, now=now, at=at, sees=_sees(actor))


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


def _sees(actor: Actor) -> Sees:
    """The rows that the caller sees behind a number: those of its channels, and of its own store where it has one."""
    if not actor.is_bound:
        return Sees()
    own = actor.location_ids if actor.location_id is None else frozenset({actor.location_id})
    return Sees(frozenset(channels_seen(actor) or ()), own)


def _answer(channel: str, found: Found) -> AtpAnswer:
    return AtpAnswer(channel, found.channels[channel], found.unknown, found.age_seconds, found.stale)


def _ready(request: Request[Any, Any, Any], answer: AtpAnswer | ChannelsAnswer | LocationsAnswer) -> ASGIApp:
    """The answer with a weak ETag, which does not speak of its age."""
    body = msgspec.json.encode(answer)
    end = body.rfind(b',"age_seconds"')
    return Ready(request.scope, body, told=body if end < 0 else body[:end])


routes: list[Any] = [atp_of, atp_of_many, explain_atp, atp_nearby]
