"""Prices of stock and capacity: candidates per order, scaled subgradient steps, and the bound over all locations."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from brokering.costs import order_costs
from brokering.matrix import INF, UNLIMITED, Floats, Ints, Matrix, lines_of_items, shapes
from brokering.subsets import ITEMS_EXACT_MAX, best, floor, greedy

CANDIDATES = 24
CELLS_AT_ONCE = 2_000_000
FIRST_STEP_CENTS = 200
LAST_STEP_CENTS = 1
FLOAT_SLACK = 2e-6
"""Share of the summed plans that float32 arithmetic may be off; taken from the bound, so that it stays one."""


@dataclass(frozen=True)
class Use:
    """Lines of a group, at most one per item: line, its order's and item's place, units, cells and priced rows [n,K]."""

    lines: Ints
    b: Ints
    i: Ints
    take: Ints
    cells: Ints
    rows: Ints


@dataclass(frozen=True)
class Group:
    """Orders of equal shape with K candidate locations each; padded ones have a package cost of INF."""

    items: int
    complete: bool
    packages: int
    orders: Ints  # [B]
    at: Ints  # [B,K]
    package: Floats  # [B,K]
    cost: Floats  # [B,L,K]
    leave: Floats  # [B,L]
    uses: tuple[Use, ...]

    def some(self, rows: Ints) -> "Group":
        """The same for some of its orders."""
        number = np.full(len(self.orders), -1, np.int64)
        number[rows] = np.arange(len(rows))
        uses = []
        for u in self.uses:
            if len(u.b) == len(self.orders) * self.items:  # a line for every item, in order
                w = (rows[:, None] * self.items + np.arange(self.items)).ravel()
            else:
                w = np.flatnonzero(number[u.b] >= 0)
            uses.append(Use(u.lines[w], number[u.b[w]], u.i[w], u.take[w], u.cells[w], u.rows[w]))
        return Group(
            self.items, self.complete, self.packages, self.orders[rows], self.at[rows], self.package[rows],
            self.cost[rows], self.leave[rows], tuple(uses),
        )  # fmt: skip

    def ids(self, m: Matrix) -> Ints:
        """The items of its orders, [B,L]."""
        return m.order_first[self.orders][:, None] + np.arange(self.items)


@dataclass(frozen=True)
class Prices:
    """What one more unit would save, in cents: `stock` by contested row (row 0 is none), `work` [N,3] by location.

    `work` prices an order, an item and a cent of what a location may take.
    """

    stock: Floats  # [rows]
    work: Floats  # [N,3]
    row_of: Ints  # [C+1] row of a cell, 0 where nobody contests it
    room: Floats  # [rows] units, 0 for row 0

    def by_cell(self) -> Floats:
        """The price of a unit by cell, [C+1]."""
        return self.stock[self.row_of]


def candidates(
    m: Matrix,
    orders: Ints,
    price: Prices | None = None,
    *,
    most: int = CANDIDATES,
    room: Ints | None = None,
    also: Ints | None = None,
) -> list[Group]:
    """Per order the cheapest locations for the whole of it and for each of its items, at these prices.

    `room` limits them to where enough is left; `also` [I] is a location per item (or -1) that is always among them.
    """
    parts: dict[tuple[int, bool, int], list[Group]] = {}
    stock_price = None if price is None else price.by_cell().astype(np.float32)
    for items, complete, packages, some in shapes(m, orders, CELLS_AT_ONCE):
        package, cost, leave = order_costs(m, some, items, room)
        flat = (m.order_first[some][:, None] + np.arange(items)).ravel()
        turns = lines_of_items(m, flat)
        package_scored, cost_scored = package, cost
        if price is not None and stock_price is not None:
            package_scored, cost_scored = _priced(m, flat, turns, package, cost, price, stock_price)
        width = min(m.places, most if items <= ITEMS_EXACT_MAX else m.places)
        pad = np.zeros((len(some), width), bool)
        if width < m.places:
            scores = np.concatenate([cost_scored + package_scored[:, None]], 1)
            if items > 1:
                whole = np.minimum(cost_scored, leave[:, :, None]).sum(1) + package_scored
                whole[(cost >= INF / 2).all(1)] = INF
                scores = np.concatenate([whole[:, None], scores], 1)
            share = width if items == 1 else max(6, most // (items + 1))
            picked = np.argpartition(scores, share - 1, axis=2)[:, :, :share]
            picked = picked.reshape(len(some), -1)
            if also is not None:
                mine = also[flat].reshape(len(some), -1)
                picked = np.concatenate([picked, np.where(mine >= 0, mine, picked[:, :1])], 1)
            at, pad = _distinct(picked)
        else:
            at = np.broadcast_to(np.arange(m.places), (len(some), m.places))
        package_at = np.where(pad, INF, np.take_along_axis(package, at, 1))
        cost_at = np.take_along_axis(cost, at[:, None, :], 2)
        uses = []
        for has, lines in turns:
            b = has // items
            cells = np.take_along_axis(m.spread(m.line_sku[lines]), at[b], 1)
            rows = np.zeros(cells.shape, np.int32) if price is None else price.row_of[cells]
            uses.append(Use(lines, b, has % items, m.line_quantity[lines], cells, rows))
        parts.setdefault((items, complete, packages), []).append(
            Group(items, complete, packages, some, at.astype(np.int32), package_at, cost_at, leave, tuple(uses))
        )
    return [_joined(p) for p in parts.values()]


def _distinct(picked: Ints) -> tuple[Ints, np.ndarray]:
    """Each row's distinct values, and where the width of the widest row is filled up."""
    order = np.sort(picked, 1)
    again = np.zeros(order.shape, bool)
    again[:, 1:] = order[:, 1:] == order[:, :-1]
    wide = int((~again).sum(1).max())
    first = np.argsort(again, 1, kind="stable")[:, :wide]
    return np.take_along_axis(order, first, 1), np.take_along_axis(again, first, 1)


def _joined(parts: list[Group]) -> Group:
    """Chunks of one shape as one group, padded to the widest."""
    if len(parts) == 1:
        return parts[0]
    wide = max(p.at.shape[1] for p in parts)

    def pad(a: Floats, value: float | None = None) -> Floats:
        more = np.repeat(a[..., :1], wide - a.shape[-1], -1)
        return np.concatenate([a, more if value is None else np.full_like(more, value)], -1)

    starts = np.cumsum([0, *(len(p.orders) for p in parts)])
    uses = []
    for nth in range(max(len(p.uses) for p in parts)):
        has = [(s, p.uses[nth]) for s, p in zip(starts, parts, strict=False) if nth < len(p.uses)]
        uses.append(
            Use(
                np.concatenate([u.lines for _, u in has]),
                np.concatenate([u.b + s for s, u in has]),
                np.concatenate([u.i for _, u in has]),
                np.concatenate([u.take for _, u in has]),
                np.concatenate([pad(u.cells) for _, u in has]),
                np.concatenate([pad(u.rows) for _, u in has]),
            )
        )
    first = parts[0]
    return Group(
        first.items, first.complete, first.packages, np.concatenate([p.orders for p in parts]),
        np.concatenate([pad(p.at) for p in parts]), np.concatenate([pad(p.package, float(INF)) for p in parts]),
        np.concatenate([pad(p.cost) for p in parts]), np.concatenate([p.leave for p in parts]), tuple(uses),
    )  # fmt: skip


def _priced(
    m: Matrix, flat: Ints, turns: list[tuple[Ints, Ints]], package: Floats, cost: Floats, price: Prices, stock: Floats
) -> tuple[Floats, Floats]:
    """Costs over all locations with the prices of stock and work added."""
    work = price.work.astype(np.float32)
    more = np.zeros((len(flat), m.places), np.float32)
    for has, lines in turns:
        row, at, cell = m.entries(m.line_sku[lines])
        np.add.at(more, (has[row], at), stock[cell] * m.line_quantity[lines][row].astype(np.float32))
    if work[:, 1:].any():
        more += m.item_units[flat].astype(np.float32)[:, None] * work[:, 1]
        more += m.item_cents[flat].astype(np.float32)[:, None] * work[:, 2]
    return package + work[:, 0], cost + more.reshape(cost.shape)


def wanted_cells(m: Matrix, groups: list[Group]) -> Ints:
    """Units that could be taken from each cell if every candidate were chosen, [C+1]."""
    wanted = np.zeros(m.cells, np.int64)
    for g in groups:
        for u in g.uses:
            can = (g.cost[u.b, u.i] < INF / 2) & (g.package[u.b] < INF / 2)
            wanted += np.bincount(u.cells[can], np.broadcast_to(u.take[:, None], can.shape)[can], m.cells).astype(
                np.int64
            )
    return wanted


def contested(m: Matrix, wanted: Ints, was: Floats, work: Floats) -> Prices:
    """A row for each cell that candidates could overdraw, or that has a price (`was`, [C+1]), at that price or 0."""
    room = m.cell_stock
    cells = np.flatnonzero(((wanted > room) & (room > 0)) | (was > 0))
    row_of = np.zeros(m.cells, np.int32)
    row_of[cells] = np.arange(1, len(cells) + 1)
    return Prices(np.append(0.0, was[cells]), work, row_of, np.append(0.0, room[cells]))


def with_rows(g: Group, row_of: Ints) -> Group:
    """A group whose uses name the priced rows of their cells."""
    uses = tuple(Use(u.lines, u.b, u.i, u.take, u.cells, row_of[u.cells]) for u in g.uses)
    return Group(g.items, g.complete, g.packages, g.orders, g.at, g.package, g.cost, g.leave, uses)


def at_prices(m: Matrix, g: Group, price: Prices) -> tuple[Floats, Floats]:
    """Package and item costs of a group with the prices of stock and work added."""
    stock, work = price.stock.astype(np.float32), price.work.astype(np.float32)
    cost = g.cost.copy()
    for u in g.uses:
        more = stock[u.rows] * u.take.astype(np.float32)[:, None]
        if len(u.b) == len(g.orders) * g.items:
            cost += more.reshape(cost.shape)
        else:
            cost[u.b, u.i] += more
    if work[:, 1:].any():
        ids = g.ids(m)
        cost += m.item_units[ids][:, :, None].astype(np.float32) * work[g.at, 1][:, None]
        cost += m.item_cents[ids][:, :, None].astype(np.float32) * work[g.at, 2][:, None]
    return g.package + work[g.at, 0], cost


def solve_group(g: Group, package: Floats, cost: Floats, *, want: bool = True) -> tuple[Floats, Ints]:
    """The best plan of each order at these costs; exact up to ITEMS_EXACT_MAX items, greedy beyond."""
    if g.items <= ITEMS_EXACT_MAX:
        return best(package, cost, g.leave, complete=g.complete, packages=g.packages, want=want)
    plans = [
        greedy(package[b], cost[b], g.leave[b], complete=g.complete, packages=g.packages) for b in range(len(g.orders))
    ]
    return np.array([p[0] for p in plans], np.float32), np.array([p[1] for p in plans])


def evaluate(m: Matrix, groups: list[Group], price: Prices) -> tuple[float, Floats, Floats]:
    """What the best plans of these orders are worth at prices, and what they take: of rows, and of work, [N,3]."""
    value, used, works = 0.0, np.zeros(len(price.stock)), np.zeros(price.work.shape)
    for g in groups:
        worth, position = solve_group(g, *at_prices(m, g, price))
        value += float(worth.sum(dtype=np.float64))
        _add_usage(m, g, position, used, works)
    return value, used, works


Evaluated = Callable[[Floats, Floats], tuple[float, Floats, Floats]]


def ascend(
    m: Matrix, price: Prices, of: Evaluated, *, steps: int, stop: Callable[[], bool], first_cents: float
) -> Prices:
    """Subgradient steps on contested stock and limited work: a step raises what is overdrawn, lowers what is left.

    Steps are scaled by a running mean of squares per row (Duchi et al., AdaGrad), from `first_cents` down; `of` gives
    the value and use of all orders at prices of stock and work. The best prices seen are given.
    """
    limited = m.capacity < UNLIMITED
    work_room = np.where(limited, m.capacity, 0.0)
    # a step in cents per order, per item, and per cent of value
    scale = np.array([0.3, 0.1, 1e-4])
    stock, work = price.stock.copy(), price.work.copy()
    best_value, found = -np.inf, price
    mean_s, mean_w, square_s, square_w = (np.zeros_like(a) for a in (stock, work, stock, work))
    for step in range(steps):
        value, used, works = of(stock, work)
        value -= (stock * price.room).sum() + (work * work_room).sum()
        if value > best_value:
            best_value, found = value, Prices(stock, work, price.row_of, price.room)
        if stop():
            break
        over_s, over_w = used - price.room, np.where(limited, works - work_room, 0.0)
        over_s[0] = 0
        over_s[(stock <= 0) & (over_s < 0)] = 0
        over_w[(work <= 0) & (over_w < 0)] = 0
        mean_s, mean_w = 0.5 * mean_s + 0.5 * over_s, 0.5 * mean_w + 0.5 * over_w
        square_s, square_w = 0.9 * square_s + 0.1 * over_s**2, 0.9 * square_w + 0.1 * over_w**2
        warm = 1 - 0.9 ** (step + 1)
        cents = first_cents * (1 - step / steps) ** 1.5 + LAST_STEP_CENTS
        stock = np.maximum(0, stock + cents * mean_s / (np.sqrt(square_s / warm) + 0.3))
        work = np.maximum(0, work + scale * cents * mean_w / (np.sqrt(square_w / warm) + 0.3))
    return found


def _add_usage(m: Matrix, g: Group, position: Ints, used: Floats, works: Floats) -> None:
    """Adds what a group's plans take of each priced row, and their work at each location."""
    for u in g.uses:
        p = position[u.b, u.i]
        gone = np.flatnonzero(p >= 0)
        rows = u.rows[gone, p[gone]]
        used += np.bincount(rows, u.take[gone], len(used))
        at = g.at[u.b[gone], p[gone]]
        works[:, 1] += np.bincount(at, u.take[gone], m.places)
        works[:, 2] += np.bincount(at, m.line_cents_of_capacity[u.lines[gone]], m.places)
    works[:, 0] += np.bincount(packages_of(m, g, position)[1], minlength=m.places)


def packages_of(m: Matrix, g: Group, position: Ints) -> tuple[Ints, Ints]:
    """The packages of a group's plans: the order's place in the group, and the location."""
    if g.items == 1:
        b = np.flatnonzero(position[:, 0] >= 0)
        return b, g.at[b, position[b, 0]].astype(np.int64)
    at = np.where(position >= 0, np.take_along_axis(g.at, np.maximum(position, 0), 1).astype(np.int64), -1)
    at.sort(axis=1)
    new = at >= 0
    new[:, 1:] &= at[:, 1:] != at[:, :-1]
    return np.nonzero(new)[0], at[new]


def bound_of(m: Matrix, orders: Ints, price: Prices) -> float:
    """What the plans of these orders cost at prices at least: every place priced, whatever the candidates were."""
    total, slack = 0.0, 0.0
    stock_price = price.by_cell().astype(np.float32)
    for items, complete, packages, some in shapes(m, orders, CELLS_AT_ONCE):
        package, cost, leave = order_costs(m, some, items)
        flat = (m.order_first[some][:, None] + np.arange(items)).ravel()
        package, cost = _priced(m, flat, lines_of_items(m, flat), package, cost, price, stock_price)
        if items <= ITEMS_EXACT_MAX:
            value = best(package, cost, leave, complete=complete, packages=packages, want=False)[0]
        else:
            value = floor(package, cost, leave)
        total += float(value.sum(dtype=np.float64))
        slack += float(np.abs(value).sum(dtype=np.float64)) * FLOAT_SLACK
    return total - slack


def given_away(m: Matrix, price: Prices) -> float:
    """What all stock and work that is priced is worth: the bound is what orders cost at prices, less this.

    Classes may overtake in that bound.
    """
    work_room = np.where(m.capacity < UNLIMITED, m.capacity, 0.0)
    return float((price.stock * price.room).sum() + (price.work * work_room).sum())
