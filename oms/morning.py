"""The morning, in order: baselines from the sources' folders, orders captured, brokering, push.

Every step is found by its rows: a morning that was killed is simply run again and goes on.
"""

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import structlog

from connectors.channels.webhook import WebhookChannel
from connectors.feeds import FileRefused
from connectors.feeds.folder import Delivery, Waiting, deliveries, set_aside
from connectors.feeds.movements import read_movements
from connectors.feeds.stream import Source as Stream
from connectors.feeds.tabular import Reader
from oms.cache import Cache
from oms.db import Database, Sql
from oms.errors import Conflict, Refusal
from oms.flows import broker, fulfill, schedule
from oms.flows.ingest import acknowledge, apply, messages, movement_file, stage
from oms.flows.order.capture import Tally, capture_from
from oms.flows.order.parked import unpark_lines
from oms.flows.order.said import read_orders
from oms.flows.push.sender import Pushed, push_all
from oms.settings import Settings

sql = Sql("morning")
log = structlog.get_logger()
Progress = Callable[[str, str, int, int | None], None]
"""step, phase, done, total."""
MORNING_LOCK = 7302
WAITING_SECONDS_MAX = 3600.0
"""How long a file may wait in its folder before a person is asked."""


class Folder(msgspec.Struct, frozen=True):
    """A source with a folder."""

    code: str
    folder: str


class Shop(msgspec.Struct, frozen=True):
    """A channel as the capture of its orders needs it."""

    channel_id: int
    code: str
    kind: str
    settings: dict[str, Any]
    captured_until: datetime | None


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery that was taken, or why not."""

    source: str
    name: str
    kind: str
    feed_id: int | None = None
    rows: int = 0
    refused: int = 0
    changed: int = 0
    parked: list[str] = []
    outcomes: dict[str, int] = {}
    trouble: str | None = None
    seconds: float = 0.0


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a morning did."""

    feeds: list[Taken]
    captured: dict[str, Tally]
    run: broker.Run | None
    pushed: list[Pushed]
    seconds: dict[str, float]
    troubles: list[str]
    waiting: list[str] = []
    """Files that are not complete, one sentence each."""
    waits_long: bool = False
    """Whether one of them has not changed for WAITING_SECONDS_MAX: its sender will hardly complete it."""

    @property
    def needs_a_person(self) -> bool:
        """Whether something was left for a person."""
        return bool(
            self.troubles
            or self.waits_long
            or any(f.trouble or f.parked or f.refused for f in self.feeds)
            or any(tally.refused for tally in self.captured.values())
        )


folders = sql.rows("folders", Folder)
shops = sql.rows("shops", Shop)
try_lock = sql.one("try_lock", bool)
unlock = sql.one("unlock", bool)
is_locked = sql.one("is_locked", bool)
analyze = sql.run("analyze")


async def is_on(db: Database) -> bool:
    """Whether a morning is running, in whatever process."""
    async with db.connection() as tx:
        return await is_locked(tx, lock=MORNING_LOCK)


@asynccontextmanager
async def alone(db: Database) -> AsyncIterator[None]:
    """One morning at a time, whatever process it runs in; raises Conflict."""
    async with db.connection() as tx:
        if not await try_lock(tx, lock=MORNING_LOCK):
            raise Conflict("A morning is running already. `oms morning` again when it is done.")
        try:
            yield
        finally:
            await unlock(tx, lock=MORNING_LOCK)


async def morning(
    db: Database,
    cache: Cache,
    settings: Settings,
    *,
    who: str,
    clock: Callable[[], datetime],
    source: str | None = None,
    progress: Progress | None = None,
) -> Report:
    """Runs the morning of all sources with a folder, or of one. Raises Conflict while another one runs."""
    seconds: dict[str, float] = {}
    troubles: list[str] = []

    @asynccontextmanager
    async def timed(step: str) -> AsyncIterator[Callable[[str, int, int | None], None]]:
        began = time.perf_counter()
        yield lambda phase, done, total: progress(step, phase, done, total) if progress else None
        seconds[step] = round(time.perf_counter() - began, 2)

    async with alone(db):
        began = clock()
        try:
            async with timed("baseline") as tell:
                feeds = await take_feeds(db, who=who, clock=clock, source=source, progress=tell)
                held_up = await waiting_files(db, source=source)
                await messages.replay_parked(db, who=who)
                await unpark_lines(db, who=who)
                await fulfill.relieve(db, who=who, now=clock())
                async with db.connection() as tx:
                    await analyze(tx)
            async with timed("capture") as tell:
                captured = await capture(db, who=who, clock=clock, troubles=troubles, progress=tell)
            async with timed("broker") as tell:
                await broker.resume(db, who=who, now=clock())
                run = await broker.run(
                    db,
                    who=who,
                    now=clock(),
                    seconds=settings.broker_seconds,
                    seed=settings.broker_seed,
                    progress=tell,
                    cache=cache,
                    with_crew=settings.broker_crew,
                )
            async with timed("push") as tell:
                pushed = await push_all(db, cache, now=clock(), reset=True, who=who, progress=tell)
        except Exception as error:
            failed = f"{type(error).__name__}: {error}"
            await schedule.keep(db, source=source, who=who, started_at=began, steps=seconds, failed=failed)
            raise
        await schedule.keep(db, source=source, who=who, started_at=began, steps=seconds)
    troubles += [f"{p.channel}: {p.trouble}" for p in pushed if p.trouble]
    return Report(
        feeds=feeds, captured=captured, run=run, pushed=pushed, seconds=seconds, troubles=troubles,
        waiting=[f"{code}: {w.path.name} waits, {w.reason}" for code, w in held_up],
        waits_long=any(w.age_seconds > WAITING_SECONDS_MAX for _, w in held_up),
    )  # fmt: skip


async def take_feeds(
    db: Database,
    *,
    who: str,
    clock: Callable[[], datetime],
    source: str | None,
    progress: Callable[[str, int, int | None], None] | None = None,
) -> list[Taken]:
    """Goes on with what was cut off, then takes the complete deliveries of the sources' folders."""
    taken: list[Taken] = []
    for left in await apply.unfinished(db):
        done = await apply.apply(db, feed_id=left.feed_id, who=who, progress=progress)
        taken.append(
            Taken(
                source=left.source,
                name="(resumed)",
                kind="baseline",
                feed_id=left.feed_id,
                rows=done.keys,
                changed=done.changed,
            )
        )
    async with db.connection() as tx:
        found = await folders(tx, source=source)
    ready = [(f.code, d) for f in found for d in deliveries(Path(f.folder))[0]]
    for kind in ("baseline", "movements"):
        for code, delivery in ready:
            if delivery.kind != kind:
                continue
            began = time.perf_counter()
            take = take_baseline if kind == "baseline" else take_movements
            try:
                one = await take(db, source=code, delivery=delivery, who=who, now=clock(), progress=progress)
            except (FileRefused, Refusal) as refused:
                one = Taken(source=code, name=delivery.path.name, kind=kind, trouble=str(refused))
            except Exception as error:  # it stays in its folder, and hurts only itself
                log.exception("a delivery cannot be taken", source=code, file=delivery.path.name)
                one = Taken(
                    source=code, name=delivery.path.name, kind=kind, trouble=f"failed: {type(error).__name__}: {error}"
                )
            else:
                set_aside(delivery)
            taken.append(msgspec.structs.replace(one, seconds=round(time.perf_counter() - began, 2)))
    return taken


async def waiting_files(db: Database, *, source: str | None) -> list[tuple[str, Waiting]]:
    """What lies in the sources' folders and is not taken, with its source."""
    async with db.connection() as tx:
        found = await folders(tx, source=source)
    return [(f.code, waiting) for f in found for waiting in deliveries(Path(f.folder))[1]]


async def take_baseline(
    db: Database,
    *,
    source: str,
    delivery: Delivery,
    who: str,
    now: datetime,
    progress: Callable[[str, int, int | None], None] | None = None,
) -> Taken:
    """One baseline file, from reading to in force."""
    said = delivery.sidecar
    assert said.as_of is not None
    stage.check_time(said.as_of, now)
    if said.posted:
        await acknowledge.posted(db, source=source, references=said.posted, at=said.as_of, who=who)
    staged = await stage.receive(
        db, source=source, reader=Reader(Stream(delivery.path), rows_expected=said.rows), name=delivery.path.name,
        as_of=said.as_of, scope="partial" if said.scope == "partial" else "full", watermark=said.watermark, who=who,
        now=now, progress=progress,
    )  # fmt: skip
    taken = Taken(
        source=source, name=delivery.path.name, kind="baseline", feed_id=staged.feed_id, rows=staged.rows,
        refused=staged.refused, parked=staged.parked, outcomes={staged.state: staged.keys},
    )  # fmt: skip
    if staged.state != "staged":
        return taken
    done = await apply.apply(db, feed_id=staged.feed_id, who=who, progress=progress, keys_total=staged.keys)
    return msgspec.structs.replace(taken, changed=done.changed, outcomes={"applied": done.keys})


async def take_movements(
    db: Database,
    *,
    source: str,
    delivery: Delivery,
    who: str,
    now: datetime,
    progress: Callable[[str, int, int | None], None] | None = None,
) -> Taken:
    """One file of movements; a killed one is read again, its messages act once."""
    outcomes: dict[str, int] = {}
    rows = refused = 0
    feed_id = await movement_file.begin(db, source=source, name=delivery.path.name, who=who)
    stream = Stream(delivery.path)
    try:
        for batch in read_movements(stream, rows_expected=delivery.sidecar.rows):
            results = await messages.take(db, source=source, messages=batch.messages, who=who, feed_id=feed_id)
            for result in results:
                outcomes[result.outcome] = outcomes.get(result.outcome, 0) + 1
            rows += len(batch.messages) + len(batch.refused)
            refused += len(batch.refused)
            await movement_file.keep_refusals(db, feed_id=feed_id, faults=batch.refused)
            if progress:
                progress("movements", batch.bytes_read, batch.bytes_total)
    except FileRefused as why:
        await movement_file.refuse(db, feed_id=feed_id, why=str(why), rows=rows)
        raise
    await movement_file.end(db, feed_id=feed_id, rows=rows, refused=refused, sha256=stream.sha256, totals=outcomes)
    return Taken(
        source=source, name=delivery.path.name, kind="movements", feed_id=feed_id, rows=rows, refused=refused,
        outcomes=outcomes,
    )  # fmt: skip


async def capture(
    db: Database,
    *,
    who: str,
    clock: Callable[[], datetime],
    troubles: list[str],
    progress: Callable[[str, int, int | None], None] | None = None,
) -> dict[str, Tally]:
    """Reads each channel's orders up to now; a channel that cannot be read hurts only itself."""
    async with db.connection() as tx:
        found = await shops(tx)
    captured: dict[str, Tally] = {}
    for shop in found:
        until = clock()
        try:
            rows, taken = await orders_of(shop, until=until)
            if rows is None:
                continue
            news, unreadable = read_orders(
                rows, channel_id=shop.channel_id, code=shop.code, at=until, who=f"{shop.code} by {who}"
            )
            if progress:
                progress(shop.code, 0, len(news))
            captured[shop.code] = await capture_from(
                db, channel_id=shop.channel_id, orders=news, unreadable=unreadable, until=until
            )
            for delivery in taken:
                set_aside(delivery)
        except Exception as error:
            log.warning("a channel's orders cannot be read", channel=shop.code, error=repr(error))
            troubles.append(f"{shop.code}: its orders cannot be read: {error}")
    return captured


async def orders_of(shop: Shop, *, until: datetime) -> tuple[Sequence[bytes | dict[str, Any]] | None, list[Delivery]]:
    """What a channel has captured since the last time: from its orders_url, or its orders_folder; None has neither."""
    if shop.settings.get("orders_url"):
        channel = WebhookChannel.of(shop.settings)
        try:
            return await channel.fetch_orders(since=shop.captured_until, until=until), []
        finally:
            await channel.close()
    if shop.settings.get("orders_folder"):
        ready = [d for d in deliveries(Path(shop.settings["orders_folder"]))[0] if d.kind == "orders"]
        rows = [line for d in ready for line in d.path.read_bytes().splitlines() if line.strip()]
        return rows, ready
    return None, []
