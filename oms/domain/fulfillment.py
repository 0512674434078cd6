"""The states of a fulfillment, the steps between them, and what a step must know. Pure."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from uuid import UUID

import msgspec

NEXT = {
    "released": {"accept": "accepted"},
    "accepted": {"pick": "picked"},
    "picked": {"pack": "packed", "ship": "shipped"},
    "packed": {"ship": "shipped"},
    "ready": {"ship": "handed_over"},
}
"""Steps that a state allows. Packing may be left out; a pick-up that is packed is ready."""
UNPICKED = frozenset({"released", "accepted"})
_DONE = {
    "accept": {"accepted", "picked", "packed", "ready", "shipped", "handed_over"},
    "pick": {"picked", "packed", "ready", "shipped", "handed_over"},
    "pack": {"packed", "ready", "shipped", "handed_over"},
    "ship": {"shipped", "handed_over"},
}


def after_step(state: str, step: str, *, is_pickup: bool) -> str | None:
    """The state after a step; the same where it was done before; None where it is not possible."""
    if state in _DONE[step]:
        return state
    following = NEXT.get(state, {}).get(step)
    if is_pickup and state == "picked" and step == "ship":
        return None
    return "ready" if is_pickup and following == "packed" else following


class Fulfillment(msgspec.Struct, frozen=True):
    """What a step must know of a fulfillment."""

    fulfillment_id: UUID
    order_id: UUID
    location_id: int
    location: str
    state: str
    capacity_day: date
    channel_id: int
    is_pickup: bool


class FulfillmentLine(msgspec.Struct, frozen=True):
    """Units of an order line that a fulfillment still has."""

    fulfillment_id: UUID
    line_id: int
    line: str
    sku_id: int
    sku: str
    pool_id: int
    quantity: int
    per: int
    price_cents: int
    reference: str
    acked_sequence: int | None
    acked_at: datetime | None
    counted_in: int | None


class Rejected(msgspec.Struct, frozen=True):
    """Units of a line that a location cannot fulfill, and why."""

    line: str
    quantity: int
    reason: str


def with_parts(held: Sequence[FulfillmentLine], wanted: Mapping[str, int]) -> dict[int, int]:
    """Line id → units, where so many of a line (kits, where it is one) are meant; its parts go together."""
    return {n.line_id: min(n.quantity, wanted[n.line] * n.per) for n in held if n.line in wanted}
