"""Endless aisle: an associate finds, reserves and orders for a customer who stands in the store; `/v1/aisle`."""

from datetime import datetime
from typing import Annotated, Any

import msgspec
from litestar import get
from litestar.params import Parameter

from oms.access import Actor
from oms.api.scope import location_of
from oms.db import Database
from oms.flows.promise.aisle import FOUND_MAX, Found, SellingChannel, Store, aisle_of, search
from oms.flows.promise.nearby import place_of

AISLE = frozenset({"associate", "operator", "admin"})


class SearchAnswer(msgspec.Struct, frozen=True):
    """Skus that were found, the best first."""

    location: str
    channel: str
    items: list[Found]


@get("/v1/aisle/search", opt={"roles": AISLE}, tags=["aisle"])
async def search_aisle(
    *,
    db: Database,
    actor: Actor,
    now: datetime,
    q: str,
    location: str | None = None,
    channel: str | None = None,
    postal_code: str | None = None,
    country: str = "US",
    lat: float | None = None,
    lon: float | None = None,
    limit: Annotated[int, Parameter(ge=1, le=FOUND_MAX)] = 10,
) -> SearchAnswer:
    """A sku by code, barcode or words: in this store, nearby, sent home by when, or expected. A code comes alone."""
    store, selling = await _aisle(db, actor, location, channel)
    to = None
    if postal_code is not None or lat is not None or lon is not None:
        to = place_of(postal_code=postal_code, country=country, lat=lat, lon=lon)
    items = await search(db, store=store, channel_id=selling.channel_id, text=q, to=to, limit=limit, now=now)
    return SearchAnswer(store.code, selling.code, items)


async def _aisle(db: Database, actor: Actor, location: str | None, channel: str | None) -> tuple[Store, SellingChannel]:
    """The store that the caller works in, and the channel of its endless aisle."""
    return await aisle_of(db, location_id=await location_of(db, actor, location), channel=channel)


routes: list[Any] = [search_aisle]
