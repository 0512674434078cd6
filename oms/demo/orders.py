"""The demo's orders: what two channels captured overnight, as bodies of POST /v1/orders."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from oms.demo.real import real
from oms.demo.world import World

NIGHT = timedelta(hours=10)
MARKET_SHARE = 0.2
PRIORITIES = ((0, 0.80), (1, 0.15), (4, 0.05))
SPLITS = (("free", 0.75), ("single", 0.15), ("complete", 0.10))
PROMISES = (("express", 2, 0.4), ("standard", 4, 0.4), ("economy", 6, 0.2))
TWICE_SHARE = 0.02
KIT_EVERY = 300


class Written(msgspec.Struct, frozen=True):
    """Orders and lines, each counted once, and how many were sent twice."""

    orders: int
    lines: int
    twice: int


def write_orders(path: Path, world: World, *, seed: int, now: datetime) -> Written:
    """One order per line, in the order in which they were placed; some come twice, byte for byte."""
    rng, data = np.random.default_rng([seed, 8]), real()
    orders = len(world.destination)
    ends = np.searchsorted(world.order, np.arange(orders + 1)).tolist()
    placed = np.sort(rng.integers(60, int(NIGHT.total_seconds()), orders))[::-1].tolist()
    market = rng.random(orders) < MARKET_SHARE
    chosen = {
        name: rng.choice(len(table), size=orders, p=[row[-1] for row in table]).tolist()
        for name, table in (("priority", PRIORITIES), ("split", SPLITS), ("promise", PROMISES))
    }
    prefix = f"{now:%y%m%d%H%M}"
    due: list[tuple[float, bytes]] = []
    lines = twice = 0
    for k in range(orders):
        begin, end = ends[k], ends[k + 1]
        items = [world.items[sku] for sku in world.sku[begin:end].tolist()]
        wanted = [(i.code, q, i.price_cents) for i, q in zip(items, world.quantity[begin:end].tolist(), strict=True)]
        if k % KIT_EVERY == KIT_EVERY - 1 and world.kits:
            kit = world.kits[k // KIT_EVERY % len(world.kits)]
            wanted[-1] = (kit.code, 1, kit.price_cents)
        lines += len(wanted)
        method, promise_days, _ = PROMISES[chosen["promise"][k]]
        to = int(world.destination[k])
        lat, lon = data.postal_at[to].tolist()
        body: dict[str, Any] = {
            "channel": "market" if market[k] else "shop",
            "number": f"{'M' if market[k] else 'S'}{prefix}-{k + 1:06d}",
            "placed_at": (now - timedelta(seconds=placed[k])).astimezone(UTC),
            "ship_to": {"postal_code": data.postal_codes[to], "country": "US", "lat": lat, "lon": lon},
            "method": method,
            "promise_days": promise_days,
            "priority": PRIORITIES[chosen["priority"][k]][0],
            "split": SPLITS[chosen["split"][k]][0] if len(wanted) > 1 else "free",
            "lines": [
                {"line": str(n), "sku": sku, "quantity": quantity, "price": price}
                for n, (sku, quantity, price) in enumerate(wanted, 1)
            ],
        }
        text = msgspec.json.encode(body)
        due.append((float(k), text))
        if rng.random() < TWICE_SHARE:
            twice += 1
            due.append((k + float(rng.integers(1, 200)) + 0.5, text))
    due.sort(key=lambda part: part[0])
    path.write_bytes(b"".join(text + b"\n" for _, text in due))
    return Written(orders, lines, twice)
