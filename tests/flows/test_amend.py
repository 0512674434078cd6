"""An order is amended before its release: all of it or nothing, and promised again."""

import asyncio
from collections.abc import AsyncIterator
from datetime import date
from typing import Any
from uuid import UUID

import pytest

from oms.db import Database
from oms.domain.order import OrderLine, ShipTo
from oms.errors import BadInput, Conflict, NotFound
from oms.flows import broker
from oms.flows.order.amend import Amendment, Wish, amend
from oms.flows.order.change import cancel
from oms.flows.order.holds import hold
from oms.flows.order.read import order_history, read_order
from oms.flows.order.rows import Sight
from oms.flows.promise.ordered import promise_order
from tests.balance import check_balance
from tests.demand import allocated, captured, order, planned, work_up_to
from tests.feeding import NOW, change, exceptions
from tests.world import Net, set_stock, small_network


@pytest.fixture
async def net(db: Database) -> AsyncIterator[Net]:
    yield await small_network(db)
    await check_balance(db)


async def to(db: Database, order_id: UUID, *lines: tuple[str, int], **more: Any) -> int:
    wishes = tuple(Wish(*line) for line in lines)
    return await amend(db, order_id=order_id, to=Amendment(lines=wishes, **more), why="customer called", who="desk")


async def units(db: Database, order_id: UUID) -> list[tuple[str, int, int, int, int]]:
    view = await read_order(db, order_id=order_id)
    return [(n.line, n.quantity, n.open, n.allocated, n.cancelled) for n in view.lines]


async def free(db: Database, sku: str = "A") -> int:
    async with db.connection() as tx:
        return await tx.fetchval(
            "select (select sum(u) from unnest(supply) u) - (select sum(u) from unnest(reserved) u)"
            " from availability join sku using (sku_id) where code = $1", sku,
        )  # fmt: skip


async def test_fewer_units_are_free_again_and_more_are_taken_like_captured_ones(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="W1", quantity=9)
    order_id = await captured(db, order(net, "N1", ("A", 5)))
    assert await to(db, order_id, ("1", 2)) == 1
    assert (await units(db, order_id), await free(db)) == ([("1", 5, 2, 0, 3)], 7)
    assert await to(db, order_id, ("1", 6)) == 1
    assert (await units(db, order_id), await free(db)) == ([("1", 9, 6, 0, 3)], 3)
    assert await to(db, order_id, ("1", 6)) == 0, "nothing is different"
    assert await exceptions(db) == []


async def test_more_than_there_is_is_accepted_and_an_exception(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="W1", quantity=2)
    order_id = await captured(db, order(net, "N1", ("A", 2)))
    await to(db, order_id, ("1", 5))
    assert await exceptions(db) == [("oversold", "web/N1")]
    assert await units(db, order_id) == [("1", 5, 5, 0, 0)]


async def test_a_line_is_added_and_another_cancelled_at_once(db: Database, net: Net) -> None:
    for sku in "AB":
        await set_stock(db, sku=sku, location="W1", quantity=5)
    order_id = await captured(db, order(net, "N1", ("A", 2)))
    await to(db, order_id, ("1", 0), add=(OrderLine(line="2", sku="B", quantity=3, price_cents=700),))
    assert await units(db, order_id) == [("1", 2, 0, 0, 2), ("2", 3, 3, 0, 0)]
    assert (await free(db, "A"), await free(db, "B")) == (5, 2)


async def test_an_added_line_of_an_unknown_sku_waits_parked(db: Database, net: Net) -> None:
    order_id = await captured(db, order(net, "N1", ("A", 1)))
    await to(db, order_id, add=(OrderLine(line="2", sku="zz", quantity=3),))
    assert ("unknown_sku", "web/zz") in await exceptions(db)
    await to(db, order_id, ("2", 5))
    assert [line.parked for line in (await read_order(db, order_id=order_id)).lines] == [0, 5]
    await to(db, order_id, ("2", 1))
    assert [line.parked for line in (await read_order(db, order_id=order_id)).lines] == [0, 1]


async def test_a_kit_changes_with_all_its_parts(db: Database, net: Net) -> None:
    await change(db, "update sku set is_kit = true where code = 'E'")
    await change(
        db, "insert into kit (kit_id, component_id, quantity) select k.sku_id, c.sku_id, q from sku k,"
        " (values ('A', 2), ('B', 1)) as n(code, q) join sku c using (code) where k.code = 'E'",
    )  # fmt: skip
    order_id = await captured(db, order(net, "N1", ("E", 3)))
    await to(db, order_id, ("1", 1))
    assert await units(db, order_id) == [("1", 6, 2, 0, 4), ("1", 3, 1, 0, 2)]
    await to(db, order_id, ("1", 2))
    assert [n[2] for n in await units(db, order_id)] == [4, 2]
    await change(db, "update kit set quantity = 3 where quantity = 2")
    with pytest.raises(Conflict, match="parts have changed"):
        await to(db, order_id, ("1", 3))


async def test_what_is_released_is_refused_per_line_and_nothing_of_the_rest_happens(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="S1", quantity=5)
    await set_stock(db, sku="B", location="S1", quantity=5)
    work = await allocated(db, net, "N1", ("A", 2, "S1"), ("B", 2, "S1"))
    await to(db, work.order_id, add=(OrderLine(line="3", sku="A", quantity=1),))
    with pytest.raises(Conflict) as refused:
        await to(db, work.order_id, ("1", 1), ("2", 3), ("3", 3), method="express")
    assert [item["line"] for item in refused.value.items] == ["1", "2"]
    assert refused.value.items[0]["reason"] == "is released: S1 has 2 of it, released"
    assert await units(db, work.order_id) == [("1", 2, 0, 2, 0), ("2", 2, 0, 2, 0), ("3", 1, 1, 0, 0)]
    assert (await read_order(db, order_id=work.order_id)).method == "ground"
    await to(db, work.order_id, ("3", 2))
    assert (await units(db, work.order_id))[2] == ("3", 2, 2, 0, 0), "its other lines go on"


async def test_a_channel_may_let_work_be_recalled_up_to_a_step(db: Database, net: Net) -> None:
    await change(db, """update channel set settings = '{"amendments_recall_until": "accepted"}' where code = 'web'""")
    await set_stock(db, sku="A", location="S1", quantity=5)
    work = await allocated(db, net, "N1", ("A", 3, "S1"))
    await to(db, work.order_id, ("1", 1))
    assert await units(db, work.order_id) == [("1", 3, 0, 1, 2)]
    assert [f.state for f in (await read_order(db, order_id=work.order_id)).fulfillments] == ["released"]
    await to(db, work.order_id, method="express", ship_to=ShipTo(postal_code="02108"))
    view = await read_order(db, order_id=work.order_id)
    assert (view.method, view.ship_to["postal_code"]) == ("express", "02108")
    assert await units(db, work.order_id) == [("1", 3, 1, 0, 2)], "it is brokered again, to where it goes now"
    assert view.fulfillments[0].state == "recalled"
    again = await allocated(db, net, "N2", ("A", 1, "S1"))
    await work_up_to(db, again, "pick")
    with pytest.raises(Conflict, match="picked"):
        await to(db, again.order_id, ("1", 0))


async def test_what_has_shipped_is_no_longer_amended(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="S1", quantity=5)
    work = await allocated(db, net, "N1", ("A", 2, "S1"))
    await work_up_to(db, work, "ship")
    for wanted, why in ((1, "take them back as a return"), (3, "add a line of its own")):
        with pytest.raises(Conflict, match=why):
            await to(db, work.order_id, ("1", wanted))


async def test_history_names_what_was_and_what_is_and_who_and_why(db: Database, net: Net) -> None:
    order_id = await captured(db, order(net, "N1", ("A", 2)))
    await to(db, order_id, ("1", 1), method="express")
    step = (await order_history(db, order_id=order_id))[-1]
    assert (step.step, step.who, step.why) == ("amended", "desk", "customer called")
    assert step.detail["changes"] == [
        {"line": "1", "field": "quantity", "was": 2, "now": 1},
        {"field": "method", "was": "ground", "now": "express"},
    ]


async def test_an_amendment_that_says_nonsense_names_each_place(db: Database, net: Net) -> None:
    order_id = await captured(db, order(net, "N1", ("A", 2)))
    for wrong, why in (
        ({"add": (OrderLine(line="1", sku="A", quantity=1),)}, "is a line of this order already"),
        ({"add": (OrderLine(line="2", sku="A", quantity=0),)}, "is not a whole number"),
    ):
        with pytest.raises(BadInput, match=why):
            await to(db, order_id, **wrong)
    with pytest.raises(BadInput, match="no line '9'"):
        await to(db, order_id, ("9", 1))
    with pytest.raises(BadInput, match="stands twice"):
        await to(db, order_id, ("1", 1), ("1", 2))
    with pytest.raises(NotFound):
        await amend(db, order_id=order_id, to=Amendment(), why=None, who="x", sight=Sight(channels=(99,)))


async def test_an_order_of_which_nothing_is_left_settles_its_exceptions(db: Database, net: Net) -> None:
    order_id = await captured(db, order(net, "N1", ("A", 2)))
    assert await exceptions(db) == [("oversold", "web/N1")]
    await to(db, order_id, ("1", 0))
    assert await exceptions(db) == []


async def test_an_amended_order_is_promised_again_and_the_channel_hears_of_a_new_day(db: Database, net: Net) -> None:
    await change(
        db, """update channel set settings = '{"updates_url": "https://shop.example/oms"}' where code = 'web'"""
    )
    await set_stock(db, sku="A", location="W1", quantity=2)
    await change(
        db, "insert into incoming (source_id, reference, sku_id, location_id, kind, quantity, due_on)"
        " select 1, 'PO', s.sku_id, l.location_id, 'purchase', 9, '2026-12-01' from sku s, location l"
        " where s.code = 'A' and l.code = 'W1'",
    )  # fmt: skip
    order_id = await captured(db, order(net, "N1", ("A", 2)))
    [now] = await promise_order(db, order_id=order_id, now=NOW)
    assert (now.why, now.arrives_on is not None and now.arrives_on < date(2026, 12, 1)) == ("in stock", True)
    await to(db, order_id, ("1", 4))
    [later] = await promise_order(db, order_id=order_id, now=NOW)
    assert (
        later.why == "expected on 2026-12-01" and later.arrives_on is not None and later.arrives_on > date(2026, 12, 1)
    )
    assert [n.promised_on for n in (await read_order(db, order_id=order_id)).lines] == [date(2026, 12, 1)]
    async with db.connection() as tx:
        told = await tx.fetch("select event from order_update order by update_id")
    assert [row[0] for row in told] == ["order.captured", "order.amended", "order.promised"]


async def test_nobody_amends_what_is_being_cancelled_and_the_units_are_counted_once(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="S1", quantity=5)
    order_id = await captured(db, order(net, "N1", ("A", 2), pickup_location="S1"))
    with pytest.raises(Conflict, match="S1 has 2 of it"):
        await to(db, order_id, ("1", 1))
    await cancel(db, order_id=order_id, lines=None, why=None, who="shop")
    await to(db, order_id, ("1", 1))
    assert (await units(db, order_id), await free(db)) == ([("1", 3, 1, 0, 2)], 4)


async def test_a_shop_that_sells_by_itself_has_deducted_what_a_line_has_more(db: Database, net: Net) -> None:
    order_id = await captured(db, order(net, "N1", ("A", 2), sold_there=True))
    await change(db, "delete from touched")
    await to(db, order_id, ("1", 5))
    async with db.connection() as tx:
        assert await tx.fetchval("select sum(sold) from touched") == 3


async def test_what_was_planned_before_an_order_changed_is_not_allocated(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="W1", quantity=9)
    for number, act in enumerate(("amend", "hold", "park")):
        order_id = await captured(db, order(net, f"N{number}", ("A", 2)))
        run_id = await planned(db, net, order_id, ("1", 2, "W1"))
        if act == "amend":
            await to(db, order_id, ("1", 3))
        else:
            await hold(db, order_id=order_id, lines=None, kind="fraud", keeps_stock=act == "hold", who="ann")
        await broker.apply(db, run_id=run_id, who="test", now=NOW)
        assert [n[3] for n in await units(db, order_id)] == [0], act


async def test_two_amendments_at_once_are_one_after_the_other(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="W1", quantity=9)
    order_id = await captured(db, order(net, "N1", ("A", 2)))
    await asyncio.gather(*(to(db, order_id, ("1", quantity)) for quantity in (1, 5, 3, 4)))
    [(_, _, still_open, _, _)] = await units(db, order_id)
    assert still_open in (1, 3, 4, 5) and await free(db) == 9 - still_open
