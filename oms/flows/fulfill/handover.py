"""A pick-up goes to its customer, with proof of who was here."""

from datetime import datetime
from uuid import UUID

from oms.access import Actor
from oms.cache import Cache
from oms.db import Database
from oms.flows.fulfill import collect
from oms.flows.fulfill.steps import enter_states, following, ship, take


async def hand_over(
    db: Database,
    *,
    fulfillment: UUID,
    kind: str,
    proof: str,
    actor: Actor,
    now: datetime,
    device: str | None = None,
    cache: Cache | None = None,
) -> str:
    """The customer has it: packed here, it leaves the stock; shipped here, it had left where it came from.

    Raises NotFound, BadInput where the proof is none, Conflict.
    """
    async with db.transaction() as tx:
        await collect.order_of(tx, id=fulfillment)
        found = await collect.take_collection(tx, id=fulfillment)
        is_here = found is not None and found.from_id == found.location_id
        if found is not None and is_here:
            (work,) = await take(tx, [fulfillment], actor)
            state = following(work, "ship")
            if work.state != state:
                await collect.check_proof(found, kind, proof)
                await ship(tx, [work], now=now, who=actor.who)
                told = {"proof": kind}
                await enter_states(tx, [work], {fulfillment: state}, who=actor.who, now=now, device=device, detail=told)
                await collect.collected(
                    tx, ids=[fulfillment], state="handed_over", proof_kind=kind, proof=proof, at=now
                )
    if not is_here:
        return await collect.hand_over(
            db, fulfillment=fulfillment, kind=kind, proof=proof, actor=actor, now=now, device=device
        )
    if cache is not None:
        await cache.wake("project")
    return "handed_over"
