"""A remedy of lines that are short is carried out: under the locks, by what is true then."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from oms import named, numbers
from oms.book import Book
from oms.db import Connection, Database, Sql
from oms.errors import BadInput, Conflict
from oms.flows.order.amend import pers_of
from oms.flows.order.capture import insert_lines
from oms.flows.order.change import settle_ended
from oms.flows.order.holds import copy_holds
from oms.flows.order.moving import Change, decide, write
from oms.flows.order.remedies import Kind, Wanting, pool_codes, short_lines, substitutes_of
from oms.flows.order.rows import Taken, TakenLine, take
from oms.record import Step, keep, settle_exceptions

sql = Sql("order")

promise_line = sql.run("promise_line")
move_pool = sql.run("move_pool")


class Chosen(msgspec.Struct, frozen=True):
    """The remedy that a person chose: of one line, or of all that are short; the pool or sku that it names."""

    kind: Kind
    line: str | None = None
    pool: str | None = None
    sku: str | None = None


class _Known(msgspec.Struct, frozen=True):
    """What a remedy may name."""

    pools: dict[str, int]
    substitutes: dict[int, list[tuple[int, str]]]


async def carry_out(
    db: Database, *, order_id: UUID, chosen: Chosen, why: str | None, who: str, now: datetime
) -> list[str]:
    """Carries a remedy out and gives the lines that it served; the exception is settled when no line is left without one.

    incoming: the line waits, promised for the day from which it can be served. other_pool: all that is open of it is met
    from that pool. substitute: what is short of it is cancelled, and a new line takes the other sku. cancel: what is
    short of it is cancelled. Raises BadInput, NotFound, and Conflict where it does not help any more. The caller wakes
    "broker" and "project".
    """
    async with db.transaction() as tx:
        taken = await take(tx, order_id)
        skus = {n.sku_id for n in taken.lines if n.sku_id is not None and n.open}
        others: dict[int, list[tuple[int, str]]] = {}
        for row in await substitutes_of(tx, skus=sorted(skus)):
            others.setdefault(row.sku_id, []).append((row.substitute_id, row.code))
        every = skus | {sku_id for found in others.values() for sku_id, _ in found}
        book = await Book.open(tx, skus=every)
        wanting = await short_lines(tx, taken.lines, await numbers.read(tx, every, today=now.date()), today=now.date())
        served = [w for w in wanting if chosen.line in (None, w.line.line)]
        if not served:
            raise Conflict(
                "nothing of it is short any more" if chosen.line is None else f"line {chosen.line!r} is not short"
            )
        pools = {code: pool_id for pool_id, code in await pool_codes(tx)}
        steps, changes = await _carry_out(tx, book, taken, served, chosen, _Known(pools, others), why)
        short = decide(book, taken, changes)
        assert not short, "a remedy made more demand"
        await write(tx, book, taken, changes)
        names = sorted({w.line.name for w in served})
        said = {name: value for name, value in msgspec.to_builtins(chosen).items() if value is not None}
        steps.append(Step("order", str(order_id), "remedied", why, said | {"lines": names}))
        await keep(tx, who=who, steps=steps)
        if all(w in served or w.line.promised_on is not None for w in wanting):
            text = why or f"{chosen.kind} for line {', '.join(names)}"
            await settle_exceptions(tx, who=who, resolution=text, of=[("oversold", taken.order.subject)])
        await settle_ended(tx, taken, who=who)
    return names


async def _carry_out(
    tx: Connection, book: Book, taken: Taken, served: Sequence[Wanting], chosen: Chosen, known: _Known, why: str | None
) -> tuple[list[Step], list[Change]]:
    """What history keeps, and what of lines is cancelled."""
    id, told = str(taken.order.order_id), why or chosen.kind
    if chosen.kind == "incoming":
        return await _wait(tx, served, id, why), []
    if chosen.kind == "other_pool":
        for w in served:
            await _move(tx, book, taken, w.line, chosen.pool, known)
        return [], []
    if chosen.kind == "cancel":
        changes = await _cancelled(tx, taken, served)
        return [Step("order", id, "cancelled", told, {"lines": {c.line.name: c.cancelled for c in changes}})], changes
    changes = [Change(w.line, open=-w.short, cancelled=w.short) for w in served]
    added: list[dict[str, Any]] = []
    for w in served:
        added += await _substitute(tx, book, taken, w, chosen.sku, known)
    return [Step("order", id, "amended", told, {"changes": added})], changes


async def _wait(tx: Connection, served: Sequence[Wanting], id: str, why: str | None) -> list[Step]:
    steps = []
    for w in served:
        if w.day is None:
            raise Conflict(f"line {w.line.name}: nothing is expected that would serve it; choose another remedy")
        await promise_line(tx, line_id=w.line.line_id, day=w.day)
        if w.day != w.line.promised_on:
            detail = {"line": w.line.line, "on": w.day, "was": w.line.promised_on}
            steps.append(Step("order", id, "promised", why, detail))
    return steps


async def _move(
    tx: Connection, book: Book, taken: Taken, line: TakenLine, pool: str | None, known: _Known
) -> None:  # fmt: skip
    assert line.sku_id is not None
    if pool not in known.pools:
        raise BadInput(f"pool: no pool has the code {pool!r}; name one that the exception proposes")
    pool_id = known.pools[pool]
    if line.part or pool_id == line.pool_id or book.atp_pool(line.sku_id, pool_id) < line.open:
        raise Conflict(f"line {line.name}: {pool} cannot promise the {line.open} that are open of it")
    channel_id = taken.order.channel_id
    book.reserve(line.sku_id, line.pool_id, -line.open, channel_id=channel_id)
    book.reserve(line.sku_id, pool_id, line.open, channel_id=channel_id)
    await move_pool(tx, line_id=line.line_id, pool_id=pool_id)


async def _cancelled(tx: Connection, taken: Taken, served: Sequence[Wanting]) -> list[Change]:
    """What is short of lines is cancelled; of a kit, so many whole kits that no part of it is short."""
    found = await named.skus_of(tx, {(taken.order.channel_id, w.line.asked) for w in served if w.line.part})
    names = {code: name for (_, code), name in found.items()}
    changes = [Change(w.line, open=-w.short, cancelled=w.short) for w in served if not w.line.part]
    for line in sorted({w.line.line for w in served if w.line.part}):
        rows = [n for n in taken.lines if n.line == line]
        pers = pers_of(rows, names)
        if pers is None:
            raise Conflict(f"line {line} is a kit whose parts have changed since: cancel it, or choose another remedy")
        kits = max(-(-w.short // pers[w.line.line_id]) for w in served if w.line.line == line)
        for row in rows:
            units = min(row.open, kits * pers[row.line_id])
            changes.append(Change(row, open=-units, cancelled=units))
    return changes


async def _substitute(
    tx: Connection, book: Book, taken: Taken, w: Wanting, sku: str | None, known: _Known
) -> list[dict[str, Any]]:
    line = w.line
    assert line.sku_id is not None
    found = [sku_id for sku_id, code in known.substitutes.get(line.sku_id, []) if code == sku]
    if not found or line.part:
        raise BadInput(f"sku: {sku!r} is no substitute of line {line.name}; name one that the exception proposes")
    if book.atp_pool(found[0], line.pool_id) < w.short:
        raise Conflict(f"line {line.name}: there are not {w.short} of {sku} to promise any more")
    assert sku is not None
    names = {n.line for n in taken.lines}
    name = next(
        n for n in (f"{line.line}+{sku}", *(f"{line.line}+{sku}#{k}" for k in range(2, 1000))) if n not in names
    )
    book.reserve(found[0], line.pool_id, w.short, channel_id=taken.order.channel_id)
    (made,) = await insert_lines(
        tx, orders=[taken.order.order_id], lines=[name], parts=[0], sku_ids=found, skus=[sku], pools=[line.pool_id],
        quantities=[w.short], prices=[line.price_cents], open=[w.short], parked=[0], allocated=[0], holds=[None],
        waits=[False],
    )  # fmt: skip
    await copy_holds(tx, old=[line.line_id], new=[made.line_id])
    was = line.standing
    return [
        {"line": line.name, "field": "quantity", "was": was, "now": was - w.short},
        {"line": name, "field": "added", "now": {"sku": sku, "quantity": w.short, "price": line.price_cents}},
    ]
