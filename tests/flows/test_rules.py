"""Rules that shape what channels may sell: in force the moment they change, gone the moment their time is over."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from oms import ledger, worker
from oms.cache import Cache
from oms.db import Database
from oms.domain.order import CartLine
from oms.errors import Conflict, OutOfStock
from oms.flows import reconcile
from oms.flows.network import follow as follow_network
from oms.flows.network import load, rules
from oms.flows.promise.explain import explain
from oms.flows.promise.read import atp
from oms.flows.push.projector import project
from oms.flows.reserve import Cart, Granted, reserve_many
from oms.settings import Settings
from oms.settle import settle_batch
from tests.demand import captured, order
from tests.feeding import ask, change, exceptions, stock
from tests.world import Net, set_stock, small_network


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
async def net(db: Database) -> Net:
    net = await small_network(db)
    for location, units in (("W1", 6), ("S1", 4), ("S2", 2)):
        await set_stock(db, sku="A", location=location, quantity=units)
    return net


async def put(db: Database, cache: Cache, code: str, *, who: str = "planner", **rule: Any) -> list[Any]:
    return list((await load(db, kind="rules", rows=[{"code": code} | rule], who=who, now=now(), cache=cache)).refused)


async def shown(db: Database, cache: Cache, sku: str = "A", at: datetime | None = None) -> dict[str, int]:
    """What ATP shows; and that it is what a reservation gets, to the unit, and what the explanation adds up to."""
    found = await atp(db, cache, channels=["web", "local"], skus=[sku], now=at or now())
    return {channel: rows[0].atp for channel, rows in found.channels.items()}


async def agrees(db: Database, cache: Cache, net: Net) -> dict[str, int]:
    numbers = await shown(db, cache)
    for channel, units in numbers.items():
        explained = await explain(db, channel_id=net.channels[channel], sku="A", now=now())
        assert (sum(step.units for step in explained.steps), explained.atp) == (units, units)
        assert isinstance(await reserve(db, net, units + 1, channel), OutOfStock)
    return numbers


async def reserve(db: Database, net: Net, units: int, channel: str = "web") -> Any:
    cart = Cart(reservation_id=uuid4(), channel_id=net.channels[channel], lines=(CartLine("A", units),))
    return (await settle_batch(db, reserve_many, [cart]))[0]


async def projected(db: Database, cache: Cache) -> dict[str, int]:
    """What channels are told, after the sweep."""
    await rules.follow(db, now=now())
    while (await project(db, cache, now=now())).rows:
        pass
    async with db.connection() as tx:
        return dict(
            await tx.fetch("select c.code, n.current from channel_stock n join channel c using (channel_id) join sku s "
                           "using (sku_id) where s.code = 'A'")
        )  # fmt: skip


async def test_a_rule_is_in_force_at_once_and_gone_at_once(db: Database, net: Net, cache: Cache) -> None:
    assert await agrees(db, cache, net) == {"web": 10, "local": 6}
    await put(db, cache, "b", kind="buffer", channel="web", units=3)
    assert await agrees(db, cache, net) == {"web": 7, "local": 6}
    await put(db, cache, "b2", kind="buffer", channel="web", percent=50, priority=1)
    assert await agrees(db, cache, net) == {"web": 5, "local": 6}
    await put(db, cache, "b3", kind="buffer", units=1, sku="A", priority=1)
    assert await agrees(db, cache, net) == {"web": 9, "local": 5}
    await put(db, cache, "b4", kind="buffer", units=5, sku="B", priority=9)
    for code in ("b", "b2", "b3"):
        await put(db, cache, code, on=False)
    assert await agrees(db, cache, net) == {"web": 10, "local": 6}
    assert await projected(db, cache) == {"web": 10, "local": 6}


async def test_a_rule_begins_and_ends_by_itself(db: Database, net: Net, cache: Cache) -> None:
    begins, ends = now() + timedelta(hours=1), now() + timedelta(hours=2)
    await put(
        db, cache, "l", kind="limit", channel="web", units=0, from_at=begins.isoformat(), until_at=ends.isoformat()
    )
    assert [
        (await shown(db, cache, at=moment))["web"]
        for moment in (begins - timedelta(seconds=1), begins, ends - timedelta(seconds=1), ends)
    ] == [10, 0, 0, 10]
    assert await projected(db, cache) == {"web": 10, "local": 6}
    soon = now() + timedelta(seconds=0.4)
    await put(db, cache, "l", from_at=None, until_at=soon.isoformat())
    assert await projected(db, cache) == {"web": 0, "local": 6}
    assert isinstance(await reserve(db, net, 1), OutOfStock)
    await asyncio.sleep(0.5)
    assert await agrees(db, cache, net) == {"web": 10, "local": 6}
    assert await projected(db, cache) == {"web": 10, "local": 6}, "who is told by pushes is told so, too"


async def test_a_cap_counts_what_its_channel_took(db: Database, net: Net, cache: Cache) -> None:
    await put(db, cache, "c", kind="cap", channel="web", units=4)
    assert isinstance(await reserve(db, net, 3), Granted)
    assert await agrees(db, cache, net) == {"web": 1, "local": 6}
    await put(db, cache, "c", units=None, percent=50)
    assert (await agrees(db, cache, net))["web"] == 2, "half of the ten that there were, less three"


async def test_units_are_kept_for_a_higher_class_and_those_it_took_count(db: Database, net: Net, cache: Cache) -> None:
    await put(db, cache, "contract", kind="protect", channel="local", units=5, priority=10)
    assert await agrees(db, cache, net) == {"web": 7, "local": 6}, "two of the five can only come from a shared store"
    assert isinstance(await reserve(db, net, 4, "local"), Granted)
    assert await agrees(db, cache, net) == {"web": 7, "local": 2}
    await put(db, cache, "spot", kind="protect", channel="web", units=8, priority=1)
    assert (await agrees(db, cache, net))["local"] == 2, "a lower class keeps nothing from a higher one"


async def test_what_is_expected_may_be_sold_ahead(db: Database, net: Net, cache: Cache) -> None:
    due = (now() + timedelta(days=5)).date()
    await load(
        db, kind="incoming", who="erp", now=now(), cache=cache,
        rows=[{"source": "erp", "reference": "PO1", "sku": "A", "location": "W1", "quantity": 8, "due_on": due.isoformat()}],
    )  # fmt: skip
    assert await agrees(db, cache, net) == {"web": 10, "local": 6}
    await put(db, cache, "ahead", kind="preorder", channel="web", days=7)
    while (await project(db, cache, now=now())).rows:
        pass
    assert await agrees(db, cache, net) == {"web": 18, "local": 6}
    assert isinstance(await reserve(db, net, 15), Granted)
    assert await agrees(db, cache, net) == {"web": 3, "local": 2}
    assert [kind for kind, _ in await exceptions(db)] == [], "what is expected backs it"
    await put(db, cache, "ahead", days=3)
    assert (await shown(db, cache))["web"] == 0


async def test_shares_are_computed_from_demand_margin_or_rank(
    db: Database, net: Net, cache: Cache, settings: Settings
) -> None:
    await change(db, "update channel set pool_id = (select pool_id from pool where code = 'web')")
    for number, channel in enumerate(["web", "web", "web", "local"]):
        placed = (now() - timedelta(days=1)).replace(microsecond=0)
        await captured(db, order(net, f"N{number}", ("B", 1), channel=channel, placed_at=placed))
    for channel, priority in (("web", 2), ("local", 1)):
        await put(db, cache, f"s-{channel}", kind="cap", channel=channel, share_by="demand", priority=priority)
    ctx = {"db": db, "cache": cache, "settings": settings}
    await worker.watch(ctx)
    assert await agrees(db, cache, net) == {"web": 7, "local": 2}
    for channel in ("web", "local"):
        await put(db, cache, f"s-{channel}", share_by="rank")
    await worker.watch(ctx)
    assert await agrees(db, cache, net) == {"web": 6, "local": 3}


async def test_above_a_limit_a_second_person_agrees(db: Database, net: Net, cache: Cache) -> None:
    await put(db, cache, "huge", kind="buffer", channel="web", units=20_000, who="Ada")
    assert await agrees(db, cache, net) == {"web": 10, "local": 6}
    assert await exceptions(db) == [("rule_waiting", "huge")]
    with pytest.raises(Conflict):
        await rules.approve(db, cache, code="huge", who="Ada", now=now())
    await rules.approve(db, cache, code="huge", who="Bob", now=now())
    assert await agrees(db, cache, net) == {"web": 0, "local": 6}
    assert await exceptions(db) == []
    assert await ask(db, "select count(*) from history where kind = 'rule' and id = 'huge' and who = 'Bob'") == 1


async def test_a_window_has_a_channel_sell_from_another_pool(db: Database, net: Net, cache: Cache) -> None:
    ends = now() + timedelta(hours=1)
    await put(db, cache, "promo", kind="pool", channel="web", pool="local", until_at=ends.isoformat())
    assert await agrees(db, cache, net) == {"web": 6, "local": 6}
    assert (await shown(db, cache, at=ends))["web"] == 10
    granted = await reserve(db, net, 2)
    assert isinstance(granted, Granted)
    assert await ask(db, "select p.code from reservation join pool p using (pool_id)") == "local"
    await put(db, cache, "promo", on=False)
    assert await agrees(db, cache, net) == {"web": 10, "local": 4}, "what was sold meanwhile stays promised there"


async def test_what_is_sold_whatever_there_is_has_an_end_and_a_second_person(
    db: Database, net: Net, cache: Cache
) -> None:
    ends = now() + timedelta(hours=1)
    rule = {"kind": "infinite", "channel": "web", "sku": "A", "units": 500}
    assert [r.field for r in await put(db, cache, "gift", **rule)] == ["until_at"]
    await put(db, cache, "gift", who="Ada", until_at=ends.isoformat(), **rule)
    assert (await shown(db, cache))["web"] == 10, "it waits for another person"
    await rules.approve(db, cache, code="gift", who="Bob", now=now())
    assert (await shown(db, cache))["web"] == 500
    assert isinstance(await reserve(db, net, 400), Granted)
    assert (await shown(db, cache))["web"] == 500
    explained = await explain(db, channel_id=net.channels["web"], sku="A", now=now())
    assert (sum(step.units for step in explained.steps), explained.atp) == (500, 500)
    await projected(db, cache)
    assert [kind for kind, _ in await exceptions(db)] == [], "it breaks no promise"
    await put(db, cache, "none", kind="limit", units=0, sku="A", channel="local")
    assert (await shown(db, cache))["local"] == 0


async def followed(db: Database) -> None:
    await rules.follow(db, now=now())
    await follow_network(db)
    assert await verified(db) == []


async def verified(db: Database) -> list[Any]:
    return list((await reconcile.verify(db))[1])


async def test_units_are_kept_back_where_and_while_a_rule_says_so(db: Database, net: Net, cache: Cache) -> None:
    await put(db, cache, "s", kind="safety", units=1)
    await put(db, cache, "s-store", kind="safety", units=3, location="S1")
    await put(db, cache, "s-b", kind="safety", units=9, sku="B")
    await followed(db)
    assert await agrees(db, cache, net) == {"web": 6, "local": 2}, "W1 keeps 1 of 6, S1 3 of 4, S2 1 of 2"
    await set_stock(db, sku="C", location="S1", quantity=5)
    assert await stock(db, "C", "S1", "stock.safety_stock") == 3, "a new key knows of it at once"
    soon = now() + timedelta(seconds=0.3)
    await put(db, cache, "s-store", until_at=soon.isoformat())
    await asyncio.sleep(0.4)
    await followed(db)
    assert await agrees(db, cache, net) == {"web": 8, "local": 4}
    await put(db, cache, "s", sku="C")
    await followed(db)
    assert await agrees(db, cache, net) == {"web": 10, "local": 6}, "what the rule spoke of before is free again"


async def test_hold_codes_count_or_do_not(db: Database, net: Net, cache: Cache) -> None:
    await change(
        db, "insert into hold (sku_id, location_id, code, quantity, source_id, placed_at)"
        " select s.sku_id, l.location_id, c, 2, (select source_id from source where code = 'wms'), now()"
        " from sku s, location l, unnest(array['quality', 'b2b']) c where s.code = 'A' and l.code = 'W1'",
    )  # fmt: skip
    async with db.transaction() as tx:
        await ledger.refold(tx, [(net.skus["A"], net.locations["W1"])])
    assert await agrees(db, cache, net) == {"web": 6, "local": 6}
    await put(db, cache, "q", kind="hold", hold_code="quality", location="W1", who="Ada")
    await followed(db)
    assert await agrees(db, cache, net) == {"web": 6, "local": 6}, "it waits for another person"
    await rules.approve(db, cache, code="q", who="Bob", now=now())
    await followed(db)
    assert await agrees(db, cache, net) == {"web": 8, "local": 6}
    await put(db, cache, "q", hold_code="b2b", who="Ada")
    await rules.approve(db, cache, code="q", who="Bob", now=now())
    await followed(db)
    assert await agrees(db, cache, net) == {"web": 8, "local": 6}
    await put(db, cache, "q", on=False)
    await followed(db)
    assert await agrees(db, cache, net) == {"web": 6, "local": 6}


@pytest.mark.parametrize(
    ("rule", "field"),
    [
        ({"kind": "buffer", "channel": "web"}, "kind"),
        ({"kind": "buffer", "units": 1, "percent": 5}, "kind"),
        ({"kind": "limit", "percent": 5}, "kind"),
        ({"kind": "protect", "units": 5}, "channel"),
        ({"kind": "cap", "share_by": "rank"}, "channel"),
        ({"kind": "buffer", "units": 1, "channel": "nowhere"}, "channel"),
        ({"kind": "buffer", "units": 1, "sku": "nothing"}, "sku"),
        ({"kind": "buffer", "units": -1}, "units"),
        ({"kind": "buffer", "percent": 101}, "percent"),
        ({"kind": "magic", "units": 1}, "kind"),
        ({"units": 1}, "kind"),
        (
            {"kind": "limit", "units": 1, "from_at": "2026-11-24T00:00:00Z", "until_at": "2026-11-23T00:00:00Z"},
            "until_at",
        ),
        ({"kind": "limit", "units": 1, "from_at": "2026-11-24T00:00:00"}, "from_at"),
        ({"kind": "pool", "pool": "local"}, "channel"),
        ({"kind": "pool", "pool": "local", "channel": "web", "sku": "A"}, "sku"),
        ({"kind": "pool", "pool": "nowhere", "channel": "web"}, "pool"),
        ({"kind": "safety", "units": 1, "channel": "web"}, "channel"),
        ({"kind": "buffer", "units": 1, "location": "S1"}, "location"),
        ({"kind": "hold", "units": 1}, "kind"),
    ],
)
async def test_a_rule_that_makes_no_sense_is_refused_at_its_field(
    db: Database, net: Net, cache: Cache, rule: dict[str, Any], field: str
) -> None:
    [refused] = await put(db, cache, "r", **rule)
    assert refused.field == field
    assert await ask(db, "select count(*) from rule") == 0
