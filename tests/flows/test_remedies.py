"""An oversold order says what may be done about each line, by what is true now, and does it."""

from collections.abc import AsyncIterator
from datetime import date
from typing import Any
from uuid import UUID

import pytest

from oms.db import Database
from oms.errors import BadInput, Conflict
from oms.flows.network import load
from oms.flows.order.change import cancel
from oms.flows.order.holds import hold, release
from oms.flows.order.read import order_history, read_order
from oms.flows.order.remedies import remedies
from oms.flows.order.resolve import Chosen, carry_out
from oms.flows.promise import overdue
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


async def proposed(db: Database, order_id: UUID) -> dict[str, tuple[int, list[str]]]:
    found = await remedies(db, order_id=order_id, now=NOW)
    return {line.line: (line.short, [remedy.kind for remedy in line.remedies]) for line in found}


async def choose(db: Database, order_id: UUID, kind: Any, **more: Any) -> list[str]:
    return await carry_out(db, order_id=order_id, chosen=Chosen(kind, **more), why=None, who="ann", now=NOW)


async def test_what_can_be_done_is_read_from_what_is_true_now(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="W1", quantity=1)
    order_id = await captured(db, order(net, "N1", ("A", 3)))
    assert await proposed(db, order_id) == {"1": (2, ["cancel"])}
    await expect(db, "PO", 9, "2026-12-01")
    await set_stock(db, sku="A", location="S2", quantity=4)
    await put(db, "skus", {"code": "A", "substitutes": ["C", "B"]})
    await set_stock(db, sku="B", location="W1", quantity=2)
    [line] = await remedies(db, order_id=order_id, now=NOW)
    assert [(r.kind, r.quantity) for r in line.remedies] == [
        ("incoming", 3), ("other_pool", 3), ("substitute", 2), ("cancel", 2),
    ]  # fmt: skip
    incoming, pool, substitute, _ = line.remedies
    assert (incoming.on, [(r.reference, r.location, r.quantity, r.on) for r in incoming.receipts]) == (
        date(2026, 12, 1), [("PO", "W1", 9, date(2026, 12, 1))],
    )  # fmt: skip
    assert (pool.pool, pool.locations, substitute.sku) == ("local", ["S2"], "B")
    await set_stock(db, sku="A", location="W1", quantity=3)
    assert await proposed(db, order_id) == {}, "nothing is short any more"
    with pytest.raises(Conflict, match="nothing of it is short"):
        await choose(db, order_id, "cancel")


async def test_only_the_order_that_came_last_is_short(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="W1", quantity=3)
    first = await captured(db, order(net, "N1", ("A", 2)))
    second = await captured(db, order(net, "N2", ("A", 2)))
    assert (await proposed(db, first), await proposed(db, second)) == ({}, {"1": (1, ["cancel"])})


async def test_a_line_is_moved_to_another_pool_that_has_it(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="S2", quantity=3)
    order_id = await captured(db, order(net, "N1", ("A", 3)))
    with pytest.raises(BadInput, match="no pool has the code"):
        await choose(db, order_id, "other_pool", pool="nowhere")
    assert await choose(db, order_id, "other_pool", pool="local") == ["1"]
    assert (await proposed(db, order_id), await exceptions(db)) == ({}, [])
    async with db.connection() as tx:
        assert await tx.fetchval("select code from order_line join pool using (pool_id)") == "local"
    other = await captured(db, order(net, "N2", ("A", 1)))
    with pytest.raises(Conflict, match="cannot promise"):
        await choose(db, other, "other_pool", pool="local")


async def test_a_line_waits_for_the_receipt_with_a_new_day(db: Database, net: Net) -> None:
    await change(
        db, """update channel set settings = '{"updates_url": "https://shop.example/oms"}' where code = 'web'"""
    )
    order_id = await captured(db, order(net, "N1", ("A", 3)))
    with pytest.raises(Conflict, match="nothing is expected"):
        await choose(db, order_id, "incoming")
    await expect(db, "PO", 9, "2026-12-01")
    await choose(db, order_id, "incoming")
    assert [n.promised_on for n in (await read_order(db, order_id=order_id)).lines] == [date(2026, 12, 1)]
    assert await exceptions(db) == []
    assert await overdue.promise_again(db, today=NOW.date()) == 0, "it was given the very day that the job gives"
    async with db.connection() as tx:
        events = await tx.fetch("select event from order_update order by update_id")
    assert [row[0] for row in events] == ["order.captured", "order.promised"]


async def test_a_substitute_takes_what_is_short(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="W1", quantity=1)
    await set_stock(db, sku="B", location="W1", quantity=2)
    await put(db, "skus", {"code": "A", "substitutes": ["B"]})
    order_id = await captured(db, order(net, "N1", ("A", 3)))
    with pytest.raises(BadInput, match="is no substitute"):
        await choose(db, order_id, "substitute", sku="C")
    await choose(db, order_id, "substitute", sku="B")
    lines = [(n.line, n.sku, n.open, n.cancelled, n.price) for n in (await read_order(db, order_id=order_id)).lines]
    assert lines == [("1", "A", 1, 2, 1000), ("1+B", "B", 2, 0, 1000)]
    assert await exceptions(db) == []
    assert [s.step for s in await order_history(db, order_id=order_id)] == ["captured", "amended", "remedied"]


async def test_what_is_short_is_cancelled_and_the_rest_goes_on(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="W1", quantity=1)
    order_id = await captured(db, order(net, "N1", ("A", 3)))
    await choose(db, order_id, "cancel")
    assert [(n.open, n.cancelled) for n in (await read_order(db, order_id=order_id)).lines] == [(1, 2)]
    assert await exceptions(db) == []


async def test_the_exception_stays_until_each_short_line_has_its_remedy(db: Database, net: Net) -> None:
    order_id = await captured(db, order(net, "N1", ("A", 2), ("B", 1)))
    with pytest.raises(Conflict, match="'3' is not short"):
        await choose(db, order_id, "cancel", line="3")
    await choose(db, order_id, "cancel", line="1")
    assert await exceptions(db) == [("oversold", "web/N1")]
    await choose(db, order_id, "cancel", line="2")
    assert await exceptions(db) == []
    assert (await read_order(db, order_id=order_id)).state == "cancelled"


async def test_what_was_cancelled_meanwhile_has_no_remedies(db: Database, net: Net) -> None:
    order_id = await captured(db, order(net, "N1", ("A", 2)))
    await cancel(db, order_id=order_id, lines=None, why=None, who="shop")
    assert await proposed(db, order_id) == {}


async def test_a_kit_waits_or_is_cancelled_but_is_not_taken_apart(db: Database, net: Net) -> None:
    await put(
        db, "kits", {"kit": "E", "components": [{"component": "A", "quantity": 1}, {"component": "B", "quantity": 1}]}
    )
    await set_stock(db, sku="A", location="S2", quantity=9)
    await set_stock(db, sku="B", location="W1", quantity=9)
    order_id = await captured(db, order(net, "N1", ("E", 2)))
    assert await proposed(db, order_id) == {"1": (2, ["cancel"])}
    await choose(db, order_id, "cancel")
    assert [(n.sku, n.open) for n in (await read_order(db, order_id=order_id)).lines] == [("A", 0), ("B", 0)]


async def test_substitutes_are_kept_in_their_order_and_must_be_known(db: Database, net: Net) -> None:
    await put(db, "skus", {"code": "X", "substitutes": ["Y", "A"]}, {"code": "Y", "substitutes": []})
    for wrong in ("zz", "X"):
        loaded = await load(db, kind="skus", rows=[{"code": "X", "substitutes": [wrong]}], who="me", now=NOW)
        assert [r.field for r in loaded.refused] == ["substitutes"]
    loaded = await load(db, kind="skus", rows=[{"code": "X", "substitutes": ["Y", "A"]}], who="me", now=NOW)
    assert (loaded.changed, loaded.unchanged) == (0, 1)


async def test_a_substitute_of_a_held_line_is_held_for_the_same_reasons(db: Database, net: Net) -> None:
    await set_stock(db, sku="B", location="W1", quantity=2)
    await put(db, "skus", {"code": "A", "substitutes": ["B"]})
    order_id = await captured(db, order(net, "N1", ("A", 2)))
    await hold(db, order_id=order_id, lines=None, kind="fraud", why="three cards", who="ann")
    await choose(db, order_id, "substitute", sku="B")
    [held] = (await read_order(db, order_id=order_id)).holds
    assert (held.kind, held.who, held.why, held.lines) == ("fraud", "ann", "three cards", ["1", "1+B"])
    assert await release(db, order_id=order_id, lines=None, kind="fraud", who="ann") == 2
    assert [n.hold for n in (await read_order(db, order_id=order_id)).lines] == [None, None]
