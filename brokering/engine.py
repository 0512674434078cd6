"""One joint plan: prices, rounds by priority class, exact flow for single units, and improvement while time is left."""

import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from brokering.assembly import as_plan, warm_prices
from brokering.evaluate import order_cents
from brokering.executors import Here, Processes
from brokering.flow import Arcs, Ways, replan_single_units, single_units
from brokering.improve import improve
from brokering.labor import keep_labor
from brokering.matrix import Floats, Ints, Matrix
from brokering.near import Near
from brokering.numbering import compile_problem
from brokering.overtaking import give_way
from brokering.prices import Group, Prices, ascend, contested, given_away
from brokering.problem import Decision, Plan, Problem, Shadow
from brokering.protect import kept_at_least, room_beside
from brokering.rounds import State, fill
from brokering.tasks import Executor, Task, added, packed, shards_of

STEPS_MAX = 90
PIECES_MAX = 600
PROCESSES = 2
ORDERS_ALONE_MAX = 3000
"""Up to so many orders a second process costs more time than it saves."""
SHARD_ORDERS = 125_000
FIRST_CENTS, AGAIN_CENTS, WARM_CENTS = 200.0, 200.0, 40.0
"""Of the first price step: from nothing, with candidates chosen again, from prices of a run before."""
PRICES_SHARE = 0.4
PIECES_SHARE = 0.93
EXPLAINED_SECONDS = 6e-5
"""About what explaining an order takes, by two processes: so much less is planned."""
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
    warm: Shadow | None = None,
    processes: int | None = None,
    executor: Executor | None = None,
) -> Plan:
    """A legal plan for all lines, better with more time, with a bound that no plan can beat.

    Deterministic by `seed` (which orders are asked first where all else is equal) when `seconds` is not what ends it:
    limit `steps_max` and `pieces_max` instead; the number of `processes` (None: one or two, by size) does not matter.
    `warm` are the prices of a run before (`plan.prices`). `executor` does the tasks elsewhere. `progress` is told
    (phase, done, total), from the calling thread. Raises ValueError for a problem that contradicts itself.
    """
    count = processes or (1 if len(problem.orders) <= ORDERS_ALONE_MAX else PROCESSES)
    if executor is not None:
        return _brokered(problem, executor, seconds, seed, steps_max, pieces_max, explain, progress, warm)
    own = Here() if count == 1 else Processes(count)
    try:
        return _brokered(problem, own, seconds, seed, steps_max, pieces_max, explain, progress, warm)
    finally:
        own.close()


def _brokered(
    problem: Problem, executor: Executor, seconds: float, seed: int, steps_max: int, pieces_max: int, explain: bool,
    progress: Progress | None, warm: Shadow | None,
) -> Plan:  # fmt: skip
    began = time.monotonic()
    seconds -= min(seconds / 4, EXPLAINED_SECONDS * len(problem.orders)) if explain else 0
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
    run = Run(m, everyone, executor)
    price = run.priced(warm, steps=steps_max, stop=lambda: remaining(PRICES_SHARE) <= 0)
    room = room_beside(m, problem, price.by_cell())
    done("prices")
    lower = sum(run.of_shards("bound", price)) + kept_at_least(m, problem, price.by_cell()) - given_away(m, price)
    done("bound")
    state = State(m, room)
    classes = sorted(set(m.priority.tolist()), reverse=True)
    mine = m.priority[everyone]
    groups = run.of_shards("groups", price)
    for p in classes:
        fill(m, state, everyone[mine == p], price, [_of_class(m, g, p) for part in groups for g in part])
    del groups
    singles = single_units(m, everyone)
    flow = partial(_flow, m, state, singles, partial(run.arcs, price))
    flow()
    done("rounds")
    if remaining(PIECES_SHARE) > 0 and pieces_max > 0 and m.orders:
        near = Near(m, price, run.of_shards("near", price))
        improve(
            m, state, everyone, near, price, run.pieces, most=pieces_max, seed=seed, remaining=lambda: remaining(PIECES_SHARE),
            between=flow,
            tell=lambda n: progress("pieces", n, pieces_max) if progress else None,
        )  # fmt: skip
    give_way(m, state, price)
    keep_labor(m, state, price, problem.labor, seed=seed)
    done("improved")
    explained = run.explained(problem, state, room, price) if explain else None
    plan = as_plan(problem, m, state, room, bound=lower, phases=phases, explained=explained, price=price)
    done("explained")
    return plan


class Run:
    """The tasks of one run: what its orders are, by shard, and which generation their candidates are of."""

    def __init__(self, m: Matrix, orders: Ints, executor: Executor) -> None:
        self._m, self._executor, self._generation = m, executor, 0
        shards = shards_of(orders, SHARD_ORDERS)
        self._shards = len(shards)
        executor.share("matrix", packed(m))
        for n, shard in enumerate(shards):
            executor.share(f"orders-{n}", {"orders": shard})

    def of_shards(self, kind: str, price: Prices | None = None) -> list[Any]:
        """The results of one kind of task for every shard."""
        given = {} if price is None else {"stock": price.stock, "work": price.work}
        return self._executor.run([Task(kind, n, self._generation, given) for n in range(self._shards)])

    def arcs(self, price: Prices, room: Ints, at: Ints) -> list[Arcs]:
        """Where the single units of every shard may go within a room; where they are now (`at`) is one of the ways."""
        given = {"stock": price.stock, "work": price.work, "left": room, "at": at}
        return self._executor.run([Task("arcs", n, self._generation, given) for n in range(self._shards)])

    def explained(self, problem: Problem, state: State, room: Ints, price: Prices) -> list[Decision]:
        """Why each order of the matrix is planned as it is, in its order."""
        m = self._m
        ids = [problem.orders[i].order_id for i in m.order_index.tolist()]
        self._executor.share("ids", {"orders": np.array(ids, np.str_)})
        given = {"stock": price.stock, "work": price.work, "left": state.room, "at": state.at, "start": room,
                 "capacity": state.capacity}  # fmt: skip
        ends = np.linspace(0, m.orders, self._shards + 1).astype(int).tolist()
        parts = [given | {"first": a, "end": b} for a, b in pairwise(ends)]
        return [
            d for kept in self._executor.run([Task("explain", 0, self._generation, p) for p in parts]) for d in kept
        ]

    def pieces(self, given: list[dict[str, Any]]) -> list[Ints | None]:
        """Pieces planned again."""
        return self._executor.run([Task("piece", 0, self._generation, g) for g in given])

    def priced(self, warm: Shadow | None, *, steps: int, stop: Callable[[], bool]) -> Prices:
        """Prices over the cheapest candidates, then over candidates chosen again at those prices."""
        by_cell, work = np.zeros(self._m.cells), np.zeros((self._m.places, 3))
        if warm is not None:
            by_cell, work = warm_prices(self._m, warm)
            self._choose_again(contested(self._m, np.zeros(self._m.cells), by_cell, work))
        price = self._rows(by_cell, work)
        price = self._ascended(price, steps, stop, FIRST_CENTS if warm is None else WARM_CENTS)
        if not stop():
            self._choose_again(price)
            price = self._rows(price.by_cell(), price.work)
            price = self._ascended(price, steps // 3, stop, AGAIN_CENTS if warm is None else WARM_CENTS)
        return price

    def _choose_again(self, price: Prices) -> None:
        self._generation += 1
        self._executor.share(f"prices-{self._generation}", vars(price))

    def _rows(self, by_cell: Floats, work: Floats) -> Prices:
        wanted = sum(self.of_shards("wanted"), np.zeros(self._m.cells, np.int64))
        price = contested(self._m, wanted, by_cell, work)
        self._executor.share(f"rows-{self._generation}", {"row_of": price.row_of, "room": price.room})
        return price

    def _ascended(self, price: Prices, steps: int, stop: Callable[[], bool], first_cents: float) -> Prices:
        def of(stock: Floats, work: Floats) -> tuple[float, Floats, Floats]:
            return added(self.of_shards("step", Prices(stock, work, price.row_of, price.room)))

        return ascend(self._m, price, of, steps=steps, stop=stop, first_cents=first_cents)


def _of_class(m: Matrix, g: Group, priority: int) -> Group:
    """The orders of a group that are of this class."""
    of = m.priority[g.orders] == priority
    return g if of.all() else g.some(np.flatnonzero(of))


def _flow(m: Matrix, state: State, singles: Ints, ways: Ways) -> None:
    """Takes the exact replan of single units where it costs less."""
    before = order_cents(m, state, singles).sum()
    other = state.copy()
    replan_single_units(m, other, singles, ways)
    if order_cents(m, other, singles).sum() < before:
        state.take_over(other)
