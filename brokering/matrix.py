"""A problem as arrays: orders of items × places, stock in cells, and tables of what each pairing costs."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

INF = np.float32(1e12)
UNLIMITED = 1e15
EARTH_MILES = 3958.8

Ints = NDArray[Any]  # of whole numbers
Floats = NDArray[Any]  # of cents, mostly float32
Bools = NDArray[Any]


@dataclass(frozen=True)
class Bounds:
    """One limit of a policy as arrays: what breaks it, and what dropping it costs (INF: it is hard)."""

    policy: int
    cents: float
    barred: Bools  # [N]
    too_far: Bools | None  # [destinations,N]
    late_days_max: int | None


@dataclass(frozen=True)
class Matrix:
    """Items are lines, or lines that stay together. Items of an order are consecutive; so are lines of an item.

    O orders (a line that goes alone is one of its own), I items, K skus, N places, P policies. A place is a location,
    or one slot of it, or a day on which stock comes in there. A cell is stock of a sku at a location; cell 0 is none.
    Entries of a sku are the places that may take from its cells: entry_first[k]:entry_first[k+1], by place.
    Money is whole cents, so float32 holds it exactly up to $167,000.
    """

    order_index: Ints  # [O] place in the problem's orders
    order_first: Ints  # [O+1] items of order o: order_first[o]:order_first[o+1]
    item_first: Ints  # [I+1] lines of item i
    item_order: Ints  # [I]
    item_units: Ints  # [I]
    item_cents: Ints  # [I] of capacity in money
    line_index: Ints  # [lines] place in the problem's lines
    line_item: Ints
    line_sku: Ints
    line_quantity: Ints
    line_pool: Ints  # or -1
    line_cents_of_capacity: Ints  # value × quantity
    leave: Floats  # [lines] what leaving it costs
    sku_ids: Ints  # [K]
    location_ids: Ints  # [N] places of one location share it
    place_slot: Ints  # [N] or -1
    place_day: Ints  # [N] of the stock that leaves there
    cell_stock: Ints  # [C+1]
    cell_sku: Ints  # [C+1]
    cell_place: Ints  # [C+1] its first place
    entry_first: Ints  # [K+1]
    entry_at: Ints  # [E]
    entry_cell: Ints  # [E]
    entry_key: Ints  # [E] sku × N + place, ascending
    capacity: Floats  # [N,3] orders, items, cents; UNLIMITED where there is no limit
    zone: NDArray[np.uint8]  # [destinations,N]
    destination: Ints  # [O]
    policy: Ints  # [O]
    service: Ints  # [O]
    promise: Ints  # [O] days
    complete: Bools  # [O] all lines or none
    packages_max: Ints  # [O]
    priority: Ints  # [O]
    only_location: Ints  # [O] id; -1: none, -2: not in the problem
    unknown: Bools  # [O] no coordinates
    unsited: Bools  # [N] no coordinates
    strict: Bools  # [P] leaves unknown distances out
    pool_has: Bools  # [pools,N]
    barred: Ints  # line × N + place, ascending
    limits: tuple[Bounds, ...]
    transit: Ints  # [P,zones] days
    leave_day: Ints  # [services,N]
    days: int  # one more than the latest of leave_day
    parcel_by_zone: Floats  # [O,zones]
    late_by_band: Floats  # [O,zones × days]
    weight_by_zone: Floats  # [lines,zones]
    handling_at: Floats  # [P,N] per package
    load_at: Floats  # [P,N] per package
    line_at: Floats  # [P,N] per line
    cell_line: Floats  # [P,C+1] expected rejection, per line
    cell_terms: dict[str, Floats]  # term → [P,C+1] per unit
    cell_unit: Floats  # [P,C+1] their sum

    @property
    def orders(self) -> int:
        return len(self.order_first) - 1

    @property
    def places(self) -> int:
        return len(self.location_ids)

    @property
    def cells(self) -> int:
        return len(self.cell_stock)

    @property
    def items_per_order(self) -> Ints:
        return np.diff(self.order_first)

    @property
    def resources(self) -> int:
        """Cells, then orders, items and cents of each place: what a plan uses up."""
        return self.cells + 3 * self.places

    def cell_of(self, sku: Ints, at: Ints | np.int64) -> Ints:
        """The cells of skus at places, broadcast against each other; 0 where there is none."""
        if not len(self.entry_key):
            return np.zeros(np.broadcast_shapes(np.shape(sku), np.shape(at)), np.int64)
        key = np.asarray(sku, np.int64) * self.places + at
        spot = np.minimum(np.searchsorted(self.entry_key, key), len(self.entry_key) - 1)
        return np.where(self.entry_key[spot] == key, self.entry_cell[spot], 0)

    def entries(self, skus: Ints) -> tuple[Ints, Ints, Ints]:
        """The entries of these skus, one after the other: (place in `skus`, place, cell)."""
        first, end = self.entry_first[skus], self.entry_first[skus + 1]
        which = spans(first, end)
        return np.repeat(np.arange(len(skus)), end - first), self.entry_at[which], self.entry_cell[which]

    def spread(self, skus: Ints, values: Ints | None = None) -> Ints:
        """Values by cell (their numbers where left out) as rows over all places, [B,N]; 0 where there is no stock."""
        row, at, cell = self.entries(skus)
        out = np.zeros((len(skus), self.places), np.int32 if values is None else values.dtype)
        out[row, at] = cell if values is None else values[cell]
        return out

    def most_left(self, room: Ints) -> Ints:
        """The most units of each sku in one cell, [K]."""
        most = np.zeros(len(self.entry_first) - 1, room.dtype)
        np.maximum.at(most, self.cell_sku[1:], room[1:])
        return most


def spans(first: Ints, end: Ints) -> Ints:
    """All numbers of the ranges first:end, one range after the other."""
    count = end - first
    total = int(count.sum())
    starts = np.repeat(first - np.append(0, np.cumsum(count)[:-1]), count) if len(count) else first
    return starts + np.arange(total)


def lines_of_items(m: Matrix, items: Ints) -> list[tuple[Ints, Ints]]:
    """The lines of items, in turns of at most one line per item: (places in `items`, lines)."""
    counts = m.item_first[items + 1] - m.item_first[items]
    turns = []
    for nth in range(int(counts.max(initial=0))):
        has = np.flatnonzero(counts > nth)
        turns.append((has, m.item_first[items[has]] + nth))
    return turns


def shapes(m: Matrix, orders: Ints, cells: int) -> Iterator[tuple[int, bool, int, Ints]]:
    """Orders of equal number of items, completeness and package limit, in chunks that fit in memory."""
    items = m.items_per_order[orders]
    limit = np.minimum(m.packages_max[orders], np.maximum(items, 1))
    keys = np.stack([items, m.complete[orders].astype(np.int64) * (items > 1), limit], 1)
    for count, complete, packages in np.unique(keys, axis=0).tolist():
        if count == 0:
            continue
        these = orders[(keys == (count, complete, packages)).all(1)]
        size = max(1, cells // ((count + 1) * m.places))
        for start in range(0, len(these), size):
            yield count, bool(complete), packages, these[start : start + size]


def miles(a: Floats, b: Floats) -> Floats:
    """Great-circle miles [A,B] between points [A,2] and [B,2] in degrees (haversine)."""
    a, b = np.radians(a), np.radians(b)
    h = (
        np.sin((a[:, None, 0] - b[None, :, 0]) / 2) ** 2
        + np.cos(a[:, None, 0]) * np.cos(b[None, :, 0]) * np.sin((a[:, None, 1] - b[None, :, 1]) / 2) ** 2
    )
    return 2 * EARTH_MILES * np.arcsin(np.sqrt(np.clip(h, 0, 1)))
