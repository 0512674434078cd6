"""A return whose row is taken, after its order; and what history keeps of each step."""

from typing import Any
from uuid import UUID

import msgspec

from oms import record
from oms.access import Actor
from oms.db import Connection, Sql
from oms.errors import NotFound

sql = Sql("returns")

HOLD = "to_inspect"
"""What came back is not sold before somebody looked at it."""


class Taken(msgspec.Struct, frozen=True):
    """A return whose row is taken."""

    return_id: UUID
    order_id: UUID | None
    channel_id: int | None
    location_id: int
    location: str
    state: str
    is_blind: bool


class Line(msgspec.Struct, frozen=True):
    """A line of a return; `out` is how many units of its order's line are with the customer."""

    number: int
    line_id: int | None
    sku_id: int
    sku: str
    reason: str
    price_cents: int | None
    expected: int
    received: int
    inspected: int
    refunded: int
    value_cents: int | None
    out: int | None


order_of_return = sql.rows("order_of_return", UUID)
take_return = sql.maybe("take_return", Taken)
return_lines = sql.rows("return_lines", Line)


async def take(tx: Connection, return_id: UUID) -> tuple[Taken, dict[int, Line]]:
    """The return and its lines by number; raises NotFound."""
    await order_of_return(tx, id=return_id)
    found = await take_return(tx, id=return_id)
    if found is None:
        raise NotFound(f"There is no return {return_id}.")
    return found, {n.number: n for n in await return_lines(tx, id=return_id)}


async def keep(
    tx: Connection, return_id: UUID, order_id: UUID | None, step: str, actor: Actor, device: str | None,
    detail: dict[str, Any],
) -> None:  # fmt: skip
    """Keeps a step with the return and its order."""
    told = {"return": str(return_id), **detail, **({"device": device} if device else {})}
    steps = [record.Step("return", str(return_id), step, detail=told)]
    if order_id is not None:
        steps.append(record.Step("order", str(order_id), step, detail=told))
    await record.keep(tx, who=actor.who, steps=steps)
