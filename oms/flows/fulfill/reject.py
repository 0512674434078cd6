"""A location says no: its units go free, the lines are open again, and it is not asked for them again for a while."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

import msgspec

from oms import ledger, record
from oms.access import Actor
from oms.book import Book
from oms.cache import Cache
from oms.db import Connection, Database, Sql
from oms.domain.fulfillment import NEXT, UNPICKED, Fulfillment, FulfillmentLine, Rejected, with_parts
from oms.errors import BadInput, Conflict, NotAllowed
from oms.flows.fulfill.steps import enter, take, take_lines

sql = Sql("fulfill")
work = Sql("work")

STOCK_ROLES = frozenset({"associate", "integrator", "operator", "approver", "admin"})
StockEffect = Literal["keep", "deduct", "zero"]


class Rules(msgspec.Struct, frozen=True):
    """What a location's rejections may do, and for how long it is not asked again."""

    rejections_change_stock: bool
    not_again_hours: int
    sku_rest_minutes: int


reopen_lines = sql.run("reopen_lines")
give_back = sql.run("give_back")
not_again = sql.run("not_again")
let_rest = work.run("let_rest")
rejection_rules = work.one("rejection_rules", Rules)
others_there = work.rows("others_there", UUID)
in_hands = work.rows("in_hands", tuple)
note_losses = work.run("note_losses")


async def reject(
    db: Database,
    *,
    fulfillment: UUID,
    lines: Sequence[Rejected],
    stock: StockEffect,
    actor: Actor,
    now: datetime,
    whole: str | None = None,
    others: bool = False,
    device: str | None = None,
    cache: Cache | None = None,
) -> str:
    """A location says no: its units go free and the lines are open again; gives the fulfillment's state.

    `whole` is the reason where all of it is rejected. `others`: other orders' unpicked work there loses these
    skus too, and the location is not asked for them by any order until they have rested. `stock` says what it means for the stock there: keep changes none, deduct takes the rejected units off, zero
    all of the sku that nobody has in hands. Raises NotFound, BadInput, Conflict, NotAllowed.
    """
    async with db.transaction() as tx:
        named = None if whole is not None else [r.line for r in lines]
        ids = await others_there(tx, id=fulfillment, lines=named) if others else []
        taken = {f.fulfillment_id: f for f in await take(tx, [fulfillment, *ids], actor)}
        found = taken.pop(fulfillment)
        held = await check(tx, found, stock=stock, actor=actor)
        if whole is not None:
            lines = list({n.line: Rejected(n.line, -(-n.quantity // n.per), whole) for n in held}.values())
        reasons = {r.line: r.reason for r in lines}
        units = rejected_units(held, lines)
        beside = await _others(tx, list(taken.values()), {n.sku_id for n in held if n.line_id in units})
        keys = {n.sku_id for n in held} | {n.sku_id for _, theirs, _ in beside for n in theirs}
        await ledger.lock(tx, keys)
        state = await take_back(
            tx, found=found, held=held, units=units, stock=stock, who=actor.who, now=now, reasons=reasons, device=device
        )
        if others:
            rules = await rejection_rules(tx, location_id=found.location_id)
            await let_rest(
                tx, skus=sorted({n.sku_id for n in held if n.line_id in units}), location_id=found.location_id,
                reason="; ".join(sorted(set(reasons.values()))), until=now + timedelta(minutes=rules.sku_rest_minutes),
            )  # fmt: skip
        for other, theirs, their_units in beside:
            why = f"{found.location} rejected it for another order: {'; '.join(sorted(set(reasons.values())))}"
            await take_back(
                tx, found=other, held=theirs, units=their_units, stock="keep", who=actor.who, now=now,
                reasons={n.line: why for n in theirs if n.line_id in their_units}, device=device,
            )  # fmt: skip
    if cache is not None:
        await cache.wake("broker")
        await cache.wake("project")
    return state


async def check(tx: Connection, found: Fulfillment, *, stock: str, actor: Actor) -> list[FulfillmentLine]:
    """The lines of a fulfillment that may be rejected with this effect; raises Conflict, NotAllowed."""
    rules = await rejection_rules(tx, location_id=found.location_id)
    if stock != "keep" and (
        actor.role not in STOCK_ROLES or (actor.role == "associate" and not rules.rejections_change_stock)
    ):
        raise NotAllowed(f"The role {actor.role} may not change stock at {found.location}; reject with stock 'keep'.")
    if found.state not in NEXT:
        raise Conflict(
            f"Fulfillment {found.fulfillment_id} is {found.state}; only work that has not left can be rejected."
        )
    return await take_lines(tx, ids=[found.fulfillment_id])


async def _others(
    tx: Connection, taken: Sequence[Fulfillment], skus: set[int]
) -> list[tuple[Fulfillment, list[FulfillmentLine], dict[int, int]]]:
    """What unpicked work of other orders has of these skus, and so is given back."""
    given = []
    for other in taken:
        held = await take_lines(tx, ids=[other.fulfillment_id]) if other.state in UNPICKED else []
        wanted = {n.line: -(-n.quantity // n.per) for n in held if n.sku_id in skus}
        if wanted:
            given.append((other, held, with_parts(held, wanted)))
    return given


def rejected_units(held: Sequence[FulfillmentLine], lines: Sequence[Rejected]) -> dict[int, int]:
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
    device: str | None = None,
) -> str:
    """Units of a fulfillment are open again, its capacity falls back, and the location is not asked for them again."""
    back = [n for n in held if n.line_id in units]
    keys = {(n.sku_id, found.location_id) for n in back}
    book = await Book.open(tx, skus={n.sku_id for n in back}, keys=keys)
    for n in back:
        book.allocate(n.sku_id, found.location_id, -units[n.line_id], pool_id=n.pool_id, channel_id=None)
        book.keep(n.sku_id, n.pool_id, units[n.line_id])
    lines, quantities = [n.line_id for n in back], [units[n.line_id] for n in back]
    await give_back(tx, ids=[found.fulfillment_id] * len(back), lines=lines, quantities=quantities)
    await _stock_effect(tx, book, found=found, back=back, units=units, stock=stock, who=who, now=now)
    await book.write(tx, capped=())
    await reopen_lines(tx, lines=lines, quantities=quantities)
    rules = await rejection_rules(tx, location_id=found.location_id)
    await not_again(
        tx, skus=[n.sku_id for n in back], locations=[found.location_id] * len(back),
        orders=[found.order_id] * len(back), reasons=[reasons.get(n.line, "") for n in back],
        until=now + timedelta(hours=rules.not_again_hours),
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
    detail: dict[str, Any] = {n.line: units[n.line_id] for n in back}
    if device:
        detail["device"] = device
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
    # units that somebody has in hands are there, whatever is missing on the shelf
    elsewhere: dict[int, int] = dict(await in_hands(tx, location_id=found.location_id, skus=sorted(by_sku)))
    moves = []
    for sku_id, rejected in sorted(by_sku.items()):
        on_hand = book.stock[sku_id, found.location_id].on_hand
        effect = -rejected if stock == "deduct" else -max(0, on_hand - elsewhere.get(sku_id, 0))
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
    if moves:
        await note_losses(
            tx, location_id=found.location_id, skus=[m.sku_id for m in moves], quantities=[-m.effect for m in moves],
            reason=f"rejected, {stock}", reference=str(found.fulfillment_id), who=who, at=now,
        )  # fmt: skip
