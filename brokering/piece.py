"""A piece of a plan: orders planned again together, as a choice among several plans of each, all else fixed."""

import numpy as np

from brokering.choice import Choice, choose
from brokering.columns import Columns, columns, usage
from brokering.matrix import Floats, Ints, Matrix, spans
from brokering.prices import Prices, candidates, with_rows
from brokering.rounds import State

PLANS = (12, 18, 24)
WITHIN_CENTS = (500, 800, 1100)
GAPS = (1e-4, 1e-4, 1e-4)
"""A piece this near its own best is good enough."""


def replanned(
    m: Matrix, price: Prices, *, orders: Ints, at: Ints, room: Ints, capacity: Floats, level: int, lowest: int,
    seconds: float,
) -> Ints | None:  # fmt: skip
    """Where the items of these orders go when they are planned again, in the order of `at`; None where nothing is won.

    `at` is where their items go now, [-1: nowhere]; `room` and `capacity` are what they may take.
    """
    state = State(m, room)
    state.capacity = capacity.copy()
    now = np.full(len(m.item_order), -1, np.int32)
    items = spans(m.order_first[orders], m.order_first[orders + 1])
    now[items] = at
    made: list[Columns] = []
    for g in candidates(m, orders, price, room=room, also=now):
        c = columns(
            m, with_rows(g, price.row_of), price, most=PLANS[level], within_cents=WITHIN_CENTS[level], state=state,
            incumbent=now,
        )  # fmt: skip
        made.append(_not_leaving_more(m, c, now, lowest))
    who, what, much, start = [], [], [], 0
    for c in made:
        n, resource, amount = usage(m, c)
        who.append(n + start)
        what.append(resource)
        much.append(amount)
        start += len(c.b)
    together = Choice(
        cents=np.concatenate([c.cents for c in made]),
        owner=np.concatenate([c.group.orders[c.b] for c in made]),
        mine=np.concatenate([c.mine for c in made]),
        regret=np.concatenate([c.regret for c in made]),
        uses=(np.concatenate(who), np.concatenate(what), np.concatenate(much)),
        room=np.concatenate([room, capacity.T.ravel()]),
    )
    chosen = choose(together, seconds=seconds, gap=GAPS[level])
    if together.cents[chosen].sum() > together.cents[together.mine].sum() - 0.5:
        return None
    start = 0
    for c in made:
        n = np.flatnonzero(chosen[start : start + len(c.b)])
        start += len(c.b)
        g, b, position = c.group, c.b[n], c.position[n]
        goes = np.where(position >= 0, np.take_along_axis(g.at[b], np.maximum(position, 0), 1), -1)
        now[g.ids(m)[b].ravel()] = goes.ravel()
    planned: Ints = now[items]
    return planned


def _not_leaving_more(m: Matrix, c: Columns, at: Ints, lowest: int) -> Columns:
    """Without the columns that leave more of a higher class than is left now."""
    g = c.group
    now = np.where(at[g.ids(m)] < 0, g.leave, 0).sum(1)
    keep = (m.priority[g.orders[c.b]] == lowest) | (c.left <= now[c.b] + 0.5)
    return Columns(g, c.b[keep], c.position[keep], c.cents[keep], c.left[keep], c.mine[keep], c.regret[keep])
