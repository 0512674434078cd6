"""Why each order is planned as it is: candidates with cents by term, and why the others fell out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from brokering.costs import eligible, limit_cents, line_terms, may, package_terms
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


def decisions(
    ids: Sequence[str], m: Matrix, state: State, room: Ints, price: Prices | None, *, first: int, end: int
) -> list[Decision]:
    """One decision for each of the matrix's orders first:end, named by `ids`. `room` is what the run could take at its start."""
    kept: list[Decision] = []
    # as many orders at once as their lines × locations fit
    lines_before = m.item_first[m.order_first]
    while first < end:
        most = lines_before[first] + max(1, CELLS_AT_ONCE // max(1, m.places))
        stop = min(end, max(first + 1, int(np.searchsorted(lines_before, most, side="right")) - 1))
        kept += _some(ids, m, state, room, price, np.arange(first, stop))
        first = stop
    return kept


def by_order(problem: Problem, m: Matrix, kept: list[Decision]) -> list[Decision]:
    """One decision per order, in the order of the problem: that of its lines that go alone is part of it."""
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
    names: Sequence[str], m: Matrix, state: State, room: Ints, price: Prices | None, orders: Ints
) -> list[Decision]:  # fmt: skip
    terms, _ = cost_by_term(m, state, orders)
    items = spans(m.order_first[orders], m.order_first[orders + 1])
    lines = spans(m.item_first[items], m.item_first[items + 1])
    of = m.item_order[m.line_item[lines]] - orders[0]
    rows = np.arange(len(orders))[:, None]
    seen = _seen(m, state, room, orders, lines, of)
    by_cell, work = (np.zeros(m.cells), np.zeros((m.places, 3))) if price is None else (price.by_cell(), price.work)
    goes = np.zeros(seen.total.shape, bool)
    lines_gone, at = state.lines(orders)
    goes[m.item_order[m.line_item[lines_gone]] - orders[0], at] = True
    took = np.zeros(len(orders))
    in_order = m.item_order[m.line_item[lines_gone]] - orders[0]
    units, worth_there = m.line_quantity[lines_gone], by_cell[m.cell_of(m.line_sku[lines_gone], at)]
    np.add.at(took, in_order, units * (worth_there + work[at, 1]) + m.line_cents_of_capacity[lines_gone] * work[at, 2])
    took += np.where(goes, work[:, 0], 0).sum(1)
    own = sum(terms.values(), np.zeros(len(orders)))
    shown = _shown(seen.total, goes)
    # from here on only of what is shown: [lines,K], then [B,K]
    there = shown[of]
    cell = m.cell_of(m.line_sku[lines][:, None], there)
    need = m.line_quantity[lines][:, None]
    had = (cell > 0) & (room[cell] >= need) & may(m, lines[:, None], orders[of][:, None], there)
    if m.limits:
        had &= (limit_cents(m, orders, shown) < INF / 2)[of]

    def per_order(values: Floats) -> Floats:
        added = np.zeros(shown.shape)
        np.add.at(added, of, np.where(had, values, 0))
        return added

    count = seen.count[rows, shown]
    cents = package_terms(m, orders, shown)
    cents |= {name: per_order(v) for name, v in line_terms(m, lines, orders[of], there).items()}
    cents["not_here"] = np.bincount(of, m.leave[lines], len(orders))[:, None] - per_order(m.leave[lines][:, None])
    stock_price = per_order(by_cell[cell] * need)
    value = m.line_cents_of_capacity[lines][:, None]
    work_price = np.where(count > 0, work[shown, 0] + per_order(need * work[there, 1] + value * work[there, 2]), 0)
    full = (m.capacity[:, 0] >= 1) & (state.capacity[:, 0] < 1)
    why = np.where(full[shown], 2, np.where(seen.gone[rows, shown], 1, 0))
    far = m.unsited[shown] | m.unknown[orders][:, None]
    total, mine_shown = seen.total[rows, shown], goes[rows, shown]
    flips = _flips(m, shown, mine_shown, why, total, own, total + stock_price + work_price, own + took)
    ids, counts, mine = m.location_ids[shown].tolist(), count.tolist(), mine_shown.tolist()
    whys, known = why.tolist(), (~far).tolist()
    slots = [[None if s < 0 else s for s in row] for row in m.place_slot[shown].tolist()]
    worth = {name: np.rint(v).astype(np.int64).tolist() for name, v in cents.items()}
    spent = {name: np.rint(v).astype(np.int64).tolist() for name, v in terms.items()}
    of_stock = np.rint(stock_price).astype(np.int64).tolist()
    of_work = np.rint(work_price).astype(np.int64).tolist()
    out = {
        "not in pool": ~seen.in_pool, "rejected before or not its place": seen.in_pool & ~seen.allowed,
        "no stock": seen.allowed & (seen.count == 0), "no capacity": (seen.count > 0) & (m.capacity[:, 0] < 1)[None],
    }  # fmt: skip
    fell = {name: v.sum(1).tolist() for name, v in out.items()}
    return [
        Decision(
            str(names[order]),
            {name: v[b] for name, v in spent.items() if v[b]},
            [
                Candidate(
                    ids[b][k], counts[b][k], {name: v[b][k] for name, v in worth.items() if v[b][k]},
                    None if mine[b][k] else FELL_OUT[whys[b][k]], known[b][k],
                    of_stock[b][k], of_work[b][k], slots[b][k],
                )
                for k in range(shown.shape[1]) if counts[b][k]
            ],
            {name: v[b] for name, v in fell.items() if v[b]},
            flips[b],
        )
        for b, order in enumerate(orders.tolist())
    ]  # fmt: skip


@dataclass(frozen=True)
class _Seen:
    """Orders × places, [B,N]: what all of an order that is there costs from it (INF: nothing is), how many of its lines
    are, and whether some are in its pool, allowed, and gone to others since."""

    total: Floats
    count: Ints
    in_pool: Bools
    allowed: Bools
    gone: Bools


def _seen(m: Matrix, state: State, room: Ints, orders: Ints, lines: Ints, of: Ints) -> _Seen:
    shape = len(orders), m.places
    pooled = m.pool_has[m.line_pool[lines]] & (m.line_pool[lines] >= 0)[:, None]
    in_pool = _any_of(pooled, of, len(orders))
    plain = not (m.limits or len(m.barred) or m.strict.any() or (m.only_location[orders] != -1).any())
    allowed = in_pool if plain else _any_of(eligible(m, lines, orders[of]), of, len(orders))
    row, at, cell = m.entries(m.line_sku[lines])
    need = m.line_quantity[lines][row]
    had = (room[cell] >= need) & may(m, lines[row], orders[of][row], at)
    if m.limits:
        had &= (limit_cents(m, orders) < INF / 2)[of[row], at]
    row, at, cell, need = row[had], at[had], cell[had], need[had]
    b = of[row]
    spot = b * m.places + at

    def per_order(values: Floats | None = None) -> Floats:
        return np.bincount(spot, values, shape[0] * shape[1]).reshape(shape)

    policy, zone = m.policy[orders][b], m.zone[m.destination[orders][b], at]
    cents = m.weight_by_zone[lines[row], zone] + m.line_at[policy, at] + m.cell_line[policy, cell]
    cents += m.cell_unit[policy, cell] * need
    left = np.bincount(of, m.leave[lines], len(orders))[:, None] - per_order(m.leave[lines][row])
    count = per_order()
    package = sum(package_terms(m, orders).values(), np.zeros(()))
    total = np.where(count > 0, package + per_order(cents) + left, INF)
    return _Seen(total, count, in_pool, allowed, per_order(state.room[cell] < need) > 0)


def _any_of(values: Bools, of: Ints, count: int) -> Bools:
    """Whether any row of each of `count` owners is true, [count,N]; `of` is sorted."""
    any_row = np.zeros((count, values.shape[1]), bool)
    owners, starts = np.unique(of, return_index=True)
    if len(owners):
        any_row[owners] = np.logical_or.reduceat(values, starts, axis=0)
    return any_row


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
