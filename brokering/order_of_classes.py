"""The rule that no priority class is overtaken by a lower one, checked line by line."""

from collections import defaultdict

from brokering.book import Book
from brokering.problem import Assignment, Plan


def no_class_overtakes(book: Book, plan: Plan) -> list[str]:
    """What a higher class leaves did not go to a lower one: not its stock, not the work of its location.

    Told for orders that may split freely, part by part; a line that costs more to send than to leave loses nothing.
    """
    if book.problem.policy.overtaking:
        return []
    lowest = min((o.priority for o in book.problem.orders), default=0)
    promised = {p.sku_id for p in book.problem.protected}
    of_cell: dict[tuple[int, int, int], list[Assignment]] = defaultdict(list)
    at_place: dict[tuple[int, int | None, int], list[Assignment]] = defaultdict(list)
    packages_of: dict[str, set[tuple[int, int | None, int]]] = defaultdict(set)

    def class_of(a: Assignment) -> int:
        return book.orders[book.lines[a.line_id].order_id].priority

    for a in plan.assignments:
        line = book.lines[a.line_id]
        of_cell[line.sku_id, a.location_id, a.day].append(a)
        at_place[a.location_id, a.slot, a.day].append(a)
        if not line.alone:
            packages_of[line.order_id].add((a.location_id, a.slot, a.day))
    works = {at: _work(book, taken) for at, taken in at_place.items()}
    faults = []
    for line, units in book.left(plan):
        order = book.orders[line.order_id]
        if order.priority == lowest or order.split != "free" or line.together is not None or line.sku_id in promised:
            continue
        for (place, day), stock in book.stock_of.get(line.sku_id, {}).items():
            if place not in book.locations or not book.may_serve(order, line, place):
                continue
            slots = range(len(book.locations[place].slots)) if book.locations[place].slots and not day else [None]
            taken = of_cell[line.sku_id, place, day]
            room = max(0, stock.available) - sum(a.quantity for a in taken)
            lower = sum(a.quantity for a in taken if class_of(a) < order.priority)
            for slot in slots:
                if not book.keeps_limits(order, place, slot=slot, day=day):
                    continue
                here = (place, slot, day)
                goes = here in packages_of[line.order_id] and not line.alone
                now = works.get(here, (0, 0, 0))
                lost = _work(book, [a for a in at_place.get(here, []) if class_of(a) < order.priority])
                more = (0 if goes else 1, units, units * line.value_cents)
                limits = book.capacity(place, slot, day)
                most = (None,) * 3 if limits is None else (
                    limits.capacity_orders, limits.capacity_items, limits.capacity_cents
                )  # fmt: skip
                each = [(m, n, o, p) for m, n, o, p in zip(most, now, more, lost, strict=True) if m is not None]
                short = room < units or any(m - n < o for m, n, o, _ in each)
                if not short or room + lower < units or any(m - n + p < o for m, n, o, p in each):
                    continue
                package = 0 if goes else book.package_cents(order, place, slot=slot, day=day)
                cents = package + book.line_cents(order, line, place, units=units, day=day)
                if cents < book.leave_cents(line, units):
                    faults.append(
                        f"line {line.line_id} of class {order.priority} lost location {place} to a lower class"
                    )
                    break
    return list(dict.fromkeys(faults))


def _work(book: Book, taken: list[Assignment]) -> tuple[int, int, int]:
    """Packages, items and cents of assignments at one place."""
    packages = {book.package(book.orders[book.lines[a.line_id].order_id], a) for a in taken}
    return (
        len(packages),
        sum(a.quantity for a in taken),
        sum(a.quantity * book.lines[a.line_id].value_cents for a in taken),
    )
