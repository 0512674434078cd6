"""A late cancellation takes work back without a phone call, and says of each line whether it was in time."""

from collections.abc import AsyncIterator

import msgspec
import pytest

from oms.db import Database
from oms.errors import Conflict
from oms.flows.order.change import cancel
from oms.flows.order.read import order_history
from tests.balance import check_balance
from tests.demand import allocated, captured, order, work_up_to
from tests.feeding import change
from tests.world import Net, set_stock, small_network


@pytest.fixture
async def net(db: Database) -> AsyncIterator[Net]:
    net = await small_network(db)
    for sku in "AB":
        for location in ("W1", "S1"):
            await set_stock(db, sku=sku, location=location, quantity=5)
    yield net
    await check_balance(db)


async def test_work_in_hands_is_recalled_and_each_line_says_from_where(db: Database, net: Net) -> None:
    work = await allocated(db, net, "N1", ("A", 2, "S1"), ("B", 1, "S1"))
    await work_up_to(db, work, "pick")
    done = await cancel(db, order_id=work.order_id, lines=["1"], why="late", who="shop")
    [line] = done.lines
    assert (done.units, line.cancelled, line.too_late, line.in_time) == (2, 2, 0, True)
    assert [(r.location, r.state, r.quantity, r.is_certain) for r in line.recalled] == [("S1", "picked", 2, True)]


async def test_a_line_of_which_a_part_has_shipped_is_too_late_for_that_part(db: Database, net: Net) -> None:
    await change(
        db, """update channel set settings = '{"updates_url": "https://shop.example/oms"}' where code = 'web'"""
    )
    work = await allocated(db, net, "N1", ("A", 2, "S1"), ("B", 1, "W1"))
    await work_up_to(db, work, "ship")
    order_id = await captured(db, order(net, "N2", ("A", 1)))
    assert [n.in_time for n in (await cancel(db, order_id=order_id, lines=None, why=None, who="shop")).lines] == [True]
    with pytest.raises(Conflict) as refused:
        await cancel(db, order_id=work.order_id, lines=None, why="late", who="shop")
    assert refused.value.items == [
        {"line": "1", "reason": "too late: 2 have shipped"}, {"line": "2", "reason": "too late: 1 have shipped"},
    ]  # fmt: skip
    both = await allocated(db, net, "N3", ("A", 1, "S1"), ("B", 1, "W1"))
    only_s1 = msgspec.structs.replace(both, fulfillments={"S1": both.fulfillments["S1"]})
    await work_up_to(db, only_s1, "ship")
    done = await cancel(db, order_id=both.order_id, lines=None, why="late", who="shop")
    assert [(n.cancelled, n.too_late, n.in_time) for n in done.lines] == [(0, 1, False), (1, 0, True)]
    async with db.connection() as tx:
        told = await tx.fetchval(
            "select detail from order_update where event = 'order.cancelled' and order_id = $1", both.order_id
        )
    assert (told["why"], [n["in_time"] for n in told["answers"]]) == ("late", [False, True])
    steps = [(s.step, s.why) for s in await order_history(db, order_id=both.order_id)]
    assert ("cancelled", "late") in steps and ("recalled", "late") in steps
