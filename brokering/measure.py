"""What a plan comes to, order by order, by one yardstick: so that plans made by different policies may stand side by side."""

from collections import defaultdict
from collections.abc import Mapping

import msgspec

from brokering.book import Book
from brokering.cents import days_late, leaves, line_terms, miles_between, package_terms, policy_of
from brokering.problem import Assignment, Order, Plan, Problem


class OrderMeasure(msgspec.Struct, frozen=True):
    """An order in a plan: units of each line by location, cents by term, packages by location, miles, and its promise.

    `miles` are those of the packages whose distance is known. `on_time` is None where nothing was promised.
    """

    order_id: str
    at: dict[int, dict[int, int]]
    cents: dict[str, int]
    packages: list[int]
    miles: list[float]
    left_units: int
    on_time: bool | None

    @property
    def cost(self) -> int:
        """Cents of all terms."""
        return sum(self.cents.values())

    def units(self) -> dict[int, int]:
        """Location → units."""
        found: dict[int, int] = defaultdict(int)
        for there in self.at.values():
            for location, units in there.items():
                found[location] += units
        return dict(found)


def yardstick(problem: Problem) -> Problem:
    """The problem with what is preference taken away: no weights, no limits, every line in one piece."""

    def bare(policy: object) -> object:
        return msgspec.structs.replace(policy, weights={}, limits=(), unknown_distance="farthest")  # type: ignore[type-var]

    return msgspec.structs.replace(
        problem, policy=bare(problem.policy), policies=tuple(bare(p) for p in problem.policies)
    )


def measure(problem: Problem, plan: Plan, *, by_preference: bool = False) -> list[OrderMeasure]:
    """Each order of a plan, in the order of the problem, by the problem's yardstick (or as its policies weigh it).

    Raises ValueError for unknown lines.
    """
    book = Book(problem if by_preference else yardstick(problem))
    mine: dict[str, list[Assignment]] = defaultdict(list)
    for a in plan.assignments:
        if a.line_id not in book.lines or a.location_id not in book.locations:
            raise ValueError(
                f"the plan sends line {a.line_id} from location {a.location_id}: one of them is not in the problem"
            )
        mine[book.lines[a.line_id].order_id].append(a)
    lines: dict[str, list[int]] = defaultdict(list)
    for n in problem.lines:
        lines[n.order_id].append(n.line_id)
    return [_order(book, o, mine.get(o.order_id, []), lines[o.order_id]) for o in book.problem.orders]


def _order(book: Book, order: Order, assigned: list[Assignment], lines: list[int]) -> OrderMeasure:
    policy = policy_of(book.problem, order)
    at: dict[int, dict[int, int]] = {}
    cents: dict[str, int] = defaultdict(int)
    packages: dict[tuple[object, ...], Assignment] = {}
    for a in assigned:
        line = book.lines[a.line_id]
        packages.setdefault(book.package(order, a), a)
        there = at.setdefault(a.line_id, {})
        there[a.location_id] = there.get(a.location_id, 0) + a.quantity
        stock = book.stock(line.sku_id, a.location_id, a.day)
        _add(cents, line_terms(policy, order, line, book.locations[a.location_id], stock,
                               units=a.quantity, worth_cents=book.worth[line.sku_id]))  # fmt: skip
    miles, late = [], False
    for a in packages.values():
        place = book.locations[a.location_id]
        _add(cents, package_terms(policy, order, place, slot=a.slot, day=a.day))
        if order.location_id is None:
            if (far := miles_between(order, place)) is not None:
                miles.append(far)
            late = late or days_late(policy, order, place, slot=a.slot, day=a.day) > 0
        elif order.promise_days is not None:
            late = late or leaves(order, place, slot=a.slot, day=a.day) > order.promise_days
    left = 0
    for line_id in lines:
        rest = book.lines[line_id].quantity - sum(at.get(line_id, {}).values())
        if rest > 0:
            left += rest
            cents["left"] += book.leave_cents(book.lines[line_id], rest)
    on_time = None if order.promise_days is None else not late and not left
    return OrderMeasure(
        order.order_id, at, {name: c for name, c in cents.items() if c}, [a.location_id for a in packages.values()],
        miles, left, on_time,
    )  # fmt: skip


def _add(cents: dict[str, int], terms: Mapping[str, int]) -> None:
    for name, more in terms.items():
        cents[name] += more
