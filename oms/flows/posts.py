"""What began with us is posted to the source that owns the quantity, in order, until it is there and acknowledged."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from connectors.channels import Answer, Refused, SettingsWrong, SlowDown
from connectors.posts import Batch, Moved, Posted
from connectors.posts.opened import BATCH_MAX, poster_of
from oms.db import Database, Sql
from oms.errors import Conflict, NotFound
from oms.record import Step, Trouble, keep, raise_exceptions, settle_exceptions

sql = Sql("posts")

LEASE_SECONDS = 60.0
RETRY_SECONDS_FIRST = 5.0
RETRY_SECONDS_MAX = 3600.0
GIVEN_UP_AFTER = timedelta(days=7)
ATTEMPTS_MIN = 14
"""What nobody takes is given up after this many attempts, and not before it is a week old."""
BATCHES_MAX = 20
"""Batches that a source is told in one round: then it is another's turn."""
ACKNOWLEDGE_MINUTES = 1440

Acknowledge = Callable[[Database, str, Sequence[str], datetime], Awaitable[Any]]
"""Takes what a source (by its code) has posted of ours, at a moment."""


class _Told(msgspec.Struct, frozen=True):
    source_id: int
    code: str
    settings: dict[str, Any]


class _Taken(msgspec.Struct, frozen=True):
    batch_id: UUID
    attempts: int
    made_at: datetime


class _Late(msgspec.Struct, frozen=True):
    source: str
    posts: int
    since: datetime
    minutes: int


class Post(msgspec.Struct, frozen=True):
    """A movement of ours as its source is told of it: waiting, due (in a batch), sent, acknowledged or dead."""

    post_id: int
    source: str
    id: str
    batch_id: UUID | None
    sku: str
    location: str
    kind: str
    quantity: int
    hold: str | None
    held: int
    occurred_at: datetime
    reason: str | None
    about: str | None
    state: str
    attempts: int | None
    answer: str | None
    sent_at: datetime | None
    acknowledged_at: datetime | None


class Counted(msgspec.Struct, frozen=True):
    """How many posts of a source are in a state and not acknowledged."""

    source: str
    state: str
    posts: int


sources_posted_to = sql.rows("sources_posted_to", _Told)
take_source = sql.one("take_source", bool)
take_batch = sql.maybe("take_batch", _Taken)
make_batch = sql.one("make_batch", int)
posts_of = sql.rows("posts_of", Moved)
settle_batch = sql.run("settle_batch")
late_posts = sql.rows("late_posts", _Late)
in_time = sql.rows("in_time", str)
posts_page = sql.rows("posts_page", Post)
posts_counted = sql.rows("posts_counted", Counted)
replay_batches = sql.rows("replay_batches", UUID)
has_batch = sql.one("has_batch", bool)
forget_posts = sql.run("forget_posts")
forget_batches = sql.run("forget_batches")


async def send_due(
    db: Database, *, acknowledge: Acknowledge, now: datetime, chance: Callable[[], float], source: str | None = None
) -> int:
    """Tells sources what is due, outside any transaction; gives how many movements arrived.

    A source has one batch under way, so that it hears of a key's movements in their order; what a killed process left is
    taken up after its lease, as the same batch. A source that is slow or down holds up nobody else.
    """

    async def tell(one: _Told) -> int:
        arrived = 0
        for _ in range(BATCHES_MAX):
            sent = await _send_next(db, one, acknowledge=acknowledge, now=now, chance=chance)
            arrived += sent
            if not sent:
                break
        return arrived

    async with db.connection() as tx:
        told = [s for s in await sources_posted_to(tx) if source in (None, s.code)]
    return sum(await asyncio.gather(*map(tell, told)))


async def sources_due(db: Database) -> list[str]:
    """Sources, by code, that have something to be told."""
    async with db.connection() as tx:
        return [s.code for s in await sources_posted_to(tx)]


async def _send_next(
    db: Database, told: _Told, *, acknowledge: Acknowledge, now: datetime, chance: Callable[[], float]
) -> int:
    """Sends the oldest batch of a source, or a new one; how many movements arrived."""
    async with db.transaction() as tx:
        if not await take_source(tx, source_id=told.source_id):
            return 0
        await make_batch(tx, source_id=told.source_id, limit=told.settings.get("batch_max", BATCH_MAX), now=now)
        taken = await take_batch(tx, source_id=told.source_id, now=now, lease_seconds=LEASE_SECONDS)
        if taken is None:
            return 0
        movements = await posts_of(tx, batch_id=taken.batch_id)
    batch = Batch(str(taken.batch_id), told.code, taken.made_at, tuple(movements))
    answer = await _post(told, batch)
    state, wait = after_attempt(taken, answer, now=now, chance=chance())
    text = answer.answer if isinstance(answer, Posted) else getattr(answer, "reason", "")
    async with db.transaction() as tx:
        await settle_batch(
            tx, batch_id=taken.batch_id, attempts=taken.attempts, state=state, answer=text[:500],
            not_before=now + timedelta(seconds=wait), now=now,
        )  # fmt: skip
        if state == "dead":
            await raise_exceptions(tx, [_dead(told, batch, text)])
    if not isinstance(answer, Posted):
        return 0
    posted = answer.posted
    if posted is None and told.settings.get("acknowledges_on_receipt", False):
        posted = tuple(m.id for m in movements)
    if posted:
        await acknowledge(db, told.code, posted, now)
    return len(movements)


async def _post(told: _Told, batch: Batch) -> Posted | Answer:
    try:
        poster = poster_of(told.settings)
    except SettingsWrong as wrong:
        return Refused(f"the source's posts are set wrong: {wrong}", is_content=False)
    try:
        return await poster.post(batch)
    finally:
        await poster.close()


def after_attempt(taken: _Taken, answer: Posted | Answer, *, now: datetime, chance: float) -> tuple[str, float]:
    """The state of a batch after an attempt, and seconds until the next; capped exponential with full jitter."""
    if isinstance(answer, Posted):
        return "sent", 0.0
    is_old = taken.attempts >= ATTEMPTS_MIN and now - taken.made_at >= GIVEN_UP_AFTER
    if is_old or (isinstance(answer, Refused) and answer.is_content):
        return "dead", 0.0
    wait = chance * min(RETRY_SECONDS_MAX, RETRY_SECONDS_FIRST * 2.0 ** min(taken.attempts, 20))
    return "due", max(wait, answer.seconds if isinstance(answer, SlowDown) else 0.0)


def _dead(told: _Told, batch: Batch, answer: str) -> Trouble:
    return Trouble(
        kind="posts_dead", subject=batch.id,
        detail=f"{told.code} does not take {len(batch.movements)} movements of ours: {answer[:200]}. Later ones go on. Mend "
        f"the source or its posts, then POST /v1/posts/{batch.id}/replay.",
        payload={"source": told.code, "batch": batch.id},
    )  # fmt: skip


async def alarm(db: Database, *, now: datetime) -> int:
    """Sources that have not acknowledged in their time what they were sent become exceptions, until they have."""
    async with db.transaction() as tx:
        late = await late_posts(tx, now=now, minutes=ACKNOWLEDGE_MINUTES)
        await raise_exceptions(
            tx,
            [
                Trouble(
                    kind="posts_unacknowledged", subject=n.source,
                    detail=f"{n.source} has not acknowledged {n.posts} movements of ours within {n.minutes} minutes, the first "
                    f"sent {n.since.isoformat()}. They are applied again over its snapshots until it does: see "
                    f"GET /v1/posts?source={n.source}&state=sent, and have it post them.",
                    payload={"source": n.source, "posts": n.posts},
                )
                for n in late
            ],
        )  # fmt: skip
        over = await in_time(tx, sources=[n.source for n in late])
        await settle_exceptions(
            tx, who="oms", resolution="all was acknowledged", of=[("posts_unacknowledged", source) for source in over]
        )
    return len(late)


async def listed(
    db: Database,
    *,
    source: str | None,
    sources: Sequence[int] | None,
    state: str | None,
    before: int | None,
    limit: int,
) -> list[Post]:
    """Posts, newest first; `sources` are those that the caller sees."""
    async with db.connection() as tx:
        return await posts_page(
            tx, source=source, sources=None if sources is None else list(sources), state=state, before=before, limit=limit
        )  # fmt: skip


async def counted(db: Database) -> list[Counted]:
    """What each source has not acknowledged, by state."""
    async with db.connection() as tx:
        return await posts_counted(tx)


async def replay(db: Database, *, batch_id: UUID | None, source: str | None, who: str) -> int:
    """Dead batches are told again, under the same ids: one, or all of a source; gives how many.

    Raises Conflict where the one is not dead, NotFound where there is none.
    """
    async with db.transaction() as tx:
        again = await replay_batches(tx, batch_id=batch_id, source=source)
        if batch_id is not None and not again:
            if not await has_batch(tx, batch_id=batch_id):
                raise NotFound(f"no batch of posts has the id {batch_id}")
            raise Conflict("only what is dead is told again")
        await keep(tx, who=who, steps=[Step("post", str(one), "replayed") for one in again])
        await settle_exceptions(
            tx, who=who, resolution="told again", of=[("posts_dead", str(one)) for one in again]
        )  # fmt: skip
    return len(again)


async def forget(db: Database, *, before: datetime) -> int:
    """Drops what was acknowledged before a moment; gives how many."""
    async with db.transaction() as tx:
        dropped = await forget_posts(tx, before=before)
        await forget_batches(tx, before=before)
    return dropped
