"""The closest locations that have a sku, at 2,000 locations: in process and over HTTP, beside a bare round trip.

Every location has some of every sku, so that the nearest are to be found among all. Medians of single calls, one after
another; the round trip is `select 1` on the same database.
"""

import asyncio
import http.client
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from statistics import median

import asyncpg

from benchmarks.frame import STOP_SECONDS_MAX, Missing, Row, database_of, environment, percentile, row, servers
from benchmarks.shopfront import await_ready
from oms import ledger
from oms.db import Database, migrate
from oms.embedded import Running
from oms.flows.govern import create_key
from oms.flows.network import load
from oms.flows.promise.nearby import nearby
from oms.house import free_port

LOCATIONS = 2_000
SKUS = 50
CALLS, CALLS_QUICK = 1_000, 200
WARM_CALLS = 20
LIMIT = 20
MS_MAX = 20.0


def run(*, quick: bool) -> list[Row]:
    """The rows of the table."""
    calls = CALLS_QUICK if quick else CALLS
    with servers() as running:
        url = asyncio.run(_open(running))
        bare, inside = asyncio.run(_inside(url, calls=calls))
        with _served(running, url) as (port, key):
            outside = _outside(port, key, calls=calls)
    return [
        row(f"the {LIMIT} nearest of {LOCATIONS:,}, in process", median(inside), "ms",
            against=f"select 1: {median(bare):.2f} ms", ratio=median(inside) / median(bare), reach=f"≤ {MS_MAX:g}",
            ok=median(inside) <= MS_MAX),
        row("p99 of it", percentile(inside, 0.99), "ms"),
        row(f"the {LIMIT} nearest of {LOCATIONS:,}, over HTTP", median(outside), "ms",
            against=f"select 1: {median(bare):.2f} ms", ratio=median(outside) / median(bare), reach=f"≤ {MS_MAX:g}",
            ok=median(outside) <= MS_MAX),
        row("p99 of it over HTTP", percentile(outside, 0.99), "ms"),
    ]  # fmt: skip


async def _open(running: Running) -> str:
    """A database with its network and stock; two pools that overlap, and promises in one of them."""
    connection = await asyncpg.connect(running.database_url)
    await connection.execute("create database nearby")
    await connection.close()
    url = database_of(running, "nearby")
    await migrate(url)
    chance = random.Random(1)
    codes = [f"L{n:04d}" for n in range(LOCATIONS)]
    places = [
        {"code": code, "kind": "store", "lat": chance.uniform(26, 48), "lon": chance.uniform(-122, -70)}
        for code in codes
    ]
    db = await Database.open(url)
    try:
        for kind, rows in (
            ("locations", places),
            ("pools", [{"code": "web", "locations": codes}, {"code": "market", "locations": codes[::2]}]),
            ("channels", [{"code": "web", "pool": "web"}, {"code": "market", "pool": "market"}]),
            ("skus", [{"code": f"S{k}"} for k in range(SKUS)]),
        ):
            loaded = await load(db, kind=kind, rows=rows, who="benchmark", now=datetime.now(UTC))
            assert not loaded.refused, loaded.refused[:3]
        async with db.transaction() as tx:
            skus = [r[0] for r in await tx.fetch("select sku_id from sku")]
            pool = await tx.fetchval("select pool_id from pool where code = 'market'")
            await tx.execute(
                "insert into stock (sku_id, location_id, on_hand) select sku_id, location_id, 5 from sku, location"
            )
            await ledger.write(
                tx, await ledger.lock(tx, skus), resum=skus, demand=[ledger.Demand(s, pool, 100) for s in skus]
            )
        async with db.connection() as tx:
            await tx.execute("vacuum analyze")
    finally:
        await db.close()
    return url


async def _inside(url: str, *, calls: int) -> tuple[list[float], list[float]]:
    """Milliseconds of a bare round trip and of the call, in turn."""
    chance = random.Random(2)
    db = await Database.open(url)
    bare, ours = [], []
    try:
        async with db.connection() as tx:
            channel_id = await tx.fetchval("select channel_id from channel where code = 'web'")
        for _ in range(calls + WARM_CALLS):
            began = time.perf_counter()
            async with db.connection() as tx:
                await tx.fetchval("select 1")
            bare.append(1000 * (time.perf_counter() - began))
            began = time.perf_counter()
            near = await nearby(
                db, channel_id=channel_id, sku=f"S{chance.randrange(SKUS)}", lat=chance.uniform(26, 48),
                lon=chance.uniform(-122, -70), limit=LIMIT, now=datetime.now(UTC),
            )  # fmt: skip
            ours.append(1000 * (time.perf_counter() - began))
            if len(near) != LIMIT:
                raise Missing(f"{len(near)} locations were found, not {LIMIT}")
    finally:
        await db.close()
    return bare[WARM_CALLS:], ours[WARM_CALLS:]


@contextmanager
def _served(running: Running, url: str) -> Iterator[tuple[int, str]]:
    """The service on a port of its own, and a key; gone afterwards."""
    key = asyncio.run(_key(url))
    port = free_port("127.0.0.1")
    server = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.served", url, running.redis_url, str(port), "1"], env=environment(),
        start_new_session=True,
    )  # fmt: skip
    try:
        await_ready(server, port)
        yield port, key
    finally:
        server.terminate()
        try:
            server.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


async def _key(url: str) -> str:
    db = await Database.open(url)
    try:
        return await create_key(db, role="storefront", channel="web", who="benchmark")
    finally:
        await db.close()


def _outside(port: int, key: str, *, calls: int) -> list[float]:
    """Milliseconds of the call over one connection that stays open."""
    chance = random.Random(3)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    taken = []
    try:
        for _ in range(calls + WARM_CALLS):
            place = f"lat={chance.uniform(26, 48):.4f}&lon={chance.uniform(-122, -70):.4f}"
            began = time.perf_counter()
            connection.request(
                "GET", f"/v1/atp/S{chance.randrange(SKUS)}/nearby?channel=web&{place}&limit={LIMIT}",
                headers={"Authorization": f"Bearer {key}"},
            )  # fmt: skip
            answer = connection.getresponse()
            body = answer.read()
            taken.append(1000 * (time.perf_counter() - began))
            if answer.status != 200:
                raise Missing(f"the service answered {answer.status}: {body[:200]!r}")
    finally:
        connection.close()
    return taken[WARM_CALLS:]
