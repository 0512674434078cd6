"""A process that reserves carts at a steady rate, by the real flow, until its standard input ends.

    python -m benchmarks.shopping DATABASE_URL REDIS_URL SKUS PER_SECOND

Then it says [moment, seconds] of each cart, as JSON. Carts come by the clock, whether or not those before are answered;
a cart's time begins when it was due, so a wait is never left out.
"""

import asyncio
import contextlib
import random
import sys
import time
from uuid import uuid4

import msgspec

from oms.cache import Cache
from oms.db import Database
from oms.domain.order import CartLine
from oms.errors import Refusal
from oms.flows.reserve import Cart, reserve_many
from oms.settle import Settle

LINES_MAX = 3


async def shop(database_url: str, redis_url: str, *, skus: int, per_second: float) -> list[tuple[float, float]]:
    """Reserves until the input ends; the moment and the seconds of each cart."""
    chance = random.Random(7)
    db = await Database.open(database_url)
    cache = await Cache.open(redis_url)
    settle: Settle[Cart, object] = Settle(db, reserve_many, after=lambda: cache.wake("project"))
    async with db.connection() as tx:
        channels = [row[0] for row in await tx.fetch("select channel_id from channel order by channel_id")]
    seen: list[tuple[float, float]] = []

    async def reserve(due: float) -> None:
        at = time.time()
        lines = [CartLine(f"S{sku:06d}", 1) for sku in sorted(chance.sample(range(skus), chance.randint(1, LINES_MAX)))]
        cart = Cart(reservation_id=uuid4(), channel_id=chance.choice(channels), lines=tuple(lines))
        with contextlib.suppress(Refusal):  # an answer, too
            await settle.ask(cart)
        seen.append((at, time.perf_counter() - due))

    loop = asyncio.get_running_loop()
    ended = loop.run_in_executor(None, sys.stdin.read)
    carts: set[asyncio.Task[None]] = set()
    due = time.perf_counter()
    print("true", flush=True)
    while not ended.done():
        due += 1 / per_second
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        task = asyncio.create_task(reserve(due))
        carts.add(task)
        task.add_done_callback(carts.discard)
    await asyncio.gather(*carts)
    await settle.close()
    await cache.close()
    await db.close()
    return seen


if __name__ == "__main__":
    found = asyncio.run(shop(sys.argv[1], sys.argv[2], skus=int(sys.argv[3]), per_second=float(sys.argv[4])))
    print(msgspec.json.encode(found).decode(), flush=True)
