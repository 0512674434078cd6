"""Order routings are followed rule by rule, as worked out by hand; whatever they say, the plan is legal."""

from typing import Any

import msgspec
import numpy as np
import pytest

from brokering import Barred, Limit, Line, Location, Order, Policy, Problem, Protected, Slot, Stock, audit
from brokering.problem import Labor
from brokering.route import route, without_classes
from brokering.routings import Asked, Filter, Routing, Routings, Rule
from brokering.trail import Routed, Trail, sentences, why_not
from tests.brokering.small import line, random_problem

NEW_YORK, NEWARK, BOSTON, CHICAGO = (40.71, -74.0), (40.73, -74.17), (42.36, -71.06), (41.88, -87.63)
N, B, C = 1, 2, 3
"""A store in Newark (9 miles from New York) and one in Boston (190), and a warehouse in Chicago (710)."""
NEAR = Rule("near", miles_max=150, sorts=("distance",))
ANYWHERE = Rule("anywhere", is_single=False, sorts=("distance",))


def places(**more: Any) -> list[Location]:
    """The three, each changed by what is given under its name."""
    made = [
        Location(N, "store", *NEWARK, groups=("stores",)), Location(B, "store", *BOSTON, groups=("stores", "outlets")),
        Location(C, "warehouse", *CHICAGO, groups=("warehouses",)),
    ]  # fmt: skip
    return [msgspec.structs.replace(n, **more.get("NBC"[n.location_id - 1], {})) for n in made]


def problem(
    stock: dict[tuple[int, int], int], *, lines: list[Line] | None = None, orders: list[Order] | None = None, **more: Any
) -> Problem:  # fmt: skip
    """One order in New York of a unit of sku 1, unless told otherwise; stock by (sku, location)."""
    return Problem(
        orders or [Order("o", *NEW_YORK, promise_days=4)], lines or [line(1)], more.pop("locations", places()),
        [Stock(sku, at, units) for (sku, at), units in stock.items()], {1: (N, B, C)}, **more,
    )  # fmt: skip


def followed(given: Problem, *rules: Rule, asked: list[Asked] | None = None, **routing: Any) -> Routed:
    """One routing of these rules, followed; its plan is legal."""
    return checked(given, Routings((Routing("all", rules, **routing),), routing.pop("sequence", ())), asked or [])


def checked(given: Problem, routings: Routings, asked: list[Asked]) -> Routed:
    found = route(given, routings, asked)
    assert audit(without_classes(given), found.plan) == []
    return found


def went(found: Routed) -> dict[int, dict[int, int]]:
    """Line → location → units."""
    at: dict[int, dict[int, int]] = {}
    for a in found.plan.assignments:
        at.setdefault(a.line_id, {})[a.location_id] = at.get(a.line_id, {}).get(a.location_id, 0) + a.quantity
    return at


def why(trail: Trail, rule: int) -> dict[str, list[int]]:
    """What a rule refused: why → locations."""
    return {r.why: r.locations for r in trail.tried[rule].refused}


def test_the_nearest_location_that_has_the_whole_order_takes_it() -> None:
    found = followed(problem({(1, N): 1, (1, B): 9, (1, C): 9}), NEAR)
    assert went(found) == {1: {N: 1}}
    assert found.trails[0].ended == "allocated by near" and found.trails[0].left_units == 0


def test_a_single_rule_takes_nothing_where_no_place_has_all_of_it_and_the_next_rule_splits_it() -> None:
    given = problem({(1, N): 1, (2, B): 1}, lines=[line(1), line(2, sku=2)])
    found = followed(given, Rule("whole", sorts=("distance",)), ANYWHERE)
    assert found.trails[0].tried[0].took == {}
    assert why(found.trails[0], 0) == {"not enough stock": [N, B, C]}
    assert went(found) == {1: {N: 1}, 2: {B: 1}}


def test_a_location_beyond_the_distance_is_refused_and_a_wider_rule_takes_it() -> None:
    found = followed(problem({(1, B): 5}), NEAR, ANYWHERE)
    assert why(found.trails[0], 0) == {"not enough stock": [N, C], "beyond the distance": [B]}
    assert went(found) == {1: {B: 1}} and found.trails[0].tried[1].took == {B: 1}


def test_a_location_without_coordinates_is_never_near() -> None:
    given = problem({(1, N): 5, (1, B): 5}, locations=places(N={"lat": None, "lon": None}))
    found = followed(given, Rule("within 500", miles_max=500, sorts=("distance",)))
    assert why(found.trails[0], 0)["its distance is not known"] == [N]
    assert went(found) == {1: {B: 1}}
    assert went(followed(given, ANYWHERE)) == {1: {B: 1}}


def test_safety_stock_is_asked_before_anything_is_taken() -> None:
    keeps = Rule("keeps two", stock_min=2, sorts=("distance",))
    found = followed(problem({(1, N): 1, (1, B): 2}), keeps)
    assert why(found.trails[0], 0)["below the safety stock of the rule"] == [N]
    assert went(found) == {1: {B: 1}}


def test_safety_stock_is_asked_line_by_line_where_a_rule_may_split() -> None:
    given = problem({(1, N): 5, (2, N): 1, (2, C): 5}, lines=[line(1), line(2, sku=2)])
    found = followed(given, Rule("keeps two", is_single=False, stock_min=2, sorts=("distance",)))
    assert went(found) == {1: {N: 1}, 2: {C: 1}}


def test_groups_say_from_where_a_rule_takes_and_what_it_leaves_out() -> None:
    stock = {(1, N): 5, (1, B): 5, (1, C): 5}
    assert went(followed(problem(stock), Rule("warehouses", groups=("warehouses",)))) == {1: {C: 1}}
    no_outlets = Rule("no outlets", groups=("stores",), groups_not=("outlets",), sorts=("stock",))
    found = followed(problem(stock), no_outlets)
    assert went(found) == {1: {N: 1}} and why(found.trails[0], 0) == {"not of its groups": [B, C]}


def test_a_full_location_is_refused_and_the_next_in_the_sort_takes_it() -> None:
    orders = [Order("o", *NEW_YORK), Order("p", *NEW_YORK)]
    given = problem(
        {(1, N): 5, (1, B): 5}, orders=orders, lines=[line(1), line(2, order="p")],
        locations=places(N={"capacity_orders": 1}),
    )  # fmt: skip
    found = followed(given, Rule("whole", sorts=("distance",)))
    assert went(found) == {1: {N: 1}, 2: {B: 1}}
    assert why(found.trails[1], 0)["its capacity is full"] == [N]


def test_the_sort_of_a_rule_decides_between_nearest_most_stock_and_own_sequence() -> None:
    given = problem({(1, N): 1, (1, B): 9, (1, C): 5})
    for sort, at in (("distance", N), ("stock", B), ("sequence", C)):
        routings = Routings((Routing("all", (Rule("one", sorts=(sort,)),)),), (C, B, N))  # type: ignore[arg-type]
        assert went(checked(given, routings, [])) == {1: {at: 1}}


def test_orders_are_taken_in_the_sort_of_their_routing_and_the_last_unit_goes_to_the_first() -> None:
    orders = [Order("o", *NEW_YORK, promise_days=5), Order("p", *NEW_YORK, priority=1, promise_days=9)]
    given = problem({(1, N): 1}, orders=orders, lines=[line(1), line(2, order="p")])
    asked = [Asked("o", placed=100.0), Asked("p", placed=200.0)]
    assert went(followed(given, NEAR, asked=asked, sorts=("priority",))) == {2: {N: 1}}
    assert went(followed(given, NEAR, asked=asked, sorts=("placed", "priority"))) == {1: {N: 1}}
    found = followed(given, NEAR, asked=asked, sorts=("ship_before",))
    assert went(found) == {1: {N: 1}}
    assert [u.reason for u in found.plan.unfilled] == ["taken"]


def test_an_order_is_taken_by_the_first_routing_whose_filters_it_matches() -> None:
    orders = [Order("o", *NEW_YORK, promise_days=1), Order("p", *NEW_YORK, promise_days=6), Order("q", *NEW_YORK)]
    given = problem({(1, N): 9}, orders=orders, lines=[line(1), line(2, order="p"), line(3, order="q")])
    fast = Routing("fast", (NEAR,), (Filter("promise_days", "less_equals", ("2",)),))
    web = Routing("web", (NEAR,), (Filter("channel", "in", ("web",)), Filter("method", "not_in", ("letter",))))
    found = checked(given, Routings((fast, web)), [Asked(o, "web", "express") for o in "op"])
    assert [[t.routing for t in trail.tried] for trail in found.trails] == [["fast"], ["web"], []]
    assert found.trails[2].ended == "no routing took it"
    assert [u.reason for u in found.plan.unfilled] == ["no_routing"]


def test_what_is_left_moves_to_the_queue_that_a_later_routing_takes_from() -> None:
    given = problem({(1, C): 1})
    first = Routing("first", (msgspec.structs.replace(NEAR, queue="PARKED", cancel_after_days=7),),
                    (Filter("queue", "in", ("_NA_",)),))  # fmt: skip
    parked = Routing("parked", (ANYWHERE,), (Filter("queue", "in", ("PARKED",)),))
    alone = checked(given, Routings((first,)), []).trails[0]
    assert (alone.queue, alone.ended, alone.cancel_after_days) == ("PARKED", "moved to PARKED by near", 7)
    found = checked(given, Routings((first, parked)), [])
    assert went(found) == {1: {C: 1}} and found.trails[0].ended == "allocated by anywhere"


def test_an_order_that_was_rejected_waits_in_its_queue_and_is_not_asked_of_the_same_place_again() -> None:
    given = problem({(1, N): 5, (1, B): 5}, barred=[Barred("o", 1, N)])
    again = Routing("again", (ANYWHERE,), (Filter("queue", "in", ("REJECTED_ITM_PARKING",)),))
    found = checked(given, Routings((again,)), [])
    assert went(found) == {1: {B: 1}} and why(found.trails[0], 0)["it may not serve it"] == [N]


def test_a_line_is_split_by_unit_only_where_its_policy_lets_it() -> None:
    stock, lines = {(1, N): 1, (1, B): 2}, [line(1, quantity=3)]
    assert went(followed(problem(stock, lines=lines), ANYWHERE)) == {}
    assert went(followed(problem(stock, lines=lines, policy=Policy(units_split=True)), ANYWHERE)) == {1: {N: 1, B: 2}}


def test_a_part_that_is_worth_too_little_does_not_go_by_itself() -> None:
    given = problem({(1, N): 1, (2, B): 1}, lines=[line(1), line(2, sku=2)])
    rule = msgspec.structs.replace(ANYWHERE, value_cents_min=5_000)
    found = followed(given, rule)
    assert went(found) == {} and why(found.trails[0], 0)["its part is worth too little"] == [N, B]


def test_all_or_nothing_gives_back_what_a_rule_took_of_an_order_that_stays_incomplete() -> None:
    given = problem({(1, N): 1}, lines=[line(1), line(2, sku=2)])
    found = followed(given, msgspec.structs.replace(ANYWHERE, is_all_or_none=True), ANYWHERE)
    assert found.trails[0].tried[0].taken_back == "not all of it could be allocated"
    assert went(found) == {1: {N: 1}}
    complete = problem({(1, N): 1}, orders=[Order("o", *NEW_YORK, split="complete")], lines=[line(1), line(2, sku=2)])
    found = followed(complete, ANYWHERE)
    assert went(found) == {} and found.trails[0].tried[0].taken_back == "the order goes complete or not at all"


def test_what_an_order_gives_back_is_there_for_the_next_one() -> None:
    orders = [Order("o", *NEW_YORK, split="complete"), Order("p", *NEW_YORK)]
    given = problem(
        {(1, N): 1}, orders=orders, lines=[line(1), line(2, sku=2), line(3, order="p")],
        locations=places(N={"capacity_orders": 1, "capacity_items": 1}),
    )  # fmt: skip
    assert went(followed(given, ANYWHERE)) == {3: {N: 1}}


def test_a_hard_limit_of_the_policy_holds_whatever_the_rules_say() -> None:
    given = problem({(1, N): 5, (1, C): 5}, policy=Policy(limits=(Limit(kinds=("warehouse",)),)))
    found = followed(given, ANYWHERE)
    assert went(found) == {1: {C: 1}} and why(found.trails[0], 0)["a limit of the policy"] == [N]


def test_units_that_are_promised_outside_the_run_are_not_taken() -> None:
    found = followed(problem({(1, N): 1}, protected=[Protected(1, 1, 1)]), NEAR)
    assert went(found) == {} and found.plan.unfilled[0].reason == "taken"


def test_rules_that_do_nothing_and_are_never_reached_are_told() -> None:
    given = problem({(1, N): 5})
    far = Rule("far", groups=("warehouses",))
    rest = Routing("rest", (NEAR,))
    none = Routing("none", (NEAR,), (Filter("channel", "in", ("shop",)),))
    hints = checked(given, Routings((none, Routing("all", (far, NEAR, ANYWHERE)), rest)), []).hints
    assert "none matches no order" in hints
    assert "all › far allocates nothing: tried on 1 orders" in hints
    assert "all › anywhere is never reached: the rules before it take everything" in hints
    assert "rest is never reached: all take all of its orders" in hints


@pytest.mark.parametrize(
    "filters",
    [
        [Filter("channel", "in", ("web",)), Filter("channel", "in", ("shop",))],
        [Filter("queue", "in", ("_NA_",)), Filter("queue", "not_in", ("_NA_", "x"))],
        [Filter("promise_days", "less", ("2",)), Filter("promise_days", "greater_equals", ("2",))],
        [Filter("priority", "in", ("1",)), Filter("priority", "greater", ("1",))],
        [Filter("method", "is_null"), Filter("method", "in", ("express",))],
    ],
)
def test_filters_that_contradict_each_other_are_told_and_match_nothing(filters: list[Filter]) -> None:
    found = followed(problem({(1, N): 5}), NEAR, filters=tuple(filters))
    assert went(found) == {}
    assert any("contradict each other" in hint for hint in found.hints)


def test_filters_that_can_hold_together_are_not_told() -> None:
    filters = (Filter("priority", "in", ("1", "2")), Filter("priority", "greater", ("1",)),
               Filter("promise_days", "greater", ("1",)), Filter("promise_days", "less", ("3",)),
               Filter("channel", "is_null"), Filter("channel", "not_in", ("x",)))  # fmt: skip
    assert not [h for h in followed(problem({}), NEAR, filters=filters).hints if "contradict" in h]


def test_rules_that_cannot_work_in_this_network_are_told() -> None:
    odd = (
        Rule("gone", groups=("closed",)), Rule("both", groups=("stores",), groups_not=("stores",)),
        Rule("last", queue="Q", sorts=("sequence",)), Rule("after"),
    )  # fmt: skip
    found = followed(problem({}), *odd, filters=(Filter("category", "in", ("toys",)),), sorts=("ship_after",))
    told = "\n".join(found.hints)
    for sentence in (
        "no location is of group closed", "both contradicts itself", "the rules after it are never reached",
        "sequence, and none is given", "not known, it sorts nothing".replace("known, it", "known: it"), "category of a product",
    ):  # fmt: skip
        assert sentence in told, sentence


def test_why_an_order_did_not_go_from_a_location_is_told_by_the_last_rule_that_was_tried() -> None:
    orders = [Order("o", *NEW_YORK), Order("p", *NEW_YORK)]
    given = problem(
        {(1, N): 5, (1, B): 5, (1, C): 5}, orders=orders, lines=[line(1), line(2, order="p")],
        locations=places(N={"capacity_orders": 0}),
    )  # fmt: skip
    rule = Rule("stores", groups=("stores",), miles_max=150)
    routings = Routings((Routing("web", (rule,), (Filter("channel", "in", ("web",)),)),))
    tell = why_not(given, routings, checked(given, routings, [Asked("o", "web"), Asked("p", "shop")]).trails)
    assert [tell("o", at) for at in (N, B, C)] == ["its capacity is full", "beyond the distance", "not of its groups"]
    assert tell("p", N) == "no routing took its order"


def test_a_trail_reads_as_a_sentence_for_each_rule() -> None:
    trail = followed(problem({(1, C): 1}), msgspec.structs.replace(NEAR, queue="PARKED", cancel_after_days=3)).trails[0]
    assert sentences(trail, {N: "Newark", B: "Boston", C: "Chicago"}) == [
        "all › near: took nothing; not enough stock: Newark, Boston; beyond the distance: Chicago.",
        "Moved to PARKED by near: 1 units wait in PARKED, cancelled after 3 days.",
    ]


def random_routings(seed: int) -> Routings:
    """Rules of every kind."""
    r = np.random.default_rng(seed)

    def rule(n: int) -> Rule:
        return Rule(
            f"rule {n}", bool(r.random() < 0.5), (("a",) if r.random() < 0.3 else ()), (("b",) if r.random() < 0.2 else ()),
            float(r.uniform(300, 3000)) if r.random() < 0.4 else None, int(r.integers(0, 3)),
            int(r.integers(0, 9000)) if r.random() < 0.3 else 0, bool(r.random() < 0.2),
            tuple(r.permutation(["distance", "stock", "sequence"])[: int(r.integers(0, 4))].tolist()),
            "Q" if r.random() < 0.2 else None,
        )  # fmt: skip

    fast = Routing("fast", (rule(1), rule(2)), (Filter("promise_days", "less_equals", ("3",)),), ("priority",))
    return Routings((fast, Routing("rest", (rule(3), rule(4), rule(5)), (), ("ship_before",))), (2, 0, 1))


@pytest.mark.parametrize("start", range(0, 300, 50))
def test_whatever_routings_say_the_plan_is_legal_and_each_trail_adds_up(start: int) -> None:
    for seed in range(start, start + 50):
        r = np.random.default_rng(seed)
        given = random_problem(seed, orders=6, locations=4, skus=4, classes=3, protected=seed % 2 == 0)
        given = msgspec.structs.replace(
            given, policy=Policy(units_split=seed % 3 == 0, overtaking=seed % 2 == 1),
            locations=[
                msgspec.structs.replace(
                    n, groups=tuple(g for g in "ab" if r.random() < 0.5), lat=None if r.random() < 0.1 else n.lat,
                    slots=(Slot(0, 1), Slot(1, 2, 4)) if r.random() < 0.3 else (),
                )
                for n in given.locations
            ],
            lines=[
                msgspec.structs.replace(n, alone=n.together is None and bool(r.random() < 0.2)) for n in given.lines
            ],
            labor=(Labor(1, 30.0, 5.0, 2.0, 1.0),) if seed % 4 == 1 else (),
        )  # fmt: skip
        found = route(given, random_routings(seed), [])
        assert audit(without_classes(given), found.plan) == [], seed
        wanted = {o.order_id: sum(n.quantity for n in given.lines if n.order_id == o.order_id) for o in given.orders}
        sent: dict[str, int] = {}
        of = {n.line_id: n.order_id for n in given.lines}
        for a in found.plan.assignments:
            sent[of[a.line_id]] = sent.get(of[a.line_id], 0) + a.quantity
        for trail in found.trails:
            took = sum(sum(t.took.values()) for t in trail.tried if t.taken_back is None)
            assert trail.left_units == wanted[trail.order_id] - sent.get(trail.order_id, 0)
            if not any(t.taken_back for t in trail.tried):
                assert took == sent.get(trail.order_id, 0), seed
