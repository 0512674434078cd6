"""The row per sku that is the lock: taken before anything of a sku changes, written once per transaction."""

from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec

from oms.db import Connection, tell
from oms.domain.atp import Layout
from oms.ledger.statements import sql


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


class _LayoutRow(msgspec.Struct, frozen=True):
    layout_id: int
    pools: list[int]
    segments: list[int]


class Segment(msgspec.Struct, frozen=True):
    """A location's segment in a layout."""

    location_id: int
    segment: int


lock_skus = sql.rows("lock_skus", Availability)
layout_row = sql.one("layout", _LayoutRow)
layout_segments = sql.rows("layout_segments", Segment)
write_availability = sql.rows("write_availability", Availability)
write_reserved = sql.rows("write_reserved", Availability)
allocate_stock = sql.run("allocate_stock")
touch_skus = sql.run("touch_skus")
skus_behind = sql.rows("skus_behind", int)
move_layout = sql.run("move_layout")


async def layout(tx: Connection, layout_id: int) -> Layout:
    """A layout by its id; layouts never change, so each connection reads it once."""
    known: dict[int, Layout] = tx.known.setdefault("layouts", {})
    if layout_id not in known:
        row = await layout_row(tx, layout_id=layout_id)
        known[layout_id] = Layout(layout_id=layout_id, pools=tuple(row.pools), segments=tuple(row.segments))
    return known[layout_id]


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
    taken_anew: bool = False,
) -> dict[int, Availability]:
    """Writes reservations and allocations, each availability row once, and tells the projector.

    `locked` is what `lock` gave; `resum` are skus whose stock rows changed besides `allocations`;
    `capped` are the channels whose taken units are counted; a baseline counts them anew.
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
    skus = sorted(summed | changes.keys() | ({s for s, row in locked.items() if row.taken} if taken_anew else set()))
    if not skus:
        return {}
    assert set(skus) <= locked.keys(), "a sku is written whose row was not taken"
    given = {
        "skus": skus,
        "reserved": ["{" + ",".join(map(str, changes[s])) + "}" if s in changes else None for s in skus],
        "taken": [{} if taken_anew and locked[s].taken else taken.get(s) for s in skus],
    }
    if summed:
        rows = await write_availability(tx, resum=sorted(summed), **given)
    else:
        rows = await write_reserved(tx, **given)
    tell(tx, rows)
    return {row.sku_id: row for row in rows}


async def touch(tx: Connection, skus: Collection[int]) -> None:
    """Has what is told of these skus looked at again, though nothing of their stock changed."""
    if skus:
        await touch_skus(tx, skus=sorted(set(skus)))


async def relayout(tx: Connection, *, layout_id: int, after: int, limit: int) -> int | None:
    """Moves the next skus after this one to a newer layout; gives the last of them, None when there was none."""
    skus = await skus_behind(tx, layout_id=layout_id, after=after, limit=limit)
    if not skus:
        return None
    await lock(tx, skus)
    await move_layout(tx, layout_id=layout_id, skus=skus)
    return skus[-1]
