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
from oms.errors import Refusal
from oms.flows.network import load
from oms.flows.order.change import cancel
from oms.flows.promise.explain import Explained, explain
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
    async with db.transaction() as tx:
        kit_id = await tx.fetchval("insert into sku (code, is_kit) values ('K', true) returning sku_id")
        await tx.execute("insert into kit values ($1, $2, 2), ($1, $3, 1)", kit_id, net.skus["A"], net.skus["B"])
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
