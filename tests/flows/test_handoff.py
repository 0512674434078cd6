"""A location run by a system: it gets its work by signed webhook or file and answers; a release nobody takes over alarms."""

import asyncio
import base64
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import msgspec
import pytest
from standardwebhooks.webhooks import Webhook

from oms.app import create_app
from oms.cache import Cache
from oms.db import Database
from oms.errors import BadInput
from oms.flows import fulfill
from oms.flows.fulfill import answers, handoff
from oms.flows.order import change as order_change
from oms.flows.order.read import read_order
from oms.settings import Settings
from tests.demand import allocated
from tests.feeding import NOW, ask, change, check, exceptions, on_hand, stock
from tests.world import Net, bearer, make_key, set_stock, small_network

SECRET = "whsec_" + base64.b64encode(b"one secret, of thirty-two bytes.").decode()


class Warehouse:
    """A WMS that takes webhooks, checks who signed them, and keeps what it was told."""

    def __init__(self) -> None:
        self.status, self.url = 200, ""
        self.told: list[dict[str, Any]] = []

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        Webhook(SECRET).verify(body, headers)
        if self.status == 200:
            self.told.append(msgspec.json.decode(body))
        writer.write(b"HTTP/1.1 %d X\r\ncontent-length: 0\r\n\r\n" % self.status)
        await writer.drain()
        writer.close()


@pytest.fixture
async def wms() -> AsyncIterator[Warehouse]:
    made = Warehouse()
    async with await asyncio.start_server(made.connected, "127.0.0.1", 0) as server:
        made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/work"
        yield made


@pytest.fixture
async def net(db: Database, wms: Warehouse) -> AsyncIterator[Net]:
    net = await small_network(db)
    await set_stock(db, sku="A", location="W1", quantity=10)
    settings = {"url": wms.url, "secrets": [SECRET], "allow_hosts": ["127.0.0.1"]}
    await handoff.change(
        db, location="W1", kind="webhook", settings=settings, acknowledge_minutes=15, is_on=True, who="x"
    )
    yield net
    await check(db)


async def send(db: Database, *, later: timedelta = timedelta(0)) -> int:
    return await handoff.send_due(db, now=datetime.now(UTC) + timedelta(seconds=1) + later, chance=lambda: 1.0)


async def say(db: Database, work: UUID, event: str, *, id: str | None = None, **more: Any) -> str:
    runner = await handoff.runner(db, "W1")
    said = msgspec.convert({"id": id or str(uuid4()), "fulfillment": str(work), "event": event, **more}, answers.Said)
    (outcome,) = await answers.take_in(db, runner=runner, said=[said], now=NOW)
    return outcome


async def state(db: Database, work: UUID) -> str:
    return str(await ask(db, "select state from fulfillment where fulfillment_id = $1", work))


async def test_work_is_released_once_taken_over_and_shipped_with_its_parcels(
    db: Database, net: Net, wms: Warehouse
) -> None:
    work = await allocated(db, net, "N1", ("A", 2, "W1"))
    assert [await send(db) for _ in range(2)] == [1, 0]
    (told,) = wms.told
    assert (told["type"], told["number"], [(n["sku"], n["quantity"], n["reference"]) for n in told["lines"]]) == (
        "fulfillment.release", "N1", [("A", 2, work.references[0])],
    )  # fmt: skip
    assert await say(db, work.fulfillment, "taken_over") == "applied"
    assert await state(db, work.fulfillment) == "accepted"
    parcel = {"tracking": "1Z", "carrier": "ups"}
    assert await say(db, work.fulfillment, "shipped", id="m1", parcels=[parcel]) == "applied"
    assert await say(db, work.fulfillment, "shipped", id="m1", parcels=[parcel]) == "duplicate"
    assert await say(db, work.fulfillment, "picked") == "applied"  # late: it changes nothing
    assert (await state(db, work.fulfillment), await on_hand(db, "A", "W1")) == ("shipped", 8)
    assert await ask(db, "select tracking from parcel where number = 1") == "1Z"
    assert await say(db, work.fulfillment, "rejected", id="m1") == "changed"
    assert [kind for kind, _ in await exceptions(db)] == ["message_changed"]


async def test_a_store_without_a_system_gets_no_handoff(db: Database, net: Net) -> None:
    await set_stock(db, sku="A", location="S1", quantity=5)
    await allocated(db, net, "N1", ("A", 2, "S1"))
    assert await send(db) == 0


async def test_a_system_that_is_away_is_told_again_under_the_same_id(db: Database, net: Net, wms: Warehouse) -> None:
    await allocated(db, net, "N1", ("A", 2, "W1"))
    wms.status = 500
    assert [await send(db) for _ in range(2)] == [0, 0]
    wms.status = 200
    assert await send(db, later=timedelta(minutes=5)) == 1
    assert await ask(db, "select attempts from handoff") == 2
    assert wms.told[0]["id"] == str(await ask(db, "select handoff_id from handoff"))


async def test_a_release_that_nobody_acknowledges_is_an_exception_until_they_do(db: Database, net: Net) -> None:
    work = await allocated(db, net, "N1", ("A", 2, "W1"))
    await send(db)
    made = datetime.now(UTC)
    assert await handoff.alarm(db, now=made + timedelta(minutes=14)) == 0
    assert await handoff.alarm(db, now=made + timedelta(minutes=16)) == 1
    assert await exceptions(db) == [("release_unacknowledged", str(work.fulfillment))]
    await say(db, work.fulfillment, "taken_over")
    assert await exceptions(db) == []
    assert await handoff.alarm(db, now=made + timedelta(minutes=30)) == 0


async def test_a_late_cancellation_recalls_the_work_and_says_whether_it_was_in_time(
    db: Database, net: Net, wms: Warehouse
) -> None:
    work = await allocated(db, net, "N1", ("A", 2, "W1"))
    await send(db)
    await change(
        db, """update channel set settings = '{"updates_url": "https://shop.example/oms"}' where code = 'web'"""
    )
    done = await order_change.cancel(db, order_id=work.order_id, lines=None, why="late", who="x")
    assert [(n.in_time, n.recalled[0].is_certain) for n in done.lines] == [(None, False)], "its system has not answered"
    assert await send(db) == 1
    assert [(t["type"], t["lines"]) for t in wms.told][1:] == [("fulfillment.recall", [])]
    await say(db, work.fulfillment, "recalled", in_time=True)
    assert await ask(db, "select why from history where step = 'recall answered'") == "in time"
    told = "select string_agg(event || ' ' || (detail ->> 'why'), ', ' order by update_id) from order_update"
    assert await ask(db, told) == "order.cancelled late, order.recall_answered in time"


async def test_what_is_taken_back_before_it_was_told_is_never_told(db: Database, net: Net, wms: Warehouse) -> None:
    work = await allocated(db, net, "N1", ("A", 2, "W1"))
    done = await order_change.cancel(db, order_id=work.order_id, lines=None, why="at once", who="x")
    assert [n.in_time for n in done.lines] == [True]
    assert await send(db) == 0
    assert wms.told == []


async def test_a_shipment_of_what_was_recalled_leaves_the_stock_and_needs_a_person(db: Database, net: Net) -> None:
    work = await allocated(db, net, "N1", ("A", 2, "W1"))
    await send(db)
    await order_change.cancel(db, order_id=work.order_id, lines=None, why="late", who="x")
    await say(db, work.fulfillment, "shipped")
    assert (await on_hand(db, "A", "W1"), await stock(db, "A", "W1", "allocated")) == (8, 0)
    assert await exceptions(db) == [("shipped_though_recalled", str(work.fulfillment))]


async def test_what_left_though_it_was_recalled_leaves_once_however_often_it_is_told(db: Database, net: Net) -> None:
    work = await allocated(db, net, "N1", ("A", 3, "W1"))
    await order_change.cancel(db, order_id=work.order_id, lines=None, why="late", who="x")
    await say(db, work.fulfillment, "shipped", lines=[{"line": "1", "quantity": 1}])
    assert await on_hand(db, "A", "W1") == 9
    for _ in range(2):  # each under an id of its own
        await say(db, work.fulfillment, "shipped")
        assert await on_hand(db, "A", "W1") == 7


async def test_a_system_rejects_a_part_and_ships_the_rest_and_needs_no_recall_of_its_own_word(
    db: Database, net: Net, wms: Warehouse
) -> None:
    work = await allocated(db, net, "N1", ("A", 3, "W1"))
    await send(db)
    await say(db, work.fulfillment, "rejected", lines=[{"line": "1", "quantity": 1}], reason="damaged", stock="deduct")
    await say(db, work.fulfillment, "shipped", lines=[{"line": "1", "quantity": 1}])
    lines = (await read_order(db, order_id=work.order_id)).lines
    assert [(n.open, n.allocated, n.shipped) for n in lines] == [(2, 0, 1)]
    assert await on_hand(db, "A", "W1") == 8
    assert await send(db) == 0
    assert len(wms.told) == 1


async def test_a_rejection_by_our_people_recalls_it_from_the_system(db: Database, net: Net, wms: Warehouse) -> None:
    work = await allocated(db, net, "N1", ("A", 3, "W1"))
    await send(db)
    for _ in range(2):
        await fulfill.reject(
            db, fulfillment=work.fulfillment, lines=[fulfill.Rejected("1", 1, "x")], stock="keep", now=NOW,
            actor=answers.Actor(key_id=None, role="operator", person=None, who="op"),
        )  # fmt: skip
        await send(db)
    assert [[n["quantity"] for n in t["lines"]] for t in wms.told] == [[3], [2], [1]]
    assert len({t["id"] for t in wms.told}) == 3


async def test_answers_come_by_signed_webhook_and_nobody_elses_are_taken(db: Database, net: Net, cache: Cache) -> None:
    work = await allocated(db, net, "N1", ("A", 2, "W1"))
    transport = httpx.ASGITransport(create_app(settings=Settings(), db=db, cache=cache))  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://oms.test") as http:

        async def post(said: Any, *, secret: str = SECRET, at: str = "W1") -> httpx.Response:
            body, now = msgspec.json.encode(said), datetime.now(UTC)
            headers = {
                "webhook-id": "w1", "webhook-timestamp": str(int(now.timestamp())),
                "webhook-signature": Webhook(secret).sign("w1", now, body.decode()),
            }  # fmt: skip
            return await http.post(f"/v1/hooks/fulfiller/{at}", content=body, headers=headers)

        said = {"id": "m1", "fulfillment": str(work.fulfillment), "event": "taken_over"}
        other = "whsec_" + base64.b64encode(b"another secret of thirty-two byt").decode()
        assert (await post(said, secret=other)).status_code == 401
        assert (await post(said, at="S1")).status_code == 404
        assert (await http.post("/v1/hooks/fulfiller/W1", json=said)).status_code == 401
        assert (await post({"id": "m2", "event": "taken_over"})).status_code == 400
        assert (await post({**said, "id": "m3", "fulfillment": str(uuid4())})).status_code == 404
        assert (await post([said, said])).json() == {"outcomes": ["applied", "duplicate"]}
        shown = await http.get("/v1/fulfillers", headers=bearer(await make_key(db, "operator")))
        assert SECRET not in shown.text and shown.json()["items"][0]["location"] == "W1"
    assert await state(db, work.fulfillment) == "accepted"


async def test_a_system_may_speak_by_files(db: Database, net: Net, tmp_path: Path) -> None:
    await handoff.change(
        db, location="W1", kind="file", settings={"folder": str(tmp_path)}, acknowledge_minutes=15, is_on=True, who="x"
    )
    work = await allocated(db, net, "N1", ("A", 2, "W1"))
    assert await send(db) == 1
    (release,) = (tmp_path / "out").glob("release-*.json")
    assert msgspec.json.decode(release.read_bytes())["fulfillment"] == str(work.fulfillment)
    (tmp_path / "in").mkdir()
    said = [
        {"id": f"m{n}", "fulfillment": str(work.fulfillment), "event": e}
        for n, e in enumerate(("taken_over", "shipped"))
    ]
    (tmp_path / "in" / "1.json").write_bytes(msgspec.json.encode(said))
    (tmp_path / "in" / "2.json").write_text("[{")
    (tmp_path / "in" / ".3.json").write_text("half")
    assert await answers.read_folders(db, now=NOW) == 2
    assert (await state(db, work.fulfillment), await on_hand(db, "A", "W1")) == ("shipped", 8)
    assert {p.name for p in (tmp_path / "in").rglob("*.*")} == {".3.json", "1.json", "2.json", "2.txt"}
    assert await exceptions(db) == [("answer_refused", "W1:2.json")]


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("webhook", {}),
        ("webhook", {"url": "x", "secrets": [SECRET]}),
        ("file", {"folder": "not/absolute"}),
        ("fax", {}),
    ],
)
async def test_settings_that_cannot_work_are_refused(
    db: Database, net: Net, kind: str, settings: dict[str, Any]
) -> None:
    with pytest.raises(BadInput):
        await handoff.change(
            db, location="S1", kind=kind, settings=settings, acknowledge_minutes=5, is_on=True, who="x"
        )
