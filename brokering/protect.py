"""Promises to demand outside the run: units that keep them possible are set aside, so that no plan breaks one."""

import numpy as np

from brokering.matrix import Floats, Ints, Matrix
from brokering.promises import keepable


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
