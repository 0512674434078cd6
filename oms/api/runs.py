"""Brokering runs: asked for, read, and why each line went where it went."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from litestar import get, post
from litestar.params import QueryParameter

from oms.access import Actor
from oms.api.paging import PAGE_MAX, Page, read_cursor, write_cursor
from oms.cache import Cache
from oms.db import Database
from oms.errors import NotFound
from oms.flows import broker
from oms.settings import Settings

READERS = frozenset({"planner", "operator", "approver", "admin"})
RUNNERS = frozenset({"planner", "operator", "admin"})
SECONDS_MAX = 600

Cursor = Annotated[str | None, QueryParameter(max_length=1000, description="`next` of the page before.")]
Limit = Annotated[int, QueryParameter(ge=1, le=PAGE_MAX, description="Items of a page.")]

Mode = Literal["joint", "online", "prices"]


class RunBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to run: everything that is open; a dry run plans and allocates nothing."""

    dry_run: bool = False
    policy: Annotated[str, msgspec.Meta(min_length=1, max_length=200)] | None = None
    seconds: Annotated[float, msgspec.Meta(gt=0, le=SECONDS_MAX)] | None = None
    seed: Annotated[int, msgspec.Meta(ge=0, le=2_147_483_647)] | None = None


def check_unbound(actor: Actor) -> None:
    """A run speaks of every channel and location: to a key that sees a part of them it is not there."""
    if actor.is_bound:
        raise NotFound("no run is to be seen with this key: it is bound to a part of the network")


@post("/v1/runs", status_code=201, opt={"roles": RUNNERS}, tags=["runs"])
async def start_run(
    *,
    db: Database,
    cache: Cache,
    actor: Actor,
    now: datetime,
    settings: Settings,
    data: RunBody | None = None,
) -> broker.Run:
    """Brokers what is open, within `seconds`, and answers when the plan is written."""
    check_unbound(actor)
    data = data or RunBody()
    done = await broker.run(
        db, who=actor.who, now=now, dry_run=data.dry_run, policy=data.policy, cache=cache,
        seconds=settings.broker_seconds if data.seconds is None else data.seconds,
        seed=settings.broker_seed if data.seed is None else data.seed, with_crew=settings.broker_crew,
    )  # fmt: skip
    await cache.wake("project")
    return done


@get("/v1/runs", opt={"roles": READERS}, tags=["runs"])
async def list_runs(
    *, db: Database, actor: Actor, mode: Mode | None = None, cursor: Cursor = None, limit: Limit = 100
) -> Page[broker.Run]:
    """Runs, the newest first: those of a mode, else all but the decisions of a moment (`online`)."""
    check_unbound(actor)
    found = await broker.listed(db, before=read_cursor(cursor, UUID), limit=limit + 1, mode=mode)
    shown = found[:limit]
    return Page(shown, write_cursor(shown[-1].id) if len(found) > limit else None)


@get("/v1/runs/{run_id:uuid}", opt={"roles": READERS}, tags=["runs"])
async def get_run(*, db: Database, actor: Actor, run_id: UUID) -> broker.Run:
    """A run: its state, and what its plan costs."""
    check_unbound(actor)
    return await broker.read(db, run_id=run_id)


@get("/v1/runs/{run_id:uuid}/decisions", opt={"roles": READERS}, tags=["runs"])
async def list_decisions(
    *, db: Database, actor: Actor, run_id: UUID, order: str | None = None, cursor: Cursor = None, limit: Limit = 100
) -> Page[broker.Decided]:
    """What a run decided for each order (of one number, where given): candidates, costs, and what became of it."""
    check_unbound(actor)
    after = read_cursor(cursor, UUID)
    found = await broker.why(db, run_id=run_id, number=order, after=after, limit=limit + 1)
    shown = found[:limit]
    return Page(shown, write_cursor(shown[-1].order_id) if len(found) > limit else None)


class Savings(msgspec.Struct, frozen=True):
    """Where one more unit, or one more order of capacity, would have saved most."""

    stock: list[broker.CellSaving]
    capacity: list[broker.WorkSaving]


@get("/v1/runs/{run_id:uuid}/savings", opt={"roles": READERS}, tags=["runs"])
async def run_savings(*, db: Database, actor: Actor, run_id: UUID, limit: Limit = 100) -> Savings:
    """The shadow prices of a run by location and sku, largest first: what to move where."""
    check_unbound(actor)
    return Savings(*await broker.savings(db, run_id=run_id, limit=limit))


routes: list[Any] = [start_run, list_runs, get_run, list_decisions, run_savings]
