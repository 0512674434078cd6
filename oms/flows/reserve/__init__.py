"""Carts are reserved: all lines or none, durable before the answer leaves, many in one transaction.

door → Settle(reserve_many) → Book (rows taken, decided by ATP) → ledger.write → wake "project"
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from oms import named
from oms.book import Book, Units, units_of
from oms.db import Connection, Database, Sql, tell
from oms.domain.order import CartLine, Named, exploded, faults_of_lines, summed
from oms.domain.shape import Rule
from oms.enquiries import Refused
from oms.errors import BadInput, Conflict, KeyReused, NotFound, OutOfStock, Refusal
from oms.named import Place
from oms.settle import Again

sql = Sql("reserve")

TTL_SECONDS_MAX = 86_400
ANOTHER_PART = "not reserved, as another part of it could not be"
DUE_MAX = 1_000
"""Reservations that one transaction expires, at most."""


class Key(msgspec.Struct, frozen=True):
    """The caller's Idempotency-Key, the hash of the request, and how its door says an answer: (status, body)."""

    key_id: int
    key: str
    hash: bytes
    render: Callable[[Any], tuple[int, bytes]]


class Cart(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be reserved. The same `reservation_id` again is the same reservation.

    `location` makes it a pick-up there: allocated at once. Carts of one `group` are granted all or none.
    """

    reservation_id: UUID
    channel_id: int
    lines: tuple[CartLine, ...]
    ttl_seconds: int = 900
    location: str | None = None
    key: Key | None = None
    group: UUID | None = None


class Granted(msgspec.Struct, frozen=True):
    """A reservation; `lines` are summed by sku."""

    id: UUID
    expires_at: datetime
    lines: list[CartLine]


class Replayed(msgspec.Struct, frozen=True):
    """The answer that this key got before, as it was sent."""

    status: int
    body: bytes


class _Stored(msgspec.Struct, frozen=True):
    key_id: int
    key: str
    hash: bytes
    status: int
    body: bytes


class _Made(msgspec.Struct, frozen=True):
    reservation_id: UUID
    expires_at: datetime


class _Before(msgspec.Struct, frozen=True):
    now: datetime
    rules: int
    known: int
    is_due: bool


class _Written(msgspec.Struct, frozen=True):
    kept: int
    made: int


class _Wish(msgspec.Struct, frozen=True):
    """A cart in our words: units by sku, and where."""

    cart: Cart
    rule: Rule
    names: dict[str, Named]
    wanted: dict[int, int]
    location_id: int | None


class _Grant(msgspec.Struct, frozen=True):
    wish: _Wish
    after: dict[int, int]


before = sql.one("before", _Before)
stored_answers = sql.rows("stored_answers", _Stored)
known_grants = sql.rows("known_grants", _Made)
settle = sql.one("settle", _Written)
take_due_on = sql.rows("take_due_on", UUID)
take_due = sql.rows("take_due", UUID)
take_live = sql.maybe("take_live", UUID)
lines_of = sql.rows("lines_of", Units)
end_all = sql.run("end_all")
extend_one = sql.maybe("extend", datetime)


async def reserve_many(tx: Connection, carts: Sequence[Cart]) -> list[Granted | Replayed | Refusal]:
    """Decides carts in order, by the number that ATP shows; each gets a grant, its earlier answer, or a refusal.

    One lock of all skus, one update per availability row. What is due on these skus is expired first, so nobody is
    refused for the sake of the dead.
    """
    keyed = {place: cart.key for place, cart in enumerate(carts) if cart.key is not None}
    seen = await before(
        tx, key_ids=[k.key_id for k in keyed.values()], keys=[k.key for k in keyed.values()],
        ids=[cart.reservation_id for place, cart in enumerate(carts) if place not in keyed],
    )  # fmt: skip
    answers = await _answered_before(tx, carts, keyed) if seen.known else {}
    answers |= _twins(keyed, answers)
    wishes: dict[int, _Wish] = {}
    new = [place for place in range(len(carts)) if place not in answers]
    rules = {k: rule.selling(seen.now) for k, rule in (await named.rules_in_force(tx, version=seen.rules)).items()}
    for place, wish in zip(new, await _understand(tx, [carts[place] for place in new], rules), strict=True):
        if isinstance(wish, _Wish):
            wishes[place] = wish
        else:
            answers[place] = wish

    skus = {s for w in wishes.values() for s in w.wanted}
    due = await take_due_on(tx, skus=sorted(skus), limit=DUE_MAX) if seen.is_due else []
    freed = await lines_of(tx, ids=due) if due else []
    freed_skus, keys = units_of(freed)
    keys |= {(sku, w.location_id) for w in wishes.values() if w.location_id is not None for sku in w.wanted}
    book = await Book.open(tx, skus=skus | freed_skus, keys=keys, now=seen.now)
    book.give_back(freed)
    await book.expect(tx, [wish.rule for wish in wishes.values()])

    grants: dict[int, _Grant] = {}
    for together in _together(carts, new):
        decided = {place: _decide(book, wishes[place]) for place in together if place in wishes}
        is_whole = len(decided) == len(together) and all(isinstance(d, _Grant) for d in decided.values())
        for place, decision in decided.items():
            if isinstance(decision, Refusal):
                answers[place] = decision
                if isinstance(decision, OutOfStock):
                    tell(tx, _refused(book, wishes[place], decision, seen))
            elif is_whole:
                grants[place] = decision
                answers[place] = _granted(carts[place], seen.now + timedelta(seconds=carts[place].ttl_seconds))
            else:
                _take_back(book, decision)
                answers[place] = Conflict(ANOTHER_PART)

    if due:
        await end_all(tx, ids=due, state="expired")
    kept = await _write(
        tx,
        list(grants.values()),
        {place: (keyed[place], answers[place]) for place in new if place in keyed},
        now=seen.now,
    )
    await book.write(tx, capped=named.capped(rules.values()))
    for place, answer in answers.items():
        if isinstance(answer, _Twin):
            first, status, body = kept[answer.place]
            answers[place] = _replay(keyed[place], hash=first.hash, status=status, body=body)
    return [answers[place] for place in range(len(carts))]


def _together(carts: Sequence[Cart], places: Sequence[int]) -> list[list[int]]:
    """The places of carts that are granted all or none, in order."""
    found: dict[UUID | int, list[int]] = {}
    for place in places:
        found.setdefault(carts[place].group or place, []).append(place)
    return list(found.values())


def _take_back(book: Book, grant: _Grant) -> None:
    wish, rule = grant.wish, grant.wish.rule
    book.give_back(
        Units(wish.cart.reservation_id, rule.channel_id, rule.pool_id, wish.location_id, sku_id, units)
        for sku_id, units in wish.wanted.items()
    )


def _decide(book: Book, wish: _Wish) -> _Grant | Refusal:
    rule, location_id = wish.rule, wish.location_id
    if location_id is not None:
        outside = [s for s in wish.wanted if not book.sells_from(s, location_id, rule.pool_id)]
        if outside:
            return Conflict(f"location {wish.cart.location} is not in the pool that channel {rule.code} sells from")
    numbers: dict[int, int] = {}
    for sku_id in wish.wanted:
        number = book.atp(sku_id, rule)
        numbers[sku_id] = number if location_id is None else min(number, book.atp_at(sku_id, location_id))
    if any(numbers[sku_id] < units for sku_id, units in wish.wanted.items()):
        return _out_of_stock(wish, numbers)
    for sku_id, units in wish.wanted.items():
        if location_id is None:
            book.reserve(sku_id, rule.pool_id, units, channel_id=rule.channel_id)
        else:
            book.allocate(sku_id, location_id, units, pool_id=rule.pool_id, channel_id=rule.channel_id)
    return _Grant(wish, {sku_id: numbers[sku_id] - units for sku_id, units in wish.wanted.items()})


def _refused(book: Book, wish: _Wish, said: OutOfStock, seen: _Before) -> list[Refused]:
    return [
        Refused(
            seen.now, wish.rule.channel_id, wish.cart.location, item["sku"], item["quantity"], item["atp"],
            [book.rows[part.sku_id].version for part in wish.names[item["sku"]].parts], seen.rules,
        )
        for item in said.items
    ]  # fmt: skip


def _out_of_stock(wish: _Wish, numbers: dict[int, int]) -> OutOfStock:
    items = []
    for code, units in summed(wish.cart.lines).items():
        parts = wish.names[code].parts
        if all(numbers[p.sku_id] >= wish.wanted[p.sku_id] for p in parts):
            continue
        number = min(numbers[p.sku_id] // p.quantity for p in parts)
        item: dict[str, Any] = {"sku": code, "quantity": units, "atp": number}
        if wish.names[code].is_kit:
            item["parts"] = [{"sku": p.sku, "quantity": wish.wanted[p.sku_id], "atp": numbers[p.sku_id]} for p in parts]
        items.append(item)
    where = f" at {wish.cart.location}" if wish.cart.location else ""
    short = ", ".join(f"{item['sku']} ({item['quantity']} asked, {item['atp']} left)" for item in items)
    return OutOfStock(f"Not enough may be promised{where}: {short}. Nothing was reserved.", items=items)


async def _answered_before(tx: Connection, carts: Sequence[Cart], keyed: Mapping[int, Key]) -> dict[int, Any]:
    """Answers that stand already, by place: of keys that came before, and of reservations that were made."""
    answers: dict[int, Any] = {}
    stored = await stored_answers(tx, key_ids=[k.key_id for k in keyed.values()], keys=[k.key for k in keyed.values()])
    by_key = {(s.key_id, s.key): s for s in stored}
    for place, key in keyed.items():
        if found := by_key.get((key.key_id, key.key)):
            answers[place] = _replay(key, hash=found.hash, status=found.status, body=found.body)
    unkeyed = [cart.reservation_id for place, cart in enumerate(carts) if place not in keyed]
    made = {m.reservation_id: m for m in await known_grants(tx, ids=unkeyed)}
    for place, cart in enumerate(carts):
        if cart.reservation_id in made:
            answers[place] = _granted(cart, made[cart.reservation_id].expires_at)
    return answers


class _Twin(msgspec.Struct, frozen=True):
    """The same key again within one batch: it gets what the first one gets."""

    place: int


def _twins(keyed: Mapping[int, Key], answers: Mapping[int, Any]) -> dict[int, _Twin]:
    first: dict[tuple[int, str], int] = {}
    twins = {}
    for place, key in keyed.items():
        if place not in answers and first.setdefault((key.key_id, key.key), place) != place:
            twins[place] = _Twin(first[key.key_id, key.key])
    return twins


def _replay(key: Key, *, hash: bytes, status: int, body: bytes) -> Replayed | Refusal:
    if status == 0:
        return Conflict("a request with this Idempotency-Key is still under way; repeat it in a moment")
    if hash != key.hash:
        return KeyReused("this Idempotency-Key came before with another body; use a new key for a new request")
    return Replayed(status, body)


async def _understand(tx: Connection, carts: Sequence[Cart], by_id: Mapping[int, Rule]) -> list[_Wish | Refusal]:
    if not carts:
        return []
    names = await named.skus_of(tx, {(c.channel_id, line.sku) for c in carts for line in c.lines})
    found = await named.places_of(tx, {c.location for c in carts if c.location is not None})
    wishes: list[_Wish | Refusal] = []
    for cart in carts:
        rule = by_id.get(cart.channel_id)
        if rule is None:
            wishes.append(NotFound("no such channel"))
            continue
        keys = {line.sku: (cart.channel_id, line.sku) for line in cart.lines}
        mine = {code: names[key] for code, key in keys.items() if key in names}
        refusal = _faults(cart, rule, mine, found)
        if refusal is not None:
            wishes.append(refusal)
            continue
        wanted = dict(sorted(exploded(summed(cart.lines), mine).items()))
        wishes.append(_Wish(cart, rule, mine, wanted, found[cart.location].location_id if cart.location else None))
    return wishes


def _faults(cart: Cart, rule: Rule, names: dict[str, Named], found: dict[str, Place]) -> Refusal | None:
    faults = faults_of_lines(cart.lines)
    if not 1 <= cart.ttl_seconds <= TTL_SECONDS_MAX:
        faults.append({"field": "ttl_seconds", "reason": f"is not a whole number from 1 to {TTL_SECONDS_MAX}"})
    for index, line in enumerate(cart.lines):
        if line.sku and line.sku not in names:
            faults.append({"field": f"lines[{index}].sku", "reason": f"unknown sku {line.sku!r}"})
    if cart.location is not None and cart.location not in found:
        return NotFound(f"no location has the code {cart.location!r}")
    if faults:
        return BadInput("; ".join(f"{f['field']}: {f['reason']}" for f in faults), items=faults)
    if not rule.is_on:
        return Conflict(f"channel {rule.code} is off: it sells nothing")
    return None


async def _write(
    tx: Connection, grants: Sequence[_Grant], said: Mapping[int, tuple[Key, Any]], *, now: datetime
) -> dict[int, tuple[Key, int, bytes]]:
    """Makes reservations, and keeps what is said under the callers' keys, as it is sent; gives that by place.

    Another process that was faster with one of them makes the batch start again.
    """
    kept = {place: (key, *key.render(answer)) for place, (key, answer) in said.items()}
    if not grants and not kept:
        return {}
    carts = [g.wish.cart for g in grants]
    lines = [
        (g.wish.cart.reservation_id, sku_id, units, g.after[sku_id])
        for g in grants
        for sku_id, units in g.wish.wanted.items()
    ]
    written = await settle(
        tx, key_ids=[k.key_id for k, _, _ in kept.values()], keys=[k.key for k, _, _ in kept.values()],
        hashes=[k.hash for k, _, _ in kept.values()], statuses=[s for _, s, _ in kept.values()],
        bodies=[body for _, _, body in kept.values()],
        ids=[c.reservation_id for c in carts], channels=[c.channel_id for c in carts],
        pools=[g.wish.rule.pool_id for g in grants], locations=[g.wish.location_id for g in grants],
        ends=[now + timedelta(seconds=c.ttl_seconds) for c in carts], line_ids=[line[0] for line in lines],
        skus=[line[1] for line in lines], quantities=[line[2] for line in lines], afters=[line[3] for line in lines],
    )  # fmt: skip
    if written.made < len(carts) or written.kept < len(kept):
        raise Again
    return kept


def _granted(cart: Cart, expires_at: datetime) -> Granted:
    return Granted(
        cart.reservation_id, expires_at, [CartLine(code, units) for code, units in summed(cart.lines).items()]
    )


async def release(db: Database, *, reservation_id: UUID, channels: Collection[int] | None = None) -> bool:
    """Units of a live reservation go free; whether it was still there. `channels` are those that the caller sees."""
    async with db.transaction() as tx:
        found = await take_live(tx, id=reservation_id, channels=None if channels is None else list(channels))
        if found is None:
            return False
        await end_reservations(tx, [found], state="released")
    return True


async def extend(
    db: Database, *, reservation_id: UUID, ttl_seconds: int, channels: Collection[int] | None = None
) -> datetime:
    """A live reservation lasts at least this much longer from now; NotFound where it has ended."""
    async with db.transaction() as tx:
        until = await extend_one(
            tx, id=reservation_id, ttl=ttl_seconds, channels=None if channels is None else list(channels)
        )
    if until is None:
        raise NotFound("no live reservation has this id")
    return until


async def expire_due(db: Database, *, batch: int = 200) -> int:
    """Reservations whose time is over go free, in small transactions; gives how many."""
    count = 0
    while True:
        async with db.transaction() as tx:
            due = await take_due(tx, limit=batch)
            if due:
                await end_reservations(tx, due, state="expired")
        count += len(due)
        if len(due) < batch:
            return count


async def end_reservations(tx: Connection, ids: Sequence[UUID], *, state: str) -> None:
    """Reservations that are taken end so, and their units go free."""
    units = await lines_of(tx, ids=list(ids))
    skus, keys = units_of(units)
    book = await Book.open(tx, skus=skus, keys=keys)
    book.give_back(units)
    await end_all(tx, ids=list(ids), state=state)
    await book.write(tx, capped=named.capped((await named.rules_of(tx, {u.channel_id for u in units})).values()))
