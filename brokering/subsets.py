"""The exact plan of one order at given costs: a dynamic program over subsets of its items, for many orders at once.

W[S] = min over locations of package + sum of items in S;  f[S] = min(leave(lowest) + f[S − lowest],
min over T containing the lowest of W[T] + f[S − T]).
"""

import numpy as np

from brokering.matrix import INF, Floats, Ints

ITEMS_EXACT_MAX = 8
"""Orders with more items are planned greedily: subsets grow as 3^items."""


def best(
    package: Floats, cost: Floats, leave: Floats, *, complete: bool, packages: int, want: bool = True
) -> tuple[Floats, Ints]:
    """Value [B] and location position [B,L] (-1: left) of the best plan; package [B,K], cost [B,L,K], leave [B,L].

    `packages` limits how many locations an order may have; `complete` leaves all items or none. Without `want` the
    positions are not worked out.
    """
    count, items, _ = cost.shape
    full = (1 << items) - 1
    if items == 1:
        total = package + cost[:, 0]
        where = total.argmin(1)
        value = total[np.arange(count), where]
        goes = value < leave[:, 0]
        return np.where(goes, value, leave[:, 0]), np.where(goes, where, -1)[:, None]
    price, where_of = _packages(package, cost, want)
    left = _sums(leave, full)
    unbounded = packages >= items
    empty = np.zeros(count, np.float32)
    below = [empty] + [np.full(count, INF, np.float32) if complete else left[s] for s in range(1, full + 1)]
    takes: list[list[Ints]] = []
    for _ in range(1 if unbounded else packages):
        value_of: list[Floats] = [empty] + [empty] * full
        take_of: list[Ints] = [np.zeros(0, np.int16)] * (full + 1)
        for s in range(1, full + 1):
            low = s & -s
            rest = s ^ low
            if unbounded:
                value, take = np.full(count, INF, np.float32), np.zeros(count, np.int16)
            else:  # one package less will do
                value, take = below[s].copy(), np.full(count, -1, np.int16)
            options = [] if complete else [(0, value_of[rest] + leave[:, low.bit_length() - 1])]
            source = value_of if unbounded else below
            for t, offer in (*options, *((t, price[t] + source[s ^ t]) for t in _holding(low, rest))):
                better = offer < value
                value = np.where(better, offer, value)
                if want:
                    take[better] = t
            value_of[s], take_of[s] = value, take
        takes.append(take_of)
        below = value_of
    total = below[full]
    none = left[full] <= total if complete else np.zeros(count, bool)
    total = np.where(none, left[full], total)
    if not want:
        return total, np.zeros((0, 0), np.int64)
    position = np.full((count, items), -1, np.int64)
    todo = np.where(none, 0, full)
    level = np.full(count, len(takes) - 1)
    while (todo > 0).any():
        for p in np.unique(level[todo > 0]).tolist():
            for s in np.unique(todo[(level == p) & (todo > 0)]).tolist():
                at = np.flatnonzero((todo == s) & (level == p))
                if p < 0:
                    todo[at] = 0
                    continue
                chosen = takes[p][s][at]
                for t in np.unique(chosen).tolist():
                    these = at[chosen == t]
                    if t == 0:
                        todo[these] = s ^ (s & -s)
                    elif t < 0:  # this package is not used
                        level[these] = p - 1
                    else:
                        for i in range(items):
                            if t >> i & 1:
                                position[these, i] = where_of[t][these]
                        todo[these] = s ^ t
                        level[these] = p if unbounded else p - 1
    return total, position


def _holding(low: int, rest: int) -> list[int]:
    """The subsets that hold `low` and any of `rest`."""
    parts, part = [], rest
    while True:
        parts.append(low | part)
        if part == 0:
            return parts
        part = (part - 1) & rest


def _sums(leave: Floats, full: int) -> list[Floats]:
    left = [np.zeros(len(leave), np.float32)] * (full + 1)
    for s in range(1, full + 1):
        left[s] = left[s & (s - 1)] + leave[:, (s & -s).bit_length() - 1]
    return left


def _packages(package: Floats, cost: Floats, want: bool) -> tuple[list[Floats], list[Ints]]:
    """The least cost of one package with exactly the items of each subset, and from where."""
    count, items, _ = cost.shape
    rows = np.arange(count)
    running: list[Floats] = [package] * (1 << items)
    price: list[Floats] = [np.zeros(0, np.float32)] * (1 << items)
    where: list[Ints] = [np.zeros(0, np.int64)] * (1 << items)
    for s in range(1, 1 << items):
        running[s] = running[s & (s - 1)] + cost[:, (s & -s).bit_length() - 1]
        if want:
            where[s] = running[s].argmin(1)
            price[s] = running[s][rows, where[s]]
        else:
            price[s] = running[s].min(1)
    return price, where


def several(
    package: Floats, cost: Floats, leave: Floats, *, complete: bool, packages: int, most: int
) -> tuple[Floats, Ints]:
    """The `most` best plans of each order: values [B,M] and positions [B,M,L]; INF where there are fewer.

    The same program with the best few of each subset kept; at most `packages` packages.
    """
    count, items, width = cost.shape
    full = (1 << items) - 1
    kept = min(width, most)
    running: list[Floats] = [package] * (full + 1)
    one: list[tuple[Floats, Ints]] = []
    for s in range(full + 1):
        position = np.full((count, kept, items), -1, np.int16)
        if s == 0:
            one.append((np.zeros((count, kept), np.float32), position))
            continue
        running[s] = running[s & (s - 1)] + cost[:, (s & -s).bit_length() - 1]
        at = (
            np.argpartition(running[s], kept - 1, 1)[:, :kept]
            if kept < width
            else np.tile(np.arange(width), (count, 1))
        )
        for i in range(items):
            if s >> i & 1:
                position[:, :, i] = at
        one.append((np.take_along_axis(running[s], at, 1), position))
    left = _sums(leave, full)
    nobody = np.full((count, 1, items), -1, np.int16)
    start = [(np.zeros((count, 1), np.float32), nobody)] + [
        (np.full((count, 1), INF, np.float32) if complete else left[s][:, None], nobody) for s in range(1, full + 1)
    ]
    unbounded = packages >= items
    below = start
    for _ in range(1 if unbounded else packages):
        table = [start[0]] + [start[0]] * full
        for s in range(1, full + 1):
            low = s & -s
            rest = s ^ low
            source = table if unbounded else below
            values, plans = [], []
            if not complete:
                values.append(table[rest][0] + leave[:, low.bit_length() - 1, None])
                plans.append(table[rest][1])
            if not unbounded:
                values.append(below[s][0])
                plans.append(below[s][1])
            for t in _holding(low, rest):
                (v, a), (w, b) = one[t], source[s ^ t]
                values.append((v[:, :, None] + w[:, None]).reshape(count, -1))
                plans.append(np.maximum(a[:, :, None], b[:, None]).reshape(count, -1, items))
            table[s] = _few(np.concatenate(values, 1), np.concatenate(plans, 1), most)
        below = table
    values_of, plans_of = below[full]
    if complete:
        values_of = np.concatenate([values_of, left[full][:, None]], 1)
        plans_of = np.concatenate([plans_of, nobody], 1)
    return values_of, plans_of


def _few(values: Floats, plans: Ints, most: int) -> tuple[Floats, Ints]:
    if values.shape[1] <= most:
        return values, plans
    at = np.argpartition(values, most - 1, 1)[:, :most]
    return np.take_along_axis(values, at, 1), np.take_along_axis(plans, at[:, :, None], 1)


def greedy(package: Floats, cost: Floats, leave: Floats, *, complete: bool, packages: int) -> tuple[float, Ints]:
    """A plan of one order of any number of items: the location that saves most, again and again; [K], [L,K], [L]."""
    items = len(leave)
    nothing = np.full(items, -1, np.int64)
    position = nothing.copy()
    open_items = np.ones(items, bool)
    used: list[int] = []
    possible = cost < INF / 2
    # what must go complete gains by every item alike, so that none is left for being dear
    worth = np.full(items, leave.sum() + INF / 1e3, np.float64) if complete else leave.astype(np.float64)
    gain_of = np.where(possible, worth[:, None] - cost, 0.0)
    while open_items.any() and len(used) < packages:
        gain = np.where(open_items[:, None], gain_of, 0.0)
        saved = np.where(gain > 0, gain, 0.0).sum(0) - package
        k = int(saved.argmax())
        taken = open_items & (gain[:, k] > 0)
        if saved[k] <= 0 or not taken.any():
            break
        position[taken] = k
        open_items &= ~taken
        used.append(k)
    if used:  # an item moves where another package that goes anyway carries it for less
        carried = cost[:, used]
        cheapest = carried.argmin(1)
        least = carried[np.arange(items), cheapest]
        goes = least < (INF / 2 if complete else leave)
        position = np.where(goes, np.array(used)[cheapest], -1)
    value = float(leave.sum())
    if complete and (position < 0).any():
        return value, nothing
    gone = np.flatnonzero(position >= 0)
    total = float(package[np.unique(position[gone])].sum() + cost[gone, position[gone]].sum())
    total += float(leave[position < 0].sum())
    return (value, nothing) if total >= value else (total, position)


def floor(package: Floats, cost: Floats, leave: Floats) -> Floats:
    """A bound from below for orders of many items: each item bears its share of a package; [B]."""
    share = package[:, None, :] / np.float32(cost.shape[1])
    return np.minimum(leave, (cost + share).min(2)).sum(1)
