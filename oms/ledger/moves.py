"""Stock rows and the movements that change them; units under a hold."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

import msgspec

from oms.db import Connection
from oms.ledger.availability import lock, write
from oms.ledger.statements import sql

HOUSE = 1
"""The source id of what begins with us."""


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


ensure_stock = sql.run("ensure_stock")
lock_stock = sql.rows("lock_stock", Stock)
write_movements = sql.rows("write_movements", Written)
hold_of_message = sql.rows("hold_of_message", Hold)
open_holds = sql.rows("open_holds", Hold)
lift_holds = sql.run("lift_holds")
place_holds = sql.run("place_holds")
fold_held = sql.run("fold_held")
keys_of_location = sql.rows("keys_of_location", int)
lock_location = sql.maybe("lock_location", int)
follow_location = sql.run("follow_location")
follow_upto = sql.run("follow_upto")


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


async def refold(tx: Connection, keys: Collection[tuple[int, int]]) -> None:
    """Held units of (sku, location) keys are summed anew, and what that leaves is written."""
    if keys:
        locked = await lock(tx, {sku_id for sku_id, _ in keys})
        await refold_held(tx, set(keys))
        await write(tx, locked, resum=sorted(locked))


async def restock_skus(tx: Connection, skus: Collection[int]) -> None:
    """Has the stock rows of these skus follow what is kept back of them, everywhere."""
    if skus:
        locked = await lock(tx, skus)
        await follow_location(tx, location_id=None, skus=sorted(locked))
        await write(tx, locked, resum=sorted(locked))


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
