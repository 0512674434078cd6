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
from oms.errors import BadInput
from oms.flows.promise.dated import Place, Promised, promise
from oms.flows.promise.nearby import place_of


class PromiseLineBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Units of a sku or kit."""

    sku: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    quantity: Annotated[int, msgspec.Meta(ge=1, le=QUANTITY_MAX)]


class PromiseBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A cart, and where it goes and how; or `pickup_location`, where it is picked up."""

    channel: str
    lines: Annotated[list[PromiseLineBody], msgspec.Meta(min_length=1, max_length=LINES_MAX)]
    ship_to: ShipToBody | None = None
    pickup_location: str | None = None
    method: Annotated[str, msgspec.Meta(min_length=1, max_length=200)] | None = None


@post("/v1/promise", status_code=200, opt={"roles": READ}, tags=["atp"])
async def promise_cart(*, db: Database, actor: Actor, now: datetime, data: PromiseBody) -> Promised:
    """By when each line can be there, from where, and why; it reserves nothing."""
    channel_id = await channel_of(db, actor, data.channel)
    if (data.ship_to is None) == (data.pickup_location is None):
        raise BadInput("ship_to, pickup_location: give one of them")
    if data.ship_to is None:
        to = Place(pickup=data.pickup_location)
    else:
        ship = data.ship_to
        to = Place(*place_of(postal_code=ship.postal_code, country=ship.country, lat=ship.lat, lon=ship.lon))
    lines = [CartLine(line.sku, line.quantity) for line in data.lines]
    method = data.method if data.method is not None else "pickup" if to.pickup else "standard"
    return await promise(db, channel_id=channel_id, lines=lines, method=method, to=to, now=now)


routes: list[Any] = [promise_cart]
