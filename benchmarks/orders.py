"""Orders through their whole life over HTTP: captured, brokered by the worker, worked on step by step, rejected.

Captures, steps and ATP reads come by the clock at the same time, from a generator each (open loop: a request's time begins
when it was due). The steps work on what the worker has allocated of earlier orders. PostgreSQL's CPU is counted with its
own processes, the server's with its own; worker and generators share the machine with them.
"""

import asyncio
import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any
from uuid import UUID, uuid4

import httpx
import msgspec

from benchmarks.frame import Child, Missing, Row, percentile, row
from benchmarks.generator import Load, Report
from benchmarks.placing import PLACED, place_work
from benchmarks.shopfront import GENERATOR_CPU_MAX, TICKS, Measured, Shopfront, shopfront
from oms.db import Database
from oms.flows.network import load

SKUS = 1_000
LINES_MAX = 3
CAPTURES_PER_SECOND, STEPS_PER_SECOND, READS_PER_SECOND = 300.0, 150.0, 150.0
P99_MS_MAX, LIST_MS_MAX, REJECTION_SECONDS_MAX = 100.0, 50.0, 1.0
MINUTES, QUICK_SECONDS = 10.0, 5.0
CHUNK_SECONDS = 20.0
ALONE_SECONDS, ALONE_CONNECTIONS = 3.0, 16
LIST = 500
LIST_CALLS, REJECTIONS, REJECTIONS_QUICK = 40, 100, 5
PATIENCE_SECONDS = 60.0
STEPS = ("accept", "pick", "pack", "ship")
WORK = """select fulfillment_id from fulfillment where state = 'released' and fulfillment_id <> all($1::uuid[])
 order by fulfillment_id limit $2"""


def run(*, quick: bool, minutes: float | None = None) -> list[Row]:
    """The rows of the table; `minutes` of mixed load instead of ten."""
    seconds = QUICK_SECONDS if quick else 60 * (minutes or MINUTES)
    with shopfront(skus=SKUS, role="admin") as shop:
        asyncio.run(_leave_alone(shop.url))
        alone = Alone(shop, seconds=1.0 if quick else ALONE_SECONDS)
        mixed = Mixed(shop, seconds=seconds)
        listed = _listed(shop)
        rejected = asyncio.run(_rejected(shop, count=REJECTIONS_QUICK if quick else REJECTIONS))
    return [*mixed.rows(), *alone.rows(), *listed, *rejected]


async def _leave_alone(url: str) -> None:
    """What is placed by hand is not brokered by the worker."""
    db = await Database.open(url)
    try:
        rows = [{"code": "web", "brokering": {PLACED: "nightly"}}]
        loaded = await load(db, kind="channels", rows=rows, who="benchmark", now=datetime.now(UTC))
        assert not loaded.refused, loaded.refused
    finally:
        await db.close()


def orders(shop: Shopfront, count: int, *, lines_max: int = LINES_MAX) -> list[str]:
    """Requests that capture so many new orders."""
    chance = random.Random(uuid4().int)
    placed = datetime.now(UTC).isoformat()
    return [
        shop.post("/v1/orders", {
            "channel": "web", "number": uuid4().hex, "placed_at": placed, "method": "ground",
            "ship_to": {"postal_code": "10001", "country": "US", "lat": chance.uniform(30, 45), "lon": chance.uniform(-120, -75)},
            "lines": [
                {"line": str(n), "sku": f"S{k:06d}", "quantity": 1, "price": 1000}
                for n, k in enumerate(chance.sample(range(1, SKUS), chance.randint(1, lines_max)), start=1)
            ],
        })
        for _ in range(count)
    ]  # fmt: skip


def steps(shop: Shopfront, work: Sequence[UUID]) -> list[str]:
    """Requests that take work from released to shipped: a step of each, then the next step of each."""
    group = int(STEPS_PER_SECOND)
    return [
        shop.post(f"/v1/fulfillments/{one}/{step}", {})
        for start in range(0, len(work), group) for step in STEPS for one in work[start : start + group]
    ]  # fmt: skip


class Store:
    """What the worker has allocated and nobody has worked on yet."""

    def __init__(self, shop: Shopfront) -> None:
        self.shop, self.used = shop, set[UUID]()

    def take(self, count: int) -> list[UUID]:
        """So much work; raises Missing where the worker does not allocate it in time."""
        return asyncio.run(self._take(count))

    async def _take(self, count: int) -> list[UUID]:
        db = await Database.open(self.shop.url, connections_max=2)
        end = time.monotonic() + PATIENCE_SECONDS
        try:
            while True:
                found = [r[0] for r in await db.pool.fetch(WORK, list(self.used), count)]
                if len(found) == count:
                    self.used |= set(found)
                    return found
                if time.monotonic() > end:
                    raise Missing(f"the worker has allocated {len(found)} of {count} fulfillments")
                await asyncio.sleep(0.3)
        finally:
            await db.close()


class Alone:
    """Captures, and steps, each alone and as fast as they go: their CPU, in the server and in PostgreSQL."""

    def __init__(self, shop: Shopfront, *, seconds: float) -> None:
        self.figures: dict[str, tuple[Measured, float]] = {}
        self._load(shop, "capture", orders(shop, int(1000 * seconds)), seconds=seconds)
        work = Store(shop).take(min(int(100 * seconds), self.figures["capture"][0].report.answers))
        self._load(shop, "fulfillment step", steps(shop, work), seconds=seconds, times=4 * len(work))

    def _load(
        self, shop: Shopfront, name: str, requests: list[str], *, seconds: float, times: int | None = None
    ) -> None:
        before = postgresql_seconds(shop)
        done = shop.load(
            requests, connections=ALONE_CONNECTIONS, seconds=seconds, times=min(times or len(requests), len(requests))
        )
        used = postgresql_seconds(shop) - before
        self.figures[name] = done, 1e6 * used / max(1, done.report.answers)

    def rows(self) -> list[Row]:
        """Rows of CPU."""
        return [
            row(f"server CPU of a {name}", done.cpu_us, "µs",
                against=f"PostgreSQL's: {postgresql_us:,.0f} µs; alone {done.report.per_second:,.0f}/s over "
                f"{ALONE_CONNECTIONS} connections", ratio=postgresql_us / max(1.0, done.cpu_us))
            for name, (done, postgresql_us) in self.figures.items()
        ]  # fmt: skip


class Mixed:
    """Captures, steps and reads at once by the clock, in chunks; the steps are of what the chunks before brought."""

    def __init__(self, shop: Shopfront, *, seconds: float) -> None:
        chunk = min(CHUNK_SECONDS, seconds)
        self.reports: dict[str, list[Report]] = {"capture": [], "step": [], "read": []}
        store = Store(shop)
        per_chunk = int(STEPS_PER_SECOND * chunk / len(STEPS))
        reads = [shop.get(f"/v1/atp?channel=web&sku=S{k:06d}") for k in range(SKUS)]
        missing = per_chunk - asyncio.run(_waiting(shop.url))
        if missing > 0:
            shop.each_once(orders(shop, missing), connections=ALONE_CONNECTIONS, seconds_max=60)
        with generators(3) as three:
            for _ in range(max(1, round(seconds / chunk))):
                given = {
                    "capture": (orders(shop, int(CAPTURES_PER_SECOND * chunk)), CAPTURES_PER_SECOND),
                    "step": (steps(shop, store.take(per_chunk)), STEPS_PER_SECOND),
                    "read": (reads, READS_PER_SECOND),
                }
                for name, report in at_once(shop, three, given, seconds=chunk).items():
                    self.reports[name].append(report)

    def rows(self) -> list[Row]:
        """Rows of rates and times."""
        return [
            self._row("orders captured", "capture", "captures/s", CAPTURES_PER_SECOND, is_reached="201"),
            self._row("fulfillment steps", "step", "steps/s", STEPS_PER_SECOND, is_reached="200"),
            self._row("ATP reads beside them", "read", "reads/s", None, is_reached="200"),
        ]

    def _row(self, figure: str, name: str, unit: str, reach: float | None, *, is_reached: str) -> Row:
        found = self.reports[name]
        answers = sum(r.answers for r in found)
        # the time of the last answers counts: what is behind its clock is slower than that
        rate = answers / sum(r.seconds for r in found)
        p99, worst = max(r.p99_ms for r in found), max(r.worst_ms for r in found)
        wrong = answers - sum(r.statuses.get(is_reached, 0) for r in found)
        late = sum(r.backlog for r in found)
        told = f"p99 {p99:,.0f} ms, worst {worst:,.0f} ms, of {answers:,} {wrong} refused, {late} not sent"
        is_fast = p99 <= P99_MS_MAX and not wrong and not late
        return row(
            figure, rate, unit, against=told, reach=f"≥ {reach:g}, p99 ≤ {P99_MS_MAX:g} ms" if reach else "",
            ok=None if reach is None else rate >= 0.98 * reach and is_fast,
        )  # fmt: skip


async def _waiting(url: str) -> int:
    """How much work is released, and how many orders are about to be."""
    db = await Database.open(url, connections_max=2)
    try:
        released: int = await db.pool.fetchval("select count(*) from fulfillment where state = 'released'")
        waiting: int = await db.pool.fetchval("select count(distinct order_id) from order_line where open > 0")
        return released + waiting
    finally:
        await db.close()


@contextmanager
def generators(count: int) -> Iterator[list[Child]]:
    """Processes that send, each for itself."""
    started: list[Child] = []
    try:
        for _ in range(count):
            started.append(Child("benchmarks.generator").__enter__())
            started[-1].said()
        yield started
    finally:
        for child in started:
            child.__exit__(None, None, None)


def at_once(
    shop: Shopfront, some: Sequence[Child], given: dict[str, tuple[list[str], float]], *, seconds: float
) -> dict[str, Report]:
    """Each list of requests by its own clock, all at the same time."""
    found: dict[str, Any] = {}

    def send(child: Child, name: str, requests: list[str], per_second: float) -> None:
        order = Load(
            host="127.0.0.1", port=shop.port, requests=requests, connections=64, seconds=seconds, per_second=per_second,
            times=len(requests) if name != "read" else None,
        )  # fmt: skip
        try:
            found[name] = msgspec.convert(child.ask(order, seconds_max=seconds + 90), Report)
        except Exception as error:
            found[name] = error

    threads = [
        threading.Thread(target=send, args=(child, name, *what))
        for child, (name, what) in zip(some, given.items(), strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name, report in found.items():
        if not isinstance(report, Report):
            raise Missing(f"the generator of {name} failed: {report}")
        if report.cpu_share > GENERATOR_CPU_MAX:
            raise Missing(f"the generator of {name} took {report.cpu_share:.0%} of a core: the run is void")
    return found


def postgresql_seconds(shop: Shopfront) -> float:
    """What PostgreSQL's processes have used, those that ended included."""
    (file,) = Path(shop.running.settings.home).glob("**/postmaster.pid")
    main = int(file.read_text().split()[0])
    total = 0.0
    for pid in [main, *map(int, Path(f"/proc/{main}/task/{main}/children").read_text().split())]:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        total += sum(map(int, fields[11:13] if pid != main else fields[11:15])) / TICKS
    return total


def _listed(shop: Shopfront) -> list[Row]:
    """A store's work list of 500 fulfillments, the whole of it in one answer."""
    asyncio.run(_all_at_one(shop.url))
    taken = []
    with httpx.Client(
        base_url=f"http://127.0.0.1:{shop.port}", headers={"authorization": f"Bearer {shop.key}"}
    ) as http:
        for _ in range(LIST_CALLS):
            began = time.perf_counter()
            answer = http.get("/v1/work", params={"location": "L000", "limit": LIST}, timeout=30)
            taken.append(1000 * (time.perf_counter() - began))
            if answer.status_code != 200 or len(answer.json()["items"]) != LIST:
                raise Missing(f"the work list answered {answer.status_code} with {answer.text[:200]}")
    return [
        row(f"a store's work list of {LIST} fulfillments", median(taken), "ms",
            against=f"p99 {percentile(taken, 0.99):.0f} ms of {len(taken)}", reach=f"≤ {LIST_MS_MAX:g}",
            ok=median(taken) <= LIST_MS_MAX)
    ]  # fmt: skip


async def _all_at_one(url: str) -> None:
    """Enough work at one location: a bulk of orders that are put there by a plan of ours."""
    db = await Database.open(url)
    try:
        await place_work(db, location="L000", count=LIST)
    finally:
        await db.close()


async def _rejected(shop: Shopfront, *, count: int) -> list[Row]:
    """A location says no, one order after another: how long until the order has work elsewhere."""
    db = await Database.open(shop.url, connections_max=2)
    taken: list[float] = []
    missed = 0
    headers = {"authorization": f"Bearer {shop.key}"}
    try:
        rows = await db.pool.fetch(
            "select fulfillment_id, order_id from fulfillment f join location l using (location_id)"
            " where f.state = 'released' and l.code <> 'L000' order by random() limit $1", count,
        )  # fmt: skip
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{shop.port}", headers=headers, timeout=30) as http:
            for work, order in rows:
                began = time.perf_counter()
                answer = await http.post(f"/v1/fulfillments/{work}/reject", json={"whole": "not found"})
                if answer.status_code != 200:
                    raise Missing(f"a rejection answered {answer.status_code}: {answer.text[:200]}")
                end = began + PATIENCE_SECONDS / 4
                while not await db.pool.fetchval(
                    "select exists (select from fulfillment where order_id = $1 and fulfillment_id > $2)", order, work
                ):
                    if time.perf_counter() > end:
                        missed += 1
                        break
                    await asyncio.sleep(0.005)
                taken.append(time.perf_counter() - began)
    finally:
        await db.close()
    if not taken:
        raise Missing("there was no work to reject")
    p99 = percentile(taken, 0.99)
    return [
        row("rejection to new allocation, p99", p99, "s",
            against=f"median {median(taken):.2f} s of {len(taken)}, {missed} given up after {PATIENCE_SECONDS / 4:g} s",
            reach=f"≤ {REJECTION_SECONDS_MAX:g}",
            ok=p99 <= REJECTION_SECONDS_MAX and not missed)
    ]  # fmt: skip
