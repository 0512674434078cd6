"""A source's morning is due once on each of its days, and again when it failed."""

from datetime import UTC, datetime, timedelta

from oms.db import Database
from oms.flows import schedule
from tests.feeding import ask, change
from tests.world import small_network

NOON_IN_CHICAGO = datetime(2026, 11, 23, 18, 0, tzinfo=UTC)


async def due(db: Database, at: datetime) -> list[str]:
    return await schedule.mornings_due(db, now=at)


async def test_a_morning_is_due_at_its_local_time_until_it_is_done(db: Database) -> None:
    await small_network(db)
    await change(db, "update source set morning_at = '12:00', time_zone = 'America/Chicago' where code = 'erp'")
    assert await due(db, NOON_IN_CHICAGO - timedelta(minutes=1)) == []
    assert await due(db, NOON_IN_CHICAGO) == ["erp"]
    await schedule.keep(db, source="erp", who="test", started_at=NOON_IN_CHICAGO, steps={"baseline": 1.5})
    assert await due(db, NOON_IN_CHICAGO + timedelta(minutes=1)) == []
    assert await due(db, NOON_IN_CHICAGO + timedelta(days=1)) == ["erp"]
    assert await ask(db, "select steps ->> 'baseline' from morning") == "1.5"


async def test_a_morning_that_failed_is_an_exception_and_due_again_until_one_is_done(db: Database) -> None:
    await small_network(db)
    now = datetime.now(UTC)
    at = (now - timedelta(minutes=1)).strftime("%H:%M")
    await change(db, "update source set morning_at = $1::text::time, time_zone = 'UTC' where code = 'erp'", at)
    await schedule.keep(db, source="erp", who="test", started_at=now, steps={}, failed="it broke")
    assert await ask(db, "select state from exception where kind = 'morning_failed'") == "open"
    assert await due(db, now + timedelta(minutes=1)) == []
    assert await due(db, now + timedelta(minutes=7)) == ["erp"]
    await schedule.keep(db, source="erp", who="test", started_at=now, steps={})
    assert await ask(db, "select state from exception where kind = 'morning_failed'") == "resolved"
    assert await due(db, now + timedelta(minutes=7)) == []
