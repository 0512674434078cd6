"""The online mode from outside: an order is captured, or rejected by its store, over HTTP; how long until it is allocated.

Orders come at a steady rate, whether the ones before are allocated or not. The time runs from the answer to the capture
(the order stands) to the moment at which another connection sees its work committed.
"""

import asyncio
import random
import time
from uuid import UUID

import asyncpg
import httpx

from benchmarks.frame import Row, percentile, row
from benchmarks.shopfront import Shopfront, shopfront

LOCATIONS = 503
SKUS, SKUS_QUICK = 1_000, 100
ORDERS, ORDERS_QUICK = 2_000, 150
PER_SECOND = 20.0
REJECTED, REJECTED_QUICK = 300, 30
LOOK_SECONDS = 0.002
PATIENCE_SECONDS = 20.0
CAPTURED_MS_MAX, REJECTED_MS_MAX = 50.0, 1_000.0


def run(*, quick: bool) -> list[Row]:
    """The rows of the table."""
    orders, rejected, skus = (ORDERS_QUICK, REJECTED_QUICK, SKUS_QUICK) if quick else (ORDERS, REJECTED, SKUS)
    with shopfront(skus=skus, role="admin", locations=LOCATIONS) as shop:
        captures, again = asyncio.run(_measure(shop, orders, rejected, skus))
    rows = []
    for name, taken, most in (
        ("captured", captures, CAPTURED_MS_MAX),
        ("rejected", again, REJECTED_MS_MAX),
    ):
        p99 = percentile(taken, 0.99)
        rows.append(
            row(f"order {name} → allocated, {LOCATIONS} locations: p99", p99, "ms",
                against=f"p50 {percentile(taken, 0.5):.1f} ms, {len(taken):,} orders, {PER_SECOND:g}/s",
                reach=f"≤ {most:g}", ok=p99 <= most)
        )  # fmt: skip
    return rows


async def _measure(shop: Shopfront, orders: int, rejected: int, skus: int) -> tuple[list[float], list[float]]:
    chance = random.Random(4)
    watcher = await asyncpg.connect(shop.url)
    headers = {"authorization": f"Bearer {shop.key}"}
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{shop.port}", headers=headers, timeout=30) as client:
        watch = Watch(watcher)
        for n in range(20):
            await _capture(client, watch, f"warm-{n}", chance, skus)
        await watch.until_seen()
        watch.taken.clear()
        await _steadily([_capture(client, watch, f"N{n}", chance, skus) for n in range(orders)])
        work = await watch.until_seen()
        captures = list(watch.taken)
        watch.taken.clear()
        some = chance.sample(sorted(work.items()), rejected)
        await _steadily([_reject(client, watch, order, fulfillment) for order, fulfillment in some])
        await watch.until_seen()
    await watcher.close()
    return captures, watch.taken


async def _steadily(requests: list[object]) -> None:
    """Sends each at its time."""
    tasks, began = [], time.perf_counter()
    for n, request in enumerate(requests):
        await asyncio.sleep(max(0.0, began + n / PER_SECOND - time.perf_counter()))
        tasks.append(asyncio.create_task(request))  # type: ignore[arg-type]
    await asyncio.gather(*tasks)


async def _capture(client: httpx.AsyncClient, watch: "Watch", number: str, chance: random.Random, skus: int) -> None:
    lines = [
        {"line": str(k), "sku": f"S{chance.randrange(1, skus):06d}", "quantity": 1, "price": 3_000}
        for k in range(chance.randint(1, 3))
    ]
    body = {
        "channel": "web", "number": number, "placed_at": "2026-01-05T10:00:00Z", "method": "ground", "lines": lines,
        "ship_to": {"postal_code": "10001", "country": "US", "lat": chance.uniform(30, 48), "lon": chance.uniform(-120, -75)},
    }  # fmt: skip
    answer = await client.post("/v1/orders", json=body)
    answer.raise_for_status()
    watch.for_order(UUID(answer.json()["id"]))


async def _reject(client: httpx.AsyncClient, watch: "Watch", order_id: UUID, fulfillment: UUID) -> None:
    work = (await client.get(f"/v1/fulfillments/{fulfillment}")).json()
    lines = [{"line": n["line"], "quantity": n["quantity"], "reason": "damaged"} for n in work["lines"]]
    body = {"lines": lines, "stock": "keep"}
    (await client.post(f"/v1/fulfillments/{fulfillment}/reject", json=body)).raise_for_status()
    watch.for_order(order_id, but=fulfillment)


class Watch:
    """Sees from a connection of its own when the work of orders is committed."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection
        self._waiting: dict[UUID, tuple[float, UUID | None]] = {}
        self._seen: dict[UUID, UUID] = {}
        self._looking: asyncio.Task[None] | None = None
        self.taken: list[float] = []

    def for_order(self, order_id: UUID, *, but: UUID | None = None) -> None:
        """From now on, until it has work (other than `but`)."""
        self._waiting[order_id] = time.perf_counter(), but
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())

    async def until_seen(self) -> dict[UUID, UUID]:
        """All that it waited for, by order; raises TimeoutError."""
        if self._looking is not None:
            await asyncio.wait_for(self._looking, PATIENCE_SECONDS)
        return self._seen

    async def _look(self) -> None:
        while self._waiting:
            for order_id, fulfillment in await self._connection.fetch(
                "select distinct on (order_id) order_id, fulfillment_id from fulfillment where order_id = any($1::uuid[])"
                " and state <> 'rejected' and not fulfillment_id = any($2::uuid[])",
                list(self._waiting),
                [but for _, but in self._waiting.values() if but],
            ):
                began, _ = self._waiting.pop(order_id)
                self.taken.append(1000 * (time.perf_counter() - began))
                self._seen[order_id] = fulfillment
            await asyncio.sleep(LOOK_SECONDS)
