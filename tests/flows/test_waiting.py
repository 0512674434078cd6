"""Backorders and pre-orders wait for their receipts in the order of their promises, and go when these land."""

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from oms import access, worker
from oms.cache import Cache
from oms.db import Database
from oms.domain.order import CartLine
from oms.flows import broker
from oms.flows.ingest import holds
from oms.flows.network import load
from oms.flows.order.amend import Amendment, Wish, amend
from oms.flows.order.holds import hold
from oms.flows.order.read import order_history, read_order
from oms.flows.promise import overdue
from oms.flows.reserve import Cart, Granted, reserve_many
from oms.flows.stock import receive
from oms.settings import Settings
from oms.settle import settle_batch
from tests.balance import check_balance
from tests.demand import captured, order
from tests.feeding import NOW, change, exceptions
from tests.world import Net, set_stock, small_network


@pytest.fixture
async def net(db: Database) -> AsyncIterator[Net]:
    yield await small_network(db)
    await check_balance(db)


async def put(db: Database, kind: str, *rows: dict[str, Any]) -> None:
    loaded = await load(db, kind=kind, rows=list(rows), who="me", now=NOW)
    assert not loaded.refused, loaded.refused


async def expect(db: Database, reference: str, quantity: int, due_on: str, *, sku: str = "A") -> None:
    await put(
        db, "incoming",
        {"source": "erp", "reference": reference, "sku": sku, "location": "W1", "quantity": quantity, "due_on": due_on},
    )  # fmt: skip


async def land(db: Database, reference: str, due_on: str, *, left: int, on_hand: int, sku: str = "A") -> None:
    """What is on hand at W1 after a receipt of which `left` is still to come."""
    await expect(db, reference, left, due_on, sku=sku)
    await set_stock(db, sku=sku, location="W1", quantity=on_hand)


async def run(db: Database) -> None:
    await broker.run(db, who="test", now=NOW, seconds=2)


async def days(db: Database, *orders: UUID) -> list[date | None]:
    return [(await read_order(db, order_id=one)).lines[0].promised_on for one in orders]


async def allocated(db: Database, *orders: UUID) -> list[int]:
    return [sum(n.allocated for n in (await read_order(db, order_id=one)).lines) for one in orders]


async def test_of_two_receipts_each_releases_the_lines_that_were_promised_by_it(db: Database, net: Net) -> None:
    await expect(db, "PO1", 2, "2026-12-01")
    await expect(db, "PO2", 3, "2026-12-08")
    made = [await captured(db, order(net, f"N{k}", ("A", units))) for k, units in enumerate((2, 2, 1))]
    await overdue.promise_again(db, today=NOW.date())
    assert await days(db, *made) == [date(2026, 12, 1), date(2026, 12, 8), date(2026, 12, 8)]
    await run(db)
    assert await allocated(db, *made) == [0, 0, 0], "nothing has landed"
    await land(db, "PO1", "2026-12-01", left=0, on_hand=2)
    await run(db)
    assert await allocated(db, *made) == [2, 0, 0]
    await land(db, "PO2", "2026-12-08", left=0, on_hand=5)
    await run(db)
    assert await allocated(db, *made) == [2, 2, 1]


async def test_of_a_partial_landing_only_so_many_go_by_date_then_priority_then_as_they_came(
    db: Database, net: Net
) -> None:
    await expect(db, "PO1", 3, "2026-12-01")
    first = await captured(db, order(net, "N1", ("A", 1)))
    second = await captured(db, order(net, "N2", ("A", 1)))
    urgent = await captured(db, order(net, "N3", ("A", 1), priority=5))
    await overdue.promise_again(db, today=NOW.date())
    await expect(db, "PO2", 3, "2026-12-08")
    latest = await captured(db, order(net, "N4", ("A", 1), priority=9))
    await overdue.promise_again(db, today=NOW.date())
    made = [first, second, urgent, latest]
    assert await days(db, *made) == [date(2026, 12, 1)] * 3 + [date(2026, 12, 8)]
    for on_hand, wanted in ((1, [0, 0, 1, 0]), (2, [1, 0, 1, 0]), (3, [1, 1, 1, 0]), (4, [1, 1, 1, 1])):
        await land(db, "PO1", "2026-12-01", left=max(0, 3 - on_hand), on_hand=on_hand)
        await run(db)
        assert await allocated(db, *made) == wanted


async def test_a_small_line_does_not_take_what_a_larger_one_before_it_waits_for(db: Database, net: Net) -> None:
    await expect(db, "PO1", 5, "2026-12-01")
    await expect(db, "PO2", 2, "2026-12-08")
    large = await captured(db, order(net, "N1", ("A", 5)))
    await overdue.promise_again(db, today=NOW.date())
    small = await captured(db, order(net, "N2", ("A", 2)))
    await overdue.promise_again(db, today=NOW.date())
    await land(db, "PO1", "2026-12-01", left=2, on_hand=3)
    await run(db)
    assert await allocated(db, large, small) == [0, 0]
    await land(db, "PO1", "2026-12-01", left=0, on_hand=5)
    await run(db)
    assert await allocated(db, large, small) == [5, 0]


async def test_what_stock_serves_is_not_held_up_by_those_that_wait(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="W1", quantity=2)
    await expect(db, "PO1", 9, "2026-12-01")
    there = await captured(db, order(net, "N1", ("A", 2)))
    late = await captured(db, order(net, "N2", ("A", 4), priority=9))
    await overdue.promise_again(db, today=NOW.date())
    assert await days(db, there, late) == [None, date(2026, 12, 1)]
    await run(db)
    assert await allocated(db, there, late) == [2, 0]


async def test_a_pre_order_that_was_reserved_ahead_waits_in_its_turn(db: Database, net: Net) -> None:
    today = datetime.now(UTC).date()
    due = today + timedelta(days=8)
    await expect(db, "PO1", 2, due.isoformat())
    await put(db, "rules", {"code": "ahead", "kind": "preorder", "channel": "web", "days": 30})
    ids = []
    for number in range(2):
        cart = Cart(reservation_id=uuid4(), channel_id=net.channels["web"], lines=(CartLine("A", 1),))
        (granted,) = await settle_batch(db, reserve_many, [cart])
        assert isinstance(granted, Granted), granted
        ids.append(await captured(db, order(net, f"N{number}", ("A", 1), reservation=str(granted.id))))
    later = await captured(db, order(net, "N9", ("A", 1)))
    await overdue.promise_again(db, today=today)
    assert await days(db, *ids, later) == [due, due, None]
    await land(db, "PO1", due.isoformat(), left=1, on_hand=1)
    await run(db)
    assert await allocated(db, *ids, later) == [1, 0, 0]


async def test_what_goes_together_waits_together(db: Database, net: Net) -> None:
    await set_stock(db, sku="B", location="W1", quantity=2)
    await expect(db, "PO1", 1, "2026-12-01")
    await put(
        db, "kits", {"kit": "E", "components": [{"component": "A", "quantity": 1}, {"component": "B", "quantity": 1}]}
    )
    kit = await captured(db, order(net, "N1", ("E", 1)))
    whole = await captured(db, order(net, "N2", ("A", 1), ("B", 1), split="complete"))
    await overdue.promise_again(db, today=NOW.date())
    await run(db)
    assert await allocated(db, kit, whole) == [0, 0]
    await land(db, "PO1", "2026-12-01", left=0, on_hand=1)
    await run(db)
    assert await allocated(db, kit, whole) == [2, 0]


async def policy(db: Database, body: dict[str, Any]) -> None:
    await put(db, "policies", {"code": "p", "body": body})
    await change(
        db,
        "update policy_version set state = 'approved', from_at = '-infinity', approved_at = now(), approved_by = 'x'",
    )


@pytest.mark.parametrize(("splits", "split", "first"), [(True, "free", 3), (True, "single", 0), (False, "free", 0)])
async def test_of_a_line_whose_units_may_split_what_is_there_goes_and_the_rest_waits_in_its_turn(
    db: Database, net: Net, splits: bool, split: str, first: int
) -> None:
    await policy(db, {"units_split": splits})
    await expect(db, "PO1", 5, "2026-12-01")
    await expect(db, "PO2", 2, "2026-12-08")
    large = await captured(db, order(net, "N1", ("A", 5), split=split))
    await overdue.promise_again(db, today=NOW.date())
    small = await captured(db, order(net, "N2", ("A", 2)))
    await overdue.promise_again(db, today=NOW.date())
    assert await days(db, large, small) == [date(2026, 12, 1), date(2026, 12, 8)]
    await land(db, "PO1", "2026-12-01", left=2, on_hand=3)
    await run(db)
    assert await allocated(db, large, small) == [first, 0]
    await overdue.promise_again(db, today=NOW.date())
    assert await days(db, large, small) == [date(2026, 12, 1), date(2026, 12, 8)]
    await run(db)
    assert await allocated(db, large, small) == [first, 0], "nothing more has landed"
    await land(db, "PO1", "2026-12-01", left=0, on_hand=5)
    await run(db)
    assert await allocated(db, large, small) == [5, 0]
    await land(db, "PO2", "2026-12-08", left=0, on_hand=7)
    await run(db)
    assert await allocated(db, large, small) == [5, 2]


async def test_a_line_that_goes_in_parts_leaves_those_before_it_what_was_promised_to_them(
    db: Database, net: Net
) -> None:
    await policy(db, {"units_split": True})
    await expect(db, "PO1", 4, "2026-12-01")
    first = await captured(db, order(net, "N1", ("A", 2)))
    await overdue.promise_again(db, today=NOW.date())
    second = await captured(db, order(net, "N2", ("A", 4)))
    await overdue.promise_again(db, today=NOW.date())
    await hold(db, order_id=first, lines=None, kind="payment", who="ann")
    await land(db, "PO1", "2026-12-01", left=1, on_hand=3)
    await run(db)
    assert await allocated(db, first, second) == [0, 1]


async def test_a_held_line_keeps_its_turn(db: Database, net: Net) -> None:
    await expect(db, "PO1", 1, "2026-12-01")
    held = await captured(db, order(net, "N1", ("A", 1)))
    await expect(db, "PO2", 1, "2026-12-08")
    other = await captured(db, order(net, "N2", ("A", 1)))
    await overdue.promise_again(db, today=NOW.date())
    await hold(db, order_id=held, lines=None, kind="payment", who="ann")
    await land(db, "PO1", "2026-12-01", left=0, on_hand=1)
    await run(db)
    assert await allocated(db, held, other) == [0, 0]


async def test_the_channel_hears_of_each_new_day_and_not_of_its_landing(db: Database, net: Net) -> None:
    await change(
        db, """update channel set settings = '{"updates_url": "https://shop.example/oms"}' where code = 'web'"""
    )
    await expect(db, "PO1", 2, "2026-12-08")
    order_id = await captured(db, order(net, "N1", ("A", 2)))
    await overdue.promise_again(db, today=NOW.date())
    for on in ("2026-12-10", "2026-12-03"):
        await expect(db, "PO1", 2, on)
        await overdue.promise_again(db, today=NOW.date())
    await land(db, "PO1", "2026-12-03", left=0, on_hand=2)
    await overdue.promise_again(db, today=NOW.date())
    await run(db)
    async with db.connection() as tx:
        told = await tx.fetch("select event, detail ->> 'on' from order_update order by update_id")
    assert [(event, on) for event, on in told] == [
        ("order.captured", None), ("order.promised", "2026-12-08"), ("order.delayed", "2026-12-10"),
        ("order.promised", "2026-12-03"), ("order.allocated", None),
    ]  # fmt: skip
    assert await allocated(db, order_id) == [2]


async def test_a_line_that_gives_way_lets_the_next_one_go(db: Database, net: Net) -> None:
    await expect(db, "PO1", 3, "2026-12-01")
    large = await captured(db, order(net, "N1", ("A", 3)))
    await overdue.promise_again(db, today=NOW.date())
    small = await captured(db, order(net, "N2", ("A", 1)))
    await land(db, "PO1", "2026-12-01", left=1, on_hand=2)
    await amend(db, order_id=large, to=Amendment(lines=(Wish("1", 1),)), why=None, who="shop")
    await run(db)
    assert await allocated(db, large, small) == [1, 1]


async def test_what_waits_too_long_is_cancelled_and_its_channel_is_told_days_before(
    db: Database, net: Net, cache: Cache, settings: Settings
) -> None:
    await change(
        db, """update channel set settings = '{"updates_url": "https://shop.example/oms"}' where code = 'web'"""
    )
    body = {"cancel_after_days": 5, "cancel_notice_days": 2}
    await put(db, "policies", {"code": "p", "body": body})
    await change(
        db,
        "update policy_version set state = 'approved', from_at = '-infinity', approved_at = now(), approved_by = 'x'",
    )
    order_id = await captured(db, order(net, "N1", ("A", 1), ("B", 1)))
    ctx = {"db": db, "cache": cache, "settings": settings}
    start = datetime.now(UTC) + timedelta(minutes=1)
    for day in (2, 3, 4):
        await worker.give_up(ctx, now=start + timedelta(days=day))
    assert (await read_order(db, order_id=order_id)).state == "open"
    await worker.give_up(ctx, now=start + timedelta(days=5))
    assert (await read_order(db, order_id=order_id)).state == "cancelled"
    steps = [s.step for s in await order_history(db, order_id=order_id)]
    assert steps == ["captured", "to be cancelled", "cancelled"], "told once"
    async with db.connection() as tx:
        told = await tx.fetch(
            "select event, detail from order_update where event <> 'order.captured' order by update_id"
        )
    on = (start + timedelta(days=5)).date().isoformat()
    why = "open for 5 days: policy p"
    assert told[0][0:2] == ("order.to_be_cancelled", {"lines": ["1", "2"], "on": on, "why": why})
    assert (told[1][0], told[1][1]["why"]) == ("order.cancelled", why)


async def test_a_notice_comes_before_the_cancellation(db: Database, net: Net) -> None:
    loaded = await load(
        db, kind="policies", rows=[{"code": "p", "body": {"cancel_after_days": 2, "cancel_notice_days": 2}}], who="me",
        now=NOW,
    )  # fmt: skip
    assert [r.reason for r in loaded.refused] == ["cancel_notice_days: is expected to be less than cancel_after_days"]


async def test_what_a_store_received_in_part_goes_as_soon_as_it_may_be_sold(
    db: Database, net: Net, cache: Cache
) -> None:
    await put(
        db, "incoming",
        {"source": "erp", "reference": "PO1", "sku": "A", "location": "S1", "quantity": 3, "due_on": "2026-12-01"},
    )  # fmt: skip
    made = [await captured(db, order(net, f"N{k}", ("A", 1), priority=k)) for k in range(3)]
    await overdue.promise_again(db, today=NOW.date())
    await receive.receive(
        db, location_id=net.locations["S1"], reference="PO1", is_final=False, now=NOW, lines=[receive.Came("A", 2)],
        actor=access.house,
    )  # fmt: skip
    await run(db)
    assert await allocated(db, *made) == [0, 0, 0], "held until somebody releases it"
    async with db.connection() as tx:
        hold_id = await tx.fetchval("select hold_id from hold where lifted_at is null")
    await holds.release(db, hold_id=hold_id, actor=access.house, why="looked at", now=NOW, cache=cache)
    await run(db)
    assert await allocated(db, *made) == [0, 1, 1]


async def test_an_oversold_order_is_no_exception_any_more_when_there_is_enough(db: Database, net: Net) -> None:
    made = [await captured(db, order(net, f"N{k}", ("A", 2))) for k in range(2)]
    await overdue.watch(db, now=NOW)
    assert await exceptions(db) == [("oversold", "web/N0"), ("oversold", "web/N1")]
    await set_stock(db, sku="A", location="W1", quantity=2)
    await overdue.watch(db, now=NOW)
    assert await exceptions(db) == [("oversold", "web/N1")]
    await set_stock(db, sku="A", location="W1", quantity=4)
    await run(db)
    await overdue.watch(db, now=NOW)
    assert (await exceptions(db), await allocated(db, *made)) == ([], [2, 2])
