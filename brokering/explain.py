"""Why each order is planned as it is: candidates with cents by term, and why the others fell out."""

import numpy as np

from brokering.evaluate import cost_by_term
from brokering.matrix import INF, Ints, Matrix, eligible, line_terms, package_terms
from brokering.problem import Candidate, Decision, Unfilled
from brokering.rounds import State

CANDIDATES_KEPT = 5
ORDERS_AT_ONCE = 200


def decisions(m: Matrix, state: State, room: Ints) -> list[Decision]:
    """One decision per order, in the order of the problem. `room` is what the run could take at its start."""
    kept: list[Decision] = []
    for start in range(0, m.orders, ORDERS_AT_ONCE):
        orders = np.arange(start, min(m.orders, start + ORDERS_AT_ONCE))
        kept += _some(m, state, room, orders)
    return kept


def _some(m: Matrix, state: State, room: Ints, orders: Ints) -> list[Decision]:
    places = len(m.location_ids)
    terms, _ = cost_by_term(m, state, orders)
    package = package_terms(m, orders)
    mask = np.zeros(m.orders, bool)
    mask[orders] = True
    lines = np.flatnonzero(mask[m.item_order[m.line_item]])
    of = m.item_order[m.line_item[lines]] - orders[0]
    costs = line_terms(m, lines, orders[of])
    allowed = eligible(m, lines, orders[of])
    has = room[m.line_sku[lines]] >= m.line_quantity[lines][:, None]
    can = allowed & has
    count = np.zeros((len(orders), places), np.int64)
    np.add.at(count, of, can)
    someone = np.zeros((len(orders), places), np.int64)
    np.add.at(someone, of, allowed)
    by_term = {name: np.zeros((len(orders), places)) for name in costs}
    for name, cents in costs.items():
        np.add.at(by_term[name], of, np.where(can, cents, 0))
    unserved = np.zeros((len(orders), places))
    np.add.at(unserved, of, np.where(can, 0, m.leave[lines][:, None]))
    total = sum(package.values(), np.zeros(())) + sum(by_term.values(), np.zeros(())) + unserved
    total = np.where(count > 0, total, INF)
    full = m.capacity[:, 0] <= 0
    top = np.argsort(total, 1, kind="stable")[:, :CANDIDATES_KEPT]
    chosen: dict[int, set[int]] = {}
    for line, b in zip(lines, of, strict=True):
        at = int(state.at[m.line_item[line]])
        if at >= 0:
            chosen.setdefault(int(b), set()).add(at)
    out: list[Decision] = []
    for b, order in enumerate(orders):
        mine = chosen.get(b, set())
        shown = list(dict.fromkeys([*sorted(mine), *(int(k) for k in top[b] if count[b, k] > 0)]))
        candidates = []
        for k in shown[: CANDIDATES_KEPT + len(mine)]:
            cents = {name: int(v[b, k]) for name, v in package.items() if v[b, k]}
            cents |= {name: int(v[b, k]) for name, v in by_term.items() if v[b, k]}
            if unserved[b, k]:
                cents["not_here"] = int(unserved[b, k])
            fell = None if k in mine else _why(m, state, room, int(order), lines[of == b], k)
            candidates.append(Candidate(int(m.location_ids[k]), int(count[b, k]), cents, fell))
        none = count[b] == 0
        fell_out = {
            "not eligible": int((someone[b] == 0).sum()), "no stock": int((none & (someone[b] > 0)).sum()),
            "no capacity": int((~none & full).sum()),
        }  # fmt: skip
        out.append(
            Decision(
                m.problem.orders[order].order_id, {name: int(v[b]) for name, v in terms.items() if v[b]}, candidates,
                {k: v for k, v in fell_out.items() if v},
            )
        )  # fmt: skip
    return out


def _why(m: Matrix, state: State, room: Ints, order: int, lines: Ints, at: int) -> str:
    """Why a location that could serve an order does not."""
    if state.capacity[at, 0] <= 0:
        return "capacity went to other orders" if m.capacity[at, 0] > 0 else "no capacity"
    gone = [n for n in lines if room[m.line_sku[n], at] >= m.line_quantity[n] > state.room[m.line_sku[n], at]]
    return "its stock went to other orders" if gone else "dearer"


def unfilled(m: Matrix, state: State, room: Ints) -> list[Unfilled]:
    """Why each line that stays does."""
    out: list[Unfilled] = []
    left = np.flatnonzero(state.at[m.line_item] < 0)
    orders = m.item_order[m.line_item[left]]
    for start in range(0, len(left), 5000):
        some, of = left[start : start + 5000], orders[start : start + 5000]
        allowed = eligible(m, some, of)
        need = m.line_quantity[some][:, None]
        stock = m.stock[m.line_sku[some]] >= need
        free = room[m.line_sku[some]] >= need
        now = state.room[m.line_sku[some]] >= need
        able = (state.capacity[:, 0] > 0)[None, :]
        for i, line in enumerate(some):
            mode = m.mode[of[i]]
            if not allowed[i].any():
                bar = (int(of[i]), int(m.line_sku[line])) in m.barred
                reason = "barred" if bar else "no_location"
            elif not (allowed[i] & stock[i]).any():
                reason = "no_stock"
            elif not (allowed[i] & free[i]).any():
                reason = "protected"
            elif not (allowed[i] & now[i]).any():
                reason = "taken"
            elif not (allowed[i] & now[i] & able[0]).any():
                reason = "capacity"
            elif mode != 0:
                reason = "split"
            else:
                reason = "dear"
            out.append(Unfilled(m.problem.lines[int(m.line_index[line])].line_id, reason))
    return out
