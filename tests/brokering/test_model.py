"""Everything that a problem may say beside stock and distance: days, slots, policies, limits, parts of lines."""

import msgspec
import pytest

from brokering import Labor, Limit, Line, Location, Order, Plan, Policy, Problem, Slot, Stock, audit, broker, nearest
from brokering import one_at_a_time as exact_in_turn
from tests.brokering.small import LIMITS, line, one_order, place

NEW_YORK, BOSTON, LOS_ANGELES = (40.7, -74.0), (42.4, -71.1), (34.1, -118.2)


def planned(problem: Problem) -> Plan:
    """The plan, legal like those of the usual rules."""
    plan = broker(problem, **LIMITS)
    assert [audit(problem, p) for p in (plan, nearest(problem), exact_in_turn(problem))] == [[], [], []]
    assert plan.bound <= plan.cost
    return plan


def test_packages_fill_the_slots_of_a_location_and_later_ones_cost_lateness() -> None:
    orders = [Order(f"o{n}", *NEW_YORK, promise_days=1) for n in range(5)]
    lines = [line(n + 1, n, 1, f"o{n}") for n in range(5)]
    at = Location(1, "warehouse", *BOSTON, slots=(Slot(0, 2), Slot(1, 2), Slot(3, 0)))
    plan = planned(Problem(orders, lines, [at], [Stock(n, 1, 9) for n in range(5)], {1: (1,)}))
    assert sorted(a.slot or 0 for a in plan.assignments) == [0, 0, 1, 1]
    assert [u.reason for u in plan.unfilled] == ["capacity"]
    assert plan.cost_by_term["lateness"] == 400 * (1 + 1 + 2 + 2)


def test_a_location_whose_cut_off_is_over_is_late_and_another_service_is_not() -> None:
    stock = [Stock(1, 1, 5), Stock(1, 2, 5)]
    late = Location(1, "warehouse", *BOSTON, leave_days=(4, 0))
    other = Location(2, "warehouse", 39.9, -75.2)
    order = Order("o", *NEW_YORK, promise_days=2)
    assert planned(one_order(order=order, locations=[late, other], stock=stock)).assignments[0].location_id == 2
    express = msgspec.structs.replace(order, service=1)
    alone = planned(one_order(order=express, locations=[late], stock=stock[:1]))
    assert "lateness" not in alone.cost_by_term


def test_incoming_stock_is_taken_from_its_day_and_waiting_has_its_price() -> None:
    policy = Policy(wait_cents=30)
    problem = one_order(locations=[place(1, *BOSTON)], stock=[Stock(1, 1, 2, day=3)], policy=policy)
    plan = planned(problem)
    assert [(a.location_id, a.day) for a in plan.assignments] == [(1, 3)]
    assert plan.cost_by_term["waiting"] == 90
    now = msgspec.structs.replace(problem, stock=[*problem.stock, Stock(1, 1, 1)])
    assert [a.day for a in planned(now).assignments] == [0]


def test_the_units_of_a_line_go_from_several_locations_where_its_policy_splits_them() -> None:
    stock = [Stock(1, 1, 2), Stock(1, 2, 1)]
    places = [place(1, *BOSTON), place(2, *LOS_ANGELES)]
    whole = one_order(lines=[line(1, 1, 4)], locations=places, stock=stock)
    assert planned(whole).assignments == []
    split = msgspec.structs.replace(whole, policy=Policy(units_split=True))
    plan = planned(split)
    assert sorted((a.location_id, a.quantity) for a in plan.assignments) == [(1, 1), (1, 1), (2, 1)]
    assert [(u.line_id, u.reason) for u in plan.unfilled] == [(1, "no_stock")] or len(plan.unfilled) == 1


def test_a_line_that_goes_alone_has_a_package_of_its_own() -> None:
    lines = [line(1, 1), msgspec.structs.replace(line(2, 2), alone=True)]
    problem = one_order(lines=lines, locations=[place(1, *BOSTON)], stock=[Stock(1, 1, 1), Stock(2, 1, 1)])
    plan = planned(problem)
    assert plan.packages == 2 and len(plan.assignments) == 2
    assert [d.order_id for d in plan.decisions] == ["o"]
    assert sum(plan.decisions[0].cents.values()) == plan.cost


def test_each_order_is_planned_by_its_own_policy() -> None:
    orders = [Order("a", *NEW_YORK, policy=0), Order("b", *NEW_YORK, policy=1)]
    lines = [line(1, 1, order="a"), line(2, 1, order="b")]
    places = [Location(1, "store", *BOSTON), Location(2, "warehouse", *LOS_ANGELES, groups=("west",))]
    policies = (Policy(), Policy(limits=(Limit(kinds=("warehouse",)),)))
    problem = Problem(orders, lines, places, [Stock(1, 1, 9), Stock(1, 2, 9)], {1: (1, 2)}, policies=policies)
    assert {a.line_id: a.location_id for a in planned(problem).assignments} == {1: 1, 2: 2}


@pytest.mark.parametrize(
    "limit", [Limit(groups=("west",)), Limit(miles_max=100), Limit(late_days_max=0), Limit(kinds=("store",))]
)
def test_a_hard_limit_is_never_broken_and_a_soft_one_costs_what_it_says(limit: Limit) -> None:
    order = Order("o", *NEW_YORK, promise_days=0)
    given = one_order(order=order, locations=[place(1, *BOSTON)], stock=[Stock(1, 1, 1)])
    hard = msgspec.structs.replace(given, policy=Policy(limits=(limit,)))
    assert planned(hard).assignments == []
    soft = msgspec.structs.replace(given, policy=Policy(limits=(msgspec.structs.replace(limit, cents=70),)))
    assert planned(soft).cost_by_term["limit"] == 70


def test_every_term_has_its_weight_and_is_named() -> None:
    stock = [Stock(1, 1, 1, 10, transfer_cents=50, reject_share=0.5)]
    at = [Location(1, "store", *BOSTON, load_cents=40)]
    order = Order("o", *NEW_YORK, promise_days=0)
    dear = Policy(leave_cents_min=9000)
    plain = planned(one_order(order=order, locations=at, stock=stock, policy=dear)).cost_by_term
    assert (plain["load"], plain["transfer"], plain["rejection"], plain["markdown"]) == (40, 50, 250, -10)
    for term in plain:
        policy = msgspec.structs.replace(dear, weights={term: 0.5})
        weighted = planned(one_order(order=order, locations=at, stock=stock, policy=policy))
        assert weighted.cost_by_term[term] == pytest.approx(plain[term] / 2, abs=1)
        assert {n: c for n, c in weighted.cost_by_term.items() if n != term} == {
            n: c for n, c in plain.items() if n != term
        }
    with pytest.raises(ValueError, match="no term of cost"):
        broker(one_order(locations=at, stock=stock, policy=Policy(weights={"beauty": 2})))


def test_a_location_works_no_more_minutes_than_it_has() -> None:
    orders = [Order(f"o{n}", *NEW_YORK) for n in range(8)]
    lines = [line(n + 1, n, 1 + n % 2, f"o{n}") for n in range(8)]
    places = [place(1, *BOSTON), place(2, *LOS_ANGELES)]
    stock = [Stock(n, at, 9) for n in range(8) for at in (1, 2)]
    labor = (Labor(1, 30, 5, 1, 1.5),)
    problem = Problem(orders, lines, places, stock, {1: (1, 2)}, policy=Policy(overtaking=True), labor=labor)
    plan = broker(problem, **LIMITS)
    assert audit(problem, plan) == []
    assert sum(a.location_id == 1 for a in plan.assignments) == 4 and not plan.unfilled
    with pytest.raises(ValueError, match="classes"):
        broker(msgspec.structs.replace(problem, policy=Policy()))


def test_classes_may_be_overtaken_where_the_policy_says_so() -> None:
    orders = [Order("low", *NEW_YORK, 0), Order("high", *NEW_YORK, 2)]
    lines = [Line(1, 1, "low", 1, 1, 1, 90_000, 500), Line(2, 1, "high", 1, 1, 1, 1000, 500)]
    problem = Problem(
        orders, lines, [place(1, *BOSTON)], [Stock(1, 1, 1)], {1: (1,)}, policy=Policy(overtaking=True)
    )  # fmt: skip
    assert [a.line_id for a in planned(problem).assignments] == [1]
