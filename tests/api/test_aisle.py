"""Endless aisle through its doors: found, reserved with a countdown, ordered, taken away or sent."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest

from oms import access
from oms.app import create_app
from oms.cache import Cache
from oms.db import Database
from oms.flows import reconcile
from oms.flows.fulfill.take_away import end_taken
from oms.flows.order.aisle import order_basket
from oms.settings import Settings
from oms.settle import close_all
from tests.balance import check_balance
from tests.world import Net, bearer, make_key, set_stock, small_network

CHICAGO = {"postal_code": "60601", "country": "US"}


@pytest.fixture
async def net(db: Database) -> AsyncIterator[Net]:
    yield await small_network(db)
    await check_balance(db)
    assert list((await reconcile.verify(db))[1]) == []


class Till:
    """Calls of one person's key."""

    def __init__(self, http: httpx.AsyncClient, key: str) -> None:
        self.http, self.headers = http, bearer(key)

    async def __call__(self, method: str, path: str, body: Any = None, *, ok: int = 0, **more: Any) -> Any:
        """The body of the answer, which has the status `ok`, or any good one."""
        headers = self.headers | {name: more.pop(name) for name in ("Idempotency-Key",) if name in more}
        answer = await self.http.request(method, f"/v1{path}", json=body, headers=headers, params=more or None)
        assert answer.status_code == ok if ok else answer.status_code < 300, (path, answer.status_code, answer.text)
        return answer.json() if answer.content else None

    async def reserve(self, *lines: dict[str, Any], ok: int = 201, **more: Any) -> Any:
        body = {"channel": "web", "ship_to": CHICAGO, "lines": list(lines)} | more
        return await self("POST", "/aisle/baskets", body, ok=ok)

    async def order(self, basket: Any, number: str = "T-1", *, ok: int = 201, **more: Any) -> Any:
        return await self("POST", "/aisle/orders", {"basket": basket["id"], "number": number} | more, ok=ok)


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
async def ann(db: Database, net: Net, http: httpx.AsyncClient) -> Till:
    return Till(http, await make_key(db, "associate", location="S1", person="ann"))


@pytest.fixture
async def bob(db: Database, net: Net, http: httpx.AsyncClient) -> Till:
    return Till(http, await make_key(db, "associate", location="S1", person="bob"))


def line(sku: str, quantity: int, method: str, **more: Any) -> dict[str, Any]:
    return {"sku": sku, "quantity": quantity, "method": method} | more


async def on_hand(db: Database, sku: str, location: str) -> tuple[int, int]:
    """On hand and allocated."""
    async with db.connection() as tx:
        row = await tx.fetchrow(
            "select s.on_hand, s.allocated from stock s join sku k using (sku_id) join location l using (location_id)"
            " where k.code = $1 and l.code = $2", sku, location,
        )  # fmt: skip
    return (row[0], row[1]) if row else (0, 0)


async def stock_everywhere(db: Database) -> None:
    await set_stock(db, sku="A", location="S1", quantity=3)
    await set_stock(db, sku="A", location="W1", quantity=2)
    await set_stock(db, sku="B", location="W1", quantity=4)


async def test_a_customer_takes_one_along_has_one_sent_and_picks_one_up(db: Database, ann: Till) -> None:
    await stock_everywhere(db)
    basket = await ann.reserve(
        line("A", 1, "take_away"), line("B", 2, "ship", price=900), line("A", 1, "pickup", location="W1"),
        ttl_seconds=300, why="customer 17",
    )  # fmt: skip
    assert (basket["state"], basket["location"], basket["who"], basket["amount"]) == ("reserved", "S1", "ann", 3800)
    assert 295 <= basket["seconds_left"] <= 300
    assert [(n["line"], n["method"], n["location"], n["amount"]) for n in basket["lines"]] == [
        ("1", "take_away", "S1", 1000), ("2", "ship", None, 1800), ("3", "pickup", "W1", 1000),
    ]  # fmt: skip
    assert all(n["when"] for n in basket["lines"])
    assert await on_hand(db, "A", "S1") == (3, 1)

    placed = await ann.order(basket, why="paid by card")
    assert [(o["number"], o["state"], o["method"]) for o in placed["orders"]] == [
        ("T-1:take_away", "shipped", "take_away"), ("T-1:ship", "open", "standard"),
        ("T-1:pickup:W1", "allocated", "pickup"),
    ]  # fmt: skip
    assert [f["state"] for o in placed["orders"] for f in o["fulfillments"]] == ["handed_over", "released"]
    assert [(s["line"], s["sku"], s["quantity"]) for s in placed["take_away"]] == [("1", "A", 1)]
    assert await on_hand(db, "A", "S1") == (2, 0)
    assert await on_hand(db, "A", "W1") == (2, 1)
    shown = await ann("GET", f"/aisle/baskets/{basket['id']}")
    assert (shown["state"], shown["number"], shown["seconds_left"]) == ("ordered", "T-1", 0)
    assert shown["orders"] == [o["id"] for o in placed["orders"]]


async def test_history_names_the_associate_and_why(db: Database, ann: Till) -> None:
    await stock_everywhere(db)
    basket = await ann.reserve(line("A", 1, "take_away"))
    placed = await ann.order(basket, why="paid by card")
    (order,) = placed["orders"]
    steps = (await ann("GET", f"/orders/{order['id']}/history"))["items"]
    assert [(s["step"], s["who"]) for s in steps] == [
        ("captured", "ann"), ("released", "ann"), ("endless_aisle", "ann"), ("handed_over", "ann"),
    ]  # fmt: skip
    (told,) = [s for s in steps if s["step"] == "endless_aisle"]
    assert (told["why"], told["detail"]["associate"], told["detail"]["location"]) == ("paid by card", "ann", "S1")
    async with db.connection() as tx:
        kept = await tx.fetch("select step, who from history where kind = 'basket' order by history_id")
    assert [tuple(row) for row in kept] == [("reserved", "ann"), ("ordered", "ann")]


async def test_two_associates_cannot_sell_the_last_unit(db: Database, ann: Till, bob: Till) -> None:
    await set_stock(db, sku="A", location="S1", quantity=1)
    body = {"channel": "web", "ship_to": CHICAGO}
    tries = [
        till.http.post("/v1/aisle/baskets", json=body | {"lines": [line("A", 1, method)]}, headers=till.headers)
        for till, method in ((ann, "take_away"), (bob, "ship"), (ann, "ship"), (bob, "take_away"))
    ]
    answers = await asyncio.gather(*tries)
    assert sorted(a.status_code for a in answers) == [201, 409, 409, 409]


async def test_a_basket_is_reserved_whole_or_not_at_all_and_the_no_says_what_helps(db: Database, ann: Till) -> None:
    await stock_everywhere(db)
    no = await ann.reserve(line("B", 4, "ship"), line("A", 4, "take_away"), ok=409)
    assert no["type"].endswith("/out-of-stock")
    assert [(i["sku"], i["method"], i["location"], i["quantity"], i["atp"]) for i in no["items"]] == [
        ("A", "take_away", "S1", 4, 3)
    ]
    assert no["items"][0]["remedy"] == "S1 may give 3: have the rest sent, or picked up elsewhere"
    assert await on_hand(db, "A", "S1") == (3, 0)
    await ann.reserve(line("B", 4, "ship"), line("A", 3, "take_away"))
    gone = await ann.reserve(line("B", 1, "ship"), line("A", 1, "take_away"), ok=409)
    assert [i["sku"] for i in gone["items"]] == ["A", "B"]


async def test_a_line_that_the_channel_cannot_give_there_is_told_whatever_else_is_in_the_basket(
    db: Database, ann: Till
) -> None:
    await stock_everywhere(db)
    no = await ann.reserve(
        line("A", 1, "take_away"), line("B", 1, "ship"), line("A", 1, "pickup", location="S2"), ok=409
    )
    assert no["detail"] == "location S2 is not in the pool that channel web sells from"
    assert await on_hand(db, "A", "S1") == (3, 0)


async def test_a_basket_that_is_refused_leaves_its_units_to_the_next_of_the_same_moment(
    db: Database, ann: Till, bob: Till
) -> None:
    await set_stock(db, sku="A", location="S1", quantity=2)
    carts = [[line("A", 2, "take_away"), line("B", 1, "ship")], [line("A", 2, "take_away")]] * 5
    body = {"channel": "web", "ship_to": CHICAGO}
    answers = await asyncio.gather(
        *(ann.http.post("/v1/aisle/baskets", json=body | {"lines": lines}, headers=ann.headers) for lines in carts)
    )
    assert sorted(a.status_code for a in answers) == [201] + [409] * 9
    assert await on_hand(db, "A", "S1") == (2, 2)


async def test_the_tills_own_message_about_what_was_taken_away_is_an_echo(
    db: Database, net: Net, http: httpx.AsyncClient, ann: Till
) -> None:
    await stock_everywhere(db)
    placed = await ann.order(await ann.reserve(line("A", 2, "take_away")))
    assert await on_hand(db, "A", "S1") == (1, 0)
    pos = Till(http, await make_key(db, "integrator", source="pos"))
    sale = {
        "id": "till-9", "sku": "A", "location": "S1", "kind": "sale", "quantity": 2,
        "occurred_at": datetime.now(UTC).isoformat(), "reference": placed["take_away"][0]["reference"],
    }  # fmt: skip
    assert [r["outcome"] for r in await pos("POST", "/feeds/pos/movements", [sale])] == ["acknowledged"]
    assert await on_hand(db, "A", "S1") == (1, 0)
    walk_in = sale | {"id": "till-10", "quantity": 1, "reference": None}
    assert [r["outcome"] for r in await pos("POST", "/feeds/pos/movements", [walk_in])] == ["applied"]
    assert await on_hand(db, "A", "S1") == (0, 0)


async def test_an_order_is_placed_once_by_its_number_and_by_its_key(db: Database, ann: Till) -> None:
    await stock_everywhere(db)
    basket = await ann.reserve(line("A", 1, "take_away"), line("B", 1, "ship"))
    body = {"basket": basket["id"], "number": "T-1"}
    answers = await asyncio.gather(
        *(ann.http.post("/v1/aisle/orders", json=body, headers=ann.headers) for _ in range(4))
    )
    assert sorted(a.status_code for a in answers) == [200, 200, 200, 201]
    assert len({str([o["id"] for o in a.json()["orders"]]) for a in answers}) == 1
    keyed = [await ann("POST", "/aisle/orders", body, **{"Idempotency-Key": "k1"}) for _ in range(2)]
    assert keyed[0] == keyed[1]
    assert await on_hand(db, "A", "S1") == (2, 0)
    assert "T-1" in (await ann.order(basket, "T-2", ok=409))["detail"]
    other = await ann.reserve(line("A", 1, "take_away"))
    assert "another basket" in (await ann.order(other, "T-1", ok=409))["detail"]
    assert (await ann("GET", f"/aisle/baskets/{other['id']}"))["state"] == "reserved"


async def test_a_number_that_a_shop_used_is_not_used_again(db: Database, http: httpx.AsyncClient, ann: Till) -> None:
    await stock_everywhere(db)
    shop = Till(http, await make_key(db, "storefront", channel="web"))
    order = {
        "channel": "web", "number": "T-1:ship", "placed_at": "2026-11-23T09:00:00Z", "method": "ground",
        "ship_to": CHICAGO, "lines": [{"line": "1", "sku": "B", "quantity": 1}],
    }  # fmt: skip
    await shop("POST", "/orders", order)
    basket = await ann.reserve(line("A", 1, "take_away"), line("B", 1, "ship"))
    assert "T-1:ship" in (await ann.order(basket, ok=409))["detail"]
    assert await on_hand(db, "A", "S1") == (3, 1)
    await ann.order(basket, "T-2")


async def end_countdown(db: Database) -> None:
    async with db.transaction() as tx:
        await tx.execute(
            "update reservation set expires_at = clock_timestamp() - interval '1 second' where state = 'live'"
        )


async def test_when_the_countdown_has_ended_nothing_is_ordered_and_the_units_are_others(
    db: Database, ann: Till, bob: Till
) -> None:
    await stock_everywhere(db)
    basket = await ann.reserve(line("A", 3, "take_away"), line("B", 1, "ship"), ttl_seconds=60)
    await end_countdown(db)
    shown = await ann("GET", f"/aisle/baskets/{basket['id']}")
    assert (shown["state"], shown["seconds_left"]) == ("expired", 0)
    for _ in range(2):
        assert "countdown has ended" in (await ann.order(basket, ok=409))["detail"]
        assert (
            "countdown has ended" in (await ann("POST", f"/aisle/baskets/{basket['id']}/extend", {}, ok=409))["detail"]
        )
        await bob.reserve(line("A", 1, "take_away"))
    async with db.connection() as tx:
        assert await tx.fetchval("select count(*) from orders") == 0


async def test_a_countdown_is_extended_and_a_basket_released(db: Database, ann: Till, bob: Till) -> None:
    await stock_everywhere(db)
    basket = await ann.reserve(line("A", 3, "take_away"), line("B", 4, "ship"), ttl_seconds=60)
    address = f"/aisle/baskets/{basket['id']}"
    longer = await bob("POST", f"{address}/extend", {"ttl_seconds": 600})
    assert 590 <= longer["seconds_left"] <= 600
    await bob.reserve(line("A", 1, "take_away"), ok=409)
    await bob("DELETE", address, why="left the store", ok=204)
    await bob("DELETE", address, ok=204)
    assert (await ann("GET", address))["state"] == "released"
    await ann.order(basket, ok=409)
    await bob.reserve(line("A", 3, "take_away"), line("B", 4, "ship"))


async def test_a_store_that_has_no_capacity_left_still_sells_what_lies_there(db: Database, net: Net, ann: Till) -> None:
    await stock_everywhere(db)
    async with db.transaction() as tx:
        await tx.execute("update location set capacity_orders = 0 where code = 'S1'")
    await ann.order(await ann.reserve(line("A", 1, "take_away")))
    assert await on_hand(db, "A", "S1") == (2, 0)
    async with db.connection() as tx:
        assert await tx.fetchval("select sum(orders) from capacity") == 1


async def test_a_system_that_runs_the_store_is_not_asked_to_pick_what_is_gone(
    db: Database, net: Net, ann: Till
) -> None:
    await stock_everywhere(db)
    async with db.transaction() as tx:
        await tx.execute(
            """insert into fulfiller (location_id, kind, settings) values ($1, 'file', '{"folder": "/tmp"}')""",
            net.locations["S1"],
        )
    await ann.order(await ann.reserve(line("A", 1, "take_away")))
    async with db.connection() as tx:
        assert await tx.fetchval("select state from handoff") == "dropped"


async def test_what_a_cut_off_call_left_on_the_shelf_leaves_soon(db: Database, net: Net, ann: Till) -> None:
    await stock_everywhere(db)
    basket = await ann.reserve(line("A", 1, "take_away"))
    sam = access.Actor(
        key_id=None, role="associate", person="sam", who="sam", location_id=net.locations["S1"], channel_ids=frozenset()
    )
    now = datetime.now(UTC)
    await order_basket(db, basket_id=UUID(basket["id"]), number="T-1", why=None, placed_at=now, now=now, actor=sam)
    assert await on_hand(db, "A", "S1") == (3, 1)
    assert await end_taken(db, now=now) == 0
    assert await end_taken(db, now=now + timedelta(minutes=2)) == 1
    assert await on_hand(db, "A", "S1") == (2, 0)
    assert await end_taken(db, now=now + timedelta(minutes=2)) == 0
    again = await ann.order(basket, ok=200)
    assert ([s["quantity"] for s in again["take_away"]], again["associate"]) == ([1], "sam")
    assert await on_hand(db, "A", "S1") == (2, 0)


async def test_another_stores_baskets_and_channels_are_not_there(
    db: Database, http: httpx.AsyncClient, ann: Till
) -> None:
    await stock_everywhere(db)
    eve = Till(http, await make_key(db, "associate", location="S2", person="eve"))
    basket = await ann.reserve(line("A", 1, "take_away"))
    address = f"/aisle/baskets/{basket['id']}"
    await eve("GET", address, ok=404)
    await eve("POST", f"{address}/extend", {}, ok=404)
    await eve("DELETE", address, ok=404)
    await eve.order(basket, ok=404)
    await eve.reserve(line("A", 1, "take_away"), ok=404)
    await eve.reserve(line("A", 1, "take_away"), channel="local", location="S1", ok=404)
    await eve("GET", "/aisle/search", q="A", location="S1", ok=404)
    await eve("GET", "/aisle/search", q="A", channel="web", ok=404)
    assert (await eve("GET", "/aisle/search", q="A"))["channel"] == "local"
    assert (await ann("GET", address))["state"] == "reserved"


async def test_an_operator_works_at_any_store_that_they_name_and_others_at_none(
    db: Database, http: httpx.AsyncClient, ann: Till
) -> None:
    await stock_everywhere(db)
    olga = Till(http, await make_key(db, "operator", person="olga"))
    await olga("GET", "/aisle/search", q="A", ok=400)
    assert (await olga("GET", "/aisle/search", q="A", location="W1"))["items"][0]["here"]["available"] == 2
    basket = await olga.reserve(line("A", 1, "take_away"), location="S1")
    assert (await olga.order(basket))["associate"] == "olga"
    for role, bound in (("storefront", {"channel": "web"}), ("planner", {}), ("integrator", {"source": "pos"})):
        other = Till(http, await make_key(db, role, **bound))
        await other("GET", "/aisle/search", q="A", ok=403)
        await other.reserve(line("A", 1, "ship"), ok=403)
        await other.order(basket, ok=403)


@pytest.mark.parametrize(
    ("lines", "more", "field"),
    [
        ([line("zz", 1, "ship")], {}, "lines[0].sku"),
        ([line("A", 1, "pickup")], {}, "lines[0].location"),
        ([line("A", 1, "pickup", location="zz")], {}, "lines[0].location"),
        ([line("A", 1, "ship", location="W1")], {}, "lines[0].location"),
        ([line("A", 1, "take_away", location="W1")], {}, "lines[0].location"),
        ([line("A", 1, "ship")], {"ship_to": None}, "ship_to"),
        ([line("A", 1, "ship")], {"ship_to": {"postal_code": "?"}}, "postal_code"),
        ([line("A", 1, "ship", line="1"), line("B", 1, "ship", line="1")], {}, "lines[1].line"),
        ([line("A", 0, "ship")], {}, "quantity"),
        ([line("A", 1, "mail")], {}, "method"),
        ([], {}, "lines"),
        ([line("A", 1, "ship")], {"ttl_seconds": 0}, "ttl_seconds"),
        ([line("A", 1, "ship")], {"channel": None}, "channel"),
    ],
)
async def test_what_cannot_be_reserved_is_refused_at_its_field(
    db: Database, ann: Till, lines: list[dict[str, Any]], more: dict[str, Any], field: str
) -> None:
    answer = await ann.reserve(*lines, ok=400, **more)
    assert field in str(answer)


async def test_a_kit_is_taken_away_as_its_parts(db: Database, net: Net, ann: Till) -> None:
    await stock_everywhere(db)
    await set_stock(db, sku="B", location="S1", quantity=2)
    async with db.transaction() as tx:
        await tx.execute("update sku set is_kit = true where code = 'D'")
        await tx.execute("insert into kit values ($1, $2, 2), ($1, $3, 1)", net.skus["D"], net.skus["A"], net.skus["B"])
    placed = await ann.order(await ann.reserve(line("D", 1, "take_away")))
    assert [(s["sku"], s["quantity"]) for s in placed["take_away"]] == [("A", 2), ("B", 1)]
    assert (await on_hand(db, "A", "S1"), await on_hand(db, "B", "S1")) == ((1, 0), (1, 0))
