"""Brokering: one joint plan beside nearest-with-stock and one order at a time, on the same problems in the same run."""

import resource
import time
from statistics import median
from typing import Any

from benchmarks.instances import Sources, make, sources
from brokering import Plan, Problem, audit, broker, nearest, one_at_a_time

SEEDS = (1, 2, 3)
# orders, stores, stock / demand, capacity / orders, seconds, reach of gap in %
QUICK = ((1_000, 100, 4.0, 1.25, 3.0, 0.5),)
SIZES = (
    (1_000, 100, 4.0, 1.25, 3.0, 0.5),
    (5_000, 57, 4.0, 1.25, 10.0, 0.5),
    (10_000, 200, 4.0, 1.25, 12.0, 0.5),
)
LARGEST = (50_000, 500, 4.0, 1.25, 80.0, 1.5)
LARGEST_SECONDS, LARGEST_GB = 90.0, 1.5


def run(*, quick: bool) -> list[dict[str, Any]]:
    """Rows of figures: medians over the seeds, each problem planned by all three in turn."""
    data = sources()
    rows: list[dict[str, Any]] = []
    for size in QUICK if quick else SIZES:
        rows += _of_size(data, *size)
    if not quick:
        rows += _largest(data)
    return rows


def _of_size(
    data: Sources, orders: int, stores: int, scarcity: float, capacity: float, seconds: float, reach: float
) -> list[dict[str, Any]]:
    name = f"{orders:,} orders × {stores + 3} locations"
    plans: list[tuple[Plan, Plan, Plan]] = []
    took: list[float] = []
    lines: list[int] = []
    for seed in SEEDS:
        problem = make(data, orders=orders, stores=stores, scarcity=scarcity, capacity=capacity, seed=seed)
        began = time.perf_counter()
        plan = broker(problem, seconds=seconds)
        took.append(time.perf_counter() - began)
        lines.append(len(problem.lines))
        plans.append((plan, _legal(problem, nearest(problem)), _legal(problem, one_at_a_time(problem))))
        _legal(problem, plan)
    gap = 100 * median(p.gap for p, _, _ in plans)
    rows = [
        _row(f"{name}: gap to the bound", gap, "%", "no plan can beat the bound", None, f"≤ {reach} %", gap <= reach)
    ]
    for at, rule in ((1, "nearest with stock"), (2, "one order at a time, exact")):
        ratio = median(p[0].cost / p[at].cost for p in plans)
        saved = 100 * (1 - ratio)
        rows.append(_row(f"{name}: cost saved", saved, "%", rule, ratio, "> 0", saved > 0))
    least = seconds * 1.2
    spent = median(took)
    rows.append(
        _row(f"{name}: seconds ({median(lines):,.0f} lines)", spent, "s", "given to it", spent / seconds,
             f"≤ {least:.1f} s", spent <= least)
    )  # fmt: skip
    shares = [median(_split_share(p[at]) for p in plans) for at in (0, 1)]
    rows.append(
        _row(f"{name}: packages per order sent", shares[0], "packages", f"nearest with stock: {shares[1]:.3f}",
             shares[0] / shares[1], "", None)
    )  # fmt: skip
    return rows


def _largest(data: Sources) -> list[dict[str, Any]]:
    orders, stores, scarcity, capacity, seconds, reach = LARGEST
    name = f"{orders:,} orders × {stores + 3} locations"
    problem = make(data, orders=int(orders), stores=int(stores), scarcity=scarcity, capacity=capacity, seed=SEEDS[0])
    began = time.perf_counter()
    plan = _legal(problem, broker(problem, seconds=seconds))
    took = time.perf_counter() - began
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    gap, ratio = 100 * plan.gap, plan.cost / nearest(problem).cost
    return [
        _row(f"{name}: gap to the bound", gap, "%", "no plan can beat the bound", None, f"≤ {reach} %", gap <= reach),
        _row(f"{name}: cost saved", 100 * (1 - ratio), "%", "nearest with stock", ratio, "> 0", ratio < 1),
        _row(f"{name}: seconds with the audit ({len(problem.lines):,} lines)", took, "s", "", None,
             f"≤ {LARGEST_SECONDS + 10} s", took <= LARGEST_SECONDS + 10),
        _row(f"{name}: memory of the process", memory, "GB", "", None, f"≤ {LARGEST_GB} GB", memory <= LARGEST_GB),
    ]  # fmt: skip


def _legal(problem: Problem, plan: Plan) -> Plan:
    faults = audit(problem, plan)
    if faults:
        raise AssertionError(f"a plan breaks the law: {faults[:3]}")
    return plan


def _split_share(plan: Plan) -> float:
    """Packages per order that got any."""
    sent = sum(any(term != "left" for term in d.cents) for d in plan.decisions)
    return plan.packages / max(1, sent)


def _row(
    figure: str, value: float, unit: str, against: str, ratio: float | None, reach: str, ok: bool | None
) -> dict[str, Any]:
    return {
        "figure": figure, "value": round(value, 4), "unit": unit, "against": against,
        "ratio": None if ratio is None else round(ratio, 4), "reach": reach, "ok": ok,
    }  # fmt: skip
