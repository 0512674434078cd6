"""Labor: minutes of work of a location, which packages, lines and units take; where they are too few, CP-SAT chooses.

Waves and pick-up slots are slots of a location, and are kept by the plan itself. Minutes add up over unlike things, so
the orders of a location that has too few are planned again together, as a choice among several plans of each.
"""

import numpy as np

from brokering.columns import Columns, columns, usage
from brokering.matrix import Floats, Ints, Matrix
from brokering.prices import Prices, candidates, with_rows
from brokering.problem import Labor
from brokering.rounds import State

ORDERS_MAX = 600
PLANS = 8
SECONDS_MAX = 10.0
TICKS = 100
"""Minutes are counted in hundredths, and money in cents."""


def minutes(m: Matrix, state: State, labor: Labor) -> Floats:
    """Minutes that each order's lines take at a location, [O]."""
    lines, at = state.lines(np.arange(m.orders))
    here = m.location_ids[at] == labor.location_id
    lines, at = lines[here], at[here]
    of = m.item_order[m.line_item[lines]]
    taken = np.bincount(of, labor.line_minutes + labor.unit_minutes * m.line_quantity[lines], m.orders)
    packages = np.unique(of * m.places + at) // m.places
    found: Floats = taken + labor.package_minutes * np.bincount(packages, minlength=m.orders)
    return found


def keep_labor(m: Matrix, state: State, price: Prices, limits: tuple[Labor, ...], *, seed: int) -> None:
    """Plans orders again where a location has too few minutes, until every limit is kept."""
    for labor in limits:
        taken = minutes(m, state, labor)
        if taken.sum() <= labor.minutes_max:
            continue
        there = np.flatnonzero(taken > 0)
        # what takes longest goes first into the piece; the rest keeps its place while the minutes last
        piece = there[np.argsort(-taken[there], kind="stable")][:ORDERS_MAX]
        rest = np.setdiff1d(there, piece)
        over = np.cumsum(taken[rest]) > labor.minutes_max
        state.release(rest[over])
        _choose_again(m, state, price, piece, limits, seed=seed)


def _choose_again(
    m: Matrix, state: State, price: Prices, orders: Ints, limits: tuple[Labor, ...], *, seed: int
) -> None:  # fmt: skip
    from ortools.sat.python import cp_model

    now = state.at.copy()
    state.release(orders)
    spare = [max(0.0, n.minutes_max - minutes(m, state, n).sum()) for n in limits]
    model = cp_model.CpModel()
    made: list[tuple[Columns, list[cp_model.IntVar]]] = []
    goal, takes = [], [[] for _ in limits]  # type: ignore[var-annotated]
    uses: dict[int, list[tuple[cp_model.IntVar, int]]] = {}
    for g in candidates(m, orders, price, room=state.room):
        c = columns(
            m, with_rows(g, price.row_of), price, most=PLANS, within_cents=float("inf"), state=state, incumbent=now
        )  # fmt: skip
        chosen = [model.new_bool_var("") for _ in c.b]
        made.append((c, chosen))
        goal += [round(cents) * v for cents, v in zip(c.cents.tolist(), chosen, strict=True)]
        for b in range(len(g.orders)):
            model.add_exactly_one([chosen[n] for n in np.flatnonzero(c.b == b).tolist()])
        for who, what, much in zip(*(a.tolist() for a in usage(m, c)), strict=True):
            uses.setdefault(what, []).append((chosen[who], int(much)))
        for nth, labor in enumerate(limits):
            for n, ticks in enumerate(_ticks(m, c, labor).tolist()):
                if ticks:
                    takes[nth].append(ticks * chosen[n])
    left = np.concatenate([state.room, np.minimum(state.capacity, 1e12).T.ravel()])
    for what, terms in uses.items():
        if sum(much for _, much in terms) > left[what]:
            model.add(sum(much * v for v, much in terms) <= int(left[what]))
    for mins, limit in zip(takes, spare, strict=True):
        model.add(sum(mins) <= int(limit * TICKS))
    model.minimize(sum(goal))
    solver = cp_model.CpSolver()
    solver.parameters.random_seed, solver.parameters.num_workers = seed, 1
    solver.parameters.max_deterministic_time = SECONDS_MAX
    if solver.solve(model) not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return  # nothing at all was always possible, but not found in time: these orders stay
    for c, chosen in made:
        picked = np.array([i for i, v in enumerate(chosen) if solver.boolean_value(v)], np.int64)
        g, rows, position = c.group, c.b[picked], c.position[picked]
        at = np.where(position >= 0, np.take_along_axis(g.at[rows], np.maximum(position, 0), 1), -1)
        state.assign(g.orders[rows], g.ids(m)[rows].ravel(), at.ravel())


def _ticks(m: Matrix, c: Columns, labor: Labor) -> Ints:
    """Hundredths of minutes that each column takes at a location, rounded up."""
    g = c.group
    at = np.where(c.position >= 0, np.take_along_axis(g.at[c.b], np.maximum(c.position, 0), 1), -1)
    here = (at >= 0) & (m.location_ids[np.maximum(at, 0)] == labor.location_id)
    items = g.ids(m)[c.b]
    lines = m.item_first[items + 1] - m.item_first[items]
    taken = (here * (lines * labor.line_minutes + m.item_units[items] * labor.unit_minutes)).sum(1)
    packages = [len(set(row[mine].tolist())) for row, mine in zip(at, here, strict=True)]
    found: Ints = np.ceil((taken + labor.package_minutes * np.array(packages)) * TICKS - 1e-6).astype(np.int64)
    return found
