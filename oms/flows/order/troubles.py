"""What needs a person when orders are captured, said in sentences, with remedies."""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any
from uuid import UUID

import msgspec

from oms.book import Book, Units
from oms.db import Connection, Sql
from oms.domain.order import NewOrder
from oms.domain.shape import Rule
from oms.errors import Refusal
from oms.flows.order.decide import Plan
from oms.named import Place
from oms.record import Trouble

sql = Sql("order")


class StandingOrder(msgspec.Struct, frozen=True):
    """The order that stands under a number."""

    order_id: UUID
    channel_id: int
    number: str
    hash: bytes


class Entered(msgspec.Struct, frozen=True):
    """An order that is captured now, and what it claims."""

    order_id: UUID
    order: NewOrder
    rule: Rule
    place: Place | None
    claimed: list[Units]
    claim_id: UUID | None
    plan: Plan | None = None


class _Receipt(msgspec.Struct, frozen=True):
    sku_id: int
    sku: str
    due_on: date
    quantity: int


incoming_of = sql.rows("incoming_of", _Receipt)


async def troubles_of(tx: Connection, news: Sequence[Entered], book: Book) -> list[Trouble]:
    """Unknown skus and places, pick-ups that were not allocated, and what was sold beyond stock."""
    troubles = []
    for new in news:
        assert new.plan is not None
        order, subject = new.order, f"{new.rule.code}/{new.order.number}"
        for line in new.plan.lines:
            if line.parked:
                troubles.append(unknown_sku(new.rule.code, line.sku, order.number))
        if is_nowhere(new):
            detail = (
                f"order {order.number} of {new.rule.code} is to be picked up at {order.pickup_location!r}, which "
                "nobody knows: its lines are held; load the location or release them to be sent"
            )
            payload: dict[str, Any] = {"order": str(new.order_id), "location": order.pickup_location}
            troubles.append(Trouble("unknown_location", subject, detail, payload))
        if new.plan.unfilled:
            why = "; ".join(f"line {line}: {why}" for line, why in new.plan.unfilled.items())
            detail = f"the pick-up of order {order.number} of {new.rule.code} could not be allocated at once: {why}"
            payload = {"order": str(new.order_id), "lines": new.plan.unfilled}
            troubles.append(Trouble("unfilled", subject, detail, payload))
        short = [line for line in new.plan.lines if line.short]
        if short:
            detail = (
                f"order {order.number} of {new.rule.code} takes more than there is: "
                + ", ".join(f"line {s.line}: {s.short} of {s.quantity} {s.sku} short" for s in short)
                + "; choose a remedy: wait for a receipt, another pool, or cancel"
            )
            payload = {
                "order": str(new.order_id),
                "lines": [{"line": s.line, "sku": s.sku, "quantity": s.quantity, "short": s.short} for s in short],
                "remedies": await _remedies(tx, new, {s.sku_id: s.sku for s in short if s.sku_id}, book),
            }
            troubles.append(Trouble("oversold", subject, detail, payload))
    return troubles


async def _remedies(tx: Connection, new: Entered, skus: Mapping[int, str], book: Book) -> list[dict[str, Any]]:
    receipts = await incoming_of(tx, pool_id=new.rule.pool_id, skus=list(skus), today=new.order.at.date())
    remedies: list[dict[str, Any]] = [
        {"kind": "incoming", "sku": r.sku, "on": r.due_on.isoformat(), "quantity": r.quantity} for r in receipts
    ]
    for sku_id, sku in skus.items():
        for pool_id in book.pools_of(sku_id):
            number = book.atp_pool(sku_id, pool_id)
            if pool_id != new.rule.pool_id and number > 0:
                remedies.append({"kind": "other_pool", "sku": sku, "pool_id": pool_id, "atp": number})
    return [*remedies, {"kind": "cancel"}]


def oversold(
    lines: Sequence[tuple[str, str, int, int]], *, order_id: UUID, channel: str, number: str, since: str
) -> list[Trouble]:
    """Lines of a standing order that take more than there is: name, sku, units that came to be open, units short."""
    if not lines:
        return []
    detail = (
        f"order {number} of {channel} takes more than there is since {since}: "
        + ", ".join(f"line {name}: {short} of {more} {sku} short" for name, sku, more, short in lines)
        + "; choose a remedy: wait for a receipt, another pool, a substitute, or cancel"
    )
    payload = {
        "order": str(order_id), "channel": channel,
        "lines": [{"line": name, "sku": sku, "quantity": more, "short": short} for name, sku, more, short in lines],
    }  # fmt: skip
    return [Trouble("oversold", f"{channel}/{number}", detail, payload)]


def unknown_sku(channel: str, sku: str, number: str) -> Trouble:
    """A line that waits until somebody says what its sku is."""
    detail = (
        f"order {number} of {channel} has a line of sku {sku!r}, which nobody knows: load the sku, or an alias of it "
        f"for a source with the code {channel}; the line is parked until then"
    )
    return Trouble("unknown_sku", f"{channel}/{sku}", detail, {"channel": channel, "sku": sku, "order": number})


def changed(stands: StandingOrder, order: NewOrder, rule: Rule) -> Trouble:
    """The same number with other content."""
    detail = (
        f"order {order.number} of {rule.code} came again with other content; the first one stands: "
        "cancel it or its lines where the new content is right"
    )
    content = {name: value for name, value in msgspec.to_builtins(order).items() if name not in ("at", "who")}
    return Trouble(
        "order_changed", f"{rule.code}/{order.number}", detail, {"order": str(stands.order_id), "content": content}
    )


def is_nowhere(new: Entered) -> bool:
    """Whether an order is to be picked up where nobody knows."""
    return new.order.pickup_location is not None and new.place is None


def refused(order: NewOrder, answer: Exception) -> Trouble:
    """An order of a file that cannot be captured, kept whole."""
    why = answer.detail if isinstance(answer, Refusal) else "it failed on our side, see the log"
    detail = f"order {order.number!r} could not be captured: {why}; correct it at the shop and send it again"
    content = {"content": msgspec.to_builtins(order)}
    return Trouble("order_refused", f"{order.channel_id}/{order.number}", detail, content)
