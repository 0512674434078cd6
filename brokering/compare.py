"""Plans of one problem side by side: what each costs by one yardstick, and which orders move from one to another, and why."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence

import msgspec

from brokering.book import Book
from brokering.cents import parts
from brokering.measure import OrderMeasure, measure
from brokering.problem import Candidate, Order, Plan, Problem

WhyNot = Callable[[str, int], str | None]
"""Why an order did not go from a location, where it is known."""
MOVED_SHOWN = 1_000
DEARER, OTHER_PLACE = "dearer", "the rules came to another place first"


class Load(msgspec.Struct, frozen=True):
    """What a plan asks of a location."""

    location_id: int
    packages: int
    units: int


class Figures(msgspec.Struct, frozen=True):
    """A plan in figures, all by the same yardstick. Shares are of orders: split of those that go, on time of those promised.

    `cost_by_term` in cents, of all orders. `own_cents` is what the plan cost by its own policy's weights. `miles` is the
    mean of a package whose distance is known. `emptied` counts skus of stores that had some and are left with none.
    """

    orders: int
    cost_cents: int
    cents_per_order: float
    cost_by_term: dict[str, int]
    own_cents: int
    packages: int
    split_share: float
    miles: float | None
    on_time_share: float | None
    unfilled_orders: int
    unfilled_lines: int
    unfilled_units: int
    unfilled: dict[str, int]
    load: list[Load]
    emptied: int
    stores_with_emptied: int


class Reason(msgspec.Struct, frozen=True):
    """Why a location has less of an order than before; without a location, why lines stay open."""

    location_id: int | None
    why: str


class Moved(msgspec.Struct, frozen=True):
    """An order that goes from elsewhere: units by location, and cents by term, before and after."""

    order_id: str
    was: dict[int, int]
    becomes: dict[int, int]
    cents_was: dict[str, int]
    cents_becomes: dict[str, int]
    cents_more: int
    why: list[Reason]


class Moves(msgspec.Struct, frozen=True):
    """The orders that move from the base's plan to another: how many, by reason, and those whose cents change most."""

    orders: int
    cents_more: int
    why: dict[str, int]
    shown: list[Moved]


class Comparison(msgspec.Struct, frozen=True):
    """Plans by name, and what moves from the base (the first) to each of the others."""

    base: str
    plans: dict[str, Figures]
    moves: dict[str, Moves]


def compare(
    problem: Problem,
    plans: Mapping[str, Plan],
    *,
    problems: Mapping[str, Problem] | None = None,
    by_rules: Mapping[str, WhyNot] | None = None,
    moved_max: int = MOVED_SHOWN,
) -> Comparison:
    """Compares plans of the same orders, the first of them the base.

    Costs are measured by the problem's policies without their weights and limits. `problems` are those that the plans were
    made from (the same orders, their own policies): they tell which location a policy did not allow. Plans `by_rules`
    weighed no cost: theirs tell why an order did not go from a location. Raises ValueError without a plan, or where a plan names what is not in the problem.
    """
    if not plans:
        raise ValueError("there is no plan to compare; give one at least")
    measured = {name: measure(problem, plan) for name, plan in plans.items()}
    base = next(iter(plans))
    return Comparison(
        base,
        {name: _figures(problem, plan, measured[name]) for name, plan in plans.items()},
        {
            name: _moves(
                (problems or {}).get(name, problem),
                plan,
                measured[base],
                measured[name],
                moved_max=moved_max,
                why_not=(by_rules or {}).get(name),
            )
            for name, plan in plans.items()
            if name != base
        },
    )


def _figures(problem: Problem, plan: Plan, orders: Sequence[OrderMeasure]) -> Figures:
    by_term: Counter[str] = Counter()
    packages: Counter[int] = Counter()
    units: Counter[int] = Counter()
    for o in orders:
        by_term.update(o.cents)
        packages.update(o.packages)
        units.update(o.units())
    miles = [far for o in orders for far in o.miles]
    promised = [o.on_time for o in orders if o.on_time is not None]
    gone = [o for o in orders if o.packages]
    cost = sum(by_term.values())
    quantity = {n.line_id: n.quantity for n in problem.lines}
    sent: Counter[int] = Counter()
    for a in plan.assignments:
        sent[a.line_id] += a.quantity
    emptied = _emptied(problem, plan)
    return Figures(
        orders=len(orders), cost_cents=cost, cents_per_order=round(cost / max(1, len(orders)), 2),
        cost_by_term={name: cents for name, cents in sorted(by_term.items()) if cents}, own_cents=plan.cost,
        packages=packages.total(), split_share=round(sum(len(o.packages) > 1 for o in gone) / max(1, len(gone)), 4),
        miles=round(sum(miles) / len(miles), 1) if miles else None,
        on_time_share=round(sum(promised) / len(promised), 4) if promised else None,
        unfilled_orders=sum(o.left_units > 0 for o in orders),
        unfilled_lines=sum(sent[line] < wanted for line, wanted in quantity.items()),
        unfilled_units=sum(o.left_units for o in orders), unfilled=dict(Counter(u.reason for u in plan.unfilled)),
        load=[Load(n, packages[n], units[n]) for n in sorted(packages, key=lambda n: (-packages[n], n))],
        emptied=len(emptied), stores_with_emptied=len({location for _, location in emptied}),
    )  # fmt: skip


def _emptied(problem: Problem, plan: Plan) -> list[tuple[int, int]]:
    """(sku, store) that had some now and are left with none."""
    sku_of = {n.line_id: n.sku_id for n in problem.lines}
    taken: Counter[tuple[int, int]] = Counter()
    for a in plan.assignments:
        if a.day == 0:
            taken[sku_of[a.line_id], a.location_id] += a.quantity
    stores = {n.location_id for n in problem.locations if n.kind == "store"}
    had: Counter[tuple[int, int]] = Counter()
    for s in problem.stock:
        if s.day == 0 and s.location_id in stores:
            had[s.sku_id, s.location_id] += s.available
    return [key for key, units in taken.items() if 0 < had[key] <= units]


def _moves(
    problem: Problem, plan: Plan, base: Sequence[OrderMeasure], orders: Sequence[OrderMeasure], *, moved_max: int,
    why_not: WhyNot | None,
) -> Moves:  # fmt: skip
    told = _Told(problem, plan, why_not=why_not)
    found = []
    for was, becomes in zip(base, orders, strict=True):
        if was.at != becomes.at:
            found.append(
                Moved(
                    was.order_id, was.units(), becomes.units(), was.cents, becomes.cents, becomes.cost - was.cost,
                    told.why(was, becomes),
                )
            )  # fmt: skip
    found.sort(key=lambda m: (-abs(m.cents_more), m.order_id))
    reasons = Counter(why for m in found for why in {r.why for r in m.why})
    return Moves(
        len(found), sum(m.cents_more for m in found), dict(sorted(reasons.items(), key=lambda r: -r[1])), found[:moved_max]
    )  # fmt: skip


class _Told:
    """What a plan and its problem tell of why an order does not go from somewhere."""

    def __init__(self, problem: Problem, plan: Plan, *, why_not: WhyNot | None) -> None:
        self.book, self.why_not = Book(problem), why_not
        self.lines: dict[str, list[int]] = defaultdict(list)
        for n in problem.lines:
            self.lines[n.order_id].append(n.line_id)
        self.unfilled = {u.line_id: u.reason for u in plan.unfilled}
        self.candidates: dict[tuple[str, int], Candidate] = {
            (d.order_id, c.location_id): c for d in plan.decisions for c in d.candidates
        }
        self.left = {(s.sku_id, s.location_id): s.available for s in problem.stock if s.day == 0}
        for a in plan.assignments:
            key = (self.book.lines[a.line_id].sku_id, a.location_id)
            self.left[key] = self.left.get(key, 0) - a.quantity

    def why(self, was: OrderMeasure, becomes: OrderMeasure) -> list[Reason]:
        order = self.book.orders[was.order_id]
        found: dict[Reason, None] = {}
        for line_id, before in was.at.items():
            after = becomes.at.get(line_id, {})
            for location, units in before.items():
                if after.get(location, 0) < units:
                    found[
                        Reason(location, self._not_from(order, line_id, location, units - after.get(location, 0)))
                    ] = None
        for line_id in self.lines[was.order_id]:
            before_units, after_units = (sum(m.at.get(line_id, {}).values()) for m in (was, becomes))
            if after_units < before_units and line_id in self.unfilled:
                found[Reason(None, f"left open: {self.unfilled[line_id]}")] = None
            elif after_units > before_units:
                found[Reason(None, "was left open before")] = None
        return list(found)

    def _not_from(self, order: Order, line_id: int, location: int, units: int) -> str:
        line, problem = self.book.lines[line_id], self.book.problem
        if not self.book.keeps_limits(order, location, slot=None, day=0):
            return "the policy does not allow it"
        if not self.book.may_serve(order, line, location):
            return "it may not serve it"
        if self.why_not is not None and (why := self.why_not(order.order_id, location)) is not None:
            return why
        candidate = self.candidates.get((order.order_id, location))
        if candidate is not None and candidate.fell_out is not None:
            return candidate.fell_out
        if self.book.stock(line.sku_id, location, 0).available < units:
            return "no stock"
        if self.left.get((line.sku_id, location), 0) < min(parts(problem, order, line)):
            return "its stock went to other orders"
        return DEARER if self.why_not is None else OTHER_PLACE
