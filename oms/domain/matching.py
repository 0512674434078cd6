"""Matching what pools need with what cells have, as much as can be: a maximum flow in plain integers.

A cell is a number of units and a mask: the needs that it may serve. Leaf of `atp`, which tries all sets instead where
they are few.
"""

from collections.abc import Sequence


def match(masks: Sequence[int], free: list[int], need: list[int], matched: list[list[int]]) -> int:
    """Matches units that are still needed with those that are still free, as many as can be; gives how many.

    `masks` and `free` are by cell, `need` by bit of the masks, `matched` by need and cell. The last three are changed
    in place, so that units can be added and the matching go on. Shortest augmenting paths (Edmonds and Karp,
    1972), after needs of few cells took first, from the cells that fewest draw on.
    """
    total = 0
    order = sorted(range(len(masks)), key=lambda c: masks[c].bit_count())
    reach = [[c for c in order if masks[c] >> j & 1] for j in range(len(need))]
    for j in sorted(range(len(need)), key=lambda j: len(reach[j])):
        for c in reach[j]:
            units = min(need[j], free[c])
            if units > 0:
                need[j] -= units
                free[c] -= units
                matched[j][c] += units
                total += units
    while True:
        queue = [j for j, units in enumerate(need) if units > 0]
        back = dict.fromkeys(queue, -1)  # pool → the cell where it would make room
        taker: dict[int, int] = {}  # cell → the pool that would take from it
        end = -1
        for j in queue:
            for c in reach[j]:
                if c not in taker:
                    taker[c] = j
                    if free[c] > 0:
                        end = c
                        break
                    for other, units_by_cell in enumerate(matched):
                        if units_by_cell[c] > 0 and other not in back:
                            back[other] = c
                            queue.append(other)
            if end >= 0:
                break
        if end < 0:
            return total
        path = [(taker[end], end)]
        while (c := back[path[-1][0]]) >= 0:
            path.append((taker[c], c))
        first = path[-1][0]
        units = min(free[end], need[first], *[matched[j][back[j]] for j, _ in path[:-1]])
        for j, c in path:
            matched[j][c] += units
            if j != first:
                matched[j][back[j]] -= units
        free[end] -= units
        need[first] -= units
        total += units


def left_in_own(masks: Sequence[int], free: list[int], own: list[int], *, need: list[int]) -> int:
    """Of `own` units by cell, how many remain when all needs are met as far as can be, from what is free first."""
    matched = [[0] * len(masks) for _ in need]
    match(masks, free, need, matched)
    return sum(own) - match(masks, [f + o for f, o in zip(free, own, strict=True)], need, matched)
