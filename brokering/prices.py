"""Prices of stock and capacity: candidates per order, scaled subgradient steps, and the bound over all locations."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from brokering.matrix import INF, ITEMS_EXACT_MAX, Floats, Ints, Matrix, order_costs
from brokering.subsets import best, floor, greedy

CANDIDATES = 24
CHUNK_CELLS = 3_000_000
CONTESTED_NONE = 0


@dataclass
class Group:
    """Orders of equal shape: candidates [B,K], package [B,K], cost [B,L,K], leave [B,L], priced rows [B,L,K]."""

    items: int
    mode: int
    packages: int
    orders: Ints
    at: Ints
    package: Floats
    cost: Floats
    leave: Floats
    rows: Ints = field(default_factory=lambda: np.zeros(0, np.int64))


@dataclass
class Prices:
    """What one more unit would save: `stock` by contested row (row 0 is none), `capacity` by location (orders)."""

    stock: Floats
    capacity: Floats
    row_of: Ints  # [K*N] row of a cell, 0 where it is not contested
    room: Floats  # [rows] units


def shapes(m: Matrix, orders: Ints, chunk: int | None = None) -> Iterator[tuple[int, int, int, Ints]]:
    """Orders of equal number of items, mode and package limit, in chunks that fit in memory."""
    items = m.items_per_order[orders]
    limit = np.minimum(m.packages_max[orders], np.maximum(items, 1))
    for key in np.unique(np.stack([items, m.mode[orders], limit], 1), axis=0):
        count, mode, packages = (int(v) for v in key)
        if count == 0:
            continue
        these = orders[(items == count) & (m.mode[orders] == mode) & (limit == packages)]
        size = chunk or max(1, CHUNK_CELLS // ((count + 1) * len(m.location_ids)))
        for start in range(0, len(these), size):
            yield count, mode, packages, these[start : start + size]


def candidates(
    m: Matrix, orders: Ints, price: Prices | None = None, *, most: int = CANDIDATES, room: Ints | None = None
) -> list[Group]:
    """Per order the cheapest locations for the whole of it and for each item, at these prices."""
    groups: dict[tuple[int, int, int], list[Group]] = {}
    for items, mode, packages, some in shapes(m, orders):
        package, cost, leave = order_costs(m, some, items, room)
        priced_package, priced = priced_costs(m, some, items, package, cost, price)
        k = min(len(m.location_ids), most)
        if k < len(m.location_ids):
            whole = np.minimum(priced, leave[:, :, None]).sum(1) + priced_package
            whole[(priced >= INF / 2).all(1)] = INF
            scores = np.concatenate([whole[:, None], priced_package[:, None] + priced], 1)
            share = max(4, most // (items + 1))
            picked = np.argpartition(scores, min(share, k - 1), axis=2)[:, :, :share].reshape(len(some), -1)
            at = _distinct(picked, k if items <= 3 else max(k, picked.shape[1] // 2))
        else:
            at = np.broadcast_to(np.arange(k), (len(some), k)).copy()
        group = Group(
            items, mode, packages, some, at, np.take_along_axis(package, at, 1),
            np.take_along_axis(cost, at[:, None, :], 2), leave,
        )  # fmt: skip
        groups.setdefault((items, mode, packages), []).append(group)
    return [_joined(parts) for parts in groups.values()]


def _distinct(picked: Ints, width: int) -> Ints:
    """Each row's distinct values, padded by repeating them, to a common width."""
    order = np.sort(picked, 1)
    again = np.zeros(order.shape, bool)
    again[:, 1:] = order[:, 1:] == order[:, :-1]
    first = np.argsort(again, 1, kind="stable")
    wide = min(width, int((~again).sum(1).max()))
    kept = np.take_along_axis(order, first, 1)
    # a row with fewer distinct values repeats its first: a tie that changes nothing
    counts = (~again).sum(1)[:, None]
    places = np.arange(wide)[None, :]
    return np.where(places < counts, kept[:, :wide], kept[:, :1])


def _joined(parts: list[Group]) -> Group:
    first = parts[0]
    if len(parts) == 1:
        return first
    wide = max(p.at.shape[1] for p in parts)

    def pad(a: Floats) -> Floats:
        return np.concatenate([a, np.repeat(a[..., :1], wide - a.shape[-1], -1)], -1)

    return Group(
        first.items, first.mode, first.packages, np.concatenate([p.orders for p in parts]),
        np.concatenate([pad(p.at) for p in parts]), np.concatenate([pad(p.package) for p in parts]),
        np.concatenate([pad(p.cost) for p in parts]), np.concatenate([p.leave for p in parts]),
    )  # fmt: skip


def priced_costs(
    m: Matrix, orders: Ints, items: int, package: Floats, cost: Floats, price: Prices | None
) -> tuple[Floats, Floats]:
    """Costs over all locations with the prices of stock and capacity added."""
    if price is None:
        return package, cost
    priced = cost.copy()
    ids = m.order_first[orders][:, None] + np.arange(items)
    flat = ids.ravel()
    by_cell = price.stock[price.row_of].reshape(m.stock.shape)
    counts = m.item_first[flat + 1] - m.item_first[flat]
    for nth in range(int(counts.max(initial=0))):
        has = np.flatnonzero(counts > nth)
        lines = m.item_first[flat[has]] + nth
        priced.reshape(len(flat), -1)[has] += by_cell[m.line_sku[lines]] * m.line_quantity[lines][:, None]
    return package + price.capacity, priced


def contested(m: Matrix, groups: list[Group]) -> Prices:
    """The stock cells that candidates could overdraw get a row and a price of 0."""
    wanted = np.zeros(m.stock.size, np.int64)
    places = len(m.location_ids)
    for g in groups:
        for lines, take, b, i in _lines_of(m, g):
            cells = m.line_sku[lines][:, None] * places + g.at[b]
            can = g.cost[b, i] < INF / 2
            np.add.at(wanted, cells[can], np.broadcast_to(take[:, None], cells.shape)[can])
    room = m.stock.ravel()
    cells = np.flatnonzero((wanted > room) & (room > 0))
    row_of = np.zeros(m.stock.size, np.int64)
    row_of[cells] = np.arange(1, len(cells) + 1)
    return Prices(
        np.zeros(len(cells) + 1), np.zeros(places), row_of, np.concatenate([[np.inf], room[cells].astype(float)])
    )


def _lines_of(m: Matrix, g: Group) -> Iterator[tuple[Ints, Ints, Ints, Ints]]:
    """The lines of a group's items, nth by nth: line, units, its order's place in the group, its item's."""
    ids = m.order_first[g.orders][:, None] + np.arange(g.items)
    flat = ids.ravel()
    counts = m.item_first[flat + 1] - m.item_first[flat]
    for nth in range(int(counts.max(initial=0))):
        has = np.flatnonzero(counts > nth)
        lines = m.item_first[flat[has]] + nth
        yield lines, m.line_quantity[lines], has // g.items, has % g.items


def surcharge(m: Matrix, g: Group, price: Prices) -> Floats:
    """What stock prices add to the items of a group, [B,L,K]."""
    added = np.zeros(g.cost.shape)
    places = len(m.location_ids)
    for lines, take, b, i in _lines_of(m, g):
        cells = m.line_sku[lines][:, None] * places + g.at[b]
        added[b, i] += price.stock[price.row_of[cells]] * take[:, None]
    return added


def solve_group(m: Matrix, g: Group, package: Floats, cost: Floats) -> tuple[Floats, Ints]:
    """The best plan of each order at these costs; exact up to ITEMS_EXACT_MAX items, greedy beyond."""
    if g.items <= ITEMS_EXACT_MAX:
        return best(package, cost, g.leave, mode=g.mode, packages=g.packages)
    plans = [greedy(package[b], cost[b], g.leave[b], mode=g.mode, packages=g.packages) for b in range(len(g.orders))]
    return np.array([p[0] for p in plans]), np.array([p[1] for p in plans])


def ascend(m: Matrix, groups: list[Group], price: Prices, *, steps: int, stop: Callable[[], bool]) -> Prices:
    """Subgradient steps on contested stock and capacity in orders: a step raises what is overdrawn, lowers what is not.

    Steps are scaled by a running mean of squares per row; the best prices seen are given.
    """
    places = len(m.location_ids)
    limited = m.capacity[:, 0] < INF / 2
    room_orders = np.where(limited, m.capacity[:, 0], 0.0)
    stock, capacity = price.stock.copy(), price.capacity.copy()
    best_value, found = -np.inf, price
    mean_s, mean_c = np.zeros(len(stock)), np.zeros(places)
    square_s, square_c = np.zeros(len(stock)), np.zeros(places)
    finite = np.where(np.isfinite(price.room), price.room, 0.0)
    for step in range(steps):
        now = Prices(stock, capacity, price.row_of, price.room)
        value = -(stock * finite).sum() - (capacity * room_orders).sum()
        used, works = np.zeros(len(stock)), np.zeros(places)
        for g in groups:
            v, position = solve_group(m, g, g.package + capacity[g.at], g.cost + surcharge(m, g, now))
            value += v.sum()
            u, w = usage(m, g, position, price, places)
            used += u
            works += w
        if value > best_value:
            best_value, found = value, now
        if stop():
            break
        over_s, over_c = used - finite, np.where(limited, works - room_orders, 0.0)
        over_s[0] = 0
        over_s[(stock <= 0) & (over_s < 0)] = 0
        over_c[(capacity <= 0) & (over_c < 0)] = 0
        mean_s, mean_c = 0.5 * mean_s + 0.5 * over_s, 0.5 * mean_c + 0.5 * over_c
        square_s, square_c = 0.9 * square_s + 0.1 * over_s**2, 0.9 * square_c + 0.1 * over_c**2
        warm = 1 - 0.9 ** (step + 1)
        cents = 200 * (1 - step / steps) ** 1.5 + 1
        stock = np.maximum(0, stock + cents * mean_s / (np.sqrt(square_s / warm) + 0.3))
        capacity = np.maximum(0, capacity + 0.3 * cents * mean_c / (np.sqrt(square_c / warm) + 0.3))
    return found


def usage(m: Matrix, g: Group, position: Ints, price: Prices, places: int) -> tuple[Floats, Floats]:
    """Units that a group's plans take of each row, and packages at each location."""
    used = np.zeros(len(price.stock))
    for lines, take, b, i in _lines_of(m, g):
        p = position[b, i]
        gone = p >= 0
        cells = m.line_sku[lines[gone]] * places + g.at[b[gone], p[gone]]
        used += np.bincount(price.row_of[cells], take[gone], len(used))
    b, i = np.nonzero(position >= 0)
    pairs = np.unique(b * places + g.at[b, position[b, i]])
    return used, np.bincount(pairs % places, minlength=places).astype(float)


def bound(m: Matrix, orders: Ints, price: Prices) -> float:
    """What no plan can beat: every location priced, whatever the candidates were."""
    room_orders = np.where(m.capacity[:, 0] < INF / 2, m.capacity[:, 0], 0.0)
    finite = np.where(np.isfinite(price.room), price.room, 0.0)
    total = -(price.stock * finite).sum() - (price.capacity * room_orders).sum()
    for items, mode, packages, some in shapes(m, orders):
        package, cost, leave = order_costs(m, some, items)
        package, cost = priced_costs(m, some, items, package, cost, price)
        if items <= ITEMS_EXACT_MAX:
            total += best(package, cost, leave, mode=mode, packages=packages)[0].sum()
        else:
            total += floor(package, cost, leave).sum()
    return float(total)
