"""Who owes whom for units that left or came back: what is owed, for how much, and what is left of it between two.

Money is in cents of a currency; a buyer owes an owner a positive amount.
"""

from collections.abc import Iterable, Sequence
from decimal import ROUND_HALF_UP, Decimal

import msgspec


class Sold(msgspec.Struct, frozen=True):
    """Units of an order's line that are with the customer: of an owner's, or (`owed_id` None) of who sold them.

    `back` of them came back before.
    """

    owed_id: int | None
    owner_id: int | None
    takes_back: bool
    quantity: int
    back: int


class Came(msgspec.Struct, frozen=True):
    """Units that came back to a place: to whose stock of them there, and to whose business."""

    quantity: int
    buyer_id: int | None
    stock_owner_id: int | None
    division_id: int | None


class Back(msgspec.Struct, frozen=True):
    """What is owed for units that came back: `return` takes a sale back, `bought` says who keeps them.

    `of_id` is the sale that they are of, and `skipped` how many units of it came back before.
    """

    kind: str
    owner_id: int | None
    buyer_id: int | None
    quantity: int
    of_id: int | None
    skipped: int


def owed_for_return(came: Came, sold: Sequence[Sold]) -> list[Back]:
    """Who owes whom once units are back at a place.

    Units go home first: to the owner whose stock is there; then those that the seller owned itself, then the oldest
    sale. An owner whose stock it is not has sold them to the business that took them back, unless it takes back.
    """
    owed: list[Back] = []
    left = came.quantity
    for part in sorted(sold, key=lambda s: (s.owner_id != came.stock_owner_id, s.owed_id is not None, s.owed_id or 0)):
        units = min(left, part.quantity - part.back)
        if units <= 0:
            continue
        left -= units
        if part.owed_id is not None:
            owed.append(Back("return", part.owner_id, came.buyer_id, -units, part.owed_id, part.back))
        is_home = part.owner_id is not None and part.owner_id in (came.stock_owner_id, came.division_id)
        if is_home or part.takes_back or (part.owed_id is None and part.owner_id is None):
            continue
        keeper = came.division_id if came.division_id is not None else came.stock_owner_id
        owed.append(Back("bought", part.owner_id, keeper, units, part.owed_id, part.back if part.owed_id else 0))
    return owed


class Price(msgspec.Struct, frozen=True):
    """A transfer price as it is told for some units: cents of one, or a percent of the line's price or the sku's cost."""

    code: str
    cents: int | None
    percent: Decimal | None
    percent_of: str | None
    currency: str


def cents_of(price: Price, *, quantity: int, price_cents: int | None, cost_cents: int | None) -> int | None:
    """What units cost by a price, the half cent up; None where what it is a percent of is not known."""
    if price.cents is not None:
        return price.cents * quantity
    base = price_cents if price.percent_of == "price" else cost_cents
    if base is None or price.percent is None:
        return None
    return int((base * quantity * price.percent / 100).to_integral_value(ROUND_HALF_UP))


def part_of(cents: int, *, units: int, skipped: int, whole: int) -> int:
    """What units of a sale cost after `skipped` others; the parts of a sale add up to it exactly."""
    return cents * (skipped + units) // whole - cents * skipped // whole


class Sum(msgspec.Struct, frozen=True):
    """What a period's entries of one kind between a buyer and an owner add up to."""

    owner: str
    buyer: str
    currency: str
    kind: str
    entries: int
    units: int
    cents: int


class Debt(msgspec.Struct, frozen=True):
    """What is left between two: `debtor` owes `creditor` so many cents, 0 where they are quits.

    `units` are those that `creditor` gave less those that it took; `kinds` holds signed cents and units of each kind,
    towards the creditor.
    """

    debtor: str
    creditor: str
    currency: str
    cents: int
    units: int
    entries: int
    kinds: dict[str, dict[str, int]]


class Balance(msgspec.Struct, frozen=True):
    """What a party gets (or, negative, owes) in all; over all parties of a currency it is zero."""

    party: str
    currency: str
    cents: int


def debts_of(sums: Iterable[Sum]) -> list[Debt]:
    """Who owes whom after all, per pair and currency, in the order of their names."""
    pairs: dict[tuple[str, str, str], list[Sum]] = {}
    for s in sums:
        first, second = sorted((s.owner, s.buyer))
        pairs.setdefault((first, second, s.currency), []).append(s)
    debts = []
    for (first, second, currency), parts in sorted(pairs.items()):
        to_first = sum(s.cents if s.owner == first else -s.cents for s in parts)
        creditor, debtor = (first, second) if to_first >= 0 else (second, first)
        kinds: dict[str, dict[str, int]] = {}
        for s in sorted(parts, key=lambda s: s.kind):
            sign = 1 if s.owner == creditor else -1
            kind = kinds.setdefault(s.kind, {"cents": 0, "units": 0})
            kind["cents"] += sign * s.cents
            kind["units"] += sign * s.units
        units = sum(kind["units"] for kind in kinds.values())
        debts.append(Debt(debtor, creditor, currency, abs(to_first), units, sum(s.entries for s in parts), kinds))
    return debts


def balances_of(debts: Iterable[Debt]) -> list[Balance]:
    """What each party gets or owes in all."""
    cents: dict[tuple[str, str], int] = {}
    for debt in debts:
        for party, sign in ((debt.creditor, 1), (debt.debtor, -1)):
            cents[party, debt.currency] = cents.get((party, debt.currency), 0) + sign * debt.cents
    return [Balance(party, currency, total) for (party, currency), total in sorted(cents.items())]
