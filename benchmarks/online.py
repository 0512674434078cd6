"""A day of orders, decided one by one at prices of days before, beside a joint plan that knew the whole day."""

import time

import msgspec
import numpy as np

from benchmarks.frame import Row, percentile, row
from benchmarks.instances import make, sources
from brokering import Online, Plan, Policy, Problem, Shadow, broker, one_at_a_time
from brokering.online import planned

DAYS = 4
"""Days before, from which the prices are."""
REPRICED = 4
"""How often a day the prices are worked out again, from what is left."""
SCARCITY, CAPACITY = 4.0, 1.25
STEPS = 60


def run(*, quick: bool) -> list[Row]:
    """The rows of the table."""
    orders, stores, seconds = (1000, 100, 4.0) if quick else (10_000, 200, 60.0)
    today, before = days(orders, stores, seed=1)
    hindsight = broker(today, seconds=seconds, explain=False)
    exact = one_at_a_time(today)
    plan, micros = replay(today, before)
    name = f"a day of {orders:,} orders × {stores + 3} locations"
    over = 100 * (plan.cost / hindsight.cost - 1)
    rows = [
        row(f"{name}: above hindsight", over, "%", against=f"{100 * (exact.cost / hindsight.cost - 1):.1f} % one at a time, exact",
            reach="≤ 5 %", ok=over <= 5),
    ]  # fmt: skip
    wide, _ = days(2000, 500, seed=2)
    _, micros_wide = replay(wide, [])
    for locations, taken in ((stores + 3, micros), (503, micros_wide)):
        half, most = percentile(taken, 0.5), percentile(taken, 0.99)
        rows.append(row(f"a decision among {locations} locations: p50", half, "µs", reach="≤ 100", ok=half <= 100))
        rows.append(row(f"a decision among {locations} locations: p99", most, "µs", reach="≤ 1000", ok=most <= 1000))
    return rows


def days(orders: int, stores: int, *, seed: int) -> tuple[Problem, list[Problem]]:
    """Today and the days before, each with today's opening stock and capacity."""
    all_days = make(
        sources(), orders=orders * (DAYS + 1), stores=stores, scarcity=SCARCITY / (DAYS + 1),
        capacity=CAPACITY / (DAYS + 1), seed=seed,
    )  # fmt: skip
    priced = msgspec.structs.replace(all_days, policy=Policy(overtaking=True))
    parts = [part(priced, {o.order_id for o in all_days.orders[d :: DAYS + 1]}) for d in range(DAYS + 1)]
    return parts[0], parts[1:]


def part(problem: Problem, ids: set[str]) -> Problem:
    """The problem of some of its orders."""
    return msgspec.structs.replace(
        problem, orders=[o for o in problem.orders if o.order_id in ids],
        lines=[n for n in problem.lines if n.order_id in ids],
    )  # fmt: skip


def replay(today: Problem, before: list[Problem]) -> tuple[Plan, list[float]]:
    """Decides a day's orders in turn; a plan of what was decided, and the microseconds of each decision."""
    chance = np.random.default_rng(5)
    ids = [o.order_id for o in today.orders]
    online, taken, decided = Online(today), [], []
    for quarter in range(REPRICED):
        start, end = len(ids) * quarter // REPRICED, len(ids) * (quarter + 1) // REPRICED
        online.reprice([prices(day, online, today, 1 - start / len(ids), chance) for day in before])
        for order_id in ids[start:end]:
            began = time.perf_counter_ns()
            decided += online.decide(order_id)
            taken.append((time.perf_counter_ns() - began) / 1000)
    return planned(today, decided), taken


def prices(day: Problem, online: Online, today: Problem, share: float, chance: np.random.Generator) -> Shadow:
    """Prices of a share of a day before, at what is left today."""
    count = int(len(day.orders) * share)
    picked = {day.orders[i].order_id for i in chance.permutation(len(day.orders))[:count].tolist()}
    left = part(msgspec.structs.replace(day, stock=online.stock_left(day.stock), locations=online.work_left()), picked)
    return broker(left, steps_max=STEPS, pieces_max=0, explain=False, seconds=600).prices
