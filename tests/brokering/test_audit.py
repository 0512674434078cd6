"""Each rule of the audit bites: a legal plan is broken in one way, the rule sees it, and without the rule nobody does."""

import ast
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

import brokering
from brokering import (
    RULES,
    Assignment,
    Barred,
    Labor,
    Limit,
    Line,
    Location,
    Order,
    Plan,
    Policy,
    Problem,
    Protected,
    Stock,
    Unfilled,
    audit,
    broker,
)
from tests.brokering.small import LIMITS

NEAR, FAR = (42.4, -71.1), (34.1, -118.2)


def problem() -> Problem:
    orders = [
        Order("high", 40.7, -74.0, 1, promise_days=1),
        Order("low", 40.7, -74.0, 0),
        Order("one", 40.7, -74.0, 0, "single"),
    ]
    lines = [
        Line(1, 1, "high", 1, 1, 1, 4000, 500), Line(2, 1, "low", 1, 1, 1, 4000, 500),
        Line(3, 1, "one", 2, 1, 1, 4000, 500), Line(4, 1, "one", 3, 1, 1, 4000, 500),
    ]  # fmt: skip
    places = [Location(1, "warehouse", *NEAR, 3), Location(2, "warehouse", *FAR), Location(3, "warehouse", *NEAR)]
    stock = [
        Stock(1, 1, 1), Stock(1, 2, 1), Stock(2, 1, 1), Stock(3, 1, 1), Stock(2, 2, 1), Stock(3, 2, 1), Stock(1, 3, 5),
    ]  # fmt: skip
    return Problem(
        orders, lines, places, stock, {1: (1, 2), 2: (2,)}, protected=[Protected(3, 2, 1)], barred=[Barred("one", 2, 3)]
    )


def moved(plan: Plan, line_id: int, location_id: int) -> Plan:
    return msgspec.structs.replace(
        plan,
        assignments=[Assignment(a.line_id, location_id if a.line_id == line_id else a.location_id, a.quantity)
                     for a in plan.assignments],
    )  # fmt: skip


def left(plan: Plan, line_id: int) -> Plan:
    return msgspec.structs.replace(
        plan, assignments=[a for a in plan.assignments if a.line_id != line_id],
        unfilled=[*plan.unfilled, Unfilled(line_id, "taken")],
    )  # fmt: skip


def swapped(plan: Plan) -> Plan:
    """The lower class has the near unit; the higher one goes without."""
    return left(moved(plan, 2, 1), 1)


BREAKS: dict[str, Callable[[Plan], Plan]] = {
    "each_line_once": lambda p: msgspec.structs.replace(p, assignments=p.assignments[1:]),
    "stock_suffices": lambda p: moved(p, 2, 1),
    "capacity_suffices": lambda p: moved(p, 2, 1),
    "labor_suffices": lambda p: moved(p, 2, 1),
    "place_may_serve": lambda p: moved(p, 2, 3),
    "limits_are_kept": lambda p: moved(p, 2, 3),
    "split_is_kept": lambda p: moved(p, 3, 2),
    "promises_are_kept": lambda p: moved(moved(p, 3, 2), 4, 2),
    "no_class_overtakes": swapped,
    "cost_is_true": lambda p: msgspec.structs.replace(p, cost=p.cost + 100),
}


def test_the_plan_to_be_broken_is_legal() -> None:
    plan = broker(problem(), **LIMITS)
    assert audit(problem(), plan) == []
    assert {a.line_id: a.location_id for a in plan.assignments} == {1: 1, 2: 2, 3: 1, 4: 1}


def test_every_rule_has_a_plan_that_breaks_it() -> None:
    assert [r.__name__ for r in RULES] == list(BREAKS)


def for_rule(name: str) -> Problem:
    """The problem; for the rule of work, with enough stock that work alone is too little; for limits, with one."""
    given = problem()
    if name == "limits_are_kept":  # the third location is in the pool, of a kind that the policy shuts out
        shut = msgspec.structs.replace(given.locations[2], kind="kiosk")
        policy = Policy(limits=(Limit(kinds=("warehouse",)),))
        return msgspec.structs.replace(
            given, locations=[*given.locations[:2], shut], pools={1: (1, 2, 3), 2: (2,)}, policy=policy
        )
    if name == "labor_suffices":
        return msgspec.structs.replace(
            given, stock=[Stock(1, 1, 5), *given.stock[1:]], labor=(Labor(1, 22, 8, 1, 1),), policy=Policy(overtaking=True),
            locations=[msgspec.structs.replace(given.locations[0], capacity_orders=None), *given.locations[1:]],
        )  # fmt: skip
    if name != "capacity_suffices":
        return given
    near = Location(1, "warehouse", *NEAR, 2)
    return msgspec.structs.replace(
        given, stock=[Stock(1, 1, 5), *given.stock[1:]], locations=[near, *given.locations[1:]]
    )


@pytest.mark.parametrize("name", BREAKS)
def test_the_audit_bites(name: str) -> None:
    given, rule = for_rule(name), next(r for r in RULES if r.__name__ == name)
    legal = broker(given, **LIMITS)
    assert audit(given, legal) == []
    assert audit(given, BREAKS[name](legal), (rule,))


@pytest.mark.parametrize("name", [n for n in BREAKS if n != "cost_is_true"])
def test_no_other_rule_but_the_cost_would_see_it(name: str) -> None:
    given = for_rule(name)
    rest = tuple(r for r in RULES if r.__name__ not in (name, "cost_is_true"))
    assert audit(given, BREAKS[name](broker(given, **LIMITS)), rest) == []


def test_the_audit_needs_no_arrays_and_no_solver() -> None:
    """What it is made of imports the standard library, msgspec and itself."""
    folder = Path(brokering.__file__).parent
    todo, seen, outside = ["audit"], set(), set()
    while todo:
        name = todo.pop()
        seen.add(name)
        for node in ast.walk(ast.parse((folder / f"{name}.py").read_text())):
            for module in [node.module or ""] if isinstance(node, ast.ImportFrom) else []:
                if module.startswith("brokering."):
                    todo += [module.split(".")[1]] if module.split(".")[1] not in seen else []
                else:
                    outside.add(module)
            if isinstance(node, ast.Import):
                outside |= {n.name for n in node.names}
    assert seen == {"audit", "book", "cents", "order_of_classes", "problem", "promises"}
    assert outside <= {"collections", "collections.abc", "itertools", "math", "typing", "msgspec"}
