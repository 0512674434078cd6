"""The service as processes: a shopper's order goes through shop, broker and store while things around it are killed."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis.asyncio

from oms.db import Database
from oms.demo.run import Shop, shop_secret
from oms.flows.reconcile import verify
from oms.settings import Settings
from tests.feeding import change
from tests.world import Net, bearer, make_key, small_network

UP = "from oms.cli import main; main(prog_name='oms')"
SECONDS_MAX = 60.0


class Service:
    """`oms up` on a test's own database: where it listens, and its processes."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        environ = {k: v for k, v in os.environ.items() if not k.startswith("OMS_")} | {
            "OMS_DATABASE_URL": settings.database_url, "OMS_REDIS_URL": settings.redis_url, "OMS_HOME": str(folder),
            "OMS_PORT": "0",
        }  # fmt: skip
        self.errors = folder / "up.err"
        self.process = subprocess.Popen(
            [sys.executable, "-c", UP, "up"], env=environ, stdout=subprocess.PIPE, stderr=self.errors.open("wb"),
            start_new_session=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        said = self.process.stdout.readline().decode()
        found = re.search(r"http://\S+", said)
        assert found, (said, self.errors.read_text())
        self.url = found.group()

    def parts(self) -> list[int]:
        """The processes that it has started and that still live."""
        asked = subprocess.run(["ps", "-e", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
        parents = {int(pid): int(parent) for pid, parent in (line.split() for line in asked.splitlines())}
        found = [self.process.pid]
        for pid in found:
            found += [child for child, parent in parents.items() if parent == pid]
        return found[1:]

    def end(self, how: int) -> int:
        """Sends a signal and waits for its end; gives the exit code."""
        self.process.send_signal(how)
        return self.process.wait(SECONDS_MAX)


def alive(pids: list[int]) -> list[int]:
    """Those that still run."""
    found = []
    for pid in pids:
        try:
            os.kill(pid, 0)
            if b") Z " not in Path(f"/proc/{pid}/stat").read_bytes():
                found.append(pid)
        except (ProcessLookupError, FileNotFoundError):
            continue
    return found


async def until(what: Callable[[], Any], *, seconds: float = SECONDS_MAX) -> Any:
    """What it gives as soon as that is true; fails where it never is."""
    end = time.monotonic() + seconds
    while not (found := await what()):
        assert time.monotonic() < end, "it never came true"
        await asyncio.sleep(0.1)
    return found


@pytest.fixture
async def net(db: Database) -> Net:
    return await small_network(db)


@pytest.fixture
async def service(settings: Settings, net: Net, tmp_path: Path) -> AsyncIterator[Service]:
    made = await asyncio.to_thread(Service, settings, tmp_path)
    yield made
    if made.process.poll() is None:
        await asyncio.to_thread(made.end, signal.SIGTERM)


@pytest.fixture
def shop(tmp_path: Path) -> Any:
    orders = tmp_path / "orders.jsonl"
    orders.touch()
    made = Shop(orders, shop_secret())
    yield made
    made.stop()


async def test_an_order_goes_from_the_shopper_to_the_store_and_elsewhere_when_the_store_says_no(
    db: Database, net: Net, service: Service, shop: Shop, redis_url: str
) -> None:
    told = {"url": f"{shop.url}/hook", "secrets": [shop.secret], "allow_hosts": ["127.0.0.1"]}
    await change(db, "update channel set kind = 'webhook', mode = 'delta', settings = $1 where code = 'web'", told)
    keys = {
        "shop": bearer(await make_key(db, "storefront", channel="web")),
        "erp": bearer(await make_key(db, "integrator", source="erp")),
        "store": bearer(await make_key(db, "associate", location="S1", person="Sam")),
        "admin": bearer(await make_key(db, "admin", person="Ada")),
    }
    async with httpx.AsyncClient(base_url=service.url, timeout=20) as http:
        sent = await http.post(
            "/v1/feeds/erp/baseline", params={"as_of": "2026-11-20T09:00:00Z"}, headers=keys["erp"],
            content=b"sku,location,quantity\nA,S1,2\nA,W1,3\nB,S1,1\n",
        )  # fmt: skip
        assert sent.status_code == 202, sent.text

        async def atp(sku: str) -> Any:
            answer = await http.get("/v1/atp", params={"channel": "web", "sku": sku}, headers=keys["shop"])
            return answer.json()["items"][0]["atp"]

        async def is_told(**stock: int) -> None:
            async def equal() -> bool:
                theirs = await asyncio.to_thread(shop.stock)
                return all(theirs.get(sku) == units for sku, units in stock.items())

            await until(equal)

        await until(lambda: _is(atp("A"), 5))
        await is_told(A=5, B=1)
        held = await http.post(
            "/v1/reservations", json={"channel": "web", "lines": [{"sku": "A", "quantity": 2}]},
            headers=keys["shop"] | {"Idempotency-Key": "cart-1"},
        )  # fmt: skip
        assert held.status_code == 201, held.text
        await until(lambda: _is(atp("A"), 3))
        await is_told(A=3)
        await _flush(redis_url)  # Redis forgets everything: nothing but speed is lost
        order = {
            "channel": "web", "number": "N1", "placed_at": "2026-11-20T10:00:00Z", "method": "standard",
            "reservation": held.json()["id"], "ship_to": {"postal_code": "10001", "country": "US"},
            "lines": [{"line": "1", "sku": "A", "quantity": 2}, {"line": "2", "sku": "B", "quantity": 1}],
        }  # fmt: skip
        captured = await http.post("/v1/orders", json=order, headers=keys["shop"])
        again = await http.post("/v1/orders", json=order, headers=keys["shop"])
        assert (captured.status_code, again.status_code) == (201, 200)
        assert captured.json()["id"] == again.json()["id"]

        async def work() -> Any:
            answer = await http.get("/v1/fulfillments", params={"location": "S1"}, headers=keys["store"])
            return [f for f in answer.json()["items"] if f["state"] == "released"]

        [task] = await until(work)  # the worker brokers it by itself: the store is near and has both
        assert sum(line["quantity"] for line in task["lines"]) == 3
        no = {"lines": [{"line": "1", "quantity": 2, "reason": "not found"}], "stock": "zero"}
        said = await http.post(f"/v1/fulfillments/{task['id']}/reject", json=no, headers=keys["store"])
        assert said.status_code == 200, said.text

        async def elsewhere() -> Any:
            answer = await http.get("/v1/fulfillments", params={"location": "W1"}, headers=keys["admin"])
            return answer.json()["items"]

        [other] = await until(elsewhere)
        assert [(line["sku"], line["quantity"]) for line in other["lines"]] == [("A", 2)]
        for step in ("accept", "pick", "pack", "ship"):
            for f, key in ((task, "store"), (other, "admin")):
                done = await http.post(f"/v1/fulfillments/{f['id']}/{step}", headers=keys[key])
                assert done.status_code == 200, done.text
        history = await http.get(f"/v1/orders/{captured.json()['id']}/history", headers=keys["shop"])
        steps = [row["step"] for row in history.json()["items"]]
        assert {"captured", "allocated", "rejected"} <= set(steps), steps
        await is_told(A=1, B=0)  # three in the warehouse less two; what the store could not find is nowhere
    assert (await verify(db))[1] == []
    assert "Traceback" not in service.errors.read_text()


async def _is(answer: Any, expected: Any) -> bool:
    return bool(await answer == expected)


async def _flush(url: str) -> None:
    client = redis.asyncio.from_url(url)
    await client.flushall()
    await client.aclose()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
async def test_the_service_ends_with_all_its_parts_however_it_is_ended(service: Service, how: int) -> None:
    parts = await asyncio.to_thread(service.parts)
    assert len(parts) >= 2
    code = await asyncio.to_thread(service.end, how)
    assert code == (-9 if how == signal.SIGKILL else 0), service.errors.read_text()

    async def gone() -> bool:
        return not alive(parts)

    await until(gone, seconds=20)


async def test_what_a_dead_worker_leaves_the_next_one_takes_up(
    db: Database, net: Net, settings: Settings, tmp_path: Path, service: Service
) -> None:
    """The API takes a snapshot while nobody works; whoever starts next brings it into force."""
    key = bearer(await make_key(db, "integrator", source="erp"))
    storefront = bearer(await make_key(db, "storefront", channel="web"))
    for pid in service.parts():
        if b"'worker'" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)
    assert service.process.wait(SECONDS_MAX) != 0  # a part is gone: so is the whole, which its keeper starts again
    next_one = await asyncio.to_thread(Service, settings, tmp_path)
    try:
        async with httpx.AsyncClient(base_url=next_one.url, timeout=20) as http:
            await http.post(
                "/v1/feeds/erp/baseline", params={"as_of": "2026-11-20T09:00:00Z"}, headers=key,
                content=b"sku,location,quantity\nA,S1,2\n",
            )  # fmt: skip

            async def in_force() -> bool:
                answer = await http.get("/v1/atp", params={"channel": "web", "sku": "A"}, headers=storefront)
                return bool(answer.json()["items"][0]["atp"] == 2)

            await until(in_force)
    finally:
        await asyncio.to_thread(next_one.end, signal.SIGTERM)
    assert json.dumps(next_one.parts()) == "[]"
