"""Orders change after capture: cancelled, held, released. What a location has not shipped is recalled from it."""

from collections.abc import Collection, Sequence
from datetime import date
from uuid import UUID

import msgspec

from oms import ledger, named
from oms.book import Book
from oms.db import Connection, Database, Sql
from oms.domain.order import HOLDS
from oms.errors import BadInput, Conflict, NotFound
from oms.record import Step, keep, settle_exceptions

sql = Sql("order")

RECALLABLE = ("released", "accepted", "picked", "packed", "ready")


class Sight(msgspec.Struct, frozen=True):
    """What of orders a caller sees: those of these channels, and only at this location; None is no limit."""

    channels: tuple[int, ...] | None = None
    location_id: int | None = None

    def arguments(self) -> dict[str, object]:
        """As the statements take it."""
        return {"channels": None if self.channels is None else list(self.channels), "location_id": self.location_id}


EVERYTHING = Sight()


class TakenOrder(msgspec.Struct, frozen=True):
    """An order whose row is taken."""

    order_id: UUID
    channel_id: int
    number: str
    pickup_location_id: int | None


class TakenLine(msgspec.Struct, frozen=True):
    """A line whose row is taken, and where its units stand."""

    line_id: int
    line: str
    part: int
    sku_id: int | None
    pool_id: int
    quantity: int
    open: int
    parked: int
    allocated: int
    shipped: int
    cancelled: int
    hold: str | None
    price_cents: int | None


class _Fulfillment(msgspec.Struct, frozen=True):
    fulfillment_id: UUID
    location_id: int
    state: str
    capacity_day: date


class _Given(msgspec.Struct, frozen=True):
    fulfillment_id: UUID
    line_id: int
    sku_id: int
    quantity: int


take_order = sql.maybe("take_order", TakenOrder)
take_fulfillments = sql.rows("take_fulfillments", _Fulfillment)
take_lines = sql.rows("take_lines", TakenLine)
given_lines = sql.rows("given_lines", _Given)
cancel_lines = sql.run("cancel_lines")
recall_lines = sql.run("recall_lines")
hold_lines = sql.run("hold_lines")


class _Cancelled(msgspec.Struct, frozen=True):
    """What a cancellation takes of one line: what was open or parked, and what is recalled from where."""

    line: TakenLine
    recalled: list[tuple[_Fulfillment, _Given]]

    @property
    def allocated(self) -> int:
        return sum(given.quantity for _, given in self.recalled)

    @property
    def units(self) -> int:
        return self.line.open + self.line.parked + self.allocated


async def cancel(
    db: Database, *, order_id: UUID, lines: Collection[str] | None, why: str | None, who: str, sight: Sight = EVERYTHING
) -> int:
    """Cancels an order, or these lines of it, as far as it has not shipped; gives the units that were cancelled.

    Open units go free, allocated ones are recalled and their capacity is given back. Conflict where nothing was left
    to cancel because it shipped; cancelling again changes nothing.
    """
    async with db.transaction() as tx:
        order = await _take(tx, order_id, sight)
        fulfillments = {f.fulfillment_id: f for f in await take_fulfillments(tx, id=order_id)}
        chosen = _choose(await take_lines(tx, id=order_id), lines)
        given = await given_lines(tx, ids=list(fulfillments)) if fulfillments else []
        cancelled = [
            _Cancelled(line, [
                (fulfillments[g.fulfillment_id], g)
                for g in given
                if g.line_id == line.line_id and fulfillments[g.fulfillment_id].state in RECALLABLE
            ])
            for line in chosen
        ]  # fmt: skip
        cancelled = [c for c in cancelled if c.units]
        if not cancelled:
            if any(line.shipped for line in chosen):
                raise Conflict("nothing is left to cancel: it has shipped; take it back as a return")
            return 0
        await _write_cancelled(tx, order, cancelled, given)
        units = {f"{c.line.line}/{c.line.part}" if c.line.part else c.line.line: c.units for c in cancelled}
        recalled = {f.fulfillment_id for c in cancelled for f, _ in c.recalled}
        steps = [Step("order", str(order_id), "cancelled", why, {"lines": units})]
        steps += [Step("fulfillment", str(f), "recalled", why, {"order": str(order_id)}) for f in sorted(recalled)]
        await keep(tx, who=who, steps=steps)
        if not any(left.open + left.parked + left.allocated for left in await take_lines(tx, id=order_id)):
            rule = (await named.rules_of(tx, [order.channel_id]))[order.channel_id]
            subject = f"{rule.code}/{order.number}"
            kinds = ("oversold", "unfilled", "unknown_location")
            await settle_exceptions(
                tx, who=who, resolution="the order was cancelled", of=[(kind, subject) for kind in kinds]
            )
    return sum(c.units for c in cancelled)


async def _write_cancelled(
    tx: Connection, order: TakenOrder, cancelled: Sequence[_Cancelled], given: Sequence[_Given]
) -> None:
    recalled = [(f, g, c.line) for c in cancelled for f, g in c.recalled]
    skus = {c.line.sku_id for c in cancelled if c.line.sku_id is not None}
    book = await Book.open(tx, skus=skus, keys={(g.sku_id, f.location_id) for f, g, _ in recalled})
    days = {(f.location_id, f.capacity_day) for f, _, _ in recalled}
    await ledger.capacity(tx, days)
    for c in cancelled:
        if c.line.sku_id is not None and c.line.open:
            book.reserve(c.line.sku_id, c.line.pool_id, -c.line.open, channel_id=order.channel_id)
        for f, g in c.recalled:
            book.allocate(g.sku_id, f.location_id, -g.quantity, pool_id=c.line.pool_id, channel_id=order.channel_id)
    taken = {(g.fulfillment_id, g.line_id) for _, g, _ in recalled}
    left = {g.fulfillment_id for g in given if (g.fulfillment_id, g.line_id) not in taken}
    empty = {f.fulfillment_id for f, _, _ in recalled} - left
    await cancel_lines(
        tx, ids=[c.line.line_id for c in cancelled], open=[c.line.open for c in cancelled],
        parked=[c.line.parked for c in cancelled], allocated=[c.allocated for c in cancelled],
    )  # fmt: skip
    await recall_lines(
        tx, fulfillments=[g.fulfillment_id for _, g, _ in recalled], lines=[g.line_id for _, g, _ in recalled],
        empty=sorted(empty),
    )  # fmt: skip
    rules = await named.rules_of(tx, [order.channel_id])
    await book.write(tx, capped=named.capped(rules.values()))
    works = []
    for f, g, line in recalled:
        cents = g.quantity * (line.price_cents or 0)
        works.append(ledger.Work(f.location_id, f.capacity_day, 0, -g.quantity, -cents))
    works += [
        ledger.Work(f.location_id, f.capacity_day, -1, 0, 0)
        for f in {f.fulfillment_id: f for f, _, _ in recalled}.values()
        if f.fulfillment_id in empty
    ]
    await ledger.work(tx, works)


async def hold(
    db: Database, *, order_id: UUID, lines: Collection[str] | None, reason: str, who: str, sight: Sight = EVERYTHING
) -> int:
    """Holds an order's lines, or these, as far as they are not allocated: they keep their units unbrokered."""
    if reason not in HOLDS:
        raise BadInput(f"reason: {reason!r} is none of {', '.join(HOLDS)}")
    return await _set_hold(db, order_id=order_id, lines=lines, reason=reason, who=who, sight=sight)


async def release(
    db: Database, *, order_id: UUID, lines: Collection[str] | None, who: str, sight: Sight = EVERYTHING
) -> int:
    """Ends the hold of an order's lines, or of these; gives how many were held. The caller wakes "broker"."""
    return await _set_hold(db, order_id=order_id, lines=lines, reason=None, who=who, sight=sight)


async def _set_hold(
    db: Database, *, order_id: UUID, lines: Collection[str] | None, reason: str | None, who: str, sight: Sight
) -> int:
    async with db.transaction() as tx:
        await _take(tx, order_id, sight)
        chosen = _choose(await take_lines(tx, id=order_id), lines)
        waiting = [line for line in chosen if line.open + line.parked]
        if reason is not None and not waiting:
            raise Conflict("nothing is open to be held: cancel it, or let its location reject it")
        changed = [line for line in (waiting if reason else chosen) if line.hold != reason]
        if not changed:
            return 0
        await hold_lines(tx, ids=[line.line_id for line in changed], hold=reason)
        step = "held" if reason else "released"
        names = sorted({line.line for line in changed})
        await keep(tx, who=who, steps=[Step("order", str(order_id), step, reason, {"lines": names})])
    return len(changed)


async def _take(tx: Connection, order_id: UUID, sight: Sight) -> TakenOrder:
    order = await take_order(tx, id=order_id, **sight.arguments())
    if order is None:
        raise NotFound("no order has this id")
    return order


def _choose(standing: Sequence[TakenLine], lines: Collection[str] | None) -> list[TakenLine]:
    """The lines that the caller named, all parts of them; all lines where none is named."""
    if lines is None:
        return list(standing)
    unknown = set(lines) - {line.line for line in standing}
    if unknown:
        raise BadInput(
            f"lines: the order has no line {', '.join(map(repr, sorted(unknown)))}",
            items=[{"line": name, "reason": "is not a line of this order"} for name in sorted(unknown)],
        )
    return [line for line in standing if line.line in lines]
