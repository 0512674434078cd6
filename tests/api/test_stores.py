"""A store's day over the API: each role does its part and no other's; what is another store's is not there."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import httpx
import pytest

from oms.app import create_app
from oms.cache import Cache
from oms.db import Database
from oms.flows.stock import writeoff
from oms.settings import Settings
from tests.demand import allocated
from tests.feeding import NOW, ask, change, check, on_hand, stock
from tests.world import Net, bearer, make_key, set_stock, small_network


@pytest.fixture
async def net(db: Database) -> AsyncIterator[Net]:
    net = await small_network(db)
    await change(db, "insert into sku_barcode values ('036000291452', $1)", net.skus["A"])
    yield net
    await check(db)


@pytest.fixture
async def http(db: Database, cache: Cache) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_app(settings=Settings(), db=db, cache=cache))  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://oms.test") as client:
        yield client


class Caller:
    """A person with a key and a device."""

    def __init__(self, http: httpx.AsyncClient, key: str) -> None:
        self.http, self.headers = http, {**bearer(key), "Device": "phone 7"}

    async def __call__(self, method: str, path: str, body: Any = None, *, key: str | None = None, ok: int = 0) -> Any:
        """The body of the answer; it must have the status `ok` (any good one where none is given)."""
        headers = {**self.headers, **({"Idempotency-Key": key} if key else {})}
        answer = await self.http.request(method, f"/v1{path}", json=body, headers=headers)
        assert answer.status_code == ok if ok else answer.status_code < 300, (path, answer.status_code, answer.text)
        return answer.json()


async def test_a_store_receives_fulfills_counts_and_writes_off(db: Database, net: Net, http: httpx.AsyncClient) -> None:
    ann = Caller(http, await make_key(db, "associate", location="S1", person="ann"))
    boss = Caller(http, await make_key(db, "approver", location="S1", person="boss"))
    admin = Caller(http, await make_key(db, "admin", person="root"))
    body = {"reference": "PO1", "lines": [{"code": "(01)00036000291452", "quantity": 20, "damaged": 1}], "final": True}
    first = await ann("POST", "/receipts", body, key="r1")
    assert await ann("POST", "/receipts", body, key="r1") == first
    assert (await on_hand(db, "A", "S1"), await stock(db, "A", "S1", "held")) == (20, 20)
    for hold in (await ann("GET", "/holds"))["items"]:
        if hold["code"] == "until_released":
            await ann("POST", f"/holds/{hold['id']}/release", {"why": "on the shelf"})
    works = [await allocated(db, net, f"N{n}", ("A", 2, "S1")) for n in range(2)]
    assert [w["number"] for w in (await ann("GET", "/work"))["items"]] == ["N0", "N1"]
    await admin("PUT", "/locations/S1/work-rules", {"write_off_cents_max": 700})
    round = await ann("POST", "/pick-lists", {"limit": 5})
    assert [s["quantity"] for s in round["stops"]] == [4]
    one = f"/fulfillments/{works[0].fulfillment}"
    await ann("POST", f"{one}/scans", {"step": "pick", "code": "B"}, ok=409)
    await ann("POST", f"{one}/scans", {"step": "pick", "code": "036000291452", "quantity": 2})
    await ann("POST", f"{one}/pick")
    await ann("PUT", f"{one}/parcels/1", {"carrier": "ups", "tracking": "1Z", "lines": [{"line": "1", "quantity": 2}]})
    for step in ("pack", "ship"):
        await ann("POST", f"{one}/{step}")
    said = await ann("GET", f"{one}/parcels")
    assert (said["parcels"][0]["tracking"], said["tasks"][0]["mispicks"], said["tasks"][0]["device"]) == (
        "1Z",
        1,
        "phone 7",
    )
    two = f"/fulfillments/{works[1].fulfillment}"
    short = await ann("POST", f"{two}/pick", {"missing": [{"line": "1", "quantity": 1, "reason": "not found"}]})
    assert short["state"] == "picked"
    count = await ann("POST", "/counts", {"kind": "cycle", "skus": ["A"]})
    assert count["lines"] == [{"sku": "A", "state": "due"}]
    lines = {"lines": [{"code": "036000291452", "quantity": 16, "reason": "theft"}]}
    (verdict,) = await ann("POST", f"/counts/{count['count']['id']}/lines", lines)
    assert (verdict["variance"], verdict["state"]) == (-1, "applied")
    gone = {"lines": [{"code": "A", "quantity": 1, "reason": "broken"}]}
    asked = await ann("POST", "/write-offs", gone, key="w1")
    assert asked["state"] == "waiting"
    await ann("POST", f"/write-offs/{asked['id']}/approve", ok=403)
    assert (await boss("POST", f"/write-offs/{asked['id']}/approve"))["state"] == "applied"
    assert await on_hand(db, "A", "S1") == 16


async def test_a_shop_announces_a_return_of_its_order_and_a_store_takes_it_in(
    db: Database, net: Net, http: httpx.AsyncClient
) -> None:
    await set_stock(db, sku="A", location="W1", quantity=5)
    work = await allocated(db, net, "N1", ("A", 2, "W1"))
    operator = Caller(http, await make_key(db, "operator", person="op"))
    for step in ("accept", "pick", "pack", "ship"):
        await operator("POST", f"/fulfillments/{work.fulfillment}/{step}")
    shop = Caller(http, await make_key(db, "storefront", channel="web"))
    other = Caller(http, await make_key(db, "storefront", channel="local"))
    eve = Caller(http, await make_key(db, "associate", location="S2", person="eve"))
    body = {
        "channel": "web",
        "number": "N1",
        "location": "S2",
        "lines": [{"line": "1", "quantity": 2, "reason": "too big"}],
    }
    await other("POST", "/returns", body, ok=404)
    made = await shop("POST", "/returns", body)
    await other("GET", f"/returns/{made['id']}", ok=404)
    await shop("POST", f"/returns/{made['id']}/receive", ok=403)
    await eve("POST", f"/returns/{made['id']}/receive")
    found = {
        "lines": [
            {"number": 1, "quantity": 1, "condition": "new"},
            {"number": 1, "quantity": 1, "condition": "damaged"},
        ]
    }
    done = await eve("POST", f"/returns/{made['id']}/inspect", found)
    assert (done["state"], [i["outcome"] for i in done["inspections"]]) == ("done", ["stock", "write_off"])
    assert await writeoff.settle_asked(db, now=NOW) == 1
    assert (await on_hand(db, "A", "S2"), await stock(db, "A", "S2", "held")) == (1, 0)
    assert await ask(db, "select count(*) from notice where kind = 'refund_due'") == 1


async def test_what_is_another_stores_answers_as_if_it_were_not_there(
    db: Database, net: Net, http: httpx.AsyncClient
) -> None:
    await set_stock(db, sku="A", location="S1", quantity=9)
    work = await allocated(db, net, "N1", ("A", 1, "S1"))
    ann = Caller(http, await make_key(db, "associate", location="S1", person="ann"))
    eve = Caller(http, await make_key(db, "associate", location="S2", person="eve"))
    count = (await ann("POST", "/counts", {"kind": "full"}))["count"]["id"]
    pick = (await ann("POST", "/pick-lists", {}))["id"]
    loss = (await ann("POST", "/write-offs", {"lines": [{"code": "A", "quantity": 1, "reason": "x"}]}))["id"]
    lines = [{"code": "A", "quantity": 1}]
    transfer = (await ann("POST", "/transfers", {"from_location": "S1", "to_location": "W1", "lines": lines}))["id"]
    back = (await ann("POST", "/returns", {"lines": [{"code": "A", "quantity": 1, "reason": "x"}]}))["id"]
    why, nobody = {"why": "x"}, str(uuid4())
    for method, path, body in (
        ("GET", "/fulfillments/{}/parcels", None), ("POST", "/fulfillments/{}/give-back", None),
        ("POST", "/fulfillments/{}/scans", {"step": "pick", "code": "A"}), ("PUT", "/fulfillments/{}/parcels/1", {}),
        ("POST", "/fulfillments/{}/reject", {"whole": "x"}), ("POST", "/fulfillments/{}/pick", None),
    ):  # fmt: skip
        for thing in (str(work.fulfillment), nobody):
            await eve(method, path.format(thing), body, ok=404)
    for method, path, body in (
        ("GET", f"/counts/{count}", None), ("POST", f"/counts/{count}/close", None),
        ("POST", f"/counts/{count}/lines", {"lines": lines}), ("GET", f"/pick-lists/{pick}", None),
        ("POST", f"/pick-lists/{pick}/give-back", None), ("GET", f"/transfers/{transfer}", None),
        ("POST", f"/transfers/{transfer}/send", None), ("POST", f"/transfers/{transfer}/cancel", why),
        ("GET", f"/returns/{back}", None), ("POST", f"/collections/{work.fulfillment}/not-collected", why),
        ("POST", "/receipts", {"location": "S1", "lines": lines}), ("POST", "/counts", {"kind": "full", "location": "S1"}),
        ("POST", "/transfers", {"from_location": "S1", "to_location": "W1", "lines": lines}),
        ("GET", "/locations/S1/work-rules", None),
    ):  # fmt: skip
        await eve(method, path, body, ok=404)
    for path in ("/counts", "/work", "/transfers", "/write-offs", "/receipts", "/returns", "/collections"):
        shown = await eve("GET", path)
        assert (shown if isinstance(shown, list) else shown["items"]) == [], path
    other = Caller(http, await make_key(db, "approver", location="S2", person="z"))
    await other("POST", f"/write-offs/{loss}/approve", ok=404)
