"""A state of planning as a plan that says what it costs, by names instead of numbers."""

import numpy as np

from brokering.evaluate import cost_by_term
from brokering.explain import by_order, unfilled
from brokering.matrix import Ints, Matrix
from brokering.prices import Prices
from brokering.problem import Assignment, CellPrice, Decision, Plan, Problem, Shadow, WorkPrice
from brokering.rounds import State


def as_plan(
    problem: Problem, m: Matrix, state: State, room: Ints, *, bound: float, phases: dict[str, float],
    explained: list[Decision] | None = None, price: Prices | None = None,
) -> Plan:  # fmt: skip
    """A state as a plan, its cost added up anew. `room` is what the run could take at its start."""
    lines = np.flatnonzero(state.at[m.line_item] >= 0)
    terms, packages = cost_by_term(m, state, np.arange(m.orders))
    by_term = {name: round(float(v.sum(dtype=np.float64))) for name, v in terms.items() if v.any()}
    at = state.at[m.line_item[lines]]
    ids = np.array([n.line_id for n in problem.lines], np.int64)[m.line_index[lines]]
    slots = [None if s < 0 else s for s in m.place_slot[at].tolist()]
    columns = ids.tolist(), m.location_ids[at].tolist(), m.line_quantity[lines].tolist(), slots
    return Plan(
        assignments=[Assignment(*row) for row in zip(*columns, m.place_day[at].tolist(), strict=True)],
        unfilled=unfilled(problem, m, state, room), cost=sum(by_term.values()), bound=int(np.floor(bound)),
        decisions=[] if explained is None else by_order(problem, m, explained), phases=phases, cost_by_term=by_term,
        packages=packages, prices=Shadow() if price is None else shadow(m, price),
    )  # fmt: skip


def shadow(m: Matrix, price: Prices) -> Shadow:
    """Prices by their names, those first that save most."""
    by_cell = price.by_cell()
    cells = np.flatnonzero(by_cell > 0)
    cells = cells[np.argsort(-by_cell[cells], kind="stable")]
    place = m.cell_place[cells]
    rows = (
        m.sku_ids[m.cell_sku[cells]].tolist(), m.location_ids[place].tolist(), np.round(by_cell[cells], 2).tolist(),
        m.place_day[place].tolist(),
    )  # fmt: skip
    places = np.flatnonzero(price.work.any(1))
    places = places[np.argsort(-price.work[places, 0], kind="stable")]
    return Shadow(
        [CellPrice(*row) for row in zip(*rows, strict=True)],
        [
            WorkPrice(
                int(m.location_ids[n]), float(price.work[n, 0]), float(price.work[n, 1]), float(price.work[n, 2]),
                None if m.place_slot[n] < 0 else int(m.place_slot[n]),
            )
            for n in places.tolist()
        ],
    )  # fmt: skip


def warm_prices(m: Matrix, given: Shadow) -> tuple[Ints, Ints]:
    """Given prices by their numbers here: of cells, [C+1], and of work, [N,3]; what is not here is not taken."""
    by_cell, work = np.zeros(m.cells), np.zeros((m.places, 3))
    known = {
        key: cell
        for cell, key in enumerate(
            zip(m.sku_ids[m.cell_sku].tolist() if len(m.sku_ids) else [0] * m.cells,
                m.location_ids[m.cell_place].tolist(), m.place_day[m.cell_place].tolist(), strict=True)
        )
        if cell
    }  # fmt: skip
    for p in given.stock:
        by_cell[known.get((p.sku_id, p.location_id, p.day), 0)] = p.cents
    by_cell[0] = 0
    slots = [None if s < 0 else s for s in m.place_slot.tolist()]
    places = {key: n for n, key in enumerate(zip(m.location_ids.tolist(), slots, strict=True)) if not m.place_day[n]}
    for w in given.work:
        if (n := places.get((w.location_id, w.slot))) is not None:
            work[n] = w.order_cents, w.item_cents, w.share
    return by_cell, work
