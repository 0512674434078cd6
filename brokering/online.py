"""One order at a time, at the prices of recent runs: at once, and near what a joint plan of the whole day would cost."""

from collections.abc import Sequence

import msgspec
import numpy as np

from brokering.assembly import as_plan, warm_prices
from brokering.costs import order_costs
from brokering.explain import decisions
from brokering.matrix import INF, UNLIMITED, Floats, Ints, Matrix
from brokering.numbering import compile_problem
from brokering.prices import Prices
from brokering.problem import Assignment, Location, Plan, Problem, Shadow, Stock
from brokering.protect import room_beside
from brokering.rounds import State
from brokering.subsets import ITEMS_EXACT_MAX, best, greedy


class Online:
    """Decides orders of a problem one by one. What it decides is taken from its stock and capacity.

    `prices` are of recent runs; of several the mean is taken, since one day's noise misleads. Costs, policies and rules
    are those of `broker`: the same tables. Orders that are not yet known belong in a new `Online` or, between two
    decisions, in one made again from what is open.
    """

    def __init__(self, problem: Problem, prices: Sequence[Shadow] = ()) -> None:
        self.m: Matrix = compile_problem(problem)
        self._problem = problem
        m = self.m
        self.room = room_beside(m, problem)
        self.opening = self.room.copy()
        self.capacity = m.capacity.copy()
        self._of: dict[str, list[int]] = {}
        for order, index in enumerate(m.order_index.tolist()):
            self._of.setdefault(problem.orders[index].order_id, []).append(order)
        self._ids = [n.line_id for n in problem.lines]
        self._plain = not m.limits and len(m.barred) == 0 and not m.strict.any()
        self._limited = (m.capacity[:, 1:] < 1e14).any()
        self._fixed = (m.handling_at + m.load_at).astype(np.float32)
        self.reprice(prices)

    def reprice(self, prices: Sequence[Shadow]) -> None:
        """Takes new prices: the mean of these, none where none are given."""
        m = self.m
        cell, work = np.zeros(m.cells), np.zeros((m.places, 3))
        for given in prices:
            one_cell, one_work = warm_prices(m, given)
            cell += one_cell / len(prices)
            work += one_work / len(prices)
        self._cell = cell.astype(np.float32)
        self._work = work.astype(np.float32)

    def prices(self) -> Prices:
        """The prices that it decides by."""
        return Prices(self._cell, self._work, np.arange(self.m.cells), self.room)

    def stock_left(self, rows: Sequence[Stock]) -> list[Stock]:
        """These rows of stock with what is left of them; those of skus that no order here wants as they are."""
        m = self.m
        place = m.cell_place[1:]
        keys = zip(
            m.sku_ids[m.cell_sku[1:]].tolist(), m.location_ids[place].tolist(), m.place_day[place].tolist(), strict=True
        )
        left = dict(zip(keys, self.room[1:].tolist(), strict=True))
        return [
            msgspec.structs.replace(s, available=left.get((s.sku_id, s.location_id, s.day), s.available)) for s in rows
        ]

    def work_left(self) -> list[Location]:
        """The locations with what they may still take; slots are left as they are."""
        m, found = self.m, []
        at = {int(n): i for i, n in reversed(list(enumerate(m.location_ids.tolist()))) if m.place_day[i] == 0}
        for n in self._problem.locations:
            left = [None if c >= UNLIMITED / 2 else int(c) for c in self.capacity[at[n.location_id]].tolist()]
            found.append(
                n if n.slots else msgspec.structs.replace(
                    n, capacity_orders=left[0], capacity_items=left[1], capacity_cents=left[2])
            )  # fmt: skip
        return found

    def change(self, sku_id: int, location_id: int, units: int) -> None:
        """Units came there, or negative went, by others; where this problem has no such stock, nothing is known of it."""
        m = self.m
        cell = (m.sku_ids[m.cell_sku] == sku_id) & (m.location_ids[m.cell_place] == location_id)
        cell &= m.place_day[m.cell_place] == 0
        cell[0] = False
        self.room[cell] += units

    def decide(self, order_id: str) -> list[Assignment]:
        """Where an order's lines go; those without an assignment stay. Raises KeyError for an unknown order."""
        found: list[Assignment] = []
        for order in self._of[order_id]:
            found += self._decide(order)
        return found

    def _decide(self, order: int) -> list[Assignment]:
        m = self.m
        first, end = int(m.order_first[order]), int(m.order_first[order + 1])
        if first == end:
            return []
        line_first, line_end = int(m.item_first[first]), int(m.item_first[end])
        if line_end - line_first == end - first and self._plain and m.only_location[order] == -1:
            at, package, cost = self._near(order, line_first, line_end)
        else:
            at, package, cost = self._everywhere(order, end - first)
        if not len(at):
            return []
        leave = m.leave[line_first:line_end]
        if line_end - line_first > end - first:
            leave = np.add.reduceat(leave, m.item_first[first:end] - line_first)
        limit = int(min(m.packages_max[order], end - first))
        complete = bool(m.complete[order])
        if end - first == 1:
            total = package + cost[0]
            k = int(total.argmin())
            position: Ints = np.array([k if total[k] < leave[0] else -1])
        elif end - first <= ITEMS_EXACT_MAX and len(at):
            position = _best(package, cost, leave.astype(np.float32), complete=complete, packages=limit)
        else:
            position = greedy(package, cost, leave, complete=complete, packages=limit)[1]
        return self._taken(first, position, at, complete)

    def _near(self, order: int, line_first: int, line_end: int) -> tuple[Ints, Floats, Floats]:
        """Places that have any of the lines now, package costs there and line costs, all at prices."""
        m = self.m
        policy, zone = int(m.policy[order]), m.zone[m.destination[order]]
        parts = []
        for line in range(line_first, line_end):
            sku, units, pool = int(m.line_sku[line]), int(m.line_quantity[line]), int(m.line_pool[line])
            cut = slice(int(m.entry_first[sku]), int(m.entry_first[sku + 1]))
            at, cell = m.entry_at[cut], m.entry_cell[cut]
            ok = (self.room[cell] >= units) & (self.capacity[at, 0] >= 1)
            if pool < 0 or not m.pool_has[pool].all():
                ok &= m.pool_has[pool, at] if pool >= 0 else False
            at, cell = at[ok], cell[ok]
            cents = m.weight_by_zone[line].take(zone[at]) + m.line_at[policy, at] + m.cell_line[policy, cell]
            cents += (m.cell_unit[policy, cell] + self._cell[cell]) * units
            if self._limited:
                value = int(m.line_cents_of_capacity[line])
                cents += self._work[at, 1] * units + self._work[at, 2] * value
                cents[(self.capacity[at, 1] < units) | (self.capacity[at, 2] < value)] = INF
            parts.append((at, cents))
        if len(parts) == 1:
            at, cost = parts[0][0], parts[0][1][None]
        else:
            has = np.zeros(m.places, bool)
            for where, _ in parts:
                has[where] = True
            at = np.flatnonzero(has)
            number = np.zeros(m.places, np.int64)
            number[at] = np.arange(len(at))
            cost = np.full((len(parts), len(at)), INF, np.float32)
            for i, (where, cents) in enumerate(parts):
                cost[i, number[where]] = cents
        band = zone[at] if m.days == 1 else zone[at].astype(np.int64) * m.days + m.leave_day[m.service[order], at]
        package = m.parcel_by_zone[order].take(zone[at]) + m.late_by_band[order].take(band)
        return at, package + self._fixed[policy, at] + self._work[at, 0], cost

    def _everywhere(self, order: int, items: int) -> tuple[Ints, Floats, Floats]:
        """The same over all places, for orders with rules of their own."""
        m = self.m
        package, cost, _ = (a[0] for a in order_costs(m, np.array([order]), items, self.room))
        first = int(m.order_first[order])
        for i in range(items):
            lines = np.arange(m.item_first[first + i], m.item_first[first + i + 1])
            prices = m.spread(m.line_sku[lines], self._cell) * m.line_quantity[lines][:, None]
            cost[i] += (
                prices.sum(0) + self._work[:, 1] * m.item_units[first + i] + self._work[:, 2] * m.item_cents[first + i]
            )
            beyond = (self.capacity[:, 1] < m.item_units[first + i]) | (self.capacity[:, 2] < m.item_cents[first + i])
            cost[i, beyond] = INF
        package = np.where(self.capacity[:, 0] >= 1, package + self._work[:, 0], INF)
        return np.arange(m.places), package, np.minimum(cost, INF)

    def _taken(self, first: int, position: Ints, at: Ints, complete: bool) -> list[Assignment]:
        """Takes stock and work item by item; what two items of the order cannot both have stays."""
        m = self.m
        found: list[tuple[int, int, int]] = []
        packages: set[int] = set()
        for i, k in enumerate(position.tolist()):
            if k < 0:
                continue
            place, lines = int(at[k]), range(m.item_first[first + i], m.item_first[first + i + 1])
            cells = [int(m.cell_of(m.line_sku[n], np.int64(place))) for n in lines]
            units = [int(m.line_quantity[n]) for n in lines]
            work = (place not in packages, int(m.item_units[first + i]), int(m.item_cents[first + i]))
            fits = all(self.room[c] >= u for c, u in zip(cells, units, strict=True)) and bool(
                (self.capacity[place] >= work).all()
            )
            if not fits:
                if complete:
                    return self._given_back(found, packages)
                continue
            for c, u in zip(cells, units, strict=True):
                self.room[c] -= u
            self.capacity[place] -= work
            packages.add(place)
            found += [(n, place, c) for n, c in zip(lines, cells, strict=True)]
        slot = m.place_slot
        return [
            Assignment(self._ids[m.line_index[n]], int(m.location_ids[place]), int(m.line_quantity[n]),
                       None if slot[place] < 0 else int(slot[place]), int(m.place_day[place]))
            for n, place, _ in found
        ]  # fmt: skip

    def _given_back(self, found: list[tuple[int, int, int]], packages: set[int]) -> list[Assignment]:
        m = self.m
        for line, place, cell in found:
            self.room[cell] += m.line_quantity[line]
            self.capacity[place] += (0, int(m.line_quantity[line]), int(m.line_cents_of_capacity[line]))
        for place in packages:
            self.capacity[place, 0] += 1
        return []


def _best(package: Floats, cost: Floats, leave: Floats, *, complete: bool, packages: int) -> Ints:
    """The exact plan of one order; by plain numbers where any split is allowed and items are few."""
    items = len(leave)
    if packages < items:
        if packages > 1:
            return best(package[None], cost[None], leave[None], complete=complete, packages=packages)[1][0]
        # one package: what is dearer to send than to leave stays, or nothing may
        worth = cost if complete else np.minimum(cost, leave[:, None])
        total = package + worth.sum(0)
        k = int(total.argmin())
        if total[k] >= leave.sum() or (complete and (cost[:, k] >= INF / 2).any()):
            return np.full(items, -1)
        return np.where((cost[:, k] < leave) | complete, k, -1)
    full = (1 << items) - 1
    running: list[Floats] = [package] * (full + 1)
    price, where = [0.0] * (full + 1), [0] * (full + 1)
    for s in range(1, full + 1):
        running[s] = running[s & (s - 1)] + cost[(s & -s).bit_length() - 1]
        where[s] = k = int(running[s].argmin())
        price[s] = float(running[s][k])
    stays = leave.tolist()
    value, take = [0.0] * (full + 1), [0] * (full + 1)
    for s in range(1, full + 1):
        low = s & -s
        rest = s ^ low
        least, how = (float(INF), 0) if complete else (value[rest] + stays[low.bit_length() - 1], 0)
        part = rest
        while True:
            offer = price[low | part] + value[rest ^ part]
            if offer < least:
                least, how = offer, low | part
            if not part:
                break
            part = (part - 1) & rest
        value[s], take[s] = least, how
    position = np.full(items, -1)
    if complete and sum(stays) <= value[full]:
        return position
    s = full
    while s:
        t = take[s]
        for i in range(items):
            if t >> i & 1:
                position[i] = where[t]
        s ^= t or (s & -s)
    return position


def planned(problem: Problem, decided: Sequence[Assignment], online: Online | None = None) -> Plan:
    """Decisions as a plan of a whole problem, with its cost; nothing bounds it. Explained by whom decided, where given."""
    m = compile_problem(problem) if online is None else online.m
    state = State(m, m.cell_stock)
    places = {
        key: n
        for n, key in enumerate(zip(m.location_ids.tolist(), m.place_slot.tolist(), m.place_day.tolist(), strict=True))
    }
    parts: dict[tuple[int, int], list[int]] = {}
    for n, index in enumerate(m.line_index.tolist()):
        parts.setdefault((problem.lines[index].line_id, int(m.line_quantity[n])), []).append(n)
    at = np.full(len(m.item_order), -1, np.int64)
    for a in decided:
        place = places[a.location_id, -1 if a.slot is None else a.slot, a.day]
        at[m.line_item[parts[a.line_id, a.quantity].pop()]] = place
    state.assign(np.arange(m.orders), np.arange(len(at)), at)
    if online is None:
        return as_plan(problem, m, state, m.cell_stock, bound=0, phases={})
    price, ids = online.prices(), [problem.orders[i].order_id for i in m.order_index.tolist()]
    explained = decisions(ids, m, state, online.opening, price, first=0, end=m.orders)
    return as_plan(problem, m, state, online.opening, bound=0, phases={}, explained=explained, price=price)
