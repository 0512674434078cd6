"""Orders are held, for several reasons at once, and go on when the last hold is released; what is held is not brokered."""

from collections.abc import Collection, Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from oms.db import Connection, Database, Sql
from oms.domain.order import HOLDS
from oms.errors import BadInput, Conflict
from oms.flows.order.moving import Change, decide, open_book, write
from oms.flows.order.rows import EVERYTHING, Sight, Taken, TakenLine, choose, take
from oms.flows.order.troubles import oversold
from oms.record import Step, keep, raise_exceptions

sql = Sql("order")


class Hold(msgspec.Struct, frozen=True):
    """A hold that is not released: of which line, for what, by whom, and whether the line keeps its units meanwhile."""

    line_id: int
    line: str
    kind: str
    who: str
    why: str | None
    keeps_stock: bool
    at: datetime


holds_of = sql.rows("holds_of", Hold)
place_holds = sql.run("place_holds")
end_holds = sql.run("end_holds")
show_holds = sql.run("show_holds")
repeat_holds = sql.run("repeat_holds")


async def hold(
    db: Database,
    *,
    order_id: UUID,
    lines: Collection[str] | None,
    kind: str,
    who: str,
    why: str | None = None,
    keeps_stock: bool = True,
    sight: Sight = EVERYTHING,
) -> int:
    """Holds an order's lines, or these, as far as they are not allocated; gives how many were not held so before.

    With `keeps_stock` their units stay promised to them; else these go free, and are taken again at the release. Raises
    BadInput, NotFound, Conflict.
    """
    if kind not in HOLDS:
        raise BadInput(f"reason: {kind!r} is none of {', '.join(HOLDS)}")
    async with db.transaction() as tx:
        taken = await take(tx, order_id, sight)
        waiting = [line for line in choose(taken.lines, lines) if line.open + line.parked]
        if not waiting:
            raise Conflict("nothing is open to be held: cancel it, or let its location reject it")
        before = {(h.line_id, h.kind): h.keeps_stock for h in await holds_of(tx, id=order_id)}
        held = [n for n in waiting if before.get((n.line_id, kind)) is not keeps_stock]
        if not held:
            return 0
        ids = [n.line_id for n in held]
        await place_holds(tx, id=order_id, lines=ids, kind=kind, who=who, why=why, keeps_stock=keeps_stock)
        await _follow(tx, taken, held)
        detail = {"lines": sorted({n.line for n in held}), "kind": kind, "keeps_stock": keeps_stock}
        await keep(tx, who=who, steps=[Step("order", str(order_id), "held", why or kind, detail)])
    return len(held)


async def release(
    db: Database,
    *,
    order_id: UUID,
    lines: Collection[str] | None,
    who: str,
    kind: str | None = None,
    why: str | None = None,
    sight: Sight = EVERYTHING,
) -> int:
    """Ends the holds of an order's lines, or of these, of all kinds or this one; gives how many lines had such.

    A line goes on when its last hold has ended. The caller wakes "broker". Raises BadInput, NotFound.
    """
    if kind is not None and kind not in HOLDS:
        raise BadInput(f"kind: {kind!r} is none of {', '.join(HOLDS)}")
    async with db.transaction() as tx:
        taken = await take(tx, order_id, sight)
        had = {h.line_id for h in await holds_of(tx, id=order_id) if kind in (None, h.kind)}
        freed = [n for n in choose(taken.lines, lines) if n.line_id in had]
        if not freed:
            return 0
        await end_holds(tx, lines=[n.line_id for n in freed], kind=kind, who=who)
        await _follow(tx, taken, freed)
        detail = {"lines": sorted({n.line for n in freed})} | ({"kind": kind} if kind else {})
        await keep(tx, who=who, steps=[Step("order", str(order_id), "released", why, detail)])
    return len(freed)


async def _follow(tx: Connection, taken: Taken, touched: Sequence[TakenLine]) -> None:
    """Lines whose holds changed give their units back, or take them again: as an order that comes in, beyond stock too."""
    order_id = taken.order.order_id
    without = {h.line_id for h in await holds_of(tx, id=order_id) if not h.keeps_stock}
    changes = []
    for line in touched:
        if line.sku_id is not None and line.line_id in without and line.open:
            changes.append(Change(line, open=-line.open, parked=line.open))
        elif line.sku_id is not None and line.line_id not in without and line.parked:
            changes.append(Change(line, open=line.parked, parked=-line.parked))
    await show_holds(tx, lines=[n.line_id for n in touched])
    if changes:
        book = await open_book(tx, changes)
        short = decide(book, taken, changes)
        await write(tx, book, taken, changes, short=short)
        lines = [
            (c.line.name, c.line.asked, c.demand, short[c.line.line_id]) for c in changes if c.line.line_id in short
        ]
        await raise_exceptions(tx, oversold(lines, since="it was released", **taken.order.named()))


async def copy_holds(tx: Connection, *, old: Sequence[int], new: Sequence[int]) -> None:
    """Lines that come of others are held as those are."""
    await repeat_holds(tx, old=list(old), new=list(new))
    await show_holds(tx, lines=list(new))
