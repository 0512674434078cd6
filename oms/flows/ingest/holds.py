"""Holds are seen, and ended by those who answer for the location."""

from collections.abc import Sequence
from datetime import datetime

import msgspec

from oms import ledger, record
from oms.access import Actor, sees_location
from oms.cache import Cache
from oms.db import Database, Sql
from oms.domain.additions import HOLD_CODES
from oms.errors import BadInput, NotFound

sql = Sql("messages")


class Held(msgspec.Struct, frozen=True):
    """Units on hand that may not be sold."""

    id: int
    sku: str
    location: str
    code: str
    quantity: int
    source: str
    placed_at: datetime


hold_by_id = sql.maybe("hold_by_id", ledger.Hold)
holds_page = sql.rows("holds_page", Held)


async def listed(db: Database, *, locations: Sequence[int] | None, after: int, limit: int) -> list[Held]:
    """Holds in force, at these locations or everywhere."""
    async with db.connection() as tx:
        return await holds_page(tx, locations=locations, after=after, limit=limit)


async def release(
    db: Database, *, hold_id: int, actor: Actor, why: str, now: datetime, quantity: int | None = None,
    cache: Cache | None = None,
) -> int:  # fmt: skip
    """Units under a hold may be sold again, all of it or `quantity`; gives how many. Raises NotFound, BadInput.

    A hold that its source reports is released by a movement of ours too, so that the next snapshot does not place it
    again until the source has taken that over.
    """
    async with db.transaction() as tx:
        found = await hold_by_id(tx, hold_id=hold_id)
        if found is None or not sees_location(actor, found.location_id):
            raise NotFound(f"There is no hold {hold_id} in force.")
        key = found.sku_id, found.location_id
        locked = await ledger.lock(tx, [found.sku_id])
        await ledger.stock(tx, [key])
        hold = await hold_by_id(tx, hold_id=hold_id)
        if hold is None:
            raise NotFound(f"There is no hold {hold_id} in force.")
        units = hold.quantity if quantity is None else quantity
        if not 0 < units <= hold.quantity:
            raise BadInput(f"quantity: hold {hold_id} has {hold.quantity} units; 1 to {hold.quantity} can be released")
        await ledger.lift(tx, {hold_id: units}, keys=[key], who=actor.who)
        if hold.code not in HOLD_CODES.values():
            move = ledger.Move(
                sku_id=hold.sku_id, location_id=hold.location_id, source_id=ledger.HOUSE, kind="release",
                message_id=f"release:{hold_id}", quantity=0, effect=0, occurred_at=now, hold_code=hold.code,
                held=-units, reason=why, is_ours=True,
            )  # fmt: skip
            await ledger.move(tx, [move], feed_id=None, who=actor.who)
        await ledger.write(tx, locked, resum=[hold.sku_id])
        await record.keep(
            tx, who=actor.who,
            steps=[record.Step("hold", str(hold_id), "released", why, {"units": units, "of": hold.quantity})],
        )  # fmt: skip
    if cache is not None:
        await cache.wake("broker")
        await cache.wake("project")
    return units
