"""Lines that a plan leaves are promised too: orders that took what only those could use are planned again beside them."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

import msgspec

from brokering.engine import broker
from brokering.problem import Assignment, Line, Location, Plan, Problem, Protected
from brokering.promises import keepable

POOLS_EXACT_MAX = 8
SECONDS = 5.0
Demands = dict[frozenset[int], int]
"""Units by the places that may serve them."""


def spare(problem: Problem, plan: Plan, *, seconds: float = SECONDS, seed: int = 0) -> Plan:
    """The same plan, or one that breaks fewer promises to the lines that it leaves.

    `broker` keeps promises to demand outside the run. A line that it leaves (its location is full, its order goes
    complete or not at all) stays promised in its pool as well; where another pool's order took a unit that only that
    line could have used, and could do with another one, it is planned again.
    """
    lines = {n.line_id: n for n in problem.lines}
    touched = _broken(problem, plan, lines)
    again = {lines[a.line_id].order_id for a in plan.assignments if lines[a.line_id].sku_id in touched}
    if not again:
        return plan
    inner = broker(_beside(problem, plan, lines, again), seconds=seconds, seed=seed, explain=bool(plan.decisions))
    return _merged(plan, inner, lines, again)


def _broken(problem: Problem, plan: Plan, lines: Mapping[int, Line]) -> set[int]:
    """Skus of which fewer units can be promised and kept after the plan than before it."""
    members = {pool: frozenset(places) for pool, places in problem.pools.items()}
    given: dict[int, Demands] = defaultdict(lambda: defaultdict(int))
    left: dict[int, Demands] = defaultdict(lambda: defaultdict(int))
    used: dict[int, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    for a in plan.assignments:
        line = lines[a.line_id]
        given[line.sku_id][members.get(line.pool_id, frozenset())] += a.quantity
        used[line.sku_id][a.location_id] += a.quantity
    for u in plan.unfilled:
        left[lines[u.line_id].sku_id][members.get(lines[u.line_id].pool_id, frozenset())] += lines[u.line_id].quantity
    for p in problem.protected:
        left[p.sku_id][members.get(p.pool_id, frozenset())] += p.quantity
    stock: dict[int, dict[int, int]] = defaultdict(dict)
    known = {n.location_id for n in problem.locations}
    for s in problem.stock:
        if s.location_id in known and s.sku_id in left:
            stock[s.sku_id][s.location_id] = max(0, s.available)
    found = set()
    for sku in left.keys() & given.keys():
        both: Demands = defaultdict(int)
        for part in (left[sku], given[sku]):
            for places, units in part.items():
                both[places] += units
        if len(both) < 2:
            continue
        rest = {place: units - used[sku][place] for place, units in stock[sku].items()}
        if kept(both, stock[sku]) > sum(given[sku].values()) + kept(left[sku], rest):
            found.add(sku)
    return found


def kept(demands: Mapping[frozenset[int], int], stock: Mapping[int, int]) -> int:
    """How many units of these demands stock can serve: the least, over sets of them, of what is there and the others."""
    pools = list(demands)
    if len(pools) > POOLS_EXACT_MAX:
        return keepable([(places & stock.keys(), units) for places, units in demands.items()], stock)[0]
    cells: dict[int, int] = defaultdict(int)
    for place, units in stock.items():
        cells[sum(1 << i for i, places in enumerate(pools) if place in places)] += units
    return min(
        sum(units for mask, units in cells.items() if mask & some)
        + sum(demands[places] for i, places in enumerate(pools) if not some >> i & 1)
        for some in range(1 << len(pools))
    )


def _beside(problem: Problem, plan: Plan, lines: Mapping[int, Line], again: set[str]) -> Problem:
    """The problem of some orders, from what the others do not use and what these leave is not promised."""
    mine = [n for n in problem.lines if n.order_id in again]
    skus = {n.sku_id for n in mine}
    others = [a for a in plan.assignments if lines[a.line_id].order_id not in again]
    used: dict[tuple[int, int], int] = defaultdict(int)
    for a in others:
        used[lines[a.line_id].sku_id, a.location_id] += a.quantity
    promised: dict[tuple[int, int], int] = defaultdict(int)
    for p in problem.protected:
        promised[p.sku_id, p.pool_id] += p.quantity
    for u in plan.unfilled:
        line = lines[u.line_id]
        if line.order_id not in again:
            promised[line.sku_id, line.pool_id] += line.quantity
    return Problem(
        [o for o in problem.orders if o.order_id in again], mine, _free(problem.locations, others, lines),
        [
            msgspec.structs.replace(s, available=s.available - used[s.sku_id, s.location_id])
            for s in problem.stock
            if s.sku_id in skus
        ],
        problem.pools, [Protected(sku, pool, n) for (sku, pool), n in promised.items() if sku in skus],
        [b for b in problem.barred if b.order_id in again], problem.policy,
    )  # fmt: skip


def _free(locations: Iterable[Location], others: Iterable[Assignment], lines: Mapping[int, Line]) -> list[Location]:
    """Locations with the capacity that others leave."""
    orders: dict[int, set[str]] = defaultdict(set)
    items: dict[int, int] = defaultdict(int)
    cents: dict[int, int] = defaultdict(int)
    for a in others:
        orders[a.location_id].add(lines[a.line_id].order_id)
        items[a.location_id] += a.quantity
        cents[a.location_id] += a.quantity * lines[a.line_id].value_cents

    def less(most: int | None, taken: int) -> int | None:
        return None if most is None else max(0, most - taken)

    return [
        msgspec.structs.replace(
            n, capacity_orders=less(n.capacity_orders, len(orders[n.location_id])),
            capacity_items=less(n.capacity_items, items[n.location_id]),
            capacity_cents=less(n.capacity_cents, cents[n.location_id]),
        )
        for n in locations
    ]  # fmt: skip


def _merged(plan: Plan, inner: Plan, lines: Mapping[int, Line], again: set[str]) -> Plan:
    """A plan with some of its orders as another one has them."""
    terms: dict[str, int] = defaultdict(int, plan.cost_by_term)
    for d in plan.decisions:
        if d.order_id in again:
            for name, cents in d.cents.items():
                terms[name] -= cents
    for name, cents in inner.cost_by_term.items():
        terms[name] += cents
    news = {d.order_id: d for d in inner.decisions}
    kept_ones = [a for a in plan.assignments if lines[a.line_id].order_id not in again]
    assignments = [*kept_ones, *inner.assignments]
    return msgspec.structs.replace(
        plan, assignments=assignments,
        unfilled=[*(u for u in plan.unfilled if lines[u.line_id].order_id not in again), *inner.unfilled],
        cost=sum(terms.values()), cost_by_term={name: cents for name, cents in terms.items() if cents},
        decisions=[news.get(d.order_id, d) for d in plan.decisions],
        packages=len({(lines[a.line_id].order_id, a.location_id) for a in assignments}),
    )  # fmt: skip
