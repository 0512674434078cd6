"""What is due by the clock: each source's morning, brokering that waits, snapshots too old, ledgers that differ."""

from datetime import datetime, time, timedelta
from typing import Any

import msgspec

from oms import record
from oms.db import Database, Sql
from oms.domain.calendar import next_morning

sql = Sql("schedule")

NEW_SOURCE = timedelta(minutes=2)
"""A source that had no morning yet has one if it was due within this time."""
TRY_AGAIN = timedelta(minutes=5)
"""After this time a morning that failed is begun again."""


class Schedule(msgspec.Struct, frozen=True):
    """A source's morning: its local time and zone, and when it last began."""

    code: str
    morning_at: time
    time_zone: str
    last: datetime | None


class Stale(msgspec.Struct, frozen=True):
    """A location whose snapshot is too old."""

    location: str
    source: str
    as_of: datetime


schedules = sql.rows("schedules", Schedule)
keep_morning = sql.run("keep_morning")
channel_codes = sql.rows("channel_codes", str)
any_at_once = sql.one("any_at_once", bool)
has_open = sql.one("has_open", bool)
stale_locations = sql.rows("stale_locations", Stale)


async def mornings_due(db: Database, *, now: datetime) -> list[str]:
    """The sources whose morning is due at their local time and is not done."""
    async with db.connection() as tx:
        return [
            one.code
            for one in await schedules(tx, now=now, again=TRY_AGAIN)
            if next_morning(one.last or now - NEW_SOURCE, one.time_zone, one.morning_at) <= now
        ]


async def keep(
    db: Database,
    *,
    source: str | None,
    who: str,
    started_at: datetime,
    steps: dict[str, Any],
    failed: str | None = None,
) -> None:
    """A morning ended, with what each step took; one that failed is an exception too."""
    async with db.transaction() as tx:
        state = "failed" if failed else "done"
        await keep_morning(tx, state=state, source=source, who=who, started_at=started_at, steps=steps)
        if failed:
            detail = (
                f"The morning of {source or 'all sources'} failed: {failed}. It is tried again; so does `oms morning`."
            )
            await record.raise_exceptions(
                tx, [record.Trouble(kind="morning_failed", subject=source or "all", detail=detail)]
            )
        else:
            await record.settle_exceptions(
                tx, who=who, resolution="a later morning was done", of=[("morning_failed", source or "all")]
            )


async def told_channels(db: Database) -> list[str]:
    """Codes of the channels that are told something."""
    async with db.connection() as tx:
        return await channel_codes(tx)


async def anything_open(db: Database, *, minute: int, every: int) -> bool:
    """Whether any line waits to be brokered, at this minute of the day."""
    async with db.connection() as tx:
        return await has_open(tx, minute=minute, every=every)


async def decides_at_once(db: Database) -> bool:
    """Whether a channel has orders of any method decided at once."""
    async with db.connection() as tx:
        return await any_at_once(tx)


async def raise_stale(db: Database, *, now: datetime) -> int:
    """Locations whose snapshot is older than its source allows become exceptions; gives how many there are."""
    async with db.transaction() as tx:
        stale = await stale_locations(tx, now=now)
        await record.raise_exceptions(
            tx,
            [
                record.Trouble(
                    kind="feed_stale", subject=f"{s.source}:{s.location}",
                    detail=f"The snapshot of {s.source} for {s.location} is of {s.as_of.isoformat()}: too old. "
                    "Ask the source for a new one; stock plus movements stays in force.",
                )
                for s in stale
            ],
        )  # fmt: skip
    return len(stale)
