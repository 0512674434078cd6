"""What can be there by when: `/v1/promise`."""

from datetime import datetime
from typing import Annotated, Any

import msgspec
from litestar import post

from oms.access import Actor
from oms.api.atp import READ
from oms.api.orders import ShipToBody
from oms.api.scope import channel_of
from oms.db import Database
from oms.domain.order import LINES_MAX, QUANTITY_MAX, CartLine
from oms.flows.promise.dated import Promised, promise
from oms.flows.promise.nearby import place_of


class PromiseLineBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Units of a sku or kit."""

    sku: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    quantity: Annotated[int, msgspec.Meta(ge=1, le=QUANTITY_MAX)]


class PromiseBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A cart, where it goes and how."""

    channel: str
    lines: Annotated[list[PromiseLineBody], msgspec.Meta(min_length=1, max_length=LINES_MAX)]
    ship_to: ShipToBody
    method: Annotated[str, msgspec.Meta(min_length=1, max_length=200)] = "standard"


@post("/v1/promise", status_code=200, opt={"roles": READ}, tags=["atp"])
async def promise_cart(*, db: Database, actor: Actor, now: datetime, data: PromiseBody) -> Promised:
    """By when each line can be there, from where, and why; it reserves nothing."""
    channel_id = await channel_of(db, actor, data.channel)
    to = data.ship_to
    lat, lon = place_of(postal_code=to.postal_code, country=to.country, lat=to.lat, lon=to.lon)
    lines = [CartLine(line.sku, line.quantity) for line in data.lines]
    return await promise(
        db, channel_id=channel_id, lines=lines, method=data.method, lat=lat, lon=lon, now=now
    )  # fmt: skip


routes: list[Any] = [promise_cart]
