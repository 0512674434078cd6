"""Checkout and orders through their doors."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import httpx
import pytest

from oms import access
from oms.app import create_app
from oms.cache import Cache
from oms.db import Database
from oms.settings import Settings
from oms.settle import close_all
from tests.balance import check_balance
from tests.world import Net, bearer, make_key, set_stock, small_network


@pytest.fixture
async def net(db: Database) -> AsyncIterator[Net]:
    yield await small_network(db)
    await check_balance(db)


@pytest.fixture
async def http(db: Database, redis_url: str, settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    cache = await Cache.open(redis_url)
    access.forget()
    transport = httpx.ASGITransport(create_app(settings=settings, db=db, cache=cache))  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://oms.test") as client:
        yield client
    await close_all(db)
    await cache.close()


@pytest.fixture
async def shop(db: Database, net: Net) -> dict[str, str]:
    return bearer(await make_key(db, "storefront", channel="web"))


@pytest.fixture
async def other(db: Database, net: Net) -> dict[str, str]:
    return bearer(await make_key(db, "storefront", channel="local"))


@pytest.fixture
async def store(db: Database, net: Net) -> dict[str, str]:
    return bearer(await make_key(db, "associate", location="S1"))


def cart(*lines: tuple[str, int], **more: Any) -> dict[str, Any]:
    return {"channel": "web", "lines": [{"sku": sku, "quantity": quantity} for sku, quantity in lines], **more}


def order(number: str, *lines: tuple[str, int], **more: Any) -> dict[str, Any]:
    return {
        "channel": "web", "number": number, "placed_at": "2026-11-23T09:00:00+01:00", "method": "ground",
        "ship_to": {"postal_code": "10001", "country": "US"},
        "lines": [
            {"line": str(place), "sku": sku, "quantity": quantity, "price": 1999}
            for place, (sku, quantity) in enumerate(lines, start=1)
        ],
        **more,
    }  # fmt: skip


async def test_a_shopper_asks_reserves_and_orders(
    db: Database, http: httpx.AsyncClient, net: Net, shop: dict[str, str]
) -> None:
    await set_stock(db, sku="A", location="W1", quantity=3)
    seen = await http.get("/v1/atp", params={"channel": "web", "sku": ["A", "B", "zz"]}, headers=shop)
    assert seen.status_code == 200
    body = seen.json()
    assert [(item["sku"], item["atp"], item["next"]) for item in body["items"]] == [("A", 3, None), ("B", 0, None)]
    assert (body["channel"], body["unknown"]) == ("web", ["zz"])
    many = await http.post("/v1/atp", json={"channel": "web", "skus": ["A", "B", "zz"]}, headers=shop)
    assert (many.status_code, many.json()) == (200, body)

    reserved = await http.post("/v1/reservations", json=cart(("A", 2), ttl_seconds=60), headers=shop)
    assert reserved.status_code == 201
    assert reserved.json()["lines"] == [{"sku": "A", "quantity": 2}]
    short = await http.post("/v1/reservations", json=cart(("A", 2)), headers=shop)
    assert short.status_code == 409
    assert short.json()["type"].endswith("/out-of-stock")
    assert short.json()["items"] == [{"sku": "A", "quantity": 2, "atp": 1}]

    asked = order("N1", ("A", 2), reservation=reserved.json()["id"])
    made = await http.post("/v1/orders", json=asked, headers=shop)
    again = await http.post("/v1/orders", json=asked, headers=shop)
    assert (made.status_code, again.status_code) == (201, 200)
    assert made.json() == again.json()
    assert (made.json()["number"], made.json()["state"], made.json()["lines"][0]["open"]) == ("N1", "open", 2)
    changed = await http.post("/v1/orders", json=order("N1", ("A", 1)), headers=shop)
    assert (changed.status_code, changed.headers["order-changed"], changed.json()) == (200, "true", made.json())

    order_id = made.json()["id"]
    assert (await http.get(f"/v1/orders/{order_id}", headers=shop)).json() == made.json()
    held = await http.post(f"/v1/orders/{order_id}/hold", json={"reason": "payment"}, headers=shop)
    assert held.json()["state"] == "held"
    assert (await http.post(f"/v1/orders/{order_id}/release", headers=shop)).json()["state"] == "open"
    gone = await http.post(f"/v1/orders/{order_id}/cancel", json={"lines": ["1"], "reason": "late"}, headers=shop)
    assert gone.json()["state"] == "cancelled"
    first = (await http.get(f"/v1/orders/{order_id}/history", params={"limit": 3}, headers=shop)).json()
    rest = await http.get(f"/v1/orders/{order_id}/history", params={"cursor": first["next"]}, headers=shop)
    steps = [step["step"] for step in first["items"] + rest.json()["items"]]
    assert steps == ["captured", "held", "released", "cancelled"]


async def test_one_key_gets_one_answer_and_another_body_is_refused(
    db: Database, http: httpx.AsyncClient, net: Net, shop: dict[str, str]
) -> None:
    await set_stock(db, sku="A", location="W1", quantity=3)
    headers = shop | {"Idempotency-Key": "c1"}
    first = await http.post("/v1/reservations", json=cart(("A", 2)), headers=headers)
    again = await http.post("/v1/reservations", json=cart(("A", 2)), headers=headers)
    assert (first.status_code, again.status_code, again.headers["idempotent-replayed"]) == (201, 201, "true")
    assert first.json() == again.json()
    other_body = await http.post("/v1/reservations", json=cart(("A", 1)), headers=headers)
    assert other_body.status_code == 422
    headers = shop | {"Idempotency-Key": "c2"}
    refused = await http.post("/v1/reservations", json=cart(("A", 2)), headers=headers)
    await set_stock(db, sku="A", location="W1", quantity=30)
    still = await http.post("/v1/reservations", json=cart(("A", 2)), headers=headers)
    assert refused.status_code == still.status_code == 409
    assert refused.json() == still.json()
    assert still.headers["content-type"] == "application/problem+json"


async def test_a_reservation_is_released_with_204_however_often(
    db: Database, http: httpx.AsyncClient, net: Net, shop: dict[str, str], other: dict[str, str]
) -> None:
    await set_stock(db, sku="A", location="W1", quantity=1)
    made = await http.post("/v1/reservations", json=cart(("A", 1)), headers=shop)
    address = f"/v1/reservations/{made.json()['id']}"
    extended = await http.post(f"{address}/extend", json={"ttl_seconds": 7200}, headers=shop)
    assert extended.json()["expires_at"] > made.json()["expires_at"]
    assert (await http.post(f"{address}/extend", json={}, headers=other)).status_code == 404
    assert (await http.delete(address, headers=other)).status_code == 204
    assert (await http.post("/v1/reservations", json=cart(("A", 1)), headers=shop)).status_code == 409
    assert [(await http.delete(address, headers=shop)).status_code for _ in range(2)] == [204, 204]
    assert (await http.delete(f"/v1/reservations/{uuid4()}", headers=shop)).status_code == 204
    assert (await http.post("/v1/reservations", json=cart(("A", 1)), headers=shop)).status_code == 201


async def test_what_is_another_channels_answers_as_if_it_were_not_there(
    db: Database, http: httpx.AsyncClient, net: Net, shop: dict[str, str], other: dict[str, str]
) -> None:
    await set_stock(db, sku="A", location="W1", quantity=3)
    order_id = (await http.post("/v1/orders", json=order("N1", ("A", 1)), headers=shop)).json()["id"]
    for method, address, body in (
        ("GET", f"/v1/orders/{order_id}", None),
        ("GET", f"/v1/orders/{order_id}/history", None),
        ("POST", f"/v1/orders/{order_id}/cancel", {}),
        ("POST", f"/v1/orders/{order_id}/hold", {}),
        ("POST", "/v1/orders", order("N2", ("A", 1))),
        ("POST", "/v1/reservations", cart(("A", 1))),
        ("POST", "/v1/atp", {"channel": "web", "skus": ["A"]}),
        ("GET", "/v1/atp?channel=web&sku=A", None),
        ("GET", "/v1/atp/A/explain?channel=web", None),
        ("GET", "/v1/atp/A/nearby?channel=web&postal_code=10001", None),
    ):
        answer = await http.request(method, address, json=body, headers=other)
        assert answer.status_code == 404, (method, address, answer.text)
    assert (await http.get(f"/v1/orders/{order_id}", headers=shop)).json()["state"] == "open"


async def test_a_store_reserves_and_orders_for_itself_only(
    db: Database, http: httpx.AsyncClient, net: Net, shop: dict[str, str], store: dict[str, str]
) -> None:
    for location in ("S1", "W1"):
        await set_stock(db, sku="A", location=location, quantity=3)
    assert (await http.post("/v1/reservations", json=cart(("A", 1), location="S1"), headers=store)).status_code == 201
    assert (await http.post("/v1/reservations", json=cart(("A", 1), location="W1"), headers=store)).status_code == 404
    assert (await http.post("/v1/orders", json=order("S-1", ("A", 1)), headers=store)).status_code == 400
    picked_up = await http.post("/v1/orders", json=order("S-2", ("A", 1), pickup_location="S1"), headers=store)
    assert (picked_up.status_code, picked_up.json()["fulfillments"][0]["location"]) == (201, "S1")
    assert (await http.get(f"/v1/orders/{picked_up.json()['id']}", headers=store)).status_code == 200
    sent = await http.post("/v1/orders", json=order("N1", ("A", 1)), headers=shop)
    assert (await http.get(f"/v1/orders/{sent.json()['id']}", headers=store)).status_code == 404


async def test_nearby_and_explain_speak_of_the_same_units(
    db: Database, http: httpx.AsyncClient, net: Net, shop: dict[str, str]
) -> None:
    await set_stock(db, sku="A", location="S1", quantity=3)
    near = await http.get("/v1/atp/A/nearby", params={"channel": "web", "postal_code": "10001"}, headers=shop)
    assert [(item["location"], item["available"]) for item in near.json()["items"]] == [("S1", 3)]
    explained = (await http.get("/v1/atp/A/explain", params={"channel": "web"}, headers=shop)).json()
    assert sum(step["units"] for step in explained["steps"]) == explained["atp"] == 3
    for at, status, atp in (
        ("2020-01-01T00:00:00Z", 200, 0),
        ("2999-01-01T00:00:00Z", 400, None),
        ("2020-01-01T00:00:00", 400, None),
    ):
        past = await http.get("/v1/atp/A/explain", params={"channel": "web", "at": at}, headers=shop)
        assert (past.status_code, past.json().get("atp")) == (status, atp)
    lost = await http.get("/v1/atp/A/nearby", params={"channel": "web", "lat": 1}, headers=shop)
    assert lost.status_code == 400


@pytest.mark.parametrize(
    ("address", "body", "field"),
    [
        ("/v1/reservations", cart(), "lines"),
        ("/v1/reservations", cart(("A", 0)), "quantity"),
        ("/v1/reservations", cart(("A", 1), ttl_seconds=0), "ttl_seconds"),
        ("/v1/reservations", cart(("A", 1), ttl=5), "ttl"),
        ("/v1/reservations", cart(("zz", 1)), "zz"),
        ("/v1/orders", order("N"), "lines"),
        ("/v1/orders", order("N", ("A", 1), split="no"), "split"),
        ("/v1/orders", order("N", ("A", 1), placed_at="2026-11-23T09:00:00"), "placed_at"),
        ("/v1/orders", order("N", ("A", 10**9)), "quantity"),
        ("/v1/atp", {"channel": "web", "skus": []}, "skus"),
    ],
)
async def test_what_cannot_be_read_is_refused_at_its_field(
    *,
    db: Database,
    http: httpx.AsyncClient,
    net: Net,
    shop: dict[str, str],
    address: str,
    body: dict[str, Any],
    field: str,
) -> None:
    answer = await http.post(address, json=body, headers=shop)
    assert answer.status_code == 400
    assert field in answer.text
    async with db.connection() as connection:
        assert await connection.fetchval("select count(*) from orders") == 0


async def test_a_shop_is_told_by_when_a_cart_can_be_there(db: Database, http: httpx.AsyncClient, net: Net) -> None:
    await set_stock(db, sku="A", location="S1", quantity=2)
    key = bearer(await make_key(db, "storefront", channel="web"))
    cart = {"channel": "web", "ship_to": {"postal_code": "10001"}, "lines": [{"sku": "A", "quantity": 2}]}
    said = await http.post("/v1/promise", json=cart, headers=key)
    assert (said.status_code, said.json()["whole"], said.json()["lines"][0]["parts"][0]["location"]) == (
        200,
        True,
        "S1",
    )
    assert (await http.post("/v1/promise", json=cart | {"channel": "local"}, headers=key)).status_code == 404
    nowhere = await http.post("/v1/promise", json=cart | {"ship_to": {"postal_code": "?"}}, headers=key)
    assert (nowhere.status_code, "postal_code" in nowhere.text) == (400, True)


async def test_an_order_is_amended_once_and_says_by_when_its_lines_are_there(
    db: Database, http: httpx.AsyncClient, net: Net, shop: dict[str, str], other: dict[str, str]
) -> None:
    await set_stock(db, sku="A", location="W1", quantity=5)
    made = (await http.post("/v1/orders", json=order("N1", ("A", 2)), headers=shop)).json()
    wish = {
        "lines": [{"line": "1", "quantity": 3}],
        "add": [{"line": "2", "sku": "B", "quantity": 1}],
        "reason": "asked",
    }
    path, key = f"/v1/orders/{made['id']}/amend", shop | {"Idempotency-Key": "k1"}
    amended = await http.post(path, json=wish, headers=key)
    again = await http.post(path, json=wish, headers=key)
    assert (amended.status_code, again.json()) == (200, amended.json())
    assert [(n["line"], n["open"]) for n in amended.json()["lines"]] == [("1", 3), ("2", 1)]
    assert [(n["line"], n["why"]) for n in amended.json()["promises"]] == [
        ("1", "in stock"), ("2", "not available, and not enough is expected"),
    ]  # fmt: skip
    assert (await http.post(path, json=wish | {"method": "air"}, headers=key)).status_code == 422
    both = await http.post(path, json={"lines": [{"line": "1", "quantity": 1, "cancel": True}]}, headers=shop)
    assert (both.status_code, both.json()["items"][0]["field"]) == (400, "lines[0]")
    assert (await http.post(path, json=wish, headers=other)).status_code == 404


async def test_an_amendment_of_what_is_at_the_store_is_refused_by_line(
    db: Database, http: httpx.AsyncClient, net: Net, shop: dict[str, str]
) -> None:
    await set_stock(db, sku="A", location="S1", quantity=5)
    made = (await http.post("/v1/orders", json=order("N1", ("A", 2), pickup_location="S1"), headers=shop)).json()
    refused = await http.post(
        f"/v1/orders/{made['id']}/amend", json={"lines": [{"line": "1", "cancel": True}]}, headers=shop
    )
    assert refused.status_code == 409
    assert refused.json()["items"] == [{"line": "1", "reason": "is released: S1 has 2 of it, released"}]


async def test_an_operator_sees_remedies_of_an_oversold_order_and_carries_one_out(
    db: Database, http: httpx.AsyncClient, net: Net, shop: dict[str, str]
) -> None:
    operator = bearer(await make_key(db, "operator", person="ann"))
    await set_stock(db, sku="A", location="S2", quantity=3)
    made = (await http.post("/v1/orders", json=order("N1", ("A", 2)), headers=shop)).json()
    [listed] = (await http.get("/v1/exceptions", headers=operator)).json()["items"]
    path = f"/v1/exceptions/{listed['id']}"
    [line] = (await http.get(path, headers=operator)).json()["remedies"]
    assert (line["line"], line["short"]) == ("1", 2)
    assert line["remedies"] == [
        {"kind": "other_pool", "quantity": 2, "pool": "local", "locations": ["S2"]}, {"kind": "cancel", "quantity": 2},
    ]  # fmt: skip
    for wrong, status in (({}, 400), ({"remedy": "wish"}, 400), ({"remedy": "incoming"}, 409)):
        assert (await http.post(f"{path}/resolve", json=wrong, headers=operator)).status_code == status
    body = {"remedy": {"kind": "other_pool", "pool": "local"}, "why": "the store has it"}
    done = await http.post(f"{path}/resolve", json=body, headers=operator)
    assert (done.status_code, done.json()["state"], done.json()["resolution"]) == (200, "resolved", "the store has it")
    assert (await http.post(f"{path}/resolve", json={"remedy": "cancel"}, headers=operator)).status_code == 409
    assert (await http.get(path, headers=operator)).json()["remedies"] == []
    assert (await http.get(f"/v1/orders/{made['id']}", headers=shop)).json()["state"] == "open"


async def test_holds_and_cancellations_say_what_they_came_to(
    db: Database, http: httpx.AsyncClient, net: Net, shop: dict[str, str]
) -> None:
    await set_stock(db, sku="A", location="S1", quantity=5)
    made = (await http.post("/v1/orders", json=order("N1", ("A", 2), ("B", 1)), headers=shop)).json()
    path = f"/v1/orders/{made['id']}"
    body = {"kind": "fraud", "reason": "three cards", "keeps_stock": False, "lines": ["1"]}
    held = (await http.post(f"{path}/hold", json=body, headers=shop)).json()
    assert [(h["kind"], h["why"], h["keeps_stock"], h["lines"]) for h in held["holds"]] == [
        ("fraud", "three cards", False, ["1"])
    ]
    assert (held["state"], held["lines"][0]["parked"]) == ("held", 2)
    both = (await http.post(f"{path}/hold", json={"reason": "payment"}, headers=shop)).json()
    assert [h["kind"] for h in both["holds"]] == ["fraud", "payment"]
    left = (await http.post(f"{path}/release", json={"kind": "payment"}, headers=shop)).json()
    assert [h["kind"] for h in left["holds"]] == ["fraud"]
    freed = (await http.post(f"{path}/release", headers=shop)).json()
    assert (freed["holds"], freed["state"]) == ([], "open")
    gone = (await http.post(f"{path}/cancel", json={"lines": ["2"], "reason": "late"}, headers=shop)).json()
    assert gone["cancellation"] == [
        {"line": "2", "part": 0, "cancelled": 1, "too_late": 0, "in_time": True, "recalled": []}
    ]
    for wrong in ({"kind": "whim"}, {"reason": "whim"}):
        assert (await http.post(f"{path}/hold", json=wrong, headers=shop)).status_code == 400


@pytest.mark.parametrize("act", ["amend", "hold", "release", "cancel"])
async def test_text_that_cannot_be_kept_is_refused(
    http: httpx.AsyncClient, net: Net, shop: dict[str, str], act: str
) -> None:
    made = (await http.post("/v1/orders", json=order("N1", ("A", 2)), headers=shop)).json()
    body: dict[str, Any] = {"reason": "a\u0000b"}
    if act == "amend":
        body["method"] = "express"
    if act == "hold":
        body["kind"] = "fraud"
    if act == "release":
        await http.post(f"/v1/orders/{made['id']}/hold", json={"kind": "fraud"}, headers=shop)
    assert (await http.post(f"/v1/orders/{made['id']}/{act}", json=body, headers=shop)).status_code == 400
