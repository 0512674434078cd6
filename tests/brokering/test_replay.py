"""A day is decided as it came: who is first gets the unit, what comes later is not known before, what is decided stays."""

import msgspec
import pytest

from brokering import Location, Order, Problem, Stock, audit
from brokering.replay import Change, Rhythm, replay
from tests.brokering.small import line, random_problem

HERE, NEAR, FAR = (40.7, -74.0), (41.0, -74.2), (41.88, -87.63)
IN_TURN, HOURLY = Rhythm(repriced=2), Rhythm(every_minutes=60)
BOTH = pytest.mark.parametrize("rhythm", [IN_TURN, HOURLY], ids=["in turn", "hourly"])


def day_of(*orders: Order, near: int = 1, far: int = 9, **place: int) -> Problem:
    """Orders of a unit of sku 1 in New York; a warehouse near them and one in Chicago."""
    return Problem(
        list(orders), [line(n, order=o.order_id) for n, o in enumerate(orders, 1)],
        [Location(1, "warehouse", *NEAR, **place), Location(2, "warehouse", *FAR)],  # type: ignore[arg-type]
        [s for s in (Stock(1, 1, near), Stock(1, 2, far)) if s.available], {1: (1, 2)},
    )  # fmt: skip


def where(problem: Problem, arrives: dict[str, float], *changes: Change, rhythm: Rhythm) -> dict[str, int]:
    """Order → location."""
    found = replay(problem, arrives, changes, rhythm=rhythm, steps_max=20)
    return {problem.lines[a.line_id - 1].order_id: a.location_id for a in found.assignments}


def order(name: str) -> Order:
    return Order(name, *HERE, promise_days=2)


@BOTH
def test_who_comes_first_gets_the_unit_that_is_near(rhythm: Rhythm) -> None:
    problem = day_of(order("a"), order("b"))
    assert where(problem, {"a": 100, "b": 10}, rhythm=rhythm) == {"b": 1, "a": 2}
    assert where(problem, {"a": 10, "b": 100}, rhythm=rhythm) == {"a": 1, "b": 2}


@BOTH
def test_stock_that_comes_after_an_order_was_decided_is_not_its(rhythm: Rhythm) -> None:
    problem = day_of(order("a"), order("b"), near=0)
    later = Change(200, 1, 1, 1)
    assert where(problem, {"a": 10, "b": 300}, later, rhythm=rhythm) == {"a": 2, "b": 1}


@BOTH
def test_stock_that_a_walk_in_took_is_gone(rhythm: Rhythm) -> None:
    problem = day_of(order("a"), order("b"), near=2)
    assert where(problem, {"a": 10, "b": 300}, Change(200, 1, 1, -1), rhythm=rhythm) == {"a": 1, "b": 2}
    assert where(problem, {"a": 10, "b": 100}, Change(200, 1, 1, -1), rhythm=rhythm) == {"a": 1, "b": 1}


@BOTH
def test_what_stays_open_is_tried_again_when_stock_has_come(rhythm: Rhythm) -> None:
    problem = day_of(order("a"), near=0, far=0)
    found = replay(problem, {"a": 10}, [Change(200, 1, 1, 1)], rhythm=rhythm, steps_max=20)
    assert [a.location_id for a in found.assignments] == [1]
    assert (found.unfilled, "left" in found.cost_by_term) == ([], False)
    nothing = replay(problem, {"a": 10}, [], rhythm=rhythm, steps_max=20)
    assert [u.line_id for u in nothing.unfilled] == [1] and nothing.cost == nothing.cost_by_term["left"]


@BOTH
def test_a_days_capacity_is_used_once(rhythm: Rhythm) -> None:
    problem = day_of(order("a"), order("b"), near=9, capacity_orders=1)
    assert where(problem, {"a": 10, "b": 900}, rhythm=rhythm) == {"a": 1, "b": 2}


@BOTH
@pytest.mark.parametrize("seed", range(6))
def test_a_day_keeps_the_law_of_its_stock_capacity_and_split_rules(rhythm: Rhythm, seed: int) -> None:
    problem = random_problem(seed, orders=8, locations=4)
    arrives = {o.order_id: 150.0 * n for n, o in enumerate(problem.orders)}
    found = replay(problem, arrives, [], rhythm=rhythm, steps_max=20)
    assert audit(problem, found) == [] or all("cost" in str(fault) for fault in audit(problem, found))
    sent = sum(a.quantity for a in found.assignments)
    units = {n.line_id: n.quantity for n in problem.lines}
    assert sent + sum(units[u.line_id] for u in found.unfilled) == sum(units.values())


def test_a_place_that_leaves_later_in_the_afternoon_is_asked_as_it_is_then() -> None:
    problem = day_of(order("a"), order("b"), near=9)

    def places(minute: float) -> list[Location]:
        leaves = (0,) if minute < 720 else (4,)
        return [
            msgspec.structs.replace(n, leave_days=leaves if n.location_id == 1 else (0,)) for n in problem.locations
        ]

    found = replay(problem, {"a": 10, "b": 1000}, [], rhythm=HOURLY, places=places, steps_max=20)
    assert [a.location_id for a in found.assignments] == [1, 2]
