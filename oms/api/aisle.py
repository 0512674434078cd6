"""Endless aisle: an associate finds, reserves and orders for a customer who stands in the store; `/v1/aisle`."""

import time
from datetime import datetime
from functools import partial
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from litestar import Response, delete, get, post
from litestar.params import Parameter

from oms.access import Actor, require_channel
from oms.api.fulfillments import Device
from oms.api.orders import Code, ShipToBody
from oms.api.reservations import CHANCE, ExtendBody, Seconds
from oms.api.scope import known_location, location_of
from oms.cache import Cache
from oms.db import Database
from oms.domain.basket import BasketLine, BasketPart, faults_of_basket, ways_of
from oms.domain.ids import time_ordered
from oms.domain.order import LINES_MAX, QUANTITY_MAX
from oms.errors import BadInput
from oms.flows.fulfill.take_away import SoldHere, take_away
from oms.flows.order.aisle import order_basket
from oms.flows.order.read import OrderView, read_order
from oms.flows.promise.aisle import AISLE_METHOD, FOUND_MAX, Found, SellingChannel, Store, aisle_of, search
from oms.flows.promise.dated import Place
from oms.flows.promise.nearby import place_of
from oms.flows.promise.quote import quoted
from oms.flows.reserve.baskets import (
    Basket,
    BasketState,
    extend_basket,
    read_basket,
    release_basket,
    reserve_baskets,
)  # fmt: skip
from oms.settings import Settings
from oms.settle import shared

AISLE = frozenset({"associate", "operator", "admin"})

Why = Annotated[str, msgspec.Meta(max_length=500)]


class SearchAnswer(msgspec.Struct, frozen=True):
    """Skus that were found, the best first."""

    location: str
    channel: str
    items: list[Found]


class BasketLineBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Units of a sku or kit, and how the customer gets them; `price` for one, in minor units (the list's where none)."""

    sku: Code
    quantity: Annotated[int, msgspec.Meta(ge=1, le=QUANTITY_MAX)]
    method: Literal["take_away", "ship", "pickup"]
    line: Code | None = None
    location: Code | None = None
    price: Annotated[int, msgspec.Meta(ge=0, le=2_000_000_000)] | None = None


class BasketBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a customer wants, where it is sent, how long it is reserved, and why."""

    lines: Annotated[list[BasketLineBody], msgspec.Meta(min_length=1, max_length=LINES_MAX)]
    location: Code | None = None
    channel: Code | None = None
    ship_to: ShipToBody | None = None
    ship_method: Code = AISLE_METHOD
    ttl_seconds: Seconds | None = None
    why: Why | None = None


class OrderBasketBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A basket, and the number that its orders bear."""

    basket: UUID
    number: Annotated[str, msgspec.Meta(min_length=1, max_length=100, pattern=r"\S")]
    placed_at: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    why: Why | None = None


class BasketLineView(msgspec.Struct, frozen=True):
    """A line with what it costs, and when it is there: a moment or a day, null where nothing is promised."""

    line: str
    sku: str
    quantity: int
    method: str
    location: str | None
    price: int | None
    amount: int | None
    when: str | None
    why: str


class BasketView(msgspec.Struct, frozen=True, kw_only=True):
    """A basket: `seconds_left` is the countdown to `expires_at`, by the database's clock; `amount` is what all costs."""

    id: UUID
    channel: str
    location: str
    state: str
    expires_at: datetime
    seconds_left: int
    lines: list[BasketLineView]
    amount: int | None
    ship_to: dict[str, Any] | None
    ship_method: str
    who: str
    why: str | None
    made_at: datetime
    number: str | None
    orders: list[UUID]


class AisleOrderView(msgspec.Struct, frozen=True, kw_only=True):
    """A basket's orders, one per way and location, and what left with the customer."""

    basket: UUID
    number: str
    associate: str
    take_away: list[SoldHere]
    orders: list[OrderView]


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


@post("/v1/aisle/baskets", opt={"roles": AISLE}, tags=["aisle"])
async def reserve_basket(
    db: Database, cache: Cache, actor: Actor, settings: Settings, now: datetime, data: BasketBody
) -> BasketView:
    """Reserves lines to take away, to be sent and to be picked up, all or none; 409 says what is short and what may help."""
    store, selling = await _aisle(db, actor, data.location, data.channel)
    if data.ship_to is not None and data.ship_to.collect_at is not None:
        await known_location(db, data.ship_to.collect_at)
    lines = await quoted(
        db, channel_id=selling.channel_id, lines=_lines(data, store),
        to=None if data.ship_to is None else _place(data.ship_to), ship_method=data.ship_method, now=now,
    )  # fmt: skip
    basket = Basket(
        basket_id=_new_id(), channel_id=selling.channel_id, location_id=store.location_id, location=store.code,
        parts=tuple(
            BasketPart(_new_id(), method, location, tuple(some)) for (method, location), some in ways_of(lines).items()
        ),
        ship_to=None if data.ship_to is None else msgspec.to_builtins(data.ship_to), ship_method=data.ship_method,
        ttl_seconds=data.ttl_seconds or settings.reservation_ttl_seconds, who=actor.who, why=data.why,
    )  # fmt: skip
    await shared(db, reserve_baskets, after=partial(cache.wake, "project")).ask(basket)
    return _shown(await read_basket(db, basket_id=basket.basket_id, actor=actor))


@get("/v1/aisle/baskets/{basket_id:uuid}", opt={"roles": AISLE}, tags=["aisle"])
async def get_basket(db: Database, actor: Actor, basket_id: UUID) -> BasketView:
    """A basket with its countdown: reserved, ordered, released or expired."""
    return _shown(await read_basket(db, basket_id=basket_id, actor=actor))


@post("/v1/aisle/baskets/{basket_id:uuid}/extend", status_code=200, opt={"roles": AISLE}, tags=["aisle"])
async def extend_one(db: Database, actor: Actor, settings: Settings, basket_id: UUID, data: ExtendBody) -> BasketView:
    """A basket lasts at least this much longer from now; 409 where its time is over."""
    ttl_seconds = data.ttl_seconds or settings.reservation_ttl_seconds
    await extend_basket(db, basket_id=basket_id, ttl_seconds=ttl_seconds, actor=actor)
    return _shown(await read_basket(db, basket_id=basket_id, actor=actor))


@delete("/v1/aisle/baskets/{basket_id:uuid}", opt={"roles": AISLE}, tags=["aisle"])
async def release_one(
    db: Database,
    cache: Cache,
    actor: Actor,
    basket_id: UUID,
    why: Annotated[str | None, Parameter(max_length=500)] = None,
) -> None:
    """Gives its units back; 204 also where they were free already."""
    if await release_basket(db, basket_id=basket_id, why=why, actor=actor):
        await cache.wake("project")


@post("/v1/aisle/orders", opt={"roles": AISLE}, tags=["aisle"])
async def order_aisle(
    *, db: Database, cache: Cache, actor: Actor, now: datetime, data: OrderBasketBody, device: Device = None
) -> Response[AisleOrderView]:
    """Orders a basket on its customer's behalf: what is taken away leaves the stock now. 201; 200 for the same again."""
    placed = await order_basket(
        db, basket_id=data.basket, number=data.number, why=data.why, placed_at=data.placed_at or now, now=now,
        actor=actor,
    )  # fmt: skip
    taken = [p.order_id for p in placed.parts if p.method == "take_away" and p.order_id is not None]
    sold = await take_away(db, orders=taken, actor=actor, now=now, device=device, cache=cache) if taken else []
    await cache.wake("broker")
    await cache.wake("project")
    view = AisleOrderView(
        basket=placed.basket_id, number=placed.number, associate=placed.who, take_away=sold,
        orders=[await read_order(db, order_id=p.order_id) for p in placed.parts if p.order_id is not None],
    )  # fmt: skip
    return Response(view, status_code=201 if placed.is_new else 200)


async def _aisle(db: Database, actor: Actor, location: str | None, channel: str | None) -> tuple[Store, SellingChannel]:
    """The store that the caller works in, and the channel of its endless aisle."""
    store, selling = await aisle_of(db, location_id=await location_of(db, actor, location), channel=channel)
    require_channel(actor, selling.channel_id, selling.code)
    return store, selling


def _new_id() -> UUID:
    return time_ordered(unix_ms=time.time_ns() // 1_000_000, chance=CHANCE)


def _place(to: ShipToBody) -> Place:
    return Place(*place_of(postal_code=to.postal_code, country=to.country, lat=to.lat, lon=to.lon))


def _lines(data: BasketBody, store: Store) -> list[BasketLine]:
    """The body's lines, numbered where they have no name; what is taken away is taken from this store."""
    lines = [
        BasketLine(
            line=n.line or str(place), sku=n.sku, quantity=n.quantity, method=n.method, price_cents=n.price,
            location=n.location or (store.code if n.method == "take_away" else None),
        )
        for place, n in enumerate(data.lines, start=1)
    ]  # fmt: skip
    faults = faults_of_basket(lines, location=store.code, has_address=data.ship_to is not None)
    if faults:
        raise BadInput("; ".join(f"{f['field']}: {f['reason']}" for f in faults), items=faults)
    return lines


def _shown(basket: BasketState) -> BasketView:
    fields = msgspec.structs.asdict(basket)
    del fields["basket_id"]
    lines = [
        BasketLineView(
            n.line, n.sku, n.quantity, n.method, n.location, n.price_cents, n.amount_cents, n.when, n.why
        )
        for n in msgspec.convert(basket.lines, list[BasketLine])
    ]  # fmt: skip
    amounts = [line.amount for line in lines if line.amount is not None]
    return BasketView(**fields | {
        "id": basket.basket_id, "lines": lines, "amount": sum(amounts) if len(amounts) == len(lines) else None,
    })  # fmt: skip


routes: list[Any] = [search_aisle, reserve_basket, get_basket, extend_one, release_one, order_aisle]
