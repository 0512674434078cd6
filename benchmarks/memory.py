"""Half a million skus that twelve channels sell, projected in Redis: how much memory that takes."""

import asyncio
import random
from collections.abc import Iterator

from benchmarks.frame import Row, row, servers
from oms.cache import Cache, Projection

SKUS, SKUS_QUICK = 500_000, 50_000
POOLS, SEGMENTS = 12, 40
"""Each channel sells from a pool of its own, and they overlap: locations fall into so many segments."""
ROWS_AT_ONCE = 5_000
MEGABYTES_MAX = 500.0


def run(*, quick: bool) -> list[Row]:
    """The rows of the table."""
    skus = SKUS_QUICK if quick else SKUS
    with servers() as running:
        empty, full, back = asyncio.run(_fill(running.redis_url, skus))
    used = (full - empty) / 2**20
    reach = MEGABYTES_MAX * skus / SKUS
    return [
        row(f"{skus:,} skus for {POOLS} channels, {SEGMENTS} segments", used, "MB",
            against=f"{1024 * 1024 * used / skus:.0f} bytes a sku", reach=f"≤ {reach:g}", ok=used <= reach and back),
    ]  # fmt: skip


async def _fill(url: str, skus: int) -> tuple[int, int, bool]:
    """Memory before and after, and whether what was written is read back."""
    cache = await Cache.open(url)
    try:
        redis = cache._redis
        empty = (await redis.info("memory"))["used_memory"]
        epoch = await cache.epoch()
        rows = dict(_rows(skus))
        codes = list(rows)
        for start in range(0, skus, ROWS_AT_ONCE):
            some = {code: rows[code] for code in codes[start : start + ROWS_AT_ONCE]}
            assert await cache.put(some, epoch=epoch) == len(some)
        full = (await redis.info("memory"))["used_memory"]
        asked = codes[:: max(1, skus // 500)]
        seen = await cache.get(asked)
        return empty, full, all(seen.rows[code] == rows[code] for code in asked)
    finally:
        await cache.close()


def _rows(skus: int) -> Iterator[tuple[str, Projection]]:
    chance = random.Random(5)
    for n in range(skus):
        supply = [chance.choice((0, 0, 0, chance.randrange(1, 40), chance.randrange(1, 400))) for _ in range(SEGMENTS)]
        reserved = [chance.choice((0, 0, 0, chance.randrange(1, 20))) for _ in range(POOLS)]
        yield f"SKU-{n:09d}", Projection(chance.randrange(1, 10**6), n, 7, supply, reserved)
