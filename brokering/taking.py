"""What is left to take while orders are allocated one after the other: units, work and minutes, place by place."""

from collections import defaultdict

from brokering.book import Book
from brokering.problem import Assignment, Labor, Line, Order
from brokering.promises import keepable

Piece = tuple[Line, int]
"""A line and units of it."""
Bundle = tuple[Piece, ...]
"""What goes from one place or stays: a part of a line, or lines that belong together."""
NO_STOCK, TAKEN, CAPACITY, LABOR, SPLIT, LIMIT = (
    "not enough stock", "its stock went to earlier orders or is promised", "its capacity is full", "no minutes of work left",
    "the order may not be split further", "a limit of the policy",
)  # fmt: skip


class Held:
    """What an order has got so far, and what is open of it."""

    def __init__(self, book: Book, order: Order, lines: list[Line]) -> None:
        self.order = order
        self.open = bundles_of(book, lines)
        self.got: list[tuple[Bundle, list[Assignment]]] = []

    def packages(self, book: Book) -> set[tuple[int, int | None]]:
        """Location and slot of its packages, those of lines that go alone aside."""
        return {(a.location_id, a.slot) for _, some in self.got for a in some if not book.lines[a.line_id].alone}


def bundles_of(book: Book, lines: list[Line]) -> list[Bundle]:
    """The lines of an order as what may go by itself."""
    found: list[Bundle] = []
    together: dict[str, list[Piece]] = defaultdict(list)
    for n in lines:
        if n.together is not None:
            together[n.together].append((n, n.quantity))
        else:
            found += [((n, units),) for units in book.parts(n)]
    return [*found, *map(tuple, together.values())]


class Taking:
    """Units that may be taken now, without those that promises outside the run need, and the room of locations."""

    def __init__(self, book: Book) -> None:
        self.book = book
        self.room: dict[int, dict[int, int]] = defaultdict(dict)
        for sku, rows in book.stock_of.items():
            for (place, day), s in rows.items():
                if day == 0 and place in book.locations and s.available > 0:
                    self.room[sku][place] = s.available
        self._set_aside()
        self.work: dict[tuple[int, int | None], list[float]] = {}
        self.labor: dict[int, list[tuple[Labor, float]]] = defaultdict(list)
        for labor in book.problem.labor:
            self.labor[labor.location_id].append((labor, 0.0))

    def _set_aside(self) -> None:
        wanted: dict[int, list[tuple[frozenset[int], int]]] = defaultdict(list)
        for p in self.book.problem.protected:
            here = self.room.get(p.sku_id, {}).keys()
            if p.quantity > 0:
                wanted[p.sku_id].append((self.book.members.get(p.pool_id, frozenset()) & here, p.quantity))
        for sku, demands in wanted.items():
            for place, units in keepable(demands, self.room[sku])[1].items():
                self.room[sku][place] -= units

    def why_not(self, held: Held, place: int, bundles: list[Bundle]) -> str | tuple[int | None]:
        """Why these bundles of an order may not go from a place together; or the slot in which they may, as a tuple."""
        if why := self._units(place, bundles):
            return why
        slots = self.book.locations[place].slots
        mine = held.packages(self.book)
        reasons = []
        choices: list[int | None] = [*range(len(slots))] if slots else [None]
        for slot in sorted(choices, key=lambda s: ((place, s) not in mine, s or 0)):
            why = self._work(held, place, slot, bundles, mine)
            if not why:
                return (slot,)
            reasons.append(why)
        return reasons[0]

    def _units(self, place: int, bundles: list[Bundle]) -> str | None:
        need: dict[int, int] = defaultdict(int)
        for line, units in (piece for bundle in bundles for piece in bundle):
            need[line.sku_id] += units
        for sku, units in need.items():
            if self.room.get(sku, {}).get(place, 0) < units:
                return NO_STOCK if self.book.stock(sku, place, 0).available < units else TAKEN
        return None

    def _work(
        self, held: Held, place: int, slot: int | None, bundles: list[Bundle], mine: set[tuple[int, int | None]]
    ) -> str | None:
        book, order = self.book, held.order
        if not book.keeps_limits(order, place, slot=slot, day=0):
            return LIMIT
        joins = any(not line.alone for bundle in bundles for line, _ in bundle)
        new = int(joins and (place, slot) not in mine)
        most = {"single": 1, "max_packages": order.split_max or 1}.get(order.split)
        if most is not None and new and len(mine) + 1 > most:
            return SPLIT
        more = self._amounts(bundles, packages=new)
        limits = book.capacity(place, slot, 0)
        if limits is not None:
            used = self.work.get((place, slot), [0.0] * 3)
            caps = limits.capacity_orders, limits.capacity_items, limits.capacity_cents
            if any(
                cap is not None and m > 0 and u + m > max(0, cap) for cap, u, m in zip(caps, used, more, strict=True)
            ):
                return CAPACITY
        for labor, minutes in self.labor.get(place, []):
            if minutes + self._minutes(labor, bundles, packages=more[0]) > labor.minutes_max:
                return LABOR
        return None

    def _amounts(self, bundles: list[Bundle], *, packages: int) -> tuple[int, int, int]:
        """Packages (each part of a line that goes alone is one), items and cents."""
        pieces = [piece for bundle in bundles for piece in bundle]
        return (
            packages + sum(line.alone for line, _ in pieces),
            sum(units for _, units in pieces),
            sum(units * line.value_cents for line, units in pieces),
        )

    def _minutes(self, labor: Labor, bundles: list[Bundle], *, packages: int) -> float:
        pieces = [piece for bundle in bundles for piece in bundle]
        units = sum(u for _, u in pieces)
        return labor.package_minutes * packages + labor.line_minutes * len(pieces) + labor.unit_minutes * units

    def take(self, held: Held, place: int, slot: int | None, bundles: list[Bundle]) -> None:
        """Bundles go from a place: nothing is asked again."""
        new = int(
            any(not line.alone for b in bundles for line, _ in b) and (place, slot) not in held.packages(self.book)
        )  # fmt: skip
        self._book(place, slot, bundles, packages=new, sign=1)
        for bundle in bundles:
            held.open.remove(bundle)
            held.got.append((bundle, [Assignment(line.line_id, place, units, slot) for line, units in bundle]))

    def give_back(self, held: Held, *, keep: int = 0) -> None:
        """What an order has got is open again, but for the first `keep` of it."""
        while len(held.got) > keep:
            bundle, some = held.got.pop()
            place, slot = some[0].location_id, some[0].slot
            joins = any(not line.alone for line, _ in bundle)
            last = int(joins and (place, slot) not in held.packages(self.book))
            self._book(place, slot, [bundle], packages=last, sign=-1)
            held.open.append(bundle)

    def _book(self, place: int, slot: int | None, bundles: list[Bundle], *, packages: int, sign: int) -> None:
        for line, units in (piece for bundle in bundles for piece in bundle):
            self.room[line.sku_id][place] -= sign * units
        amounts = self._amounts(bundles, packages=packages)
        used = self.work.setdefault((place, slot), [0.0] * 3)
        for k, amount in enumerate(amounts):
            used[k] += sign * amount
        if place in self.labor:
            self.labor[place] = [
                (labor, minutes + sign * self._minutes(labor, bundles, packages=amounts[0]))
                for labor, minutes in self.labor[place]
            ]
