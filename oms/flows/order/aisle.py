"""What an associate has reserved for a customer is ordered: one order per way and location, all of them or none.

An order has one method and one place in all that reads it (brokering, amending, pick-ups), so a basket that mixes ways
becomes orders that belong together, and none of that needs to know of it.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from oms.access import Actor
from oms.db import Connection, Database, Sql
from oms.domain.basket import BasketLine, number_of
from oms.domain.order import NewOrder, OrderLine, ShipTo
from oms.errors import Conflict, NotFound, Refusal
from oms.flows.order.capture import capture_many
from oms.record import Step, keep

sql = Sql("aisle")


class OrderedPart(msgspec.Struct, frozen=True):
    """A part of a basket, and the order that it became."""

    place: int
    method: str
    location: str | None
    reservation_id: UUID
    order_id: UUID | None


class Placed(msgspec.Struct, frozen=True):
    """A basket's orders, and the associate who placed them; `is_new` where they were placed now."""

    basket_id: UUID
    number: str
    who: str
    is_new: bool
    parts: list[OrderedPart]


class _Basket(msgspec.Struct, frozen=True):
    basket_id: UUID
    channel_id: int
    channel: str
    location: str
    lines: list[dict[str, Any]]
    ship_to: dict[str, Any] | None
    ship_method: str
    postal_code: str | None
    country: str
    lat: float | None
    lon: float | None


class _Number(msgspec.Struct, frozen=True):
    number: str
    who: str
    is_new: bool


class _Left(msgspec.Struct, frozen=True):
    line: str
    sku: str


take_for_order = sql.maybe("take_for_order", _Basket)
parts_to_order = sql.rows("parts_to_order", OrderedPart)
give_number = sql.maybe("give_number", _Number)
part_is_ordered = sql.run("part_is_ordered")
lapsed = sql.rows("lapsed", str)
not_there = sql.rows("not_there", _Left)


async def order_basket(
    db: Database, *, basket_id: UUID, number: str, why: str | None, placed_at: datetime, now: datetime, actor: Actor
) -> Placed:
    """Orders a basket under this number, once: the same again gets the orders that stand.

    Raises NotFound; Conflict where the countdown has ended, the number is another's, or the basket has another number.
    """
    async with db.transaction() as tx:
        basket = await take_for_order(
            tx, id=basket_id, location_id=actor.location_id, channel_id=actor.channel_id
        )  # fmt: skip
        if basket is None:
            raise NotFound("no basket has this id")
        given = await give_number(
            tx, channel_id=basket.channel_id, number=number, id=basket_id, who=actor.who, why=why
        )  # fmt: skip
        if given is None:
            raise Conflict(f"number {number!r} is another basket's of channel {basket.channel}: give one of its own")
        if given.number != number:
            raise Conflict(f"the basket is ordered already, as {given.number!r}")
        parts = await parts_to_order(tx, id=basket_id)
        if given.is_new:
            orders = await _capture(tx, basket, parts, number=number, placed_at=placed_at, now=now, actor=actor)
            await part_is_ordered(tx, id=basket_id, places=[p.place for p in parts], orders=orders)
            parts = await parts_to_order(tx, id=basket_id)
            await _tell(tx, basket, parts, number=number, why=why, actor=actor)
    return Placed(basket_id, number, given.who, given.is_new, parts)


async def _capture(
    tx: Connection,
    basket: _Basket,
    parts: Sequence[OrderedPart],
    *,
    number: str,
    placed_at: datetime,
    now: datetime,
    actor: Actor,
) -> list[UUID]:
    """The orders of a basket's parts, each with what was reserved for it."""
    orders = [_order(basket, part, number=number, placed_at=placed_at, now=now, actor=actor) for part in parts]
    made: list[UUID] = []
    for order, answer in zip(orders, await capture_many(tx, orders), strict=True):
        if isinstance(answer, Refusal):
            raise answer
        if not answer.is_new:
            raise Conflict(f"order {order.number!r} stands already in channel {basket.channel}: give another number")
        made.append(answer.order_id)
    if await lapsed(tx, id=basket.basket_id):
        raise Conflict("the basket's countdown has ended, or it was released: reserve it again, then order it")
    taken = [order_id for order_id, part in zip(made, parts, strict=True) if part.method == "take_away"]
    left = await not_there(tx, orders=taken) if taken else []
    if left:
        names = ", ".join(sorted({line.sku for line in left}))
        raise Conflict(f"{basket.location} cannot give {names} away any more: release the basket and reserve it again")
    return made


def _order(
    basket: _Basket, part: OrderedPart, *, number: str, placed_at: datetime, now: datetime, actor: Actor
) -> NewOrder:
    here = {"postal_code": basket.postal_code or "", "country": basket.country, "lat": basket.lat, "lon": basket.lon}
    return NewOrder(
        channel_id=basket.channel_id, number=number_of(number, part.method, part.location), placed_at=placed_at,
        ship_to=ShipTo(**(basket.ship_to or here if part.method == "ship" else here)),
        method=basket.ship_method if part.method == "ship" else part.method, at=now, who=actor.who,
        reservation=str(part.reservation_id), pickup_location=part.location, taken_away=part.method == "take_away",
        lines=tuple(
            OrderLine(line=n.line, sku=n.sku, quantity=n.quantity, price_cents=n.price_cents)
            for n in msgspec.convert(basket.lines, list[BasketLine])
            if (n.method, n.location) == (part.method, part.location)
        ),
    )  # fmt: skip


async def _tell(
    tx: Connection, basket: _Basket, parts: Sequence[OrderedPart], *, number: str, why: str | None, actor: Actor
) -> None:
    told = {"basket": str(basket.basket_id), "number": number, "location": basket.location, "associate": actor.who}
    steps = [Step("order", str(p.order_id), "endless_aisle", why, told | {"method": p.method}) for p in parts]
    orders = [str(p.order_id) for p in parts]
    await keep(
        tx, who=actor.who,
        steps=[*steps, Step("basket", str(basket.basket_id), "ordered", why, {"number": number, "orders": orders})],
    )  # fmt: skip
