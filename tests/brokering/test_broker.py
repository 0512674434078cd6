"""What a plan may be relied on for: legal, bounded, near the best, the same again."""

import subprocess
import sys

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brokering import Barred, Line, Location, Order, Problem, Protected, Stock, audit, broker, nearest, one_at_a_time
from tests.brokering.small import LIMITS, least_cost, line, one_order, place, random_problem

NEW_YORK, BOSTON, LOS_ANGELES = (40.7, -74.0), (42.4, -71.1), (34.1, -118.2)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.booleans(), st.integers(1, 3))
def test_every_plan_passes_the_audit_and_costs_no_less_than_its_bound(seed: int, protected: bool, classes: int) -> None:
    problem = random_problem(seed, orders=9, locations=5, skus=4, lines_max=4, classes=classes, protected=protected)
    plan = broker(problem, **LIMITS)
    assert audit(problem, plan) == []
    assert plan.bound <= plan.cost


@pytest.mark.parametrize("seed", range(25))
def test_no_plan_of_a_small_problem_costs_less_than_the_bound_and_brokering_comes_near_the_best(seed: int) -> None:
    problem = random_problem(seed, orders=3, locations=2, skus=3, lines_max=3, protected=seed % 2 == 0)
    plan, best = broker(problem, **LIMITS), least_cost(problem)
    assert plan.bound <= best <= plan.cost
    assert plan.cost <= best * 1.10


def test_small_problems_are_mostly_planned_at_their_least_cost() -> None:
    problems = [random_problem(seed, orders=3, locations=2, skus=3, lines_max=2) for seed in range(100, 120)]
    exact = sum(broker(p, **LIMITS).cost == least_cost(p) for p in problems)
    assert exact >= 18


def test_brokering_together_costs_no_more_than_the_usual_rules() -> None:
    for seed in range(4):
        problem = random_problem(seed, orders=60, locations=8, skus=12)
        cost = broker(problem, **LIMITS).cost
        others = [nearest(problem), one_at_a_time(problem)]
        assert [audit(problem, p) for p in others] == [[], []]
        assert cost <= min(p.cost for p in others)


def test_the_same_seed_gives_the_same_plan() -> None:
    problem = random_problem(5, orders=80, locations=8, skus=15, classes=2)
    first, again = broker(problem, seed=3, **LIMITS), broker(problem, seed=3, **LIMITS)
    assert (first.assignments, first.cost, first.bound) == (again.assignments, again.cost, again.bound)


def test_more_pieces_never_make_a_plan_dearer() -> None:
    problem = random_problem(8, orders=150, locations=8, skus=20)
    costs = [broker(problem, steps_max=40, pieces_max=n).cost for n in (0, 1, 4)]
    assert costs == sorted(costs, reverse=True)


def test_without_time_there_is_still_a_legal_plan() -> None:
    problem = random_problem(9, orders=100, locations=8, skus=20, classes=3, protected=True)
    assert audit(problem, broker(problem, seconds=0)) == []


def test_an_empty_run_has_an_empty_plan() -> None:
    plan = broker(Problem([], [], [place(1, *BOSTON)], [], {1: (1,)}))
    assert (plan.assignments, plan.unfilled, plan.cost) == ([], [], 0)
    nowhere = broker(Problem([Order("o", *NEW_YORK)], [line(1)], [], [], {}), **LIMITS)
    assert [u.reason for u in nowhere.unfilled] == ["no_location"]


def test_the_nearer_of_two_equal_locations_sends_it() -> None:
    problem = one_order(
        locations=[place(1, *LOS_ANGELES), place(2, *BOSTON)], stock=[Stock(1, 1, 5), Stock(1, 2, 5)]
    )  # fmt: skip
    assert broker(problem, **LIMITS).assignments[0].location_id == 2


def test_an_unknown_place_is_never_taken_for_near() -> None:
    stock = [Stock(1, 1, 5), Stock(1, 2, 5)]
    problem = one_order(locations=[place(1, None, None), place(2, *BOSTON)], stock=stock)
    plan = broker(problem, **LIMITS)
    assert plan.assignments[0].location_id == 2
    assert [c.distance_known for c in plan.decisions[0].candidates] == [True, False]
    far = one_order(locations=[place(1, None, None), place(2, *LOS_ANGELES)], stock=stock)
    assert broker(far, **LIMITS).cost_by_term["parcel"] == far.policy.tariff.parcel_cents[-1]


def test_a_policy_may_leave_unknown_places_out() -> None:
    problem = one_order(locations=[place(1, None, None)], stock=[Stock(1, 1, 5)])
    assert broker(problem, **LIMITS).unfilled == []
    strict = msgspec.structs.replace(
        problem, policy=msgspec.structs.replace(problem.policy, unknown_distance="exclude")
    )  # fmt: skip
    assert [u.reason for u in broker(strict, **LIMITS).unfilled] == ["no_location"]


def test_a_location_that_rejected_a_sku_is_not_asked_for_it_again() -> None:
    problem = one_order(locations=[place(1, *BOSTON), place(2, *LOS_ANGELES)], stock=[Stock(1, 1, 5), Stock(1, 2, 5)])
    assert broker(problem, **LIMITS).assignments[0].location_id == 1
    again = msgspec.structs.replace(problem, barred=[Barred("o", 1, 1)])
    assert broker(again, **LIMITS).assignments[0].location_id == 2
    nobody = msgspec.structs.replace(problem, barred=[Barred("o", 1, 1), Barred("o", 1, 2)])
    assert [u.reason for u in broker(nobody, **LIMITS).unfilled] == ["barred"]


def test_a_pick_up_stays_at_its_location_and_nobody_carries_it() -> None:
    order = Order("o", *NEW_YORK, location_id=1)
    problem = one_order(
        order=order, locations=[place(1, *LOS_ANGELES), place(2, *BOSTON)], stock=[Stock(1, 1, 5), Stock(1, 2, 5)]
    )
    plan = broker(problem, **LIMITS)
    assert plan.assignments[0].location_id == 1
    assert "parcel" not in plan.cost_by_term and "weight" not in plan.cost_by_term


def test_demand_outside_the_run_keeps_the_units_that_only_it_can_use() -> None:
    problem = one_order(locations=[place(1, *BOSTON), place(2, *LOS_ANGELES)], stock=[Stock(1, 1, 1), Stock(1, 2, 1)])
    promised = msgspec.structs.replace(problem, pools={1: (1, 2), 2: (1,)}, protected=[Protected(1, 2, 1)])
    plan = broker(promised, **LIMITS)
    assert plan.assignments[0].location_id == 2
    assert audit(promised, plan) == []
    both = msgspec.structs.replace(promised, protected=[Protected(1, 2, 1), Protected(1, 1, 1)])
    assert [u.reason for u in broker(both, **LIMITS).unfilled] == ["protected"]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_no_promise_that_could_be_kept_is_broken(seed: int) -> None:
    problem = random_problem(seed, orders=8, locations=4, skus=2, protected=True)
    for plan in (broker(problem, **LIMITS), nearest(problem), one_at_a_time(problem)):
        assert audit(problem, plan) == []


def test_the_last_unit_goes_to_the_higher_class_though_the_lower_one_is_dearer_to_leave() -> None:
    orders = [Order("low", *NEW_YORK, 0), Order("high", *NEW_YORK, 2)]
    lines = [Line(1, 1, "low", 1, 1, 1, 90_000, 500), Line(2, 1, "high", 1, 1, 1, 1000, 500)]
    problem = Problem(orders, lines, [place(1, *BOSTON)], [Stock(1, 1, 1)], {1: (1,)})
    for plan in (broker(problem, **LIMITS), nearest(problem), one_at_a_time(problem)):
        assert [a.line_id for a in plan.assignments] == [2]
        assert [u.reason for u in plan.unfilled] == ["taken"]


def test_the_last_work_of_a_location_goes_to_the_higher_class() -> None:
    orders = [Order(f"o{n}", *NEW_YORK, n % 2) for n in range(6)]
    lines = [Line(n + 1, 1, f"o{n}", n, 1, 1, 5000 if n % 2 else 60_000, 500) for n in range(6)]
    problem = Problem(
        orders, lines, [place(1, *BOSTON, capacity_orders=3)], [Stock(n, 1, 5) for n in range(6)], {1: (1,)}
    )  # fmt: skip
    plan = broker(problem, **LIMITS)
    assert sorted(a.line_id for a in plan.assignments) == [2, 4, 6]
    assert {u.reason for u in plan.unfilled} == {"capacity"}


@pytest.mark.parametrize(
    ("split", "split_max", "together", "packages", "left"),
    [("free", None, None, 3, 0), ("single", None, None, 1, 2), ("complete", None, None, 3, 0),
     ("max_packages", 2, None, 2, 1), ("keep_together", None, "all", 0, 3)],
)  # fmt: skip
def test_each_split_rule_is_kept_where_every_line_stands_elsewhere(
    split: str, split_max: int | None, together: str | None, packages: int, left: int
) -> None:
    order = Order("o", *NEW_YORK, 0, split, split_max)  # type: ignore[arg-type]
    problem = one_order(
        order=order, lines=[line(k, k, together=together) for k in (1, 2, 3)],
        locations=[place(n, *BOSTON) for n in (1, 2, 3)], stock=[Stock(n, n, 1) for n in (1, 2, 3)],
    )  # fmt: skip
    plan = broker(problem, **LIMITS)
    assert (plan.packages, len(plan.unfilled)) == (packages, left)
    assert audit(problem, plan) == []


def test_what_must_go_complete_stays_when_one_line_is_nowhere() -> None:
    order = Order("o", *NEW_YORK, 0, "complete")
    problem = one_order(
        order=order, lines=[line(1, 1), line(2, 2)], locations=[place(1, *BOSTON)], stock=[Stock(1, 1, 9)]
    )
    assert sorted((u.line_id, u.reason) for u in broker(problem, **LIMITS).unfilled) == [(1, "split"), (2, "no_stock")]


@pytest.mark.parametrize("split", ["free", "single", "complete", "max_packages"])
def test_an_order_of_300_lines_is_planned(split: str) -> None:
    order = Order("o", *NEW_YORK, 0, split, 3 if split == "max_packages" else None)  # type: ignore[arg-type]
    places = [place(n, *(BOSTON if n % 2 else LOS_ANGELES)) for n in range(6)]
    stock = [Stock(k, n, 5) for k in range(300) for n in range(6) if (k + n) % 3 or n == 5]
    lines = [line(k + 1, k) for k in range(300)]
    problem = one_order(order=order, lines=lines, locations=places, stock=stock)
    plan = broker(problem, **LIMITS)
    assert audit(problem, plan) == []
    assert not plan.unfilled


def test_two_lines_of_one_order_that_want_the_same_units_do_not_both_get_them() -> None:
    problem = one_order(
        lines=[line(1, 1, 2), line(2, 1, 2)], locations=[place(1, *BOSTON), place(2, *LOS_ANGELES)],
        stock=[Stock(1, 1, 3), Stock(1, 2, 1)],
    )  # fmt: skip
    plan = broker(problem, **LIMITS)
    assert len(plan.assignments) == 1 and audit(problem, plan) == []


def test_a_decision_tells_what_was_considered_and_why_it_was_not_taken() -> None:
    orders = [Order("a", *NEW_YORK), Order("b", *NEW_YORK)]
    lines = [line(1, 1, order="a"), line(2, 1, order="b")]
    places = [place(1, *BOSTON), place(2, *LOS_ANGELES), place(3, *BOSTON), place(4, *BOSTON), place(5, *BOSTON)]
    problem = Problem(
        orders, lines, places, [Stock(1, 1, 1), Stock(1, 2, 5), Stock(1, 5, 3)], {1: (1, 2, 3, 5)},
        barred=[Barred("a", 1, 5), Barred("b", 1, 5)],
    )  # fmt: skip
    plan = broker(problem, **LIMITS)
    decisions = {d.order_id: d for d in plan.decisions}
    assert sum(sum(d.cents.values()) for d in plan.decisions) == plan.cost
    far = next(d for d in decisions.values() if d.candidates[0].location_id == 2)
    assert [(c.location_id, c.fell_out) for c in far.candidates] == [(2, None), (1, "its stock went to other orders")]
    assert far.fell_out == {"not in pool": 1, "rejected before or not its place": 1, "no stock": 1}
    assert far.candidates[1].cents["parcel"] < far.candidates[0].cents["parcel"]


def test_progress_is_told_to_its_end() -> None:
    told: list[tuple[str, int, int]] = []
    broker(random_problem(1, orders=30, locations=6, skus=8), **LIMITS, progress=lambda *a: told.append(a))
    phases = [(at, of) for phase, at, of in told if phase != "pieces"]
    assert phases == [(n, 6) for n in range(1, 7)]


@pytest.mark.parametrize(
    ("change", "message"),
    [({"orders": []}, "which is not among"), ({"locations": [place(1, *BOSTON)] * 2}, "location stands twice"),
     ({"lines": [line(1), line(1)]}, "line stands twice"), ({"lines": [line(1, quantity=0)]}, "quantity 0")],
)  # fmt: skip
def test_a_problem_that_contradicts_itself_is_refused_by_name(change: dict[str, list[object]], message: str) -> None:
    problem = one_order(locations=[place(1, *BOSTON)], stock=[Stock(1, 1, 1)])
    with pytest.raises(ValueError, match=message):
        broker(msgspec.structs.replace(problem, **change))


def test_importing_the_engine_loads_no_solver() -> None:
    code = "import sys, brokering; print('ortools' in sys.modules, 'oms' in sys.modules, 'connectors' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["False"] * 3


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    broker(random_problem(2, orders=120, locations=8, skus=10), **LIMITS)
    assert capfd.readouterr() == ("", "")


def test_work_in_items_and_money_limits_a_location() -> None:
    orders = [Order(f"o{n}", *NEW_YORK) for n in range(6)]
    lines = [line(n + 1, n, 1, f"o{n}") for n in range(6)]
    for limit in ({"capacity_items": 2}, {"capacity_cents": 8000}, {"capacity_orders": 2}):
        places = [Location(1, "warehouse", *BOSTON, **limit)]  # type: ignore[arg-type]
        problem = Problem(orders, lines, places, [Stock(n, 1, 9) for n in range(6)], {1: (1,)})
        plan = broker(problem, **LIMITS)
        assert len(plan.assignments) == 2 and audit(problem, plan) == []
