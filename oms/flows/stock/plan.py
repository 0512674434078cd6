"""Which skus are counted when: fast movers weekly, slow ones monthly, what is in doubt first, then what is worth most."""

from collections.abc import Sequence
from datetime import date, datetime
from typing import Literal
from uuid import UUID, uuid4

import msgspec

from oms import record
from oms.access import Actor, sees_location
from oms.db import Database, Sql
from oms.domain.calendar import local_day
from oms.errors import BadInput, NotFound
from oms.flows.stock.codes import place, skus_of
from oms.flows.stock.count import count_lines, take_count

sql = Sql("stock")


class ToPlan(msgspec.Struct, frozen=True):
    """A location whose counts of a day are not planned yet."""

    location_id: int
    day: date
    is_requested: bool
    owner: str


class Count(msgspec.Struct, frozen=True):
    """A count, how many lines it has, and how many of them are to be counted still."""

    id: UUID
    location: str
    kind: str
    state: str
    why: str | None
    due_on: date
    made_by: str
    made_at: datetime
    closed_at: datetime | None
    lines: int
    due: int


class ToCount(msgspec.Struct, frozen=True, omit_defaults=True):
    """A sku of a count; how many we believe to be there is not told before it is counted."""

    sku: str
    state: str
    counted: int | None = None
    counted_by: str | None = None
    variance: int | None = None
    reason: str | None = None


class Variance(msgspec.Struct, frozen=True):
    """What counts found for a reason at a location: units short and over, and what they are worth together."""

    location: str
    reason: str
    lines: int
    units_short: int
    units_over: int
    cents: int


places_to_plan = sql.rows("places_to_plan", ToPlan)
plan_count = sql.run("plan_count")
make_count = sql.run("make_count")
request_count = sql.run("request_count")
requests_done = sql.run("requests_done")
counts_of = sql.rows("counts_of", Count)
variance_rows = sql.rows("variances", Variance)


async def plan(db: Database, *, now: datetime) -> int:
    """Plans each location's counts of its day, once; where a WMS owns the quantities it is asked to count.

    Gives how many counts were made; requests that were answered are closed.
    """
    async with db.transaction() as tx:
        await requests_done(tx, now=now)
        places = await places_to_plan(tx, now=now)
    made = 0
    for there in places:
        async with db.transaction() as tx:
            count_id = uuid4()
            kind = "request" if there.is_requested else "cycle"
            done = await plan_count(tx, id=count_id, location_id=there.location_id, kind=kind, day=there.day, now=now)
            if done and there.is_requested:
                await request_count(tx, id=count_id, source=there.owner)
            made += done > 0
    return made


async def make(
    db: Database,
    *,
    location_id: int,
    kind: Literal["cycle", "full"],
    codes: Sequence[str] | None,
    why: str | None,
    actor: Actor,
    now: datetime,
) -> UUID:
    """A person asks for a count, of these skus or of all; where a WMS owns the quantities it is asked to count."""
    if kind == "cycle" and not codes:
        raise BadInput("skus: a cycle count names what is to be counted")
    if kind == "full" and codes:
        raise BadInput("skus: a full count is of all that is there; leave them out")
    count_id = uuid4()
    async with db.transaction() as tx:
        there = await place(tx, location_id)
        skus = sorted({s.sku_id for s in await skus_of(tx, codes)}) if codes else None
        is_requested = there.owner_kind == "wms"
        await make_count(
            tx, id=count_id, location_id=location_id, kind="request" if is_requested else kind, why=why, who=actor.who,
            day=local_day(now, there.time_zone), now=now, skus=skus,
        )  # fmt: skip
        if is_requested:
            await request_count(tx, id=count_id, source=there.owner)
        await record.keep(tx, who=actor.who, steps=[record.Step("count", str(count_id), "asked", why, {"kind": kind})])
    return count_id


async def listed(
    db: Database, *, locations: list[int] | None, code: str | None, state: str | None, limit: int,
    count_id: UUID | None = None,
) -> list[Count]:  # fmt: skip
    """Counts at these locations, what is due first."""
    async with db.connection() as tx:
        return await counts_of(tx, locations=locations, code=code, state=state, id=count_id, limit=limit)


async def show(db: Database, *, count_id: UUID, actor: Actor) -> list[ToCount]:
    """The lines of a count, blind: raises NotFound."""
    async with db.transaction() as tx:
        found = await take_count(tx, id=count_id)
        if found is None or not sees_location(actor, found.location_id):
            raise NotFound(f"There is no count {count_id}.")
        lines = await count_lines(tx, id=count_id)
    return [
        ToCount(n.sku, n.state) if n.state in ("due", "recount")
        else ToCount(n.sku, n.state, n.counted, n.counted_by, n.variance, n.reason)
        for n in lines
    ]  # fmt: skip


async def variances(db: Database, *, locations: list[int] | None, since: datetime, until: datetime) -> list[Variance]:
    """What counts found in a period, by location and reason."""
    async with db.connection() as tx:
        return await variance_rows(tx, locations=locations, since=since, until=until)
