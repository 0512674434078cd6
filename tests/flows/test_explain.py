"""An explanation adds up, shows the rows behind its steps, and says of a past moment what it said then."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from oms import ledger
from oms.cache import Cache
from oms.db import Database
from oms.domain.order import CartLine
from oms.errors import BadInput, OutOfStock, Refusal
from oms.flows.network import load
from oms.flows.order.change import cancel
from oms.flows.promise.evidence import Sees
from oms.flows.promise.explain import Explained, explain
from oms.flows.promise.nearby import nearby
from oms.flows.promise.read import atp
from oms.flows.reserve import Cart, Granted, expire_due, release, reserve_many
from oms.ledger import moves
from oms.settle import settle_batch
from tests.demand import allocated, captured, order, reject, ship
from tests.world import Net, set_stock, small_network


@pytest.fixture
async def net(db: Database) -> Net:
    return await small_network(db)


def now() -> datetime:
    return datetime.now(UTC)


async def clock(db: Database) -> datetime:
    async with db.connection() as connection:
        found: datetime = await connection.fetchval("select clock_timestamp()")
    return found


async def reserve(db: Database, net: Net, sku: str, quantity: int, channel: str = "web", **more: Any) -> Any:
    wish = Cart(
        reservation_id=uuid4(), channel_id=net.channels[channel], lines=(CartLine(sku, quantity),), **more
    )  # fmt: skip
    return (await settle_batch(db, reserve_many, [wish]))[0]


async def put(db: Database, of: str, **row: Any) -> None:
    done = await load(db, kind=of, rows=[row], who="ada", now=now())
    assert not done.refused, done.refused


async def number(db: Database, sku: str, channel: str) -> int:
    gone = Cache("redis://127.0.0.1:1/0")
    found = await atp(db, gone, channels=[channel], skus=[sku], now=now())
    await gone.close()
    return found.channels[channel][0].atp


def adds_up(explained: Explained) -> None:
    for one in explained.parts or [explained]:
        assert sum(step.units for step in one.steps) == one.atp
    if explained.parts:
        assert explained.atp == min(part.atp // (part.per_kit or 1) for part in explained.parts)


def what_stays(explained: Explained) -> Any:
    """What a past moment is told exactly of; a version is of now, and so is the moment itself."""
    told = msgspec.to_builtins(explained)

    def cut(one: dict[str, Any]) -> None:
        for name in ("at", "version", "near_exact"):
            one.pop(name)
        if one["evidence"]:
            for name in ("holds", "allocated"):
                one["evidence"].pop(name)
            for pool in one["evidence"]["reserved"]:
                for promise in pool["top"]:
                    promise.pop("expires_at")
        for part in one["parts"]:
            cut(part)

    cut(told)
    return told


class Walk:
    """Random steps of a shop's day, each by its real flow."""

    def __init__(self, db: Database, net: Net, seed: int) -> None:
        self.db, self.net, self.chance = db, net, random.Random(seed)
        self.reservations: list[Any] = []
        self.orders: list[Any] = []

    async def step(self) -> None:
        await self.chance.choice(
            [self.stock, self.stock, self.reserve, self.reserve, self.pickup, self.order, self.order, self.claim,
             self.release, self.cancel, self.allocate, self.reject, self.ship, self.rule, self.channel, self.location,
             self.incoming, self.hold, self.expire]
        )()  # fmt: skip

    def sku(self) -> str:
        return self.chance.choice("AB")

    def sold_by(self) -> str:
        return self.chance.choice(["web", "local"])

    async def stock(self) -> None:
        location = self.chance.choice(["W1", "S1", "S2"])
        await set_stock(self.db, sku=self.sku(), location=location, quantity=self.chance.randint(-2, 9))

    async def reserve(self, **more: Any) -> None:
        sold_by = self.sold_by()
        sku = self.chance.choice(["A", "B", "K"])
        answer = await reserve(self.db, self.net, sku, self.chance.randint(1, 3), sold_by, **more)
        if isinstance(answer, Granted):
            self.reservations.append((answer.id, sold_by))

    async def pickup(self) -> None:
        await self.reserve(location="S1")

    async def order(self, **more: Any) -> None:
        sold_by = more.pop("channel", None) or self.sold_by()
        new = order(self.net, uuid4().hex, (self.sku(), self.chance.randint(1, 3)), channel=sold_by, **more)
        self.orders.append(await captured(self.db, new))

    async def claim(self) -> None:
        if self.reservations:
            found, sold_by = self.reservations.pop()
            await self.order(channel=sold_by, reservation=str(found))

    async def release(self) -> None:
        if self.reservations:
            await release(self.db, reservation_id=self.reservations.pop()[0])

    async def expire(self) -> None:
        async with self.db.transaction() as tx:
            await tx.execute(
                "update reservation set expires_at = clock_timestamp() where state = 'live' and random() < 0.5"
            )
        await expire_due(self.db)

    async def cancel(self) -> None:
        if self.orders:
            await self.try_it(cancel(self.db, order_id=self.orders.pop(), lines=None, why=None, who="walk"))

    async def allocate(self) -> Any:
        sold_by, place = self.chance.choice([("web", "W1"), ("web", "S1"), ("local", "S1")])
        return await self.try_it(
            allocated(self.db, self.net, uuid4().hex, (self.sku(), self.chance.randint(1, 2), place), channel=sold_by)
        )

    async def reject(self) -> None:
        work = await self.allocate()
        if work is not None and work.fulfillments:
            await reject(self.db, work, ("1", 1))

    async def ship(self) -> None:
        work = await self.allocate()
        if work is not None and work.fulfillments:
            await ship(self.db, work)

    async def rule(self) -> None:
        kind = self.chance.choice(["buffer", "cap", "limit", "protect", "preorder"])
        sized: dict[str, Any] = {"units": self.chance.randint(0, 6)} if kind != "preorder" else {"days": 9}
        await put(
            self.db, "rules", code=f"{kind}-{self.chance.randint(0, 1)}", kind=kind, channel=self.sold_by(),
            priority=self.chance.randint(0, 3), on=self.chance.random() < 0.8, **sized,
        )  # fmt: skip

    async def channel(self) -> None:
        cap = self.chance.choice([None, 3, 10])
        await put(self.db, "channels", code=self.sold_by(), buffer=self.chance.randint(0, 2), cap=cap)

    async def location(self) -> None:
        row = {"on": self.chance.random() < 0.7, "safety_stock": self.chance.randint(0, 1)}
        await put(self.db, "locations", code=self.chance.choice(["S2", "W1"]), **row)

    async def incoming(self) -> None:
        await put(
            self.db, "incoming", source="erp", reference=self.chance.choice("XY"), sku=self.sku(), location="S1",
            quantity=self.chance.randint(0, 5), due_on=(now() + timedelta(days=5)).date().isoformat(),
        )  # fmt: skip

    async def hold(self) -> None:
        key = (self.net.skus[self.sku()], self.net.locations["S1"])
        async with self.db.transaction() as tx:
            locked = await ledger.lock(tx, [key[0]])
            await ledger.stock(tx, [key])
            standing = await moves.open_holds(tx, skus=[key[0]], locations=[key[1]])
            if standing and self.chance.random() < 0.5:
                await ledger.lift(tx, {standing[0].hold_id: 1}, keys=[key], who="walk")
            else:
                await moves.place_holds(
                    tx, skus=[key[0]], locations=[key[1]], codes=["damaged"], quantities=[2], source_id=1, at=now()
                )
                await moves.refold_held(tx, [key])
            await ledger.write(tx, locked, resum=[key[0]])

    async def try_it(self, step: Any) -> Any:
        try:
            return await step
        except Refusal:
            return None


@pytest.mark.parametrize("seed", range(3))
async def test_a_past_moment_is_explained_as_it_was_explained_then(db: Database, net: Net, seed: int) -> None:
    await kit(db, net)
    walk = Walk(db, net, seed)
    kept: list[tuple[datetime, str, str, Explained]] = []
    for _ in range(30):
        await walk.step()
        for channel in ("web", "local"):
            for sku in ("A", "K"):
                moment = await clock(db)
                said = await explain(db, channel_id=net.channels[channel], sku=sku, now=moment)
                adds_up(said)
                assert said.atp == await number(db, sku, channel)
                kept.append((moment, channel, sku, said))
    for moment, channel, sku, said in kept:
        again = await explain(db, channel_id=net.channels[channel], sku=sku, now=await clock(db), at=moment)
        adds_up(again)
        for found, was in zip(again.parts or [again], said.parts or [said], strict=True):
            assert what_stays(found) == what_stays(was), (moment, channel, sku)
        assert what_stays(again) == what_stays(said), (moment, channel, sku)


async def test_a_moment_that_is_yet_to_come_is_refused_and_one_before_all_is_empty(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="W1", quantity=5)
    assert isinstance(await reserve(db, net, "A", 2), Granted)
    ask: dict[str, Any] = {"channel_id": net.channels["web"], "sku": "A"}
    with pytest.raises(BadInput, match="yet to come"):
        await explain(db, **ask, now=now(), at=now() + timedelta(seconds=5))
    before = await explain(db, **ask, now=now(), at=datetime(2020, 1, 1, tzinfo=UTC))
    assert (before.atp, before.steps) == (0, [])
    assert (await explain(db, **ask, now=now())).atp == 3


async def test_each_step_has_the_rows_behind_it(db: Database, net: Net) -> None:
    for quantity in range(1, 8):
        await set_stock(db, sku="A", location="S1", quantity=quantity)
    await set_stock(db, sku="A", location="W1", quantity=9)
    work = await allocated(db, net, "N1", ("A", 2, "W1"))
    await captured(db, order(net, "N2", ("A", 1)))
    basket, pickup = await reserve(db, net, "A", 3, "local"), await reserve(db, net, "A", 1, location="S1")
    said = await explain(db, channel_id=net.channels["web"], sku="A", now=now())
    adds_up(said)
    found = said.evidence
    assert found is not None
    assert [m.on_hand for m in found.ledger if m.location == "S1"] == [7, 6, 5, 4, 3], "the newest five, newest first"
    newest = {m.location: m.on_hand for m in reversed(found.ledger)}
    assert newest == {place.location: place.on_hand for place in said.locations}
    assert all(m.effect == 1 and m.message_id and m.source for m in found.ledger if m.location == "S1")
    assert [(a.location, a.kind, a.id, a.order, a.units) for a in found.allocated] == [
        ("S1", "reservation", pickup.id, None, 1),
        ("W1", "fulfillment", work.fulfillment, "N1", 2),
    ]
    assert [(r.pool, r.count, r.units, [(p.kind, p.order, p.units) for p in r.top]) for r in found.reserved] == [
        ("web", 1, 1, [("order_line", "N2", 1)]),
        ("local", 1, 3, [("reservation", None, 3)]),
    ]
    assert found.reserved[1].top[0].id == basket.id
    sums = {r.pool: r.units for r in found.reserved}
    assert sums == {pool.pool: pool.reserved for pool in said.pools}


async def test_the_holds_that_are_shown_add_up_to_what_is_held(db: Database, net: Net) -> None:
    walk = Walk(db, net, 1)
    steps = []
    for _ in range(8):
        await walk.hold()
        for sku in "AB":
            said = await explain(db, channel_id=net.channels["web"], sku=sku, now=now())
            assert said.evidence is not None
            steps.append(sum(row.quantity for row in said.evidence.holds))
            assert steps[-1] == sum(place.held for place in said.locations)
    assert len(set(steps)) > 2


async def test_every_rule_in_force_is_told_with_who_made_it_and_which_counts(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="W1", quantity=9)
    await put(db, "channels", code="web", buffer=1)
    await put(db, "rules", code="all", kind="buffer", units=2)
    began = await clock(db)
    await put(db, "rules", code="mine", kind="buffer", channel="web", sku="A", units=4)
    await put(db, "rules", code="other", kind="buffer", channel="local", units=5)
    await put(db, "rules", code="else", kind="limit", sku="B", units=0)
    await put(db, "rules", code="keep", kind="protect", channel="local", units=1)
    later = (now() + timedelta(days=1)).isoformat()
    await put(db, "rules", code="soon", kind="limit", channel="web", units=0, from_at=later)

    async def told(at: datetime | None = None, **more: Any) -> list[tuple[str | None, str | None, bool]]:
        said = await explain(db, channel_id=net.channels["web"], sku="A", now=now(), at=at, **more)
        adds_up(said)
        assert said.evidence is not None
        return [(r.code, r.made_by, r.holds) for r in said.evidence.rules]

    assert await told() == [
        (None, "ada", False), ("all", "ada", False), ("keep", "ada", True), ("mine", "ada", True)
    ]  # fmt: skip
    assert await told(began) == [(None, "ada", False), ("all", "ada", True)]
    seen = Sees(channels=frozenset({net.channels["web"]}))
    assert "keep" not in [code for code, _, _ in await told(sees=seen)], "another channel's rules are not told"


async def test_a_caller_sees_the_rows_of_its_own_channels_and_locations(db: Database, net: Net) -> None:
    for location in ("W1", "S1"):
        await set_stock(db, sku="A", location=location, quantity=9)
    await reserve(db, net, "A", 3, "local")
    sees = Sees(frozenset({net.channels["web"]}), frozenset({net.locations["S1"]}))
    said = await explain(db, channel_id=net.channels["web"], sku="A", now=now(), sees=sees)
    adds_up(said)
    assert said.evidence is not None
    assert {row.location for row in said.evidence.ledger} == {"S1"}
    assert [(r.pool, r.units, r.top) for r in said.evidence.reserved] == [("local", 3, [])]


async def kit(db: Database, net: Net) -> None:
    async with db.transaction() as tx:
        kit_id = await tx.fetchval("insert into sku (code, is_kit) values ('K', true) returning sku_id")
        await tx.execute("insert into kit values ($1, $2, 2), ($1, $3, 1)", kit_id, net.skus["A"], net.skus["B"])


async def test_a_kit_is_told_per_location_where_all_its_parts_lie(db: Database, net: Net) -> None:
    await kit(db, net)
    for sku, location, units in (("A", "W1", 7), ("B", "W1", 2), ("A", "S1", 5), ("B", "S1", 4), ("B", "S2", 9)):
        await set_stock(db, sku=sku, location=location, quantity=units)
    ask: dict[str, Any] = {"channel_id": net.channels["web"], "sku": "K", "now": now()}
    said = await explain(db, **ask)
    assert [(k.location, k.kits) for k in said.together] == [("S1", 2), ("W1", 2)]
    near = await nearby(db, **ask, lat=40.75, lon=-74.0, limit=5)
    assert [(n.location, n.available) for n in near] == [("S1", 2), ("W1", 2)]
    await set_stock(db, sku="B", location="W1", quantity=0)
    near = await nearby(db, **ask, lat=40.75, lon=-74.0, limit=5)
    assert [(n.location, n.available) for n in near] == [("S1", 2)]


async def test_reserving_a_kit_reserves_its_parts_and_a_pickup_binds_them_to_the_store(db: Database, net: Net) -> None:
    await kit(db, net)
    for sku, location, units in (("A", "W1", 6), ("B", "W1", 3), ("A", "S1", 4), ("B", "S1", 4)):
        await set_stock(db, sku=sku, location=location, quantity=units)

    async def stands(sku: str) -> tuple[dict[str, int], dict[str, int]]:
        said = await explain(db, channel_id=net.channels["web"], sku=sku, now=now())
        reserved = {pool.pool: pool.reserved for pool in said.pools if pool.reserved}
        return reserved, {place.location: place.allocated for place in said.locations if place.allocated}

    assert isinstance(await reserve(db, net, "K", 1), Granted)
    assert [await stands(sku) for sku in "AB"] == [({"web": 2}, {}), ({"web": 1}, {})]
    bound = await reserve(db, net, "K", 2, location="S1")
    assert isinstance(bound, Granted)
    assert [await stands(sku) for sku in "AB"] == [({"web": 2}, {"S1": 4}), ({"web": 1}, {"S1": 2})]
    assert isinstance(await reserve(db, net, "K", 1, location="S1"), OutOfStock), (
        "A has gone there, though W1 has three"
    )
    await captured(db, order(net, "N1", ("K", 2), reservation=str(bound.id), pickup_location="S1"))
    assert [await stands(sku) for sku in "AB"] == [({"web": 2}, {"S1": 4}), ({"web": 1}, {"S1": 2})]
    assert await release(db, reservation_id=bound.id) is False
    async with db.connection() as connection:
        work = await connection.fetch(
            "select l.code, k.code, n.quantity from fulfillment f join location l using (location_id)"
            " join fulfillment_line n using (fulfillment_id) join sku k using (sku_id) order by k.code"
        )
    assert [tuple(row) for row in work] == [("S1", "A", 4), ("S1", "B", 2)]


async def test_nearby_goes_on_past_locations_whose_units_are_promised(db: Database, net: Net) -> None:
    """Stores that a crowded pool needs whole give nothing; those behind them are found, however few are asked for."""
    stores = [f"X{n:02d}" for n in range(30)]
    for n, code in enumerate(stores):
        await put(db, "locations", code=code, kind="store", lat=40.0 + n / 10, lon=-74.0)
    await put(db, "pools", code="web", locations=["W1", "S1", *stores])
    await put(db, "pools", code="near", locations=stores[:25])
    await put(db, "channels", code="near", pool="near")
    for code in stores:
        await set_stock(db, sku="A", location=code, quantity=1)
    async with db.connection() as connection:
        sold_by = await connection.fetchval("select channel_id from channel where code = 'near'")
    ask: dict[str, Any] = {"channel_id": net.channels["web"], "sku": "A", "lat": 40.0, "lon": -74.0, "now": now()}
    assert [n.location for n in await nearby(db, **ask, limit=3)] == stores[:3]
    cart = Cart(reservation_id=uuid4(), channel_id=sold_by, lines=(CartLine("A", 25),))
    assert isinstance((await settle_batch(db, reserve_many, [cart]))[0], Granted)
    assert [n.location for n in await nearby(db, **ask, limit=3)] == stores[25:28]
