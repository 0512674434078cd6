"""What one package and one line cost from a location, in plain Python: the second opinion beside the solver's arrays."""

from math import asin, cos, radians, sin, sqrt

from brokering.problem import PARTS_MAX, Limit, Line, Location, Order, Policy, Problem, Stock

EARTH_MILES = 3958.8
GRAMS_PER_POUND = 453.59237
STOCK_OUT_MAX = 0.6


def policies_of(problem: Problem) -> list[Policy]:
    """The problem's own policy, then those that orders name."""
    return [problem.policy, *problem.policies]


def policy_of(problem: Problem, order: Order) -> Policy:
    """The policy by which an order is planned."""
    return problem.policy if order.policy is None else problem.policies[order.policy]


def parts(problem: Problem, order: Order, line: Line) -> tuple[int, ...]:
    """The units of each part of a line, as equal as can be; one part where its policy does not split units."""
    if line.quantity == 1 or line.together is not None or not policy_of(problem, order).units_split:
        return (line.quantity,)
    count = min(line.quantity, PARTS_MAX)
    return tuple(line.quantity // count + (nth < line.quantity % count) for nth in range(count))


def miles_between(order: Order, location: Location) -> float | None:
    """Great-circle miles (haversine); None where a coordinate is unknown."""
    if order.lat is None or order.lon is None or location.lat is None or location.lon is None:
        return None
    lat, to = radians(order.lat), radians(location.lat)
    h = sin((lat - to) / 2) ** 2 + cos(lat) * cos(to) * sin(radians(order.lon - location.lon) / 2) ** 2
    return 2 * EARTH_MILES * asin(sqrt(min(1.0, max(0.0, h))))


def zone_of(policy: Policy, order: Order, location: Location) -> int:
    """The tariff's zone from a location to an order's address; the farthest where a coordinate is unknown."""
    distance = miles_between(order, location)
    limits = policy.tariff.miles
    return len(limits) if distance is None else sum(distance > limit for limit in limits)


def leaves(order: Order, location: Location, *, slot: int | None, day: int) -> int:
    """The day on which a package leaves: by calendar and cut-off, by its slot, and when its stock is there."""
    own = location.leave_days[min(order.service, len(location.leave_days) - 1)]
    return max(own, day, 0 if slot is None else location.slots[slot].day)


def days_late(policy: Policy, order: Order, location: Location, *, slot: int | None, day: int) -> int:
    """Days by which a package misses its promise; 0 without one."""
    if order.promise_days is None:
        return 0
    arrives = leaves(order, location, slot=slot, day=day) + policy.tariff.days[zone_of(policy, order, location)]
    return max(0, arrives - order.promise_days)


def breaks(limit: Limit, policy: Policy, order: Order, location: Location, *, slot: int | None, day: int) -> bool:
    """Whether a package would break a limit."""
    distance = miles_between(order, location)
    return bool(
        (limit.kinds and location.kind not in limit.kinds)
        or (limit.groups and not {*limit.groups} & {*location.groups})
        or (limit.miles_max is not None and (distance is None or distance > limit.miles_max))
        or (
            limit.late_days_max is not None
            and days_late(policy, order, location, slot=slot, day=day) > limit.late_days_max
        )
    )


def package_terms(
    policy: Policy, order: Order, location: Location, *, slot: int | None = None, day: int = 0
) -> dict[str, int]:  # fmt: skip
    """One package of an order from a location, by term: pick and pack, load, carrier, lateness by day and priority, limits."""
    weight = policy.weights
    terms = {
        "handling": round(location.package_cents * weight.get("handling", 1.0)),
        "load": round(location.load_cents * weight.get("load", 1.0)),
    }
    if order.location_id is not None:  # picked up: nobody carries it
        return terms
    zone = zone_of(policy, order, location)
    late = days_late(policy, order, location, slot=slot, day=day)
    terms["parcel"] = round(policy.tariff.parcel_cents[zone] * weight.get("parcel", 1.0))
    terms["lateness"] = round(weight.get("lateness", 1.0) * (late * ((1 + order.priority / 2) * policy.late_cents)))
    for limit in policy.limits:
        if limit.cents is not None and breaks(limit, policy, order, location, slot=slot, day=day):
            terms["limit"] = terms.get("limit", 0) + round(limit.cents * weight.get("limit", 1.0))
    return terms


def package_cents(
    policy: Policy, order: Order, location: Location, *, slot: int | None = None, day: int = 0
) -> int:  # fmt: skip
    """One package of an order from a location: the sum of its terms."""
    return sum(package_terms(policy, order, location, slot=slot, day=day).values())


def line_terms(
    policy: Policy, order: Order, line: Line, location: Location, stock: Stock, *, units: int, worth_cents: int
) -> dict[str, int]:  # fmt: skip
    """Units of a line in a package from a location, by term, out of `stock` whose units are worth `worth_cents`."""
    weight = policy.weights
    share = location.reject_share if stock.reject_share is None else stock.reject_share
    terms = {
        "line": round(location.line_cents * weight.get("line", 1.0)),
        "rejection": round(weight.get("rejection", 1.0) * policy.reject_cents * share),
        "markdown": -round(stock.markdown_cents * weight.get("markdown", 1.0)) * units,
        "transfer": round(stock.transfer_cents * weight.get("transfer", 1.0)) * units,
        "waiting": round(weight.get("waiting", 1.0) * policy.wait_cents * stock.day) * units,
    }
    if order.location_id is None:
        pounds = line.weight_grams * units / GRAMS_PER_POUND
        pound = policy.tariff.pound_cents[zone_of(policy, order, location)]
        terms["weight"] = round(weight.get("weight", 1.0) * (pound * pounds))
    if location.kind == "store" and stock.available > 0:
        risk = min(STOCK_OUT_MAX, 0.5 / stock.available) * worth_cents
        terms["stock_out"] = round(weight.get("stock_out", 1.0) * policy.stock_out_share * risk) * units
    return terms


def line_cents(
    policy: Policy, order: Order, line: Line, location: Location, stock: Stock, *, units: int, worth_cents: int
) -> int:  # fmt: skip
    """Units of a line in a package from a location: the sum of their terms."""
    return sum(line_terms(policy, order, line, location, stock, units=units, worth_cents=worth_cents).values())


def leave_cents(policy: Policy, order: Order, line: Line, units: int | None = None) -> int:
    """What leaving units of a line (all of them) costs: by value, the order's priority and the days it has waited."""
    unit = max(policy.leave_cents_min, policy.leave_share * line.value_cents)
    count = line.quantity if units is None else units
    cents = unit * count * (1 + order.priority / 2) * (1 + policy.waited_share * line.days_waited)
    return round(policy.weights.get("left", 1.0) * cents)
