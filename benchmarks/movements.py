"""Sales that arrive by the API in batches of 500, settled by group commit, while carts are reserved beside them.

Carts come by the clock at a steady rate, alone and beside the movements in turn; medians.
"""

import itertools
import random
import threading
import time
from datetime import UTC, datetime
from statistics import median

import httpx

from benchmarks.frame import Row, row
from benchmarks.shopfront import Shopfront, shopfront

SKUS, SKUS_QUICK = 10_000, 1_000
ROUNDS, ROUNDS_QUICK = 5, 2
SECONDS, SECONDS_QUICK = 6.0, 2.5
BATCH, SENDERS = 500, 2
CARTS_PER_SECOND, CONNECTIONS = 200.0, 64
PER_SECOND_MIN, P99_RATIO_MAX = 3_000.0, 2.0


class Tills(threading.Thread):
    """Sends batches of sales, one after the other, until it is told to end."""

    def __init__(self, shop: Shopfront, *, name: str, skus: int) -> None:
        super().__init__(daemon=True)
        self.shop, self.name, self.skus = shop, name, skus
        self.ended = threading.Event()
        self.applied = self.refused = 0
        self.seconds = 0.0

    def run(self) -> None:
        """Until `ended` is set."""
        chance, numbers = random.Random(self.name), itertools.count()
        url, headers = f"http://127.0.0.1:{self.shop.port}", {"authorization": f"Bearer {self.shop.key}"}
        began = time.perf_counter()
        with httpx.Client(base_url=url, headers=headers, timeout=60) as http:
            while not self.ended.is_set():
                batch = [
                    {"id": f"{self.name}-{next(numbers)}", "sku": f"S{chance.randrange(1, self.skus):06d}",
                     "location": f"L{chance.randrange(100):03d}", "kind": "sale", "quantity": 1,
                     "occurred_at": datetime.now(UTC).isoformat()}
                    for _ in range(BATCH)
                ]  # fmt: skip
                answer = http.post("/v1/feeds/erp/movements", json=batch)
                if answer.status_code == 503:
                    self.refused += 1
                    time.sleep(0.1)
                    continue
                answer.raise_for_status()
                self.applied += sum(result["outcome"] == "applied" for result in answer.json())
        self.seconds = time.perf_counter() - began


def run(*, quick: bool) -> list[Row]:
    """The rows of the table."""
    skus = SKUS_QUICK if quick else SKUS
    rounds, seconds = (ROUNDS_QUICK, SECONDS_QUICK) if quick else (ROUNDS, SECONDS)
    alone, beside, rates, refused = [], [], [], 0
    with shopfront(skus=skus, role="admin") as shop:
        chance = random.Random(3)
        carts = [
            shop.post("/v1/reservations", {"channel": "web", "lines": [{"sku": f"S{chance.randrange(1, skus):06d}", "quantity": 1}]})
            for _ in range(2_000)
        ]  # fmt: skip

        def shopped() -> float:
            return shop.load(carts, connections=CONNECTIONS, seconds=seconds, per_second=CARTS_PER_SECOND).report.p99_ms

        shopped()
        for number in range(rounds):
            alone.append(shopped())
            tills = [Tills(shop, name=f"till-{number}-{n}", skus=skus) for n in range(SENDERS)]
            for till in tills:
                till.start()
            beside.append(shopped())
            for till in tills:
                till.ended.set()
            for till in tills:
                till.join()
            rates.append(sum(till.applied / till.seconds for till in tills))
            refused += sum(till.refused for till in tills)
    per_second, ratio = median(rates), median(b / a for a, b in zip(alone, beside, strict=True))
    return [
        row(f"sales in batches of {BATCH}, {SENDERS} senders", per_second, "1/s",
            against=f"{CARTS_PER_SECOND:g} carts/s beside; {refused} batches were asked to come again",
            reach=f"≥ {PER_SECOND_MIN:g}", ok=per_second >= PER_SECOND_MIN),
        row("p99 of carts beside them", median(beside), "ms", against=f"{median(alone):.1f} ms alone", ratio=ratio,
            reach=f"≤ {P99_RATIO_MAX:g} ×", ok=ratio <= P99_RATIO_MAX),
    ]  # fmt: skip
