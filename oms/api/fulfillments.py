"""A location's work: seen, accepted, picked, packed, shipped, or rejected."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from litestar import get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import HeaderParameter, QueryParameter

from oms.access import Actor
from oms.api.paging import PAGE_MAX, Page, read_cursor, write_cursor
from oms.cache import Cache
from oms.db import Database
from oms.flows import fulfill
from oms.flows.fulfill import short
from oms.flows.fulfill.together import Asked, advance_one

READERS = frozenset({"associate", "planner", "operator", "approver", "admin"})
WORKERS = frozenset({"associate", "operator", "admin"})

State = Literal["released", "accepted", "picked", "packed", "shipped", "ready", "handed_over", "rejected", "recalled"]
Step = Literal["accept", "pack", "ship"]
Reason = Annotated[str, msgspec.Meta(min_length=1, max_length=500, pattern=r"^[^\x00]*$")]
Device = Annotated[
    str | None, HeaderParameter(name="Device", max_length=100, description="The device that it was done with.")
]


class RejectedLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Units of a line that cannot be fulfilled here, and why."""

    line: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    quantity: Annotated[int, msgspec.Meta(ge=1, le=1_000_000_000)]
    reason: Reason


class RejectBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is rejected, and what that says of the stock here: nothing, less by these units, or there is none.

    `whole` is the reason where all of it is; with `others`, other orders' unpicked work here loses these skus too.
    """

    lines: Annotated[list[RejectedLine], msgspec.Meta(max_length=1000)] = []
    stock: Literal["keep", "deduct", "zero"] = "keep"
    whole: Reason | None = None
    others: bool = False


class PickBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is missing, where not all is there: it is rejected and brokered elsewhere, the rest is picked."""

    missing: Annotated[list[RejectedLine], msgspec.Meta(max_length=1000)] = []
    stock: Literal["keep", "deduct", "zero"] = "keep"


@get("/v1/fulfillments", opt={"roles": READERS}, tags=["fulfillments"])
async def list_fulfillments(
    *,
    db: Database,
    actor: Actor,
    location: str | None = None,
    wanted: Annotated[State | None, QueryParameter(name="state")] = None,
    cursor: Annotated[str | None, QueryParameter(max_length=1000, description="`next` of the page before.")] = None,
    limit: Annotated[int, QueryParameter(ge=1, le=PAGE_MAX, description="Items of a page.")] = 100,
) -> Page[fulfill.Task]:
    """Work at locations that the key sees, oldest first."""
    after = read_cursor(cursor, UUID)
    found = await fulfill.tasks(db, actor=actor, location=location, state=wanted, after=after, limit=limit + 1)
    shown = found[:limit]
    return Page(shown, write_cursor(shown[-1].id) if len(found) > limit else None)


@get("/v1/fulfillments/{fulfillment_id:uuid}", opt={"roles": READERS}, tags=["fulfillments"])
async def get_fulfillment(*, db: Database, actor: Actor, fulfillment_id: UUID) -> fulfill.Task:
    """One fulfillment with its lines."""
    return await fulfill.task(db, actor=actor, fulfillment=fulfillment_id)


def door_of(step: Step) -> HTTPRouteHandler:
    """The handler of one step."""

    @post(
        f"/v1/fulfillments/{{fulfillment_id:uuid}}/{step}", status_code=200, opt={"roles": WORKERS},
        tags=["fulfillments"], name=f"{step}_fulfillment", summary=f"{step.capitalize()} a fulfillment",
        description="The step of the whole fulfillment; done before, it changes nothing.",
    )  # fmt: skip
    async def advance(
        *, db: Database, cache: Cache, actor: Actor, now: datetime, fulfillment_id: UUID, device: Device = None
    ) -> fulfill.Task:
        asked = Asked(fulfillment=fulfillment_id, step=step, actor=actor, now=now, device=device)
        await advance_one(db, asked, cache=cache)
        return await fulfill.task(db, actor=actor, fulfillment=fulfillment_id)

    return advance


@post("/v1/fulfillments/{fulfillment_id:uuid}/pick", status_code=200, opt={"roles": WORKERS}, tags=["fulfillments"])
async def pick(
    *,
    db: Database,
    cache: Cache,
    actor: Actor,
    now: datetime,
    fulfillment_id: UUID,
    data: PickBody | None = None,
    device: Device = None,
) -> fulfill.Task:
    """Picks a fulfillment, whole or but for what is missing; done before, it changes nothing."""
    if data is not None and data.missing:
        missing = [fulfill.Rejected(line=n.line, quantity=n.quantity, reason=n.reason) for n in data.missing]
        await short.pick_short(
            db, fulfillment=fulfillment_id, missing=missing, stock=data.stock, actor=actor, now=now, cache=cache,
            device=device,
        )  # fmt: skip
    else:
        asked = Asked(fulfillment=fulfillment_id, step="pick", actor=actor, now=now, device=device)
        await advance_one(db, asked, cache=cache)
    return await fulfill.task(db, actor=actor, fulfillment=fulfillment_id)


@post("/v1/fulfillments/{fulfillment_id:uuid}/reject", status_code=200, opt={"roles": WORKERS}, tags=["fulfillments"])
async def reject(
    *,
    db: Database,
    cache: Cache,
    actor: Actor,
    now: datetime,
    fulfillment_id: UUID,
    data: RejectBody,
    device: Device = None,
) -> fulfill.Task:
    """A location says no: its units go free, the lines are open again, and it is not asked for them again."""
    lines = [fulfill.Rejected(line=n.line, quantity=n.quantity, reason=n.reason) for n in data.lines]
    await fulfill.reject(
        db, fulfillment=fulfillment_id, lines=lines, stock=data.stock, actor=actor, now=now, cache=cache,
        whole=data.whole, others=data.others, device=device,
    )  # fmt: skip
    return await fulfill.task(db, actor=actor, fulfillment=fulfillment_id)


STEPS: tuple[Step, ...] = ("accept", "pack", "ship")
routes: list[Any] = [list_fulfillments, get_fulfillment, *(door_of(step) for step in STEPS), pick, reject]
