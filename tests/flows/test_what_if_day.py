"""A past day is tried again as it was: its orders, its stock, and what came and went meanwhile."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from oms.db import Database
from oms.errors import BadInput
from oms.flows import broker
from oms.flows.broker import what_if
from oms.flows.broker.day import Day, read_day
from oms.flows.broker.what_if import Ask
from tests.demand import allocated, captured, order, ship
from tests.feeding import ask, check, sale, say
from tests.flows.test_what_if import ENGINE, NO_STORES, by_name, everything
from tests.world import Net, set_stock, small_network


@pytest.fixture
async def net(db: Database) -> AsyncIterator[Net]:
    yield await small_network(db)
    await check(db)


async def moment(db: Database) -> datetime:
    found = await ask(db, "select clock_timestamp()")
    assert isinstance(found, datetime)
    return found


async def since(db: Database, start: datetime) -> Day:
    return await read_day(db, from_at=start, until_at=await moment(db) + timedelta(minutes=1))


async def test_a_day_is_read_as_it_was_at_its_first_minute_whatever_came_of_it(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="S1", quantity=9)
    await set_stock(db, sku="A", location="W1", quantity=9)
    await allocated(db, net, "before", ("A", 2, "S1"))
    start = await moment(db)
    work = await allocated(db, net, "N1", ("A", 3, "S1"), promise_days=2)
    await ship(db, work)
    assert await say(db, "pos", sale("m1", "A", "S1", 1)) == ["applied"]
    day = await since(db, start)
    assert {(s.location_id, s.available) for s in day.problem.stock} == {
        (net.locations["S1"], 7),
        (net.locations["W1"], 9),
    }
    assert [(c.location_id, c.units) for c in day.changes] == [
        (net.locations["S1"], -1)
    ]  # what we shipped is no change
    assert [(n.quantity, o.order_id) for n, o in zip(day.problem.lines, day.problem.orders, strict=True)] == [
        (3, str(work.order_id))
    ]
    assert [(a.location_id, a.quantity) for a in day.went] == [(net.locations["S1"], 3)]
    assert day.problem.protected == [] and 0 <= day.arrives[str(work.order_id)] < 5


async def test_what_lay_open_before_the_day_stays_promised_in_it(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="S1", quantity=2)
    await captured(db, order(net, "before", ("A", 1)))
    start = await moment(db)
    await captured(db, order(net, "N1", ("A", 1)))
    await broker.run(db, who="test", now=start, seconds=2)
    day = await since(db, start)
    assert [(p.pool_id, p.quantity) for p in day.problem.protected] == [(net.pools["web"], 1)]
    assert [s.available for s in day.problem.stock] == [2]


async def tried(db: Database, *policies: Any, **on: Any) -> dict[str, Any]:
    now = datetime.now(UTC) + timedelta(minutes=1)
    given = msgspec.convert({"on": on, "policies": list(policies)}, Ask)
    asked = await what_if.readied(db, given, now=now, seconds=1, seed=0)
    return by_name(await what_if.find(db, asked, now=now))


@pytest.mark.parametrize("rhythm", [{"repriced": 2}, {"every_minutes": 60}], ids=["in turn", "hourly"])
async def test_a_day_compares_policies_with_each_other_and_with_what_happened_and_changes_nothing(
    db: Database, net: Net, rhythm: dict[str, int]
) -> None:
    await set_stock(db, sku="A", location="S1", quantity=9)
    await set_stock(db, sku="A", location="W1", quantity=9)
    for n in range(2):
        await allocated(db, net, f"N{n}", ("A", 1, "W1"), promise_days=2)
    captured_at = await ask(db, "select max(captured_at) from orders")
    before = await everything(db)
    found = await tried(
        db, ENGINE, {"name": "again", "body": {}}, NO_STORES, day=str(captured_at.astimezone(UTC).date()), **rhythm
    )
    assert await everything(db) == before
    assert found["plans"]["engine"]["load"] == [{"location": "S1", "packages": 2, "units": 2}]
    assert found["moves"]["again"]["orders"] == 0
    assert found["moves"]["no stores"]["why"] == {"the policy does not allow it": 2}
    happened = found["moves"]["as it was"]
    assert (happened["orders"], happened["shown"][0]["was"], happened["shown"][0]["becomes"]) == (
        2,
        {"S1": 1},
        {"W1": 1},
    )
    assert found["plans"]["as it was"]["cost_cents"] == found["plans"]["no stores"]["cost_cents"]


async def test_a_day_that_cannot_be_tried_is_refused_by_its_place(db: Database, net: Net) -> None:
    for on, words in (
        ({"day": "2999-01-01"}, "on.day: 2999-01-01 has not begun"),
        ({"day": "2026-01-01", "time_zone": "Mars"}, "on.time_zone: 'Mars' is no time zone"),
        ({"open": True, "every_minutes": 30}, "on: time_zone, every_minutes and repriced belong to a day"),
        ({"day": "2026-01-01", "every_minutes": 30, "repriced": 2}, "give one of every_minutes and repriced"),
        ({"day": "2026-01-01", "open": True}, "on: give one of"),
    ):
        with pytest.raises(BadInput, match=words):
            await tried(db, ENGINE, **on)
    given = msgspec.convert({"on": {"day": "2026-01-01"}, "policies": [ENGINE]}, Ask)
    asked = await what_if.ask(db, given, who="test", now=datetime.now(UTC), seconds=1, seed=0)
    assert await what_if.work(db, clock=lambda: datetime.now(UTC)) == 1
    assert "no order was captured on 2026-01-01" in str((await what_if.read(db, what_if_id=asked)).failed)
