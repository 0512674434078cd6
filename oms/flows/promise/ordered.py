"""An order that changed is promised again: by when its open lines can be there, what it holds counted as its own."""

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any
from uuid import UUID

import msgspec

from oms import named, numbers
from oms.cache import Projection
from oms.db import Connection, Database, Sql
from oms.errors import BadInput
from oms.flows.promise.dated import Asked, Place, PromisedLine, picked_up, sent
from oms.flows.promise.nearby import place_of
from oms.flows.promise.overdue import promise_again
from oms.numbers import Shelf

sql = Sql("promise")


class OrderedLine(msgspec.Struct, frozen=True):
    """Open units of an order's line: by when they are there (null: nobody can say yet), and why."""

    line: str
    part: int
    sku: str
    quantity: int
    arrives_on: date | None
    why: str


class _Order(msgspec.Struct, frozen=True):
    channel_id: int
    method: str
    ship_to: dict[str, Any]
    pickup_location: str | None


class _Line(msgspec.Struct, frozen=True):
    line: str
    part: int
    sku_id: int
    sku: str
    pool_id: int
    open: int


ordered = sql.one("ordered", _Order)
ordered_lines = sql.rows("ordered_lines", _Line)


async def promise_order(db: Database, *, order_id: UUID, now: datetime) -> list[OrderedLine]:
    """Gives the open lines of an order, and others of their skus, their days anew; says by when its own can be there.

    A day that changed is told to its channel as of any line: order.promised, order.delayed.
    """
    await promise_again(db, today=now.date(), skus_of=order_id)
    async with db.connection() as tx, tx.transaction(isolation="repeatable_read", readonly=True):
        order = await ordered(tx, id=order_id)
        lines = await ordered_lines(tx, id=order_id)
        if not lines:
            return []
        told = await _dates(tx, order, lines, now=now)
    return [
        OrderedLine(n.line, n.part, n.sku, n.open, told[n.sku].arrives_on, told[n.sku].why) for n in lines
    ]  # fmt: skip


async def _dates(tx: Connection, order: _Order, lines: Sequence[_Line], *, now: datetime) -> dict[str, PromisedLine]:
    rule = (await named.rules_of(tx, [order.channel_id]))[order.channel_id]
    # its units are promised already: what the channel keeps back for later carts is not asked again
    rule = msgspec.structs.replace(rule, pool_id=lines[0].pool_id, buffer=0, cap=None, shapes=(), keeps=())
    names = {code: n for (_, code), n in (await named.skus_of(tx, {(order.channel_id, n.sku) for n in lines})).items()}
    units: dict[str, int] = {}
    for n in lines:
        units[n.sku] = units.get(n.sku, 0) + n.open
    shelf = without(await numbers.read(tx, {n.sku_id for n in lines}, today=now.date()), lines)
    asked = Asked(rule, names, shelf, units)
    try:
        if order.pickup_location is not None:
            said = await picked_up(tx, asked, location=order.pickup_location, method=order.method, now=now)
        else:
            to = order.ship_to
            lat, lon = place_of(
                postal_code=to.get("postal_code"), country=to.get("country", "US"), lat=to.get("lat"), lon=to.get("lon")
            )
            said = await sent(tx, asked, method=order.method, to=Place(lat, lon), now=now)
    except BadInput as unknown:
        return {sku: PromisedLine(sku, quantity, None, unknown.detail, []) for sku, quantity in units.items()}
    return {line.sku: line for line in said.lines}


def without(shelf: Shelf, lines: Sequence[_Line]) -> Shelf:
    """A shelf on which these lines hold nothing."""
    rows: dict[str, Projection] = dict(shelf.rows)
    for n in lines:
        row = rows[n.sku]
        pools = shelf.layouts[row.layout_id].pools
        if n.pool_id in pools:
            reserved = list(row.reserved)
            reserved[pools.index(n.pool_id)] -= n.open
            rows[n.sku] = msgspec.structs.replace(row, reserved=reserved)
    return Shelf(rows, shelf.layouts, shelf.codes)
