"""Carts reserved over HTTP, durable before the answer: one hot sku, and carts over many, beside two controls.

The constant control is a POST of the same shape that reserves nothing; the usual way is a transaction per request: lock,
read, check, write, commit, over 16 connections. Rounds alternate; medians. PostgreSQL's fsync is on.
"""

import random
from pathlib import Path
from statistics import median

from benchmarks.atp import in_turn
from benchmarks.frame import Row, fsync_ms, row
from benchmarks.shopfront import HOT, rates, shopfront

SKUS, SKUS_QUICK = 10_000, 1_000
ROUNDS, ROUNDS_QUICK = 5, 2
SECONDS, SECONDS_QUICK = 4.0, 1.5
CONNECTIONS = 256
CARTS, LINES_MAX = 4_000, 4
HOT_RATIO_MIN, USUAL_RATIO_MIN, CARTS_RATIO_MIN, P99_MS_MAX, MEMORY_MB_MAX = 0.6, 8.0, 0.4, 30.0, 250.0
PATHS = ("/v1/reservations", "/constant/reservations", "/usual/reservations")


def run(*, quick: bool) -> list[Row]:
    """The rows of the table."""
    skus = SKUS_QUICK if quick else SKUS
    rounds, seconds = (ROUNDS_QUICK, SECONDS_QUICK) if quick else (ROUNDS, SECONDS)
    chance = random.Random(11)
    carts = [
        [{"sku": f"S{k:06d}", "quantity": 1} for k in chance.sample(range(1, skus), chance.randint(1, LINES_MAX))]
        for _ in range(CARTS)
    ]
    hot = [[{"sku": HOT, "quantity": 1}]]
    with shopfront(skus=skus) as shop:
        disk = fsync_ms(Path(shop.running.settings.home))

        def posts(path: str, some: list[list[dict[str, object]]]) -> list[str]:
            return [shop.post(path, {"channel": "web", "lines": lines}) for lines in some]

        ours, constant, usual = in_turn(
            shop, {p: posts(p, hot) for p in PATHS}, rounds=rounds, seconds=seconds, connections=CONNECTIONS
        )
        ours_many, constant_many = in_turn(
            shop, {p: posts(p, carts) for p in PATHS[:2]}, rounds=rounds, seconds=seconds, connections=CONNECTIONS
        )
        half = [
            shop.load(posts(PATHS[0], hot), connections=CONNECTIONS, seconds=seconds, per_second=rates(ours) / 2)
            for _ in range(rounds)
        ]
        memory = shop.memory_mb()
    refused = sum(m.report.statuses.get("409", 0) for m in ours)
    ratio = median(a.report.per_second / b.report.per_second for a, b in zip(ours, constant, strict=True))
    beside_usual = median(a.report.per_second / b.report.per_second for a, b in zip(ours, usual, strict=True))
    many = median(a.report.per_second / b.report.per_second for a, b in zip(ours_many, constant_many, strict=True))
    p99 = median(m.report.p99_ms for m in half)
    return [
        row(f"carts of one hot sku, {CONNECTIONS} connections", rates(ours), "carts/s",
            against=f"a constant answer: {rates(constant):,.0f}", ratio=ratio, reach=f"≥ {HOT_RATIO_MIN}",
            ok=ratio >= HOT_RATIO_MIN and not refused),
        row("the same", rates(ours), "carts/s", against=f"the usual way: {rates(usual):,.0f}", ratio=beside_usual,
            reach=f"≥ {USUAL_RATIO_MIN:g}", ok=beside_usual >= USUAL_RATIO_MIN),
        row("server CPU of a cart", median(m.cpu_us for m in ours), "µs",
            against=f"of the constant answer {median(m.cpu_us for m in constant):.0f}, "
            f"of the usual way {median(m.cpu_us for m in usual):.0f}"),
        row(f"carts of 1 to {LINES_MAX} lines over {skus:,} skus", rates(ours_many), "carts/s",
            against=f"a constant answer: {rates(constant_many):,.0f}", ratio=many, reach=f"≥ {CARTS_RATIO_MIN}",
            ok=many >= CARTS_RATIO_MIN),
        row("p99 at half of the peak, open loop", p99, "ms", against=f"{half[0].report.per_second:,.0f} carts/s",
            reach=f"≤ {P99_MS_MAX:g}", ok=p99 <= P99_MS_MAX),
        row("memory of the API process", memory, "MB", reach=f"≤ {MEMORY_MB_MAX:g}", ok=memory <= MEMORY_MB_MAX),
        row("fsync of this disk", disk, "ms"),
    ]  # fmt: skip
