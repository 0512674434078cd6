"""Work that nobody has accepted is planned again by the next joint run, and moves where its policy says it is worth it."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from oms import access
from oms.db import Database
from oms.flows import broker, fulfill
from oms.flows.broker import policy
from oms.flows.fulfill import handoff
from oms.flows.network import load
from oms.flows.order.read import order_history
from tests.demand import Work, allocated, captured, order, work_of, work_up_to
from tests.feeding import NOW, ask, change, check
from tests.world import Net, set_stock, small_network

LATER = datetime.now(UTC) + timedelta(days=1)


@pytest.fixture
async def net(db: Database) -> AsyncIterator[Net]:
    yield await small_network(db)
    await check(db)


async def moves_for(db: Database, cents: int | None, **body: Any) -> None:
    """A policy for all orders, in force: what a move must save, or none at all."""
    said = body if cents is None else body | {"move_saves_cents": cents}
    done = await load(db, kind="policies", rows=[{"code": "moves", "body": said}], who="planner", now=NOW)
    assert not done.refused, done.refused
    await policy.ask(db, code="moves", from_at=None, note=None, who="planner", now=datetime.now(UTC))
    await policy.decide(db, code="moves", is_agreed=True, who="approver")


async def run(db: Database, **given: Any) -> broker.Run:
    return await broker.run(db, who="test", now=LATER, seconds=4, **given)


async def far_away(db: Database, net: Net, *, number: str = "N1", units: int = 1) -> Work:
    """Work of a customer in New York at the warehouse in Chicago, while the store next door has it too by now."""
    await set_stock(db, sku="A", location="W1", quantity=50)
    work = await allocated(db, net, number, ("A", units, "W1"))
    await set_stock(db, sku="A", location="S1", quantity=50)
    return work


async def where(db: Database, work: Work) -> list[str]:
    return sorted((await work_of(db, work.order_id, work.run_id)).fulfillments)


async def test_work_moves_to_where_a_later_plan_saves_enough_and_its_history_says_why(db: Database, net: Net) -> None:
    await moves_for(db, 1, weights={"handling": 0, "line": 0, "stock_out": 0})
    work = await far_away(db, net)
    done = await run(db)
    assert done.summary["moves"]["orders"] == 1 and done.summary["moves"]["saves_cents"] > 0
    assert await where(db, work) == ["S1"]
    assert await ask(db, "select state from fulfillment where fulfillment_id = $1", work.fulfillment) == "recalled"
    steps = [s.step for s in await order_history(db, order_id=work.order_id)]
    assert steps[-3:].count("allocated") == 1 and "open again" in steps
    why = await ask(db, "select why from history where kind = 'fulfillment' and step = 'recalled'")
    assert why == f"run {done.id} saves {done.summary['moves']['saves_cents']} cents"
    (decided,) = await broker.why(db, run_id=done.id, number="N1", after=None, limit=9)
    assert (decided.state, decided.why["saves"]) == ("applied", done.summary["moves"]["saves_cents"])
    again = await run(db)
    assert again.summary["moves"] == {"orders": 0, "saves_cents": 0, "of": 1}


@pytest.mark.parametrize("cents", [None, 100_000])
async def test_work_stays_where_no_policy_lets_it_move_or_it_saves_less_than_that_asks(
    db: Database, net: Net, cents: int | None
) -> None:
    await moves_for(db, cents, weights={"handling": 0, "line": 0, "stock_out": 0})
    work = await far_away(db, net)
    done = await run(db)
    assert done.summary.get("moves", {"orders": 0})["orders"] == 0
    assert await where(db, work) == ["W1"]


async def test_accepted_work_never_moves_also_where_it_is_accepted_while_the_run_plans(db: Database, net: Net) -> None:
    await moves_for(db, 1, weights={"handling": 0, "line": 0, "stock_out": 0})
    work = await far_away(db, net)
    planned = await run(db, dry_run=True)
    assert planned.summary["moves"]["orders"] == 1
    await change(db, "update run set dry_run = false where run_id = $1", planned.id)
    await work_up_to(db, work, "accept")
    await broker.apply(db, run_id=planned.id, who="test", now=LATER)
    (decided,) = await broker.why(db, run_id=planned.id, number="N1", after=None, limit=9)
    assert decided.state == "dropped"
    done = await run(db)
    assert done.summary["moves"]["of"] == 0
    assert await where(db, work) == ["W1"]


async def test_what_is_open_may_take_what_moving_work_leaves(db: Database, net: Net) -> None:
    await moves_for(db, 1, weights={"handling": 0, "line": 0, "stock_out": 0})
    await set_stock(db, sku="A", location="S1", quantity=1)
    blocks = await allocated(db, net, "N1", ("A", 1, "S1"))  # the only unit in New York, for one who lives in Chicago
    await change(
        db,
        'update orders set ship_to = ship_to || \'{"lat": 41.88, "lon": -87.63}\' where order_id = $1',
        blocks.order_id,
    )
    await set_stock(db, sku="A", location="W1", quantity=1)
    waits = await captured(db, order(net, "N2", ("A", 1)))
    done = await run(db)
    assert done.summary["moves"]["orders"] == 1
    assert await where(db, blocks) == ["W1"]
    assert sorted((await work_of(db, waits, done.id)).fulfillments) == ["S1"]


async def test_a_move_that_does_not_fit_any_more_leaves_the_work_where_it_is(db: Database, net: Net) -> None:
    await moves_for(db, 1, weights={"handling": 0, "line": 0, "stock_out": 0})
    work = await far_away(db, net)
    planned = await run(db, dry_run=True)
    await change(db, "update run set dry_run = false where run_id = $1", planned.id)
    await set_stock(db, sku="A", location="S1", quantity=0)
    await broker.apply(db, run_id=planned.id, who="test", now=LATER)
    assert await where(db, work) == ["W1"]
    assert await ask(db, "select state from fulfillment where fulfillment_id = $1", work.fulfillment) == "released"


async def test_a_full_day_is_no_bar_to_the_work_that_is_there_already(db: Database, net: Net) -> None:
    await moves_for(db, 1, weights={"handling": 0, "line": 0, "stock_out": 0})
    await change(db, "update location set capacity_orders = 1 where code in ('S1', 'W1')")
    work = await far_away(db, net)
    await run(db)
    assert await where(db, work) == ["S1"]
    assert await ask(db, "select sum(orders) from capacity") == 1


async def test_work_may_be_accepted_while_it_moves_and_one_of_the_two_wins(db: Database, net: Net) -> None:
    await moves_for(db, 1, weights={"handling": 0, "line": 0, "stock_out": 0})
    work = await far_away(db, net)
    planned = await run(db, dry_run=True)
    await change(db, "update run set dry_run = false where run_id = $1", planned.id)
    await asyncio.gather(
        broker.apply(db, run_id=planned.id, who="test", now=LATER),
        fulfill.advance(db, fulfillments=[work.fulfillment], step="accept", actor=access.house, now=LATER),
        return_exceptions=True,
    )
    state = await ask(db, "select state from fulfillment where fulfillment_id = $1", work.fulfillment)
    assert (state, await where(db, work)) in [("accepted", ["W1"]), ("recalled", ["S1"])]


async def test_work_at_a_location_that_another_system_runs_stays_there(db: Database, net: Net, tmp_path: Path) -> None:
    await moves_for(db, 1, weights={"handling": 0, "line": 0, "stock_out": 0})
    settings = {"folder": str(tmp_path)}
    await handoff.change(db, location="W1", kind="file", settings=settings, acknowledge_minutes=15, is_on=True, who="x")
    work = await far_away(db, net)
    done = await run(db)
    assert (done.summary["moves"]["of"], await where(db, work)) == (0, ["W1"])
