"""A location that works in waves takes, hour by hour, what it may; what falls back makes room in its own hour."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from brokering import Slot
from oms import access
from oms.db import Database
from oms.domain.promise import Hours
from oms.flows import broker
from oms.flows.broker import online
from oms.flows.broker.waves import slots_of
from oms.flows.fulfill import look
from oms.flows.network import load
from oms.flows.order.change import cancel
from oms.flows.order.read import read_order
from tests.demand import captured, order, planned, reject, work_of
from tests.feeding import NOW, change, check
from tests.world import Net, set_stock, small_network

NOON = NOW  # in Chicago, where W1 is
MORNING, NOON_WAVE, EVENING = ("09:00", "10:00"), ("12:00", "13:00"), ("18:00", "20:00")


def wave(hours: tuple[str, str], **limits: int) -> dict[str, Any]:
    return {"from": hours[0], "until": hours[1], **limits}


@pytest.fixture
async def net(db: Database) -> AsyncIterator[Net]:
    net = await small_network(db)
    await set_stock(db, sku="A", location="W1", quantity=50)
    yield net
    await check(db)


async def waves(db: Database, *some: dict[str, Any], **more: Any) -> None:
    given = {"code": "W1", "waves": list(some), **more}
    loaded = await load(db, kind="locations", rows=[given], who="planner", now=NOW)
    assert not loaded.refused, loaded.refused


async def decide(db: Database) -> None:
    await online.decide_due(db, online.Known(), who="test", now=NOON)


async def when(db: Database, order_id: UUID) -> list[tuple[int, str]]:
    """Day of the month and hour of each fulfillment that still goes."""
    found = (await read_order(db, order_id=order_id)).fulfillments
    return [(f.day.day, str(f.wave)[:5]) for f in found if f.state not in ("rejected", "recalled")]


async def many(db: Database, net: Net, count: int, **more: Any) -> list[UUID]:
    return [await captured(db, order(net, f"N{n}", ("A", 1), **more)) for n in range(count)]


@pytest.mark.parametrize("how", ["one at a time", "jointly"])
async def test_orders_go_into_waves_that_have_room_and_those_of_the_next_day_after_them(
    db: Database, net: Net, how: str
) -> None:
    await waves(db, *(wave(hours, capacity_orders=1) for hours in (MORNING, NOON_WAVE, EVENING)))
    made = await many(db, net, 6)
    if how == "jointly":
        await broker.run(db, who="test", now=NOON, seconds=2)
    else:
        await decide(db)
    found = sorted([w for i in made for w in await when(db, i)])
    assert found == [(23, "12:00"), (23, "18:00"), (24, "09:00"), (24, "12:00"), (24, "18:00")]
    await decide(db)
    assert sorted([len(await when(db, i)) for i in made]) == [0, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("how", ["rejected", "cancelled"])
async def test_what_is_rejected_or_cancelled_makes_room_in_its_own_wave(db: Database, net: Net, how: str) -> None:
    await waves(db, *(wave(hours, capacity_orders=1) for hours in (NOON_WAVE, EVENING)))
    first, second = await many(db, net, 2)
    await decide(db)
    assert [await when(db, i) for i in (first, second)] == [[(23, "12:00")], [(23, "18:00")]]
    if how == "rejected":
        await reject(db, await work_of(db, first, first), ("1", 1))
    else:
        await cancel(db, order_id=first, lines=None, why="changed mind", who="shop")
    third = await captured(db, order(net, "N9", ("A", 1)))
    await decide(db)
    assert await when(db, third) == [(23, "12:00")]


async def test_two_runs_at_once_never_fill_a_wave_twice(db: Database, net: Net) -> None:
    await waves(db, wave(EVENING, capacity_items=3))
    made = [await captured(db, order(net, f"N{n}", ("A", 2))) for n in range(4)]
    runs = [await planned(db, net, i, ("1", 2, "W1")) for i in made]
    await change(db, "update decision set plan = jsonb_set(plan, '{0,wave}', '\"2026-11-23T18:00:00\"')")
    await asyncio.gather(*(broker.apply(db, run_id=r, who="test", now=NOON) for r in runs))
    fates = [d for r in runs for d in await broker.why(db, run_id=r, number=None, after=None, limit=9)]
    assert sorted((d.state, d.result) for d in fates) == [("applied", None), *[("dropped", "its wave is full")] * 3]


async def test_what_was_planned_for_a_wave_that_is_no_more_stays_open(db: Database, net: Net) -> None:
    await waves(db, wave(EVENING))
    (made,) = await many(db, net, 1)
    run_id = await planned(db, net, made, ("1", 1, "W1"))
    await change(db, "update decision set plan = jsonb_set(plan, '{0,wave}', '\"2026-11-23T21:00:00\"')")
    await broker.apply(db, run_id=run_id, who="test", now=NOON)
    (found,) = await broker.why(db, run_id=run_id, number=None, after=None, limit=9)
    assert (found.state, found.result) == ("dropped", "its location has no such wave any more")


async def test_waves_together_take_no_more_than_their_day(db: Database, net: Net) -> None:
    await waves(db, *(wave(hours, capacity_orders=5) for hours in (NOON_WAVE, EVENING)), capacity_orders=3)
    made = await many(db, net, 8)
    await decide(db)
    days = sorted([day for i in made for day, _ in await when(db, i)])
    assert days == [23] * 3 + [24] * 3


async def test_the_explanation_names_the_wave_and_the_work_list_begins_with_the_earliest(
    db: Database, net: Net
) -> None:
    await waves(db, *(wave(hours, capacity_orders=1) for hours in (NOON_WAVE, EVENING)))
    await many(db, net, 1)
    await captured(db, order(net, "VIP", ("A", 1)))
    await decide(db)
    await change(db, "update orders set priority = 9 where number = 'VIP'")
    (run,) = await broker.listed(db, before=None, limit=9, mode="online")
    (why,) = await broker.why(db, run_id=run.id, number="VIP", after=None, limit=9)
    assert why.plan[0]["wave"] == "2026-11-23T18:00:00"
    assert "2026-11-23T18:00" in [c.get("wave") for c in why.why["candidates"]]
    todo = await look.due(db, actor=access.house, location="W1", limit=9, now=NOON)
    assert [(d.number, str(d.wave)) for d in todo] == [("N0", "12:00:00"), ("VIP", "18:00:00")]


@pytest.mark.parametrize(
    ("given", "field", "reason"),
    [
        ([wave(("10:00", "09:00"))], "waves[0]", "ends at 09:00, not after it begins at 10:00"),
        ([wave(("09:00", "11:00")), wave(("10:00", "12:00"))], "waves[1]", "begins at 10:00, before the one before it"),
        ([wave(("9", "10:00"))], "waves[0].from", "Expected `str` matching regex"),
        ([{"from": "09:00", "until": "10:00", "orders": 5}], "waves[0].orders", "no such column"),
        ([wave(("09:00", "10:00"), capacity_orders=-1)], "waves[0].capacity_orders", "Expected `int` >= 0"),
    ],
)
async def test_waves_that_contradict_themselves_are_refused_where_they_do(
    db: Database, net: Net, given: list[dict[str, Any]], field: str, reason: str
) -> None:
    loaded = await load(db, kind="locations", rows=[{"code": "W1", "waves": given}], who="planner", now=NOW)
    (fault,) = loaded.refused
    assert fault.field == field and reason in fault.reason, fault


def test_the_next_working_days_waves_leave_when_its_handling_is_done() -> None:
    friday = datetime(2026, 11, 27, 21, 30, tzinfo=UTC)
    hours = Hours("UTC", "1111100", None, 1)
    limits = (10, None, None)
    taken = [{"day": "2026-11-30", "wave": None, "orders": 4, "items": 4, "cents": 9}]
    day = [wave(MORNING, capacity_orders=4), wave(EVENING)]
    assert slots_of(day, taken, limits, hours, friday) == (
        Slot(0, 0, 0, 0, "2026-11-27T09:00"), Slot(0, 0, 0, 0, "2026-11-27T18:00"),
        Slot(4, 4, None, None, "2026-11-30T09:00"), Slot(4, 2, None, None, "2026-11-30T18:00"),
    )  # fmt: skip
    assert slots_of(day, taken, limits, hours, friday + timedelta(days=1))[2].name == "2026-11-30T09:00"
