"""Small random problems, and the least cost among all plans of one, by trying each."""

from itertools import product

import numpy as np

from brokering import Assignment, Line, Location, Order, Plan, Policy, Problem, Protected, Stock, Unfilled, audit
from brokering.audit import capacity_suffices, place_may_serve, promises_are_kept, split_is_kept, stock_suffices
from brokering.book import Book

LEGAL = (stock_suffices, capacity_suffices, place_may_serve, split_is_kept, promises_are_kept)
LIMITS = {"steps_max": 40, "pieces_max": 8}
"""Tests limit iterations, not seconds."""


def random_problem(
    seed: int, *, orders: int = 4, locations: int = 3, skus: int = 3, lines_max: int = 3, classes: int = 1,
    protected: bool = False,
) -> Problem:  # fmt: skip
    """Scarce stock, tight work, overlapping pools, every split rule."""
    r = np.random.default_rng(seed)
    splits = ["free", "single", "complete", "max_packages", "keep_together"]
    made, lines = [], []
    for o in range(orders):
        split = splits[int(r.integers(len(splits)))]
        made.append(
            Order(
                f"o{o}", float(r.uniform(30, 45)), float(r.uniform(-120, -75)), int(r.integers(classes)), split,  # type: ignore[arg-type]
                2 if split == "max_packages" else None, int(r.choice([1, 3, 6])),
            )
        )  # fmt: skip
        lines += [
            Line(
                len(lines) + 1 + i, 1, f"o{o}", int(sku), int(r.integers(1, 3)), int(r.integers(1, 3)),
                int(r.integers(500, 9000)), int(r.integers(100, 3000)), "all" if split == "keep_together" else None,
            )
            for i, sku in enumerate(r.permutation(skus)[: int(r.integers(1, lines_max + 1))])
        ]  # fmt: skip
    places = [
        Location(
            n, "warehouse" if n == 0 else "store", float(r.uniform(30, 45)), float(r.uniform(-120, -75)),
            int(r.integers(1, orders + 1)) if r.random() < 0.6 else None, int(r.integers(2, 9)) if r.random() < 0.3 else None,
            int(r.integers(5_000, 40_000)) if r.random() < 0.2 else None,
        )
        for n in range(locations)
    ]  # fmt: skip
    stock = [
        Stock(k, n, int(r.integers(0, 4)), int(r.integers(0, 2)) * 100)
        for k in range(skus)
        for n in range(locations)
        if r.random() < 0.8
    ]
    pools = {1: tuple(range(locations)), 2: tuple(range(1, locations))}
    promised = [Protected(k, int(r.integers(1, 3)), int(r.integers(1, 3))) for k in range(skus)] if protected else []
    return Problem(made, lines, places, stock, pools, promised)


def least_cost(problem: Problem) -> int:
    """The least cost of all legal plans, each tried and judged by the rules of the audit; classes aside."""
    book = Book(problem)
    places = [n.location_id for n in problem.locations]
    best: int | None = None
    for choice in product([None, *places], repeat=len(problem.lines)):
        cents, packages = 0, set()
        for line, at in zip(problem.lines, choice, strict=True):
            order = book.orders[line.order_id]
            if at is None:
                cents += book.leave_cents(line)
            else:
                cents += book.line_cents(order, line, at, units=line.quantity)
                packages.add((order.order_id, at))
        cents += sum(book.package_cents(book.orders[o], n) for o, n in packages)
        if best is not None and cents >= best:
            continue
        plan = Plan(
            [
                Assignment(line.line_id, at, line.quantity)
                for line, at in zip(problem.lines, choice, strict=True)
                if at is not None
            ],
            [Unfilled(line.line_id, "left") for line, at in zip(problem.lines, choice, strict=True) if at is None],
            cents, 0, [], {}, {}, len(packages),
        )  # fmt: skip
        if not audit(problem, plan, LEGAL):
            best = cents
    assert best is not None
    return best


def one_order(
    *, locations: list[Location], stock: list[Stock], lines: list[Line] | None = None, order: Order | None = None,
    policy: Policy | None = None,
) -> Problem:  # fmt: skip
    """One order in New York of one line of sku 1, unless told otherwise; one pool of everything."""
    order = order or Order("o", 40.7, -74.0, promise_days=4)
    return Problem(
        [order], lines or [line(1)], locations, stock, {1: tuple(n.location_id for n in locations)},
        policy=policy or Policy(),
    )  # fmt: skip


def line(line_id: int, sku: int = 1, quantity: int = 1, order: str = "o", together: str | None = None) -> Line:
    return Line(line_id, 1, order, sku, quantity, 1, 4000, 500, together)


def place(location_id: int, lat: float | None, lon: float | None, **more: int) -> Location:
    return Location(location_id, "warehouse", lat, lon, **more)  # type: ignore[arg-type]
