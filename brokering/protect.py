"""Promises to demand outside the run: units that keep them possible are set aside, so that no plan breaks one."""

from collections import deque
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from brokering.matrix import Floats, Ints, Matrix


def keepable(
    demands: Sequence[tuple[frozenset[int], int]], stock: Mapping[int, int], price: Mapping[int, float] | None = None
) -> tuple[int, dict[int, int]]:
    """How many units of these demands (locations that may serve it, units) stock can serve, and from where.

    A maximum flow by augmenting paths (Edmonds and Karp), demands in order; the cheapest
    locations first, by `price`, then those with most left.
    """
    left = dict(stock)
    given: list[dict[int, int]] = [{} for _ in demands]
    total = 0
    for d, (_, units) in enumerate(demands):
        missing = units
        while missing > 0:
            path = _path(d, demands, given, left, price or {})
            if path is None:
                break
            # path: [(demand, location), (demand, location) …]: each demand takes there what the next one gives up
            amount = min(missing, left[path[-1][1]])
            for (_, place), (following, _) in pairwise(path):
                amount = min(amount, given[following][place])
            for step, (demand, place) in enumerate(path):
                given[demand][place] = given[demand].get(place, 0) + amount
                if step + 1 < len(path):
                    given[path[step + 1][0]][place] -= amount
                else:
                    left[place] -= amount
            missing -= amount
            total += amount
    kept: dict[int, int] = {}
    for of_demand in given:
        for place, units in of_demand.items():
            kept[place] = kept.get(place, 0) + units
    return total, kept


def _path(
    start: int,
    demands: Sequence[tuple[frozenset[int], int]],
    given: Sequence[Mapping[int, int]],
    left: Mapping[int, int],
    price: Mapping[int, float],
) -> list[tuple[int, int]] | None:
    """The shortest way to units that are left, over demands that can move to other locations."""
    came: dict[int, tuple[int, int] | None] = {start: None}
    queue = deque([start])
    while queue:
        demand = queue.popleft()
        free = [p for p in demands[demand][0] if left.get(p, 0) > 0]
        if free:
            path = [(demand, min(free, key=lambda p: (price.get(p, 0.0), -left[p], p)))]
            while (before := came[path[0][0]]) is not None:
                path.insert(0, before)
            return path
        for place in sorted(demands[demand][0]):
            for other, held in enumerate(given):
                if other not in came and held.get(place, 0) > 0:
                    came[other] = (demand, place)
                    queue.append(other)
    return None


def room_beside(m: Matrix, price: Floats | None = None) -> Ints:
    """What the run may take: stock less the units set aside for protected demand, where they are cheapest to miss.

    `price` [K,N] is what a unit is worth to the run there.
    """
    room = m.stock.copy()
    for row, demands in _demands(m).items():
        stock = {int(i): int(room[row, i]) for i in np.flatnonzero(room[row])}
        worth = {} if price is None else {i: float(price[row, i]) for i in stock}
        for at, units in keepable([(places & stock.keys(), units) for places, units in demands], stock, worth)[
            1
        ].items():
            room[row, at] -= units
    return room


def kept_at_least(m: Matrix, price: Floats) -> float:
    """What protected demand takes at least at these prices, where all of it can be kept: it belongs to the bound."""
    total = 0.0
    for row, demands in _demands(m).items():
        stock = {int(i): int(m.stock[row, i]) for i in np.flatnonzero(m.stock[row])}
        here = [(places & stock.keys(), units) for places, units in demands]
        if not price[row].any() or keepable(here, stock)[0] < sum(units for _, units in here):
            continue
        total += sum(units * min(float(price[row, n]) for n in places) for places, units in here)
    return total


def _demands(m: Matrix) -> dict[int, list[tuple[frozenset[int], int]]]:
    """Protected demand by row of stock: the places that may serve it, and units."""
    rows = {sku: i for i, sku in enumerate(sorted({n.sku_id for n in m.problem.lines}))}
    place = {int(n): i for i, n in enumerate(m.location_ids)}
    members = {
        pool: frozenset(place[n] for n in locations if n in place) for pool, locations in m.problem.pools.items()
    }
    found: dict[int, list[tuple[frozenset[int], int]]] = {}
    for p in sorted(m.problem.protected, key=lambda p: p.pool_id):
        if p.quantity > 0 and p.sku_id in rows:
            found.setdefault(rows[p.sku_id], []).append((members.get(p.pool_id, frozenset()), p.quantity))
    return found
