"""Availability reaches the channels: what they may sell is computed, and a reset goes to a shop by signed webhooks.

Projecting stands beside a bare upsert of the same rows into a filled plain table; the reset beside bare posting of the
same bodies, made and signed beforehand, over one connection to the same shop (oms.demo.shop, a process of its own), where
what each body told is then upserted into a plain table: the least that who tells differences later must keep.
"""

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from uuid import uuid4

import asyncpg
import httpx

from benchmarks.baseline import settle
from benchmarks.frame import Row, row, servers
from benchmarks.loading import load
from benchmarks.retailer import open_retailer
from connectors.channels import Line, Push
from connectors.channels.webhook import BATCH_MAX, body_of
from connectors.signing import make_secret, sign, signers
from oms import ledger
from oms.cache import Cache
from oms.db import Database
from oms.demo.run import Shop
from oms.flows.push.projector import project
from oms.flows.push.sender import push_all

SKUS, SKUS_QUICK = 10_000, 2_000
ROUNDS, ROUNDS_QUICK = 5, 3
CHANNELS = ("shop", "market", "app", "stores")
PROJECT_RATIO_MAX = 6.0
"""Beside the upsert stand the pools' arithmetic in Python, what Redis is told, and the look for broken promises."""
RESET_RATIO_MAX = 5.0
"""Beside it stand pushes as rows, made before they are sent, leased and ended one by one: none is lost or told twice."""

Pair = tuple[float, float]


def run(*, quick: bool) -> list[Row]:
    """The rows of the table."""
    skus, rounds = (SKUS_QUICK, ROUNDS_QUICK) if quick else (SKUS, ROUNDS)
    with servers() as running:
        home = Path(running.settings.home)
        no_orders = home / "orders.jsonl"
        no_orders.touch()
        shop = Shop(no_orders, make_secret())
        try:
            projected, reset = asyncio.run(
                measure(running.database_url, running.redis_url, folder=home, shop=shop, skus=skus, rounds=rounds)
            )
        finally:
            shop.stop()
    ours, bare = (median(pair[k] for pair in projected) for k in (0, 1))
    ratio = median(a / b for a, b in projected)
    figures = skus * len(CHANNELS)
    rows = [
        row(f"projecting {skus:,} skus × {len(CHANNELS)} channels", ours, "s",
            against=f"{bare:.2f} s bare upsert of {figures:,} rows, {rounds} rounds", ratio=ratio,
            reach=f"≤ {PROJECT_RATIO_MAX:g} ×", ok=ratio <= PROJECT_RATIO_MAX),
        row("figures projected per second", figures / ours, "1/s"),
    ]  # fmt: skip
    ours, bare = (median(pair[k] for pair in reset) for k in (0, 1))
    ratio = median(a / b for a, b in reset)
    bodies = -(-skus // BATCH_MAX)
    rows.append(
        row(f"reset of {skus:,} skus to a shop", ours, "s",
            against=f"{bare:.2f} s bare posting and noting of {bodies} bodies, {rounds} rounds", ratio=ratio,
            reach=f"≤ {RESET_RATIO_MAX:g} ×", ok=ratio <= RESET_RATIO_MAX)
    )  # fmt: skip
    return rows


async def measure(
    database_url: str, redis_url: str, *, folder: Path, shop: Shop, skus: int, rounds: int
) -> tuple[list[Pair], list[Pair]]:
    """Seconds of projecting and of the reset, each with its bare side, round by round."""
    settings = {"url": f"{shop.url}/hook", "secrets": [shop.secret], "allow_hosts": ["127.0.0.1"]}
    channels = [
        {"code": code, "pool": "market" if k % 2 else "web", "buffer": k}
        | ({"kind": "webhook", "settings": settings} if code == "shop" else {})
        for k, code in enumerate(CHANNELS)
    ]
    retailer = await open_retailer(
        database_url, name="push", folder=folder / "feeds", skus=skus, channels=channels
    )  # fmt: skip
    retailer.snapshot(changed_share=0.0)
    await load(retailer.url, redis_url)
    db = await Database.open(retailer.url)
    cache = await Cache.open(redis_url)
    projected: list[Pair] = []
    reset: list[Pair] = []
    try:
        for _ in range(rounds):
            await settle(retailer.url)
            projected.append((await seconds_of_projecting(db, cache), await seconds_of_upsert(retailer.url)))
        for _ in range(rounds):
            reset.append((await seconds_of_reset(db, cache), await seconds_of_posting(db, shop)))
        theirs = await asyncio.to_thread(shop.stock)
        ours = dict(await current(db))
        assert theirs == ours, "the shop was told something else than what it may sell"
    finally:
        await cache.close()
        await db.close()
    return projected, reset


async def seconds_of_projecting(db: Database, cache: Cache) -> float:
    """All skus are touched, with a version that rises; then what the channels may sell follows."""
    async with db.transaction() as tx:
        await tx.execute("update availability set version = version + 1")
        await ledger.touch(tx, [r[0] for r in await tx.fetch("select sku_id from availability")])
    began = time.perf_counter()
    while (await project(db, cache, now=datetime.now(UTC))).rows:
        pass
    return time.perf_counter() - began


async def seconds_of_upsert(url: str) -> float:
    """The same rows into a plain table that holds them already, in as many transactions."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(
            "create table if not exists bare_told"
            " (channel_id int, sku_id int, current int, version bigint, primary key (channel_id, sku_id))"
        )
        found = await connection.fetch("select channel_id, sku_id, current, version from channel_stock order by sku_id")
        columns = [[r[k] for r in found] for k in range(4)]
        upsert = (
            "insert into bare_told select * from unnest($1::int[], $2::int[], $3::int[], $4::bigint[])"
            " on conflict (channel_id, sku_id) do update set current = excluded.current, version = excluded.version"
        )
        if not await connection.fetchval("select exists (select from bare_told)"):
            await connection.execute(upsert, *columns)
        began = time.perf_counter()
        await connection.execute(upsert, *columns)
        return time.perf_counter() - began
    finally:
        await connection.close()


async def seconds_of_reset(db: Database, cache: Cache) -> float:
    """The shop is told everything."""
    began = time.perf_counter()
    told = await push_all(db, cache, now=datetime.now(UTC), channels=["shop"], reset=True, who="benchmark")
    seconds = time.perf_counter() - began
    assert not told[0].trouble and not told[0].waiting, told
    return seconds


async def seconds_of_posting(db: Database, shop: Shop) -> float:
    """The same bodies, made and signed beforehand, posted one after the other; what was told is noted after each."""
    found = await current(db)
    calls = []
    for start in range(0, len(found), BATCH_MAX):
        part = found[start : start + BATCH_MAX]
        push = Push(str(uuid4()), "reset", None, tuple(Line(*item) for item in part))
        body = body_of(push)
        headers = sign(body, id=push.id, by=signers([shop.secret]), at=datetime.now(UTC))
        calls.append((body, headers, [sku for sku, _ in part], [units for _, units in part]))
    note = (
        "insert into bare_pushed select * from unnest($1::text[], $2::int[])"
        " on conflict (sku) do update set quantity = excluded.quantity"
    )
    async with db.connection() as tx, httpx.AsyncClient(trust_env=False) as client:
        await tx.execute("create table if not exists bare_pushed (sku text primary key, quantity int)")
        if not await tx.fetchval("select exists (select from bare_pushed)"):
            await tx.execute(note, [sku for sku, _ in found], [units for _, units in found])
        began = time.perf_counter()
        for body, headers, skus, units in calls:
            answer = await client.post(f"{shop.url}/hook", content=body, headers=headers)
            assert answer.status_code == 200, answer.text
            await tx.execute(note, skus, units)
        return time.perf_counter() - began


async def current(db: Database) -> Sequence[tuple[str, int]]:
    """What the shop may sell, by sku."""
    async with db.connection() as tx:
        found = await tx.fetch(
            "select s.code, n.current from channel_stock n join sku s using (sku_id) join channel c using (channel_id)"
            " where c.code = 'shop' order by n.sku_id"
        )
    return [(r[0], r[1]) for r in found]
