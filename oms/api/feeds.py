"""Feeds: snapshots as a stream, movements by the thousand, what of ours a source has posted; and what became of them."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Annotated, Any, Literal

import msgspec
from litestar import Request, Response, get, post
from litestar.params import QueryParameter

from connectors.feeds import FileRefused
from connectors.feeds.message import BadMessage, Message, read_message
from connectors.feeds.tabular import Reader
from oms import access
from oms.access import Actor
from oms.api.paging import PAGE_MAX, Page, read_cursor, write_cursor
from oms.api.upload import source_of
from oms.cache import Cache
from oms.db import Database
from oms.errors import BadInput, FeedRefused
from oms.flows import govern
from oms.flows.ingest import acknowledge, apply, holds, look, messages, stage
from oms.settings import Settings
from oms.settle import shared

SENDERS = frozenset({"integrator", "operator", "admin"})
READERS = frozenset({"integrator", "planner", "operator", "approver", "admin"})
MOVEMENTS_MAX = messages.MESSAGES_MAX
POSTED_MAX = 10_000
TOGETHER_MAX = 100
"""Movements that share a transaction: carts of their skus wait no longer than for so many."""
WAITING_MAX = 640

Cursor = Annotated[str | None, QueryParameter(max_length=1000, description="`next` of the page before.")]
Limit = Annotated[int, QueryParameter(ge=1, le=PAGE_MAX, description="Items of a page.")]
Why = Annotated[str, msgspec.Meta(min_length=1, max_length=2000, pattern=r"^[^\x00]*$")]


class PostedBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """References of ours that the source has posted, at a moment of its clock (now where none is given)."""

    ids: Annotated[
        list[Annotated[str, msgspec.Meta(min_length=1, max_length=200)]], msgspec.Meta(max_length=POSTED_MAX)
    ]
    at: Annotated[datetime, msgspec.Meta(tz=True)] | None = None


class PostedAnswer(msgspec.Struct, frozen=True):
    """How many of them are known."""

    posted: int
    unknown: int


class MovementResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of one message: applied, absorbed, acknowledged, parked, review, duplicate, changed, refused."""

    index: int
    id: str | None
    outcome: str
    detail: str | None = None
    field: str | None = None
    reason: str | None = None


class FeedChange(msgspec.Struct, frozen=True):
    """What a dry run would change: in all, and the largest differences."""

    totals: apply.DifferenceTotals
    largest: list[apply.Difference]


class FeedAnswer(msgspec.Struct, frozen=True):
    """A feed as it stands, its parts by location; with a dry run, what it would change."""

    feed: look.Feed
    parts: Sequence[look.Part]
    change: FeedChange | None = None


class FeedView(msgspec.Struct, frozen=True):
    """A feed, its parts by location, and a page of the rows that were refused."""

    feed: look.Feed
    parts: Sequence[look.Part]
    refusals: Page[look.RowRefusal]


class RevertBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which location's part is taken back, and why."""

    location: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    why: Why


class Reverted(msgspec.Struct, frozen=True):
    """Whether it is done, or waits for a second person; keys and units that changed."""

    done: bool
    keys: int
    units: int


class HoldRelease(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why units may be sold again, and how many (all where none is given)."""

    why: Why
    quantity: Annotated[int, msgspec.Meta(ge=1, le=1_000_000_000)] | None = None


class HoldReleased(msgspec.Struct, frozen=True):
    """Units that are no longer held."""

    id: int
    released: int


def sees_of(actor: Actor) -> look.Sees:
    """The deliveries that a caller sees: of its source; else those that speak of its locations."""
    if actor.source_id is not None:
        return look.Sees(source_id=actor.source_id)
    return look.Sees(locations=locations_seen(actor))


def locations_seen(actor: Actor) -> list[int] | None:
    """The locations that a caller sees; None for all."""
    if actor.location_id is not None:
        return [actor.location_id]
    return sorted(actor.location_ids) if actor.is_bound else None


async def own_source(db: Database, actor: Actor, code: str) -> int:
    """The source's id; NotFound where it is unknown or not the caller's."""
    return access.require_source(actor, await acknowledge.source_id_named(db, code), code)


def read_watermark(given: str | None) -> dict[str, int]:
    """`POS:812,WMS:99` as source code → highest number that the snapshot contains."""
    marks: dict[str, int] = {}
    for part in (given or "").split(","):
        if not part.strip():
            continue
        code, colon, number = part.strip().rpartition(":")
        if not colon or not code or not number.isascii() or not number.isdigit() or int(number) >= 2**63:
            raise BadInput(f"watermark: {part.strip()!r} is not CODE:NUMBER; like POS:812,WMS:99")
        if code in marks:
            raise BadInput(f"watermark: {code} stands twice")
        marks[code] = int(number)
    return marks


@post(
    "/v1/feeds/{source:str}/baseline", status_code=202, opt={"roles": SENDERS, "stream": True}, tags=["feeds"],
    request_max_body_size=None,
)  # fmt: skip
async def send_baseline(
    *,
    db: Database,
    cache: Cache,
    actor: Actor,
    now: datetime,
    settings: Settings,
    request: Request[Any, Any, Any],
    source: str,
    as_of: datetime,
    covers: Annotated[Literal["full", "partial"], QueryParameter(name="scope")] = "full",
    watermark: Annotated[str | None, QueryParameter(max_length=4000)] = None,
    name: Annotated[str, QueryParameter(min_length=1, max_length=200)] = "api",
    dry_run: bool = False,
) -> FeedAnswer:
    """Takes a snapshot as a stream, CSV or JSON Lines, gzip too. It is durable and weighed when this answers, and
    comes into force in the background; `dry_run` shows what it would change and changes nothing."""
    await own_source(db, actor, source)
    marks = read_watermark(watermark)
    try:
        staged = await stage.receive(
            db, source=source, reader=Reader(source_of(request, name=name, bytes_max=settings.feed_bytes_max)), name=name, as_of=as_of, scope=covers,
            watermark=marks, who=actor.who, now=now, dry_run=dry_run,
        )  # fmt: skip
    except FileRefused as refused:
        item = {"line": refused.line, "field": refused.field, "reason": refused.reason}
        raise FeedRefused(str(refused), items=[{k: v for k, v in item.items() if v is not None}]) from refused
    change = None
    if dry_run:
        totals, largest = await apply.show(db, feed_id=staged.feed_id)
        change = FeedChange(totals, largest)
    elif staged.state == "staged":
        await cache.wake("ingest")
    sees = sees_of(actor) if actor.source_id is not None else look.Sees()
    found = await look.feed(db, feed_id=staged.feed_id, sees=sees)
    return FeedAnswer(found, await look.parts(db, feed_id=staged.feed_id, sees=sees), change)


@post("/v1/feeds/{source:str}/posted", status_code=200, opt={"roles": SENDERS}, tags=["feeds"])
async def send_posted(
    *, db: Database, cache: Cache, actor: Actor, now: datetime, source: str, data: PostedBody
) -> PostedAnswer:
    """Takes the references of ours that the source has posted (movements) or deducted (fulfillment lines)."""
    await own_source(db, actor, source)
    done = await acknowledge.posted(db, source=source, references=data.ids, at=data.at or now, who=actor.who)
    await cache.wake("project")
    return PostedAnswer(done["posted"], done["unknown"])


@post("/v1/feeds/{source:str}/movements", status_code=200, opt={"roles": SENDERS}, tags=["feeds"])
async def send_movements(
    *, db: Database, cache: Cache, actor: Actor, source: str, data: list[Any]
) -> Response[list[MovementResult]]:
    """Takes up to 1,000 movements, each once, and answers one result per message, in order.

    One that cannot be understood is refused with its field and reason while the others are taken; where none can be
    understood, the request is refused as a whole.
    """
    await own_source(db, actor, source)
    if not 1 <= len(data) <= MOVEMENTS_MAX:
        raise BadInput(f"{len(data)} messages; 1 to {MOVEMENTS_MAX} at once are expected")
    good: list[tuple[int, Message]] = []
    results: dict[int, MovementResult] = {}
    for index, given in enumerate(data):
        try:
            if not isinstance(given, dict):
                raise BadMessage("message", "must be an object")
            good.append((index, read_message(given)))
        except BadMessage as bad:
            said = given.get("id") if isinstance(given, dict) else None
            results[index] = MovementResult(
                index, said if isinstance(said, str) else None, "refused", field=bad.field, reason=bad.reason
            )
    if not good:
        items: list[dict[str, Any]] = [msgspec.to_builtins(result) for result in results.values()]
        first = results[0]
        raise BadInput(f"no message can be understood; the first: {first.field}: {first.reason}", items=items)
    queue = shared(
        db, partial(messages.take_together, source=source, who=actor.who), of=("movements", source, actor.who),
        after=partial(cache.wake, "project"), batch_max=TOGETHER_MAX, queue_max=WAITING_MAX, weigh=len,
    )  # fmt: skip
    every = [message for _, message in good]
    pieces = [every[start : start + TOGETHER_MAX] for start in range(0, len(every), TOGETHER_MAX)]
    taken: list[messages.Result] = [r for some in await asyncio.gather(*map(queue.ask, pieces)) for r in some]
    for (index, _), result in zip(good, taken, strict=True):
        results[index] = MovementResult(index, result.id, result.outcome, detail=result.detail)
    return Response([results[index] for index in range(len(data))])


@get("/v1/feeds/{source:str}/ours", opt={"roles": READERS}, tags=["feeds"])
async def list_ours(
    *, db: Database, actor: Actor, source: str, cursor: Cursor = None, limit: Limit = 100
) -> Page[acknowledge.Unposted]:
    """What began with us and the source has not acknowledged, oldest first: it stands over the source's snapshots."""
    source_id = await own_source(db, actor, source)
    after = read_cursor(cursor, tuple[datetime, str])
    found = await acknowledge.waiting(db, source_id=source_id, after=after, limit=limit + 1)
    shown = found[:limit]
    more = write_cursor((shown[-1].occurred_at, shown[-1].id)) if len(found) > limit else None
    return Page(shown, more)


@get("/v1/feeds", opt={"roles": READERS}, tags=["feeds"])
async def list_feeds(
    *,
    db: Database,
    actor: Actor,
    source: str | None = None,
    wanted: Annotated[str | None, QueryParameter(name="state", description="staged, applying, applied, …")] = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Page[look.Feed]:
    """Deliveries that the key may see, the newest first."""
    before = read_cursor(cursor, int)
    found = await look.listed(db, sees=sees_of(actor), source=source, state=wanted, before=before, limit=limit + 1)
    shown = found[:limit]
    return Page(shown, write_cursor(shown[-1].id) if len(found) > limit else None)


@get("/v1/feeds/{feed_id:int}", opt={"roles": READERS}, tags=["feeds"])
async def get_feed(*, db: Database, actor: Actor, feed_id: int, cursor: Cursor = None, limit: Limit = 100) -> FeedView:
    """A feed: what it said, its parts with what the gates measured, and the rows that were refused."""
    sees = sees_of(actor)
    found = await look.feed(db, feed_id=feed_id, sees=sees)
    after = read_cursor(cursor, tuple[int, str]) or (0, "")
    rows = await look.refusals(db, feed_id=feed_id, after=after, limit=limit + 1)
    shown = list(rows[:limit])
    more = write_cursor((shown[-1].line, shown[-1].field)) if len(rows) > limit else None
    return FeedView(found, await look.parts(db, feed_id=feed_id, sees=sees), Page(shown, more))


@post(
    "/v1/feeds/{feed_id:int}/revert", status_code=200, opt={"roles": frozenset({"approver", "admin"})}, tags=["feeds"]
)
async def revert_part(*, db: Database, cache: Cache, actor: Actor, feed_id: int, data: RevertBody) -> Reverted:
    """A person's yes to taking a location's baseline back; with the second person's it is done."""
    await look.feed(db, feed_id=feed_id, sees=sees_of(actor))
    part = await look.part(db, feed_id=feed_id, location=data.location)
    access.require_location(actor, part.location_id, data.location)
    done = await apply.revert(db, baseline_id=part.baseline_id, who=govern.person_of(actor), why=data.why)
    if done is None:
        return Reverted(False, 0, 0)
    for step in ("broker", "project"):
        await cache.wake(step)
    return Reverted(True, done["keys"], done["units"])


@get("/v1/holds", opt={"roles": frozenset({"associate", "planner", "operator", "approver", "admin"})}, tags=["holds"])
async def list_holds(*, db: Database, actor: Actor, cursor: Cursor = None, limit: Limit = 100) -> Page[holds.Held]:
    """Units on hand that may not be sold, at the locations that the key sees."""
    after = read_cursor(cursor, int) or 0
    found = await holds.listed(db, locations=locations_seen(actor), after=after, limit=limit + 1)
    shown = found[:limit]
    return Page(shown, write_cursor(shown[-1].id) if len(found) > limit else None)


@post(
    "/v1/holds/{hold_id:int}/release", status_code=200, opt={"roles": frozenset({"associate", "approver", "admin"})},
    tags=["holds"],
)  # fmt: skip
async def release_hold(
    *, db: Database, cache: Cache, actor: Actor, now: datetime, hold_id: int, data: HoldRelease
) -> HoldReleased:
    """Units under a hold may be sold again."""
    units = await holds.release(
        db, hold_id=hold_id, actor=actor, why=data.why, now=now, quantity=data.quantity, cache=cache
    )
    return HoldReleased(hold_id, units)


routes: list[Any] = [
    send_baseline, send_posted, send_movements, list_ours, list_feeds, get_feed, revert_part, list_holds, release_hold,
]  # fmt: skip
