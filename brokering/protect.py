"""Promises to demand outside the run: units that keep them possible are set aside, so that no plan breaks one."""

from collections import deque
from collections.abc import Mapping, Sequence

import numpy as np

from brokering.matrix import Ints, Matrix


def keepable(demands: Sequence[tuple[frozenset[int], int]], stock: Mapping[int, int]) -> tuple[int, dict[int, int]]:
    """How many units of these demands (locations that may serve it, units) stock can serve, and from where.

    A maximum flow by augmenting paths (Edmonds and Karp), demands in order, locations with most left first.
    """
    left = dict(stock)
    given: list[dict[int, int]] = [{} for _ in demands]
    total = 0
    for d, (places, units) in enumerate(demands):
        missing = units
        while missing > 0:
            path = _path(d, demands, given, left)
            if path is None:
                break
            # path: [(demand, location), (demand, location) …]: each demand takes there what the next one gives up
            amount = min(missing, left[path[-1][1]])
            for (_, place), (following, _) in zip(path, path[1:], strict=False):
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
) -> list[tuple[int, int]] | None:
    """The shortest way to units that are left, over demands that can move to other locations."""
    came: dict[int, tuple[int, int] | None] = {start: None}
    queue = deque([start])
    while queue:
        demand = queue.popleft()
        free = [p for p in demands[demand][0] if left.get(p, 0) > 0]
        if free:
            path = [(demand, max(free, key=lambda p: (left[p], -p)))]
            while (before := came[path[0][0]]) is not None:
                path.insert(0, before)
            return path
        for place in sorted(demands[demand][0]):
            for other, held in enumerate(given):
                if other not in came and held.get(place, 0) > 0:
                    came[other] = (demand, place)
                    queue.append(other)
    return None


def room_beside(m: Matrix) -> Ints:
    """What the run may take: stock less the units set aside for protected demand."""
    room = m.stock.copy()
    by_sku: dict[int, list[tuple[int, int]]] = {}
    for p in m.problem.protected:
        if p.quantity > 0:
            by_sku.setdefault(p.sku_id, []).append((p.pool_id, p.quantity))
    if not by_sku:
        return room
    place = {int(n): i for i, n in enumerate(m.location_ids)}
    rows = {sku: i for i, sku in enumerate(sorted({n.sku_id for n in m.problem.lines}))}
    members = {
        pool: frozenset(place[n] for n in locations if n in place) for pool, locations in m.problem.pools.items()
    }
    for sku, wanted in by_sku.items():
        if (row := rows.get(sku)) is None:
            continue
        stock = {int(i): int(room[row, i]) for i in np.flatnonzero(room[row])}
        demands = [(members.get(pool, frozenset()) & stock.keys(), units) for pool, units in sorted(wanted)]
        for at, units in keepable(demands, stock)[1].items():
            room[row, at] -= units
    return room
