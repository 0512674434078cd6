"""What operators see and do of pushes."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from uuid import uuid4

import httpx
import pytest

from oms import access
from oms.app import create_app
from oms.cache import Cache
from oms.db import Database
from oms.flows.push import outbox
from oms.flows.push.projector import project
from oms.settings import Settings
from tests.world import bearer, make_key, set_stock, small_network

NOW = datetime(2026, 11, 23, 6, 0, tzinfo=UTC)


@pytest.fixture
async def http(db: Database, cache: Cache, settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    await small_network(db)
    access.forget()
    async with db.transaction() as tx:
        await tx.execute("update channel set kind = 'webhook' where code = 'web'")
    transport = httpx.ASGITransport(create_app(settings=settings, db=db, cache=cache))  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://oms.test") as client:
        client.headers.update(bearer(await make_key(db, "operator")))
        yield client


async def dead_pushes(db: Database, cache: Cache) -> list[str]:
    """Three pushes of the web channel, refused for good, the newest first."""
    for sku in "ABC":
        await set_stock(db, sku=sku, location="W1", quantity=5)
    await project(db, cache, now=NOW)
    [web] = await outbox.channels_of(db, ["web"])
    await outbox.prepare(db, channel_id=web.channel_id, batch_max=1, has_guard=True, now=NOW)
    ids = []
    while taken := await outbox.take(db, channel_id=web.channel_id):
        await outbox.refused(db, taken[0], channel="web", reason="410 gone", skus=1, is_content=False)
        ids.insert(0, str(taken[0].push_id))
    return ids


async def test_pushes_are_listed_newest_first_page_by_page(db: Database, cache: Cache, http: httpx.AsyncClient) -> None:
    ids = await dead_pushes(db, cache)
    first = (await http.get("/v1/pushes", params={"limit": 2, "state": "dead", "channel": "web"})).json()
    assert [item["push_id"] for item in first["items"]] == ids[:2]
    assert first["items"][0]["answer"] == "410 gone" and first["items"][0]["skus"] == 1
    rest = (await http.get("/v1/pushes", params={"limit": 2, "cursor": first["next"]})).json()
    assert [item["push_id"] for item in rest["items"]] == ids[2:]
    assert rest["next"] is None
    assert (await http.get("/v1/pushes", params={"channel": "local"})).json()["items"] == []


async def test_a_dead_push_is_replayed_once_and_its_channel_woken(
    db: Database, cache: Cache, http: httpx.AsyncClient
) -> None:
    [push_id, *_] = await dead_pushes(db, cache)
    answer = await http.post(f"/v1/pushes/{push_id}/replay")
    assert (answer.status_code, answer.json()) == (200, {"push_id": push_id, "state": "due"})
    assert await cache.wait(["push:web"], 5) == "push:web"
    again = await http.post(f"/v1/pushes/{push_id}/replay")
    assert (again.status_code, again.json()["type"].rsplit("/", 1)[-1]) == (409, "conflict")
    assert (await http.post(f"/v1/pushes/{uuid4()}/replay")).status_code == 404


async def test_a_reset_is_asked_for_kept_in_history_and_begun_with_the_next_push(
    db: Database, cache: Cache, http: httpx.AsyncClient
) -> None:
    async with db.transaction() as tx:
        await tx.execute("update channel set reset_due = false")
    answer = await http.post("/v1/channels/web/push", json={"reset": False})
    assert (answer.status_code, answer.json()) == (202, {"channel": "web", "reset": False})
    async with db.transaction() as tx:
        assert not await tx.fetchval("select reset_due from channel where code = 'web'")
    await http.post("/v1/channels/web/push", json={"reset": True})
    assert await cache.wait(["push:web"], 5) == "push:web"
    async with db.transaction() as tx:
        assert await tx.fetchval("select reset_due from channel where code = 'web'")
        assert await tx.fetchval("select step from history where kind = 'channel' and id = 'web'") == "reset asked"


async def test_a_channel_that_is_told_nothing_or_is_unknown_is_not_found(http: httpx.AsyncClient) -> None:
    for code in ("local", "moon"):
        assert (await http.post(f"/v1/channels/{code}/push", json={})).status_code == 404


async def test_a_key_that_is_bound_to_another_channel_sees_no_push(
    db: Database, cache: Cache, http: httpx.AsyncClient
) -> None:
    [push_id, *_] = await dead_pushes(db, cache)
    other = bearer(await make_key(db, "operator", channel="local"))
    assert (await http.get("/v1/pushes", headers=other)).json()["items"] == []
    assert (await http.post(f"/v1/pushes/{push_id}/replay", headers=other)).status_code == 404
    assert (await http.post("/v1/channels/web/push", json={}, headers=other)).status_code == 404
