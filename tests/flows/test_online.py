"""Orders are decided at once where their channel says so; what opens again is due again, whoever opened it."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from brokering import CellPrice, Problem, Shadow
from oms import worker
from oms.cache import Cache
from oms.db import Database
from oms.flows import broker
from oms.flows.broker import online, planning
from oms.flows.network import load
from oms.flows.order.holds import hold, release
from oms.settings import Settings
from tests.demand import captured, order, reject, work_of
from tests.feeding import NOW, ask, check, exceptions
from tests.world import Net, set_stock, small_network


@pytest.fixture
async def net(db: Database) -> AsyncIterator[Net]:
    yield await small_network(db)
    await check(db)


async def decide(db: Database) -> int | None:
    return await online.decide_due(db, online.Known(), who="test", now=NOW)


async def places(db: Database, order_id: UUID) -> list[str]:
    return sorted((await work_of(db, order_id, order_id)).fulfillments)


async def brokering(db: Database, says: dict[str, object]) -> None:
    await load(db, kind="channels", rows=[{"code": "web", "brokering": says}], who="planner", now=NOW)


async def test_an_order_is_allocated_and_explained_at_once_and_its_run_is_no_joint_one(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="W1", quantity=5)
    made = await captured(db, order(net, "N1", ("A", 2)))
    assert await decide(db) == 1
    assert await places(db, made) == ["W1"]
    (run,) = await broker.listed(db, before=None, limit=9, mode="online")
    assert (run.state, run.summary["applied"]) == ("applied", 1)
    assert not await broker.listed(db, before=None, limit=9)
    (why,) = await broker.why(db, run_id=run.id, number="N1", after=None, limit=9)
    assert why.why["candidates"][0]["location"] == "W1" and why.why["cents"]["parcel"] > 0
    assert await decide(db) == 0


async def test_orders_of_one_moment_share_what_there_is_and_the_rest_stays_open(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="W1", quantity=3)
    ids = [await captured(db, order(net, f"N{n}", ("A", 2))) for n in range(3)]
    assert await decide(db) == 3
    assert sorted([await places(db, i) for i in ids]) == [[], [], ["W1"]]


async def test_channels_say_by_method_what_waits_for_their_minutes_or_the_morning(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="W1", quantity=9)
    await brokering(db, {"*": 30, "express": "at_once", "freight": "nightly"})
    by_method = {
        method: await captured(db, order(net, method, ("A", 1), method=method))
        for method in ("standard", "express", "freight")
    }

    async def allocated() -> list[str]:
        return [method for method, i in by_method.items() if await places(db, i)]

    await decide(db)
    assert await allocated() == ["express"]
    await broker.run(db, who="test", now=NOW, seconds=1, which=broker.Which(minute=29, every=1))
    assert await allocated() == ["express"]
    await broker.run(db, who="test", now=NOW, seconds=1, which=broker.Which(minute=60, every=7))
    assert await allocated() == ["standard", "express"]
    await broker.run(db, who="test", now=NOW, seconds=1)
    assert await allocated() == ["standard", "express", "freight"]


@pytest.mark.parametrize(("says", "again"), [({}, ["S1"]), ({"*": 30}, ["S1"]), ({"*": "nightly"}, [])])
async def test_what_a_location_rejects_is_decided_again_at_once_but_for_the_nightly(
    db: Database, net: Net, says: dict[str, object], again: list[str]
) -> None:
    await brokering(db, says)
    await set_stock(db, sku="A", location="W1", quantity=1)
    made = await captured(db, order(net, "N1", ("A", 1)))
    await broker.run(db, who="test", now=NOW, seconds=1)
    assert await places(db, made) == ["W1"]
    await decide(db)
    await set_stock(db, sku="A", location="S1", quantity=1)
    await reject(db, await work_of(db, made, made), ("1", 1))
    await decide(db)
    assert [p for p in await places(db, made) if p != "W1"] == again


async def test_a_hold_that_is_released_makes_its_order_due(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="W1", quantity=1)
    made = await captured(db, order(net, "N1", ("A", 1)))
    await hold(db, order_id=made, lines=None, kind="fraud", who="test")
    assert await decide(db) == 1 and await places(db, made) == []
    await release(db, order_id=made, lines=None, who="test")
    assert await decide(db) == 1 and await places(db, made) == ["W1"]


async def test_prices_of_recent_runs_keep_what_is_scarce_for_who_pays_more_for_want_of_it(
    db: Database, net: Net
) -> None:
    await set_stock(db, sku="A", location="W1", quantity=50)
    await set_stock(db, sku="A", location="S1", quantity=50)
    mine, _ = [await captured(db, order(net, f"N{n}", ("A", 1))) for n in range(2)]
    problem, _ = await planning.read_problem(
        db, run_id=online.NO_RUN, now=NOW, policies=[], which=broker.Which(orders=[mine])
    )
    assert [o.order_id for o in problem.orders] == [str(mine)]
    (near,) = online.decided(problem, []).assignments
    (other,) = {s.location_id for s in problem.stock} - {near.location_id}
    scarce = Shadow([CellPrice(problem.lines[0].sku_id, near.location_id, 5_000.0)], [])
    (kept,) = online.decided(problem, [scarce]).assignments
    assert kept.location_id == other
    async with db.transaction() as tx:
        run_id = await broker.begin_run(
            tx, dry_run=False, policy=None, policies=[], seconds=1.0, seed=0, who="test", mode="joint"
        )
        await planning.planned(tx, run_id=run_id, summary={}, prices=planning.kept_prices(scarce))
        await online.drop_all_due(tx)
        await tx.execute("insert into broker_due (order_id) values ($1)", mine)
    await decide(db)
    assert await ask(
        db, "select location_id from fulfillment where order_id = $1", mine
    ) == other  # fmt: skip


async def test_an_order_that_cannot_be_decided_is_an_exception_and_hurts_no_other(
    db: Database, net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    await set_stock(db, sku="A", location="W1", quantity=9)
    bad, good = [await captured(db, order(net, f"N{n}", ("A", 1))) for n in range(2)]
    real = online.decided

    def breaks(problem: Problem, prices: object) -> object:
        assert str(bad) not in [o.order_id for o in problem.orders], "it cannot be"
        return real(problem, prices)  # type: ignore[arg-type]

    monkeypatch.setattr(online, "decided", breaks)
    await decide(db)
    assert (await places(db, bad), await places(db, good)) == ([], ["W1"])
    assert await exceptions(db) == [("run_failed", str(bad))]
    assert await ask(db, "select count(*) from broker_due") == 0


async def test_very_many_at_once_are_planned_together(
    db: Database, net: Net, cache: Cache, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    monkeypatch.setattr(online, "JOINTLY_FROM", 3)
    await set_stock(db, sku="A", location="W1", quantity=9)
    await brokering(db, {"freight": "nightly"})
    ids = [await captured(db, order(net, f"N{n}", ("A", 1))) for n in range(4)]
    nightly = await captured(db, order(net, "later", ("A", 1), method="freight"))
    assert await decide(db) is None
    await worker._decide_due({"db": db, "cache": cache, "settings": settings}, online.Known())
    assert [await places(db, i) for i in ids] == [["W1"]] * 4
    assert await places(db, nightly) == []
    assert [r.mode for r in await broker.listed(db, before=None, limit=9)] == ["joint"]


async def test_what_a_run_has_planned_is_not_decided_once_more(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="W1", quantity=1)
    await brokering(db, {"freight": "nightly"})
    for n in range(3):
        await captured(db, order(net, f"N{n}", ("A", 1)))
    await broker.run(db, who="test", now=NOW, seconds=1, dry_run=True)
    assert await ask(db, "select count(*) from broker_due") == 3, "a trial decides nothing"
    await broker.run(db, who="test", now=NOW, seconds=1, which=broker.Which(minute=0, every=1))
    assert await ask(db, "select count(*) from broker_due") == 0
    await captured(db, order(net, "N4", ("A", 1)))
    await broker.run(db, who="test", now=NOW, seconds=1)
    assert await decide(db) == 0


async def test_two_workers_share_what_is_due_and_nothing_is_allocated_twice(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="W1", quantity=60)
    ids = [await captured(db, order(net, f"N{n}", ("A", 1))) for n in range(60)]
    done = await asyncio.gather(*(decide(db) for _ in range(3)))
    assert sum(n or 0 for n in done) == 60
    assert [await places(db, i) for i in ids] == [["W1"]] * 60
    assert await ask(db, "select count(*) from fulfillment") == 60


async def test_prices_are_worked_out_for_the_rest_of_the_day_from_yesterdays_orders_and_nothing_is_allocated(
    db: Database, net: Net
) -> None:
    await set_stock(db, sku="A", location="W1", quantity=2)
    await set_stock(db, sku="A", location="S1", quantity=50)
    for n in range(5):
        await captured(db, order(net, f"N{n}", ("A", 1)))
    tomorrow = datetime.now(UTC) + timedelta(hours=23)
    run = await broker.reprice(db, who="test", now=tomorrow, seconds=2)
    assert run is not None and (run.mode, run.dry_run, run.summary["orders"]) == ("prices", True, 5)
    stock, _ = await broker.savings(db, run_id=run.id, limit=9)
    assert [s.location for s in stock] == ["W1"] and stock[0].cents > 0
    assert await ask(db, "select count(*) from fulfillment") == 0
    assert await broker.reprice(db, who="test", now=tomorrow + timedelta(days=2), seconds=2) is None
    # the next run starts from them, and what is due is decided at them
    known = online.Known()
    async with db.connection() as tx:
        await known.refresh(tx, now=NOW)
    (given,) = known.prices([net.skus["A"]])
    assert [p.location_id for p in given.stock] == [net.locations["W1"]]
