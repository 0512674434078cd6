"""Checkout: a cart is reserved, all lines or none, before the answer leaves; `/v1/reservations`."""

import time
from datetime import datetime
from functools import partial
from random import Random
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Request, Response, delete, post

from oms.access import Actor
from oms.api.idempotency import key_of, request_hash
from oms.api.problems import refused
from oms.api.scope import channel_of, channels_seen, check_location
from oms.cache import Cache
from oms.db import Database
from oms.domain.ids import time_ordered
from oms.domain.order import LINES_MAX, QUANTITY_MAX, CartLine
from oms.errors import Refusal
from oms.flows import reserve
from oms.flows.reserve import TTL_SECONDS_MAX, Cart, Granted, Key, Replayed, reserve_many
from oms.settings import Settings
from oms.settle import shared

CHECKOUT = frozenset({"storefront", "associate", "operator", "admin"})

CHANCE = Random()  # seeded by the system
Seconds = Annotated[int, msgspec.Meta(ge=1, le=TTL_SECONDS_MAX)]


class LineBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Units of a sku or kit."""

    sku: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    quantity: Annotated[int, msgspec.Meta(ge=1, le=QUANTITY_MAX)]


class CartBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to reserve, and how long (OMS_RESERVATION_TTL_SECONDS where not given); `location` makes it a pick-up there."""

    channel: str
    lines: Annotated[list[LineBody], msgspec.Meta(min_length=1, max_length=LINES_MAX)]
    ttl_seconds: Seconds | None = None
    location: str | None = None


class ExtendBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much longer, from now."""

    ttl_seconds: Seconds | None = None


class Extended(msgspec.Struct, frozen=True):
    """A reservation that lasts longer."""

    id: UUID
    expires_at: datetime


@post("/v1/reservations", opt={"roles": CHECKOUT, "idempotency": "own"}, tags=["checkout"])
async def reserve_cart(
    request: Request[Any, Any, Any], db: Database, cache: Cache, actor: Actor, settings: Settings, data: CartBody
) -> Response[Any]:
    """Reserves all lines or none; 409 says what was short. The same Idempotency-Key gets the first answer again."""
    channel_id = await channel_of(db, actor, data.channel)
    await check_location(db, actor, data.location)
    text = key_of(request.scope)
    key = None
    if text is not None and actor.key_id is not None:
        digest = request_hash(
            request.method, request.scope["path"], await request.body(), request.scope["query_string"]
        )
        key = Key(actor.key_id, text, digest, render)
    cart = Cart(
        reservation_id=time_ordered(unix_ms=time.time_ns() // 1_000_000, chance=CHANCE), channel_id=channel_id, ttl_seconds=data.ttl_seconds or settings.reservation_ttl_seconds,
        location=data.location, key=key,
        lines=tuple(CartLine(line.sku, line.quantity) for line in data.lines),
    )  # fmt: skip
    queue = shared(db, reserve_many, after=partial(cache.wake, "project"))
    answer: Granted | Replayed = await queue.ask(cart)
    if isinstance(answer, Replayed):
        media_type = "application/problem+json" if answer.status >= 400 else "application/json"
        headers = {"idempotent-replayed": "true"}
        return Response(answer.body, status_code=answer.status, media_type=media_type, headers=headers)
    return Response(answer, status_code=201)


def render(answer: Granted | Refusal) -> tuple[int, bytes]:
    """A grant or refusal as it is sent, to be kept under the caller's key."""
    if isinstance(answer, Refusal):
        response = refused(None, answer)  # type: ignore[arg-type]
        return response.status_code or 409, bytes(response.content)
    return 201, msgspec.json.encode(answer)


@delete("/v1/reservations/{reservation_id:uuid}", opt={"roles": CHECKOUT}, tags=["checkout"])
async def release_cart(db: Database, cache: Cache, actor: Actor, reservation_id: UUID) -> None:
    """Gives its units back; 204 whether it was still there or not."""
    if await reserve.release(db, reservation_id=reservation_id, channels=channels_seen(actor)):
        await cache.wake("project")


@post("/v1/reservations/{reservation_id:uuid}/extend", status_code=200, opt={"roles": CHECKOUT}, tags=["checkout"])
async def extend_cart(
    db: Database, actor: Actor, settings: Settings, reservation_id: UUID, data: ExtendBody
) -> Extended:
    """A live reservation lasts at least this much longer from now; 404 when it has ended."""
    until = await reserve.extend(
        db, reservation_id=reservation_id, ttl_seconds=data.ttl_seconds or settings.reservation_ttl_seconds,
        channels=channels_seen(actor),
    )  # fmt: skip
    return Extended(reservation_id, until)


routes: list[Any] = [reserve_cart, release_cart, extend_cart]
