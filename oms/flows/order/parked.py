"""Lines of skus that nobody knew become open lines as soon as the sku, or an alias of it, is loaded."""

from collections.abc import Sequence
from uuid import UUID

import msgspec

from oms import named
from oms.book import Book
from oms.db import Connection, Database, Sql
from oms.domain.order import OrderLine
from oms.domain.shape import Rule
from oms.flows.order.capture import insert_lines
from oms.flows.order.decide import PlannedLine, parts_of
from oms.flows.order.holds import copy_holds
from oms.flows.order.moving import let_wait
from oms.flows.order.troubles import oversold
from oms.record import Step, keep, raise_exceptions, settle_exceptions

sql = Sql("order")


class _Order(msgspec.Struct, frozen=True):
    order_id: UUID
    channel_id: int
    number: str


class _Line(msgspec.Struct, frozen=True):
    line_id: int
    order_id: UUID
    line: str
    sku: str
    pool_id: int
    parked: int
    quantity: int
    price_cents: int | None
    hold: str | None


class _Code(msgspec.Struct, frozen=True):
    channel_id: int
    sku: str


parked_orders = sql.rows("parked_orders", _Order)
take_parked_lines = sql.rows("take_parked_lines", _Line)
open_parked = sql.run("unpark_lines")
still_parked = sql.rows("still_parked", _Code)


async def unpark_lines(db: Database, *, who: str = "oms", chunk: int = 100) -> int:
    """Opens parked lines whose sku is known now, in small transactions; gives how many. The caller wakes "broker"."""
    count = 0
    while True:
        async with db.transaction() as tx:
            orders = await parked_orders(tx, limit=chunk)
            opened = await _unpark(tx, orders, who) if orders else 0
        count += opened
        if not opened or len(orders) < chunk:
            return count


async def _unpark(tx: Connection, orders: Sequence[_Order], who: str) -> int:
    by_id = {o.order_id: o for o in orders}
    rules = await named.rules_of(tx, {o.channel_id for o in orders})
    lines = await take_parked_lines(tx, orders=list(by_id))
    names = await named.skus_of(tx, {(by_id[line.order_id].channel_id, line.sku) for line in lines})
    known = []
    for line in lines:
        name = names.get((by_id[line.order_id].channel_id, line.sku))
        if name is not None:
            waiting = OrderLine(line=line.line, sku=line.sku, quantity=line.parked, price_cents=line.price_cents)
            known.append((line, parts_of(waiting, name)))
    book = await Book.open(tx, skus={part.sku_id for _, parts in known for part in parts if part.sku_id is not None})
    short: dict[UUID, list[PlannedLine]] = {}
    placed = []
    for line, parts in known:
        done = []
        for part in parts:
            assert part.sku_id is not None
            missing = max(0, part.quantity - max(0, book.atp_pool(part.sku_id, line.pool_id)))
            done.append(msgspec.structs.replace(part, short=missing, waits=missing > 0))
            book.reserve(part.sku_id, line.pool_id, part.quantity, channel_id=by_id[line.order_id].channel_id)
        short.setdefault(line.order_id, []).extend(part for part in done if part.short)
        placed.append((line, done))
    await _write_lines(tx, placed)
    await book.write(tx, capped=named.capped(rules.values()))
    steps = [
        Step("order", str(line.order_id), "unparked", f"sku {line.sku} is known now", {"line": line.line})
        for line, _ in known
    ]
    await keep(tx, who=who, steps=steps)
    await _settle(tx, [(by_id[line.order_id].channel_id, line.sku) for line, _ in known], rules, who)
    for order_id, parts in short.items():
        order = by_id[order_id]
        told = [(p.line, p.sku, p.quantity, p.short) for p in parts]
        await raise_exceptions(
            tx,
            oversold(
                told, order_id=order_id, channel=rules[order.channel_id].code, number=order.number,
                since="its sku is known",
            ),
        )  # fmt: skip
    return len(known)


async def _write_lines(tx: Connection, known: Sequence[tuple[_Line, list[PlannedLine]]]) -> None:
    """The line becomes its first part, further parts of a kit are new lines."""
    first = [(line, parts[0]) for line, parts in known]
    await open_parked(
        tx, ids=[line.line_id for line, _ in first], sku_ids=[part.sku_id for _, part in first],
        parts=[part.part for _, part in first], open=[part.quantity for _, part in first],
        pers=[part.quantity // line.parked for line, part in first], prices=[part.price_cents for _, part in first],
    )  # fmt: skip
    waiting = [line.line_id for line, part in first if part.waits]
    if waiting:
        await let_wait(tx, lines=waiting)
    more = [(line, part) for line, parts in known for part in parts[1:]]
    if more:
        made = await insert_lines(
            tx, orders=[line.order_id for line, _ in more], lines=[line.line for line, _ in more],
            parts=[part.part for _, part in more], sku_ids=[part.sku_id for _, part in more],
            skus=[line.sku for line, _ in more], pools=[line.pool_id for line, _ in more],
            quantities=[part.quantity for _, part in more], prices=[part.price_cents for _, part in more],
            open=[part.open for _, part in more], parked=[0 for _ in more], allocated=[0 for _ in more],
            holds=[None] * len(more), waits=[part.waits for _, part in more],
        )  # fmt: skip
        own = {(line.order_id, line.line): line.line_id for line, _ in more}
        await copy_holds(tx, old=[own[row.order_id, row.line] for row in made], new=[row.line_id for row in made])


async def _settle(tx: Connection, codes: Sequence[tuple[int, str]], rules: dict[int, Rule], who: str) -> None:
    waiting = {
        (row.channel_id, row.sku)
        for row in await still_parked(tx, channels=[c for c, _ in codes], codes=[code for _, code in codes])
    }
    done = sorted(f"{rules[channel].code}/{code}" for channel, code in set(codes) - waiting)
    await settle_exceptions(
        tx, who=who, resolution="the sku is known now", of=[("unknown_sku", subject) for subject in done]
    )
