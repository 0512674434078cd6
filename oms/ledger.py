"""The moves of quantities; the only caller of sql/ledger.sql.

Whoever changes a sku's stock or reservations first takes its availability row (`lock`), then writes stock
(`move`, `lift`, `place`), and ends with one `write` per transaction, which updates each row once.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date, datetime

import msgspec

from oms.db import Connection, Sql
from oms.domain.atp import Layout

sql = Sql("ledger")

HOUSE = 1
"""The source id of what begins with us."""


class Availability(msgspec.Struct, frozen=True):
    """A sku's row: supply by segment of its layout, reserved by pool position, taken by channel under a cap."""

    sku_id: int
    version: int
    layout_id: int
    supply: list[int]
    reserved: list[int]
    taken: dict[str, int]


class Demand(msgspec.Struct, frozen=True):
    """Reserved units of a sku in a pool rise (or fall) by `quantity`; `channel_id` where a cap counts them."""

    sku_id: int
    pool_id: int
    quantity: int
    channel_id: int | None = None


class Allocation(msgspec.Struct, frozen=True):
    """Allocated units of a sku at a location rise (or fall) by `quantity`."""

    sku_id: int
    location_id: int
    quantity: int


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """One movement: what it says (`quantity`), what it changes (`effect`), and the hold that it places."""

    sku_id: int
    location_id: int
    source_id: int
    message_id: str
    kind: str
    quantity: int
    effect: int
    occurred_at: datetime
    sequence: int | None = None
    absorbed_by: str | None = None
    reason: str | None = None
    reference: str | None = None
    hold_code: str | None = None
    held: int = 0
    is_ours: bool = False
    acked_sequence: int | None = None
    acked_at: datetime | None = None
    contained_in: int | None = None


class Written(msgspec.Struct, frozen=True):
    """Where a movement stands in the ledger."""

    sku_id: int
    location_id: int
    version: int


class Stock(msgspec.Struct, frozen=True):
    """A stock row under its sku's lock."""

    sku_id: int
    location_id: int
    on_hand: int
    held: int
    allocated: int
    safety_stock: int
    is_on: bool

    @property
    def available(self) -> int:
        """Units that may be promised from here."""
        if not self.is_on:
            return 0
        return max(0, self.on_hand - self.held - self.allocated - self.safety_stock)


class Hold(msgspec.Struct, frozen=True):
    """Units on hand that may not be sold."""

    hold_id: int
    sku_id: int
    location_id: int
    code: str
    quantity: int
    version: int | None
    source_id: int
    placed_at: datetime


class Work(msgspec.Struct, frozen=True):
    """Capacity that work takes (or gives back) at a location on its local day."""

    location_id: int
    day: date
    orders: int
    items: int
    cents: int


class Capacity(msgspec.Struct, frozen=True):
    """What is used of a location's day, and its limits; None is unlimited."""

    location_id: int
    day: date
    orders: int
    items: int
    cents: int
    capacity_orders: int | None
    capacity_items: int | None
    capacity_cents: int | None

    def fits(self, work: Work) -> bool:
        """Whether this much more work may be taken."""
        return (
            (self.capacity_orders is None or self.orders + work.orders <= self.capacity_orders)
            and (self.capacity_items is None or self.items + work.items <= self.capacity_items)
            and (self.capacity_cents is None or self.cents + work.cents <= self.capacity_cents)
        )


class Segment(msgspec.Struct, frozen=True):
    """A location's segment in a layout."""

    location_id: int
    segment: int


class _LayoutRow(msgspec.Struct, frozen=True):
    layout_id: int
    pools: list[int]
    segments: list[int]


lock_skus = sql.rows("lock_skus", Availability)
layout_row = sql.one("layout", _LayoutRow)
layout_segments = sql.rows("layout_segments", Segment)
write_availability = sql.rows("write_availability", Availability)
ensure_stock = sql.run("ensure_stock")
lock_stock = sql.rows("lock_stock", Stock)
allocate_stock = sql.run("allocate_stock")
write_movements = sql.rows("write_movements", Written)
open_holds = sql.rows("open_holds", Hold)
lift_holds = sql.run("lift_holds")
place_holds = sql.run("place_holds")
fold_held = sql.run("fold_held")
ensure_capacity = sql.run("ensure_capacity")
read_capacity = sql.rows("read_capacity", Capacity)
use_capacity = sql.run("use_capacity")

_layouts: dict[int, Layout] = {}


async def layout(tx: Connection, layout_id: int) -> Layout:
    """A layout by its id; layouts never change, so each is read once per process and database."""
    row = await layout_row(tx, layout_id=layout_id)
    key = hash((layout_id, tuple(row.pools), tuple(row.segments)))
    if key not in _layouts:
        _layouts[key] = Layout(layout_id=layout_id, pools=tuple(row.pools), segments=tuple(row.segments))
    return _layouts[key]


async def segments(tx: Connection, layout_id: int) -> dict[int, int]:
    """The segment of each location in a layout."""
    return {row.location_id: row.segment for row in await layout_segments(tx, layout_id=layout_id)}


async def lock(tx: Connection, skus: Collection[int]) -> dict[int, Availability]:
    """Takes the skus' rows in sku order. What stock sums to under them is read by the next statement."""
    if not skus:
        return {}
    return {row.sku_id: row for row in await lock_skus(tx, skus=sorted(set(skus)))}


async def layouts_of(tx: Connection, rows: Mapping[int, Availability]) -> dict[int, Layout]:
    """The layouts that these locked rows were built with."""
    return {layout_id: await layout(tx, layout_id) for layout_id in {row.layout_id for row in rows.values()}}


async def write(
    tx: Connection,
    locked: Mapping[int, Availability],
    *,
    demand: Iterable[Demand] = (),
    allocations: Sequence[Allocation] = (),
    resum: Iterable[int] = (),
    capped: Collection[int] = (),
) -> dict[int, Availability]:
    """Writes reservations and allocations, each availability row once, and tells the projector.

    `locked` is what `lock` gave; `resum` are skus whose stock rows changed besides `allocations`;
    `capped` are the channels whose taken units are counted.
    """
    changes: dict[int, list[int]] = {}
    taken: dict[int, dict[str, int]] = {}
    layouts = await layouts_of(tx, locked)
    for d in demand:
        row = locked[d.sku_id]
        reserved = changes.setdefault(d.sku_id, list(row.reserved))
        position = layouts[row.layout_id].pools.index(d.pool_id)
        reserved[position] += d.quantity
        assert reserved[position] >= 0, f"reserved of sku {d.sku_id} in pool {d.pool_id} would fall below zero"
        if d.channel_id is not None and d.channel_id in capped:
            counted = taken.setdefault(d.sku_id, dict(row.taken))
            counted[str(d.channel_id)] = max(0, counted.get(str(d.channel_id), 0) + d.quantity)
    if allocations:
        await allocate_stock(
            tx, skus=[a.sku_id for a in allocations], locations=[a.location_id for a in allocations],
            quantities=[a.quantity for a in allocations],
        )  # fmt: skip
    summed = {a.sku_id for a in allocations} | set(resum)
    skus = sorted(summed | changes.keys())
    if not skus:
        return {}
    assert set(skus) <= locked.keys(), "a sku is written whose row was not taken"
    rows = await write_availability(
        tx, skus=skus, resum=sorted(summed),
        reserved=["{" + ",".join(map(str, changes[s])) + "}" if s in changes else None for s in skus],
        taken=[taken.get(s) for s in skus],
    )  # fmt: skip
    return {row.sku_id: row for row in rows}


async def stock(tx: Connection, keys: Collection[tuple[int, int]]) -> dict[tuple[int, int], Stock]:
    """The stock rows of (sku, location) keys, made where missing and locked in order; skus are locked already."""
    if not keys:
        return {}
    ordered = sorted(set(keys))
    skus, locations = [k[0] for k in ordered], [k[1] for k in ordered]
    await ensure_stock(tx, skus=skus, locations=locations)
    return {(s.sku_id, s.location_id): s for s in await lock_stock(tx, skus=skus, locations=locations)}


async def move(tx: Connection, moves: Sequence[Move], *, feed_id: int | None, who: str) -> list[Written]:
    """Extends the ledger by movements in this order; their stock rows exist and their skus are locked.

    The caller ends with `write(..., resum=skus)`.
    """
    if not moves:
        return []
    written = await write_movements(
        tx, feed_id=feed_id, who=who,
        skus=[m.sku_id for m in moves], locations=[m.location_id for m in moves],
        sources=[m.source_id for m in moves], messages=[m.message_id for m in moves],
        kinds=[m.kind for m in moves], quantities=[m.quantity for m in moves], effects=[m.effect for m in moves],
        sequences=[m.sequence for m in moves], occurred=[m.occurred_at for m in moves],
        absorbed=[m.absorbed_by for m in moves], reasons=[m.reason for m in moves],
        reference_ids=[m.reference for m in moves], hold_codes=[m.hold_code for m in moves],
        held=[m.held for m in moves], ours=[m.is_ours for m in moves],
        acked_sequences=[m.acked_sequence for m in moves], acked_at=[m.acked_at for m in moves],
        contained=[m.contained_in for m in moves],
    )  # fmt: skip
    assert len(written) == len(moves), "a movement met no stock row"
    await refold_held(tx, {(m.sku_id, m.location_id) for m in moves if m.held > 0})
    return written


async def refold_held(tx: Connection, keys: Collection[tuple[int, int]]) -> None:
    """Sums the held units of these keys anew."""
    if keys:
        await fold_held(tx, skus=[k[0] for k in keys], locations=[k[1] for k in keys])


async def lift(tx: Connection, holds: Mapping[int, int], *, keys: Collection[tuple[int, int]], who: str) -> None:
    """Ends holds (hold id → units, at most what it holds) of these keys."""
    if holds:
        await lift_holds(tx, holds=list(holds), quantities=list(holds.values()), who=who)
        await refold_held(tx, keys)


async def capacity(tx: Connection, days: Collection[tuple[int, date]]) -> dict[tuple[int, date], Capacity]:
    """The capacity rows of (location, local day), locked in order, after every other lock."""
    if not days:
        return {}
    ordered = sorted(set(days))
    locations, dates = [d[0] for d in ordered], [d[1] for d in ordered]
    await ensure_capacity(tx, locations=locations, days=dates)
    return {(c.location_id, c.day): c for c in await read_capacity(tx, locations=locations, days=dates)}


async def work(tx: Connection, works: Sequence[Work]) -> None:
    """Takes (or gives back) capacity; the rows are locked by `capacity`."""
    if works:
        await use_capacity(
            tx, locations=[w.location_id for w in works], days=[w.day for w in works],
            orders=[w.orders for w in works], items=[w.items for w in works], cents=[w.cents for w in works],
        )  # fmt: skip
