"""An order as it stands: its lines, who fulfills them, and every step that led there."""

from collections.abc import Sequence
from datetime import date, datetime, time
from typing import Any
from uuid import UUID

import msgspec

from oms.db import Database, Sql
from oms.domain.order import state_of
from oms.errors import NotFound
from oms.flows.order.holds import Hold
from oms.flows.order.rows import EVERYTHING, Sight

sql = Sql("order")

STEPS_MAX = 1_000


class LineView(msgspec.Struct, frozen=True):
    """Where the units of a line stand; a kit's parts are lines with `part` 1, 2, …. `asked` is the shop's code.

    `waits`: present stock does not serve what is open of it; `promised_on` is the day from which it can be served.
    `cancel_on`: its channel was told that it is cancelled then, if nothing leaves.
    """

    line: str
    part: int
    sku: str
    asked: str
    quantity: int
    price: int | None
    open: int
    parked: int
    allocated: int
    shipped: int
    cancelled: int
    hold: str | None
    promised_on: date | None
    waits: bool
    cancel_on: date | None


class GivenView(msgspec.Struct, frozen=True):
    """What a fulfillment has of a line, and what it rejected."""

    line: str
    part: int
    sku: str
    quantity: int
    rejected: int


class FulfillmentView(msgspec.Struct, frozen=True):
    """One location's part of an order; of its local `day`, in the wave that begins then, where it works in waves."""

    id: UUID
    location: str
    state: str
    made_at: datetime
    changed_at: datetime
    lines: list[GivenView]
    day: date
    wave: time | None


class HoldView(msgspec.Struct, frozen=True):
    """Why lines are held, since when, and whether they keep their units meanwhile."""

    kind: str
    lines: list[str]
    who: str
    why: str | None
    keeps_stock: bool
    at: datetime


class OrderView(msgspec.Struct, frozen=True, kw_only=True):
    """An order as callers see it."""

    id: UUID
    channel: str
    number: str
    state: str
    placed_at: datetime
    captured_at: datetime
    ship_to: dict[str, Any]
    method: str
    priority: int
    split: str
    split_max: int | None
    promise_days: int | None
    pickup_location: str | None
    lines: list[LineView]
    fulfillments: list[FulfillmentView]
    holds: list[HoldView]


class StepView(msgspec.Struct, frozen=True):
    """One step: of the order, or of a fulfillment of it."""

    history_id: int
    at: datetime
    who: str
    kind: str
    id: str
    step: str
    why: str | None
    detail: Any


class _Head(msgspec.Struct, frozen=True):
    order_id: UUID
    channel: str
    number: str
    placed_at: datetime
    captured_at: datetime
    ship_to: dict[str, Any]
    method: str
    priority: int
    split: str
    split_max: int | None
    promise_days: int | None
    pickup_location: str | None
    lines: list[dict[str, Any]] | None
    given: list[dict[str, Any]] | None
    held: list[dict[str, Any]] | None


class _GivenRow(msgspec.Struct, frozen=True):
    fulfillment_id: UUID
    location: str
    state: str
    made_at: datetime
    changed_at: datetime
    line: str
    part: int
    sku: str
    quantity: int
    rejected: int
    day: date
    wave: time | None


order_shown = sql.maybe("order_shown", _Head)
is_shown = sql.maybe("is_shown", bool)
steps_of = sql.rows("order_history", StepView)


async def read_order(db: Database, *, order_id: UUID, sight: Sight = EVERYTHING) -> OrderView:
    """The order with its lines and fulfillments; NotFound where the caller sees none of this id."""
    async with db.reading() as connection:
        head = await order_shown(connection, id=order_id, **sight.arguments())
    if head is None:
        raise NotFound("no order has this id")
    fields = msgspec.structs.asdict(head)
    lines = msgspec.convert(fields.pop("lines") or [], list[LineView])
    rows = msgspec.convert(fields.pop("given") or [], list[_GivenRow])
    holds = msgspec.convert(fields.pop("held") or [], list[Hold])
    given: dict[UUID, FulfillmentView] = {}
    for row in rows:
        view = given.setdefault(
            row.fulfillment_id,
            FulfillmentView(
                row.fulfillment_id, row.location, row.state, row.made_at, row.changed_at, [], row.day, row.wave
            ),
        )
        view.lines.append(GivenView(row.line, row.part, row.sku, row.quantity, row.rejected))
    return OrderView(
        id=fields.pop("order_id"), state=state_of(lines), lines=lines, fulfillments=list(given.values()),
        holds=_together(holds), **fields,
    )  # fmt: skip


def _together(holds: Sequence[Hold]) -> list[HoldView]:
    """Holds of several lines for one reason are one."""
    found: dict[tuple[str, str, str | None, bool], HoldView] = {}
    for h in holds:
        view = found.setdefault(
            (h.kind, h.who, h.why, h.keeps_stock), HoldView(h.kind, [], h.who, h.why, h.keeps_stock, h.at)
        )
        if h.line not in view.lines:
            view.lines.append(h.line)
    return list(found.values())


async def order_history(
    db: Database, *, order_id: UUID, after: int = 0, limit: int = STEPS_MAX, sight: Sight = EVERYTHING
) -> list[StepView]:
    """Every step of an order and its fulfillments, oldest first, after this history id."""
    async with db.reading() as connection:
        if await is_shown(connection, id=order_id, **sight.arguments()) is None:
            raise NotFound("no order has this id")
        return await steps_of(connection, id=order_id, after=after, limit=limit)
