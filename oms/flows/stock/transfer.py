"""Units move between locations: asked for, sent and in transit, received; with what the move cost."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import msgspec

from oms import ledger, record
from oms.access import Actor, sees_location
from oms.book import Book
from oms.cache import Cache
from oms.db import Connection, Database, Sql
from oms.errors import BadInput, Conflict, NotFound
from oms.flows.stock.codes import skus_of

sql = Sql("stock")

TRANSIT_DAYS = 3
"""When a transfer that names no date is expected."""


class Wanted(msgspec.Struct, frozen=True):
    """Units of a scanned code."""

    code: str
    quantity: int


class Transfer(msgspec.Struct, frozen=True):
    """A transfer whose row is taken."""

    transfer_id: UUID
    from_id: int
    from_code: str
    to_id: int
    to_code: str
    state: str
    due_on: date | None


class TransferLine(msgspec.Struct, frozen=True):
    """A line of a transfer; units under a hold wait for it at its origin."""

    sku_id: int
    sku: str
    asked: int
    sent: int
    received: int
    damaged: int
    hold_code: str | None


class View(msgspec.Struct, frozen=True):
    """A transfer with what is in transit, and what it cost: labor at both ends, and transport."""

    id: UUID
    from_location: str
    to_location: str
    order_id: UUID | None
    state: str
    why: str | None
    labor_cents: int
    transport_cents: int
    carrier: str | None
    tracking: str | None
    due_on: date | None
    asked_by: str
    asked_at: datetime
    sent_at: datetime | None
    received_at: datetime | None
    lines: list[dict[str, Any]]


ask_transfer = sql.run("ask_transfer")
take_transfer = sql.maybe("take_transfer", Transfer)
transfer_lines = sql.rows("transfer_lines", TransferLine)
transfer_sent = sql.run("transfer_sent")
in_transit = sql.run("in_transit")
transfer_came = sql.run("transfer_came")
cancel_transfer = sql.run("cancel_transfer")
transfers_of = sql.rows("transfers_of", View)


async def ask(
    db: Database,
    *,
    from_id: int,
    to_id: int,
    lines: Sequence[Wanted],
    actor: Actor,
    now: datetime,
    why: str | None = None,
    order_id: UUID | None = None,
    due_on: date | None = None,
    labor_cents: int = 0,
    transport_cents: int = 0,
) -> UUID:
    """Asks one location to send units to another; raises BadInput."""
    if from_id == to_id:
        raise BadInput("to: a transfer goes to another location")
    if not lines or any(n.quantity < 1 for n in lines):
        raise BadInput("lines: name what is to be sent, each with 1 or more units")
    transfer_id = uuid4()
    async with db.transaction() as tx:
        units: dict[int, int] = {}
        for sku, n in zip(await skus_of(tx, [n.code for n in lines]), lines, strict=True):
            units[sku.sku_id] = units.get(sku.sku_id, 0) + n.quantity
        await ask_transfer(
            tx, id=transfer_id, from_id=from_id, to_id=to_id, order_id=order_id, why=why, labor_cents=labor_cents,
            transport_cents=transport_cents, due_on=due_on, who=actor.who, at=now, skus=list(units),
            quantities=list(units.values()),
        )  # fmt: skip
        await record.keep(tx, who=actor.who, steps=[record.Step("transfer", str(transfer_id), "asked", why)])
    return transfer_id


async def _take(tx: Connection, transfer_id: UUID, actor: Actor) -> Transfer:
    found = await take_transfer(tx, id=str(transfer_id))
    if found is None or not (sees_location(actor, found.from_id) or sees_location(actor, found.to_id)):
        raise NotFound(f"There is no transfer {transfer_id}.")
    return found


async def send(
    db: Database,
    *,
    transfer_id: UUID,
    actor: Actor,
    now: datetime,
    lines: Sequence[Wanted] | None = None,
    carrier: str | None = None,
    tracking: str | None = None,
    labor_cents: int = 0,
    transport_cents: int = 0,
    device: str | None = None,
    cache: Cache | None = None,
) -> str:
    """A transfer leaves its origin, all of it or these units: it is expected at the other end. Sent, it stays sent.

    Raises NotFound, BadInput, and Conflict where units are promised to somebody: nothing leaves then.
    """
    async with db.transaction() as tx:
        found = await _take(tx, transfer_id, actor)
        if not sees_location(actor, found.from_id):
            raise Conflict(f"{found.from_code} sends this transfer, not {found.to_code}.")
        if found.state in ("sent", "received"):
            return found.state
        if found.state != "asked":
            raise Conflict(f"Transfer {transfer_id} is {found.state}.")
        asked = {n.sku_id: n for n in await transfer_lines(tx, id=transfer_id)}
        units = {n.sku_id: n.asked for n in asked.values()}
        if lines is not None:
            units = {}
            for sku, n in zip(await skus_of(tx, [n.code for n in lines], rather=asked), lines, strict=True):
                units[sku.sku_id] = units.get(sku.sku_id, 0) + n.quantity
            over = [s for s, q in units.items() if s not in asked or not 0 < q <= asked[s].asked]
            if over or not units:
                raise BadInput("lines: name skus of this transfer, each with at most what was asked for")
        await _move_out(tx, found, asked, units, actor=actor, now=now)
        due_on = found.due_on or (now + timedelta(days=TRANSIT_DAYS)).date()
        skus, quantities = list(units), list(units.values())
        await transfer_sent(
            tx, id=transfer_id, skus=skus, quantities=quantities, at=now, carrier=carrier, tracking=tracking, due_on=due_on,
            labor_cents=labor_cents, transport_cents=transport_cents,
        )  # fmt: skip
        await in_transit(
            tx, reference=str(transfer_id), location_id=found.to_id, skus=skus, quantities=quantities, due_on=due_on
        )
        detail = {"device": device, "tracking": tracking, "units": sum(quantities)}
        await record.keep(tx, who=actor.who, steps=[record.Step("transfer", str(transfer_id), "sent", detail=detail)])
    if cache is not None:
        await cache.wake("project")
    return "sent"


async def _move_out(
    tx: Connection,
    found: Transfer,
    asked: dict[int, TransferLine],
    units: dict[int, int],
    *,
    actor: Actor,
    now: datetime,
) -> None:
    keys = [(sku_id, found.from_id) for sku_id in units]
    book = await Book.open(tx, skus=units, keys=keys)
    short = []
    for sku_id, quantity in sorted(units.items()):
        held = asked[sku_id].hold_code
        if held is not None:
            key = sku_id, found.from_id
            holds = await ledger.holds_to_lift(
                tx, ledger.HOUSE, key=key, code=held, reference=f"send_on:{found.transfer_id}:{sku_id}"
            )
            free = sum(h.quantity for h in holds)
            lifted: dict[int, int] = {}
            left = quantity
            for h in holds:
                lifted[h.hold_id] = min(left, h.quantity)
                left -= lifted[h.hold_id]
            await ledger.lift(tx, {i: q for i, q in lifted.items() if q}, keys=[key], who=actor.who, at=now)
        elif book.stock[sku_id, found.from_id].is_on:
            free = book.atp_at(sku_id, found.from_id)
        else:
            row = book.stock[sku_id, found.from_id]
            free = row.on_hand - row.held - row.allocated
        if free < quantity:
            reason = f"{max(0, free)} of {quantity} are free at {found.from_code}; the rest is promised or held"
            short.append({"sku": asked[sku_id].sku, "reason": reason})
    if short:
        raise Conflict("What is promised to others cannot be sent away; send less.", items=short)
    moves = [
        ledger.Move(
            sku_id=sku_id, location_id=found.from_id, source_id=ledger.HOUSE, kind="transfer",
            message_id=f"transfer:{found.transfer_id}:{sku_id}", quantity=-quantity, effect=-quantity, occurred_at=now,
            reference=str(found.transfer_id), reason=f"to {found.to_code}", is_ours=True,
        )
        for sku_id, quantity in sorted(units.items())
    ]  # fmt: skip
    await ledger.move(tx, moves, feed_id=None, who=actor.who)
    await ledger.write(tx, book.rows, resum=units)


async def cancel(db: Database, *, transfer_id: UUID, actor: Actor, why: str) -> str:
    """A transfer that has not left does not leave; raises NotFound, Conflict."""
    async with db.transaction() as tx:
        found = await _take(tx, transfer_id, actor)
        if found.state == "cancelled":
            return "cancelled"
        if found.state != "asked":
            raise Conflict(f"Transfer {transfer_id} is {found.state}; it has left.")
        if any(n.hold_code for n in await transfer_lines(tx, id=transfer_id)):
            raise Conflict("What came back and is sent on waits under a hold; release that instead.")
        await cancel_transfer(tx, id=transfer_id)
        await record.keep(tx, who=actor.who, steps=[record.Step("transfer", str(transfer_id), "cancelled", why)])
    return "cancelled"


async def listed(
    db: Database, *, locations: list[int] | None, state: str | None, before: UUID | None, limit: int,
    transfer_id: UUID | None = None,
) -> list[View]:  # fmt: skip
    """Transfers from or to these locations, newest first."""
    async with db.connection() as tx:
        return await transfers_of(tx, locations=locations, id=transfer_id, state=state, before=before, limit=limit)


async def show(db: Database, *, locations: list[int] | None, transfer_id: UUID) -> View:
    """One transfer that the caller sees; raises NotFound."""
    found = await listed(db, locations=locations, state=None, before=None, limit=1, transfer_id=transfer_id)
    if not found:
        raise NotFound(f"There is no transfer {transfer_id}.")
    return found[0]
