"""The whole problem as one mixed-integer program for HiGHS: what a plan of a small problem is measured against."""

from itertools import pairwise
from typing import Any

import numpy as np

from brokering import Problem
from brokering.costs import order_costs
from brokering.matrix import INF, UNLIMITED, Matrix, lines_of_items, shapes
from brokering.numbering import compile_problem

AT_ONCE = 2_000_000


class Program:
    """Variables and rows as they are added: x (item, place), y (order, place) and u (item is left)."""

    def __init__(self) -> None:
        from ortools.linear_solver.python import model_builder_helper as helper

        self.model: Any = helper.ModelBuilderHelper()
        self.cents: list[float] = []
        self.rows = 0

    def variable(self, cents: float) -> int:
        """A new variable of 0 or 1."""
        at = len(self.cents)
        self.model.add_var()
        self.model.set_var_lower_bound(at, 0.0)
        self.model.set_var_upper_bound(at, 1.0)
        self.model.set_var_objective_coefficient(at, cents)
        self.model.set_var_integrality(at, True)
        self.cents.append(cents)
        return at

    def row(self, least: float, most: float, terms: list[tuple[int, float]]) -> None:
        """A new row: least ≤ sum of factor × variable ≤ most."""
        self.model.add_linear_constraint()
        self.model.set_constraint_lower_bound(self.rows, least)
        self.model.set_constraint_upper_bound(self.rows, most)
        for variable, factor in terms:
            self.model.add_term_to_constraint(self.rows, variable, factor)
        self.rows += 1


def optimum(problem: Problem, *, seconds: float) -> tuple[int, float] | None:
    """Cost of the best plan that HiGHS finds, and its own bound, in cents; None where it finds none in time.

    Classes may overtake and no demand is protected: the problem is to be of that kind.
    """
    from ortools.linear_solver.python import model_builder_helper as helper

    m = compile_problem(problem)
    program = Program()
    cells: dict[int, list[tuple[int, float]]] = {}
    work: dict[tuple[int, int], list[tuple[int, float]]] = {}
    for items, complete, packages, orders in shapes(m, np.arange(m.orders), AT_ONCE):
        package, cost, leave = order_costs(m, orders, items)
        for b, order in enumerate(orders.tolist()):
            _order(program, m, order, package[b], cost[b], leave[b], complete, packages, cells, work)
    for cell, terms in cells.items():
        program.row(-np.inf, float(m.cell_stock[cell]), terms)
    for (at, kind), terms in work.items():
        if m.capacity[at, kind] < UNLIMITED:
            program.row(-np.inf, float(m.capacity[at, kind]), terms)
    run = helper.ModelSolverHelper("highs")
    run.set_time_limit_in_seconds(seconds)
    run.solve(program.model)
    if not run.has_solution():
        return None
    return round(run.objective_value()), run.best_objective_bound()


def _order(
    program: Program, m: Matrix, order: int, package: Any, cost: Any, leave: Any, complete: bool, packages: int,
    cells: dict[int, list[tuple[int, float]]], work: dict[tuple[int, int], list[tuple[int, float]]],
) -> None:  # fmt: skip
    ids = np.arange(m.order_first[order], m.order_first[order + 1])
    can = (cost < INF / 2) & (package < INF / 2)
    ys = {int(at): program.variable(float(package[at])) for at in np.flatnonzero(can.any(0))}
    for at, y in ys.items():
        work.setdefault((at, 0), []).append((y, 1.0))
    stays = []
    for i, item in enumerate(ids.tolist()):
        stays.append(program.variable(float(leave[i])))
        goes = [(int(at), program.variable(float(cost[i, at]))) for at in np.flatnonzero(can[i])]
        program.row(1.0, 1.0, [(stays[-1], 1.0), *((x, 1.0) for _, x in goes)])
        lines = np.concatenate([some for _, some in lines_of_items(m, np.array([item]))])
        for at, x in goes:
            program.row(-np.inf, 0.0, [(x, 1.0), (ys[at], -1.0)])
            for line, cell in zip(lines.tolist(), m.cell_of(m.line_sku[lines], np.int64(at)).tolist(), strict=True):
                cells.setdefault(cell, []).append((x, float(m.line_quantity[line])))
            work.setdefault((at, 1), []).append((x, float(m.item_units[item])))
            work.setdefault((at, 2), []).append((x, float(m.item_cents[item])))
    if packages < len(ids):
        program.row(-np.inf, float(packages), [(y, 1.0) for y in ys.values()])
    if complete:
        for one, other in pairwise(stays):
            program.row(0.0, 0.0, [(one, 1.0), (other, -1.0)])
