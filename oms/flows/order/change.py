"""Orders are cancelled after capture, as far as they have not shipped; what a location works on is recalled from it."""

from collections.abc import Collection, Sequence
from uuid import UUID

from oms.db import Connection, Database
from oms.errors import Conflict
from oms.flows.order.moving import Change, decide, fall, open_book, write
from oms.flows.order.rows import EVERYTHING, RECALLABLE, Sight, Taken, choose, take, take_lines
from oms.record import Step, keep, settle_exceptions

ENDED = ("oversold", "unfilled", "unknown_location")
"""Exceptions of an order that are settled when nothing of it is left to do."""


async def cancel(
    db: Database, *, order_id: UUID, lines: Collection[str] | None, why: str | None, who: str, sight: Sight = EVERYTHING
) -> int:
    """Cancels an order, or these lines of it, as far as it has not shipped; gives the units that were cancelled.

    Open units go free, allocated ones are recalled and their capacity is given back. Conflict where nothing was left
    to cancel because it shipped; cancelling again changes nothing.
    """
    async with db.transaction() as tx:
        taken = await take(tx, order_id, sight)
        chosen = choose(taken.lines, lines)
        changes = [fall(taken, line, line.standing, recallable=RECALLABLE)[0] for line in chosen]
        changes = [c for c in changes if c.cancelled]
        if not changes:
            if any(line.shipped for line in chosen):
                raise Conflict("nothing is left to cancel: it has shipped; take it back as a return")
            return 0
        book = await open_book(tx, taken, changes)
        decide(book, taken, changes)
        await write(tx, book, taken, changes)
        units = {c.line.name: c.cancelled for c in changes}
        steps = [Step("order", str(order_id), "cancelled", why, {"lines": units})]
        await keep(tx, who=who, steps=[*steps, *recall_steps(taken, changes, why)])
        await settle_ended(tx, taken, who=who)
    return sum(c.cancelled for c in changes)


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
