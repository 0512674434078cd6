"""Orders are held and released: what is held is not brokered."""

from collections.abc import Collection
from uuid import UUID

from oms.db import Database, Sql
from oms.domain.order import HOLDS
from oms.errors import BadInput, Conflict
from oms.flows.order.rows import EVERYTHING, Sight, choose, take
from oms.record import Step, keep

sql = Sql("order")

hold_lines = sql.run("hold_lines")


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
        taken = await take(tx, order_id, sight)
        chosen = choose(taken.lines, lines)
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
