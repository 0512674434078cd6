"""Who owes whom between divisions, consignors and vendors: entries, the report of a period, and its end."""

from datetime import date, datetime
from typing import Annotated, Any

import msgspec
from litestar import get, post
from litestar.params import QueryParameter

from oms.access import Actor
from oms.api.paging import PAGE_MAX, Page, read_cursor, write_cursor
from oms.db import Database
from oms.errors import NotFound
from oms.flows import govern, settlement

READERS = frozenset({"planner", "operator", "approver", "admin"})
CLOSERS = frozenset({"operator", "admin"})
APPROVERS = frozenset({"approver", "admin"})

Code = Annotated[str | None, QueryParameter(max_length=200, description="The code of a party.")]
Month = Annotated[str | None, QueryParameter(max_length=7, description="A period, like 2026-11.")]
Cursor = Annotated[str | None, QueryParameter(max_length=1000, description="`next` of the page before.")]
Limit = Annotated[int, QueryParameter(ge=1, le=PAGE_MAX, description="Items of a page.")]


class Correction(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many cents more (or, negative, less) the buyer owes, and why."""

    cents: Annotated[int, msgspec.Meta(ge=-(10**15), le=10**15)]
    why: Annotated[str, msgspec.Meta(min_length=1, max_length=2000, pattern=r"^[^\x00]*$")]


def check_unbound(actor: Actor) -> None:
    """Settlements speak of every channel and location: to a key that sees a part of them they are not there."""
    if actor.is_bound:
        raise NotFound("no settlement is to be seen with this key: it is bound to a part of the network")


@get("/v1/settlements", opt={"roles": READERS}, tags=["settlements"])
async def list_settlements(
    *,
    db: Database,
    actor: Actor,
    from_on: Annotated[date | None, QueryParameter(name="from", description="The first day that counts (UTC).")] = None,
    to_on: Annotated[date | None, QueryParameter(name="to", description="The last day that counts (UTC).")] = None,
    owner: Code = None,
    buyer: Code = None,
    period: Month = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Page[settlement.Entry]:
    """Entries, newest first: the buyer owes the owner `cents`."""
    check_unbound(actor)
    found = await settlement.listed(
        db, owner=owner, buyer=buyer, period=period, from_on=from_on, until_on=to_on, before=read_cursor(cursor, int),
        limit=limit + 1,
    )  # fmt: skip
    shown = found[:limit]
    return Page(shown, write_cursor(shown[-1].id) if len(found) > limit else None)


@get("/v1/settlements/report", opt={"roles": READERS}, tags=["settlements"])
async def settlement_report(
    *,
    db: Database,
    actor: Actor,
    period: Annotated[str, QueryParameter(max_length=7, description="A period, like 2026-11.")],
) -> settlement.Report:
    """Who owes whom in a period, net per pair and currency; what came late, and what still waits for a price."""
    check_unbound(actor)
    return await settlement.report(db, period=period)


@post("/v1/settlements/periods/{period:str}/close", status_code=200, opt={"roles": CLOSERS}, tags=["settlements"])
async def close_period(*, db: Database, actor: Actor, now: datetime, period: str) -> settlement.Report:
    """Asks to close a period that has ended; another person approves it."""
    check_unbound(actor)
    return await settlement.ask_to_close(db, period=period, person=govern.person_of(actor), now=now)


@post("/v1/settlements/periods/{period:str}/approve", status_code=200, opt={"roles": APPROVERS}, tags=["settlements"])
async def approve_period(*, db: Database, actor: Actor, now: datetime, period: str) -> settlement.Report:
    """Another person agrees to what was asked: the period is closed."""
    check_unbound(actor)
    return await settlement.approve(db, period=period, person=govern.person_of(actor), now=now)


@post("/v1/settlements/{entry:int}/correct", status_code=201, opt={"roles": CLOSERS}, tags=["settlements"])
async def correct_entry(*, db: Database, actor: Actor, now: datetime, entry: int, data: Correction) -> settlement.Entry:
    """A further entry sets one right; nothing is ever edited."""
    check_unbound(actor)
    return await settlement.correct(db, entry=entry, cents=data.cents, why=data.why, who=actor.who, now=now)


routes: list[Any] = [list_settlements, settlement_report, close_period, approve_period, correct_entry]
