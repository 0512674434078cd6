"""A day of a retailer, through the API and the command line, with a key for each person and program."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from oms.app import create_app
from oms.cache import Cache
from oms.cli import main
from oms.db import Database
from oms.settings import Settings

DAY = datetime.now(UTC).replace(microsecond=0)
NETWORK: dict[str, list[dict[str, Any]]] = {
    "locations": [
        {"code": "W1", "kind": "warehouse", "lat": 41.88, "lon": -87.63, "postal_code": "60601", "time_zone": "America/Chicago"},
        {"code": "S1", "kind": "store", "lat": 40.75, "lon": -73.99, "postal_code": "10001", "time_zone": "America/New_York"},
        {"code": "S2", "kind": "store", "lat": 42.36, "lon": -71.06, "postal_code": "02108", "time_zone": "America/New_York"},
    ],
    "pools": [{"code": "all", "locations": ["W1", "S1", "S2"]}, {"code": "stores", "locations": ["S1", "S2"]}],
    "channels": [{"code": "web", "pool": "all"}, {"code": "tills", "pool": "stores"}],
    "sources": [
        {"code": "erp", "kind": "erp", "additions": {"receipt": "put_away"},
         "owns": [{"facts": ["quantity"], "locations": ["W1", "S1", "S2"]}]},
        {"code": "pos", "kind": "pos", "owns": [{"facts": ["sale", "return"], "locations": ["S1", "S2"]}]},
    ],
    "skus": [{"code": code, "price_cents": 2000, "value_cents": 900, "weight_grams": 300} for code in ("MUG", "LAMP")],
    "incoming": [{"source": "erp", "reference": "PO-1", "sku": "LAMP", "location": "W1", "kind": "purchase", "quantity": 10,
                  "due_on": DAY.date().isoformat()}],
}  # fmt: skip
PEOPLE = {
    "shop": ("storefront", "--channel", "web"), "erp": ("integrator", "--source", "erp"),
    "pos": ("integrator", "--source", "pos"), "sam": ("associate", "--location", "S1", "--person", "sam"),
    "eve": ("associate", "--location", "S2", "--person", "eve"), "wim": ("associate", "--location", "W1", "--person", "wim"),
    "pia": ("planner", "--person", "pia"), "olga": ("operator", "--person", "olga"),
    "boss": ("approver", "--location", "S1", "--person", "boss"), "ada": ("admin", "--person", "ada"),
}  # fmt: skip
NEW_YORK = {"postal_code": "10001", "country": "US", "lat": 40.75, "lon": -73.99}


class Day:
    """The service, the command line, and who calls with which key."""

    def __init__(self, http: httpx.AsyncClient, settings: Settings, folder: Path) -> None:
        self.http, self.settings, self.folder = http, settings, folder
        self.keys: dict[str, str] = {}

    async def oms(self, *words: str | Path, code: int = 0) -> str:
        """What a command says; it ends with this code."""
        told = {
            "OMS_DATABASE_URL": self.settings.database_url, "OMS_REDIS_URL": self.settings.redis_url,
            "OMS_HOME": str(self.folder),
        }  # fmt: skip
        done = await asyncio.to_thread(CliRunner().invoke, main, [str(w) for w in words], env=told)
        assert done.exit_code == code, (words, done.exit_code, done.output, done.exception)
        return done.output

    def file(self, name: str, content: str) -> Path:
        path = self.folder / name
        path.write_text(content)
        return path

    async def call(self, who: str, method: str, path: str, body: Any = None, *, ok: int = 0, **given: Any) -> Any:
        """The body of the answer; it must have the status `ok`, or any good one."""
        headers = {"Authorization": f"Bearer {self.keys[who]}", "Device": f"{who}'s phone"}
        answer = await self.http.request(method, f"/v1{path}", json=body, headers=headers, params=given or None)
        said = (who, method, path, answer.status_code, answer.text)
        assert answer.status_code == ok if ok else answer.status_code < 300, said
        return answer.json() if answer.content else None

    async def atp(self, sku: str) -> int:
        """What the shop may sell."""
        answer = await self.call("shop", "GET", "/atp", channel="web", sku=sku)
        return int(answer["items"][0]["atp"])

    async def order(self, who: str, number: str, *lines: tuple[str, int], channel: str = "web", **more: Any) -> Any:
        """An order, captured."""
        body = {
            "channel": channel, "number": number, "placed_at": DAY.isoformat(), "ship_to": NEW_YORK, "method": "ground",
            "lines": [{"line": str(k), "sku": sku, "quantity": n, "price": 2000} for k, (sku, n) in enumerate(lines, start=1)],
        } | more  # fmt: skip
        return await self.call(who, "POST", "/orders", body)

    async def work_of(self, order: Any) -> list[Any]:
        """Who is to fulfill an order now."""
        shown = await self.call("shop", "GET", f"/orders/{order['id']}")
        return [f for f in shown["fulfillments"] if f["state"] not in ("rejected", "recalled")]

    def worker(self, location: str) -> str:
        return {"W1": "wim", "S1": "sam", "S2": "eve"}[location]


@pytest.fixture
async def day(settings: Settings, db: Database, cache: Cache, tmp_path: Path) -> AsyncIterator[Day]:
    """The network loaded, keys made, and the stock of last night."""
    transport = httpx.ASGITransport(create_app(settings=settings, db=db, cache=cache))  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://oms.test") as http:
        made = Day(http, settings, tmp_path)
        for kind, rows in NETWORK.items():
            await made.oms("load", kind, made.file(f"{kind}.json", json.dumps(rows)))
        for name, (role, *bound) in PEOPLE.items():
            made.keys[name] = (await made.oms("key", "create", "--role", role, *bound)).split()[-1]
        yield made


async def test_a_day_from_the_purchase_order_to_the_count(day: Day) -> None:
    await morning(day)
    await a_purchase_order_is_received_and_put_away(day)
    await a_web_order_is_fulfilled(day)
    await a_pick_up_is_handed_over(day)
    await the_aisle_is_endless(day)
    await a_rejection_goes_elsewhere(day)
    returned = await a_recall_comes_in_time_and_a_return_is_inspected(day)
    await a_count_is_written_off_by_two(day)
    await the_evening(day, returned)


async def morning(day: Day) -> None:
    """The ERP's snapshot of the night; a sale of the first hour."""
    rows = "sku,location,quantity\nMUG,W1,20\nMUG,S1,6\nMUG,S2,4\nLAMP,W1,0\nLAMP,S1,0\nLAMP,S2,2\n"
    await day.oms("baseline", "erp", day.file("night.csv", rows), "--as-of", (DAY - timedelta(hours=2)).isoformat())
    sold = [
        {"id": "till-1", "sku": "MUG", "location": "S1", "kind": "sale", "quantity": 1, "occurred_at": DAY.isoformat()}
    ]
    for expected in ("applied", "duplicate"):
        (told,) = await day.call("pos", "POST", "/feeds/pos/movements", sold)
        assert told["outcome"] == expected
    await day.call("erp", "POST", "/feeds/pos/movements", sold, ok=404)
    assert (await day.atp("MUG"), await day.atp("LAMP")) == (29, 2)


async def a_purchase_order_is_received_and_put_away(day: Day) -> None:
    """Ten are expected, nine come, one of them damaged; the others are sold when they are on their shelf."""
    body = {"reference": "PO-1", "lines": [{"code": "LAMP", "quantity": 9, "damaged": 1}], "final": True}
    await day.call("shop", "POST", "/receipts", body, ok=403)
    received = await day.call("wim", "POST", "/receipts", body)
    assert (received["lines"][0]["hold"], received["missing"]) == ("until_put_away", {"LAMP": 1})
    assert await day.atp("LAMP") == 2
    holds = (await day.call("wim", "GET", "/holds"))["items"]
    (waiting,) = [h for h in holds if h["code"] == "until_put_away"]
    await day.call("sam", "POST", f"/holds/{waiting['id']}/release", {"why": "not mine"}, ok=404)
    await day.call("wim", "POST", f"/holds/{waiting['id']}/release", {"why": "on its shelf"})
    assert await day.atp("LAMP") == 10
    kinds = {e["kind"] for e in (await day.call("olga", "GET", "/exceptions"))["items"]}
    assert "receipt_differs" in kinds


async def fulfill(day: Day, work: Any, *, steps: tuple[str, ...] = ("accept", "pick", "pack", "ship")) -> None:
    for step in steps:
        await day.call(day.worker(work["location"]), "POST", f"/fulfillments/{work['id']}/{step}")


async def a_web_order_is_fulfilled(day: Day) -> None:
    """A cart is reserved and ordered; a run gives it to a location, whose people scan, pack and ship it."""
    cart = {"channel": "web", "lines": [{"sku": "MUG", "quantity": 2}]}
    held = await day.call("shop", "POST", "/reservations", cart)
    order = await day.order("shop", "WEB-1", ("MUG", 2), reservation=held["id"])
    await day.call("pia", "POST", "/runs", {"dry_run": True, "seconds": 1})
    await day.oms("broker", "--seconds", "1")
    (work,) = await day.work_of(order)
    who = day.worker(work["location"])
    other = "eve" if who != "eve" else "sam"
    await day.call(other, "POST", f"/fulfillments/{work['id']}/accept", ok=404)
    await day.call("pia", "POST", f"/fulfillments/{work['id']}/accept", ok=403)
    assert [w["number"] for w in (await day.call(who, "GET", "/work"))["items"]] == ["WEB-1"]
    round = await day.call(who, "POST", "/pick-lists", {"limit": 5})
    assert [(s["sku"], s["quantity"]) for s in round["stops"]] == [("MUG", 2)]
    one = f"/fulfillments/{work['id']}"
    await day.call(who, "POST", f"{one}/scans", {"step": "pick", "code": "LAMP"}, ok=409)
    await day.call(who, "POST", f"{one}/scans", {"step": "pick", "code": "MUG", "quantity": 2})
    await day.call(who, "POST", f"{one}/pick")
    await day.call(who, "PUT", f"{one}/parcels/1", {"carrier": "ups", "tracking": "1Z"})
    for step in ("pack", "ship", "ship"):
        await day.call(who, "POST", f"{one}/{step}")
    assert (await day.call("shop", "GET", f"/orders/{order['id']}"))["state"] == "shipped"
    history = await day.call("shop", "GET", f"/orders/{order['id']}/history")
    assert {"captured", "allocated", "picked", "shipped"} <= {s["step"] for s in history["items"]}
    assert any(s["who"] == who and s["step"] == "mis-pick" for s in history["items"])


async def a_pick_up_is_handed_over(day: Day) -> None:
    """Ordered on the web for the store: allocated there at once, ready when it is packed, handed over with proof."""
    order = await day.order("shop", "WEB-2", ("MUG", 1), pickup_location="S1")
    (work,) = await day.work_of(order)
    assert work["location"] == "S1"
    await fulfill(day, work, steps=("accept", "pick", "pack"))
    (waiting,) = (await day.call("sam", "GET", "/collections", state="ready"))["items"]
    assert waiting["number"] == "WEB-2"
    hand_over = f"/collections/{work['id']}/hand-over"
    proof = {"kind": "id_document", "value": "seen: passport"}
    await day.call("sam", "POST", hand_over, {"proof": {"kind": "code", "value": "nonsense"}}, ok=400)
    await day.call("eve", "POST", hand_over, {"proof": proof}, ok=404)
    await day.call("sam", "POST", hand_over, {"proof": proof})
    assert (await day.call("shop", "GET", f"/orders/{order['id']}"))["state"] == "shipped"


async def the_aisle_is_endless(day: Day) -> None:
    """Not on this store's shelf: the neighbors' is found and sent, one that is here is taken along, on one receipt."""
    found = await day.call("sam", "GET", "/aisle/search", q="lamp", channel="tills")
    (lamp,) = found["items"]
    assert (lamp["here"]["available"], [(n["location"], n["available"]) for n in lamp["nearby"]]) == (0, [("S2", 2)])
    assert lamp["ship"]["location"] == "S2"
    await day.call("eve", "GET", "/aisle/search", q="lamp", location="S1", ok=404)
    body = {
        "channel": "tills", "ship_to": NEW_YORK, "ttl_seconds": 600,
        "lines": [{"sku": "MUG", "quantity": 1, "method": "take_away"}, {"sku": "LAMP", "quantity": 1, "method": "ship"}],
    }  # fmt: skip
    basket = await day.call("sam", "POST", "/aisle/baskets", body)
    assert (basket["amount"], basket["lines"][1]["when"] is None) == (4000, False)
    assert 0 < basket["seconds_left"] <= 600
    mugs = await day.atp("MUG")
    order = {"basket": basket["id"], "number": "TILL-1"}
    await day.call("eve", "POST", "/aisle/orders", order, ok=404)
    placed = await day.call("sam", "POST", "/aisle/orders", order)
    assert [o["state"] for o in placed["orders"]] == ["shipped", "open"]
    (taken,) = placed["take_away"]
    sold = {
        "id": "till-2", "sku": "MUG", "location": "S1", "kind": "sale", "quantity": 1, "reference": taken["reference"],
        "occurred_at": datetime.now(UTC).isoformat(),
    }  # fmt: skip
    (told,) = await day.call("pos", "POST", "/feeds/pos/movements", [sold])
    assert (told["outcome"], await day.atp("MUG")) == ("acknowledged", mugs)
    await day.oms("broker", "--seconds", "1")
    for work in (await day.call("olga", "GET", f"/orders/{placed['orders'][1]['id']}"))["fulfillments"]:
        await fulfill(day, work)


async def a_rejection_goes_elsewhere(day: Day) -> None:
    """A location has not what it should: the next run finds another, and does not ask this one again."""
    order = await day.order("shop", "WEB-3", ("LAMP", 1))
    await day.oms("broker", "--seconds", "1")
    (first,) = await day.work_of(order)
    no = {"lines": [{"line": "1", "quantity": 1, "reason": "not found"}], "stock": "deduct"}
    await day.call("shop", "POST", f"/fulfillments/{first['id']}/reject", no, ok=403)
    rejected = await day.call(day.worker(first["location"]), "POST", f"/fulfillments/{first['id']}/reject", no)
    assert rejected["state"] == "rejected"
    await day.oms("broker", "--seconds", "1")
    (second,) = await day.work_of(order)
    assert second["location"] != first["location"]
    await fulfill(day, second)


async def a_recall_comes_in_time_and_a_return_is_inspected(day: Day) -> int:
    """A customer cancels while it is picked; another sends back what came."""
    late = await day.order("shop", "WEB-4", ("MUG", 1))
    order = await day.order("shop", "WEB-5", ("MUG", 2))
    await day.oms("broker", "--seconds", "1")
    (work,) = await day.work_of(late)
    await fulfill(day, work, steps=("accept", "pick"))
    cancelled = await day.call("shop", "POST", f"/orders/{late['id']}/cancel", {"reason": "changed my mind"})
    assert cancelled["state"] == "cancelled"
    await day.call(day.worker(work["location"]), "POST", f"/fulfillments/{work['id']}/ship", ok=409)
    for sent in await day.work_of(order):
        await fulfill(day, sent)
    await day.call("shop", "POST", f"/orders/{order['id']}/cancel", ok=409)
    said = {
        "channel": "web",
        "number": "WEB-5",
        "location": "S2",
        "lines": [{"line": "1", "quantity": 2, "reason": "too big"}],
    }
    back = await day.call("shop", "POST", "/returns", said)
    before = await day.atp("MUG")
    await day.call("eve", "POST", f"/returns/{back['id']}/receive")
    assert await day.atp("MUG") == before
    found = [{"number": 1, "quantity": 1, "condition": "new"}, {"number": 1, "quantity": 1, "condition": "opened"}]
    await day.call("shop", "POST", f"/returns/{back['id']}/inspect", {"lines": found}, ok=403)
    done = await day.call("eve", "POST", f"/returns/{back['id']}/inspect", {"lines": found})
    assert done["state"] == "done"
    assert await day.atp("MUG") == before + 1
    return before + 1


async def a_count_is_written_off_by_two(day: Day) -> None:
    """Two are missing, worth more than one person may write off: a second one agrees."""
    await day.call("sam", "PUT", "/locations/S1/work-rules", {"write_off_cents_max": 1000}, ok=403)
    await day.call("ada", "PUT", "/locations/S1/work-rules", {"write_off_cents_max": 1000})
    shelf = next(
        s["on_hand"] for s in (await day.call("ada", "GET", "/atp/MUG/explain", channel="web"))["locations"]
        if s["location"] == "S1"
    )  # fmt: skip
    count = await day.call("sam", "POST", "/counts", {"kind": "cycle", "skus": ["MUG"]})
    lines = {"lines": [{"code": "MUG", "quantity": shelf - 2, "reason": "theft"}]}
    (verdict,) = await day.call("sam", "POST", f"/counts/{count['count']['id']}/lines", lines)
    assert (verdict["variance"], verdict["state"]) == (-2, "waiting")
    (loss,) = [w for w in (await day.call("boss", "GET", "/write-offs"))["items"] if w["state"] == "waiting"]
    await day.call("sam", "POST", f"/write-offs/{loss['id']}/approve", ok=403)
    before = await day.atp("MUG")
    assert (await day.call("boss", "POST", f"/write-offs/{loss['id']}/approve"))["state"] == "applied"
    assert await day.atp("MUG") == before - 2


async def the_evening(day: Day, returned: int) -> None:
    """The ERP is told what happened and says that it has it; the operator looks, and the ledger explains every unit."""
    ours = (await day.call("erp", "GET", "/feeds/erp/ours"))["items"]
    assert {"receipt", "shipment", "adjustment", "return", "count"} <= {m["kind"] for m in ours}
    await day.call(
        "erp", "POST", "/feeds/erp/posted", {"ids": [m["id"] for m in ours], "at": datetime.now(UTC).isoformat()}
    )
    assert (await day.call("erp", "GET", "/feeds/erp/ours"))["items"] == []
    assert await day.atp("MUG") == returned - 2
    for exception in (await day.call("olga", "GET", "/exceptions", state="open"))["items"]:
        if exception["kind"] == "receipt_differs":
            await day.call("olga", "POST", f"/exceptions/{exception['id']}/resolve", {"why": "settled with the vendor"})
    assert "all explained" in await day.oms("verify")
