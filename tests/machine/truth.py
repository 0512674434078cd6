"""What must be, in plain Python: stock, promises and states of a small network, said without the code that is tested.

Every number that is a sum (allocated, reserved, capacity, ATP) is summed here from what it is made of, each time.
"""

from collections import Counter
from dataclasses import dataclass, field
from datetime import date, datetime
from uuid import UUID

SKUS = ("A", "B")
LOCATIONS = ("W1", "S1", "S2")
POOLS = {"web": frozenset({"W1", "S1"}), "local": frozenset({"S1", "S2"})}
VALUE_CENTS, PRICE_CENTS = 600, 1000
LIMIT_CENTS = 2000
RECOUNT_UNITS = 3
WORKING = ("released", "accepted", "picked", "packed", "ready")
UNPICKED = ("released", "accepted")
RANK = {"released": 0, "accepted": 1, "picked": 2, "packed": 3, "ready": 3, "shipped": 4, "handed_over": 4}
STEPS = {"accept": 1, "pick": 2, "pack": 3, "ship": 4}
RECEIPT_HOLD = {"W1": "until_baseline", "S1": "until_released", "S2": "until_released"}

Key = tuple[str, str]


@dataclass
class Reservation:
    channel: str
    location: str | None
    units: dict[str, int]
    is_live: bool = True
    is_due: bool = False


@dataclass
class Line:
    sku: str
    quantity: int
    open: int
    allocated: int = 0
    shipped: int = 0
    cancelled: int = 0
    returned: int = 0
    hold: str | None = None
    version: int = 1


@dataclass
class Order:
    channel: str
    number: str
    pickup: str | None
    lines: dict[str, Line]


@dataclass
class Part:
    given: int
    quantity: int
    picked: int = 0


@dataclass
class Work:
    order: UUID
    location: str
    day: date
    lines: dict[str, Part]
    state: str = "released"
    picker: str | None = None
    has_left: bool = False


@dataclass
class Loss:
    location: str
    day: date
    who: str
    cents: int
    state: str
    units: dict[str, int] = field(default_factory=dict)
    of_count: UUID | None = None


class Truth:
    """All that must be true at a moment."""

    def __init__(self) -> None:
        self.on_hand: Counter[Key] = Counter()
        self.holds: Counter[tuple[str, str, str]] = Counter()
        self.log: list[tuple[Key, datetime, int]] = []
        self.counted_at: dict[Key, datetime] = {}
        self.reservations: dict[UUID, Reservation] = {}
        self.orders: dict[UUID, Order] = {}
        self.works: dict[UUID, Work] = {}
        self.expected: Counter[tuple[str, str, str]] = Counter()
        self.losses: dict[UUID, Loss] = {}
        self.refunds: set[str] = set()
        self.rejected: set[tuple[UUID, str, str]] = set()
        self.resting: set[Key] = set()

    # sums

    def held(self, key: Key) -> int:
        return sum(units for (sku, location, _), units in self.holds.items() if (sku, location) == key)

    def parts(self, key: Key, states: tuple[str, ...]) -> list[Part]:
        return [
            part
            for work in self.works.values()
            if work.location == key[1] and work.state in states
            for line, part in work.lines.items()
            if self.orders[work.order].lines[line].sku == key[0]
        ]

    def hands(self, key: Key) -> int:
        """Units that are picked and have not left."""
        return sum(part.picked for part in self.parts(key, WORKING))

    def allocated(self, key: Key) -> int:
        here = [r for r in self.reservations.values() if r.is_live and r.location == key[1]]
        return sum(r.units.get(key[0], 0) for r in here) + sum(p.quantity for p in self.parts(key, WORKING))

    def reserved(self, sku: str, pool: str) -> int:
        live = [r for r in self.reservations.values() if r.is_live and r.location is None and r.channel == pool]
        lines = [n for o in self.orders.values() if o.channel == pool for n in o.lines.values() if n.sku == sku]
        return sum(r.units.get(sku, 0) for r in live) + sum(n.open for n in lines)

    def available(self, key: Key) -> int:
        return max(0, self.on_hand[key] - self.held(key) - self.allocated(key))

    def margin(self, sku: str, places: frozenset[str]) -> int:
        """m(S): the least that is left of S and any pools with it, when those pools have taken what they were promised."""
        choices: tuple[tuple[str, ...], ...] = ((), ("web",), ("local",), ("web", "local"))
        return min(
            sum(self.available((sku, at)) for at in places.union(*(POOLS[p] for p in pools)))
            - sum(self.reserved(sku, p) for p in pools)
            for pools in choices
        )

    def atp(self, sku: str, places: frozenset[str]) -> int:
        return self.margin(sku, places) - self.margin(sku, frozenset())

    def lost(self, location: str, day: date, who: str) -> int:
        return sum(
            n.cents
            for n in self.losses.values()
            if (n.location, n.day, n.who, n.state) == (location, day, who, "applied")
        )

    def capacity(self) -> Counter[tuple[str, date, str]]:
        used: Counter[tuple[str, date, str]] = Counter()
        for work in self.works.values():
            if work.state not in ("rejected", "recalled"):
                units = sum(part.quantity for part in work.lines.values())
                for what, much in (("orders", 1), ("items", units), ("cents", units * PRICE_CENTS)):
                    used[work.location, work.day, what] += much
        return used

    # what happens to units

    def move(self, key: Key, units: int, at: datetime) -> None:
        self.on_hand[key] += units
        self.log.append((key, at, units))

    def moved_after(self, key: Key, at: datetime) -> int:
        return sum(units for k, moment, units in self.log if k == key and moment > at)

    def take_back(self, work_id: UUID, units: dict[str, int], *, stock: str, who: str, now: datetime) -> str:
        """A location gives units of lines back: they are open again; `stock` says what that means there."""
        work = self.works[work_id]
        order = self.orders[work.order]
        by_sku: Counter[str] = Counter()
        for name, quantity in units.items():
            line, part = order.lines[name], work.lines[name]
            part.quantity -= quantity
            part.picked = min(part.picked, part.quantity)
            line.allocated -= quantity
            line.open += quantity
            line.version += 1
            by_sku[line.sku] += quantity
            self.rejected.add((work.order, line.sku, work.location))
        if not any(part.quantity for part in work.lines.values()):
            work.state, work.picker = "rejected", None
        if stock != "keep":
            gone = {}
            for sku, quantity in by_sku.items():
                key = sku, work.location
                gone[sku] = quantity if stock == "deduct" else max(0, self.on_hand[key] - self.hands(key))
                self.move(key, -gone[sku], now)
            if any(gone.values()):
                self.losses[UUID(int=len(self.losses))] = Loss(
                    work.location, work.day, who, sum(gone.values()) * VALUE_CENTS, "applied"
                )
        return work.state

    def step(self, work_id: UUID, step: str, *, who: str | None, now: datetime) -> str:
        """The state after a step, or the refusal; done before, it changes nothing."""
        work = self.works[work_id]
        order = self.orders[work.order]
        if work.state not in RANK:
            return "Conflict"
        if RANK[work.state] >= STEPS[step]:
            return work.state
        is_next = RANK[work.state] + 1 == STEPS[step] or (work.state == "picked" and step == "ship")
        if not is_next or (order.pickup and work.state == "picked" and step == "ship"):
            return "Conflict"
        if step == "pick" and work.picker is not None and who is not None and work.picker != who:
            return "Conflict"
        states = {"accept": "accepted", "pick": "picked", "pack": "packed", "ship": "shipped"}
        if order.pickup:
            states |= {"pack": "ready", "ship": "handed_over"}
        work.state = states[step]
        if step == "pick":
            work.picker = None
            for part in work.lines.values():
                part.picked = part.quantity
        if step == "ship":
            for name, part in work.lines.items():
                line = order.lines[name]
                self.move((line.sku, work.location), -part.quantity, now)
                line.allocated -= part.quantity
                line.shipped += part.quantity
                line.version += part.quantity > 0
        return work.state

    def cancel(self, order_id: UUID, names: list[str] | None) -> int | str:
        """Units that a cancellation takes of an order's lines, or the refusal."""
        order = self.orders[order_id]
        chosen = {name: line for name, line in order.lines.items() if names is None or name in names}
        units = sum(line.open + line.allocated for line in chosen.values())
        if not units:
            return "Conflict" if any(line.shipped for line in chosen.values()) else 0
        for name, line in chosen.items():
            line.version += line.open + line.allocated > 0
            line.cancelled += line.open + line.allocated
            line.open = line.allocated = 0
            for work in self.works.values():
                if work.order == order_id and work.state in WORKING and name in work.lines:
                    work.lines[name].quantity = work.lines[name].picked = 0
        for work in self.works.values():
            if work.order == order_id and work.state in WORKING and not any(p.quantity for p in work.lines.values()):
                work.state, work.picker = "recalled", None
        return units

    def may_allocate(self, order: Order, name: str, version: int, location: str, units: int) -> bool:
        """Whether units of a line may be allocated there: as it was read, in its pool, in stock, no promise broken."""
        line, key = order.lines[name], (order.lines[name].sku, location)
        if line.version != version or line.open < units or line.hold is not None:
            return False
        if location not in POOLS[order.channel] or self.on_hand[key] - self.held(key) - self.allocated(key) < units:
            return False
        before = self.margin(line.sku, frozenset())
        self.holds[*key, "tried"] += units
        line.open -= units
        is_kept = self.margin(line.sku, frozenset()) >= before
        del self.holds[*key, "tried"]
        line.open += units
        return is_kept

    def expire(self, some: list[Reservation]) -> None:
        for reservation in some:
            reservation.is_live = False

    def due(self, skus: set[str] | None = None) -> list[Reservation]:
        return [
            r for r in self.reservations.values() if r.is_live and r.is_due and (skus is None or skus & r.units.keys())
        ]
