"""Work that stock on hand cannot fill goes back to open, unpicked and lowest class first."""

from datetime import datetime
from uuid import UUID

import msgspec

from oms import ledger, record
from oms.cache import Cache
from oms.db import Connection, Database, Sql
from oms.domain.fulfillment import UNPICKED, with_parts
from oms.flows.fulfill.reject import take_back
from oms.flows.fulfill.steps import take_fulfillments, take_lines, take_orders

sql = Sql("fulfill")


class Key(msgspec.Struct, frozen=True):
    """A sku at a location."""

    sku_id: int
    location_id: int


class Unpicked(msgspec.Struct, frozen=True):
    """Work that nobody has picked."""

    fulfillment_id: UUID
    order_id: UUID


deficits = sql.rows("deficits", Key)
unpicked = sql.rows("unpicked", Unpicked)


async def relieve(db: Database, *, who: str, now: datetime, cache: Cache | None = None, limit: int = 500) -> int:
    """Work that stock on hand cannot fill goes back to open: lowest class and latest first, unpicked only.

    Each key with such a deficit is an exception; gives how many fulfillments gave units back.
    """
    async with db.connection() as tx:
        keys = await deficits(tx, limit=limit)
    relieved = 0
    for key in keys:
        async with db.connection() as tx:
            works = await unpicked(tx, sku_id=key.sku_id, location_id=key.location_id)
        for work in works:
            async with db.transaction() as tx:
                done = await _relieve_one(tx, work.fulfillment_id, key=key, who=who, now=now)
            relieved += done > 0
            if done == 0:
                break
    if relieved and cache is not None:
        await cache.wake("broker")
        await cache.wake("project")
    return relieved


async def _relieve_one(tx: Connection, fulfillment: UUID, *, key: Key, who: str, now: datetime) -> int:
    """Gives back what is missing on a key, as far as this fulfillment has it; gives the units."""
    await take_orders(tx, ids=[fulfillment])
    (found,) = await take_fulfillments(tx, ids=[fulfillment])
    if found.state not in UNPICKED:
        return 0
    held = await take_lines(tx, ids=[fulfillment])
    await ledger.lock(tx, {n.sku_id for n in held})
    stock = (await ledger.stock(tx, [(key.sku_id, key.location_id)]))[key.sku_id, key.location_id]
    missing = stock.allocated - max(0, stock.on_hand)
    wanted: dict[str, int] = {}
    for n in held:
        if n.sku_id == key.sku_id and missing > 0:
            wanted[n.line] = -(-min(n.quantity, missing) // n.per)
            missing -= min(n.quantity, wanted[n.line] * n.per)
    units = with_parts(held, wanted)
    if not units:
        return 0
    skus = {n.line: n.sku for n in held if n.line_id in units and n.sku_id == key.sku_id}
    await record.raise_exceptions(
        tx,
        [
            record.Trouble(
                kind="location_deficit", subject=f"{found.location}:{key.sku_id}",
                detail=f"{found.location} has {stock.on_hand} of {', '.join(sorted(set(skus.values())))} on hand "
                f"and {stock.allocated} allocated. Work nobody has picked went back to open; count the sku there.",
                payload={"location": found.location, "on_hand": stock.on_hand, "allocated": stock.allocated},
            )
        ],
    )  # fmt: skip
    await take_back(
        tx, found=found, held=held, units=units, stock="keep", reasons=dict.fromkeys(skus, "stock is not there"),
        who=who, now=now,
    )  # fmt: skip
    return sum(units.values())
