"""Returns: announced or blind, received anywhere, inspected, sent on by rule; the refund is told to the channel."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from litestar import get, post, put
from litestar.params import QueryParameter

from oms.access import Actor
from oms.api.feeds import locations_seen
from oms.api.fulfillers import check_unbound
from oms.api.fulfillments import Device, Reason
from oms.api.paging import Page, read_cursor, write_cursor
from oms.api.scope import channels_seen, known_location, location_of
from oms.api.stock import Cursor, Limit, Short, Some
from oms.cache import Cache
from oms.db import Database
from oms.domain.returns import ReturnRule
from oms.errors import BadInput, NotFound
from oms.flows import returns

ANNOUNCERS = frozenset({"storefront", "associate", "operator", "admin"})
WORKERS = frozenset({"associate", "operator", "admin"})
READERS = frozenset({"storefront", "associate", "planner", "operator", "approver", "admin"})


class SentLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Units that come back, of an order's line; or by scanned code, where the order is not known."""

    quantity: Some
    reason: Reason
    line: Short | None = None
    code: Annotated[str, msgspec.Meta(min_length=1, max_length=500, pattern=r"^[^\x00]*$")] | None = None


class ReturnBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A return: of an order (by id, or by channel and number), or blind; and where it comes to."""

    lines: Annotated[list[SentLine], msgspec.Meta(min_length=1, max_length=200)]
    order: UUID | None = None
    channel: Short | None = None
    number: Short | None = None
    location: Short | None = None


class CameLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Units of a return's line that are here."""

    number: Annotated[int, msgspec.Meta(ge=1, le=10_000)]
    quantity: Some


class CameBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is here (all that is expected where nothing is named), and where."""

    location: Short | None = None
    lines: Annotated[list[CameLine], msgspec.Meta(min_length=1, max_length=200)] | None = None


class FoundLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Units of a return's line, and their condition."""

    number: Annotated[int, msgspec.Meta(ge=1, le=10_000)]
    quantity: Some
    condition: Literal["new", "opened", "used", "damaged", "wrong_item"]


class FoundBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was found; `final`: what has not come by now does not come."""

    lines: Annotated[list[FoundLine], msgspec.Meta(min_length=1, max_length=200)]
    final: bool = False


class RuleBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where units of a reason and condition go that come back at a location; what is not said fits all."""

    outcome: Literal["stock", "hold", "transfer", "write_off"]
    rank: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 0
    reason: Reason | None = None
    condition: Literal["new", "opened", "used", "damaged", "wrong_item"] | None = None
    location: Short | None = None
    hold_code: Short | None = None
    to_location: Short | None = None
    km_max: Annotated[float, msgspec.Meta(gt=0, le=50_000)] | None = None
    refunds: bool = True


def sight(actor: Actor) -> dict[str, Any]:
    """The returns that a caller sees: of its channel, or at its store."""
    if actor.channel_id is not None:
        return {"locations": None, "channels": channels_seen(actor)}
    return {"locations": locations_seen(actor), "channels": None}


async def shown(db: Database, actor: Actor, return_id: UUID) -> returns.Return:
    """A return that the caller sees; raises NotFound."""
    found = await returns.listed(db, **sight(actor), state=None, before=None, limit=1, return_id=return_id)
    if not found:
        raise NotFound(f"There is no return {return_id}.")
    return found[0]


@post("/v1/returns", status_code=201, opt={"roles": ANNOUNCERS}, tags=["returns"])
async def announce(
    *, db: Database, actor: Actor, now: datetime, data: ReturnBody, device: Device = None
) -> returns.Return:
    """A return is to come, from any channel to any location; without an order it is blind."""
    if actor.channel_id is not None:
        if data.order is None and data.number is None:
            raise BadInput("order: a shop's key announces returns of its orders; name the order")
        if data.location is None:
            raise BadInput("location: name the location that it comes to")
        location_id = await known_location(db, data.location)
    else:
        location_id = await location_of(db, actor, data.location)
    if data.number is not None and data.order is None and data.channel is None:
        raise BadInput("channel: a number is one of a channel's; name the channel, or the order's id")
    channels = channels_seen(actor) if actor.channel_id is not None else None
    return_id = await returns.announce(
        db, location_id=location_id, order_id=data.order, channel=data.channel, number=data.number, channels=channels,
        lines=[returns.Sent(n.quantity, n.reason, n.line, n.code) for n in data.lines], actor=actor, now=now,
        device=device,
    )  # fmt: skip
    return await shown(db, actor, return_id)


@get("/v1/returns", opt={"roles": READERS}, tags=["returns"])
async def list_returns(
    *,
    db: Database,
    actor: Actor,
    wanted: Annotated[Literal["expected", "received", "done"] | None, QueryParameter(name="state")] = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Page[returns.Return]:
    """Returns, newest first."""
    found = await returns.listed(db, **sight(actor), state=wanted, before=read_cursor(cursor, UUID), limit=limit + 1)
    return Page(found[:limit], write_cursor(found[limit - 1].id) if len(found) > limit else None)


@get("/v1/returns/{return_id:uuid}", opt={"roles": READERS}, tags=["returns"])
async def get_return(*, db: Database, actor: Actor, return_id: UUID) -> returns.Return:
    """One return with what was found."""
    return await shown(db, actor, return_id)


@post("/v1/returns/{return_id:uuid}/receive", status_code=200, opt={"roles": WORKERS}, tags=["returns"])
async def receive(
    *,
    db: Database,
    cache: Cache,
    actor: Actor,
    now: datetime,
    return_id: UUID,
    data: CameBody | None = None,
    device: Device = None,
) -> returns.Return:
    """It is here, whatever location it was announced for: on hand, and held until it is inspected."""
    said = data or CameBody()
    location_id = await location_of(db, actor, said.location)
    lines = None if said.lines is None else [returns.Came(n.number, n.quantity) for n in said.lines]
    await returns.receive(
        db, return_id=return_id, location_id=location_id, lines=lines, actor=actor, now=now, device=device, cache=cache
    )
    return await shown(db, actor, return_id)


@post("/v1/returns/{return_id:uuid}/inspect", status_code=200, opt={"roles": WORKERS}, tags=["returns"])
async def inspect(
    *, db: Database, cache: Cache, actor: Actor, now: datetime, return_id: UUID, data: FoundBody, device: Device = None
) -> returns.Return:
    """What was found; each unit goes where the rules say. With the last one the refund is announced."""
    found = [returns.Found(n.number, n.quantity, n.condition) for n in data.lines]
    await returns.inspect(
        db,
        return_id=return_id,
        found_units=found,
        is_final=data.final,
        actor=actor,
        now=now,
        device=device,
        cache=cache,
    )
    return await shown(db, actor, return_id)


@get("/v1/return-rules", opt={"roles": frozenset({"planner", "operator", "admin"})}, tags=["returns"])
async def list_rules(*, db: Database) -> list[returns.RuleShown]:
    """Where what comes back goes: the first that fits."""
    return await returns.shown_rules(db)


@put("/v1/return-rules/{code:str}", opt={"roles": frozenset({"admin"})}, tags=["returns"])
async def put_rule(*, db: Database, actor: Actor, code: str, data: RuleBody) -> list[returns.RuleShown]:
    """A rule is in force; gives them all."""
    check_unbound(actor)
    rule = ReturnRule(
        code=code, rank=data.rank, reason=data.reason, condition=data.condition, outcome=data.outcome,
        location_id=await known_location(db, data.location) if data.location else None, hold_code=data.hold_code,
        to_id=await known_location(db, data.to_location) if data.to_location else None, km_max=data.km_max,
        refunds=data.refunds,
    )  # fmt: skip
    await returns.set_rule(db, rule=rule, who=actor.who)
    return await returns.shown_rules(db)


routes: list[Any] = [announce, list_returns, get_return, receive, inspect, list_rules, put_rule]
