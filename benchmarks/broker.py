"""Brokering: one joint plan beside nearest-with-stock and one order at a time, on the same problems in the same run."""

import time
from statistics import median

from benchmarks.frame import Row, memory_mb, row
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


def run(*, quick: bool) -> list[Row]:
    """Rows of figures: medians over the seeds, each problem planned by all three in turn."""
    data = sources()
    rows: list[Row] = []
    for size in QUICK if quick else SIZES:
        rows += _of_size(data, *size)
    if not quick:
        rows += _largest(data)
    return rows


def _of_size(
    data: Sources, orders: int, stores: int, scarcity: float, capacity: float, seconds: float, reach: float
) -> list[Row]:
    name = f"{orders:,} orders × {stores + 3} locations"
    plans: list[tuple[Plan, Plan, Plan]] = []
    packages: list[tuple[float, float]] = []
    took: list[float] = []
    lines: list[int] = []
    for seed in SEEDS:
        problem = make(data, orders=orders, stores=stores, scarcity=scarcity, capacity=capacity, seed=seed)
        began = time.perf_counter()
        plan = broker(problem, seconds=seconds)
        took.append(time.perf_counter() - began)
        lines.append(len(problem.lines))
        plans.append((plan, _legal(problem, nearest(problem)), _legal(problem, one_at_a_time(problem))))
        packages.append(
            (_packages_per_order(problem, _legal(problem, plan)), _packages_per_order(problem, plans[-1][1]))
        )
    gap = 100 * median(p.gap for p, _, _ in plans)
    rows = [gap_row(name, gap, reach)]
    for at, rule in ((1, "nearest with stock"), (2, "one order at a time, exact")):
        saved = 100 * (1 - median(p[0].cost / p[at].cost for p in plans))
        rows.append(saved_row(name, saved, rule))
    least = seconds * 1.2
    spent = median(took)
    rows.append(
        row(f"{name}: seconds ({median(lines):,.0f} lines)", spent, "s", against=f"{seconds:g} s given to it",
            ratio=spent / seconds, reach=f"≤ {least:.1f} s", ok=spent <= least)
    )  # fmt: skip
    ours, simple = (median(pair[at] for pair in packages) for at in (0, 1))
    rows.append(
        row(f"{name}: packages per order sent", ours, "packages", against=f"{simple:.3f} nearest with stock",
            ratio=ours / simple)
    )  # fmt: skip
    return rows


def _largest(data: Sources) -> list[Row]:
    orders, stores, scarcity, capacity, seconds, reach = LARGEST
    name = f"{orders:,} orders × {stores + 3} locations"
    problem = make(data, orders=int(orders), stores=int(stores), scarcity=scarcity, capacity=capacity, seed=SEEDS[0])
    began = time.perf_counter()
    plan = _legal(problem, broker(problem, seconds=seconds))
    took = time.perf_counter() - began
    memory = memory_mb() / 1024
    return [
        gap_row(name, 100 * plan.gap, reach),
        saved_row(name, 100 * (1 - plan.cost / nearest(problem).cost), "nearest with stock"),
        row(f"{name}: seconds with the audit ({len(problem.lines):,} lines)", took, "s",
            against=f"{seconds:g} s given to it", ratio=took / seconds, reach=f"≤ {LARGEST_SECONDS + 10:g} s",
            ok=took <= LARGEST_SECONDS + 10),
        row(f"{name}: peak memory of the process", memory, "GB", reach=f"≤ {LARGEST_GB} GB", ok=memory <= LARGEST_GB),
    ]  # fmt: skip


def gap_row(name: str, gap: float, reach: float) -> Row:
    """How far a plan is from what nothing can beat, in %."""
    return row(
        f"{name}: gap", gap, "%", against="the bound that no plan can beat", reach=f"≤ {reach} %", ok=gap <= reach
    )


def saved_row(name: str, saved: float, rule: str) -> Row:
    """What a plan saves against a simple rule, in %."""
    return row(f"{name}: cost saved", saved, "%", against=rule, ratio=1 - saved / 100, reach="> 0", ok=saved > 0)


def _legal(problem: Problem, plan: Plan) -> Plan:
    faults = audit(problem, plan)
    if faults:
        raise AssertionError(f"a plan breaks the law: {faults[:3]}")
    return plan


def _packages_per_order(problem: Problem, plan: Plan) -> float:
    """Packages per order that gets any."""
    order_of = {line.line_id: line.order_id for line in problem.lines}
    return plan.packages / max(1, len({order_of[a.line_id] for a in plan.assignments}))
