"""All orders of one unit planned again at once, exactly, by minimum cost flow; everything else stays."""

from collections.abc import Callable
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Arcs:
    """Where orders of one unit may go: the orders, what leaving each costs, and (its place, cell, cents) of each way."""

    orders: Ints
    leave: Ints
    who: Ints
    cell: Ints
    cents: Ints


def arcs_of(m: Matrix, one: Ints, price: Prices, *, room: Ints, at: Ints) -> Arcs:
    """The ways of orders of single units within `room` [C+1]; where an order is now (`at` [I]) is one of them."""
    orders, leaves, whos, cells, cents = ([np.zeros(0, np.int64)] for _ in range(5))
    start = 0
    for g in candidates(m, one, price, room=room, also=at) if len(one) else ():
        total, u = g.package + g.cost[:, 0], g.uses[0]
        b, k = np.nonzero((total < np.minimum(g.leave, INF / 2)) & (room[u.cells] > 0))
        whos.append(b + start)
        cells.append(u.cells[b, k].astype(np.int64))
        cents.append(np.rint(total[b, k]).astype(np.int64))
        orders.append(g.orders)
        leaves.append(np.rint(g.leave[:, 0]).astype(np.int64))
        start += len(g.orders)
    return Arcs(*(np.concatenate(parts) for parts in (orders, leaves, whos, cells, cents)))


Ways = Callable[[Ints, Ints], list[Arcs]]
"""The arcs of all single units within a room, where each item is now being one."""


def replan_single_units(m: Matrix, state: State, one: Ints, ways: Ways) -> None:
    """Replans these orders of single units: order → cell → location → done, or left."""
    from ortools.graph.python import min_cost_flow

    if not len(one) or (m.capacity[:, 2] < m.item_cents.sum()).any():
        return  # money is no unit of flow
    if (m.place_slot >= 0).any():
        return  # slots share cells: that is no network
    before = state.at.copy()
    state.release(one)
    parts = ways(state.room, before)
    starts = np.cumsum([0, *(len(p.orders) for p in parts)])
    one = np.concatenate([p.orders for p in parts])
    who = np.concatenate([p.who + start for p, start in zip(parts, starts, strict=False)])
    cell, cost = np.concatenate([p.cell for p in parts]), np.concatenate([p.cents for p in parts])
    rank = np.searchsorted(np.unique(m.priority), m.priority)
    leave = np.concatenate([p.leave for p in parts]) + rank[one] * CLASS_CENTS
    room = state.room
    works = state.capacity[:, :2].min(1)
    can = works[m.cell_place[cell]] >= 1
    who, cell, cost = who[can], cell[can], cost[can]
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
        np.concatenate([cost, leave, np.zeros(r + places, np.int64)]),
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
