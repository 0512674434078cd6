"""Improvement: the orders that touch what is lost against the bound are planned again together, piece by piece.

What a plan costs more than the bound is, exactly, the sum of what orders regret at prices, plus stock left over at its
price, plus work left over at its price. So the pieces grow around those losses.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from brokering.evaluate import order_cents
from brokering.matrix import Bools, Floats, Ints, Matrix, spans
from brokering.near import Near
from brokering.prices import Prices
from brokering.rounds import State

LOSS_CENTS = (100, 40, 10)
"""Orders that lose more are hot, pass by pass; the last holds on."""
PIECE_ORDERS = 2500
PASSES_MAX = 50
WORTH_CENTS = 30
GAIN_MIN = 2e-4
LEVELS = 3
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


def pieces(
    near: Near, orders: Ints, regret: Floats, lost: Floats, limit: Floats, size: int, random: np.random.Generator
) -> list[Ints]:  # fmt: skip
    """Orders around losses above `limit` [O], in pieces of about `size` that share contested rows; greatest loss first."""
    allowed = np.zeros(len(regret), bool)
    allowed[orders] = True
    hot = np.flatnonzero(allowed & (regret > limit))
    hot_rows = lost > limit.min(initial=0)
    hot_rows[near.rows_of(hot)] = True
    free = np.zeros(len(regret), bool)
    free[hot] = True
    free[near.orders_of(np.flatnonzero(hot_rows))] = True
    found = in_a_band(near, np.flatnonzero(free & allowed), hot_rows, size, random)
    cuts = np.arange(-int(random.integers(size)), len(found), size)
    some = [found[max(0, c) : c + size] for c in cuts.tolist()]
    worth = [float(regret[p].sum()) for p in some]
    return [some[n] for n in np.argsort(np.negative(worth), kind="stable") if worth[n] >= WORTH_CENTS]


def in_a_band(near: Near, orders: Ints, rows: Bools, size: int, random: np.random.Generator) -> Ints:
    """Orders one after the other such that those that share contested rows stand close (Cuthill & McKee)."""
    open_rows = rows & (np.diff(near.orders_first) <= size)
    free = np.zeros(len(near.value), bool)
    free[orders] = True
    reached = np.zeros(len(near.value), bool)
    reached[near.orders_of(np.flatnonzero(open_rows))] = True
    found: list[Ints] = [orders[~reached[orders]]]
    for seed in random.permutation(orders[reached[orders]]).tolist():
        if not free[seed]:
            continue
        frontier = np.array([seed])
        free[seed] = False
        while len(frontier):
            found.append(frontier)
            around = first_of_each(near.rows_of(frontier))
            around = around[open_rows[around]]
            open_rows[around] = False
            frontier = first_of_each(near.orders_of(around))
            frontier = frontier[free[frontier]]
            free[frontier] = False
    return np.concatenate(found)


def first_of_each(values: Ints) -> Ints:
    """Distinct values in the order in which they come first."""
    firsts = np.unique(values, return_index=True)[1]
    return values[np.sort(firsts)]


def improve(
    m: Matrix, state: State, orders: Ints, near: Near, price: Prices, plan: Planner, *, most: int, seed: int,
    remaining: Callable[[], float], between: Callable[[], None], tell: Callable[[int], None],
) -> None:  # fmt: skip
    """Replans at most `most` pieces, those that lose most first, while time remains.

    Each pass cuts them elsewhere, by `seed`, and asks for more loss of orders that it could not help; a pass that wins
    little is followed by one whose orders have more plans to choose among.
    """
    random = np.random.default_rng(seed)
    tries = np.zeros(m.orders)
    done = level = 0
    cost = order_cents(m, state, orders).sum()
    for n in range(PASSES_MAX):
        regret, lost = losses(m, state, orders, price, near)
        limit = LOSS_CENTS[min(n, len(LOSS_CENTS) - 1)] * (1 + tries)
        found = pieces(near, orders, regret, lost, limit, PIECE_ORDERS, random)
        while found:
            some = found[: min(AT_ONCE, most - done)]
            del found[: len(some)]
            if not some or remaining() <= 0:
                return
            side_by_side(m, state, some, near, price, plan, level=level, seconds=min(PIECE_SECONDS_MAX, remaining()))
            done += len(some)
            tell(done)
        between()
        tries[regret > limit] += 1
        was, cost = cost, order_cents(m, state, orders).sum()
        if was - cost < GAIN_MIN * cost:
            level += 1
            tries[:] = 0
            if level == LEVELS:
                return


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
