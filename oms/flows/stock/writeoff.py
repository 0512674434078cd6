"""Units are written off: up to a limit per person, location and day by one person, above it by two."""

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any
from uuid import UUID, uuid4

import msgspec

from oms import ledger, record
from oms.access import Actor, sees_location
from oms.cache import Cache
from oms.db import Connection, Database, Sql
from oms.domain.calendar import local_day
from oms.domain.counting import needs_two
from oms.errors import BadInput, Conflict, NotAllowed, NotFound
from oms.flows.stock import count
from oms.flows.stock.codes import place, skus_of

sql = Sql("stock")

HOLD = "write_off"
"""What waits for a second person is not sold meanwhile."""
SETTLED_AT_ONCE = 200


class Gone(msgspec.Struct, frozen=True):
    """Units of a scanned code, and why they are gone."""

    code: str
    quantity: int
    reason: str


class Line(msgspec.Struct, frozen=True):
    """Units of a sku that are written off, and what they are worth."""

    sku_id: int
    sku: str
    quantity: int
    reason: str
    cents: int


class Taken(msgspec.Struct, frozen=True):
    """A write-off whose row is taken."""

    write_off_id: UUID
    location_id: int
    location: str
    day: date
    kind: str
    state: str
    cents: int
    lines: list[dict[str, Any]]
    reference: str | None
    requested_by: str
    requested_at: datetime


class WriteOff(msgspec.Struct, frozen=True):
    """A write-off as it is kept."""

    id: UUID
    location: str
    day: date
    kind: str
    state: str
    cents: int
    lines: list[dict[str, Any]]
    reference: str | None
    requested_by: str
    requested_at: datetime
    decided_by: str | None
    decided_at: datetime | None


take_write_off = sql.maybe("take_write_off", Taken)
decided = sql.run("decided")
asked_write_offs = sql.rows("asked_write_offs", UUID)
write_offs_of = sql.rows("write_offs_of", WriteOff)


async def ask(
    db: Database,
    *,
    location_id: int,
    lines: Sequence[Gone],
    actor: Actor,
    now: datetime,
    device: str | None = None,
    cache: Cache | None = None,
) -> UUID:
    """Writes units off, or has them wait for a second person where the day's limit is passed; gives its id.

    Raises BadInput, and NotAllowed where a person is needed and the key names none.
    """
    if not lines or any(n.quantity < 1 for n in lines):
        raise BadInput("lines: name what is written off, each with 1 or more units and a reason")
    write_off_id = uuid4()
    async with db.transaction() as tx:
        limits = await count.take_limits(tx, location_id=location_id)
        there = await place(tx, location_id)
        units: dict[int, Line] = {}
        for sku, n in zip(await skus_of(tx, [n.code for n in lines]), lines, strict=True):
            before = units.get(sku.sku_id)
            quantity = n.quantity + (before.quantity if before else 0)
            reason = n.reason if before is None or before.reason == n.reason else f"{before.reason}; {n.reason}"
            units[sku.sku_id] = Line(sku.sku_id, sku.code, quantity, reason, quantity * sku.value_cents)
        locked = await ledger.lock(tx, units)
        stock = await ledger.stock(tx, [(sku_id, location_id) for sku_id in units])
        over = [
            {"sku": n.sku, "reason": f"{max(0, stock[s, location_id].on_hand)} are on hand"}
            for s, n in units.items()
            if n.quantity > stock[s, location_id].on_hand
        ]
        if over:
            raise BadInput("More than there is cannot be written off; count the sku instead.", items=over)
        day, cents = local_day(now, there.time_zone), sum(n.cents for n in units.values())
        lost = await count.lost_today(tx, location_id=location_id, day=day, who=actor.who)
        waits = needs_two(lost_today_cents=lost, cents=cents, limit_cents=limits.write_off_cents_max)
        if waits and actor.person is None:
            raise NotAllowed("Above the day's limit two people must agree; use a key that names a person.")
        await count.keep_write_off(
            tx, id=write_off_id, location_id=location_id, day=day, kind="write_off", cents=cents, who=actor.who, at=now,
            state="waiting" if waits else "applied", lines=msgspec.to_builtins(list(units.values())), reference=None,
        )  # fmt: skip
        moves = [_hold(write_off_id, n, location_id, now) if waits else _gone(write_off_id, n, location_id, now)
                 for n in units.values()]  # fmt: skip
        await ledger.move(tx, moves, feed_id=None, who=actor.who)
        await ledger.write(tx, locked, resum=units)
        if waits:
            await count.wait_for_another(
                tx,
                write_off_id,
                location=there.code,
                cents=cents,
                who=actor.who,
                what=", ".join(n.sku for n in units.values()),
            )
        await _keep(tx, write_off_id, "waiting" if waits else "applied", actor.who, device=device)
    if cache is not None:
        await cache.wake("project")
    return write_off_id


def _hold(write_off_id: UUID, n: Line, location_id: int, now: datetime) -> ledger.Move:
    return ledger.Move(
        sku_id=n.sku_id, location_id=location_id, source_id=ledger.HOUSE, message_id=f"write_off:{write_off_id}:{n.sku_id}:hold",
        kind="hold", quantity=0, effect=0, occurred_at=now, reason=n.reason, hold_code=HOLD, held=n.quantity,
    )  # fmt: skip


def _gone(write_off_id: UUID, n: Line, location_id: int, now: datetime) -> ledger.Move:
    return ledger.Move(
        sku_id=n.sku_id, location_id=location_id, source_id=ledger.HOUSE, message_id=f"write_off:{write_off_id}:{n.sku_id}",
        kind="adjustment", quantity=-n.quantity, effect=-n.quantity, occurred_at=now, reason=n.reason, is_ours=True,
        reference=str(write_off_id),
    )  # fmt: skip


async def decide(
    db: Database, *, write_off_id: UUID, agrees: bool, actor: Actor, now: datetime, cache: Cache | None = None
) -> str:
    """Another person agrees to a write-off, or refuses it; gives its state. Raises NotFound, Conflict, NotAllowed."""
    if actor.person is None:
        raise NotAllowed("This key names no person; what needs a person's yes needs a key made with --person.")
    async with db.transaction() as tx:
        found = await take_write_off(tx, id=write_off_id)
        if found is None or not sees_location(actor, found.location_id):
            raise NotFound(f"There is no write-off {write_off_id}.")
        state = "applied" if agrees else "refused"
        if found.state == state:
            return state
        if found.state != "waiting":
            raise Conflict(f"Write-off {write_off_id} is {found.state}.")
        if agrees and found.requested_by == actor.who:
            raise Conflict(f"{actor.who} asked for it; another person must agree.")
        await _settle(tx, found, agrees=agrees, who=actor.who, now=now)
        await decided(tx, id=write_off_id, state=state, who=actor.who, at=now)
        await record.settle_exceptions(
            tx, who=actor.who, resolution=state, of=[("write_off_waiting", str(write_off_id))]
        )
        await _keep(tx, write_off_id, state, actor.who)
    if cache is not None:
        for flow in ("broker", "project"):
            await cache.wake(flow)
    return state


async def _settle(tx: Connection, found: Taken, *, agrees: bool, who: str, now: datetime) -> None:
    """Units that waited are gone, or are there again; a count that waited stands, or does not."""
    lines = msgspec.convert(found.lines, list[Line])
    if found.kind == "count":
        await count.settle(tx, UUID(found.reference), lines, found.location_id, agrees=agrees, who=who, now=now)
        return
    locked = await ledger.lock(tx, {n.sku_id for n in lines})
    await ledger.stock(tx, [(n.sku_id, found.location_id) for n in lines])
    keys = [(n.sku_id, found.location_id) for n in lines]
    for n, key in zip(lines, keys, strict=True):
        named = f"write_off:{found.write_off_id}:{n.sku_id}:hold"
        holds = await ledger.holds_to_lift(tx, ledger.HOUSE, key=key, code=HOLD, reference=named)
        left = n.quantity
        for hold in holds:
            units = min(left, hold.quantity)
            left -= units
            if units:
                await ledger.lift(tx, {hold.hold_id: units}, keys=[key], who=who, at=now)
    if agrees:
        moves = [_gone(found.write_off_id, n, found.location_id, now) for n in lines]
        await ledger.move(tx, moves, feed_id=None, who=who)
    await ledger.write(tx, locked, resum=[n.sku_id for n in lines])


async def settle_asked(db: Database, *, now: datetime) -> int:
    """Write-offs that returns asked for are applied, or wait for a second person; gives how many."""
    async with db.connection() as tx:
        ids = await asked_write_offs(tx, limit=SETTLED_AT_ONCE)
    for write_off_id in ids:
        async with db.transaction() as tx:
            found = await take_write_off(tx, id=write_off_id)
            if found is None or found.state != "asked":
                continue
            limits = await count.take_limits(tx, location_id=found.location_id)
            lost = await count.lost_today(tx, location_id=found.location_id, day=found.day, who=found.requested_by)
            if needs_two(lost_today_cents=lost, cents=found.cents, limit_cents=limits.write_off_cents_max):
                await decided(tx, id=write_off_id, state="waiting", who=None, at=None)
                skus = ", ".join(n["sku"] for n in found.lines)
                await count.wait_for_another(
                    tx, write_off_id, location=found.location, cents=found.cents, who=found.requested_by, what=skus
                )
            else:
                await _settle(tx, found, agrees=True, who=found.requested_by, now=now)
                await decided(tx, id=write_off_id, state="applied", who=None, at=now)
                await _keep(tx, write_off_id, "applied", found.requested_by)
    return len(ids)


async def _keep(tx: Connection, write_off_id: UUID, state: str, who: str, *, device: str | None = None) -> None:
    detail = {"device": device} if device else None
    await record.keep(tx, who=who, steps=[record.Step("write-off", str(write_off_id), state, detail=detail)])


async def listed(
    db: Database, *, locations: list[int] | None, state: str | None, before: UUID | None, limit: int,
    write_off_id: UUID | None = None,
) -> list[WriteOff]:  # fmt: skip
    """Write-offs at these locations, newest first."""
    async with db.connection() as tx:
        return await write_offs_of(
            tx, locations=locations, state=state, id=write_off_id, before=before, limit=limit
        )  # fmt: skip
