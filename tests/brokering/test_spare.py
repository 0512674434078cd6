"""Lines that a plan leaves keep what only they could use."""

import msgspec
import pytest

from brokering import Line, Location, Order, Problem, Stock, audit, broker, spare
from brokering.promises import keepable
from brokering.spare import _broken, kept
from tests.brokering.small import LIMITS, random_problem


def two_orders() -> Problem:
    """Order a may go from the near store or the far warehouse; order b from the store only, and waits for another sku."""
    return Problem(
        [Order("a", 40.7, -74.0), Order("b", 40.7, -74.0, split="complete")],
        [Line(1, 1, "a", 1, 1, 1, 4000, 500), Line(2, 1, "b", 1, 1, 2, 4000, 500), Line(3, 1, "b", 2, 1, 2, 4000, 500)],
        [Location(1, "warehouse", 40.7, -74.0), Location(2, "warehouse", 34.0, -118.2)],
        [Stock(1, 1, 1), Stock(1, 2, 1)],
        {1: (1, 2), 2: (1,)},
    )


def test_an_order_leaves_the_unit_that_only_a_waiting_line_of_another_pool_could_use() -> None:
    problem = two_orders()
    plan = broker(problem, **LIMITS)
    assert [(a.line_id, a.location_id) for a in plan.assignments] == [(1, 1)]
    sparing = spare(problem, plan)
    assert [(a.line_id, a.location_id) for a in sparing.assignments] == [(1, 2)]
    assert not audit(problem, sparing)
    assert sparing.cost > plan.cost and sparing.bound == plan.bound


def test_a_plan_that_breaks_nothing_is_given_back_as_it_is() -> None:
    problem = msgspec.structs.replace(two_orders(), pools={1: (1, 2), 2: (1, 2)})
    plan = broker(problem, **LIMITS)
    assert spare(problem, plan) is plan


@pytest.mark.parametrize("seed", range(40))
def test_sparing_breaks_no_more_and_the_cost_stays_true(seed: int) -> None:
    problem = random_problem(seed, orders=8, locations=4, protected=seed % 2 == 0)
    plan = broker(problem, **LIMITS)
    sparing = spare(problem, plan)
    lines = {n.line_id: n for n in problem.lines}
    assert len(_broken(problem, sparing, lines)) <= len(_broken(problem, plan, lines))
    assert not audit(problem, sparing)


@pytest.mark.parametrize("seed", range(40))
def test_what_can_be_kept_is_the_maximum_flow(seed: int) -> None:
    problem = random_problem(seed, orders=6, locations=5)
    stock = {s.location_id: s.available for s in problem.stock if s.sku_id == 0}
    demands = {frozenset(places): seed % 5 + pool for pool, places in {**problem.pools, 3: (0, 4), 4: (2,)}.items()}
    flow = keepable([(places & stock.keys(), units) for places, units in demands.items()], stock)[0]
    assert kept(demands, stock) == flow
