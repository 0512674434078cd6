"""What channels are told: pushes, their replay, and a push on demand."""

from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from litestar import get, post
from litestar.params import Parameter, QueryParameter

from oms.access import Actor
from oms.api.paging import PAGE_MAX, Page, read_cursor, write_cursor
from oms.api.scope import channel_of, channels_seen
from oms.cache import Cache
from oms.db import Database
from oms.flows.push import outbox

READERS = frozenset({"planner", "operator", "approver", "admin"})
OPERATORS = frozenset({"operator", "admin"})


class PushAsked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to tell: what is due, or with `reset` everything."""

    reset: bool = False


class PushAccepted(msgspec.Struct, frozen=True):
    """The channel is told in the background."""

    channel: str
    reset: bool


class PushReplayed(msgspec.Struct, frozen=True):
    """The push is due again, with the same id and body."""

    push_id: UUID
    state: Literal["due"] = "due"


@get("/v1/pushes", opt={"roles": READERS}, tags=["pushes"])
async def list_pushes(
    *,
    db: Database,
    actor: Actor,
    channel: str | None = None,
    in_state: Annotated[Literal["due", "done", "dead"] | None, QueryParameter(name="state")] = None,
    cursor: Annotated[str | None, Parameter(max_length=1000, description="`next` of the page before.")] = None,
    limit: Annotated[int, Parameter(ge=1, le=PAGE_MAX, description="Items of a page.")] = 100,
) -> Page[outbox.Listed]:
    """Pushes, the newest first: what each said, whether the channel took it, and why not."""
    items = await outbox.listed(
        db,
        channel=channel,
        state=in_state,
        before=read_cursor(cursor, UUID),
        limit=limit,
        channels=channels_seen(actor),
    )
    return Page(items, write_cursor(items[-1].push_id) if len(items) == limit else None)


@post("/v1/pushes/{push_id:uuid}/replay", status_code=200, opt={"roles": OPERATORS}, tags=["pushes"])
async def replay_push(db: Database, cache: Cache, actor: Actor, push_id: UUID) -> PushReplayed:
    """Sends a dead push again, with the same id and body."""
    channel = await outbox.replay(db, push_id=push_id, who=actor.who, channels=channels_seen(actor))
    await cache.wake(f"push:{channel}")
    return PushReplayed(push_id)


@post("/v1/channels/{code:str}/push", status_code=202, opt={"roles": OPERATORS}, tags=["pushes"])
async def push_channel(db: Database, cache: Cache, actor: Actor, code: str, data: PushAsked) -> PushAccepted:
    """Tells a channel what is due now; with `reset`, everything."""
    await channel_of(db, actor, code)
    await outbox.channels_of(db, [code])
    if data.reset:
        await outbox.ask_reset(db, channels=[code], who=actor.who)
    await cache.wake(f"push:{code}")
    return PushAccepted(code, data.reset)


routes: list[Any] = [list_pushes, replay_push, push_channel]
