"""No class overtakes a higher one: what a higher class leaves and a lower one took is given back."""

import numpy as np

from brokering.costs import order_costs
from brokering.matrix import INF, Bools, Ints, Matrix, spans
from brokering.prices import Prices
from brokering.rounds import State, fill
from brokering.subsets import ITEMS_EXACT_MAX, best, greedy

PASSES_MAX = 3


def give_way(m: Matrix, state: State, price: Prices) -> None:
    """Where a line of a higher class stays and a lower class has what it needs, the lower one is planned anew."""
    for priority in sorted(set(m.priority.tolist()), reverse=True)[:-1]:
        higher = np.flatnonzero(m.priority == priority)
        lower = np.flatnonzero(m.priority < priority)
        higher = higher[state.left(higher)]
        moved: set[int] = set()
        for _ in range(PASSES_MAX):
            taken = Taken(m, state, lower)
            again = [o for o in _hopeful(m, state, higher, taken).tolist() if _serve(m, state, o, lower, taken, moved)]
            if not again:
                break
        for p in sorted({int(m.priority[o]) for o in moved}, reverse=True):
            fill(m, state, np.array([o for o in sorted(moved) if m.priority[o] == p]), price)


class Taken:
    """What lower classes have: units by cell, and work by location."""

    def __init__(self, m: Matrix, state: State, lower: Ints) -> None:
        self.units = np.zeros(m.cells, np.int32)
        self.work = np.zeros((m.places, 3))
        self.book(m, state, lower, 1)

    def book(self, m: Matrix, state: State, orders: Ints, sign: int) -> None:
        lines, at = state.lines(orders)
        np.add.at(self.units, m.cell_of(m.line_sku[lines], at), (sign * m.line_quantity[lines]).astype(np.int32))
        pairs = np.unique(m.item_order[m.line_item[lines]] * m.places + at)
        self.work[:, 0] += sign * np.bincount(pairs % m.places, minlength=m.places)
        self.work[:, 1] += sign * np.bincount(at, m.line_quantity[lines], m.places)
        self.work[:, 2] += sign * np.bincount(at, m.line_cents_of_capacity[lines], m.places)


def _hopeful(m: Matrix, state: State, orders: Ints, taken: Taken) -> Ints:
    """Orders that leave an item of which there would be enough somewhere if lower classes had nothing."""
    orders = orders[state.left(orders)]
    most = m.most_left(state.room + taken.units)
    items = spans(m.order_first[orders], m.order_first[orders + 1])
    lines = spans(m.item_first[items], m.item_first[items + 1])
    lines = lines[state.at[m.line_item[lines]] < 0]
    return np.unique(m.item_order[m.line_item[lines[most[m.line_sku[lines]] >= m.line_quantity[lines]]]])


def _serve(m: Matrix, state: State, order: int, lower: Ints, taken: Taken, moved: set[int]) -> bool:
    """Plans what an order leaves as if lower classes had nothing; those in its way leave the plan. True if it did."""
    one = np.array([order])
    items = np.arange(m.order_first[order], m.order_first[order + 1])
    before = state.at[items].copy()
    state.release(one)
    wanted = _wanted(m, state, order, items, before, taken)
    if (wanted == before).all():
        state.assign(one, items, before)
        return False
    state.assign(one, items, wanted)
    out = _in_the_way(m, state, order, lower)
    if out is None:
        state.release(one)
        state.assign(one, items, before)
        return False
    if len(out):
        taken.book(m, state, out, -1)
        state.release(out)
        moved.update(out.tolist())
    return True


def _wanted(m: Matrix, state: State, order: int, items: Ints, before: Ints, taken: Taken) -> Ints:
    """Where the items of an order that is out of the plan would go: as before, and what was left where it is worth it."""
    skus = np.unique(m.line_sku[spans(m.item_first[items], m.item_first[items + 1])])
    cells = np.unique(m.entries(skus)[2])
    own = state.room[cells].copy()
    state.room[cells] += taken.units[cells]
    work = state.capacity + taken.work
    package, cost, leave = (a[0] for a in order_costs(m, np.array([order]), len(items), state.room))
    package = np.where(work[:, 0] >= 1, package, INF)
    for i, item in enumerate(items.tolist()):
        cost[i, ~_fits(m, state.room, work, [item])] = INF
    if m.complete[order]:
        wanted = _complete(m, order, package, cost, leave)
    else:
        wanted = before.copy()
        for i in [*np.flatnonzero(before < 0).tolist()] * 2:
            if wanted[i] >= 0:
                continue
            goes = np.zeros(m.places, bool)
            goes[wanted[wanted >= 0]] = True
            total = cost[i] + np.where(goes, 0, package)
            if goes.sum() >= m.packages_max[order]:
                total = np.where(goes, total, INF)
            for n in set(wanted[wanted >= 0].tolist()):  # beside its other items from there
                beside = [*items[wanted == n].tolist(), int(items[i])]
                total[n] = total[n] if _fits(m, state.room, work, beside)[n] else INF
            k = int(total.argmin())
            if total[k] < leave[i]:
                wanted[i] = k
    state.room[cells] = own
    return wanted


def _complete(m: Matrix, order: int, package: Ints, cost: Ints, leave: Ints) -> Ints:
    limit = int(min(m.packages_max[order], len(leave)))
    if len(leave) <= ITEMS_EXACT_MAX:
        return best(package[None], cost[None], leave[None], complete=True, packages=limit)[1][0]
    return greedy(package, cost, leave, complete=True, packages=limit)[1]


def _fits(m: Matrix, room: Ints, work: Ints, items: list[int]) -> Bools:
    """Where all these items are there together, and the work for them."""
    some = np.array(items)
    ok = (work[:, 1] >= m.item_units[some].sum()) & (work[:, 2] >= m.item_cents[some].sum())
    lines = spans(m.item_first[some], m.item_first[some + 1])
    for sku in np.unique(m.line_sku[lines]):
        ok &= m.spread(np.array([sku]), room)[0] >= m.line_quantity[lines[m.line_sku[lines] == sku]].sum()
    return ok


def _in_the_way(m: Matrix, state: State, order: int, lower: Ints) -> Ints | None:
    """Orders of lower classes, lowest first, that must leave so that nothing is overdrawn; None where that is too few."""
    items = np.arange(m.order_first[order], m.order_first[order + 1])
    lines = spans(m.item_first[items], m.item_first[items + 1])
    out: list[int] = []
    at = state.at[m.line_item[lines]]
    mine = m.cell_of(m.line_sku[lines][at >= 0], at[at >= 0])
    short = {cell: -int(state.room[cell]) for cell in mine.tolist()}
    work = {int(n): -state.capacity[n] for n in set(at[at >= 0].tolist())}
    if all(v <= 0 for v in short.values()) and all((w <= 0).all() for w in work.values()):
        return np.zeros(0, np.int64)
    theirs, places = state.lines(lower)
    cells = m.cell_of(m.line_sku[theirs], places)
    near = np.isin(places, list(work)) | np.isin(cells, list(short))
    theirs, places, cells = theirs[near], places[near], cells[near]
    of = m.item_order[m.line_item[theirs]]
    for line in np.lexsort((of, m.priority[of])).tolist():
        n, o = int(places[line]), int(of[line])
        if o in out or not (short.get(int(cells[line]), 0) > 0 or (n in work and (work[n] > 0).any())):
            continue
        out.append(o)
        mine = np.flatnonzero(of == o)
        for other in mine.tolist():
            cell, at_place = int(cells[other]), int(places[other])
            if cell in short:
                short[cell] -= int(m.line_quantity[theirs[other]])
            if at_place in work:
                work[at_place] = work[at_place] - np.array(
                    [0, m.line_quantity[theirs[other]], m.line_cents_of_capacity[theirs[other]]]
                )
        for n in set(places[mine].tolist()) & work.keys():
            work[int(n)] = work[int(n)] - np.array([1, 0, 0])
    if any(v > 0 for v in short.values()) or any((w > 0).any() for w in work.values()):
        return None
    return np.array(out)
