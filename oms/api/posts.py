"""What sources are told of movements that began with us: `/v1/posts`."""

from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from litestar import get, post
from litestar.params import Parameter, QueryParameter

from oms.access import Actor
from oms.api.paging import Page, read_cursor, write_cursor
from oms.db import Database
from oms.flows import posts
from oms.flows.posts import Post

SEES = frozenset({"integrator", "planner", "operator", "approver", "admin"})
REPLAYS = frozenset({"operator", "admin"})


class Replayed(msgspec.Struct, frozen=True):
    """How many batches are due again."""

    batches: int


@get("/v1/posts", opt={"roles": SEES}, tags=["posts"])
async def list_posts(
    *,
    db: Database,
    actor: Actor,
    source: str | None = None,
    is_in: Annotated[
        Literal["waiting", "due", "sent", "acknowledged", "dead"] | None, QueryParameter(name="state")
    ] = None,
    cursor: str | None = None,
    limit: Annotated[int, Parameter(ge=1, le=500)] = 100,
) -> Page[Post]:
    """What sources were told of movements of ours, and are to be told, newest first."""
    mine = [actor.source_id or 0] if actor.is_bound else None
    found = await posts.listed(
        db, source=source, sources=mine, state=is_in, before=read_cursor(cursor, int), limit=limit + 1
    )
    shown = found[:limit]
    return Page(shown, write_cursor(shown[-1].post_id) if len(found) > limit else None)


@post("/v1/posts/{batch_id:uuid}/replay", status_code=200, opt={"roles": REPLAYS}, tags=["posts"])
async def replay_batch(*, db: Database, actor: Actor, batch_id: UUID) -> Replayed:
    """Tells a dead batch again, under the same id."""
    return Replayed(await posts.replay(db, batch_id=batch_id, source=None, who=actor.who))


@post("/v1/posts/replay", status_code=200, opt={"roles": REPLAYS}, tags=["posts"])
async def replay_source(*, db: Database, actor: Actor, source: str) -> Replayed:
    """Tells all dead batches of a source again."""
    return Replayed(await posts.replay(db, batch_id=None, source=source, who=actor.who))


routes: list[Any] = [list_posts, replay_batch, replay_source]
