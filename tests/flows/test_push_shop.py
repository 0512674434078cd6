"""A real shop in its own process, over real HTTP, ends with the stock that we say it may sell, whatever goes wrong."""

import asyncio
import base64
import csv
import os
import signal
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from connectors.channels.webhook import OrdersUnreadable
from oms.cache import Cache
from oms.db import Database
from oms.flows.push import border, outbox
from oms.flows.push.sender import Pushed, push_all
from tests.world import Net, set_stock, small_network

NOW = datetime(2026, 11, 23, 6, 0, tzinfo=UTC)
SECRET = "whsec_" + base64.b64encode(b"a secret of this test, 32 bytes.").decode()
OTHER = "whsec_" + base64.b64encode(b"another secret, that is not known").decode()
SKUS = "ABCDE"


class RunningShop:
    """The shop's process, and how to speak with it."""

    def __init__(self, process: asyncio.subprocess.Process, url: str) -> None:
        self.process, self.url = process, url
        self.http = httpx.AsyncClient(base_url=url, trust_env=False)

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "url": f"{self.url}/hook", "orders_url": f"{self.url}/orders", "secrets": [SECRET], "batch_max": 2,
            "allow_hosts": ["127.0.0.1"],
        }  # fmt: skip

    async def shown(self) -> dict[str, Any]:
        return (await self.http.get("/stock")).json()

    async def stock(self) -> dict[str, int]:
        return (await self.shown())["stock"]

    async def fails(self, *faults: dict[str, Any]) -> None:
        assert (await self.http.post("/faults", json=list(faults))).status_code == 200

    async def sells(self, number: str, sku: str, quantity: int, *, placed_at: datetime) -> None:
        order = {"number": number, "placed_at": placed_at.isoformat(), "lines": [{"sku": sku, "quantity": quantity}]}
        assert (await self.http.post("/sales", json={"order": order})).status_code == 201


@pytest.fixture
async def shop() -> AsyncIterator[RunningShop]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "oms.demo.shop", "--secret", SECRET, stdout=asyncio.subprocess.PIPE,
        cwd=Path(border.__file__).parents[3],
    )  # fmt: skip
    assert process.stdout is not None
    running = RunningShop(process, (await process.stdout.readline()).decode().strip())
    yield running
    await running.http.aclose()
    if process.returncode is None:
        process.send_signal(signal.SIGCONT)
        process.kill()
    await process.wait()


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts follow each other fast."""
    monkeypatch.setattr(outbox, "BACKOFF_SECONDS", 0.02)


@pytest.fixture
async def net(db: Database, shop: RunningShop) -> Net:
    net = await small_network(db)
    await run(
        db, "update channel set kind = 'webhook', mode = 'delta', settings = $1 where code = 'web'", shop.settings
    )
    for number, sku in enumerate(SKUS, start=1):
        await set_stock(db, sku=sku, location="W1", quantity=number)
    return net


async def run(db: Database, statement: str, *arguments: Any) -> Any:
    async with db.transaction() as tx:
        return await tx.fetch(statement, *arguments)


async def push(db: Database, cache: Cache, **more: Any) -> Pushed:
    [web] = await push_all(db, cache, now=NOW, channels=["web"], **more)
    return web


async def ours(db: Database) -> dict[str, int]:
    return dict(
        await run(
            db,
            "select k.code, c.current from channel_stock c join sku k using (sku_id)"
            " join channel using (channel_id) where channel.code = 'web'",
        )
    )


async def test_the_shop_has_our_availability_after_resets_and_deltas(
    db: Database, net: Net, cache: Cache, shop: RunningShop
) -> None:
    assert (await push(db, cache)).calls == 3
    assert await shop.stock() == await ours(db) == {"A": 1, "B": 2, "C": 3, "D": 4, "E": 5}
    await set_stock(db, sku="A", location="W1", quantity=7)
    await set_stock(db, sku="B", location="W1", quantity=-2)
    await push(db, cache)
    assert await shop.stock() == await ours(db) == {"A": 7, "B": 0, "C": 3, "D": 4, "E": 5}
    await push(db, cache, reset=True)
    assert await shop.stock() == await ours(db)


async def test_failures_silence_and_quiet_hours_change_nothing_in_the_end(
    db: Database, net: Net, cache: Cache, shop: RunningShop
) -> None:
    await push(db, cache)
    for sku in SKUS:
        await set_stock(db, sku=sku, location="W1", quantity=9)
    await shop.fails(
        {"status": 500}, {"drop": "after"}, {"status": 429, "retry_after": 0.1}, {"drop": "before"}, {"seconds": 0.3},
        {"status": 503, "retry_after": 0}, {"drop": "after"},
    )  # fmt: skip
    done = await push(db, cache)
    assert (done.waiting, done.dead) == (0, 0)
    assert done.unanswered >= 4 and done.slowed == 2
    assert await shop.stock() == await ours(db) == dict.fromkeys(SKUS, 9)
    assert (await shop.shown())["doubled"] == 2, "what was taken without an answer came again, and acted once"


async def test_a_shop_that_hangs_is_given_up_and_told_again(
    db: Database, net: Net, cache: Cache, shop: RunningShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "LEASE_SECONDS", 0.6)
    monkeypatch.setattr(outbox, "ANSWER_SECONDS_MAX", 0.3)
    shop.process.send_signal(signal.SIGSTOP)
    done = await push(db, cache, patience_seconds=0)
    assert done.unanswered >= 1 and done.pushes == 0
    shop.process.send_signal(signal.SIGCONT)
    monkeypatch.setattr(outbox, "ANSWER_SECONDS_MAX", 30.0)
    await run(db, "update push set not_before = now()")
    await push(db, cache)
    assert await shop.stock() == await ours(db)


async def test_a_shop_that_is_away_costs_nothing_but_time(
    db: Database, net: Net, cache: Cache, shop: RunningShop
) -> None:
    gone = shop.settings | {"url": "http://127.0.0.1:1/hook"}
    await run(db, "update channel set settings = $1 where code = 'web'", gone)
    assert (await push(db, cache, patience_seconds=0)).unanswered >= 1
    await run(db, "update channel set settings = $1, paused_until = null where code = 'web'", shop.settings)
    await run(db, "update push set not_before = now()")
    await push(db, cache)
    assert await shop.stock() == await ours(db)


async def test_a_wrong_secret_is_a_dead_letter_that_is_overtaken_when_it_is_right(
    db: Database, net: Net, cache: Cache, shop: RunningShop
) -> None:
    await run(db, "update channel set settings = $1 where code = 'web'", shop.settings | {"secrets": [OTHER]})
    done = await push(db, cache)
    assert done.dead == done.refused == 3
    assert (await shop.stock(), (await shop.shown())["unsigned"]) == ({}, 3)
    assert [r["answer"][:3] for r in await run(db, "select answer from push")] == ["401"] * 3
    await run(db, "update channel set settings = $1 where code = 'web'", shop.settings | {"secrets": [OTHER, SECRET]})
    await push(db, cache)
    assert await shop.stock() == await ours(db)
    assert await run(db, "select from exception where state = 'open'") == []


async def test_a_sender_killed_between_commit_and_answer_is_made_good_by_the_next(
    db: Database, net: Net, cache: Cache, shop: RunningShop, database_url: str, redis_url: str
) -> None:
    await push(db, cache)
    for sku in SKUS:
        await set_stock(db, sku=sku, location="W1", quantity=8)
    await shop.fails({"seconds": 30})
    code = (
        "import asyncio, datetime\n"
        "from oms.cache import Cache\nfrom oms.db import Database\nfrom oms.flows.push.sender import push_all\n"
        "async def main():\n"
        f"    db, cache = await Database.open({database_url!r}), await Cache.open({redis_url!r})\n"
        "    await push_all(db, cache, now=datetime.datetime.now(datetime.UTC), channels=['web'])\n"
        "asyncio.run(main())\n"
    )
    sender = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, cwd=Path(border.__file__).parents[3], env=os.environ
    )
    async with asyncio.timeout(30):
        while (await shop.shown())["calls"] < 4:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    sender.kill()
    await sender.wait()
    [[leased]] = await run(db, "select push_id from push where leased_until is not null")
    await run(db, "update push set leased_until = now() where leased_until is not null")
    await push(db, cache)
    assert await shop.stock() == await ours(db) == dict.fromkeys(SKUS, 8)
    assert [r["state"] for r in await run(db, "select state from push where push_id = $1", leased)] == ["done"]


async def test_a_reset_carries_the_moment_up_to_which_the_shops_orders_are_known(
    db: Database, net: Net, cache: Cache, shop: RunningShop
) -> None:
    await run(db, "update channel set captured_until = $1 where code = 'web'", NOW)
    await push(db, cache)
    await shop.sells("1", "E", 2, placed_at=NOW + timedelta(minutes=1))
    await push(db, cache, reset=True)
    assert (await shop.stock())["E"] == 5 - 2
    assert datetime.fromisoformat((await shop.shown())["as_of"]) == NOW


async def test_orders_are_read_page_by_page_between_two_moments_and_signed(
    db: Database, net: Net, shop: RunningShop
) -> None:
    for n in range(5):
        await shop.sells(str(n), "A", 1, placed_at=NOW + timedelta(minutes=n))
    for n in range(1_100):
        await shop.sells(f"late {n}", "A", 1, placed_at=NOW + timedelta(hours=1))
    found = await border.fetch_orders("web", shop.settings, since=NOW, until=NOW + timedelta(minutes=3))
    assert [order["number"] for order in found] == ["1", "2", "3"]
    assert len(await border.fetch_orders("web", shop.settings, since=None, until=NOW + timedelta(hours=2))) == 1_105
    with pytest.raises(OrdersUnreadable, match="401"):
        await border.fetch_orders("web", shop.settings | {"secrets": [OTHER]}, since=None, until=NOW)


async def test_a_push_refused_for_one_sku_reaches_the_shop_with_all_others(
    db: Database, net: Net, cache: Cache, shop: RunningShop
) -> None:
    await push(db, cache)
    await run(db, "update channel set settings = $1 where code = 'web'", shop.settings | {"batch_max": 100})
    await push(db, cache)
    for sku in "ABCD":
        await set_stock(db, sku=sku, location="W1", quantity=6)
    await shop.fails({"status": 422}, {"status": 422}, {}, {"status": 422})
    done = await push(db, cache)
    assert (done.refused, done.dead) == (3, 1)
    told = await shop.stock()
    assert sum(told[sku] != 6 for sku in "ABCD") == 1
    [[dead]] = await run(db, "select push_id from push where state = 'dead'")
    await outbox.replay(db, push_id=dead, who="olivia")
    await push(db, cache)
    assert await shop.stock() == await ours(db)


async def test_a_channel_whose_settings_cannot_work_is_an_exception_and_no_other_waits(
    db: Database, net: Net, cache: Cache, shop: RunningShop, tmp_path: Path
) -> None:
    await run(db, "update channel set settings = '{}' where code = 'web'")
    await run(
        db, "update channel set kind = 'file', settings = $1 where code = 'local'", {"folder": str(tmp_path / "drop")}
    )
    local, web = await push_all(db, cache, now=NOW)
    assert web.trouble is not None and "url" in web.trouble
    assert (local.skus, local.waiting) == (5, 0)
    assert [r["subject"] for r in await run(db, "select subject from exception where state = 'open'")] == [
        "channel web"
    ]
    await run(db, "update channel set settings = $1 where code = 'web'", shop.settings)
    await push(db, cache)
    assert await shop.stock() == await ours(db)
    assert await run(db, "select from exception where state = 'open'") == []


async def test_a_file_channel_is_told_by_whole_files_of_absolute_values(
    db: Database, net: Net, cache: Cache, tmp_path: Path
) -> None:
    settings = {"folder": str(tmp_path / "drop")}
    await run(
        db, "update channel set kind = 'file', mode = 'delta', settings = $1, captured_until = $2 where code = 'web'",
        settings, NOW,
    )  # fmt: skip
    await push(db, cache)
    [first] = (tmp_path / "drop").iterdir()
    rows = list(csv.DictReader(first.open()))
    assert {row["sku"]: int(row["quantity"]) for row in rows} == await ours(db)
    assert {row["as_of"] for row in rows} == {NOW.isoformat()}
    await set_stock(db, sku="C", location="W1", quantity=30)
    await push(db, cache)
    latest = max((tmp_path / "drop").iterdir())
    assert [(row["sku"], row["quantity"]) for row in csv.DictReader(latest.open())] == [("C", "30")]


async def test_a_folder_that_cannot_be_written_gets_the_same_file_later(
    db: Database, net: Net, cache: Cache, tmp_path: Path
) -> None:
    blocked = tmp_path / "drop"
    blocked.write_text("a file where the folder should be")
    await run(db, "update channel set kind = 'file', settings = $1 where code = 'web'", {"folder": str(blocked)})
    done = await push(db, cache, patience_seconds=0)
    assert done.unanswered >= 1 and done.waiting == 1
    blocked.unlink()
    await run(db, "update push set not_before = now()")
    await push(db, cache)
    [[push_id]] = await run(db, "select push_id from push")
    assert [path.name for path in blocked.iterdir()] == [f"{push_id}.csv"]


async def test_the_same_body_is_sent_at_each_attempt(db: Database, net: Net, cache: Cache) -> None:
    bodies: list[tuple[str, bytes]] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.split("content-length: ")[1].split("\r\n")[0])
        id = head.split("webhook-id: ")[1].split("\r\n")[0]
        bodies.append((id, await reader.readexactly(length)))
        status = "500" if len(bodies) < 4 else "200"
        writer.write(f"HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(connected, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
        settings = {"url": url, "secrets": [SECRET], "allow_hosts": ["127.0.0.1"]}
        await run(db, "update channel set settings = $1 where code = 'web'", settings)
        done = await push(db, cache)
    assert (done.calls, done.unanswered, done.waiting) == (4, 3, 0)
    assert len(set(bodies)) == 1
    assert msgspec.json.decode(bodies[0][1])["type"] == "availability.reset"
