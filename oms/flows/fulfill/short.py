"""A partial pick: what is there is picked, what is missing is rejected, in one step."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from oms import ledger
from oms.access import Actor
from oms.cache import Cache
from oms.db import Database
from oms.domain.fulfillment import Rejected
from oms.flows.fulfill import hands
from oms.flows.fulfill.reject import StockEffect, check, rejected_units, take_back
from oms.flows.fulfill.steps import enter_states, following, take


async def pick_short(
    db: Database,
    *,
    fulfillment: UUID,
    missing: Sequence[Rejected],
    stock: StockEffect,
    actor: Actor,
    now: datetime,
    device: str | None = None,
    cache: Cache | None = None,
) -> str:
    """Picks a fulfillment but for what is missing, which is brokered elsewhere; gives its state.

    Raises NotFound, BadInput, Conflict, NotAllowed, with nothing changed.
    """
    async with db.transaction() as tx:
        (found,) = await take(tx, [fulfillment], actor)
        picked = following(found, "pick")
        held = await check(tx, found, stock=stock, actor=actor)
        units = rejected_units(held, missing)
        (p,) = await hands.progress(tx, ids=[fulfillment])
        hands.check_holder(p, "pick", actor)
        await ledger.lock(tx, {n.sku_id for n in held})
        reasons = {r.line: r.reason for r in missing}
        state = await take_back(
            tx, found=found, held=held, units=units, stock=stock, who=actor.who, now=now, reasons=reasons, device=device
        )
        if state != "rejected":
            await hands.end_tasks(tx, [found], step="pick", actor=actor, device=device, now=now)
            await enter_states(tx, [found], {fulfillment: picked}, who=actor.who, now=now, device=device)
            state = picked
    if cache is not None:
        await cache.wake("broker")
        await cache.wake("project")
    return state
