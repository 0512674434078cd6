"""Under overload feed intake yields first, then checkout, reads never; and none waits for the connections of another."""

import asyncio
import time
from collections.abc import AsyncIterator

import httpx
import pytest
from litestar import Litestar

from oms.api.admission import CHECKOUT, CONNECTIONS_SHARE, FEEDS
from oms.app import create_app
from oms.cache import Cache
from oms.db import LANE, Database
from oms.settings import Settings
from tests.world import Net, bearer, make_key, set_stock, small_network

MOVEMENT = {
    "id": "m",
    "sku": "A",
    "location": "S1",
    "kind": "sale",
    "quantity": 1,
    "occurred_at": "2026-11-20T10:00:00Z",
}
CART = {"channel": "web", "lines": [{"sku": "A", "quantity": 1}]}


@pytest.fixture
async def laned(database_url: str) -> AsyncIterator[Database]:
    """A door with one connection per lane less than anybody could wish for."""
    opened = await Database.open(database_url, connections_max=6, lanes=CONNECTIONS_SHARE)
    yield opened
    await opened.close()


@pytest.fixture
async def net(laned: Database) -> Net:
    net = await small_network(laned)
    await set_stock(laned, sku="A", location="W1", quantity=100)
    return net


@pytest.fixture
def app(laned: Database, cache: Cache, settings: Settings) -> Litestar:
    return create_app(settings=settings, db=laned, cache=cache)


@pytest.fixture
async def http(app: Litestar, laned: Database, net: Net) -> AsyncIterator[httpx.AsyncClient]:
    key = bearer(await make_key(laned, "admin", person="Ada"))
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=key) as client:
        yield client


async def statuses(http: httpx.AsyncClient) -> list[int]:
    """Of a feed, a reservation and a read, at one moment."""
    return [
        (await http.post("/v1/feeds/pos/movements", json=[MOVEMENT])).status_code,
        (await http.post("/v1/reservations", json=CART)).status_code,
        (await http.get("/v1/atp", params={"channel": "web", "sku": "A"})).status_code,
    ]


async def test_feeds_yield_before_checkout_and_reads_never(app: Litestar, http: httpx.AsyncClient) -> None:
    admission = app.state.admission
    assert await statuses(http) == [200, 201, 200]
    assert FEEDS.lag_seconds_max is not None and CHECKOUT.lag_seconds_max is not None
    admission.lag_seconds = FEEDS.lag_seconds_max + 0.01
    assert await statuses(http) == [503, 201, 200]
    admission.lag_seconds = CHECKOUT.lag_seconds_max + 0.01
    assert await statuses(http) == [503, 503, 200]
    refused = await http.post("/v1/feeds/pos/movements", json=[MOVEMENT])
    assert refused.headers["retry-after"] and refused.json()["type"].endswith("/busy")
    admission.lag_seconds = 0.0
    assert await statuses(http) == [200, 201, 200]


async def test_a_loop_that_comes_late_is_noticed(app: Litestar) -> None:
    admission = app.state.admission
    admission.start()
    try:
        await asyncio.sleep(0.06)
        time.sleep(0.4)  # noqa: ASYNC251 - this is what it is about
        await asyncio.sleep(0.06)
        assert admission.lag_seconds > 0.2
    finally:
        admission.stop()


async def test_a_lane_that_is_used_up_hurts_no_other(
    http: httpx.AsyncClient, laned: Database, cache: Cache, app: Litestar
) -> None:
    assert await statuses(http) == [200, 201, 200]  # the key is known now
    held = []
    for lane in ("feeds", "none"):
        token = LANE.set(lane)
        pool = laned.pool
        held += [(pool, await pool.acquire()) for _ in range(pool.get_max_size())]
        LANE.reset(token)
    await cache._redis.flushdb()
    sent = asyncio.create_task(http.post("/v1/feeds/pos/movements", json=[MOVEMENT | {"id": "n"}]))
    try:
        async with asyncio.timeout(20):
            assert (await http.get("/v1/atp", params={"channel": "web", "sku": "A"})).status_code == 200
            assert (await http.post("/v1/reservations", json=CART)).status_code == 201
        assert not sent.done()
    finally:
        for pool, connection in held:
            await pool.release(connection)
    assert (await sent).status_code == 200


async def test_many_feeds_at_once_wait_for_each_other_and_none_for_ever(http: httpx.AsyncClient) -> None:
    async def snapshot(n: int) -> int:
        sent = await http.post(
            "/v1/feeds/erp/baseline", params={"as_of": f"2026-11-20T10:00:{n:02d}Z"}, content=b"sku,location,quantity\nA,S1,5\n"
        )  # fmt: skip
        return sent.status_code

    async def moved(n: int) -> int:
        return (await http.post("/v1/feeds/pos/movements", json=[MOVEMENT | {"id": f"m{n}"}])).status_code

    async with asyncio.timeout(60):
        done = await asyncio.gather(*(snapshot(n) for n in range(6)), *(moved(n) for n in range(6)))
    assert set(done) <= {200, 202}
