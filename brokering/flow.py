"""All orders of one unit planned again at once, exactly, by minimum cost flow; everything else stays."""

import numpy as np

from brokering.matrix import INF, Ints, Matrix
from brokering.prices import Prices, candidates
from brokering.rounds import State

ROOM_MAX = 1 << 30
CLASS_CENTS = 1 << 24
"""What leaving an order of a higher class costs more in the flow, per class: no lower class overtakes it there."""


def single_units(m: Matrix, orders: Ints) -> Ints:
    """Those of these orders that have one line with one unit."""
    one = orders[m.items_per_order[orders] == 1]
    item = m.order_first[one]
    return one[(m.item_first[item + 1] - m.item_first[item] == 1) & (m.item_units[item] == 1)]


def replan_single_units(m: Matrix, state: State, one: Ints, price: Prices) -> None:
    """Replans these orders of single units: order → cell → location → done, or left."""
    from ortools.graph.python import min_cost_flow

    if not len(one) or (m.capacity[:, 2] < m.item_cents.sum()).any():
        return  # money is no unit of flow
    if (m.place_slot >= 0).any():
        return  # slots share cells: that is no network
    before = state.at.copy()
    state.release(one)
    groups = candidates(m, one, price, room=state.room, also=before)
    one = np.concatenate([g.orders for g in groups])
    whos, cells, cents, leaves = [], [], [], []
    start = 0
    rank = np.searchsorted(np.unique(m.priority), m.priority)
    room = state.room
    works = state.capacity[:, :2].min(1)
    for g in groups:
        total = g.package + g.cost[:, 0]
        u = g.uses[0]
        can = (total < np.minimum(g.leave, INF / 2)) & (room[u.cells] > 0) & (works[g.at] >= 1)
        b, k = np.nonzero(can)
        whos.append(b + start)
        cells.append(u.cells[b, k].astype(np.int64))
        cents.append(np.rint(total[b, k]).astype(np.int64))
        leaves.append(np.rint(g.leave[:, 0]).astype(np.int64) + rank[g.orders] * CLASS_CENTS)
        start += len(g.orders)
    who, cell, cost = np.concatenate(whos), np.concatenate(cells), np.concatenate(cents)
    unique, cell_at = np.unique(cell, return_inverse=True)
    n, r, places = len(one), len(unique), m.places
    sink = n + r + places
    solver = min_cost_flow.SimpleMinCostFlow()
    solver.add_arcs_with_capacity_and_unit_cost(
        np.concatenate([who, np.arange(n), n + np.arange(r), n + r + np.arange(places)]).astype(np.int32),
        np.concatenate([n + cell_at, np.full(n, sink), n + r + m.cell_place[unique], np.full(places, sink)]).astype(
            np.int32
        ),
        np.concatenate([np.ones(len(who) + n), room[unique], np.clip(works, 0, ROOM_MAX)]).astype(np.int64),
        np.concatenate([cost, *leaves, np.zeros(r + places, np.int64)]),
    )
    solver.set_nodes_supplies(
        np.append(np.arange(n), sink).astype(np.int32), np.append(np.ones(n, np.int64), -n).astype(np.int64)
    )
    at = np.full(n, -1, np.int64)
    status = solver.solve()
    assert status == solver.OPTIMAL, f"a flow that may leave every order has a solution, not {status}"
    taken = solver.flows(np.arange(len(who))) > 0
    at[who[taken]] = m.cell_place[cell[taken]]
    state.assign(one, m.order_first[one], at)
