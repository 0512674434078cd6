"""What may be sold, over HTTP: single reads and many at once, beside a constant answer of the same shape.

Server and load share this machine. Rounds alternate between ours and the control; medians. At half of the peak, requests
come by the clock and a request's time begins when it was due.
"""

from statistics import median

from benchmarks.frame import Row, row
from benchmarks.shopfront import WARM_SECONDS, Measured, Shopfront, rates, shopfront

SKUS, SKUS_QUICK = 10_000, 1_000
ROUNDS, ROUNDS_QUICK = 5, 2
SECONDS, SECONDS_QUICK = 4.0, 1.5
CONNECTIONS = 32
MANY = 100
RATIO_MIN, MANY_RATIO_MIN, P99_MS_MAX, MEMORY_MB_MAX = 0.80, 15.0, 10.0, 250.0


def run(*, quick: bool) -> list[Row]:
    """The rows of the table."""
    skus = SKUS_QUICK if quick else SKUS
    rounds, seconds = (ROUNDS_QUICK, SECONDS_QUICK) if quick else (ROUNDS, SECONDS)
    with shopfront(skus=skus) as shop:
        codes = [f"S{k:06d}" for k in range(skus)]
        single = {p: [shop.get(f"{p}?channel=web&sku={code}") for code in codes] for p in ("/v1/atp", "/constant/atp")}
        many = {
            p: [shop.post(p, {"channel": "web", "skus": codes[k : k + MANY]}) for k in range(0, skus, MANY)]
            for p in ("/v1/atp", "/constant/atp")
        }
        ours, control = in_turn(shop, single, rounds=rounds, seconds=seconds)
        bulk, _ = in_turn(shop, many, rounds=rounds, seconds=seconds)
        half = [
            shop.load(single["/v1/atp"], connections=CONNECTIONS * 2, seconds=seconds, per_second=rates(ours) / 2)
            for _ in range(rounds)
        ]
        memory = shop.memory_mb()
    ratio = median(a.report.per_second / b.report.per_second for a, b in zip(ours, control, strict=True))
    more = MANY * rates(bulk) / rates(ours)
    p99 = median(m.report.p99_ms for m in half)
    return [
        row(f"single reads, {CONNECTIONS} connections", rates(ours), "requests/s",
            against=f"a constant answer: {rates(control):,.0f}", ratio=ratio, reach=f"≥ {RATIO_MIN}", ok=ratio >= RATIO_MIN),
        row("server CPU of a single read", median(m.cpu_us for m in ours), "µs",
            against=f"of the constant answer: {median(m.cpu_us for m in control):.0f}"),
        row(f"reads of {MANY} skus", MANY * rates(bulk), "skus/s", against="single reads", ratio=more,
            reach=f"≥ {MANY_RATIO_MIN:g}", ok=more >= MANY_RATIO_MIN),
        row("p99 at half of the peak, open loop", p99, "ms",
            against=f"{half[0].report.per_second:,.0f} requests/s", reach=f"≤ {P99_MS_MAX:g}", ok=p99 <= P99_MS_MAX),
        row("memory of the API process", memory, "MB", reach=f"≤ {MEMORY_MB_MAX:g}", ok=memory <= MEMORY_MB_MAX),
    ]  # fmt: skip


def in_turn(
    shop: Shopfront, requests: dict[str, list[str]], *, rounds: int, seconds: float, connections: int = CONNECTIONS
) -> tuple[list[Measured], ...]:
    """Each path in turn, round after round, after a warm one; what came of each path."""
    for some in requests.values():
        shop.load(some, connections=connections, seconds=WARM_SECONDS)
    found: dict[str, list[Measured]] = {path: [] for path in requests}
    for _ in range(rounds):
        for path, some in requests.items():
            found[path].append(shop.load(some, connections=connections, seconds=seconds))
    return tuple(found.values())
