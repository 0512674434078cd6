"""A service under load that is hit: its clients' log of what they were told is the oracle, the database must agree.

Two API processes, a worker, and embedded servers whose keeper starts them again. Clients reserve, order and release with
keys of their own and ask again until they are answered, as a shop's code does. A blow kills one part without a word.
"""

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import msgspec
import redis.asyncio

from oms.db import Database
from oms.embedded import Running
from oms.flows.reconcile import verify
from oms.house import free_port

OMS = [sys.executable, "-c", "from oms.cli import main; main(prog_name='oms')"]
READY_SECONDS_MAX = 60.0
ANSWER_SECONDS_MAX = 15.0
ATTEMPTS_MAX = 200
BLOWS = ("api", "postgresql", "flush", "valkey", "worker")
SKUS = {"A": 1_000_000, "B": 400, "C": 1_000_000}
"""Units: of B there are fewer than are asked for."""


class Told(msgspec.Struct):
    """What a client knows of one request: each answer that it was given (status, body), and how often there was none."""

    method: str
    path: str
    body: dict[str, Any] | None
    key: str | None
    answers: list[tuple[int, bytes]] = []
    unanswered: int = 0

    @property
    def answer(self) -> tuple[int, bytes] | None:
        """The first one; it must stay the only one."""
        return self.answers[0] if self.answers else None


class Part:
    """One process of the service, started again whenever it is gone."""

    def __init__(self, *words: str, environ: dict[str, str], log: Path) -> None:
        self.words, self.environ, self.log = words, environ, log
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*OMS, *self.words], env=self.environ, stdout=log, stderr=log, start_new_session=True
            )

    def kill(self) -> None:
        """At once, with all of its children."""
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        assert self.process is not None
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()


class Service:
    """The parts, and where they are."""

    def __init__(self, running: Running, home: Path) -> None:
        self.running, self.home = running, home
        environ = {k: v for k, v in os.environ.items() if not k.startswith("OMS_")}
        environ |= {"OMS_DATABASE_URL": running.database_url, "OMS_REDIS_URL": running.redis_url, "OMS_HOME": str(home)}
        ports: set[int] = set()
        while len(ports) < 2:
            ports.add(free_port("127.0.0.1"))
        self.urls = [f"http://127.0.0.1:{port}" for port in ports]
        self.apis = [
            Part("api", environ=environ | {"OMS_PORT": str(port)}, log=home / f"api-{port}.log") for port in ports
        ]
        self.worker = Part("worker", environ=environ, log=home / "worker.log")

    @contextlib.contextmanager
    def started(self) -> Iterator["Service"]:
        for part in (*self.apis, self.worker):
            part.start()
        try:
            yield self
        finally:
            for part in (*self.apis, self.worker):
                part.stop()

    def restart(self) -> None:
        """Starts again what is gone, as who runs processes does."""
        for part in (*self.apis, self.worker):
            if part.process is not None and part.process.poll() is not None:
                part.start()

    async def ready(self) -> None:
        """Waits until every API process is."""
        async with httpx.AsyncClient(timeout=2) as http:
            for url in self.urls:
                end = time.monotonic() + READY_SECONDS_MAX
                while True:
                    with contextlib.suppress(httpx.HTTPError):
                        if (await http.get(f"{url}/health/ready")).status_code == 200:
                            break
                    assert time.monotonic() < end, f"{url} is not ready: {self.said()}"
                    self.restart()
                    await asyncio.sleep(0.2)

    def said(self) -> str:
        """The last lines of each part's log."""
        return "\n".join(part.log.read_text()[-600:] for part in (*self.apis, self.worker))

    async def hit(self, blow: str, chance: random.Random) -> None:
        """Kills, stops or empties a part; what needs it is started again."""
        if blow == "api":
            part = chance.choice(self.apis)
            part.kill()
            part.start()
        elif blow == "worker":
            self.worker.kill()
            self.worker.start()
        elif blow == "flush":
            client = redis.asyncio.from_url(self.running.redis_url)
            with contextlib.suppress(redis.RedisError):
                await client.flushall()
            await client.aclose()
        elif blow == "postgresql":
            how = chance.choice([signal.SIGKILL, signal.SIGQUIT])  # killed, or stopped at once
            with contextlib.suppress(ProcessLookupError, FileNotFoundError, ValueError):
                os.kill(int((self.home / "postgresql" / "postmaster.pid").read_text().split()[0]), how)
        else:
            for pid in _pids_of("valkey-server", str(self.home)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def _pids_of(program: str, folder: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                is_it = program in command.split(" ", 1)[0] and folder in command + os.readlink(entry / "cwd")
                found += [int(entry.name)] if is_it else []
    return found


class Clients:
    """Shoppers that keep on, and the log of what they were told."""

    def __init__(self, service: Service, *, key: str, chance: random.Random) -> None:
        self.service, self.chance = service, chance
        self.headers = {"authorization": f"Bearer {key}"}
        self.log: list[Told] = []
        self.released: set[str] = set()
        self.ended = asyncio.Event()

    async def run(self, count: int) -> None:
        """Shops with so many clients until it is told to end; each finishes what it has begun."""
        limits = httpx.Limits(max_connections=count * 2)
        async with httpx.AsyncClient(timeout=ANSWER_SECONDS_MAX, limits=limits) as http:
            await asyncio.gather(*(self._shop(http) for _ in range(count)))

    async def _shop(self, http: httpx.AsyncClient) -> None:
        while not self.ended.is_set():
            skus = self.chance.choice([["A"], ["B"], ["A", "C"], ["C", "B", "A"]])
            lines = [{"sku": sku, "quantity": self.chance.randint(1, 3)} for sku in skus]
            cart = await self._ask(http, "POST", "/v1/reservations", {"channel": "web", "lines": lines}, key=True)
            if cart.answer is not None and cart.answer[0] == 201:
                made = msgspec.json.decode(cart.answer[1])["id"]
                then = self.chance.random()
                if then < 0.4:
                    await self._order(http, made, lines)
                elif then < 0.5:
                    gone = await self._ask(http, "DELETE", f"/v1/reservations/{made}", None)
                    if gone.answer is not None and gone.answer[0] == 204:
                        self.released.add(made)
            await asyncio.sleep(self.chance.random() * 0.1)

    async def _order(self, http: httpx.AsyncClient, reservation: str, lines: list[dict[str, Any]]) -> None:
        order = {
            "channel": "web", "number": uuid4().hex, "placed_at": "2026-11-20T10:00:00Z", "method": "standard",
            "reservation": reservation, "ship_to": {"postal_code": "10001", "country": "US"},
            "lines": [line | {"line": str(k)} for k, line in enumerate(lines)],
        }  # fmt: skip
        await self._ask(http, "POST", "/v1/orders", order)

    async def _ask(
        self, http: httpx.AsyncClient, method: str, path: str, body: dict[str, Any] | None, *, key: bool = False
    ) -> Told:
        told = Told(method, path, body, uuid4().hex if key else None)
        self.log.append(told)
        for _ in range(ATTEMPTS_MAX):
            if await self.ask_once(http, told):
                break
            await asyncio.sleep(0.05 + self.chance.random() * 0.2)
        return told

    async def ask_once(self, http: httpx.AsyncClient, told: Told) -> bool:
        """Whether it was answered; a 5xx is none, it asks to come again."""
        headers = self.headers | ({"idempotency-key": told.key} if told.key else {})
        url = self.chance.choice(self.service.urls) + told.path
        try:
            answer = await http.request(told.method, url, json=told.body, headers=headers)
        except httpx.HTTPError:
            told.unanswered += 1
            return False
        if answer.status_code >= 500:
            told.unanswered += 1
            return False
        told.answers.append((answer.status_code, answer.content))
        return True

    async def ask_all_again(self) -> None:
        """Every request with a key once more: no answer changes, and what was unknown is known."""
        async with httpx.AsyncClient(timeout=ANSWER_SECONDS_MAX) as http:
            for told in self.log:
                if told.key is not None:
                    for _ in range(20):
                        if await self.ask_once(http, told):
                            break
                        await asyncio.sleep(0.2)


async def faults_of(clients: Clients, db: Database) -> tuple[list[str], Counter[str]]:
    """Where the log and the database differ (nowhere is right), and how much was compared."""
    counts: Counter[str] = Counter()
    faults: list[str] = []
    granted: dict[str, Told] = {}
    orders: set[str] = set()
    for told in clients.log:
        counts["requests"] += 1
        counts["unanswered attempts"] += told.unanswered
        if told.key is not None and len(set(told.answers)) != 1:
            faults.append(f"key {told.key}: {len(set(told.answers))} answers: {set(told.answers)}")
        if told.answer is None:
            counts["never answered"] += 1
            continue
        counts[f"{told.method} {told.path.split('/')[2]} {told.answer[0]}"] += 1
        if told.path == "/v1/reservations" and told.answer[0] == 201:
            granted[msgspec.json.decode(told.answer[1])["id"]] = told
        if told.path == "/v1/orders" and told.answer[0] in (200, 201) and told.body is not None:
            orders.add(told.body["number"])
    async with db.connection() as tx:
        kept = {str(r[0]): r[1] for r in await tx.fetch("select reservation_id, state from reservation")}
        numbers = Counter(r[0] for r in await tx.fetch("select number from orders"))
        sold = await tx.fetchval(
            "select coalesce(sum(l.quantity), 0) from reservation_line l join reservation r using (reservation_id)"
            " join sku s using (sku_id) where s.code = 'B' and r.state in ('live', 'claimed')"
        )
    faults += [f"reservation {made} was granted and is not there" for made in granted.keys() - kept.keys()]
    faults += [f"reservation {made} is there and nobody was told" for made in kept.keys() - granted.keys()]
    faults += [f"reservation {made} was released and is {kept[made]}" for made in clients.released
               if kept[made] != "released"]  # fmt: skip
    faults += [f"order {number} was taken and is not there" for number in orders - numbers.keys()]
    faults += [f"order {number} is there {n} times" for number, n in numbers.items() if n > 1]
    if sold > SKUS["B"]:
        faults.append(f"{sold} of {SKUS['B']} B are sold")
    faults += [str(difference) for difference in (await verify(db))[1]]
    counts["granted"], counts["ordered"], counts["B sold"] = len(granted), len(orders), sold
    return faults, counts


async def back(db_url: str) -> None:
    """Waits until PostgreSQL answers."""
    end = time.monotonic() + READY_SECONDS_MAX
    while True:
        with contextlib.suppress(OSError, asyncpg.PostgresError):
            connection = await asyncpg.connect(db_url)
            await connection.close()
            return
        assert time.monotonic() < end, "PostgreSQL does not come back"
        await asyncio.sleep(0.2)
