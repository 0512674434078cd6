"""A problem as arrays: orders of items × locations, with what each pairing costs."""

from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from brokering.problem import Location, Problem

INF = np.float32(1e12)
UNLIMITED = 1e15
EARTH_MILES = 3958.8
GRAMS_PER_POUND = 453.59237
STOCK_OUT_MAX = 0.6
NOWHERE = Location(-1, "nowhere", None, None, 0)
"""Stands in no pool and takes nothing: so that a problem without locations is one like others."""

Ints = NDArray[Any]  # of whole numbers
Floats = NDArray[Any]  # of cents, mostly float32
Bools = NDArray[Any]


@dataclass(frozen=True)
class Matrix:
    """Items are lines, or lines that stay together. Items of an order are consecutive; so are lines of an item.

    O orders, I items, K skus, N locations. Money is whole cents, so float32 holds it exactly up to $167,000.
    """

    problem: Problem
    location_ids: Ints  # [N]
    order_first: Ints  # [O+1] items of order o: order_first[o]:order_first[o+1]
    item_first: Ints  # [I+1] lines of item i
    item_order: Ints  # [I]
    item_units: Ints  # [I]
    item_cents: Ints  # [I] of capacity in money
    line_index: Ints  # [lines] place in problem.lines
    line_item: Ints
    line_sku: Ints  # row of stock
    line_quantity: Ints
    line_pool: Ints  # or -1
    line_cents_of_capacity: Ints  # value × quantity
    leave: Floats  # [lines] what leaving it costs
    stock: Ints  # [K,N]
    capacity: Floats  # [N,3] orders, items, cents; UNLIMITED where there is no limit
    zone: NDArray[np.uint8]  # [destinations,N]
    destination: Ints  # [O]
    complete: Bools  # [O] all lines or none
    packages_max: Ints  # [O]
    priority: Ints  # [O]
    only_location: Ints  # [O], -1: none, -2: not in the problem
    unknown: Bools  # [O] no coordinates
    unsited: Bools  # [N] no coordinates
    pool_has: Bools  # [P,N]
    barred: dict[int, list[int]]  # line → locations
    parcel_by_zone: Floats  # [O,zones]
    late_by_zone: Floats  # [O,zones]
    weight_by_zone: Floats  # [lines,zones]
    handling_at: Floats  # [N] per package
    line_at: Floats  # [N] per line
    reject_at: Floats  # [N] per line
    stock_out_at: Floats  # [K,N] per unit
    markdown_at: Floats  # [K,N] per unit, ≤ 0

    @property
    def orders(self) -> int:
        return len(self.order_first) - 1

    @property
    def places(self) -> int:
        return len(self.location_ids)

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
    """Numbers everything. Raises ValueError where the problem contradicts itself: what, and which."""
    _check(problem)
    if not problem.locations:
        problem = msgspec.structs.replace(problem, locations=[NOWHERE])
    policy, tariff = problem.policy, problem.policy.tariff
    places = {n.location_id: i for i, n in enumerate(problem.locations)}
    order_at = {o.order_id: i for i, o in enumerate(problem.orders)}
    sku_at = {sku: i for i, sku in enumerate(sorted({n.sku_id for n in problem.lines}))}
    pool_at = {pool: i for i, pool in enumerate(sorted(problem.pools))}
    pool_has = np.zeros((max(1, len(pool_at)), len(places)), bool)
    for pool, members in problem.pools.items():
        pool_has[pool_at[pool], [places[m] for m in members if m in places]] = True
    # lines by order; those that stay together beside each other, as one item
    keys = [
        (order_at[n.order_id], n.together or "", -1 if n.together else i, i) for i, n in enumerate(problem.lines)
    ]  # fmt: skip
    keys.sort()
    lines = [problem.lines[k[3]] for k in keys]
    new_item = np.array([i == 0 or keys[i][:3] != keys[i - 1][:3] for i in range(len(keys))], bool)
    line_item = np.cumsum(new_item) - 1 if keys else np.zeros(0, np.int64)
    item_first = np.append(np.flatnonzero(new_item), len(keys)).astype(np.int64)
    line_order = np.array([k[0] for k in keys], np.int64)
    item_order = line_order[item_first[:-1]] if keys else np.zeros(0, np.int64)
    item_count = np.bincount(item_order, minlength=len(order_at)) if keys else np.zeros(len(order_at), np.int64)
    line_sku = np.array([sku_at[n.sku_id] for n in lines], np.int64)
    quantity = np.array([n.quantity for n in lines], np.int64)
    value = np.array([n.value_cents for n in lines], float)
    stock = np.zeros((max(1, len(sku_at)), len(places)), np.int32)
    markdown = np.zeros(stock.shape, np.float32)
    for s in problem.stock:
        if s.sku_id in sku_at and s.location_id in places:
            at = sku_at[s.sku_id], places[s.location_id]
            stock[at] = max(0, s.available)
            markdown[at] = -s.markdown_cents
    limits = [(n.capacity_orders, n.capacity_items, n.capacity_cents) for n in problem.locations]
    capacity = np.array([[UNLIMITED if c is None else max(0, c) for c in row] for row in limits], float)
    points: dict[tuple[float | None, float | None], int] = {}
    destination = np.array([points.setdefault((o.lat, o.lon), len(points)) for o in problem.orders], np.int64)
    factor = np.array([1 + o.priority / 2 for o in problem.orders])
    leave = np.maximum(policy.leave_cents_min, policy.leave_share * value) * quantity
    waited = 1 + policy.waited_share * np.array([n.days_waited for n in lines], float)
    pickup = np.array([o.location_id is not None for o in problem.orders], bool)
    promise = np.array([99 if o.promise_days is None else o.promise_days for o in problem.orders])
    late = np.rint(policy.late_cents * np.maximum(0, np.array(tariff.days) - promise[:, None]) * factor[:, None])
    pounds = np.array([n.weight_grams for n in lines], float) * quantity / GRAMS_PER_POUND
    weight = np.rint(np.array(tariff.pound_cents, float) * pounds[:, None])
    worth = np.zeros(len(stock))
    np.maximum.at(worth, line_sku, value)
    is_store = np.array([n.kind == "store" for n in problem.locations], bool)
    risk = np.rint(policy.stock_out_share * worth[:, None] * np.minimum(STOCK_OUT_MAX, 0.5 / np.maximum(stock, 1)))
    line_at_of: dict[tuple[int, int], list[int]] = {}
    if problem.barred:
        for i, n in enumerate(lines):
            line_at_of.setdefault((order_at[n.order_id], n.sku_id), []).append(i)
    barred: dict[int, list[int]] = {}
    for b in problem.barred:
        if b.order_id in order_at and b.location_id in places:
            for i in line_at_of.get((order_at[b.order_id], b.sku_id), []):
                barred.setdefault(i, []).append(places[b.location_id])
    cents = (value * quantity).astype(np.int64)
    items = len(item_order)
    return Matrix(
        problem=problem, location_ids=np.array(list(places), np.int64),
        order_first=np.concatenate([[0], np.cumsum(item_count)]).astype(np.int64), item_first=item_first,
        item_order=item_order,
        item_units=np.bincount(line_item, quantity, items).astype(np.int64),
        item_cents=np.bincount(line_item, cents, items).astype(np.int64),
        line_index=np.array([k[3] for k in keys], np.int64), line_item=line_item, line_sku=line_sku,
        line_quantity=quantity, line_pool=np.array([pool_at.get(n.pool_id, -1) for n in lines], np.int64),
        line_cents_of_capacity=cents,
        leave=np.rint(leave * (factor[line_order] if lines else 1) * waited), stock=stock,
        capacity=capacity.reshape(len(places), 3), zone=_zones(list(points), problem), destination=destination,
        complete=np.array([o.split == "complete" for o in problem.orders], bool),
        packages_max=np.array([_packages_max(o.split, o.split_max) for o in problem.orders], np.int64),
        priority=np.array([o.priority for o in problem.orders], np.int64),
        only_location=np.array(
            [-1 if o.location_id is None else places.get(o.location_id, -2) for o in problem.orders], np.int64),
        unknown=np.array([o.lat is None or o.lon is None for o in problem.orders], bool),
        unsited=np.array([n.lat is None or n.lon is None for n in problem.locations], bool),
        pool_has=pool_has, barred=barred,
        parcel_by_zone=np.where(pickup[:, None], 0, np.array(tariff.parcel_cents, float)).astype(np.float32),
        late_by_zone=np.where(pickup[:, None], 0, late).astype(np.float32),
        weight_by_zone=np.where(pickup[line_order][:, None], 0, weight).astype(np.float32),
        handling_at=np.array([n.package_cents for n in problem.locations], np.float32),
        line_at=np.array([n.line_cents for n in problem.locations], np.float32),
        reject_at=np.rint([n.reject_share * policy.reject_cents for n in problem.locations]).astype(np.float32),
        stock_out_at=np.where(is_store & (stock > 0), risk, 0).astype(np.float32), markdown_at=markdown,
    )  # fmt: skip


def _check(problem: Problem) -> None:
    """Raises ValueError for what cannot be planned: doubled names, lines without an order, quantities below 1."""
    orders = {o.order_id for o in problem.orders}
    if len(orders) != len(problem.orders):
        raise ValueError("an order stands twice in the problem; give each order once")
    if len({n.location_id for n in problem.locations}) != len(problem.locations):
        raise ValueError("a location stands twice in the problem; give each location once")
    if len({n.line_id for n in problem.lines}) != len(problem.lines):
        raise ValueError("a line stands twice in the problem; give each line once")
    for n in problem.lines:
        if n.order_id not in orders:
            raise ValueError(f"line {n.line_id} names order {n.order_id!r}, which is not among the problem's orders")
        if n.quantity < 1:
            raise ValueError(f"line {n.line_id} has quantity {n.quantity}; leave out lines with nothing open")
    t = problem.policy.tariff
    if not len(t.parcel_cents) == len(t.pound_cents) == len(t.days) == len(t.miles) + 1:
        raise ValueError("a tariff needs one more price, pound price and days than it has limits in miles")


def _packages_max(split: str, split_max: int | None) -> int:
    if split == "single":
        return 1
    return max(1, split_max or 1) if split == "max_packages" else 10**6


def _zones(points: list[tuple[float | None, float | None]], problem: Problem) -> NDArray[np.uint8]:
    """The tariff's zone from each destination to each location; the farthest where a coordinate is unknown."""
    limits = np.array(problem.policy.tariff.miles, float)
    zone = np.full((max(1, len(points)), len(problem.locations)), len(limits), np.uint8)
    known = [i for i, (lat, lon) in enumerate(points) if lat is not None and lon is not None]
    sited = [i for i, n in enumerate(problem.locations) if n.lat is not None and n.lon is not None]
    if known and sited:
        to = np.array([[problem.locations[i].lat, problem.locations[i].lon] for i in sited], float)
        for start in range(0, len(known), 2000):
            some = known[start : start + 2000]
            distance = miles(np.array([points[i] for i in some], float), to)
            zone[np.ix_(some, sited)] = np.searchsorted(limits, distance).astype(np.uint8)
    return zone


def package_terms(m: Matrix, orders: Ints, at: Ints | None = None) -> dict[str, Floats]:
    """Cents of a package by term, [B,N] (or [B,K] at the given locations [B,K])."""
    zone = m.zone[m.destination[orders]] if at is None else m.zone[m.destination[orders][:, None], at]
    rows = orders[:, None]
    return {
        "parcel": m.parcel_by_zone[rows, zone],
        "handling": np.broadcast_to(m.handling_at, zone.shape) if at is None else m.handling_at[at],
        "lateness": m.late_by_zone[rows, zone],
    }


def line_terms(m: Matrix, lines: Ints, orders: Ints, at: Ints | None = None) -> dict[str, Floats]:
    """Cents of lines by term, [B,N] (or [B,K]); `orders` is the order of each line."""
    zone = m.zone[m.destination[orders]] if at is None else m.zone[m.destination[orders][:, None], at]
    sku, take = m.line_sku[lines], m.line_quantity[lines][:, None].astype(np.float32)
    return {
        "weight": m.weight_by_zone[lines[:, None], zone],
        "line": np.broadcast_to(m.line_at, zone.shape) if at is None else m.line_at[at],
        "rejection": np.broadcast_to(m.reject_at, zone.shape) if at is None else m.reject_at[at],
        "stock_out": (m.stock_out_at[sku] if at is None else m.stock_out_at[sku[:, None], at]) * take,
        "markdown": (m.markdown_at[sku] if at is None else m.markdown_at[sku[:, None], at]) * take,
    }


def eligible(m: Matrix, lines: Ints, orders: Ints) -> Bools:
    """Which locations may serve these lines at all, [B,N]: in the pool, not barred, the order's own place.

    Where the policy leaves out unknown distances, a place or an address without coordinates is not eligible either.
    """
    ok = m.pool_has[m.line_pool[lines]]
    ok[m.line_pool[lines] < 0] = False
    only = m.only_location[orders]
    bound = np.flatnonzero(only != -1)
    ok[bound] &= only[bound, None] == np.arange(m.places)
    if m.problem.policy.unknown_distance == "exclude":
        free = only == -1
        ok[np.ix_(free, m.unsited)] = False
        ok[free & m.unknown[orders]] = False
    if m.barred:
        for b, line in enumerate(lines.tolist()):
            if line in m.barred:
                ok[b, m.barred[line]] = False
    return ok


def lines_of_items(m: Matrix, items: Ints) -> list[tuple[Ints, Ints]]:
    """The lines of items, in turns of at most one line per item: (places in `items`, lines)."""
    counts = m.item_first[items + 1] - m.item_first[items]
    turns = []
    for nth in range(int(counts.max(initial=0))):
        has = np.flatnonzero(counts > nth)
        turns.append((has, m.item_first[items[has]] + nth))
    return turns


def order_costs(m: Matrix, orders: Ints, items: int, room: Ints | None = None) -> tuple[Floats, Floats, Floats]:
    """Package cost [B,N], item cost [B,items,N] (INF where it cannot be), and what leaving each item costs [B,items].

    `orders` have equal numbers of items. `room` [K,N] is what may still be taken, all of the stock where left out.
    """
    room = m.stock if room is None else room
    zone = m.zone[m.destination[orders]]
    by_zone = m.parcel_by_zone[orders] + m.late_by_zone[orders]
    package = by_zone[np.arange(len(orders))[:, None], zone] + m.handling_at
    package[:, m.capacity[:, 0] <= 0] = INF
    flat = (m.order_first[orders][:, None] + np.arange(items)).ravel()
    cost = np.zeros((len(flat), m.places), np.float32)
    leave = np.zeros(len(flat), np.float32)
    per_line = m.line_at + m.reject_at
    for has, lines in lines_of_items(m, flat):
        of, sku = m.item_order[flat[has]], m.line_sku[lines]
        take = m.line_quantity[lines][:, None]
        terms = m.weight_by_zone[lines[:, None], zone[has // items]] + per_line
        terms += (m.stock_out_at[sku] + m.markdown_at[sku]) * take.astype(np.float32)
        terms[~eligible(m, lines, of) | (room[sku] < take)] = INF
        cost[has] += terms
        leave[has] += m.leave[lines].astype(np.float32)
    shape = (len(orders), items)
    return package, np.minimum(cost, INF).reshape(*shape, -1), leave.reshape(shape)
