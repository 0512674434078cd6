"""Steps of carts and orders: reserve, capture, plan, allocate, cancel, hold; each once more, late, or at once with others."""

import asyncio
from datetime import date
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4, uuid5

import msgspec

from oms.domain.order import CartLine, NewOrder, OrderLine, ShipTo
from oms.flows import broker
from oms.flows.broker import planning
from oms.flows.order.capture import Captured, capture_many
from oms.flows.order.change import cancel as cancel_order
from oms.flows.order.holds import hold as hold_order
from oms.flows.order.holds import release as release_order
from oms.flows.reserve import Cart, Granted, expire_due, reserve_many
from oms.flows.reserve import release as release_cart
from oms.settle import settle_batch
from tests.machine.truth import POOLS, PRICE_CENTS, SKUS, Line, Order, Part, Reservation, Work

if TYPE_CHECKING:
    from tests.machine.machine import Machine


def wanted(m: "Machine") -> list[tuple[str, int]]:
    return [(m.random.choice(SKUS), m.random.randint(1, 3)) for _ in range(m.random.choice((1, 1, 2)))]


def summed(lines: list[tuple[str, int]]) -> dict[str, int]:
    units: dict[str, int] = {}
    for sku, quantity in lines:
        units[sku] = units.get(sku, 0) + quantity
    return units


def cart(m: "Machine", channel: str, lines: list[tuple[str, int]], place: str | None) -> Cart:
    return Cart(
        reservation_id=uuid4(), channel_id=m.net.channels[channel], location=place,
        lines=tuple(CartLine(sku, quantity) for sku, quantity in lines),
    )  # fmt: skip


async def reserve(m: "Machine") -> None:
    channel = m.pick(POOLS)
    lines, place = wanted(m), m.pick((None, None, "S1", "S2"))
    made = cart(m, channel, lines, place)
    truth, units = m.truth, summed(lines)
    if place is not None and place not in POOLS[channel]:
        expected = "Conflict"
        truth.expire(truth.due(set(units)))
    else:
        truth.expire(truth.due(set(units)))
        room = {
            sku: min(truth.atp(sku, POOLS[channel]), truth.atp(sku, frozenset([place])) if place else 10**9)
            for sku in units
        }
        expected = "Granted" if all(room[sku] >= units[sku] for sku in units) else "OutOfStock"
    (answer,) = await settle_batch(m.db, reserve_many, [made])
    said = type(answer).__name__
    assert said == expected, f"cart {lines} of {channel} at {place}: {answer}, must be {expected}"
    if expected == "Granted":
        truth.reservations[made.reservation_id] = Reservation(channel, place, units)


async def reserve_at_once(m: "Machine") -> None:
    """Carts of one unit, all at the same moment: exactly as many get it as there is."""
    channel, sku = m.pick(POOLS), m.pick(SKUS)
    m.truth.expire(m.truth.due({sku}))
    left = m.truth.atp(sku, POOLS[channel])
    carts = [cart(m, channel, [(sku, 1)], None) for _ in range(5)]
    answers = [a for (a,) in await asyncio.gather(*(settle_batch(m.db, reserve_many, [c]) for c in carts))]
    granted = [a for a in answers if isinstance(a, Granted)]
    assert len(granted) == min(left, len(carts)), f"{len(granted)} of {len(carts)} carts got one of {left}: {answers}"
    for answer in granted:
        m.truth.reservations[answer.id] = Reservation(channel, None, {sku: 1})


async def give_up(m: "Machine") -> None:
    chosen = m.pick(m.truth.reservations)
    reservation = m.truth.reservations[chosen]
    await m.same(release_cart(m.db, reservation_id=chosen), reservation.is_live, "give up")
    reservation.is_live = False


async def run_out(m: "Machine") -> None:
    chosen = m.pick(i for i, r in m.truth.reservations.items() if r.is_live)
    async with m.db.transaction() as tx:
        await tx.execute("update reservation set expires_at = clock_timestamp() where reservation_id = $1", chosen)
    m.truth.reservations[chosen].is_due = True


async def expire(m: "Machine") -> None:
    due = m.truth.due()
    await m.same(expire_due(m.db), len(due), "expire")
    m.truth.expire(due)


async def capture(m: "Machine") -> None:
    truth, now = m.truth, m.now()
    claim = m.pick([None, *truth.reservations]) if m.random.random() < 0.6 else None
    reservation = truth.reservations.get(claim) if claim else None
    channel = reservation.channel if reservation else m.pick(POOLS)
    place = reservation.location if reservation else m.pick((None, None, "S1", "S2"))
    lines = [*reservation.units.items()] if reservation else wanted(m)
    new = NewOrder(
        channel_id=m.net.channels[channel], number=uuid4().hex[:12], placed_at=now, at=now, who="shop",
        ship_to=ShipTo(postal_code="10001", lat=40.75, lon=-73.99), method="ground", pickup_location=place,
        reservation=str(claim) if claim else None,
        lines=tuple(
            OrderLine(line=str(k), sku=sku, quantity=units, price_cents=PRICE_CENTS)
            for k, (sku, units) in enumerate(lines, start=1)
        ),
    )  # fmt: skip
    is_claimed = reservation is not None and reservation.is_live
    if reservation is not None:
        reservation.is_live = False if is_claimed else reservation.is_live
    sure = dict(reservation.units) if reservation and is_claimed and reservation.location == place else {}
    order = Order(channel, new.number, place, {})
    order_id = uuid4()
    truth.orders[order_id] = order
    parts: dict[str, Part] = {}
    for said in new.lines:
        line = order.lines[said.line] = Line(said.sku, said.quantity, 0)
        here = truth.atp(said.sku, frozenset([place])) if place is not None and place in POOLS[channel] else -1
        if here >= 0 and max(here, sure.get(said.sku, 0)) >= said.quantity:
            assert place is not None
            line.allocated = said.quantity
            parts[said.line] = Part(said.quantity, said.quantity)
            truth.works[order_id] = Work(order_id, place, m.day(place, now), parts)
            sure[said.sku] = max(0, sure.get(said.sku, 0) - said.quantity)
            continue
        line.open = said.quantity
        sure[said.sku] = max(0, sure.get(said.sku, 0) - said.quantity)
    work = truth.works.pop(order_id, None)
    (answer,) = await settle_batch(m.db, capture_many, [new])
    assert isinstance(answer, Captured) and answer.is_new, answer
    truth.orders[answer.order_id] = truth.orders.pop(order_id)
    m.news.append((answer.order_id, new))
    await adopt(m, answer.order_id, {} if work is None else {work.location: parts}, now)


async def adopt(m: "Machine", order_id: UUID, given: dict[str, dict[str, Part]], now: Any) -> None:
    """The work that an order must have now, under the ids that it got."""
    async with m.db.connection() as tx:
        rows = await tx.fetch(
            "select f.fulfillment_id, l.code from fulfillment f join location l using (location_id) where f.order_id = $1",
            order_id,
        )
    new = {row[1]: row[0] for row in rows if row[0] not in m.truth.works}
    assert new.keys() == given.keys(), f"work was given to {set(new)}, must be {set(given)}"
    for location, parts in given.items():
        m.truth.works[new[location]] = Work(order_id, location, m.day(location, now), parts)


async def capture_again(m: "Machine") -> None:
    """The same order once more, as it was or with other content: the first stands."""
    chosen = m.pick(m.news)
    order_id, new = chosen
    is_changed = m.random.random() < 0.5
    if is_changed:
        new = msgspec.structs.replace(new, method="air")
    (answer,) = await settle_batch(m.db, capture_many, [new])
    assert answer == Captured(order_id, False, is_changed), answer


async def plan(m: "Machine") -> None:
    """A run plans an order; it is applied at once, or late, when the world has moved on."""
    truth = m.truth
    order_id = m.pick(i for i, o in truth.orders.items() if any(n.open for n in o.lines.values()))
    order = truth.orders[order_id]
    planned: list[tuple[str, int, int, str]] = []
    much = m.pick((0, 0, 2))  # what was there when it was planned may be gone
    left = {key: truth.available(key) + much for key in ((s, p) for s in SKUS for p in POOLS[order.channel])}
    for name, line in order.lines.items():
        units = line.open
        for place in m.random.sample(sorted(POOLS[order.channel]), 2):
            if order.pickup and place != order.pickup:
                continue
            some = min(units, left[line.sku, place])
            if some:
                planned.append((name, line.version, some, place))
                units -= some
                left[line.sku, place] -= some
    m.pick(planned)
    async with m.db.transaction() as tx:
        run_id = await broker.begin_run(
            tx, dry_run=False, policy=None, policies=[], seconds=1.0, seed=0, who="test", mode="joint"
        )
        rows = dict(await tx.fetch("select line, line_id from order_line where order_id = $1", order_id))
        body = [
            {"line_id": rows[n], "version": v, "location_id": m.net.locations[p], "quantity": q}
            for n, v, q, p in planned
        ]
        await planning.keep_decisions(
            tx, run_id=run_id, orders=[order_id], plans=[msgspec.json.encode(body).decode()], whys=[{}]
        )
        await planning.planned(tx, run_id=run_id, summary={}, prices=None)
    m.plans.append((run_id, order_id, planned))
    if m.random.random() < 0.5:
        await apply(m)


async def apply(m: "Machine") -> None:
    run_id, order_id, planned = m.pick(m.plans)
    m.plans.remove((run_id, order_id, planned))
    truth, now = m.truth, m.now()
    order = truth.orders[order_id]
    # lines are decided in turn, each on what those before it left; parts of a line stay together
    given: dict[str, dict[str, Part]] = {}
    for name in dict.fromkeys(p[0] for p in planned):
        line, taken = order.lines[name], []
        for _, version, units, place in [p for p in planned if p[0] == name]:
            if not truth.may_allocate(order, name, version, place, units):
                break
            taken.append(place)
            put(truth, order_id, place, name, units)
        else:
            line.version += 1
            for place in taken:
                given.setdefault(place, {})[name] = truth.works[at_first(order_id, place)].lines[name]
            continue
        for place in taken:
            part = truth.works[at_first(order_id, place)].lines.pop(name)
            line.open, line.allocated = line.open + part.quantity, line.allocated - part.quantity
    for place in {p[3] for p in planned}:
        truth.works.pop(at_first(order_id, place), None)
    await broker.apply(m.db, run_id=run_id, who="test", now=now)
    await adopt(m, order_id, given, now)


def put(truth: Any, order_id: UUID, place: str, name: str, units: int) -> None:
    work = truth.works.setdefault(at_first(order_id, place), Work(order_id, place, date.min, {}))
    line = truth.orders[order_id].lines[name]
    work.lines[name] = Part(units, units)
    line.open, line.allocated = line.open - units, line.allocated + units


def at_first(order_id: UUID, place: str) -> UUID:
    """The id of work before it has its own."""
    return uuid5(order_id, place)


async def broker_all(m: "Machine") -> None:
    """The engine itself plans all that is open: whatever it chooses must be allowed."""
    truth, now = m.truth, m.now()
    before = {sku: truth.margin(sku, frozenset()) for sku in SKUS}
    m.plans.clear()
    await forget_plans(m)
    await broker.run(m.db, who="test", now=now, seconds=1.0, seed=m.seed)
    async with m.db.connection() as tx:
        rows = await tx.fetch(
            "select f.fulfillment_id, f.order_id, l.code, n.line, g.quantity from fulfillment f"
            " join location l using (location_id) join fulfillment_line g using (fulfillment_id)"
            " join order_line n using (line_id) order by 1, 4"
        )
    touched = set()
    for work_id, order_id, location, name, units in rows:
        if work_id in truth.works and work_id not in touched:
            continue
        order = truth.orders[order_id]
        line = order.lines[name]
        where = f"{units} of {line.sku} of order {order.number} at {location}"
        assert location in POOLS[order.channel] and location in (order.pickup, None if order.pickup else location), (
            where
        )
        assert line.hold is None and line.open >= units, f"{where}: not open"
        assert (order_id, line.sku, location) not in truth.rejected, f"{where}: it rejected it before"
        assert (line.sku, location) not in truth.resting, f"{where}: it rejected it for another order"
        key = line.sku, location
        assert truth.on_hand[key] - truth.held(key) - truth.allocated(key) >= units, f"{where}: not there"
        touched.add(work_id)
        work = truth.works.setdefault(work_id, Work(order_id, location, m.day(location, now), {}))
        work.lines[name] = Part(units, units)
        line.open, line.allocated = line.open - units, line.allocated + units
    for work in (truth.works[i] for i in touched):
        for name in work.lines:
            truth.orders[work.order].lines[name].version += 1
    for sku in SKUS:
        assert truth.margin(sku, frozenset()) >= before[sku], f"promises of {sku} were broken by allocating"


async def forget_plans(m: "Machine") -> None:
    async with m.db.transaction() as tx:
        await tx.execute("update run set state = 'failed' where state = 'planned'")


async def cancel(m: "Machine") -> None:
    order_id = m.pick(m.truth.orders)
    names = m.pick((None, None, ["1"]))
    expected = m.truth.cancel(order_id, names)

    async def cancelled() -> int:
        return (await cancel_order(m.db, order_id=order_id, lines=names, why="x", who="shop")).units

    await m.same(cancelled(), expected, f"cancel {names}")


async def hold(m: "Machine") -> None:
    order_id = m.pick(m.truth.orders)
    waiting = [n for n in m.truth.orders[order_id].lines.values() if n.open]
    changed = [n for n in waiting if n.hold != "fraud"]
    doing = hold_order(m.db, order_id=order_id, lines=None, kind="fraud", who="shop")
    await m.same(doing, len(changed) if waiting else "Conflict", "hold")
    for line in changed:
        line.hold, line.version = "fraud", line.version + 1


async def release(m: "Machine") -> None:
    order_id = m.pick(i for i, o in m.truth.orders.items() if any(n.hold for n in o.lines.values()))
    lines = [n for n in m.truth.orders[order_id].lines.values() if n.hold]
    await m.same(release_order(m.db, order_id=order_id, lines=None, who="shop"), len(lines), "release")
    for line in lines:
        line.hold, line.version = None, line.version + 1
