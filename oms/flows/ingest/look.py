"""What became of deliveries, for those who sent them and those who answer for them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from oms.db import Database, Sql
from oms.errors import NotFound

sql = Sql("feeds")


class Feed(msgspec.Struct, frozen=True):
    """A delivery. `age_seconds` since the moment that it speaks of; it is stale beyond its source's limit."""

    id: int
    source: str
    source_id: int
    kind: str
    name: str
    state: str
    scope: str | None
    as_of: datetime | None
    age_seconds: int
    is_stale: bool
    watermark: dict[str, int]
    rows: int
    refused: int
    totals: dict[str, Any]
    refused_why: str | None
    dry_run: bool
    received_by: str
    received_at: datetime
    finished_at: datetime | None


class Part(msgspec.Struct, frozen=True):
    """What a feed says of one location. `numbers` holds what the gates measured and which ones closed."""

    baseline_id: int
    location: str
    state: str
    in_force: bool
    numbers: dict[str, Any]
    applied_at: datetime | None


class RowRefusal(msgspec.Struct, frozen=True):
    """A row that was not taken: where, and why."""

    line: int
    field: str
    reason: str
    value: str | None


class PartAt(msgspec.Struct, frozen=True):
    """The part of a feed for a location, by id."""

    baseline_id: int
    location_id: int


feeds_page = sql.rows("feeds_page", Feed)
parts_of = sql.rows("parts_of", Part)
refusals_of = sql.rows("refusals_of", RowRefusal)
part_at = sql.maybe("part_at", PartAt)


class Sees(msgspec.Struct, frozen=True):
    """Whose deliveries a caller sees: of one source, of some locations, or (None) all."""

    source_id: int | None = None
    locations: list[int] | None = None


async def listed(
    db: Database, *, sees: Sees, source: str | None, state: str | None, before: int | None, limit: int
) -> list[Feed]:
    """Deliveries, the newest first."""
    async with db.connection() as tx:
        return await feeds_page(
            tx, before=before, feed_id=None, source_id=sees.source_id, source=source, state=state,
            locations=sees.locations, limit=limit,
        )  # fmt: skip


async def feed(db: Database, *, feed_id: int, sees: Sees) -> Feed:
    """One delivery; raises NotFound."""
    async with db.connection() as tx:
        found = await feeds_page(
            tx, before=None, feed_id=feed_id, source_id=sees.source_id, source=None, state=None,
            locations=sees.locations, limit=1,
        )  # fmt: skip
    if not found:
        raise NotFound(f"There is no feed {feed_id}.")
    return found[0]


async def parts(db: Database, *, feed_id: int, sees: Sees) -> Sequence[Part]:
    """The parts of a feed, those that the caller sees."""
    async with db.connection() as tx:
        return await parts_of(tx, feed_id=feed_id, locations=sees.locations)


async def refusals(db: Database, *, feed_id: int, after: tuple[int, str], limit: int) -> Sequence[RowRefusal]:
    """Refused rows of a feed, by line."""
    async with db.connection() as tx:
        return await refusals_of(tx, feed_id=feed_id, line=after[0], field=after[1], limit=limit)


async def part(db: Database, *, feed_id: int, location: str) -> PartAt:
    """The part of a feed for a location; raises NotFound."""
    async with db.connection() as tx:
        found = await part_at(tx, feed_id=feed_id, location=location)
    if found is None:
        raise NotFound(f"Feed {feed_id} has no part for location {location!r}.")
    return found
