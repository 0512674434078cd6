"""A baseline feed is read, staged, resolved to our words, and weighed; nothing of it is in force yet."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import msgspec

from connectors.feeds import RowRefused
from connectors.feeds.tabular import Reader
from oms import record
from oms.db import Connection, Database, Sql
from oms.domain.gates import Gates, Verdict, Weight, judge
from oms.errors import FeedRefused, NotFound

sql = Sql("ingest")

FUTURE_SECONDS_MAX = 300
"""How far a snapshot's clock may run ahead of ours."""
REFUSALS_KEPT_MAX = 10_000
"""Structural faults kept per feed, beyond which they are only counted."""


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


Progress = Callable[[str, int, int | None], None]
"""phase, done, total (None while unknown)."""


class Resolved(msgspec.Struct, frozen=True):
    """How many staged rows were good, and how many keys have units under holds."""

    good: int
    held_keys: int


class NotOwned(msgspec.Struct, frozen=True):
    """A location whose quantities another source owns."""

    code: str
    owner: str
    location_id: int


class UnknownRows(msgspec.Struct, frozen=True):
    """Rows of unknown skus at a location."""

    location_id: int
    rows: int


class Staged(msgspec.Struct, frozen=True, kw_only=True):
    """A feed that is complete and weighed. `parts` by state: staged, parked, superseded."""

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
    same_as: int | None = None


source_by_code = sql.maybe("source_by_code", Source)
source_ids = sql.rows("source_ids", tuple)
begin_feed = sql.one("begin_feed", int)
open_feed = sql.run("open_feed")
close_feed = sql.run("close_feed")
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
sum_holds = sql.run("sum_holds")
drop_incoming = sql.run("drop_incoming")
take_incoming = sql.run("take_incoming")
keep_bins = sql.run("keep_bins")
drop_old_bins = sql.run("drop_old_bins")
make_parts = sql.run("make_parts")
not_owned = sql.rows("not_owned", NotOwned)
leave_locations = sql.run("leave_locations")
add_absent = sql.run("add_absent")
weigh = sql.rows("weigh", Weight)
unknown_by_location = sql.rows("unknown_by_location", UnknownRows)
decide_parts = sql.run("decide_parts")
staged = sql.run("staged")
abandoned_feeds = sql.rows("abandoned_feeds", int)
feed_parts = sql.rows("feed_parts", tuple)
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
    line, field and reason, and parts that a gate closed are parked.
    """
    async with db.connection() as tx:
        found = await find_source(tx, source)
        marks = await _watermark_ids(tx, watermark)
    _check_time(as_of, now)
    async with db.transaction() as tx:
        feed_id = await begin_feed(
            tx, source_id=found.source_id, kind="baseline", name=name, scope=scope, as_of=as_of.astimezone(UTC),
            watermark=marks, state="staging", dry_run=dry_run, who=who,
        )  # fmt: skip
        for old in await abandoned_feeds(tx, source_id=found.source_id, feed_id=feed_id):
            await close_feed(tx, feed_id=old)
            await refuse_feed(tx, feed_id=old, why="cut off before it was complete", rows=0, sha256=None)
        await open_feed(tx, feed_id=feed_id)
    try:
        rows, faults = await _copy(db, feed_id=feed_id, reader=reader, progress=progress)
        return await _complete(
            db, source=found, feed_id=feed_id, rows=rows, faults=faults, sha256=reader.sha256, scope=scope,
            as_of=as_of, dry_run=dry_run, progress=progress,
        )  # fmt: skip
    except Exception as error:
        async with db.transaction() as tx:
            await close_feed(tx, feed_id=feed_id)
            await refuse_feed(tx, feed_id=feed_id, why=str(error), rows=0, sha256=None)
        raise


def _check_time(as_of: datetime, now: datetime) -> None:
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


async def _copy(
    db: Database, *, feed_id: int, reader: Reader, progress: Progress | None
) -> tuple[int, list[RowRefused]]:
    """Streams the reader's batches into the feed's partition; memory does not grow with the file."""
    faults: list[RowRefused] = []
    rows = 0
    batches = iter(reader)

    async def stream() -> AsyncIterator[bytes]:
        nonlocal rows
        following = asyncio.create_task(asyncio.to_thread(next, batches, None))
        while (batch := await following) is not None:
            following = asyncio.create_task(asyncio.to_thread(next, batches, None))
            rows += batch.rows
            faults.extend(batch.refused[: REFUSALS_KEPT_MAX - len(faults)])
            if progress:
                progress("read", batch.bytes_read, batch.bytes_total)
            yield batch.copy

    async with db.connection() as tx:
        await tx.copy_to_table(
            f"feed_row_{feed_id}", source=stream(), format="text",
            columns=["line", "sku", "location", "quantity", "status", "bin", "lot", "uom"],
        )  # fmt: skip
    return rows, faults


async def _complete(
    db: Database,
    *,
    source: Source,
    feed_id: int,
    rows: int,
    faults: Sequence[RowRefused],
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

    async with db.transaction() as tx:
        if not dry_run:
            same = await same_feed(
                tx, source_id=source.source_id, sha256=sha256, as_of=as_of, scope=scope, feed_id=feed_id
            )
            if same is not None:
                await close_feed(tx, feed_id=feed_id)
                await refuse_feed(tx, feed_id=feed_id, why=f"the same as feed {same}", rows=rows, sha256=sha256)
                return Staged(feed_id=same, source=source.code, state="same", rows=rows, good=0, refused=0, keys=0,
                              absent=0, parts={}, same_as=same)  # fmt: skip
        await refuse_rows(
            tx, feed_id=feed_id, lines=[f.line for f in faults], fields=[f.field for f in faults],
            reasons=[f.reason for f in faults], values=[f.value for f in faults],
        )  # fmt: skip
        await plan_for_staging(tx)
        await analyze_rows(tx, feed_id=feed_id)
        ids = {"feed_id": feed_id, "source_id": source.source_id}
        resolved = await resolve_rows(tx, **ids)
        tell(1)
        await index_keys(tx, feed_id=feed_id)
        refused, beside = len(faults), 0
        if resolved.good < rows:
            beside = await beside_rows(tx, **ids)
        if resolved.good + beside < rows:
            refused += await refuse_bad_rows(tx, **ids, sums_rows=source.sums_rows)
        refused += await refuse_doubled_keys(tx, **ids, sums_rows=source.sums_rows)
        if resolved.held_keys:
            await sum_holds(tx, **ids)
        tell(2)
        foreign = await not_owned(tx, **ids)
        if foreign:
            await leave_locations(tx, feed_id=feed_id, locations=[f.location_id for f in foreign])
            await record.raise_exceptions(tx, [_foreign(source, feed_id, f) for f in foreign])
        await make_parts(tx, feed_id=feed_id)
        await add_absent(tx, feed_id=feed_id, absent_is_zero=source.absent_is_zero)
        tell(3)
        parked, absent = await _gate(tx, source=source, feed_id=feed_id, refused=refused)
        if not dry_run:
            await keep_beside(tx, **ids, as_of=as_of, has_incoming=beside > 0, has_bins=source.sums_rows)
        parts: dict[str, int] = dict(await feed_parts(tx, feed_id=feed_id))
        state = "shown" if dry_run else "staged"
        if not dry_run and parts and set(parts) == {"superseded"}:
            state = "superseded"
        keys = await feed_keys(tx, feed_id=feed_id)
        done = Staged(
            feed_id=feed_id, source=source.code, state=state, rows=rows, good=resolved.good + beside,
            refused=refused, keys=keys, absent=absent, parts=parts, parked=parked,
            not_owned=[f.code for f in foreign],
        )  # fmt: skip
        await staged(
            tx,
            feed_id=feed_id,
            state=state,
            sha256=sha256,
            rows=rows,
            refused=refused,
            totals=msgspec.to_builtins(done),
        )
        if state == "superseded":
            await close_feed(tx, feed_id=feed_id)
        tell(4)
    return done


async def keep_beside(
    tx: Connection, *, feed_id: int, source_id: int, as_of: datetime, has_incoming: bool, has_bins: bool
) -> None:
    """What the staged parts of a feed say beside quantities: what is expected, and bins and lots for looking."""
    await drop_incoming(tx, feed_id=feed_id, source_id=source_id)
    if has_incoming:
        await take_incoming(tx, feed_id=feed_id, source_id=source_id, as_of=as_of)
    if has_bins:
        await keep_bins(tx, feed_id=feed_id, source_id=source_id)
        await drop_old_bins(tx, feed_id=feed_id)


async def _gate(tx: Connection, *, source: Source, feed_id: int, refused: int) -> tuple[list[str], int]:
    """Parks the parts that a gate closes; gives their locations and how many keys are absent in all."""
    unknown: list[UnknownRows] = []
    if refused:
        unknown = await unknown_by_location(tx, feed_id=feed_id, source_id=source.source_id)
    weights = await weigh(
        tx, feed_id=feed_id, unknown_locations=[u.location_id for u in unknown], unknown_rows=[u.rows for u in unknown]
    )
    gates = msgspec.convert(source.gates, Gates)
    verdicts = [(w, judge(w, gates)) for w in weights]
    await decide_parts(
        tx, baselines=[w.baseline_id for w, _ in verdicts], states=["parked" if v else "staged" for _, v in verdicts],
        numbers=[{**msgspec.to_builtins(w), "closed": msgspec.to_builtins(v)} for w, v in verdicts],
    )  # fmt: skip
    await record.raise_exceptions(tx, [_parked(source, feed_id, w, v) for w, v in verdicts if v])
    return [w.code for w, v in verdicts if v], sum(w.absent for w in weights)


def _parked(source: Source, feed_id: int, weight: Weight, verdicts: Sequence[Verdict]) -> record.Trouble:
    return record.Trouble(
        kind="feed_parked", subject=str(weight.baseline_id), owner="approver", due_hours=4,
        detail=f"Feed {feed_id} of {source.code}: its part for {weight.code} is parked ("
        + "; ".join(v.sentence() for v in verdicts)
        + "). The old stock plus movements stays in force. Two approvers may release it, or it is sent again.",
        payload={"feed": feed_id, "location": weight.code, "numbers": msgspec.to_builtins(weight)},
    )  # fmt: skip


def _foreign(source: Source, feed_id: int, foreign: NotOwned) -> record.Trouble:
    owner = f"owned by {foreign.owner}" if foreign.owner else "owned by no source"
    return record.Trouble(
        kind="not_owner", subject=f"{source.code}:{foreign.code}",
        detail=f"Feed {feed_id} of {source.code} speaks of quantities at {foreign.code}, which are {owner}. "
        "That part was not applied; change the ownership or the feed.",
        payload={"feed": feed_id, "location": foreign.code},
    )  # fmt: skip


end_feed = sql.run("end_movements")


async def begin_movements(db: Database, *, source: str, name: str, who: str) -> int:
    """The record of a file of movements; raises NotFound for an unknown source."""
    async with db.transaction() as tx:
        found = await find_source(tx, source)
        return await begin_feed(
            tx, source_id=found.source_id, kind="movements", name=name, scope=None, as_of=None, watermark={},
            state="applying", dry_run=False, who=who,
        )  # fmt: skip


async def keep_refusals(db: Database, *, feed_id: int, faults: Sequence[RowRefused]) -> None:
    """Keeps rows that cannot be understood: line, field, reason."""
    if faults:
        async with db.transaction() as tx:
            await refuse_rows(
                tx, feed_id=feed_id, lines=[f.line for f in faults], fields=[f.field for f in faults],
                reasons=[f.reason for f in faults], values=[f.value for f in faults],
            )  # fmt: skip


async def end_movements(
    db: Database, *, feed_id: int, rows: int, refused: int, sha256: str, totals: Mapping[str, int]
) -> None:
    """A file of movements is read to its end."""
    async with db.transaction() as tx:
        await end_feed(tx, feed_id=feed_id, rows=rows, refused=refused, sha256=sha256, totals=dict(totals))
