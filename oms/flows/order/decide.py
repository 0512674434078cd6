"""Where the units of one order stand when it is captured: open, parked, or allocated at once for a pick-up."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from zoneinfo import ZoneInfo

import msgspec

from oms import ledger
from oms.book import Book, Units
from oms.domain.order import Named, NewOrder, OrderLine, prices_of
from oms.domain.shape import Rule
from oms.named import Place


class PlannedLine(msgspec.Struct, frozen=True):
    """A line, or a part of a kit's line, with where its units stand; `short` of them nobody can promise now.

    `waits`: present stock does not serve it, be it reserved ahead of a receipt or short.
    """

    line: str
    part: int
    sku_id: int | None
    sku: str
    quantity: int
    price_cents: int | None
    open: int
    parked: int
    allocated: int
    short: int
    waits: bool = False


class Plan(msgspec.Struct, frozen=True):
    """An order's lines, and the work that a pick-up takes; `unfilled` says why a pick-up's line stays open."""

    lines: list[PlannedLine]
    work: ledger.Work | None
    unfilled: dict[str, str]


def local_day(at: datetime, place: Place) -> date:
    """The day at a location."""
    return at.astimezone(ZoneInfo(place.time_zone)).date()


class Day:
    """What a batch takes of the capacity of locations' days, on top of what is used."""

    def __init__(self, used: Mapping[tuple[int, date], ledger.Capacity]) -> None:
        self.used = dict(used)

    def fits(self, work: ledger.Work) -> bool:
        """Whether the day has room for this work."""
        return self.used[work.location_id, work.day].fits(work)

    def take(self, work: ledger.Work) -> None:
        """The work is taken."""
        row = self.used[work.location_id, work.day]
        self.used[work.location_id, work.day] = msgspec.structs.replace(
            row, orders=row.orders + work.orders, items=row.items + work.items, cents=row.cents + work.cents
        )


def decide(
    *,
    book: Book,
    days: Day,
    order: NewOrder,
    rule: Rule,
    names: Mapping[tuple[int, str], Named],
    claimed: Sequence[Units],
    place: Place | None,
) -> Plan:
    """Decides one order on the book. What its live reservation held is sure; beyond it stock decides.

    An order is a fact: what stock does not cover is open all the same, and `short` says how much.
    """
    book.give_back(claimed)
    sure: dict[int, int] = {}
    for units in claimed:
        sure[units.sku_id] = sure.get(units.sku_id, 0) + units.quantity
    here = place is not None and {u.location_id for u in claimed} == {place.location_id}

    planned: list[PlannedLine] = []
    unfilled: dict[str, str] = {}
    work = None
    for line in order.lines:
        parts = parts_of(line, names.get((order.channel_id, line.sku)))
        known = [part for part in parts if part.sku_id is not None]
        if place is not None and known:
            why = _no_pickup(
                book, days, parts=known, place=place, rule=rule, sure=sure if here else {}, order=order,
                work=work,
            )  # fmt: skip
            if why is None:
                work = _more(work, known, place, order)
                for part in known:
                    assert part.sku_id is not None
                    book.allocate(
                        part.sku_id, place.location_id, part.quantity, pool_id=rule.pool_id, channel_id=rule.channel_id
                    )
                    _use(sure, part)
                    planned.append(msgspec.structs.replace(part, open=0, allocated=part.quantity))
                continue
            unfilled[line.line] = why
        for part in parts:
            short, waits = 0, False
            if part.sku_id is not None:
                there = max(0, book.atp_pool(part.sku_id, rule.pool_id))
                waits = part.quantity > there
                short = max(0, part.quantity - max(there, sure.get(part.sku_id, 0)))
                book.reserve(part.sku_id, rule.pool_id, part.quantity, channel_id=rule.channel_id)
                _use(sure, part)
            planned.append(msgspec.structs.replace(part, short=short, waits=waits))
    if work is not None:
        days.take(work)
    return Plan(planned, work, unfilled)


def parts_of(line: OrderLine, name: Named | None) -> list[PlannedLine]:
    """A line as it stands before stock is asked: parked where its sku is unknown, a kit as its parts."""
    if name is None:
        return [PlannedLine(line.line, 0, None, line.sku, line.quantity, line.price_cents, 0, line.quantity, 0, 0)]
    lines = []
    for number, (part, price) in enumerate(zip(name.parts, prices_of(name, line.price_cents), strict=True), start=1):
        units = line.quantity * part.quantity
        number = number if name.is_kit else 0
        lines.append(PlannedLine(line.line, number, part.sku_id, line.sku, units, price, units, 0, 0, 0))
    return lines


def _no_pickup(
    book: Book,
    days: Day,
    *,
    parts: Sequence[PlannedLine],
    place: Place,
    rule: Rule,
    sure: Mapping[int, int],
    order: NewOrder,
    work: ledger.Work | None,
) -> str | None:
    """Why a line cannot be allocated at its store at once; None where it can."""
    for part in parts:
        assert part.sku_id is not None
        if not book.sells_from(part.sku_id, place.location_id, rule.pool_id):
            return f"{place.code} is not in the pool of channel {rule.code}"
        number = max(book.atp_at(part.sku_id, place.location_id), sure.get(part.sku_id, 0))
        if number < part.quantity:
            return f"{place.code} has {max(0, number)} of the {part.quantity} of {part.sku} that may be promised there"
    if not order.taken_away and not days.fits(_more(work, parts, place, order)):
        return f"{place.code} has no capacity left on {local_day(order.at, place)}"
    return None


def _more(work: ledger.Work | None, parts: Sequence[PlannedLine], place: Place, order: NewOrder) -> ledger.Work:
    items = sum(part.quantity for part in parts)
    cents = sum(part.quantity * (part.price_cents or 0) for part in parts)
    if work is None:
        return ledger.Work(place.location_id, local_day(order.at, place), 1, items, cents)
    return msgspec.structs.replace(work, items=work.items + items, cents=work.cents + cents)


def _use(sure: dict[int, int], part: PlannedLine) -> None:
    assert part.sku_id is not None
    if part.sku_id in sure:
        sure[part.sku_id] = max(0, sure[part.sku_id] - part.quantity)
