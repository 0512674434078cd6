"""Orders are held for several reasons at once, with or without their stock, and go on when the last hold is released."""

from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from oms.db import Database
from oms.errors import BadInput, Conflict
from oms.flows.network import load
from oms.flows.order.amend import Amendment, Wish, amend
from oms.flows.order.change import cancel
from oms.flows.order.holds import hold, release
from oms.flows.order.parked import unpark_lines
from oms.flows.order.read import order_history, read_order
from tests.balance import check_balance
from tests.demand import allocated, captured, order
from tests.feeding import NOW, exceptions
from tests.world import Net, set_stock, small_network


@pytest.fixture
async def net(db: Database) -> AsyncIterator[Net]:
    yield await small_network(db)
    await check_balance(db)


async def free(db: Database) -> int:
    async with db.connection() as tx:
        return await tx.fetchval(
            "select (select sum(u) from unnest(supply) u) - (select sum(u) from unnest(reserved) u)"
            " from availability join sku using (sku_id) where code = 'A'"
        )


async def state(db: Database, order_id: UUID) -> tuple[str, str | None, int, int]:
    view = await read_order(db, order_id=order_id)
    return view.state, view.lines[0].hold, view.lines[0].open, view.lines[0].parked


async def test_an_order_with_several_holds_goes_on_when_the_last_is_released(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="W1", quantity=5)
    order_id = await captured(db, order(net, "N1", ("A", 2)))
    assert await hold(db, order_id=order_id, lines=None, kind="fraud", why="three cards", who="ann") == 1
    assert await hold(db, order_id=order_id, lines=None, kind="payment", who="bob") == 1
    assert await hold(db, order_id=order_id, lines=None, kind="payment", who="bob") == 0, "once"
    view = await read_order(db, order_id=order_id)
    assert [(h.kind, h.who, h.why, h.keeps_stock, h.lines) for h in view.holds] == [
        ("fraud", "ann", "three cards", True, ["1"]), ("payment", "bob", None, True, ["1"]),
    ]  # fmt: skip
    assert await release(db, order_id=order_id, lines=None, kind="fraud", who="ann") == 1
    assert await state(db, order_id) == ("held", "payment", 2, 0)
    assert await release(db, order_id=order_id, lines=None, kind="fraud", who="ann") == 0
    assert await release(db, order_id=order_id, lines=None, kind="payment", why="paid", who="bob") == 1
    assert (await state(db, order_id), await free(db)) == (("open", None, 2, 0), 3)
    steps = [(s.step, s.who, s.why) for s in await order_history(db, order_id=order_id)]
    assert steps[1:] == [
        ("held", "ann", "three cards"), ("held", "bob", "payment"), ("released", "ann", None), ("released", "bob", "paid"),
    ]  # fmt: skip


async def test_a_hold_that_keeps_no_stock_gives_it_to_others_until_it_is_released(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="W1", quantity=3)
    order_id = await captured(db, order(net, "N1", ("A", 2)))
    await hold(db, order_id=order_id, lines=None, kind="payment", keeps_stock=False, who="ann")
    assert (await state(db, order_id), await free(db)) == (("held", "payment", 0, 2), 3)
    await check_balance(db)
    await hold(db, order_id=order_id, lines=None, kind="fraud", who="ann")
    assert await free(db) == 3, "one that keeps stock does not take it back from another that does not"
    await release(db, order_id=order_id, lines=None, kind="payment", who="ann")
    assert (await state(db, order_id), await free(db)) == (("held", "fraud", 2, 0), 1)
    assert await exceptions(db) == []


async def test_what_others_took_meanwhile_is_short_at_the_release(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="W1", quantity=3)
    order_id = await captured(db, order(net, "N1", ("A", 2)))
    await hold(db, order_id=order_id, lines=None, kind="payment", keeps_stock=False, who="ann")
    await captured(db, order(net, "N2", ("A", 2)))
    assert await exceptions(db) == []
    await release(db, order_id=order_id, lines=None, who="ann")
    assert await exceptions(db) == [("oversold", "web/N1")]
    async with db.connection() as tx:
        payload = await tx.fetchval("select payload from exception where kind = 'oversold'")
    assert payload["lines"] == [{"line": "1", "sku": "A", "quantity": 2, "short": 1}]
    assert await state(db, order_id) == ("open", None, 2, 0)


async def test_a_hold_may_change_whether_it_keeps_stock(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="W1", quantity=3)
    order_id = await captured(db, order(net, "N1", ("A", 2)))
    for keeps, left in ((True, 1), (False, 3), (True, 1)):
        await hold(db, order_id=order_id, lines=None, kind="fraud", keeps_stock=keeps, who="ann")
        assert await free(db) == left
        await check_balance(db)


async def test_what_is_held_without_stock_may_be_amended_and_cancelled(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="W1", quantity=5)
    order_id = await captured(db, order(net, "N1", ("A", 2)))
    await hold(db, order_id=order_id, lines=None, kind="payment", keeps_stock=False, who="ann")
    await amend(db, order_id=order_id, to=Amendment(lines=(Wish("1", 3),)), why=None, who="ann")
    assert (await state(db, order_id), await free(db)) == (("held", "payment", 0, 3), 5)
    assert (await cancel(db, order_id=order_id, lines=None, why=None, who="ann")).units == 3
    assert await release(db, order_id=order_id, lines=None, who="ann") == 1
    assert await state(db, order_id) == ("cancelled", None, 0, 0)


async def test_a_line_of_an_unknown_sku_takes_no_stock_before_its_hold_is_released(db: Database, net: Net) -> None:
    order_id = await captured(db, order(net, "N1", ("zz", 2)))
    await hold(db, order_id=order_id, lines=None, kind="fraud", keeps_stock=False, who="ann")
    loaded = await load(db, kind="skus", rows=[{"code": "zz", "name": "found"}], who="me", now=NOW)
    assert not loaded.refused
    assert await unpark_lines(db) == 0
    await release(db, order_id=order_id, lines=None, who="ann")
    assert await unpark_lines(db) == 1
    assert await state(db, order_id) == ("open", None, 2, 0)


async def test_only_known_kinds_hold_and_only_what_is_open(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="S1", quantity=5)
    work = await allocated(db, net, "N1", ("A", 2, "S1"))
    with pytest.raises(Conflict, match="nothing is open"):
        await hold(db, order_id=work.order_id, lines=None, kind="fraud", who="ann")
    for act in (hold, release):
        with pytest.raises(BadInput, match="fraud, address, payment, customer"):
            await act(db, order_id=work.order_id, lines=None, kind="whim", who="ann")
