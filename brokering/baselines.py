"""What brokering is compared with: nearest with stock, and one order at a time, exactly."""

import numpy as np

from brokering.assembly import as_plan
from brokering.costs import eligible, order_costs
from brokering.matrix import INF, Matrix
from brokering.numbering import compile_problem
from brokering.problem import Plan, Problem
from brokering.protect import room_beside
from brokering.rounds import State
from brokering.subsets import ITEMS_EXACT_MAX, best, greedy


def nearest(problem: Problem) -> Plan:
    """The usual rule: the nearest location that has all of an order, else the one with most of it, again and again."""
    m = compile_problem(problem)
    state = State(m, room_beside(m, problem))
    for order in np.argsort(-m.priority, kind="stable"):
        _nearest_one(m, state, int(order))
    return as_plan(problem, m, state, m.cell_stock, bound=0, phases={})


def one_at_a_time(problem: Problem) -> Plan:
    """Each order by itself at its own least cost, in turn: what most brokers do at their best."""
    m = compile_problem(problem)
    state = State(m, room_beside(m, problem))
    for order in np.argsort(-m.priority, kind="stable"):
        one = np.array([order])
        items = int(m.items_per_order[order])
        if items == 0:
            continue
        package, cost, leave = order_costs(m, one, items, state.room)
        package = np.where(state.capacity[:, 0] > 0, package, INF)
        cost = _within_capacity(m, state, int(order), cost)
        limit = int(min(m.packages_max[order], items))
        complete = bool(m.complete[order])
        if items <= ITEMS_EXACT_MAX:
            position = best(package, cost, leave, complete=complete, packages=limit)[1][0]
        else:
            position = greedy(package[0], cost[0], leave[0], complete=complete, packages=limit)[1]
        ids = np.arange(m.order_first[order], m.order_first[order + 1])
        if _fits(m, state, ids, position):
            state.assign(one, ids, position)
    return as_plan(problem, m, state, m.cell_stock, bound=0, phases={})


def _within_capacity(m: Matrix, state: State, order: int, cost: np.ndarray) -> np.ndarray:
    cost = cost.copy()
    for i, item in enumerate(range(m.order_first[order], m.order_first[order + 1])):
        lines = np.arange(m.item_first[item], m.item_first[item + 1])
        units, cents = m.line_quantity[lines].sum(), m.line_cents_of_capacity[lines].sum()
        cost[0, i, (state.capacity[:, 1] < units) | (state.capacity[:, 2] < cents)] = INF
    return cost


def _fits(m: Matrix, state: State, items: np.ndarray, position: np.ndarray) -> bool:
    """Whether several items of an order do not overdraw the same cell or capacity together."""
    use: dict[int, int] = {}
    work: dict[int, list[int]] = {}
    for item, at in zip(items, position, strict=True):
        if at < 0:
            continue
        for line in range(m.item_first[item], m.item_first[item + 1]):
            key = int(m.cell_of(m.line_sku[line], at))
            use[key] = use.get(key, 0) + int(m.line_quantity[line])
            units, cents = work.setdefault(int(at), [0, 0])
            work[int(at)] = [units + int(m.line_quantity[line]), cents + int(m.line_cents_of_capacity[line])]
    return all(state.room[k] >= v for k, v in use.items()) and all(
        state.capacity[at, 1] >= units and state.capacity[at, 2] >= cents for at, (units, cents) in work.items()
    )


def _nearest_one(m: Matrix, state: State, order: int) -> None:
    ids = np.arange(m.order_first[order], m.order_first[order + 1])
    if not len(ids):
        return
    can = np.ones((len(ids), m.places), bool)
    for i, item in enumerate(ids):
        lines = np.arange(m.item_first[item], m.item_first[item + 1])
        ok = eligible(m, lines, np.full(len(lines), order))
        can[i] = (ok & (m.spread(m.line_sku[lines], state.room) >= m.line_quantity[lines][:, None])).all(0)
        units, cents = m.line_quantity[lines].sum(), m.line_cents_of_capacity[lines].sum()
        can[i] &= (state.capacity[:, 1] >= units) & (state.capacity[:, 2] >= cents)
    can &= state.capacity[:, 0] > 0
    distance = m.zone[m.destination[order]].astype(float)
    position = np.full(len(ids), -1)
    left, packages = np.ones(len(ids), bool), 0
    while left.any() and packages < m.packages_max[order]:
        has = can[left].sum(0)
        if has.max() == 0:
            break
        k = int(np.where(has == has.max(), distance, np.inf).argmin())
        take = left & can[:, k]
        position[take] = k
        left &= ~take
        packages += 1
    if m.complete[order] and left.any():
        return
    if _fits(m, state, ids, position):
        state.assign(np.array([order]), ids, position)
