"""Order routings of the HotWax kind: routings take orders by filters and in their sorts, rules allocate one after the other.

`brokering.route` follows them; here is what they say, whom they match, and what is odd about them.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec

from brokering.problem import Location, Order

OrderField = Literal["queue", "method", "priority", "promise_days", "channel", "origin", "category"]
Operator = Literal["in", "not_in", "less", "less_equals", "greater", "greater_equals", "is_null", "is_not_null"]
OrderSort = Literal["ship_before", "ship_after", "placed", "delivery_days", "priority"]
PlaceSort = Literal["distance", "stock", "sequence"]
QUEUE_OPEN = "_NA_"
QUEUE_REJECTED = "REJECTED_ITM_PARKING"
"""HotWax's names of the queue of what is to be brokered, and of what a location rejected."""


class Filter(msgspec.Struct, frozen=True):
    """Which orders: a field compared with values. A field that is not known is in no value, and `not_in` all."""

    field: OrderField
    operator: Operator
    values: tuple[str, ...] = ()


class Rule(msgspec.Struct, frozen=True):
    """One attempt: the whole order from one location (`is_single`), or line by line from several, in the order of `sorts`.

    From locations of `groups` (none named: any) and of none of `groups_not`, at most `miles_max` away, with at least
    `stock_min` units there before anything is taken. `value_cents_min` is what a part of an order must be worth to go.
    With `is_all_or_none` a rule allocates only where it allocates everything. What is left goes to `queue`, or without
    one to the next rule. `cancel_after_days` and `clears_cancel` say what becomes of its date of cancelling.
    """

    name: str
    is_single: bool = True
    groups: tuple[str, ...] = ()
    groups_not: tuple[str, ...] = ()
    miles_max: float | None = None
    stock_min: int = 0
    value_cents_min: int = 0
    is_all_or_none: bool = False
    sorts: tuple[PlaceSort, ...] = ()
    queue: str | None = None
    cancel_after_days: int | None = None
    clears_cancel: bool = False


class Routing(msgspec.Struct, frozen=True):
    """Orders that match all filters, in the order of `sorts`, are tried on each rule in turn."""

    name: str
    rules: tuple[Rule, ...]
    filters: tuple[Filter, ...] = ()
    sorts: tuple[OrderSort, ...] = ()


class Routings(msgspec.Struct, frozen=True):
    """Routings in their sequence. `sequence` is the locations' own order, for rules that sort by it."""

    routings: tuple[Routing, ...]
    sequence: tuple[int, ...] = ()


class Asked(msgspec.Struct, frozen=True):
    """What filters ask of an order beyond the order itself: None, or nothing named, is not known. `placed` in seconds.

    Without a `queue` it waits to be brokered, or among what was rejected where a location rejected it.
    """

    order_id: str
    channel: str | None = None
    method: str | None = None
    queue: str | None = None
    placed: float | None = None
    origins: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()


def holds(f: Filter, values: Sequence[str]) -> bool:
    """Whether a filter holds for the values that an order has of its field."""
    if f.operator == "is_null":
        return not values
    if f.operator == "is_not_null":
        return bool(values)
    if f.operator in ("in", "not_in"):
        return bool({*values} & {*f.values}) == (f.operator == "in")
    limit = float(f.values[0])
    return any(
        {"less": v < limit, "less_equals": v <= limit, "greater": v > limit, "greater_equals": v >= limit}[f.operator]
        for v in map(float, values)
    )


def matches(routing: Routing, order: Order, asked: Asked, *, queue: str) -> bool:
    """Whether a routing takes an order that waits in a queue."""
    return all(holds(f, values_of(f.field, order, asked, queue=queue)) for f in routing.filters)


def values_of(field: OrderField, order: Order, asked: Asked, *, queue: str) -> tuple[str, ...]:
    """What an order has of a field; nothing where it is not known."""
    one: str | int | None
    match field:
        case "origin":
            return asked.origins
        case "category":
            return asked.categories
        case "queue":
            one = queue
        case "method":
            one = asked.method
        case "channel":
            one = asked.channel
        case "priority":
            one = order.priority
        case "promise_days":
            one = order.promise_days
    return () if one is None else (str(one),)


def in_turn(routing: Routing, orders: Sequence[tuple[Order, Asked]]) -> list[tuple[Order, Asked]]:
    """Orders as a routing takes them: highest priority, earliest promise, earliest placed; as they stand where equal."""
    far = float("inf")

    def key(pair: tuple[Order, Asked]) -> tuple[float, ...]:
        order, asked = pair
        promise = far if order.promise_days is None else float(order.promise_days)
        of: dict[OrderSort, float] = {
            "priority": -order.priority, "ship_before": promise, "delivery_days": promise, "ship_after": 0.0,
            "placed": far if asked.placed is None else asked.placed,
        }  # fmt: skip
        return tuple(of[name] for name in routing.sorts)

    return sorted(orders, key=key)


def allows(rule: Rule, location: Location) -> bool:
    """Whether a rule takes from a location, by its groups."""
    groups = {*location.groups}
    return (not rule.groups or bool(groups & {*rule.groups})) and not groups & {*rule.groups_not}


def oddities(routings: Routings, locations: Sequence[Location]) -> list[str]:
    """What cannot hold or changes nothing, before any order is seen: a sentence each."""
    told = []
    groups = {g for n in locations for g in n.groups}
    for routing in routings.routings:
        told += [f"{routing.name}: {why}" for why in _contradictions(routing.filters)]
        if not routing.rules:
            told.append(f"{routing.name} has no rule that is active: it allocates nothing")
        if "ship_after" in routing.sorts:
            told.append(
                f"{routing.name} sorts by the day after which an order ships, which is not known: it sorts nothing"
            )
        for field, words in (("origin", "the group of an order's origin"), ("category", "the category of a product")):
            if any(f.field == field for f in routing.filters):
                told.append(f"{routing.name} filters by {words}: an order of which it is not known matches no value")
        for at, rule in enumerate(routing.rules):
            name = f"{routing.name} › {rule.name}"
            told += [
                f"{name}: no location is of group {g}" for g in (*rule.groups, *rule.groups_not) if g not in groups
            ]
            if {*rule.groups} and {*rule.groups} <= {*rule.groups_not}:
                told.append(f"{name} contradicts itself: it takes and leaves out the same groups")
            elif locations and not any(allows(rule, n) for n in locations):
                told.append(f"{name} has no location")
            if "sequence" in rule.sorts and not routings.sequence:
                told.append(f"{name} sorts by the locations' own sequence, and none is given: it sorts nothing")
            if rule.queue is not None and at + 1 < len(routing.rules):
                told.append(f"{name} moves what is left to {rule.queue}: the rules after it are never reached")
    return told


def _contradictions(filters: Sequence[Filter]) -> list[str]:
    """Filters of one routing that no order can match together; of fields that have one value."""
    told = []
    for field in dict.fromkeys(f.field for f in filters if f.field not in ("origin", "category")):
        mine = [f for f in filters if f.field == field]
        within = [{*f.values} for f in mine if f.operator == "in"]
        without = {v for f in mine if f.operator == "not_in" for v in f.values}
        low = max((_bound(f, step=1) for f in mine if f.operator.startswith("greater")), default=float("-inf"))
        high = min((_bound(f, step=-1) for f in mine if f.operator.startswith("less")), default=float("inf"))
        left = set.intersection(*within) - without if within else None
        if (left is not None and low > float("-inf")) or (left is not None and high < float("inf")):
            left = {v for v in left if _is_number(v) and low <= float(v) <= high}
        operators = {f.operator for f in mine}
        if left == set() or low > high or ("is_null" in operators and len(operators - {"is_null", "not_in"})):
            told.append(f"its filters by {field.replace('_', ' ')} contradict each other: no order matches")
    return told


def _bound(f: Filter, *, step: int) -> float:
    """The first whole number that a comparison takes."""
    return float(f.values[0]) + (step if f.operator in ("less", "greater") else 0)


def _is_number(value: str) -> bool:
    return value.removeprefix("-").isdigit()
