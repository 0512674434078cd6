"""A staged baseline comes into force, chunk by chunk in sku order, while reservations go on between the chunks."""

import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from oms import ledger, record
from oms.db import Connection, Database, Sql
from oms.errors import Conflict, NotFound
from oms.flows.ingest.parts import add_absent, feed_parts, keep_beside
from oms.flows.ingest.stage import Progress, close_feed, find_source

sql = Sql("ingest")

CHUNK_SECONDS = 0.025
"""What a chunk's locks should last; chunks grow and shrink towards it (50 ms is the promise)."""
CHUNK_KEYS_FIRST = 200
"""The first one makes the plans of its connection, which takes longer than its keys."""
CHUNK_KEYS_MIN = 200
"""Below this a chunk's own cost is most of it: less would lock hardly shorter and last for hours."""
CHUNK_KEYS_MAX = 8_000


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """What a feed changed. `variance_units` is what no known movement explains."""

    feed_id: int
    keys: int
    changed: int
    negative: int
    variance_units: int
    parts: int
    parked: int
    chunk_seconds_worst: float


class Finished(msgspec.Struct, frozen=True):
    """Parts that came into force with this, and those that still wait (a gate)."""

    parts: int
    waiting: int


class Difference(msgspec.Struct, frozen=True):
    """A key that a feed would change."""

    sku: str
    location: str
    was: int
    becomes: int


class DifferenceTotals(msgspec.Struct, frozen=True):
    """Keys that a feed names, those that it would change, and by how many units."""

    keys: int
    changed: int
    units_up: int
    units_down: int


class Unfinished(msgspec.Struct, frozen=True):
    """A feed whose chunks are not all applied."""

    feed_id: int
    source: str


class Part(msgspec.Struct, frozen=True):
    """The part of a feed that speaks of one location."""

    baseline_id: int
    feed_id: int
    location_id: int
    location: str
    source: str
    source_id: int
    scope: str
    state: str
    as_of: datetime
    previous_id: int | None
    in_force: bool
    numbers: dict[str, Any]


lock_parts = sql.rows("lock_parts", int)
begin_apply = sql.one("begin_apply", int)
pin_untouched = sql.run("pin_untouched")
pin_missing = sql.run("pin_missing")
finish_apply = sql.maybe("finish_apply", Finished)
unfinished_feeds = sql.rows("unfinished_feeds", Unfinished)
count_chunk = sql.run("count_chunk")
difference = sql.rows("difference", Difference)
difference_totals = sql.one("difference_totals", DifferenceTotals)
feed_to_apply = sql.maybe("feed_to_apply", str)
feed_cursor_now = sql.one("feed_cursor_now", int)
part_row = sql.maybe("part", Part)
release_part = sql.run("release_part")
dismiss_part = sql.run("dismiss_part")


async def apply(
    db: Database,
    *,
    feed_id: int,
    who: str,
    progress: Progress | None = None,
    keys_total: int | None = None,
    chunk_keys: int = CHUNK_KEYS_FIRST,
) -> Applied:
    """Brings the staged parts of a feed into force; a killed run goes on where its last chunk ended.

    Each chunk is one transaction over whole skus, so that each availability row is written once per feed.
    """
    async with db.transaction() as tx:
        source = await feed_to_apply(tx, feed_id=feed_id)
        if source is None:
            raise NotFound(f"There is no feed {feed_id} that waits to be applied.")
        await lock_parts(tx, feed_id=feed_id)
        await begin_apply(tx, feed_id=feed_id)
        await pin_untouched(tx, feed_id=feed_id)
        await pin_missing(tx, feed_id=feed_id)
    keys = changed = negative = variance = 0
    worst, size = 0.0, chunk_keys
    more = True
    while more:
        async with db.transaction() as tx:
            started = time.perf_counter()
            cursor = await feed_cursor_now(tx, feed_id=feed_id)
            after, done = await ledger.rebase(tx, feed_id=feed_id, after=cursor, keys=size, who=f"{source} by {who}")
            more = after > cursor
            chunk = {
                "keys": sum(d.keys for d in done), "changed": sum(d.changed for d in done),
                "negative": sum(d.negative for d in done), "variance_units": sum(d.variance_units for d in done),
            }  # fmt: skip
            if more:
                await count_chunk(tx, feed_id=feed_id, **chunk)
        seconds = time.perf_counter() - started
        if more:
            keys += chunk["keys"]
            changed += chunk["changed"]
            negative += chunk["negative"]
            variance += chunk["variance_units"]
            worst = max(worst, seconds)
            pace = min(2.0, max(0.5, CHUNK_SECONDS / max(seconds, 1e-4)))
            size = max(CHUNK_KEYS_MIN, min(CHUNK_KEYS_MAX, int(size * pace)))
            if progress:
                progress("apply", keys, keys_total)
    totals = {"applied_keys": keys, "changed": changed, "negative": negative, "variance_units": variance}
    async with db.transaction() as tx:
        finished = await finish_apply(tx, feed_id=feed_id)
        assert finished is not None
        if not finished.waiting:
            await close_feed(tx, feed_id=feed_id)
        await record.keep(tx, who=who, steps=[record.Step("feed", str(feed_id), "applied", detail=totals)])
    return Applied(
        feed_id=feed_id, keys=keys, changed=changed, negative=negative, variance_units=variance,
        parts=finished.parts, parked=finished.waiting, chunk_seconds_worst=worst,
    )  # fmt: skip


async def show(db: Database, *, feed_id: int, limit: int = 20) -> tuple[DifferenceTotals, list[Difference]]:
    """What a staged feed would change, without changing it; its rows are dropped afterwards."""
    async with db.transaction() as tx:
        totals = await difference_totals(tx, feed_id=feed_id)
        largest = await difference(tx, feed_id=feed_id, limit=limit)
        await close_feed(tx, feed_id=feed_id)
    return totals, largest


async def unfinished(db: Database) -> list[Unfinished]:
    """Feeds that a killed process left half-way; `apply` takes them up."""
    async with db.connection() as tx:
        return await unfinished_feeds(tx)


async def release(db: Database, *, baseline_id: int, who: str) -> bool:
    """One approver's yes to a parked part; with the second person's it is staged again and True is given.

    The caller then applies its feed. Raises Conflict when the part is not parked any more.
    """
    async with db.transaction() as tx:
        part = await _part(tx, baseline_id)
        if part.state != "parked":
            raise Conflict(f"The part for {part.location} of feed {part.feed_id} is {part.state}, not parked.")
        agreed = await record.two_people_agree(
            tx, act="baseline.release", subject=str(baseline_id), payload=part.numbers, who=who
        )
        step = "released" if agreed else "release asked"
        await record.keep(tx, who=who, steps=[record.Step("feed", str(part.feed_id), step, detail=part.location)])
        if agreed:
            await release_part(tx, baseline_id=baseline_id)
            # keys that came to be while it waited are absent from it, too
            source = await find_source(tx, part.source)
            await add_absent(tx, feed_id=part.feed_id, absent_is_zero=source.absent_is_zero)
            await keep_beside(
                tx, feed_id=part.feed_id, source_id=part.source_id, as_of=part.as_of, has_incoming=True,
                has_bins=source.sums_rows,
            )  # fmt: skip
            await record.settle_exceptions(
                tx, who=who, resolution="released by two people", of=[("feed_parked", str(baseline_id))]
            )
        return agreed


async def dismiss(db: Database, *, baseline_id: int, who: str, why: str) -> None:
    """A parked part is given up: what was in force stays."""
    async with db.transaction() as tx:
        part = await _part(tx, baseline_id)
        if not await dismiss_part(tx, baseline_id=baseline_id):
            raise Conflict(f"The part for {part.location} of feed {part.feed_id} is {part.state}, not parked.")
        await record.keep(
            tx, who=who, steps=[record.Step("feed", str(part.feed_id), "dismissed", why=why, detail=part.location)]
        )
        await record.settle_exceptions(tx, who=who, resolution=why, of=[("feed_parked", str(baseline_id))])
        left: dict[str, int] = dict(await feed_parts(tx, feed_id=part.feed_id))
        if not left.keys() & {"staged", "applying", "parked"}:
            await close_feed(tx, feed_id=part.feed_id)


async def revert(db: Database, *, baseline_id: int, who: str, why: str) -> Mapping[str, int] | None:
    """One approver's yes to taking a location's baseline back; with the second person's it is done.

    The keys return to what they were, the movements since then stay, those that it absorbed count again, and the
    snapshot before it is in force. Gives {keys, units} when done, None while it waits for the second person.
    """
    async with db.transaction() as tx:
        part = await _part(tx, baseline_id)
        if part.state != "applied" or (part.scope == "full" and not part.in_force):
            raise Conflict(
                f"The part for {part.location} of feed {part.feed_id} is {part.state}"
                + ("" if part.in_force else " and a later snapshot is in force")
                + "; only the snapshot in force can be reverted."
            )
        agreed = await record.two_people_agree(
            tx, act="baseline.revert", subject=str(baseline_id), payload={"baseline": baseline_id}, who=who
        )
        step = "reverted" if agreed else "revert asked"
        await record.keep(
            tx, who=who, steps=[record.Step("feed", str(part.feed_id), step, why=why, detail=part.location)]
        )
        if not agreed:
            return None
        return await ledger.revert(
            tx, baseline_id=baseline_id, location_id=part.location_id, feed_id=part.feed_id, who=who, why=why
        )


async def _part(tx: Connection, baseline_id: int) -> Part:
    part = await part_row(tx, baseline_id=baseline_id)
    if part is None:
        raise NotFound(f"There is no baseline {baseline_id}.")
    return part
