"""What channels are told of orders: `/v1/updates`."""

from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from litestar import get, post
from litestar.params import Parameter, QueryParameter

from oms.access import Actor
from oms.db import Database
from oms.flows.order import updates
from oms.flows.order.updates import Update

SEES = frozenset({"planner", "operator", "approver", "admin"})
REPLAYS = frozenset({"operator", "admin"})


class UpdatesPage(msgspec.Struct, frozen=True):
    """Updates, newest first; `next` is the cursor of the following page."""

    items: list[Update]
    next: str | None


@get("/v1/updates", opt={"roles": SEES}, tags=["updates"])
async def list_updates(
    *,
    db: Database,
    is_in: Annotated[Literal["due", "done", "dead"] | None, QueryParameter(name="state")] = None,
    channel: str | None = None,
    number: str | None = None,
    cursor: UUID | None = None,
    limit: Annotated[int, Parameter(ge=1, le=1000)] = 100,
) -> UpdatesPage:
    """What channels were told of orders, or could not be told."""
    items = await updates.listed(db, state=is_in, channel=channel, number=number, before=cursor, limit=limit)
    return UpdatesPage(items, str(items[-1].id) if len(items) == limit else None)


@post("/v1/updates/{update_id:uuid}/replay", status_code=200, opt={"roles": REPLAYS}, tags=["updates"])
async def replay_update(*, db: Database, actor: Actor, update_id: UUID) -> None:
    """Tells a dead update again, under the same id."""
    await updates.replay(db, update_id=update_id, who=actor.who)


routes: list[Any] = [list_updates, replay_update]
