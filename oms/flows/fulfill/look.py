"""A location's work as it is seen: one fulfillment, a page of them, or all that is to be done, most urgent first."""

from datetime import datetime, time
from typing import Any
from uuid import UUID

import msgspec

from oms.access import Actor, sees_location
from oms.db import Database, Sql
from oms.domain.fulfillment import Fulfillment
from oms.errors import NotFound

sql = Sql("fulfill")
work = Sql("work")

WORK_MAX = 2_000
"""Fulfillments of one work list."""


class Task(msgspec.Struct, frozen=True):
    """A fulfillment as its location sees it."""

    id: UUID
    location: str
    channel: str
    number: str
    order_id: UUID
    state: str
    made_at: datetime
    changed_at: datetime
    method: str
    priority: int
    lines: list[dict[str, Any]] | None


class Due(msgspec.Struct, frozen=True):
    """Work to be done: by when it must leave to keep its day, in which wave, and who has it in hand."""

    id: UUID
    location: str
    number: str
    state: str
    method: str
    priority: int
    made_at: datetime
    due_at: datetime
    wave: time | None
    is_late: bool
    lines: int
    units: int
    picked: int
    packed: int
    task: str | None
    who: str | None


work_list = sql.rows("work_list", Task)
due_work = work.rows("due_work", Due)


def seen_by(actor: Actor) -> dict[str, Any]:
    """What of the work a caller sees: of its channel, of its store, or at the locations of its source."""
    if actor.channel_id is not None:
        return {"channel_id": actor.channel_id, "locations": None}
    own = [actor.location_id] if actor.location_id is not None else sorted(actor.location_ids)
    return {"channel_id": None, "locations": own if actor.is_bound else None}


def sees(actor: Actor, f: Fulfillment) -> bool:
    if actor.channel_id is not None:
        return actor.channel_id == f.channel_id
    return sees_location(actor, f.location_id)


async def tasks(
    db: Database, *, actor: Actor, location: str | None, state: str | None, after: UUID | None, limit: int
) -> list[Task]:
    """A location's work, oldest first; a store's own people see their store alone."""
    async with db.reading() as tx:
        return await work_list(
            tx, **seen_by(actor), code=location, state=state, id=None, after=after, limit=limit,
        )  # fmt: skip


async def task(db: Database, *, actor: Actor, fulfillment: UUID) -> Task:
    """One fulfillment, if the caller sees it; raises NotFound."""
    async with db.reading() as tx:
        found = await work_list(
            tx, **seen_by(actor), code=None, state=None, id=fulfillment, after=None, limit=1,
        )  # fmt: skip
    if not found:
        raise NotFound(f"There is no fulfillment {fulfillment}.")
    return found[0]


async def due(db: Database, *, actor: Actor, location: str | None, now: datetime, limit: int = WORK_MAX) -> list[Due]:
    """What a location has to do, by when it must leave, then by class and age."""
    async with db.reading() as tx:
        return await due_work(tx, **seen_by(actor), code=location, now=now, limit=limit)
