"""What begins with us is posted to the source that owns the quantity: once, in order, until it acknowledges it."""

import asyncio
import base64
import csv
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import httpx
import msgspec
import pytest
from standardwebhooks.webhooks import Webhook

from oms import access
from oms.app import create_app
from oms.db import Database
from oms.errors import Conflict, NotFound
from oms.flows import posts
from oms.flows.ingest import acknowledge
from oms.flows.network import load
from oms.flows.stock import receive, transfer
from oms.settings import Settings
from tests.demand import allocated, reject, ship, work_up_to
from tests.feeding import NOW, ask, at, baseline, change, check, exceptions, message, on_hand, sale, say
from tests.world import Net, bearer, make_key, set_stock, small_network

SECRET = "whsec_" + base64.b64encode(b"one secret, of thirty-two bytes.").decode()


class Erp:
    """A source that takes posts, checks who signed them, and keeps its own stock of (sku, location) by them."""

    def __init__(self) -> None:
        self.status, self.url, self.answer = 200, "", b""
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.taken: dict[str, dict[str, Any]] = {}
        self.stock: dict[tuple[str, str], int] = {}
        self.waits: asyncio.Event | None = None

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        Webhook(SECRET).verify(body, headers)
        told = msgspec.json.decode(body)
        if self.waits is not None:
            await self.waits.wait()
        self.calls.append((headers["webhook-id"], told))
        if self.status == 200:
            for moved in told["movements"]:
                if moved["id"] not in self.taken:
                    self.taken[moved["id"]] = moved
                    key = (moved["sku"], moved["location"])
                    self.stock[key] = self.stock.get(key, 0) + moved["quantity"]
        writer.write(b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n" % (self.status, len(self.answer)) + self.answer)
        await writer.drain()
        writer.close()

    def told(self) -> list[tuple[str, str, str, int]]:
        return [(m["kind"], m["sku"], m["location"], m["quantity"]) for m in self.taken.values()]


@pytest.fixture
async def erp() -> AsyncIterator[Erp]:
    made = Erp()
    async with await asyncio.start_server(made.connected, "127.0.0.1", 0) as server:
        made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/posts"
        yield made


@pytest.fixture
async def net(db: Database, erp: Erp) -> AsyncIterator[Net]:
    net = await small_network(db)
    await post_to(db, "erp", {"kind": "webhook", "url": erp.url, "secrets": [SECRET], "allow_hosts": ["127.0.0.1"]})
    for location in ("W1", "S1"):
        await set_stock(db, sku="A", location=location, quantity=10)
    yield net
    await check(db)


async def post_to(db: Database, source: str, settings: dict[str, Any], **more: Any) -> None:
    done = await load(db, kind="sources", rows=[{"code": source, "posts": settings, **more}], who="test", now=NOW)
    assert not done.refused, done.refused


async def taken(db: Database, source: str, references: Sequence[str], moment: datetime) -> None:
    await acknowledge.posted(db, source=source, references=references, at=moment, who="test")


async def send(db: Database, *, later: timedelta = timedelta(0), source: str | None = None) -> int:
    now = datetime.now(UTC) + later
    return await posts.send_due(db, acknowledge=taken, now=now, chance=lambda: 1.0, source=source)


async def states(db: Database) -> list[str]:
    found = await posts.listed(db, source=None, sources=None, state=None, before=None, limit=99)
    return [p.state for p in found]


async def test_a_shipment_is_told_once_signed_and_in_the_sources_own_codes(db: Database, net: Net, erp: Erp) -> None:
    await load(db, kind="aliases", rows=[{"source": "erp", "code": "00A", "sku": "A"}], who="t", now=NOW)
    await load(db, kind="aliases", rows=[{"source": "erp", "code": "0815", "location": "S1"}], who="t", now=NOW)
    work = await allocated(db, net, "N1", ("A", 2, "S1"))
    await work_up_to(db, work, "pack")
    assert await send(db) == 0  # nothing has left
    await ship(db, work)
    assert [await send(db) for _ in range(2)] == [1, 0]
    ((_, told),) = erp.calls
    assert (told["type"], told["source"]) == ("movements.made", "erp")
    (moved,) = told["movements"]
    assert (moved["id"], moved["kind"], moved["sku"], moved["location"], moved["quantity"], moved["about"]) == (
        work.references[0], "shipment", "00A", "0815", -2, str(work.order_id),
    )  # fmt: skip


async def test_what_others_told_us_is_posted_to_nobody(db: Database, net: Net, erp: Erp) -> None:
    await say(db, "pos", sale("s1", "A", "S1", 1, at=at(1)))
    await say(db, "wms", message("w1", "receipt", "A", "W1", 5, at=at(1)))
    assert (await send(db), await states(db)) == (0, [])


async def test_a_source_that_is_down_gets_the_same_batch_again_and_the_rest_in_order_after_it(
    db: Database, net: Net, erp: Erp
) -> None:
    erp.status = 503
    await ship(db, await allocated(db, net, "N1", ("A", 2, "S1")))
    assert (await send(db), await states(db)) == (0, ["due"])
    await ship(db, await allocated(db, net, "N2", ("A", 1, "S1")))
    assert await send(db) == 0  # not before its time
    assert len(erp.calls) == 1
    erp.status = 200
    assert await send(db, later=timedelta(minutes=5)) == 2
    (first, again, second) = erp.calls
    assert first == again and first[0] != second[0]
    assert [m["quantity"] for _, told in (again, second) for m in told["movements"]] == [-2, -1]


async def test_a_source_that_does_not_answer_holds_up_no_other(
    db: Database, net: Net, erp: Erp, tmp_path: Path
) -> None:
    await change(
        db, "update ownership set source_id = $1 where location_id = $2 and fact = 'quantity'", net.sources["wms"],
        net.locations["W1"],
    )  # fmt: skip
    await post_to(db, "wms", {"kind": "file", "folder": str(tmp_path / "out"), "marker": True})
    erp.status = 500
    await ship(db, await allocated(db, net, "N1", ("A", 2, "S1")))
    await ship(db, await allocated(db, net, "N2", ("A", 3, "W1")))
    assert await send(db) == 1
    (path,) = (tmp_path / "out").glob("*.csv")
    assert path.with_suffix(".complete").exists()
    (row,) = csv.DictReader(path.open())
    assert (row["kind"], row["sku"], row["location"], row["quantity"], row["held"]) == (
        "shipment",
        "A",
        "W1",
        "-3",
        "0",
    )
    assert sorted(await states(db)) == ["due", "sent"]


async def test_json_lines_are_written_where_they_are_asked_for(db: Database, net: Net, tmp_path: Path) -> None:
    await post_to(db, "erp", {"kind": "file", "folder": str(tmp_path), "format": "json_lines"})
    await ship(db, await allocated(db, net, "N1", ("A", 2, "S1")))
    assert await send(db) == 1
    (path,) = tmp_path.glob("*.jsonl")
    assert [msgspec.json.decode(line)["quantity"] for line in path.read_bytes().splitlines()] == [-2]
    assert not list(tmp_path.glob(".*"))


async def test_receipts_transfers_and_rejections_that_change_stock_are_told_like_shipments(
    db: Database, net: Net, erp: Erp
) -> None:
    await receive.receive(
        db, location_id=net.locations["S1"], reference=None, lines=[receive.Came(code="A", quantity=4, damaged=1)],
        is_final=False, actor=access.house, now=NOW,
    )  # fmt: skip
    asked = await transfer.ask(
        db, from_id=net.locations["W1"], to_id=net.locations["S2"], lines=[transfer.Wanted(code="A", quantity=2)],
        actor=access.house, now=NOW,
    )  # fmt: skip
    await transfer.send(db, transfer_id=asked, lines=None, actor=access.house, now=NOW)
    await reject(db, await allocated(db, net, "N1", ("A", 1, "S1")), ("1", 1), stock="deduct")
    await reject(db, await allocated(db, net, "N2", ("A", 1, "S1")), ("1", 1), stock="keep")
    await send(db)
    told = sorted(erp.told())
    assert ("transfer", "A", "W1", -2) in told and ("adjustment", "A", "S1", -1) in told
    assert sum(units for kind, *_, units in told if kind == "receipt") == 4
    assert sum(m.get("held", 0) for m in erp.taken.values()) == 4  # 3 until the next baseline, 1 damaged
    assert len([kind for kind, *_ in told if kind == "adjustment"]) == 1


async def test_a_source_that_deducts_at_the_pick_is_told_then_and_not_again_when_it_ships(
    db: Database, net: Net, erp: Erp
) -> None:
    await post_to(db, "erp", (await settings_of(db, "erp")), deducts_at="pick")
    work = await allocated(db, net, "N1", ("A", 2, "S1"))
    await work_up_to(db, work, "pick")
    assert (await send(db), erp.told()) == (1, [("shipment", "A", "S1", -2)])
    await taken(db, "erp", work.references, at(20))
    await ship(db, work)
    assert (await send(db), await states(db)) == (0, ["acknowledged"])
    again = await allocated(db, net, "N2", ("A", 3, "S1"))
    await work_up_to(db, again, "pick")
    await reject(db, again, ("1", 3))
    await send(db)
    assert erp.told()[1:] == [("shipment", "A", "S1", -3), ("shipment", "A", "S1", 3)]
    assert list(erp.taken)[-1] == f"{again.references[0]}/undone"


@pytest.mark.parametrize("when", ["accept", "pick"])
async def test_a_part_that_is_rejected_before_or_after_the_step_that_was_told_is_right_at_the_source_too(
    db: Database, net: Net, erp: Erp, when: Literal["accept", "pick"]
) -> None:
    erp.stock["A", "S1"] = 10
    await post_to(db, "erp", await settings_of(db, "erp"), deducts_at="pick")
    work = await allocated(db, net, "N1", ("A", 3, "S1"))
    await work_up_to(db, work, when)
    await send(db)
    await taken(db, "erp", list(erp.taken), at(5))
    await reject(db, work, ("1", 1))
    await ship(db, work)
    await send(db)
    await taken(db, "erp", list(erp.taken), at(25))
    assert erp.stock["A", "S1"] == 8
    await baseline(db, "erp", "A,S1,8", as_of=at(30))
    assert await on_hand(db, "A", "S1") == 8


async def test_what_is_acknowledged_before_it_was_told_is_not_told(db: Database, net: Net, erp: Erp) -> None:
    work = await allocated(db, net, "N1", ("A", 2, "S1"))
    await ship(db, work)
    await taken(db, "erp", work.references, at(5))
    assert (await send(db), erp.calls) == (0, [])


async def test_only_the_owner_of_the_quantity_acknowledges_what_is_ours(db: Database, net: Net, erp: Erp) -> None:
    work = await allocated(db, net, "N1", ("A", 3, "S1"))
    await ship(db, work)
    await taken(db, "pos", work.references, at(5))
    await baseline(db, "erp", "A,S1,10", as_of=at(30))
    assert (await on_hand(db, "A", "S1"), await states(db)) == (7, ["waiting"])


async def test_several_batches_go_in_one_round_and_a_slow_source_holds_up_no_other(
    db: Database, net: Net, erp: Erp, tmp_path: Path
) -> None:
    await post_to(db, "erp", {**await settings_of(db, "erp"), "batch_max": 1})
    await change(
        db, "update ownership set source_id = $1 where location_id = $2 and fact = 'quantity'", net.sources["wms"],
        net.locations["W1"],
    )  # fmt: skip
    await post_to(db, "wms", {"kind": "file", "folder": str(tmp_path)})
    for number in ("N1", "N2", "N3"):
        await ship(db, await allocated(db, net, number, ("A", 1, "S1")))
    await ship(db, await allocated(db, net, "N4", ("A", 1, "W1")))
    erp.waits = asyncio.Event()
    round_ = asyncio.create_task(send(db))
    for _ in range(500):
        if list(tmp_path.glob("*.csv")):
            break
        await asyncio.sleep(0.01)
    assert list(tmp_path.glob("*.csv"))
    assert len(erp.taken) == 0
    erp.waits.set()
    assert await round_ == 4
    assert len({id for id, _ in erp.calls}) == 3


async def settings_of(db: Database, source: str) -> dict[str, Any]:
    found: dict[str, Any] = await ask(db, "select posts from source where code = $1", source)
    return found


async def test_what_it_does_not_acknowledge_in_its_time_alarms_until_it_has(db: Database, net: Net, erp: Erp) -> None:
    await post_to(db, "erp", {**await settings_of(db, "erp"), "acknowledge_minutes": 30})
    work = await allocated(db, net, "N1", ("A", 2, "S1"))
    await ship(db, work)
    await send(db)
    now = datetime.now(UTC)
    assert await posts.alarm(db, now=now + timedelta(minutes=20)) == 0
    assert await posts.alarm(db, now=now + timedelta(minutes=40)) == 1
    assert await exceptions(db) == [("posts_unacknowledged", "erp")]
    await say(db, "erp", message("e1", "shipment", "A", "S1", 2, reference=work.references[0], at=at(60)))
    assert await posts.alarm(db, now=now + timedelta(minutes=41)) == 0
    assert (await exceptions(db), await states(db)) == ([], ["acknowledged"])
    assert await on_hand(db, "A", "S1") == 8


@pytest.mark.parametrize("how", ["on receipt", "named"])
async def test_a_source_may_acknowledge_in_its_answer(db: Database, net: Net, erp: Erp, how: str) -> None:
    one = await allocated(db, net, "N1", ("A", 2, "S1"))
    other = await allocated(db, net, "N2", ("A", 1, "S1"))
    if how == "on receipt":
        await post_to(db, "erp", {**await settings_of(db, "erp"), "acknowledges_on_receipt": True})
    else:
        erp.answer = msgspec.json.encode({"posted": one.references})
    await ship(db, one)
    await ship(db, other)
    assert await send(db) == 2
    assert await states(db) == (["acknowledged"] * 2 if how == "on receipt" else ["sent", "acknowledged"])


async def test_what_is_refused_for_its_content_is_dead_the_rest_goes_on_and_it_can_be_told_again(
    db: Database, net: Net, erp: Erp
) -> None:
    erp.status = 422
    await ship(db, await allocated(db, net, "N1", ("A", 2, "S1")))
    assert (await send(db), await states(db)) == (0, ["dead"])
    ((kind, batch),) = await exceptions(db)
    assert kind == "posts_dead"
    erp.status = 200
    await ship(db, await allocated(db, net, "N2", ("A", 1, "S1")))
    assert await send(db) == 1
    assert await posts.replay(db, batch_id=UUID(batch), source=None, who="x") == 1
    assert (await send(db), await exceptions(db)) == (1, [])
    assert sorted(m["quantity"] for m in erp.taken.values()) == [-2, -1]
    with pytest.raises(Conflict):
        await posts.replay(db, batch_id=UUID(batch), source=None, who="x")
    with pytest.raises(NotFound):
        await posts.replay(db, batch_id=UUID(int=1), source=None, who="x")


async def test_two_workers_tell_a_batch_once_and_a_killed_ones_batch_is_taken_up_after_its_lease(
    db: Database, net: Net, erp: Erp
) -> None:
    await ship(db, await allocated(db, net, "N1", ("A", 2, "S1")))
    assert sorted(await asyncio.gather(*(send(db) for _ in range(4)))) == [0, 0, 0, 1]
    await change(db, "update post_batch set state = 'due', leased_until = now() + interval '1 minute'")
    assert await send(db) == 0
    assert await send(db, later=timedelta(minutes=2)) == 1
    assert len({id for id, _ in erp.calls}) == 1 and len(erp.taken) == 1


async def test_the_loop_closes_each_unit_is_deducted_once_before_and_after_it_is_acknowledged(
    db: Database, net: Net, erp: Erp
) -> None:
    erp.stock["A", "S1"] = 10
    work = await allocated(db, net, "N1", ("A", 2, "S1"))
    await ship(db, work)
    await baseline(db, "erp", f"A,S1,{erp.stock['A', 'S1']}", as_of=at(10))  # it has not heard of it
    assert await on_hand(db, "A", "S1") == 8
    await send(db)
    assert erp.stock["A", "S1"] == 8
    await baseline(db, "erp", f"A,S1,{erp.stock['A', 'S1']}", as_of=at(20))  # it has, and does not say so
    assert await on_hand(db, "A", "S1") == 6  # never too many
    await taken(db, "erp", list(erp.taken), at(15))  # its posted list
    assert (await on_hand(db, "A", "S1"), await states(db)) == (8, ["acknowledged"])
    await baseline(db, "erp", f"A,S1,{erp.stock['A', 'S1']}", as_of=at(30))
    assert await on_hand(db, "A", "S1") == 8


async def test_an_integrator_sees_its_own_sources_posts_and_wrong_settings_are_refused_by_name(
    db: Database, net: Net, erp: Erp, settings: Settings
) -> None:
    await ship(db, await allocated(db, net, "N1", ("A", 2, "S1")))
    keys = {
        "mine": await make_key(db, "integrator", source="erp"), "other": await make_key(db, "integrator", source="pos"),
        "operator": await make_key(db, "operator"),
    }  # fmt: skip
    app = create_app(settings=settings)
    transport = httpx.ASGITransport(app=app)
    async with app.lifespan(), httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        seen = {who: (await client.get("/v1/posts", headers=bearer(key))).json() for who, key in keys.items()}
        assert [len(seen[who]["items"]) for who in ("mine", "other", "operator")] == [1, 0, 1]
        assert seen["mine"]["items"][0]["state"] == "waiting"
        replayed = await client.post("/v1/posts/replay?source=erp", headers=bearer(keys["mine"]))
        assert replayed.status_code == 403
        shown = await client.get("/v1/sources", headers=bearer(keys["operator"]))
        assert SECRET not in shown.text and erp.url in shown.text
    for wrong, name in (
        ({"kind": "pigeon"}, "kind"), ({"kind": "file", "folder": "out"}, "folder"),
        ({"kind": "webhook", "url": "x", "secrets": [SECRET]}, "url"),
        ({"kind": "file", "folder": "/x", "colour": 1}, "colour"),
        ({"kind": "file", "folder": "/x", "acknowledge_minutes": 0}, "acknowledge_minutes"),
    ):  # fmt: skip
        done = await load(db, kind="sources", rows=[{"code": "erp", "posts": wrong}], who="test", now=NOW)
        assert [r.field for r in done.refused] == ["posts"] and name in done.refused[0].reason
