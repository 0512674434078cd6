"""What one package and one line cost from a location, in plain Python: the second opinion beside the solver's arrays."""

from math import asin, cos, radians, sin, sqrt

from brokering.problem import Line, Location, Order, Policy

EARTH_MILES = 3958.8
GRAMS_PER_POUND = 453.59237
STOCK_OUT_MAX = 0.6


def zone_of(policy: Policy, order: Order, location: Location) -> int:
    """The tariff's zone from a location to an order's address; the farthest where a coordinate is unknown."""
    limits = policy.tariff.miles
    if order.lat is None or order.lon is None or location.lat is None or location.lon is None:
        return len(limits)
    lat, to = radians(order.lat), radians(location.lat)
    h = sin((lat - to) / 2) ** 2 + cos(lat) * cos(to) * sin(radians(order.lon - location.lon) / 2) ** 2
    distance = 2 * EARTH_MILES * asin(sqrt(min(1.0, max(0.0, h))))
    return sum(distance > limit for limit in limits)


def package_cents(policy: Policy, order: Order, location: Location) -> int:
    """One package of an order from a location: carrier, pick and pack, lateness by day and priority."""
    if order.location_id is not None:  # picked up: nobody carries it
        return location.package_cents
    zone = zone_of(policy, order, location)
    late = 0 if order.promise_days is None else max(0, policy.tariff.days[zone] - order.promise_days)
    carried = policy.tariff.parcel_cents[zone] + round(policy.late_cents * late * (1 + order.priority / 2))
    return location.package_cents + carried


def line_cents(
    policy: Policy,
    order: Order,
    line: Line,
    location: Location,
    *,
    available: int,
    markdown_cents: int,
    worth_cents: int,
) -> int:
    """A line in a package from a location where `available` units stand, each worth `worth_cents` to its last shopper."""
    cents = location.line_cents + round(location.reject_share * policy.reject_cents)
    if order.location_id is None:
        pounds = line.weight_grams * line.quantity / GRAMS_PER_POUND
        cents += round(policy.tariff.pound_cents[zone_of(policy, order, location)] * pounds)
    if location.kind == "store" and available > 0:
        risk = policy.stock_out_share * worth_cents * min(STOCK_OUT_MAX, 0.5 / available)
        cents += round(risk) * line.quantity
    return cents - markdown_cents * line.quantity


def leave_cents(policy: Policy, order: Order, line: Line) -> int:
    """What leaving a line costs: by its value, its order's priority and the days that it has waited."""
    unit = max(policy.leave_cents_min, policy.leave_share * line.value_cents)
    return round(unit * line.quantity * (1 + order.priority / 2) * (1 + policy.waited_share * line.days_waited))
