"""Pushes as rows: made before anything is sent, leased by who sends, resent with the same id and body.

A sku is in one push at a time, and counts as told from the moment that its push is made: the push is certain to
arrive in the end, or to be overtaken by a reset.
"""

import random
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from oms.db import Connection, Database, Sql
from oms.errors import BadInput, Conflict, NotFound
from oms.record import Step, Trouble, keep, raise_exceptions, settle_exceptions

sql = Sql("push")

LEASE_SECONDS = 30.0
"""A push whose sender died is taken up again after this."""
ANSWER_SECONDS_MAX = 20.0
"""How long a connector may take for one push: well within the lease."""
BACKOFF_SECONDS = 1.0
BACKOFF_SECONDS_MAX = 3600.0
"""Attempts of a push are at most so far apart: the first bound doubles with each attempt, and chance takes a part of it."""
ATTEMPTS_MIN = 14
AGE_DAYS_MIN = 7
"""A push that is never answered dies after both, not before."""
BREAKS_AT = 5
"""So many failures in a row, and nobody calls the channel for a time that doubles from 1 to 60 s."""
BATCHES_MAX = 64
"""Batches that one transaction prepares."""


class Target(msgspec.Struct, frozen=True):
    """A channel as its pushes need it."""

    channel_id: int
    code: str
    kind: str
    mode: str
    reset_minutes: int
    settings: dict[str, Any]
    captured_until: datetime | None
    reset_at: datetime | None
    reset_due: bool


class Named(msgspec.Struct, frozen=True):
    """A channel by id and code."""

    channel_id: int
    code: str


class Taken(msgspec.Struct, frozen=True):
    """A push that is leased to its sender; `attempts` is the fence of the lease."""

    push_id: UUID
    channel_id: int
    mode: str
    as_of: datetime | None
    attempts: int
    made_at: datetime
    age_days: float


class Item(msgspec.Struct, frozen=True):
    """One sku of a push: the absolute value, and where it is told as a difference, that."""

    sku: str
    quantity: int
    delta: int | None
    version: int


class Owed(msgspec.Struct, frozen=True):
    """Pushes not done, dead ones, and the seconds until one may be sent (None: none waits)."""

    due: int
    dead: int
    seconds: float | None


class Standing(msgspec.Struct, frozen=True):
    """Whose push it is, and its state."""

    channel: str
    state: str


class Listed(msgspec.Struct, frozen=True):
    """A push as people see it."""

    push_id: UUID
    channel: str
    mode: str
    as_of: datetime | None
    state: str
    attempts: int
    not_before: datetime
    made_at: datetime
    done_at: datetime | None
    answer: str | None
    skus: int


channel_ids = sql.rows("channel_ids", Named)
read_channel = sql.one("channel", Target)
take_channel = sql.one("take_channel", Target)
mark_reset = sql.run("ask_reset")
begin_reset = sql.rows("begin_reset", UUID)
make_pushes = sql.rows("make_pushes", UUID)
take_push = sql.maybe("take_push", Taken)
read_items = sql.rows("items", Item)
end_push = sql.run("end_push")
recovered = sql.run("recovered")
postpone_push = sql.run("postpone_push")
pause_channel = sql.run("pause_channel")
count_failure = sql.run("count_failure")
bury_push = sql.run("bury_push")
take_attempt = sql.maybe("take_attempt", UUID)
halve_push = sql.run("halve_push")
read_owed = sql.one("waiting", Owed)
count_due = sql.one("count_due", int)
replay_push = sql.run("replay_push")
list_pushes = sql.rows("list_pushes", Listed)
push_of = sql.maybe("push_of", Standing)
prune_pushes = sql.run("prune_pushes")


async def channels_of(db: Database, codes: Sequence[str] | None) -> list[Named]:
    """The channels that are told anything, all or the named ones; NotFound where a named one is not among them."""
    async with db.connection() as connection:
        found = await channel_ids(connection, codes=None if codes is None else list(codes))
    missing = sorted(set(codes or ()) - {c.code for c in found})
    if missing:
        raise NotFound(f"no channel that is on and is told anything has the code {', '.join(missing)}")
    return found


async def ask_reset(db: Database, *, channels: Sequence[str], who: str) -> None:
    """The next push of each of these channels carries everything."""
    async with db.transaction() as tx:
        await mark_reset(tx, codes=list(channels))
        await keep(tx, who=who, steps=[Step(kind="channel", id=code, step="reset asked") for code in channels])


async def prepare(db: Database, *, channel_id: int, batch_max: int, has_guard: bool, now: datetime) -> list[UUID]:
    """Makes pushes of what is due, at most BATCHES_MAX of them, in one transaction; gives their ids.

    Differences are told only where the channel works at once and has a guard against doubling.
    """
    async with db.transaction() as tx:
        channel = await take_channel(tx, channel_id=channel_id)
        at_once = channel.mode == "delta"
        every = timedelta(minutes=channel.reset_minutes)
        if channel.reset_due or (not at_once and (channel.reset_at is None or channel.reset_at + every <= now)):
            overtaken = await begin_reset(tx, channel_id=channel_id, now=now)
            await settle_exceptions(
                tx, who="oms", resolution="Overtaken by a reset.",
                of=[("push_dead", f"push {push_id}") for push_id in overtaken],
            )  # fmt: skip
        made = await make_pushes(
            tx, channel_id=channel_id, is_absolute=True, changed=at_once and not has_guard,
            as_of=channel.captured_until, batch=batch_max, limit=batch_max * BATCHES_MAX,
        )  # fmt: skip
        if at_once and has_guard:
            made += await make_pushes(
                tx, channel_id=channel_id, is_absolute=False, changed=True, as_of=None, batch=batch_max,
                limit=batch_max * BATCHES_MAX,
            )  # fmt: skip
    return made


async def take(db: Database, *, channel_id: int) -> tuple[Taken, list[Item]] | None:
    """Leases the next push of a channel that may be sent, with what it says; None when none may be."""
    async with db.transaction() as tx:
        push = await take_push(tx, channel_id=channel_id, lease_seconds=LEASE_SECONDS)
        return None if push is None else (push, await read_items(tx, push_id=push.push_id))


async def delivered(db: Database, push: Taken, *, answer: str) -> None:
    """The channel has it."""
    async with db.transaction() as tx:
        await end_push(tx, push_id=push.push_id, answer=answer[:2000])
    async with db.transaction() as tx:  # by itself: a channel's row is locked before its stock, nowhere after it
        await recovered(tx, channel_id=push.channel_id)


async def unanswered(
    db: Database, push: Taken, *, channel: str, reason: str, chance: Callable[[], float] = random.random
) -> bool:
    """Nobody knows whether the channel has it: again later with the same id. False when it was tried for too long."""
    async with db.transaction() as tx:
        await count_failure(tx, channel_id=push.channel_id, breaks_at=BREAKS_AT, jitter=chance())
        if push.attempts >= ATTEMPTS_MIN and push.age_days >= AGE_DAYS_MIN:
            await _bury(tx, push, channel=channel, reason=f"no answer after {push.attempts} attempts: {reason}")
            return False
        seconds = chance() * min(BACKOFF_SECONDS_MAX, BACKOFF_SECONDS * 2.0 ** min(push.attempts - 1, 20))
        await postpone_push(tx, push_id=push.push_id, attempts=push.attempts, seconds=seconds, answer=reason[:2000])
    return True


async def slowed(db: Database, push: Taken, *, seconds: float, reason: str) -> None:
    """The channel asks for quiet: nobody calls it for so long, and then the same push comes again."""
    async with db.transaction() as tx:
        await pause_channel(tx, channel_id=push.channel_id, seconds=seconds)
        await postpone_push(tx, push_id=push.push_id, attempts=push.attempts, seconds=seconds, answer=reason[:2000])


async def refused(db: Database, push: Taken, *, channel: str, reason: str, skus: int, is_content: bool) -> bool:
    """The channel will never take it. Where the content is at fault, it is halved until what is refused stands alone.

    Gives whether it is dead (else two halves are due).
    """
    async with db.transaction() as tx:
        if is_content and skus > 1:
            if await take_attempt(tx, push_id=push.push_id, attempts=push.attempts):
                await halve_push(tx, push_id=push.push_id, answer=f"halved: {reason}"[:2000])
            return False
        await _bury(tx, push, channel=channel, reason=reason)
    return True


async def _bury(tx: Connection, push: Taken, *, channel: str, reason: str) -> None:
    if not await bury_push(tx, push_id=push.push_id, attempts=push.attempts, answer=reason[:2000]):
        return
    trouble = Trouble(
        kind="push_dead", subject=f"push {push.push_id}", payload={"push_id": str(push.push_id), "channel": channel},
        detail=f"Channel {channel} does not take push {push.push_id}: {reason[:500]}. Its skus stay as they were told "
        "before. Repair the cause, then replay it or push with a reset.",
    )  # fmt: skip
    await raise_exceptions(tx, [trouble])


async def replay(db: Database, *, push_id: UUID, who: str, channels: Sequence[int] | None = None) -> str:
    """A dead push is due again, with the same id and body; gives its channel's code.

    NotFound where it is not there (or not of `channels`, where they are given), Conflict where it is not dead.
    """
    async with db.transaction() as tx:
        push = await push_of(tx, push_id=push_id, channels=None if channels is None else list(channels))
        if push is None:
            raise NotFound(f"no push has the id {push_id}")
        if not await replay_push(tx, push_id=push_id):
            raise Conflict(f"push {push_id} is {push.state}: only a dead push is replayed")
        await keep(tx, who=who, steps=[Step(kind="push", id=str(push_id), step="replayed")])
        await settle_exceptions(tx, who=who, resolution="Replayed.", of=[("push_dead", f"push {push_id}")])
    return push.channel


async def prune(db: Database, *, before: datetime, limit: int = 1_000) -> int:
    """Forgets up to `limit` pushes that were done before a moment; gives how many."""
    if limit < 1:
        raise BadInput("limit: at least 1 is expected")
    async with db.transaction() as tx:
        return await prune_pushes(tx, before=before, limit=limit)


async def listed(
    db: Database,
    *,
    limit: int,
    channel: str | None = None,
    state: str | None = None,
    before: UUID | None = None,
    channels: Sequence[int] | None = None,
) -> list[Listed]:
    """Pushes, the newest first; those before `before`, of these channels where they are given."""
    async with db.connection() as connection:
        return await list_pushes(
            connection, channel=channel, state=state, before=before, limit=limit,
            channels=None if channels is None else list(channels),
        )  # fmt: skip
