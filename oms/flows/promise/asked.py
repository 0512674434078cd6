"""What was asked and said is written behind the answers, looked at, and forgotten."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
import structlog

from oms import enquiries
from oms.db import Connection, Database, Sql
from oms.enquiries import Asked, Refused

sql = Sql("enquiries")
log = structlog.get_logger("oms.enquiries")

WRITE_SECONDS = 1.0
READS_SECONDS = 10.0
READS_MAX = 200_000
"""Counts in memory; beyond it they are written at once, and dropped where that cannot be."""
ROWS_AT_ONCE = 5_000


class GivenPromise(msgspec.Struct, frozen=True):
    """A promise: what was asked and said; by sku the version of its row and its number; the version of the rules."""

    id: UUID
    at: datetime
    channel: str
    rules: int
    asked: dict[str, Any]
    said: dict[str, Any]
    stock: dict[str, dict[str, int]]


class GivenRefusal(msgspec.Struct, frozen=True):
    """A sku of a refused cart: how many were asked, how many there were; the versions of its rows and of the rules."""

    id: int
    at: datetime
    channel: str
    location: str | None
    sku: str
    quantity: int
    atp: int
    versions: list[int]
    rules: int


class GivenNumber(msgspec.Struct, frozen=True):
    """A number that was given of a channel's sku, and how often within a minute."""

    minute: datetime
    channel: str
    sku: str
    atp: int
    count: int


keep_promises = sql.run("keep_promises")
keep_refusals = sql.run("keep_refusals")
count_reads = sql.run("count_reads")
promises_page = sql.rows("promises_page", GivenPromise)
refusals_page = sql.rows("refusals_page", GivenRefusal)
reads_page = sql.rows("reads_page", GivenNumber)
forget_enquiries = sql.run("forget_enquiries")


async def follow(db: Database) -> None:
    """Writes what waits, every second (reads as counts less often), until cancelled."""
    waiting, rounds = enquiries.of(db), 0
    while True:
        await asyncio.sleep(WRITE_SECONDS)
        rounds += 1
        reads = rounds % round(READS_SECONDS / WRITE_SECONDS) == 0 or len(waiting.reads) > READS_MAX
        try:
            await write(db, reads=reads)
        except Exception as error:
            log.warning("enquiries wait to be written", error=repr(error))
            if len(waiting.reads) > READS_MAX:
                waiting.dropped += waiting.reads.total()
                waiting.reads.clear()


async def close(db: Database) -> None:
    """Writes all that waits; for the service's shutdown."""
    with contextlib.suppress(Exception):
        while await write(db):
            pass


async def write(db: Database, *, reads: bool = True) -> int:
    """Writes what waits, some thousand rows at once; gives how many. What cannot be written waits on."""
    waiting = enquiries.of(db)
    async with waiting.writing:
        asked, refused = list(waiting.asked)[:ROWS_AT_ONCE], list(waiting.refused)[:ROWS_AT_ONCE]
        counted: Counter[tuple[datetime, int, str, int]] = Counter()
        if reads:
            counted, waiting.reads = waiting.reads, counted
        if not (asked or refused or counted):
            return 0
        try:
            async with db.transaction() as tx:
                await _keep(tx, asked, refused)
                await _count(tx, counted)
        except BaseException:
            waiting.reads.update(counted)
            raise
        waiting.forget(asked, refused)
        return len(asked) + len(refused) + len(counted)


async def _keep(tx: Connection, asked: Sequence[Asked], refused: Sequence[Refused]) -> None:
    if asked:
        await keep_promises(
            tx, ats=[a.at for a in asked], channels=[a.channel_id for a in asked], rules=[a.rules for a in asked],
            asked=[a.asked for a in asked], said=[a.said for a in asked], stock=[a.stock for a in asked],
        )  # fmt: skip
    if refused:
        await keep_refusals(
            tx, ats=[r.at for r in refused], channels=[r.channel_id for r in refused],
            locations=[r.location for r in refused], skus=[r.sku for r in refused],
            quantities=[r.quantity for r in refused], numbers=[r.atp for r in refused],
            versions=["{" + ",".join(map(str, r.versions)) + "}" for r in refused], rules=[r.rules for r in refused],
        )  # fmt: skip


async def _count(tx: Connection, counted: Counter[tuple[datetime, int, str, int]]) -> None:
    rows = sorted(counted.items())
    for start in range(0, len(rows), ROWS_AT_ONCE):
        some = rows[start : start + ROWS_AT_ONCE]
        await count_reads(
            tx, minutes=[key[0] for key, _ in some], channels=[key[1] for key, _ in some],
            skus=[key[2] for key, _ in some], numbers=[key[3] for key, _ in some], counts=[n for _, n in some],
        )  # fmt: skip


async def promises(
    db: Database, *, channel: str | None, sku: str | None, before: UUID | None, limit: int
) -> list[GivenPromise]:
    """Promises, newest first; of one channel, and with one sku, where they are given."""
    async with db.connection() as tx:
        return await promises_page(tx, channel=channel, sku=sku, before=before, limit=limit)


async def refusals(
    db: Database, *, channel: str | None, sku: str | None, before: int | None, limit: int
) -> list[GivenRefusal]:
    """Refused reservations by sku, newest first."""
    async with db.connection() as tx:
        return await refusals_page(tx, channel=channel, sku=sku, before=before, limit=limit)


async def reads(
    db: Database, *, channel: str | None, sku: str | None, until: datetime | None, limit: int
) -> list[GivenNumber]:
    """Numbers that were given, newest minute first, before a minute where one is given."""
    async with db.connection() as tx:
        return await reads_page(tx, channel=channel, sku=sku, until=until, limit=limit)


async def forget(db: Database, *, before: datetime) -> None:
    """Drops what was asked before a moment."""
    async with db.transaction() as tx:
        await forget_enquiries(tx, before=before)
