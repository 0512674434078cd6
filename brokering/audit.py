"""The law again, in plain Python, without a solver: what a legal plan must keep. Empty means legal."""

from collections import defaultdict
from collections.abc import Callable

from brokering.problem import Line, Order, Plan, Problem
from brokering.protect import keepable

Rule = Callable[[Problem, Plan], list[str]]


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
    lines, used = _lines(problem), defaultdict(int)
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
    orders, items, cents = defaultdict(set), defaultdict(int), defaultdict(int)
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
    lines, orders, faults = _lines(problem), _orders(problem), []
    barred = {(b.order_id, b.sku_id, b.location_id) for b in problem.barred}
    members = {pool: set(locations) for pool, locations in problem.pools.items()}
    known = {n.location_id for n in problem.locations}
    for a in plan.assignments:
        line = lines[a.line_id]
        only = orders[line.order_id].location_id
        if a.location_id not in members.get(line.pool_id, set()) or a.location_id not in known:
            faults.append(f"line {a.line_id}: location {a.location_id} is not in pool {line.pool_id}")
        if only is not None and a.location_id != only:
            faults.append(f"line {a.line_id} is bound to location {only}, not {a.location_id}")
        if (line.order_id, line.sku_id, a.location_id) in barred:
            faults.append(f"line {a.line_id}: location {a.location_id} rejected it before")
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
    """A line of a higher class that found its stock taken did not lose it to a lower class."""
    lines, orders = _lines(problem), _orders(problem)
    taken: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
    for a in plan.assignments:
        line = lines[a.line_id]
        taken[line.sku_id].append((orders[line.order_id].priority, a.location_id, a.quantity))
    barred = {(b.order_id, b.sku_id, b.location_id) for b in problem.barred}
    alone = defaultdict(int)
    for n in problem.lines:
        alone[n.order_id] += 1
    faults = []
    for u in plan.unfilled:
        line = lines[u.line_id]
        order = orders[line.order_id]
        if u.reason != "taken" or alone[line.order_id] > 1:
            continue
        places = set(problem.pools.get(line.pool_id, ()))
        lost: dict[int, int] = defaultdict(int)
        for priority, place, units in taken[line.sku_id]:
            allowed = place in places and order.location_id in (None, place)
            if priority < order.priority and allowed and (line.order_id, line.sku_id, place) not in barred:
                lost[place] += units
        if any(units >= line.quantity for units in lost.values()):
            faults.append(f"line {u.line_id} of class {order.priority} lost its stock to a lower class")
    return faults


def cost_adds_up(problem: Problem, plan: Plan) -> list[str]:
    """The cost is what its terms and its decisions add up to, and not below the bound."""
    faults = []
    if plan.cost != sum(plan.cost_by_term.values()):
        faults.append(f"cost {plan.cost} is not the sum of its terms {sum(plan.cost_by_term.values())}")
    if plan.decisions and plan.cost != sum(sum(d.cents.values()) for d in plan.decisions):
        faults.append("cost is not the sum of its decisions")
    if plan.cost < plan.bound:
        faults.append(f"cost {plan.cost} lies below the bound {plan.bound}")
    return faults


RULES: tuple[Rule, ...] = (
    each_line_once, stock_suffices, capacity_suffices, place_may_serve, split_is_kept, promises_are_kept,
    no_class_overtakes, cost_adds_up,
)  # fmt: skip


def audit(problem: Problem, plan: Plan, rules: tuple[Rule, ...] = RULES) -> list[str]:
    """What is wrong with a plan, a sentence each; empty when it is legal."""
    return [fault for rule in rules for fault in rule(problem, plan)]
