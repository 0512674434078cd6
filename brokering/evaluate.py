"""What a plan costs, by term: the same arithmetic as the solver's, summed over what was chosen."""

import numpy as np

from brokering.costs import line_terms, package_terms
from brokering.matrix import Floats, Ints, Matrix, spans
from brokering.rounds import State


def order_cents(m: Matrix, state: State, orders: Ints) -> Floats:
    """Cents of each order of these, [B]."""
    per_order, _ = cost_by_term(m, state, orders)
    return sum(per_order.values(), np.zeros(len(orders)))


def cost_by_term(m: Matrix, state: State, orders: Ints) -> tuple[dict[str, Floats], int]:
    """Term → cents of each order of these, and the number of packages."""
    places = m.places
    number = np.full(m.orders, -1, np.int64)
    number[orders] = np.arange(len(orders))
    lines, at = state.lines(orders)
    of = m.item_order[m.line_item[lines]]
    pairs = np.unique(of * places + at)
    terms: dict[str, Floats] = {}
    for name, cents in package_terms(m, pairs // places, (pairs % places)[:, None]).items():
        terms[name] = np.bincount(number[pairs // places], cents[:, 0].astype(np.float64), len(orders))
    for name, cents in line_terms(m, lines, of, at[:, None]).items():
        terms[name] = np.bincount(number[of], cents[:, 0].astype(np.float64), len(orders))
    items = spans(m.order_first[orders], m.order_first[orders + 1])
    left = spans(m.item_first[items], m.item_first[items + 1])
    left = left[state.at[m.line_item[left]] < 0]
    terms["left"] = np.bincount(number[m.item_order[m.line_item[left]]], m.leave[left], len(orders))
    return terms, len(pairs)
