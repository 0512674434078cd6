"""Orders are cancelled after capture, as far as they have not shipped; what a location works on is recalled from it."""

from collections.abc import Collection, Sequence
from datetime import date
from uuid import UUID

import msgspec

from oms.db import Connection, Database, Sql
from oms.errors import Conflict
from oms.flows.order.moving import Change, decide, fall, open_book, write
from oms.flows.order.rows import EVERYTHING, RECALLABLE, Sight, Taken, choose, take, take_lines
from oms.record import Step, keep, settle_exceptions

sql = Sql("order")

cancel_on = sql.rows("cancel_on", str)

ENDED = ("oversold", "unfilled", "unknown_location")
"""Exceptions of an order that are settled when nothing of it is left to do."""


class RecalledFrom(msgspec.Struct, frozen=True):
    """Units that were taken back from a location that had them in this state.

    `is_certain`: its people work by us, and lost them at once; else the system that runs it is told, and answers.
    """

    location: str
    state: str
    quantity: int
    is_certain: bool


class CancelledLine(msgspec.Struct, frozen=True):
    """What a cancellation came to of one line; `too_late` units had shipped.

    `in_time`: all of it is cancelled for certain; null while the system of a location has not answered.
    """

    line: str
    part: int
    cancelled: int
    too_late: int
    in_time: bool | None
    recalled: list[RecalledFrom]


class Cancelled(msgspec.Struct, frozen=True):
    """What a cancellation came to: units in all, and each line that it named."""

    units: int
    lines: list[CancelledLine]


async def cancel(
    db: Database, *, order_id: UUID, lines: Collection[str] | None, why: str | None, who: str, sight: Sight = EVERYTHING
) -> Cancelled:
    """Cancels an order, or these lines of it, as far as it has not shipped; says of each line whether it was in time.

    Open units go free, allocated ones are recalled and their capacity is given back. Conflict where nothing was left
    to cancel because it shipped; cancelling again changes nothing.
    """
    async with db.transaction() as tx:
        taken = await take(tx, order_id, sight)
        chosen = choose(taken.lines, lines)
        every = [fall(taken, line, line.standing, recallable=RECALLABLE)[0] for line in chosen]
        said = [_said(c) for c in every]
        changes = [c for c in every if c.cancelled]
        if not changes:
            if any(line.shipped for line in chosen):
                raise Conflict(
                    "nothing is left to cancel: it has shipped; take it back as a return",
                    items=[
                        {"line": n.line, "reason": f"too late: {n.too_late} have shipped"} for n in said if n.too_late
                    ],
                )
            return Cancelled(0, said)
        book = await open_book(tx, changes)
        decide(book, taken, changes)
        await write(tx, book, taken, changes)
        detail = {"lines": {c.line.name: c.cancelled for c in changes}, "answers": msgspec.to_builtins(said)}
        steps = [Step("order", str(order_id), "cancelled", why, detail)]
        await keep(tx, who=who, steps=[*steps, *recall_steps(taken, changes, why)])
        await settle_ended(tx, taken, who=who)
    return Cancelled(sum(c.cancelled for c in changes), said)


async def announce_cancel(
    db: Database, *, order_id: UUID, lines: Collection[str], why: str, on: date, who: str
) -> None:  # fmt: skip
    """A channel is told, once per line, that these lines are cancelled on a day if nothing leaves for them by then."""
    async with db.transaction() as tx:
        taken = await take(tx, order_id)
        told = await cancel_on(tx, lines=[n.line_id for n in choose(taken.lines, lines) if n.open], on=on)
        if told:
            detail = {"lines": sorted(set(told)), "on": on}
            await keep(tx, who=who, steps=[Step("order", str(order_id), "to be cancelled", why, detail)])


def _said(c: Change) -> CancelledLine:
    recalled = [RecalledFrom(r.work.location, r.work.state, r.quantity, not r.work.is_told) for r in c.recalled]
    too_late = c.line.shipped
    in_time = False if too_late else True if all(r.is_certain for r in recalled) else None
    return CancelledLine(c.line.line, c.line.part, c.cancelled, too_late, in_time, recalled)


def recall_steps(taken: Taken, changes: Sequence[Change], why: str | None) -> list[Step]:
    """What history keeps of work that is taken back."""
    recalled = {r.work.fulfillment_id for c in changes for r in c.recalled}
    detail = {"order": str(taken.order.order_id)}
    return [Step("fulfillment", str(f), "recalled", why, detail) for f in sorted(recalled)]


async def settle_ended(tx: Connection, taken: Taken, *, who: str) -> None:
    """Settles the exceptions of an order of which nothing is left to do."""
    if any(n.open + n.parked + n.allocated for n in await take_lines(tx, id=taken.order.order_id)):
        return
    of = [(kind, taken.order.subject) for kind in ENDED]
    await settle_exceptions(tx, who=who, resolution="the order was cancelled", of=of)
