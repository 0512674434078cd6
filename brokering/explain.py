"""Why each order is planned as it is: candidates with cents by term, and why the others fell out."""

import numpy as np

from brokering.costs import eligible, line_terms, package_terms
from brokering.evaluate import cost_by_term
from brokering.matrix import INF, Bools, Floats, Ints, Matrix, lines_of_items, spans
from brokering.prices import Prices
from brokering.problem import Candidate, Decision, Flip, Problem, Unfilled
from brokering.rounds import State

CANDIDATES_KEPT = 5
CELLS_AT_ONCE = 1_000_000
ITEMS_AT_ONCE = 2000
REASONS = ("no_location", "no_stock", "dear", "split", "protected", "taken", "capacity", "split")
FELL_OUT = ("dearer", "its stock went to other orders", "its capacity went to other orders")


def decisions(problem: Problem, m: Matrix, state: State, room: Ints, price: Prices | None) -> list[Decision]:
    """One decision per order, in the order of the problem. `room` is what the run could take at its start."""
    kept: list[Decision] = []
    # as many orders at once as their lines × locations fit
    lines_before = m.item_first[m.order_first]
    start = 0
    while start < m.orders:
        most = lines_before[start] + max(1, CELLS_AT_ONCE // max(1, m.places))
        end = max(start + 1, int(np.searchsorted(lines_before, most, side="right")) - 1)
        kept += _some(problem, m, state, room, price, np.arange(start, min(m.orders, end)))
        start = end
    return _by_order(problem, m, kept)


def _by_order(problem: Problem, m: Matrix, kept: list[Decision]) -> list[Decision]:
    """One decision per order: that of its lines that go alone is part of it."""
    found: list[Decision | None] = [None] * len(problem.orders)
    for index, d in zip(m.order_index.tolist(), kept, strict=True):
        if (first := found[index]) is not None:
            names = {**first.cents, **d.cents}
            cents = {name: first.cents.get(name, 0) + d.cents.get(name, 0) for name in names}
            fell = {
                name: max(first.fell_out.get(name, 0), d.fell_out.get(name, 0))
                for name in {**first.fell_out, **d.fell_out}
            }
            d = Decision(d.order_id, cents, [*first.candidates, *d.candidates], fell, first.flip or d.flip)
        found[index] = d
    return [d for d in found if d is not None]


def _some(
    problem: Problem, m: Matrix, state: State, room: Ints, price: Prices | None, orders: Ints
) -> list[Decision]:  # fmt: skip
    terms, _ = cost_by_term(m, state, orders)
    items = spans(m.order_first[orders], m.order_first[orders + 1])
    lines = spans(m.item_first[items], m.item_first[items + 1])
    of = m.item_order[m.line_item[lines]] - orders[0]
    need = m.line_quantity[lines][:, None]
    in_pool = m.pool_has[m.line_pool[lines]] & (m.line_pool[lines] >= 0)[:, None]
    allowed = eligible(m, lines, orders[of])
    had = allowed & (m.spread(m.line_sku[lines], room) >= need)
    gone = had & (m.spread(m.line_sku[lines], state.room) < need)
    by_line = line_terms(m, lines, orders[of])
    package = package_terms(m, orders)
    starts = np.searchsorted(of, np.arange(len(orders)))
    empty = np.diff(np.append(starts, len(of))) == 0

    def per_order(values: Floats) -> Floats:
        if not len(of):
            return np.zeros((len(orders), m.places))
        added = np.add.reduceat(values, np.minimum(starts, len(of) - 1), axis=0)
        added[empty] = 0
        return added

    count, any_gone = per_order(had.astype(np.int32)), per_order(gone.astype(np.int32))
    some_pool, some_allowed = per_order(in_pool.astype(np.int32)), per_order(allowed.astype(np.int32))
    cents = {**package, **{name: per_order(np.where(had, v, 0)) for name, v in by_line.items()}}
    cents["not_here"] = per_order(np.where(had, 0, m.leave[lines][:, None]))
    total = np.where(count > 0, sum(cents.values(), np.zeros(())), INF)
    by_cell, work = (np.zeros(m.cells), np.zeros((m.places, 3))) if price is None else (price.by_cell(), price.work)
    stock_price = per_order(np.where(had, m.spread(m.line_sku[lines], by_cell) * need, 0))
    value = m.line_cents_of_capacity[lines][:, None]
    work_price = np.where(
        count > 0, work[:, 0] + per_order(np.where(had, need * work[:, 1] + value * work[:, 2], 0)), 0
    )
    goes = np.zeros(total.shape, bool)
    lines_gone, at = state.lines(orders)
    goes[m.item_order[m.line_item[lines_gone]] - orders[0], at] = True
    took = np.zeros(len(orders))
    in_order = m.item_order[m.line_item[lines_gone]] - orders[0]
    units, worth_there = m.line_quantity[lines_gone], by_cell[m.cell_of(m.line_sku[lines_gone], at)]
    np.add.at(took, in_order, units * (worth_there + work[at, 1]) + m.line_cents_of_capacity[lines_gone] * work[at, 2])
    took += np.where(goes, work[:, 0], 0).sum(1)
    own = sum(terms.values(), np.zeros(len(orders)))
    shown = _shown(total, goes)
    full = (m.capacity[:, 0] >= 1) & (state.capacity[:, 0] < 1)
    why = np.where(full[None], 2, np.where(any_gone > 0, 1, 0))
    far = m.unsited[None] | m.unknown[orders][:, None]
    rows = np.arange(len(orders))[:, None]
    ids, counts, mine = m.location_ids[shown].tolist(), count[rows, shown].tolist(), goes[rows, shown].tolist()
    whys, known = why[rows, shown].tolist(), (~far[rows, shown]).tolist()
    worth = {name: np.rint(v[rows, shown]).astype(np.int64).tolist() for name, v in cents.items()}
    spent = {name: np.rint(v).astype(np.int64).tolist() for name, v in terms.items()}
    flips = _flips(m, shown, goes[rows, shown], why[rows, shown], total[rows, shown], own,
                   (total + stock_price + work_price)[rows, shown], own + took)  # fmt: skip
    of_stock = np.rint(stock_price[rows, shown]).astype(np.int64).tolist()
    of_work = np.rint(work_price[rows, shown]).astype(np.int64).tolist()
    out = {
        "not in pool": some_pool == 0, "rejected before or not its place": (some_pool > 0) & (some_allowed == 0),
        "no stock": (some_allowed > 0) & (count == 0), "no capacity": (count > 0) & (m.capacity[:, 0] < 1)[None],
    }  # fmt: skip
    fell = {name: v.sum(1).tolist() for name, v in out.items()}
    return [
        Decision(
            problem.orders[m.order_index[order]].order_id,
            {name: v[b] for name, v in spent.items() if v[b]},
            [
                Candidate(
                    ids[b][k], counts[b][k], {name: v[b][k] for name, v in worth.items() if v[b][k]},
                    None if mine[b][k] else FELL_OUT[whys[b][k]], known[b][k],
                    of_stock[b][k], of_work[b][k],
                )
                for k in range(shown.shape[1]) if counts[b][k]
            ],
            {name: v[b] for name, v in fell.items() if v[b]},
            flips[b],
        )
        for b, order in enumerate(orders.tolist())
    ]  # fmt: skip


def _flips(
    m: Matrix, shown: Ints, mine: Bools, why: Ints, total: Floats, own: Floats, priced: Floats, own_priced: Floats
) -> list[Flip | None]:  # fmt: skip
    """Per order the shown candidate that lost by least: by cost at prices, or for want of stock or capacity."""
    behind = np.where(why == 0, np.maximum(priced - own_priced[:, None], 0), 0)
    saves = own[:, None] - total
    # what others took is a change only where the order would be cheaper with it; the greatest saving first
    rank = np.where(why == 0, behind, np.where(saves > 0, -saves, INF))
    rank = np.where(mine | (total >= INF / 2), INF, rank)
    best = rank.argmin(1)
    found: list[Flip | None] = []
    for b, k in enumerate(best.tolist()):
        if rank[b, k] >= INF / 2:
            found.append(None)
            continue
        by = ("cost", "stock", "capacity")[int(why[b, k])]
        cents = behind[b, k] if by == "cost" else saves[b, k]
        found.append(Flip(int(m.location_ids[shown[b, k]]), by, round(float(cents)) + (by == "cost")))  # type: ignore[arg-type]
    return found


def _shown(total: Floats, goes: Bools) -> Ints:
    """The locations to show of each order: those it goes from, then the cheapest."""
    rank = np.where(goes, -float(INF) + total, total)
    width = min(total.shape[1], CANDIDATES_KEPT + max(0, int(goes.sum(1).max(initial=0)) - 1))
    if width < total.shape[1]:
        near = np.argpartition(rank, width - 1, axis=1)[:, :width]
    else:
        near = np.tile(np.arange(width), (len(total), 1))
    return np.take_along_axis(near, np.argsort(np.take_along_axis(rank, near, 1), axis=1, kind="stable"), 1)


def unfilled(problem: Problem, m: Matrix, state: State, room: Ints) -> list[Unfilled]:
    """Why each line that stays does: the first thing that would have to be otherwise."""
    out: dict[int, str] = {}
    barred = set((m.barred // m.places).tolist())
    items = np.flatnonzero(state.at < 0)
    for start in range(0, len(items), ITEMS_AT_ONCE):
        some = items[start : start + ITEMS_AT_ONCE]
        of = m.item_order[some]
        orders, b = np.unique(of, return_inverse=True)
        goes = np.zeros((len(orders), m.places), bool)
        lines, at = state.lines(orders)
        goes[np.searchsorted(orders, m.item_order[m.line_item[lines]]), at] = True
        package = np.where(goes, 0, sum(package_terms(m, orders).values(), np.zeros(())))
        shape = (len(some), m.places)
        cost, leave = np.zeros(shape), np.zeros(len(some))
        allowed, stock, free, now = (np.ones(shape, bool) for _ in range(4))
        for has, lines in lines_of_items(m, some):
            need = m.line_quantity[lines][:, None]
            cost[has] += sum(line_terms(m, lines, of[has]).values(), np.zeros(()))
            leave[has] += m.leave[lines]
            allowed[has] &= eligible(m, lines, of[has])
            for left, which in ((m.cell_stock, stock), (room, free), (state.room, now)):
                which[has] &= m.spread(m.line_sku[lines], left) >= need
        worth = cost + package[b] < leave[:, None]
        one_more = goes[b] | (goes.sum(1) < m.packages_max[orders])[b][:, None]
        able = (goes[b] | (state.capacity[:, 0] >= 1)) & (state.capacity[:, 1] >= m.item_units[some][:, None])
        able &= state.capacity[:, 2] >= m.item_cents[some][:, None]
        steps = (allowed, stock, worth, one_more, free, now, able)
        open_places: Bools = np.logical_and.accumulate(np.stack(steps), axis=0).max(axis=2)
        for i, item in enumerate(some.tolist()):
            shut = np.flatnonzero(~open_places[:, i])
            first = int(shut[0]) if len(shut) else len(REASONS) - 1
            for line in range(m.item_first[item], m.item_first[item + 1]):
                reason = "barred" if first == 0 and line in barred else REASONS[first]
                out.setdefault(int(m.line_index[line]), reason)
    return [Unfilled(problem.lines[line].line_id, reason) for line, reason in out.items()]
