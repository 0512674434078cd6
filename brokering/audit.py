"""The law again, in plain Python, without a solver: what a legal plan must keep. Empty means legal."""

from collections import defaultdict
from collections.abc import Callable

from brokering.cents import leave_cents, line_cents, package_cents
from brokering.problem import Line, Order, Plan, Problem
from brokering.promises import keepable

Rule = Callable[[Problem, Plan], list[str]]
CENTS_SLACK = 0.001
"""Two ways of rounding half a cent may differ; per line."""


class Book:
    """A problem by its ids."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.lines = _lines(problem)
        self.orders = _orders(problem)
        self.locations = {n.location_id: n for n in problem.locations}
        self.members = {pool: frozenset(places) & self.locations.keys() for pool, places in problem.pools.items()}
        self.barred = {(b.order_id, b.sku_id, b.location_id) for b in problem.barred}
        self.stock_of: dict[int, dict[int, int]] = defaultdict(dict)
        self.markdown: dict[tuple[int, int], int] = {}
        for s in problem.stock:
            self.stock_of[s.sku_id][s.location_id] = max(0, s.available)
            self.markdown[s.sku_id, s.location_id] = s.markdown_cents
        self.worth: dict[int, int] = defaultdict(int)
        for n in problem.lines:
            self.worth[n.sku_id] = max(self.worth[n.sku_id], n.value_cents)

    def may_serve(self, order: Order, line: Line, place: int) -> bool:
        """In its pool, not where it was rejected, its own place where it has one."""
        if place not in self.members.get(line.pool_id, frozenset()) or order.location_id not in (None, place):
            return False
        if self.problem.policy.unknown_distance == "exclude" and order.location_id is None:
            location = self.locations[place]
            if None in (order.lat, order.lon, location.lat, location.lon):
                return False
        return (line.order_id, line.sku_id, place) not in self.barred

    def cents(self, order: Order, line: Line, place: int) -> int:
        """What a line costs from a place, its package aside."""
        return line_cents(
            self.problem.policy, order, line, self.locations[place],
            available=self.stock_of.get(line.sku_id, {}).get(place, 0),
            markdown_cents=self.markdown.get((line.sku_id, place), 0), worth_cents=self.worth[line.sku_id],
        )  # fmt: skip


def _lines(problem: Problem) -> dict[int, Line]:
    return {n.line_id: n for n in problem.lines}


def _orders(problem: Problem) -> dict[str, Order]:
    return {o.order_id: o for o in problem.orders}


def each_line_once(problem: Problem, plan: Plan) -> list[str]:
    """A line goes somewhere whole, or stays with a reason; never both, never twice."""
    lines, seen, faults = _lines(problem), set(), []
    for a in plan.assignments:
        if a.line_id not in lines or a.line_id in seen:
            faults.append(f"line {a.line_id} is assigned twice or is not in the problem")
        elif a.quantity != lines[a.line_id].quantity:
            faults.append(f"line {a.line_id} wants {lines[a.line_id].quantity}, {a.quantity} are assigned")
        seen.add(a.line_id)
    for u in plan.unfilled:
        if u.line_id in seen:
            faults.append(f"line {u.line_id} is both assigned and unfilled")
        if not u.reason:
            faults.append(f"line {u.line_id} stays without a reason")
        seen.add(u.line_id)
    return faults + [f"line {n} is neither assigned nor unfilled" for n in lines.keys() - seen]


def stock_suffices(problem: Problem, plan: Plan) -> list[str]:
    """No more units of a sku leave a location than are available there."""
    lines = _lines(problem)
    used: dict[tuple[int, int], int] = defaultdict(int)
    there = {(s.sku_id, s.location_id): s.available for s in problem.stock}
    for a in plan.assignments:
        used[lines[a.line_id].sku_id, a.location_id] += a.quantity
    return [
        f"sku {sku} at location {place}: {units} assigned, {there.get((sku, place), 0)} available"
        for (sku, place), units in used.items()
        if units > there.get((sku, place), 0)
    ]


def capacity_suffices(problem: Problem, plan: Plan) -> list[str]:
    """No location takes more orders, items or money than it may."""
    lines, faults = _lines(problem), []
    orders: dict[int, set[str]] = defaultdict(set)
    items: dict[int, int] = defaultdict(int)
    cents: dict[int, int] = defaultdict(int)
    for a in plan.assignments:
        line = lines[a.line_id]
        orders[a.location_id].add(line.order_id)
        items[a.location_id] += a.quantity
        cents[a.location_id] += line.value_cents * a.quantity
    for n in problem.locations:
        for what, used, most in (
            ("orders", len(orders[n.location_id]), n.capacity_orders),
            ("items", items[n.location_id], n.capacity_items),
            ("cents", cents[n.location_id], n.capacity_cents),
        ):
            if most is not None and used > max(0, most):
                faults.append(f"location {n.location_id} takes {used} {what}, may take {most}")
    return faults


def place_may_serve(problem: Problem, plan: Plan) -> list[str]:
    """A line is served from its pool, from its own place where it has one, and not where it was rejected."""
    book = Book(problem)
    faults = []
    for a in plan.assignments:
        line = book.lines[a.line_id]
        order = book.orders[line.order_id]
        if not book.may_serve(order, line, a.location_id):
            faults.append(f"line {a.line_id} of pool {line.pool_id} may not be served by location {a.location_id}")
    return faults


def split_is_kept(problem: Problem, plan: Plan) -> list[str]:
    """Each order keeps its split policy, and lines that belong together go together or stay together."""
    lines, faults = _lines(problem), []
    at: dict[str, dict[int, int]] = defaultdict(dict)
    for a in plan.assignments:
        at[lines[a.line_id].order_id][a.line_id] = a.location_id
    of_order: dict[str, list[Line]] = defaultdict(list)
    for n in problem.lines:
        of_order[n.order_id].append(n)
    for o in problem.orders:
        where = at.get(o.order_id, {})
        packages = len(set(where.values()))
        most = {"single": 1, "max_packages": o.split_max or 1}.get(o.split)
        if most is not None and packages > most:
            faults.append(f"order {o.order_id} goes from {packages} locations, {o.split} allows {most}")
        if o.split == "complete" and where and len(where) < len(of_order[o.order_id]):
            faults.append(f"order {o.order_id} must go complete or not at all")
        groups: dict[str, set[int | None]] = defaultdict(set)
        for n in of_order[o.order_id]:
            if n.together is not None:
                groups[n.together].add(where.get(n.line_id))
        faults += [
            f"order {o.order_id}: lines of group {name} do not stay together"
            for name, s in groups.items()
            if len(s) > 1
        ]
    return faults


def promises_are_kept(problem: Problem, plan: Plan) -> list[str]:
    """Promises to demand outside the run that could be kept before can be kept after."""
    lines = _lines(problem)
    used: dict[int, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    for a in plan.assignments:
        used[lines[a.line_id].sku_id][a.location_id] += a.quantity
    known = {n.location_id for n in problem.locations}
    stock: dict[int, dict[int, int]] = defaultdict(dict)
    for s in problem.stock:
        if s.location_id in known:
            stock[s.sku_id][s.location_id] = max(0, s.available)
    wanted: dict[int, list[tuple[frozenset[int], int]]] = defaultdict(list)
    for p in problem.protected:
        wanted[p.sku_id].append((frozenset(problem.pools.get(p.pool_id, ())), p.quantity))
    faults = []
    for sku, demands in wanted.items():
        here = stock[sku]
        before = keepable([(places & here.keys(), units) for places, units in demands], here)[0]
        after_stock = {place: units - used[sku][place] for place, units in here.items()}
        after = keepable([(places & here.keys(), units) for places, units in demands], after_stock)[0]
        if after < before:
            faults.append(f"sku {sku}: {before} units promised outside the run could be kept, {after} after it")
    return faults


def no_class_overtakes(problem: Problem, plan: Plan) -> list[str]:
    """What a higher class leaves did not go to a lower one: not its stock, not the work of its location.

    Told for orders that may split freely, line by line; a line that costs more to send than to leave loses nothing.
    """
    book = Book(problem)
    lowest = min((o.priority for o in problem.orders), default=0)
    where: dict[str, set[int]] = defaultdict(set)
    used: dict[tuple[int, int], int] = defaultdict(int)
    work: dict[int, tuple[set[str], int, int]] = {}
    by_class: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    at_place: dict[int, list[Line]] = defaultdict(list)
    for a in plan.assignments:
        line = book.lines[a.line_id]
        where[line.order_id].add(a.location_id)
        used[line.sku_id, a.location_id] += a.quantity
        by_class[line.sku_id, a.location_id].append((book.orders[line.order_id].priority, a.quantity))
        at_place[a.location_id].append(line)
    for place, lines in at_place.items():
        work[place] = (
            {n.order_id for n in lines}, sum(n.quantity for n in lines), sum(n.quantity * n.value_cents for n in lines)
        )  # fmt: skip
    promised = {p.sku_id for p in problem.protected}
    faults = []
    for u in plan.unfilled:
        line = book.lines[u.line_id]
        order = book.orders[line.order_id]
        if order.priority == lowest or order.split != "free" or line.together is not None or line.sku_id in promised:
            continue
        for place, available in book.stock_of.get(line.sku_id, {}).items():
            if not book.may_serve(order, line, place):
                continue
            lower = sum(units for p, units in by_class[line.sku_id, place] if p < order.priority)
            room = available - used[line.sku_id, place]
            location = book.locations[place]
            theirs = [n for n in at_place[place] if book.orders[n.order_id].priority < order.priority]
            orders, items, cents = work.get(place, (set(), 0, 0))
            free = [
                (location.capacity_orders, 0 if order.order_id in orders else 1, len(orders),
                 len({n.order_id for n in theirs})),
                (location.capacity_items, line.quantity, items, sum(n.quantity for n in theirs)),
                (location.capacity_cents, line.quantity * line.value_cents, cents,
                 sum(n.quantity * n.value_cents for n in theirs)),
            ]  # fmt: skip
            short = room < line.quantity or any(most is not None and most - now < more for most, more, now, _ in free)
            could = room + lower >= line.quantity and all(
                most is None or most - now + lost >= more for most, more, now, lost in free
            )
            if not (short and could):
                continue
            package = 0 if place in where[line.order_id] else package_cents(problem.policy, order, location)
            if package + book.cents(order, line, place) < leave_cents(problem.policy, order, line):
                faults.append(f"line {u.line_id} of class {order.priority} lost location {place} to a lower class")
                break
    return faults


def cost_is_true(problem: Problem, plan: Plan) -> list[str]:
    """The cost is what packages, lines and what is left add up to, in its terms and decisions too, above the bound."""
    book, faults, policy = Book(problem), [], problem.policy
    total, gone = 0, set()
    packages: set[tuple[str, int]] = set()
    for a in plan.assignments:
        line = book.lines[a.line_id]
        gone.add(a.line_id)
        packages.add((line.order_id, a.location_id))
        total += book.cents(book.orders[line.order_id], line, a.location_id)
    total += sum(package_cents(policy, book.orders[o], book.locations[n]) for o, n in packages)
    total += sum(leave_cents(policy, book.orders[n.order_id], n) for n in problem.lines if n.line_id not in gone)
    slack = len(problem.lines) * CENTS_SLACK
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
    each_line_once, stock_suffices, capacity_suffices, place_may_serve, split_is_kept, promises_are_kept,
    no_class_overtakes, cost_is_true,
)  # fmt: skip


def audit(problem: Problem, plan: Plan, rules: tuple[Rule, ...] = RULES) -> list[str]:
    """What is wrong with a plan, a sentence each; empty when it is legal."""
    if faults := each_line_once(problem, plan):
        return faults if each_line_once in rules else []
    return [fault for rule in rules for fault in rule(problem, plan)]
