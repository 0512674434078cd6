"""One joint plan: prices, rounds by priority class, exact flow for single units, and improvement while time is left."""

import time
from collections.abc import Callable

import numpy as np

from brokering.assembly import as_plan
from brokering.evaluate import order_cents
from brokering.flow import replan_single_units, single_units
from brokering.improve import improve
from brokering.matrix import Ints, Matrix
from brokering.numbering import compile_problem
from brokering.overtaking import give_way
from brokering.prices import CANDIDATES, Group, Prices, ascend, bound, candidates, contested
from brokering.problem import Plan, Problem
from brokering.protect import kept_at_least, room_beside
from brokering.rounds import State, fill

STEPS_MAX = 90
PIECES_MAX = 60
PRICES_SHARE = 0.4
PIECES_SHARE = 0.9
Progress = Callable[[str, int, int], None]
PHASES = ("read", "prices", "bound", "rounds", "improved", "explained")


def broker(
    problem: Problem,
    *,
    seconds: float = 60,
    seed: int = 0,
    steps_max: int = STEPS_MAX,
    pieces_max: int = PIECES_MAX,
    explain: bool = True,
    progress: Progress | None = None,
) -> Plan:
    """A legal plan for all lines, better with more time, with a bound that no plan can beat.

    Deterministic by `seed` (which orders are asked first where all else is equal) when `seconds` is not what ends it:
    limit `steps_max` and `pieces_max` instead. `progress` is told (phase, done, total), from the calling thread.
    Raises ValueError for a problem that contradicts itself.
    """
    began = time.monotonic()
    phases: dict[str, float] = {}

    def remaining(share: float = 1.0) -> float:
        return seconds * share - (time.monotonic() - began)

    def done(phase: str) -> None:
        phases[phase] = round(time.monotonic() - began, 3)
        if progress:
            progress(phase, PHASES.index(phase) + 1, len(PHASES))

    m = compile_problem(problem)
    everyone = np.random.default_rng(seed).permutation(m.orders)
    done("read")
    price, groups = _prices(m, everyone, steps=steps_max, stop=lambda: remaining(PRICES_SHARE) <= 0)
    room = room_beside(m, problem, price.by_cell())
    done("prices")
    lower = bound(m, everyone, price, kept_at_least(m, problem, price.by_cell()))
    done("bound")
    state = State(m, room)
    classes = sorted(set(m.priority.tolist()), reverse=True)
    mine = m.priority[everyone]
    for p in classes:
        fill(m, state, everyone[mine == p], price, [_of_class(m, g, p) for g in groups])
    singles = single_units(m, everyone)
    _flow(m, state, singles, price)
    done("rounds")
    if remaining(PIECES_SHARE) > 0 and pieces_max > 0:
        improve(
            m, state, everyone, groups, price, most=pieces_max, remaining=lambda: remaining(PIECES_SHARE),
            between=lambda: _flow(m, state, singles, price),
            tell=lambda n: progress("pieces", n, pieces_max) if progress else None,
        )  # fmt: skip
    give_way(m, state, price)
    done("improved")
    plan = as_plan(problem, m, state, room, bound=lower, phases=phases, explain=explain, price=price)
    done("explained")
    return plan


def _prices(m: Matrix, orders: Ints, *, steps: int, stop: Callable[[], bool]) -> tuple[Prices, list[Group]]:
    """Prices over the cheapest candidates, then over candidates chosen again at those prices."""
    price, groups = contested(m, candidates(m, orders))
    price = ascend(m, groups, price, steps=steps, stop=stop)
    if m.places > CANDIDATES and not stop():
        price, groups = contested(m, candidates(m, orders, price), price)
        price = ascend(m, groups, price, steps=steps // 3, stop=stop)
    return price, groups


def _of_class(m: Matrix, g: Group, priority: int) -> Group:
    return g.some(np.flatnonzero(m.priority[g.orders] == priority))


def _flow(m: Matrix, state: State, singles: Ints, price: Prices) -> None:
    """Takes the exact replan of single units where it costs less."""
    before = order_cents(m, state, singles).sum()
    other = state.copy()
    replan_single_units(m, other, singles, price)
    if order_cents(m, other, singles).sum() < before:
        state.take_over(other)
