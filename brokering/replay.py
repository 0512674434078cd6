"""A whole day once more, arrival by arrival: orders as they came, stock as it changed, decided in turn or in batches."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import msgspec

from brokering.engine import broker
from brokering.online import Online, planned
from brokering.problem import Assignment, Decision, Line, Location, Order, Plan, Problem, Shadow, Stock

DAY_MINUTES = 1440.0
PRICE_STEPS = 60


class Change(msgspec.Struct, frozen=True):
    """Units that come to (or, negative, go from) a location at a minute of the day, by nobody's brokering."""

    minute: float
    sku_id: int
    location_id: int
    units: int


class Rhythm(msgspec.Struct, frozen=True):
    """How a day is decided: in batches every so many minutes, or without them one by one, with prices made anew
    `repriced` times in the day, evenly."""

    every_minutes: int | None = None
    repriced: int = 4

    def edges(self, minutes: float) -> list[float]:
        """The minutes at which a part of the day ends, the last at its end."""
        length = self.every_minutes if self.every_minutes is not None else minutes / max(1, self.repriced)
        found, at = [], float(length)
        while at < minutes:
            found.append(at)
            at += length
        return [*found, minutes]


Places = Callable[[float], list[Location]]
"""The locations at a minute: when what is asked then leaves. Their capacity is that of the whole day."""


def replay(
    problem: Problem,
    arrives: Mapping[str, float],
    changes: Sequence[Change],
    *,
    rhythm: Rhythm,
    places: Places | None = None,
    prices: Sequence[Shadow] = (),
    seconds: float = 10.0,
    seed: int = 0,
    minutes: float = DAY_MINUTES,
    steps_max: int | None = None,
) -> Plan:
    """Decides a day. `problem` is the day's start with all orders of the day; `arrives` says at which minute each came.

    What is decided stays; what stays open is tried again in the next part of the day. `seconds` are for each batch;
    `prices` those of runs before the day, by which its first part is decided one by one. Nothing bounds the cost.
    """
    day = _Day(problem, arrives, changes, places or (lambda _: problem.locations))
    limits = {"steps_max": steps_max, "pieces_max": 0} if steps_max is not None else {}
    start = 0.0
    for end in rhythm.edges(minutes):
        if rhythm.every_minutes is not None:
            day.change_until(end)
            part = day.part(end, arrived_by=end)
            if part.orders:
                day.take(part, broker(part, seconds=seconds, seed=seed, **limits))  # type: ignore[arg-type]
        else:
            day.in_turn(start, end, [*prices, *day.prices(start, seconds=seconds, seed=seed)])
        start = end
    return day.plan()


class _Day:
    """What is open, in stock and decided, as the day goes on."""

    def __init__(
        self, problem: Problem, arrives: Mapping[str, float], changes: Sequence[Change], places: Places
    ) -> None:
        self.problem, self.places = problem, places
        self.order = sorted(problem.orders, key=lambda o: (arrives[o.order_id], o.order_id))
        self.arrives = arrives
        self.changes = sorted(changes, key=lambda c: c.minute)
        self.changed = 0
        self.rows = {(s.sku_id, s.location_id, s.day): s for s in problem.stock}
        self.stock = {key: s.available for key, s in self.rows.items()}
        self.lines: dict[str, list[Line]] = defaultdict(list)
        for n in problem.lines:
            self.lines[n.order_id].append(n)
        self.open = {n.line_id: n.quantity for n in problem.lines}
        self.known = {n.line_id: n for n in problem.lines}
        self.there: dict[str, list[int]] = defaultdict(list)
        self.used: dict[int, list[int]] = defaultdict(lambda: [0, 0, 0])
        self.assignments: list[Assignment] = []
        self.decisions: dict[str, Decision] = {}
        self.terms: dict[str, int] = defaultdict(int)
        self.packages = 0
        self.last: Plan | None = None

    def change_until(self, minute: float) -> None:
        """Applies what came and went up to a minute."""
        while self.changed < len(self.changes) and self.changes[self.changed].minute <= minute:
            self._change(self.changes[self.changed])
            self.changed += 1

    def _change(self, c: Change) -> None:
        key = (c.sku_id, c.location_id, 0)
        self.stock[key] = self.stock.get(key, 0) + c.units

    def part(
        self, minute: float, *, arrived_by: float, coming: Mapping[tuple[int, int, int], int] | None = None
    ) -> Problem:
        """What is open of the orders that have arrived, with the stock and capacity that are left; `coming` on top."""
        orders = [o for o in self.order if self.arrives[o.order_id] <= arrived_by and self._is_open(o)]
        lines = [
            msgspec.structs.replace(n, quantity=self.open[n.line_id])
            for o in orders for n in self.lines[o.order_id] if self.open[n.line_id]
        ]  # fmt: skip
        more = coming or {}
        stock = []
        for key in {**self.stock, **more}:
            units = max(0, self.stock.get(key, 0)) + more.get(key, 0)
            if units > 0:
                row = self.rows.get(key) or Stock(key[0], key[1], 0, day=key[2])
                stock.append(msgspec.structs.replace(row, available=units))
        return msgspec.structs.replace(
            self.problem, orders=[self._rest(o) for o in orders], lines=lines, stock=stock,
            locations=[self._left(n) for n in self.places(minute)],
        )  # fmt: skip

    def _is_open(self, order: Order) -> bool:
        return any(self.open[n.line_id] for n in self.lines[order.order_id])

    def _rest(self, order: Order) -> Order:
        """What its split rule leaves to an order of which some is decided."""
        there = self.there.get(order.order_id)
        if not there:
            return order
        left = (order.split_max or 1) - len(there)
        if order.split in ("single", "keep_together") or (order.split == "max_packages" and left < 1):
            return msgspec.structs.replace(order, location_id=there[0])
        return msgspec.structs.replace(order, split_max=left) if order.split == "max_packages" else order

    def _left(self, n: Location) -> Location:
        orders, items, cents = self.used[n.location_id]

        def left(limit: int | None, used: int) -> int | None:
            return None if limit is None else max(0, limit - used)

        return msgspec.structs.replace(
            n, capacity_orders=left(n.capacity_orders, orders), capacity_items=left(n.capacity_items, items),
            capacity_cents=left(n.capacity_cents, cents),
        )  # fmt: skip

    def prices(self, minute: float, *, seconds: float, seed: int) -> list[Shadow]:
        """Prices of a run over what has come so far today, on what is left: what comes next is taken to be like it."""
        so_far = {o.order_id for o in self.order if self.arrives[o.order_id] <= minute}
        if not so_far:
            return []
        left = self.part(minute, arrived_by=minute)
        like = msgspec.structs.replace(
            left, orders=[o for o in self.problem.orders if o.order_id in so_far],
            lines=[n for n in self.problem.lines if n.order_id in so_far],
        )  # fmt: skip
        found = broker(like, seconds=seconds, seed=seed, steps_max=PRICE_STEPS, pieces_max=0, explain=False)
        return [found.prices]

    def in_turn(self, start: float, end: float, prices: Sequence[Shadow]) -> None:
        """Decides a part of the day one by one; what is open from before it comes first."""
        coming: dict[tuple[int, int, int], int] = defaultdict(int)
        ahead = self.changed
        while ahead < len(self.changes) and self.changes[ahead].minute <= end:
            c = self.changes[ahead]
            coming[c.sku_id, c.location_id, 0] += max(0, c.units)
            ahead += 1
        part = self.part(start, arrived_by=end, coming=coming)
        online, decided = Online(part, prices), []
        for (sku, location, _), units in coming.items():
            online.change(sku, location, -units)  # it is not there yet
        for o in part.orders:
            at = self.arrives[o.order_id]
            while self.changed < ahead and self.changes[self.changed].minute <= at:
                c = self.changes[self.changed]
                online.change(c.sku_id, c.location_id, c.units)
                self._change(c)
                self.changed += 1
            decided += online.decide(o.order_id)
        self.change_until(end)
        if part.orders:
            self.take(part, planned(part, decided))

    def take(self, part: Problem, found: Plan) -> None:
        """Books a part's plan: it stays."""
        packages: set[tuple[str, int]] = set()
        for a in found.assignments:
            line = self.known[a.line_id]
            self.open[a.line_id] -= a.quantity
            key = (line.sku_id, a.location_id, a.day)
            self.stock[key] = self.stock.get(key, 0) - a.quantity
            used = self.used[a.location_id]
            used[0] += (line.order_id, a.location_id) not in packages
            used[1] += a.quantity
            used[2] += a.quantity * line.value_cents
            packages.add((line.order_id, a.location_id))
            if a.location_id not in self.there[line.order_id]:
                self.there[line.order_id].append(a.location_id)
        self.assignments += found.assignments
        self.decisions.update({d.order_id: d for d in found.decisions})
        self.packages += found.packages
        for name, cents in found.cost_by_term.items():
            if name != "left":
                self.terms[name] += cents
        self.last = found

    def plan(self) -> Plan:
        """The day as one plan; what is left costs what it cost when it was last tried."""
        terms = dict(self.terms)
        if self.last is not None and "left" in self.last.cost_by_term:
            terms["left"] = self.last.cost_by_term["left"]
        unfilled = [u for u in self.last.unfilled if self.open[u.line_id]] if self.last is not None else []
        return Plan(
            self.assignments, unfilled, sum(terms.values()), 0, list(self.decisions.values()), {}, terms, self.packages
        )
