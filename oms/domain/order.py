"""Carts and orders as callers say them: what they contain, what makes two the same, what state an order is in. Pure."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

LINES_MAX = 200
QUANTITY_MAX = 1_000_000

HOLDS = ("fraud", "address", "payment", "customer")
SPLITS = ("free", "single", "complete", "max_packages", "keep_together")


class CartLine(msgspec.Struct, frozen=True):
    """Units of a sku (or kit), by the code that the channel uses."""

    sku: str
    quantity: int


class OrderLine(msgspec.Struct, frozen=True, kw_only=True):
    """A line as the shop said it; `price_cents` is for one unit."""

    line: str
    sku: str
    quantity: int
    price_cents: int | None = None


class ShipTo(msgspec.Struct, frozen=True, kw_only=True):
    """Where an order goes; `collect_at` is the store where its customer collects what is shipped there."""

    postal_code: str
    country: str = "US"
    lat: float | None = None
    lon: float | None = None
    collect_at: str | None = None


class NewOrder(msgspec.Struct, frozen=True, kw_only=True):
    """An order to be captured. `at` is the moment of capture, whose local day a pick-up's capacity counts.

    `sold_there`: the shop sold it itself, so its own stock has fallen by it. `taken_away`: its customer takes it along
    at once, for which no day is too full."""

    channel_id: int
    number: str
    placed_at: datetime
    ship_to: ShipTo
    method: str
    lines: tuple[OrderLine, ...]
    at: datetime
    who: str
    reservation: str | None = None
    priority: int = 0
    split: str = "free"
    split_max: int | None = None
    promise_days: int | None = None
    pickup_location: str | None = None
    sold_there: bool = False
    taken_away: bool = False

    def content_hash(self) -> bytes:
        """What makes two orders the same; how it was reserved, who sent it and when is not part of it."""
        content = msgspec.structs.asdict(self)
        for name in ("at", "who", "reservation", "channel_id", "sold_there", "taken_away"):
            del content[name]
        content["placed_at"] = self.placed_at.timestamp()
        content["ship_to"] = msgspec.structs.asdict(self.ship_to)
        if self.ship_to.collect_at is None:  # an order that knew nothing of it is the same order
            del content["ship_to"]["collect_at"]
        return hashlib.sha256(msgspec.json.encode(content, order="sorted")).digest()


class Part(msgspec.Struct, frozen=True):
    """A sku that a code stands for, how many of it are in one, and its list price; a kit has several."""

    sku_id: int
    sku: str
    quantity: int
    price_cents: int | None = None


class Named(msgspec.Struct, frozen=True):
    """What a code means."""

    sku_id: int
    is_kit: bool
    parts: tuple[Part, ...]


def faults_of_order(order: NewOrder) -> list[dict[str, Any]]:
    """What is wrong with an order's own text, per field; empty when it can be stored."""
    faults = faults_of_lines([CartLine(line.sku, line.quantity) for line in order.lines])
    if not order.number.strip():
        faults.append({"field": "number", "reason": "empty: the shop's order number is expected"})
    names = [line.line for line in order.lines]
    for index, name in enumerate(names):
        if name in names[:index]:
            faults.append({"field": f"lines[{index}].line", "reason": f"line {name!r} stands twice"})
    if order.split not in SPLITS:
        faults.append({"field": "split", "reason": f"{order.split!r} is none of {', '.join(SPLITS)}"})
    if (order.split == "max_packages") != (order.split_max is not None):
        faults.append({"field": "split_max", "reason": "is given with split max_packages, and only with it"})
    if order.placed_at.tzinfo is None:
        faults.append({"field": "placed_at", "reason": "has no offset from UTC"})
    return faults


def faults_of_lines(lines: Sequence[CartLine]) -> list[dict[str, Any]]:
    """What is wrong with lines, per field."""
    faults: list[dict[str, Any]] = []
    if not 1 <= len(lines) <= LINES_MAX:
        faults.append({"field": "lines", "reason": f"{len(lines)} lines: 1 to {LINES_MAX} are expected"})
    for index, line in enumerate(lines):
        if not 1 <= line.quantity <= QUANTITY_MAX:
            reason = f"{line.quantity} is not a whole number from 1 to {QUANTITY_MAX:,}"
            faults.append({"field": f"lines[{index}].quantity", "reason": reason})
        if not line.sku:
            faults.append({"field": f"lines[{index}].sku", "reason": "empty: a sku's code is expected"})
    return faults


def summed(lines: Iterable[CartLine]) -> dict[str, int]:
    """Units by code: the same sku on several lines is one wish."""
    units: dict[str, int] = {}
    for line in lines:
        units[line.sku] = units.get(line.sku, 0) + line.quantity
    return units


def exploded(units: Mapping[str, int], names: Mapping[str, Named]) -> dict[int, int]:
    """Units by sku id: kits become their parts first, then the same sku is summed."""
    wanted: dict[int, int] = {}
    for code, quantity in units.items():
        for part in names[code].parts:
            wanted[part.sku_id] = wanted.get(part.sku_id, 0) + quantity * part.quantity
    return wanted


def prices_of(name: Named, price_cents: int | None) -> list[int | None]:
    """The price of one unit of each part: a kit's is shared by the parts' list prices, evenly where one has none.

    Rounded to cents, so that the parts of a kit may differ from it by less than a cent per unit.
    """
    if price_cents is None or not name.is_kit:
        return [price_cents] * len(name.parts)
    listed = [part.price_cents or 0 for part in name.parts]
    weights = listed if all(listed) else [1] * len(listed)
    whole = sum(weight * part.quantity for weight, part in zip(weights, name.parts, strict=True))
    return [round(price_cents * weight / whole) for weight in weights]


def state_of(lines: Iterable[Any]) -> str:
    """An order's state from its lines' units: the least advanced step that any unit is at, cancelled ones aside."""
    total = {"open": 0, "parked": 0, "allocated": 0, "shipped": 0}
    held = 0
    for line in lines:
        for name in total:
            total[name] += getattr(line, name)
        if line.hold:
            held += line.open + line.parked
            total["parked"] -= line.parked
    if total["parked"]:
        return "parked"
    if held:
        return "held"
    if total["open"]:
        return "partly_allocated" if total["allocated"] or total["shipped"] else "open"
    if total["allocated"]:
        return "partly_shipped" if total["shipped"] else "allocated"
    return "shipped" if total["shipped"] else "cancelled"
