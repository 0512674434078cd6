"""Channels are told of each step of their orders: once, in order, again until somebody takes it."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from oms.db import Database
from oms.domain.telling import Delivery
from oms.errors import Conflict, NotFound
from oms.flows import broker
from oms.flows.order import updates
from oms.flows.order.change import cancel
from oms.flows.promise import overdue
from tests.demand import allocated, captured, order, planned, reject, ship
from tests.feeding import NOW, change, exceptions
from tests.world import Net, set_stock, small_network

SETTINGS = '{"updates_url": "https://shop.example/oms", "updates_secrets": ["whsec_a"]}'


@pytest.fixture
async def net(db: Database) -> Net:
    net = await small_network(db)
    await change(db, f"update channel set settings = '{SETTINGS}' where code = 'web'")
    for location in ("W1", "S1"):
        await set_stock(db, sku="A", location=location, quantity=5)
    return net


class Ear:
    """A receiver that answers as it is told."""

    def __init__(self, *answers: Delivery) -> None:
        self.answers, self.heard = list(answers), list[dict[str, Any]]()

    async def deliver(self, url: str, body: bytes, message_id: str, secrets: list[str]) -> Delivery:
        assert (url, secrets) == ("https://shop.example/oms", ["whsec_a"])
        told = msgspec.json.decode(body)
        assert message_id == f"upd_{told['id']}"
        self.heard.append(told)
        return self.answers.pop(0) if self.answers else Delivery(True, "200")


async def told(db: Database, ear: Ear, *, at: datetime | None = None) -> list[str]:
    """The events that the ear has heard by now."""
    await updates.tell_due(db, deliver=ear.deliver, now=at or datetime.now(UTC), chance=lambda: 1.0)
    return [heard["type"] for heard in ear.heard]


async def test_each_step_of_an_order_is_told_once_and_in_order(db: Database, net: Net) -> None:
    ear = Ear()
    work = await allocated(db, net, "N1", ("A", 2, "S1"))
    assert await told(db, ear) == ["order.captured", "order.allocated"]
    await ship(db, work)
    assert await told(db, ear) == ["order.captured", "order.allocated", "order.shipped"]
    assert await told(db, ear) == ["order.captured", "order.allocated", "order.shipped"], "never twice"
    shipped = ear.heard[-1]
    assert shipped["order"] == {"id": str(work.order_id), "number": "N1", "channel": "web"}
    assert shipped["fulfillment"]["location"] == "S1"
    assert shipped["fulfillment"]["lines"] == [{"line": "1", "part": 0, "sku": "A", "quantity": 2}]


async def test_what_comes_back_is_told_as_brokered_again(db: Database, net: Net) -> None:
    ear = Ear()
    work = await allocated(db, net, "N1", ("A", 2, "S1"))
    await reject(db, work, ("1", 2))
    run_id = await planned(db, net, work.order_id, ("1", 2, "W1"))
    await broker.apply(db, run_id=run_id, who="test", now=NOW)
    await cancel(db, order_id=work.order_id, lines=None, why="customer", who="shop")
    assert await told(db, ear) == ["order.captured", "order.allocated", "order.brokered_again", "order.cancelled"]


async def test_a_day_is_told_and_so_is_its_change(db: Database, net: Net) -> None:
    ear = Ear()
    await change(
        db, "insert into incoming (source_id, reference, sku_id, location_id, kind, quantity, due_on)"
        " select 1, 'PO', s.sku_id, l.location_id, 'purchase', 9, '2026-11-30' from sku s, location l"
        " where s.code = 'B' and l.code = 'W1'",
    )  # fmt: skip
    await captured(db, order(net, "N1", ("B", 2)))
    await overdue.promise_again(db, today=NOW.date())
    await change(db, "update incoming set due_on = '2026-12-04'")
    await overdue.promise_again(db, today=NOW.date())
    assert await told(db, ear) == ["order.captured", "order.promised", "order.delayed"]
    assert ear.heard[-1]["detail"] == {"line": "1", "on": "2026-12-04", "was": "2026-11-30"}


async def test_a_channel_that_names_no_place_is_told_nothing(db: Database, net: Net) -> None:
    await captured(db, order(net, "N1", ("A", 1), channel="local"))
    assert await told(db, Ear()) == []


async def test_what_nobody_takes_waits_and_holds_back_what_follows(db: Database, net: Net) -> None:
    ear = Ear(Delivery(False, "503"))
    await allocated(db, net, "N1", ("A", 2, "S1"))
    await captured(db, order(net, "N2", ("A", 1)))
    now = datetime.now(UTC)
    assert sorted(await told(db, ear, at=now)) == ["order.captured", "order.captured"], "another order goes on"
    assert len(await told(db, ear, at=now + timedelta(seconds=61))) == 4
    assert [h["type"] for h in ear.heard if h["order"]["number"] == "N1"] == [
        "order.captured", "order.captured", "order.allocated",
    ]  # fmt: skip


async def test_what_nobody_takes_for_a_week_is_dead_and_may_be_told_again(db: Database, net: Net) -> None:
    await captured(db, order(net, "N1", ("A", 1)))
    now = datetime.now(UTC)
    for day in range(9):
        for hour in range(4):
            await told(db, Ear(*[Delivery(False, "500")] * 9), at=now + timedelta(days=day, hours=6 * hour))
    assert await exceptions(db) == [("update_dead", "web/N1 order.captured")]
    [dead] = await updates.listed(db, state="dead", channel="web", number=None, before=None, limit=9)
    await updates.replay(db, update_id=dead.id, who="me")
    ear = Ear()
    assert await told(db, ear, at=now + timedelta(days=9)) == ["order.captured"]
    with pytest.raises(Conflict):
        await updates.replay(db, update_id=dead.id, who="me")
    with pytest.raises(NotFound):
        await updates.replay(db, update_id=uuid4(), who="me")
