import random
import time
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from oms import ledger
from oms.cache import Cache
from oms.db import Database
from oms.domain.order import CartLine
from oms.domain.places import distance_km
from oms.errors import BadInput, NotFound, OutOfStock
from oms.flows.network import load
from oms.flows.promise.explain import Explained, explain
from oms.flows.promise.nearby import nearby, place_of
from oms.flows.promise.places import at_locations
from oms.flows.promise.read import Atp, NextReceipt, atp
from oms.flows.push.projector import project
from oms.flows.reserve import Cart, Granted, reserve_many
from oms.settle import settle_batch
from tests.world import Net, set_stock, small_network

NOW = datetime(2026, 11, 23, 15, tzinfo=UTC)


@pytest.fixture
async def net(db: Database) -> Net:
    return await small_network(db)


async def reserve(db: Database, net: Net, sku: str, quantity: int, channel: str = "web", **more: Any) -> Any:
    wish = Cart(
        reservation_id=uuid4(), channel_id=net.channels[channel], lines=(CartLine(sku, quantity),), **more
    )  # fmt: skip
    return (await settle_batch(db, reserve_many, [wish]))[0]


async def read(db: Database, sku: str, channel: str = "web") -> Atp:
    """The number from PostgreSQL."""
    gone = Cache("redis://127.0.0.1:1/0")
    found = await atp(db, gone, channels=[channel], skus=[sku], now=NOW)
    await gone.close()
    return found.channels[channel][0]


async def number(db: Database, net: Net, sku: str, channel: str = "web") -> int:
    return (await read(db, sku, channel)).atp


async def expect(db: Database, net: Net, sku: str, location: str, quantity: int, *, on: date) -> None:
    async with db.transaction() as tx:
        await tx.execute(
            "insert into incoming (source_id, reference, sku_id, location_id, kind, quantity, due_on)"
            " values (1, $1, $2, $3, 'purchase', $4, $5)",
            str(uuid4()), net.skus[sku], net.locations[location], quantity, on,
        )  # fmt: skip


async def test_a_reservation_is_decided_by_the_same_number_that_atp_shows(db: Database, net: Net) -> None:
    for location, quantity in (("W1", 3), ("S1", 4), ("S2", 2)):
        await set_stock(db, sku="A", location=location, quantity=quantity)
    async with db.transaction() as tx:
        await tx.execute("update channel set buffer = 1, cap = 9 where code = 'web'")
    chance = random.Random(7)
    for _ in range(12):
        channel = chance.choice(["web", "local"])
        shown = await number(db, net, "A", channel)
        assert isinstance(await reserve(db, net, "A", shown + 1, channel), OutOfStock)
        if shown:
            assert isinstance(await reserve(db, net, "A", chance.randint(1, shown), channel), Granted)
    assert await number(db, net, "A", "web") + await number(db, net, "A", "local") == 0


async def test_atp_is_read_from_redis_and_filled_where_it_has_nothing(
    db: Database, net: Net, cache: Cache, database_url: str
) -> None:
    await set_stock(db, sku="A", location="W1", quantity=5)

    async def ask(*skus: str, channel: str = "web") -> list[tuple[str, int]]:
        found = await atp(db, cache, channels=[channel], skus=skus, now=NOW)
        return [(row.sku, row.atp) for row in found.channels[channel]]

    assert await ask("A", "nope", "B", "A") == [("A", 5), ("B", 0)]
    await cache.projected_upto(time.time())  # somebody looks after Redis: it is believed
    assert (await atp(db, cache, channels=["web"], skus=["nope"], now=NOW)).unknown == ["nope"]
    another = await Database.open(database_url)
    await set_stock(another, sku="A", location="W1", quantity=3)
    await another.close()
    assert await ask("A") == [("A", 5)], "another process wrote, and nobody projected yet"
    await cache._redis.flushdb()
    assert await ask("A") == [("A", 3)]
    await set_stock(db, sku="A", location="W1", quantity=2)
    assert await ask("A") == [("A", 2)], "who writes here reads here what was written"
    assert await ask("A", channel="local") == [("A", 0)]
    with pytest.raises(NotFound):
        await ask("A", channel="nowhere")


async def test_the_age_of_an_answer_is_that_of_the_projection(
    db: Database, net: Net, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    await set_stock(db, sku="A", location="W1", quantity=5)
    while (await project(db, cache, now=NOW)).rows:
        pass
    found = await atp(db, cache, channels=["web"], skus=["A"], now=NOW)
    assert (found.age_seconds < 5, found.stale) == (True, False)
    await cache.projected_upto(time.time() - 60)
    found = await atp(db, cache, channels=["web"], skus=["A"], now=NOW)
    assert (found.age_seconds >= 60, found.stale) == (True, True)
    found = await atp(db, cache, channels=["web"], skus=["A", "B", "nope"], now=NOW)
    assert found.unknown == ["nope"]


async def test_a_channels_rules_are_in_force_the_moment_they_change(db: Database, net: Net, cache: Cache) -> None:
    await set_stock(db, sku="A", location="W1", quantity=5)

    async def ask() -> int:
        return (await atp(db, cache, channels=["web"], skus=["A"], now=NOW)).channels["web"][0].atp

    while (await project(db, cache, now=NOW)).rows:
        pass
    assert await ask() == 5
    for buffer in (2, 4, 0):
        await load(db, kind="channels", rows=[{"code": "web", "buffer": buffer}], who="me", now=NOW, cache=cache)
        assert await ask() == 5 - buffer


async def test_atp_is_right_without_redis(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="W1", quantity=5)
    assert await number(db, net, "A") == 5


async def test_what_a_pickup_would_get_is_told_for_many_locations_at_once(db: Database, net: Net) -> None:
    for sku, location, units in (("A", "W1", 3), ("A", "S1", 4), ("A", "S2", 2), ("B", "S1", 1)):
        await set_stock(db, sku=sku, location=location, quantity=units)
    assert isinstance(await reserve(db, net, "A", 5, "local"), Granted)
    found, unknown = await at_locations(
        db, channel_id=net.channels["web"], skus=["A", "B", "nope", "C"], locations=["S1", "W1", "S2"], now=NOW
    )
    assert (found, unknown) == ({"S1": {"A": 1, "B": 1}, "W1": {"A": 3}, "S2": {}}, ["nope"])
    with pytest.raises(NotFound, match="nowhere"):
        await at_locations(db, channel_id=net.channels["web"], skus=["A"], locations=["nowhere"], now=NOW)


async def test_next_is_the_first_receipt_of_the_channels_pool_that_is_not_overdue(db: Database, net: Net) -> None:
    await expect(db, net, "A", "W1", 4, on=date(2026, 11, 30))
    await expect(db, net, "A", "S1", 3, on=date(2026, 11, 30))
    await expect(db, net, "A", "W1", 9, on=date(2026, 11, 20))
    await expect(db, net, "A", "S2", 5, on=date(2026, 11, 25))
    web, none = (await read(db, "A")).next, (await read(db, "B")).next
    assert (web, none) == (NextReceipt(date(2026, 11, 30), 7), None)


async def test_a_kit_is_what_its_scarcest_part_allows_and_follows_every_part(db: Database, net: Net) -> None:
    async with db.transaction() as tx:
        kit_id = await tx.fetchval("insert into sku (code, is_kit) values ('K', true) returning sku_id")
        await tx.execute("insert into kit values ($1, $2, 2), ($1, $3, 1)", kit_id, net.skus["A"], net.skus["B"])
    await set_stock(db, sku="A", location="W1", quantity=7)
    await set_stock(db, sku="B", location="S1", quantity=9)
    before = await read(db, "K")
    await set_stock(db, sku="B", location="S1", quantity=1)
    after = await read(db, "K")
    assert (before.atp, after.atp) == (3, 1)
    assert after.version > before.version
    explained = await explain(db, channel_id=net.channels["web"], sku="K", now=NOW)
    assert explained.atp == 1
    assert [(part.sku, part.per_kit, part.atp) for part in explained.parts] == [("A", 2, 7), ("B", 1, 1)]


def adds_up(explained: Explained) -> None:
    assert sum(step.units for step in explained.steps) == explained.atp


async def test_an_explanation_adds_up_whatever_the_world_is(db: Database, net: Net) -> None:
    """Overlapping pools, broken promises, negative stock, locations that are off, buffers and caps."""
    chance = random.Random(3)
    seen_broken = seen_shared = False
    for _ in range(25):
        sku = chance.choice("ABC")
        for location in ("W1", "S1", "S2"):
            if chance.random() < 0.5:
                await set_stock(db, sku=sku, location=location, quantity=chance.randint(-2, 8))
        for channel in ("web", "local"):
            if chance.random() < 0.6:
                await reserve(db, net, sku, chance.randint(1, 4), channel)
        if chance.random() < 0.3:
            await reserve(db, net, sku, 1, "local", location="S1")
        async with db.transaction() as tx:
            await tx.execute(
                "update channel set buffer = $1, cap = $2",
                chance.randint(0, 2), chance.choice([None, 3, 10]),
            )  # fmt: skip
            await tx.execute("update location set is_on = $1 where code = 'S2'", chance.random() < 0.7)
            ids = list(net.skus.values())
            await ledger.write(tx, await ledger.lock(tx, ids), resum=ids)
        for channel in ("web", "local"):
            explained = await explain(db, channel_id=net.channels[channel], sku=sku, now=NOW)
            adds_up(explained)
            assert explained.atp == await number(db, net, sku, channel)
            names = {step.step for step in explained.steps}
            seen_broken |= "promises_already_broken" in names
            seen_shared |= "shared_pools" in names
    assert seen_broken
    assert seen_shared


async def test_an_explanation_names_the_pools_that_bind(db: Database, net: Net) -> None:
    for location, quantity in (("W1", 1), ("S1", 2), ("S2", 3)):
        await set_stock(db, sku="A", location=location, quantity=quantity)
    assert isinstance(await reserve(db, net, "A", 4, "local"), Granted)
    explained = await explain(db, channel_id=net.channels["web"], sku="A", now=NOW)
    assert [(step.step, step.units, step.pool) for step in explained.steps] == [
        ("on_hand", 3, None),
        ("shared_pools", 3, None),
        ("reserved", -4, "local"),
    ]
    assert [(pool.pool, pool.reserved, pool.supply, pool.binds) for pool in explained.pools] == [
        ("web", 0, 3, False),
        ("local", 4, 5, True),
    ]
    assert [(place.location, place.available) for place in explained.locations] == [("S1", 2), ("W1", 1)]
    with pytest.raises(NotFound):
        await explain(db, channel_id=net.channels["web"], sku="nope", now=NOW)


async def test_nearby_lists_what_a_pickup_would_get_nearest_first(db: Database, net: Net) -> None:
    for location, quantity in (("W1", 4), ("S1", 2)):
        await set_stock(db, sku="A", location=location, quantity=quantity)
    lat, lon = place_of(postal_code="10001", country="US", lat=None, lon=None)
    ask = {"channel_id": net.channels["web"], "sku": "A", "lat": lat, "lon": lon, "limit": 20, "now": NOW}
    ready = (NOW + timedelta(minutes=60)).isoformat()
    near = await nearby(db, **ask)
    assert [(n.location, n.available, n.pickup_from) for n in near] == [
        ("S1", 2, ready),
        ("W1", 4, ready),
    ]
    assert near[0].km is not None and near[0].km < 5
    assert near[1].km is not None and 1_100 < near[1].km < 1_200
    assert isinstance(await reserve(db, net, "A", 2, "local"), Granted)
    await expect(db, net, "A", "S1", 4, on=date(2026, 11, 30))
    near = await nearby(db, **ask)
    assert [(n.location, n.available, n.pickup_from) for n in near] == [
        ("S1", 0, "2026-11-30"),
        ("W1", 4, ready),
    ]
    assert await nearby(db, **ask | {"sku": "B"}) == []


async def test_a_location_without_coordinates_is_not_near(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="W1", quantity=4)
    await set_stock(db, sku="A", location="S1", quantity=4)
    async with db.transaction() as tx:
        await tx.execute("update location set lat = null, lon = null where code = 'S1'")
    near = await nearby(db, channel_id=net.channels["web"], sku="A", lat=40.7, lon=-74.0, limit=20, now=NOW)
    assert [(n.location, n.km is None) for n in near] == [("W1", False), ("S1", True)]


def test_places_are_found_by_postal_code_or_refused_with_what_to_do() -> None:
    lat, lon = place_of(postal_code="60601-1234", country="US", lat=None, lon=None)
    assert distance_km(lat, lon, 41.88, -87.62) < 5
    for given in (
        {"postal_code": "00000", "country": "US"},
        {"postal_code": "10115", "country": "DE"},
        {"postal_code": None, "country": "US"},
    ):
        with pytest.raises(BadInput, match="lat"):
            place_of(lat=None, lon=None, **given)  # type: ignore[arg-type]
