"""What routings tell of their work: for each order the rules that were tried, what each took, what it refused and why."""

from collections.abc import Callable, Mapping, Sequence

import msgspec

from brokering.cents import miles_between
from brokering.problem import Decision, Plan, Problem
from brokering.routings import Asked, Routings, allows
from brokering.taking import CAPACITY, LABOR, LIMIT, NO_STOCK, SPLIT, TAKEN, Held

GROUP, FAR, NOWHERE, KEPT_BACK, MAY_NOT, WORTH = (
    "not of its groups", "beyond the distance", "its distance is not known", "below the safety stock of the rule",
    "it may not serve it", "its part is worth too little",
)  # fmt: skip
NOT_ALL, NOT_COMPLETE = "not all of it could be allocated", "the order goes complete or not at all"
NO_ROUTING = "no_routing"
SHOWN_MAX, NAMED_MAX = 8, 5
REASONS = ((TAKEN, "taken"), (CAPACITY, "capacity"), (LABOR, "capacity"), (SPLIT, "split"), (NOT_COMPLETE, "split"),
           (KEPT_BACK, "rule"), (FAR, "rule"), (NOWHERE, "rule"), (GROUP, "rule"), (WORTH, "rule"), (NOT_ALL, "rule"),
           (LIMIT, "no_location"), (MAY_NOT, "no_location"), (NO_STOCK, "no_stock"))  # fmt: skip
"""Why a line stays, by the first of these that a rule told of its order. The order: what came nearest to being allocated."""


class Refused(msgspec.Struct, frozen=True):
    """Why a rule did not take from locations: how many, and the first of them."""

    why: str
    count: int
    locations: list[int]


class Tried(msgspec.Struct, frozen=True):
    """A rule tried on an order: units that it took by location, what it took back, and what it refused and why."""

    routing: str
    rule: str
    took: dict[int, int]
    refused: list[Refused]
    taken_back: str | None = None


class Trail(msgspec.Struct, frozen=True):
    """How an order went: the rules that were tried in turn, what is left, the queue where it waits, and what ended it."""

    order_id: str
    tried: list[Tried]
    left_units: int
    queue: str | None
    ended: str
    cancel_after_days: int | None = None


class Worked(msgspec.Struct, frozen=True):
    """What a rule did in a run: orders tried on it, orders that it took from, units."""

    routing: str
    rule: str
    tried: int
    orders: int
    units: int


class Routed(msgspec.Struct, frozen=True):
    """A legal plan, a trail for each order, what each rule did, and hints."""

    plan: Plan
    trails: list[Trail]
    rules: list[Worked]
    hints: list[str]


class Way:
    """An order on its way through routings: what it has got, where it waits, what was tried on it."""

    def __init__(self, held: Held, asked: Asked, queue: str) -> None:
        self.held, self.asked, self.queue = held, asked, queue
        self.tried: list[Tried] = []
        self.ended = "no routing took it"
        self.is_routed = False
        self.cancel_after_days: int | None = None

    def decision(self, cents: dict[str, int]) -> Decision:
        """As plans tell of it: its cents, and how many locations fell out by the last rule that was tried, and why."""
        last = self.tried[-1].refused if self.tried else []
        return Decision(self.held.order.order_id, cents, [], {r.why: r.count for r in last})

    def why_left(self) -> str:
        """Why what is left of it stays, in the word of plans."""
        if not self.is_routed:
            return NO_ROUTING
        told = {r.why for t in self.tried for r in t.refused} | {t.taken_back for t in self.tried}
        return next((short for why, short in REASONS if why in told), "no_stock")

    def trail(self) -> Trail:
        """How it went."""
        left = sum(units for bundle in self.held.open for _, units in bundle)
        return Trail(
            self.held.order.order_id, self.tried, left, self.queue if left else None, self.ended,
            self.cancel_after_days if left else None,
        )  # fmt: skip


def why_not(problem: Problem, routings: Routings, trails: Sequence[Trail]) -> Callable[[str, int], str | None]:
    """Tells why an order did not go from a location by the last rule that was tried on it; None where that had no reason."""
    of_order = {t.order_id: t for t in trails}
    orders = {o.order_id: o for o in problem.orders}
    locations = {n.location_id: n for n in problem.locations}
    rules = {(r.name, rule.name): rule for r in routings.routings for rule in r.rules}

    def told(order_id: str, location_id: int) -> str | None:
        if not (tried := of_order[order_id].tried):
            return "no routing took its order"
        last = tried[-1]
        rule, order, location = rules[last.routing, last.rule], orders[order_id], locations[location_id]
        miles = miles_between(order, location)
        if not allows(rule, location):
            return GROUP
        if rule.miles_max is not None and order.location_id is None and (miles is None or miles > rule.miles_max):
            return NOWHERE if miles is None else FAR
        return next((r.why for r in last.refused if location_id in r.locations), None)

    return told


def sentences(trail: Trail, codes: Mapping[int, str]) -> list[str]:
    """A trail as a person reads it, a sentence for each rule."""
    told = []
    for t in trail.tried:
        took = ", ".join(f"{units} from {codes.get(at, at)}" for at, units in t.took.items())
        words = [f"took {took}" if took else "took nothing", *([f"taken back: {t.taken_back}"] if t.taken_back else [])]
        for r in t.refused:
            some = ", ".join(str(codes.get(at, at)) for at in r.locations[:NAMED_MAX])
            words.append(f"{r.why}: {some}{f' and {r.count - NAMED_MAX} more' if r.count > NAMED_MAX else ''}")
        told.append(f"{t.routing} › {t.rule}: {'; '.join(words)}.")
    cancel = f", cancelled after {trail.cancel_after_days} days" if trail.cancel_after_days is not None else ""
    left = f": {trail.left_units} units wait in {trail.queue}{cancel}" if trail.left_units else ""
    return [*told, f"{trail.ended[:1].upper()}{trail.ended[1:]}{left}."]
