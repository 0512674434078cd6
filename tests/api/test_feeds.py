"""Feeds, holds, runs and fulfillments through their doors."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import httpx
import pytest

from oms import access, worker
from oms.app import create_app
from oms.cache import Cache
from oms.db import Database
from oms.flows.ingest import apply
from oms.settings import Settings
from oms.settle import close_all
from tests.feeding import NOW, at, baseline, check, on_hand, sale, say, staged, stock
from tests.world import Net, bearer, make_key, set_stock, small_network

AS_OF = "2026-11-23T09:00:00Z"


@pytest.fixture
async def net(db: Database) -> AsyncIterator[Net]:
    yield await small_network(db)
    await check(db)


@pytest.fixture
async def http(db: Database, net: Net, redis_url: str, settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    cache = await Cache.open(redis_url)
    access.forget()
    transport = httpx.ASGITransport(create_app(settings=settings, db=db, cache=cache, clock=lambda: NOW))  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://oms.test") as client:
        yield client
    await close_all(db)
    await cache.close()


@pytest.fixture
async def erp(db: Database, net: Net) -> dict[str, str]:
    return bearer(await make_key(db, "integrator", source="erp"))


@pytest.fixture
async def pos(db: Database, net: Net) -> dict[str, str]:
    return bearer(await make_key(db, "integrator", source="pos"))


async def ann_and_bob(db: Database, **bound: str) -> list[dict[str, str]]:
    return [bearer(await make_key(db, "approver", person=name, **bound)) for name in ("ann", "bob")]


async def work(db: Database) -> None:
    """What the worker does when "ingest" is woken."""
    for left in await apply.unfinished(db):
        await apply.apply(db, feed_id=left.feed_id, who="oms")


def movement(id: str, **changes: Any) -> dict[str, Any]:
    return {
        "id": id, "sku": "A", "location": "S1", "kind": "sale", "quantity": 1, "occurred_at": "2026-11-23T09:05:00Z",
        **changes,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("body", "type"),
    [
        (b"sku,location,quantity\nA,S1,5\nB,S1,2\n", "text/csv"),
        (
            b'{"sku":"A","location":"S1","quantity":5}\n{"sku":"B","location":"S1","quantity":2}\n',
            "application/x-ndjson",
        ),
        (gzip.compress(b"sku,location,quantity\nA,S1,5\nB,S1,2\n", mtime=0), "application/gzip"),
    ],
)
async def test_a_snapshot_is_sent_as_a_stream_and_comes_into_force_in_the_background(
    *, db: Database, http: httpx.AsyncClient, erp: dict[str, str], body: bytes, type: str
) -> None:
    async def stream() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 7):
            yield body[start : start + 7]

    sent = await http.post(
        "/v1/feeds/erp/baseline", params={"as_of": AS_OF, "watermark": "pos:8,wms:2"}, content=stream(),
        headers={**erp, "content-type": type},
    )  # fmt: skip
    assert sent.status_code == 202, sent.text
    feed = sent.json()["feed"]
    assert (feed["state"], feed["rows"], feed["watermark"]) == ("staged", 2, {"pos": 8, "wms": 2})
    assert [(p["location"], p["state"]) for p in sent.json()["parts"]] == [("S1", "staged")]
    await work(db)
    seen = (await http.get(f"/v1/feeds/{feed['id']}", headers=erp)).json()
    assert (seen["feed"]["state"], seen["parts"][0]["state"], seen["parts"][0]["in_force"]) == (
        "applied",
        "applied",
        True,
    )
    assert (await on_hand(db, "A", "S1"), await on_hand(db, "B", "S1")) == (5, 2)


async def test_a_snapshot_by_upload_wakes_the_worker_which_brings_it_into_force(
    db: Database, http: httpx.AsyncClient, cache: Cache, settings: Settings, erp: dict[str, str]
) -> None:
    await baseline(db, "erp", "A,S1,5")
    sent = await http.post(
        "/v1/feeds/erp/baseline", params={"as_of": "2026-11-23T12:00:00Z"}, headers=erp,
        content=b"sku,location,quantity\nA,S1,3\n",
    )  # fmt: skip
    assert (sent.json()["feed"]["state"], await on_hand(db, "A", "S1")) == ("staged", 5)
    assert await cache.wait(["ingest"], 1) == "ingest"
    await worker.sweep({"db": db, "cache": cache, "settings": settings})
    [part] = (await http.get(f"/v1/feeds/{sent.json()['feed']['id']}", headers=erp)).json()["parts"]
    assert (part["state"], part["in_force"], await on_hand(db, "A", "S1")) == ("applied", True, 3)


async def test_a_feed_that_cannot_be_applied_does_not_hold_up_the_next(
    db: Database, cache: Cache, settings: Settings, net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = await staged(db, "erp", "A,S1,5")
    await staged(db, "erp", "A,S2,5", as_of=at(10))
    really = apply.apply

    async def fails_once(db: Database, *, feed_id: int, who: str) -> apply.Applied:
        if feed_id == broken.feed_id:
            raise ConnectionResetError
        return await really(db, feed_id=feed_id, who=who)

    monkeypatch.setattr(apply, "apply", fails_once)
    await worker.sweep({"db": db, "cache": cache, "settings": settings})
    assert (await on_hand(db, "A", "S1"), await on_hand(db, "A", "S2")) == (0, 5)


async def test_a_dry_run_shows_what_would_change_and_changes_nothing(
    db: Database, http: httpx.AsyncClient, erp: dict[str, str]
) -> None:
    await baseline(db, "erp", "A,S1,5")
    sent = await http.post(
        "/v1/feeds/erp/baseline", params={"as_of": "2026-11-23T10:00:00Z", "dry_run": "true"}, headers=erp,
        content=b"sku,location,quantity\nA,S1,3\nB,S1,1\n",
    )  # fmt: skip
    assert sent.status_code == 202, sent.text
    assert sent.json()["change"] == {
        "totals": {"keys": 2, "changed": 2, "units_up": 1, "units_down": 2},
        "largest": [
            {"sku": "A", "location": "S1", "was": 5, "becomes": 3}, {"sku": "B", "location": "S1", "was": 0, "becomes": 1},
        ],
    }  # fmt: skip
    await work(db)
    assert (await on_hand(db, "A", "S1"), await on_hand(db, "B", "S1")) == (5, 0)


async def test_refused_rows_are_paged_with_line_field_and_reason(http: httpx.AsyncClient, erp: dict[str, str]) -> None:
    body = "sku,location,quantity\n" + "\n".join(f"X{n},S1,1" for n in range(5)) + "\nA,S1,5\n"
    sent = await http.post("/v1/feeds/erp/baseline", params={"as_of": AS_OF}, content=body.encode(), headers=erp)
    feed_id = sent.json()["feed"]["id"]
    lines, cursor = [], None
    while True:
        params = {"limit": 2, **({"cursor": cursor} if cursor else {})}
        page = (await http.get(f"/v1/feeds/{feed_id}", params=params, headers=erp)).json()["refusals"]
        lines += [(row["line"], row["field"]) for row in page["items"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert lines == [(n, "sku") for n in range(2, 7)]


@pytest.mark.parametrize(
    ("params", "body", "status", "says"),
    [
        ({}, b"sku,location,quantity\nA,S1,1\n", 400, "as_of"),
        ({"as_of": "2026-11-23T09:00:00"}, b"sku,location,quantity\nA,S1,1\n", 422, "offset"),
        ({"as_of": "2126-11-23T09:00:00Z"}, b"sku,location,quantity\nA,S1,1\n", 422, "future"),
        ({"as_of": AS_OF, "watermark": "pos"}, b"sku,location,quantity\nA,S1,1\n", 400, "CODE:NUMBER"),
        ({"as_of": AS_OF, "watermark": "till:3"}, b"sku,location,quantity\nA,S1,1\n", 422, "till"),
        ({"as_of": AS_OF}, b"", 422, "empty"),
        ({"as_of": AS_OF}, b"sku,location\nA,S1\n", 422, "quantity"),
        ({"as_of": AS_OF}, gzip.compress(b"sku,location,quantity\nA,S1,1\n", mtime=0)[:20], 422, "gzip"),
        ({"as_of": AS_OF}, b"sku,location,quantity\n\xff\xfe,S1,1\n", 422, "line 2"),
    ],
)
async def test_a_snapshot_that_cannot_be_taken_is_refused_and_nothing_of_it_applied(
    *, db: Database, http: httpx.AsyncClient, erp: dict[str, str], params: dict[str, str], body: bytes, status: int,
    says: str,
) -> None:  # fmt: skip
    sent = await http.post("/v1/feeds/erp/baseline", params=params, content=body, headers=erp)
    assert (sent.status_code, says in sent.text) == (status, True), sent.text
    await work(db)
    assert await on_hand(db, "A", "S1") == 0


async def test_a_content_type_that_is_not_read_is_told(http: httpx.AsyncClient, erp: dict[str, str]) -> None:
    sent = await http.post(
        "/v1/feeds/erp/baseline", params={"as_of": AS_OF}, content=b"PAR1",
        headers={**erp, "content-type": "application/vnd.apache.parquet"},
    )  # fmt: skip
    assert sent.status_code == 415
    assert all(
        word in sent.text for word in ("text/csv", "application/x-ndjson", "gzip", "Parquet and X12 846 are not")
    )


async def test_a_snapshot_under_an_idempotency_key_is_taken_once(
    db: Database, http: httpx.AsyncClient, erp: dict[str, str]
) -> None:
    headers = {**erp, "idempotency-key": str(uuid4())}
    body = b"sku,location,quantity\nA,S1,5\n"
    answers = [
        await http.post("/v1/feeds/erp/baseline", params={"as_of": AS_OF}, content=body, headers=headers)
        for _ in range(2)
    ]
    assert [a.status_code for a in answers] == [202, 202]
    assert answers[0].json() == answers[1].json()
    assert len((await http.get("/v1/feeds", headers=erp)).json()["items"]) == 1


async def test_movements_are_answered_one_by_one_and_the_bad_ones_do_not_hold_up_the_good(
    db: Database, http: httpx.AsyncClient, pos: dict[str, str]
) -> None:
    await set_stock(db, sku="A", location="S1", quantity=5)
    sent = await http.post(
        "/v1/feeds/pos/movements", headers=pos,
        json=[movement("1"), movement("2", quantity=-1), movement("1"), {"id": "3"}, 7, movement("4", sku="ZZ")],
    )  # fmt: skip
    assert sent.status_code == 200, sent.text
    told = sent.json()
    assert [r["index"] for r in told] == list(range(6))
    assert [r["outcome"] for r in told] == ["applied", "refused", "duplicate", "refused", "refused", "parked"]
    assert (told[1]["field"], told[3]["field"]) == ("quantity", "kind")
    assert await on_hand(db, "A", "S1") == 4


async def test_movements_of_which_none_can_be_understood_are_refused(
    http: httpx.AsyncClient, pos: dict[str, str]
) -> None:
    for body in ([], [movement("1", quantity="many")], [movement(str(n)) for n in range(1001)]):
        sent = await http.post("/v1/feeds/pos/movements", headers=pos, json=body)
        assert sent.status_code == 400, sent.text


async def test_a_source_sees_and_feeds_itself_only(
    db: Database, http: httpx.AsyncClient, erp: dict[str, str], pos: dict[str, str]
) -> None:
    sent = await http.post(
        "/v1/feeds/erp/baseline", params={"as_of": AS_OF}, content=b"sku,location,quantity\nA,S1,5\n", headers=erp
    )
    feed_id = sent.json()["feed"]["id"]
    foreign = [
        await http.post("/v1/feeds/erp/baseline", params={"as_of": AS_OF}, content=b"x", headers=pos),
        await http.post("/v1/feeds/erp/movements", json=[movement("1")], headers=pos),
        await http.post("/v1/feeds/erp/posted", json={"ids": []}, headers=pos),
        await http.get("/v1/feeds/erp/ours", headers=pos),
        await http.get(f"/v1/feeds/{feed_id}", headers=pos),
        await http.get("/v1/feeds/nothing/ours", headers=pos),
    ]
    assert [a.status_code for a in foreign] == [404] * 6
    assert (await http.get("/v1/feeds", headers=pos)).json()["items"] == []
    assert [f["id"] for f in (await http.get("/v1/feeds", headers=erp)).json()["items"]] == [feed_id]
    store = bearer(await make_key(db, "operator", location="S2"))
    assert (await http.get(f"/v1/feeds/{feed_id}", headers=store)).status_code == 404


async def test_two_people_take_a_baseline_back(db: Database, http: httpx.AsyncClient, net: Net) -> None:
    await baseline(db, "erp", "A,S1,5\nA,S2,9")
    second = await baseline(db, "erp", "A,S1,3\nA,S2,9", as_of=at(10))
    await say(db, "pos", sale("s", "A", "S1", 1, at=at(20), sequence=1))
    ann, bob = await ann_and_bob(db)
    address, body = f"/v1/feeds/{second.feed_id}/revert", {"location": "S1", "why": "a wrong file"}
    nobody = bearer(await make_key(db, "approver"))
    assert (await http.post(address, json=body, headers=nobody)).status_code == 403
    elsewhere = bearer(await make_key(db, "approver", location="S2", person="eve"))
    assert (await http.post(address, json=body, headers=elsewhere)).status_code == 404
    answers = [(await http.post(address, json=body, headers=who)).json()["done"] for who in (ann, ann, bob)]
    assert answers == [False, False, True]
    assert (await on_hand(db, "A", "S1"), await on_hand(db, "A", "S2")) == (4, 9)


async def test_units_under_a_hold_are_released_by_their_store_only(
    db: Database, http: httpx.AsyncClient, pos: dict[str, str]
) -> None:
    sent = await http.post(
        "/v1/feeds/pos/movements", headers=pos, json=[movement("r", kind="return", quantity=3, location="S1")]
    )
    assert sent.json()[0]["outcome"] == "applied"
    assert (await on_hand(db, "A", "S1"), await stock(db, "A", "S1", "held")) == (3, 3)
    mine = bearer(await make_key(db, "associate", location="S1"))
    other = bearer(await make_key(db, "associate", location="S2"))
    listed = (await http.get("/v1/holds", headers=mine)).json()["items"]
    assert [(h["sku"], h["location"], h["code"], h["quantity"]) for h in listed] == [("A", "S1", "until_released", 3)]
    assert (await http.get("/v1/holds", headers=other)).json()["items"] == []
    address = f"/v1/holds/{listed[0]['id']}/release"
    assert (await http.post(address, json={"why": "looked at"}, headers=other)).status_code == 404
    assert (await http.post(address, json={"why": "looked at", "quantity": 4}, headers=mine)).status_code == 400
    part = await http.post(address, json={"why": "looked at", "quantity": 2}, headers=mine)
    assert part.json()["released"] == 2
    assert await stock(db, "A", "S1", "held") == 1
    assert (await http.post(address, json={"why": "again"}, headers=mine)).status_code == 404


async def test_orders_are_brokered_shipped_and_told_to_the_erp_until_it_has_posted_them(
    db: Database, http: httpx.AsyncClient, erp: dict[str, str]
) -> None:
    await set_stock(db, sku="A", location="W1", quantity=5)
    shop = bearer(await make_key(db, "storefront", channel="web"))
    body = {
        "channel": "web", "number": "N1", "placed_at": AS_OF, "method": "ground",
        "ship_to": {"postal_code": "60601", "country": "US", "lat": 41.9, "lon": -87.6},
        "lines": [{"line": "1", "sku": "A", "quantity": 2, "price": 1000}],
    }  # fmt: skip
    assert (await http.post("/v1/orders", json=body, headers=shop)).status_code == 201
    planner = bearer(await make_key(db, "planner"))
    tried = await http.post("/v1/runs", json={"dry_run": True, "seconds": 2}, headers=planner)
    assert (tried.status_code, tried.json()["state"], await stock(db, "A", "W1", "allocated")) == (201, "planned", 0)
    run = (await http.post("/v1/runs", json={"seconds": 2, "seed": 7}, headers=planner)).json()
    assert (run["state"], run["seed"], run["summary"]["applied"]) == ("applied", 7, 1)
    assert [r["id"] for r in (await http.get("/v1/runs", headers=planner)).json()["items"]] == [
        run["id"],
        tried.json()["id"],
    ]
    why = (await http.get(f"/v1/runs/{run['id']}/decisions", params={"order": "N1"}, headers=planner)).json()["items"]
    assert [(d["number"], d["state"], d["plan"][0]["location"]) for d in why] == [("N1", "applied", "W1")]

    house = bearer(await make_key(db, "associate", location="W1"))
    other = bearer(await make_key(db, "associate", location="S1"))
    work = (await http.get("/v1/fulfillments", params={"state": "released"}, headers=house)).json()["items"]
    assert [(w["location"], w["number"], w["lines"][0]["quantity"]) for w in work] == [("W1", "N1", 2)]
    address = f"/v1/fulfillments/{work[0]['id']}"
    assert (await http.get(address, headers=other)).status_code == 404
    assert (await http.post(f"{address}/accept", headers=other)).status_code == 404
    assert (await http.post(f"{address}/ship", headers=house)).status_code == 409
    for step, state in (
        ("accept", "accepted"),
        ("accept", "accepted"),
        ("pick", "picked"),
        ("pack", "packed"),
        ("ship", "shipped"),
    ):
        answer = await http.post(f"{address}/{step}", headers=house)
        assert (answer.status_code, answer.json()["state"]) == (200, state)
    assert await on_hand(db, "A", "W1") == 3

    ours = (await http.get("/v1/feeds/erp/ours", headers=erp)).json()["items"]
    assert [(o["id"], o["kind"], o["quantity"]) for o in ours] == [(work[0]["lines"][0]["reference"], "shipment", -2)]
    posted = await http.post("/v1/feeds/erp/posted", json={"ids": [ours[0]["id"], "nobody"], "at": AS_OF}, headers=erp)
    assert posted.json() == {"posted": 1, "unknown": 1}
    assert (await http.get("/v1/feeds/erp/ours", headers=erp)).json()["items"] == []


async def test_a_store_that_cannot_fulfill_is_not_asked_again(db: Database, http: httpx.AsyncClient, net: Net) -> None:
    await set_stock(db, sku="A", location="S1", quantity=1)
    await set_stock(db, sku="A", location="W1", quantity=1)
    shop = bearer(await make_key(db, "storefront", channel="web"))
    body = {
        "channel": "web", "number": "N1", "placed_at": AS_OF, "method": "ground",
        "ship_to": {"postal_code": "10001", "country": "US", "lat": 40.75, "lon": -74.0},
        "lines": [{"line": "1", "sku": "A", "quantity": 1, "price": 1000}],
    }  # fmt: skip
    await http.post("/v1/orders", json=body, headers=shop)
    staff = bearer(await make_key(db, "operator"))
    places = []
    for _ in range(3):
        await http.post("/v1/runs", json={"seconds": 2}, headers=staff)
        work = (await http.get("/v1/fulfillments", params={"state": "released"}, headers=staff)).json()["items"]
        places.append([w["location"] for w in work])
        for task in work:
            answer = await http.post(
                f"/v1/fulfillments/{task['id']}/reject", headers=staff,
                json={"lines": [{"line": "1", "quantity": 1, "reason": "not found"}], "stock": "deduct"},
            )  # fmt: skip
            assert answer.json()["state"] == "rejected"
    assert sorted(places[0] + places[1]) == ["S1", "W1"]
    assert places[2] == []
    assert (await on_hand(db, "A", "S1"), await on_hand(db, "A", "W1")) == (0, 0)


async def test_movements_that_arrive_together_are_settled_together_and_each_gets_its_own_results(
    db: Database, http: httpx.AsyncClient, erp: dict[str, str]
) -> None:
    await baseline(db, "erp", "A,S1,50\nB,S1,50")

    def said(n: int) -> list[dict[str, object]]:
        return [
            {"id": f"{n}-{k}", "sku": "AB"[k % 2], "location": "S1", "kind": "adjustment", "quantity": -1,
             "occurred_at": "2026-11-23T13:00:00Z"}
            for k in range(3)
        ] + [{"id": "shared", "sku": "A", "location": "S1", "kind": "adjustment", "quantity": -1,
              "occurred_at": "2026-11-23T13:00:00Z"}]  # fmt: skip

    answers = await asyncio.gather(*(http.post("/v1/feeds/erp/movements", json=said(n), headers=erp) for n in range(6)))
    outcomes = [[row["outcome"] for row in answer.json()] for answer in answers]
    assert all(o[:3] == ["applied"] * 3 for o in outcomes)
    assert sorted(o[3] for o in outcomes) == ["applied", *["duplicate"] * 5]
    assert (await on_hand(db, "A", "S1"), await on_hand(db, "B", "S1")) == (50 - 12 - 1, 50 - 6)
