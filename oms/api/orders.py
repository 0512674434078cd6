"""Orders: captured once by (channel, number), read, amended, cancelled, held, released; `/v1/orders`."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from litestar import Response, get, post
from litestar.params import Parameter

from oms.access import Actor
from oms.api.paging import Page, read_cursor, write_cursor
from oms.api.scope import channel_of, check_location, known_location, sight_of
from oms.cache import Cache
from oms.db import Database
from oms.domain.order import LINES_MAX, QUANTITY_MAX, NewOrder, OrderLine, ShipTo
from oms.errors import BadInput
from oms.flows.order.amend import Amendment, Wish, amend
from oms.flows.order.capture import Captured, capture_many
from oms.flows.order.change import CancelledLine, cancel
from oms.flows.order.holds import hold, release
from oms.flows.order.read import OrderView, StepView, order_history, read_order
from oms.flows.promise.ordered import OrderedLine, promise_order
from oms.settle import shared

CAPTURE = frozenset({"storefront", "associate", "operator", "admin"})
READ = frozenset({"storefront", "associate", "planner", "operator", "approver", "admin"})
CHANGE = frozenset({"storefront", "operator", "admin"})

PAGE = 200
Code = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class OrderLineBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A line as the shop says it; `price` is for one unit, in the minor unit of the currency."""

    line: Code
    sku: Code
    quantity: Annotated[int, msgspec.Meta(ge=1, le=QUANTITY_MAX)]
    price: Annotated[int, msgspec.Meta(ge=0, le=2_000_000_000)] | None = None


class ShipToBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where it goes."""

    postal_code: Annotated[str, msgspec.Meta(max_length=20)]
    country: Annotated[str, msgspec.Meta(min_length=2, max_length=2)] = "US"
    lat: Annotated[float, msgspec.Meta(ge=-90, le=90)] | None = None
    lon: Annotated[float, msgspec.Meta(ge=-180, le=180)] | None = None
    collect_at: Code | None = None


class OrderBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An order of a shop."""

    channel: str
    number: Code
    placed_at: Annotated[datetime, msgspec.Meta(tz=True)]
    ship_to: ShipToBody
    method: Code
    lines: Annotated[list[OrderLineBody], msgspec.Meta(min_length=1, max_length=LINES_MAX)]
    reservation: str | None = None
    priority: Annotated[int, msgspec.Meta(ge=-1000, le=1000)] = 0
    split: str = "free"
    split_max: Annotated[int, msgspec.Meta(ge=1, le=100)] | None = None
    promise_days: Annotated[int, msgspec.Meta(ge=0, le=1000)] | None = None
    pickup_location: str | None = None


class LinesBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Lines by name (all where none are named), and why."""

    lines: list[str] | None = None
    reason: Annotated[str, msgspec.Meta(max_length=500)] | None = None


class HoldBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Lines by name (all where none are named), for what kind of reason, why, and whether they keep their units.

    Without `kind` the `reason` is the kind.
    """

    lines: list[str] | None = None
    reason: Annotated[str, msgspec.Meta(max_length=500)] | None = None
    kind: Literal["fraud", "address", "payment", "customer"] | None = None
    keeps_stock: bool = True


class ReleaseBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Lines by name (all where none are named), holds of one kind (all where none is named), and why."""

    lines: list[str] | None = None
    reason: Annotated[str, msgspec.Meta(max_length=500)] | None = None
    kind: Literal["fraud", "address", "payment", "customer"] | None = None


EVERY_LINE = LinesBody()


class WishBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many of a line are wanted in all, or that it is cancelled."""

    line: Code
    quantity: Annotated[int, msgspec.Meta(ge=0, le=QUANTITY_MAX)] | None = None
    cancel: bool = False


class AmendBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to be different, and why; all of it or nothing."""

    lines: Annotated[list[WishBody], msgspec.Meta(max_length=LINES_MAX)] = []
    add: Annotated[list[OrderLineBody], msgspec.Meta(max_length=LINES_MAX)] = []
    ship_to: ShipToBody | None = None
    method: Code | None = None
    reason: Annotated[str, msgspec.Meta(max_length=500)] | None = None


class AmendedView(OrderView, frozen=True, kw_only=True):
    """The order as it stands now, and by when its open lines can be there."""

    promises: list[OrderedLine]


@post("/v1/orders", opt={"roles": CAPTURE}, tags=["orders"])
async def capture(db: Database, cache: Cache, actor: Actor, now: datetime, data: OrderBody) -> Response[OrderView]:
    """Captures an order: 201, or 200 with the order that stands where (channel, number) came before."""
    order = await _order(db, actor, now, data)

    async def wake() -> None:
        await cache.wake("broker")
        await cache.wake("project")

    captured: Captured = await shared(db, capture_many, after=wake).ask(order)
    view = await read_order(db, order_id=captured.order_id)
    # the caller learns that what it sent is not what stands
    headers = {"order-changed": "true"} if captured.is_changed else {}
    return Response(view, status_code=201 if captured.is_new else 200, headers=headers)


async def _order(db: Database, actor: Actor, now: datetime, data: OrderBody) -> NewOrder:
    channel_id = await channel_of(db, actor, data.channel)
    if actor.location_id is not None and data.pickup_location is None:
        raise BadInput("pickup_location: a store's key captures orders that are picked up there; name the store")
    if actor.location_id is not None:
        await check_location(db, actor, data.pickup_location)
    if data.ship_to.collect_at is not None:
        await known_location(db, data.ship_to.collect_at)
    fields = msgspec.structs.asdict(data)
    del fields["channel"]
    return NewOrder(**fields | {
        "channel_id": channel_id, "at": now, "who": actor.who,
        "ship_to": ShipTo(**msgspec.structs.asdict(data.ship_to)),
        "lines": tuple(
            OrderLine(line=line.line, sku=line.sku, quantity=line.quantity, price_cents=line.price)
            for line in data.lines
        ),
    })  # fmt: skip


@get("/v1/orders/{order_id:uuid}", opt={"roles": READ}, tags=["orders"])
async def get_order(db: Database, actor: Actor, order_id: UUID) -> OrderView:
    """The order with its lines and fulfillments."""
    return await read_order(db, order_id=order_id, sight=sight_of(actor))


@get("/v1/orders/{order_id:uuid}/history", opt={"roles": READ}, tags=["orders"])
async def get_history(
    db: Database,
    actor: Actor,
    order_id: UUID,
    cursor: str | None = None,
    limit: Annotated[int, Parameter(ge=1, le=500)] = PAGE,
) -> Page[StepView]:
    """Every step of the order and its fulfillments: when, who, why."""
    after = read_cursor(cursor, int) or 0
    steps = await order_history(db, order_id=order_id, after=after, limit=limit + 1, sight=sight_of(actor))
    more = write_cursor(steps[limit - 1].history_id) if len(steps) > limit else None
    return Page(steps[:limit], more)


class CancelledView(OrderView, frozen=True, kw_only=True):
    """The order as it stands now, and of each line that was to be cancelled whether it was in time."""

    cancellation: list[CancelledLine]


@post("/v1/orders/{order_id:uuid}/amend", status_code=200, opt={"roles": CHANGE}, tags=["orders"])
async def amend_order(
    db: Database, cache: Cache, actor: Actor, now: datetime, order_id: UUID, data: AmendBody
) -> AmendedView:
    """Amends what is not released: quantities, lines, address, method; all or nothing, with new dates per line."""
    sight = sight_of(actor)
    to = await _amendment(db, data)
    if await amend(db, order_id=order_id, to=to, why=data.reason, who=actor.who, sight=sight):
        await cache.wake("project")
        await cache.wake("broker")
    promises = await promise_order(db, order_id=order_id, now=now)
    view = await read_order(db, order_id=order_id, sight=sight)
    return AmendedView(**msgspec.structs.asdict(view), promises=promises)


async def _amendment(db: Database, data: AmendBody) -> Amendment:
    faults = [
        {"field": f"lines[{place}]", "reason": "give a quantity, or cancel"}
        for place, wish in enumerate(data.lines)
        if (wish.quantity is None) != wish.cancel
    ]
    if faults:
        raise BadInput("; ".join(f"{f['field']}: {f['reason']}" for f in faults), items=faults)
    if data.ship_to is not None and data.ship_to.collect_at is not None:
        await known_location(db, data.ship_to.collect_at)
    return Amendment(
        lines=tuple(Wish(wish.line, wish.quantity or 0) for wish in data.lines),
        add=tuple(OrderLine(line=n.line, sku=n.sku, quantity=n.quantity, price_cents=n.price) for n in data.add),
        ship_to=None if data.ship_to is None else ShipTo(**msgspec.structs.asdict(data.ship_to)), method=data.method,
    )  # fmt: skip


@post("/v1/orders/{order_id:uuid}/cancel", status_code=200, opt={"roles": CHANGE}, tags=["orders"])
async def cancel_order(
    db: Database, cache: Cache, actor: Actor, order_id: UUID, data: LinesBody | None = None
) -> CancelledView:
    """Cancels what has not shipped, whole or by line; what a location works on is recalled from it.

    Says of each line whether that was in time.
    """
    data = data or EVERY_LINE
    sight = sight_of(actor)
    done = await cancel(db, order_id=order_id, lines=data.lines, why=data.reason, who=actor.who, sight=sight)
    if done.units:
        await cache.wake("project")
    view = await read_order(db, order_id=order_id, sight=sight)
    return CancelledView(**msgspec.structs.asdict(view), cancellation=done.lines)


@post("/v1/orders/{order_id:uuid}/hold", status_code=200, opt={"roles": CHANGE}, tags=["orders"])
async def hold_order(
    db: Database, cache: Cache, actor: Actor, order_id: UUID, data: HoldBody | None = None
) -> OrderView:
    """Holds open lines, for one reason beside others: fraud, address, payment or customer (where none is given)."""
    data = data or HoldBody()
    kind, why = (data.kind, data.reason) if data.kind else (data.reason or "customer", None)
    sight = sight_of(actor)
    if await hold(
        db, order_id=order_id, lines=data.lines, kind=kind, why=why, keeps_stock=data.keeps_stock, who=actor.who,
        sight=sight,
    ):  # fmt: skip
        await cache.wake("project")
    return await read_order(db, order_id=order_id, sight=sight)


@post("/v1/orders/{order_id:uuid}/release", status_code=200, opt={"roles": CHANGE}, tags=["orders"])
async def release_order(
    db: Database, cache: Cache, actor: Actor, order_id: UUID, data: ReleaseBody | None = None
) -> OrderView:
    """Ends holds of lines, of all kinds or one: a line without any goes on, and may be brokered again."""
    data = data or ReleaseBody()
    sight = sight_of(actor)
    if await release(
        db, order_id=order_id, lines=data.lines, kind=data.kind, why=data.reason, who=actor.who, sight=sight
    ):  # fmt: skip
        await cache.wake("project")
        await cache.wake("broker")
    return await read_order(db, order_id=order_id, sight=sight)


routes: list[Any] = [capture, get_order, get_history, amend_order, cancel_order, hold_order, release_order]
