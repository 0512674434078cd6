"""Brokering: one joint plan beside nearest-with-stock, one order at a time and order routings, on the same problems.

The routings are of the HotWax kind: what is promised soon near by and whole, then wider and in parts, then anywhere.

Classes may be overtaken here, since the bound lets them: what the law of classes costs is a row of its own. The largest
size runs only where BROKER_LARGEST is set, for it takes a quarter of an hour and several gigabytes.
"""

import os
import threading
import time
from pathlib import Path
from statistics import median

import msgspec

from benchmarks.frame import Row, memory_mb, row
from benchmarks.instances import Sources, make, sources
from benchmarks.monolith import optimum
from brokering import Plan, Policy, Problem, audit, broker, nearest, one_at_a_time
from brokering.route import route
from brokering.routings import Filter, Routing, Routings, Rule

SEEDS = (1, 2, 3)
COMPARED_ORDERS_MAX = 20_000
OPTIMUM_SECONDS = 120.0
AUDITED_ORDERS_MAX = 100_000


ROUTINGS = Routings((
    Routing(
        "promised soon",
        (
            Rule("one place within 150 miles", miles_max=150, stock_min=2, sorts=("distance",)),
            Rule("one place within 600 miles", miles_max=600, sorts=("distance",)),
            Rule("several within 600 miles", is_single=False, miles_max=600, sorts=("distance",)),
            Rule("several anywhere", is_single=False, sorts=("distance",)),
        ),
        (Filter("promise_days", "less_equals", ("2",)),), ("priority", "placed"),
    ),
    Routing(
        "the rest",
        (
            Rule("one place within 300 miles", miles_max=300, stock_min=3, sorts=("distance",)),
            Rule("one place anywhere", sorts=("distance",)),
            Rule("several anywhere", is_single=False, sorts=("distance", "stock")),
        ),
        (), ("priority", "placed"),
    ),
))  # fmt: skip


def routed(problem: Problem) -> Plan:
    """What order routings plan."""
    return route(problem, ROUTINGS).plan


OTHERS = (
    ("nearest with stock", nearest), ("one order at a time, exact", one_at_a_time), ("order routings, rule by rule", routed),
)  # fmt: skip


class Size(msgspec.Struct, frozen=True):
    """A problem's size, what it is given, and what is to be reached: seconds, gap in %, gigabytes.

    With `exact` the gap is to the best plan there is, found by HiGHS in the same run; else to the engine's own bound.
    """

    orders: int
    stores: int
    scarcity: float
    capacity: float
    seconds: float
    gap: float
    gigabytes: float
    seeds: tuple[int, ...] = SEEDS
    exact: bool = False

    @property
    def name(self) -> str:
        """What it is called in the table."""
        return f"{self.orders:,} × {self.stores + 3}, {self.scarcity:g}"


QUICK = (Size(1_000, 100, 4.0, 1.25, 2.0, 0.05, 0.4, exact=True),)
SIZES = (
    *QUICK,
    Size(10_000, 200, 4.0, 1.25, 8.0, 0.35, 0.4),
    Size(100_000, 500, 12.0, 3.0, 60.0, 0.15, 1.5, (1,)),
    Size(100_000, 500, 4.0, 1.25, 120.0, 0.50, 2.0, (1,)),
)
LARGEST = Size(1_000_000, 1_000, 12.0, 3.0, 900.0, 0.30, 8.0, (1,))


def run(*, quick: bool) -> list[Row]:
    """Rows of figures: medians and worst over the seeds, each problem planned by all in turn."""
    data = sources()
    rows: list[Row] = []
    for size in QUICK if quick else SIZES:
        rows += _of_size(data, size)
    if not quick and os.environ.get("BROKER_LARGEST"):
        rows += _of_size(data, LARGEST)
    if not quick:
        rows += _classes(data)
    return rows


def _of_size(data: Sources, size: Size) -> list[Row]:
    gaps, took, memory = [], [], []
    saved: dict[str, list[float]] = {}
    for seed in size.seeds:
        problem = _problem(data, size, seed, overtaking=True)
        with Memory() as used:
            began = time.perf_counter()
            plan = broker(problem, seconds=size.seconds * 0.95, explain=size.orders <= AUDITED_ORDERS_MAX)
            took.append(time.perf_counter() - began)
        memory.append(used.gigabytes)
        gaps.append(100 * (_above_optimum(problem, plan) if size.exact else plan.gap))
        if size.orders <= AUDITED_ORDERS_MAX:
            _legal(problem, plan)
        if size.orders <= COMPARED_ORDERS_MAX:
            for rule, other in OTHERS:
                saved.setdefault(rule, []).append(100 * (1 - plan.cost / _legal(problem, other(problem)).cost))
    seeds = f"{len(size.seeds)} seed{'s' * (len(size.seeds) > 1)}"
    worst = f"worst of {seeds}: {max(gaps):.3f}"
    rows = [
        row(f"{size.name}: {'above the optimum' if size.exact else 'gap'}", median(gaps), "%", against=worst, reach=f"≤ {size.gap:g}", ok=max(gaps) <= size.gap),
        row(f"{size.name}: seconds", median(took), "s", against=f"worst of {seeds}: {max(took):.1f}",
            reach=f"≤ {size.seconds:g}", ok=max(took) <= size.seconds),
        row(f"{size.name}: memory of all processes", max(memory), "GB", against="with the problem itself",
            reach=f"≤ {size.gigabytes:g}", ok=max(memory) <= size.gigabytes),
    ]  # fmt: skip
    return rows + [
        row(f"{size.name}: cost saved", median(s), "%", against=rule, reach="> 0", ok=min(s) > 0)
        for rule, s in saved.items()
    ]


def _classes(data: Sources) -> list[Row]:
    """What it costs that no class may be overtaken."""
    size = SIZES[0]
    more = []
    for seed in size.seeds:
        free, strict = (_problem(data, size, seed, overtaking=o) for o in (True, False))
        plans = broker(free, seconds=size.seconds), _legal(strict, broker(strict, seconds=size.seconds))
        more.append(100 * (plans[1].cost / plans[0].cost - 1))
    return [row(f"{size.name}: what the law of classes costs", median(more), "%", against="classes as prices alone")]


def _problem(data: Sources, size: Size, seed: int, *, overtaking: bool) -> Problem:
    problem = make(
        data, orders=size.orders, stores=size.stores, scarcity=size.scarcity, capacity=size.capacity, seed=seed
    )  # fmt: skip
    return msgspec.structs.replace(problem, policy=Policy(overtaking=overtaking))


def _above_optimum(problem: Problem, plan: Plan) -> float:
    """How far a plan costs more than the best there is, as a share."""
    found = optimum(problem, seconds=OPTIMUM_SECONDS)
    if found is None or found[1] < (1 - 1e-5) * found[0]:
        raise AssertionError(f"the optimum was not found within {OPTIMUM_SECONDS:g} s: {found}")
    return plan.cost / found[0] - 1


def _legal(problem: Problem, plan: Plan) -> Plan:
    faults = audit(problem, plan)
    if faults:
        raise AssertionError(f"a plan breaks the law: {faults[:3]}")
    return plan


class Memory:
    """The most memory of this process and its children while it is open: their proportional shares, where told."""

    def __init__(self) -> None:
        self.gigabytes = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Memory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.2):
            self.gigabytes = max(self.gigabytes, _share_gigabytes())


def _share_gigabytes() -> float:
    me = os.getpid()
    children = Path(f"/proc/{me}/task/{me}/children")
    if not children.exists():
        return memory_mb() / 1024
    total = 0
    for process in (str(me), *children.read_text().split()):
        rollup = Path(f"/proc/{process}/smaps_rollup")
        try:
            shares = [line for line in rollup.read_text().splitlines() if line.startswith("Pss:")]
        except OSError:  # it has ended
            continue
        total += int(shares[0].split()[1]) if shares else 0
    return total / 2**20
