"""Improvement: the orders that touch what is lost against the bound are planned again together, as a choice of columns.

What a plan costs more than the bound is, exactly, the sum of what orders regret at prices, plus stock left over at its
price, plus work left over at its price. So the pieces grow around those losses.
"""

from collections import deque
from collections.abc import Callable

import numpy as np

from brokering.columns import Columns, choose, columns, usage
from brokering.evaluate import order_cents
from brokering.matrix import Floats, Ints, Matrix
from brokering.prices import Group, Prices, at_prices, candidates, solve_group, with_rows
from brokering.rounds import State

NEAR_CENTS = 150
LOSS_CENTS = (40, 10, 2)
PLANS = (6, 8, 12)
SOLVERS = ("scip", "highs", "highs")
WITHIN_CENTS = (300, 600, 900)
PIECE_ORDERS = 8000
PIECE_SECONDS_MAX = 20.0


class Near:
    """Which contested rows the good plans of each order touch, both ways."""

    def __init__(self, m: Matrix, groups: list[Group], price: Prices) -> None:
        self.value = np.zeros(m.orders)
        pairs = []
        size = len(price.stock) + m.places
        for g in groups:
            self.value[g.orders] = solve_group(g, *at_prices(m, g, price), want=False)[0]
            c = columns(m, g, price, most=6, within_cents=NEAR_CENTS)
            who, what, _ = usage(m, c)
            cell = what < m.cells
            row = np.zeros(len(what), np.int64)
            row[cell] = price.row_of[what[cell]]
            work = ~cell & (what < m.cells + m.places)
            at = what[work] - m.cells
            row[work] = np.where(price.work[at, 0] > 0, len(price.stock) + at, 0)
            some = row > 0
            pairs.append(np.unique(g.orders[c.b[who[some]]] * size + row[some]))
        pair = np.concatenate(pairs) if pairs else np.zeros(0, np.int64)
        self.rows_first, self.rows = _lists(pair // size, pair % size, m.orders)
        back = np.argsort(pair % size, kind="stable")
        self.orders_first, self.orders = _lists((pair % size)[back], (pair // size)[back], size)


def _lists(key: Ints, value: Ints, size: int) -> tuple[Ints, Ints]:
    by = np.argsort(key, kind="stable")
    return np.searchsorted(key[by], np.arange(size + 1)), value[by]


def losses(m: Matrix, state: State, orders: Ints, price: Prices, near: Near) -> tuple[Floats, Floats]:
    """What each order regrets at prices, [O], and what each contested row and then each location's work loses."""
    regret = np.zeros(m.orders)
    regret[orders] = order_cents(m, state, orders) - near.value[orders]
    lines, at = state.lines(orders)
    of = m.item_order[m.line_item[lines]]
    cells = m.cell_of(m.line_sku[lines], at)
    take = m.line_quantity[lines]
    paid = price.stock[price.row_of[cells]] * take
    paid += price.work[at, 1] * take + price.work[at, 2] * m.line_cents_of_capacity[lines]
    regret += np.bincount(of, paid, m.orders)
    pairs = np.unique(of * m.places + at)
    regret += np.bincount(pairs // m.places, price.work[pairs % m.places, 0], m.orders)
    cells_priced = np.flatnonzero(price.row_of)
    lost = np.zeros(len(price.stock) + m.places)
    rows = price.row_of[cells_priced]
    lost[rows] = price.stock[rows] * state.room[cells_priced]
    lost[len(price.stock) :] = price.work[:, 0] * np.minimum(state.capacity[:, 0], 1e6)
    return regret, lost


def pieces(near: Near, orders: Ints, regret: Floats, lost: Floats, limit: float, size: int) -> list[Ints]:
    """Orders around losses above `limit`, in pieces of at most `size` that share contested rows; greatest loss first."""
    allowed = np.zeros(len(regret), bool)
    allowed[orders] = True
    hot = allowed & (regret > limit)
    hot_rows = lost > limit
    for o in np.flatnonzero(hot).tolist():
        hot_rows[near.rows[near.rows_first[o] : near.rows_first[o + 1]]] = True
    free = hot.copy()
    for r in np.flatnonzero(hot_rows).tolist():
        free[near.orders[near.orders_first[r] : near.orders_first[r + 1]]] = True
    free &= allowed
    found: list[Ints] = []
    piece: list[int] = []
    for seed in np.argsort(-regret, kind="stable").tolist():
        if not free[seed]:
            continue
        free[seed] = False
        queue = deque([seed])
        while queue:
            o = queue.popleft()
            piece.append(o)
            for r in near.rows[near.rows_first[o] : near.rows_first[o + 1]].tolist():
                if not hot_rows[r]:
                    continue
                others = near.orders[near.orders_first[r] : near.orders_first[r + 1]]
                others = others[free[others]]
                free[others] = False
                queue.extend(others.tolist())
            if len(piece) + len(queue) >= size:
                piece.extend(queue)
                found.append(np.array(piece[:size]))
                free[piece[size:]] = True
                piece = []
                break
    if piece:
        found.append(np.array(piece))
    return found


def replan_piece(
    m: Matrix, state: State, price: Prices, orders: Ints, *, level: int, lowest: int,
    seconds: Callable[[], float],
) -> bool:  # fmt: skip
    """Plans these orders again at once over several plans each, everything else fixed; True where it costs less."""
    other = state.copy()
    other.release(orders)
    made: list[Columns] = []
    for g in candidates(m, orders, price, room=other.room, also=state.at):
        c = columns(
            m, with_rows(g, price), price, most=PLANS[level], within_cents=WITHIN_CENTS[level], state=other,
            incumbent=state.at,
        )  # fmt: skip
        made.append(_not_leaving_more(m, c, state.at, lowest))
    who, what, much, start = [], [], [], 0
    for c in made:
        n, resource, amount = usage(m, c)
        who.append(n + start)
        what.append(resource)
        much.append(amount)
        start += len(c.b)
    cents = np.concatenate([c.cents for c in made])
    owner = np.concatenate([c.group.orders[c.b] for c in made])
    room = np.concatenate([other.room, other.capacity.T.ravel()])
    mine = np.concatenate([c.mine for c in made])
    uses = np.concatenate(who), np.concatenate(what), np.concatenate(much)
    chosen = choose(cents, owner, mine, uses, room, solver=SOLVERS[level], seconds=seconds())
    before = order_cents(m, state, orders).sum()
    if cents[chosen].sum() > before - 0.5:
        return False
    start = 0
    for c in made:
        n = np.flatnonzero(chosen[start : start + len(c.b)])
        start += len(c.b)
        g, b, position = c.group, c.b[n], c.position[n]
        at = np.where(position >= 0, np.take_along_axis(g.at[b], np.maximum(position, 0), 1), -1)
        other.assign(g.orders[b], g.ids(m)[b].ravel(), at.ravel())
    legal = (other.room >= 0).all() and (other.capacity >= 0).all()
    if not legal or order_cents(m, other, orders).sum() >= before:
        return False
    state.take_over(other)
    return True


def _not_leaving_more(m: Matrix, c: Columns, at: Ints, lowest: int) -> Columns:
    """Without the columns that leave more of a higher class than is left now."""
    g = c.group
    now = np.where(at[g.ids(m)] < 0, g.leave, 0).sum(1)
    keep = (m.priority[g.orders[c.b]] == lowest) | (c.left <= now[c.b] + 0.5)
    return Columns(g, c.b[keep], c.position[keep], c.cents[keep], c.left[keep], c.mine[keep])


def improve(
    m: Matrix, state: State, orders: Ints, groups: list[Group], price: Prices, *, most: int, remaining: Callable[[], float],
    between: Callable[[], None], tell: Callable[[int], None],
) -> None:  # fmt: skip
    """Replans at most `most` pieces, those that lose most first, while time remains."""
    near = Near(m, groups, price)
    lowest = int(m.priority.min(initial=0))
    done = 0
    for level in range(len(LOSS_CENTS)):
        regret, lost = losses(m, state, orders, price, near)
        found = pieces(near, orders, regret, lost, LOSS_CENTS[level], PIECE_ORDERS)
        for piece in sorted(found, key=lambda p: -regret[p].sum()):
            if done >= most or remaining() <= 0:
                return
            replan_piece(
                m, state, price, piece, level=level, lowest=lowest,
                seconds=lambda: min(PIECE_SECONDS_MAX, remaining()),
            )  # fmt: skip
            done += 1
            tell(done)
        between()
