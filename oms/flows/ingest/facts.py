"""What messages become under their skus' locks: movements that apply, that are absorbed, holds that are lifted."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from oms import ledger
from oms.db import Connection
from oms.domain.additions import hold_of_addition
from oms.ledger import Move

REDUCING = {"sale", "shipment", "transfer"}
RAISING = {"return", "receipt"}


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """A message in our words: ids, units in each, the sign that on_hand would take."""

    k: int
    message_id: str
    sku_id: int
    location_id: int
    location_kind: str
    kind: str
    quantity: int
    counted: int | None = None
    held: int = 0
    hold: str | None = None
    occurred_at: datetime
    sequence: int | None = None
    reason: str | None = None
    reference: str | None = None

    @property
    def key(self) -> tuple[int, int]:
        return self.sku_id, self.location_id


class Teller(msgspec.Struct, frozen=True):
    """The source that speaks: how its times and numbers order things, and its own rule for additions."""

    source_id: int
    code: str
    order_level: str
    window_seconds: int
    additions: dict[str, Any]
    has_owners: bool
    """Whether stock lies anywhere that is another's than its location's division's: then sales may be owed for."""

    @property
    def doubt(self) -> timedelta:
        """How far its clock may be off another's."""
        return timedelta(seconds=0 if self.order_level == "clock" else self.window_seconds)


class _Count:
    """A count of a key: from the ledger (with a version), or of this batch (with its place among the moves)."""

    __slots__ = ("at", "is_open", "place", "recorded_at", "sequence", "source_id", "version")

    def __init__(
        self,
        at: datetime,
        sequence: int | None,
        source_id: int,
        *,
        version: int | None = None,
        place: int | None = None,
        is_open: bool = True,
        recorded_at: datetime | None = None,
    ) -> None:
        self.at, self.sequence, self.source_id, self.version, self.place = at, sequence, source_id, version, place
        self.is_open, self.recorded_at = is_open, recorded_at

    def sees(self, fact: Fact, teller: Teller) -> bool:
        """Whether the movement happened before the count; doubt says what cannot oversell."""
        if self.source_id == teller.source_id and self.sequence is not None and fact.sequence is not None:
            return fact.sequence < self.sequence
        doubt = timedelta(0) if self.source_id == teller.source_id else teller.doubt
        if fact.quantity > 0 or (fact.quantity == 0 and fact.held < 0):
            return fact.occurred_at <= self.at + doubt
        return fact.occurred_at <= self.at - doubt


def addition_hold(fact: Fact, teller: Teller) -> str | None:
    """The hold code under which an addition waits, or None when it may be sold at once."""
    if fact.hold is not None:
        return fact.hold
    return hold_of_addition(fact.kind, location_kind=fact.location_kind, additions=teller.additions)


class Settled(msgspec.Struct, frozen=True):
    """What became of a fact."""

    k: int
    outcome: str
    detail: str | None = None


class _Batch:
    """The moves of one transaction while they are decided, in order."""

    def __init__(self, teller: Teller, feed_id: int | None, who: str) -> None:
        self.teller, self.feed_id, self.who = teller, feed_id, who
        self.moves: list[Move] = []
        self.on_hand: dict[tuple[int, int], int] = {}
        self.counts: dict[tuple[int, int], list[_Count]] = {}
        self.corrections: list[tuple[tuple[int, int], int, int]] = []

    async def flush(self, tx: Connection) -> None:
        """Writes what is decided so far."""
        written = await ledger.move(tx, self.moves, feed_id=self.feed_id, who=self.who)
        for counts in self.counts.values():
            for count in counts:
                if count.place is not None:
                    count.version, count.place = written[count.place].version, None
        if self.corrections:
            await ledger.correct_count(
                tx, skus=[key[0] for key, _, _ in self.corrections], locations=[key[1] for key, _, _ in self.corrections],
                versions=[version for _, version, _ in self.corrections],
                quantities=[quantity for _, _, quantity in self.corrections],
            )  # fmt: skip
        self.moves, self.corrections = [], []

    def add(self, fact: Fact, **changes: Any) -> None:
        given: dict[str, Any] = {
            "sku_id": fact.sku_id, "location_id": fact.location_id, "source_id": self.teller.source_id,
            "message_id": fact.message_id, "kind": fact.kind, "quantity": fact.quantity, "effect": fact.quantity,
            "occurred_at": fact.occurred_at, "sequence": fact.sequence, "reason": fact.reason,
            "reference": fact.reference, "hold_code": fact.hold, "held": fact.held,
        }  # fmt: skip
        move = Move(**(given | changes))
        self.on_hand[fact.key] = self.on_hand.get(fact.key, 0) + move.effect
        self.moves.append(move)

    def first_count(self, fact: Fact) -> _Count | None:
        """The first count that has seen this movement, which its variance therefore counts as well."""
        return next((c for c in self.counts.get(fact.key, ()) if fact.quantity and c.sees(fact, self.teller)), None)

    def correct(self, count: _Count, fact: Fact) -> None:
        """The movement is known now: the count's variance is that much smaller."""
        if count.place is not None:
            known = self.moves[count.place]
            self.moves[count.place] = msgspec.structs.replace(known, quantity=known.quantity - fact.quantity)
        elif count.version is not None:
            self.corrections.append((fact.key, count.version, fact.quantity))


async def settle(
    tx: Connection,
    locked: Mapping[int, ledger.Availability],
    facts: Sequence[Fact],
    *,
    teller: Teller,
    feed_id: int | None,
    who: str,
    corrected: Collection[int] = (),
) -> list[Settled]:
    """Writes facts to the ledger in their order, under the locks of their skus, and what it leaves of each once.

    `corrected` are skus whose stock the caller changed before.
    """
    keys = {fact.key for fact in facts}
    stock = await ledger.stock(tx, keys)
    state = await ledger.keys_in_force(tx, teller.source_id, facts)
    after = await ledger.moved_after(tx, teller.source_id, [f for f in facts if f.counted is not None])
    batch = _Batch(teller, feed_id, who)
    batch.on_hand = {key: row.on_hand for key, row in stock.items()}
    for c in await ledger.counts_of(tx, skus=[k[0] for k in keys], locations=[k[1] for k in keys]):
        batch.counts.setdefault((c.sku_id, c.location_id), []).append(
            _Count(
                c.occurred_at, c.sequence, c.source_id, version=c.version, is_open=c.is_open, recorded_at=c.recorded_at
            )
        )
    settled: list[Settled] = []
    for fact in facts:
        force = state[fact.k]
        count = batch.first_count(fact)
        if force.is_in and not (fact.held and fact.hold not in force.reported_holds):
            quantity = 0 if fact.counted is not None else fact.quantity
            # a hold that the snapshot's source does not know of stands, whatever the snapshot contains
            unknown = fact.hold is not None and fact.quantity > 0 and fact.hold not in force.reported_holds
            batch.add(
                fact, quantity=quantity, effect=_counted_twice(batch, fact, force, count),
                absorbed_by=f"baseline:{force.baseline_id}",
                contained_in=force.baseline_id, held=fact.quantity if unknown else 0,
            )  # fmt: skip
            settled.append(Settled(fact.k, "absorbed", f"contained in baseline {force.baseline_id}"))
        elif fact.counted is not None:
            settled.append(_count(batch, fact, after[fact.k]))
        elif fact.kind == "release":
            settled.append(await _release(tx, batch, fact, force))
        elif count is not None and (count.is_open or force.as_of is None or count.at > force.as_of):
            batch.correct(count, fact)
            batch.add(fact, effect=0, absorbed_by="count")
            settled.append(Settled(fact.k, "absorbed", "a later count has seen it"))
        else:
            code = addition_hold(fact, teller) if fact.quantity > 0 else fact.hold
            held = fact.held or (fact.quantity if code is not None and fact.quantity > 0 else 0)
            batch.add(fact, hold_code=code, held=held, **_deducted(fact, force))
            settled.append(Settled(fact.k, "applied", f"held: {code}" if held else None))
    await batch.flush(tx)
    was = {key: row.available for key, row in stock.items()}
    await ledger.write(tx, locked, was=was, resum={sku for sku, _ in keys} & set(corrected))
    return settled


def _counted_twice(batch: _Batch, fact: Fact, force: ledger.InForce, count: _Count | None) -> int:
    """The effect of a movement that the snapshot contains, where a count has seen it too before we knew of it.

    A count that its source has not posted is applied again over the snapshot, and with it the movement a second time.
    """
    if count is None or force.as_of is None:
        return 0
    if count.at <= force.as_of:
        if not count.is_open:
            return 0
        batch.correct(count, fact)
        return -fact.quantity
    if count.recorded_at is not None and (force.applied_at is None or count.recorded_at < force.applied_at):
        batch.correct(count, fact)
    return 0


def _deducted(fact: Fact, force: ledger.InForce) -> dict[str, Any]:
    """A hold that the snapshot in force had deducted is on hand all the same: it is added back, once."""
    if not (force.is_in and fact.held and fact.hold in force.deducted_holds):
        return {}
    return {"effect": fact.held, "contained_in": force.baseline_id}


def _count(batch: _Batch, fact: Fact, moved_after: int) -> Settled:
    """A count says what is there: its variance is what no known movement explains."""
    assert fact.counted is not None
    counts = batch.counts.setdefault(fact.key, [])
    if any(count.at >= fact.occurred_at for count in counts):
        batch.add(fact, quantity=0, effect=0, absorbed_by="count")
        return Settled(fact.k, "absorbed", "a later count stands")
    in_batch = sum(
        move.effect for move in batch.moves
        if (move.sku_id, move.location_id) == fact.key and move.occurred_at > fact.occurred_at
    )  # fmt: skip
    variance = fact.counted + moved_after + in_batch - batch.on_hand.get(fact.key, 0)
    batch.add(fact, quantity=variance, effect=variance)
    counts.append(_Count(fact.occurred_at, fact.sequence, batch.teller.source_id, place=len(batch.moves) - 1))
    counts.sort(key=lambda count: count.at)
    return Settled(fact.k, "applied", f"variance {variance:+d}" if variance else None)


async def _release(tx: Connection, batch: _Batch, fact: Fact, force: ledger.InForce) -> Settled:
    """Units under a hold may be sold again: of the movement that it names, else the oldest of that code."""
    if any((m.sku_id, m.location_id) == fact.key and m.held > 0 for m in batch.moves):
        await batch.flush(tx)
    holds = await ledger.holds_to_lift(
        tx, batch.teller.source_id, key=fact.key, code=fact.hold, reference=fact.reference
    )
    wanted, lifted = -fact.held, {}
    for hold in holds:
        units = min(wanted, hold.quantity)
        if units > 0:
            lifted[hold.hold_id] = units
            wanted -= units
    await ledger.lift(tx, lifted, keys=[fact.key], who=batch.who, at=fact.occurred_at)
    code = fact.hold or (holds[0].code if holds else None)
    batch.add(fact, held=-sum(lifted.values()), hold_code=code, **_deducted(fact, force))
    return Settled(fact.k, "applied", f"{wanted} of {-fact.held} were not under that hold" if wanted else None)
