"""A problem and a plan by their ids, in plain Python, for the audit."""

from collections import defaultdict

from brokering.cents import breaks, leave_cents, line_cents, package_cents, parts, policy_of
from brokering.problem import Assignment, Line, Location, Order, Plan, Problem, Slot, Stock


class Book:
    """A problem by its ids."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.lines: dict[int, Line] = {n.line_id: n for n in problem.lines}
        self.orders: dict[str, Order] = {o.order_id: o for o in problem.orders}
        self.locations: dict[int, Location] = {n.location_id: n for n in problem.locations}
        self.members = {pool: frozenset(places) & self.locations.keys() for pool, places in problem.pools.items()}
        self.barred = {(b.order_id, b.sku_id, b.location_id) for b in problem.barred}
        self.stock_of: dict[int, dict[tuple[int, int], Stock]] = defaultdict(dict)
        for s in problem.stock:
            self.stock_of[s.sku_id][s.location_id, s.day] = s
        self.worth: dict[int, int] = defaultdict(int)
        for n in problem.lines:
            self.worth[n.sku_id] = max(self.worth[n.sku_id], n.value_cents)

    def stock(self, sku: int, location: int, day: int) -> Stock:
        """The row of stock, an empty one where there is none."""
        return self.stock_of.get(sku, {}).get((location, day)) or Stock(sku, location, 0, day=day)

    def capacity(self, location: int, slot: int | None, day: int) -> Location | Slot | None:
        """What limits the work there; None where nothing does."""
        if day > 0:
            return None
        place = self.locations[location]
        return place if slot is None else place.slots[slot]

    def may_serve(self, order: Order, line: Line, place: int) -> bool:
        """In its pool, not where it was rejected, its own place where it has one."""
        if place not in self.members.get(line.pool_id, frozenset()) or order.location_id not in (None, place):
            return False
        if policy_of(self.problem, order).unknown_distance == "exclude" and order.location_id is None:
            location = self.locations[place]
            if None in (order.lat, order.lon, location.lat, location.lon):
                return False
        return (line.order_id, line.sku_id, place) not in self.barred

    def keeps_limits(self, order: Order, place: int, *, slot: int | None, day: int) -> bool:
        """Whether a package keeps the hard limits of its policy."""
        policy = policy_of(self.problem, order)
        return order.location_id is not None or not any(
            limit.cents is None and breaks(limit, policy, order, self.locations[place], slot=slot, day=day)
            for limit in policy.limits
        )

    def package(self, order: Order, a: Assignment) -> tuple[object, ...]:
        """The package that units go in: a line that goes alone has its own, part by part."""
        alone = id(a) if self.lines[a.line_id].alone else None
        return order.order_id, a.location_id, a.slot, a.day, alone

    def parts(self, line: Line) -> tuple[int, ...]:
        return parts(self.problem, self.orders[line.order_id], line)

    def package_cents(self, order: Order, place: int, *, slot: int | None = None, day: int = 0) -> int:
        return package_cents(policy_of(self.problem, order), order, self.locations[place], slot=slot, day=day)

    def line_cents(self, order: Order, line: Line, place: int, *, units: int, day: int = 0) -> int:
        """What units of a line cost from a place, their package aside."""
        return line_cents(
            policy_of(self.problem, order), order, line, self.locations[place], self.stock(line.sku_id, place, day),
            units=units, worth_cents=self.worth[line.sku_id],
        )  # fmt: skip

    def leave_cents(self, line: Line, units: int | None = None) -> int:
        order = self.orders[line.order_id]
        return leave_cents(policy_of(self.problem, order), order, line, units)

    def left(self, plan: Plan) -> list[tuple[Line, int]]:
        """The parts that stay: (line, units)."""
        gone: dict[int, list[int]] = defaultdict(list)
        for a in plan.assignments:
            gone[a.line_id].append(a.quantity)
        found = []
        for line in self.lines.values():
            rest = list(self.parts(line))
            for units in gone.get(line.line_id, []):
                if units in rest:
                    rest.remove(units)
            found += [(line, units) for units in rest]
        return found
