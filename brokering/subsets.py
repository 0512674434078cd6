"""The exact plan of one order at given costs: a dynamic program over subsets of its items, for many orders at once.

W[S] = min over locations of package + sum of items in S;  f[S] = min(leave(lowest) + f[S − lowest],
min over T containing the lowest of W[T] + f[S − T]).
"""

import numpy as np

from brokering.matrix import INF, Floats, Ints

COMPLETE = 2


def best(package: Floats, cost: Floats, leave: Floats, *, mode: int, packages: int) -> tuple[Floats, Ints]:
    """Value [B] and location position [B,L] (-1: left) of the best plan; package [B,K], cost [B,L,K], leave [B,L].

    `packages` limits how many locations an order may have; mode COMPLETE leaves all items or none.
    """
    count, items, _ = cost.shape
    full = (1 << items) - 1
    rows = np.arange(count)
    where: list[Ints] = [np.zeros(count, np.int64)] * (full + 1)
    price: list[Floats] = [np.zeros(count)] * (full + 1)
    running: list[Floats] = [package] * (full + 1)
    for s in range(1, full + 1):
        running[s] = running[s & (s - 1)] + cost[:, (s & -s).bit_length() - 1]
        where[s] = running[s].argmin(1)
        price[s] = running[s][rows, where[s]]
    packages = min(packages, items)
    # layers[p][s]: the best with at most p packages; one layer is enough when every item may have its own
    layers: list[list[Floats]] = []
    takes: list[list[Ints]] = []
    unbounded = packages >= items
    left = [np.zeros(count)] * (full + 1)
    for s in range(1, full + 1):
        left[s] = left[s & (s - 1)] + leave[:, (s & -s).bit_length() - 1]
    nothing = [np.where(s == 0, 0.0, INF) * np.ones(count) if mode == COMPLETE else left[s] for s in range(full + 1)]
    below = nothing
    for _ in range(1 if unbounded else packages):
        value: list[Floats] = [np.zeros(count)] + [np.zeros(0)] * full
        take: list[Ints] = [np.zeros(count, np.int64)] * (full + 1)
        for s in range(1, full + 1):
            low = s & -s
            rest = s ^ low
            v = np.full(count, INF) if mode == COMPLETE else value[rest] + leave[:, low.bit_length() - 1]
            chosen = np.zeros(count, np.int64)
            part = rest
            while True:
                t = low | part
                candidate = price[t] + (value if unbounded else below)[s ^ t]
                better = candidate < v
                v = np.where(better, candidate, v)
                chosen[better] = t
                if part == 0:
                    break
                part = (part - 1) & rest
            value[s], take[s] = v, chosen
        layers.append(value)
        takes.append(take)
        below = value
    total = layers[-1][full]
    none = left[full] <= total if mode == COMPLETE else np.zeros(count, bool)
    position = np.full((count, items), -1, np.int64)
    todo = np.where(none, 0, full)
    layer = np.full(count, len(layers) - 1)
    for _ in range(items):
        for s in np.unique(todo):
            if s == 0:
                continue
            for p in range(len(layers)):
                at = np.flatnonzero((todo == s) & (layer == p))
                if not len(at):
                    continue
                chosen = takes[p][s][at]
                for t in np.unique(chosen):
                    these = at[chosen == t]
                    if t == 0:
                        todo[these] = s ^ (s & -s)
                        continue
                    for i in range(items):
                        if t >> i & 1:
                            position[these, i] = where[t][these]
                    todo[these] = s ^ t
                    if not unbounded:
                        layer[these] = p - 1
                        if p == 0:
                            todo[these] = 0
    return np.where(none, left[full], total), position


def greedy(package: Floats, cost: Floats, leave: Floats, *, mode: int, packages: int) -> tuple[float, Ints]:
    """A plan of one order of any number of items: the location that saves most, again and again; [K], [L,K], [L]."""
    items = len(leave)
    position = np.full(items, -1, np.int64)
    open_items = np.ones(items, bool)
    used: list[int] = []
    value = float(leave.sum())
    while open_items.any() and len(used) < packages:
        gain = np.where(open_items[:, None], leave[:, None] - cost, -INF)
        if mode == COMPLETE:  # all of them must go: what leaving would cost does not count
            gain = np.where(open_items[:, None] & (cost < INF / 2), INF / 1e6 - cost, -INF)
        saved = np.where(gain > 0, gain, 0).sum(0) - package
        k = int(saved.argmax())
        taken = open_items & (gain[:, k] > 0)
        if saved[k] <= 0 or not taken.any():
            break
        position[taken] = k
        open_items &= ~taken
        used.append(k)
    if mode == COMPLETE and open_items.any():
        return value, np.full(items, -1, np.int64)
    # an item moves where another package that goes anyway carries it for less
    if used:
        carried = cost[:, used]
        cheapest = carried.argmin(1)
        for i in range(items):
            if carried[i, cheapest[i]] < (INF / 2 if mode == COMPLETE else leave[i]):
                position[i] = used[int(cheapest[i])]
    total = sum(float(package[k]) for k in set(position[position >= 0].tolist()))
    for i in range(items):
        total += float(cost[i, position[i]]) if position[i] >= 0 else float(leave[i])
    if mode == COMPLETE and total >= value:
        return value, np.full(items, -1, np.int64)
    return total, position


def floor(package: Floats, cost: Floats, leave: Floats) -> Floats:
    """A bound from below for orders of many items: each item bears its share of a package; [B]."""
    items = cost.shape[1]
    return np.minimum(leave, (cost + package[:, None, :] / items).min(2)).sum(1)
