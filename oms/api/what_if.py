"""What-ifs: asked for, and read when a worker has found them."""

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from litestar import get, post

from oms.access import Actor
from oms.api.runs import check_unbound
from oms.cache import Cache
from oms.db import Database
from oms.flows.broker import what_if
from oms.settings import Settings

TRIERS = frozenset({"planner", "operator", "approver", "admin"})


class Accepted(msgspec.Struct, frozen=True):
    """A what-if that a worker will take up: where it may be read."""

    id: UUID
    state: str
    url: str


@post("/v1/what-if", status_code=202, opt={"roles": TRIERS}, tags=["runs"])
async def ask_what_if(
    *, db: Database, cache: Cache, actor: Actor, now: datetime, settings: Settings, data: what_if.Ask
) -> Accepted:
    """Tries up to five policies on what a run saw, or on what is open now; nothing is allocated."""
    check_unbound(actor)
    asked = await what_if.ask(
        db, data, who=actor.who, now=now, seconds=settings.broker_seconds, seed=settings.broker_seed
    )
    await cache.wake("what-if")
    return Accepted(asked, "waiting", f"/v1/what-if/{asked}")


@get("/v1/what-if/{what_if_id:uuid}", opt={"roles": TRIERS}, tags=["runs"])
async def get_what_if(*, db: Database, actor: Actor, what_if_id: UUID) -> what_if.WhatIf:
    """A what-if: its state, and when it is done what each policy comes to and which orders move and why."""
    check_unbound(actor)
    return await what_if.read(db, what_if_id=what_if_id)


routes: list[Any] = [ask_what_if, get_what_if]
