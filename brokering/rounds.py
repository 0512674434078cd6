"""Legal plans from prices: every open order chooses, cells accept those that would lose most, losers choose again."""

import numpy as np

from brokering.costs import order_costs
from brokering.matrix import INF, Bools, Floats, Ints, Matrix, spans
from brokering.prices import Group, Prices, at_prices, candidates, packages_of, solve_group, with_rows

ROUNDS_MAX = 60
SEARCHES_MAX = 3


class State:
    """A plan in the making: where each item goes, and what is left of stock and work."""

    def __init__(self, m: Matrix, room: Ints) -> None:
        self.m = m
        self.at = np.full(len(m.item_order), -1, np.int64)
        self.room = room.copy()
        self.capacity = m.capacity.copy()

    def copy(self) -> "State":
        other = State.__new__(State)
        other.m = self.m
        other.take_over(self)
        return other

    def take_over(self, other: "State") -> None:
        """Becomes a copy of another state."""
        self.at, self.room, self.capacity = other.at.copy(), other.room.copy(), other.capacity.copy()

    def lines(self, orders: Ints) -> tuple[Ints, Ints]:
        """The assigned lines of orders, and their locations."""
        if len(orders) < self.m.orders // 4:
            items = spans(self.m.order_first[orders], self.m.order_first[orders + 1])
            lines = spans(self.m.item_first[items], self.m.item_first[items + 1])
        else:
            mask = np.zeros(self.m.orders, bool)
            mask[orders] = True
            lines = np.flatnonzero(mask[self.m.item_order[self.m.line_item]])
        lines = lines[self.at[self.m.line_item[lines]] >= 0]
        return lines, self.at[self.m.line_item[lines]]

    def release(self, orders: Ints) -> None:
        """Takes orders out of the plan."""
        self._book(orders, -1)
        self.at[spans(self.m.order_first[orders], self.m.order_first[orders + 1])] = -1

    def assign(self, orders: Ints, items: Ints, at: Ints) -> None:
        """Puts the items of orders that are not in the plan at locations (-1: left)."""
        self.at[items] = at
        self._book(orders, 1)

    def _book(self, orders: Ints, sign: int) -> None:
        m = self.m
        lines, at = self.lines(orders)
        cells = m.cell_of(m.line_sku[lines], at)
        np.subtract.at(self.room, cells, (sign * m.line_quantity[lines]).astype(self.room.dtype))
        pairs = np.unique(m.item_order[m.line_item[lines]] * m.places + at)
        self.capacity[:, 0] -= sign * np.bincount(pairs % m.places, minlength=m.places)
        self.capacity[:, 1] -= sign * np.bincount(at, m.line_quantity[lines], m.places)
        self.capacity[:, 2] -= sign * np.bincount(at, m.line_cents_of_capacity[lines], m.places)

    def left(self, orders: Ints) -> Bools:
        """Which of these orders have items that go nowhere."""
        has = np.zeros(self.m.orders, bool)
        has[self.m.item_order[self.at < 0]] = True
        return has[orders]


def fill(m: Matrix, state: State, orders: Ints, price: Prices, groups: list[Group] | None = None) -> None:
    """Plans orders that are not in the plan, from what is left; those that leave items look for stock once more."""
    todo = orders
    for search in range(SEARCHES_MAX):
        if search or groups is None:
            groups = [with_rows(g, price.row_of) for g in candidates(m, todo, price, room=state.room)]
        before = state.at.copy()
        accept_rounds(m, state, groups, price)
        todo = todo[state.left(todo)]
        todo = todo[findable(m, state, todo)]
        if not len(todo):
            return
        if search and (before == state.at).all():
            break
        if search + 1 < SEARCHES_MAX:
            state.release(todo)
    one_by_one(m, state, todo)


def findable(m: Matrix, state: State, orders: Ints) -> Bools:
    """Which orders leave an item of which there is enough somewhere (whether or not they may use it)."""
    most = m.most_left(state.room)
    items = spans(m.order_first[orders], m.order_first[orders + 1])
    lines = spans(m.item_first[items], m.item_first[items + 1])
    lines = lines[state.at[m.line_item[lines]] < 0]
    has = np.zeros(m.orders, bool)
    has[m.item_order[m.line_item[lines[most[m.line_sku[lines]] >= m.line_quantity[lines]]]]] = True
    return has[orders]


def accept_rounds(m: Matrix, state: State, groups: list[Group], price: Prices) -> None:
    """Rounds of choosing and accepting until nobody gets more."""
    open_rows = [np.arange(len(g.orders)) for g in groups]
    full = [at_prices(m, g, price) for g in groups]
    for _ in range(ROUNDS_MAX):
        asks: list[tuple[int, Ints, Group, Ints, Floats]] = []
        for n, g in enumerate(groups):
            rows = open_rows[n]
            if not len(rows):
                continue
            some = g if len(rows) == len(g.orders) else g.some(rows)
            package, cost = within(m, state, some, full[n][0][rows], full[n][1][rows])
            value, position = solve_group(some, package, cost)
            wants = np.flatnonzero((position >= 0).any(1))
            open_rows[n] = rows[wants]
            if len(wants):
                asking = some.some(wants) if len(wants) < len(rows) else some
                regret = _regret(asking, package[wants], cost[wants], position[wants], value[wants])
                asks.append((n, rows[wants], asking, position[wants], regret))
        if not asks:
            return
        good = _accepted(m, state, asks)
        start = 0
        for n, rows, g, position, _ in asks:
            ok = good[start : start + len(rows)]
            start += len(rows)
            open_rows[n] = rows[~ok]
            chosen = position[ok]
            at = np.where(chosen >= 0, np.take_along_axis(g.at[ok], np.maximum(chosen, 0), 1), -1)
            state.assign(g.orders[ok], g.ids(m)[ok].ravel(), at.ravel())
        if not good.any():
            return


def within(m: Matrix, state: State, g: Group, package: Floats, cost: Floats) -> tuple[Floats, Floats]:
    """These costs where what is left still allows them, INF elsewhere."""
    cost = cost.copy()
    room = state.room
    for u in g.uses:
        b, k = np.nonzero(room[u.cells] < u.take[:, None])
        cost[u.b[b], u.i[b], k] = INF
    ids = g.ids(m)
    if (m.capacity[:, 1] < m.item_units.sum()).any():
        cost[m.item_units[ids][:, :, None] > state.capacity[g.at, 1][:, None, :]] = INF
    if (m.capacity[:, 2] < m.item_cents.sum()).any():
        cost[m.item_cents[ids][:, :, None] > state.capacity[g.at, 2][:, None, :]] = INF
    return np.where(state.capacity[g.at, 0] >= 1, package, INF), cost


def _regret(g: Group, package: Floats, cost: Floats, position: Ints, value: Floats) -> Floats:
    """What an order would lose if it did not get the contested cells that it wants."""
    without = cost.copy()
    for u in g.uses:
        p = position[u.b, u.i]
        gone = np.flatnonzero(p >= 0)
        hot = gone[u.rows[gone, p[gone]] > 0]
        without[u.b[hot], u.i[hot], p[hot]] = INF
    return solve_group(g, package, without, want=False)[0] - value


def _accepted(m: Matrix, state: State, asks: list[tuple[int, Ints, Group, Ints, Floats]]) -> Bools:
    """Which asking orders get all that they want when those that would lose most go first."""
    owner: list[Ints] = []
    resource: list[Ints] = []
    amount: list[Ints] = []
    start, cells = 0, m.cells
    for _, rows, g, position, _ in asks:
        for u in g.uses:
            p = position[u.b, u.i]
            gone = np.flatnonzero(p >= 0)
            at = g.at[u.b[gone], p[gone]].astype(np.int64)
            owner += [u.b[gone] + start] * 3
            resource += [u.cells[gone, p[gone]].astype(np.int64), cells + m.places + at, cells + 2 * m.places + at]
            amount += [u.take[gone], u.take[gone], m.line_cents_of_capacity[u.lines[gone]]]
        b, at = packages_of(m, g, position)
        owner.append(b + start)
        resource.append(cells + at)
        amount.append(np.ones(len(b), np.int64))
        start += len(rows)
    who, what, much = np.concatenate(owner), np.concatenate(resource), np.concatenate(amount)
    rank = np.empty(start, np.int64)
    rank[np.argsort(-np.concatenate([a[4] for a in asks]), kind="stable")] = np.arange(start)
    by = np.lexsort((rank[who], what))
    what, much = what[by], much[by]
    total = np.cumsum(much)
    first = np.flatnonzero(np.append(True, what[1:] != what[:-1]))
    total -= np.repeat(np.append(0, total[first[1:] - 1]), np.diff(np.append(first, len(what))))
    room = np.concatenate([state.room, state.capacity.T.ravel()])
    good = np.ones(start, bool)
    good[who[by][total > room[what]]] = False
    return good


def one_by_one(m: Matrix, state: State, orders: Ints) -> None:
    """Adds items that orders leave, one by one, where that costs less than leaving them.

    So it also takes what choosing at once cannot: several items of an order that ask for the same cell or work.
    """
    for order in orders[~m.complete[orders]].tolist():
        one = np.array([order])
        package, cost, leave = (a[0] for a in order_costs(m, one, int(m.items_per_order[order]), state.room))
        first = int(m.order_first[order])
        mine = state.at[first : first + len(leave)].copy()
        for i in np.flatnonzero(mine < 0).tolist():
            goes = np.zeros(m.places, bool)
            goes[mine[mine >= 0]] = True
            total = np.where(_has_room(m, state, first + i), cost[i], INF)
            total = total + np.where(goes, 0, np.where(state.capacity[:, 0] >= 1, package, INF))
            if goes.sum() >= m.packages_max[order]:
                total = np.where(goes, total, INF)
            k = int(total.argmin())
            if total[k] < leave[i]:
                state.release(one)
                mine[i] = k
                state.assign(one, np.arange(first, first + len(leave)), mine)


def _has_room(m: Matrix, state: State, item: int) -> Bools:
    """Where all units of an item are still there together, and the work for it."""
    ok = (state.capacity[:, 1] >= m.item_units[item]) & (state.capacity[:, 2] >= m.item_cents[item])
    lines = np.arange(m.item_first[item], m.item_first[item + 1])
    for sku in np.unique(m.line_sku[lines]):
        ok &= m.spread(np.array([sku]), state.room)[0] >= m.line_quantity[lines[m.line_sku[lines] == sku]].sum()
    return ok
