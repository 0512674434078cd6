"""A basket for a customer in a store: lines to take away, to be sent, to be picked up; all reserved or none, for a time.

door → Settle(reserve_baskets) → reserve_many, one cart per part → basket rows and history, in the same transaction
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from oms.access import Actor
from oms.db import Connection, Database, Sql
from oms.domain.basket import BasketLine, BasketPart, remedy_of
from oms.domain.order import CartLine
from oms.errors import Conflict, NotFound, OutOfStock, Refusal
from oms.flows.reserve import ANOTHER_PART, Cart, Granted, end_reservations, reserve_many
from oms.record import Step, keep

sql = Sql("aisle")


class Basket(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be reserved; the same `basket_id` again is the same basket."""

    basket_id: UUID
    channel_id: int
    location_id: int
    location: str
    parts: tuple[BasketPart, ...]
    ship_to: dict[str, Any] | None
    ship_method: str
    ttl_seconds: int
    who: str
    why: str | None = None

    @property
    def lines(self) -> list[BasketLine]:
        """All lines."""
        return [line for part in self.parts for line in part.lines]


class BasketState(msgspec.Struct, frozen=True):
    """A basket as it stands. `state`: reserved, ordered, released or expired, by the database's clock; `lines` are `BasketLine`s.

    `seconds_left` counts down to `expires_at`; 0 where it is over or no longer counts.
    """

    basket_id: UUID
    channel: str
    location: str
    state: str
    expires_at: datetime
    seconds_left: int
    lines: list[dict[str, Any]]
    ship_to: dict[str, Any] | None
    ship_method: str
    who: str
    why: str | None
    made_at: datetime
    number: str | None
    orders: list[UUID]


class _Held(msgspec.Struct, frozen=True):
    """What a part reserved: whether it holds its units still, and whether its time is not over."""

    reservation_id: UUID
    is_held: bool
    is_live: bool


insert_baskets = sql.rows("insert_baskets", UUID)
insert_parts = sql.run("insert_parts")
basket_shown = sql.maybe("basket_shown", BasketState)
take_basket = sql.maybe("take_basket", UUID)
take_held = sql.rows("take_held", _Held)
extend_held = sql.run("extend_held")


async def reserve_baskets(tx: Connection, baskets: Sequence[Basket]) -> list[UUID | Refusal]:
    """Decides baskets in order, each whole or not at all; gives the id of each that is reserved, or what was short."""
    carts = [
        Cart(
            reservation_id=part.reservation_id, channel_id=basket.channel_id, ttl_seconds=basket.ttl_seconds,
            location=part.location, group=basket.basket_id,
            lines=tuple(CartLine(line.sku, line.quantity) for line in part.lines),
        )
        for basket in baskets
        for part in basket.parts
    ]  # fmt: skip
    said = iter(await reserve_many(tx, carts))
    answers: list[UUID | Refusal] = []
    granted = []
    for basket in baskets:
        told = [(part, next(said)) for part in basket.parts]
        if all(isinstance(answer, Granted) for _, answer in told):
            granted.append(basket)
            answers.append(basket.basket_id)
        else:
            answers.append(_refusal(told))
    await _keep(tx, granted)
    return answers


def _refusal(told: Sequence[tuple[BasketPart, Any]]) -> Refusal:
    """One "no" for a basket: every part that was short, each with what may be done about it."""
    short = [(part, answer) for part, answer in told if isinstance(answer, OutOfStock)]
    if not short:
        return next(answer for _, answer in told if isinstance(answer, Refusal) and answer.detail != ANOTHER_PART)
    items = [
        {**item, "method": part.method, "location": part.location,
         "remedy": remedy_of(part.method, part.location, item["atp"])}
        for part, answer in short
        for item in answer.items
    ]  # fmt: skip
    text = "; ".join(f"{i['sku']} to {i['method']}: {i['quantity']} asked, {i['remedy']}" for i in items)
    return OutOfStock(f"Not enough may be promised: {text}. Nothing was reserved.", items=items)


async def _keep(tx: Connection, baskets: Sequence[Basket]) -> None:
    if not baskets:
        return
    new = set(await insert_baskets(
        tx, ids=[b.basket_id for b in baskets], channels=[b.channel_id for b in baskets],
        locations=[b.location_id for b in baskets], says=[{"lines": msgspec.to_builtins(b.lines)} for b in baskets],
        ship_tos=[b.ship_to for b in baskets], ship_methods=[b.ship_method for b in baskets],
        whos=[b.who for b in baskets], whys=[b.why for b in baskets],
    ))  # fmt: skip
    parts = [(b, place, part) for b in baskets for place, part in enumerate(b.parts)]
    await insert_parts(
        tx, baskets=[b.basket_id for b, _, _ in parts], places=[place for _, place, _ in parts],
        methods=[part.method for _, _, part in parts], locations=[part.location for _, _, part in parts],
        reservations=[part.reservation_id for _, _, part in parts],
    )  # fmt: skip
    for b in (b for b in baskets if b.basket_id in new):
        told = {"location": b.location, "lines": [{"line": n.line, "sku": n.sku, "quantity": n.quantity,
                                                  "method": n.method} for n in b.lines]}  # fmt: skip
        await keep(tx, who=b.who, steps=[Step("basket", str(b.basket_id), "reserved", b.why, told)])


def _sight(actor: Actor) -> dict[str, Any]:
    """The baskets that the caller sees: those of its own store, and of its own channel."""
    return {"location_id": actor.location_id, "channel_id": actor.channel_id}


async def read_basket(db: Database, *, basket_id: UUID, actor: Actor) -> BasketState:
    """A basket with its countdown; NotFound where the caller sees none of this id."""
    async with db.reading() as tx:
        found = await basket_shown(tx, id=basket_id, **_sight(actor))
    if found is None:
        raise NotFound("no basket has this id")
    return found


async def extend_basket(db: Database, *, basket_id: UUID, ttl_seconds: int, actor: Actor) -> None:
    """A basket lasts at least this much longer from now. Raises NotFound; Conflict where its time is over."""
    async with db.transaction() as tx:
        held = await _take(tx, basket_id, actor)
        if not all(h.is_live for h in held):
            raise Conflict("the basket's countdown has ended, or it was released or ordered: reserve it again")
        await extend_held(tx, ids=[h.reservation_id for h in held], ttl=ttl_seconds)
        told = {"ttl_seconds": ttl_seconds}
        await keep(tx, who=actor.who, steps=[Step("basket", str(basket_id), "extended", None, told)])


async def release_basket(db: Database, *, basket_id: UUID, why: str | None, actor: Actor) -> bool:
    """A basket's units go free; whether any were still held. Raises NotFound."""
    async with db.transaction() as tx:
        held = [h.reservation_id for h in await _take(tx, basket_id, actor) if h.is_held]
        if not held:
            return False
        await end_reservations(tx, held, state="released")
        await keep(tx, who=actor.who, steps=[Step("basket", str(basket_id), "released", why)])
    return True


async def _take(tx: Connection, basket_id: UUID, actor: Actor) -> list[_Held]:
    """Takes a basket and what its parts reserved, in order."""
    if await take_basket(tx, id=basket_id, **_sight(actor)) is None:
        raise NotFound("no basket has this id")
    return await take_held(tx, id=basket_id)
