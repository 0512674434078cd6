"""What may be done about lines of which there is not enough: read from what is true now, and carried out."""

from collections.abc import Sequence
from datetime import date, datetime
from itertools import groupby
from typing import Literal
from uuid import UUID

import msgspec

from oms import numbers
from oms.cache import Projection
from oms.db import Connection, Database, Sql
from oms.domain import atp
from oms.domain.promise import THERE, Waiting, days_of, short_of
from oms.flows.order.rows import TakenLine
from oms.numbers import Shelf

sql = Sql("order")

PLACES_MAX = 5
"""Locations that a remedy names."""

Kind = Literal["incoming", "other_pool", "substitute", "cancel"]


class Receipt(msgspec.Struct, frozen=True):
    """Units that are expected of a source at a location, on a day."""

    source: str
    reference: str
    location: str
    kind: str
    quantity: int
    on: date


class Remedy(msgspec.Struct, frozen=True, omit_defaults=True):
    """One way out for a line. incoming: `on` that day it can be served, by these receipts. other_pool: all that is open of
    it is met from `pool`, of which these locations have some. substitute: `quantity` of `sku` go instead. cancel:
    `quantity` is cancelled."""

    kind: Kind
    quantity: int
    on: date | None = None
    receipts: list[Receipt] = []
    pool: str | None = None
    locations: list[str] = []
    sku: str | None = None


class ShortLine(msgspec.Struct, frozen=True):
    """An open line of which present stock does not serve `short` units, and what may be done, the mildest first."""

    line: str
    part: int
    sku: str
    open: int
    short: int
    promised_on: date | None
    remedies: list[Remedy]


class _Served(msgspec.Struct, frozen=True):
    line_id: int
    order_id: UUID
    sku_id: int
    pool_id: int
    open: int


class _Substitute(msgspec.Struct, frozen=True):
    sku_id: int
    substitute_id: int
    code: str


class _Receipt(msgspec.Struct, frozen=True):
    sku_id: int
    source: str
    reference: str
    location: str
    kind: str
    quantity: int
    due_on: date


class _Stocked(msgspec.Struct, frozen=True):
    sku_id: int
    pool_id: int
    location: str
    available: int


class Wanting(msgspec.Struct, frozen=True):
    """A line that is short: by how many units, and from which day on it can be served (null: nobody knows)."""

    line: TakenLine
    short: int
    day: date | None


lines_now = sql.rows("lines_now", TakenLine)
served_lines = sql.rows("served_lines", _Served)
substitutes_of = sql.rows("substitutes_of", _Substitute)
receipts_of = sql.rows("receipts_of", _Receipt)
stocked_in = sql.rows("stocked_in", _Stocked)
pool_codes = sql.rows("pool_codes", tuple)


async def remedies(db: Database, *, order_id: UUID, now: datetime) -> list[ShortLine]:
    """The lines of an order that are short now, each with what may be done about it; none where all are served."""
    async with db.connection() as tx, tx.transaction(isolation="repeatable_read", readonly=True):
        lines = await lines_now(tx, id=order_id)
        skus = {n.sku_id for n in lines if n.sku_id is not None and n.open}
        if not skus:
            return []
        others = await substitutes_of(tx, skus=sorted(skus))
        shelf = await numbers.read(tx, skus | {n.substitute_id for n in others}, today=now.date())
        wanting = await short_lines(tx, lines, shelf, today=now.date())
        return [await _remedies(tx, w, shelf, others, now=now) for w in wanting]


async def short_lines(tx: Connection, lines: Sequence[TakenLine], shelf: Shelf, *, today: date) -> list[Wanting]:
    """Which of an order's lines are short, in the order in which all lines of their skus are served."""
    mine = {n.line_id: n for n in lines if n.sku_id is not None and n.open}
    skus = sorted({n.sku_id for n in mine.values() if n.sku_id is not None})
    found = []
    for sku_id, of_sku in groupby(await served_lines(tx, skus=skus), key=lambda n: n.sku_id):
        every = list(of_sku)
        row = shelf.rows[shelf.codes[sku_id]]
        layout = shelf.layouts[row.layout_id]
        waiting = [Waiting(n.pool_id, n.open) for n in every]
        short = short_of(layout, row.supply, row.reserved, waiting)
        days = days_of(layout, row.supply, row.reserved, row.coming, waiting, today=today)
        for n, units, day in zip(every, short, days, strict=True):
            if units and n.line_id in mine:
                found.append(Wanting(mine[n.line_id], units, None if day == THERE else day))
    return sorted(found, key=lambda w: w.line.line_id)


async def _remedies(
    tx: Connection, w: Wanting, shelf: Shelf, others: Sequence[_Substitute], *, now: datetime
) -> ShortLine:
    line, sku_id = w.line, w.line.sku_id
    assert sku_id is not None
    row = shelf.rows[shelf.codes[sku_id]]
    told: list[Remedy] = []
    if w.day is not None:
        receipts = [
            Receipt(r.source, r.reference, r.location, r.kind, r.quantity, r.due_on)
            for r in await receipts_of(tx, pool_id=line.pool_id, skus=[sku_id], today=now.date())
            if r.due_on <= max(w.day, now.date())
        ]
        told.append(Remedy("incoming", line.open, on=w.day, receipts=receipts))
    if not line.part:
        told += await _pools(tx, line, sku_id, row, shelf)
        for other in others:
            if other.sku_id == sku_id and free(shelf, shelf.rows[other.code], line.pool_id) >= w.short:
                told.append(Remedy("substitute", w.short, sku=other.code))
    told.append(Remedy("cancel", w.short))
    return ShortLine(line.line, line.part, shelf.codes[sku_id], line.open, w.short, line.promised_on, told)


async def _pools(tx: Connection, line: TakenLine, sku_id: int, row: Projection, shelf: Shelf) -> list[Remedy]:
    """Other pools that can promise all that is open of a line, with the locations that have most of it."""
    codes: dict[int, str] = dict(await pool_codes(tx))
    there = await stocked_in(tx, skus=[sku_id])
    told = []
    for pool_id in shelf.layouts[row.layout_id].pools:
        if pool_id != line.pool_id and free(shelf, row, pool_id) >= line.open:
            names = [s.location for s in there if s.pool_id == pool_id][:PLACES_MAX]
            told.append(Remedy("other_pool", line.open, pool=codes[pool_id], locations=names))
    return told


def free(shelf: Shelf, row: Projection, pool_id: int) -> int:
    """Units of a sku that may be promised from a pool now."""
    layout = shelf.layouts[row.layout_id]
    if pool_id not in layout.pools:
        return 0
    return atp.atp_pool(layout, row.supply, row.reserved, layout.pools.index(pool_id))
