"""What channels are to be told of collections and returns is told with the updates of the order, each once."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest

from oms import access
from oms.db import Database
from oms.domain.telling import Delivery
from oms.flows import fulfill, returns
from oms.flows.fulfill import collect
from oms.flows.order import updates
from tests.balance import check_balance
from tests.demand import allocated, captured, order, ship
from tests.feeding import NOW, ask, change
from tests.world import Net, set_stock, small_network

ANN = access.house


@pytest.fixture
async def net(db: Database) -> AsyncIterator[Net]:
    net = await small_network(db)
    await change(
        db, """update channel set settings = '{"updates_url": "https://shop.example/oms"}' where code = 'web'"""
    )
    await set_stock(db, sku="A", location="S1", quantity=10)
    yield net
    await check_balance(db)


async def told(db: Database) -> list[dict[str, Any]]:
    """What a receiver has heard, once it took all of it."""
    heard: list[dict[str, Any]] = []

    async def deliver(url: str, body: bytes, message_id: str, secrets: list[str]) -> Delivery:
        heard.append(msgspec.json.decode(body))
        return Delivery(True, "200")

    await updates.tell_due(db, deliver=deliver, now=datetime.now(UTC), chance=lambda: 1.0)
    return heard


async def ready(db: Database, net: Net, *, channel: str = "web") -> UUID:
    order_id = await captured(db, order(net, "N1", ("A", 2), pickup_location="S1", channel=channel))
    work: UUID = await ask(db, "select fulfillment_id from fulfillment where order_id = $1", order_id)
    for step in ("accept", "pick", "pack"):
        await fulfill.advance(db, fulfillments=[work], step=step, actor=ANN, now=NOW)  # type: ignore[arg-type]
    return work


async def test_a_pick_up_is_told_ready_with_its_code_then_reminded_then_refunded(db: Database, net: Net) -> None:
    work = await ready(db, net)
    code = await ask(db, "select code from collection")
    for hours in (49, 50):
        await collect.remind(db, now=NOW + timedelta(hours=hours))
    for _ in range(2):
        await collect.not_collected(db, fulfillment=work, why="nobody came", actor=ANN, now=NOW)
    heard = await told(db)
    assert [h["type"] for h in heard] == [
        "order.captured", "order.ready", "order.pickup_reminder", "order.refund_due",
    ]  # fmt: skip
    assert [(h["detail"]["code"], "collect_by" in h["detail"]) for h in heard[1:3]] == [(code, True)] * 2
    assert (heard[1]["detail"]["collect_at"], heard[2]["detail"]["location"]) == ("S1", "S1")
    assert heard[3]["detail"]["lines"] == [{"line": "1", "quantity": 2, "price": 1000}]
    assert await told(db) == []
    states = "select string_agg(kind || ' ' || state, ', ' order by kind) from notice"
    assert await ask(db, states) == "pickup_ready done, pickup_reminder done, refund_due done"


async def test_a_return_is_told_when_it_came_and_its_refund_when_it_was_looked_at(db: Database, net: Net) -> None:
    work = await allocated(db, net, "N1", ("A", 2, "S1"))
    await ship(db, work)
    made = await returns.announce(
        db, location_id=net.locations["S1"], order_id=work.order_id, lines=[returns.Sent(2, "fits not", line="1")],
        actor=ANN, now=NOW,
    )  # fmt: skip
    await returns.receive(db, return_id=made, location_id=net.locations["S1"], lines=None, actor=ANN, now=NOW)
    assert [h["type"] for h in await told(db)][-1] == "order.returned"
    await returns.inspect(db, return_id=made, found_units=[returns.Found(1, 2, "new")], actor=ANN, now=NOW)
    [refund] = await told(db)
    assert (refund["type"], refund["detail"]["cents"], refund["detail"]["return"]) == (
        "order.refund_due",
        2000,
        str(made),
    )


async def test_where_nobody_is_to_be_told_a_notice_stays_due(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="S1", quantity=10)
    await ready(db, net, channel="local")
    assert await told(db) == []
    assert await ask(db, "select string_agg(kind || ' ' || state, ', ') from notice") == "pickup_ready due"
