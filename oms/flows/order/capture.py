"""Orders are captured: once by (channel, number), with or without a reservation, one by one or by the thousand."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from oms import ledger, named
from oms.book import Book, Units, units_of
from oms.db import Connection, Database, Sql
from oms.domain.order import Named, NewOrder, faults_of_order
from oms.domain.shape import Rule
from oms.errors import BadInput, NotFound, Refusal
from oms.flows.order.decide import Day, decide, local_day
from oms.flows.order.troubles import Entered, StandingOrder, changed, is_nowhere, refused, troubles_of
from oms.named import Place
from oms.record import Step, Trouble, keep, raise_exceptions
from oms.settle import settle_batch

sql = Sql("order")

CHUNK = 200
"""Orders per transaction of a bulk capture: a chunk holds its skus' rows for about a tenth of a second."""


class Captured(msgspec.Struct, frozen=True):
    """The order that stands under this number; `is_changed`: it came again with other content, and the first stands."""

    order_id: UUID
    is_new: bool
    is_changed: bool = False


class Tally(msgspec.Struct, frozen=True):
    """What a bulk capture did; a refused order is an exception of kind order_refused."""

    orders: int
    new: int
    known: int
    changed: int
    refused: int


class _Claim(msgspec.Struct, frozen=True):
    reservation_id: UUID
    channel_id: int
    is_live: bool


class _LineId(msgspec.Struct, frozen=True):
    line_id: int
    order_id: UUID
    line: str
    part: int


class _FulfillmentId(msgspec.Struct, frozen=True):
    fulfillment_id: UUID
    order_id: UUID


insert_orders = sql.rows("insert_orders", StandingOrder)
known_orders = sql.rows("known_orders", StandingOrder)
take_claims = sql.rows("take_claims", _Claim)
claimed_lines = sql.rows("claimed_lines", Units)
claim = sql.run("claim")
insert_lines = sql.rows("insert_lines", _LineId)
insert_fulfillments = sql.rows("insert_fulfillments", _FulfillmentId)
insert_fulfillment_lines = sql.run("insert_fulfillment_lines")
captured_until = sql.run("captured_until")


class _Words(msgspec.Struct, frozen=True):
    """What the orders' codes mean."""

    rules: dict[int, Rule]
    names: dict[tuple[int, str], Named]
    places: dict[str, Place]


async def capture_many(tx: Connection, orders: Sequence[NewOrder]) -> list[Captured | Refusal]:
    """Captures orders; each gets the order that stands under its number, or why its text cannot be an order.

    A live reservation becomes the order's demand, an expired one is new demand. An unknown sku parks its line, units
    beyond stock are open all the same: both are exceptions, never an error to the shop.
    """
    words = _Words(
        await named.rules_of(tx, {o.channel_id for o in orders}),
        await named.skus_of(tx, {(o.channel_id, line.sku) for o in orders for line in o.lines}),
        await named.places_of(tx, {o.pickup_location for o in orders if o.pickup_location is not None}),
    )
    answers, fresh = await _enter(tx, orders, words)
    if fresh:
        await _place(tx, await _claimed(tx, fresh, words), words)
    return answers


async def _enter(
    tx: Connection, orders: Sequence[NewOrder], words: _Words
) -> tuple[list[Captured | Refusal], list[tuple[UUID, NewOrder]]]:
    """Makes the orders that are new, and answers all: the first content under a number stands."""
    answers: dict[int, Captured | Refusal] = {}
    first: dict[tuple[int, str], NewOrder] = {}
    for place, order in enumerate(orders):
        if order.channel_id not in words.rules:
            answers[place] = NotFound("no such channel")
        elif faults := faults_of_order(order):
            text = "; ".join(f"{f['field']}: {f['reason']}" for f in faults)
            answers[place] = BadInput(f"order {order.number!r}: {text}", items=faults)
        else:
            first.setdefault((order.channel_id, order.number), order)
    if not first:
        return [answers[place] for place in range(len(orders))], []
    given = [first[key] for key in sorted(first)]
    hashes = {id(order): order.content_hash() for order in orders}
    pickups = [words.places.get(o.pickup_location) if o.pickup_location else None for o in given]
    made = await insert_orders(
        tx, channels=[o.channel_id for o in given], numbers=[o.number for o in given],
        hashes=[hashes[id(o)] for o in given], placed=[o.placed_at for o in given],
        ship_tos=[msgspec.to_builtins(o.ship_to) for o in given], methods=[o.method for o in given],
        priorities=[o.priority for o in given], splits=[o.split for o in given],
        split_maxima=[o.split_max for o in given], promise_days=[o.promise_days for o in given],
        pickups=[p.location_id if p else None for p in pickups], sold_there=[o.sold_there for o in given],
    )  # fmt: skip
    standing = {(o.channel_id, o.number): o for o in made}
    fresh = [(o.order_id, first[key]) for key, o in standing.items()]
    rest = [key for key in first if key not in standing]
    if rest:
        known = await known_orders(tx, channels=[key[0] for key in rest], numbers=[key[1] for key in rest])
        standing |= {(o.channel_id, o.number): o for o in known}
    troubles, told = [], {id(order) for _, order in fresh}
    for place, order in enumerate(orders):
        if place in answers:
            continue
        stands = standing[order.channel_id, order.number]
        differs = stands.hash != hashes[id(order)]
        answers[place] = Captured(stands.order_id, id(order) in told, differs)
        told.discard(id(order))
        if differs:
            troubles.append(changed(stands, order, words.rules[order.channel_id]))
    await raise_exceptions(tx, troubles)
    return [answers[place] for place in range(len(orders))], fresh


async def _claimed(tx: Connection, fresh: Sequence[tuple[UUID, NewOrder]], words: _Words) -> list[Entered]:
    """Takes the reservations that the orders bring; the first order that brings one has it."""
    wanted: dict[UUID, UUID] = {}
    for order_id, order in fresh:
        reservation_id = _uuid(order.reservation)
        if reservation_id is not None:
            wanted.setdefault(reservation_id, order_id)
    taken = {c.reservation_id: c for c in await take_claims(tx, ids=sorted(wanted))} if wanted else {}
    channels = {order_id: order.channel_id for order_id, order in fresh}
    claims = {
        wanted[c.reservation_id]: c.reservation_id
        for c in taken.values()
        if c.is_live and c.channel_id == channels[wanted[c.reservation_id]]
    }
    units: dict[UUID, list[Units]] = {}
    if claims:
        for u in await claimed_lines(tx, ids=list(claims.values())):
            units.setdefault(u.reservation_id, []).append(u)
        await claim(tx, ids=list(claims.values()))
    news = []
    for order_id, order in sorted(fresh, key=lambda pair: (pair[1].placed_at, pair[1].number)):
        place = words.places.get(order.pickup_location) if order.pickup_location else None
        claim_id = claims.get(order_id)
        held = units.get(claim_id, []) if claim_id else []
        news.append(Entered(order_id, order, words.rules[order.channel_id], place, held, claim_id))
    return news


async def _place(tx: Connection, news: Sequence[Entered], words: _Words) -> None:
    """Decides where the units of new orders stand, and writes it: each availability row once."""
    skus, keys = units_of(u for new in news for u in new.claimed)
    for new in news:
        for line in new.order.lines:
            name = words.names.get((new.order.channel_id, line.sku))
            for part in name.parts if name else ():
                skus.add(part.sku_id)
                if new.place is not None:
                    keys.add((part.sku_id, new.place.location_id))
    book = await Book.open(tx, skus=skus, keys=keys)
    picked_up = [(new.place.location_id, local_day(new.order.at, new.place)) for new in news if new.place]
    days = Day(await ledger.capacity(tx, picked_up))
    decided = [
        msgspec.structs.replace(
            new,
            plan=decide(
                book=book, days=days, order=new.order, rule=new.rule, names=words.names, claimed=new.claimed,
                place=new.place,
            ),
        )
        for new in news
    ]  # fmt: skip
    await _write(tx, decided)
    await book.write(tx, capped=named.capped(words.rules.values()))
    await ledger.work(tx, [new.plan.work for new in decided if new.plan and new.plan.work])
    await raise_exceptions(tx, await troubles_of(tx, decided, book))


async def _write(tx: Connection, news: Sequence[Entered]) -> None:
    rows = [(new, line) for new in news if new.plan for line in new.plan.lines]
    ids = {
        (row.order_id, row.line, row.part): row.line_id
        for row in await insert_lines(
            tx, orders=[new.order_id for new, _ in rows], lines=[line.line for _, line in rows],
            parts=[line.part for _, line in rows], sku_ids=[line.sku_id for _, line in rows],
            skus=[line.sku for _, line in rows], pools=[new.rule.pool_id for new, _ in rows],
            quantities=[line.quantity for _, line in rows], prices=[line.price_cents for _, line in rows],
            open=[line.open for _, line in rows], parked=[line.parked for _, line in rows],
            allocated=[line.allocated for _, line in rows],
            holds=["address" if is_nowhere(new) else None for new, _ in rows],
            waits=[line.waits for _, line in rows],
        )
    }  # fmt: skip
    given = [new for new in news if new.plan and new.plan.work]
    steps = [Step("order", str(new.order_id), "captured", _why(new), _detail(new)) for new in news]
    if given:
        made = {
            row.order_id: row.fulfillment_id
            for row in await insert_fulfillments(
                tx, orders=[new.order_id for new in given],
                locations=[new.plan.work.location_id for new in given if new.plan and new.plan.work],
                days=[new.plan.work.day for new in given if new.plan and new.plan.work],
            )
        }  # fmt: skip
        parts = [(new, line) for new, line in rows if line.allocated]
        await insert_fulfillment_lines(
            tx, fulfillments=[made[new.order_id] for new, _ in parts],
            lines=[ids[new.order_id, line.line, line.part] for new, line in parts],
            skus=[line.sku_id for _, line in parts], quantities=[line.allocated for _, line in parts],
        )  # fmt: skip
        steps += [
            Step("fulfillment", str(made[new.order_id]), "released", "pick-up", {"order": str(new.order_id)})
            for new in given
        ]
    by_who: dict[str, list[Step]] = {}
    for new, step in zip([*news, *given], steps, strict=True):
        by_who.setdefault(new.order.who, []).append(step)
    for who, kept in by_who.items():
        await keep(tx, who=who, steps=kept)


def _why(new: Entered) -> str | None:
    if new.claim_id is not None:
        return f"claims reservation {new.claim_id}"
    if new.order.reservation is not None:
        return f"reservation {new.order.reservation} is not live: new demand"
    return None


def _detail(new: Entered) -> dict[str, Any]:
    assert new.plan is not None
    lines = []
    for line in new.plan.lines:
        units = {name: getattr(line, name) for name in ("open", "parked", "allocated", "short")}
        lines.append({"line": line.line, "part": line.part, "sku": line.sku} | {k: v for k, v in units.items() if v})
    return {"channel": new.rule.code, "number": new.order.number, "lines": lines}


def _uuid(text: str | None) -> UUID | None:
    try:
        return UUID(text) if text else None
    except ValueError:
        return None


async def capture_from(
    db: Database,
    *,
    channel_id: int,
    orders: Iterable[NewOrder],
    until: datetime | None,
    unreadable: Sequence[Trouble] = (),
    chunk: int = CHUNK,
) -> Tally:
    """Captures the orders that a shop sold itself, in chunks; `captured_until` moves when all of them are committed.

    An order that is refused, or was `unreadable`, does not hold up the rest: it is kept whole in an exception. Raises
    Busy where the database stays away: then nothing is lost, the same file may come again.
    """
    counts = dict.fromkeys(("orders", "new", "known", "changed", "refused"), 0)
    if unreadable:
        counts["orders"] = counts["refused"] = len(unreadable)
        async with db.transaction() as tx:
            await raise_exceptions(tx, unreadable)
    for part in _chunks((msgspec.structs.replace(order, sold_there=True) for order in orders), chunk):
        answers = await settle_batch(db, capture_many, part)
        rejected = []
        for order, answer in zip(part, answers, strict=True):
            counts["orders"] += 1
            if isinstance(answer, Captured):
                counts["new" if answer.is_new else "changed" if answer.is_changed else "known"] += 1
            elif isinstance(answer, BadInput | NotFound) or not isinstance(answer, Refusal):
                counts["refused"] += 1
                rejected.append(refused(order, answer))
            else:
                raise answer
        if rejected:
            async with db.transaction() as tx:
                await raise_exceptions(tx, rejected)
    if until is not None:
        async with db.transaction() as tx:
            await captured_until(tx, channel_id=channel_id, until=until)
    return Tally(**counts)


def _chunks(orders: Iterable[NewOrder], size: int) -> Iterable[list[NewOrder]]:
    part: list[NewOrder] = []
    for order in orders:
        part.append(order)
        if len(part) == size:
            yield part
            part = []
    if part:
        yield part
