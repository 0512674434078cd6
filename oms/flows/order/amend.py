"""An order is amended before its release: quantities, lines, address, method; all of it or nothing."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any
from uuid import UUID

import msgspec

from oms import named
from oms.book import Book
from oms.db import Connection, Database, Sql
from oms.domain.order import LINES_MAX, QUANTITY_MAX, CartLine, Named, OrderLine, ShipTo, faults_of_lines
from oms.errors import BadInput, Conflict
from oms.flows.order.capture import insert_lines
from oms.flows.order.change import recall_steps, settle_ended
from oms.flows.order.decide import PlannedLine, parts_of
from oms.flows.order.moving import Change, decide, fall, open_book, recall, write
from oms.flows.order.rows import EVERYTHING, RECALLABLE, Sight, Taken, TakenLine, choose, take
from oms.flows.order.troubles import oversold, unknown_sku
from oms.record import Step, keep, raise_exceptions

sql = Sql("order")

write_order = sql.run("write_order")


class Wish(msgspec.Struct, frozen=True):
    """How many of a line are wanted that are not cancelled, those that have shipped among them; 0 cancels the line."""

    line: str
    quantity: int


class Amendment(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be different; what is not given stays."""

    lines: tuple[Wish, ...] = ()
    add: tuple[OrderLine, ...] = ()
    ship_to: ShipTo | None = None
    method: str | None = None


class _Plan(msgspec.Struct, frozen=True):
    """By what the order's lines and its own fields change, in our words and in history's."""

    changes: list[Change]
    ship_to: dict[str, Any]
    method: str
    said: list[dict[str, Any]]


async def amend(
    db: Database, *, order_id: UUID, to: Amendment, why: str | None, who: str, sight: Sight = EVERYTHING
) -> int:
    """Amends an order; gives how many things changed. The caller wakes "broker" and "project", and has it promised.

    Units that a line has less are cancelled, those that it has more are open: also beyond stock, which is an exception.
    What a location works on is recalled only as far as the channel's `amendments_recall_until` lets it; else, and where
    it has shipped, Conflict names each line and nothing changes. Raises NotFound, BadInput.
    """
    async with db.transaction() as tx:
        taken = await take(tx, order_id, sight)
        check(taken, to)
        asked = {line.asked for line in taken.lines} | {line.sku for line in to.add}
        found = await named.skus_of(tx, {(taken.order.channel_id, code) for code in asked})
        names = {code: name for (_, code), name in found.items()}
        plan = planned(taken, to, names)
        parts = [part for line in to.add for part in parts_of(line, names.get(line.sku))]
        if not plan.said:
            return 0
        rule = (await named.rules_of(tx, [taken.order.channel_id]))[taken.order.channel_id]
        book = await open_book(tx, plan.changes, skus=[p.sku_id for p in parts if p.sku_id is not None])
        short = decide(book, taken, plan.changes)
        parts = _reserved(book, parts, rule.pool_id, rule.channel_id)
        await _insert(tx, taken, parts, rule.pool_id)
        await write(tx, book, taken, plan.changes, short=short)
        if (plan.ship_to, plan.method) != (taken.order.ship_to, taken.order.method):
            await write_order(tx, id=order_id, ship_to=plan.ship_to, method=plan.method)
        steps = [Step("order", str(order_id), "amended", why, {"changes": plan.said})]
        await keep(tx, who=who, steps=[*steps, *recall_steps(taken, plan.changes, why)])
        lines = [
            (c.line.name, c.line.asked, c.demand, short[c.line.line_id])
            for c in plan.changes
            if c.line.line_id in short
        ]
        lines += [(p.line, p.sku, p.quantity, p.short) for p in parts if p.short]
        unknown = [unknown_sku(taken.order.channel, p.sku, taken.order.number) for p in parts if p.parked]
        await raise_exceptions(tx, [*unknown, *oversold(lines, since="it was amended", **taken.order.named())])
        await settle_ended(tx, taken, who=who)
    return len(plan.said)


def check(taken: Taken, to: Amendment) -> None:
    """BadInput where the amendment's own text is wrong, by field."""
    names = [wish.line for wish in to.lines] + [line.line for line in to.add]
    faults = faults_of_lines([CartLine(line.sku, line.quantity) for line in to.add]) if to.add else []
    standing = {line.line for line in taken.lines}
    faults += [
        {"field": "add", "line": n.line, "reason": "is a line of this order already"}
        for n in to.add
        if n.line in standing
    ]
    faults += [{"line": name, "reason": "stands twice"} for name in sorted({n for n in names if names.count(n) > 1})]
    faults += [
        {"line": wish.line, "reason": f"{wish.quantity} is not from 0 to {QUANTITY_MAX:,}"}
        for wish in to.lines if not 0 <= wish.quantity <= QUANTITY_MAX
    ]  # fmt: skip
    if len(standing) + len(to.add) > LINES_MAX:
        faults.append({"field": "add", "reason": f"an order has at most {LINES_MAX} lines"})
    if faults:
        raise BadInput("; ".join(f"{f.get('line', f.get('field'))}: {f['reason']}" for f in faults), items=faults)
    choose(taken.lines, [wish.line for wish in to.lines])


def planned(taken: Taken, to: Amendment, names: Mapping[str, Named]) -> _Plan:
    """What changes, or Conflict that says of each line why it cannot."""
    until = taken.order.recalls_until
    recallable = RECALLABLE[: RECALLABLE.index(until) + 1] if until in RECALLABLE else ()
    refused: dict[str, str] = {}
    said: list[dict[str, Any]] = []
    changes: dict[int, Change] = {}
    for wish in to.lines:
        rows = choose(taken.lines, [wish.line])
        pers = pers_of(rows, names)
        if pers is None:
            refused[wish.line] = "is a kit whose parts have changed since: cancel it and add a new line"
            continue
        was = rows[0].standing // pers[rows[0].line_id]
        if was == wish.quantity:
            continue
        said.append({"line": wish.line, "field": "quantity", "was": was, "now": wish.quantity})
        for row in rows:
            change, reason = _to(taken, row, wish.quantity * pers[row.line_id], recallable)
            changes[row.line_id] = change
            if reason:
                refused[wish.line] = reason
    ship_to, method = taken.order.ship_to, taken.order.method
    if to.ship_to is not None:
        ship_to = msgspec.to_builtins(to.ship_to)
    if to.method is not None:
        method = to.method
    if ship_to != taken.order.ship_to:
        said.append({"field": "ship_to", "was": taken.order.ship_to, "now": ship_to})
    if method != taken.order.method:
        said.append({"field": "method", "was": taken.order.method, "now": method})
    if (ship_to, method) != (taken.order.ship_to, taken.order.method):
        for row in taken.lines:
            back, reason = _back(taken, row, changes.get(row.line_id), recallable)
            if back is not None:
                changes[row.line_id] = back
            if reason:
                refused.setdefault(row.line, reason)
    if refused:
        raise Conflict(
            "the order cannot be amended so: " + "; ".join(f"line {name} {why}" for name, why in refused.items()),
            items=[{"line": name, "reason": why} for name, why in refused.items()],
        )
    said += [
        {"line": n.line, "field": "added", "now": {"sku": n.sku, "quantity": n.quantity, "price": n.price_cents}}
        for n in to.add
    ]
    return _Plan(list(changes.values()), ship_to, method, said)


def pers_of(rows: Sequence[TakenLine], names: Mapping[str, Named]) -> dict[int, int] | None:
    """How many of each part are in one; None where the kit is made of other parts by now."""
    if all(row.part == 0 for row in rows):
        return {row.line_id: 1 for row in rows}
    name = names.get(rows[0].asked)
    per = {part.sku_id: part.quantity for part in name.parts} if name else {}
    if {row.sku_id for row in rows} != per.keys():
        return None
    pers = {row.line_id: per[row.sku_id] for row in rows if row.sku_id is not None}
    kits = {row.standing / pers[row.line_id] for row in rows}
    return pers if len(kits) == 1 and next(iter(kits)).is_integer() else None


def _to(taken: Taken, row: TakenLine, units: int, recallable: Collection[str]) -> tuple[Change, str | None]:
    """A line is to have so many units; and why it cannot."""
    more = units - row.standing
    if more < 0:
        change, left = fall(taken, row, -more, recallable=recallable)
        if not left:
            return change, None
        return change, _at_work(taken, row, recallable) or f"has shipped {row.shipped}: take them back as a return"
    if not row.open + row.parked and (reason := _at_work(taken, row, recallable)):
        return Change(row), f"{reason}; add a line of its own"
    if not row.open + row.parked and row.shipped:
        return Change(row), "has shipped: add a line of its own"
    waits = row.sku_id is None or row.parked
    return Change(row, open=0 if waits else more, parked=more if waits else 0), None


def _back(
    taken: Taken, row: TakenLine, change: Change | None, recallable: Collection[str]
) -> tuple[Change | None, str | None]:
    """What is at work of a line is open again, beside what changes of it; and why it cannot be."""
    gone = {(r.given.fulfillment_id, r.given.line_id): r.quantity for r in change.recalled} if change else {}
    at_work = sum(given.quantity for _, given in taken.at_work(row)) - sum(gone.values())
    if not at_work:
        return None, None
    if reason := _at_work(taken, row, recallable):
        return None, reason
    every = tuple(recall(taken, row, row.allocated, recallable=recallable))
    change = change or Change(row)
    return msgspec.structs.replace(change, open=change.open + at_work, recalled=every), None


def _at_work(taken: Taken, row: TakenLine, recallable: Collection[str]) -> str | None:
    """Who works on units of a line that may not be recalled."""
    stuck = [(w, g) for w, g in taken.at_work(row) if w.state not in recallable]
    if not stuck:
        return None
    return "is released: " + ", ".join(f"{w.location} has {g.quantity} of it, {w.state}" for w, g in stuck)


def _reserved(book: Book, parts: Sequence[PlannedLine], pool_id: int, channel_id: int) -> list[PlannedLine]:
    """New lines are demand; `short` of them nobody can promise now."""
    done = []
    for part in parts:
        short = 0
        if part.sku_id is not None:
            short = max(0, part.quantity - max(0, book.atp_pool(part.sku_id, pool_id)))
            book.reserve(part.sku_id, pool_id, part.quantity, channel_id=channel_id)
        done.append(msgspec.structs.replace(part, short=short, waits=short > 0))
    return done


async def _insert(tx: Connection, taken: Taken, parts: Sequence[PlannedLine], pool_id: int) -> None:
    if parts:
        await insert_lines(
            tx, orders=[taken.order.order_id] * len(parts), lines=[p.line for p in parts], parts=[p.part for p in parts],
            sku_ids=[p.sku_id for p in parts], skus=[p.sku for p in parts], pools=[pool_id] * len(parts),
            quantities=[p.quantity for p in parts], prices=[p.price_cents for p in parts], open=[p.open for p in parts],
            parked=[p.parked for p in parts], allocated=[0] * len(parts), holds=[None] * len(parts),
            waits=[p.waits for p in parts],
        )  # fmt: skip
