"""The demo's shop is a shop of its own: it believes signed pushes only, each once, and sells by itself."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import msgspec
import pytest

from connectors.signing import make_secret, sign, signers
from oms.demo import shop as module

SECRET, NEXT = make_secret(), make_secret()
NOW = datetime(2026, 11, 23, 6, 0, tzinfo=UTC)
ROOT = Path(module.__file__).parents[2]


class Running:
    """A shop in its own process."""

    def __init__(self, process: asyncio.subprocess.Process, url: str) -> None:
        self.process = process
        self.http = httpx.AsyncClient(base_url=url, trust_env=False)

    async def tell(self, id: str, body: Any, *, by: str = SECRET, at: datetime | None = None) -> int:
        raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
        headers = sign(raw, id=id, by=signers([by]), at=at or datetime.now(UTC))
        return (await self.http.post("/hook", content=raw, headers=headers)).status_code

    async def reset(self, id: str, *, as_of: datetime | None = None, **quantities: int) -> int:
        items = [{"sku": sku, "quantity": quantity} for sku, quantity in quantities.items()]
        return await self.tell(id, {"type": "availability.reset", "as_of": as_of, "items": items})

    async def delta(self, id: str, **deltas: int) -> int:
        items = [{"sku": sku, "delta": delta} for sku, delta in deltas.items()]
        return await self.tell(id, {"type": "availability.delta", "as_of": None, "items": items})

    async def sell(self, number: str, sku: str, quantity: int, *, at: datetime) -> int:
        order = {"number": number, "placed_at": at.isoformat(), "lines": [{"sku": sku, "quantity": quantity}]}
        return (await self.http.post("/sales", json={"order": order})).status_code

    async def shown(self) -> dict[str, Any]:
        return (await self.http.get("/stock")).json()

    async def stock(self) -> dict[str, int]:
        return (await self.shown())["stock"]

    async def page(
        self, cursor: str = "", *, by: str = SECRET, since: str = "", until: datetime = NOW
    ) -> httpx.Response:
        query = urlencode({"since": since, "until": until.isoformat(), "cursor": cursor})
        headers = sign(query.encode(), id="q", by=signers([by]), at=datetime.now(UTC))
        return await self.http.get(f"/orders?{query}", headers=headers)


@asynccontextmanager
async def running(*arguments: str) -> AsyncIterator[Running]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "oms.demo.shop", "--secret", SECRET, *arguments, stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    assert process.stdout is not None
    shop = Running(process, (await process.stdout.readline()).decode().strip())
    try:
        yield shop
    finally:
        await shop.http.aclose()
        process.kill()
        await process.wait()


@pytest.fixture
async def shop() -> AsyncIterator[Running]:
    async with running("--secret", NEXT) as one:
        yield one


async def test_each_push_is_taken_once_whichever_live_secret_signed_it(shop: Running) -> None:
    assert await shop.reset("r1", A=5, B=0) == 200
    for _ in range(3):
        assert await shop.delta("d1", A=-2) == 200
    body = {"type": "availability.delta", "as_of": None, "items": [{"sku": "B", "delta": 4}]}
    assert await shop.tell("d2", body, by=NEXT) == 200
    assert await shop.stock() == {"A": 3, "B": 4}
    assert (await shop.shown())["doubled"] == 2


async def test_what_is_not_signed_over_these_bytes_and_now_is_refused(shop: Running) -> None:
    body = {"type": "availability.reset", "as_of": None, "items": [{"sku": "A", "quantity": 5}]}
    raw = msgspec.json.encode(body)
    assert await shop.tell("p", body, by=make_secret()) == 401
    assert await shop.tell("p", body, at=datetime.now(UTC) - timedelta(seconds=400)) == 401
    headers = sign(raw, id="p", by=signers([SECRET]), at=datetime.now(UTC))
    for content, changed in ((raw + b" ", {}), (raw, {"webhook-id": "q"}), (raw, {"webhook-signature": "v1,x"})):
        assert (await shop.http.post("/hook", content=content, headers=headers | changed)).status_code == 401
    assert (await shop.http.post("/hook", content=raw)).status_code == 401
    assert await shop.stock() == {}
    assert (await shop.shown())["unsigned"] == 6


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"not json", 400),
        ({"type": "stock.other", "as_of": None, "items": []}, 422),
        ({"type": "availability.reset", "as_of": None, "items": [{"sku": "A", "quantity": -1}]}, 422),
        ({"type": "availability.reset", "as_of": "2026-11-23T06:00:00", "items": []}, 422),
        ({"type": "availability.delta", "as_of": None, "items": [{"sku": "A", "delta": 1}, {"sku": "Z", "delta": 1}]}, 422),
        ({"type": "availability.delta", "as_of": None, "items": [{"sku": "A", "quantity": 1}]}, 422),
    ],
)  # fmt: skip
async def test_a_push_that_cannot_be_taken_changes_nothing_and_may_come_again_right(
    shop: Running, body: Any, status: int
) -> None:
    await shop.reset("r1", A=5)
    assert await shop.tell("p", body) == status
    assert await shop.stock() == {"A": 5}
    assert await shop.delta("p", A=1) == 200
    assert await shop.stock() == {"A": 6}


async def test_a_reset_gives_back_nothing_that_the_shop_sold_since_its_moment(shop: Running) -> None:
    await shop.reset("r1", A=9)
    await shop.sell("1", "A", 2, at=NOW - timedelta(minutes=1))
    await shop.sell("2", "A", 3, at=NOW + timedelta(minutes=1))
    assert await shop.stock() == {"A": 4}
    await shop.reset("r2", as_of=NOW, A=7)
    assert await shop.stock() == {"A": 4}


async def test_a_reset_that_comes_late_overwrites_no_younger_one(shop: Running) -> None:
    await shop.reset("young", as_of=NOW, A=4)
    assert await shop.reset("old", as_of=NOW - timedelta(minutes=5), A=9, B=2) == 200
    assert await shop.stock() == {"A": 4, "B": 2}
    await shop.reset("again", as_of=NOW, A=6)
    assert await shop.stock() == {"A": 6, "B": 2}
    assert (await shop.shown())["overtaken"] == 1


async def test_faults_come_in_the_order_told_and_end(shop: Running) -> None:
    await shop.reset("r", A=5)
    faults = [{"status": 500}, {"status": 429, "retry_after": 3}, {"drop": "before"}, {"drop": "after"}]
    assert (await shop.http.post("/faults", json=faults)).json() == {"faults": 4}
    assert await shop.delta("1", A=1) == 500
    raw = msgspec.json.encode({"type": "availability.delta", "as_of": None, "items": [{"sku": "A", "delta": 1}]})
    slow = await shop.http.post("/hook", content=raw)
    assert (slow.status_code, slow.headers["retry-after"]) == (429, "3")
    for id in ("2", "3"):
        with pytest.raises(httpx.TransportError):
            await shop.delta(id, A=1)
    assert await shop.stock() == {"A": 6}, "the last one was taken, and not answered"
    assert await shop.delta("3", A=1) == 200
    assert await shop.stock() == {"A": 6}
    assert (await shop.http.post("/faults", json=[{"wrong": 1}])).status_code == 400


async def test_orders_are_given_page_by_page_between_two_moments_to_who_signs(tmp_path: Path) -> None:
    at = [NOW - timedelta(seconds=3000 - k) for k in range(2500)]
    lines = [
        msgspec.json.encode({"number": str(k), "placed_at": t, "lines": [{"sku": "A", "quantity": 1, "line": "1"}],
                             "ship_to": {"country": "GB"}}) for k, t in enumerate(at)
    ]  # fmt: skip
    path = tmp_path / "orders.jsonl"
    path.write_bytes(b"\n".join(reversed(lines)) + b"\n\n")
    async with running("--orders", str(path)) as shop:
        assert (await shop.page(by=NEXT)).status_code == 401
        numbers: list[str] = []
        cursor: str | None = ""
        while cursor is not None:
            page = (await shop.page(cursor, since=at[9].isoformat(), until=at[2400])).json()
            assert len(page["orders"]) <= 1000
            numbers += [order["number"] for order in page["orders"]]
            cursor = page["next"]
            await shop.sell("late", "A", 1, at=NOW)
        assert numbers == [str(k) for k in range(10, 2401)]
        first = (await shop.page()).json()["orders"][0]
        assert first["ship_to"] == {"country": "GB"}
        assert (await shop.page(until=NOW.replace(tzinfo=None))).status_code == 400
        assert (await shop.page("x")).status_code == 400


async def test_a_shop_that_is_killed_knows_again_what_it_was_told_and_sold(tmp_path: Path) -> None:
    state = tmp_path / "state.jsonl"
    async with running("--state", str(state)) as shop:
        await shop.reset("r", as_of=NOW, A=9, B=1)
        await shop.delta("d", A=1)
        await shop.sell("1", "A", 3, at=NOW + timedelta(seconds=1))
        before = await shop.shown()
    with state.open("ab") as file:
        file.write(b'{"id":"torn","push":{"type":"avail')
    async with running("--state", str(state)) as shop:
        after = await shop.shown()
        for name in ("stock", "orders", "pushes", "as_of"):
            assert after[name] == before[name]
        assert await shop.delta("d", A=1) == 200
        assert await shop.stock() == {"A": 7, "B": 1}
        await shop.reset("r2", as_of=NOW, A=2)
        assert (await shop.stock())["A"] == -1
    async with running("--state", str(state)) as shop:
        assert await shop.stock() == {"A": -1, "B": 1}
        assert [o["number"] for o in (await shop.page(until=NOW + timedelta(hours=1))).json()["orders"]] == ["1"]


async def test_a_body_beyond_the_limit_is_refused_before_it_is_read(shop: Running) -> None:
    host, port = str(shop.http.base_url).removeprefix("http://").rstrip("/").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"POST /hook HTTP/1.1\r\ncontent-length: {module.BODY_BYTES_MAX + 1}\r\n\r\n".encode())
    async with asyncio.timeout(20):
        assert (await reader.read()).startswith(b"HTTP/1.1 413 ")
    writer.close()


async def test_it_ends_when_the_process_that_started_it_is_killed() -> None:
    code = (
        "import subprocess, sys, time\n"
        f"subprocess.Popen([sys.executable, '-m', 'oms.demo.shop', '--secret', {SECRET!r}])\n"
        "time.sleep(60)\n"
    )
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE, cwd=ROOT)
    assert parent.stdout is not None
    url = (await parent.stdout.readline()).decode().strip()
    async with httpx.AsyncClient(base_url=url, trust_env=False) as http:
        assert (await http.get("/stock")).status_code == 200
    parent.kill()
    async with asyncio.timeout(20):
        assert await parent.stdout.read() == b"", "the pipe ends with the last process that holds it: the shop"
    await parent.wait()


async def test_what_is_no_request_of_ours_harms_nobody(shop: Running) -> None:
    assert (await shop.http.get("/nowhere")).status_code == 404
    assert (await shop.http.post("/sales", content=b"{")).status_code == 400
    host, port = str(shop.http.base_url).removeprefix("http://").rstrip("/").split(":")
    for raw in (b"\r\n\r\n", b"x" * 100_000, b"POST /hook HTTP/1.1\r\ncontent-length: -5\r\n\r\n",
                b"POST /hook HTTP/1.1\r\ncontent-length: many\r\n\r\n"):  # fmt: skip
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(raw)
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
    assert await shop.reset("r", A=1) == 200
