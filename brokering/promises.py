"""How many promised units stock can serve: a maximum flow in plain Python, for the plan and for its audit."""

from collections import deque
from collections.abc import Mapping, Sequence
from itertools import pairwise


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
