"""Which contested rows the good plans of orders touch, so that pieces grow around what is lost."""

import numpy as np

from brokering.columns import columns, usage
from brokering.matrix import Floats, Ints, Matrix, spans
from brokering.prices import Group, Prices, at_prices, solve_group

NEAR_CENTS = 150
NEAR_PLANS = 6


def near_rows(m: Matrix, groups: list[Group], price: Prices) -> tuple[Ints, Floats, Ints]:
    """Orders, what their best plans are worth at prices, and pairs: order × (rows + places) + row or rows + place."""
    pairs, orders, values = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros(0)]
    size = len(price.stock) + m.places
    for g in groups:
        orders.append(g.orders)
        values.append(solve_group(g, *at_prices(m, g, price), want=False)[0])
        c = columns(m, g, price, most=NEAR_PLANS, within_cents=NEAR_CENTS)
        who, what, _ = usage(m, c)
        cell = what < m.cells
        row = np.zeros(len(what), np.int64)
        row[cell] = price.row_of[what[cell]]
        work = ~cell & (what < m.cells + m.places)
        at = what[work] - m.cells
        row[work] = np.where(price.work[at, 0] > 0, len(price.stock) + at, 0)
        some = row > 0
        pairs.append(np.unique(g.orders[c.b[who[some]]] * size + row[some]))
    return np.concatenate(orders), np.concatenate(values), np.concatenate(pairs)


class Near:
    """Which contested rows the good plans of each order touch, both ways."""

    def __init__(self, m: Matrix, price: Prices, found: list[tuple[Ints, Floats, Ints]]) -> None:
        self.value = np.zeros(m.orders)
        size = len(price.stock) + m.places
        for orders, values, _ in found:
            self.value[orders] = values
        pair = np.concatenate([pairs for *_, pairs in found])
        self.rows_first, self.rows = _lists(pair // size, pair % size, m.orders)
        back = np.argsort(pair % size, kind="stable")
        self.orders_first, self.orders = _lists((pair % size)[back], (pair // size)[back], size)

    def rows_of(self, orders: Ints) -> Ints:
        """The contested rows of orders, one after the other."""
        rows: Ints = self.rows[spans(self.rows_first[orders], self.rows_first[orders + 1])]
        return rows

    def orders_of(self, rows: Ints) -> Ints:
        """The orders of contested rows, one after the other."""
        orders: Ints = self.orders[spans(self.orders_first[rows], self.orders_first[rows + 1])]
        return orders


def _lists(key: Ints, value: Ints, size: int) -> tuple[Ints, Ints]:
    by = np.argsort(key, kind="stable")
    return np.searchsorted(key[by], np.arange(size + 1)), value[by]
