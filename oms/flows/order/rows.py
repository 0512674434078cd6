"""An order that is taken to be changed: its row, its lines, who works on them; and what of orders a caller sees."""

from collections.abc import Collection, Sequence
from datetime import date
from typing import Any
from uuid import UUID

import msgspec

from oms.db import Connection, Sql
from oms.errors import BadInput, NotFound

sql = Sql("order")

RECALLABLE = ("released", "accepted", "picked", "packed", "ready")
"""The states of work that has not left, from the first to the last."""


class Sight(msgspec.Struct, frozen=True):
    """What of orders a caller sees: those of these channels, and only at this location; None is no limit."""

    channels: tuple[int, ...] | None = None
    location_id: int | None = None

    def arguments(self) -> dict[str, object]:
        """As the statements take it."""
        return {"channels": None if self.channels is None else list(self.channels), "location_id": self.location_id}


EVERYTHING = Sight()


class TakenOrder(msgspec.Struct, frozen=True):
    """An order whose row is taken. `recalls_until`: the last state of work that its channel lets an amendment recall."""

    order_id: UUID
    channel_id: int
    channel: str
    number: str
    pickup_location_id: int | None
    ship_to: dict[str, Any]
    method: str
    recalls_until: str | None

    @property
    def subject(self) -> str:
        """How exceptions name it."""
        return f"{self.channel}/{self.number}"

    def named(self) -> dict[str, Any]:
        """What troubles are told of it."""
        return {"order_id": self.order_id, "channel": self.channel, "number": self.number}


class TakenLine(msgspec.Struct, frozen=True):
    """A line whose row is taken, and where its units stand; `asked` is the shop's code."""

    line_id: int
    line: str
    part: int
    sku_id: int | None
    asked: str
    pool_id: int
    quantity: int
    open: int
    parked: int
    allocated: int
    shipped: int
    cancelled: int
    hold: str | None
    price_cents: int | None
    promised_on: date | None

    @property
    def name(self) -> str:
        """Its name, with the part of a kit."""
        return f"{self.line}/{self.part}" if self.part else self.line

    @property
    def standing(self) -> int:
        """Units that are not cancelled."""
        return self.quantity - self.cancelled


class Work(msgspec.Struct, frozen=True):
    """A fulfillment of the order; `is_told`: a system that runs the location has been told of it."""

    fulfillment_id: UUID
    location_id: int
    location: str
    state: str
    capacity_day: date
    is_told: bool


class Given(msgspec.Struct, frozen=True):
    """Units of a line that a fulfillment has."""

    fulfillment_id: UUID
    line_id: int
    sku_id: int
    quantity: int


class Taken(msgspec.Struct, frozen=True):
    """An order, its lines, and who works on them, all taken."""

    order: TakenOrder
    lines: list[TakenLine]
    work: dict[UUID, Work]
    given: list[Given]

    def at_work(self, line: TakenLine) -> list[tuple[Work, Given]]:
        """Where units of a line are that have not left, least advanced first."""
        found = [
            (self.work[g.fulfillment_id], g)
            for g in self.given
            if g.line_id == line.line_id and self.work[g.fulfillment_id].state in RECALLABLE
        ]
        return sorted(found, key=lambda pair: RECALLABLE.index(pair[0].state))


take_order = sql.maybe("take_order", TakenOrder)
take_fulfillments = sql.rows("take_fulfillments", Work)
take_lines = sql.rows("take_lines", TakenLine)
given_lines = sql.rows("given_lines", Given)


async def take(tx: Connection, order_id: UUID, sight: Sight = EVERYTHING) -> Taken:
    """Takes an order, its fulfillments and its lines, in this order; NotFound where the caller sees none."""
    order = await take_order(tx, id=order_id, **sight.arguments())
    if order is None:
        raise NotFound("no order has this id")
    work = {f.fulfillment_id: f for f in await take_fulfillments(tx, id=order_id)}
    lines = await take_lines(tx, id=order_id)
    return Taken(order, lines, work, await given_lines(tx, ids=list(work)) if work else [])


def choose(standing: Sequence[TakenLine], lines: Collection[str] | None) -> list[TakenLine]:
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
