"""All orders of one unit planned again at once, exactly, by minimum cost flow; everything else stays."""

import numpy as np

from brokering.matrix import INF, Ints, Matrix
from brokering.prices import candidates
from brokering.rounds import State

CAPACITY_MAX = 1 << 30


def replan_single_units(m: Matrix, state: State, orders: Ints) -> None:
    """Replans, among `orders`, those of one line with one unit: order → cell → location → done, or left."""
    from ortools.graph.python import min_cost_flow

    if (m.capacity[:, 2] < INF / 2).any():
        return
    lines_per_order = np.bincount(m.item_order[m.line_item], minlength=m.orders)
    one = orders[(m.items_per_order[orders] == 1) & (lines_per_order[orders] == 1)]
    one = one[m.line_quantity[m.item_first[m.order_first[one]]] == 1]
    if not len(one):
        return
    state.release(one)
    places = len(m.location_ids)
    orders_at: list[Ints] = []
    cells: list[Ints] = []
    cents: list[Ints] = []
    leave = np.zeros(len(one), np.int64)
    number = np.full(m.orders, -1, np.int64)
    number[one] = np.arange(len(one))
    for g in candidates(m, one, room=state.room):
        total = g.package + g.cost[:, 0]
        leave[number[g.orders]] = np.rint(g.leave[:, 0])
        can = (
            (total < np.minimum(g.leave[:, :1], INF / 2))
            & (state.capacity[g.at, 0] > 0)
            & (state.capacity[g.at, 1] > 0)
        )
        again = np.zeros(can.shape, bool)
        sorted_at = np.sort(g.at, 1)
        again[:, 1:] = sorted_at[:, 1:] == sorted_at[:, :-1]
        if again.any():  # padded candidates stand once
            first = np.zeros(can.shape, bool)
            for k in range(g.at.shape[1]):
                first[:, k] = (g.at[:, :k] != g.at[:, k : k + 1]).all(1)
            can &= first
        b, k = np.nonzero(can)
        sku = m.line_sku[m.item_first[m.order_first[g.orders[b]]]]
        orders_at.append(number[g.orders[b]])
        cells.append(sku * places + g.at[b, k])
        cents.append(np.rint(total[b, k]).astype(np.int64))
    who, cell, cost = np.concatenate(orders_at), np.concatenate(cells), np.concatenate(cents)
    unique, cell_at = np.unique(cell, return_inverse=True)
    n, r = len(one), len(unique)
    sink = n + r + places
    room_at = np.minimum(state.capacity[:, :2].min(1), CAPACITY_MAX).astype(np.int64)
    solver = min_cost_flow.SimpleMinCostFlow()
    solver.add_arcs_with_capacity_and_unit_cost(
        np.concatenate([who, np.arange(n), n + np.arange(r), n + r + np.arange(places)]).astype(np.int32),
        np.concatenate([n + cell_at, np.full(n, sink), n + r + unique % places, np.full(places, sink)]).astype(
            np.int32
        ),
        np.concatenate([np.ones(len(who) + n, np.int64), state.room.ravel()[unique], np.maximum(room_at, 0)]),
        np.concatenate([cost, leave, np.zeros(r + places, np.int64)]),
    )
    solver.set_nodes_supplies(
        np.append(np.arange(n), sink).astype(np.int32), np.append(np.ones(n, np.int64), -n).astype(np.int64)
    )
    items = m.order_first[one]
    at = np.full(n, -1, np.int64)
    if solver.solve() == solver.OPTIMAL:
        taken = solver.flows(np.arange(len(who))) > 0
        at[who[taken]] = cell[taken] % places
    state.assign(one, items, at)
