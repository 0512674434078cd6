"""The choice among columns: one per order, within what is left, at the least sum of cents."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from brokering.matrix import Bools, Floats, Ints

SECONDS_MIN = 0.1


@dataclass(frozen=True)
class Choice:
    """Columns: cents, whose, which are the plan of now, regret at prices; what they use: (column, resource, amount)."""

    cents: Floats
    owner: Ints
    mine: Bools
    regret: Floats
    uses: tuple[Ints, Ints, Ints]
    room: Floats


def choose(c: Choice, *, seconds: float, gap: float) -> Bools:
    """Which columns: one of each owner. The plan of now where nothing better is found in time."""
    share = solved(c, seconds=seconds, gap=gap)
    if share is None or c.cents[share > 0.5].sum() >= c.cents[c.mine].sum():
        return c.mine
    chosen: Bools = share > 0.5
    return chosen


def solved(c: Choice, *, seconds: float, gap: float) -> Floats | None:
    """How much of each column to take, by SCIP; None where it found nothing in time."""
    from ortools.linear_solver.python import model_builder_helper as helper

    who, what, much = c.uses
    binds = np.bincount(what, much, len(c.room))[what] > c.room[what]
    pairs, at = np.unique(what[binds] * len(c.cents) + who[binds], return_inverse=True)
    amount = np.bincount(at, much[binds], len(pairs))
    resources, row = np.unique(pairs // max(1, len(c.cents)), return_inverse=True)
    owners, owner_at = np.unique(c.owner, return_inverse=True)
    model: Any = helper.ModelBuilderHelper()
    for j, cents in enumerate(c.cents.tolist()):
        model.add_var()
        model.set_var_lower_bound(j, 0.0)
        model.set_var_upper_bound(j, 1.0)
        model.set_var_objective_coefficient(j, cents)
        model.set_var_integrality(j, True)
    limits = [(1.0, 1.0)] * len(owners) + [(-np.inf, limit) for limit in c.room[resources].tolist()]
    for r, (least, most) in enumerate(limits):
        model.add_linear_constraint()
        model.set_constraint_lower_bound(r, least)
        model.set_constraint_upper_bound(r, most)
    for j, r in enumerate(owner_at.tolist()):
        model.add_term_to_constraint(r, j, 1.0)
    terms = (pairs % max(1, len(c.cents))).tolist(), (row + len(owners)).tolist(), amount.tolist()
    for j, r, q in zip(*terms, strict=True):
        model.add_term_to_constraint(r, j, q)
    run = helper.ModelSolverHelper("scip")
    run.set_solver_specific_parameters(f"limits/gap = {gap}")
    run.set_time_limit_in_seconds(max(SECONDS_MIN, seconds))
    run.solve(model)
    return np.asarray(run.variable_values()) if run.has_solution() else None
