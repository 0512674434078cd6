"""Promises to demand outside the run: units that keep them possible are set aside, so that no plan breaks one."""

import numpy as np

from brokering.matrix import Floats, Ints, Matrix
from brokering.problem import Problem
from brokering.promises import keepable


def room_beside(m: Matrix, problem: Problem, price: Floats | None = None) -> Ints:
    """What the run may take, [C+1]: stock less the units set aside for protected demand, where they are cheapest to miss.

    `price` [C+1] is what a unit is worth to the run there.
    """
    room = m.cell_stock.copy()
    for cells, demands in _demands(m, problem):
        stock = {location: int(room[cell]) for location, cell in cells.items()}
        worth = {} if price is None else {location: float(price[cell]) for location, cell in cells.items()}
        for location, units in keepable(demands, stock, worth)[1].items():
            room[cells[location]] -= units
    return room


def kept_at_least(m: Matrix, problem: Problem, price: Floats) -> float:
    """What protected demand takes at least at these prices, where all of it can be kept: it belongs to the bound."""
    total = 0.0
    for cells, demands in _demands(m, problem):
        if not price[list(cells.values())].any():
            continue
        stock = {location: int(m.cell_stock[cell]) for location, cell in cells.items()}
        if keepable(demands, stock)[0] < sum(units for _, units in demands):
            continue
        total += sum(units * min(float(price[cells[n]]) for n in places) for places, units in demands)
    return total


def _demands(m: Matrix, problem: Problem) -> list[tuple[dict[int, int], list[tuple[frozenset[int], int]]]]:
    """Per protected sku: the cells of what is there now by location, and the demands: places that may serve, units."""
    by_sku: dict[int, list[tuple[int, int]]] = {}
    for p in sorted(problem.protected, key=lambda p: p.pool_id):
        if p.quantity > 0:
            by_sku.setdefault(p.sku_id, []).append((p.pool_id, p.quantity))
    members = {pool: frozenset(places) for pool, places in problem.pools.items()}
    found = []
    for sku, demands in sorted(by_sku.items()):
        row = int(np.searchsorted(m.sku_ids, sku))
        if row == len(m.sku_ids) or m.sku_ids[row] != sku:
            continue
        _, at, cell = m.entries(np.array([row]))
        today = m.place_day[at] == 0
        cells = dict(zip(m.location_ids[at[today]].tolist(), cell[today].tolist(), strict=True))
        found.append((cells, [(members.get(pool, frozenset()) & cells.keys(), units) for pool, units in demands]))
    return found
