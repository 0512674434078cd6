"""Who owes whom for units that were sold or came back, written inside the caller's transaction.

A fact first, once per fulfillment line or return; its entry at once where a transfer price says what it costs. What has
no price, or belongs to nobody, waits with an exception until a person has said so: it is never zero.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec

from oms import record
from oms.db import Connection, Sql
from oms.domain.settlement import Came, Price, Sold, cents_of, owed_for_return, part_of

sql = Sql("owed")

KIND = "settlement_waiting"
CHUNK = 500
"""What is looked at in one statement."""


class Left(msgspec.Struct, frozen=True):
    """Units of a fulfillment's line that left its location; `reference` names them once."""

    fulfillment_id: UUID
    line_id: int
    quantity: int
    reference: str


class Returned(msgspec.Struct, frozen=True):
    """Units of an order's line that came back with a return; `nth` tells this arrival from others of its number."""

    number: int
    line_id: int
    quantity: int
    nth: int


class Told(msgspec.Struct, frozen=True):
    """Units that a message says were sold (or, negative, taken back) at a location without an order of ours."""

    reference: str
    sku_id: int
    location_id: int
    quantity: int
    at: datetime


class SoldLine(msgspec.Struct, frozen=True):
    """An order's line whose units come back, and whose those are that are with the customer."""

    line_id: int
    sku_id: int
    channel_id: int
    order_id: UUID
    price_cents: int | None
    buyer_id: int | None
    stock_owner_id: int | None
    division_id: int | None
    takes_back: bool
    own_quantity: int
    own_back: int
    sold: list[dict[str, Any]]


class Waiting(msgspec.Struct, frozen=True):
    """What waits for its entry, and what is known for it: its parties, its price, the sale that it is a part of."""

    owed_id: int
    kind: str
    waits_for: str | None
    quantity: int
    skipped: int
    price_cents: int | None
    cost_cents: int | None
    sku: str
    location: str
    channel: str | None
    owner_id: int | None
    owner: str | None
    owner_kind: str | None
    buyer_id: int | None
    buyer: str | None
    happened_at: datetime
    of_state: str | None
    of_waits_for: str | None
    of_cents: int | None
    of_currency: str | None
    of_price: str | None
    of_quantity: int | None
    of_buyer_id: int | None
    price: str | None
    cents: int | None
    percent: str | None
    percent_of: str | None
    currency: str | None


class Entry(msgspec.Struct, frozen=True):
    """An entry that is to be made."""

    owed_id: int
    kind: str
    owner_id: int
    buyer_id: int
    cents: int
    currency: str
    price: str | None


class Lacking(msgspec.Struct, frozen=True):
    """What an entry waits for: a subject, and a sentence that says what to do. No sentence: its sale is told of."""

    subject: str
    sentence: str | None


owe_shipped = sql.rows("owe_shipped", int)
sold_lines = sql.rows("sold_lines", SoldLine)
owe_returned = sql.rows("owe_returned", int)
owe_told = sql.rows("owe_told", int)
lock_periods_open = sql.run("lock_periods_open")
waiting = sql.rows("waiting", Waiting)
write_entries = sql.run("write_entries")
mark = sql.run("mark")
still_waits = sql.rows("still_waits", str)


async def shipped(tx: Connection, left: Sequence[Left], *, who: str, at: datetime) -> None:
    """Units left their location: where their owner is not who sold them, who sold them owes it. Once per reference."""
    made = await owe_shipped(
        tx, fulfillments=[n.fulfillment_id for n in left], lines=[n.line_id for n in left],
        quantities=[n.quantity for n in left], references=[n.reference for n in left], at=at,
    )  # fmt: skip
    if made:
        await make_entries(tx, made, who=who)


async def sold(tx: Connection, told: Sequence[Told], *, who: str) -> None:
    """Tills sold or took back units: a location's division owes for those of another's stock. Once per reference."""
    told = [n for n in told if n.quantity]
    if not told:
        return
    made = await owe_told(
        tx, references=[n.reference for n in told], kinds=["sale" if n.quantity > 0 else "return" for n in told],
        skus=[n.sku_id for n in told], locations=[n.location_id for n in told], quantities=[n.quantity for n in told],
        ats=[n.at for n in told],
    )  # fmt: skip
    if made:
        await make_entries(tx, made, who=who)


async def returned(
    tx: Connection, *, return_id: UUID, location_id: int, came: Sequence[Returned], who: str, at: datetime
) -> None:
    """Units of order lines came back to a location, which `order_line.returned` does not say yet."""
    lines = {n.line_id: n for n in await sold_lines(tx, lines=[n.line_id for n in came], location_id=location_id)}
    gone: dict[tuple[int, int | None], int] = {}
    references: list[str] = []
    rows: list[tuple[int, str, int | None, int | None, int, int | None, int]] = []
    for n in came:
        line = lines.get(n.line_id)
        if line is None:
            continue
        here = Came(n.quantity, line.buyer_id, line.stock_owner_id, line.division_id)
        for k, back in enumerate(owed_for_return(here, _with_customer(line, gone))):
            references.append(f"return:{return_id}:{n.number}:{n.nth}:{k}")
            rows.append((n.line_id, back.kind, back.owner_id, back.buyer_id, back.quantity, back.of_id, back.skipped))
            if back.kind == "return":
                gone[n.line_id, back.of_id] = gone.get((n.line_id, back.of_id), 0) - back.quantity
    if not rows:
        return
    made = await owe_returned(
        tx, return_id=return_id, location_id=location_id, at=at, references=references, lines=[r[0] for r in rows],
        kinds=[r[1] for r in rows], owners=[r[2] for r in rows], buyers=[r[3] for r in rows],
        quantities=[r[4] for r in rows], ofs=[r[5] for r in rows], skips=[r[6] for r in rows],
    )  # fmt: skip
    await make_entries(tx, made, who=who)


def _with_customer(line: SoldLine, gone: Mapping[tuple[int, int | None], int]) -> list[Sold]:
    sold = [msgspec.convert(s, Sold) for s in line.sold]
    sold = [msgspec.structs.replace(s, back=s.back + gone.get((line.line_id, s.owed_id), 0)) for s in sold]
    return [*sold, Sold(None, line.buyer_id, line.takes_back, line.own_quantity, line.own_back)]


async def make_entries(tx: Connection, ids: Sequence[int] | None, *, who: str) -> int:
    """Makes the entries of what is owed (None: of all that waits) wherever its price and parties are known.

    Gives how many. What lacks something waits, with an exception; that of what waits no longer ends.
    """
    await lock_periods_open(tx)
    made, ended = 0, set[str]()
    for is_part in (False, True):
        after = 0
        while found := await waiting(tx, ids=ids, is_part=is_part, after=after, limit=CHUNK):
            after = found[-1].owed_id
            entries, troubles, settled = await _settle(tx, found, who=who)
            made += entries
            ended |= settled
            await record.raise_exceptions(tx, troubles)
    if ended:
        ended -= set(await still_waits(tx, subjects=sorted(ended)))
        text = "its entries are made"
        await record.settle_exceptions(tx, who=who, resolution=text, of=[(KIND, subject) for subject in sorted(ended)])
    return made


async def _settle(tx: Connection, found: Sequence[Waiting], *, who: str) -> tuple[int, list[record.Trouble], set[str]]:
    entries: list[Entry] = []
    marks: list[tuple[int, str, str | None]] = []
    troubles: dict[str, record.Trouble] = {}
    for w in found:
        told = entry_of(w)
        if isinstance(told, Lacking):
            if told.subject != w.waits_for:
                marks.append((w.owed_id, "waiting", told.subject))
                if told.sentence is not None:
                    troubles.setdefault(told.subject, _trouble(w, told.subject, told.sentence))
            continue
        marks.append((w.owed_id, "own" if told is None else "made", None))
        if told is not None:
            entries.append(told)
    await write_entries(
        tx, ids=[e.owed_id for e in entries], kinds=[e.kind for e in entries], owners=[e.owner_id for e in entries],
        buyers=[e.buyer_id for e in entries], cents=[e.cents for e in entries],
        currencies=[e.currency for e in entries], prices=[e.price for e in entries], who=who,
    )  # fmt: skip
    await mark(tx, ids=[m[0] for m in marks], states=[m[1] for m in marks], subjects=[m[2] for m in marks])
    done = {m[0] for m in marks}
    return len(entries), list(troubles.values()), {w.waits_for for w in found if w.owed_id in done and w.waits_for}


def entry_of(w: Waiting) -> Entry | Lacking | None:
    """The entry of what is owed; None where owner and buyer are one, Lacking where something is not known."""
    if w.owner_id is None:
        return Lacking(
            f"owner:{w.location}", f"{w.sku} at {w.location} belongs to nobody: give the location a division."
        )
    if w.buyer_id is None and (w.kind == "bought" or w.channel is None):
        return Lacking(f"buyer:{w.location}", f"{w.location} sold or took back {w.sku}: give the location a division.")
    if w.buyer_id is None:
        return Lacking(f"seller:{w.channel}", f"{w.channel} sold {w.sku} of {w.owner}: give the channel a division.")
    if w.owner_id == w.buyer_id or (w.kind == "return" and w.of_state == "own"):
        return None
    if w.of_state is not None and (w.kind == "return" or w.buyer_id == w.of_buyer_id):
        if w.of_cents is None or w.of_currency is None or w.of_quantity is None:
            return Lacking(w.of_waits_for or "its sale", None)
        cents = part_of(w.of_cents, units=abs(w.quantity), skipped=w.skipped, whole=w.of_quantity)
        signed = -cents if w.kind == "return" else cents
        return Entry(w.owed_id, w.kind, w.owner_id, w.buyer_id, signed, w.of_currency, w.of_price)
    subject = f"{w.owner}>{w.buyer}:{w.sku}"
    if w.price is None or w.currency is None:
        day = f"{w.happened_at:%Y-%m-%d}"
        return Lacking(subject, f"No transfer price of {w.owner} to {w.buyer} speaks of {w.sku} on {day}: load one.")
    price = Price(w.price, w.cents, None if w.percent is None else Decimal(w.percent), w.percent_of, w.currency)
    total = cents_of(price, quantity=w.quantity, price_cents=w.price_cents, cost_cents=w.cost_cents)
    if total is None:
        what = "the order's line has no price" if w.percent_of == "price" else "the sku has no value_cents"
        return Lacking(subject, f"Transfer price {w.price} is a percent of what is not known of {w.sku}: {what}. "
                       "Load it, or a price in cents.")  # fmt: skip
    kind = "consignment" if w.kind == "sale" and w.owner_kind != "division" else w.kind
    return Entry(w.owed_id, kind, w.owner_id, w.buyer_id, total, w.currency, w.price)


def _trouble(w: Waiting, subject: str, sentence: str) -> record.Trouble:
    return record.Trouble(
        kind="settlement_waiting", subject=subject,
        detail=f"{sentence} Until then nobody owes anything for these units; their entries are made when it is known.",
        payload={"owner": w.owner, "buyer": w.buyer, "sku": w.sku, "location": w.location, "channel": w.channel},
    )  # fmt: skip
