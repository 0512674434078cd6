"""Ten thousand carts at once for the last thousand units, over HTTP and several API processes: exactly as many are sold.

Then the same across three pools that overlap and a pick-up, where what is sold in all must be the most that any choice of
carts could have sold: a maximum flow, computed apart. A 503 is tried again with its key.
"""

import asyncio
import random
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from benchmarks.frame import Row, row
from benchmarks.shopfront import Shopfront, shopfront, take
from brokering.promises import keepable
from oms.db import Database
from oms.flows.network import load
from oms.flows.reconcile import verify

TIMES, TIMES_QUICK = 20, 2
MIXED_TIMES, MIXED_TIMES_QUICK = 5, 1
CARTS, UNITS, PROCESSES, CONNECTIONS = 10_000, 1_000, 4, 10_000
CARTS_QUICK, CONNECTIONS_QUICK = 2_000, 2_000
SECONDS_MAX = 300.0
EAST = [f"L{n:03d}" for n in range(50)]
STORE = "L003"
STOCK = {"L000": 300, "L001": 250, "L003": 50, "L060": 250, "L061": 150}
"""market sells from even locations, east from the first fifty, web from all; the pick-up is at a store of web and east."""
DEMAND = {"web": 100, "market": 3000, "east": 3000, STORE: 200}


def run(*, quick: bool) -> list[Row]:
    """The rows of the table."""
    times, mixed = (TIMES_QUICK, MIXED_TIMES_QUICK) if quick else (TIMES, MIXED_TIMES)
    carts, connections = (CARTS_QUICK, CONNECTIONS_QUICK) if quick else (CARTS, CONNECTIONS)
    with shopfront(skus=10, workers=PROCESSES, role="operator") as shop:
        one = [f"T{n:02d}" for n in range(times)]
        many = [f"M{n:02d}" for n in range(mixed)]
        asyncio.run(_stock(shop, one=one, many=many))
        sold = [_sold(shop, [_cart(sku, "web") for _ in range(carts)], connections=connections) for sku in one]
        most = _most()
        sold_mixed = [_sold(shop, _mixed(sku, seed=k), connections=connections) for k, sku in enumerate(many)]
        differences = asyncio.run(_differences(shop.url))
    exact, exact_mixed = sum(n == UNITS for n in sold), sum(n == most for n in sold_mixed)
    return [
        row(f"{carts:,} carts for {UNITS:,} units, {PROCESSES} processes: exactly all sold", exact, "times",
            against=f"of {times}", ratio=exact / times, reach="1", ok=exact == times),
        row("three overlapping pools and a pick-up: exactly the maximum sold", exact_mixed, "times",
            against=f"of {mixed}; {most:,} units", ratio=exact_mixed / mixed, reach="1", ok=exact_mixed == mixed),
        row("rows that the ledger does not explain afterwards", differences, "rows", reach="0", ok=not differences),
    ]  # fmt: skip


def _cart(sku: str, channel: str, location: str | None = None) -> dict[str, object]:
    body: dict[str, object] = {"channel": channel, "lines": [{"sku": sku, "quantity": 1}]}
    return body | ({"location": location} if location else {})


def _mixed(sku: str, *, seed: int) -> list[dict[str, object]]:
    carts = [_cart(sku, "web", c) if c == STORE else _cart(sku, c) for c, n in DEMAND.items() for _ in range(n)]
    random.Random(seed).shuffle(carts)
    return carts


def _sold(shop: Shopfront, carts: Sequence[dict[str, object]], *, connections: int) -> int:
    requests = [shop.post("/v1/reservations", cart, key=str(uuid4())) for cart in carts]
    report = shop.each_once(requests, connections=min(connections, len(carts)), seconds_max=SECONDS_MAX)
    told = {status: n for status, n in report.statuses.items() if status != "503"}
    assert set(told) <= {"201", "409"} and sum(told.values()) == len(carts), report
    return told.get("201", 0)


def _most() -> int:
    """The most that can be sold of the mixed demand."""
    places = {code: n for n, code in enumerate(STOCK)}
    sells = {"web": set(STOCK), "market": {c for c in STOCK if not int(c[1:]) % 2}, "east": STOCK.keys() & set(EAST),
             STORE: {STORE}}  # fmt: skip
    demands = [(frozenset(places[c] for c in sells[who]), units) for who, units in DEMAND.items()]
    return keepable(demands, {places[c]: units for c, units in STOCK.items()})[0]


async def _stock(shop: Shopfront, *, one: Sequence[str], many: Sequence[str]) -> None:
    db = await Database.open(shop.url)
    try:
        for kind, rows in (
            ("skus", [{"code": sku} for sku in (*one, *many)]),
            ("pools", [{"code": "east", "locations": EAST}]),
            ("channels", [{"code": "east", "pool": "east"}]),
        ):
            assert not (await load(db, kind=kind, rows=rows, who="benchmark", now=datetime.now(UTC))).refused
        file = Path(shop.running.settings.home) / "feeds" / "last.csv"
        lines = [f"{sku},L000,{UNITS}" for sku in one]
        lines += [f"{sku},{location},{units}" for sku in many for location, units in STOCK.items()]
        file.write_text("sku,location,quantity\n" + "\n".join(lines) + "\n")
        await take(db, file, scope="partial")
    finally:
        await db.close()


async def _differences(url: str) -> int:
    db = await Database.open(url)
    try:
        return len((await verify(db))[1])
    finally:
        await db.close()
