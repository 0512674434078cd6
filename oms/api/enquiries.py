"""What was asked and said: `/v1/enquiries/promises`, `/refusals` and `/reads`, for comparison with what happened."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import get
from litestar.params import Parameter

from oms.db import Database
from oms.flows.promise import asked
from oms.flows.promise.asked import GivenNumber, GivenPromise, GivenRefusal

SEES = frozenset({"planner", "operator", "approver", "admin"})
Limit = Annotated[int, Parameter(ge=1, le=1000)]


class PromisesPage(msgspec.Struct, frozen=True):
    """Promises, newest first; `next` is the cursor of the following page."""

    items: list[GivenPromise]
    next: str | None


class RefusalsPage(msgspec.Struct, frozen=True):
    """Refused reservations by sku, newest first; `next` is the cursor of the following page."""

    items: list[GivenRefusal]
    next: str | None


class ReadsPage(msgspec.Struct, frozen=True):
    """Numbers that were given and how often, newest minute first. More: ask with `until` of the last minute."""

    items: list[GivenNumber]


@get("/v1/enquiries/promises", opt={"roles": SEES}, tags=["enquiries"])
async def promises(
    *, db: Database, channel: str | None = None, sku: str | None = None, cursor: UUID | None = None, limit: Limit = 100
) -> PromisesPage:
    """Promises that were given, with the stock and the version of the rules behind them."""
    items = await asked.promises(db, channel=channel, sku=sku, before=cursor, limit=limit)
    return PromisesPage(items, str(items[-1].id) if len(items) == limit else None)


@get("/v1/enquiries/refusals", opt={"roles": SEES}, tags=["enquiries"])
async def refusals(
    *, db: Database, channel: str | None = None, sku: str | None = None, cursor: int | None = None, limit: Limit = 100
) -> RefusalsPage:
    """Reservations that were refused, by sku: what was asked and what there was."""
    items = await asked.refusals(db, channel=channel, sku=sku, before=cursor, limit=limit)
    return RefusalsPage(items, str(items[-1].id) if len(items) == limit else None)


@get("/v1/enquiries/reads", opt={"roles": SEES}, tags=["enquiries"])
async def reads(
    *,
    db: Database,
    channel: str | None = None,
    sku: str | None = None,
    until: datetime | None = None,
    limit: Limit = 1000,
) -> ReadsPage:
    """How often which number was given, per sku, channel and minute."""
    return ReadsPage(await asked.reads(db, channel=channel, sku=sku, until=until, limit=limit))


routes: list[Any] = [promises, refusals, reads]
