"""A location works: accepts, picks, packs, ships; or rejects, and its lines are open again."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

import msgspec

from oms import ledger, record
from oms.access import Actor, sees_location
from oms.book import Book
from oms.cache import Cache
from oms.db import Connection, Database, Sql
from oms.domain.fulfillment import (
    NEXT,
    UNPICKED,
    Fulfillment,
    FulfillmentLine,
    Rejected,
    after_step,
    with_parts,
)
from oms.errors import BadInput, Conflict, NotAllowed, NotFound

sql = Sql("fulfill")

NOT_AGAIN_HOURS = 72
"""How long a location is not asked again for a sku of an order that it rejected."""
STOCK_ROLES = frozenset({"associate", "operator", "approver", "admin"})


class Task(msgspec.Struct, frozen=True):
    """A fulfillment as its location sees it."""

    id: UUID
    location: str
    channel: str
    number: str
    order_id: UUID
    state: str
    made_at: datetime
    changed_at: datetime
    method: str
    priority: int
    lines: list[dict[str, Any]] | None


class Key(msgspec.Struct, frozen=True):
    """A sku at a location."""

    sku_id: int
    location_id: int


class Unpicked(msgspec.Struct, frozen=True):
    """Work that nobody has picked."""

    fulfillment_id: UUID
    order_id: UUID


take_orders = sql.rows("take_orders", UUID)
take_fulfillments = sql.rows("take_fulfillments", Fulfillment)
take_lines = sql.rows("take_lines", FulfillmentLine)
enter = sql.run("step")
ship_lines = sql.run("ship_lines")
mark_shipped = sql.run("mark_shipped")
reopen_lines = sql.run("reopen_lines")
give_back = sql.run("give_back")
not_again = sql.run("not_again")
work_list = sql.rows("work_list", Task)
deficits = sql.rows("deficits", Key)
unpicked = sql.rows("unpicked", Unpicked)


def _seen(actor: Actor) -> dict[str, Any]:
    """What of the work a caller sees: of its channel, of its store, or at the locations of its source."""
    if actor.channel_id is not None:
        return {"channel_id": actor.channel_id, "locations": None}
    own = [actor.location_id] if actor.location_id is not None else sorted(actor.location_ids)
    return {"channel_id": None, "locations": own if actor.is_bound else None}


def _sees(actor: Actor, f: Fulfillment) -> bool:
    if actor.channel_id is not None:
        return actor.channel_id == f.channel_id
    return sees_location(actor, f.location_id)


async def tasks(
    db: Database, *, actor: Actor, location: str | None, state: str | None, after: UUID | None, limit: int
) -> list[Task]:
    """A location's work, oldest first; a store's own people see their store alone."""
    async with db.connection() as tx:
        return await work_list(
            tx, **_seen(actor), code=location, state=state, id=None, after=after, limit=limit,
        )  # fmt: skip


async def task(db: Database, *, actor: Actor, fulfillment: UUID) -> Task:
    """One fulfillment, if the caller sees it; raises NotFound."""
    async with db.connection() as tx:
        found = await work_list(
            tx, **_seen(actor), code=None, state=None, id=fulfillment, after=None, limit=1,
        )  # fmt: skip
    if not found:
        raise NotFound(f"There is no fulfillment {fulfillment}.")
    return found[0]


async def advance(
    db: Database,
    *,
    fulfillments: Sequence[UUID],
    step: Literal["accept", "pick", "pack", "ship"],
    actor: Actor,
    now: datetime,
    cache: Cache | None = None,
) -> dict[UUID, str]:
    """Fulfillments take a step; gives their new states. A step that is done already changes nothing.

    Shipping turns allocated units into shipment movements of ours. Raises NotFound and Conflict, with nothing of
    any of them changed.
    """
    async with db.transaction() as tx:
        found = await _take(tx, fulfillments, actor)
        states = {f.fulfillment_id: _after(f, step) for f in found}
        moving = [f for f in found if states[f.fulfillment_id] != f.state]
        if step == "ship":
            await _ship(tx, moving, now=now, who=actor.who)
        await enter(tx, ids=[f.fulfillment_id for f in moving], states=[states[f.fulfillment_id] for f in moving])
        await record.keep(
            tx, who=actor.who,
            steps=[record.Step("fulfillment", str(f.fulfillment_id), states[f.fulfillment_id]) for f in moving],
        )  # fmt: skip
    if cache is not None and step == "ship":
        await cache.wake("project")
    return states


def _after(f: Fulfillment, step: str) -> str:
    following = after_step(f.state, step, is_pickup=f.is_pickup)
    if following is None:
        possible = ", ".join(sorted(NEXT.get(f.state, {}))) or "nothing more"
        raise Conflict(f"Fulfillment {f.fulfillment_id} is {f.state} and cannot {step}; possible: {possible}.")
    return following


async def _take(tx: Connection, ids: Sequence[UUID], actor: Actor) -> list[Fulfillment]:
    """Takes the fulfillments and their orders; those of another's location answer as not found."""
    await take_orders(tx, ids=list(ids))
    found = await take_fulfillments(tx, ids=list(ids))
    seen = {f.fulfillment_id for f in found if _sees(actor, f)}
    missing = [str(i) for i in ids if i not in seen]
    if missing:
        raise NotFound(f"There is no fulfillment {', '.join(missing)}.")
    return found


async def _ship(tx: Connection, moving: Sequence[Fulfillment], *, now: datetime, who: str) -> None:
    """What leaves is a movement of ours; it is no longer allocated."""
    places = {f.fulfillment_id: f for f in moving}
    lines = await take_lines(tx, ids=list(places))
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


async def reject(
    db: Database,
    *,
    fulfillment: UUID,
    lines: Sequence[Rejected],
    stock: Literal["keep", "deduct", "zero"],
    actor: Actor,
    now: datetime,
    cache: Cache | None = None,
) -> str:
    """A location says no: its units go free and the lines are open again; gives the fulfillment's state.

    `stock` says what it means for the stock there: keep changes none, deduct takes the rejected units off, zero
    all of the sku. Raises NotFound, BadInput, Conflict, NotAllowed.
    """
    if stock != "keep" and actor.role not in STOCK_ROLES:
        raise NotAllowed(f"The role {actor.role} may not change stock; reject with stock 'keep'.")
    async with db.transaction() as tx:
        (found,) = await _take(tx, [fulfillment], actor)
        if found.state not in NEXT:
            raise Conflict(f"Fulfillment {fulfillment} is {found.state}; only work that has not left can be rejected.")
        held = await take_lines(tx, ids=[fulfillment])
        units = _rejected_units(held, lines)
        state = await take_back(
            tx, found=found, held=held, units=units, stock=stock, who=actor.who, now=now,
            reasons={r.line: r.reason for r in lines},
        )  # fmt: skip
    if cache is not None:
        await cache.wake("broker")
        await cache.wake("project")
    return state


def _rejected_units(held: Sequence[FulfillmentLine], lines: Sequence[Rejected]) -> dict[int, int]:
    """Line id → units given back; of a kit, so many of each part. Names each line that has not so many here."""
    wanted: dict[str, int] = {}
    for r in lines:
        wanted[r.line] = wanted.get(r.line, 0) + r.quantity
    with_it: dict[str, int] = {}
    for n in held:
        with_it[n.line] = max(with_it.get(n.line, 0), -(-n.quantity // n.per))
    faults = [
        {"line": line, "reason": f"has {with_it.get(line, 0)} units here, {quantity} were rejected"}
        for line, quantity in wanted.items()
        if not 0 < quantity <= with_it.get(line, 0)
    ]
    if faults or not wanted:
        raise BadInput("Name lines of this fulfillment, each with 1 or more of its units.", items=faults)
    return with_parts(held, wanted)


async def take_back(
    tx: Connection,
    *,
    found: Fulfillment,
    held: Sequence[FulfillmentLine],
    units: Mapping[int, int],
    stock: str,
    reasons: Mapping[str, str],
    who: str,
    now: datetime,
) -> str:
    """Units of a fulfillment are open again, its capacity falls back, and the location is not asked for them again."""
    back = [n for n in held if n.line_id in units]
    keys = {(n.sku_id, found.location_id) for n in back}
    book = await Book.open(tx, skus={n.sku_id for n in back}, keys=keys)
    for n in back:
        book.allocate(n.sku_id, found.location_id, -units[n.line_id], pool_id=n.pool_id, channel_id=None)
        book.keep(n.sku_id, n.pool_id, units[n.line_id])
    await _stock_effect(tx, book, found=found, back=back, units=units, stock=stock, who=who, now=now)
    await book.write(tx, capped=())
    lines, quantities = [n.line_id for n in back], [units[n.line_id] for n in back]
    await reopen_lines(tx, lines=lines, quantities=quantities)
    await give_back(tx, ids=[found.fulfillment_id] * len(back), lines=lines, quantities=quantities)
    await not_again(
        tx, skus=[n.sku_id for n in back], locations=[found.location_id] * len(back),
        orders=[found.order_id] * len(back), reasons=[reasons.get(n.line, "") for n in back],
        until=now + timedelta(hours=NOT_AGAIN_HOURS),
    )  # fmt: skip
    empty = all(units.get(n.line_id, 0) == n.quantity for n in held)
    if empty:
        await enter(tx, ids=[found.fulfillment_id], states=["rejected"])
    await ledger.capacity(tx, [(found.location_id, found.capacity_day)])
    await ledger.work(
        tx,
        [
            ledger.Work(
                found.location_id, found.capacity_day, -1 if empty else 0, -sum(quantities),
                -sum(n.price_cents * units[n.line_id] for n in back),
            )
        ],
    )  # fmt: skip
    detail = {n.line: units[n.line_id] for n in back}
    why = "; ".join(sorted(set(reasons.values())))
    await record.keep(
        tx, who=who,
        steps=[
            record.Step("fulfillment", str(found.fulfillment_id), "rejected", why, detail),
            record.Step("order", str(found.order_id), "open again", f"{found.location}: {why}", detail),
        ],
    )  # fmt: skip
    return "rejected" if empty else found.state


async def _stock_effect(
    tx: Connection,
    book: Book,
    *,
    found: Fulfillment,
    back: Sequence[FulfillmentLine],
    units: Mapping[int, int],
    stock: str,
    who: str,
    now: datetime,
) -> None:
    """A rejection that says something of the stock is an adjustment of ours."""
    if stock == "keep":
        return
    by_sku: dict[int, int] = {}
    for n in back:
        by_sku[n.sku_id] = by_sku.get(n.sku_id, 0) + units[n.line_id]
    moves = []
    for sku_id, rejected in sorted(by_sku.items()):
        on_hand = book.stock[sku_id, found.location_id].on_hand
        effect = -rejected if stock == "deduct" else -max(0, on_hand)
        if effect:
            moves.append(
                ledger.Move(
                    sku_id=sku_id, location_id=found.location_id, source_id=ledger.HOUSE, kind="adjustment",
                    message_id=f"reject:{found.fulfillment_id}:{sku_id}:{now.isoformat()}", quantity=effect,
                    effect=effect, occurred_at=now, reason=f"rejected, {stock}", reference=str(found.order_id),
                    is_ours=True,
                )
            )  # fmt: skip
    await ledger.move(tx, moves, feed_id=None, who=who)


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
