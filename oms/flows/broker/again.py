"""Work that nobody has accepted is planned again beside what is open, and moved where that saves what its policy asks.

read (with what is open) → planned with its stock and capacity given back → what does not save enough stays → planned without
"""

from collections import defaultdict
from collections.abc import Collection, Mapping
from datetime import date, datetime, time
from typing import TypeVar
from uuid import UUID

import msgspec

from brokering import Assignment, Barred, Line, Location, Order, Plan, Problem, Slot, Stock
from brokering.measure import measure
from brokering.policies import Subject, Version, policy_for
from oms.db import Connection, Sql

sql = Sql("broker")


Room = TypeVar("Room", Location, Slot)


class Released(msgspec.Struct, frozen=True):
    """Units of a line that a location has and has not accepted; `is_today` where they take of its present day."""

    fulfillment_id: UUID
    order_id: UUID
    location_id: int
    line_id: int
    sku_id: int
    quantity: int
    pool_id: int
    day: date
    is_today: bool
    price_cents: int
    wave: time | None = None


released_subjects = sql.rows("released_subjects", Subject)
released_orders = sql.rows("released_orders", Order)
released_lines = sql.rows("released_lines", Line)
released_work = sql.rows("released_work", Released)


class Again(msgspec.Struct, frozen=True):
    """Orders whose work may move, what they have now, the place of each one's policy, and the cents that a move must save."""

    orders: list[Order]
    lines: list[Line]
    work: list[Released]
    policy_of: dict[str, int]
    least: dict[str, int]
    barred: list[Barred] = []


async def read_again(
    tx: Connection, *, run_id: UUID, policies: list[Version], is_for_all: bool, now: datetime, limit: int
) -> Again | None:
    """Work that its order's policy lets move; None where no policy does."""
    if all(p.body.move_saves_cents is None for p in policies):
        return None
    policy_of: dict[str, int] = {}
    least: dict[str, int] = {}
    for s in await released_subjects(tx, run_id=run_id, limit=limit):
        place = 0 if is_for_all else policy_for(policies, s)
        saves = None if place is None else policies[place].body.move_saves_cents
        if place is not None and saves is not None:
            policy_of[s.order_id], least[s.order_id] = place, max(1, saves)
    ids = [UUID(order_id) for order_id in least]
    return Again(
        await released_orders(tx, orders=ids), await released_lines(tx, orders=ids, now=now),
        await released_work(tx, orders=ids, now=now), policy_of, least,
    )  # fmt: skip


def joined(problem: Problem, again: Again, only: Collection[str]) -> Problem:
    """The problem with these orders of `again`, as if their work were not there: its stock and capacity are free."""
    units: dict[tuple[int, int], int] = defaultdict(int)
    works: dict[tuple[int, str], dict[UUID, tuple[int, int]]] = defaultdict(dict)
    for w in again.work:
        if str(w.order_id) in only:
            units[w.sku_id, w.location_id] += w.quantity
            if w.is_today or w.wave is not None:
                begun = "" if w.wave is None else datetime.combine(w.day, w.wave).isoformat(timespec="minutes")
                mine = works[w.location_id, begun]
                items, cents = mine.get(w.order_id, (0, 0))
                mine[w.order_id] = items + w.quantity, cents + w.quantity * w.price_cents
    stock = []
    for s in problem.stock:
        more = units.pop((s.sku_id, s.location_id), 0)
        stock.append(msgspec.structs.replace(s, available=s.available + more) if more else s)
    here = {n.location_id for n in problem.locations}
    stock += [Stock(sku_id, at, more) for (sku_id, at), more in sorted(units.items()) if at in here]
    return msgspec.structs.replace(
        problem,
        orders=[*problem.orders, *(
            msgspec.structs.replace(o, policy=again.policy_of[o.order_id]) for o in again.orders if o.order_id in only
        )],
        lines=[*problem.lines, *(n for n in again.lines if n.order_id in only)],
        stock=stock,
        barred=[*problem.barred, *(b for b in again.barred if b.order_id in only)],
        locations=[_freed(n, works) for n in problem.locations],
    )  # fmt: skip


def _freed(location: Location, works: Mapping[tuple[int, str], Mapping[UUID, tuple[int, int]]]) -> Location:
    """A location, and its slots, with the capacity that works (items and cents, by order) take given back."""

    def freed(room: Room, name: str) -> Room:
        mine = list(works.get((location.location_id, name), {}).values())
        if not mine:
            return room
        return msgspec.structs.replace(
            room, capacity_orders=more(room.capacity_orders, len(mine)),
            capacity_items=more(room.capacity_items, sum(items for items, _ in mine)),
            capacity_cents=more(room.capacity_cents, sum(cents for _, cents in mine)),
        )  # fmt: skip

    def more(room: int | None, by: int) -> int | None:
        return None if room is None else room + by

    if not location.slots:
        return freed(location, "")
    return msgspec.structs.replace(location, slots=tuple(freed(s, s.name) for s in location.slots))


def moving(problem: Problem, again: Again, found: Plan, only: Collection[str]) -> dict[str, int]:
    """Orders of `again` that a plan moves, whole, for at least what their policy asks: order → cents saved."""
    now = [Assignment(w.line_id, w.location_id, w.quantity) for w in again.work if str(w.order_id) in only]
    stays = msgspec.structs.replace(found, assignments=now)
    was = {o.order_id: o for o in measure(problem, stays, by_preference=True) if o.order_id in only}
    saves = {}
    for becomes in measure(problem, found, by_preference=True):
        before = was.get(becomes.order_id)
        if before is None or becomes.left_units or becomes.at == before.at:
            continue
        if before.cost - becomes.cost >= again.least[becomes.order_id]:
            saves[becomes.order_id] = before.cost - becomes.cost
    return saves


def without(problem: Problem, found: Plan, orders: Collection[str]) -> Plan:
    """A plan that says nothing of these orders."""
    lines = {n.line_id for n in problem.lines if n.order_id in orders}
    return msgspec.structs.replace(
        found,
        assignments=[a for a in found.assignments if a.line_id not in lines],
        unfilled=[u for u in found.unfilled if u.line_id not in lines],
        decisions=[d for d in found.decisions if d.order_id not in orders],
    )  # fmt: skip
