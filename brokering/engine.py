"""One joint plan: prices, rounds by priority class, exact flow for single units, and improvement while time is left."""

import time
from collections.abc import Callable

import numpy as np

from brokering.evaluate import cost_by_term, order_cents
from brokering.explain import decisions, unfilled
from brokering.flow import replan_single_units
from brokering.matrix import Ints, Matrix, compile_problem
from brokering.prices import Prices, ascend, bound, candidates, contested
from brokering.problem import Assignment, Plan, Problem
from brokering.protect import room_beside
from brokering.rounds import State, fill

STEPS_MAX = 60
IMPROVEMENTS_MAX = 30
SHARE_REPLANNED = 0.15
Progress = Callable[[str, int, int], None]


def broker(
    problem: Problem,
    *,
    seconds: float = 60,
    seed: int = 0,
    steps_max: int = STEPS_MAX,
    improvements_max: int = IMPROVEMENTS_MAX,
    explain: bool = True,
    progress: Progress | None = None,
) -> Plan:
    """A legal plan for all lines, better with more time, with a bound that no plan can beat.

    Deterministic by `seed` when `seconds` is not what ends it (limit `steps_max` and `improvements_max` instead).
    Raises ValueError for a problem that contradicts itself.
    """
    began = time.monotonic()
    phases: dict[str, float] = {}

    def over(share: float) -> Callable[[], bool]:
        return lambda: time.monotonic() - began > seconds * share

    def done(phase: str, at: int, of: int) -> None:
        phases[phase] = round(time.monotonic() - began, 3)
        if progress:
            progress(phase, at, of)

    m = compile_problem(problem)
    everyone = np.arange(m.orders)
    room = room_beside(m)
    done("read", 1, 5)
    groups = candidates(m, everyone)
    price = contested(m, groups)
    price = ascend(m, groups, price, steps=steps_max, stop=over(0.4))
    done("prices", 2, 5)
    lower = bound(m, everyone, price)
    done("bound", 3, 5)
    del groups
    state = State(m, room)
    classes = [everyone[m.priority == p] for p in sorted(set(m.priority.tolist()), reverse=True)]
    never = lambda: False  # noqa: E731 - a first plan is always made
    for orders in classes:
        fill(m, state, orders, price, stop=never)
        _with_flow(m, state, orders)
        _improve(m, state, orders, price, seed=seed, most=improvements_max, stop=over(0.95 / len(classes) + 0.4))
    done("rounds", 4, 5)
    plan = as_plan(m, state, room, bound=lower, phases=phases, explain=explain)
    done("explained", 5, 5)
    return plan


def _with_flow(m: Matrix, state: State, orders: Ints) -> None:
    """Takes the exact replan of single units where it costs less."""
    before = order_cents(m, state, orders).sum()
    other = state.copy()
    replan_single_units(m, other, orders)
    if order_cents(m, other, orders).sum() < before:
        state.at, state.room, state.capacity = other.at, other.room, other.capacity


def _improve(
    m: Matrix, state: State, orders: Ints, price: Prices, *, seed: int, most: int, stop: Callable[[], bool]
) -> None:
    """Replans shares of a class anew, those that lose most and their neighbors first; keeps what costs less."""
    if len(orders) < 2:
        return
    random = np.random.default_rng(seed)
    cents = order_cents(m, state, orders)
    for turn in range(most):
        if stop():
            return
        size = max(2, int(len(orders) * SHARE_REPLANNED * (0.5 + random.random())))
        weight = cents / max(1.0, cents.sum()) + 1 / len(orders)
        some = (
            orders[np.argsort(random.random(len(orders)) ** (1 / weight))[::-1][:size]]
            if turn % 2
            else random.choice(orders, size=min(size, len(orders)), replace=False)
        )
        other = state.copy()
        other.release(some)
        fill(m, other, np.sort(some), price, stop=stop, most=24)
        replan_single_units(m, other, orders)
        now = order_cents(m, other, orders)
        if now.sum() < cents.sum():
            state.at, state.room, state.capacity = other.at, other.room, other.capacity
            cents = now


def as_plan(m: Matrix, state: State, room: Ints, *, bound: float, phases: dict[str, float], explain: bool) -> Plan:
    """A state as a plan, its cost added up anew."""
    assigned = np.flatnonzero(state.at[m.line_item] >= 0)
    terms, packages = cost_by_term(m, state, np.arange(m.orders))
    by_term = {name: round(float(v.sum())) for name, v in terms.items() if v.any()}
    cost = sum(by_term.values())
    lines = m.problem.lines
    return Plan(
        assignments=[
            Assignment(
                lines[int(m.line_index[n])].line_id, int(m.location_ids[state.at[m.line_item[n]]]), int(m.line_quantity[n])
            )
            for n in assigned
        ],
        unfilled=unfilled(m, state, room), cost=cost, bound=min(cost, int(np.floor(bound))),
        decisions=decisions(m, state, room) if explain else [], phases=phases, cost_by_term=by_term, packages=packages,
    )  # fmt: skip
