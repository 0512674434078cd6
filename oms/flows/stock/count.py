"""Counts: blind, recounted where they are far off, seen against picks in progress; what nobody counted is untouched."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol
from uuid import UUID, uuid4

import msgspec

from oms import ledger, record
from oms.access import Actor, sees_location
from oms.cache import Cache
from oms.db import Connection, Database, Sql
from oms.domain.calendar import local_day
from oms.domain.counting import VALUE_CENTS_DEFAULT, after_count, needs_two, variance_of
from oms.errors import BadInput, Conflict, NotAllowed, NotFound
from oms.flows.stock.codes import place, skus_of

sql = Sql("stock")


class Seen(msgspec.Struct, frozen=True):
    """Units of a scanned code on the shelf; `reason` is what explains a difference, where somebody knows."""

    code: str
    quantity: int
    reason: str | None = None


class Limits(msgspec.Struct, frozen=True):
    """When a second person must agree at a location, or count again."""

    location_id: int
    write_off_cents_max: int
    recount_units_min: int


class Taken(msgspec.Struct, frozen=True):
    """A count whose row is taken."""

    count_id: UUID
    location_id: int
    location: str
    kind: str
    state: str
    made_at: datetime


class Line(msgspec.Struct, frozen=True):
    """A sku of a count and where it stands."""

    sku_id: int
    sku: str
    state: str
    counted: int | None
    counted_at: datetime | None
    counted_by: str | None
    variance: int | None
    reason: str | None
    value_cents: int | None


class _Fact(msgspec.Struct, frozen=True):
    k: int
    sku_id: int
    location_id: int
    occurred_at: datetime
    quantity: int = 0
    held: int = 0
    sequence: int | None = None


class _Gone(Protocol):
    @property
    def sku_id(self) -> int: ...


class Verdict(msgspec.Struct, frozen=True):
    """What a count of a sku comes to."""

    sku_id: int
    sku: str
    counted: int
    variance: int
    state: str
    reason: str | None
    cents: int


take_limits = sql.one("take_limits", Limits)
lost_today = sql.one("lost_today", int)
keep_write_off = sql.run("keep_write_off")
take_count = sql.maybe("take_count", Taken)
count_lines = sql.rows("count_lines", Line)
write_count_lines = sql.run("write_count_lines")
leave_lines = sql.run("leave_lines")
close_count = sql.run("close_count")
settle_lines = sql.run("settle_lines")
in_hands_at = sql.rows("in_hands_at", tuple)


async def take(tx: Connection, count_id: UUID, actor: Actor) -> Taken:
    """Takes a count that the caller sees; raises NotFound."""
    found = await take_count(tx, id=count_id)
    if found is None or not sees_location(actor, found.location_id):
        raise NotFound(f"There is no count {count_id}.")
    return found


async def enter(
    db: Database,
    *,
    count_id: UUID,
    lines: Sequence[Seen],
    actor: Actor,
    now: datetime,
    at: datetime | None = None,
    device: str | None = None,
    cache: Cache | None = None,
) -> list[Verdict]:
    """What was counted on the shelf at a moment (now where none is given); units in hands are added by us.

    A line that is far off is to be recounted by another person; a loss above the limit waits for a second one's yes.
    The same sku on several lines is summed. Raises NotFound, BadInput, Conflict, NotAllowed.
    """
    moment = at or now
    if not lines or any(n.quantity < 0 for n in lines) or moment > now:
        raise BadInput("lines: name what was counted, each with 0 or more units, at a moment that is not in the future")
    async with db.transaction() as tx:
        found = await take(tx, count_id, actor)
        if found.kind == "request" or found.state != "open":
            why = "its system counts" if found.kind == "request" else "it is closed"
            raise Conflict(f"Count {count_id} takes no lines: {why}.")
        standing = {n.sku_id: n for n in await count_lines(tx, id=count_id)}
        counted: dict[int, int] = {}
        reasons: dict[int, str | None] = {}
        for sku, n in zip(await skus_of(tx, [n.code for n in lines], rather=standing), lines, strict=True):
            counted[sku.sku_id] = counted.get(sku.sku_id, 0) + n.quantity
            reasons[sku.sku_id] = n.reason or reasons.get(sku.sku_id)
            before = standing.get(sku.sku_id) or Line(
                sku.sku_id, sku.code, "due", None, None, None, None, None, sku.value_cents
            )
            standing[sku.sku_id] = before
            if before.state not in ("due", "recount"):
                raise Conflict(f"{before.sku} was counted: it is {before.state}.")
            if before.state == "recount" and before.counted_by == actor.who:
                raise Conflict(f"{before.sku} is recounted by another person than {actor.who}.")
        verdicts = await _decide(
            tx,
            found,
            {s: standing[s] for s in counted},
            counted,
            reasons,
            moment=moment,
            now=now,
            actor=actor,
            device=device,
        )
    if cache is not None:
        for flow in ("broker", "project"):
            await cache.wake(flow)
    return verdicts


async def _decide(
    tx: Connection, found: Taken, lines: Mapping[int, Line], counted: Mapping[int, int],
    reasons: Mapping[int, str | None], *, moment: datetime, now: datetime, actor: Actor, device: str | None,
    is_final: bool = False,
) -> list[Verdict]:  # fmt: skip
    """Says of each counted sku what it comes to, and makes it so."""
    limits = await take_limits(tx, location_id=found.location_id)
    there = await place(tx, found.location_id)
    locked = await ledger.lock(tx, counted)
    variances, stale = await _variances(tx, found.location_id, counted, moment)
    verdicts = []
    for sku_id, units in sorted(counted.items()):
        line, variance = lines[sku_id], variances[sku_id]
        state = "superseded" if sku_id in stale else after_count(
            "final" if is_final else line.state, variance=variance, recount_units_min=limits.recount_units_min
        )  # fmt: skip
        value = VALUE_CENTS_DEFAULT if line.value_cents is None else line.value_cents
        verdicts.append(
            Verdict(sku_id, line.sku, units, variance, {"apply": "applied"}.get(state, state), reasons.get(sku_id),
                    max(0, -variance) * value)
        )  # fmt: skip
    lost = [v for v in verdicts if v.state == "applied" and v.variance < 0]
    day, cents = local_day(now, there.time_zone), sum(v.cents for v in lost)
    before = await lost_today(tx, location_id=found.location_id, day=day, who=actor.who)
    if needs_two(lost_today_cents=before, cents=cents, limit_cents=limits.write_off_cents_max):
        if actor.person is None:
            raise NotAllowed("Above the day's limit two people must agree; use a key that names a person.")
        waiting = {v.sku_id for v in lost}
        verdicts = [msgspec.structs.replace(v, state="waiting") if v.sku_id in waiting else v for v in verdicts]
    applied = [v for v in verdicts if v.state == "applied"]
    await _move(
        tx, found.count_id, found.location_id, {v.sku_id: (v.variance, v.reason) for v in applied}, moment, actor.who
    )
    await ledger.write(tx, locked, resum=[v.sku_id for v in applied])
    await write_count_lines(
        tx, id=found.count_id, skus=[v.sku_id for v in verdicts], states=[v.state for v in verdicts],
        counted=[v.counted for v in verdicts], variances=[v.variance for v in verdicts],
        reasons=[v.reason for v in verdicts], at=moment, who=actor.who,
    )  # fmt: skip
    if lost:
        is_waiting = any(v.state == "waiting" for v in verdicts)
        write_off_id = uuid4()
        gone = [{"sku_id": v.sku_id, "sku": v.sku, "quantity": -v.variance, "reason": v.reason or "unexplained",
                 "cents": v.cents} for v in lost]  # fmt: skip
        await keep_write_off(
            tx, id=write_off_id, location_id=found.location_id, day=day, kind="count", cents=cents, who=actor.who, at=now,
            state="waiting" if is_waiting else "applied", lines=gone, reference=str(found.count_id),
        )  # fmt: skip
        if is_waiting:
            await wait_for_another(
                tx,
                write_off_id,
                location=found.location,
                cents=cents,
                who=actor.who,
                what=", ".join(v.sku for v in lost),
            )
    detail = {"device": device, "lines": {v.sku: [v.counted, v.variance, v.state] for v in verdicts}}
    await record.keep(tx, who=actor.who, steps=[record.Step("count", str(found.count_id), "counted", detail=detail)])
    return verdicts


async def _variances(
    tx: Connection, location_id: int, counted: Mapping[int, int], moment: datetime
) -> tuple[dict[int, int], set[int]]:
    """The variance of each counted sku; and those for which a newer count or snapshot stands. Skus are locked."""
    skus = sorted(counted)
    stock = await ledger.stock(tx, [(s, location_id) for s in skus])
    facts = [_Fact(k, s, location_id, moment) for k, s in enumerate(skus)]
    force = await ledger.keys_in_force(tx, ledger.HOUSE, facts)
    moved = await ledger.moved_after(tx, ledger.HOUSE, facts)
    hands: dict[int, int] = dict(await in_hands_at(tx, location_id=location_id, skus=skus, at=moment))
    variances, stale = {}, set()
    for k, s in enumerate(skus):
        row = force[k]
        if any(at is not None and at >= moment for at in (row.as_of, row.counted_at)):
            stale.add(s)
        variances[s] = variance_of(
            counted=counted[s], in_hands=hands.get(s, 0), moved_after=moved.get(k, 0),
            on_hand=stock[s, location_id].on_hand,
        )  # fmt: skip
    return variances, stale


async def _move(
    tx: Connection, count_id: UUID, location_id: int, variances: Mapping[int, tuple[int, str | None]], moment: datetime,
    who: str,
) -> None:  # fmt: skip
    moves = [
        ledger.Move(
            sku_id=sku_id, location_id=location_id, source_id=ledger.HOUSE, kind="count", quantity=variance, effect=variance,
            message_id=f"count:{count_id}:{sku_id}", occurred_at=moment, reason=reason, reference=str(count_id),
            is_ours=True,
        )
        for sku_id, (variance, reason) in sorted(variances.items())
    ]  # fmt: skip
    await ledger.move(tx, moves, feed_id=None, who=who)


async def wait_for_another(
    tx: Connection, write_off_id: UUID, *, location: str, cents: int, who: str, what: str
) -> None:
    """A loss above the limit is an exception until another person has decided."""
    trouble = record.Trouble(
        kind="write_off_waiting", subject=str(write_off_id), owner="approver",
        detail=f"{who} writes off {what} at {location}, worth {cents} cents: with what they wrote off today that is above "
        "their limit. Another person agrees or refuses.",
        payload={"location": location, "write_off": str(write_off_id), "cents": cents},
    )  # fmt: skip
    await record.raise_exceptions(tx, [trouble])


async def settle(
    tx: Connection, count_id: UUID, gone: Sequence[_Gone], location_id: int, *, agrees: bool, who: str, now: datetime
) -> None:
    """Lines that waited for a second person are booked as they were counted, or stay as they were."""
    skus = {n.sku_id for n in gone}
    lines = [n for n in await count_lines(tx, id=count_id) if n.sku_id in skus and n.state == "waiting"]
    locked = await ledger.lock(tx, skus)
    done: dict[str, list[Line]] = {}
    final: dict[int, int] = {}
    for n in lines:
        assert n.counted is not None and n.counted_at is not None
        variances, stale = await _variances(tx, location_id, {n.sku_id: n.counted}, n.counted_at)
        final[n.sku_id] = variances[n.sku_id]
        state = "refused" if not agrees else "superseded" if stale else "applied"
        done.setdefault(state, []).append(n)
        if state == "applied":
            await _move(tx, count_id, location_id, {n.sku_id: (final[n.sku_id], n.reason)}, n.counted_at, who)
    await ledger.write(tx, locked, resum=[n.sku_id for n in done.get("applied", [])])
    for state, some in done.items():
        await settle_lines(
            tx, id=count_id, state=state, skus=[n.sku_id for n in some], variances=[final[n.sku_id] for n in some]
        )


async def close(
    db: Database, *, count_id: UUID, actor: Actor, now: datetime, device: str | None = None, cache: Cache | None = None
) -> str:
    """A count is done: what nobody counted is untouched, and of a full count it is not there. Raises Conflict."""
    async with db.transaction() as tx:
        found = await take(tx, count_id, actor)
        if found.state == "closed":
            return "closed"
        lines = await count_lines(tx, id=count_id)
        again = [n.sku for n in lines if n.state == "recount"]
        if again and found.kind != "request":
            raise Conflict(f"To be recounted by another person first: {', '.join(again)}.")
        left = {n.sku_id: n for n in lines if n.state == "due"}
        if found.kind == "full" and left:
            zero = dict.fromkeys(left, 0)
            reasons: dict[int, str | None] = dict.fromkeys(left, "not found in a full count")
            await _decide(
                tx, found, left, zero, reasons, moment=now, now=now, actor=actor, device=device, is_final=True
            )
        await leave_lines(tx, id=count_id)
        await close_count(tx, id=count_id, at=now)
        await record.keep(tx, who=actor.who, steps=[record.Step("count", str(count_id), "closed")])
    if cache is not None:
        for flow in ("broker", "project"):
            await cache.wake(flow)
    return "closed"
