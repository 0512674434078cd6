"""What comes back is here, at any location: on hand, and held until somebody looked at it."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from oms import ledger, owed
from oms.access import Actor
from oms.cache import Cache
from oms.db import Database, Sql
from oms.errors import BadInput, Conflict
from oms.flows.returns.rows import HOLD, keep, take

sql = Sql("returns")


class Came(msgspec.Struct, frozen=True):
    """Units of a return's line that are here."""

    number: int
    quantity: int


returned_units = sql.run("returned_units")
received_lines = sql.run("received_lines")


async def receive(
    db: Database,
    *,
    return_id: UUID,
    location_id: int,
    lines: Sequence[Came] | None,
    actor: Actor,
    now: datetime,
    device: str | None = None,
    cache: Cache | None = None,
) -> str:
    """Units of a return are here, at any location, all or these: on hand, and held until they are inspected.

    Raises NotFound, BadInput where more comes than is out, Conflict.
    """
    async with db.transaction() as tx:
        found, standing = await take(tx, return_id)
        if found.state == "done":
            raise Conflict(f"Return {return_id} is done; what comes now is a return of its own.")
        if found.state == "received" and found.location_id != location_id:
            raise Conflict(f"Return {return_id} is at {found.location}; what comes elsewhere is a return of its own.")
        if lines is None:
            lines = [Came(n.number, n.expected - n.received) for n in standing.values() if n.expected > n.received]
        units: dict[int, int] = {}
        for n in lines:
            units[n.number] = units.get(n.number, 0) + n.quantity
        out: dict[int, int] = {}
        for k, quantity in units.items():
            line_id = standing[k].line_id if k in standing else None
            if line_id is not None:
                out[line_id] = out.get(line_id, 0) + quantity
        faults = [
            {"number": k, "reason": "is no line of this return, or more units than are with the customer"}
            for k, quantity in units.items()
            if k not in standing or quantity < 1
            or (standing[k].out is not None and out[standing[k].line_id or 0] > (standing[k].out or 0))
        ]  # fmt: skip
        if faults or not units:
            raise BadInput("Name lines of this return, each with units that can have come.", items=faults)
        locked = await ledger.lock(tx, {standing[k].sku_id for k in units})
        await ledger.stock(tx, [(standing[k].sku_id, location_id) for k in units])
        moves = [
            ledger.Move(
                sku_id=standing[k].sku_id, location_id=location_id, source_id=ledger.HOUSE, kind="return",
                message_id=f"return:{return_id}:{k}:{standing[k].received}", quantity=quantity, effect=quantity,
                occurred_at=now, reason=standing[k].reason, reference=str(return_id), hold_code=HOLD, held=quantity,
                is_ours=True,
            )
            for k, quantity in sorted(units.items())
        ]  # fmt: skip
        await ledger.move(tx, moves, feed_id=None, who=actor.who)
        await ledger.write(tx, locked, resum={m.sku_id for m in moves})
        await received_lines(
            tx, id=return_id, location_id=location_id, at=now, numbers=list(units), quantities=list(units.values())
        )
        came = [
            owed.Returned(k, line_id, quantity, standing[k].received)
            for k, quantity in sorted(units.items()) if (line_id := standing[k].line_id) is not None
        ]  # fmt: skip
        await owed.returned(tx, return_id=return_id, location_id=location_id, came=came, who=actor.who, at=now)
        await returned_units(tx, lines=list(out), quantities=list(out.values()))
        await keep(tx, return_id, found.order_id, "returned", actor, device, {str(k): q for k, q in units.items()})
    if cache is not None:
        await cache.wake("project")
    return "received"
