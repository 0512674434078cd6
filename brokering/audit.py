"""The law again, in plain Python, without a solver: what a legal plan must keep. Empty means legal."""

from collections import Counter, defaultdict
from collections.abc import Callable

from brokering.book import Book
from brokering.order_of_classes import no_class_overtakes
from brokering.problem import Assignment, Line, Plan, Problem
from brokering.promises import keepable

Rule = Callable[[Book, Plan], list[str]]
CENTS_SLACK = 0.001
"""Two ways of rounding half a cent may differ; per line."""
MINUTES_SLACK = 1e-6


def each_line_once(book: Book, plan: Plan) -> list[str]:
    """A line goes somewhere whole, or stays with a reason; where its policy splits units, this holds for each part."""
    faults: list[str] = []
    gone: dict[int, list[int]] = defaultdict(list)
    stays = Counter(u.line_id for u in plan.unfilled)
    for a in plan.assignments:
        gone[a.line_id].append(a.quantity)
        at = book.locations.get(a.location_id)
        if at is not None and at.slots and a.slot is None and a.day == 0:
            faults.append(f"line {a.line_id} goes from location {a.location_id}, which has slots, in none of them")
    for line_id in (gone.keys() | stays.keys()) - book.lines.keys():
        faults.append(f"line {line_id} is not in the problem")
    faults += [f"line {u.line_id} stays without a reason" for u in plan.unfilled if not u.reason]
    for line in book.lines.values():
        rest = Counter(book.parts(line))
        units = Counter(gone.get(line.line_id, []))
        if units - rest:
            faults.append(
                f"line {line.line_id} goes in parts of {sorted(units.elements())}, has {sorted(rest.elements())}"
            )
        elif bool((rest - units).total()) != bool(stays[line.line_id]) or stays[line.line_id] > 1:
            faults.append(f"line {line.line_id} is neither assigned nor unfilled, or both, or twice")
    return faults


def stock_suffices(book: Book, plan: Plan) -> list[str]:
    """No more units of a sku leave a location than are available there, day by day of their coming in."""
    used: dict[tuple[int, int, int], int] = defaultdict(int)
    for a in plan.assignments:
        used[book.lines[a.line_id].sku_id, a.location_id, a.day] += a.quantity
    return [
        f"sku {sku} at location {place} from day {day}: {units} assigned, {book.stock(sku, place, day).available} available"
        for (sku, place, day), units in used.items()
        if units > book.stock(sku, place, day).available
    ]


def capacity_suffices(book: Book, plan: Plan) -> list[str]:
    """No location, and no slot of one, takes more orders, items or money than it may."""
    faults: list[str] = []
    packages: dict[tuple[int, int | None], set[tuple[object, ...]]] = defaultdict(set)
    items: dict[tuple[int, int | None], int] = defaultdict(int)
    cents: dict[tuple[int, int | None], int] = defaultdict(int)
    for a in plan.assignments:
        if a.day == 0:
            line, at = book.lines[a.line_id], (a.location_id, a.slot)
            packages[at].add(book.package(book.orders[line.order_id], a))
            items[at] += a.quantity
            cents[at] += line.value_cents * a.quantity
    for (place, slot), those in packages.items():
        room = book.capacity(place, slot, 0)
        if room is None:
            continue
        for what, used, most in (
            ("orders", len(those), room.capacity_orders),
            ("items", items[place, slot], room.capacity_items),
            ("cents", cents[place, slot], room.capacity_cents),
        ):
            if most is not None and used > max(0, most):
                where = f"location {place}" if slot is None else f"slot {slot} of location {place}"
                faults.append(f"{where} takes {used} {what}, may take {most}")
    return faults


def labor_suffices(book: Book, plan: Plan) -> list[str]:
    """No location works more minutes than it has."""
    faults: list[str] = []
    for labor in book.problem.labor:
        here = [a for a in plan.assignments if a.location_id == labor.location_id]
        packages = {book.package(book.orders[book.lines[a.line_id].order_id], a) for a in here}
        minutes = labor.package_minutes * len(packages) + labor.line_minutes * len(here)
        minutes += labor.unit_minutes * sum(a.quantity for a in here)
        if minutes > labor.minutes_max + MINUTES_SLACK:
            faults.append(f"location {labor.location_id} works {minutes:g} minutes, has {labor.minutes_max:g}")
    return faults


def place_may_serve(book: Book, plan: Plan) -> list[str]:
    """A line is served from its pool, from its own place where it has one, and not where it was rejected."""
    faults = []
    for a in plan.assignments:
        line = book.lines[a.line_id]
        if not book.may_serve(book.orders[line.order_id], line, a.location_id):
            faults.append(f"line {a.line_id} of pool {line.pool_id} may not be served by location {a.location_id}")
    return faults


def limits_are_kept(book: Book, plan: Plan) -> list[str]:
    """No package breaks a hard limit of its policy: kind, group, distance, days late."""
    return [
        f"line {a.line_id} goes from location {a.location_id} beyond a hard limit of its policy"
        for a in plan.assignments
        if not book.keeps_limits(book.orders[book.lines[a.line_id].order_id], a.location_id, slot=a.slot, day=a.day)
    ]


def split_is_kept(book: Book, plan: Plan) -> list[str]:
    """Each order keeps its split policy, and lines that belong together go together or stay together."""
    faults: list[str] = []
    gone: dict[int, list[Assignment]] = defaultdict(list)
    for a in plan.assignments:
        gone[a.line_id].append(a)
    of_order: dict[str, list[Line]] = defaultdict(list)
    for n in book.problem.lines:
        of_order[n.order_id].append(n)
    staying = {line.line_id for line, _ in book.left(plan)}
    for o in book.problem.orders:
        lines = [n for n in of_order[o.order_id] if not n.alone]
        packages = len({(a.location_id, a.slot, a.day) for n in lines for a in gone[n.line_id]})
        most = {"single": 1, "max_packages": o.split_max or 1}.get(o.split)
        if most is not None and packages > most:
            faults.append(f"order {o.order_id} goes in {packages} packages, {o.split} allows {most}")
        if o.split == "complete" and packages and any(n.line_id in staying for n in lines):
            faults.append(f"order {o.order_id} must go complete or not at all")
        groups: dict[str, set[tuple[object, ...]]] = defaultdict(set)
        for n in lines:
            if n.together is not None:
                groups[n.together] |= {(a.location_id, a.slot, a.day) for a in gone[n.line_id]} or {()}
        faults += [
            f"order {o.order_id}: lines of group {name} do not stay together"
            for name, s in groups.items()
            if len(s) > 1
        ]
    return faults


def promises_are_kept(book: Book, plan: Plan) -> list[str]:
    """Promises to demand outside the run that could be kept before can be kept after, from what is there now."""
    used: dict[int, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    for a in plan.assignments:
        if a.day == 0:
            used[book.lines[a.line_id].sku_id][a.location_id] += a.quantity
    wanted: dict[int, list[tuple[frozenset[int], int]]] = defaultdict(list)
    for p in book.problem.protected:
        wanted[p.sku_id].append((frozenset(book.problem.pools.get(p.pool_id, ())), p.quantity))
    faults = []
    for sku, demands in wanted.items():
        rows = book.stock_of.get(sku, {}).items()
        here = {place: max(0, s.available) for (place, day), s in rows if day == 0 and place in book.locations}
        before = keepable([(places & here.keys(), units) for places, units in demands], here)[0]
        after_stock = {place: units - used[sku][place] for place, units in here.items()}
        after = keepable([(places & here.keys(), units) for places, units in demands], after_stock)[0]
        if after < before:
            faults.append(f"sku {sku}: {before} units promised outside the run could be kept, {after} after it")
    return faults


def cost_is_true(book: Book, plan: Plan) -> list[str]:
    """The cost is what packages, lines and what is left add up to, in its terms and decisions too, above the bound."""
    faults: list[str] = []
    total = 0
    packages: dict[tuple[object, ...], Assignment] = {}
    for a in plan.assignments:
        line = book.lines[a.line_id]
        order = book.orders[line.order_id]
        packages[book.package(order, a)] = a
        total += book.line_cents(order, line, a.location_id, units=a.quantity, day=a.day)
    for a in packages.values():
        order = book.orders[book.lines[a.line_id].order_id]
        total += book.package_cents(order, a.location_id, slot=a.slot, day=a.day)
    total += sum(book.leave_cents(line, units) for line, units in book.left(plan))
    slack = len(book.problem.lines) * CENTS_SLACK
    if abs(plan.cost - total) > slack:
        faults.append(f"cost is {plan.cost}, its packages and lines add up to {total}")
    if plan.packages != len(packages):
        faults.append(f"{plan.packages} packages are told, {len(packages)} are planned")
    if plan.cost != sum(plan.cost_by_term.values()):
        faults.append(f"cost {plan.cost} is not the sum of its terms {sum(plan.cost_by_term.values())}")
    if plan.decisions and plan.cost != sum(sum(d.cents.values()) for d in plan.decisions):
        faults.append("cost is not the sum of its decisions")
    if plan.cost < plan.bound:
        faults.append(f"cost {plan.cost} lies below the bound {plan.bound}")
    return faults


RULES: tuple[Rule, ...] = (
    each_line_once, stock_suffices, capacity_suffices, labor_suffices, place_may_serve, limits_are_kept, split_is_kept,
    promises_are_kept, no_class_overtakes, cost_is_true,
)  # fmt: skip


def audit(problem: Problem, plan: Plan, rules: tuple[Rule, ...] = RULES) -> list[str]:
    """What is wrong with a plan, a sentence each; empty when it is legal."""
    book = Book(problem)
    if faults := each_line_once(book, plan):
        return faults if each_line_once in rules else []
    return [fault for rule in rules for fault in rule(book, plan)]
