"""Legal plans from prices: every open order chooses, cells accept those that would lose most, losers choose again."""

from collections.abc import Callable

import numpy as np

from brokering.matrix import INF, Floats, Ints, Matrix
from brokering.prices import Group, Prices, _lines_of, candidates, solve_group, surcharge

ROUNDS_MAX = 60


class State:
    """A plan in the making: where each item goes, and what is left of stock and capacity."""

    def __init__(self, m: Matrix, room: Ints) -> None:
        self.m = m
        self.at = np.full(len(m.item_order), -1, np.int64)
        self.room = room.copy()
        self.capacity = m.capacity.copy()

    def copy(self) -> "State":
        other = State.__new__(State)
        other.m, other.at = self.m, self.at.copy()
        other.room, other.capacity = self.room.copy(), self.capacity.copy()
        return other

    def lines(self, orders: Ints) -> tuple[Ints, Ints]:
        """The assigned lines of orders, and their locations."""
        mask = np.zeros(self.m.orders, bool)
        mask[orders] = True
        lines = np.flatnonzero(mask[self.m.item_order[self.m.line_item]] & (self.at[self.m.line_item] >= 0))
        return lines, self.at[self.m.line_item[lines]]

    def release(self, orders: Ints) -> None:
        """Takes orders out of the plan."""
        self._book(orders, -1)
        mask = np.zeros(self.m.orders, bool)
        mask[orders] = True
        self.at[mask[self.m.item_order]] = -1

    def assign(self, orders: Ints, items: Ints, at: Ints) -> None:
        """Puts items of orders that are not in the plan at locations (-1: left)."""
        self.at[items] = at
        self._book(orders, 1)

    def _book(self, orders: Ints, sign: int) -> None:
        m = self.m
        lines, at = self.lines(orders)
        np.subtract.at(self.room, (m.line_sku[lines], at), sign * m.line_quantity[lines])
        np.subtract.at(self.capacity[:, 1], at, sign * m.line_quantity[lines])
        np.subtract.at(self.capacity[:, 2], at, sign * m.line_cents_of_capacity[lines])
        pairs = np.unique(m.item_order[m.line_item[lines]] * len(m.location_ids) + at)
        np.subtract.at(self.capacity[:, 0], pairs % len(m.location_ids), sign)


def fill(m: Matrix, state: State, orders: Ints, price: Prices, *, stop: Callable[[], bool], most: int = 24) -> None:
    """Plans orders that are not in the plan yet, with what is left; those that find nothing better stay left."""
    todo = orders
    for again in range(3):
        if not len(todo) or stop():
            return
        groups = candidates(m, todo, price, room=state.room, most=most if again == 0 else 2 * most)
        _rounds(m, state, groups, price)
        # who left something may find stock beyond its candidates
        left = np.zeros(m.orders, bool)
        left[m.item_order[state.at < 0]] = True
        todo = todo[left[todo]]
        if again < 2 and len(todo):
            state.release(todo)
    if len(todo):
        state.release(todo)
        _rounds(m, state, candidates(m, todo, price, room=state.room, most=2 * most), price)


def _rounds(m: Matrix, state: State, groups: list[Group], price: Prices) -> None:
    places = len(m.location_ids)
    open_groups = [np.ones(len(g.orders), bool) for g in groups]
    extra = [surcharge(m, g, price) for g in groups]
    for _ in range(ROUNDS_MAX):
        asks: list[tuple[int, Ints, Ints, Floats]] = []
        for gi, g in enumerate(groups):
            rows = np.flatnonzero(open_groups[gi])
            if not len(rows):
                continue
            some = Group(
                g.items, g.mode, g.packages, g.orders[rows], g.at[rows], g.package[rows], g.cost[rows], g.leave[rows]
            )
            package, cost = _open_costs(m, state, some, extra[gi][rows])
            package = package + price.capacity[some.at]
            value, position = solve_group(m, some, package, cost)
            wants = (position >= 0).any(1)
            open_groups[gi][rows[~wants]] = False
            if wants.any():
                regret = _regret(m, some, package, cost, position, value, price)
                asks.append((gi, rows[wants], position[wants], regret[wants]))
        if not asks:
            return
        accepted = 0
        good = _accept(m, state, groups, asks)
        start = 0
        for gi, rows, position, _ in asks:
            ok = good[start : start + len(rows)]
            start += len(rows)
            g = groups[gi]
            these = rows[ok]
            if not len(these):
                continue
            accepted += len(these)
            ids = m.order_first[g.orders[these]][:, None] + np.arange(g.items)
            chosen = position[ok]
            at = np.where(chosen >= 0, np.take_along_axis(g.at[these], np.maximum(chosen, 0), 1), -1)
            state.assign(g.orders[these], ids.ravel(), at.ravel())
            open_groups[gi][these] = False
        if accepted == 0:
            return
    assert places == len(m.location_ids)


def _open_costs(m: Matrix, state: State, g: Group, extra: Floats) -> tuple[Floats, Floats]:
    """Costs of a group where what is left still allows them."""
    cost = g.cost + extra
    units = np.zeros(g.cost.shape[:2])
    cents = np.zeros(g.cost.shape[:2])
    for lines, take, b, i in _lines_of(m, g):
        short = state.room[m.line_sku[lines][:, None], g.at[b]] < take[:, None]
        cost[b, i] = np.where(short, INF, cost[b, i])
        np.add.at(units, (b, i), take)
        np.add.at(cents, (b, i), m.line_cents_of_capacity[lines])
    cost = np.where(units[:, :, None] > state.capacity[g.at, 1][:, None, :], INF, cost)
    cost = np.where(cents[:, :, None] > state.capacity[g.at, 2][:, None, :], INF, cost)
    package = np.where(state.capacity[g.at, 0] > 0, g.package, INF)
    return package, np.minimum(cost, INF)


def _regret(m: Matrix, g: Group, package: Floats, cost: Floats, position: Ints, value: Floats, price: Prices) -> Floats:
    """What an order would lose if it did not get the contested cells that it wants."""
    places = len(m.location_ids)
    without = cost.copy()
    for lines, _, b, i in _lines_of(m, g):
        p = position[b, i]
        gone = p >= 0
        cells = m.line_sku[lines[gone]] * places + g.at[b[gone], p[gone]]
        hot = price.row_of[cells] > 0
        without[b[gone][hot], i[gone][hot], p[gone][hot]] = INF
    return solve_group(m, g, package, without)[0] - value


def _accept(m: Matrix, state: State, groups: list[Group], asks: list[tuple[int, Ints, Ints, Floats]]) -> np.ndarray:
    """Which asking orders get all that they want when those that would lose most go first."""
    places, cells = len(m.location_ids), m.stock.size
    owner: list[Ints] = []
    resource: list[Ints] = []
    amount: list[Ints] = []
    start = 0
    for gi, rows, position, _ in asks:
        g = groups[gi]
        some = Group(
            g.items, g.mode, g.packages, g.orders[rows], g.at[rows], g.package[rows], g.cost[rows], g.leave[rows]
        )
        for lines, take, b, i in _lines_of(m, some):
            p = position[b, i]
            gone = p >= 0
            at = some.at[b[gone], p[gone]]
            who = b[gone] + start
            for res, much in (
                (m.line_sku[lines[gone]] * places + at, take[gone]),
                (cells + places + at, take[gone]),
                (cells + 2 * places + at, m.line_cents_of_capacity[lines[gone]]),
            ):
                owner.append(who)
                resource.append(res)
                amount.append(much)
        b, i = np.nonzero(position >= 0)
        pairs = np.unique(b * places + some.at[b, position[b, i]])
        owner.append(pairs // places + start)
        resource.append(cells + pairs % places)
        amount.append(np.ones(len(pairs), np.int64))
        start += len(rows)
    room = np.concatenate([state.room.ravel().astype(float), state.capacity.T.ravel()])
    who, what, much = np.concatenate(owner), np.concatenate(resource), np.concatenate(amount)
    regret = np.concatenate([a[3] for a in asks])
    rank = np.empty(start, np.int64)
    rank[np.argsort(-regret, kind="stable")] = np.arange(start)
    by = np.lexsort((rank[who], what))
    what, much = what[by], much[by]
    total = np.cumsum(much)
    first = np.flatnonzero(np.r_[True, what[1:] != what[:-1]])
    before = np.r_[0, total[first[1:] - 1]]
    total = total - np.repeat(before, np.diff(np.r_[first, len(what)]))
    good = np.ones(start, bool)
    good[who[by][total > room[what]]] = False
    return good
