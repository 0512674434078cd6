"""A run in pieces: the same plan by one process or two, and when one of them dies."""

import os
import signal

import msgspec
import pytest

from brokering import Order, Problem, Stock, audit, broker
from brokering.executors import Processes
from brokering.numbering import compile_problem
from brokering.tasks import packed, unpacked
from tests.brokering.small import line, place, random_problem

NEW_YORK, BOSTON, LOS_ANGELES = (40.7, -74.0), (42.4, -71.1), (34.1, -118.2)


def test_two_processes_plan_what_one_does() -> None:
    problem = random_problem(4, orders=2100, locations=8, skus=300, classes=2)
    few = {"steps_max": 12, "pieces_max": 2, "explain": False}
    alone, together = (broker(problem, processes=n, **few) for n in (1, 2))  # type: ignore[arg-type]
    assert (alone.assignments, alone.cost, alone.bound) == (together.assignments, together.cost, together.bound)
    assert audit(problem, together) == []


def test_a_task_whose_process_dies_is_done_again() -> None:
    problem = random_problem(4, orders=2100, locations=8, skus=300)
    few = {"steps_max": 12, "pieces_max": 0, "explain": False}
    calm = broker(problem, processes=1, **few)  # type: ignore[arg-type]
    own = Processes(2)
    folder = own._folder

    def kill(phase: str, at: int, of: int) -> None:
        process = own._children[0]._process
        assert process is not None
        if phase == "prices":
            os.kill(process.pid, signal.SIGKILL)

    try:
        plan = broker(problem, executor=own, progress=kill, **few)  # type: ignore[arg-type]
    finally:
        own.close()
    assert (plan.cost, plan.bound) == (calm.cost, calm.bound)
    assert not folder.exists()


def test_a_matrix_survives_its_packing() -> None:
    m = compile_problem(random_problem(2, orders=20, protected=True))
    again = unpacked(packed(m))
    assert (again.entry_key == m.entry_key).all() and (again.cell_unit == m.cell_unit).all()
    assert again.days == m.days and again.cell_terms.keys() == m.cell_terms.keys()


def test_prices_of_a_run_before_give_the_bound_with_fewer_steps() -> None:
    problem = random_problem(3, orders=150, locations=8, skus=12)
    long = broker(problem, steps_max=120, pieces_max=0)
    cold, warm = (broker(problem, steps_max=6, pieces_max=0, warm=w) for w in (None, long.prices))
    assert warm.bound > cold.bound
    assert audit(problem, warm) == []


def test_shadow_prices_name_the_unit_and_the_work_that_would_save_most() -> None:
    orders = [Order(f"o{n}", *NEW_YORK) for n in range(6)]
    lines = [line(n + 1, 1, 1, f"o{n}") for n in range(6)]
    places = [place(1, *BOSTON), place(2, *LOS_ANGELES)]
    problem = Problem(orders, lines, places, [Stock(1, 1, 3), Stock(1, 2, 9)], {1: (1, 2)})
    plan = broker(problem, steps_max=120, pieces_max=2)
    assert (plan.prices.stock[0].sku_id, plan.prices.stock[0].location_id) == (1, 1)
    more = msgspec.structs.replace(problem, stock=[Stock(1, 1, 4), Stock(1, 2, 9)])
    saved = plan.cost - broker(more, steps_max=120, pieces_max=2).cost
    assert plan.prices.stock[0].cents == pytest.approx(saved, rel=0.2)
    far = next(d for d in plan.decisions if d.candidates[0].location_id == 2)
    assert far.flip is not None and (far.flip.location_id, far.flip.by) == (1, "stock")
    near = next(d for d in plan.decisions if d.candidates[0].location_id == 1)
    assert near.candidates[0].stock_price_cents > 0
