"""A return is announced: of an order's lines, or blind by scanned codes."""

from collections.abc import Collection, Sequence
from datetime import datetime
from uuid import UUID, uuid4

import msgspec

from oms.access import Actor
from oms.db import Connection, Database, Sql
from oms.domain.codes import CodeUnreadable, read_code
from oms.errors import BadInput, NotFound
from oms.flows.returns.rows import keep

sql = Sql("returns")
stock_sql = Sql("stock")


class Sent(msgspec.Struct, frozen=True):
    """Units that a customer sends back: of an order's line, or of a scanned code where the order is not known."""

    quantity: int
    reason: str
    line: str | None = None
    code: str | None = None


class OrderOf(msgspec.Struct, frozen=True):
    """The order that a return is of."""

    order_id: UUID
    channel_id: int


class Returnable(msgspec.Struct, frozen=True):
    """A line of an order, and how many units of it may still come back."""

    line_id: int
    line: str
    sku_id: int
    sku: str
    price_cents: int
    left: int


class Meant(msgspec.Struct, frozen=True):
    """A sku that a code may mean."""

    k: int
    sku_id: int
    sku: str
    is_kit: bool
    value_cents: int | None


take_order_of_return = sql.maybe("take_order_of_return", OrderOf)
returnable = sql.rows("returnable", Returnable)
make_return = sql.run("make_return")
meant = stock_sql.rows("meant", Meant)


async def announce(
    db: Database,
    *,
    location_id: int,
    lines: Sequence[Sent],
    actor: Actor,
    now: datetime,
    order_id: UUID | None = None,
    channel: str | None = None,
    number: str | None = None,
    channels: Collection[int] | None = None,
    device: str | None = None,
) -> UUID:
    """A return is to come to a location: of an order's lines, or blind where nobody knows the order.

    `channels` are those whose orders the caller sees. Raises NotFound for the order, BadInput where a line cannot come
    back in this number.
    """
    is_blind = order_id is None and number is None
    if not lines or any(n.quantity < 1 or (n.code is None) != (not is_blind) for n in lines):
        what = "a code" if is_blind else "a line of the order"
        raise BadInput(f"lines: each names {what}, 1 or more units, and a reason")
    return_id = uuid4()
    async with db.transaction() as tx:
        order = None
        rows: list[tuple[int, int | None, int, str, int | None, int]]
        if is_blind:
            rows = [(k, None, sku_id, n.reason, None, n.quantity)
                    for k, (sku_id, n) in enumerate(zip(await _skus(tx, lines), lines, strict=True), start=1)]  # fmt: skip
        else:
            order = await take_order_of_return(
                tx, id=order_id, channel=channel, number=number, channels=None if channels is None else sorted(channels)
            )
            if order is None:
                raise NotFound("There is no such order.")
            rows = await _of_order(tx, order.order_id, lines)
        await make_return(
            tx, id=return_id, channel_id=order.channel_id if order else None, order_id=order.order_id if order else None,
            location_id=location_id, is_blind=is_blind, who=actor.who, at=now, numbers=[r[0] for r in rows],
            lines=[r[1] for r in rows], skus=[r[2] for r in rows], reasons=[r[3] for r in rows],
            prices=[r[4] for r in rows], expecteds=[r[5] for r in rows],
        )  # fmt: skip
        await keep(tx, return_id, order.order_id if order else None, "return expected", actor, device, {})
    return return_id


async def _of_order(
    tx: Connection, order_id: UUID, lines: Sequence[Sent]
) -> list[tuple[int, int | None, int, str, int | None, int]]:
    there: dict[str, list[Returnable]] = {}
    for part in await returnable(tx, id=order_id):
        there.setdefault(part.line, []).append(part)
    left = {part.line_id: part.left for parts in there.values() for part in parts}
    rows: list[tuple[int, int | None, int, str, int | None, int]] = []
    faults = []
    for index, n in enumerate(lines):
        parts = there.get(n.line or "", [])
        if len(parts) > 1:
            parts = [p for p in parts if left[p.line_id] >= n.quantity] or parts
        if not parts or left[parts[0].line_id] < n.quantity:
            most = left[parts[0].line_id] if parts else 0
            reason = f"{most} units of line {n.line!r} can come back"
            faults.append({"index": index, "field": "quantity", "line": n.line, "reason": reason})
            continue
        left[parts[0].line_id] -= n.quantity
        rows.append((len(rows) + 1, parts[0].line_id, parts[0].sku_id, n.reason, parts[0].price_cents, n.quantity))
    if faults:
        raise BadInput("More than was shipped cannot come back; nothing was applied.", items=faults)
    return rows


async def _skus(tx: Connection, lines: Sequence[Sent]) -> list[int]:
    candidates: list[tuple[int, str]] = []
    for k, n in enumerate(lines):
        try:
            candidates += [(k, code) for code in read_code(n.code or "").candidates]
        except CodeUnreadable as error:
            raise BadInput(f"lines[{k}].code: {error}") from None
    found: dict[int, set[int]] = {}
    for row in await meant(tx, ks=[k for k, _ in candidates], codes=[code for _, code in candidates]):
        if not row.is_kit:
            found.setdefault(row.k, set()).add(row.sku_id)
    faults = [
        {"index": k, "field": "code", "reason": f"{n.code!r} is no sku, or more than one; nothing was applied"}
        for k, n in enumerate(lines) if len(found.get(k, ())) != 1
    ]  # fmt: skip
    if faults:
        raise BadInput("Codes that cannot be taken.", items=faults)
    return [next(iter(found[k])) for k in range(len(lines))]
