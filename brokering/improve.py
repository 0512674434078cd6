"""Improvement: the orders that touch what is lost against the bound are planned again together, piece by piece.

What a plan costs more than the bound is, exactly, the sum of what orders regret at prices, plus stock left over at its
price, plus work left over at its price. So the pieces grow around those losses.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from brokering.evaluate import order_cents
from brokering.matrix import Floats, Ints, Matrix, spans
from brokering.near import Near
from brokering.prices import Prices
from brokering.rounds import State

LOSS_CENTS = (10, 5, 2)
PIECE_ORDERS = (4000, 12_000, 4000)
PIECE_SECONDS_MAX = 20.0
AT_ONCE = 2
"""Pieces planned side by side, however many processes there are: the plan does not depend on their number."""

Planner = Callable[[list[dict[str, Any]]], list[Ints | None]]


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


def improve(
    m: Matrix, state: State, orders: Ints, near: Near, price: Prices, plan: Planner, *, most: int,
    remaining: Callable[[], float], between: Callable[[], None], tell: Callable[[int], None],
) -> None:  # fmt: skip
    """Replans at most `most` pieces, those that lose most first, while time remains."""
    done = 0
    for level in range(len(LOSS_CENTS)):
        regret, lost = losses(m, state, orders, price, near)
        found = pieces(near, orders, regret, lost, LOSS_CENTS[level], PIECE_ORDERS[level])
        found.sort(key=lambda p: -regret[p].sum())
        while found:
            some = found[: min(AT_ONCE, most - done)]
            del found[: len(some)]
            if not some or remaining() <= 0:
                return
            side_by_side(m, state, some, near, price, plan, level=level, seconds=min(PIECE_SECONDS_MAX, remaining()))
            done += len(some)
            tell(done)
        between()


def side_by_side(
    m: Matrix, state: State, some: list[Ints], near: Near, price: Prices, plan: Planner, *, level: int, seconds: float
) -> None:  # fmt: skip
    """Replans pieces at once, each within what it has and its part of what is left; takes what costs less."""
    lowest = int(m.priority.min(initial=0))
    rows = len(price.stock)
    touched = np.zeros((len(some), rows + m.places), bool)
    for n, orders in enumerate(some):
        touched[n, near.rows[spans(near.rows_first[orders], near.rows_first[orders + 1])]] = True
    touched[:, 0] = True
    by_cell = touched[:, price.row_of]
    given = []
    for n, orders in enumerate(some):
        own = state.copy()
        own.release(orders)
        if len(some) > 1:
            for mine, own_left, left in (
                (by_cell, own.room, state.room), (touched[:, rows:], own.capacity, state.capacity)
            ):  # fmt: skip
                others = mine.sum(0) - mine[n]
                shared = others > 0 if mine is not by_cell else (others > 0) & (price.row_of > 0)
                turn = (np.arange(len(left)) + n) % len(some)
                if left.ndim > 1:
                    shared, turn, here = shared[:, None], turn[:, None], mine[n][:, None]
                else:
                    here = mine[n]
                part = left // len(some) + (turn < left % len(some))
                own_left -= np.where(shared, left - np.where(here, part, 0), 0).astype(left.dtype)
        items = spans(m.order_first[orders], m.order_first[orders + 1])
        given.append(
            {"orders": orders, "at": state.at[items], "room": own.room, "capacity": own.capacity, "level": level,
             "lowest": lowest, "seconds": seconds, "stock": price.stock, "work": price.work}
        )  # fmt: skip
    for orders, at in zip(some, plan(given), strict=True):
        if at is None:
            continue
        other = state.copy()
        other.release(orders)
        other.assign(orders, spans(m.order_first[orders], m.order_first[orders + 1]), at)
        legal = (other.room >= 0).all() and (other.capacity >= 0).all()
        if legal and order_cents(m, other, orders).sum() < order_cents(m, state, orders).sum():
            state.take_over(other)
