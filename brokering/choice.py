"""The choice among columns: one per order, within what is left, at the least sum of cents."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from brokering.matrix import Bools, Floats, Ints

SECONDS_MIN = 0.1
PRUNINGS_MAX = 3


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

    kept, who, what, much = worthwhile(c)
    number = np.cumsum(kept) - 1
    resources, row = np.unique(what, return_inverse=True)
    owners, owner_at = np.unique(c.owner[kept], return_inverse=True)
    model: Any = helper.ModelBuilderHelper()
    for j, cents in enumerate(c.cents[kept].tolist()):
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
    for j, r, q in zip(number[who].tolist(), (row + len(owners)).tolist(), much.tolist(), strict=True):
        model.add_term_to_constraint(r, j, q)
    run = helper.ModelSolverHelper("scip")
    run.set_solver_specific_parameters(f"limits/gap = {gap}")
    run.set_time_limit_in_seconds(max(SECONDS_MIN, seconds))
    run.solve(model)
    if not run.has_solution():
        return None
    share = np.zeros(len(c.cents))
    share[kept] = run.variable_values()
    return share


def worthwhile(c: Choice) -> tuple[Bools, Ints, Ints, Floats]:
    """Columns that may be part of a best choice, and what they use of that which can run out: column, resource, amount.

    A column is needless where another of its owner costs no more and uses the same of what can run out, or nothing of
    it. What can run out is what the columns that are kept could overdraw together, each owner with its greediest.
    """
    count = len(c.cents)
    who, what, much = c.uses
    pairs, at = np.unique(what * count + who, return_inverse=True)
    who, what, much = pairs % max(1, count), pairs // max(1, count), np.bincount(at, much, len(pairs))
    kept = np.ones(count, bool)
    mark = np.random.default_rng(0).integers(1, 2**62, len(c.room))
    for _ in range(PRUNINGS_MAX):
        owned, at = np.unique(c.owner[who] * len(c.room) + what, return_inverse=True)
        most = np.zeros(len(owned))
        np.maximum.at(most, at, much)
        scarce = (np.bincount(owned % len(c.room), most, len(c.room)) > c.room)[what]
        who, what, much = who[scarce], what[scarce], much[scarce]
        footprint = np.zeros(count, np.int64)
        np.add.at(footprint, who, mark[what] * much.astype(np.int64))
        least = _cheapest(c, np.flatnonzero(kept), footprint)
        uses = np.bincount(who, minlength=count) > 0
        free = np.full(int(c.owner.max(initial=0)) + 1, np.inf)
        free[c.owner[least[~uses[least]]]] = c.cents[least[~uses[least]]]
        keep = c.mine & kept
        keep[least[(c.cents[least] < free[c.owner[least]]) | ~uses[least]]] = True
        before, kept = int(kept.sum()), keep
        inside = kept[who]
        who, what, much = who[inside], what[inside], much[inside]
        if kept.sum() == before:
            break
    return kept, who, what, much


def _cheapest(c: Choice, some: Ints, footprint: Ints) -> Ints:
    """Of these columns the cheapest of each owner and footprint."""
    by = some[np.lexsort((c.cents[some], footprint[some], c.owner[some]))]
    owner, print_ = c.owner[by], footprint[by]
    first = np.ones(len(by), bool)
    first[1:] = (owner[1:] != owner[:-1]) | (print_[1:] != print_[:-1])
    return by[first]
