"""What a customer takes along at once leaves the store's stock: no one picks, packs or collects it."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from oms.access import Actor, house
from oms.cache import Cache
from oms.db import Database, Sql
from oms.flows.fulfill.steps import enter_states, ship, take

sql = Sql("aisle")


class SoldHere(msgspec.Struct, frozen=True):
    """Units that left with their customer; a till's message that bears this reference is an echo of it."""

    line: str
    sku: str
    quantity: int
    reference: str


to_take_away = sql.rows("to_take_away", UUID)
in_customers_hands = sql.run("in_customers_hands")
sold_here = sql.rows("sold_here", SoldHere)
has_left = sql.run("has_left")
stays = sql.rows("stays", UUID)

STAYS_SECONDS_MAX = 60
"""So long after its order a caller that was killed in between may come again; then the house ends what it began."""
STAYS_AT_ONCE = 200

_GONE = ("shipped", "handed_over", "rejected", "recalled")


async def take_away(
    db: Database,
    *,
    orders: Sequence[UUID],
    actor: Actor,
    now: datetime,
    device: str | None = None,
    cache: Cache | None = None,
) -> list[SoldHere]:
    """What is allocated of these orders is handed over, once; gives what left. What has left already stays so."""
    async with db.transaction() as tx:
        ids = await to_take_away(tx, orders=list(orders))
        moving = [f for f in await take(tx, ids, actor) if f.state not in _GONE]
        if moving:
            await in_customers_hands(tx, ids=[f.fulfillment_id for f in moving])
            await ship(tx, moving, now=now, who=actor.who)
            states = {f.fulfillment_id: "handed_over" for f in moving}
            await enter_states(
                tx, moving, states, who=actor.who, now=now, device=device, detail={"proof": "taken away"}
            )
        await has_left(tx, orders=list(orders), at=now)
        sold = await sold_here(tx, ids=ids)
    if cache is not None and moving:
        await cache.wake("project")
    return sold


async def end_taken(db: Database, *, now: datetime, cache: Cache | None = None) -> int:
    """What customers took along while the call that said so was cut off leaves the stock, too; gives how many orders."""
    async with db.reading() as tx:
        orders = await stays(tx, before=now - timedelta(seconds=STAYS_SECONDS_MAX), limit=STAYS_AT_ONCE)
    for order_id in orders:
        await take_away(db, orders=[order_id], actor=house, now=now, cache=cache)
    return len(orders)
