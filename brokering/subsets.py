"""The exact plan of one order at given costs: a dynamic program over subsets of its items, for many orders at once.

W[S] = min over locations of package + sum of items in S;  f[S] = min(leave(lowest) + f[S − lowest],
min over T containing the lowest of W[T] + f[S − T]).
"""

from functools import cache

import numpy as np

from brokering.matrix import INF, Floats, Ints

ITEMS_EXACT_MAX = 8
"""Orders with more items are planned greedily: subsets grow as 3^items."""
AT_ONCE = 1_000_000
"""Sums (subset × order × location) worked out at a time: about what a core keeps near."""


def best(
    package: Floats, cost: Floats, leave: Floats, *, complete: bool, packages: int, want: bool = True
) -> tuple[Floats, Ints]:
    """Value [B] and location position [B,L] (-1: left) of the best plan; package [B,K], cost [B,L,K], leave [B,L].

    `packages` limits how many locations an order may have; `complete` leaves all items or none. Without `want` the
    positions are not worked out.
    """
    count, items, width = cost.shape
    if items == 1:
        total = package + cost[:, 0]
        if not want:
            return np.minimum(total.min(1), leave[:, 0]), np.zeros((0, 0), np.int64)
        where = total.argmin(1)
        value = total[np.arange(count), where]
        goes = value < leave[:, 0]
        return np.where(goes, value, leave[:, 0]), np.where(goes, where, -1)[:, None]
    step = max(16, AT_ONCE // (width << items))
    parts = [
        _best(package[cut], cost[cut], leave[cut], complete=complete, packages=packages, want=want)
        for cut in (slice(start, start + step) for start in range(0, max(1, count), step))
    ]
    if len(parts) == 1:
        return parts[0]
    return np.concatenate([value for value, _ in parts]), np.concatenate([position for _, position in parts])


def _best(
    package: Floats, cost: Floats, leave: Floats, *, complete: bool, packages: int, want: bool
) -> tuple[Floats, Ints]:
    count, items, width = cost.shape
    full = (1 << items) - 1
    running = np.empty((full + 1, width, count), np.float32)  # orders last: least of locations is one of rows
    running[0] = package.T
    for i in range(items):
        np.add(running[: 1 << i], np.ascontiguousarray(cost[:, i].T), out=running[1 << i : 2 << i])
    price = running.min(1)
    left = _sums(leave, full)
    if packages == 1:  # what the one does not carry stays
        names = np.array([full]) if complete else np.arange(1, full + 1)
        offers = price[names] if complete else price[1:] + left[full - 1 :: -1]
        total, takes = offers.min(0), [names[offers.argmin(0)][None]] if want else []
    else:
        total, takes = _split(price, left, leave, complete=complete, packages=packages, want=want)
    none = left[full] <= total if complete or packages == 1 else np.zeros(count, bool)
    total = np.where(none, left[full], total)
    if not want:
        return total, np.zeros((0, 0), np.int64)
    return total, _positions(running, takes, np.where(none, 0, full), items, bounded=packages < items)


def _split(
    price: Floats, left: Floats, leave: Floats, *, complete: bool, packages: int, want: bool
) -> tuple[Floats, list[Ints]]:
    """Value of all items, and which subset goes together first from each set that is reached: of one package more a table.

    0: its lowest item stays; -1: one package less will do. A set that is reached is all, or some without the first.
    """
    size, count = price.shape
    unbounded = packages >= leave.shape[1]
    below = left.copy()
    if complete:
        below[1:] = INF
    heads = np.array(([] if complete else [0]) + ([] if unbounded else [-1]), np.int64)
    tables: list[Ints] = []
    for _ in range(1 if unbounded else packages):
        value = np.zeros_like(price)
        table = np.zeros((size if want else 0, count), np.int16)
        source = value if unbounded else below
        for s in (*range(2, size - 1, 2), size - 1):
            together = _holding(s)
            offers = np.empty((len(heads) + len(together), count), np.float32)
            np.add(price[together], source[s ^ together], out=offers[len(heads) :])
            if not complete:
                low = s & -s
                np.add(value[s ^ low], leave[:, low.bit_length() - 1], out=offers[0])
            if not unbounded:
                offers[len(heads) - 1] = below[s]
            value[s] = offers.min(0)
            if want:
                nth = offers.argmin(0)
                table[s] = np.concatenate([heads, together])[nth]
        tables.append(table)
        below = value
    return below[size - 1], tables


def _positions(running: Floats, tables: list[Ints], todo: Ints, items: int, *, bounded: bool) -> Ints:
    """Where each item goes, [B,L], followed from all items down; the last row of a table is that of all."""
    position = np.full((len(todo), items), -1, np.int64)
    level = np.full(len(todo), len(tables) - 1)
    stack = np.stack(tables)
    rows = np.flatnonzero(todo > 0)
    while len(rows):
        now = todo[rows]
        take = stack[level[rows], np.where(now == (1 << items) - 1, -1, now), rows].astype(np.int64)
        todo[rows] = np.where(take > 0, now ^ take, np.where(take == 0, now & (now - 1), now))
        if bounded:
            level[rows] -= take != 0
        goes = take > 0
        who, what = rows[goes], take[goes]
        where = running[what, :, who].argmin(1)
        for i in range(items):
            mine = (what >> i & 1) > 0
            position[who[mine], i] = where[mine]
        rows = rows[(todo[rows] > 0) & (level[rows] >= 0)]
    return position


@cache
def _holding(s: int) -> Ints:
    """The subsets of `s` that hold its lowest item, the largest first."""
    low = s & -s
    rest = s ^ low
    parts, part = [low | rest], rest
    while part:
        part = (part - 1) & rest
        parts.append(low | part)
    return np.array(parts)


def _sums(leave: Floats, full: int) -> Floats:
    """What leaving each subset costs, [2^L,B]."""
    left = np.zeros((full + 1, len(leave)), np.float32)
    for i in range(leave.shape[1]):
        left[1 << i : 2 << i] = left[: 1 << i] + leave[:, i]
    return left


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
            for t in _holding(s).tolist():
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
