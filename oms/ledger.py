"""The moves of quantities; the only caller of sql/ledger.sql.

Whoever changes a sku's stock or reservations first takes its availability row (`lock`), then writes stock
(`move`, `lift`, `place`), and ends with one `write` per transaction, which updates each row once.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import Protocol

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


class Rebased(msgspec.Struct, frozen=True):
    """What a chunk of a baseline did to a sku."""

    sku_id: int
    keys: int
    changed: int
    negative: int
    variance_units: int


class Key(msgspec.Struct, frozen=True):
    """A sku at a location."""

    sku_id: int
    location_id: int


class Effect(msgspec.Struct, frozen=True):
    """What taking a baseline back does to a sku at its location."""

    sku_id: int
    effect: int


class InForce(msgspec.Struct, frozen=True):
    """The snapshot in force for a message's key, and whether it contains the message."""

    k: int
    baseline_id: int | None
    as_of: datetime | None
    applied_at: datetime | None
    is_in: bool
    counted_at: datetime | None
    reported_holds: list[str]
    deducted_holds: list[str]


class Counted(msgspec.Struct, frozen=True):
    """A count in the ledger."""

    sku_id: int
    location_id: int
    version: int
    source_id: int
    sequence: int | None
    occurred_at: datetime
    is_open: bool
    recorded_at: datetime


class Late(msgspec.Struct, frozen=True):
    """What a late acknowledgement changes in what the snapshot in force was taken to contain."""

    sku_id: int
    location_id: int
    baseline_id: int
    feed_id: int
    source_id: int
    as_of: datetime
    counted_at: datetime | None
    effect: int


class Placed(Protocol):
    """A message in our words, as far as the ledger must know it."""

    @property
    def k(self) -> int: ...
    @property
    def sku_id(self) -> int: ...
    @property
    def location_id(self) -> int: ...
    @property
    def quantity(self) -> int: ...
    @property
    def held(self) -> int: ...
    @property
    def sequence(self) -> int | None: ...
    @property
    def occurred_at(self) -> datetime: ...


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
plan_for_chunks = sql.run("plan_for_chunks")
plan_for_lookups = sql.run("plan_for_lookups")
chunk_skus = sql.rows("chunk_skus", int)
rebase_chunk = sql.rows("rebase_chunk", Rebased)
contain_chunk = sql.run("contain_chunk")
lift_contained_holds = sql.rows("lift_contained_holds", Key)
replace_reported_holds = sql.rows("replace_reported_holds", Key)
move_cursor = sql.run("move_cursor")
revert_effects = sql.rows("revert_effects", Effect)
uncontain = sql.run("uncontain")
uncount_deductions = sql.run("uncount_deductions")
restore_holds = sql.rows("restore_holds", Key)
put_back = sql.run("put_back")
in_force_rows = sql.rows("keys_in_force", InForce)
counts_of = sql.rows("counts_of", Counted)
moved_after_rows = sql.rows("moved_after", tuple)
correct_count = sql.run("correct_count")
acknowledge = sql.rows("acknowledge", tuple)
deduct = sql.rows("deduct", tuple)
undo_deductions = sql.rows("undo_deductions", tuple)
late_acknowledgements = sql.rows("late_acknowledgements", Late)
hold_of_message = sql.rows("hold_of_message", Hold)
baseline_moment = sql.one("baseline_moment", datetime)
open_holds = sql.rows("open_holds", Hold)
lift_holds = sql.run("lift_holds")
place_holds = sql.run("place_holds")
fold_held = sql.run("fold_held")
ensure_capacity = sql.run("ensure_capacity")
read_capacity = sql.rows("read_capacity", Capacity)
use_capacity = sql.run("use_capacity")
touch_skus = sql.run("touch_skus")
skus_behind = sql.rows("skus_behind", int)
move_layout = sql.run("move_layout")
keys_of_location = sql.rows("keys_of_location", int)
lock_location = sql.maybe("lock_location", int)
follow_location = sql.run("follow_location")
follow_upto = sql.run("follow_upto")

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
    rows = await write_availability(
        tx, skus=skus, resum=sorted(summed),
        reserved=["{" + ",".join(map(str, changes[s])) + "}" if s in changes else None for s in skus],
        taken=[{} if taken_anew and locked[s].taken else taken.get(s) for s in skus],
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


async def rebase(tx: Connection, *, feed_id: int, after: int, keys: int, who: str) -> tuple[int, list[Rebased]]:
    """Applies the next chunk of a baseline feed: about `keys` keys, whole skus, each key at once.

    Gives the last sku of the chunk and what happened to each sku; (after, []) when there is none left.
    """
    skus = await chunk_skus(tx, feed_id=feed_id, after=after, keys=keys)
    if not skus:
        return after, []
    upto = skus[-1]
    locked = await lock(tx, skus)
    await plan_for_chunks(tx)
    done = await rebase_chunk(tx, feed_id=feed_id, after=after, upto=upto, who=who)
    await contain_chunk(tx, feed_id=feed_id, after=after, upto=upto)
    held = await lift_contained_holds(tx, feed_id=feed_id, after=after, upto=upto)
    held += await replace_reported_holds(tx, feed_id=feed_id, after=after, upto=upto)
    await plan_for_lookups(tx)
    await refold_held(tx, {(k.sku_id, k.location_id) for k in held})
    changed = {d.sku_id for d in done if d.changed} | {k.sku_id for k in held}
    await write(tx, locked, resum=changed, taken_anew=True)
    await move_cursor(tx, feed_id=feed_id, upto=upto)
    return upto, done


async def refold_held(tx: Connection, keys: Collection[tuple[int, int]]) -> None:
    """Sums the held units of these keys anew."""
    if keys:
        await fold_held(tx, skus=[k[0] for k in keys], locations=[k[1] for k in keys])


async def lift(
    tx: Connection,
    holds: Mapping[int, int],
    *,
    keys: Collection[tuple[int, int]],
    who: str,
    at: datetime | None = None,
) -> None:
    """Ends holds (hold id → units, at most what it holds) of these keys, at a moment of their source or now."""
    if holds:
        await lift_holds(tx, holds=list(holds), quantities=list(holds.values()), who=who, at=at)
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


async def keys_in_force(tx: Connection, source_id: int, facts: Sequence[Placed]) -> dict[int, InForce]:
    """For each message of a source: the snapshot in force of its key, and whether that contains it."""
    rows = await in_force_rows(
        tx, source_id=source_id, ks=[f.k for f in facts], skus=[f.sku_id for f in facts],
        locations=[f.location_id for f in facts], quantities=[f.quantity for f in facts], held=[f.held for f in facts],
        sequences=[f.sequence for f in facts], occurred=[f.occurred_at for f in facts],
    )  # fmt: skip
    return {row.k: row for row in rows}


async def moved_after(tx: Connection, source_id: int, counts: Sequence[Placed]) -> dict[int, int]:
    """For each count: the units that later movements have changed already, which it cannot see."""
    if not counts:
        return {}
    return dict(
        await moved_after_rows(
            tx, source_id=source_id, ks=[c.k for c in counts], skus=[c.sku_id for c in counts],
            locations=[c.location_id for c in counts], sequences=[c.sequence for c in counts],
            occurred=[c.occurred_at for c in counts],
        )
    )  # fmt: skip


async def holds_to_lift(
    tx: Connection, source_id: int, *, key: tuple[int, int], code: str | None, reference: str | None
) -> list[Hold]:
    """The holds that a release means: those of the movement that it names, else those of its code, oldest first."""
    if reference is not None:
        named = await hold_of_message(tx, source_id=source_id, message_id=reference)
        if named:
            return [hold for hold in named if (hold.sku_id, hold.location_id) == key]
    standing = await open_holds(tx, skus=[key[0]], locations=[key[1]])
    return [hold for hold in standing if code is None or hold.code == code]


async def revert(
    tx: Connection, *, baseline_id: int, location_id: int, feed_id: int, who: str, why: str
) -> dict[str, int]:
    """Takes a location's baseline back: its changes undone, what it absorbed counted again; {keys, units}."""
    effects = await revert_effects(tx, baseline_id=baseline_id)
    locked = await lock(tx, [e.sku_id for e in effects])
    effects = await revert_effects(tx, baseline_id=baseline_id)
    await stock(tx, [(e.sku_id, location_id) for e in effects])
    moment = await baseline_moment(tx, baseline_id=baseline_id)
    moves = [
        Move(
            sku_id=e.sku_id, location_id=location_id, source_id=HOUSE, message_id=f"revert:{baseline_id}",
            kind="baseline", quantity=e.effect, effect=e.effect, occurred_at=moment, reason=why,
        )
        for e in effects if e.effect
    ]  # fmt: skip
    await move(tx, moves, feed_id=feed_id, who=who)
    await uncontain(tx, baseline_id=baseline_id)
    await uncount_deductions(tx, baseline_id=baseline_id)
    held = await restore_holds(tx, baseline_id=baseline_id, location_id=location_id)
    await refold_held(tx, {(k.sku_id, k.location_id) for k in held})
    await put_back(tx, baseline_id=baseline_id)
    await write(tx, locked, resum=locked.keys())
    return {"keys": len(moves), "units": sum(abs(m.effect) for m in moves)}


async def correct_late(tx: Connection, keys: Collection[tuple[int, int]], *, who: str) -> set[int]:
    """Corrects keys whose snapshot turns out to contain (or not) what begins with us; gives the skus that changed.

    A count that is newer than the snapshot stands: then only its variance is corrected.
    """
    if not keys:
        return set()
    late = await late_acknowledgements(tx, skus=[k[0] for k in keys], locations=[k[1] for k in keys])
    late = [row for row in late if row.effect]
    counted = [row for row in late if row.counted_at is not None and row.counted_at > row.as_of]
    counts = {
        (c.sku_id, c.location_id): c
        for c in reversed(
            await counts_of(tx, skus=[r.sku_id for r in counted], locations=[r.location_id for r in counted])
        )
        if any((c.sku_id, c.location_id) == (r.sku_id, r.location_id) and c.occurred_at > r.as_of for r in counted)
    }
    if counted:
        rows = [(row, counts[row.sku_id, row.location_id]) for row in counted]
        await correct_count(
            tx, skus=[r.sku_id for r, _ in rows], locations=[r.location_id for r, _ in rows],
            versions=[c.version for _, c in rows], quantities=[r.effect for r, _ in rows],
        )  # fmt: skip
    moves: dict[int, list[Move]] = {}
    for row in late:
        if row not in counted:
            moves.setdefault(row.feed_id, []).append(
                Move(
                    sku_id=row.sku_id, location_id=row.location_id, source_id=row.source_id, kind="baseline",
                    message_id=f"late:{row.baseline_id}", quantity=row.effect, effect=row.effect, occurred_at=row.as_of,
                )
            )  # fmt: skip
    for feed_id, of_feed in moves.items():
        await move(tx, of_feed, feed_id=feed_id, who=who)
    return {m.sku_id for of_feed in moves.values() for m in of_feed}


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


async def restock(tx: Connection, *, location_id: int, after: int, limit: int) -> int | None:
    """Has the next stock rows of a location follow its safety stock and its on and off; None when it is done.

    A change that came between is seen: the location's mark is read again under its lock, and nothing is written
    where it is another than `after`; the mark is given back, to go on from there.
    """
    skus = await keys_of_location(tx, location_id=location_id, after=after, limit=limit)
    locked = await lock(tx, skus)
    mark = await lock_location(tx, location_id=location_id)
    if mark != after:
        return mark
    upto = skus[-1] if skus else None
    if skus:
        await follow_location(tx, location_id=location_id, skus=skus)
        await write(tx, locked, resum=skus)
    await follow_upto(tx, location_id=location_id, upto=upto)
    return upto
