"""A sku and a channel as they were at a moment: the ledger folded up to it, commitments and rules rewound to it.

On hand is that of the ledger's last movement; held, allocated and safety stock, open lines, rules, and what was expected
are rewound from what triggers kept (sql/0004_past.sql); reservations say themselves from when until when they stood.
"""

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

import msgspec

from oms import ledger, named, numbers
from oms.cache import KitPart, Projection
from oms.db import Connection, Sql
from oms.domain.atp import Layout
from oms.domain.order import Named
from oms.domain.shape import Coming, Rule, Shape
from oms.numbers import Shelf

sql = Sql("promise")


class StockHere(msgspec.Struct, frozen=True):
    """A location of a layout with its stock of a sku."""

    location_id: int
    code: str
    name: str
    kind: str
    is_on: bool
    lat: float | None
    lon: float | None
    segment: int
    on_hand: int
    held: int
    allocated: int
    safety_stock: int

    @property
    def available(self) -> int:
        """Units that may be promised from here."""
        return max(0, self.on_hand - self.held - self.allocated - self.safety_stock) if self.is_on else 0


class Piece(msgspec.Struct, frozen=True):
    """So many of a sku that are in one of what was asked for."""

    sku_id: int
    sku: str
    quantity: int


class KeptRule(msgspec.Struct, frozen=True):
    """A rule of numbers as it was, and who made it and agreed to it."""

    code: str
    kind: str
    channel_id: int | None
    channel: str | None
    sku_id: int | None
    sku: str | None
    units: int | None
    percent: float | None
    share_by: str | None
    days: int | None
    priority: int
    from_at: datetime | None
    until_at: datetime | None
    made_by: str
    agreed_by: str | None
    of_pool_id: int | None

    def shape(self) -> Shape:
        """As numbers are shaped by it."""
        return Shape(**{name: getattr(self, name) for name in Shape.__struct_fields__})


class Channel(msgspec.Struct, frozen=True):
    """A channel's own rules, and who set them (null where that was with the channel itself, or is not known)."""

    channel_id: int
    code: str
    pool_id: int
    buffer: int
    cap: int | None
    is_on: bool
    buffer_by: str | None
    cap_by: str | None


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """What a number is made of, at one moment; `here` are the locations with their stock, by sku id."""

    rule: Rule
    shelf: Shelf
    sku_id: int
    parts: list[Piece]
    is_kit: bool
    here: dict[int, list[StockHere]]
    rules: list[KeptRule]
    channel: Channel


class _Coming(msgspec.Struct, frozen=True):
    location_id: int
    due_on: date
    until_on: date
    quantity: int


class _Promised(msgspec.Struct, frozen=True):
    pool_id: int
    pool: str
    count_of_all: int
    units_of_all: int
    kind: str
    id: Any
    channel_id: int
    channel: str
    order_number: str | None
    line: str | None
    units: int
    made_at: datetime
    expires_at: datetime | None


stock_by_location = sql.rows("stock_by_location", StockHere)
stock_at = sql.rows("stock_at", StockHere)
rules_at = sql.rows("rules_at", KeptRule)
channel_at = sql.one("channel_at", Channel)
layout_at = sql.one("layout_at", int)
kit_at = sql.rows("kit_at", Piece)
incoming_at = sql.rows("incoming_at", _Coming)
promised_at = sql.rows("promised_at", _Promised)
taken_at = sql.one("taken_at", dict)


async def as_it_is(tx: Connection, *, channel_id: int, name: Named, now: datetime) -> Moment:
    """What the number is made of now."""
    rule = (await named.rules_of(tx, [channel_id]))[channel_id]
    skus = sorted({name.sku_id, *(part.sku_id for part in name.parts)})
    shelf = await numbers.read(tx, skus, today=now.date())
    parts = [Piece(p.sku_id, p.sku, p.quantity) for p in name.parts]
    here = {
        p.sku_id: await stock_by_location(
            tx, sku_id=p.sku_id, layout_id=shelf.rows[shelf.codes[p.sku_id]].layout_id
        )
        for p in parts
    }  # fmt: skip
    return Moment(
        rule=rule, shelf=shelf, sku_id=name.sku_id, parts=parts, is_kit=name.is_kit, here=here,
        rules=await rules_at(tx, at=None, skus=skus), channel=await channel_at(tx, at=None, channel_id=channel_id),
    )  # fmt: skip


async def as_it_was(tx: Connection, *, channel_id: int, name: Named, code: str, at: datetime) -> Moment:
    """What the number was made of at a moment; `code` is ours of the sku."""
    made_of = await kit_at(tx, sku_id=name.sku_id, at=at)
    parts = made_of or [Piece(name.sku_id, code, 1)]
    layout = await ledger.layout(tx, await layout_at(tx, at=at))
    rows: dict[str, Projection] = {}
    here: dict[int, list[StockHere]] = {}
    for part in parts:
        places = here[part.sku_id] = await stock_at(tx, sku_id=part.sku_id, layout_id=layout.layout_id, at=at)
        rows[part.sku] = await _projection(tx, part.sku_id, layout, places, at)
    if made_of:
        rows[code] = Projection(
            version=0, sku_id=name.sku_id, layout_id=layout.layout_id, supply=[0] * len(layout.segments),
            reserved=[0] * len(layout.pools), parts=[KitPart(p.sku, p.quantity) for p in parts],
        )  # fmt: skip
    skus = sorted({name.sku_id, *here})
    channel, rules = await channel_at(tx, at=at, channel_id=channel_id), await rules_at(tx, at=at, skus=skus)
    rule = Rule(
        channel.channel_id, channel.code, channel.pool_id, channel.buffer, channel.cap, channel.is_on, at
    ).shaped_by([r.shape() for r in rules])
    codes = {p.sku_id: p.sku for p in parts} | {name.sku_id: code}
    return Moment(
        rule=rule, shelf=Shelf(rows, {layout.layout_id: layout}, codes), sku_id=name.sku_id, parts=parts,
        is_kit=bool(made_of), here=here, rules=rules, channel=channel,
    )  # fmt: skip


async def _projection(
    tx: Connection, sku_id: int, layout: Layout, places: Sequence[StockHere], at: datetime
) -> Projection:
    supply, reserved = [0] * len(layout.segments), [0] * len(layout.pools)
    for place in places:
        supply[place.segment] += place.available
    for row in await promised_at(tx, sku_id=sku_id, at=at, limit=1):
        if row.pool_id in layout.pools:
            reserved[layout.pools.index(row.pool_id)] = row.units_of_all
    segment_of = {place.location_id: place.segment for place in places if place.is_on}
    taken = await taken_at(tx, sku_id=sku_id, at=at)
    return Projection(
        version=0, sku_id=sku_id, layout_id=layout.layout_id, supply=supply, reserved=reserved,
        taken={int(channel): units for channel, units in taken.items() if units},
        coming=[
            Coming(c.due_on, segment_of[c.location_id], c.quantity, c.until_on)
            for c in await incoming_at(tx, sku_id=sku_id, at=at, today=at.date()) if c.location_id in segment_of
        ],
    )  # fmt: skip
