"""A baseline resets keys chunk by chunk, may be taken back, and is corrected by what is learned late."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from oms.db import Connection
from oms.ledger.availability import lock, write
from oms.ledger.moves import HOUSE, Move, move, refold_held, stock
from oms.ledger.statements import sql


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
baseline_moment = sql.one("baseline_moment", datetime)


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
