"""Whole plans of single orders as columns, and the choice among them: one column per order within what is left."""

from dataclasses import dataclass

import numpy as np

from brokering.matrix import INF, Bools, Floats, Ints, Matrix
from brokering.prices import Group, Prices, at_prices, packages_of, solve_group
from brokering.rounds import State, within
from brokering.subsets import several

ITEMS_SEVERAL_MAX = 6
PLANS_AT_ONCE = 2_000_000


@dataclass(frozen=True)
class Columns:
    """Columns of one group: order by its place in the group, positions [n,L], cents, what it leaves, the plan of now.

    `regret` is how much dearer than the order's best plan it is at prices, 0 for the plan of now.
    """

    group: Group
    b: Ints
    position: Ints
    cents: Floats
    left: Floats
    mine: Bools
    regret: Floats


def columns(
    m: Matrix, g: Group, price: Prices, *, most: int, within_cents: float, state: State | None = None,
    incumbent: Ints | None = None,
) -> Columns:  # fmt: skip
    """The best plans of each order at prices, no dearer than the best by `within_cents`, and its plan of now.

    `state` limits them to what is left there; `incumbent` is where each item goes now.
    """
    package, cost = at_prices(m, g, price)
    if state is not None:
        package, cost = within(m, state, g, package, cost)
    bs: list[Ints] = []
    positions: list[Ints] = []
    regrets: list[Floats] = []
    held = 0
    step = max(1, PLANS_AT_ONCE // (most * most * 2**g.items)) if g.items <= ITEMS_SEVERAL_MAX else 10**6
    for start in range(0, len(g.orders), step):
        cut = slice(start, start + step)
        if g.items <= ITEMS_SEVERAL_MAX:
            value, plans = several(
                package[cut], cost[cut], g.leave[cut], complete=g.complete, packages=g.packages, most=most
            )
            near = (value < INF / 2) & (value <= value.min(1, keepdims=True) + within_cents)
        else:
            part = g.some(np.arange(len(g.orders))[cut])
            worth, plan = solve_group(part, package[cut], cost[cut])
            value, plans, near = worth[:, None], plan[:, None], np.ones((len(worth), 1), bool)
        b, nth = np.nonzero(near)
        bs.append(b + start)
        regrets.append((value - value.min(1, keepdims=True))[b, nth])
        positions.append(plans[b, nth].astype(np.int64))
    if incumbent is not None:
        mine = incumbent[g.ids(m)]
        here = (mine[:, :, None] == g.at[:, None, :]) & (g.package < INF / 2)[:, None, :]
        position = np.where((mine >= 0) & here.any(2), here.argmax(2), -1)
        known = ((mine < 0) | here.any(2)).all(1)
        held = int(known.sum())
        bs.insert(0, np.flatnonzero(known))
        positions.insert(0, position[known])
        regrets.insert(0, np.zeros(held, np.float32))
        bs.append(np.arange(len(g.orders)))  # nothing at all is always possible
        positions.append(np.full((len(g.orders), g.items), -1, np.int64))
        regrets.append(np.full(len(g.orders), INF))
    b, position = np.concatenate(bs), np.concatenate(positions)
    # the same plan once
    key = np.zeros(len(b), np.int64)
    for i in range(g.items):
        key = key * 1_000_003 + position[:, i] + 2
    _, first = np.unique(np.stack([b, key]), axis=1, return_index=True)
    first.sort()
    b, position, regret = b[first], position[first], np.concatenate(regrets)[first]
    cents, left = _cents(m, g, b, position, g.package, g.cost)
    return Columns(g, b, position, cents, left, first < held, regret)


def _cents(m: Matrix, g: Group, b: Ints, position: Ints, package: Floats, cost: Floats) -> tuple[Floats, Floats]:
    gone = position >= 0
    at = np.maximum(position, 0)
    items = np.arange(g.items)
    left = np.where(gone, 0, g.leave[b]).sum(1, dtype=np.float64)
    cents = left + np.where(gone, cost[b[:, None], items, at], 0).sum(1, dtype=np.float64)
    order = np.sort(np.where(gone, position, -1), 1)
    new = order >= 0
    new[:, 1:] &= order[:, 1:] != order[:, :-1]
    cents += np.where(new, package[b[:, None], np.maximum(order, 0)], 0).sum(1, dtype=np.float64)
    return cents, left


def usage(m: Matrix, c: Columns) -> tuple[Ints, Ints, Ints]:
    """What columns take: (column, resource, amount); resources are cells, then orders, items and cents by location."""
    g, cells = c.group, m.cells
    whos, whats, amounts = [], [], []
    by_b: list[Ints] = [np.full((len(g.orders), g.items), -1, np.int64) for _ in g.uses]
    for nth, u in enumerate(g.uses):
        by_b[nth][u.b, u.i] = np.arange(len(u.b))
        at_use = by_b[nth][c.b]  # [n,L] place in the use
        n, i = np.nonzero((c.position >= 0) & (at_use >= 0))
        row, k = at_use[n, i], c.position[n, i]
        at = g.at[c.b[n], k].astype(np.int64)
        whos += [n, n, n]
        whats += [u.cells[row, k].astype(np.int64), cells + m.places + at, cells + 2 * m.places + at]
        amounts += [u.take[row], u.take[row], m.line_cents_of_capacity[u.lines[row]]]
    wide = Group(g.items, g.complete, g.packages, g.orders, g.at[c.b], g.package, g.cost, g.leave, ())
    n, at = packages_of(m, wide, c.position)
    who, what = np.concatenate([*whos, n]), np.concatenate([*whats, cells + at])
    return who, what, np.concatenate([*amounts, np.ones(len(n), np.int64)])
