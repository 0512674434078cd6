"""A fulfillment takes a step: accepted, picked, packed, shipped or handed over, each once."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from oms import ledger, owed, record
from oms.access import Actor
from oms.book import Book
from oms.cache import Cache
from oms.db import Connection, Database, Sql
from oms.domain.fulfillment import NEXT, Fulfillment, FulfillmentLine, after_step
from oms.errors import Conflict, NotFound
from oms.flows.fulfill import collect, hands
from oms.flows.fulfill.look import sees

sql = Sql("fulfill")

Step = Literal["accept", "pick", "pack", "ship"]

take_orders = sql.rows("take_orders", UUID)
take_fulfillments = sql.rows("take_fulfillments", Fulfillment)
take_lines = sql.rows("take_lines", FulfillmentLine)
enter = sql.run("step")
ship_lines = sql.run("ship_lines")
mark_shipped = sql.run("mark_shipped")


async def advance(
    db: Database,
    *,
    fulfillments: Sequence[UUID],
    step: Step,
    actor: Actor,
    now: datetime,
    device: str | None = None,
    cache: Cache | None = None,
) -> dict[UUID, str]:
    """Fulfillments take a step; gives their new states. A step that is done already changes nothing.

    Shipping turns allocated units into shipment movements of ours. Raises NotFound and Conflict, with nothing of
    any of them changed; a pick or a pack that another person has begun is theirs.
    """
    async with db.transaction() as tx:
        states = await advance_in(tx, fulfillments, step=step, actor=actor, now=now, device=device)
    if cache is not None and step == "ship":
        await cache.wake("project")
    return states


async def advance_in(
    tx: Connection, fulfillments: Sequence[UUID], *, step: Step, actor: Actor, now: datetime, device: str | None = None
) -> dict[UUID, str]:
    """Fulfillments take a step in the caller's transaction; gives their new states. Raises NotFound, Conflict."""
    found = await take(tx, fulfillments, actor)
    states = {f.fulfillment_id: following(f, step) for f in found}
    moving = [f for f in found if states[f.fulfillment_id] != f.state]
    await hands.end_tasks(tx, moving, step=step, actor=actor, device=device, now=now)
    if step == "ship":
        await ship(tx, moving, now=now, who=actor.who)
    await enter_states(tx, moving, states, who=actor.who, device=device, now=now)
    return states


async def enter_states(
    tx: Connection,
    moving: Sequence[Fulfillment],
    states: Mapping[UUID, str],
    *,
    who: str,
    now: datetime,
    device: str | None = None,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Taken fulfillments enter their states, and history says who did it with what; what is to be collected waits."""
    await enter(tx, ids=[f.fulfillment_id for f in moving], states=[states[f.fulfillment_id] for f in moving])
    await collect.follow(tx, moving, states, now=now)
    told = {"device": device} if device else {}
    await record.keep(
        tx, who=who,
        steps=[
            record.Step("fulfillment", str(f.fulfillment_id), states[f.fulfillment_id],
                        detail={**told, **(detail or {})} or None)
            for f in moving
        ],
    )  # fmt: skip


def following(f: Fulfillment, step: str) -> str:
    state = after_step(f.state, step, is_pickup=f.is_pickup)
    if state is None:
        possible = ", ".join(sorted(NEXT.get(f.state, {}))) or "nothing more"
        raise Conflict(f"Fulfillment {f.fulfillment_id} is {f.state} and cannot {step}; possible: {possible}.")
    return state


async def take(tx: Connection, ids: Sequence[UUID], actor: Actor) -> list[Fulfillment]:
    """Takes the fulfillments and their orders; those of another's location answer as not found."""
    await take_orders(tx, ids=list(ids))
    found = await take_fulfillments(tx, ids=list(ids))
    seen = {f.fulfillment_id for f in found if sees(actor, f)}
    missing = [str(i) for i in ids if i not in seen]
    if missing:
        raise NotFound(f"There is no fulfillment {', '.join(missing)}.")
    return found


async def ship(tx: Connection, moving: Sequence[Fulfillment], *, now: datetime, who: str) -> None:
    """What leaves is a movement of ours; it is no longer allocated, and who sold it owes its owner."""
    places = {f.fulfillment_id: f for f in moving}
    lines = await take_lines(tx, ids=sorted(places))
    keys = {(n.sku_id, places[n.fulfillment_id].location_id) for n in lines}
    book = await Book.open(tx, skus={n.sku_id for n in lines}, keys=keys)
    moves = [
        ledger.Move(
            sku_id=n.sku_id, location_id=places[n.fulfillment_id].location_id, source_id=ledger.HOUSE,
            message_id=n.reference, kind="shipment", quantity=-n.quantity, effect=-n.quantity, occurred_at=now,
            reference=str(places[n.fulfillment_id].order_id), is_ours=True, acked_sequence=n.acked_sequence,
            acked_at=n.acked_at, contained_in=n.counted_in,
        )
        for n in lines
    ]  # fmt: skip
    await ledger.move(tx, moves, feed_id=None, who=who)
    for n in lines:
        book.allocate(n.sku_id, places[n.fulfillment_id].location_id, -n.quantity, pool_id=n.pool_id, channel_id=None)
    await book.write(tx, capped=())
    await ship_lines(tx, lines=[n.line_id for n in lines], quantities=[n.quantity for n in lines])
    await mark_shipped(tx, message_refs=[n.reference for n in lines])
    left = [owed.Left(n.fulfillment_id, n.line_id, n.quantity, n.reference) for n in lines]
    await owed.shipped(tx, left, who=who, at=now)
