"""Order routings followed rule by rule: one order at a time, greedily, with a trail of what each rule took and refused."""

from collections import Counter, defaultdict
from collections.abc import Sequence

import msgspec

from brokering.book import Book
from brokering.cents import line_terms, miles_between, package_terms, policy_of
from brokering.problem import Assignment, Line, Order, Plan, Problem, Unfilled
from brokering.routings import (
    QUEUE_OPEN,
    QUEUE_REJECTED,
    Asked,
    Routing,
    Routings,
    Rule,
    allows,
    in_turn,
    matches,
    oddities,
)
from brokering.taking import NO_STOCK, TAKEN, Bundle, Held, Taking
from brokering.trail import (
    FAR,
    GROUP,
    KEPT_BACK,
    MAY_NOT,
    NOT_ALL,
    NOT_COMPLETE,
    NOWHERE,
    SHOWN_MAX,
    WORTH,
    Refused,
    Routed,
    Tried,
    Way,
    Worked,
)  # fmt: skip


def without_classes(problem: Problem) -> Problem:
    """The problem as routings see it: their sorts alone say who goes first, so that a class may be overtaken."""
    return msgspec.structs.replace(problem, policy=msgspec.structs.replace(problem.policy, overtaking=True))


def route(problem: Problem, routings: Routings, asked: Sequence[Asked] = ()) -> Routed:
    """Follows routings on a problem; `asked` tells of orders what filters ask. The plan is legal for `without_classes`."""
    return _Run(without_classes(problem), routings, asked).routed()


class _Run:
    def __init__(self, problem: Problem, routings: Routings, asked: Sequence[Asked]) -> None:
        self.problem, self.routings = problem, routings
        self.book = Book(problem)
        self.taking = Taking(self.book)
        self.had = {
            sku: frozenset(place for (place, day), s in rows.items() if day == 0 and s.available > 0)
            for sku, rows in self.book.stock_of.items()
        }  # fmt: skip
        self.rank = {place: n for n, place in enumerate(routings.sequence)}
        lines: dict[str, list[Line]] = defaultdict(list)
        for n in problem.lines:
            lines[n.order_id].append(n)
        rejected = {b.order_id for b in problem.barred}
        known = {a.order_id: a for a in asked}
        self.orders: dict[str, Way] = {}
        for o in problem.orders:
            a = known.get(o.order_id) or Asked(o.order_id)
            queue = a.queue or (QUEUE_REJECTED if o.order_id in rejected else QUEUE_OPEN)
            self.orders[o.order_id] = Way(Held(self.book, o, lines[o.order_id]), a, queue)
        self.started_in = {order_id: o.queue for order_id, o in self.orders.items()}
        self.worked: dict[tuple[int, int], Counter[str]] = defaultdict(Counter)
        self.hints = oddities(routings, problem.locations)

    def routed(self) -> Routed:
        for at, routing in enumerate(self.routings.routings):
            waiting = [(o.held.order, o.asked) for o in self.orders.values() if o.held.open]
            mine = [(o, a) for o, a in waiting if matches(routing, o, a, queue=self.orders[o.order_id].queue)]
            self._hint(at, routing, len(mine))
            allowed = [frozenset(n.location_id for n in self.problem.locations if allows(r, n)) for r in routing.rules]
            for order, _ in in_turn(routing, mine):
                self._follow(self.orders[order.order_id], at, routing, allowed)
            self._hint_rules(at, routing, len(mine))
        rules = [
            Worked(r.name, rule.name, w["tried"], w["orders"], w["units"])
            for at, r in enumerate(self.routings.routings) for nth, rule in enumerate(r.rules)
            for w in [self.worked[at, nth]]
        ]  # fmt: skip
        return Routed(self._plan(), [o.trail() for o in self.orders.values()], rules, self.hints)

    def _follow(self, o: Way, at: int, routing: Routing, allowed: list[frozenset[int]]) -> None:
        """Tries a routing's rules on an order until nothing is open, or an action ends it."""
        o.is_routed = True
        had = len(o.held.got)
        o.ended = f"no rule of {routing.name} is left"
        for nth, rule in enumerate(routing.rules):
            o.tried.append(self._try(o.held, routing, rule, allowed[nth]))
            worked = self.worked[at, nth]
            worked["tried"] += 1
            if took := sum(o.tried[-1].took.values()):
                worked["orders"] += 1
                worked["units"] += took
            if not o.held.open:
                o.ended = f"allocated by {rule.name}"
                return
            if rule.cancel_after_days is not None:
                o.cancel_after_days = rule.cancel_after_days
            elif rule.clears_cancel:
                o.cancel_after_days = None
            if rule.queue is not None:
                o.queue, o.ended = rule.queue, f"moved to {rule.queue} by {rule.name}"
                break
        if o.held.order.split == "complete" and len(o.held.got) > had:
            self.taking.give_back(o.held, keep=had)
            o.tried[-1] = msgspec.structs.replace(o.tried[-1], taken_back=NOT_COMPLETE)

    def _try(self, held: Held, routing: Routing, rule: Rule, allowed: frozenset[int]) -> Tried:
        refused: dict[str, list[int]] = defaultdict(list)
        places = self._candidates(held, rule, allowed, refused)
        had = len(held.got)
        if rule.is_single:
            self._whole(held, places, refused)
        else:
            self._in_parts(held, rule, places, refused)
        back = None
        if rule.is_all_or_none and held.open and len(held.got) > had:
            self.taking.give_back(held, keep=had)
            back = NOT_ALL
        took: Counter[int] = Counter()
        for _, some in held.got[had:]:
            took.update({a.location_id: a.quantity for a in some} if len(some) == 1 else _units(some))
        told = [Refused(why, len(at), sorted(at)[:SHOWN_MAX]) for why, at in refused.items()]
        return Tried(routing.name, rule.name, dict(took), told, back)

    def _candidates(
        self, held: Held, rule: Rule, allowed: frozenset[int], refused: dict[str, list[int]]
    ) -> list[int]:  # fmt: skip
        """Locations that have something of what is open and may send it, as the rule sorts them."""
        order, book = held.order, self.book
        need: Counter[int] = Counter()
        for line, units in (piece for bundle in held.open for piece in bundle):
            need[line.sku_id] += units
        lines = [line for bundle in held.open for line, _ in bundle]
        pool = frozenset[int]().union(*(book.members.get(n.pool_id, frozenset()) for n in lines))
        stock: dict[int, dict[int, int]] = defaultdict(dict)
        for sku in need:
            for place, units in self.taking.room.get(sku, {}).items():
                if place in pool and units > 0:
                    stock[place][sku] = units
        if outside := pool - allowed:
            refused[GROUP] += outside
        without = (pool & allowed) - stock.keys()
        had = frozenset[int]().union(*(self.had.get(sku, frozenset()) for sku in need))
        for why, some in ((TAKEN, without & had), (NO_STOCK, without - had)):
            if some:
                refused[why] += some
        found: list[tuple[tuple[float, ...], int]] = []
        for place in stock.keys() & allowed:
            if not any(book.may_serve(order, line, place) for line in lines):
                refused[MAY_NOT].append(place)
                continue
            miles = miles_between(order, book.locations[place])
            if rule.miles_max is not None and order.location_id is None and (miles is None or miles > rule.miles_max):
                refused[NOWHERE if miles is None else FAR].append(place)
            elif self._kept_back(rule, held, place, stock[place]):
                refused[KEPT_BACK].append(place)
            else:
                found.append((self._key(rule, place, miles, stock[place], need), place))
        return [place for _, place in sorted(found)]

    def _kept_back(self, rule: Rule, held: Held, place: int, stock: dict[int, int]) -> bool:
        """Whether a place has too few units, before anything is taken: of any line for the whole, else of every one."""
        skus = {line.sku_id for bundle in held.open for line, _ in bundle}
        short = [stock.get(sku, 0) < rule.stock_min for sku in skus]
        return any(short) if rule.is_single else all(short)

    def _key(
        self, rule: Rule, place: int, miles: float | None, stock: dict[int, int], need: Counter[int]
    ) -> tuple[float, ...]:  # fmt: skip
        """The rule's sorts, then most lines, then most of what is needed, then the location's number."""
        far = float("inf")
        of = {
            "distance": far if miles is None else miles, "stock": -float(sum(stock.values())),
            "sequence": float(self.rank.get(place, len(self.rank))),
        }  # fmt: skip
        whole = sum(stock.get(sku, 0) >= units for sku, units in need.items())
        share = max(stock[sku] / need[sku] for sku in stock)
        return (*(of[name] for name in rule.sorts), -whole, -share, place)

    def _whole(self, held: Held, places: list[int], refused: dict[str, list[int]]) -> None:
        wanted = list(held.open)
        for place in places:
            why = self._why_not(held, place, wanted)
            if not isinstance(why, str):
                self.taking.take(held, place, why[0], wanted)
                return
            refused[why].append(place)

    def _in_parts(self, held: Held, rule: Rule, places: list[int], refused: dict[str, list[int]]) -> None:
        for place in places:
            chosen: list[Bundle] = []
            slot: tuple[int | None] | None = None
            first = None
            room = {n.sku_id: self.taking.room[n.sku_id].get(place, 0) for b in held.open for n, _ in b}
            for bundle in held.open:
                kept = any(room[line.sku_id] < rule.stock_min for line, _ in bundle)
                why = KEPT_BACK if kept else self._why_not(held, place, [*chosen, bundle])
                if isinstance(why, str):
                    first = first or why
                else:
                    chosen.append(bundle)
                    slot = why
            worth = sum(line.value_cents * units for bundle in chosen for line, units in bundle)
            is_part = len(chosen) < len(held.open) or bool(held.got)
            if chosen and is_part and worth < rule.value_cents_min:
                refused[WORTH].append(place)
            elif slot is not None:
                self.taking.take(held, place, slot[0], chosen)
            else:
                refused[first or NO_STOCK].append(place)
            if not held.open:
                return

    def _why_not(self, held: Held, place: int, bundles: list[Bundle]) -> str | tuple[int | None]:
        for line in (line for bundle in bundles for line, _ in bundle):
            if not self.book.may_serve(held.order, line, place):
                return MAY_NOT
        return self.taking.why_not(held, place, bundles)

    def _hint(self, at: int, routing: Routing, met: int) -> None:
        if met or not self.orders:
            return
        would = [
            o for o in self.orders.values()
            if matches(routing, o.held.order, o.asked, queue=self.started_in[o.held.order.order_id])
        ]  # fmt: skip
        if not would:
            self.hints.append(f"{routing.name} matches no order")
        else:
            before = {t.routing for o in would for t in o.tried}
            self.hints.append(f"{routing.name} is never reached: {', '.join(sorted(before))} take all of its orders")

    def _hint_rules(self, at: int, routing: Routing, met: int) -> None:
        for nth, rule in enumerate(routing.rules):
            worked = self.worked[at, nth]
            if met and not worked["tried"]:
                self.hints.append(f"{routing.name} › {rule.name} is never reached: the rules before it take everything")
            elif met and not worked["orders"]:
                self.hints.append(f"{routing.name} › {rule.name} allocates nothing: tried on {worked['tried']} orders")

    def _plan(self) -> Plan:
        """What orders have got, its cost added up by the problem's policies."""
        assignments: list[Assignment] = []
        decisions, packages = [], 0
        for o in self.orders.values():
            mine = [a for _, some in o.held.got for a in some]
            terms: Counter[str] = Counter()
            assignments += mine
            packages += self._add(terms, o.held.order, mine)
            left = [(line, units) for bundle in o.held.open for line, units in bundle]
            terms["left"] += sum(self.book.leave_cents(line, units) for line, units in left)
            decisions.append(o.decision({term: c for term, c in terms.items() if c}))
        by_term: Counter[str] = Counter()
        for d in decisions:
            by_term.update(d.cents)
        cost = sum(by_term.values())
        open_lines = {n.line_id: (o, n) for o in self.orders.values() for bundle in o.held.open for n, _ in bundle}
        unfilled = [Unfilled(line_id, o.why_left()) for line_id, (o, _) in open_lines.items()]
        return Plan(assignments, unfilled, cost, min(0, cost), decisions, {}, dict(by_term), packages)

    def _add(self, terms: Counter[str], order: Order, mine: list[Assignment]) -> int:
        policy, book = policy_of(self.problem, order), self.book
        packages = {}
        for a in mine:
            line = book.lines[a.line_id]
            packages[book.package(order, a)] = a
            stock = book.stock(line.sku_id, a.location_id, a.day)
            terms.update(
                line_terms(policy, order, line, book.locations[a.location_id], stock, units=a.quantity,
                           worth_cents=book.worth[line.sku_id])
            )  # fmt: skip
        for a in packages.values():
            terms.update(package_terms(policy, order, book.locations[a.location_id], slot=a.slot, day=a.day))
        return len(packages)


def _units(some: list[Assignment]) -> Counter[int]:
    found: Counter[int] = Counter()
    for a in some:
        found[a.location_id] += a.quantity
    return found
