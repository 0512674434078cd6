"""One order at a time: legal, at the same costs as the batch, and wiser with prices than without."""

import msgspec
import pytest

from brokering import Online, Order, Policy, Problem, Shadow, Stock, audit, broker
from brokering.online import planned
from brokering.problem import CellPrice
from tests.brokering.small import LIMITS, line, place, random_problem

NEW_YORK, BOSTON, LOS_ANGELES = (40.7, -74.0), (42.4, -71.1), (34.1, -118.2)
RULES_OF_CLASSES = Policy(overtaking=True)


@pytest.mark.parametrize("seed", range(8))
def test_decisions_in_turn_are_a_legal_plan_and_cost_no_less_than_the_bound(seed: int) -> None:
    problem = msgspec.structs.replace(
        random_problem(seed, orders=30, locations=6, skus=8, lines_max=4, protected=seed % 2 == 0),
        policy=RULES_OF_CLASSES,
    )
    joint = broker(problem, **LIMITS)
    online = Online(problem, [joint.prices])
    plan = planned(problem, [a for o in problem.orders for a in online.decide(o.order_id)])
    assert audit(problem, plan) == []
    assert plan.cost >= joint.bound


def test_a_unit_that_others_need_more_is_not_taken_by_the_first_who_asks() -> None:
    orders = [Order("here", *NEW_YORK), Order("later", *BOSTON)]
    lines = [line(1, 1, order="here"), line(2, 1, order="later")]
    problem = Problem(
        orders, lines, [place(1, *BOSTON), place(2, 39.9, -75.2)], [Stock(1, 1, 1), Stock(1, 2, 1)], {1: (1, 2)}
    )  # fmt: skip
    dear = Shadow([CellPrice(1, 1, 5000.0)])
    assert Online(problem, [dear]).decide("here")[0].location_id == 2
    assert Online(problem, [Shadow()]).decide("here") and Online(problem).decide("here")


def test_what_is_decided_is_gone_for_the_next() -> None:
    orders = [Order("a", *NEW_YORK), Order("b", *NEW_YORK)]
    lines = [line(1, 1, order="a"), line(2, 1, order="b")]
    online = Online(Problem(orders, lines, [place(1, *BOSTON, capacity_orders=5)], [Stock(1, 1, 1)], {1: (1,)}))
    assert [len(online.decide(o)) for o in ("a", "b")] == [1, 0]
    assert [s.available for s in online.stock_left([Stock(1, 1, 1)])] == [0]
    assert [n.capacity_orders for n in online.work_left()] == [4]
