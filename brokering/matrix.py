"""A problem as arrays: orders of items × locations, with what each pairing costs."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from brokering.problem import Problem

INF = 1e15
EARTH_MILES = 3958.8
GRAMS_PER_POUND = 453.59237
ITEMS_EXACT_MAX = 6
"""Orders with more items are planned greedily: subsets grow as 3^items."""
MODES = {"free": 0, "keep_together": 0, "single": 1, "complete": 2, "max_packages": 3}

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Matrix:
    """Items are lines, or lines that stay together. Items of an order are consecutive; so are lines of an item."""

    problem: Problem
    location_ids: Ints  # [N]
    order_first: Ints  # [O+1] items of order o: order_first[o]:order_first[o+1]
    item_first: Ints  # [I+1] lines of item i
    line_index: Ints  # [lines] place in problem.lines
    item_order: Ints  # [I]
    line_item: Ints
    line_sku: Ints  # [lines] row of stock
    line_quantity: Ints
    line_pool: Ints
    stock: Ints  # [K,N]
    capacity: Floats  # [N,3] orders, items, cents; INF is unlimited
    line_cents_of_capacity: Ints  # [lines] value × quantity
    zone: NDArray[np.int8]  # [D,N] by destination
    destination: Ints  # [O]
    mode: Ints  # [O]
    packages_max: Ints  # [O]
    priority: Ints  # [O]
    promise: Ints  # [O]
    only_location: Ints  # [O] or -1
    leave: Floats  # [lines]
    weight_pounds: Floats  # [lines] of all units
    value: Floats  # [lines] per unit
    pool_has: NDArray[np.bool_]  # [P,N]
    barred: dict[tuple[int, int], list[int]]  # (order, sku row) → locations
    is_store: NDArray[np.bool_]

    @property
    def orders(self) -> int:
        return len(self.order_first) - 1

    @property
    def items_per_order(self) -> Ints:
        return np.diff(self.order_first)


def miles(a: Floats, b: Floats) -> Floats:
    """Great-circle miles [A,B] between points [A,2] and [B,2] in degrees (haversine)."""
    a, b = np.radians(a), np.radians(b)
    h = (
        np.sin((a[:, None, 0] - b[None, :, 0]) / 2) ** 2
        + np.cos(a[:, None, 0]) * np.cos(b[None, :, 0]) * np.sin((a[:, None, 1] - b[None, :, 1]) / 2) ** 2
    )
    return 2 * EARTH_MILES * np.arcsin(np.sqrt(np.clip(h, 0, 1)))


def compile_problem(problem: Problem) -> Matrix:
    """Numbers everything. Raises ValueError for a line whose order, or a reference whose location, is not there."""
    policy, tariff = problem.policy, problem.policy.tariff
    places = {n.location_id: i for i, n in enumerate(problem.locations)}
    order_at = {o.order_id: i for i, o in enumerate(problem.orders)}
    if len(order_at) != len(problem.orders) or len(places) != len(problem.locations):
        raise ValueError("an order or a location stands twice in the problem")
    missing = next((n.order_id for n in problem.lines if n.order_id not in order_at), None)
    if missing is not None:
        raise ValueError(f"a line names order {missing!r}, which is not among the orders of the problem")
    sku_at = {sku: i for i, sku in enumerate(sorted({n.sku_id for n in problem.lines}))}
    pool_at = {pool: i for i, pool in enumerate(sorted(problem.pools))}
    pool_has = np.zeros((max(1, len(pool_at)), len(places)), bool)
    for pool, members in problem.pools.items():
        pool_has[pool_at[pool], [places[m] for m in members if m in places]] = True
    together = [
        (order_at[n.order_id], n.together if n.together is not None else "", i if n.together is None else -1, i)
        for i, n in enumerate(problem.lines)
    ]
    sequence = sorted(range(len(together)), key=together.__getitem__)
    lines = [problem.lines[i] for i in sequence]
    keys = [together[i][:3] for i in sequence]
    new_item = np.array([i == 0 or keys[i] != keys[i - 1] for i in range(len(keys))], bool)
    line_item = np.cumsum(new_item) - 1 if keys else np.zeros(0, np.int64)
    item_first = np.append(np.flatnonzero(new_item), len(keys)).astype(np.int64)
    line_order = np.array([k[0] for k in keys], np.int64)
    item_order = line_order[item_first[:-1]] if keys else np.zeros(0, np.int64)
    stock = np.zeros((max(1, len(sku_at)), len(places)), np.int64)
    for s in problem.stock:
        if s.sku_id in sku_at and s.location_id in places:
            stock[sku_at[s.sku_id], places[s.location_id]] = max(0, s.available)
    capacity = np.array(
        [
            [INF if c is None else max(0, c) for c in (n.capacity_orders, n.capacity_items, n.capacity_cents)]
            for n in problem.locations
        ],
        float,
    ).reshape(len(places), 3)
    points = {}
    destination = np.array([points.setdefault((o.lat, o.lon), len(points)) for o in problem.orders] or [0], np.int64)
    zone = _zones(list(points), problem, len(tariff.miles))
    factor = np.array([1 + o.priority / 2 for o in problem.orders] or [1.0])
    quantity = np.array([n.quantity for n in lines], np.int64)
    value = np.array([n.value_cents for n in lines], float)
    waited = 1 + policy.waited_share * np.array([n.days_waited for n in lines], float)
    leave = np.maximum(policy.leave_cents_min, policy.leave_share * value) * quantity
    leave = np.rint(leave * (factor[line_order] if lines else 1) * waited)
    barred: dict[tuple[int, int], list[int]] = {}
    for b in problem.barred:
        if b.order_id in order_at and b.sku_id in sku_at and b.location_id in places:
            barred.setdefault((order_at[b.order_id], sku_at[b.sku_id]), []).append(places[b.location_id])
    items = np.bincount(item_order, minlength=len(order_at)) if len(item_order) else np.zeros(len(order_at), np.int64)
    return Matrix(
        problem=problem, location_ids=np.array(list(places), np.int64),
        order_first=np.concatenate([[0], np.cumsum(items)]).astype(np.int64), item_first=item_first,
        line_index=np.array(sequence, np.int64), item_order=item_order, line_item=line_item,
        line_sku=np.array([sku_at[n.sku_id] for n in lines], np.int64), line_quantity=quantity,
        line_pool=np.array([pool_at.get(n.pool_id, -1) for n in lines], np.int64), stock=stock, capacity=capacity,
        line_cents_of_capacity=(value * quantity).astype(np.int64), zone=zone, destination=destination,
        mode=np.array([MODES[o.split] for o in problem.orders], np.int64),
        packages_max=np.array(
            [1 if o.split == "single" else (o.split_max or 1) if o.split == "max_packages" else 10**6
             for o in problem.orders], np.int64),
        priority=np.array([o.priority for o in problem.orders], np.int64),
        promise=np.array([99 if o.promise_days is None else o.promise_days for o in problem.orders], np.int64),
        only_location=np.array(
            [-1 if o.location_id is None else places.get(o.location_id, -2) for o in problem.orders], np.int64),
        leave=leave, weight_pounds=np.array([n.weight_grams for n in lines], float) * quantity / GRAMS_PER_POUND,
        value=value, pool_has=pool_has, barred=barred,
        is_store=np.array([n.kind == "store" for n in problem.locations], bool),
    )  # fmt: skip


def _zones(points: list[tuple[float | None, float | None]], problem: Problem, farthest: int) -> NDArray[np.int8]:
    """The tariff's zone from each destination to each location; the farthest where a coordinate is unknown."""
    zone = np.full((max(1, len(points)), len(problem.locations)), farthest, np.int8)
    known = [i for i, (lat, lon) in enumerate(points) if lat is not None and lon is not None]
    sited = [i for i, n in enumerate(problem.locations) if n.lat is not None and n.lon is not None]
    if known and sited:
        to = np.array([[problem.locations[i].lat, problem.locations[i].lon] for i in sited], float)
        limits = np.array(problem.policy.tariff.miles, float)
        for start in range(0, len(known), 2000):
            some = known[start : start + 2000]
            distance = miles(np.array([points[i] for i in some], float), to)
            zone[np.ix_(some, sited)] = np.searchsorted(limits, distance).astype(np.int8)
    return zone


def package_terms(m: Matrix, orders: Ints, at: Ints | None = None) -> dict[str, Floats]:
    """Cents of a package by term, [B,N] (or [B,K] at the given locations)."""
    policy, tariff = m.problem.policy, m.problem.policy.tariff
    zone = m.zone[m.destination[orders]] if at is None else m.zone[m.destination[orders][:, None], at]
    handling = np.array([n.package_cents for n in m.problem.locations], float)
    late = np.maximum(0, np.array(tariff.days)[zone] - m.promise[orders][:, None])
    factor = (1 + m.priority[orders] / 2)[:, None]
    pickup = (m.only_location[orders] != -1)[:, None]
    return {
        "parcel": np.where(pickup, 0.0, np.array(tariff.parcel_cents, float)[zone]),
        "handling": np.broadcast_to(handling, zone.shape) if at is None else handling[at],
        "lateness": np.where(pickup, 0.0, np.rint(policy.late_cents * late * factor)),
    }


def line_terms(m: Matrix, lines: Ints, orders: Ints, at: Ints | None = None) -> dict[str, Floats]:
    """Cents of lines by term, [B,N] (or [B,K]); `orders` is the order of each line."""
    policy, tariff = m.problem.policy, m.problem.policy.tariff
    zone = m.zone[m.destination[orders]] if at is None else m.zone[m.destination[orders][:, None], at]
    here = m.stock[m.line_sku[lines]] if at is None else m.stock[m.line_sku[lines][:, None], at]
    per_line = np.array([n.line_cents for n in m.problem.locations], float)
    reject = np.array([n.reject_share * policy.reject_cents for n in m.problem.locations])
    store = m.is_store if at is None else m.is_store[at]
    risk = policy.stock_out_share * m.value[lines][:, None] * np.minimum(0.6, 0.5 / np.maximum(here, 1))
    pickup = (m.only_location[orders] != -1)[:, None]
    return {
        "weight": np.where(
            pickup, 0.0, np.rint(np.array(tariff.pound_cents, float)[zone] * m.weight_pounds[lines][:, None])
        ),
        "line": np.broadcast_to(per_line, zone.shape) if at is None else per_line[at],
        "stock_out": np.where(store, np.rint(risk * m.line_quantity[lines][:, None]), 0.0),
        "rejection": np.broadcast_to(np.rint(reject), zone.shape) if at is None else np.rint(reject)[at],
    }


def eligible(m: Matrix, lines: Ints, orders: Ints) -> NDArray[np.bool_]:
    """Which locations may serve these lines at all, [B,N]: in the pool, not barred, the order's own place."""
    ok = np.where(m.line_pool[lines][:, None] >= 0, m.pool_has[m.line_pool[lines]], False)
    only = m.only_location[orders]
    if (only != -1).any():
        ok = ok & ((only[:, None] == -1) | (only[:, None] == np.arange(ok.shape[1])))
    if m.barred:
        ok = ok.copy()
        for b, (line, order) in enumerate(zip(lines, orders, strict=True)):
            if (places := m.barred.get((int(order), int(m.line_sku[line])))) is not None:
                ok[b, places] = False
    return ok


def order_costs(m: Matrix, orders: Ints, items: int, room: Ints | None = None) -> tuple[Floats, Floats, Floats]:
    """Package cost [B,N], item cost [B,items,N] (INF where it cannot be), and what leaving each item costs [B,items].

    `room` [K,N] is what may still be taken, all of the stock where it is left out.
    """
    package = sum(package_terms(m, orders).values(), np.zeros(()))
    ids = m.order_first[orders][:, None] + np.arange(items)
    cost = np.zeros((*ids.shape, len(m.location_ids)))
    leave = np.zeros(ids.shape)
    flat = ids.ravel()
    counts = m.item_first[flat + 1] - m.item_first[flat]
    for nth in range(int(counts.max(initial=0))):
        has = np.flatnonzero(counts > nth)
        lines = m.item_first[flat[has]] + nth
        of = m.item_order[flat[has]]
        terms = sum(line_terms(m, lines, of).values(), np.zeros(()))
        can = eligible(m, lines, of) & (
            (m.stock if room is None else room)[m.line_sku[lines]] >= m.line_quantity[lines][:, None]
        )
        cost.reshape(len(flat), -1)[has] += np.where(can, terms, INF)
        leave.ravel()[has] += m.leave[lines]
    package = np.where(m.capacity[None, :, 0] > 0, package, INF)
    return package, np.minimum(cost, INF), leave
