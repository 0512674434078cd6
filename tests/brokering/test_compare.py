"""Plans side by side: what they cost by one yardstick, and which orders move and why."""

import msgspec
import pytest

from brokering import Assignment, Limit, Location, Order, Plan, Policy, Problem, Stock, Unfilled, broker, nearest
from brokering.compare import Reason, compare
from brokering.measure import measure
from tests.brokering.small import LIMITS, line, random_problem

HERE, NEAR, FAR = (40.7, -74.0), (41.0, -74.2), (41.88, -87.63)


def by(problem: Problem, policy: Policy) -> Problem:
    """The problem with one policy for all orders."""
    orders = [msgspec.structs.replace(o, policy=0) for o in problem.orders]
    return msgspec.structs.replace(problem, orders=orders, policies=(policy,))


def two_places(*, store: int = 5, warehouse: int = 5, orders: int = 2) -> Problem:
    """Orders of one unit of sku 1 in New York; a store beside them and a warehouse in Chicago."""
    return Problem(
        [Order(f"o{n}", *HERE, promise_days=2) for n in range(orders)],
        [line(n + 1, order=f"o{n}") for n in range(orders)],
        [Location(1, "store", *NEAR), Location(2, "warehouse", *FAR)],
        [Stock(1, 1, store), Stock(1, 2, warehouse)],
        {1: (1, 2)},
    )


def plan_of(*assignments: Assignment, unfilled: list[Unfilled] | None = None) -> Plan:
    return Plan(list(assignments), unfilled or [], 0, 0, [], {}, {}, 0)


@pytest.mark.parametrize("seed", range(12))
def test_the_yardstick_of_the_engines_own_weights_comes_to_the_cost_of_the_plan(seed: int) -> None:
    problem = random_problem(seed, orders=6, locations=4, classes=2)
    plan = broker(problem, **LIMITS)  # type: ignore[arg-type]
    measured = measure(problem, plan)
    assert abs(sum(o.cost for o in measured) - plan.cost) <= 2
    terms: dict[str, int] = {}
    for o in measured:
        for name, cents in o.cents.items():
            terms[name] = terms.get(name, 0) + cents
    assert {n: c for n, c in terms.items() if abs(c - plan.cost_by_term.get(n, 0)) > 2} == {}
    assert sum(len(o.packages) for o in measured) == plan.packages
    for o, d in zip(measured, plan.decisions, strict=True):
        assert abs(o.cost - sum(d.cents.values())) <= 2


def test_the_same_plan_twice_moves_no_order() -> None:
    problem = random_problem(3, orders=8, locations=4)
    found = compare(problem, {"a": broker(problem, **LIMITS), "b": broker(problem, **LIMITS)})  # type: ignore[arg-type]
    assert found.moves["b"].orders == 0 and found.moves["b"].shown == []
    assert found.plans["a"] == found.plans["b"]


def test_a_policy_that_forbids_stores_moves_orders_and_says_why_with_the_cents_before_and_after() -> None:
    problem = two_places()
    only = by(problem, Policy(limits=(Limit(kinds=("warehouse",)),)))
    found = compare(problem, {"now": broker(problem, **LIMITS), "warehouses": broker(only, **LIMITS)},
                    problems={"warehouses": only})  # type: ignore[arg-type]  # fmt: skip
    moves = found.moves["warehouses"]
    assert (moves.orders, moves.why) == (2, {"the policy does not allow it": 2})
    one = moves.shown[0]
    assert (one.was, one.becomes, one.why) == ({1: 1}, {2: 1}, [Reason(1, "the policy does not allow it")])
    assert one.cents_becomes["parcel"] > one.cents_was["parcel"] and one.cents_becomes["lateness"] > 0
    assert one.cents_more == sum(one.cents_becomes.values()) - sum(one.cents_was.values()) > 0
    assert moves.cents_more == found.plans["warehouses"].cost_cents - found.plans["now"].cost_cents
    now, then = found.plans["now"], found.plans["warehouses"]
    assert (now.on_time_share, then.on_time_share) == (1.0, 0.0)
    assert now.miles is not None and then.miles is not None and now.miles < 30 and then.miles > 600
    assert [(x.location_id, x.packages, x.units) for x in then.load] == [(2, 2, 2)]


def test_weights_change_what_is_chosen_and_not_what_it_is_measured_by() -> None:
    problem = two_places()
    double = by(problem, Policy(weights={"parcel": 2.0}))
    found = compare(double, {"one": broker(problem, **LIMITS), "double": broker(double, **LIMITS)})  # type: ignore[arg-type]
    assert found.moves["double"].orders == 0
    assert found.plans["one"].cost_by_term == found.plans["double"].cost_by_term
    assert found.plans["double"].own_cents > found.plans["double"].cost_cents


def test_stores_whose_last_unit_goes_are_counted_and_warehouses_are_not() -> None:
    problem = two_places(store=1, warehouse=1)
    found = compare(problem, {"all": plan_of(Assignment(1, 1, 1), Assignment(2, 2, 1)), "none": plan_of()})
    assert (found.plans["all"].emptied, found.plans["all"].stores_with_emptied) == (1, 1)
    assert found.plans["none"].emptied == 0


def test_what_stays_open_is_counted_and_its_reason_told() -> None:
    problem = two_places()
    less = plan_of(Assignment(1, 1, 1), unfilled=[Unfilled(2, "dear")])
    found = compare(problem, {"base": plan_of(Assignment(1, 1, 1), Assignment(2, 1, 1)), "less": less})
    figures = found.plans["less"]
    assert (figures.unfilled_orders, figures.unfilled_lines, figures.unfilled_units) == (1, 1, 1)
    assert figures.unfilled == {"dear": 1} and figures.on_time_share == 0.5
    (moved,) = found.moves["less"].shown
    assert (moved.order_id, moved.was, moved.becomes) == ("o1", {1: 1}, {})
    assert Reason(None, "left open: dear") in moved.why and moved.cents_becomes.keys() == {"left"}
    back = compare(problem, {"less": less, "base": plan_of(Assignment(1, 1, 1), Assignment(2, 1, 1))})
    assert back.moves["base"].shown[0].why == [Reason(None, "was left open before")]


def test_a_split_order_is_one_of_those_that_go() -> None:
    problem = Problem(
        [Order("o", *HERE), Order("p", *HERE), Order("q", *HERE)], [line(1), line(2, 2), line(3, order="p"), line(4, order="q")],
        [Location(1, "store", *NEAR), Location(2, "warehouse", *FAR)],
        [Stock(1, 1, 5), Stock(2, 2, 5)], {1: (1, 2)},
    )  # fmt: skip
    split = plan_of(Assignment(1, 1, 1), Assignment(2, 2, 1), Assignment(3, 1, 1), unfilled=[Unfilled(4, "taken")])
    assert compare(problem, {"p": split}).plans["p"].split_share == 0.5


def test_stock_that_others_got_is_the_reason_where_an_order_had_to_go_elsewhere() -> None:
    problem = two_places(store=1)
    first = plan_of(Assignment(1, 1, 1), Assignment(2, 2, 1))
    other = plan_of(Assignment(1, 2, 1), Assignment(2, 1, 1))
    shown = {m.order_id: m.why for m in compare(problem, {"first": first, "other": other}).moves["other"].shown}
    assert shown["o0"] == [Reason(1, "its stock went to other orders")]
    assert shown["o1"] == [Reason(2, "dearer")]


def test_only_the_moves_of_most_cents_are_shown_and_all_are_counted() -> None:
    problem = two_places(orders=5)
    base = plan_of(*(Assignment(n, 1, 1) for n in range(1, 6)))
    other = plan_of(*(Assignment(n, 2, 1) for n in range(1, 6)))
    moves = compare(problem, {"base": base, "other": other}, moved_max=2).moves["other"]
    assert (moves.orders, len(moves.shown)) == (5, 2)


def test_any_plan_of_the_problem_is_taken_whatever_made_it() -> None:
    problem = random_problem(5, orders=6, locations=4)
    found = compare(problem, {"engine": broker(problem, **LIMITS), "nearest": nearest(problem)})  # type: ignore[arg-type]
    assert found.base == "engine" and set(found.plans) == {"engine", "nearest"}
    assert found.plans["nearest"].orders == 6


def test_a_plan_of_something_else_is_refused() -> None:
    with pytest.raises(ValueError, match="line 99"):
        compare(two_places(), {"p": plan_of(Assignment(99, 1, 1))})
    with pytest.raises(ValueError, match="no plan"):
        compare(two_places(), {})
