"""A baseline feed is read, staged and resolved to our words; nothing of it is in force yet."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import msgspec

from connectors.feeds import RowRefused
from connectors.feeds.tabular import Reader
from oms.db import Connection, Database, Sql
from oms.errors import FeedRefused, NotFound
from oms.flows.ingest import parts

sql = Sql("ingest")

FUTURE_SECONDS_MAX = 300
"""How far a snapshot's clock may run ahead of ours."""
REFUSALS_KEPT_MAX = 10_000
"""Rows of a feed that could not be read and are kept; beyond it they are counted, and their keys are not known."""

Progress = Callable[[str, int, int | None], None]
"""phase, done, total (None while unknown)."""


class Source(msgspec.Struct, frozen=True):
    """A source with what its feeds promise."""

    source_id: int
    code: str
    kind: str
    quantity_kind: str
    order_level: str
    window_seconds: int
    absent_is_zero: bool
    sums_rows: bool
    gates: dict[str, Any]
    folder: str | None
    stale_after_seconds: int
    acknowledges: bool


class Resolved(msgspec.Struct, frozen=True):
    """How many staged rows were good; how many keys have units under holds, or more units than a key may have."""

    good: int
    held_keys: int
    full_keys: int


class Staged(msgspec.Struct, frozen=True, kw_only=True):
    """A feed that is complete and weighed. `parts` by state: staged, parked, superseded.

    `keeps_absent` are locations where absent keys are not zero for once, since a row could not be read.
    """

    feed_id: int
    source: str
    state: str
    rows: int
    good: int
    refused: int
    keys: int
    absent: int
    parts: dict[str, int]
    parked: list[str] = []
    not_owned: list[str] = []
    keeps_absent: list[str] = []
    same_as: int | None = None


class _Read(msgspec.Struct):
    """What came of the file: rows that are staged, and those that could not be read (the first of them in full)."""

    rows: int = 0
    unread: int = 0
    faults: list[RowRefused] = []


source_by_code = sql.maybe("source_by_code", Source)
source_ids = sql.rows("source_ids", tuple)
begin_feed = sql.one("begin_feed", int)
hold_feed = sql.run("hold_feed")
let_feed_go = sql.run("let_feed_go")
open_feed = sql.run("open_feed")
join_feed = sql.run("join_feed")
close_feed = sql.run("close_feed")
one_of_a_kind = sql.run("one_of_a_kind")
same_feed = sql.maybe("same_feed", int)
refuse_feed = sql.run("refuse_feed")
refuse_rows = sql.run("refuse_rows")
analyze_rows = sql.run("analyze_rows")
resolve_rows = sql.one("resolve_rows", Resolved)
beside_rows = sql.one("beside_rows", int)
plan_for_staging = sql.run("plan_for_staging")
index_keys = sql.run("index_keys")
refuse_bad_rows = sql.one("refuse_bad_rows", int)
refuse_doubled_keys = sql.one("refuse_doubled_keys", int)
refuse_overflow = sql.one("refuse_overflow", int)
keep_unread_keys = sql.run("keep_unread_keys")
sum_holds = sql.run("sum_holds")
staged = sql.run("staged")
abandoned_feeds = sql.rows("abandoned_feeds", int)
feed_keys = sql.one("feed_keys", int)


async def find_source(tx: Connection, code: str) -> Source:
    """The source of that code; raises NotFound."""
    source = await source_by_code(tx, code=code)
    if source is None:
        raise NotFound(f"There is no source {code!r}. Load it first: oms load sources FILE.")
    return source


async def receive(
    db: Database,
    *,
    source: str,
    reader: Reader,
    name: str,
    as_of: datetime,
    scope: Literal["full", "partial"],
    watermark: Mapping[str, int],
    who: str,
    now: datetime,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Staged:
    """Takes one baseline feed to the point where it is durable, resolved and weighed.

    `watermark` gives, per movement source, the highest sequence that the snapshot contains. Raises FeedRefused
    with nothing applied when the delivery as a whole cannot be taken; rows that cannot be taken are kept with
    line, field and reason, and parts that a gate closed are parked. One connection throughout: its lock says that
    somebody receives this feed.
    """
    check_time(as_of, now)
    async with db.connection() as tx:
        found = await find_source(tx, source)
        marks = await _watermark_ids(tx, watermark)
        async with tx.transaction():
            feed_id = await begin_feed(
                tx, source_id=found.source_id, kind="baseline", name=name, scope=scope, as_of=as_of.astimezone(UTC),
                watermark=marks, state="staging", dry_run=dry_run, who=who,
            )  # fmt: skip
            await hold_feed(tx, feed_id=feed_id)
            for old in await abandoned_feeds(tx, source_id=found.source_id, feed_id=feed_id):
                await close_feed(tx, feed_id=old)
                await refuse_feed(tx, feed_id=old, why="cut off before it was complete", rows=0, sha256=None)
            await open_feed(tx, feed_id=feed_id)
        try:
            read = await _copy(tx, feed_id=feed_id, reader=reader, progress=progress)
            await join_feed(tx, feed_id=feed_id)
            async with tx.transaction():
                done = await _complete(
                    tx, source=found, feed_id=feed_id, read=read, sha256=reader.sha256, scope=scope, as_of=as_of,
                    dry_run=dry_run, progress=progress,
                )  # fmt: skip
        except Exception as error:
            async with db.transaction() as other:  # this one's connection may be what failed
                await close_feed(other, feed_id=feed_id)
                await refuse_feed(other, feed_id=feed_id, why=str(error), rows=0, sha256=None)
            raise
        await let_feed_go(tx, feed_id=feed_id)
        return done


def check_time(as_of: datetime, now: datetime) -> None:
    """Raises FeedRefused for a moment without an offset, and for one that has not passed."""
    if as_of.tzinfo is None:
        raise FeedRefused(f"as_of {as_of.isoformat()} has no offset. Give it with one, like 2026-01-31T05:00:00Z.")
    if as_of > now + timedelta(seconds=FUTURE_SECONDS_MAX):
        raise FeedRefused(
            f"as_of {as_of.isoformat()} lies in the future (now is {now.isoformat()}). "
            "A snapshot speaks of a moment that has passed; correct the time and send it again."
        )


async def _watermark_ids(tx: Connection, watermark: Mapping[str, int]) -> dict[str, int]:
    ids: dict[str, int] = dict(await source_ids(tx, codes=list(watermark)))
    unknown = sorted(set(watermark) - ids.keys())
    if unknown:
        raise FeedRefused(f"The watermark names unknown sources: {', '.join(unknown)}. Load them first.")
    return {str(ids[code]): sequence for code, sequence in watermark.items()}


async def _copy(tx: Connection, *, feed_id: int, reader: Reader, progress: Progress | None) -> _Read:
    """Streams the reader's batches into the feed's partition; memory does not grow with the file."""
    read = _Read(faults=[])
    batches = iter(reader)

    async def stream() -> AsyncIterator[bytes]:
        following = asyncio.create_task(asyncio.to_thread(next, batches, None))
        while (batch := await following) is not None:
            following = asyncio.create_task(asyncio.to_thread(next, batches, None))
            read.rows += batch.rows
            read.unread += len(batch.refused)
            read.faults.extend(batch.refused[: REFUSALS_KEPT_MAX - len(read.faults)])
            if progress:
                progress("read", batch.bytes_read, batch.bytes_total)
            yield batch.copy

    await tx.copy_to_table(
        f"feed_row_{feed_id}", source=stream(), format="text",
        columns=["line", "sku", "location", "quantity", "status", "bin", "lot", "uom"],
    )  # fmt: skip
    return read


async def _complete(
    tx: Connection,
    *,
    source: Source,
    feed_id: int,
    read: _Read,
    sha256: str,
    scope: str,
    as_of: datetime,
    dry_run: bool,
    progress: Progress | None,
) -> Staged:
    """Resolves, checks and weighs the staged rows in one transaction: after it the feed is acknowledged."""

    def tell(done: int) -> None:
        if progress:
            progress("resolve", done, 4)

    rows = read.rows + read.unread
    if not dry_run:
        await one_of_a_kind(tx, source_id=source.source_id, sha256=sha256)
        same = await same_feed(
            tx, source_id=source.source_id, sha256=sha256, as_of=as_of, scope=scope, feed_id=feed_id
        )  # fmt: skip
        if same is not None:
            await close_feed(tx, feed_id=feed_id)
            await refuse_feed(tx, feed_id=feed_id, why=f"the same as feed {same}", rows=rows, sha256=sha256)
            return Staged(feed_id=same, source=source.code, state="same", rows=rows, good=0, refused=0, keys=0,
                          absent=0, parts={}, same_as=same)  # fmt: skip
    await plan_for_staging(tx)
    await analyze_rows(tx, feed_id=feed_id)
    good, refused, has_beside = await _resolve(tx, source=source, feed_id=feed_id, read=read, tell=tell)
    tell(2)
    divided = await parts.divide(
        tx, source=source, feed_id=feed_id, refused=refused, unread=read.unread, faults=read.faults, dry_run=dry_run
    )
    tell(3)
    if not dry_run:
        await parts.keep_beside(
            tx, feed_id=feed_id, source_id=source.source_id, as_of=as_of, has_incoming=has_beside,
            has_bins=source.sums_rows,
        )  # fmt: skip
    by_state: dict[str, int] = dict(await parts.feed_parts(tx, feed_id=feed_id))
    state = "shown" if dry_run else "staged"
    if not dry_run and by_state and set(by_state) == {"superseded"}:
        state = "superseded"
    done = Staged(
        feed_id=feed_id, source=source.code, state=state, rows=rows, good=good, refused=refused,
        keys=await feed_keys(tx, feed_id=feed_id), absent=divided.absent, parts=by_state, parked=divided.parked,
        not_owned=divided.not_owned, keeps_absent=divided.keeps_absent,
    )  # fmt: skip
    await staged(
        tx, feed_id=feed_id, state=state, sha256=sha256, rows=rows, refused=refused, totals=msgspec.to_builtins(done)
    )
    if state == "superseded":
        await close_feed(tx, feed_id=feed_id)
    tell(4)
    return done


async def _resolve(
    tx: Connection, *, source: Source, feed_id: int, read: _Read, tell: Callable[[int], None]
) -> tuple[int, int, bool]:
    """Sums good rows by key and refuses the others; gives how many of each, and whether some are neither held nor on
    hand."""
    ids = {"feed_id": feed_id, "source_id": source.source_id}
    await keep_refused(tx, feed_id=feed_id, faults=read.faults)
    resolved = await resolve_rows(tx, **ids)
    tell(1)
    await index_keys(tx, feed_id=feed_id)
    refused, beside = read.unread, 0
    if resolved.good < read.rows:
        beside = await beside_rows(tx, **ids)
    if resolved.good + beside < read.rows:
        refused += await refuse_bad_rows(tx, **ids, sums_rows=source.sums_rows)
    refused += await refuse_doubled_keys(tx, **ids, sums_rows=source.sums_rows)
    if resolved.full_keys:
        refused += await refuse_overflow(tx, **ids)
    if read.faults:
        await keep_unread_keys(
            tx, **ids, skus=[f.sku for f in read.faults], locations=[f.location for f in read.faults]
        )
    if resolved.held_keys:
        await sum_holds(tx, **ids)
    return resolved.good + beside, refused, beside > 0


async def keep_refused(tx: Connection, *, feed_id: int, faults: Sequence[RowRefused]) -> None:
    """Keeps rows that cannot be read: line, field, reason."""
    if faults:
        await refuse_rows(
            tx, feed_id=feed_id, lines=[f.line for f in faults], fields=[f.field for f in faults],
            reasons=[f.reason for f in faults], values=[f.value for f in faults],
        )  # fmt: skip
