"""Every job, its clock and its limit, on one screen. A job carries ids; what it has to do is found by its rows.

arq runs what has a clock; resident loops follow wake-ups. Either may be lost at any moment: the sweeper finds the rows.
"""

import asyncio
import contextlib
import os
import random
import socket
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import msgpack
import structlog
from arq import cron
from arq.connections import RedisSettings
from arq.worker import Worker
from redis.exceptions import RedisError

from oms import access
from oms import morning as the_morning
from oms.cache import Cache
from oms.db import START_SECONDS_MAX, Database
from oms.deliver import deliver
from oms.errors import Conflict
from oms.flows import broker, fulfill, govern, posts, reconcile, reserve, schedule
from oms.flows.broker import crew, kept, online, policy, what_if
from oms.flows.fulfill import answers, collect, handoff, take_away
from oms.flows.ingest import acknowledge, apply, messages
from oms.flows.network import follow as follow_network
from oms.flows.network import rules
from oms.flows.order import change, updates
from oms.flows.order.parked import unpark_lines
from oms.flows.promise import asked, overdue
from oms.flows.push import outbox
from oms.flows.push.sender import follow as follow_channel
from oms.flows.push.sender import follow_touched
from oms.flows.settlement import waiting as settlements
from oms.flows.stock import plan, writeoff
from oms.settings import Settings

log = structlog.get_logger("oms.worker")

SWEEP_SECONDS = 10
DUE_SECONDS = 1.0
"""The longest that an order waits to be decided at once where its wake-up was lost."""
NEVER_MINUTES = 100_000
"""More than a day has."""
PUSHES_KEPT_DAYS = 30
UPDATES_KEPT_DAYS = 90
POSTS_KEPT_DAYS = 90

Context = dict[str, Any]


def clock() -> datetime:
    """Now, in UTC."""
    return datetime.now(UTC)


async def expire(ctx: Context) -> int:
    """Reservations past their time are given back, by the database's clock."""
    expired = await reserve.expire_due(ctx["db"])
    if expired:
        await ctx["cache"].wake("project")
    return expired


async def sweep(ctx: Context) -> None:
    """Whatever a lost wake-up or a killed worker left is found by its rows and taken up again; what fails hurts itself."""
    db, cache, now = ctx["db"], ctx["cache"], clock()
    for left in await apply.unfinished(db):
        await _safely(f"feed {left.feed_id}", apply.apply(db, feed_id=left.feed_id, who="oms"))
    for what, work in (
        ("runs", broker.resume(db, who="oms", now=now, cache=cache)),
        ("network", follow_network(db)),
        ("rules", rules.follow(db, now=now)),
        ("parked messages", messages.replay_parked(db, who="oms")),
        ("parked lines", unpark_lines(db)),
        ("relief", fulfill.relieve(db, who="oms", now=now, cache=cache)),
        ("taken away", take_away.end_taken(db, now=now, cache=cache)),
        ("handoffs", handoff.send_due(db, now=now, chance=random.random)),
        ("answers", answers.read_folders(db, now=now, cache=cache)),
        ("unacknowledged", handoff.alarm(db, now=now)),
        ("write-offs", writeoff.settle_asked(db, now=now)),
        ("reminders", collect.remind(db, now=now)),
        ("escalation", govern.escalate(db, now=now)),
        ("announcements", govern.announce_due(db, deliver=deliver, now=now, chance=random.random)),
        ("updates", updates.tell_due(db, deliver=deliver, now=now, chance=random.random)),
    ):
        await _safely(what, work)
    await cache.wake("project")


async def take_posted(db: Database, source: str, references: Sequence[str], at: datetime) -> None:
    """What a source says in its answer that it has posted of ours."""
    await acknowledge.posted(db, source=source, references=references, at=at, who="oms")


async def watch(ctx: Context) -> None:
    """Gaps in numbers, snapshots that are too old and receipts that are overdue become exceptions; what waits is looked at."""
    db, now, settings = ctx["db"], clock(), ctx["settings"]
    await messages.gaps(db, before=now - timedelta(seconds=settings.sequence_grace_seconds))
    await schedule.raise_stale(db, now=now)
    await rules.share(db, ctx["cache"], now=now)
    await overdue.watch(db, now=now)
    await plan.plan(db, now=now)
    await posts.alarm(db, now=now)
    await settlements.watch(db)
    await ctx["cache"].wake("project")


async def give_up(ctx: Context, *, now: datetime | None = None) -> None:
    """What stays open longer than its policy lets it is cancelled; its channel is told, days before where it says so."""
    for late in await policy.too_late(ctx["db"], now=now or clock()):
        with contextlib.suppress(Conflict):
            if late.on is not None:
                await change.announce_cancel(
                    ctx["db"], order_id=late.order_id, lines=late.lines, why=late.why, on=late.on, who="oms"
                )
            else:
                await change.cancel(ctx["db"], order_id=late.order_id, lines=late.lines, why=late.why, who="oms")


async def recall(ctx: Context, *, now: datetime | None = None) -> None:
    """Work that nobody accepted in the time that its order's policy gives goes elsewhere."""
    now = now or clock()
    for late in await policy.unaccepted(ctx["db"], now=now):
        with contextlib.suppress(Conflict):  # it was accepted, cancelled or rejected meanwhile
            await fulfill.reject(
                ctx["db"], fulfillment=late.fulfillment_id, lines=[], stock="keep", whole=late.why, actor=access.house,
                now=now, cache=ctx["cache"],
            )  # fmt: skip


async def verify(ctx: Context) -> int:
    """The ledger is folded again and compared; a difference is an exception."""
    return await reconcile.watch(ctx["db"])


async def mornings(ctx: Context) -> None:
    """Each source's morning, once on each of its days, at its local time; one beside another waits its turn."""
    db, now = ctx["db"], clock()
    for source in await schedule.mornings_due(db, now=now):
        with contextlib.suppress(Conflict):
            await the_morning.morning(db, ctx["cache"], ctx["settings"], who="schedule", clock=clock, source=source)


async def broker_now(ctx: Context) -> None:
    """What is open is brokered in one plan when its channel says: its own minutes, or every N for what was due at once."""
    settings: Settings = ctx["settings"]
    now = clock()
    minute, every = now.hour * 60 + now.minute + 1, settings.broker_every_minutes or NEVER_MINUTES
    if await schedule.anything_open(ctx["db"], minute=minute, every=every):
        await _broker(ctx, which=broker.Which(minute=minute, every=every))


async def _broker(ctx: Context, *, which: broker.Which) -> None:
    settings: Settings = ctx["settings"]
    await broker.run(
        ctx["db"], who="oms", now=clock(), seconds=settings.broker_seconds, cache=ctx["cache"], which=which,
        with_crew=settings.broker_crew,
    )  # fmt: skip


async def reprice(ctx: Context) -> None:
    """What stock and work are worth to the orders to come, where any are decided at once."""
    if await schedule.decides_at_once(ctx["db"]):
        await broker.reprice(ctx["db"], who="oms", now=clock(), seconds=ctx["settings"].broker_seconds)


async def forget(ctx: Context) -> None:
    """Old answers, enquiries and pushes are dropped."""
    await govern.forget(ctx["db"], now=clock())
    settings: Settings = ctx["settings"]
    await asked.forget(ctx["db"], before=clock() - timedelta(days=settings.enquiries_kept_days))
    await kept.forget(ctx["db"], before=clock() - timedelta(days=settings.runs_kept_days))
    await posts.forget(ctx["db"], before=clock() - timedelta(days=POSTS_KEPT_DAYS))
    await updates.forget(ctx["db"], before=clock() - timedelta(days=UPDATES_KEPT_DAYS))
    await outbox.prune(ctx["db"], before=clock() - timedelta(days=PUSHES_KEPT_DAYS))


JOBS = [
    # what, when, at most how long
    cron(expire, second=set(range(0, 60, 5)), timeout=30, keep_result=0),
    cron(sweep, second=set(range(0, 60, SWEEP_SECONDS)), timeout=600, keep_result=0, run_at_startup=True),
    cron(mornings, second=1, timeout=3600, keep_result=0),
    cron(broker_now, second=20, timeout=3600, keep_result=0),
    cron(watch, minute=set(range(0, 60, 5)), second=40, timeout=120, keep_result=0),
    cron(verify, minute=set(range(2, 60, 5)), second=50, timeout=600, keep_result=0),
    cron(recall, second=30, timeout=300, keep_result=0),
    cron(give_up, minute=33, second=30, timeout=600, keep_result=0),
    cron(reprice, hour={4, 10, 16, 22}, minute=7, second=15, timeout=3600, keep_result=0),
    cron(forget, hour=3, minute=17, second=0, timeout=600, keep_result=0),
]


async def follow_due(ctx: Context) -> None:
    """Orders that are due at once are decided, those of one moment together; very many of them in one plan."""
    known = online.Known()
    while True:
        await ctx["cache"].wait(["broker"], DUE_SECONDS)
        await _safely("orders at once", _decide_due(ctx, known))


async def _decide_due(ctx: Context, known: online.Known) -> None:
    if await the_morning.is_on(ctx["db"]):
        return  # it plans what it captured, and all else that is open, in one
    if await online.decide_due(ctx["db"], known, who="oms", now=clock(), cache=ctx["cache"]) is None:
        await online.forget_due(ctx["db"])
        await _broker(ctx, which=broker.Which(minute=0, every=1))  # all but what waits for the morning


async def follow_arrivals(ctx: Context) -> None:
    """Feeds and messages that came are taken up soon."""
    while True:
        if await ctx["cache"].wait(["ingest", "parked"], SWEEP_SECONDS) is not None:
            await _safely("arrivals", sweep(ctx))


async def follow_posts(ctx: Context) -> None:
    """Sources are told what began with us, each at its own pace: a slow one holds up nobody."""
    under_way: dict[str, asyncio.Task[None]] = {}
    try:
        while True:
            with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                for code in await posts.sources_due(ctx["db"]):
                    if code not in under_way or under_way[code].done():
                        work = posts.send_due(
                            ctx["db"], acknowledge=take_posted, now=clock(), chance=random.random, source=code
                        )
                        under_way[code] = asyncio.create_task(_safely(f"posts to {code}", work))
            await asyncio.sleep(SWEEP_SECONDS)
    finally:
        for task in under_way.values():
            task.cancel()


async def let_rest(hand: crew.Hand) -> None:
    """What a helper remembers of a run is dropped when it is over."""
    while True:
        await asyncio.sleep(SWEEP_SECONDS)
        hand.rest()


async def follow_what_ifs(ctx: Context) -> None:
    """What-ifs are worked on one after the other, beside everything else; those that a lost worker left, too."""
    while True:
        await _safely("what-ifs", what_if.work(ctx["db"], clock=clock))
        await ctx["cache"].wait(["what-if"], SWEEP_SECONDS)


async def _safely(what: str, work: Coroutine[Any, Any, Any]) -> None:
    try:
        await work
    except Exception as error:
        log.warning("a job failed; its rows are found again", job=what, error=repr(error))


async def follow_channels(ctx: Context) -> None:
    """One loop per channel that is told something; new channels get theirs within the sweep's time."""
    loops: dict[str, asyncio.Task[None]] = {}
    try:
        while True:
            codes = await schedule.told_channels(ctx["db"])
            for code in set(codes) - {c for c, t in loops.items() if not t.done()}:
                loops[code] = asyncio.create_task(follow_channel(ctx["db"], ctx["cache"], channel=code, clock=clock))
            for code in loops.keys() - set(codes):
                loops.pop(code).cancel()
            await asyncio.sleep(SWEEP_SECONDS)
    finally:
        for task in loops.values():
            task.cancel()


async def run(settings: Settings, *, ready: Callable[[], None] | None = None) -> None:
    """The worker: jobs with a clock and resident loops, until cancelled."""
    db = await Database.open(
        settings.database_url, connections_max=settings.database_connections_max, patience_seconds=START_SECONDS_MAX
    )
    cache = await Cache.open(settings.redis_url)
    hand = crew.Hand(settings.redis_url, f"{socket.gethostname()}:{os.getpid()}")
    ctx: Context = {"db": db, "cache": cache, "settings": settings}
    worker = Worker(
        functions=[expire, sweep, mornings, broker_now, watch, recall, give_up, verify, reprice, forget], cron_jobs=JOBS, ctx=ctx,
        redis_settings=RedisSettings.from_dsn(settings.redis_url), handle_signals=False, keep_result=0, max_tries=1,
        job_serializer=msgpack.packb, job_deserializer=lambda raw: msgpack.unpackb(raw, raw=False),
        health_check_interval=30, queue_name="oms:jobs",
    )  # fmt: skip
    helper = Worker(
        functions=[crew.plan_task], ctx={"hand": hand}, redis_settings=RedisSettings.from_dsn(settings.redis_url),
        handle_signals=False, keep_result=0, max_tries=1, max_jobs=1, job_timeout=3600, poll_delay=0.05,
        job_serializer=msgpack.packb, job_deserializer=lambda raw: msgpack.unpackb(raw, raw=False),
        queue_name=crew.QUEUE,
    )  # fmt: skip
    loops = [
        asyncio.create_task(helper.async_run()),
        asyncio.create_task(let_rest(hand)),
        asyncio.create_task(follow_touched(db, cache, clock=clock)),
        asyncio.create_task(follow_due(ctx)),
        asyncio.create_task(follow_arrivals(ctx)),
        asyncio.create_task(follow_channels(ctx)),
        asyncio.create_task(follow_what_ifs(ctx)),
        asyncio.create_task(follow_posts(ctx)),
    ]
    try:
        if ready is not None:
            ready()
        await worker.async_run()
    finally:
        for task in loops:
            task.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        hand.close()
        for one in (helper, worker):
            with contextlib.suppress(RedisError):  # it may be gone already
                await one.close()
        await cache.close()
        await db.close()
