"""What a customer takes, has sent and picks up at once: lines of a basket, and the parts that they are reserved in. Pure."""

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

import msgspec

METHODS = ("take_away", "ship", "pickup")
"""Taken from this store's stock at the till; sent from anywhere; picked up at a store."""


class BasketLine(msgspec.Struct, frozen=True, kw_only=True):
    """A line: `price_cents` is for one unit; `when` a moment or a day in ISO 8601 (null: nothing is promised), and why.

    `location` is where it is taken or picked up.
    """

    line: str
    sku: str
    quantity: int
    method: str
    location: str | None = None
    price_cents: int | None = None
    when: str | None = None
    why: str = ""

    @property
    def amount_cents(self) -> int | None:
        """What the line costs."""
        return None if self.price_cents is None else self.price_cents * self.quantity


class BasketPart(msgspec.Struct, frozen=True):
    """Lines of one way and one location: one reservation, and one order."""

    reservation_id: UUID
    method: str
    location: str | None
    lines: tuple[BasketLine, ...]


def ways_of(lines: Iterable[BasketLine]) -> dict[tuple[str, str | None], list[BasketLine]]:
    """Lines by way and location: what is taken away first, then what is sent, then pick-ups by location."""
    found: dict[tuple[str, str | None], list[BasketLine]] = {}
    for line in sorted(lines, key=lambda n: (METHODS.index(n.method), n.location or "")):
        found.setdefault((line.method, line.location), []).append(line)
    return found


def faults_of_basket(lines: Sequence[BasketLine], *, location: str, has_address: bool) -> list[dict[str, Any]]:
    """What is wrong with a basket's own text, per field."""
    faults: list[dict[str, Any]] = []
    for place, line in enumerate(lines):
        at = f"lines[{place}]"
        if line.line in [other.line for other in lines[:place]]:
            faults.append({"field": f"{at}.line", "reason": f"line {line.line!r} stands twice"})
        if line.method == "take_away" and line.location != location:
            reason = f"what is taken away is taken from {location}: have it picked up at {line.location}"
            faults.append({"field": f"{at}.location", "reason": reason})
        if line.method == "pickup" and line.location is None:
            faults.append({"field": f"{at}.location", "reason": "names the location where it is picked up"})
        if line.method == "ship" and line.location is not None:
            faults.append({"field": f"{at}.location", "reason": "a line that is sent names no location"})
        if line.method == "ship" and not has_address:
            faults.append({"field": "ship_to", "reason": f"line {line.line!r} is sent: say where to"})
    return faults


def number_of(number: str, method: str, location: str | None) -> str:
    """The number of the order that a part becomes, as `T-1:ship` or `T-1:pickup:S2`."""
    return f"{number}:{method}:{location}" if method == "pickup" else f"{number}:{method}"


def remedy_of(method: str, location: str | None, units: int) -> str:
    """What an associate may do where only so many units of a line can be promised."""
    if method == "ship":
        return (
            f"sell {units} of it, or less"
            if units
            else "no location may send it: offer another sku, or its next receipt"
        )
    rest = "have the rest sent, or picked up elsewhere" if units else "have it sent, or picked up elsewhere"
    return f"{location} may give {units}: {rest}"
