"""Settlements over the API: who may read, close and approve, pages, and a price that is put while units wait for it."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from oms.app import create_app
from oms.cache import Cache
from oms.db import Database
from oms.settings import Settings
from tests.demand import allocated, ship
from tests.feeding import check
from tests.world import Net, bearer, make_key, set_stock, small_network


@pytest.fixture
async def net(db: Database) -> AsyncIterator[Net]:
    net = await small_network(db)
    await set_stock(db, sku="A", location="S1", quantity=9)
    yield net
    await check(db)


@pytest.fixture
async def http(db: Database, cache: Cache) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_app(settings=Settings(), db=db, cache=cache))  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://oms.test") as client:
        yield client


async def call(
    http: httpx.AsyncClient, key: str, method: str, path: str, body: Any = None, *, ok: int = 200, once: str = ""
) -> Any:
    """The body of the answer, which must have this status."""
    headers = {**bearer(key), **({"Idempotency-Key": once} if once else {})}
    answer = await http.request(method, f"/v1{path}", json=body, headers=headers)
    assert answer.status_code == ok, (path, answer.status_code, answer.text)
    return answer.json()


async def test_a_period_from_a_missing_price_to_its_close(db: Database, net: Net, http: httpx.AsyncClient) -> None:
    root = await make_key(db, "admin", person="root")
    await call(http, root, "PUT", "/parties", [{"code": "web"}, {"code": "stores", "name": "Stores"}])
    assert (await call(http, root, "PUT", "/locations/S1", {"division": "stores"}))["division"] == "stores"
    assert (await call(http, root, "PUT", "/channels/web", {"division": "web"}))["division"] == "web"
    for n in range(3):
        await ship(db, await allocated(db, net, f"N{n}", ("A", 1, "S1")))
    report = await call(http, root, "GET", "/settlements/report?period=2026-11")
    assert (report["debts"], report["waiting"]) == ([], [{"subject": "stores>web:A", "entries": 3, "units": 3}])
    put = {"owner": "stores", "percent": 62.5, "percent_of": "price"}
    price = await call(http, root, "PUT", "/transfer-prices/list", put)
    assert (price["buyer"], price["percent"], price["currency"]) == ("*", 62.5, "USD")
    past = await call(http, root, "GET", "/transfer-prices/list/history")
    assert [step["step"] for step in past["items"]] == ["created"]
    planner = await make_key(db, "planner")
    page = await call(http, planner, "GET", "/settlements?limit=2&from=2026-11-23&to=2026-11-23&owner=stores&buyer=web")
    rest = await call(http, planner, "GET", f"/settlements?limit=2&cursor={page['next']}")
    assert [e["order"] for e in page["items"] + rest["items"]] == ["N2", "N1", "N0"]
    assert (rest["next"], {e["cents"] for e in page["items"]}) == (None, {625})
    olga, ann = await make_key(db, "operator", person="olga"), await make_key(db, "approver", person="ann")
    entry = page["items"][0]["id"]
    for _ in range(2):
        body = {"cents": -25, "why": "wrong list"}
        made = await call(http, olga, "POST", f"/settlements/{entry}/correct", body, ok=201, once="c1")
    assert (made["corrects"], made["cents"]) == (entry, -25)
    report = await call(http, planner, "GET", f"/settlements/report?period={made['period']}")
    (debt,) = report["debts"]
    owed_back = {"web": -25, "stores": 25}  # a month with the sales: web still owes; a month without them: stores do
    assert debt["kinds"]["correction"] == {"cents": owed_back[debt["debtor"]], "units": 0}
    (debt,) = (await call(http, planner, "GET", "/settlements/report?period=2026-11"))["debts"]
    assert (debt["debtor"], debt["creditor"], debt["kinds"]["sale"]) == ("web", "stores", {"cents": 1875, "units": 3})
    await call(http, olga, "POST", "/settlements/periods/2099-01/close", ok=409)
    assert (await call(http, olga, "POST", "/settlements/periods/2020-01/close"))["state"] == "asked"
    closed = await call(http, ann, "POST", "/settlements/periods/2020-01/approve")
    assert (closed["state"], closed["asked_by"], closed["approved_by"]) == ("closed", "olga", "ann")


async def test_each_role_does_its_part_and_no_others(db: Database, net: Net, http: httpx.AsyncClient) -> None:
    may = {
        "planner": {"read"}, "operator": {"read", "close", "correct"}, "approver": {"read", "approve"},
        "admin": {"read", "close", "correct", "approve"}, "associate": set(), "storefront": set(), "integrator": set(),
    }  # fmt: skip
    calls = {
        "read": [("GET", "/settlements", None), ("GET", "/settlements/report?period=2026-11", None)],
        "close": [("POST", "/settlements/periods/2020-01/close", None)],
        "approve": [("POST", "/settlements/periods/2020-01/approve", None)],
        "correct": [("POST", "/settlements/1/correct", {"cents": 1, "why": "x"})],
    }
    bound = {"associate": {"location": "S1"}, "storefront": {"channel": "web"}, "integrator": {"source": "erp"}}
    for role, parts in may.items():
        key = await make_key(db, role, person=role, **bound.get(role, {}))
        for part, asked in calls.items():
            for method, path, body in asked:
                answer = await http.request(method, f"/v1{path}", json=body, headers=bearer(key))
                assert (answer.status_code == 403) == (part not in parts), (role, path, answer.status_code)


async def test_a_key_of_a_part_of_the_network_sees_no_settlement_and_one_of_nobody_closes_none(
    db: Database, net: Net, http: httpx.AsyncClient
) -> None:
    bound = await make_key(db, "approver", person="ann", location="S1")
    for path in ("/settlements", "/settlements/report?period=2026-11"):
        await call(http, bound, "GET", path, ok=404)
    await call(http, bound, "POST", "/settlements/periods/2020-01/approve", ok=404)
    root = await make_key(db, "admin", person="root")
    await call(http, root, "PUT", "/parties", [{"code": "cons", "kind": "consignor"}])
    await call(http, root, "PUT", "/stock-owners", [{"sku": "A", "location": "S1", "owner": "cons"}])
    await call(http, root, "PUT", "/transfer-prices/p", {"owner": "cons", "cents": 5})
    for kind, there in (("parties", 1), ("stock-owners", 1), ("transfer-prices", 1)):
        assert len((await call(http, root, "GET", f"/{kind}"))["items"]) == there
        assert (await call(http, bound, "GET", f"/{kind}"))["items"] == []
    nobody = await make_key(db, "operator")
    await call(http, nobody, "POST", "/settlements/periods/2020-01/close", ok=403)
    assert await call(http, await make_key(db, "planner"), "GET", "/settlements") == {"items": [], "next": None}
    for query in ("?from=yesterday", "?period=x", "?cursor=%00", "/report?period=2026-00", "/report"):
        await call(http, root, "GET", f"/settlements{query}", ok=400)
